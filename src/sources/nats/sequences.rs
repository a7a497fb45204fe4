//! Which time a JetStream message was given, so that a redelivery gets the same.
//!
//! A message without a time of its own gets the time at which the stream stored
//! it, which no redelivery changes. But two messages of one subject within one
//! millisecond must differ, so the later one moves on (see [`Stamps`]), and then
//! a redelivery has to find where to. So stream sequence and stamp are a row of
//! [`Table::Inflight`], written in the commit of its samples, and only if one of
//! them takes the stamp. Rows up to the consumer's ack floor are removed.
//!
//! Key: source, `0x00`, `s`, stream sequence (BE). Value: the stamp (i64 BE).

use std::collections::HashMap;

use bytes::Bytes;

use super::super::stamps::{Rows, Stamps};
use crate::model::Timestamp;
use crate::store::{self, StateOp, Store, Table};

/// Rows removed in one commit.
const SETTLED_MAX: usize = 10_000;

/// The stamps of the messages that the stream may send again.
pub(super) struct Sequences {
    rows: Rows,
    stamps: Stamps,
    store: Store,
    /// Of messages without an answer: their row may not be written yet.
    open: HashMap<u64, Timestamp, ahash::RandomState>,
}

impl Sequences {
    /// For the source `nats:NAME`, with its rows of [`Stamps`].
    pub(super) fn new(source: &str, store: Store, stored: &[(Bytes, Bytes)]) -> Sequences {
        Sequences {
            rows: Rows::new(source),
            stamps: Stamps::new(Rows::new(source), stored),
            store,
            open: HashMap::default(),
        }
    }

    /// Stamps a message; gives rows to write when a sample takes the stamp.
    ///
    /// # Errors
    /// When the store cannot be read, which only a redelivery needs.
    pub(super) fn mark(
        &mut self,
        sequence: u64,
        redelivered: bool,
        topic: &[u8],
        published: Timestamp,
    ) -> Result<(Timestamp, Vec<StateOp>), store::Error> {
        let key = self.rows.key(b's', &sequence.to_be_bytes());
        let known = match redelivered {
            true => self.known(sequence, &key)?,
            false => None,
        };
        let (stamp, ahead) = match known {
            Some(stamp) => (stamp, None),
            None => {
                let stamp = self.stamps.take(topic, published);
                (stamp.at, stamp.row)
            }
        };
        self.open.insert(sequence, stamp);
        let mut state = vec![self.rows.put(key, &stamp.as_ms().to_be_bytes())];
        state.extend(ahead);
        Ok((stamp, state))
    }

    /// Stamps a message that never comes again.
    pub(super) fn mark_once(&mut self, topic: &[u8], now: Timestamp) -> (Timestamp, Vec<StateOp>) {
        let stamp = self.stamps.take(topic, now);
        (stamp.at, stamp.row.into_iter().collect())
    }

    /// Messages got their verdicts: from now on their rows are what counts.
    pub(super) fn judged(&mut self, sequences: impl IntoIterator<Item = u64>) {
        for sequence in sequences {
            self.open.remove(&sequence);
        }
    }

    /// Rows of stamps to delete.
    pub(super) fn sweep(&mut self) -> Vec<StateOp> {
        self.stamps.sweep()
    }

    fn known(&self, sequence: u64, key: &[u8]) -> Result<Option<Timestamp>, store::Error> {
        if let Some(stamp) = self.open.get(&sequence) {
            return Ok(Some(*stamp));
        }
        let row = self.store.get(Table::Inflight, key)?;
        let ms = row.and_then(|row| row[..].try_into().ok());
        Ok(ms.map(|ms| Timestamp::from_ms(i64::from_be_bytes(ms))))
    }
}

/// Deletes the rows that no redelivery can ask for any more. Blocking.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn settled(
    source: &str,
    store: &Store,
    ack_floor: u64,
) -> Result<Vec<StateOp>, store::Error> {
    let mut rows = Rows::new(source);
    let [first, last] = [0, ack_floor].map(|n: u64| rows.key(b's', &n.to_be_bytes()));
    let range = (
        std::ops::Bound::Included(&first[..]),
        std::ops::Bound::Included(&last[..]),
    );
    let rows = store.scan(Table::Inflight, range, SETTLED_MAX)?;
    let delete = |(key, _)| StateOp::Delete {
        table: Table::Inflight,
        key,
    };
    Ok(rows.into_iter().map(delete).collect())
}
