//! Samples pushed over HTTP: Prometheus remote_write 1.0 and Prometheus text.
//!
//! | route | body |
//! | --- | --- |
//! | `POST /api/v1/write`, `/api/v1/write/{tenant}` | remote_write: a snappy block of protobuf |
//! | `POST /api/v1/import/prometheus`, `/api/v1/import/prometheus/{tenant}` | text 0.0.4, gzip allowed |
//!
//! Owns no task: a request is read, stored and answered in its own. It must never
//! answer 2xx before what it accepts is durable, nor make a sender repeat what
//! would be refused again.
//!
//! The tenant of a series is its `tenant_id` label. A request names one by its
//! path, by `X-Scope-OrgID`, or by a token that is bound to one; then its series
//! get that label, and a series that says otherwise is refused. Without one,
//! series keep what they bring.
//!
//! The answer comes after the durable commit:
//!
//! | status | when | a Prometheus that sends |
//! | --- | --- | --- |
//! | 204 | everything is stored, now or before | goes on |
//! | 400 | the body cannot be read, and nothing is stored; or some samples are refused, and the others are stored | goes on |
//! | 401, 403 | no credential, or one of another tenant, or a disabled tenant | goes on |
//! | 408 | the body did not come within 30 s | goes on |
//! | 413 | the body is too large, as it came or unpacked | goes on |
//! | 415 | another form of remote_write | goes on |
//! | 429 | the tenant is over its messages or samples per second, or all tenants are over theirs; nothing is stored; `Retry-After` | goes on, or sends again if told to |
//! | 503 | no room within a second, or the store did not take it; `Retry-After` | sends again |
//!
//! Samples may come in any order, and again: a repeated one has no effect, one
//! with another value at the same time is refused (`conflict`) and the first is
//! kept. Staleness markers are values like any other. Exemplars are counted and
//! left out, as most receivers do, without an error.
//!
//! As in Prometheus, any text may be the name of a label, `__` at its beginning
//! too; only what stands for parts of native histograms in the store is refused.
//! What `tenant_id` says has to be a tenant's name.

mod answer;
mod collect;
mod known;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_http::decompression::RequestDecompressionLayer;

use super::caller::{Caller, caller, read_body};
use crate::codec::remote_write::{self, Unpack};
use crate::ingest::Ingest;
use crate::model::tenant::is_reserved;
use crate::model::{Clock, TenantId};
use crate::sources::Status;
use crate::sources::metadata::Metadata;
use crate::store::{
    self, Committed, FUTURE_MAX_MS, Item, Refusal, StateOp, Store, Table, WriteBatch,
};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Protocol, PushReason};

use answer::Failure;
use collect::{Collected, Collector, Judge, Refused, Writer};
use known::{Keys, Known};

/// How long a request waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// How long a request waits for its commit.
const COMMIT_WAIT: Duration = Duration::from_secs(30);

/// Bodies under way, each counted with four times its bytes for what it becomes.
const ROOM_BYTES: u32 = 256 << 20;

/// Larger bodies are read off the runtime's workers.
const INLINE_BYTES: usize = 512 << 10;

/// Buffers of unpacked bodies that are kept, and how large they may be.
const BUFFERS_MAX: usize = 2;
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// Metrics whose metadata is kept in memory to tell what has changed.
const METADATA_MAX: usize = 20_000;

/// The tenant of a request, as other receivers name it.
const TENANT_HEADER: HeaderName = HeaderName::from_static("x-scope-orgid");

/// What a request hears that names a tenant who cannot be one.
const NO_TENANT: &str = "not a tenant's name, expected 1 to 128 characters of [A-Za-z0-9._:-] \
    that do not begin with __: those names are ours";

/// What the routes need.
pub struct Parts {
    /// Takes the samples.
    pub store: Store,
    /// Knows tenants, their tokens and rates, and the bounds on labels.
    pub ingest: Ingest,
    /// Says what is in the future, and stamps text without a time.
    pub clock: Clock,
    /// Its entry on the board.
    pub status: Status,
    /// The operator's token, when there is one.
    pub operator_token: watch::Receiver<Option<Arc<str>>>,
    /// The largest body, as it comes and unpacked.
    pub body_bytes_max: usize,
    /// Where samples are counted.
    pub metrics: Arc<Metrics>,
}

struct Receiver {
    parts: Parts,
    keys: Keys,
    known: RwLock<Known>,
    metadata: Mutex<std::collections::HashMap<String, Metadata, ahash::RandomState>>,
    buffers: Mutex<Vec<Vec<u8>>>,
    room: Arc<Semaphore>,
}

/// The routes, to be mounted as they are.
pub fn router(parts: Parts) -> Router {
    parts.status.up(parts.clock.now());
    let receiver = Arc::new(Receiver {
        parts,
        keys: Keys::new(),
        known: RwLock::default(),
        metadata: Mutex::default(),
        buffers: Mutex::default(),
        room: Arc::new(Semaphore::new(ROOM_BYTES as usize)),
    });
    let text = Router::new()
        .route("/api/v1/import/prometheus", post(import))
        .route("/api/v1/import/prometheus/{tenant}", post(import))
        .layer(RequestDecompressionLayer::new());
    Router::new()
        .route("/api/v1/write", post(write))
        .route("/api/v1/write/{tenant}", post(write))
        .merge(text)
        .with_state(receiver)
}

type Named = Option<Path<String>>;

async fn write(
    State(receiver): State<Arc<Receiver>>,
    named: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let writer = receiver.writer(Protocol::RemoteWrite, named, &headers)?;
    check_form(&headers)?;
    receiver
        .receive(Protocol::RemoteWrite, writer, &headers, body)
        .await
}

async fn import(
    State(receiver): State<Arc<Receiver>>,
    named: Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let writer = receiver.writer(Protocol::Text, named, &headers)?;
    receiver
        .receive(Protocol::Text, writer, &headers, body)
        .await
}

/// Refuses other forms of remote_write. Senders that name none send ours.
fn check_form(headers: &HeaderMap) -> Result<(), Failure> {
    let said = |name| headers.get(name).map_or("", |v| v.to_str().unwrap_or("?"));
    let encoding = said(CONTENT_ENCODING);
    if !(encoding.is_empty() || encoding.eq_ignore_ascii_case("snappy")) {
        return Err(Failure::unsupported("Content-Encoding is not snappy"));
    }
    let mut form = said(CONTENT_TYPE).split(';').map(str::trim);
    let media = form.next().unwrap_or("");
    if !(media.is_empty() || media.eq_ignore_ascii_case("application/x-protobuf")) {
        return Err(Failure::unsupported(
            "Content-Type is not application/x-protobuf",
        ));
    }
    let message = form.find_map(|parameter| parameter.strip_prefix("proto="));
    match message.map(|name| name.trim_matches('"')) {
        None | Some("prometheus.WriteRequest") => Ok(()),
        Some(_) => Err(Failure::unsupported(
            "only remote_write 1.0 (prometheus.WriteRequest) is spoken here",
        )),
    }
}

impl Receiver {
    /// For whom the request writes.
    fn writer(
        &self,
        protocol: Protocol,
        named: Named,
        headers: &HeaderMap,
    ) -> Result<Writer, Failure> {
        let header = headers.get(TENANT_HEADER).map(|v| v.to_str().unwrap_or(""));
        let path = named.map(|Path(name)| name);
        let tenant = match (path.as_deref(), header) {
            (Some(path), Some(header)) if path != header => {
                return Err(Failure::bad("path and X-Scope-OrgID name two tenants"));
            }
            (path, header) => path.or(header).map(TenantId::new).transpose(),
        };
        let is_ours = |tenant: &TenantId| is_reserved(tenant.as_str());
        let tenant = tenant.ok().filter(|t| !t.as_ref().is_some_and(is_ours));
        let tenant = tenant.ok_or_else(|| Failure::bad(NO_TENANT))?;
        let Parts {
            ingest,
            operator_token,
            ..
        } = &self.parts;
        let token = operator_token.borrow().clone();
        let caller = caller(ingest, token.as_ref(), tenant.as_ref(), headers)?;
        let has_credential = caller != Caller::Anyone;
        let tenant = match caller {
            Caller::Tenant(bound) => Some(bound),
            Caller::Operator | Caller::Anyone => tenant,
        };
        if let Some(tenant) = &tenant {
            ingest.admit_request(tenant)?;
        }
        Ok(Writer::new(
            tenant,
            has_credential,
            protocol.as_str(),
            ingest,
            &self.keys,
        ))
    }

    async fn receive(
        self: Arc<Self>,
        protocol: Protocol,
        writer: Writer,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Failure> {
        let bytes_max = self.parts.body_bytes_max;
        let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        let length = length.and_then(|v| v.parse().ok()).unwrap_or(bytes_max);
        if length > bytes_max {
            return Err(super::caller::BodyFault::TooLarge.into());
        }
        let room = self.room(length).await?;
        let body = read_body(body, bytes_max).await?;
        let request = Arc::new(Request {
            receiver: self,
            protocol,
            writer,
            body,
        });
        let answer = request.store().await;
        drop(room);
        answer
    }

    async fn room(&self, length: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let bytes = u32::try_from(length.saturating_mul(4)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes.clamp(1, ROOM_BYTES));
        let room = tokio::time::timeout(ROOM_WAIT, room).await;
        let room = room.map_err(|_| Failure::again("no room at the moment"))?;
        Ok(room.expect("nobody closes it"))
    }

    /// Hands the batch over and waits until it is durable.
    async fn commit(&self, batch: WriteBatch) -> Result<Committed, Failure> {
        let store = &self.parts.store;
        let pending = match tokio::time::timeout(ROOM_WAIT, store.submit(batch)).await {
            Ok(Err(store::Error::ReadOnly)) => {
                return Err(Failure::again("the store is read-only"));
            }
            Ok(pending) => pending.map_err(|_| Failure::again("the process stops"))?,
            Err(_) => return Err(Failure::again("no room at the moment")),
        };
        match tokio::time::timeout(COMMIT_WAIT, pending.committed()).await {
            Ok(Ok(committed)) => Ok(committed),
            _ => Err(Failure::again("not stored in time")),
        }
    }

    /// The rows of metadata that differs from what is stored.
    fn changed(&self, told: Vec<(String, Metadata)>) -> Vec<StateOp> {
        if told.is_empty() {
            return Vec::new();
        }
        let mut changed = Vec::new();
        let mut all = lock(&self.metadata);
        for (metric, metadata) in told {
            if metric.is_empty() || all.get(&metric) == Some(&metadata) {
                continue;
            }
            let stored = self.parts.store.get(Table::Metadata, metric.as_bytes());
            let stored = stored.ok().flatten();
            let stored = stored.and_then(|row| Metadata::decode(metric.as_bytes(), &row));
            if stored.is_none_or(|(_, stored)| stored != metadata) {
                changed.push(metadata.put(&metric));
            }
            if all.len() >= METADATA_MAX {
                all.clear();
            }
            all.insert(metric, metadata);
        }
        changed
    }

    fn take_buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_default()
    }

    fn give_buffer(&self, buffer: Vec<u8>) {
        let mut buffers = lock(&self.buffers);
        if buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            buffers.push(buffer);
        }
    }
}

/// A request whose body is here.
struct Request {
    receiver: Arc<Receiver>,
    protocol: Protocol,
    writer: Writer,
    body: Bytes,
}

impl Request {
    async fn store(self: Arc<Self>) -> Result<Response, Failure> {
        let collected = Arc::clone(&self).collect(Afresh::No).await?;
        let parts = &self.receiver.parts;
        parts.status.received(collected.samples, parts.clock.now());
        let tenant = self.writer.tenant.as_ref();
        if let Err(what) = parts.ingest.admit_samples(tenant, collected.samples) {
            let meter = parts.metrics.push.of(self.protocol);
            let rejected = meter.rejected(PushReason::Quota);
            rejected.inc_by(collected.samples);
            return Err(Failure::too_soon(what));
        }
        let mut refused = collected.refused;
        let mut stored = self.commit(collected).await?;
        if stored.is_gone() {
            // Retention took an idle series away. What is stored already has no
            // effect the second time.
            let collected = Arc::clone(&self).collect(Afresh::Yes).await?;
            refused = collected.refused;
            let first = stored.added;
            stored = self.commit(collected).await?;
            stored.added += first;
            stored.duplicates = stored.duplicates.saturating_sub(first);
            if stored.is_gone() {
                return Err(Failure::again("series left while they were written"));
            }
        }
        stored.refused_into(&mut refused);
        self.count(&stored, &refused);
        Ok(answer::stored(&refused))
    }

    /// Unpacks and reads the body, off the workers when it is large.
    async fn collect(self: Arc<Self>, afresh: Afresh) -> Result<Collected, Failure> {
        if self.body.len() <= INLINE_BYTES {
            return self.collect_now(afresh);
        }
        let collect = move || self.collect_now(afresh);
        let collected = tokio::task::spawn_blocking(collect).await;
        collected.unwrap_or_else(|err| std::panic::resume_unwind(err.into_panic()))
    }

    fn collect_now(&self, afresh: Afresh) -> Result<Collected, Failure> {
        let receiver = &*self.receiver;
        let judge = Judge {
            store: &receiver.parts.store,
            limits: receiver.parts.ingest.limits(),
            writer: &self.writer,
            keys: &receiver.keys,
            now_ms: receiver.parts.clock.now().as_ms(),
            latest_ms: receiver.parts.clock.latest().plus_ms(FUTURE_MAX_MS).as_ms(),
        };
        let none = Known::default();
        let known = receiver.known.read();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        let collector = Collector::new(&judge, if afresh == Afresh::Yes { &none } else { &known });
        let collected = match self.protocol {
            Protocol::RemoteWrite => {
                let mut message = receiver.take_buffer();
                let bytes_max = receiver.parts.body_bytes_max;
                let collected = remote_write::unpack(&self.body, bytes_max, &mut message)
                    .map_err(Failure::from)
                    .and_then(|()| {
                        let collected = collector.remote_write(&message);
                        collected.map_err(|what| Failure::bad(&what))
                    });
                receiver.give_buffer(message);
                collected?
            }
            Protocol::Text => {
                let text = std::str::from_utf8(&self.body);
                let text = text.map_err(|_| Failure::bad("the body is not UTF-8"))?;
                let collected = collector.text(text);
                collected.map_err(|what| Failure::bad(&what))?
            }
        };
        drop(known);
        if !collected.learned.is_empty() {
            let known = receiver.known.write();
            let mut known = known.unwrap_or_else(PoisonError::into_inner);
            known.learn(&collected.learned);
        }
        Ok(collected)
    }

    async fn commit(&self, collected: Collected) -> Result<Stored, Failure> {
        let always = self.receiver.changed(collected.metadata);
        if collected.rows.is_empty() && always.is_empty() {
            return Ok(Stored::default());
        }
        let mut batch = WriteBatch::default();
        let item = Item {
            rows: u32::try_from(collected.rows.len()).expect("a body is far below 4 G samples"),
            always,
            ..Item::default()
        };
        batch.rows = collected.rows;
        batch.items.push(item);
        let committed = self.receiver.commit(batch).await?;
        let outcome = &committed.outcomes[0];
        Ok(Stored {
            added: outcome.added.into(),
            duplicates: outcome.duplicates.into(),
            refusals: outcome.refusals,
        })
    }

    fn count(&self, stored: &Stored, refused: &Refused) {
        let parts = &self.receiver.parts;
        let meter = parts.metrics.push.of(self.protocol);
        meter.accepted.inc_by(stored.added);
        meter.duplicates.inc_by(stored.duplicates);
        for (reason, count) in refused.iter() {
            meter.rejected(reason).inc_by(count);
        }
        if let Some(tenant) = &self.writer.tenant {
            parts.ingest.count_samples(tenant, stored.added);
        }
    }
}

/// Whether series are looked up by their labels, whatever is known of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Afresh {
    Yes,
    No,
}

/// What the writer did with a request's rows.
#[derive(Default)]
struct Stored {
    added: u64,
    duplicates: u64,
    refusals: [u32; Refusal::ALL.len()],
}

impl Stored {
    /// Whether series have left the store since their ids were looked up.
    fn is_gone(&self) -> bool {
        self.refusals[Refusal::UnknownSeries as usize] > 0
    }

    fn refused_into(&self, refused: &mut Refused) {
        for refusal in Refusal::ALL {
            let reason = match refusal {
                Refusal::Conflict => PushReason::Conflict,
                Refusal::TooOld | Refusal::TooNew => PushReason::Timestamp,
                Refusal::SeriesLimit
                | Refusal::NoRoom
                | Refusal::SeriesRate
                | Refusal::Overload => PushReason::SeriesLimit,
                Refusal::Labels => PushReason::Labels,
                Refusal::UnknownSeries => continue,
            };
            refused.add(reason, self.refusals[refusal as usize] as usize);
        }
    }
}

impl From<Unpack> for Failure {
    fn from(err: Unpack) -> Failure {
        match err {
            Unpack::TooLarge(_) => Failure::too_large(&err.to_string()),
            Unpack::Malformed => Failure::bad(&err.to_string()),
        }
    }
}

/// A panic elsewhere leaves the caches as they are.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
