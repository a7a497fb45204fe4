//! A copy of the data directory as a directory, on the same disk.
//!
//! Rewritten days never change, so they are linked and take no room and no time.
//! The rest is copied, in the order and with the guards of a backup.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, ReadTransaction, ReadableTable as _};

use super::archive::Rows;
use super::copy::{Frozen, Source, other_files};
use super::hot;
use crate::model::Timestamp;
use crate::store::Error;
use crate::store::days::store_error;
use crate::store::disk::{io_error, sync_dir};
use crate::store::tables::{self, HOT_FILE, Meta, WAL};
use crate::store::wal::Record;

/// Where snapshots are, within the data directory.
const DIR: &str = "snapshots";

/// Makes a snapshot; gives its name. `skip_head` leaves out what is not sealed.
///
/// # Errors
/// When something cannot be read or written; nothing is left then.
pub(in crate::store) fn snapshot(
    source: &Source<'_>,
    skip_head: bool,
    now: Timestamp,
) -> Result<String, Error> {
    let name = name(source.dir, now);
    let all = source.dir.join(DIR);
    let (new, done) = (all.join(format!("{name}.new")), all.join(&name));
    fs::create_dir_all(&new).map_err(|err| io_error("create", &new, err))?;
    let made = fill(source, skip_head, &new).and_then(|()| {
        fs::rename(&new, &done)
            .and_then(|()| sync_dir(&all))
            .map_err(|err| io_error("rename", &new, err))
    });
    if made.is_err() {
        // Of no use, and the error counts.
        drop(fs::remove_dir_all(&new));
    }
    made.map(|()| name)
}

/// As Prometheus names them: the time and something that no other has.
fn name(dir: &Path, now: Timestamp) -> String {
    let time = now.to_rfc3339();
    let digits: String = time
        .chars()
        .take_while(|c| *c != '.' && *c != 'Z')
        .filter(|c| c.is_ascii_digit() || *c == 'T')
        .collect();
    format!("{digits}Z-{}", super::copy::new_id(dir, now))
}

fn fill(source: &Source<'_>, skip_head: bool, to: &Path) -> Result<(), Error> {
    let pin = source.days.pin();
    for day in source.days.all_kinds() {
        let copied = source.days.with_file(&day, |file| {
            file.while_still(|| copy(&day.path, to, day.kind.is_frozen()))
        });
        match copied {
            Ok(done) => done?,
            Err(_) if day.is_gone() => {}
            Err(err) => return Err(store_error(err)),
        }
    }
    for path in other_files(source.dir)? {
        copy(&path, to, false)?;
    }
    let frozen = source.freeze()?;
    drop(pin);
    let path = to.join(HOT_FILE);
    copy_hot(&frozen, &path, skip_head)?;
    sync_dir(to).map_err(|err| io_error("sync", to, err))
}

/// Copies a file, or links it where it never changes.
fn copy(from: &Path, dir: &Path, link: bool) -> Result<(), Error> {
    let to: PathBuf = dir.join(from.file_name().unwrap_or_default());
    let fail = |err: io::Error| io_error("copy", from, err);
    if link && fs::hard_link(from, &to).is_ok() {
        return Ok(());
    }
    fs::copy(from, &to).map_err(fail)?;
    fs::File::open(&to)
        .and_then(|file| file.sync_all())
        .map_err(fail)
}

fn copy_hot(frozen: &Frozen, path: &Path, skip_head: bool) -> Result<(), Error> {
    let fail = |err| io_error("write", path, err);
    let mut db = copy_rows(frozen, path, skip_head).map_err(fail)?;
    if !skip_head {
        hot::appended(frozen, |rows| {
            let (table, rows) = rows.split();
            hot::insert(&db, &table, &rows).map(drop).map_err(fail)
        })?;
    }
    db.compact().map_err(|err| fail(err.into()))?;
    Ok(())
}

/// All that is in redb itself.
fn copy_rows(frozen: &Frozen, path: &Path, skip_head: bool) -> Result<Database, redb::Error> {
    let read = &frozen.read;
    let db = Database::builder()
        .set_cache_size(hot::CACHE_BYTES)
        .create(path)?;
    tables::make_tables(&db, Meta::default())?;
    hot::rows(
        read,
        &frozen.missing,
        |rows: &Rows| -> Result<(), redb::Error> {
            let (table, rows) = rows.split();
            if skip_head && table == "wal" {
                return Ok(());
            }
            hot::insert(&db, &table, &rows).map(drop)
        },
    )?;
    if skip_head {
        // The commits stay counted, so that no number is given out twice.
        let txn = db.begin_write()?;
        let mut meta = Meta::read_in(read)?;
        meta.sequence = meta.sequence.max(last_sequence(read)?);
        meta.wal_sealed_seq = frozen.last;
        meta.write(&txn)?;
        txn.commit()?;
    }
    Ok(db)
}

/// The last number given to an outbox row or a dead letter.
fn last_sequence(read: &ReadTransaction) -> Result<u64, redb::Error> {
    let table = read.open_table(WAL)?;
    let Some(last) = table.last()?.map(|(key, _)| key.value().0) else {
        return Ok(0);
    };
    let mut record = Vec::new();
    for piece in table.range((last, 0)..)? {
        record.extend_from_slice(piece?.1.value());
    }
    Ok(Record::parse(&record).map_or(0, |record| record.sequence))
}
