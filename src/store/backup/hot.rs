//! `hot.redb` as rows of its tables, out and in. The records of the appended log go
//! into its table of records: what is restored has one log.

use redb::{
    Database, Key, ReadTransaction, ReadableTable as _, TableDefinition, TableHandle as _, Value,
    WriteTransaction,
};

use super::archive::{PIECE, Rows};
use super::copy::Frozen;
use crate::store::tables::{
    END_ROW, FINISHED_ROWS, LOG_ROW, META, Meta, RETIRED, SERIES, SYMBOLS, WAL, state_table,
};
use crate::store::transaction::pieces;
use crate::store::{Error, Table};

/// Rows are inserted in transactions of at most this size.
pub(in crate::store) const COMMIT_BYTES: usize = 4 << 20;

/// The cache of the file that is made.
pub(in crate::store) const CACHE_BYTES: usize = 4 * COMMIT_BYTES;

/// Hands every row of every table to `out`, in pieces. Of the rows that name sealed files
/// those of the missing ones alone: what is restored has the others.
///
/// # Errors
/// When the database cannot be read, and the first error of `out`.
pub(super) fn rows<E: From<redb::Error>>(
    read: &ReadTransaction,
    missing: &[String],
    mut out: impl FnMut(&Rows) -> Result<(), E>,
) -> Result<(), E> {
    let own = [META.name(), WAL.name(), SYMBOLS.name(), SERIES.name()];
    for table in read.list_tables().map_err(redb::Error::from)? {
        let name = table.name();
        let known = own.contains(&name) || name == RETIRED || Table::from_name(name).is_some();
        assert!(known, "BUG: the backup leaves out table {name:?}");
    }
    table(read, META, |key| is_of_files(key, missing), &mut out)?;
    table(read, SYMBOLS, |_| false, &mut out)?;
    table(read, SERIES, |_| false, &mut out)?;
    for state in Table::ALL {
        table(read, state_table(state), |_| false, &mut out)?;
    }
    table(read, WAL, |_| false, &mut out)
}

/// Whether a row of `meta` says something of files that the copy has not, or has anew.
fn is_of_files(key: &[u8], missing: &[String]) -> bool {
    match key.strip_prefix(FINISHED_ROWS.as_bytes()) {
        Some(name) => missing.iter().all(|missing| missing.as_bytes() != name),
        None => [LOG_ROW, END_ROW].map(str::as_bytes).contains(&key),
    }
}

/// The last sealed commit, and the last one, of a snapshot of redb.
pub(super) fn commits(read: &ReadTransaction) -> Result<(u64, u64), redb::Error> {
    let table = read.open_table(WAL)?;
    let last = table.last()?.map(|(key, _)| key.value().0);
    let sealed = Meta::read_in(read)?.wal_sealed_seq;
    Ok((sealed, last.unwrap_or(0).max(sealed)))
}

/// Hands the appended records to `out`, as rows of the log's table.
///
/// # Errors
/// When they cannot be read, and the first error of `out`.
pub(super) fn appended(
    frozen: &Frozen,
    mut out: impl FnMut(&Rows) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut records = frozen.log.reader(frozen.first);
    let mut rows = Rows::of(WAL.name());
    while let Some((seq, record)) = records.next_up_to(frozen.last)? {
        for (part, piece) in pieces(record).enumerate() {
            let part = u16::try_from(part).expect("a record is shorter than its file");
            rows.push(<(u64, u16)>::as_bytes(&(seq, part)).as_ref(), piece);
        }
        if rows.len() >= PIECE {
            out(&rows)?;
            rows = Rows::of(WAL.name());
        }
    }
    out(&rows)
}

fn table<K: Key + 'static, V: Value + 'static, E: From<redb::Error>>(
    read: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
    is_left_out: impl Fn(&[u8]) -> bool,
    out: &mut impl FnMut(&Rows) -> Result<(), E>,
) -> Result<(), E> {
    let fail = |err: redb::Error| E::from(err);
    let table = read
        .open_table(definition)
        .map_err(|err| fail(err.into()))?;
    let mut rows = Rows::of(definition.name());
    for row in table.iter().map_err(|err| fail(err.into()))? {
        let (key, value) = row.map_err(|err| fail(err.into()))?;
        let (key, value) = (key.value(), value.value());
        let key = K::as_bytes(&key);
        if is_left_out(key.as_ref()) {
            continue;
        }
        rows.push(key.as_ref(), V::as_bytes(&value).as_ref());
        if rows.len() >= PIECE {
            out(&rows)?;
            rows = Rows::of(definition.name());
        }
    }
    out(&rows)
}

/// Inserts rows of one table; `None` when there is no such table.
pub(in crate::store) fn insert(
    db: &Database,
    name: &str,
    rows: &[(Vec<u8>, Vec<u8>)],
) -> Result<Option<()>, redb::Error> {
    let txn = db.begin_write()?;
    match name {
        name if name == META.name() => put(&txn, META, rows)?,
        name if name == WAL.name() => put(&txn, WAL, rows)?,
        name if name == SYMBOLS.name() => put(&txn, SYMBOLS, rows)?,
        name if name == SERIES.name() => put(&txn, SERIES, rows)?,
        name => match Table::from_name(name) {
            Some(state) => put(&txn, state_table(state), rows)?,
            None => return Ok(None),
        },
    }
    txn.commit()?;
    Ok(Some(()))
}

fn put<K: Key + 'static, V: Value + 'static>(
    txn: &WriteTransaction,
    definition: TableDefinition<'_, K, V>,
    rows: &[(Vec<u8>, Vec<u8>)],
) -> Result<(), redb::Error> {
    let mut table = txn.open_table(definition)?;
    for (key, value) in rows {
        table.insert(K::from_bytes(key), V::from_bytes(value))?;
    }
    Ok(())
}
