//! One redb file of sealed pages.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;

use crate::model::{Labels, Sample};
use crate::store::CommitSeq;

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
    #[error("{path} has format {found}, expected {known}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What the file says.
        found: String,
        /// What this version reads.
        known: u32,
    },
    /// A checksum is wrong, or something that was written is not there.
    #[error("{path} is damaged at window {window_start_s}, generation {generation}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The window.
        window_start_s: u32,
        /// The generation.
        generation: u16,
        /// What is wrong.
        what: String,
    },
    /// The read would decode more samples than it may.
    #[error("more than {limit} samples")]
    TooManySamples {
        /// The limit.
        limit: usize,
    },
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
    /// Strictly ascending by time, at least one.
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
}

/// An open file. Reads and one write may run at the same time.
pub struct L0 {}

#[expect(clippy::todo, unused_variables, reason = "skeleton")]
impl L0 {
    /// Opens a file for reading and writing; makes it when it is missing.
    /// `cache_bytes` also bounds the size of a commit (a quarter of it).
    pub fn open(path: &Path, cache_bytes: usize, backends: &Backends) -> Result<L0, Error> {
        todo!()
    }

    /// Opens a file that is not written any more, beside other readers.
    pub fn open_read_only(path: &Path, cache_bytes: usize) -> Result<L0, Error> {
        todo!()
    }

    /// Writes one more generation of a window and makes it visible at the end.
    /// `series` must ascend by (`metric_sym`, `ref_id`); `labels_of` is asked for
    /// series that are new to this file. What an earlier, unfinished call left is
    /// removed first. After an error nothing of it is visible.
    pub fn write_generation(
        &self,
        window_start_s: u32,
        commit_seqs: RangeInclusive<CommitSeq>,
        series: impl IntoIterator<Item = SealedSeries>,
        labels_of: impl FnMut(u32) -> Labels,
    ) -> Result<Generation, Error> {
        todo!()
    }

    /// The visible generations, by window and number.
    pub fn generations(&self) -> Arc<[Generation]> {
        todo!()
    }

    /// Removes what an unfinished seal left; says whether there was something.
    pub fn drop_incomplete(&self) -> Result<bool, Error> {
        todo!()
    }

    /// Appends the samples of `targets` (metric symbol, ref; ascending, unique) in
    /// `start..=end` (ms) to the vectors of `out`, one for each target, sorted by
    /// time. Of two samples at one time the one of the earlier generation is kept.
    ///
    /// # Errors
    /// [`Error::Damaged`] rather than less data; [`Error::TooManySamples`] before
    /// more than `samples_max` are decoded.
    pub fn read(
        &self,
        targets: &[(u32, u32)],
        start: i64,
        end: i64,
        samples_max: usize,
        out: &mut [Vec<Sample>],
    ) -> Result<(), Error> {
        todo!()
    }

    /// Every series that has a row in this file: ref, metric symbol, labels.
    pub fn series(&self) -> Result<Vec<(u32, u32, Labels)>, Error> {
        todo!()
    }

    /// Walks every page and decodes it. Cost: reads the whole file.
    pub fn verify(&self) -> Result<(), Error> {
        todo!()
    }

    /// Bytes on disk, as allocated.
    pub fn disk_bytes(&self) -> Result<u64, Error> {
        todo!()
    }
}

/// `l0-YYYYMMDD.redb` for the day that holds this second.
#[expect(clippy::todo, unused_variables, reason = "skeleton")]
pub fn file_name(second: u32) -> String {
    todo!()
}

/// The first second of the day that a file's name says.
#[expect(clippy::todo, unused_variables, reason = "skeleton")]
pub fn day_of(file_name: &str) -> Option<u32> {
    todo!()
}
