//! What one redb transaction of the writer does: log record, catalog rows and
//! state changes, in this order of dependence.

use bytes::Bytes;
use redb::{Durability, ReadableTable as _, Table as RedbTable, WriteTransaction};

use super::index::{Added, Removed};
use super::ledger::{Kind, Ledger, owner};
use super::tables::{SERIES, SYMBOLS, VALUE_BYTES_MAX, WAL, open_value, seal_value, state_table};
use super::{Table, state};
use crate::model::delivery::DEAD_LETTER_PAYLOAD_BYTES_MAX;
use crate::model::{DeadLetter, Delivery};

/// What fills a page of 8 and of 4 KiB, beside its key and redb's own bytes.
const HALF_PAGE: usize = 8_140;
const QUARTER_PAGE: usize = 4_040;

/// What to do with a state row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Write it.
    Put(Bytes),
    /// Write it if it is there.
    Replace(Bytes),
    /// Remove it.
    Delete,
}

impl Change {
    /// The value as it is stored; none when the row is to go.
    fn stored(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self {
            Change::Put(value) | Change::Replace(value) => Some(seal_value(key, value)),
            Change::Delete => None,
        }
    }

    /// Whether it has nothing to do, as the row that it replaces is gone.
    fn is_late(&self, key: &[u8], rows: &Rows<'_>) -> Result<bool, redb::Error> {
        Ok(matches!(self, Change::Replace(_)) && rows.get(key)?.is_none())
    }
}

/// State changes by table, in the order in which they came.
#[derive(Debug)]
pub(super) struct Changes {
    by_table: [Vec<(Bytes, Change)>; Table::ALL.len()],
    bytes: usize,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes {
            by_table: [const { Vec::new() }; Table::ALL.len()],
            bytes: 0,
        }
    }
}

impl Changes {
    /// Adds one.
    pub(super) fn push(&mut self, table: Table, key: Bytes, change: Change) {
        let value = match &change {
            Change::Put(value) | Change::Replace(value) => value.len(),
            Change::Delete => 0,
        };
        self.bytes += key.len() + value + 16;
        self.by_table[table as usize].push((key, change));
    }

    /// The changes of a table.
    pub(super) fn of(&self, table: Table) -> &[(Bytes, Change)] {
        &self.by_table[table as usize]
    }

    /// About how many bytes they are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// The bounds of the two tables that grow with what goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) outbox_bytes: u64,
    pub(super) dead_bytes: u64,
}

/// What the bounds made the transaction drop.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Evicted {
    /// Tenants of the outbox rows that became dead letters.
    pub(super) deliveries: Vec<String>,
    /// Dead letters that were removed.
    pub(super) dead_letters: u64,
}

/// Begins a durable transaction.
pub(super) fn begin(
    db: &redb::Database,
    quick_repair: bool,
) -> Result<WriteTransaction, redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)
        .map_err(redb::Error::from)?;
    if quick_repair {
        txn.set_quick_repair(true);
    }
    Ok(txn)
}

/// Writes a log record, cut into parts.
pub(super) fn put_record(
    txn: &WriteTransaction,
    seq: u64,
    record: &[u8],
) -> Result<(), redb::Error> {
    let mut table = txn.open_table(WAL)?;
    for (part, piece) in pieces(record).enumerate() {
        let part = u16::try_from(part).expect("a record is below 1 GiB");
        table.insert((seq, part), piece)?;
    }
    Ok(())
}

/// A value gets a page of the next power of two: what would leave a quarter of 16 KiB
/// empty is cut, so that a record leaves less than the smallest page empty.
pub(super) fn pieces(mut record: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let size = match record.len() {
            0 => return None,
            len if len > HALF_PAGE + QUARTER_PAGE => len.min(VALUE_BYTES_MAX),
            len => len.min(HALF_PAGE),
        };
        let (piece, rest) = record.split_at(size);
        record = rest;
        Some(piece)
    })
}

/// Writes new series and their symbols.
pub(super) fn put_catalog(txn: &WriteTransaction, added: &[Added]) -> Result<(), redb::Error> {
    if added.is_empty() {
        return Ok(());
    }
    let mut symbols = txn.open_table(SYMBOLS)?;
    for (id, text) in added.iter().flat_map(|added| &added.symbols) {
        symbols.insert(id, &**text)?;
    }
    let mut series = txn.open_table(SERIES)?;
    for added in added {
        series.insert(added.series, added.row.as_slice())?;
    }
    Ok(())
}

/// Deletes series and symbols that nothing uses any more.
pub(super) fn delete_catalog(txn: &WriteTransaction, removed: &Removed) -> Result<(), redb::Error> {
    let mut series = txn.open_table(SERIES)?;
    for id in &removed.series {
        series.remove(id)?;
    }
    let mut symbols = txn.open_table(SYMBOLS)?;
    for id in &removed.symbols {
        symbols.remove(id)?;
    }
    Ok(())
}

/// Deletes the log records `from..=to`, at most about `bytes_max` of them. Gives
/// the first commit that is left, and the bytes that went.
pub(super) fn delete_records(
    txn: &WriteTransaction,
    from: u64,
    to: u64,
    bytes_max: usize,
) -> Result<(u64, usize), redb::Error> {
    let mut table = txn.open_table(WAL)?;
    let (mut next, mut bytes) = (from, 0);
    for row in table.range((from, 0)..=(to, u16::MAX))? {
        let (key, piece) = row?;
        let (seq, _) = key.value();
        if seq != next && bytes >= bytes_max {
            break;
        }
        next = seq;
        bytes += piece.value().len();
    }
    table.retain_in((from, 0)..=(next, u16::MAX), |_, _| false)?;
    let rest = table
        .range((next + 1, 0)..=(to, u16::MAX))?
        .next()
        .is_some();
    Ok((if rest { next + 1 } else { to + 1 }, bytes))
}

/// Makes the state changes and keeps the bounds. `sequence` is the last number
/// given out; letters made of evicted deliveries count on from it.
pub(super) fn put_state(
    txn: &WriteTransaction,
    changes: &Changes,
    bounds: Bounds,
    ledger: &mut Ledger,
    sequence: &mut u64,
) -> Result<Evicted, redb::Error> {
    let mut evicted = Evicted::default();
    let mut letters = Vec::new();
    for table in Table::ALL {
        match table {
            Table::Outbox if !changes.of(table).is_empty() => {
                let mut rows = txn.open_table(state_table(table))?;
                put_counted(&mut rows, changes.of(table), Kind::Outbox, ledger)?;
                letters = evict_deliveries(&mut rows, bounds.outbox_bytes, ledger)?;
            }
            Table::Dead if !(changes.of(table).is_empty() && letters.is_empty()) => {
                let mut rows = txn.open_table(state_table(table))?;
                put_counted(&mut rows, changes.of(table), Kind::Dead, ledger)?;
                for letter in letters.drain(..) {
                    *sequence += 1;
                    let row = (
                        Bytes::copy_from_slice(&sequence.to_be_bytes()),
                        Change::Put(state::encode_dead_letter(&letter).into()),
                    );
                    put_counted(&mut rows, &[row], Kind::Dead, ledger)?;
                    evicted.deliveries.push(letter.tenant_id);
                }
                evicted.dead_letters = evict_letters(&mut rows, bounds.dead_bytes, ledger)?;
            }
            Table::Outbox | Table::Dead => {}
            _ => put_plain(txn, table, changes.of(table))?,
        }
    }
    Ok(evicted)
}

fn put_plain(
    txn: &WriteTransaction,
    table: Table,
    changes: &[(Bytes, Change)],
) -> Result<(), redb::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut rows = txn.open_table(state_table(table))?;
    for (key, change) in changes {
        if change.is_late(key, &rows)? {
            continue;
        }
        match change.stored(key) {
            Some(stored) => drop(rows.insert(&key[..], stored.as_slice())?),
            None => drop(rows.remove(&key[..])?),
        }
    }
    Ok(())
}

type Rows<'txn> = RedbTable<'txn, &'static [u8], &'static [u8]>;

fn put_counted(
    rows: &mut Rows<'_>,
    changes: &[(Bytes, Change)],
    kind: Kind,
    ledger: &mut Ledger,
) -> Result<(), redb::Error> {
    for (key, change) in changes {
        if change.is_late(key, rows)? {
            continue;
        }
        let stored = change.stored(key);
        let old = match &stored {
            Some(stored) => rows.insert(&key[..], stored.as_slice())?,
            None => rows.remove(&key[..])?,
        };
        if let Some(old) = old {
            let old = old.value();
            ledger.remove(kind, &owner(kind, key, old), key.len() + old.len());
        }
        if let Some(stored) = stored {
            ledger.add(kind, &owner(kind, key, &stored), key.len() + stored.len());
        }
    }
    Ok(())
}

/// Removes the oldest rows of whoever holds most until the bound is kept, so that
/// a dead destination does not push out what others wait for.
fn evict_deliveries(
    rows: &mut Rows<'_>,
    bytes_max: u64,
    ledger: &mut Ledger,
) -> Result<Vec<DeadLetter>, redb::Error> {
    let mut letters = Vec::new();
    while ledger.bytes(Kind::Outbox) > bytes_max {
        let Some(destination) = ledger.largest_destination() else {
            break;
        };
        let from = state::outbox_key(&destination, 0);
        let to = state::outbox_key(&destination, u64::MAX);
        let first = rows.range(from.as_slice()..=to.as_slice())?.next();
        let Some((key, bytes, delivery)) = first.transpose()?.map(|(key, value)| {
            let (key, stored) = (key.value().to_vec(), value.value());
            let delivery =
                open_value(&key, stored).and_then(|row| state::decode_delivery(row).ok());
            let bytes = key.len() + stored.len();
            (key, bytes, delivery)
        }) else {
            break;
        };
        rows.remove(key.as_slice())?;
        ledger.remove(Kind::Outbox, &destination, bytes);
        letters.push(delivery.map_or_else(unreadable_letter, overload_letter));
    }
    Ok(letters)
}

/// What is left of a row that had no room and cannot be read.
fn unreadable_letter() -> DeadLetter {
    DeadLetter {
        source: "outbox".to_owned(),
        topic: String::new(),
        tenant_id: "_unknown".to_owned(),
        received_at: crate::model::Timestamp::from_ms(0),
        reason: "overload".to_owned(),
        detail: "the outbox is full, and the row is damaged".to_owned(),
        attempts: 0,
        payload_bytes: 0,
        payload: Vec::new(),
    }
}

/// What is left of a delivery that had no room.
fn overload_letter(delivery: Delivery) -> DeadLetter {
    let mut payload = delivery.body;
    let payload_bytes = payload.len() as u64;
    payload.truncate(DEAD_LETTER_PAYLOAD_BYTES_MAX);
    DeadLetter {
        source: delivery.destination,
        topic: delivery.route,
        tenant_id: delivery.tenant_id.to_string(),
        received_at: delivery.created_at,
        reason: "overload".to_owned(),
        detail: "the outbox is full".to_owned(),
        attempts: delivery.attempts,
        payload_bytes,
        payload,
    }
}

fn evict_letters(
    rows: &mut Rows<'_>,
    bytes_max: u64,
    ledger: &mut Ledger,
) -> Result<u64, redb::Error> {
    let mut evicted = 0;
    while ledger.bytes(Kind::Dead) > bytes_max {
        let Some((key, value)) = rows.pop_first()? else {
            break;
        };
        let (key, stored) = (key.value(), value.value());
        ledger.remove(
            Kind::Dead,
            &owner(Kind::Dead, key, stored),
            key.len() + stored.len(),
        );
        evicted += 1;
    }
    Ok(evicted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fill_pages_and_make_the_record() {
        for (len, want) in [
            (0, vec![]),
            (100, vec![100]),
            (8_140, vec![8_140]),
            (8_141, vec![8_140, 1]),
            (12_180, vec![8_140, 4_040]),
            (12_181, vec![12_181]),
            (42_000, vec![16_300, 16_300, 8_140, 1_260]),
        ] {
            let record: Vec<u8> = (0..=250).cycle().take(len).collect();
            let pieces: Vec<&[u8]> = pieces(&record).collect();
            assert_eq!(pieces.concat(), record);
            let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
            assert_eq!(lengths, want, "{len}");
        }
    }
}
