//! The state tables: what the other parts keep beside the samples.
//!
//! Keys and values are bytes here; the part that owns a table owns their form.
//! A value on disk ends in its own xxh3-64. Only the outbox and the dead letters
//! are known in detail, because the writer numbers their rows:
//!
//! - `outbox`: destination name, `0x00`, sequence (u64 BE) to a [`Delivery`] row
//! - `dead`: sequence (u64 BE) to a [`DeadLetter`] row
//!
//! Such a row is `head length (u32 BE), head as JSON, body`.

use crate::model::{DeadLetter, Delivery};

/// The state tables of `hot.redb`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Table {
    /// What waits to be delivered (delivery).
    Outbox,
    /// The last attempts of each delivery (delivery).
    Attempt,
    /// Messages and deliveries that were given up (ingest, delivery).
    Dead,
    /// Unacknowledged MQTT messages and the time they were given (sources).
    Inflight,
    /// What a source needs to go on (sources).
    Cursor,
    /// Known tenants and devices (ingest).
    Device,
    /// Last evaluation of each rule group (rules).
    RuleGroup,
    /// Alerts and their state (rules).
    Alert,
    /// Alert transitions (rules).
    AlertHistory,
    /// Aggregation groups of notifications (alerting).
    AggGroup,
    /// What each receiver was last told (alerting).
    NotifyState,
    /// Alerts that others sent us (alerting).
    PostedAlert,
    /// Silences (alerting).
    Silence,
    /// Type, help and unit of metrics (sources).
    Metadata,
    /// Single values.
    Kv,
    /// Deleted samples that are still in the files (store).
    Deleted,
}

impl Table {
    /// All tables.
    pub const ALL: [Table; 16] = [
        Table::Outbox,
        Table::Attempt,
        Table::Dead,
        Table::Inflight,
        Table::Cursor,
        Table::Device,
        Table::RuleGroup,
        Table::Alert,
        Table::AlertHistory,
        Table::AggGroup,
        Table::NotifyState,
        Table::PostedAlert,
        Table::Silence,
        Table::Metadata,
        Table::Kv,
        Table::Deleted,
    ];

    /// The table's name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Table::Outbox => "outbox",
            Table::Attempt => "attempt",
            Table::Dead => "dead",
            Table::Inflight => "inflight",
            Table::Cursor => "cursor",
            Table::Device => "device",
            Table::RuleGroup => "rule_group",
            Table::Alert => "alert",
            Table::AlertHistory => "alert_history",
            Table::AggGroup => "agg_group",
            Table::NotifyState => "notify_state",
            Table::PostedAlert => "posted_alert",
            Table::Silence => "silence",
            Table::Metadata => "metadata",
            Table::Kv => "kv",
            Table::Deleted => "deleted",
        }
    }

    /// The table of that name.
    pub fn from_name(name: &str) -> Option<Table> {
        Table::ALL.into_iter().find(|table| table.name() == name)
    }
}

/// A row of the outbox or the dead letters that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read a row of {table}")]
pub struct RowError {
    table: &'static str,
    #[source]
    source: Option<serde_json::Error>,
}

/// The key of an outbox row.
pub fn outbox_key(destination: &str, sequence: u64) -> Vec<u8> {
    let mut key = outbox_prefix(destination);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// What the keys of one destination's outbox rows start with.
pub fn outbox_prefix(destination: &str) -> Vec<u8> {
    let mut key = destination.as_bytes().to_vec();
    key.push(0);
    key
}

/// The value of an outbox row.
pub fn encode_delivery(delivery: &Delivery) -> Vec<u8> {
    encode_row(
        &serde_json::to_vec(delivery).expect("a delivery is plain data"),
        &delivery.body,
    )
}

/// Reads an outbox row.
///
/// # Errors
/// When the row is damaged.
pub fn decode_delivery(row: &[u8]) -> Result<Delivery, RowError> {
    let (head, body) = decode_row("outbox", row)?;
    let mut delivery: Delivery = serde_json::from_slice(head).map_err(|source| RowError {
        table: "outbox",
        source: Some(source),
    })?;
    delivery.body = body.to_vec();
    Ok(delivery)
}

/// The value of a dead letter's row.
pub fn encode_dead_letter(letter: &DeadLetter) -> Vec<u8> {
    encode_row(
        &serde_json::to_vec(letter).expect("a dead letter is plain data"),
        &letter.payload,
    )
}

/// Reads a dead letter's row.
///
/// # Errors
/// When the row is damaged.
pub fn decode_dead_letter(row: &[u8]) -> Result<DeadLetter, RowError> {
    let (head, body) = decode_row("dead", row)?;
    let mut letter: DeadLetter = serde_json::from_slice(head).map_err(|source| RowError {
        table: "dead",
        source: Some(source),
    })?;
    letter.payload = body.to_vec();
    Ok(letter)
}

fn encode_row(head: &[u8], body: &[u8]) -> Vec<u8> {
    let head_len = u32::try_from(head.len()).expect("a row's head is far below 4 GiB");
    let mut row = Vec::with_capacity(4 + head.len() + body.len());
    row.extend_from_slice(&head_len.to_be_bytes());
    row.extend_from_slice(head);
    row.extend_from_slice(body);
    row
}

fn decode_row<'a>(table: &'static str, row: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), RowError> {
    let broken = || RowError {
        table,
        source: None,
    };
    let (head_len, rest) = row.split_first_chunk::<4>().ok_or_else(broken)?;
    let head_len = u32::from_be_bytes(*head_len) as usize;
    rest.split_at_checked(head_len).ok_or_else(broken)
}
