//! One redb file of sealed pages of one UTC day, of either [`super::Kind`].
//!
//! In a file of hours a window is sealed once when it ends, and again for every lot of late samples:
//! each time is a *generation*, and a read merges them. Writers and readers do
//! not wait for each other; a read sees the generations that were complete when
//! it began. A day's file has one generation, whose window is the whole day, and is
//! not changed any more.
//!
//! The last commit of a generation carries redb's allocator state (quick repair).
//! So after a crash the file opens without the walk through all of it, as long as
//! the crash was not in the middle of a seal; measured figures stand at the test
//! `a_crash_between_seals_needs_no_walk_through_the_file`.
//!
//! Format changes: a file with a higher number in `stat/format` is refused by name.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase as _, ReadableTable, StorageBackend,
    WriteTransaction,
};

use super::Malformed;
use super::frozen::{Frozen, Held};
use super::kept::Pages;
use super::seal::{Layout, Seal};
use super::tables::{self, FORMAT_MAX, PAGE, SERIES, STAT, SYM, TIMES, WINDOW, WindowRow};
use crate::model::{Labels, Sample, Timestamp};
use crate::store::CommitSeq;
use crate::store::deleted::Tombstones;
use crate::store::disk::Boxed;

/// Opens the bytes of a file: the place to count writes and to inject faults.
/// The file is made when it is missing.
pub type Backends = Arc<dyn Fn(&Path) -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

/// Why a sealed file could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system or redb failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// Written by a newer version.
    #[error(
        "{path} has format {found}, this version reads up to {FORMAT_MAX}: written by a newer pulse"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What the file says.
        found: u64,
    },
    /// A checksum is wrong, or something that was written is not there.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        what: String,
    },
    /// The read would decode more samples than it may.
    #[error("more than {limit} samples")]
    TooManySamples {
        /// The limit.
        limit: usize,
    },
    /// Something is not in memory, and was not to be fetched.
    #[error("not in memory")]
    NotAtHand,
}

/// One series' samples in one window.
#[derive(Clone, PartialEq, Debug)]
pub struct SealedSeries {
    /// The series.
    pub ref_id: u32,
    /// The symbol of its metric name; pages are sorted by it.
    pub metric_sym: u32,
    /// Series with one group probably share their timestamps; only a hint.
    pub group: u32,
    /// Strictly ascending by time.
    pub samples: Vec<Sample>,
}

/// One completely written seal of one window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Generation {
    /// Where the window starts, in seconds since the epoch.
    pub window_start_s: u32,
    /// The number of the seal within its window, from 0.
    pub generation: u16,
    /// The transactions whose samples are in it.
    pub commit_seqs: RangeInclusive<CommitSeq>,
    /// How many pages it has.
    pub pages: u64,
    /// How many samples.
    pub samples: u64,
    /// The earliest sample in ms; above `max_time` when there is none.
    pub min_time: i64,
    /// The latest sample in ms.
    pub max_time: i64,
    /// Where its first page starts.
    pub(super) first: Option<super::page::EntryKey>,
    /// Its timestamp columns are packed.
    pub(super) packed: bool,
}

impl Generation {
    pub(super) fn of(
        window_start_s: u32,
        generation: u16,
        row: &WindowRow,
        packed: bool,
    ) -> Generation {
        Generation {
            window_start_s,
            generation,
            commit_seqs: CommitSeq(row.seq_min)..=CommitSeq(row.seq_max),
            pages: row.pages,
            samples: row.samples,
            min_time: row.min_time,
            max_time: row.max_time,
            first: row.first,
            packed,
        }
    }
}

/// The transactions whose samples of one window are in a file: the start of the
/// window in seconds, and their numbers.
pub type Covered = (u32, RangeInclusive<CommitSeq>);

/// An open file. Reads and one write may run at the same time.
pub struct SealedFile {
    path: PathBuf,
    db: Held,
    /// Nothing may be written.
    frozen: bool,
    /// What was rewritten into this file.
    rewritten: Vec<Covered>,
    cache_bytes: usize,
    generations: RwLock<Arc<[Generation]>>,
    /// Held while a generation is written or removed.
    writing: Mutex<()>,
    /// What reads leave out.
    pub(super) tombstones: Tombstones,
    /// The length of its buckets, 1 when it holds samples.
    pub(super) bucket_ms: i64,
    /// Where checked pages are kept, and the number of this file there.
    pub(super) kept: (Arc<Pages>, u64),
}

/// What went wrong, before it is known on which file.
#[derive(Debug)]
pub(super) enum Trouble {
    Redb(redb::Error),
    Damaged(String),
    Format(u64),
    TooManySamples(usize),
    NotAtHand,
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(err: E) -> Trouble {
        Trouble::Redb(err.into())
    }
}

impl Trouble {
    /// Says where the malformed bytes stand.
    pub(super) fn at(place: impl std::fmt::Display) -> impl FnOnce(Malformed) -> Trouble {
        move |err| Trouble::Damaged(format!("{place}: {err}"))
    }
}

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
    pub(super) fn make_anew(
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
    pub(super) fn complete(mut self, backends: &Backends) -> Result<(), Error> {
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

    /// From now on reads leave out what these say: every bucket of this length that
    /// they touch.
    pub(in crate::store) fn hiding(self, tombstones: Tombstones, bucket_ms: i64) -> SealedFile {
        SealedFile {
            tombstones,
            bucket_ms,
            ..self
        }
    }

    /// From now on checked pages are kept there.
    pub(in crate::store) fn keeping(self, pages: &Arc<Pages>) -> SealedFile {
        let kept = (Arc::clone(pages), pages.number());
        SealedFile { kept, ..self }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one more generation of a window and makes it visible at the end.
    /// `series` must ascend by (`metric_sym`, `ref_id`); `labels_of` is asked for
    /// series that are new to this file. What an earlier, unfinished call left is
    /// removed first. After an error nothing of it is visible.
    ///
    /// # Errors
    /// When the disk is full or fails; redb then wants the file to be reopened.
    pub fn write_generation(
        &self,
        window_start_s: u32,
        commit_seqs: RangeInclusive<CommitSeq>,
        series: impl IntoIterator<Item = SealedSeries>,
        labels_of: impl FnMut(u32) -> Labels,
    ) -> Result<Generation, Error> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove_open()?;
        let number = self.next_generation(window_start_s)?;
        let seal = Seal::begin(self, window_start_s, number, Layout::HOURS)?;
        let series = series.into_iter().map(Ok::<_, Error>);
        let generation = seal.write(commit_seqs, &[], series, labels_of)?;
        self.show(generation.clone());
        Ok(generation)
    }

    /// Writes down which store the file is of.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sign(&self, store: u64) -> Result<(), Error> {
        let mut write = self.begin_write()?;
        write.set_quick_repair(true);
        let row = tables::encode_stat(tables::STAT_STORE, &[store]);
        let put = || -> Result<(), Trouble> {
            let mut stat = write.open_table(STAT)?;
            stat.insert(tables::STAT_STORE, row.as_slice())?;
            Ok(())
        };
        put().map_err(|t| self.trouble("write", t))?;
        self.commit(write)
    }

    /// Checks that a file with the name of this day (its first second) is of this day
    /// and store. A file that says nothing of its store, and 0, are of any.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is another's.
    pub fn check_place(&self, store: u64, start_s: u32) -> Result<(), Error> {
        let day = start_s..start_s.saturating_add(86_400);
        let generations = self.generations();
        let other = generations
            .iter()
            .find(|g| !day.contains(&g.window_start_s));
        if let Some(other) = other {
            let from = Timestamp::from_ms(i64::from(other.window_start_s) * 1_000);
            return Err(self.damaged(&format!("it has samples of another day, from {from} on")));
        }
        let load = || -> Result<Option<u64>, Trouble> {
            let stat = self.begin_read()?.open_table(STAT)?;
            let Some(row) = stat.get(tables::STAT_STORE)? else {
                return Ok(None);
            };
            let [store] = tables::decode_stat(tables::STAT_STORE, row.value())
                .map_err(Trouble::at(tables::STAT_STORE))?;
            Ok(Some(store))
        };
        let theirs = load().map_err(|t| self.trouble("read", t))?;
        match theirs.filter(|theirs| store != 0 && *theirs != 0 && *theirs != store) {
            Some(_) => Err(self.damaged("it is of another store")),
            None => Ok(()),
        }
    }

    /// Calls `with` while nothing is written into the file: its bytes are then those
    /// of its last commit.
    pub fn while_still<R>(&self, with: impl FnOnce() -> R) -> R {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        with()
    }

    /// A number for what is in the file: over its generations with the hashes of
    /// their pages. Two files with one name and one number hold the same samples.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn identity(&self) -> Result<u64, Error> {
        let compute = || -> Result<u64, Trouble> {
            let mut hash = xxhash_rust::xxh3::Xxh3::new();
            for row in self.begin_read()?.open_table(WINDOW)?.iter()? {
                let (key, row) = row?;
                let (window, generation) = key.value();
                hash.update(&window.to_le_bytes());
                hash.update(&generation.to_le_bytes());
                hash.update(row.value());
            }
            for (window, seqs) in &self.rewritten {
                for number in [u64::from(*window), seqs.start().0, seqs.end().0] {
                    hash.update(&number.to_le_bytes());
                }
            }
            Ok(hash.digest())
        };
        compute().map_err(|t| self.trouble("read", t))
    }

    fn next_generation(&self, window_start_s: u32) -> Result<u16, Error> {
        let generations = self.generations();
        let last = generations
            .iter()
            .rev()
            .find(|g| g.window_start_s == window_start_s);
        last.map_or(Some(0), |g| g.generation.checked_add(1))
            .ok_or_else(|| self.damaged("a window has 65,536 generations"))
    }

    fn show(&self, generation: Generation) {
        let mut shown = self
            .generations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all = shown.to_vec();
        all.push(generation);
        all.sort_unstable_by_key(|g| (g.window_start_s, g.generation));
        *shown = all.into();
    }

    /// The visible generations, by window and number.
    pub fn generations(&self) -> Arc<[Generation]> {
        let shown = self.generations.read();
        Arc::clone(&shown.unwrap_or_else(PoisonError::into_inner))
    }

    /// Removes what an unfinished seal left.
    /// Its series and texts stay: they are right, and the next seal needs them.
    fn remove_open(&self) -> Result<(), Error> {
        let find = || -> Result<Option<(u32, u16)>, Trouble> {
            let read = self.begin_read()?;
            let stat = read.open_table(STAT)?;
            let Some(row) = stat.get(tables::STAT_OPEN)? else {
                return Ok(None);
            };
            let [window, generation] = tables::decode_stat(tables::STAT_OPEN, row.value())
                .map_err(Trouble::at("mark of an open seal"))?;
            let window = u32::try_from(window).ok();
            Ok(window.zip(u16::try_from(generation).ok()))
        };
        let Some((window, generation)) = find().map_err(|t| self.trouble("read", t))? else {
            return Ok(());
        };
        let mut write = self.begin_write()?;
        write.set_quick_repair(true);
        remove_generation(&write, window, generation).map_err(|t| self.trouble("write", t))?;
        self.commit(write)
    }

    /// Every series that has a row in this file: ref, metric symbol, labels.
    ///
    /// # Errors
    /// When a row is damaged.
    pub fn series(&self) -> Result<Vec<(u32, u32, Labels)>, Error> {
        load_series(&self.begin_read_here()?).map_err(|t| self.trouble("read", t))
    }

    /// The refs of the series that have a row in this file, ascending.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn series_ids(&self) -> Result<Vec<u32>, Error> {
        let load = || -> Result<Vec<u32>, Trouble> {
            let table = self.begin_read()?.open_table(SERIES)?;
            table.iter()?.map(|row| Ok(row?.0.value())).collect()
        };
        load().map_err(|t| self.trouble("read", t))
    }

    /// Bytes on disk, as allocated: the file is sparse.
    ///
    /// # Errors
    /// When the file is gone.
    pub fn disk_bytes(&self) -> Result<u64, Error> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(&self.path);
        metadata
            .map(|metadata| metadata.blocks() * 512)
            .map_err(|err| self.trouble("look at", redb::Error::from(err).into()))
    }

    /// Which transactions' samples of which windows are in here.
    pub fn covered(&self) -> Vec<Covered> {
        if !self.rewritten.is_empty() {
            return self.rewritten.clone();
        }
        let generations = self.generations();
        let all = generations
            .iter()
            .map(|g| (g.window_start_s, g.commit_seqs.clone()));
        all.collect()
    }

    /// The metric symbol and the ref of every series that has a row here, ascending.
    ///
    /// # Errors
    /// When a row is damaged.
    pub fn series_keys(&self) -> Result<Vec<(u32, u32)>, Error> {
        let load = || -> Result<Vec<(u32, u32)>, Trouble> {
            let mut keys = Vec::new();
            for row in self.begin_read()?.open_table(SERIES)?.iter()? {
                let (ref_id, row) = row?;
                let ref_id = ref_id.value();
                let (metric_sym, _) =
                    tables::decode_series(row.value(), ref_id).map_err(Trouble::at("series"))?;
                keys.push((metric_sym, ref_id));
            }
            keys.sort_unstable();
            Ok(keys)
        };
        load().map_err(|t| self.trouble("read", t))
    }

    /// The samples of all visible generations.
    pub fn samples(&self) -> u64 {
        self.generations().iter().map(|g| g.samples).sum()
    }

    pub(super) fn commit_bytes(&self) -> usize {
        self.cache_bytes / 4
    }

    pub(super) fn begin_read(&self) -> Result<ReadTransaction, Trouble> {
        Ok(self.db.begin_read()?)
    }

    pub(super) fn begin_read_here(&self) -> Result<ReadTransaction, Error> {
        self.begin_read().map_err(|t| self.trouble("read", t))
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Error> {
        if self.frozen {
            let err = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
            return Err(self.trouble("write", redb::Error::from(err).into()));
        }
        self.db
            .begin_write()
            .map_err(|e| self.trouble("write", e.into()))
    }

    pub(super) fn commit(&self, write: WriteTransaction) -> Result<(), Error> {
        write
            .commit()
            .map_err(|err| self.trouble("write", err.into()))
    }

    pub(super) fn trouble(&self, action: &'static str, trouble: Trouble) -> Error {
        locate(&self.path, action, trouble)
    }

    fn damaged(&self, what: &str) -> Error {
        self.trouble("read", Trouble::Damaged(what.to_owned()))
    }
}

fn locate(path: &Path, action: &'static str, trouble: Trouble) -> Error {
    let path = path.to_owned();
    match trouble {
        Trouble::Redb(err) => Error::Io {
            action,
            path,
            source: Box::new(err),
        },
        Trouble::Damaged(what) => Error::Damaged { path, what },
        Trouble::Format(found) => Error::Format { path, found },
        Trouble::TooManySamples(limit) => Error::TooManySamples { limit },
        Trouble::NotAtHand => Error::NotAtHand,
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

/// From the first to the last of all transactions.
pub(super) fn covered_span(all: &[Covered]) -> RangeInclusive<CommitSeq> {
    let first = all.iter().map(|(_, seqs)| *seqs.start()).min();
    let last = all.iter().map(|(_, seqs)| *seqs.end()).max();
    first.unwrap_or_default()..=last.unwrap_or_default()
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

fn load_stat<const N: usize>(read: &ReadTransaction, name: &str) -> Result<[u64; N], Trouble> {
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

fn load_series(read: &ReadTransaction) -> Result<Vec<(u32, u32, Labels)>, Trouble> {
    let mut texts: Vec<String> = Vec::new();
    for row in read.open_table(SYM)?.iter()? {
        let (number, text) = row?;
        let number = number.value();
        let text = tables::decode_symbol(text.value(), number).map_err(Trouble::at("sym"))?;
        if number as usize != texts.len() {
            return Err(Trouble::Damaged(format!("symbol {} is gone", texts.len())));
        }
        texts.push(text.to_owned());
    }
    let text = |number: &u32| {
        texts
            .get(*number as usize)
            .ok_or_else(|| Trouble::Damaged(format!("symbol {number} is gone")))
    };
    let mut all = Vec::new();
    for row in read.open_table(SERIES)?.iter()? {
        let (ref_id, row) = row?;
        let ref_id = ref_id.value();
        let (metric_sym, symbols) =
            tables::decode_series(row.value(), ref_id).map_err(Trouble::at("series"))?;
        let pairs = symbols
            .chunks_exact(2)
            .map(|pair| Ok((text(&pair[0])?, text(&pair[1])?)))
            .collect::<Result<Vec<_>, Trouble>>()?;
        all.push((ref_id, metric_sym, Labels::from_pairs(pairs)));
    }
    Ok(all)
}

fn remove_generation(
    write: &WriteTransaction,
    window: u32,
    generation: u16,
) -> Result<(), Trouble> {
    let pages = (window, generation, 0, 0, 0)..=(window, generation, u32::MAX, u32::MAX, u16::MAX);
    write.open_table(PAGE)?.retain_in(pages, |_, _| false)?;
    let times = (window, generation, 0)..=(window, generation, u32::MAX);
    write.open_table(TIMES)?.retain_in(times, |_, _| false)?;
    write.open_table(STAT)?.remove(tables::STAT_OPEN)?;
    Ok(())
}

/// How errors name a generation.
pub(super) fn place(window: u32, generation: u16) -> String {
    format!("window {window}, generation {generation}")
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

#[cfg(test)]
mod tests;
