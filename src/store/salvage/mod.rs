//! A start with a damaged `hot.redb`: what can be read of it goes on in a new one.
//!
//! redb walks all checksums of a file that a killed process left, and refuses it when one
//! page of its last two commits is wrong; when it is only in the last one, that goes, as if
//! it had been cut off. Of a file that was closed it checks none. So each start looks first
//! ([`is_needed`], one walk more), and a damaged file is read here page by page
//! ([`pages`]): one wrong bit is found and set right, and what is lost is the page that is
//! not as it was written, not the store. What of the catalog is lost comes back from the
//! sealed files, each of which has the labels of its series ([`catalog`]). The damaged
//! file is kept in `quarantine/salvaged/`, the newest [`KEPT_MAX`] of them. A read-only
//! start does the same in memory, and changes nothing. Committing in redb's two phases
//! would spare the walk, but not the wrong page, at two syncs for each commit.
//!
//! It owns no thread and no table. It must never take a page whose checksum is wrong, set a
//! file aside for anything but wrong bytes (a newer version, a failing disk and a panic of
//! ours refuse the start as before), or keep silent.

mod catalog;
mod pages;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, TableHandle as _};

use self::pages::{File, Found, Health};
use super::appended::Appended;
use super::backup::{CACHE_BYTES, COMMIT_BYTES, insert};
use super::days::{Days, quarantine};
use super::disk::{Backends, Boxed, causes, io_error, sync_dir};
use super::hot::{self, Hot};
use super::space::{Space, is_full};
use super::tables::{self, HOT_FILE, META, Meta, RETIRED, SERIES, SYMBOLS, VERSION, WAL};
use super::{Error, Options, Table};
use crate::model::Timestamp;
use crate::telemetry::Metrics;

/// So many damaged files are kept.
const KEPT_MAX: usize = 2;

/// The new file may be so many times as long: rows that come in order fill half of a page.
const NEEDED_PER_BYTE: u64 = 2;

/// What was found to be wrong.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What a damaged file came to.
pub(super) struct Salvaged {
    pub(super) hot: Hot,
    pub(super) meta: Meta,
    /// Where the damaged file is now, and of which times samples may be missing (in ms).
    pub(super) lost: Option<(PathBuf, (i64, i64))>,
}

/// What is not there any more.
#[derive(Default)]
struct Losses {
    health: Health,
    /// The tables of which pages are lost.
    tables: Vec<String>,
    /// Series that are lost.
    series: u64,
}

/// Reads what can be read of a damaged `hot.redb` into a new one, sets it in its place and
/// keeps the damaged one.
///
/// # Errors
/// [`Error::Damaged`] when all of the file is as it was written. Others when it cannot be
/// read, was written by a newer version, or there is no room: then it is as it was.
pub(super) fn salvage(
    options: &Options,
    backends: &Backends,
    cause: Cause,
    now: Timestamp,
    metrics: &Metrics,
) -> Result<Salvaged, Error> {
    let salvaged = make_anew(options, backends, cause, now, metrics);
    salvaged.map_err(|err| {
        if !options.store.read_only {
            remove_left(&options.dir);
        }
        match is_full(&err) {
            true => no_room(options, err),
            false => err,
        }
    })
}

/// Removes what is left of a new file that was not finished.
pub(super) fn remove_left(dir: &Path) {
    let new = new_path(dir);
    match std::fs::remove_file(&new) {
        Ok(()) => tracing::warn!(path = %new.display(), "removed what was not finished"),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => tracing::warn!(path = %new.display(), error = %err, "cannot remove"),
    }
}

fn new_path(dir: &Path) -> PathBuf {
    dir.join(format!("{HOT_FILE}.new"))
}

/// Why a damaged file was not read into a new one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the disk is full: what can be read of it needs up to {needed_mib} MiB of free space, \
     {free_mib} MiB are free"
)]
struct NoRoom {
    needed_mib: u64,
    free_mib: u64,
    source: Error,
}

/// The error with how much room is needed.
fn no_room(options: &Options, source: Error) -> Error {
    let path = options.dir.join(HOT_FILE);
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    let free = Space::new(&options.dir, &options.store).free();
    let no_room = NoRoom {
        needed_mib: (bytes * NEEDED_PER_BYTE).div_ceil(1 << 20),
        free_mib: free.map_or(0, |free| free.bytes) >> 20,
        source,
    };
    io_error("salvage", &path, no_room)
}

fn make_anew(
    options: &Options,
    backends: &Backends,
    cause: Cause,
    now: Timestamp,
    metrics: &Metrics,
) -> Result<Salvaged, Error> {
    let (dir, read_only) = (&options.dir, options.store.read_only);
    let path = dir.join(HOT_FILE);
    let fail = |err: redb::Error| io_error("salvage", &path, err);
    let bytes = backends(&path).map_err(|err| fail(err.into()))?;
    let file = File::open(&*bytes).map_err(|err| fail(err.into()))?;
    let found = file.find().map_err(|err| fail(err.into()))?;
    if file.is_newer() || found.tables.iter().any(|table| !is_known(&table.name)) {
        return Err(io_error("open", &path, "it was written by a newer pulse"));
    }
    if found.health == Health::default() && !hot::is_damage(&*cause) && is_whole(&path, &*bytes) {
        return Err(Error::Damaged {
            path,
            source: cause,
        });
    }
    let new = new_path(dir);
    let db = make(&new, backends, read_only)?;
    let mut losses = copy(&file, &found, &db).map_err(fail)?;
    let days = Days::open_whole(dir, 0, backends.clone(), CACHE_BYTES, read_only)?;
    complete(options, backends, (&*bytes, &db), &days, &mut losses)?;
    let of_samples = losses.series > 0 || losses.has(WAL.name());
    let lost = of_samples.then(|| (days.span().map_or(0, |span| span.1), now.as_ms()));
    drop((days, bytes));
    let (hot, meta, kept) = if read_only {
        let (hot, meta) = Hot::of_memory(dir, db)?;
        (hot, meta, path.clone())
    } else {
        drop(db);
        let kept = keep(dir, &path, now, lost)?;
        std::fs::rename(&new, &path)
            .and_then(|()| sync_dir(dir))
            .map_err(|err| io_error("rename", &new, err))?;
        let (hot, meta) = Hot::open(dir, backends.clone(), options.store.hot_cache.as_usize())?;
        (hot, meta, kept)
    };
    tell(&losses, &*cause, &kept, metrics);
    Ok(Salvaged {
        hot,
        meta,
        lost: lost.map(|times| (kept, times)),
    })
}

/// Whether bytes of a file are wrong that redb may not see when it opens it.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_needed(path: &Path, backends: &Backends) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(false);
    }
    let look = || File::open(&*backends(path)?)?.is_damaged();
    look().map_err(|err| io_error("read", path, redb::Error::from(err)))
}

/// Whether redb finds all of a file as it was written, the tables that are its own too.
fn is_whole(path: &Path, bytes: &dyn StorageBackend) -> bool {
    let check = || -> Result<bool, redb::Error> {
        let (memory, mut all) = (InMemoryBackend::new(), Vec::new());
        all.resize(usize::try_from(bytes.len()?).unwrap_or(0), 0);
        bytes.read(0, &mut all)?;
        memory.set_len(all.len() as u64)?;
        memory.write(0, &all)?;
        let mut db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(memory)?;
        db.begin_write()?.commit()?;
        Ok(db.check_integrity()?)
    };
    hot::caught(path, || Ok(check().unwrap_or(false))).unwrap_or(false)
}

/// The tables that are no state tables.
fn own_tables() -> [&'static str; 4] {
    [META.name(), WAL.name(), SYMBOLS.name(), SERIES.name()]
}

fn is_known(name: &str) -> bool {
    own_tables().contains(&name) || name == RETIRED || Table::from_name(name).is_some()
}

/// The length of a table's keys, if they have one.
fn key_width(name: &str) -> Option<usize> {
    match name {
        name if name == WAL.name() => Some(10),
        name if name == SYMBOLS.name() || name == SERIES.name() => Some(4),
        _ => None,
    }
}

/// The new file, or, where nothing may be written, memory.
fn make(new: &Path, backends: &Backends, read_only: bool) -> Result<Database, Error> {
    let fail = |err: redb::Error| io_error("create", new, err);
    let bytes: Box<dyn StorageBackend> = if read_only {
        Box::new(InMemoryBackend::new())
    } else {
        match std::fs::remove_file(new) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(fail(err.into())),
            _ => backends(new).map_err(|err| fail(err.into()))?,
        }
    };
    let db = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(Boxed(bytes))
        .map_err(|err| fail(err.into()))?;
    let meta = Meta {
        version: VERSION,
        ..Meta::default()
    };
    tables::make_tables(&db, meta).map_err(fail)?;
    Ok(db)
}

/// Copies all rows that can be read.
fn copy(file: &File<'_>, found: &Found, db: &Database) -> Result<Losses, redb::Error> {
    let mut losses = Losses {
        health: found.health,
        ..Losses::default()
    };
    for table in &found.tables {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let put = |rows: &mut Vec<_>| -> Result<(), redb::Error> {
            // Former versions' tables that nobody reads stay behind.
            insert(db, &table.name, rows)?;
            rows.clear();
            Ok(())
        };
        let health = file.rows(table, &mut |key, value| {
            bytes += key.len() + value.len();
            rows.push((key.to_vec(), value.to_vec()));
            if bytes >= COMMIT_BYTES {
                put(&mut rows).map_err(io::Error::other)?;
                bytes = 0;
            }
            Ok(())
        })?;
        put(&mut rows)?;
        if health.lost > 0 {
            losses.tables.push(table.name.clone());
        }
    }
    let states = Table::ALL.iter().map(|table| table.name());
    let is_there = |name: &str| found.tables.iter().any(|table| table.name == name);
    let gone = own_tables()
        .into_iter()
        .chain(states)
        .filter(|name| !is_there(name));
    losses.tables.extend(gone.map(str::to_owned));
    Ok(losses)
}

impl Losses {
    fn has(&self, table: &str) -> bool {
        self.tables.iter().any(|lost| lost == table)
    }
}

/// Makes numbers and catalog whole again, as far as the other files know of them.
fn complete(
    options: &Options,
    backends: &Backends,
    (bytes, db): (&dyn StorageBackend, &Database),
    days: &Days,
    losses: &mut Losses,
) -> Result<(), Error> {
    let path = options.dir.join(HOT_FILE);
    let fail = |err: redb::Error| io_error("salvage", &path, err);
    let meta = Meta::read(db).ok();
    if meta.is_some_and(|meta| meta.version > VERSION) {
        return Err(io_error("open", &path, "it was written by a newer pulse"));
    }
    let mut numbers = meta.unwrap_or_default();
    let is_lost = losses.has(SYMBOLS.name()) || losses.has(SERIES.name());
    // Rows of the first version have no hash by which right ones are known.
    if meta.is_none() || is_lost && numbers.version > tables::FIRST_VERSION {
        let known = catalog::known(days, numbers.store);
        let (lost, last) = catalog::complete(db, &known).map_err(fail)?;
        losses.series = lost;
        numbers.last_ref = numbers.last_ref.max(last.0.into());
        numbers.last_symbol = numbers.last_symbol.max(last.1.into());
        if meta.is_none() {
            numbers.version = VERSION;
            numbers.store = known.store;
        }
    }
    if numbers.store == 0 && meta.is_none() {
        numbers.store = number_in(bytes).map_err(|err| fail(err.into()))?;
    }
    if meta.is_none() {
        let first = first_logged(options, backends, db, numbers)?;
        // Whether the first record leans on one before it nobody knows.
        let before = first.map(|first| first.saturating_sub(2));
        numbers.wal_sealed_seq = before.unwrap_or_else(|| days.last_seq());
    }
    let write = || -> Result<(), redb::Error> {
        let txn = db.begin_write()?;
        numbers.write(&txn)?;
        match (meta, numbers.store) {
            (Some(_), _) => {}
            (None, 0) => drop(tables::put_store(&txn)?),
            (None, store) => tables::put_number(&txn, store)?,
        }
        Ok(txn.commit()?)
    };
    write().map_err(fail)
}

/// The first commit in one of the logs.
fn first_logged(
    options: &Options,
    backends: &Backends,
    db: &Database,
    meta: Meta,
) -> Result<Option<u64>, Error> {
    let fail = |err: redb::Error| io_error("salvage", &options.dir.join(HOT_FILE), err);
    let first = || -> Result<Option<u64>, redb::Error> {
        let table = db.begin_read()?.open_table(WAL)?;
        Ok(table.first()?.map(|(key, _)| key.value().0))
    };
    let in_redb = first().map_err(fail)?;
    let log = Appended::open(&options.dir, backends.clone(), meta, 0, false)?;
    let mut records = log.hold().reader(1);
    let appended = records.next_up_to(u64::MAX)?.map(|(seq, _)| seq);
    Ok(in_redb.into_iter().chain(appended).min())
}

/// The store's number, looked for in all of the file: former commits have the row as well.
/// 0 when it is nowhere.
fn number_in(file: &dyn StorageBackend) -> io::Result<u64> {
    const STEP: u64 = 1 << 20;
    let len = file.len()?;
    let mut from = 0;
    while from < len {
        let end = len.min(from + STEP + tables::NUMBER_LEN as u64);
        let mut bytes = vec![0; usize::try_from(end - from).expect("some MiB")];
        file.read(from, &mut bytes)?;
        let mut rows = bytes.array_windows();
        if let Some(number) = rows.find_map(tables::number_in) {
            return Ok(number);
        }
        from += STEP;
    }
    Ok(0)
}

/// Keeps the damaged file under a name of its own, which says of which times samples may
/// be missing.
fn keep(
    dir: &Path,
    path: &Path,
    now: Timestamp,
    lost: Option<(i64, i64)>,
) -> Result<PathBuf, Error> {
    let mut name = format!("{HOT_FILE}-{:013}", now.as_ms().max(0));
    if let Some(times) = lost {
        name = quarantine::name_of(Path::new(&name), times);
    }
    let kept = quarantine::keep_as(dir, path, &name)?;
    let folder = kept.parent().unwrap_or(dir);
    let entries = std::fs::read_dir(folder).map_err(|err| io_error("read", folder, err))?;
    let prefix = format!("{HOT_FILE}-");
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with(&prefix))
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
        .collect();
    files.sort_unstable();
    files.truncate(files.len().saturating_sub(KEPT_MAX));
    for (_, old) in files {
        tracing::warn!(path = %old.display(), "an older damaged file is removed");
        std::fs::remove_file(&old).map_err(|err| io_error("remove", &old, err))?;
    }
    Ok(kept)
}

fn tell(
    losses: &Losses,
    cause: &(dyn std::error::Error + 'static),
    kept: &Path,
    metrics: &Metrics,
) {
    let Health { mended, lost } = losses.health;
    let failures = mended + lost + losses.series;
    metrics.store.checksum_failures.inc_by(failures.max(1));
    tracing::error!(
        error = %causes(cause),
        kept = %kept.display(),
        mended_pages = mended,
        lost_pages = lost,
        lost_of = losses.tables.join(", "),
        lost_series = losses.series,
        "hot.redb was damaged: what can be read of it goes on in a new one"
    );
    if losses.has(Table::Deleted.name()) {
        tracing::error!("deletions may be lost: what they hid may show again");
    }
}
