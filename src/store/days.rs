//! The sealed files, some for each UTC day: which there are, which are open.
//!
//! The hours of a day are in its file of hours until they are rewritten into the
//! day's own file. What comes later for the day starts a new file of hours beside
//! it. A reader who finds a file gone or replaced after it was listed reads again.
//! Roll-ups of a day that is over stand beside these, and outlive them ([`rolls`]).
//!
//! `hot.redb` knows which files there should be ([`finished`]).
//!
//! A file is believed by its name only if what it holds is of that day, and if the store
//! that it names is this one: another is set aside ([`quarantine`]).
//!
//! At most 16 files are open at once. A file that somebody still reads when it
//! makes room is found again through the same handle, and one that is closing is
//! waited for, so that no file is ever open twice.

mod expire;
mod find;
pub(super) mod finished;
pub(super) mod quarantine;
mod read;
pub(super) mod reduce;
pub(super) mod rewrite;
pub(super) mod rolls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use roaring::RoaringBitmap;

pub(super) use self::find::Coverage;
use self::finished::Records;
use self::quarantine::Aside;
use super::caught::caught;
use super::deleted::Tombstones;
use super::disk::{Backends, io_error, sync_dir};
use super::sealed::kept::Pages;
use super::sealed::{Covered, Generation, Kind, SealedFile};
use super::space::is_full;
use super::{Error, sealed};

/// Files that are open at once.
const OPEN_MAX: usize = 16;

/// The page cache of a file that is not the newest.
const OLD_CACHE_BYTES: usize = 2 << 20;

const WINDOW_S: u32 = 3_600;
const DAY_S: u32 = 86_400;
const DAY_MS: i64 = 86_400_000;

/// The files.
pub(super) struct Days {
    dir: PathBuf,
    backends: Backends,
    /// The store's number.
    store: u64,
    /// Nothing is written.
    is_read: bool,
    cache_bytes: usize,
    /// Checked pages of all files.
    pages: Arc<Pages>,
    /// Those with samples.
    files: RwLock<Files>,
    /// Those with roll-ups.
    rolls: RwLock<Files>,
    /// Which files `hot.redb` knows.
    records: Mutex<Records>,
    /// Files that cannot be read.
    aside: Mutex<Vec<Aside>>,
    /// The open ones, the last used at the end.
    open: Mutex<Vec<Arc<OpenFile>>>,
    /// What is deleted in the files and not yet gone from them.
    tombstones: Tombstones,
    /// How many need the files, and the log behind them, to stay.
    pins: Arc<Mutex<usize>>,
    /// Days in which a reader found damage.
    suspects: Mutex<BTreeSet<u32>>,
    /// Roll-ups in which one did.
    suspect_rolls: Mutex<BTreeSet<(u32, Kind)>>,
    /// Counts the roll-ups that were made.
    rolls_made: AtomicU64,
}

/// By the second at which the day starts.
type Files = BTreeMap<(u32, Kind), Arc<DayFile>>;

/// While it lives, no file is replaced or expires, and no log record is deleted.
pub(super) struct Pin(Arc<Mutex<usize>>);

impl Drop for Pin {
    fn drop(&mut self) {
        *lock(&self.0) -= 1;
    }
}

/// An open file; says when it is closed.
struct OpenFile {
    file: Option<SealedFile>,
    is_open: Arc<AtomicBool>,
}

impl OpenFile {
    fn get(&self) -> &SealedFile {
        self.file.as_ref().expect("it goes only with the handle")
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // redb panics at the end of some files whose bytes it did not write.
        let file = self.file.take();
        if caught(move || drop(file)).is_none() {
            tracing::error!("a damaged file did not close cleanly");
        }
        self.is_open.store(false, Ordering::Release);
    }
}

/// One file and what is known of it without opening it.
pub(super) struct DayFile {
    pub(super) start_s: u32,
    pub(super) kind: Kind,
    pub(super) path: PathBuf,
    generations: RwLock<Arc<[Generation]>>,
    /// What it was made of, if it is frozen.
    rewritten: RwLock<Arc<[Covered]>>,
    file: Mutex<Weak<OpenFile>>,
    is_open: Arc<AtomicBool>,
    /// It was removed or replaced: to be found no more.
    gone: AtomicBool,
    /// The series that it holds; read when first asked for.
    series: Mutex<Option<Arc<RoaringBitmap>>>,
}

impl DayFile {
    fn new(dir: &Path, start_s: u32, kind: Kind) -> DayFile {
        DayFile {
            start_s,
            kind,
            path: dir.join(kind.file_name(start_s)),
            generations: RwLock::new(Arc::new([])),
            rewritten: RwLock::new(Arc::new([])),
            file: Mutex::default(),
            is_open: Arc::default(),
            gone: AtomicBool::new(false),
            series: Mutex::default(),
        }
    }

    /// The visible generations.
    pub(super) fn generations(&self) -> Arc<[Generation]> {
        let generations = self.generations.read();
        Arc::clone(&generations.unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, file: &SealedFile) {
        let mut generations = self
            .generations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *generations = file.generations();
        if self.kind.is_frozen() {
            self.note_rewritten(&file.covered());
        }
        *lock(&self.series) = None;
    }

    fn note_rewritten(&self, covered: &[Covered]) {
        let mut rewritten = self.rewritten.write();
        **rewritten.as_mut().unwrap_or_else(PoisonError::get_mut) = covered.into();
    }

    fn overlaps(&self, start: i64, end: i64) -> bool {
        let generations = self.generations();
        generations
            .iter()
            .any(|g| g.min_time <= end && g.max_time >= start)
    }

    /// The samples of all generations.
    pub(super) fn samples(&self) -> u64 {
        self.generations().iter().map(|g| g.samples).sum()
    }

    /// Bytes that it takes on disk; 0 when it is gone.
    pub(super) fn disk_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(&self.path).map_or(0, |meta| meta.blocks() * 512)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The day of a window, both in seconds since the epoch.
fn day_of_window(window_s: u32) -> u32 {
    window_s - window_s % DAY_S
}

/// Our error for theirs.
pub(super) fn store_error(err: sealed::Error) -> Error {
    let path = match &err {
        sealed::Error::Io { path, .. }
        | sealed::Error::Format { path, .. }
        | sealed::Error::Damaged { path, .. } => path.clone(),
        sealed::Error::TooManySamples { .. } | sealed::Error::NotAtHand => PathBuf::new(),
    };
    io_error("use", &path, err)
}

impl Days {
    /// What is deleted in the files and not yet gone from them.
    pub(super) fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// Keeps the files in their places for a while.
    pub(super) fn pin(&self) -> Pin {
        *lock(&self.pins) += 1;
        Pin(Arc::clone(&self.pins))
    }

    /// Whether somebody needs the files in their places.
    pub(super) fn is_pinned(&self) -> bool {
        *lock(&self.pins) > 0
    }

    /// Opens a file, if it is not open, and calls `with` on it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn with_file<R>(
        &self,
        day: &DayFile,
        with: impl FnOnce(&SealedFile) -> R,
    ) -> Result<R, sealed::Error> {
        Ok(with(self.file(day)?.get()))
    }

    fn insert(&self, file: DayFile) -> Arc<DayFile> {
        let file = Arc::new(file);
        self.write_files(file.kind)
            .insert((file.start_s, file.kind), Arc::clone(&file));
        file
    }

    fn files_of(&self, kind: Kind) -> &RwLock<Files> {
        if kind.is_roll() {
            &self.rolls
        } else {
            &self.files
        }
    }

    fn write_files(&self, kind: Kind) -> RwLockWriteGuard<'_, Files> {
        let files = self.files_of(kind).write();
        files.unwrap_or_else(PoisonError::into_inner)
    }

    fn read_files(&self, kind: Kind) -> RwLockReadGuard<'_, Files> {
        let files = self.files_of(kind).read();
        files.unwrap_or_else(PoisonError::into_inner)
    }

    /// All files with samples, those of the oldest day first, and of one day the
    /// rewritten one.
    pub(super) fn all(&self) -> Vec<Arc<DayFile>> {
        self.read_files(Kind::Day).values().cloned().collect()
    }

    /// All files, those with roll-ups at the end.
    pub(super) fn all_kinds(&self) -> Vec<Arc<DayFile>> {
        let mut all = self.all();
        all.extend(self.all_rolls());
        all
    }

    /// One file.
    pub(super) fn get(&self, start_s: u32, kind: Kind) -> Option<Arc<DayFile>> {
        self.read_files(kind).get(&(start_s, kind)).cloned()
    }

    /// The open file of a day.
    fn file(&self, day: &DayFile) -> Result<Arc<OpenFile>, sealed::Error> {
        let mut slot = lock(&day.file);
        let file = match slot.upgrade() {
            Some(file) => file,
            None => {
                while day.is_open.load(Ordering::Acquire) {
                    // Its last user is closing it at this moment.
                    std::thread::sleep(Duration::from_millis(1));
                }
                let file = OpenFile {
                    file: Some(self.open_file(day)?),
                    is_open: Arc::clone(&day.is_open),
                };
                day.is_open.store(true, Ordering::Release);
                let file = Arc::new(file);
                *slot = Arc::downgrade(&file);
                file
            }
        };
        drop(slot);
        let mut open = lock(&self.open);
        open.retain(|other| !Arc::ptr_eq(other, &file));
        open.push(Arc::clone(&file));
        let oldest = (open.len() > OPEN_MAX).then(|| open.remove(0));
        drop(open);
        drop(oldest);
        Ok(file)
    }

    /// The file of a day that is open, if nobody opens or closes it at this moment.
    fn file_at_hand(&self, day: &DayFile) -> Result<Arc<OpenFile>, sealed::Error> {
        let slot = day.file.try_lock().ok();
        let file = slot.and_then(|slot| slot.upgrade());
        file.ok_or(sealed::Error::NotAtHand)
    }

    /// Called with the file's slot locked, as it is while the file goes away.
    fn open_file(&self, day: &DayFile) -> Result<SealedFile, sealed::Error> {
        let files = self.read_files(Kind::Day);
        let newest = files.keys().next_back() == Some(&(day.start_s, day.kind));
        drop(files);
        let cache_bytes = if newest {
            self.cache_bytes
        } else {
            OLD_CACHE_BYTES.min(self.cache_bytes)
        };
        if day.is_gone() {
            return Err(sealed::Error::Damaged {
                path: day.path.clone(),
                what: "removed or replaced".to_owned(),
            });
        }
        let frozen = || SealedFile::open_frozen(&day.path, cache_bytes, &self.backends);
        let file = if day.kind.is_frozen() || self.is_read {
            frozen()
        } else {
            let opened = SealedFile::open(&day.path, cache_bytes, &self.backends);
            // On a full disk it can still be read. The next write opens it anew.
            opened.or_else(|err| if is_full(&err) { frozen() } else { Err(err) })
        };
        let bucket_ms = day.kind.bucket_ms();
        file.and_then(|file| {
            file.check_place(self.store, day.start_s)?;
            let file = file.hiding(self.tombstones.clone(), bucket_ms);
            Ok(file.keeping(&self.pages))
        })
    }

    /// Closes a file, so that the next use opens it anew: after an error in it.
    fn close(&self, day: &DayFile) {
        drop(self.take_open(day));
    }

    /// Takes a file out of the open ones. It is closed when the handle goes, and who
    /// reads it is done: of a large file that takes long, so no lock is held then.
    fn take_open(&self, day: &DayFile) -> Vec<Arc<OpenFile>> {
        let is_it = |file: &mut Arc<OpenFile>| Arc::ptr_eq(&file.is_open, &day.is_open);
        lock(&self.open).extract_if(.., is_it).collect()
    }

    /// The file of hours of a window's day, made when it is missing. Under another
    /// name first: redb does not open a file whose first commit was cut short.
    fn hours_for(&self, window_s: u32) -> Result<Arc<DayFile>, Error> {
        let start_s = day_of_window(window_s);
        if let Some(file) = self.get(start_s, Kind::Hours) {
            return Ok(file);
        }
        let file = DayFile::new(&self.dir, start_s, Kind::Hours);
        let new = file.path.with_extension("new");
        if new.exists() {
            std::fs::remove_file(&new).map_err(|err| io_error("remove", &new, err))?;
        }
        let made = SealedFile::create(&new, OLD_CACHE_BYTES, &self.backends);
        made.and_then(|made| made.sign(self.store))
            .map_err(store_error)?;
        std::fs::rename(&new, &file.path)
            .and_then(|()| sync_dir(&self.dir))
            .map_err(|err| io_error("rename", &new, err))?;
        let file = self.insert(file);
        self.note_made(&file);
        Ok(file)
    }

    /// Writes a generation through `write`, and shows it.
    pub(super) fn write(
        &self,
        window_s: u32,
        write: impl FnOnce(&SealedFile) -> Result<Generation, sealed::Error>,
    ) -> Result<Generation, Error> {
        let day = self.hours_for(window_s)?;
        let written = self.file(&day).and_then(|file| {
            let generation = write(file.get())?;
            day.note(file.get());
            Ok(generation)
        });
        written.map_err(|err| {
            self.close(&day);
            store_error(err)
        })
    }
}
