//! The sealed files, one or two for each UTC day: which there are, which are open.
//!
//! The hours of a day are in its file of hours until they are rewritten into the
//! day's own file. What comes later for the day starts a new file of hours beside
//! it. A reader who finds a file gone or replaced after it was listed reads again.
//!
//! At most 16 files are open at once. A file that somebody still reads when it
//! makes room is found again through the same handle, and one that is closing is
//! waited for, so that no file is ever open twice.

mod quarantine;
pub(super) mod rewrite;

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use roaring::RoaringBitmap;

use self::quarantine::Aside;
use super::deleted::{Tombstone, Tombstones};
use super::disk::{Backends, io_error, sync_dir};
use super::sealed::{Generation, Kind, SealedFile};
use super::{Error, sealed};
use crate::model::Sample;

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
    cache_bytes: usize,
    /// By the second at which the day starts.
    files: RwLock<BTreeMap<(u32, Kind), Arc<DayFile>>>,
    /// Files that cannot be read.
    aside: Vec<Aside>,
    /// The open ones, the last used at the end.
    open: Mutex<Vec<Arc<OpenFile>>>,
    /// What is deleted in the files and not yet gone from them.
    tombstones: Tombstones,
    /// How many need the files, and the log behind them, to stay.
    pins: Arc<Mutex<usize>>,
}

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
        self.file = None;
        self.is_open.store(false, Ordering::Release);
    }
}

/// The files, or one that cannot be opened and why.
type Found = Result<Days, (PathBuf, sealed::Error)>;

/// One file and what is known of it without opening it.
pub(super) struct DayFile {
    pub(super) start_s: u32,
    pub(super) kind: Kind,
    pub(super) path: PathBuf,
    generations: RwLock<Arc<[Generation]>>,
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
        *lock(&self.series) = None;
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
        sealed::Error::TooManySamples { .. } => PathBuf::new(),
    };
    io_error("use", &path, err)
}

impl Days {
    /// Sets the files aside that are damaged; then as [`Days::open`].
    ///
    /// # Errors
    /// As [`Days::open`], but not for damage.
    pub(super) fn open_whole(
        dir: &Path,
        backends: Backends,
        cache_bytes: usize,
    ) -> Result<Days, Error> {
        loop {
            match Days::find(dir, Arc::clone(&backends), cache_bytes)? {
                Ok(days) => return Ok(days),
                Err((path, err)) if quarantine::is_damaged(&err) => {
                    tracing::error!(path = %path.display(), error = %err, "set a damaged file aside");
                    quarantine::set_aside(dir, &path)?;
                }
                Err((_, err)) => return Err(store_error(err)),
            }
        }
    }

    /// Finds the files of a directory and reads which generations they have.
    ///
    /// # Errors
    /// When a file cannot be read, or a newer version wrote it.
    pub(super) fn open(dir: &Path, backends: Backends, cache_bytes: usize) -> Result<Days, Error> {
        Days::find(dir, backends, cache_bytes)?.map_err(|(_, err)| store_error(err))
    }

    /// The files, or the first one that cannot be opened.
    fn find(dir: &Path, backends: Backends, cache_bytes: usize) -> Result<Found, Error> {
        let days = Days {
            dir: dir.to_owned(),
            backends,
            cache_bytes,
            files: RwLock::default(),
            aside: quarantine::all(dir),
            open: Mutex::default(),
            tombstones: Tombstones::default(),
            pins: Arc::default(),
        };
        let entries = std::fs::read_dir(dir).map_err(|err| io_error("read", dir, err))?;
        for entry in entries {
            let entry = entry.map_err(|err| io_error("read", dir, err))?;
            if let Some((kind, start_s)) = entry.file_name().to_str().and_then(Kind::parse) {
                let file = DayFile::new(dir, start_s, kind);
                let opened = days.file(&file);
                match opened {
                    Ok(opened) => file.note(opened.get()),
                    Err(err) => return Ok(Err((file.path, err))),
                }
                days.insert(file);
            }
        }
        Ok(Ok(days))
    }

    /// What is deleted in the files and not yet gone from them.
    pub(super) fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// The files that have deleted samples, or had some before they were rewritten.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn reached_by_tombstones(&self) -> Result<Vec<Arc<DayFile>>, sealed::Error> {
        let tombstones = self.tombstones.all();
        let mut reached = Vec::new();
        for day in self.all() {
            let series = match self.series_of(&day) {
                Ok(series) => series,
                Err(_) if day.is_gone() => continue,
                Err(err) => return Err(err),
            };
            let generations = day.generations();
            let reaches = |t: &Tombstone| {
                let hits =
                    |g: &Generation| t.reaches(g.commit_seqs.end().0, g.min_time, g.max_time);
                generations.iter().any(hits) && !t.series.is_disjoint(&series)
            };
            if tombstones.iter().any(reaches) {
                reached.push(day);
            }
        }
        Ok(reached)
    }

    /// The series of which a file has nothing that may be seen.
    fn hidden_series(&self, day: &DayFile) -> RoaringBitmap {
        let generations = day.generations();
        let covers_all = |t: &&Tombstone| {
            let covers = |g: &Generation| t.covers(g.commit_seqs.end().0, g.min_time, g.max_time);
            generations.iter().all(covers)
        };
        let tombstones = self.tombstones.all();
        let covering = tombstones.iter().filter(covers_all);
        covering.fold(RoaringBitmap::new(), |all, t| all | &t.series)
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
        self.write_files()
            .insert((file.start_s, file.kind), Arc::clone(&file));
        file
    }

    fn write_files(&self) -> RwLockWriteGuard<'_, BTreeMap<(u32, Kind), Arc<DayFile>>> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_files(&self) -> RwLockReadGuard<'_, BTreeMap<(u32, Kind), Arc<DayFile>>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All files, those of the oldest day first, and of one day the rewritten one.
    pub(super) fn all(&self) -> Vec<Arc<DayFile>> {
        self.read_files().values().cloned().collect()
    }

    /// One file.
    pub(super) fn get(&self, start_s: u32, kind: Kind) -> Option<Arc<DayFile>> {
        self.read_files().get(&(start_s, kind)).cloned()
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
        if open.len() > OPEN_MAX {
            open.remove(0);
        }
        Ok(file)
    }

    /// Called with the file's slot locked, as it is while the file goes away.
    fn open_file(&self, day: &DayFile) -> Result<SealedFile, sealed::Error> {
        let newest = self.read_files().keys().next_back() == Some(&(day.start_s, day.kind));
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
        let file = match day.kind {
            Kind::Day => SealedFile::open_frozen(&day.path, cache_bytes, &self.backends),
            Kind::Hours => SealedFile::open(&day.path, cache_bytes, &self.backends),
        };
        file.map(|file| file.hiding(self.tombstones.clone()))
    }

    /// Closes a file, so that the next use opens it anew: after an error in it.
    fn close(&self, day: &DayFile) {
        lock(&self.open).retain(|file| !Arc::ptr_eq(&file.is_open, &day.is_open));
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
        drop(SealedFile::create(&new, OLD_CACHE_BYTES, &self.backends).map_err(store_error)?);
        std::fs::rename(&new, &file.path)
            .and_then(|()| sync_dir(&self.dir))
            .map_err(|err| io_error("rename", &new, err))?;
        Ok(self.insert(file))
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

    /// Appends the samples of `targets` (metric symbol, ref; ascending) in the
    /// closed range to `out`, one vector for each, sorted by time.
    ///
    /// # Errors
    /// When a file is damaged or the samples are more than `samples_max`.
    pub(super) fn read(
        &self,
        targets: &[(u32, u32)],
        start: i64,
        end: i64,
        samples_max: usize,
        out: &mut [Vec<Sample>],
    ) -> Result<(), sealed::Error> {
        quarantine::check(&self.aside, start, end)?;
        self.read_whole(targets, start, end, samples_max, out)
    }

    /// As [`Days::read`], of what can be read.
    fn read_whole(
        &self,
        targets: &[(u32, u32)],
        start: i64,
        end: i64,
        samples_max: usize,
        out: &mut [Vec<Sample>],
    ) -> Result<(), sealed::Error> {
        loop {
            let mut again = false;
            for day in self.all().iter().filter(|day| day.overlaps(start, end)) {
                let before: usize = out.iter().map(Vec::len).sum();
                let left = samples_max.saturating_sub(before);
                match self.file(day) {
                    Ok(file) => file.get().read(targets, start, end, left, out)?,
                    Err(_) if day.is_gone() => again = true,
                    Err(err) => return Err(err),
                }
            }
            if !again {
                return Ok(());
            }
            out.iter_mut().for_each(Vec::clear);
        }
    }

    /// The value of a series at one time.
    pub(super) fn lookup(
        &self,
        metric: u32,
        series: u32,
        t: i64,
    ) -> Result<Option<f64>, sealed::Error> {
        let mut found = [Vec::new()];
        self.read_whole(&[(metric, series)], t, t, usize::MAX, &mut found)?;
        Ok(found[0].first().map(|sample| sample.v))
    }

    /// Whether files lie aside that cannot be read.
    pub(super) fn has_damage(&self) -> bool {
        !self.aside.is_empty()
    }

    /// The series that have samples in the days that overlap the closed range.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn series(&self, start: i64, end: i64) -> Result<RoaringBitmap, sealed::Error> {
        loop {
            let mut all = RoaringBitmap::new();
            let mut again = false;
            for day in self.all().iter().filter(|day| day.overlaps(start, end)) {
                match self.series_of(day) {
                    Ok(series) => all |= &*series - &self.hidden_series(day),
                    Err(_) if day.is_gone() => again = true,
                    Err(err) => return Err(err),
                }
            }
            if !again {
                return Ok(all);
            }
        }
    }

    fn series_of(&self, day: &DayFile) -> Result<Arc<RoaringBitmap>, sealed::Error> {
        if let Some(series) = &*lock(&day.series) {
            return Ok(Arc::clone(series));
        }
        let ids = self.file(day)?.get().series_ids()?;
        let series: Arc<RoaringBitmap> = Arc::new(ids.into_iter().collect());
        *lock(&day.series) = Some(Arc::clone(&series));
        Ok(series)
    }

    /// Removes the files of days that ended before `oldest_ms`; says how many.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(super) fn expire(&self, oldest_ms: i64) -> Result<usize, Error> {
        let old = |day: &Arc<DayFile>| i64::from(day.start_s) * 1_000 + DAY_MS <= oldest_ms;
        let old: Vec<Arc<DayFile>> = self.all().into_iter().filter(old).collect();
        for day in &old {
            self.remove(day)?;
            tracing::info!(path = %day.path.display(), "day expired");
        }
        Ok(old.len())
    }

    /// Removes a file. Who reads it may finish.
    ///
    /// # Errors
    /// When it cannot be removed; it then stays.
    pub(super) fn remove(&self, day: &DayFile) -> Result<(), Error> {
        let key = (day.start_s, day.kind);
        // Nobody opens it meanwhile, which would make it anew.
        let slot = lock(&day.file);
        std::fs::remove_file(&day.path).map_err(|err| io_error("remove", &day.path, err))?;
        day.gone.store(true, Ordering::Release);
        self.write_files().remove(&key);
        drop(slot);
        self.close(day);
        sync_dir(&self.dir).map_err(|err| io_error("sync", &self.dir, err))
    }

    /// The sealed transactions of each window (in hours), and the newest sealed
    /// time. A window may have gaps: when a part could not be sealed, later ones of
    /// the same window were.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn coverage(&self) -> Result<Coverage, Error> {
        let mut coverage = Coverage {
            windows: HashMap::new(),
            max_t: i64::MIN,
        };
        for day in self.all() {
            for (window_s, seqs) in self.file(&day).map_err(store_error)?.get().covered() {
                let sealed = coverage.windows.entry(window_s / WINDOW_S).or_default();
                sealed.push(seqs.start().0..=seqs.end().0);
            }
            let newest = day.generations().iter().map(|g| g.max_time).max();
            coverage.max_t = coverage.max_t.max(newest.unwrap_or(i64::MIN));
        }
        Ok(coverage)
    }

    /// The earliest and the latest sealed time.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        let days = self.all();
        let generations = days.iter().flat_map(|day| day.generations().to_vec());
        generations
            .filter(|g| g.samples > 0)
            .map(|g| (g.min_time, g.max_time))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

/// What the sealed files hold, for replay.
#[derive(Debug)]
pub(super) struct Coverage {
    windows: HashMap<u32, Vec<RangeInclusive<u64>>>,
    /// No sealed sample is newer than this.
    pub(super) max_t: i64,
}

impl Coverage {
    /// Whether the samples that this transaction brought for this window are sealed.
    pub(super) fn has(&self, window: u32, seq: u64) -> bool {
        let sealed = self.windows.get(&window);
        sealed.is_some_and(|all| all.iter().any(|seqs| seqs.contains(&seq)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_between_sealed_parts_of_a_window_is_not_covered() {
        // Transactions 1 to 100 could not be sealed, 101 to 120 of the same hour were.
        let coverage = Coverage {
            windows: HashMap::from([(7, vec![101..=120])]),
            max_t: 0,
        };
        assert!(!coverage.has(7, 100), "replay has to take it in");
        assert!(coverage.has(7, 101));
        assert!(coverage.has(7, 120));
        assert!(!coverage.has(7, 121));
        assert!(!coverage.has(8, 110));
    }
}
