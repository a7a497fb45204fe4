//! Reads: samples of a selector, label sets, names and values.
//!
//! A reader looks into the head first and into the sealed files after that: a
//! seal shows its file before it takes the samples out of the head, so that they
//! are in one of the two at any time, and a sample seen twice is one sample.

mod lists;

pub(super) use lists::{label_names, label_values, series};

use std::sync::atomic::{AtomicUsize, Ordering};

use super::days::Days;
use super::days::reduce::count_each;
use super::native;
use super::sealed::{self, Room};
use super::shared::Shared;
use crate::model::{Labels, MatchOp, Matcher, Sample, Timestamp};
use crate::promql::queryable::{Fold, Reduce, Reduced, Take};
use crate::promql::{HistogramSeries, QueryError, SelectHints, Series};

/// At most about so many samples are decoded at once: 1 MiB, half of what a core
/// keeps near, as they are looked at several times.
const CHUNK_SAMPLES_MAX: usize = 64 << 10;
/// A thread more is not worth its start for less than about so many samples.
const CHUNK_SAMPLES_MIN: usize = 16 << 10;
/// Guessed distance of two samples, to size the first chunks by.
const INTERVAL_MS: i64 = 10_000;
/// Up to about so many samples, the first ones are looked at before there are threads.
const LOOK_FIRST_SAMPLES: usize = 256 << 10;
/// What is probably more than so many samples is not read at hand.
const AT_HAND_SAMPLES_MAX: usize = 64 << 10;
/// Series of a chunk: neighbours share pages, so a few at least.
const CHUNK_SERIES: std::ops::RangeInclusive<usize> = 4..=512;
/// So many chunks for each thread, so that none is idle at the end for long.
const CHUNKS_A_THREAD: usize = 4;

/// See [`crate::promql::Queryable::select`].
pub(super) fn select(
    shared: &Shared,
    start: Timestamp,
    end: Timestamp,
    matchers: &[Matcher],
    hints: &SelectHints,
) -> Result<Vec<Series>, QueryError> {
    let hints = &SelectHints {
        any_times: false,
        ..hints.clone()
    };
    let mut found: Vec<Series> = Vec::new();
    let mut left = hints.samples_max;
    let mut take = |labels: &Labels, samples: &[Sample]| {
        left = left
            .checked_sub(samples.len())
            .ok_or(QueryError::TooManySamples)?;
        found.push(Series {
            labels: labels.clone(),
            samples: samples.to_vec(),
        });
        Ok(())
    };
    for_each(shared, (start, end), matchers, hints, &mut [&mut take])?;
    found.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
    Ok(found)
}

/// Hands over the series one by one, in no order. A chunk of neighbours is decoded
/// at a time by each thread, so memory is bounded whatever is selected.
pub(super) fn for_each(
    shared: &Shared,
    range: (Timestamp, Timestamp),
    matchers: &[Matcher],
    hints: &SelectHints,
    takers: &mut [&mut Take<'_>],
) -> Result<(), QueryError> {
    if hints.at_hand && (hints.reduce.is_some() || !is_quick(matchers)) {
        return Err(QueryError::NotAtHand);
    }
    let targets = targets(shared, matchers);
    if targets.is_empty() {
        // What is asked for may have been in a file that cannot be read.
        let range = (range.0.as_ms(), range.1.as_ms());
        let told = shared.days.tell_aside(range, hints.gaps.as_ref());
        return told.map_err(|err| query_error(shared, err));
    }
    let guess = (range.1.ms_since(range.0).max(0) / INTERVAL_MS).saturating_add(1);
    let guess = usize::try_from(guess).unwrap_or(usize::MAX);
    if hints.at_hand && targets.len().saturating_mul(guess) > AT_HAND_SAMPLES_MAX {
        return Err(QueryError::NotAtHand);
    }
    let size = chunk_series(guess, targets.len(), takers.len());
    let threads = targets.len().div_ceil(size).clamp(1, takers.len());
    let read = Reading {
        shared,
        range,
        hints,
        targets: &targets,
        threads,
        size: AtomicUsize::new(size),
        next: AtomicUsize::new(0),
        count: AtomicUsize::new(0),
    };
    let mut chunk = Chunk::default();
    if threads > 1 && targets.len().saturating_mul(guess) <= LOOK_FIRST_SAMPLES {
        // The samples may be far fewer than thought: the first ones show.
        let first: &mut Take<'_> = takers[0];
        if !read.next_chunk(&mut chunk, first)? {
            return Ok(());
        }
        let each = chunk.len().div_ceil(size);
        if each.saturating_mul(targets.len() - size) < CHUNK_SAMPLES_MIN {
            while read.next_chunk(&mut chunk, first)? {}
            return Ok(());
        }
    }
    let (first, others) = takers[..threads]
        .split_first_mut()
        .expect("BUG: nobody takes the series");
    std::thread::scope(|scope| {
        let read = &read;
        let others: Vec<_> = others
            .iter_mut()
            .map(|take| scope.spawn(move || read.chunks(&mut Chunk::default(), &mut **take)))
            .collect();
        let mut done = read.chunks(&mut chunk, &mut **first);
        for other in others {
            let other = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done = done.and(other);
        }
        done
    })
}

/// Whether the series are found by a look at a few lists, not at all values of a label.
fn is_quick(matchers: &[Matcher]) -> bool {
    let is_text = |m: &Matcher| matches!(m.op, MatchOp::Equal | MatchOp::NotEqual);
    let names_some = |m: &Matcher| m.op == MatchOp::Equal && !m.value.is_empty();
    matchers.iter().all(is_text) && matchers.iter().any(names_some)
}

/// See [`crate::promql::Queryable::reduced`].
pub(super) fn reduced(
    shared: &Shared,
    (start, end): (Timestamp, Timestamp),
    matchers: &[Matcher],
    reduce: Reduce,
) -> Option<Reduced> {
    let reduced = shared.days.reduced((start.as_ms(), end.as_ms()), reduce)?;
    // Native histograms have no roll-ups: where some may stand beside the numbers, a
    // function has to see each of those.
    let index = shared.index();
    let is_mixed = reduce.fold != Fold::Last
        && !index.native_parts().is_empty()
        && !index.matching(&native::part_matchers(matchers)).is_empty();
    if is_mixed {
        return None;
    }
    shared.metrics.store.rollup_reads.inc();
    Some(reduced)
}

/// See [`crate::promql::Queryable::histograms`].
pub(super) fn histograms(
    shared: &Shared,
    range: (Timestamp, Timestamp),
    matchers: &[Matcher],
    hints: &SelectHints,
) -> Result<Vec<HistogramSeries>, QueryError> {
    if shared.index().native_parts().is_empty() || native::asks_for_parts(matchers) {
        return Ok(Vec::new());
    }
    let mut assembly = native::Assembly::default();
    let mut left = hints.samples_max;
    let parts = native::part_matchers(matchers);
    // A histogram needs all its parts of one time, so the newest of each is not enough.
    let hints = SelectHints {
        newest_only: false,
        reduce: None,
        any_times: false,
        ..hints.clone()
    };
    let mut take = |labels: &Labels, samples: &[Sample]| {
        left = left
            .checked_sub(samples.len())
            .ok_or(QueryError::TooManySamples)?;
        assembly.add(labels, samples.to_vec());
        Ok(())
    };
    for_each(shared, range, &parts, &hints, &mut [&mut take])?;
    Ok(assembly.finish())
}

/// How many series make a chunk when each has about so many samples.
fn chunk_series(each: usize, series: usize, threads: usize) -> usize {
    let share = series.saturating_mul(each) / (threads * CHUNKS_A_THREAD).max(1);
    let samples = share.clamp(CHUNK_SAMPLES_MIN, CHUNK_SAMPLES_MAX);
    (samples / each.max(1)).clamp(*CHUNK_SERIES.start(), *CHUNK_SERIES.end())
}

/// How many series the next chunk has, when so many of the kind of the last one fit.
/// Those with few samples say little about the ones behind them: at most twice as many.
fn next_size(last: usize, fits: usize) -> usize {
    fits.min(2 * last)
}

/// One selection that is read by several threads.
struct Reading<'a> {
    shared: &'a Shared,
    range: (Timestamp, Timestamp),
    hints: &'a SelectHints,
    targets: &'a [Target],
    threads: usize,
    /// The series of the next chunk; found out by those that were read.
    size: AtomicUsize,
    /// The next series that nobody has.
    next: AtomicUsize,
    /// The series so far.
    count: AtomicUsize,
}

impl Reading<'_> {
    /// Reads chunks until there are no more. After an error nobody begins another.
    fn chunks(&self, chunk: &mut Chunk, take: &mut Take<'_>) -> Result<(), QueryError> {
        while self.next_chunk(chunk, take)? {}
        Ok(())
    }

    /// Reads one chunk; says no when there are no more.
    fn next_chunk(&self, chunk: &mut Chunk, take: &mut Take<'_>) -> Result<bool, QueryError> {
        let size = self.size.load(Ordering::Relaxed);
        let at = self.next.fetch_add(size, Ordering::Relaxed);
        let rest = self.targets.get(at..).unwrap_or_default();
        let targets = &rest[..size.min(rest.len())];
        if targets.is_empty() {
            return Ok(false);
        }
        if let Err(err) = self.one(targets, chunk, take) {
            self.next.store(self.targets.len(), Ordering::Relaxed);
            return Err(err);
        }
        let each = chunk.len().div_ceil(targets.len());
        let fits = chunk_series(each, self.targets.len(), self.threads);
        self.size.store(next_size(size, fits), Ordering::Relaxed);
        Ok(true)
    }

    fn one(
        &self,
        targets: &[Target],
        chunk: &mut Chunk,
        take: &mut Take<'_>,
    ) -> Result<(), QueryError> {
        if self.hints.cancel.load(Ordering::Relaxed) {
            return Err(QueryError::Cancelled);
        }
        chunk.read(self.shared, targets, self.range, self.hints)?;
        let found = chunk.samples.iter().filter(|s| !s.is_empty()).count();
        let count = self.count.fetch_add(found, Ordering::Relaxed) + found;
        if count > self.hints.series_max {
            return Err(QueryError::TooManySeries(self.hints.series_max));
        }
        let mut pairs = chunk.labels.iter().zip(&chunk.samples);
        pairs.try_for_each(|(labels, samples)| match labels {
            Some(labels) => take(labels, samples),
            None => Ok(()),
        })
    }
}

/// A series with the symbol of its metric's name in front, as sealed pages are
/// sorted: chunks of neighbours read each page once or twice, not once a series.
type Target = (u32, u32);

fn targets(shared: &Shared, matchers: &[Matcher]) -> Vec<Target> {
    let index = shared.index();
    let mut ids = index.matching(matchers);
    if !native::asks_for_parts(matchers) {
        ids -= index.native_parts();
    }
    let mut targets = index.metric_symbols(&ids);
    drop(index);
    targets.sort_unstable();
    targets
}

/// The series that are read at once. Its buffers serve one chunk after the other.
#[derive(Default)]
struct Chunk {
    /// Those that have samples and are still known.
    labels: Vec<Option<Labels>>,
    samples: Vec<Vec<Sample>>,
    recent: Vec<Vec<Sample>>,
}

impl Chunk {
    /// How many samples it holds.
    fn len(&self) -> usize {
        self.samples.iter().map(Vec::len).sum()
    }

    fn read(
        &mut self,
        shared: &Shared,
        targets: &[Target],
        (start, end): (Timestamp, Timestamp),
        hints: &SelectHints,
    ) -> Result<(), QueryError> {
        let range = (start.as_ms(), end.as_ms());
        loop {
            let made = shared.days.rolls_made();
            for buffers in [&mut self.samples, &mut self.recent] {
                buffers.resize_with(targets.len(), Vec::new);
                buffers.iter_mut().for_each(Vec::clear);
            }
            if !(hints.newest_only && self.read_newest(shared, targets, range)) {
                self.read_all(shared, targets, range, hints)?;
            }
            // What was in memory may be in roll-ups that were made since, and would
            // count twice.
            if hints.reduce.is_none() || made == shared.days.rolls_made() {
                break;
            }
        }
        let index = shared.index();
        self.labels.clear();
        let pairs = targets.iter().zip(&self.samples);
        let labels = pairs.map(|((_, id), samples)| {
            let some = !samples.is_empty();
            some.then(|| index.labels(*id)).flatten()
        });
        self.labels.extend(labels);
        Ok(())
    }

    fn read_all(
        &mut self,
        shared: &Shared,
        targets: &[Target],
        (start, end): (i64, i64),
        hints: &SelectHints,
    ) -> Result<(), QueryError> {
        let mut held = 0;
        for ((_, id), recent) in targets.iter().zip(&mut self.recent) {
            shared.head.read(*id, start, end, recent);
            held += recent.len();
        }
        let left = hints
            .samples_max
            .checked_sub(held)
            .ok_or(QueryError::TooManySamples)?;
        let (days, gaps) = (&shared.days, hints.gaps.as_ref());
        match hints.reduce {
            None => self.read_sealed(days, targets, (start, end), left, hints),
            Some(reduce) => {
                if reduce.fold == Fold::Count {
                    self.recent.iter_mut().for_each(|s| count_each(s));
                }
                let range = (start, end);
                days.read_reduced(targets, range, reduce, left, gaps, &mut self.samples)
            }
        }
        .map(|damaged| shared.metrics.store.checksum_failures.inc_by(damaged))
        .map_err(|err| query_error(shared, err))?;
        for (samples, recent) in self.samples.iter_mut().zip(&self.recent) {
            merge(samples, recent);
        }
        Ok(())
    }

    fn read_sealed(
        &mut self,
        days: &Days,
        targets: &[Target],
        range: (i64, i64),
        samples_max: usize,
        hints: &SelectHints,
    ) -> Result<u64, sealed::Error> {
        let gaps = hints.gaps.as_ref();
        let room = Room {
            samples_max,
            newest_only: hints.newest_only,
            at_hand: hints.at_hand,
            any_times: &[],
        };
        if hints.any_times {
            let alone = days.spans_alone(range);
            let with_any = Room {
                any_times: &alone,
                ..room
            };
            let damaged = days.read(targets, range, with_any, gaps, &mut self.samples)?;
            // What came late may be in memory and in a file: only its times tell. And
            // what was sealed meanwhile may reach into the others.
            let last = alone.last().map_or(i64::MIN, |span| span.1);
            let mut recent = self.recent.iter().filter_map(|recent| recent.first());
            if recent.all(|first| first.t.as_ms() > last) && days.spans_alone(range) == alone {
                return Ok(damaged);
            }
            self.samples.iter_mut().for_each(Vec::clear);
        }
        days.read(targets, range, room, gaps, &mut self.samples)
    }

    /// Takes the newest samples, if those of all series are at hand in memory.
    fn read_newest(
        &mut self,
        shared: &Shared,
        targets: &[Target],
        (start, end): (i64, i64),
    ) -> bool {
        let mut pairs = targets.iter().zip(&mut self.samples);
        let all = pairs.all(|((_, id), samples)| {
            let newest = shared.head.with(*id, |s, _| s.newest(start, end)).flatten();
            samples.extend(newest);
            newest.is_some()
        });
        if !all {
            self.samples.iter_mut().for_each(Vec::clear);
        }
        all
    }
}

fn query_error(shared: &Shared, err: sealed::Error) -> QueryError {
    match err {
        sealed::Error::TooManySamples { .. } => QueryError::TooManySamples,
        sealed::Error::NotAtHand => QueryError::NotAtHand,
        err => {
            if matches!(err, sealed::Error::Damaged { .. }) {
                shared.metrics.store.checksum_failures.inc();
            }
            QueryError::Store(Box::new(err))
        }
    }
}

/// Adds the samples in memory to the sealed ones, in the order of time; of two
/// samples at one time the sealed one stays.
fn merge(sealed: &mut Vec<Sample>, recent: &[Sample]) {
    let (Some(first), last) = (recent.first(), sealed.last()) else {
        return;
    };
    let apart = last.is_none_or(|last| last.t < first.t);
    sealed.extend_from_slice(recent);
    if !apart {
        // A stable sort, and the sealed ones come first.
        sealed.sort_by_key(|sample| sample.t);
        sealed.dedup_by_key(|sample| sample.t);
    }
}

#[cfg(test)]
mod tests;
