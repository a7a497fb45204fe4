//! How a sealed file is made, opened and completed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase as _, ReadableTable, StorageBackend,
};

use super::error::locate;
use super::{
    Backends, Covered, Error, Generation, SealedFile, SealedSeries, Trouble, covered_span, place,
};
use crate::model::Labels;
use crate::store::deleted::Tombstones;
use crate::store::disk::Boxed;
use crate::store::sealed::frozen::{Frozen, Held};
use crate::store::sealed::seal::{Layout, Seal};
use crate::store::sealed::tables::{
    self, FORMAT_MAX, PAGE, SERIES, STAT, SYM, TIMES, WINDOW, WindowRow,
};

impl SealedFile {
    /// Makes an empty file of hours.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(
        path: &Path,
        cache_bytes: usize,
        backends: &Backends,
    ) -> Result<SealedFile, Error> {
        let make = || SealedFile::make(path, cache_bytes, backends, tables::FORMAT_HOURS);
        make().map_err(|trouble| locate(path, "create", trouble))
    }

    fn make(
        path: &Path,
        cache_bytes: usize,
        backends: &Backends,
        format: u64,
    ) -> Result<SealedFile, Trouble> {
        let backend = backends(path).map_err(redb::Error::from)?;
        let db = database(path, cache_bytes, backend)?;
        init(&db, format)?;
        SealedFile::load(path, Held::to_write(db), false, cache_bytes)
    }

    /// Opens a file for reading and writing. Repairs it after a crash.
    /// `cache_bytes` also bounds a commit (a quarter of it).
    ///
    /// # Errors
    /// When the file cannot be read, is of another format, or is damaged.
    pub fn open(path: &Path, cache_bytes: usize, backends: &Backends) -> Result<SealedFile, Error> {
        let open = || -> Result<SealedFile, Trouble> {
            let db = Held::to_write(database(path, cache_bytes, existing(path, backends)?)?);
            SealedFile::load(path, db, false, cache_bytes)
        };
        open().map_err(|trouble| locate(path, "open", trouble))
    }

    /// Opens a file that nobody writes any more; writes nothing itself. Costs a
    /// fraction of a millisecond.
    ///
    /// # Errors
    /// As [`SealedFile::open`]; also when there is no such file.
    pub fn open_frozen(
        path: &Path,
        cache_bytes: usize,
        backends: &Backends,
    ) -> Result<SealedFile, Error> {
        let open = || -> Result<SealedFile, Trouble> {
            let frozen = Frozen::new(existing(path, backends)?).map_err(redb::Error::from)?;
            let db = Held::to_read(database(path, cache_bytes, Box::new(frozen))?);
            SealedFile::load(path, db, true, cache_bytes)
        };
        open().map_err(|trouble| locate(path, "open", trouble))
    }

    /// Makes a day's file, complete and closed: one generation from `series`, which
    /// must ascend by (`metric_sym`, `ref_id`). It is of this store and day. `rewritten` is what replay need not
    /// take in again. An unfinished file of that name is replaced.
    ///
    /// # Errors
    /// When the disk is full or fails, and the first error of `series`.
    pub fn write_day<E: From<Error>>(
        path: &Path,
        cache_bytes: usize,
        backends: &Backends,
        (store, start_s): (u64, u32),
        rewritten: &[Covered],
        series: impl IntoIterator<Item = Result<SealedSeries, E>>,
        labels_of: impl FnMut(u32) -> Labels,
    ) -> Result<Generation, E> {
        let file = SealedFile::make_anew(path, cache_bytes, backends, tables::FORMAT_DAY)?;
        file.sign(store)?;
        let seal = Seal::begin(&file, start_s, 0, Layout::DAY)?;
        let generation = seal.write(covered_span(rewritten), rewritten, series, labels_of)?;
        file.complete(backends)?;
        Ok(generation)
    }

    /// A new file, in place of an unfinished one of that name.
    pub(in crate::store::sealed) fn make_anew(
        path: &Path,
        cache_bytes: usize,
        backends: &Backends,
        format: u64,
    ) -> Result<SealedFile, Error> {
        let fail = |trouble| locate(path, "write", trouble);
        match std::fs::remove_file(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(fail(redb::Error::from(err).into()));
            }
            _ => {}
        }
        SealedFile::make(path, cache_bytes, backends, format).map_err(fail)
    }

    /// Closes a file that is not changed any more, and syncs it.
    pub(in crate::store::sealed) fn complete(mut self, backends: &Backends) -> Result<(), Error> {
        // Frees what the copies of the tree's upper pages left behind.
        let compacted = self.db.compact();
        compacted.map_err(|err| self.trouble("write", err.into()))?;
        let path = self.path.clone();
        drop(self);
        // Closing wrote the allocator's state.
        backends(&path)
            .and_then(|file| {
                file.sync_data()?;
                file.close()
            })
            .map_err(|err| locate(&path, "write", redb::Error::from(err).into()))
    }

    fn load(
        path: &Path,
        db: Held,
        frozen: bool,
        cache_bytes: usize,
    ) -> Result<SealedFile, Trouble> {
        let read = db.begin_read()?;
        let generations = load_generations(&read)?;
        let rewritten = load_rewritten(&read)?;
        drop(read);
        Ok(SealedFile {
            path: path.to_owned(),
            db,
            frozen,
            rewritten,
            cache_bytes,
            generations: RwLock::new(generations),
            writing: Mutex::new(()),
            tombstones: Tombstones::default(),
            bucket_ms: 1,
            kept: (Arc::default(), 0),
        })
    }
}

/// The bytes of a file that is there. redb would lay an empty one out anew, and
/// what was in it before it was cut off would be missed by nobody.
fn existing(path: &Path, backends: &Backends) -> Result<Box<dyn StorageBackend>, Trouble> {
    if !path.exists() {
        return Err(redb::Error::from(io::Error::from(io::ErrorKind::NotFound)).into());
    }
    let backend = backends(path).map_err(redb::Error::from)?;
    if backend.len().map_err(redb::Error::from)? == 0 {
        return Err(Trouble::Damaged("it is empty".to_owned()));
    }
    Ok(backend)
}

fn database(
    path: &Path,
    cache_bytes: usize,
    backend: Box<dyn StorageBackend>,
) -> Result<Database, Trouble> {
    let shown = path.display().to_string();
    let db = Builder::new()
        .set_cache_size(cache_bytes)
        .set_repair_callback(move |session| {
            if session.progress() == 0.0 {
                tracing::warn!(path = shown, "a crash cut a seal short, repairing");
            }
        })
        .create_with_backend(Boxed(backend))?;
    Ok(db)
}

/// Makes the tables of a new file in one commit.
fn init(db: &Database, format: u64) -> Result<(), Trouble> {
    let mut write = db.begin_write()?;
    write.set_quick_repair(true);
    write.open_table(PAGE)?;
    write.open_table(TIMES)?;
    write.open_table(WINDOW)?;
    write.open_table(SERIES)?;
    write.open_table(SYM)?;
    let mut stat = write.open_table(STAT)?;
    let format = tables::encode_stat(tables::STAT_FORMAT, &[format]);
    stat.insert(tables::STAT_FORMAT, format.as_slice())?;
    let totals = tables::encode_stat(tables::STAT_TOTALS, &[0]);
    stat.insert(tables::STAT_TOTALS, totals.as_slice())?;
    drop(stat);
    write.commit()?;
    Ok(())
}

fn load_generations(read: &ReadTransaction) -> Result<Arc<[Generation]>, Trouble> {
    let [format] = load_stat(read, tables::STAT_FORMAT)?;
    if !(1..=FORMAT_MAX).contains(&format) {
        return Err(Trouble::Format(format));
    }
    let [total] = load_stat(read, tables::STAT_TOTALS)?;
    let mut generations = Vec::new();
    for row in read.open_table(WINDOW)?.iter()? {
        let (key, row) = row?;
        let (window, generation) = key.value();
        let row = WindowRow::decode(row.value(), window, generation)
            .map_err(Trouble::at(place(window, generation)))?;
        let packed = format >= tables::FORMAT_PACKED;
        generations.push(Generation::of(window, generation, &row, packed));
    }
    if generations.len() as u64 == total {
        Ok(generations.into())
    } else {
        let found = generations.len();
        Err(Trouble::Damaged(format!(
            "{found} window rows instead of {total}"
        )))
    }
}

pub(super) fn load_stat<const N: usize>(
    read: &ReadTransaction,
    name: &str,
) -> Result<[u64; N], Trouble> {
    let stat = read.open_table(STAT)?;
    let row = stat
        .get(name)?
        .ok_or_else(|| Trouble::Damaged(format!("no row {name:?}")))?;
    tables::decode_stat(name, row.value()).map_err(Trouble::at(name))
}

fn load_rewritten(read: &ReadTransaction) -> Result<Vec<Covered>, Trouble> {
    let stat = read.open_table(STAT)?;
    let Some(row) = stat.get(tables::STAT_REWRITTEN)? else {
        return Ok(Vec::new());
    };
    tables::decode_rewritten(row.value()).map_err(Trouble::at(tables::STAT_REWRITTEN))
}

/// Makes a file say that it has another format.
#[cfg(test)]
pub(in crate::store) fn write_format(path: &Path, format: u64) {
    let db = Database::open(path).unwrap();
    let write = db.begin_write().unwrap();
    let row = tables::encode_stat(tables::STAT_FORMAT, &[format]);
    let mut stat = write.open_table(STAT).unwrap();
    stat.insert(tables::STAT_FORMAT, row.as_slice()).unwrap();
    drop(stat);
    write.commit().unwrap();
}
