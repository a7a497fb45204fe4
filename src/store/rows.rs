//! Reads of the state tables.

use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadableDatabase as _, ReadableTableMetadata as _};

use super::disk::io_error;
use super::shared::Shared;
use super::tables::{open_value, state_table};
use super::{Error, Table, unsaved};

/// See [`super::Store::get`].
pub(super) fn get(shared: &Shared, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
    if let Some(unsaved) = shared.unsaved.get(table, key) {
        return Ok(unsaved);
    }
    let db = shared.hot.database()?;
    let read = || -> Result<_, redb::Error> {
        Ok(db.begin_read()?.open_table(state_table(table))?.get(key)?)
    };
    let row = read().map_err(|err| io_error("read", shared.hot.path(), err))?;
    let Some(row) = row else {
        return Ok(None);
    };
    match open_value(key, row.value()) {
        Some(value) => Ok(Some(Bytes::copy_from_slice(value))),
        None => {
            shared.metrics.store.checksum_failures.inc();
            let what = format!("a row of {} does not match its checksum", table.name());
            Err(io_error("read", shared.hot.path(), what))
        }
    }
}

/// See [`super::Store::count`]. Of the rows on disk.
pub(super) fn count(shared: &Shared, table: Table) -> Result<usize, Error> {
    let db = shared.hot.database()?;
    let read = || -> Result<_, redb::Error> {
        Ok(db.begin_read()?.open_table(state_table(table))?.len()?)
    };
    let rows = read().map_err(|err| io_error("read", shared.hot.path(), err))?;
    Ok(usize::try_from(rows).unwrap_or(usize::MAX))
}

/// See [`super::Store::scan`] and [`super::Store::scan_back`].
pub(super) fn scan(
    shared: &Shared,
    table: Table,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    limit: usize,
    backwards: bool,
) -> Result<Vec<(Bytes, Bytes)>, Error> {
    if is_empty(range) {
        return Ok(Vec::new());
    }
    let db = shared.hot.database()?;
    let read = || -> Result<_, redb::Error> {
        let (txn, mut unsaved) = shared.unsaved.beside(table, range, || db.begin_read());
        let rows = txn?.open_table(state_table(table))?;
        if backwards {
            unsaved.reverse();
        }
        let mut unsaved = unsaved.into_iter().peekable();
        let mut found = Vec::new();
        let mut range = rows.range::<&[u8]>(range)?;
        while found.len() < limit {
            let next = if backwards {
                range.next_back()
            } else {
                range.next()
            };
            let row = next.transpose()?;
            let at = row.as_ref().map(|(key, _)| key.value());
            let comes_first = |unsaved: &unsaved::Row| match at {
                Some(at) if backwards => unsaved.0[..] > *at,
                Some(at) => unsaved.0[..] < *at,
                None => true,
            };
            while let Some((key, value)) = unsaved.next_if(comes_first) {
                found.extend(value.map(|value| (key, value)));
            }
            let Some((key, stored)) = row else { break };
            if let Some((key, value)) = unsaved.next_if(|(k, _)| k[..] == *key.value()) {
                found.extend(value.map(|value| (key, value)));
                continue;
            }
            match open_value(key.value(), stored.value()) {
                Some(value) => found.push((
                    Bytes::copy_from_slice(key.value()),
                    Bytes::copy_from_slice(value),
                )),
                None => {
                    shared.metrics.store.checksum_failures.inc();
                    tracing::error!(table = table.name(), "damaged row left out");
                }
            }
        }
        // Several rows in memory may have come before one on disk.
        found.truncate(limit);
        Ok(found)
    };
    read().map_err(|err| io_error("read", shared.hot.path(), err))
}

/// Whether no key can lie in the range; redb takes that for a mistake.
fn is_empty(range: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match range {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
        _ => false,
    }
}
