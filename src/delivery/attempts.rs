//! The history of attempts: for each event a ring of the last 20, for people.
//!
//! Key: that of the event's outbox row, so that the history of a destination is in the
//! order in which its events were made. Value: JSON. A row is written in the commit
//! that records the attempt's end. The rows of events that ended are kept for the
//! latest 500 of a destination; those of events that still wait are kept with them.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::{Delivery, DeliveryKind, TenantId, Timestamp};
use crate::store::state::{outbox_key, outbox_prefix};
use crate::store::{self, StateOp, Store, Table};

/// Attempts that are kept of one event.
const ATTEMPTS_MAX: usize = 20;
/// Ended events whose attempts are kept, for each destination.
const ENDED_MAX: usize = 500;
/// Rows that are read at once; a row is at most about 30 KiB.
const PAGE: usize = 64;

/// One try.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// The HTTP status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The first KiB of the answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// How an event ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The receiver has it.
    Delivered,
    /// It is among the dead letters.
    Dead,
}

/// An event with its latest attempts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct History {
    /// The `webhook-id`.
    pub event_id: String,
    /// Telemetry or notification.
    pub kind: DeliveryKind,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The route or receiver that made it.
    pub route: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many attempts were made in all.
    pub count: u32,
    /// How it ended; `None` while it waits.
    pub end: Option<End>,
    /// The latest attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

impl History {
    fn of(delivery: &Delivery) -> History {
        History {
            event_id: delivery.event_id.clone(),
            kind: delivery.kind,
            tenant_id: delivery.tenant_id.clone(),
            route: delivery.route.clone(),
            created_at: delivery.created_at,
            count: 0,
            end: None,
            attempts: Vec::new(),
        }
    }

    fn push(&mut self, attempt: Attempt) {
        self.count = self.count.saturating_add(1);
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }
}

/// The change that adds an attempt to its event's history.
pub(super) fn record(
    store: &Store,
    sequence: u64,
    delivery: &Delivery,
    attempt: Attempt,
    end: Option<End>,
) -> Result<StateOp, store::Error> {
    let key = outbox_key(&delivery.destination, sequence);
    let mut history = store
        .get(Table::Attempt, &key)?
        .and_then(|row| serde_json::from_slice::<History>(&row).ok())
        // Another event may have had the number before a restart.
        .filter(|history| history.event_id == delivery.event_id)
        .unwrap_or_else(|| History::of(delivery));
    history.push(attempt);
    history.end = end;
    let value = serde_json::to_vec(&history).expect("a history is plain data");
    Ok(StateOp::Put {
        table: Table::Attempt,
        key: key.into(),
        value: value.into(),
    })
}

/// The latest `limit` histories of a destination, newest first. Reads all of the
/// destination's, of which there are few hundred.
pub(super) fn latest(
    store: &Store,
    destination: &str,
    limit: usize,
) -> Result<Vec<History>, store::Error> {
    let mut found = VecDeque::new();
    each(store, destination, |_, history| {
        if found.len() >= limit {
            found.pop_back();
        }
        found.push_front(history);
    })?;
    Ok(found.into())
}

/// Knows which ended events still have a history, oldest first.
pub(super) struct Ended {
    destination: String,
    sequences: VecDeque<u64>,
}

impl Ended {
    /// Reads what there is.
    pub(super) fn load(store: &Store, destination: &str) -> Result<Ended, store::Error> {
        let mut sequences = VecDeque::new();
        each(store, destination, |sequence, history| {
            if history.end.is_some() {
                sequences.push_back(sequence);
            }
        })?;
        Ok(Ended {
            destination: destination.to_owned(),
            sequences,
        })
    }

    /// Notes an event that ended.
    pub(super) fn push(&mut self, sequence: u64) {
        self.sequences.push_back(sequence);
    }

    /// The changes that remove what is too much; the rows are forgotten at once.
    pub(super) fn trim(&mut self) -> Vec<StateOp> {
        let surplus = self.sequences.len().saturating_sub(ENDED_MAX);
        self.sequences
            .drain(..surplus)
            .map(|sequence| StateOp::Delete {
                table: Table::Attempt,
                key: outbox_key(&self.destination, sequence).into(),
            })
            .collect()
    }
}

/// Calls `with` for each history of a destination in order. Unreadable ones are left out.
fn each(
    store: &Store,
    destination: &str,
    mut with: impl FnMut(u64, History),
) -> Result<(), store::Error> {
    let mut from = outbox_prefix(destination);
    let end = outbox_key(destination, u64::MAX);
    loop {
        let range = (Bound::Included(&from[..]), Bound::Included(&end[..]));
        let page = store.scan(Table::Attempt, range, PAGE)?;
        let is_last = page.len() < PAGE;
        for (key, value) in page {
            let sequence = sequence_of(&key);
            if let (Some(sequence), Ok(history)) = (sequence, serde_json::from_slice(&value)) {
                with(sequence, history);
            }
            from = after(&key);
        }
        if is_last {
            return Ok(());
        }
    }
}

/// The sequence number at the end of an outbox key.
pub(super) fn sequence_of(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
}

/// The smallest key behind `key`.
pub(super) fn after(key: &Bytes) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(at: i64) -> Attempt {
        Attempt {
            at: Timestamp::from_ms(at),
            duration_ms: 5,
            status: Some(500),
            error: Some("status 500".to_owned()),
            answer: "x".repeat(1024),
        }
    }

    #[test]
    fn a_history_keeps_the_last_twenty_and_counts_all() {
        let mut history = History {
            event_id: "e".to_owned(),
            kind: DeliveryKind::Telemetry,
            tenant_id: TenantId::default_tenant(),
            route: "r".to_owned(),
            created_at: Timestamp::from_ms(0),
            count: 0,
            end: None,
            attempts: Vec::new(),
        };
        for at in 0..50 {
            history.push(attempt(at));
        }
        assert_eq!(history.count, 50);
        assert_eq!(history.attempts.len(), 20);
        assert_eq!(history.attempts[0].at.as_ms(), 30);
        let text = serde_json::to_vec(&history).unwrap();
        assert!(text.len() < 32 * 1024, "{} bytes", text.len());
        assert_eq!(serde_json::from_slice::<History>(&text).unwrap(), history);
    }
}
