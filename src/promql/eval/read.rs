//! Reading of series, on all threads that a query may use.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::annotations::Annotations;
use super::super::ast::Selector;
use super::super::grid::Grid;
use super::super::queryable::{QueryError, Reduce, SelectHints, Take};
use super::super::window::{Plan, Windows};
use super::{Evaluator, Result};
use crate::model::{HistogramSample, Labels, Matcher, Sample, Timestamp};

/// What of the store a node reads.
pub(super) struct Wanted<'a> {
    pub(super) matchers: &'a [Matcher],
    /// The closed range of times.
    pub(super) range: (i64, i64),
    /// Whether the newest sample of each series is enough.
    pub(super) newest_only: bool,
    /// What stands for samples, if something does.
    pub(super) reduce: Option<Reduce>,
    /// Whether only the values of samples are looked at.
    pub(super) any_times: bool,
}

impl<'a> Wanted<'a> {
    /// All samples that the windows can see.
    pub(super) fn all(selector: &'a Selector, windows: &Windows) -> Wanted<'a> {
        Wanted {
            matchers: &selector.matchers,
            range: windows.reach(),
            newest_only: false,
            reduce: None,
            any_times: false,
        }
    }
}

/// Takes a series, numbers and histograms, and says how many values are held then.
pub(super) type Visit<'a> = dyn FnMut(&Labels, &[Sample], &[HistogramSample]) -> usize + Send + 'a;

/// Makes a row of a series.
pub(super) type Fill<'a> = dyn Fn(&mut Part, &Labels, &[Sample], &[HistogramSample]) + Sync + 'a;

/// What one thread makes of its series.
#[derive(Default)]
pub(super) struct Part {
    pub(super) grid: Grid,
    pub(super) notes: Annotations,
    /// For anything, between two series.
    pub(super) buffer: Vec<Sample>,
    /// The windows of the series before.
    pub(super) plan: Plan,
}

/// The histograms of the series that have any.
type Natives = BTreeMap<Labels, Vec<HistogramSample>>;

impl Evaluator<'_> {
    /// Reads series and makes a row of each by `fill`, on all threads that the query
    /// may use. The rows are in label order.
    pub(super) fn rows(&mut self, wanted: &Wanted<'_>, fill: &Fill<'_>) -> Result<Grid> {
        let held = AtomicUsize::new(0);
        let mut parts = Vec::new();
        parts.resize_with(self.options.threads.max(1), Part::default);
        let visit = |part: &mut Part, labels: &_, samples: &_, native: &_| {
            let before = part.grid.size();
            fill(part, labels, samples, native);
            let added = part.grid.size() - before;
            held.fetch_add(added, Ordering::Relaxed) + added
        };
        let mut takers: Vec<_> = parts
            .iter_mut()
            .map(|part| {
                |labels: &Labels, samples: &[Sample], native: &[HistogramSample]| {
                    visit(part, labels, samples, native)
                }
            })
            .collect();
        let mut takers: Vec<&mut Visit<'_>> = takers.iter_mut().map(|take| take as _).collect();
        self.visit(wanted, &mut takers)?;
        let mut grids = Vec::with_capacity(parts.len());
        for part in parts {
            self.annotations.append(part.notes);
            grids.push(part.grid);
        }
        let mut grid = Grid::join(grids);
        grid.sort_by_labels();
        Ok(grid)
    }

    /// Reads series and hands each to one of `takers`, which says how many values are
    /// held then by all of them.
    pub(super) fn visit(
        &mut self,
        wanted: &Wanted<'_>,
        takers: &mut [&mut Visit<'_>],
    ) -> Result<()> {
        let mut hints = SelectHints {
            series_max: self.options.series_max,
            samples_max: self.options.samples_max,
            newest_only: wanted.newest_only,
            reduce: wanted.reduce,
            any_times: false,
            at_hand: self.options.at_hand,
            gaps: Some(self.gaps.clone()),
            cancel: self.cancel.clone(),
        };
        let room = self.options.samples_max.saturating_sub(self.held);
        let natives = self.natives(wanted, &hints)?;
        let any_native = !natives.is_empty();
        // Numbers and histograms of a series go together by their times.
        hints.any_times = wanted.any_times && !any_native;
        let natives = Mutex::new(natives);
        let native_of = |labels: &Labels| {
            let mut natives = natives.lock().unwrap_or_else(PoisonError::into_inner);
            natives.remove(labels).unwrap_or_default()
        };
        let read = AtomicU64::new(0);
        let samples_left = match self.options.at_hand {
            true => (self.options.samples_max as u64).saturating_sub(self.samples_read),
            false => u64::MAX,
        };
        let cancel = &**self.cancel;
        let one = |take: &mut Visit<'_>, labels: &Labels, samples: &[Sample]| {
            if cancel.load(Ordering::Relaxed) {
                return Err(QueryError::Cancelled);
            }
            let count = samples.len() as u64;
            if read.fetch_add(count, Ordering::Relaxed) + count > samples_left {
                return Err(QueryError::NotAtHand);
            }
            let native = if any_native {
                native_of(labels)
            } else {
                Vec::new()
            };
            if take(labels, samples, &native) > room {
                return Err(QueryError::TooManySamples);
            }
            Ok(())
        };
        let mut readers: Vec<_> = takers
            .iter_mut()
            .map(|take| |labels: &Labels, samples: &[Sample]| one(&mut **take, labels, samples))
            .collect();
        let mut readers: Vec<&mut Take<'_>> = readers.iter_mut().map(|take| take as _).collect();
        let (from, to) = wanted.times();
        self.data
            .for_each(from, to, wanted.matchers, &hints, &mut readers)?;
        for (labels, native) in natives.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if takers[0](&labels, &[], &native) > room {
                return Err(QueryError::TooManySamples.into());
            }
        }
        self.samples_read += read.into_inner();
        Ok(())
    }

    /// The histograms of a selection.
    fn natives(&mut self, wanted: &Wanted<'_>, hints: &SelectHints) -> Result<Natives> {
        let (from, to) = wanted.times();
        let all = self.data.histograms(from, to, wanted.matchers, hints)?;
        self.samples_read += all.iter().map(|s| s.samples.len() as u64).sum::<u64>();
        let mut natives = Natives::new();
        let all = all.into_iter().filter(|s| !s.samples.is_empty());
        natives.extend(all.map(|s| (s.labels, s.samples)));
        Ok(natives)
    }
}

impl Wanted<'_> {
    fn times(&self) -> (Timestamp, Timestamp) {
        let (from, to) = self.range;
        (Timestamp::from_ms(from), Timestamp::from_ms(to))
    }
}
