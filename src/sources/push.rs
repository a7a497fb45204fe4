//! HTTP push of JSON telemetry: `POST /api/v1/ingest/{tenant}`.
//!
//! The body is one JSON object, or an array of up to [`MESSAGES_MAX`] of them;
//! each is a message on `tenants/{tenant}/devices/{device}/telemetry` and goes
//! the way of every other message. The device is the query's `device`, else the
//! object's own `device_id` (text or number). The body may be gzipped; its limit
//! holds for what comes out.
//!
//! The answer comes after the durable commit: `{"accepted":N,"duplicates":N,
//! "rejected":[{"index":N,"reason":"...","error":"..."}]}`, where `error` says what
//! is wrong and what was expected. A message of which some samples are refused has
//! the number of the others as `stored` there, and `partial` counts such messages;
//! both are left out where they are 0. The status is
//!
//! | status | when |
//! | --- | --- |
//! | 200 | at least one message is stored, or was before |
//! | 400 | refused: `parse`, `encoding`, `topic` (also: no device) |
//! | 401, 403 | no credential, or one of another tenant |
//! | 413 | the body or a message is too large, or too many messages |
//! | 422 | refused for another reason |
//! | 429 | refused: `quota`, messages or samples per second; `Retry-After` |
//! | 503 | no room within a second, or the store did not take it: send it again; `Retry-After` |
//!
//! Sending again is safe where the objects have a time of their own. Without one
//! they get the time of their arrival, and a repeated request stores them twice.
//!
//! Who may push: a tenant's own token, for that tenant only; the operator's
//! token, for every tenant; and everyone, where neither is configured. So these
//! routes stand outside of the web part's own check.

mod caller;
#[cfg(test)]
mod desk;
pub mod write;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use serde::de::{self, Deserializer as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tower_http::decompression::RequestDecompressionLayer;

use super::Status;
use crate::ingest::{Ended, Ingest, Message, Origin};
use crate::model::tenant::{is_reserved, is_valid_name};
use crate::model::{Clock, TenantId};
use crate::telemetry::metrics::{Ending, Reason, UNKNOWN_TENANT};
use caller::{BodyFault, Caller, Denied, caller, read_body};

/// Messages in one request.
pub const MESSAGES_MAX: usize = 10_000;

/// How long a request waits for room in front of ingest.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// How long a request waits for its commit. While the disk refuses commits this
/// is what tells the client.
const COMMIT_WAIT: Duration = Duration::from_secs(30);

/// What the push routes need.
#[derive(Clone)]
pub struct PushState {
    /// Takes the messages.
    pub ingest: Ingest,
    /// Stamps what has no time.
    pub clock: Clock,
    /// Its entry on the board.
    pub status: Status,
    /// The operator's token, when there is one.
    pub operator_token: watch::Receiver<Option<Arc<str>>>,
    /// The largest body, unpacked.
    pub body_bytes_max: usize,
    /// Nothing can be stored.
    pub is_read_only: bool,
}

/// The push routes, to be mounted as they are.
pub fn router(push: PushState) -> Router {
    push.status.up(push.clock.now());
    Router::new()
        .route("/api/v1/ingest/{tenant}", post(receive))
        .layer(RequestDecompressionLayer::new())
        .with_state(push)
}

#[derive(Deserialize)]
struct Params {
    device: Option<String>,
}

/// Why a request was not answered with a report.
struct Failure {
    status: StatusCode,
    reason: &'static str,
    error: &'static str,
}

#[derive(Default, Serialize)]
struct Report {
    accepted: usize,
    duplicates: usize,
    #[serde(skip_serializing_if = "is_zero")]
    partial: usize,
    rejected: Vec<Rejected>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde asks for"
)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct Rejected {
    index: usize,
    reason: &'static str,
    error: String,
    #[serde(skip_serializing_if = "is_zero")]
    stored: usize,
}

/// What a message without a device hears: the topic that ingest refuses is ours.
const NO_DEVICE: &str = "no usable device: expected \"device_id\" in the object or ?device= \
    in the request, of 1 to 128 characters of [A-Za-z0-9._:-]";

async fn receive(
    State(push): State<PushState>,
    Path(tenant): Path<String>,
    Query(params): Query<Params>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let pushing = Pushing::new(&push);
    if is_reserved(&tenant) {
        let error = "a tenant's name must not begin with __: those names are ours";
        return Err(Failure::refused(Reason::Topic, error));
    }
    let Ok(tenant) = TenantId::new(&tenant) else {
        let error = "not a tenant's name, expected 1 to 128 characters of [A-Za-z0-9._:-]";
        return Err(Failure::refused(Reason::Topic, error));
    };
    let bound = push.authorize(&tenant, &headers)?;
    if push.is_read_only {
        return Err(Failure::again(Reason::Storage, "the store is read-only"));
    }
    let body = push.read(&tenant, body).await?;
    let Some(payloads) = split(&body) else {
        let ending = Ending::Rejected(Reason::SampleLimit);
        push.ingest.count(&tenant, ending, 1);
        return Err(Failure {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            reason: Reason::SampleLimit.as_str(),
            error: "too many messages in one request",
        });
    };
    let stamp = push.clock.now();
    let messages: Vec<Message> = payloads
        .into_iter()
        .map(|payload| Message {
            topic: topic(&tenant, params.device.as_deref(), &payload),
            payload,
            stamp,
            delivered: 1,
            tenant: bound.clone(),
            state: Vec::new(),
        })
        .collect();
    push.status.received(messages.len() as u64, stamp);
    let has_no_device = messages.iter().map(|m| m.topic.contains("/devices//"));
    let has_no_device: Vec<bool> = has_no_device.collect();
    let mut endings = push.submit(&tenant, messages).await?;
    for (ended, _) in endings.iter_mut().zip(has_no_device).filter(|(_, is)| *is) {
        ended.detail = NO_DEVICE.to_owned();
    }
    drop(pushing);
    Ok(report(endings))
}

/// Counts a request as a live input while it runs.
struct Pushing(prometheus::IntGauge);

impl Pushing {
    fn new(push: &PushState) -> Pushing {
        let gauge = push.ingest.metrics().relay.pushing.clone();
        gauge.inc();
        Pushing(gauge)
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl PushState {
    /// The tenant that the credential is bound to, or `None` for someone who may
    /// push for every tenant.
    fn authorize(
        &self,
        tenant: &TenantId,
        headers: &HeaderMap,
    ) -> Result<Option<TenantId>, Failure> {
        let operator_token = self.operator_token.borrow().clone();
        match caller(&self.ingest, operator_token.as_ref(), Some(tenant), headers) {
            Ok(Caller::Tenant(bound)) => Ok(Some(bound)),
            Ok(Caller::Operator | Caller::Anyone) => Ok(None),
            Err(Denied::Bound(bound)) => {
                let ending = Ending::Rejected(Reason::Tenant);
                self.ingest.count(&bound, ending, 1);
                Err(Failure::refused(
                    Reason::Tenant,
                    "the token is bound to another tenant",
                ))
            }
            Err(Denied::Unauthorized) => Err(Failure {
                status: StatusCode::UNAUTHORIZED,
                reason: "unauthorized",
                error: "a bearer token of this tenant or of the operator is needed",
            }),
        }
    }

    async fn read(&self, tenant: &TenantId, body: Body) -> Result<Bytes, Failure> {
        let fault = match read_body(body, self.body_bytes_max).await {
            Ok(body) => return Ok(body),
            Err(fault) => fault,
        };
        let reason = match fault {
            BodyFault::TooLarge => Reason::Size,
            BodyFault::Broken | BodyFault::Late => Reason::Encoding,
        };
        self.ingest.count(tenant, Ending::Rejected(reason), 1);
        let mut failure = Failure::refused(reason, fault.as_str());
        if fault == BodyFault::Late {
            failure.status = StatusCode::REQUEST_TIMEOUT;
        }
        Err(failure)
    }

    /// Hands the messages over and waits until they have ended.
    async fn submit(
        &self,
        tenant: &TenantId,
        messages: Vec<Message>,
    ) -> Result<Vec<Ended>, Failure> {
        let origin = Arc::new(Origin {
            source: "http".to_owned(),
            kind: "http",
            historical: false,
        });
        let count = messages.len();
        let submit = self.ingest.submit_counted(&origin, messages);
        let endings = match tokio::time::timeout(ROOM_WAIT, submit).await {
            Ok(Ok(endings)) => endings,
            Ok(Err(_)) => return Err(Failure::again(Reason::Storage, "the process stops")),
            Err(_) => {
                let ending = Ending::Retry(Reason::Overload);
                self.ingest.count(tenant, ending, count);
                return Err(Failure::again(Reason::Overload, "no room at the moment"));
            }
        };
        match tokio::time::timeout(COMMIT_WAIT, endings).await {
            Ok(Ok(endings)) => Ok(endings),
            _ => Err(Failure::again(Reason::Storage, "not stored in time")),
        }
    }
}

/// The messages of a body, without copying them. A body that is no array of
/// values is one message, whatever it is: ingest says what is wrong with it.
/// `None` when there are too many.
fn split(body: &Bytes) -> Option<Vec<Bytes>> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'[') {
        return Some(vec![body.clone()]);
    }
    let mut parser = serde_json::Deserializer::from_slice(body);
    let mut elements = Elements::default();
    let parsed = parser.deserialize_seq(&mut elements);
    if elements.too_many {
        return None;
    }
    match parsed.and_then(|()| parser.end()) {
        Ok(()) if !elements.raw.is_empty() => {
            let slices = elements.raw.iter();
            Some(
                slices
                    .map(|raw| body.slice_ref(raw.get().as_bytes()))
                    .collect(),
            )
        }
        _ => Some(vec![body.clone()]),
    }
}

#[derive(Default)]
struct Elements<'de> {
    raw: Vec<&'de RawValue>,
    too_many: bool,
}

impl<'de> Visitor<'de> for &mut Elements<'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element()? {
            if self.raw.len() == MESSAGES_MAX {
                self.too_many = true;
                return Err(de::Error::custom("too many elements"));
            }
            self.raw.push(raw);
        }
        Ok(())
    }
}

/// The topic of a message. A device that cannot be told leaves its level empty,
/// which ingest refuses; of a payload that is no object that is not the point.
fn topic(tenant: &TenantId, device: Option<&str>, payload: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow)]
        device_id: Option<&'a RawValue>,
    }
    let own = || match serde_json::from_slice::<Peek<'_>>(payload) {
        Err(_) => UNKNOWN_TENANT.to_owned(),
        Ok(peek) => peek.device_id.map_or(String::new(), |raw| {
            serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
        }),
    };
    let device = device.map_or_else(own, str::to_owned);
    // A `/` in the name would make another level of it.
    let device = if is_valid_name(&device) { &device } else { "" };
    format!("tenants/{tenant}/devices/{device}/telemetry")
}

/// The answer to messages that have ended.
fn report(endings: Vec<Ended>) -> Response {
    let mut report = Report::default();
    let mut again = None;
    let mut refused = None;
    for (index, ended) in endings.into_iter().enumerate() {
        match ended.ending {
            Ending::Accepted => report.accepted += 1,
            Ending::Duplicate => report.duplicates += 1,
            Ending::Rejected(reason) => {
                refused = refused.or(Some(reason));
                report.partial += usize::from(ended.stored > 0);
                report.rejected.push(Rejected {
                    index,
                    reason: reason.as_str(),
                    error: ended.detail,
                    stored: ended.stored as usize,
                });
            }
            Ending::Retry(reason) => again = Some(reason),
        }
    }
    if let Some(reason) = again {
        return Failure::again(reason, "not all messages were stored").into_response();
    }
    let is_refused = report.accepted + report.duplicates == 0;
    let status = refused
        .filter(|_| is_refused)
        .map_or(StatusCode::OK, status_of);
    with_wait(status, (status, Json(report)).into_response())
}

/// Tells a client that has to come again when.
fn with_wait(status: StatusCode, mut answer: Response) -> Response {
    if let StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS = status {
        let second = HeaderValue::from_static("1");
        answer.headers_mut().insert(RETRY_AFTER, second);
    }
    answer
}

fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::Parse | Reason::Encoding | Reason::Topic => StatusCode::BAD_REQUEST,
        Reason::Size => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Tenant => StatusCode::FORBIDDEN,
        Reason::Quota => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl Failure {
    fn refused(reason: Reason, error: &'static str) -> Failure {
        Failure {
            status: status_of(reason),
            reason: reason.as_str(),
            error,
        }
    }

    fn again(reason: Reason, error: &'static str) -> Failure {
        Failure {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: reason.as_str(),
            error,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = Json(serde_json::json!({ "error": self.error, "reason": self.reason }));
        with_wait(self.status, (self.status, body).into_response())
    }
}

#[cfg(test)]
mod tests;
