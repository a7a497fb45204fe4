//! The times of messages that bring none.
//!
//! Identity in the store is (series, time), so two messages of one topic within
//! one millisecond need different stamps: the later one gets the next free
//! millisecond. A long burst makes a topic's stamps run ahead of the clock, and
//! a restart must not give the same stamps again. So the last stamp of such a
//! topic is a row of [`Table::Inflight`], written in the commit of its message.
//! Once the clock has passed the stamp by a minute the row says nothing any more
//! and is swept. Rows kept and rows to sweep are both bounded; a topic for which
//! there is no room has no row, and its repeats are found by ingest and the store.
//!
//! Ingest writes these rows only when a sample takes the stamp. A message with
//! a time of its own costs one hash and one look-up here.
//!
//! Key: source (`mqtt:NAME`), `0x00`, `t`, xxh3-64 of the topic (BE).
//! Value: the stamp in milliseconds (i64 BE).

use std::collections::HashMap;
use std::ops::Bound;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use crate::model::Timestamp;
use crate::store::{self, Committed, StateOp, Store, Table, Urgency, WriteBatch};

/// No stamp runs further ahead than this; beyond it the store sees a conflict.
const AHEAD_MAX_MS: i64 = 60_000;
/// Topics whose stamps may run ahead at the same time.
const TOPICS_MAX: usize = 65_536;
/// Between two looks for topics that no longer run ahead.
const LOOK_EVERY_MS: i64 = AHEAD_MAX_MS;
/// The same when there is no room for another topic.
const LOOK_EVERY_FULL_MS: i64 = 1_000;
/// Rows deleted in one commit.
const SWEEP_MAX: usize = 10_000;
/// Bytes of rows that are allocated at once.
const ARENA_BYTES: usize = 16 << 10;
/// After the store could not be read.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Gives stamps that are unique for each topic.
pub(super) struct Stamps {
    rows: Rows,
    /// The last stamps of topics seen in this millisecond.
    now_ms: i64,
    recent: HashMap<u64, i64, ahash::RandomState>,
    /// The last stamps of topics that ran ahead. Each has a row.
    ahead: HashMap<u64, i64, ahash::RandomState>,
    /// When topics were last looked for that no longer do.
    looked_ms: i64,
    /// Such topics: their rows are to be deleted.
    passed: Vec<u64>,
}

/// A stamp, and the row that keeps it from being given again.
pub(super) struct Stamp {
    /// The time to use.
    pub(super) at: Timestamp,
    /// To write when a sample takes it.
    pub(super) row: Option<StateOp>,
}

impl Stamps {
    /// Tags the rows of [`Rows`] that are kept here.
    pub(super) const TAG: u8 = b't';

    /// For the messages of one source, with its rows under [`Stamps::TAG`].
    pub(super) fn new(rows: Rows, stored: &[(Bytes, Bytes)]) -> Stamps {
        let ahead = stored.iter().filter_map(|(key, value)| {
            let topic = u64::from_be_bytes(key[..].try_into().ok()?);
            Some((topic, i64::from_be_bytes(value[..].try_into().ok()?)))
        });
        let mut ahead: Vec<(u64, i64)> = ahead.collect();
        ahead.sort_unstable_by_key(|(_, at)| std::cmp::Reverse(*at));
        let no_room = ahead.split_off(ahead.len().min(TOPICS_MAX));
        Stamps {
            rows,
            now_ms: i64::MIN,
            recent: HashMap::default(),
            ahead: ahead.into_iter().collect(),
            looked_ms: i64::MIN,
            passed: no_room.into_iter().map(|(topic, _)| topic).collect(),
        }
    }

    /// The stamp of a message of `topic` that came (or was stored by its broker) at `base`.
    pub(super) fn take(&mut self, topic: &[u8], base: Timestamp) -> Stamp {
        let base = base.as_ms();
        if base > self.now_ms {
            self.turn_to(base);
        }
        let topic = xxh3_64(topic);
        let [ahead, recent] = [&self.ahead, &self.recent].map(|of| of.get(&topic).copied());
        match ahead.max(recent) {
            Some(last) if last >= base && last - base < AHEAD_MAX_MS => {
                let at = last + 1;
                if self.ahead.len() >= TOPICS_MAX && ahead.is_none() {
                    self.recent.insert(topic, at);
                    return Stamp {
                        at: Timestamp::from_ms(at),
                        row: None,
                    };
                }
                self.ahead.insert(topic, at);
                let key = self.rows.key(Stamps::TAG, &topic.to_be_bytes());
                Stamp {
                    at: Timestamp::from_ms(at),
                    row: Some(self.rows.put(key, &at.to_be_bytes())),
                }
            }
            _ => {
                self.recent.insert(topic, base);
                Stamp {
                    at: Timestamp::from_ms(base),
                    row: None,
                }
            }
        }
    }

    /// A new millisecond: what was seen in the last one cannot collide any more.
    fn turn_to(&mut self, base: i64) {
        self.recent.clear();
        self.now_ms = base;
        let is_full = self.ahead.len() >= TOPICS_MAX;
        let every = if is_full {
            LOOK_EVERY_FULL_MS
        } else {
            LOOK_EVERY_MS
        };
        if base.saturating_sub(self.looked_ms) < every || self.passed.len() >= TOPICS_MAX {
            return;
        }
        self.looked_ms = base;
        // A minute of slack: JetStream sends older messages again in between.
        let passed = |_: &u64, at: &mut i64| *at < base - AHEAD_MAX_MS;
        let topics = self.ahead.extract_if(passed).map(|(topic, _)| topic);
        self.passed.extend(topics);
    }

    /// Deletes the rows that say nothing any more, a bounded number of them. To
    /// be written soon, so that a later row of the same topic comes after it.
    pub(super) fn sweep(&mut self) -> Vec<StateOp> {
        let from = self.passed.len().saturating_sub(SWEEP_MAX);
        let passed = self.passed.split_off(from).into_iter();
        passed
            .filter(|topic| !self.ahead.contains_key(topic))
            .map(|topic| StateOp::Delete {
                table: Table::Inflight,
                key: self.rows.key(Stamps::TAG, &topic.to_be_bytes()),
            })
            .collect()
    }
}

/// A sweep on its way to the store; one at a time.
#[derive(Default)]
pub(super) struct Sweep(Option<BoxFuture<'static, Result<Committed, store::Error>>>);

impl Sweep {
    /// Starts one with these changes unless there are none or one is under way.
    pub(super) fn start(&mut self, store: &Store, changes: impl FnOnce() -> Vec<StateOp>) {
        if self.0.is_some() {
            return;
        }
        let changes = changes();
        if changes.is_empty() {
            return;
        }
        let store = store.clone();
        let batch = WriteBatch {
            urgency: Urgency::RideAlong,
            ..WriteBatch::of_state(changes)
        };
        self.0 = Some(Box::pin(async move { store.write(batch).await }));
    }

    /// Waits for the end of the sweep that is under way, and for ever when there
    /// is none. Cancel-safe. What a failed one left is swept after a restart.
    pub(super) async fn ended(&mut self) {
        let Some(sweep) = &mut self.0 else {
            return std::future::pending().await;
        };
        if let Err(err) = sweep.await {
            tracing::debug!(error = %err, "stamps that are of no use stay until the next start");
        }
        self.0 = None;
    }
}

/// Makes rows of [`Table::Inflight`] that belong to one source.
pub(super) struct Rows {
    prefix: Vec<u8>,
    arena: BytesMut,
}

impl Rows {
    /// For the source `mqtt:NAME` or `nats:NAME`.
    pub(super) fn new(source: &str) -> Rows {
        let mut prefix = source.as_bytes().to_vec();
        prefix.push(0);
        Rows {
            prefix,
            arena: BytesMut::new(),
        }
    }

    /// The rows of a source under each of the tags, as soon as the store can be
    /// read; `None` when it stops before that.
    pub(super) async fn read_all<const N: usize>(
        source: &str,
        store: &Store,
        tags: [u8; N],
        stop: &CancellationToken,
    ) -> Option<[Vec<(Bytes, Bytes)>; N]> {
        loop {
            let (rows, store) = (Rows::new(source), store.clone());
            let read = move || {
                let mut read = tags.map(|_| Vec::new());
                for (tag, into) in tags.into_iter().zip(&mut read) {
                    *into = rows.read(&store, tag)?;
                }
                Ok(read)
            };
            match tokio::task::spawn_blocking(read).await {
                Ok(Ok(rows)) => return Some(rows),
                Ok(Err(store::Error::Closed)) | Err(_) => return None,
                Ok(Err(err)) => tracing::warn!(source, error = %err, "cannot read in-flight rows"),
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(READ_AGAIN_AFTER) => {}
            }
        }
    }

    /// The rows with a tag, keys without source and tag. Blocking.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn read(&self, store: &Store, tag: u8) -> Result<Vec<(Bytes, Bytes)>, store::Error> {
        let mut start = self.prefix.clone();
        start.push(tag);
        let mut end = self.prefix.clone();
        end.push(tag + 1);
        let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let rows = store.scan(Table::Inflight, range, usize::MAX)?;
        let own = |(key, value): (Bytes, Bytes)| (key.slice(start.len()..), value);
        Ok(rows.into_iter().map(own).collect())
    }

    /// The key of a row.
    pub(super) fn key(&mut self, tag: u8, id: &[u8]) -> Bytes {
        self.reserve(self.prefix.len() + 1 + id.len());
        self.arena.put_slice(&self.prefix);
        self.arena.put_u8(tag);
        self.arena.put_slice(id);
        self.arena.split().freeze()
    }

    /// Writes a row.
    pub(super) fn put(&mut self, key: Bytes, value: &[u8]) -> StateOp {
        self.reserve(value.len());
        self.arena.put_slice(value);
        StateOp::Put {
            table: Table::Inflight,
            key,
            value: self.arena.split().freeze(),
        }
    }

    /// Rows share their memory, so that a message does not cost two allocations.
    fn reserve(&mut self, bytes: usize) {
        if self.arena.capacity() < bytes {
            self.arena = BytesMut::with_capacity(ARENA_BYTES.max(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn stamps(stored: &[(Bytes, Bytes)]) -> Stamps {
        Stamps::new(Rows::new("mqtt:a"), stored)
    }

    fn take(stamps: &mut Stamps, topic: &str, base: i64) -> i64 {
        stamps
            .take(topic.as_bytes(), Timestamp::from_ms(base))
            .at
            .as_ms()
    }

    #[test]
    fn topics_do_not_share_stamps() {
        let mut s = stamps(&[]);
        assert_eq!(take(&mut s, "a", 10), 10);
        assert_eq!(take(&mut s, "b", 10), 10);
        assert_eq!(take(&mut s, "a", 10), 11);
        assert_eq!(take(&mut s, "a", 10), 12);
        assert_eq!(take(&mut s, "a", 11), 13);
        assert_eq!(take(&mut s, "a", 20), 20);
        assert_eq!(take(&mut s, "b", 20), 20);
    }

    #[test]
    fn a_stamp_that_ran_ahead_is_not_given_again_after_a_restart() {
        let mut s = stamps(&[]);
        let mut stored = HashMap::new();
        let mut given = HashSet::new();
        for _ in 0..50 {
            let stamp = s.take(b"a", Timestamp::from_ms(100));
            assert!(given.insert(stamp.at));
            if let Some(StateOp::Put { key, value, .. }) = stamp.row {
                stored.insert(key.slice(b"mqtt:a\0t".len()..), value);
            }
        }
        let stored: Vec<_> = stored.into_iter().collect();
        let mut s = stamps(&stored);
        for _ in 0..50 {
            assert!(given.insert(s.take(b"a", Timestamp::from_ms(120)).at));
        }
    }

    #[test]
    fn a_topic_that_once_ran_ahead_still_gets_unique_stamps() {
        let mut s = stamps(&[]);
        let given = [19, 19, 44, 44].map(|base| take(&mut s, "a", base));
        assert_eq!(given, [19, 20, 44, 45]);
    }

    /// The rows that are left after these changes.
    fn apply(rows: &mut HashMap<Bytes, Bytes>, op: StateOp) {
        let own = |key: Bytes| key.slice(b"mqtt:a\0t".len()..);
        match op {
            StateOp::Put { key, value, .. } => drop(rows.insert(own(key), value)),
            StateOp::Delete { key, .. } => drop(rows.remove(&own(key))),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_that_say_nothing_any_more_are_swept() {
        let mut s = stamps(&[]);
        let mut rows = HashMap::new();
        for minute in 0..20 {
            for topic in 0..50 {
                // Twice in a millisecond, and never again.
                let topic = format!("{minute}/{topic}");
                for _ in 0..2 {
                    let at = Timestamp::from_ms(minute * 60_000);
                    let stamp = s.take(topic.as_bytes(), at);
                    stamp.row.into_iter().for_each(|op| apply(&mut rows, op));
                }
            }
            s.sweep().into_iter().for_each(|op| apply(&mut rows, op));
            assert!(rows.len() <= 150, "{} rows", rows.len());
        }
        // What a crash left is swept too, when messages come later.
        let stored: Vec<_> = rows.clone().into_iter().collect();
        let mut s = stamps(&stored);
        take(&mut s, "later", 3_600_000);
        s.sweep().into_iter().for_each(|op| apply(&mut rows, op));
        assert!(rows.is_empty());
    }

    #[test]
    fn a_topic_that_runs_ahead_again_keeps_its_row() {
        let mut s = stamps(&[]);
        take(&mut s, "a", 0);
        take(&mut s, "a", 0);
        take(&mut s, "b", 200_000);
        // Its row is to be swept, and is needed again before that.
        take(&mut s, "a", 200_000);
        take(&mut s, "a", 200_000);
        assert!(s.sweep().is_empty());
    }

    #[test]
    fn a_flood_of_topics_is_bounded_and_keeps_stamps_apart() {
        let topics = TOPICS_MAX + 1_000;
        let mut s = stamps(&[]);
        let mut with_row = 0;
        for topic in 0..topics {
            let at = |s: &mut Stamps| s.take(&topic.to_be_bytes(), Timestamp::from_ms(5));
            let stamps = [at(&mut s), at(&mut s), at(&mut s)];
            assert_eq!(stamps.each_ref().map(|s| s.at.as_ms()), [5, 6, 7]);
            with_row += usize::from(stamps[1].row.is_some());
        }
        assert_eq!(with_row, TOPICS_MAX);
        // More rows than there is room for: the newest count, the others go.
        let rows = (0..topics as u64).map(|topic| {
            let own = |n: [u8; 8]| Bytes::copy_from_slice(&n);
            (own(topic.to_be_bytes()), own((topic as i64).to_be_bytes()))
        });
        let mut s = stamps(&rows.collect::<Vec<_>>());
        assert_eq!(s.ahead.len(), TOPICS_MAX);
        assert!(s.ahead.contains_key(&(topics as u64 - 1)));
        assert_eq!(s.sweep().len(), 1_000);
        assert!(s.sweep().is_empty());
    }

    #[test]
    fn no_stamp_runs_further_ahead_than_a_minute() {
        let mut s = stamps(&[]);
        let last = (0..100_000).map(|_| take(&mut s, "a", 1_000)).max();
        assert_eq!(last, Some(1_000 + AHEAD_MAX_MS));
    }

    proptest! {
        #[test]
        fn stamps_of_a_topic_are_unique(bases in proptest::collection::vec(0i64..50, 1..500)) {
            let mut bases = bases;
            bases.sort_unstable();
            let mut s = stamps(&[]);
            let mut given = HashSet::new();
            for base in bases {
                let at = take(&mut s, "a", base);
                prop_assert!(at >= base);
                prop_assert!(given.insert(at));
            }
        }
    }
}
