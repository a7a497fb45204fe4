//! What leaves the process, and what could not: rows of the outbox and of the
//! dead letters.

use serde::{Deserialize, Serialize};

use super::{TenantId, Timestamp};

/// Why something is sent; decides the retry schedule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryKind {
    /// A routed message: tries over about 23 hours.
    Telemetry,
    /// An alert notification: Alertmanager's schedule, until a newer flush replaces it.
    Notification,
}

/// A state row to write in the transaction that records a success.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StateRow {
    /// The state table's name, as `store::Table::name`.
    pub table: String,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; `None` deletes the row.
    pub value: Option<Vec<u8>>,
}

impl StateRow {
    /// The value as it is written when the delivery succeeds: JSON, and behind it the time
    /// in ms, because who made the row could not know it.
    pub fn value_at(&self, at: Timestamp) -> Option<Vec<u8>> {
        let mut value = self.value.clone()?;
        value.extend_from_slice(format!(" {}", at.as_ms()).as_bytes());
        Some(value)
    }
}

/// One row of the outbox: what has to reach a destination.
///
/// Within a row id and body never change, whatever the number of attempts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Decides the retry schedule.
    pub kind: DeliveryKind,
    /// The same over all attempts: the receiver's idempotency key (`webhook-id`).
    pub event_id: String,
    /// The destination's configured name.
    pub destination: String,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The route or receiver that made it.
    pub route: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many attempts were made.
    pub attempts: u32,
    /// Not before this time.
    pub next_at: Timestamp,
    /// Of a notification: after so many milliseconds its group is flushed again, and one
    /// that was refused is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_interval_ms: Option<i64>,
    /// The media type of the body.
    pub content_type: String,
    /// Written when the delivery succeeds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_success: Vec<StateRow>,
    /// What is sent. Stored behind the row's JSON head, not in it.
    #[serde(skip)]
    pub body: Vec<u8>,
}

#[cfg(test)]
impl Delivery {
    /// One to `hook`, made and due at `now`, without a body.
    pub(crate) fn plain(kind: DeliveryKind, event_id: &str, attempts: u32, now: Timestamp) -> Self {
        Delivery {
            kind,
            event_id: event_id.to_owned(),
            destination: "hook".to_owned(),
            tenant_id: TenantId::default_tenant(),
            route: "r".to_owned(),
            created_at: now,
            attempts,
            next_at: now,
            flush_interval_ms: None,
            content_type: "application/json".to_owned(),
            on_success: Vec::new(),
            body: Vec::new(),
        }
    }
}

/// A message or a delivery that was given up, with the reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The source (`mqtt:NAME`) of a refused message, the destination of a failed delivery.
    pub source: String,
    /// Topic, subject or path; the route of a delivery.
    pub topic: String,
    /// Whose it is, `_unknown` when that could not be told.
    pub tenant_id: String,
    /// When the message came in, or the delivery was made.
    pub received_at: Timestamp,
    /// One of the fixed reasons.
    pub reason: String,
    /// The error in words, at most 256 bytes.
    pub detail: String,
    /// How often it was delivered to us, or attempted by us.
    pub attempts: u32,
    /// The full length of the payload.
    pub payload_bytes: u64,
    /// The payload, cut at 64 KiB. Stored behind the row's JSON head, not in it.
    #[serde(skip)]
    pub payload: Vec<u8>,
}

/// The longest payload that a dead letter keeps, in bytes.
pub const DEAD_LETTER_PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// The longest error text that a dead letter keeps, in bytes.
pub const DEAD_LETTER_DETAIL_BYTES_MAX: usize = 256;
