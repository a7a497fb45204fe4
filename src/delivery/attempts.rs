//! The history of attempts: for each event a ring of the last 20, for people.
//!
//! Key: that of the event's outbox row, so that the history of a destination is in the
//! order in which its events were made. Value: JSON. A row is written in the commit
//! that records the attempt's end. For telemetry the rows of the latest 500 events of a
//! destination that ended are kept, and those of events that wait. For notifications the
//! rows of all events are kept for 7 days, as far as 32 MiB go, also of those that a
//! newer flush replaced: who asks why nobody came at night asks the next morning.
//!
//! Of the tries of a notification that go on failing the first ten are written, and then
//! those whose number is a power of two: with a thousand groups and a receiver that was
//! away each try by itself cost 15 transactions and 600 KB a second, for days.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::{Delivery, DeliveryKind, TenantId, Timestamp};
use crate::store::state::{outbox_key, outbox_prefix};
use crate::store::{self, StateOp, Store, Table};

/// Attempts that are kept of one event.
const ATTEMPTS_MAX: usize = 20;
/// Failed tries of a notification that are all written.
const FAILURES_WRITTEN: u32 = 10;
/// Ended events whose attempts are kept, for each destination.
const ENDED_MAX: usize = 500;
/// How long attempts at notifications are kept.
const NOTIFICATIONS_KEEP_MS: i64 = 7 * 86_400_000;
/// What they may take of the disk, for each destination.
const NOTIFICATIONS_BYTES_MAX: usize = 32 << 20;
/// Attempts of the process before that judge the receiver.
const OUTCOMES_MAX: usize = 256;
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
    /// Whether it speaks against the receiver, rather than against the event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub receiver_failed: bool,
}

impl Attempt {
    /// When it ended.
    pub(super) fn ended_at(&self) -> Timestamp {
        let ms = i64::try_from(self.duration_ms).unwrap_or(i64::MAX);
        self.at.plus_ms(ms)
    }
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

    /// Adds an attempt, the `number`th of this process.
    fn push(&mut self, attempt: Attempt, number: u32) {
        self.count = self.count.saturating_add(1).max(number);
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }
}

/// Whether a failed attempt at a row is written into its history.
pub(super) fn is_written(delivery: &Delivery) -> bool {
    let number = delivery.attempts;
    delivery.kind == DeliveryKind::Telemetry
        || number <= FAILURES_WRITTEN
        || number.is_power_of_two()
}

/// The histories that one transaction changes, by number.
#[derive(Default)]
pub(super) struct Histories(HashMap<u64, (History, Vec<u8>)>);

impl Histories {
    /// Of how many events.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds an attempt to its event's history.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn record(
        &mut self,
        store: &Store,
        sequence: u64,
        delivery: &Delivery,
        attempt: Attempt,
        end: Option<End>,
    ) -> Result<(), store::Error> {
        let (history, _) = match self.0.entry(sequence) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let key = outbox_key(&delivery.destination, sequence);
                let history = store
                    .get(Table::Attempt, &key)?
                    .and_then(|row| serde_json::from_slice::<History>(&row).ok())
                    // Another event may have had the number before a restart.
                    .filter(|history| history.event_id == delivery.event_id)
                    .unwrap_or_else(|| History::of(delivery));
                new.insert((history, key))
            }
        };
        history.push(attempt, delivery.attempts);
        history.end = end;
        Ok(())
    }

    /// The changes that write them.
    pub(super) fn put(self, kept: &mut Kept, ops: &mut Vec<StateOp>) {
        for (sequence, (history, key)) in self.0 {
            let value = serde_json::to_vec(&history).expect("a history is plain data");
            kept.note(sequence, history.kind, history.created_at, value.len());
            ops.push(StateOp::Put {
                table: Table::Attempt,
                key: key.into(),
                value: value.into(),
            });
        }
    }
}

/// The latest `limit` histories of a destination whose events were made at `since` or
/// later, newest first.
///
/// # Errors
/// When the store cannot be read.
pub fn history_since(
    store: &Store,
    destination: &str,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<History>, store::Error> {
    let from = outbox_prefix(destination);
    let mut end = outbox_key(destination, u64::MAX);
    let mut found = Vec::new();
    while found.len() < limit {
        let range = (Bound::Included(&from[..]), Bound::Excluded(&end[..]));
        let page = store.scan_back(Table::Attempt, range, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        end = last.to_vec();
        for (_, value) in page {
            let Ok(history) = serde_json::from_slice::<History>(&value) else {
                continue;
            };
            if history.created_at < since || found.len() == limit {
                return Ok(found);
            }
            found.push(history);
        }
    }
    Ok(found)
}

/// Knows which events have a history that is to go one day.
pub(super) struct Kept {
    destination: String,
    /// Telemetry that ended, oldest first.
    ended: VecDeque<u64>,
    /// Notifications by number: when they were made, and the bytes of the row.
    notifications: BTreeMap<u64, (Timestamp, usize)>,
    notification_bytes: usize,
    /// The latest attempts of the process before, not always in order.
    outcomes: Vec<Ended>,
}

/// An attempt of the process before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) began: Timestamp,
    /// When it ended.
    pub(super) at: Timestamp,
    /// Whether the receiver failed.
    pub(super) failed: bool,
}

impl Kept {
    /// Reads what there is.
    pub(super) fn load(store: &Store, destination: &str) -> Result<Kept, store::Error> {
        let mut kept = Kept::new(destination);
        each(store, destination, |sequence, history, bytes| {
            kept.note(sequence, history.kind, history.created_at, bytes);
            if history.end.is_some() {
                kept.end(sequence, history.kind);
            }
            kept.note_outcomes(&history.attempts);
        })?;
        Ok(kept)
    }

    fn new(destination: &str) -> Kept {
        Kept {
            destination: destination.to_owned(),
            ended: VecDeque::new(),
            notifications: BTreeMap::new(),
            notification_bytes: 0,
            outcomes: Vec::new(),
        }
    }

    fn note_outcomes(&mut self, attempts: &[Attempt]) {
        let ended = |a: &Attempt| Ended {
            began: a.at,
            at: a.ended_at(),
            failed: a.receiver_failed,
        };
        self.outcomes.extend(attempts.iter().map(ended));
        if self.outcomes.len() > 2 * OUTCOMES_MAX {
            self.sort_outcomes();
        }
    }

    fn sort_outcomes(&mut self) {
        self.outcomes.sort_by_key(|ended| ended.at);
        let surplus = self.outcomes.len().saturating_sub(OUTCOMES_MAX);
        self.outcomes.drain(..surplus);
    }

    /// How the latest attempts of the process before ended, oldest first; once.
    pub(super) fn take_outcomes(&mut self) -> Vec<Ended> {
        self.sort_outcomes();
        std::mem::take(&mut self.outcomes)
    }

    /// Notes a row that is about to be written.
    pub(super) fn note(
        &mut self,
        sequence: u64,
        kind: DeliveryKind,
        created_at: Timestamp,
        bytes: usize,
    ) {
        if kind == DeliveryKind::Notification {
            let before = self.notifications.insert(sequence, (created_at, bytes));
            self.notification_bytes -= before.map_or(0, |(_, bytes)| bytes);
            self.notification_bytes += bytes;
        }
    }

    /// Notes an event that ended.
    pub(super) fn end(&mut self, sequence: u64, kind: DeliveryKind) {
        if kind == DeliveryKind::Telemetry {
            self.ended.push_back(sequence);
        }
    }

    /// The changes that remove what is old or too much; the rows are forgotten at once.
    pub(super) fn trim(&mut self, now: Timestamp) -> Vec<StateOp> {
        let surplus = self.ended.len().saturating_sub(ENDED_MAX);
        let mut old: Vec<u64> = self.ended.drain(..surplus).collect();
        while let Some(first) = self.notifications.first_entry() {
            let (created_at, bytes) = *first.get();
            let is_old = now.ms_since(created_at) > NOTIFICATIONS_KEEP_MS;
            if !is_old && self.notification_bytes <= NOTIFICATIONS_BYTES_MAX {
                break;
            }
            old.push(first.remove_entry().0);
            self.notification_bytes -= bytes;
        }
        let delete = |sequence| StateOp::Delete {
            table: Table::Attempt,
            key: outbox_key(&self.destination, sequence).into(),
        };
        old.into_iter().map(delete).collect()
    }
}

/// Calls `with` for each history of a destination in order. Unreadable ones are left out.
fn each(
    store: &Store,
    destination: &str,
    mut with: impl FnMut(u64, History, usize),
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
                with(sequence, history, value.len());
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
            receiver_failed: true,
        }
    }

    /// The numbers of the rows that go.
    fn trimmed(kept: &mut Kept, now: i64) -> Vec<u64> {
        let number = |op| match op {
            StateOp::Delete { key, .. } => sequence_of(&key).unwrap(),
            other => panic!("{other:?}"),
        };
        let ops = kept.trim(Timestamp::from_ms(now));
        ops.into_iter().map(number).collect()
    }

    #[test]
    fn attempts_at_notifications_are_kept_for_a_week_and_within_bounds() {
        let (mut kept, day) = (Kept::new("d"), 86_400_000);
        let at = Timestamp::from_ms;
        for n in 0..2_000 {
            kept.note(n, DeliveryKind::Notification, at(0), 300);
        }
        kept.note(2_000, DeliveryKind::Notification, at(day), 300);
        assert!(trimmed(&mut kept, 7 * day).is_empty());
        assert_eq!(trimmed(&mut kept, 7 * day + 1).len(), 2_000);
        assert_eq!(trimmed(&mut kept, 8 * day + 1), [2_000]);
        for n in 0..3 {
            kept.note(n, DeliveryKind::Notification, at(9 * day), 12 << 20);
            // The same row again, longer by an attempt.
            kept.note(n, DeliveryKind::Notification, at(9 * day), 13 << 20);
        }
        assert_eq!(trimmed(&mut kept, 9 * day), [0]);
    }

    #[test]
    fn the_latest_outcomes_of_all_events_are_in_order() {
        let mut kept = Kept::new("d");
        for event in 0..100 {
            let attempts: Vec<Attempt> = (0..20).map(|n| attempt(n * 100 + event)).collect();
            kept.note_outcomes(&attempts);
        }
        let outcomes = kept.take_outcomes();
        let want: Vec<i64> = (2_000 - 256..2_000).map(|at| at + 5).collect();
        let got: Vec<i64> = outcomes.iter().map(|ended| ended.at.as_ms()).collect();
        assert_eq!(got, want);
        assert!(kept.take_outcomes().is_empty());
    }

    #[test]
    fn of_telemetry_the_latest_events_that_ended_are_kept() {
        let mut kept = Kept::new("d");
        for n in 0..502 {
            kept.note(n, DeliveryKind::Telemetry, Timestamp::from_ms(0), 300);
            kept.end(n, DeliveryKind::Telemetry);
        }
        assert_eq!(trimmed(&mut kept, i64::MAX), [0, 1]);
    }

    #[test]
    fn of_failures_that_go_on_few_are_written() {
        let written = |kind, numbers: std::ops::Range<u32>| -> Vec<u32> {
            let row = |number| Delivery::plain(kind, "e", number, Timestamp::from_ms(0));
            numbers.filter(|number| is_written(&row(*number))).collect()
        };
        let of_three_days = written(DeliveryKind::Notification, 1..5_760);
        assert_eq!(of_three_days[..10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let then = [16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096];
        assert_eq!(of_three_days[10..], then);
        assert_eq!(written(DeliveryKind::Telemetry, 11..14), [11, 12, 13]);
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
            history.push(attempt(at), 0);
        }
        assert_eq!(history.count, 50);
        assert_eq!(history.attempts.len(), 20);
        assert_eq!(history.attempts[0].at.as_ms(), 30);
        let text = serde_json::to_vec(&history).unwrap();
        assert!(text.len() < 32 * 1024, "{} bytes", text.len());
        assert_eq!(serde_json::from_slice::<History>(&text).unwrap(), history);
    }
}
