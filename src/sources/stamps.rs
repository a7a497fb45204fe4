//! The times of messages that bring none.
//!
//! Identity in the store is (series, time), so two messages of one topic within
//! one millisecond need different stamps: the later one gets the next free
//! millisecond. A long burst makes a topic's stamps run ahead of the clock, and
//! a restart must not give the same stamps again. So the last stamp of such a
//! topic is a row of [`Table::Inflight`], written in the commit of its message.
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
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use crate::model::Timestamp;
use crate::store::{self, StateOp, Store, Table};

/// No stamp runs further ahead than this; beyond it the store sees a conflict.
const AHEAD_MAX_MS: i64 = 60_000;
/// Topics whose stamps may run ahead at the same time.
const TOPICS_MAX: usize = 65_536;
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
    /// The last stamps of topics that ran ahead.
    ahead: HashMap<u64, i64, ahash::RandomState>,
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
        Stamps {
            rows,
            now_ms: i64::MIN,
            recent: HashMap::default(),
            ahead: ahead.take(TOPICS_MAX).collect(),
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
                if self.ahead.len() < TOPICS_MAX || self.ahead.contains_key(&topic) {
                    self.ahead.insert(topic, at);
                }
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
        // A minute of slack: JetStream sends older messages again in between.
        if self.ahead.len() >= TOPICS_MAX || base.saturating_sub(self.now_ms) >= AHEAD_MAX_MS {
            self.ahead.retain(|_, at| *at >= base - AHEAD_MAX_MS);
        }
        self.now_ms = base;
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
