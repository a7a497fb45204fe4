//! The form of a silence: new, changed, or made again. It says how many alerts it would
//! silence before it is saved.
//!
//! Changing follows Alertmanager: another end keeps the silence, anything else ends it
//! and makes a new one.

use askama::Template;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::tz::TimeZone;

use super::error::refuse;
use super::frame::{Frame, respond};
use super::request::{Request, parse};
use super::silences::unreadable;
use super::time::moment;
use crate::alerting::{Silence, SilenceError, SilenceState, hex};
use crate::model::{Matcher, Timestamp, duration, matchers};
use crate::web::context::Context;
use crate::web::form::{self, Guard};

/// Alerts that a preview names.
const PREVIEW_MAX: usize = 20;

/// The longest text of a field, in bytes.
const FIELD_BYTES_MAX: usize = 16 << 10;

#[derive(Template)]
#[template(path = "silence_form.html")]
struct FormPage {
    frame: Frame,
    token: String,
    fields: Fields,
    mistake: String,
    preview: Option<Preview>,
    replaces: bool,
}

/// What was typed.
#[derive(Clone, Default)]
struct Fields {
    id: String,
    matchers: String,
    starts: String,
    ends: String,
    by: String,
    comment: String,
}

/// What a silence would do.
struct Preview {
    count: usize,
    alerts: Vec<Named>,
    left_out: usize,
}

/// An alert in a preview.
struct Named {
    url: String,
    name: String,
    labels: Vec<(String, String)>,
}

/// An empty form, or one that begins with what the URL says.
pub(super) async fn new(State(context): State<Context>, request: Request) -> Response {
    let given = |name: &str, default: &str| request.get(name).unwrap_or(default).to_owned();
    let fields = Fields {
        id: String::new(),
        matchers: given("matchers", ""),
        starts: given("starts", ""),
        ends: given("ends", "2h"),
        by: given("by", ""),
        comment: given("comment", ""),
    };
    let has_matchers = !fields.matchers.is_empty();
    show(&context, &request, fields, "", has_matchers).await
}

/// The form with an existing silence.
pub(super) async fn edit(
    State(context): State<Context>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let Ok(silences) = context.alerting.silences().await else {
        return unreadable(&context, &request);
    };
    let Some(silence) = silences.into_iter().find(|silence| silence.id == id) else {
        let text = "There is no such silence, or it ended more than five days ago.";
        return refuse(&context, &request, StatusCode::NOT_FOUND, text);
    };
    let fields = Fields::of(&silence, context.clock.now(), &request.zone());
    show(&context, &request, fields, "", true).await
}

/// Saves the form, or shows it again with what it would do.
pub(super) async fn save(
    State(context): State<Context>,
    request: Request,
    body: Bytes,
) -> Response {
    let pairs = parse(&String::from_utf8_lossy(&body));
    let value = |name: &str| {
        let found = pairs.iter().rev().find(|(n, _)| n == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let field = |name: &str| value(name).trim().replace("\r\n", "\n");
    let fields = Fields {
        id: field("id"),
        matchers: field("matchers"),
        starts: field("starts"),
        ends: field("ends"),
        by: field("by"),
        comment: field("comment"),
    };
    if !form::is_ours(&context, &request, value(form::FIELD)) {
        let text = "This page was too old, so nothing was saved. What you typed is still here.";
        return show(&context, &request, fields, text, true).await;
    }
    if value("do") == "preview" {
        return show(&context, &request, fields, "", true).await;
    }
    let silences = context.alerting.silences().await.unwrap_or_default();
    let old = silences.iter().find(|silence| silence.id == fields.id);
    let silence = match fields.silence(old, context.clock.now(), &request.zone()) {
        Ok(silence) => silence,
        Err(mistake) => return show(&context, &request, fields, &mistake, true).await,
    };
    match context.alerting.set_silence(silence).await {
        Ok(id) => Redirect::to(&format!("/alerts/silences?made={id}")).into_response(),
        Err(SilenceError::Store(err)) => {
            tracing::error!(error = %err, "request failed");
            unreadable(&context, &request)
        }
        Err(err) => show(&context, &request, fields, &err.to_string(), true).await,
    }
}

async fn show(
    context: &Context,
    request: &Request,
    fields: Fields,
    mistake: &str,
    with_preview: bool,
) -> Response {
    let (preview, unread) = match (with_preview, fields.matchers()) {
        (true, Ok(matchers)) => (preview(context, &matchers).await, String::new()),
        (true, Err(err)) => (None, err),
        (false, _) => (None, String::new()),
    };
    let mistake = if mistake.is_empty() {
        unread
    } else {
        mistake.to_owned()
    };
    let title = if fields.id.is_empty() {
        "New silence"
    } else {
        "Change a silence"
    };
    let mut frame = Frame::new(context, request, title, "/alerts");
    frame.crumb = Some(("Silences", "/alerts/silences"));
    let guard = Guard::new(context, request);
    let status = match mistake.as_str() {
        "" => StatusCode::OK,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let page = FormPage {
        frame,
        token: guard.token.clone(),
        replaces: !fields.id.is_empty(),
        fields,
        mistake,
        preview,
    };
    guard.dress(respond(request, status, &page))
}

/// The firing alerts that fulfil all matchers.
async fn preview(context: &Context, matchers: &[Matcher]) -> Option<Preview> {
    let picture = context.alerting.picture().await.ok()?;
    let concerned: Vec<_> = picture
        .alerts
        .iter()
        .map(|status| &status.alert.labels)
        .filter(|labels| matchers.iter().all(|m| m.matches_labels(labels)))
        .collect();
    let named = concerned.iter().take(PREVIEW_MAX).map(|labels| {
        let others = labels.iter().filter(|(name, _)| *name != "alertname");
        Named {
            url: format!("/alerts/{}", hex(labels.fingerprint())),
            name: labels.value("alertname").to_owned(),
            labels: others.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        }
    });
    Some(Preview {
        count: concerned.len(),
        alerts: named.collect(),
        left_out: concerned.len().saturating_sub(PREVIEW_MAX),
    })
}

impl Fields {
    fn of(silence: &Silence, now: Timestamp, zone: &TimeZone) -> Fields {
        let lines: Vec<String> = silence.matchers.iter().map(ToString::to_string).collect();
        let is_over = silence.state(now) == SilenceState::Expired;
        let kept = |at: Timestamp| typed(at, zone);
        Fields {
            id: silence.id.clone(),
            matchers: lines.join("\n"),
            // One that has ended is made again from now on.
            starts: if is_over {
                String::new()
            } else {
                kept(silence.starts_at)
            },
            ends: if is_over {
                let length = silence.ends_at.ms_since(silence.starts_at).max(1_000);
                let secs = length.unsigned_abs() / 1_000;
                duration::format(std::time::Duration::from_secs(secs))
            } else {
                kept(silence.ends_at)
            },
            by: silence.created_by.clone(),
            comment: silence.comment.clone(),
        }
    }

    /// The matchers, of which each line holds one or several.
    fn matchers(&self) -> Result<Vec<Matcher>, String> {
        let mut all = Vec::new();
        for line in self
            .matchers
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
        {
            all.extend(matchers::parse(line).map_err(|err| err.to_string())?);
        }
        if all.is_empty() {
            return Err("At least one matcher is needed.".to_owned());
        }
        Ok(all)
    }

    /// The silence that was typed. The one it changes lends what a form cannot hold:
    /// whose it is, and times to the millisecond.
    fn silence(
        &self,
        old: Option<&Silence>,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<Silence, String> {
        let matchers = self.matchers()?;
        if self.by.is_empty() || self.comment.is_empty() {
            return Err("Say who you are and why: others will wonder.".to_owned());
        }
        let longest = [&self.by, &self.comment, &self.matchers];
        if longest.iter().any(|text| text.len() > FIELD_BYTES_MAX) {
            return Err("That text is too long.".to_owned());
        }
        let kept = |text: &str, at: Option<Timestamp>| at.filter(|at| typed(*at, zone) == text);
        let starts_at = match self.starts.as_str() {
            "" | "now" => now,
            text => match kept(text, old.map(|s| s.starts_at)) {
                Some(at) => at,
                None => moment_of(text, zone).ok_or("The start is not a time.")?,
            },
        };
        let ends_at = match kept(&self.ends, old.map(|s| s.ends_at)) {
            Some(at) => at,
            None => match duration::parse_ms(&self.ends) {
                Ok(ms) => starts_at
                    .max(now)
                    .plus_ms(i64::try_from(ms).unwrap_or(i64::MAX)),
                Err(_) => moment_of(&self.ends, zone)
                    .ok_or("The end is neither a time nor a duration.")?,
            },
        };
        if ends_at <= starts_at || ends_at <= now {
            return Err("The end must come after the start, and after now.".to_owned());
        }
        Ok(Silence {
            id: self.id.clone(),
            tenant: old.map(|s| s.tenant.clone()).unwrap_or_default(),
            matchers,
            starts_at,
            ends_at,
            updated_at: now,
            created_by: self.by.clone(),
            comment: self.comment.clone(),
        })
    }
}

/// A time as it stands in a field.
fn typed(at: Timestamp, zone: &TimeZone) -> String {
    crate::web::dashboard::timerange::civil(at, zone, "%Y-%m-%d %H:%M:%S")
        .unwrap_or_else(|| moment(at, zone))
}

/// `2026-11-21 18:00` in the zone of the page, or RFC 3339.
fn moment_of(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_ms(at.as_millisecond()));
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let at = civil.to_zoned(zone.clone()).ok()?;
    Some(Timestamp::from_ms(at.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_795_181_400_500);

    fn fields(starts: &str, ends: &str) -> Fields {
        Fields {
            id: String::new(),
            matchers: "alertname=\"A\"\nsite=~\"n.*\", x!=\"1\"".to_owned(),
            starts: starts.to_owned(),
            ends: ends.to_owned(),
            by: "me".to_owned(),
            comment: "why".to_owned(),
        }
    }

    #[test]
    fn times_are_read_in_the_zone_of_the_page() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let silence = fields("", "2h").silence(None, NOW, &zone).unwrap();
        assert_eq!(silence.starts_at, NOW);
        assert_eq!(silence.ends_at, NOW.plus_ms(7_200_000));
        assert_eq!(silence.matchers.len(), 3);
        let late = fields("2026-11-21 18:00", "2026-11-21T18:30:00Z");
        let silence = late.silence(None, NOW, &zone).unwrap();
        assert_eq!(silence.starts_at.to_rfc3339(), "2026-11-21T17:00:00.000Z");
        assert_eq!(silence.ends_at.to_rfc3339(), "2026-11-21T18:30:00.000Z");
        for (starts, ends) in [
            ("soon", "2h"),
            ("", "later"),
            ("", ""),
            ("", "0s"),
            ("", "2020-01-01"),
        ] {
            assert!(
                fields(starts, ends).silence(None, NOW, &zone).is_err(),
                "{ends}"
            );
        }
    }

    #[test]
    fn what_was_not_typed_anew_stays_to_the_millisecond() {
        let zone = TimeZone::UTC;
        let mut old = fields("", "2h").silence(None, NOW, &zone).unwrap();
        old.id = "x".to_owned();
        old.tenant = "acme".to_owned();
        let later = NOW.plus_ms(60_000);
        let mut form = Fields::of(&old, later, &zone);
        form.ends = "3h".to_owned();
        let new = form.silence(Some(&old), later, &zone).unwrap();
        assert_eq!((new.starts_at, new.tenant.as_str()), (NOW, "acme"));
        assert_eq!(new.ends_at, later.plus_ms(10_800_000));
        assert_eq!(new.matchers, old.matchers);
        // One that has ended is made again, as long as before.
        let over = Fields::of(&old, NOW.plus_ms(86_400_000), &zone);
        assert_eq!((over.starts.as_str(), over.ends.as_str()), ("", "2h"));
    }
}
