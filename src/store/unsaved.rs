//! State that the disk refuses: kept in memory, and seen by every reader of the tables.
//!
//! Rules and notifications have to go on when nothing can be committed, or nobody is
//! told that the disk is full. So a batch that says so ([`super::WriteBatch::volatile`])
//! is answered after a while although its transaction is still refused, and its rows
//! lie here, over those on disk. Whoever reads a state table sees them as if they were
//! committed: numbers of outbox rows, ids and bodies are those that will be written.
//! When the disk takes transactions again, the rows are written and leave this place.
//! A process that ends before has told people, but has no record of it.
//!
//! Two layers: what the refused transaction will write, and what the one after it will.
//! Both are bounded: the rows that only tell of the past are left out first, and then
//! batches wait as they always did.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::Table;

/// Above this size rows of [`is_past`] tables are left out.
const PAST_BYTES_MAX: usize = 8 << 20;

/// Above this size no further batch is answered.
const BYTES_MAX: usize = 32 << 20;

/// What a row takes beside key and value.
const ROW_BYTES: usize = 96;

/// A row of a table; `None`: it is to go.
pub(super) type Row = (Bytes, Option<Bytes>);

/// The rows in memory.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    /// So that readers find out cheaply that there is nothing.
    rows: AtomicUsize,
    layers: RwLock<Layers>,
}

#[derive(Debug, Default)]
struct Layers {
    /// What the refused transaction will write.
    open: Layer,
    /// What the one after it will.
    next: Layer,
}

#[derive(Debug, Default)]
struct Layer {
    tables: [BTreeMap<Bytes, Option<Bytes>>; Table::ALL.len()],
    bytes: usize,
}

impl Unsaved {
    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows.load(Ordering::Acquire)
    }

    /// Whether another batch may come in.
    pub(super) fn has_room(&self) -> bool {
        let layers = self.read();
        layers.open.bytes + layers.next.bytes < BYTES_MAX
    }

    /// Shows a row of the refused transaction.
    pub(super) fn show(&self, table: Table, key: Bytes, value: Option<Bytes>) {
        let mut layers = self.write();
        layers.open.put(table, key, value);
        self.count(&layers);
    }

    /// Takes a row for the transaction after it; says whether there was room for it.
    pub(super) fn push(&self, table: Table, key: Bytes, value: Option<Bytes>) -> bool {
        let mut layers = self.write();
        if is_past(table) && value.is_some() && layers.next.bytes > PAST_BYTES_MAX {
            return false;
        }
        layers.next.put(table, key, value);
        self.count(&layers);
        true
    }

    /// The refused transaction was committed: gives the rows of the one after it.
    pub(super) fn committed(&self) -> Vec<(Table, Row)> {
        if self.rows() == 0 {
            return Vec::new();
        }
        let mut layers = self.write();
        layers.open = std::mem::take(&mut layers.next);
        self.count(&layers);
        let tables = Table::ALL.into_iter().zip(&layers.open.tables);
        let rows = tables.flat_map(|(table, rows)| rows.iter().map(move |row| (table, row)));
        rows.map(|(table, (key, value))| (table, (key.clone(), value.clone())))
            .collect()
    }

    /// A row, if it is here; `Some(None)`: it is to go.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        if self.rows() == 0 {
            return None;
        }
        let layers = self.read();
        let layers = [&layers.next, &layers.open].into_iter();
        let mut found = layers.filter_map(|layer| layer.tables[table as usize].get(key));
        found.next().cloned()
    }

    /// The rows in a range in key order, together with what `begin` gives: no row
    /// leaves for the disk between the two.
    pub(super) fn beside<T>(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        begin: impl FnOnce() -> T,
    ) -> (T, Vec<Row>) {
        if self.rows() == 0 {
            return (begin(), Vec::new());
        }
        let layers = self.read();
        let mut rows = BTreeMap::new();
        for layer in [&layers.open, &layers.next] {
            rows.extend(layer.tables[table as usize].range::<[u8], _>(range));
        }
        let rows = rows.into_iter().map(|(k, v)| (k.clone(), v.clone()));
        (begin(), rows.collect())
    }

    fn count(&self, layers: &Layers) {
        let tables = layers.open.tables.iter().chain(&layers.next.tables);
        let rows = tables.map(BTreeMap::len).sum();
        self.rows.store(rows, Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layer {
    fn put(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        let size = |key: &Bytes, value: &Option<Bytes>| {
            ROW_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len)
        };
        self.bytes += size(&key, &value);
        if let Some(old) = self.tables[table as usize].insert(key.clone(), value) {
            self.bytes -= size(&key, &old);
        }
    }
}

/// Whether nothing follows from a table's rows: they only tell what was.
fn is_past(table: Table) -> bool {
    matches!(table, Table::AlertHistory | Table::Attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn all(unsaved: &Unsaved) -> Vec<Row> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        unsaved.beside(Table::Alert, all, || ()).1
    }

    #[test]
    fn the_newest_word_counts_until_it_is_on_disk() {
        let unsaved = Unsaved::default();
        assert_eq!(unsaved.get(Table::Alert, b"a"), None);
        unsaved.show(Table::Alert, bytes("a"), Some(bytes("1")));
        unsaved.show(Table::Alert, bytes("b"), Some(bytes("1")));
        assert!(unsaved.push(Table::Alert, bytes("b"), None));
        assert!(unsaved.push(Table::Alert, bytes("c"), Some(bytes("2"))));
        assert_eq!(unsaved.get(Table::Alert, b"b"), Some(None));
        let want = [
            (bytes("a"), Some(bytes("1"))),
            (bytes("b"), None),
            (bytes("c"), Some(bytes("2"))),
        ];
        assert_eq!(all(&unsaved), want);
        assert_eq!(unsaved.get(Table::Outbox, b"a"), None);
        // The refused transaction is on disk, the next one is not.
        let next = unsaved.committed();
        assert_eq!(next.len(), 2);
        assert_eq!(unsaved.get(Table::Alert, b"a"), None);
        assert_eq!(all(&unsaved), want[1..]);
        assert!(unsaved.committed().is_empty());
        assert_eq!((unsaved.rows(), all(&unsaved).len()), (0, 0));
    }

    #[test]
    fn history_is_left_out_before_state_and_everything_has_a_bound() {
        let unsaved = Unsaved::default();
        let large = Bytes::from(vec![0; 1 << 20]);
        let mut taken = 0;
        for i in 0..100_u32 {
            let key = Bytes::copy_from_slice(&i.to_be_bytes());
            taken += u32::from(unsaved.push(Table::AlertHistory, key, Some(large.clone())));
        }
        assert_eq!(taken, 8);
        let mut state = 0;
        while unsaved.has_room() {
            let key = Bytes::copy_from_slice(&u32::to_be_bytes(state));
            assert!(unsaved.push(Table::Alert, key.clone(), Some(large.clone())));
            // The same row again takes no more.
            assert!(unsaved.push(Table::Alert, key, Some(large.clone())));
            state += 1;
        }
        assert_eq!(state, 24);
    }
}
