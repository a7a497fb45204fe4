//! `/api/v2/silences` and `/silence/{id}`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::alerts::filters;
use super::answer::{Error, parsed};
use super::date_time::time;
use super::scope::Scope;
use crate::alerting::{Silence, sort_silences};
use crate::config::routing::is_label_name;
use crate::model::{MatchOp, Matcher, Timestamp};
use crate::web::Context;

/// Five days before the year 10000: Alertmanager keeps a silence for so long after its
/// end, and can write down no later time.
const END: Timestamp = Timestamp::from_ms(253_401_868_800_000);

/// A silence with where it stands.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    id: String,
    status: ShownStatus,
    updated_at: String,
    comment: String,
    created_by: String,
    ends_at: String,
    matchers: Vec<ShownMatcher>,
    starts_at: String,
}

#[derive(Serialize)]
struct ShownStatus {
    state: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownMatcher {
    is_equal: bool,
    is_regex: bool,
    name: String,
    value: String,
}

impl Shown {
    fn of(silence: &Silence, now: Timestamp) -> Shown {
        let matcher = |m: &Matcher| ShownMatcher {
            is_equal: matches!(m.op, MatchOp::Equal | MatchOp::Regex),
            is_regex: matches!(m.op, MatchOp::Regex | MatchOp::NotRegex),
            name: m.name.clone(),
            value: m.value.clone(),
        };
        Shown {
            id: silence.id.clone(),
            status: ShownStatus {
                state: silence.state(now).as_str(),
            },
            updated_at: silence.updated_at.to_rfc3339(),
            comment: silence.comment.clone(),
            created_by: silence.created_by.clone(),
            ends_at: silence.ends_at.to_rfc3339(),
            matchers: silence.matchers.iter().map(matcher).collect(),
            starts_at: silence.starts_at.to_rfc3339(),
        }
    }
}

/// The silences that are theirs: the operator sees everybody's.
async fn visible(context: &Context, scope: &Scope) -> Result<Vec<Silence>, Error> {
    let mut silences = context.alerting.silences().await?;
    silences.retain(|s| *scope == Scope::Operator || s.tenant == scope.tenant());
    Ok(silences)
}

/// All silences that fulfil the filters: active ones first.
pub async fn list(
    State(context): State<Context>,
    scope: Scope,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Vec<Shown>>, Error> {
    let filters = filters(&pairs)?;
    let mut silences = visible(&context, &scope).await?;
    silences.retain(|silence| {
        // As Alertmanager: the text of the silence's matcher stands for a label's value.
        let value = |name: &str| {
            let last = silence.matchers.iter().rev().find(|m| m.name == name);
            last.map_or("", |m| m.value.as_str())
        };
        filters
            .iter()
            .all(|filter| filter.matches(value(&filter.name)))
    });
    let now = context.clock.now();
    sort_silences(&mut silences, now);
    Ok(Json(silences.iter().map(|s| Shown::of(s, now)).collect()))
}

/// One silence.
pub async fn get(
    State(context): State<Context>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Error> {
    check_id(&id)?;
    let silences = visible(&context, &scope).await?;
    let found = silences.iter().find(|silence| silence.id == id);
    let found = found.ok_or(Error::NotFound(""))?;
    Ok(Json(Shown::of(found, context.clock.now())))
}

/// Ends a silence.
pub async fn delete(
    State(context): State<Context>,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<StatusCode, Error> {
    check_id(&id)?;
    context.alerting.expire_silence(scope.tenant(), &id).await?;
    Ok(StatusCode::OK)
}

fn check_id(id: &str) -> Result<(), Error> {
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    let is_hex = id.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    if lengths == [8, 4, 4, 4, 12] && is_hex {
        return Ok(());
    }
    let text = format!("silenceID in path must be of type uuid: {id:?}");
    Err(Error::Invalid(601, text))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    id: Option<String>,
    matchers: Option<Vec<GivenMatcher>>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenMatcher {
    name: Option<String>,
    value: Option<String>,
    is_regex: Option<bool>,
    is_equal: Option<bool>,
}

/// The answer to a silence that was made.
#[derive(Serialize)]
pub struct Made {
    #[serde(rename = "silenceID")]
    silence_id: String,
}

/// Makes or changes a silence.
pub async fn post(
    State(context): State<Context>,
    scope: Scope,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Made>, Error> {
    let given: Option<Given> = parsed("silence", &headers, &body)?;
    let silence = given
        .unwrap_or_default()
        .checked(&scope, context.clock.now())?;
    let silence_id = context.alerting.set_silence(silence).await?;
    Ok(Json(Made { silence_id }))
}

impl Given {
    fn checked(self, scope: &Scope, now: Timestamp) -> Result<Silence, Error> {
        let missing = |field: &str| Error::Invalid(602, format!("{field} in body is required"));
        let comment = self.comment.ok_or_else(|| missing("comment"))?;
        let created_by = self.created_by.ok_or_else(|| missing("createdBy"))?;
        let ends_at = self.ends_at.ok_or_else(|| missing("endsAt"))?;
        let ends_at = time("silence", &ends_at)?;
        let matchers = self.matchers.ok_or_else(|| missing("matchers"))?;
        let starts_at = self.starts_at.ok_or_else(|| missing("startsAt"))?;
        let starts_at = time("silence", &starts_at)?;
        if matchers.is_empty() {
            let text = "matchers in body should have at least 1 items";
            return Err(Error::Invalid(612, text.to_owned()));
        }
        if starts_at >= ends_at {
            let text = "Failed to create silence: start time must be before end time";
            return Err(Error::Bad(text.to_owned()));
        }
        if ends_at < now {
            let text = "Failed to create silence: end time can't be in the past";
            return Err(Error::Bad(text.to_owned()));
        }
        if ends_at >= END {
            let text = "Failed to create silence: it would be kept until after 10000-01-01";
            return Err(Error::Bad(text.to_owned()));
        }
        let matchers = matchers.into_iter().enumerate();
        let matchers = matchers.map(|(at, given)| given.checked(at));
        Ok(Silence {
            id: self.id.unwrap_or_default(),
            tenant: scope.tenant().to_owned(),
            matchers: matchers.collect::<Result<_, _>>()?,
            starts_at,
            ends_at,
            updated_at: now,
            created_by,
            comment,
        })
    }
}

impl GivenMatcher {
    fn checked(self, at: usize) -> Result<Matcher, Error> {
        let missing = |field: &str| {
            let text = format!("matchers.{at}.{field} in body is required");
            Error::Invalid(602, text)
        };
        let is_regex = self.is_regex.ok_or_else(|| missing("isRegex"))?;
        let name = self.name.ok_or_else(|| missing("name"))?;
        let value = self.value.ok_or_else(|| missing("value"))?;
        let bad = |why: &str| {
            Error::Bad(format!(
                "silence invalid: invalid label matcher {at}: {why}"
            ))
        };
        if !is_label_name(&name) {
            return Err(bad(&format!("invalid label name {name:?}")));
        }
        let op = match (self.is_equal.unwrap_or(true), is_regex) {
            (true, false) => MatchOp::Equal,
            (false, false) => MatchOp::NotEqual,
            (true, true) => MatchOp::Regex,
            (false, true) => MatchOp::NotRegex,
        };
        Matcher::new(&name, op, &value)
            .map_err(|err| bad(&format!("invalid regular expression {value:?}: {err}")))
    }
}
