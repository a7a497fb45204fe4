//! The tables of `hot.redb`: the file format.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | see [`Meta`]'s fields; `hash` is that of the numbers, other rows have their own |
//! | `wal` | commit (u64), part (u16) | a piece of a log record, at most 16,300 bytes |
//! | `sym` | symbol (u32) | the text |
//! | `series` | ref (u32) | see [`super::catalog`]; its hash is that of its symbols' texts too |
//! | a state table | as its owner says | the value, then the xxh3-64 (LE) of key and value |
//!
//! redb compares its own checksums at a repair only, so each of these has one of ours.
//! Version 1 had none in `meta` and `series`, and none of the keys of state rows: it is
//! made version 2 when it is opened, but for the state rows, of which both forms stay
//! good. Version 3 has a number for the store, and names the file in which the log goes on.
//!
//! Values of more than 16,300 bytes would take and write up to twice their size.
//! The number of the last commit is the largest of the last key in `wal`, the last
//! record of the appended log ([`super::appended`]) and `wal_sealed_seq`: every commit
//! writes a record to one of the two logs.

use std::collections::BTreeMap;

use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable, TableDefinition, TableError,
    TableHandle as _, WriteTransaction,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Table;
use super::days::finished::Finished;

/// Single values by name.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// The log.
pub(super) const WAL: TableDefinition<'_, (u64, u16), &[u8]> = TableDefinition::new("wal");
/// Label texts.
pub(super) const SYMBOLS: TableDefinition<'_, u32, &str> = TableDefinition::new("sym");
/// Series.
pub(super) const SERIES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("series");

/// The longest value that redb stores without rounding its page up.
pub(super) const VALUE_BYTES_MAX: usize = 16_300;

/// The version of the file's form.
pub(super) const VERSION: u64 = 3;

/// The version whose store has no number, and whose log files nobody names.
pub(super) const NAMELESS_VERSION: u64 = 2;

/// The first version, which is still opened.
pub(super) const FIRST_VERSION: u64 = 1;

/// The row of `meta` with the hash of the others.
const META_HASH: &str = "hash";

/// The row of `meta` with the store's number.
const STORE_ROW: &str = "store";

/// The row of `meta` with the number and the life of the file in which the log goes on.
/// It is not in backups: what is restored has one log.
pub(super) const LOG_ROW: &str = "log";

/// The row of `meta` with the last commit in the appended log, as of the last clean
/// stop. Nor is this in backups.
pub(super) const END_ROW: &str = "log_end";

/// The redb table of a state table.
pub(super) fn state_table(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// The numbers in `meta`, each a u64 (LE). What is not there is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Meta {
    /// The version of the file's form.
    pub(super) version: u64,
    /// Log records up to this one are sealed.
    pub(super) wal_sealed_seq: u64,
    /// The last number given to an outbox row or dead letter, as of `wal_sealed_seq`.
    pub(super) sequence: u64,
    /// Refs and symbols up to these were given out, deleted ones included.
    pub(super) last_ref: u64,
    pub(super) last_symbol: u64,
    /// The store's own number, drawn when it was made; 0: it has none. Not changed by
    /// [`Meta::write`].
    pub(super) store: u64,
    /// The file in which the log goes on, see [`put_log`]. Nor is this.
    pub(super) log: Option<(u64, u64)>,
    /// The log reached to this commit at least, see [`put_end`]. Nor is this.
    pub(super) end: u64,
}

impl Meta {
    fn fields(&mut self) -> [(&'static str, &mut u64); 5] {
        [
            ("version", &mut self.version),
            ("wal_sealed_seq", &mut self.wal_sealed_seq),
            ("sequence", &mut self.sequence),
            ("last_ref", &mut self.last_ref),
            ("last_symbol", &mut self.last_symbol),
        ]
    }

    fn hash(mut self) -> u64 {
        let fields = self.fields();
        let add = |hash, (name, value): (&str, &mut u64)| {
            let hash = xxh3_64_with_seed(name.as_bytes(), hash);
            xxh3_64_with_seed(&value.to_le_bytes(), hash)
        };
        fields.into_iter().fold(0, add)
    }

    /// Writes all of it.
    pub(super) fn write(mut self, txn: &WriteTransaction) -> Result<(), redb::Error> {
        let mut table = txn.open_table(META)?;
        table.insert(META_HASH, self.hash().to_le_bytes().as_slice())?;
        for (name, value) in self.fields() {
            table.insert(name, value.to_le_bytes().as_slice())?;
        }
        Ok(())
    }

    /// Reads all of it.
    pub(super) fn read(db: &Database) -> Result<Meta, redb::Error> {
        Meta::read_in(&db.begin_read()?)
    }

    /// Reads all of it as a transaction sees it.
    ///
    /// # Errors
    /// When redb cannot read, or a number is not the one that was written.
    pub(super) fn read_in(read: &ReadTransaction) -> Result<Meta, redb::Error> {
        let mut meta = Meta::default();
        let table = read.open_table(META)?;
        for (name, field) in meta.fields() {
            if let Some(value) = table.get(name)? {
                *field = value.value().try_into().map_or(0, u64::from_le_bytes);
            }
        }
        let hash = table.get(META_HASH)?;
        let is_right = hash.is_some_and(|hash| hash.value() == meta.hash().to_le_bytes());
        if !is_right && meta.version != FIRST_VERSION {
            let what = format!("table {:?}: wrong checksum", META.name());
            return Err(redb::Error::Corrupted(what));
        }
        meta.store = row(&table, STORE_ROW)?.map_or(0, |[store]| store);
        if meta.version == VERSION && meta.store == 0 {
            let what = format!("table {:?}: the store has no number", META.name());
            return Err(redb::Error::Corrupted(what));
        }
        meta.log = row(&table, LOG_ROW)?.map(|[number, life]| (number, life));
        meta.end = row(&table, END_ROW)?.map_or(0, |[end]| end);
        Ok(meta)
    }
}

/// Some numbers, and the hash of them and their name.
fn row<const N: usize>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<[u64; N]>, redb::Error> {
    let Some(value) = table.get(name)? else {
        return Ok(None);
    };
    let numbers = open_value(name.as_bytes(), value.value()).filter(|v| v.len() == N * 8);
    let Some(numbers) = numbers else {
        let what = format!("table {:?}, row {name:?}: wrong checksum", META.name());
        return Err(redb::Error::Corrupted(what));
    };
    let mut found = [0; N];
    for (number, bytes) in found.iter_mut().zip(numbers.chunks_exact(8)) {
        *number = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    Ok(Some(found))
}

fn put_row(txn: &WriteTransaction, name: &str, numbers: &[u64]) -> Result<(), redb::Error> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let value = seal_value(name.as_bytes(), &bytes);
    txn.open_table(META)?.insert(name, value.as_slice())?;
    Ok(())
}

/// Says in which file the log goes on: its number and its life, or in none.
pub(super) fn put_log(txn: &WriteTransaction, log: Option<(u64, u64)>) -> Result<(), redb::Error> {
    match log {
        Some((number, life)) => put_row(txn, LOG_ROW, &[number, life]),
        None => {
            txn.open_table(META)?.remove(LOG_ROW)?;
            Ok(())
        }
    }
}

/// Says how far the log reaches when it is closed.
pub(super) fn put_end(txn: &WriteTransaction, end: u64) -> Result<(), redb::Error> {
    put_row(txn, END_ROW, &[end])
}

/// What the rows of `meta` begin with that say which sealed files there should be. Of these
/// only those of missing files are in backups: what is restored has the others.
pub(super) const FINISHED_ROWS: &str = "sealed/";

/// Says of a sealed file that it should be there, or nothing any more.
pub(super) fn put_finished(
    txn: &WriteTransaction,
    name: &str,
    row: Option<Finished>,
) -> Result<(), redb::Error> {
    let key = format!("{FINISHED_ROWS}{name}");
    match row {
        Some(row) => put_row(txn, &key, &[u64::from(row == Finished::Lost)]),
        None => {
            txn.open_table(META)?.remove(&*key)?;
            Ok(())
        }
    }
}

/// Says that these rows are kept, with the number that a seal gives [`Meta`].
pub(super) fn put_kept(txn: &WriteTransaction, wal_sealed_seq: u64) -> Result<(), redb::Error> {
    put_row(txn, FINISHED_ROWS, &[wal_sealed_seq])
}

/// The sealed files that should be there. A row that cannot be read says nothing; none does
/// when somebody has sealed since who keeps no rows.
pub(super) fn finished(read: &ReadTransaction) -> Result<BTreeMap<String, Finished>, redb::Error> {
    let mut found = BTreeMap::new();
    let sealed = Meta::read_in(read)?.wal_sealed_seq;
    let mut are_kept = true;
    for row in read.open_table(META)?.range(FINISHED_ROWS..)? {
        let (key, value) = row?;
        let Some(name) = key.value().strip_prefix(FINISHED_ROWS) else {
            break;
        };
        let number = open_value(key.value().as_bytes(), value.value());
        let number = number.and_then(|number| number.try_into().ok());
        if let Some(number) = number.map(u64::from_le_bytes) {
            // It comes first.
            if name.is_empty() {
                are_kept = number == sealed;
                continue;
            }
            let row = match number {
                _ if !are_kept => Finished::Unkept,
                0 => Finished::There,
                _ => Finished::Lost,
            };
            found.insert(name.to_owned(), row);
        }
    }
    Ok(found)
}

/// Gives the store a number that no other has.
pub(super) fn put_store(txn: &WriteTransaction) -> Result<u64, redb::Error> {
    use std::hash::{BuildHasher as _, RandomState};
    // Its keys are random.
    let number = RandomState::new().hash_one(META.name()).max(1);
    put_number(txn, number)?;
    Ok(number)
}

/// Gives the store the number that it had before.
pub(super) fn put_number(txn: &WriteTransaction, number: u64) -> Result<(), redb::Error> {
    put_row(txn, STORE_ROW, &[number])
}

/// The length of the row with the store's number.
pub(super) const NUMBER_LEN: usize = 16;

/// The store's number, where these bytes are the row with it.
pub(super) fn number_in(row: &[u8; NUMBER_LEN]) -> Option<u64> {
    let (number, hash) = row.split_first_chunk()?;
    let is_right = hash == row_hash(STORE_ROW.as_bytes(), number).to_le_bytes();
    is_right.then(|| u64::from_le_bytes(*number))
}

/// The file that holds the log, the catalog and the state tables.
pub(super) const HOT_FILE: &str = "hot.redb";

/// A table that former versions made and never used.
pub(super) const RETIRED: &str = "dedupe";

/// Makes all tables, and writes these numbers.
pub(super) fn make_tables(db: &Database, meta: Meta) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    meta.write(&txn)?;
    txn.open_table(WAL)?;
    txn.open_table(SYMBOLS)?;
    txn.open_table(SERIES)?;
    for table in Table::ALL {
        txn.open_table(state_table(table))?;
    }
    txn.commit()?;
    Ok(())
}

/// Whether the log has the record of this commit.
pub(super) fn has_commit(db: &Database, seq: u64) -> Result<bool, redb::Error> {
    match db.begin_read()?.open_table(WAL) {
        Ok(table) => Ok(table.get((seq, 0))?.is_some()),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// Appends the checksum of a state row.
pub(super) fn seal_value(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + 8);
    sealed.extend_from_slice(value);
    sealed.extend_from_slice(&row_hash(key, value).to_le_bytes());
    sealed
}

fn row_hash(key: &[u8], value: &[u8]) -> u64 {
    xxh3_64(value) ^ xxh3_64_with_seed(key, 1)
}

/// Takes the checksum off; `None` when it is wrong. Version 1 left the key out.
pub(super) fn open_value<'a>(key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (value, hash) = stored.split_last_chunk::<8>()?;
    let hash = u64::from_le_bytes(*hash);
    let is_right = hash == row_hash(key, value) || hash == xxh3_64(value);
    is_right.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_value_is_seen() {
        let mut sealed = seal_value(b"key", b"abc");
        assert_eq!(open_value(b"key", &sealed), Some(&b"abc"[..]));
        assert_eq!(open_value(b"kez", &sealed), None);
        sealed[1] ^= 1;
        assert_eq!(open_value(b"key", &sealed), None);
        assert_eq!(open_value(b"key", b"short"), None);
        let mut first = b"abc".to_vec();
        first.extend_from_slice(&xxh3_64(b"abc").to_le_bytes());
        assert_eq!(
            open_value(b"key", &first),
            Some(&b"abc"[..]),
            "of version 1"
        );
    }
}
