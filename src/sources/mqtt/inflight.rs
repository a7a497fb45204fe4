//! Which time a QoS 1 message was given, so that a redelivery gets the same.
//!
//! A message without a time of its own is stamped when it arrives. When we are
//! killed between its commit and its acknowledgement, the broker sends it again
//! with the same packet id and DUP set; a new stamp would store it twice. So its
//! packet id, its hash and its stamp are a row of [`Table::Inflight`], written in
//! the commit of its samples. Only a message with DUP set looks there. Ingest
//! writes the row only when a sample takes the stamp: a message with a time of
//! its own costs no row.
//!
//! Packet ids are used again, and an equal payload then has an equal hash. So an
//! entry has to go once the broker cannot send its message again. A broker
//! answers a ping after the acknowledgements that we wrote before it, so the
//! answer confirms those; what was acknowledged by a lost connection stays
//! unconfirmed. Dropping an entry when its acknowledgement is written would be
//! wrong: it may never arrive, and then the redelivery would be stored twice.
//! On disk the entries go by their number: they are numbered in order of receipt,
//! and up to the `floor` they are void. A new session voids all of them.
//!
//! What stays undecidable is an equal message that takes over a packet id before
//! a ping confirmed the last use, and that is cut off on its first delivery; it
//! counts as the duplicate that it looks like.
//!
//! Key: source, `0x00`, `p`, packet id (BE). Value: xxh3-64 of the payload seeded
//! with that of the topic, stamp, number (each BE). Packet id 0 does not exist; its row is the floor.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::super::stamps::{Rows, Stamp, Stamps};
use crate::model::Timestamp;
use crate::store::StateOp;
#[cfg(doc)]
use crate::store::Table;

/// The stamps of the messages that the broker may send again.
pub(super) struct Inflight {
    rows: Rows,
    stamps: Stamps,
    entries: HashMap<u16, Entry, ahash::RandomState>,
    /// The number of the last message.
    last: u64,
    floor: u64,
    floor_is_stored: bool,
    /// How many acknowledgements were written.
    acked: u64,
    /// For each unanswered ping of this connection: the acknowledgements before it.
    pings: VecDeque<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    hash: u64,
    stamp: Timestamp,
    number: u64,
    /// Which acknowledgement of this connection was its own; 0 for none.
    acked: u64,
}

/// What a message is to be stored with.
pub(super) struct Marked {
    /// Its stamp.
    pub(super) stamp: Timestamp,
    /// Its number in order of receipt.
    pub(super) number: u64,
    /// Rows to write when a sample takes the stamp.
    pub(super) state: Vec<StateOp>,
}

impl Inflight {
    /// Tags the rows of [`Rows`] that are kept here.
    pub(super) const TAG: u8 = b'p';

    /// For the source `mqtt:NAME`, with its rows under [`Inflight::TAG`].
    pub(super) fn new(source: &str, stamps: Stamps, stored: &[(Bytes, Bytes)]) -> Inflight {
        let mut inflight = Inflight {
            rows: Rows::new(source),
            stamps,
            entries: HashMap::default(),
            last: 0,
            floor: 0,
            floor_is_stored: true,
            acked: 0,
            pings: VecDeque::new(),
        };
        for (key, value) in stored {
            inflight.restore(key, value);
        }
        inflight.last = inflight.last.max(inflight.floor);
        let floor = inflight.floor;
        inflight.entries.retain(|_, entry| entry.number > floor);
        inflight
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let packet_id = u16::from_be_bytes(key.try_into().ok()?);
        if packet_id == 0 {
            self.floor = u64::from_be_bytes(value.try_into().ok()?);
            return Some(());
        }
        let (hash, rest) = value.split_first_chunk::<8>()?;
        let (stamp, rest) = rest.split_first_chunk::<8>()?;
        let entry = Entry {
            hash: u64::from_be_bytes(*hash),
            stamp: Timestamp::from_ms(i64::from_be_bytes(*stamp)),
            number: u64::from_be_bytes(rest.try_into().ok()?),
            acked: 0,
        };
        self.last = self.last.max(entry.number);
        self.entries.insert(packet_id, entry);
        Some(())
    }

    /// Stamps a QoS 1 message that came `now`.
    pub(super) fn mark(
        &mut self,
        packet_id: u16,
        dup: bool,
        topic: &[u8],
        payload: &[u8],
        now: Timestamp,
    ) -> Marked {
        self.last += 1;
        let number = self.last;
        let hash = hash(topic, payload);
        let (stamp, ahead) = match self.known(packet_id, hash).filter(|_| dup) {
            Some(stamp) => (stamp, None),
            None => {
                let Stamp { at, row } = self.stamps.take(topic, now);
                (at, row)
            }
        };
        let entry = Entry {
            hash,
            stamp,
            number,
            acked: 0,
        };
        self.entries.insert(packet_id, entry);
        let mut state = vec![self.row(packet_id, entry)];
        state.extend(ahead);
        if !self.floor_is_stored {
            self.floor_is_stored = true;
            state.push(self.floor_row());
        }
        Marked {
            stamp,
            number,
            state,
        }
    }

    /// Stamps a QoS 0 message that came `now`: it never comes again.
    pub(super) fn mark_once(&mut self, topic: &[u8], now: Timestamp) -> Marked {
        let Stamp { at, row } = self.stamps.take(topic, now);
        Marked {
            stamp: at,
            number: self.last,
            state: row.into_iter().collect(),
        }
    }

    /// Rows of stamps to delete.
    pub(super) fn sweep(&mut self) -> Vec<StateOp> {
        self.stamps.sweep()
    }

    /// Another connection: nothing of what the last one wrote is sure to have arrived.
    pub(super) fn reconnected(&mut self) {
        self.pings.clear();
        for entry in self.entries.values_mut() {
            entry.acked = 0;
        }
    }

    /// The acknowledgement of this message was written.
    pub(super) fn acknowledged(&mut self, packet_id: u16, number: u64) {
        let entry = self.entries.get_mut(&packet_id);
        if let Some(entry) = entry.filter(|entry| entry.number == number) {
            self.acked += 1;
            entry.acked = self.acked;
        }
    }

    /// A ping was written.
    pub(super) fn pinged(&mut self) {
        self.pings.push_back(self.acked);
    }

    /// The oldest ping was answered. Cost: one pass over the entries.
    pub(super) fn ping_answered(&mut self) {
        let confirmed = self.pings.pop_front().unwrap_or(0);
        let is_open = |entry: &Entry| entry.acked == 0 || entry.acked > confirmed;
        self.entries.retain(|_, entry| is_open(entry));
        let oldest = self.entries.values().map(|entry| entry.number).min();
        let floor = oldest.map_or(self.last, |oldest| oldest - 1);
        if floor > self.floor {
            self.floor = floor;
            self.floor_is_stored = false;
        }
    }

    /// The broker has lost the session: no redelivery can come. Gives the row
    /// that has to be durable before the first message of the new session is;
    /// none when there was nothing to forget.
    pub(super) fn forget(&mut self) -> Option<StateOp> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries.clear();
        self.floor = self.last;
        self.floor_is_stored = true;
        Some(self.floor_row())
    }

    fn known(&self, packet_id: u16, hash: u64) -> Option<Timestamp> {
        let entry = self.entries.get(&packet_id)?;
        (entry.hash == hash).then_some(entry.stamp)
    }

    fn row(&mut self, packet_id: u16, entry: Entry) -> StateOp {
        let mut value = [0; 24];
        value[..8].copy_from_slice(&entry.hash.to_be_bytes());
        value[8..16].copy_from_slice(&entry.stamp.as_ms().to_be_bytes());
        value[16..].copy_from_slice(&entry.number.to_be_bytes());
        let key = self.rows.key(Inflight::TAG, &packet_id.to_be_bytes());
        self.rows.put(key, &value)
    }

    fn floor_row(&mut self) -> StateOp {
        let key = self.rows.key(Inflight::TAG, &0u16.to_be_bytes());
        self.rows.put(key, &self.floor.to_be_bytes())
    }
}

fn hash(topic: &[u8], payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, xxh3_64(topic))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SOURCE: &str = "mqtt:a";

    /// The table as the store would hold it.
    #[derive(Default)]
    struct Disk(BTreeMap<Bytes, Bytes>);

    impl Disk {
        fn commit(&mut self, ops: impl IntoIterator<Item = StateOp>) {
            for op in ops {
                let StateOp::Put { key, value, .. } = op else {
                    panic!("only rows are written");
                };
                if key[SOURCE.len() + 1] == Inflight::TAG {
                    self.0.insert(key.slice(SOURCE.len() + 2..), value);
                }
            }
        }

        fn open(&self) -> Inflight {
            let rows: Vec<_> = self.0.clone().into_iter().collect();
            open(&rows)
        }
    }

    fn open(rows: &[(Bytes, Bytes)]) -> Inflight {
        let stamps = Stamps::new(Rows::new(SOURCE), &[]);
        Inflight::new(SOURCE, stamps, rows)
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn a_redelivery_after_a_kill_keeps_its_stamp() {
        let mut disk = Disk::default();
        let first = disk.open().mark(1, false, b"t", b"21.5", at(100));
        disk.commit(first.state);
        let again = disk.open().mark(1, true, b"t", b"21.5", at(900));
        assert_eq!(again.stamp, at(100));
    }

    #[test]
    fn a_redelivery_of_what_was_never_committed_is_new() {
        let mut inflight = Disk::default().open();
        assert_eq!(inflight.mark(1, true, b"t", b"1", at(900)).stamp, at(900));
    }

    #[test]
    fn a_redelivery_after_a_reconnect_keeps_its_stamp() {
        let mut inflight = Disk::default().open();
        inflight.mark(1, false, b"t", b"1", at(100));
        assert_eq!(inflight.mark(1, true, b"t", b"1", at(200)).stamp, at(100));
        assert_eq!(inflight.mark(1, true, b"t", b"1", at(300)).stamp, at(100));
    }

    #[test]
    fn a_packet_id_with_another_message_is_new() {
        let mut inflight = Disk::default().open();
        inflight.mark(1, false, b"t", b"1", at(100));
        assert_eq!(inflight.mark(1, true, b"t", b"2", at(200)).stamp, at(200));
        assert_eq!(inflight.mark(1, false, b"t", b"2", at(300)).stamp, at(300));
    }

    #[test]
    fn an_equal_message_after_a_confirmed_ack_is_new() {
        let mut disk = Disk::default();
        let mut inflight = disk.open();
        let first = inflight.mark(1, false, b"t", b"1", at(100));
        inflight.acknowledged(1, first.number);
        inflight.pinged();
        inflight.ping_answered();
        disk.commit(first.state);
        disk.commit(inflight.mark(2, false, b"t", b"9", at(150)).state);
        assert_eq!(inflight.mark(1, true, b"t", b"1", at(200)).stamp, at(200));
        assert_eq!(
            disk.open().mark(1, true, b"t", b"1", at(300)).stamp,
            at(300)
        );
    }

    #[test]
    fn an_ack_that_no_ping_confirmed_may_not_have_arrived() {
        let mut disk = Disk::default();
        let mut inflight = disk.open();
        let first = inflight.mark(1, false, b"t", b"1", at(100));
        let second = inflight.mark(2, false, b"t", b"2", at(100));
        inflight.pinged();
        inflight.acknowledged(1, first.number);
        inflight.ping_answered();
        disk.commit(first.state);
        disk.commit(second.state);
        // Nor what was acknowledged by a connection that is gone, or not at all.
        inflight.reconnected();
        let third = inflight.mark(3, false, b"t", b"3", at(150));
        inflight.acknowledged(3, third.number);
        inflight.pinged();
        inflight.ping_answered();
        disk.commit(third.state);
        disk.commit(inflight.mark(4, false, b"t", b"4", at(160)).state);
        for mut inflight in [inflight, disk.open()] {
            assert_eq!(inflight.mark(1, true, b"t", b"1", at(200)).stamp, at(100));
            assert_eq!(inflight.mark(2, true, b"t", b"2", at(200)).stamp, at(101));
        }
    }

    #[test]
    fn a_new_session_forgets_everything() {
        let mut disk = Disk::default();
        let mut inflight = disk.open();
        disk.commit(inflight.mark(1, false, b"t", b"1", at(100)).state);
        disk.commit(inflight.forget());
        assert_eq!(inflight.mark(1, true, b"t", b"1", at(200)).stamp, at(200));
        assert_eq!(
            disk.open().mark(1, true, b"t", b"1", at(300)).stamp,
            at(300)
        );
        assert!(Disk::default().open().forget().is_none());
    }

    #[test]
    fn a_burst_of_one_topic_gets_different_stamps() {
        let mut inflight = Disk::default().open();
        let stamps: Vec<_> = (1..4)
            .map(|id| inflight.mark(id, false, b"t", b"1", at(100)).stamp)
            .collect();
        assert_eq!(stamps, [at(100), at(101), at(102)]);
    }

    #[test]
    fn damaged_rows_are_ignored() {
        let rows = [
            (Bytes::from_static(b"\x01"), Bytes::new()),
            (Bytes::from_static(b"\x00\x01"), Bytes::from_static(b"xx")),
            (Bytes::from_static(b"\x00\x00"), Bytes::from_static(b"xx")),
        ];
        assert_eq!(open(&rows).entries.len(), 0);
    }
}
