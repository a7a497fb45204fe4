//! The sealed files, one for each UTC day: which there are, which are open.
//!
//! At most 16 files are open at once. A file that somebody still reads when it
//! makes room is found again through the same handle, and one that is closing is
//! waited for, so that no file is ever open twice.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use roaring::RoaringBitmap;

use super::disk::{Backends, io_error, sync_dir};
use super::parts::WINDOW_MS;
use super::sealed::file::{day_of, file_name};
use super::sealed::{Generation, L0};
use super::{Error, sealed};
use crate::model::Sample;

/// Files that are open at once.
const OPEN_MAX: usize = 16;

/// The page cache of a file that is not the newest.
const OLD_CACHE_BYTES: usize = 2 << 20;

const DAY_S: u32 = 86_400;
const DAY_MS: i64 = 86_400_000;

/// The files.
pub(super) struct Days {
    dir: PathBuf,
    backends: Backends,
    cache_bytes: usize,
    /// By the second at which the day starts.
    days: RwLock<BTreeMap<u32, Arc<Day>>>,
    /// The open ones, the last used at the end.
    open: Mutex<Vec<Arc<OpenFile>>>,
}

/// An open file; says when it is closed.
struct OpenFile {
    file: Option<L0>,
    is_open: Arc<AtomicBool>,
}

impl OpenFile {
    fn get(&self) -> &L0 {
        self.file.as_ref().expect("it goes only with the handle")
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.file = None;
        self.is_open.store(false, Ordering::Release);
    }
}

/// One file and what is known of it without opening it.
pub(super) struct Day {
    start_s: u32,
    path: PathBuf,
    generations: RwLock<Arc<[Generation]>>,
    file: Mutex<Weak<OpenFile>>,
    is_open: Arc<AtomicBool>,
    /// The series that it holds; read when first asked for.
    series: Mutex<Option<Arc<RoaringBitmap>>>,
}

impl Day {
    /// The visible generations.
    pub(super) fn generations(&self) -> Arc<[Generation]> {
        let generations = self.generations.read();
        Arc::clone(&generations.unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, file: &L0) {
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
    /// Finds the files of a directory and reads which generations they have.
    ///
    /// # Errors
    /// When a file cannot be read, or a newer version wrote it.
    pub(super) fn open(dir: &Path, backends: Backends, cache_bytes: usize) -> Result<Days, Error> {
        let days = Days {
            dir: dir.to_owned(),
            backends,
            cache_bytes,
            days: RwLock::default(),
            open: Mutex::default(),
        };
        let entries = std::fs::read_dir(dir).map_err(|err| io_error("read", dir, err))?;
        for entry in entries {
            let entry = entry.map_err(|err| io_error("read", dir, err))?;
            if let Some(start_s) = entry.file_name().to_str().and_then(day_of) {
                let day = days.add(start_s);
                let file = days.file(&day).map_err(store_error)?;
                day.note(file.get());
            }
        }
        Ok(days)
    }

    fn add(&self, start_s: u32) -> Arc<Day> {
        let mut days = self.days.write().unwrap_or_else(PoisonError::into_inner);
        let day = days.entry(start_s).or_insert_with(|| {
            Arc::new(Day {
                start_s,
                path: self.dir.join(file_name(start_s)),
                generations: RwLock::new(Arc::new([])),
                file: Mutex::default(),
                is_open: Arc::default(),
                series: Mutex::default(),
            })
        });
        Arc::clone(day)
    }

    /// All days, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Day>> {
        let days = self.days.read().unwrap_or_else(PoisonError::into_inner);
        days.values().cloned().collect()
    }

    /// The open file of a day.
    fn file(&self, day: &Day) -> Result<Arc<OpenFile>, sealed::Error> {
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

    fn open_file(&self, day: &Day) -> Result<L0, sealed::Error> {
        let days = self.days.read().unwrap_or_else(PoisonError::into_inner);
        let newest = days.keys().next_back() == Some(&day.start_s);
        drop(days);
        let cache_bytes = if newest {
            self.cache_bytes
        } else {
            OLD_CACHE_BYTES.min(self.cache_bytes)
        };
        if self.has_expired(day) {
            // To open it would make it anew.
            return Err(sealed::Error::Damaged {
                path: day.path.clone(),
                what: "expired".to_owned(),
            });
        }
        L0::open(&day.path, cache_bytes, &self.backends)
    }

    /// Closes a file, so that the next use opens it anew: after an error in it.
    fn close(&self, day: &Day) {
        lock(&self.open).retain(|file| file.get().path() != day.path);
    }

    /// Makes the file of a window's day when it is missing. Under another name
    /// first: redb does not open a file whose first commit was cut short.
    fn day_for(&self, window_s: u32) -> Result<Arc<Day>, Error> {
        let start_s = day_of_window(window_s);
        let path = self.dir.join(file_name(start_s));
        if !path.exists() {
            let new = path.with_extension("new");
            if new.exists() {
                std::fs::remove_file(&new).map_err(|err| io_error("remove", &new, err))?;
            }
            drop(L0::open(&new, OLD_CACHE_BYTES, &self.backends).map_err(store_error)?);
            std::fs::rename(&new, &path)
                .and_then(|()| sync_dir(&self.dir))
                .map_err(|err| io_error("rename", &new, err))?;
        }
        Ok(self.add(start_s))
    }

    /// Writes a generation through `write`, and shows it.
    pub(super) fn write(
        &self,
        window_s: u32,
        write: impl FnOnce(&L0) -> Result<Generation, sealed::Error>,
    ) -> Result<Generation, Error> {
        let day = self.day_for(window_s)?;
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
        for day in self.all().iter().filter(|day| day.overlaps(start, end)) {
            let before: usize = out.iter().map(Vec::len).sum();
            let left = samples_max.saturating_sub(before);
            match self.file(day) {
                Ok(file) => file.get().read(targets, start, end, left, out)?,
                Err(_) if self.has_expired(day) => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Whether a day went away since it was listed.
    fn has_expired(&self, day: &Day) -> bool {
        let days = self.days.read().unwrap_or_else(PoisonError::into_inner);
        !days.contains_key(&day.start_s)
    }

    /// The value of a series at one time.
    pub(super) fn lookup(
        &self,
        metric: u32,
        series: u32,
        t: i64,
    ) -> Result<Option<f64>, sealed::Error> {
        let mut found = [Vec::new()];
        self.read(&[(metric, series)], t, t, usize::MAX, &mut found)?;
        Ok(found[0].first().map(|sample| sample.v))
    }

    /// The series that have samples in the days that overlap the closed range.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn series(&self, start: i64, end: i64) -> Result<RoaringBitmap, sealed::Error> {
        let mut all = RoaringBitmap::new();
        for day in self.all().iter().filter(|day| day.overlaps(start, end)) {
            match self.series_of(day) {
                Ok(series) => all |= &*series,
                Err(_) if self.has_expired(day) => {}
                Err(err) => return Err(err),
            }
        }
        Ok(all)
    }

    fn series_of(&self, day: &Day) -> Result<Arc<RoaringBitmap>, sealed::Error> {
        if let Some(series) = &*lock(&day.series) {
            return Ok(Arc::clone(series));
        }
        let ids = self.file(day)?.get().series_ids()?;
        let series: Arc<RoaringBitmap> = Arc::new(ids.into_iter().collect());
        *lock(&day.series) = Some(Arc::clone(&series));
        Ok(series)
    }

    /// Removes the days that ended before `oldest_ms`; says how many.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(super) fn expire(&self, oldest_ms: i64) -> Result<usize, Error> {
        let old = |day: &Arc<Day>| i64::from(day.start_s) * 1_000 + DAY_MS <= oldest_ms;
        let old: Vec<Arc<Day>> = self.all().into_iter().filter(old).collect();
        for day in &old {
            let days = || self.days.write().unwrap_or_else(PoisonError::into_inner);
            days().remove(&day.start_s);
            self.close(day);
            if let Err(err) = std::fs::remove_file(&day.path) {
                days().insert(day.start_s, Arc::clone(day));
                return Err(io_error("remove", &day.path, err));
            }
            tracing::info!(path = %day.path.display(), "day expired");
        }
        if !old.is_empty() {
            sync_dir(&self.dir).map_err(|err| io_error("sync", &self.dir, err))?;
        }
        Ok(old.len())
    }

    /// The sealed transactions of each window (in hours), and the newest sealed
    /// time. A window may have gaps: when a part could not be sealed, later ones of
    /// the same window were.
    pub(super) fn coverage(&self) -> Coverage {
        let mut coverage = Coverage {
            windows: HashMap::new(),
            max_t: i64::MIN,
        };
        for day in self.all() {
            for generation in &*day.generations() {
                let seqs = generation.commit_seqs.start().0..=generation.commit_seqs.end().0;
                let windows = &mut coverage.windows;
                let sealed = windows.entry(window_in_hours(generation)).or_default();
                sealed.push(seqs);
                coverage.max_t = coverage.max_t.max(generation.max_time);
            }
        }
        coverage
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

fn window_in_hours(generation: &Generation) -> u32 {
    let window_s = u32::try_from(WINDOW_MS / 1_000).expect("an hour");
    generation.window_start_s / window_s
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
