//! One destination's part of the outbox, read in order and in small pages.
//!
//! Rows stay on disk until they are delivered or dead. In memory are: the rows of at
//! most one page, the numbers and times of rows that wait for another attempt (32
//! bytes each), and the count of what lies behind the page. Each row is read once to
//! count it when it appears, and once to send it.
//!
//! A row that waits may vanish: a newer notification of the same group replaces it,
//! or the outbox was full. So a row is read again before another attempt.
//!
//! Of one group one notification is under way at a time, as in Alertmanager: a receiver
//! that is slow to take that something fires is not told before that it ended.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use super::attempts::{after, sequence_of};
use super::retry::Schedule;
use crate::model::{Delivery, DeliveryKind, Timestamp};
use crate::store::state::{decode_delivery, outbox_key};
use crate::store::{self, Store, Table};

/// Rows that are read at once: bounded, because a body may have 1 MiB.
const PAGE: usize = 16;
/// Pages that are read before other tasks get a turn.
const PAGES_AT_ONCE: usize = 16;

/// A row of the outbox.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Row {
    pub(super) sequence: u64,
    pub(super) delivery: Delivery,
}

/// Rows, each with the key that follows it; `None` for one that cannot be read.
type Page = Vec<(Vec<u8>, Option<Row>)>;

/// Rows by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) telemetry: u64,
    pub(super) notifications: u64,
}

impl Counts {
    fn of(&mut self, kind: DeliveryKind) -> &mut u64 {
        match kind {
            DeliveryKind::Telemetry => &mut self.telemetry,
            DeliveryKind::Notification => &mut self.notifications,
        }
    }

    fn add(&mut self, kind: DeliveryKind) {
        *self.of(kind) += 1;
    }

    fn remove(&mut self, kind: DeliveryKind) {
        let count = self.of(kind);
        *count = count.saturating_sub(1);
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    kind: DeliveryKind,
    attempts: u32,
    /// It does not wait longer, however the clock was set.
    longest_ms: i64,
}

/// What is to know of a row that is under way. Its group by the name that people see:
/// two of one name wait for each other.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Taken {
    kind: DeliveryKind,
    group: String,
}

/// The rows of one destination and where each of them stands.
pub(super) struct Queue {
    store: Store,
    destination: String,
    schedule: Schedule,
    ordered: bool,
    /// The first key that was not read for sending.
    unread: Vec<u8>,
    /// The first key that was not counted.
    uncounted: Vec<u8>,
    /// Counted, but not read for sending.
    behind: Counts,
    /// Read for sending, whatever became of them so far.
    known: Counts,
    /// To be sent now; when ordered also those that wait, all in their order.
    ready: VecDeque<Row>,
    /// Not before a time.
    waiting: BTreeMap<(Timestamp, u64), Waiting>,
    /// Given out.
    taken: HashMap<u64, Taken>,
    /// Not before what is under way of their group has ended.
    held: Vec<(Taken, u64, Waiting)>,
    /// Whether the last call stopped to give other tasks a turn.
    has_more: bool,
    /// The latest time that was seen, to notice when the clock jumps back.
    last_now: Timestamp,
}

impl Queue {
    /// Reads nothing yet.
    pub(super) fn new(store: Store, destination: &str, schedule: Schedule, ordered: bool) -> Queue {
        Queue {
            store,
            destination: destination.to_owned(),
            schedule,
            ordered,
            unread: outbox_key(destination, 0),
            uncounted: outbox_key(destination, 0),
            behind: Counts::default(),
            known: Counts::default(),
            ready: VecDeque::new(),
            waiting: BTreeMap::new(),
            taken: HashMap::new(),
            held: Vec::new(),
            has_more: false,
            last_now: Timestamp::MIN,
        }
    }

    /// Counts rows that are new.
    pub(super) fn count_new(&mut self) -> Result<(), store::Error> {
        self.has_more = false;
        for _ in 0..PAGES_AT_ONCE {
            let page = self.page(&self.uncounted)?;
            let is_last = page.len() < PAGE;
            for (key, row) in page {
                self.uncounted = key;
                if let Some(row) = row {
                    self.behind.add(row.delivery.kind);
                }
            }
            if is_last {
                return Ok(());
            }
        }
        self.has_more = true;
        Ok(())
    }

    /// Whether there may be more than the last calls have looked at.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Gives out the next row whose time has come, if there is one. A notification that
    /// was never tried goes before those that failed: they may go on failing.
    pub(super) fn take(&mut self, now: Timestamp) -> Result<Option<Row>, store::Error> {
        self.notice_clock(now);
        let is_new_first = self.ordered || self.holds_only_notifications();
        if !is_new_first && let Some(row) = self.take_waiting(now)? {
            return Ok(Some(row));
        }
        match self.take_ready(now)? {
            None if is_new_first && !self.ordered => self.take_waiting(now),
            taken => Ok(taken),
        }
    }

    /// Whether there is something to send, and no telemetry among it.
    pub(super) fn holds_only_notifications(&self) -> bool {
        let depth = self.depth();
        depth.telemetry == 0 && depth.notifications > 0
    }

    fn take_ready(&mut self, now: Timestamp) -> Result<Option<Row>, store::Error> {
        for _ in 0..PAGES_AT_ONCE {
            if self.ready.is_empty() && !self.read_page(now)? {
                return Ok(None);
            }
            if self
                .ready
                .front()
                .is_some_and(|row| row.delivery.next_at > now)
            {
                return Ok(None);
            }
            // Not ready any more: the page held only rows that wait.
            let Some(row) = self.ready.pop_front() else {
                continue;
            };
            if let Some(row) = self.still_there(row)?
                && let Some(row) = self.give(row)
            {
                return Ok(Some(row));
            }
        }
        self.has_more = true;
        Ok(None)
    }

    /// Takes back a row for another attempt at its `next_at`.
    pub(super) fn put_back(&mut self, mut row: Row, now: Timestamp) {
        // The clock may have jumped since that time was decided.
        self.notice_clock(now);
        self.bound(&mut row.delivery, now);
        self.release(row.sequence);
        if self.ordered {
            // The head blocks the rest.
            self.ready.push_front(row);
        } else {
            self.wait(&row);
        }
    }

    /// Forgets a row that is off the disk.
    pub(super) fn forget(&mut self, sequence: u64) {
        if let Some(taken) = self.release(sequence) {
            self.known.remove(taken.kind);
        }
    }

    /// Gives a row out, unless another one of its group is.
    fn give(&mut self, row: Row) -> Option<Row> {
        let taken = Taken {
            kind: row.delivery.kind,
            group: row.delivery.route.clone(),
        };
        let has_groups = taken.kind == DeliveryKind::Notification && !self.ordered;
        if has_groups && self.taken.values().any(|other| *other == taken) {
            let waiting = self.waiting_of(&row);
            self.held.push((taken, row.sequence, waiting));
            return None;
        }
        self.taken.insert(row.sequence, taken);
        Some(row)
    }

    /// Takes a row back, and lets those go on that waited for it.
    fn release(&mut self, sequence: u64) -> Option<Taken> {
        let taken = self.taken.remove(&sequence)?;
        let (waiting, now) = (&mut self.waiting, self.last_now);
        self.held.retain(|(of, sequence, row)| {
            if *of == taken {
                waiting.insert((now, *sequence), *row);
            }
            *of != taken
        });
        Some(taken)
    }

    /// How many rows there are, those given out included.
    pub(super) fn depth(&self) -> Counts {
        Counts {
            telemetry: self.known.telemetry + self.behind.telemetry,
            notifications: self.known.notifications + self.behind.notifications,
        }
    }

    /// When the next row that waits is due, if no row is ready before.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        if self.ordered {
            return self.ready.front().map(|row| row.delivery.next_at);
        }
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    /// How many rows are given out.
    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Whether a row is still on disk.
    pub(super) fn is_on_disk(&self, sequence: u64) -> Result<bool, store::Error> {
        let key = outbox_key(&self.destination, sequence);
        Ok(self.store.get(Table::Outbox, &key)?.is_some())
    }

    fn take_waiting(&mut self, now: Timestamp) -> Result<Option<Row>, store::Error> {
        while let Some(entry) = self.waiting.first_entry() {
            let (at, sequence) = *entry.key();
            if at > now {
                break;
            }
            let waiting = entry.remove();
            let key = outbox_key(&self.destination, sequence);
            let row = self.store.get(Table::Outbox, &key)?;
            match row.and_then(|row| self.decoded(sequence, &row)) {
                Some(mut row) => {
                    // The tries of a notification are counted in memory only.
                    row.delivery.attempts = row.delivery.attempts.max(waiting.attempts);
                    if let Some(row) = self.give(row) {
                        return Ok(Some(row));
                    }
                }
                None => self.known.remove(waiting.kind),
            }
        }
        Ok(None)
    }

    /// Reads the next page; says whether there was one.
    fn read_page(&mut self, now: Timestamp) -> Result<bool, store::Error> {
        let page = self.page(&self.unread)?;
        if page.len() < PAGE {
            // The end: whatever was counted behind it and is not here has vanished.
            self.behind = Counts::default();
        }
        let any = !page.is_empty();
        for (key, row) in page {
            let was_counted = key <= self.uncounted;
            if !was_counted {
                self.uncounted.clone_from(&key);
            }
            self.unread = key;
            let Some(mut row) = row else { continue };
            let kind = row.delivery.kind;
            if was_counted {
                self.behind.remove(kind);
            }
            self.known.add(kind);
            self.bound(&mut row.delivery, now);
            if self.ordered || row.delivery.next_at <= now {
                self.ready.push_back(row);
            } else {
                self.wait(&row);
            }
        }
        Ok(any)
    }

    /// The rows from a key on. One that cannot be read stays on disk.
    fn page(&self, from: &[u8]) -> Result<Page, store::Error> {
        let end = outbox_key(&self.destination, u64::MAX);
        let range = (Bound::Included(from), Bound::Included(&end[..]));
        let page = self.store.scan(Table::Outbox, range, PAGE)?;
        let rows = page.into_iter().map(|(key, value)| {
            let row = sequence_of(&key).and_then(|sequence| self.decoded(sequence, &value));
            (after(&key), row)
        });
        Ok(rows.collect())
    }

    fn decoded(&self, sequence: u64, value: &[u8]) -> Option<Row> {
        match decode_delivery(value) {
            Ok(delivery) => Some(Row { sequence, delivery }),
            Err(err) => {
                let destination = self.destination.as_str();
                tracing::error!(destination, sequence, error = %err, "outbox row left out");
                None
            }
        }
    }

    /// A notification, and a row that waited in memory, may have been replaced meanwhile.
    fn still_there(&mut self, row: Row) -> Result<Option<Row>, store::Error> {
        let may_vanish =
            row.delivery.kind == DeliveryKind::Notification || row.delivery.attempts > 0;
        if may_vanish && !self.is_on_disk(row.sequence)? {
            self.known.remove(row.delivery.kind);
            return Ok(None);
        }
        Ok(Some(row))
    }

    fn wait(&mut self, row: &Row) {
        let waiting = self.waiting_of(row);
        self.waiting
            .insert((row.delivery.next_at, row.sequence), waiting);
    }

    fn waiting_of(&self, row: &Row) -> Waiting {
        Waiting {
            kind: row.delivery.kind,
            attempts: row.delivery.attempts,
            longest_ms: self.schedule.longest_ms(&row.delivery),
        }
    }

    /// After a clock jump back no row waits longer than its step.
    fn notice_clock(&mut self, now: Timestamp) {
        if now < self.last_now {
            let waiting = std::mem::take(&mut self.waiting);
            for ((at, sequence), row) in waiting {
                let at = at.min(now.plus_ms(row.longest_ms));
                self.waiting.insert((at, sequence), row);
            }
            for mut row in std::mem::take(&mut self.ready) {
                self.bound(&mut row.delivery, now);
                self.ready.push_back(row);
            }
        }
        self.last_now = now;
    }

    fn bound(&self, delivery: &mut Delivery, now: Timestamp) {
        let longest = self.schedule.longest_ms(delivery);
        delivery.next_at = delivery.next_at.min(now.plus_ms(longest));
    }
}
