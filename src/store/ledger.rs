//! How many rows and bytes the outbox and the dead letters hold, by destination
//! and by tenant: depth gauges and bounds without a look at the disk.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::Table;
use super::state;
use super::tables::{open_value, state_table};

/// Rows and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// The two bounded tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// By destination.
    Outbox,
    /// By tenant.
    Dead,
}

/// The counts. Changes since the last [`Ledger::keep`] can be taken back, for a
/// transaction that fails.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    outbox: BTreeMap<String, Held>,
    dead: BTreeMap<String, Held>,
    undo: Vec<(Kind, String, i64, i64)>,
}

impl Ledger {
    /// Counts what is stored, and gives the highest sequence number in use.
    pub(super) fn read(db: &Database) -> Result<(Ledger, u64), redb::Error> {
        let mut ledger = Ledger::default();
        let mut last = 0;
        let txn = db.begin_read()?;
        for (kind, table) in [(Kind::Outbox, Table::Outbox), (Kind::Dead, Table::Dead)] {
            for row in txn.open_table(state_table(table))?.iter()? {
                let (key, value) = row?;
                let (key, value) = (key.value(), value.value());
                last = last.max(sequence_of(key).unwrap_or(0));
                ledger.add(kind, &owner(kind, key, value), key.len() + value.len());
            }
        }
        ledger.keep();
        Ok((ledger, last))
    }

    fn side(&mut self, kind: Kind) -> &mut BTreeMap<String, Held> {
        match kind {
            Kind::Outbox => &mut self.outbox,
            Kind::Dead => &mut self.dead,
        }
    }

    /// Counts a row that came.
    pub(super) fn add(&mut self, kind: Kind, owner: &str, bytes: usize) {
        self.change(kind, owner, 1, bytes_i64(bytes));
    }

    /// Counts a row that went.
    pub(super) fn remove(&mut self, kind: Kind, owner: &str, bytes: usize) {
        self.change(kind, owner, -1, -bytes_i64(bytes));
    }

    fn change(&mut self, kind: Kind, owner: &str, rows: i64, bytes: i64) {
        self.apply(kind, owner, rows, bytes);
        self.undo.push((kind, owner.to_owned(), rows, bytes));
    }

    fn apply(&mut self, kind: Kind, owner: &str, rows: i64, bytes: i64) {
        let side = self.side(kind);
        let held = match side.get_mut(owner) {
            Some(held) => held,
            None => side.entry(owner.to_owned()).or_default(),
        };
        held.rows = held.rows.saturating_add_signed(rows);
        held.bytes = held.bytes.saturating_add_signed(bytes);
    }

    /// Makes the changes final.
    pub(super) fn keep(&mut self) {
        self.undo.clear();
    }

    /// Takes the changes back.
    pub(super) fn take_back(&mut self) {
        for (kind, owner, rows, bytes) in std::mem::take(&mut self.undo).into_iter().rev() {
            self.apply(kind, &owner, -rows, -bytes);
        }
    }

    /// Bytes of one table.
    pub(super) fn bytes(&mut self, kind: Kind) -> u64 {
        self.side(kind).values().map(|held| held.bytes).sum()
    }

    /// The destination whose outbox rows take the most bytes.
    pub(super) fn largest_destination(&self) -> Option<String> {
        let largest = self.outbox.iter().max_by_key(|(_, held)| held.bytes);
        largest
            .filter(|(_, held)| held.rows > 0)
            .map(|(name, _)| name.clone())
    }

    /// Dead letters by tenant; a tenant that had some stays, with zero.
    pub(super) fn dead(&self) -> BTreeMap<String, u64> {
        let rows = self.dead.iter();
        rows.map(|(tenant, held)| (tenant.clone(), held.rows))
            .collect()
    }
}

fn bytes_i64(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("a row is far below 8 EiB")
}

/// Who a row is counted for.
pub(super) fn owner(kind: Kind, key: &[u8], stored: &[u8]) -> String {
    match kind {
        Kind::Outbox => {
            let name = key.len().saturating_sub(9);
            String::from_utf8_lossy(&key[..name]).into_owned()
        }
        Kind::Dead => open_value(key, stored)
            .and_then(|row| state::decode_dead_letter(row).ok())
            .map_or_else(|| "_unknown".to_owned(), |letter| letter.tenant_id),
    }
}

/// The sequence number at the end of a key.
fn sequence_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_transaction_leaves_the_counts_as_they_were() {
        let mut ledger = Ledger::default();
        ledger.add(Kind::Outbox, "a", 100);
        ledger.add(Kind::Outbox, "b", 300);
        ledger.keep();
        ledger.remove(Kind::Outbox, "b", 300);
        ledger.add(Kind::Dead, "t", 50);
        assert_eq!(ledger.bytes(Kind::Outbox), 100);
        assert_eq!(ledger.largest_destination().as_deref(), Some("a"));
        ledger.take_back();
        assert_eq!(ledger.bytes(Kind::Outbox), 400);
        assert_eq!(
            ledger.outbox.get("b"),
            Some(&Held {
                rows: 1,
                bytes: 300
            })
        );
        assert_eq!(ledger.dead(), [("t".to_owned(), 0)].into());
    }
}
