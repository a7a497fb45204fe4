//! `GET /api/v2/alerts`, `/alerts/groups` and `/receivers`.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::answer::{Error, flag};
use super::scope::Scope;
use crate::alerting::{AlertStatus, hex};
use crate::model::matcher::anchored;
use crate::model::{Matcher, Timestamp, matchers};
use crate::web::Context;
use crate::web::api::json::{self, Object};

type Pairs = Query<Vec<(String, String)>>;

/// A long list is sent in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;

/// Who reads so many alerts holds little memory, however slowly they read.
const FEW: usize = 2_000;
/// Readers of more alerts at once: a list of 50,000 is 12 MB until it is sent, which may
/// take a minute for each piece.
static PLACES: Semaphore = Semaphore::const_new(4);
/// How long others wait for one of them to end.
const PLACE_WAIT: Duration = Duration::from_secs(10);

/// What `GET /alerts` and `GET /alerts/groups` may be asked.
struct Wanted {
    matchers: Vec<Matcher>,
    receiver: Option<regex::Regex>,
    active: bool,
    silenced: bool,
    inhibited: bool,
    scope: Scope,
}

impl Wanted {
    fn new(pairs: &[(String, String)], scope: Scope) -> Result<Wanted, Error> {
        let last = |name: &str| {
            let found = pairs.iter().rev().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        let receiver = last("receiver").filter(|text| !text.is_empty());
        let receiver = receiver.map(anchored).transpose().map_err(|err| {
            let why = matchers::anchored_reason(&err);
            Error::Bad(format!("failed to parse receiver param: {why}"))
        })?;
        Ok(Wanted {
            matchers: filters(pairs)?,
            receiver,
            active: flag(last("active")),
            silenced: flag(last("silenced")),
            inhibited: flag(last("inhibited")),
            scope,
        })
    }

    fn wants(&self, status: &AlertStatus) -> bool {
        let labels = &status.alert.labels;
        self.scope.covers(labels)
            && (self.active || status.is_suppressed())
            && (self.silenced || status.silenced_by.is_empty())
            && (self.inhibited || status.inhibited_by.is_none())
            && self.matchers.iter().all(|m| m.matches_labels(labels))
    }

    fn wants_receiver(&self, name: &str) -> bool {
        let receiver = self.receiver.as_ref();
        receiver.is_none_or(|pattern| pattern.is_match(name))
    }
}

/// All matchers of the `filter` parameters.
///
/// # Errors
/// With the first that is none.
pub(super) fn filters(pairs: &[(String, String)]) -> Result<Vec<Matcher>, Error> {
    let filters = pairs.iter().filter(|(name, _)| name == "filter");
    filters
        .map(|(_, text)| matchers::parse_one(text).map_err(|err| Error::Bad(err.to_string())))
        .collect()
}

/// A receiver.
#[derive(Serialize)]
pub struct Named {
    name: String,
}

/// Writes alerts as Alertmanager shows them.
struct Writer {
    wanted: Wanted,
    now: Timestamp,
}

impl Writer {
    /// An alert of our own rules ends when they say so: until then its end is shown
    /// as far away as that of an alert without one.
    fn write(&self, out: &mut Vec<u8>, status: &AlertStatus, receivers: &[&str]) {
        const OPEN_END_MS: i64 = 300_000;
        let alert = &status.alert;
        let ends_at = alert.ends_at.unwrap_or(self.now.plus_ms(OPEN_END_MS));
        let mut object = Object::new(out);
        object
            .pairs("annotations", &alert.annotations)
            .text("endsAt", &ends_at.to_rfc3339())
            .text("fingerprint", &hex(alert.labels.fingerprint()));
        json::array(object.field("receivers"), receivers, |out, name| {
            named(out, name);
        });
        object.text("startsAt", &alert.starts_at.to_rfc3339());
        let mut of_status = Object::new(object.field("status"));
        let texts = |out: &mut Vec<u8>, text: &String| json::html_safe_string(out, text);
        json::array(of_status.field("inhibitedBy"), &status.inhibited_by, texts);
        json::array(of_status.field("silencedBy"), &status.silenced_by, texts);
        let state = match status.is_suppressed() {
            true => "suppressed",
            false => "active",
        };
        of_status.text("state", state).end();
        object.text("updatedAt", &alert.updated_at.to_rfc3339());
        if !alert.generator_url.is_empty() {
            json::string(object.field("generatorURL"), &alert.generator_url);
        }
        json::labels(object.field("labels"), &alert.labels);
        object.end();
    }

    /// Writes an alert of the list, if it is asked for; says whether it was.
    fn listed(&self, out: &mut Vec<u8>, status: &AlertStatus, is_first: bool) -> bool {
        let receivers: Vec<&str> = status.receivers.iter().map(String::as_str).collect();
        let is_theirs = self.wanted.receiver.is_none()
            || receivers
                .iter()
                .any(|name| self.wanted.wants_receiver(name));
        if !self.wanted.wants(status) || !is_theirs {
            return false;
        }
        out.push(if is_first { b'[' } else { b',' });
        self.write(out, status, &receivers);
        true
    }
}

fn named(out: &mut Vec<u8>, name: &str) {
    Object::new(out).text("name", name).end();
}

/// The firing alerts that are asked for, by fingerprint. They are written while they are
/// sent: of tens of thousands there is never the whole text.
pub async fn list(
    State(context): State<Context>,
    scope: Scope,
    Query(pairs): Pairs,
) -> Result<Response, Error> {
    let writer = Writer {
        wanted: Wanted::new(&pairs, scope)?,
        now: context.clock.now(),
    };
    let place = place(&context).await?;
    let mut alerts = context.alerting.picture().await?.alerts.into_iter();
    let (mut is_first, mut is_over) = (true, false);
    Ok(in_pieces(Box::new(move || {
        let _held_until_all_is_sent = &place;
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        while piece.len() < PIECE_BYTES && !is_over {
            match alerts.next() {
                Some(status) => is_first &= !writer.listed(&mut piece, &status, is_first),
                None => {
                    piece.extend_from_slice(if is_first { b"[]\n" } else { b"]\n" });
                    is_over = true;
                }
            }
        }
        Bytes::from(piece)
    })))
}

/// A place among those who may read many alerts: none is needed while there are few. It is
/// taken before the alerts are.
async fn place(context: &Context) -> Result<Option<SemaphorePermit<'static>>, Error> {
    let groups = context.alerting.groups();
    if groups.iter().map(|group| group.alerts.len()).sum::<usize>() <= FEW {
        return Ok(None);
    }
    let place = tokio::time::timeout(PLACE_WAIT, PLACES.acquire()).await;
    let place = place.ok().and_then(Result::ok);
    place.map(Some).ok_or(Error::Busy)
}

/// An answer of pieces, of which an empty one is the end.
fn in_pieces(mut next: Box<dyn FnMut() -> Bytes + Send>) -> Response {
    let pieces = std::iter::from_fn(move || {
        let piece = next();
        (!piece.is_empty()).then_some(Ok::<_, std::convert::Infallible>(piece))
    });
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The same in their groups.
pub async fn groups(
    State(context): State<Context>,
    scope: Scope,
    Query(pairs): Pairs,
) -> Result<Response, Error> {
    let writer = Writer {
        wanted: Wanted::new(&pairs, scope)?,
        now: context.clock.now(),
    };
    let wanted = &writer.wanted;
    let place = place(&context).await?;
    let picture = context.alerting.picture().await?;
    let groups = picture.groups(&|status| wanted.wants(status), &|name| {
        wanted.wants_receiver(name)
    });
    let mut out = Vec::new();
    json::array(&mut out, groups, |out, group| {
        let mut object = Object::new(out);
        json::array(object.field("alerts"), group.alerts, |out, status| {
            let names = status.receivers.iter().map(String::as_str);
            let names: Vec<&str> = names.filter(|name| wanted.wants_receiver(name)).collect();
            writer.write(out, status, &names);
        });
        json::labels(object.field("labels"), &group.labels);
        named(object.field("receiver"), group.receiver);
        object.end();
    });
    out.push(b'\n');
    let mut out = Bytes::from(out);
    Ok(in_pieces(Box::new(move || {
        let _held_until_all_is_sent = &place;
        out.split_to(out.len().min(PIECE_BYTES))
    })))
}

/// The names of all receivers.
pub async fn receivers(State(context): State<Context>, _: Scope) -> Json<Vec<Named>> {
    let names = context.alerting.receivers().into_iter();
    Json(names.map(|name| Named { name }).collect())
}
