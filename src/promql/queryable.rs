//! Where the engine gets its samples from.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{HistogramSample, Labels, Matcher, Sample, Timestamp};

/// A series as it is stored: raw samples in time order, staleness markers included.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// The full label set with `__name__`.
    pub labels: Labels,
    /// Strictly ascending in time.
    pub samples: Vec<Sample>,
}

/// The native histograms of a series. A series may have floats beside them; where
/// both are there is a mistake in the data, and the floats count.
#[derive(Clone, PartialEq, Debug)]
pub struct HistogramSeries {
    /// The full label set with `__name__`.
    pub labels: Labels,
    /// Strictly ascending in time.
    pub samples: Vec<HistogramSample>,
}

/// Bounds and cancellation of one selection.
#[derive(Clone, Debug)]
pub struct SelectHints {
    /// Stop with [`QueryError::TooManySeries`] above this many series.
    pub series_max: usize,
    /// Stop with [`QueryError::TooManySamples`] above this many samples.
    pub samples_max: usize,
    /// Only the newest sample of each series is needed; older ones may come too.
    pub newest_only: bool,
    /// What [`Queryable::reduced`] said yes to: what stands for buckets comes in the
    /// place of samples. A sample alone stands for itself, and counts 1.
    pub reduce: Option<Reduce>,
    /// Only the values are looked at, and that they are in order: [`Queryable::for_each`]
    /// may give them any times of the range. Times may cost as much to read as values.
    pub any_times: bool,
    /// Stop with [`QueryError::NotAtHand`] rather than wait for a disk or read much: the
    /// caller has a thread that must not be held up.
    pub at_hand: bool,
    /// Where it is noted what cannot be read; the rest is given then. Without it that is
    /// an error.
    pub gaps: Option<Gaps>,
    /// Stop with [`QueryError::Cancelled`] soon after this turns true.
    pub cancel: Arc<AtomicBool>,
}

impl Default for SelectHints {
    fn default() -> SelectHints {
        SelectHints {
            series_max: 1_000_000,
            samples_max: 50_000_000,
            newest_only: false,
            reduce: None,
            any_times: false,
            at_hand: false,
            gaps: None,
            cancel: Arc::new(AtomicBool::new(false)),
        }
    }
}

/// What a selection could not read, in sentences for people that name the file.
#[derive(Clone, Debug, Default)]
pub struct Gaps(Arc<Mutex<BTreeSet<String>>>);

impl Gaps {
    /// Notes one. The same one again changes nothing.
    pub fn note(&self, what: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(what);
    }

    /// All of them.
    pub fn all(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().cloned().collect()
    }
}

/// What stands for the samples of a bucket of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// The last sample as it is, and the staleness marker behind it.
    Last,
    /// The smallest value, as `min_over_time` finds it.
    Min,
    /// The largest value.
    Max,
    /// The sum.
    Sum,
    /// How many there are.
    Count,
}

impl Fold {
    /// All of them.
    pub const ALL: [Fold; 5] = [Fold::Last, Fold::Min, Fold::Max, Fold::Sum, Fold::Count];
}

/// What a query makes of a selection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reduce {
    /// What may stand for the samples of a bucket.
    pub fold: Fold,
    /// Windows begin and end at multiples of this only, in ms.
    pub grid_ms: i64,
}

/// What will be read in the place of samples.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reduced {
    /// Where samples are gone, so that the answer is not what it was.
    pub coarse: Vec<Coarse>,
}

/// Up to a time, buckets of one length stand for samples that are gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coarse {
    /// The time in ms.
    pub until_ms: i64,
    /// The length in ms.
    pub bucket_ms: i64,
}

impl Reduced {
    /// Notes one more; of each length the latest stays.
    pub fn add(&mut self, one: Coarse) {
        let mut known = self.coarse.iter_mut();
        match known.find(|known| known.bucket_ms == one.bucket_ms) {
            Some(known) => known.until_ms = known.until_ms.max(one.until_ms),
            None => self.coarse.push(one),
        }
    }

    /// The longest of these gaps; 0 when no samples are gone.
    pub fn longest_ms(&self) -> i64 {
        let lengths = self.coarse.iter().map(|one| one.bucket_ms);
        lengths.max().unwrap_or(0)
    }

    /// How far apart two samples that belong together may be, besides their interval,
    /// when the earlier one is of this time.
    #[inline]
    pub fn gap_ms(&self, t: i64) -> i64 {
        let reaching = self.coarse.iter().filter(|one| t <= one.until_ms);
        reaching.map(|one| one.bucket_ms).max().unwrap_or(0)
    }
}

/// Why a selection gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The limit of series.
    #[error("query selects more than {0} series")]
    TooManySeries(usize),
    /// The limit of samples, in Prometheus' words.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// It would take longer than the caller can wait on its thread.
    #[error("more is selected than what is at hand")]
    NotAtHand,
    /// The caller gave up or the time ran out.
    #[error("query was canceled")]
    Cancelled,
    /// The store could not read.
    #[error("cannot read samples")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is done with each series of a selection. Another thread may do it.
pub type Take<'a> = dyn FnMut(&Labels, &[Sample]) -> Result<(), QueryError> + Send + 'a;

/// Something that holds series.
pub trait Queryable: Send + Sync {
    /// All series that fulfil every matcher, with their samples in the CLOSED
    /// range `start..=end`, sorted by labels; series without a sample in the
    /// range are left out. The engine applies its own left-open windows.
    ///
    /// # Errors
    /// When a limit of `hints` is passed, on cancellation, and on read errors.
    fn select(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<Series>, QueryError>;

    /// The native histograms of the same selection, in any order. They lie apart
    /// from the floats so that a selection without them costs one call. The end of a
    /// series is a staleness marker among its floats, whatever its samples are.
    ///
    /// # Errors
    /// As [`Queryable::select`].
    fn histograms(
        &self,
        _start: Timestamp,
        _end: Timestamp,
        _matchers: &[Matcher],
        _hints: &SelectHints,
    ) -> Result<Vec<HistogramSeries>, QueryError> {
        Ok(Vec::new())
    }

    /// Whether something else would be read for this than samples, if
    /// [`SelectHints::reduce`] asks for it: what gives the same answer, or what is
    /// left where samples are gone. `None`: samples.
    fn reduced(
        &self,
        _start: Timestamp,
        _end: Timestamp,
        _matchers: &[Matcher],
        _reduce: Reduce,
    ) -> Option<Reduced> {
        None
    }

    /// Where the data stands in the order of its changes. `None`: that is not
    /// known, and no answer is kept.
    fn version(&self) -> Option<u64> {
        None
    }

    /// No sample before this time came or went after `version`.
    fn changed_since(&self, _version: u64) -> Timestamp {
        Timestamp::MIN
    }

    /// Hands the same series one by one to any of `takers`, in any order. The
    /// engine reads through this, so a store that decodes series by series never
    /// holds the samples of more than a few. Every taker stays on one thread: as
    /// many threads as there are takers may read. At least one taker is needed.
    ///
    /// # Errors
    /// As [`Queryable::select`], and the first error of a taker, which ends the reading.
    fn for_each(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
        takers: &mut [&mut Take<'_>],
    ) -> Result<(), QueryError> {
        let take = takers.first_mut().expect("BUG: nobody takes the series");
        for series in self.select(start, end, matchers, hints)? {
            take(&series.labels, &series.samples)?;
        }
        Ok(())
    }
}
