//! NATS: a durable JetStream consumer, or a plain subscription.
//!
//! Owns one task for each `[[source.nats]]`, its connection and its rows of
//! `Table::Inflight` (stamps of what may come again).
//!
//! It must never acknowledge before ingest's verdict, and never limit the
//! deliveries of a consumer: JetStream drops a message silently after the last.

mod jetstream;
mod options;
mod plain;
mod sequences;
mod subjects;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Event, Subject};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use options::Options;

use self::sequences::Sequences;
use super::backoff::Backoff;
use super::handover::{Handover, OnRetry, Received};
use super::link::Link;
use super::stamps::{Rows, Stamps};
use super::status::Status;
use crate::config::NatsMode;
use crate::ingest::{Ingest, Message, Origin, Stopped};
use crate::model::{Clock, Timestamp};
use crate::store::{StateOp, Store};
use crate::telemetry::{Metrics, metrics};

const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Name look-up, TCP, TLS and log-in at all servers of a cluster together.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// A connection that lives so long ends the back-off.
const LONG_LIFE: Duration = Duration::from_secs(10);
/// Events of the client that wait; more are not of interest.
const EVENTS_MAX: usize = 64;
/// For the verdicts of what was received, and their acknowledgements.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);
/// Messages taken before anything else gets its turn.
const BURST_MAX: usize = 512;
/// What a message costs beside its bytes.
const MESSAGE_OVERHEAD: usize = 300;

/// Why a connection is of no use (any more).
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot connect: {0}")]
    Connect(#[from] async_nats::ConnectError),
    #[error("bad credentials: {0}")]
    Credentials(std::io::Error),
    #[error("no answer within {} s", CONNECT_TIME_MAX.as_secs())]
    Timeout,
    #[error("cannot use stream {stream:?}: {reason}")]
    Stream { stream: String, reason: String },
    #[error("cannot set up consumer {consumer:?}: {reason}")]
    Consumer { consumer: String, reason: String },
    #[error(
        "nats-server {version} cannot filter several subjects in one consumer (2.10 can), \
         use one source for each subject"
    )]
    Subjects { version: String },
    #[error("cannot subscribe to {subject:?}: {reason}")]
    Subscribe { subject: String, reason: String },
    #[error("cannot pull messages: {0}")]
    Pull(String),
    #[error("no sign of life from the server")]
    Silent,
    #[error("connection closed")]
    Closed,
    #[error("cannot read the stamps of redelivered messages: {0}")]
    Store(#[from] crate::store::Error),
}

/// How a connection ended.
enum End {
    Broken(Error),
    Stopped,
}

impl From<Error> for End {
    fn from(err: Error) -> End {
        End::Broken(err)
    }
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> End {
        End::Stopped
    }
}

/// A message until it is answered.
struct Waiting {
    subject: Subject,
    payload: Bytes,
    /// Where the answer goes; a plain message has none.
    reply: Option<Subject>,
    stamp: Timestamp,
    state: Vec<StateOp>,
    delivered: u32,
    /// In the stream.
    sequence: u64,
    /// When it came, or we last told the server that it is being worked on.
    touched: Instant,
}

impl Received for Waiting {
    fn message(&self) -> Message {
        Message {
            topic: self.subject.replace('.', "/"),
            payload: self.payload.clone(),
            stamp: self.stamp,
            delivered: self.delivered,
            tenant: None,
            state: self.state.clone(),
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        None
    }

    fn bytes(&self) -> usize {
        self.subject.len() + self.payload.len() + MESSAGE_OVERHEAD
    }
}

/// What outlives a connection.
struct Source {
    options: Options,
    /// `nats:NAME`
    id: String,
    store: Store,
    clock: Clock,
    link: Link,
    metrics: metrics::Nats,
    all_metrics: Arc<Metrics>,
    handover: Handover<Waiting>,
    sequences: Sequences,
    connects: u64,
    /// Our part of the pending messages of all consumers.
    pending: i64,
}

/// A connection and what its client says about it.
struct Connection {
    client: Client,
    events: mpsc::Receiver<Event>,
    is_up: bool,
}

/// Runs one source until `stop` is cancelled. After a panic it can be run again.
pub async fn run(
    options: Options,
    ingest: Ingest,
    store: Store,
    status: Status,
    metrics: Arc<Metrics>,
    clock: Clock,
    stop: CancellationToken,
) {
    let id = format!("nats:{}", options.name);
    let instruments = metrics.sources.nats(&options.name);
    let link = Link::new(&id, status, instruments.up.clone(), clock.clone());
    let origin = Arc::new(Origin {
        source: id.clone(),
        kind: "nats",
        historical: options.historical,
    });
    let on_retry = match options.mode {
        NatsMode::Jetstream => OnRetry::Return,
        NatsMode::Core => OnRetry::HandOverAgain,
    };
    let mut handover = Handover::new(ingest, origin, on_retry);
    if options.historical {
        handover = handover.with_hands_max(1);
    }
    let Some([stamps]) = Rows::read_all(&id, &store, [Stamps::TAG], &stop).await else {
        return;
    };
    let mut source = Source {
        sequences: Sequences::new(&id, store.clone(), &stamps),
        handover,
        metrics: instruments,
        all_metrics: metrics,
        options,
        id,
        store,
        clock,
        link,
        connects: 0,
        pending: 0,
    };
    // An error says that the process stops; so do we.
    let _ = source.stay_connected(&stop).await;
    source.ended();
}

impl Source {
    async fn stay_connected(&mut self, stop: &CancellationToken) -> Result<(), Stopped> {
        let mut backoff = Backoff::new(WAIT_MIN, WAIT_MAX);
        while !stop.is_cancelled() {
            let since = Instant::now();
            let end = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                connected = connect(&self.options) => match connected {
                    Err(err) => End::Broken(err),
                    Ok(connection) => match self.options.mode {
                        NatsMode::Jetstream => jetstream::serve(self, connection, stop).await,
                        NatsMode::Core => plain::serve(self, connection, stop).await,
                    },
                },
            };
            let End::Broken(err) = end else {
                return Ok(());
            };
            self.link.down(&err.to_string());
            if since.elapsed() >= LONG_LIFE {
                backoff.reset();
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(backoff.step()) => {}
            }
        }
        Ok(())
    }

    /// Connected and subscribed.
    fn up(&mut self) {
        self.connects += 1;
        if self.connects > 1 {
            self.metrics.reconnects.inc();
        }
        self.link.up();
    }

    fn event(&mut self, event: Option<Event>, is_up: &mut bool) -> Result<(), Error> {
        match event {
            None | Some(Event::Closed) => return Err(Error::Closed),
            Some(Event::Connected) if !*is_up => {
                *is_up = true;
                self.up();
            }
            Some(Event::Disconnected) => {
                *is_up = false;
                self.link.down("connection lost");
            }
            Some(Event::SlowConsumer(_)) => self.metrics.slow_consumers.inc(),
            Some(Event::ServerError(err)) => self.link.down(&err.to_string()),
            Some(Event::ClientError(err)) if !*is_up => self.link.down(&err.to_string()),
            Some(_) => {}
        }
        Ok(())
    }

    /// Shows what is held.
    fn observe(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.unacked.set(gauge(self.handover.messages()));
        self.metrics.queue_bytes.set(gauge(self.handover.bytes()));
    }

    /// Sets our part of the pending messages.
    fn set_pending(&mut self, pending: i64) {
        let total = &self.all_metrics.ingest.nats_pending;
        total.add(pending - self.pending);
        self.pending = pending;
    }

    fn ended(&mut self) {
        self.set_pending(0);
        self.link.ended();
        if self.options.mode == NatsMode::Jetstream {
            let Options {
                stream, consumer, ..
            } = &self.options;
            self.all_metrics.sources.remove_consumer(stream, consumer);
        }
    }
}

async fn connect(options: &Options) -> Result<Connection, Error> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let connecting = options
        .connect_options()
        .map_err(Error::Credentials)?
        .event_callback(move |event| {
            // A full channel means that nobody looks; the newest state follows anyway.
            let _ = sender.try_send(event);
            async {}
        })
        .connect(options.servers());
    let client = tokio::time::timeout(CONNECT_TIME_MAX, connecting)
        .await
        .map_err(|_| Error::Timeout)??;
    Ok(Connection {
        client,
        events,
        is_up: true,
    })
}
