//! One redb file of sealed pages of one UTC day, of either [`super::Kind`].
//!
//! In a file of hours a window is sealed once when it ends, and again for every lot of
//! late samples: each time is a *generation*, and a read merges them. Writers and
//! readers do not wait for each other; a read sees the generations that were complete
//! when it began. A day's file has one generation, whose window is the whole day, and is
//! not changed any more.
//!
//! The last commit of a generation carries redb's allocator state (quick repair).
//! So after a crash the file opens without the walk through all of it, as long as
//! the crash was not in the middle of a seal; measured figures stand at the test
//! `a_crash_between_seals_needs_no_walk_through_the_file`.
//!
//! Format changes: a file with a higher number in `stat/format` is refused by name.

mod about;
mod error;
mod open;

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{ReadTransaction, ReadableDatabase as _, StorageBackend, WriteTransaction};

pub use self::error::Error;
pub(super) use self::error::Trouble;
use self::error::locate;
#[cfg(test)]
pub(in crate::store) use self::open::write_format;
use super::frozen::Held;
use super::kept::Pages;
use super::seal::{Layout, Seal};
use super::tables::{self, PAGE, STAT, TIMES, WindowRow};
use crate::model::{Labels, Sample};
use crate::store::CommitSeq;
use crate::store::deleted::Tombstones;

/// Opens the bytes of a file: the place to count writes and to inject faults.
/// The file is made when it is missing.
pub type Backends = Arc<dyn Fn(&Path) -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

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

impl SealedFile {
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

    /// Calls `with` while nothing is written into the file: its bytes are then those
    /// of its last commit.
    pub fn while_still<R>(&self, with: impl FnOnce() -> R) -> R {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        with()
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

/// From the first to the last of all transactions.
pub(super) fn covered_span(all: &[Covered]) -> RangeInclusive<CommitSeq> {
    let first = all.iter().map(|(_, seqs)| *seqs.start()).min();
    let last = all.iter().map(|(_, seqs)| *seqs.end()).max();
    first.unwrap_or_default()..=last.unwrap_or_default()
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

#[cfg(test)]
mod tests;
