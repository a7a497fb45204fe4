//! `hot.redb`: opened, made, brought to its present form, closed and opened again.
//!
//! redb panics on some of the bytes that it did not write, so whatever first reads a
//! file is caught: a damaged file is one that is named, not the end of the process.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, ReadableDatabase as _, TableHandle as _};

use super::catalog;
use super::caught;
use super::disk::{Backends, Boxed, causes, frozen_files, io_error, is_read_only, sync_dir};
use super::sealed::frozen::Held;
use super::space::is_full;
use super::tables::{
    FIRST_VERSION, HOT_FILE, META, Meta, NAMELESS_VERSION, RETIRED, SERIES, SYMBOLS, VERSION, WAL,
    make_tables, put_store,
};
use super::{Error, Table};

/// `hot.redb`, which the writer may close and open again after an I/O error.
pub(super) struct Hot {
    path: PathBuf,
    backends: Backends,
    cache_bytes: usize,
    open: RwLock<Option<Arc<Held>>>,
    /// Nothing of it is written.
    is_read: bool,
    /// Whether what is open can only be read, because the medium takes no writes.
    is_frozen: AtomicBool,
}

impl Hot {
    /// Opens the file, makes it when it is missing, and checks its form.
    pub(super) fn open(
        dir: &Path,
        backends: Backends,
        cache_bytes: usize,
    ) -> Result<(Hot, Meta), Error> {
        let hot = Hot {
            path: dir.join(HOT_FILE),
            backends,
            cache_bytes,
            open: RwLock::new(None),
            is_read: false,
            is_frozen: AtomicBool::new(false),
        };
        if !hot.path.exists() {
            hot.create(dir)?;
        }
        hot.check()
    }

    /// As [`Hot::open`], to read it; it must be there.
    ///
    /// # Errors
    /// As [`Hot::open`]; also when there is no such file.
    pub(super) fn open_existing(
        dir: &Path,
        backends: Backends,
        cache_bytes: usize,
    ) -> Result<(Hot, Meta), Error> {
        let path = dir.join(HOT_FILE);
        if !path.exists() {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(io_error("open", &path, missing));
        }
        let hot = Hot {
            path,
            backends,
            cache_bytes,
            open: RwLock::new(None),
            is_read: true,
            is_frozen: AtomicBool::new(false),
        };
        hot.check()
    }

    /// What was read of a damaged file, in memory: to read it.
    ///
    /// # Errors
    /// As [`Hot::open`].
    pub(super) fn of_memory(dir: &Path, db: Database) -> Result<(Hot, Meta), Error> {
        let path = dir.join(HOT_FILE);
        let meta = check(&db).map_err(|source| io_error("open", &path, source))?;
        let hot = Hot {
            path,
            backends: frozen_files(),
            cache_bytes: 0,
            open: RwLock::new(Some(Arc::new(Held::to_read(db)))),
            is_read: true,
            is_frozen: AtomicBool::new(false),
        };
        Ok((hot, meta))
    }

    fn check(self) -> Result<(Hot, Meta), Error> {
        let hot = self;
        let open = || {
            let db = hot
                .open_now(true)
                .or_else(|err| hot.opened_on_a_full_disk(err))?;
            let meta = check(&db);
            meta.map_err(|source| io_error("open", &hot.path, source))
        };
        match caught(&hot.path, open) {
            Ok(meta) => Ok((hot, meta)),
            Err(err) => Err(as_damage(&hot.path, err)),
        }
    }

    /// The file to be read, when the disk is too full to open it otherwise: the writer
    /// opens it again, and the ladder makes room. Not one that has to be rewritten.
    fn opened_on_a_full_disk(&self, err: Error) -> Result<Arc<Held>, Error> {
        if !is_full(&err) {
            return Err(err);
        }
        let db = self.database()?;
        match Meta::read(&db) {
            Ok(Meta {
                version: VERSION, ..
            }) => {
                tracing::error!(error = %causes(&err), "the disk is full: nothing is taken yet");
                Ok(db)
            }
            _ => Err(err),
        }
    }

    /// Makes the file under another name first: a power cut while redb lays it
    /// out leaves something that it does not open again.
    fn create(&self, dir: &Path) -> Result<(), Error> {
        let new = dir.join("hot.redb.new");
        match std::fs::remove_file(&new) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", &new, err));
            }
            _ => {}
        }
        let db = self.open_at(&new, &self.backends, true)?;
        let meta = Meta {
            version: VERSION,
            ..Meta::default()
        };
        let name = || -> Result<(), redb::Error> {
            make_tables(&db, meta)?;
            let txn = db.begin_write()?;
            put_store(&txn)?;
            Ok(txn.commit()?)
        };
        name().map_err(|err| io_error("write", &new, err))?;
        drop(db);
        std::fs::rename(&new, &self.path)
            .and_then(|()| sync_dir(dir))
            .map_err(|err| io_error("rename", &new, err))
    }

    fn open_at(&self, path: &Path, backends: &Backends, may_be_new: bool) -> Result<Held, Error> {
        let fail = |err| io_error("open", path, err);
        let backend = backends(path).map_err(fail)?;
        // redb would begin a new file, without the catalog that this process knows.
        if !may_be_new && backend.len().map_err(fail)? == 0 {
            return Err(Error::Damaged {
                path: path.to_owned(),
                source: "it is empty".into(),
            });
        }
        let db = Database::builder()
            .set_cache_size(self.cache_bytes)
            .create_with_backend(Boxed(backend))
            .map_err(|err| io_error("open", path, redb::Error::from(err)))?;
        Ok(match self.is_read {
            true => Held::to_read(db),
            false => Held::to_write(db),
        })
    }

    /// Opens the file again. Waits until no reader uses the old handle, because
    /// closing that may still write. When the medium takes no writes, or the disk is
    /// full, the file is opened to be read, so that rules and pages go on.
    ///
    /// # Errors
    /// When the file cannot be written, or not even read.
    pub(super) fn reopen(&self) -> Result<Arc<Held>, Error> {
        self.open_now(false)
    }

    fn open_now(&self, may_be_new: bool) -> Result<Arc<Held>, Error> {
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = slot.take() {
            while Arc::strong_count(&old) > 1 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        match caught(&self.path, || {
            self.open_at(&self.path, &self.backends, may_be_new)
        }) {
            Ok(db) => {
                self.is_frozen.store(false, Ordering::Release);
                let db = Arc::new(db);
                *slot = Some(Arc::clone(&db));
                Ok(db)
            }
            Err(Error::Io { path, source, .. }) if is_read_only(&*source) || is_full(&*source) => {
                self.is_frozen.store(true, Ordering::Release);
                *slot = Some(Arc::new(self.open_at(&path, &frozen_files(), true)?));
                Err(io_error("open", &path, source))
            }
            Err(err) => Err(err),
        }
    }

    /// The open database, to write to it.
    ///
    /// # Errors
    /// As [`Hot::database`], and when it was opened to be read only.
    pub(super) fn writable(&self) -> Result<Arc<Held>, Error> {
        if self.is_frozen.load(Ordering::Acquire) {
            return Err(Error::ReadOnly);
        }
        self.database()
    }

    /// Gives the space that deleted rows left back to the disk. Waits until nobody
    /// reads; readers that come meanwhile wait as well.
    pub(super) fn compact(&self) -> Result<(), Error> {
        drop(self.writable()?);
        let fail = |err| io_error("compact", &self.path, err);
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let mut held = slot
            .take()
            .ok_or_else(|| io_error("compact", &self.path, "closed after an I/O error"))?;
        let mut db = loop {
            match Arc::try_unwrap(held) {
                Ok(db) => break db,
                Err(shared) => held = shared,
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        // After an error redb wants to be opened again, as after one of a commit.
        db.compact().map_err(|err| fail(redb::Error::from(err)))?;
        *slot = Some(Arc::new(db));
        Ok(())
    }

    /// The open database.
    ///
    /// # Errors
    /// While it cannot be opened again after an I/O error.
    pub(super) fn database(&self) -> Result<Arc<Held>, Error> {
        let slot = self.open.read().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
            .ok_or_else(|| io_error("read", &self.path, "closed after an I/O error"))
    }

    /// Walks redb's own checksums of all pages; says whether they are right. Only
    /// while nobody else uses the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn check_integrity(&self) -> Result<bool, Error> {
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let db = slot.as_mut().and_then(Arc::get_mut);
        let db = db.ok_or_else(|| io_error("check", &self.path, "it is in use"))?;
        db.check_integrity()
            .map_err(|err| io_error("check", &self.path, redb::Error::from(err)))
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Runs something that reads the file; redb panics on some of what it did not write.
///
/// # Errors
/// Those of `work`, and [`Error::Damaged`] when it panics.
pub(super) fn caught<T>(path: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    caught::caught(work).unwrap_or_else(|| {
        Err(Error::Damaged {
            path: path.to_owned(),
            source: "its tree of pages cannot be read".into(),
        })
    })
}

/// An error with the file `of` as [`Error::Damaged`], if it says that its bytes are wrong.
pub(super) fn as_damage(of: &Path, err: Error) -> Error {
    match err {
        Error::Io { path, source, .. } if path == of && is_damage(&*source) => {
            Error::Damaged { path, source }
        }
        err => err,
    }
}

/// Whether an error says that the bytes of the file are wrong.
pub(super) fn is_damaged(err: &Error) -> bool {
    match err {
        Error::Damaged { .. } => true,
        Error::Io { source, .. } => is_damage(&**source),
        _ => false,
    }
}

/// Whether redb says that a file is none of its own, or not whole.
pub(super) fn is_damage(err: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    let of_storage = |err: &redb::StorageError| match err {
        redb::StorageError::Io(err) => matches!(err.kind(), InvalidData | UnexpectedEof),
        err => matches!(err, redb::StorageError::Corrupted(_)),
    };
    if let Some(err) = err.downcast_ref::<redb::StorageError>() {
        return of_storage(err);
    }
    if let Some(err) = err.downcast_ref::<redb::TableError>() {
        return match err {
            redb::TableError::Storage(err) => of_storage(err),
            _ => true,
        };
    }
    match err.downcast_ref::<redb::Error>() {
        Some(redb::Error::Io(err)) => matches!(err.kind(), InvalidData | UnexpectedEof),
        Some(err) => matches!(
            err,
            redb::Error::Corrupted(_)
                | redb::Error::RepairAborted
                | redb::Error::UpgradeRequired(_)
                | redb::Error::TableDoesNotExist(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TypeDefinitionChanged { .. }
        ),
        None => false,
    }
}

/// Refuses a file that a newer version wrote; makes tables that came since.
fn check(db: &Database) -> Result<Meta, Box<dyn std::error::Error + Send + Sync>> {
    let names: Vec<String> = db
        .begin_read()?
        .list_tables()?
        .map(|table| table.name().to_owned())
        .collect();
    let own = [META.name(), WAL.name(), SYMBOLS.name(), SERIES.name()];
    let names = names.iter().filter(|name| *name != RETIRED);
    for name in names.clone() {
        if !own.contains(&name.as_str()) && Table::from_name(name).is_none() {
            return Err(format!("unknown table {name:?}: written by a newer pulse").into());
        }
    }
    let mut meta = Meta::read(db)?;
    match meta.version {
        VERSION => {}
        FIRST_VERSION | NAMELESS_VERSION => meta = upgrade(db, meta)?,
        found => {
            let what = format!("format {found}, expected {VERSION}: written by a newer pulse");
            return Err(what.into());
        }
    }
    if names.count() < own.len() + Table::ALL.len() {
        make_tables(db, meta)?;
    }
    Ok(meta)
}

fn upgrade(db: &Database, from: Meta) -> Result<Meta, redb::Error> {
    let read = db.begin_read()?;
    let txn = db.begin_write()?;
    if from.version == FIRST_VERSION {
        catalog::upgrade(&read, &txn)?;
    }
    let store = match from.store {
        0 => put_store(&txn)?,
        store => store,
    };
    let meta = Meta {
        version: VERSION,
        store,
        ..from
    };
    meta.write(&txn)?;
    txn.commit()?;
    tracing::info!(
        from = from.version,
        to = VERSION,
        "hot.redb has its new form"
    );
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use super::super::tables::has_commit;
    use super::*;
    use crate::store::disk::counted_files;
    use prometheus::IntCounter;
    use redb::{TableDefinition, WriteTransaction};

    fn files() -> Backends {
        let counter = || IntCounter::new("c", "c").unwrap();
        counted_files(counter(), counter())
    }

    fn open_error(dir: &Path) -> String {
        let err = Hot::open(dir, files(), 1 << 20).err().unwrap();
        std::error::Error::source(&err).unwrap().to_string()
    }

    #[test]
    fn a_new_file_has_all_tables_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let (hot, meta) = Hot::open(dir.path(), files(), 1 << 20).unwrap();
        assert_eq!(meta.version, VERSION);
        drop(hot);
        let (hot, again) = Hot::open(dir.path(), files(), 1 << 20).unwrap();
        assert_eq!(again, meta);
        assert!(!has_commit(&hot.database().unwrap(), 1).unwrap());
    }

    #[test]
    fn newer_versions_and_unknown_tables_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (hot, mut meta) = Hot::open(dir.path(), files(), 1 << 20).unwrap();
        meta.version = 9;
        let txn = hot.database().unwrap().begin_write().unwrap();
        meta.write(&txn).unwrap();
        txn.commit().unwrap();
        drop(hot);
        assert!(open_error(dir.path()).contains("format 9, expected 3"));

        let dir = tempfile::tempdir().unwrap();
        let (hot, _) = Hot::open(dir.path(), files(), 1 << 20).unwrap();
        let txn = hot.database().unwrap().begin_write().unwrap();
        let table: TableDefinition<'_, u32, u32> = TableDefinition::new("histograms");
        txn.open_table(table).unwrap();
        txn.commit().unwrap();
        drop(hot);
        assert!(open_error(dir.path()).contains("unknown table \"histograms\""));
    }

    #[test]
    fn deleted_rows_leave_no_space_after_a_compaction() {
        let dir = tempfile::tempdir().unwrap();
        let (hot, _) = Hot::open(dir.path(), files(), 1 << 20).unwrap();
        let len = || std::fs::metadata(hot.path()).unwrap().len();
        let write = |change: &dyn Fn(&WriteTransaction)| {
            let txn = hot.database().unwrap().begin_write().unwrap();
            change(&txn);
            txn.commit().unwrap();
        };
        write(&|txn| {
            let mut log = txn.open_table(WAL).unwrap();
            for seq in 0..500 {
                log.insert((seq, 0), [7; 10_000].as_slice()).unwrap();
            }
        });
        let full = len();
        write(&|txn| {
            let mut log = txn.open_table(WAL).unwrap();
            log.retain(|key, _| key.0 == 499).unwrap();
        });
        hot.compact().unwrap();
        assert!(full > 5_000_000 && len() < 1_000_000, "{full}, {}", len());
        assert!(has_commit(&hot.database().unwrap(), 499).unwrap());
    }

    #[test]
    fn a_number_that_nobody_wrote_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (hot, _) = Hot::open(dir.path(), files(), 1 << 20).unwrap();
        let txn = hot.database().unwrap().begin_write().unwrap();
        let sealed = 64_u64.to_le_bytes();
        let mut table = txn.open_table(META).unwrap();
        table.insert("wal_sealed_seq", sealed.as_slice()).unwrap();
        drop(table);
        txn.commit().unwrap();
        drop(hot);
        let err = Hot::open(dir.path(), files(), 1 << 20).err().unwrap();
        assert!(matches!(err, Error::Damaged { .. }), "{err:?}");
        assert!(open_error(dir.path()).contains("wrong checksum"));
    }
}
