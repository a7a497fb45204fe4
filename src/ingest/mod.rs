//! Messages in, write batches out: decode, validate, route, register, commit.
//!
//! Owns the ingest task, the token buckets, the device registry (`Table::Device`)
//! and the dead letters of refused messages.
//!
//! It must never answer a message before the transaction that holds its samples
//! or its dead letter is durable.

pub mod decode;
pub mod map;
pub mod time;
pub mod topic;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::model::{TenantId, Timestamp};

/// Where messages come from. One value for the life of a source, shared by its messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// `mqtt:NAME`, `nats:NAME` or `http`: as dead letters and pages show it.
    pub source: String,
    /// What kind it is: `mqtt`, `nats`, `http`.
    pub kind: &'static str,
    /// Whether it is a replay of old data.
    pub historical: bool,
}

/// One message as a source received it.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// The topic, with `/` between levels (a NATS subject is translated).
    pub topic: String,
    /// The payload as received.
    pub payload: Bytes,
    /// The stamp of samples whose payload has no time: stable over redelivery.
    pub stamp: Timestamp,
    /// How often it was delivered to us, this time included.
    pub delivered: u32,
    /// The tenant that the credential is bound to; a topic or payload that says
    /// otherwise is refused.
    pub tenant: Option<TenantId>,
    /// Rows to write in the same transaction when a sample takes the stamp: what
    /// keeps the stamp stable over a redelivery.
    pub state: Vec<crate::store::StateOp>,
}

/// What the source tells its broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Durable (or a duplicate of what is durable): acknowledge.
    Committed,
    /// Refused for good, counted, and its dead letter (if it gets one) is durable:
    /// acknowledge or terminate. Holds the reason.
    Rejected(&'static str),
    /// Not stored; the broker shall send it again.
    Retry,
}

/// Messages of one source that are judged together, and where the verdicts go.
pub struct Hand {
    /// Where they come from.
    pub origin: Arc<Origin>,
    /// The messages, in order of receipt.
    pub messages: Vec<Message>,
    /// One verdict for each message, in order. Dropped unanswered only when the process stops.
    pub reply: oneshot::Sender<Vec<Verdict>>,
}

/// A handle to the ingest task. Cloning gives another handle.
#[derive(Clone)]
pub struct Ingest {
    queue: mpsc::Sender<Hand>,
}

/// The ingest task is gone: the process stops.
#[derive(Debug, thiserror::Error)]
#[error("ingest has stopped")]
pub struct Stopped;

impl Ingest {
    /// Puts messages into this queue.
    pub fn with_queue(queue: mpsc::Sender<Hand>) -> Ingest {
        Ingest { queue }
    }

    /// Hands messages over and gives a receiver for their verdicts. Waits for
    /// room in the queue; cancel-safe, nothing is handed over when cancelled.
    ///
    /// # Errors
    /// When the process stops.
    pub async fn submit(
        &self,
        origin: &Arc<Origin>,
        messages: Vec<Message>,
    ) -> Result<oneshot::Receiver<Vec<Verdict>>, Stopped> {
        let slot = self.queue.reserve().await.map_err(|_| Stopped)?;
        let (reply, verdicts) = oneshot::channel();
        slot.send(Hand {
            origin: Arc::clone(origin),
            messages,
            reply,
        });
        Ok(verdicts)
    }
}
