//! Reads: samples of a selector, label sets, names and values.
//!
//! A reader looks into the head first and into the sealed files after that: a
//! seal shows its file before it takes the samples out of the head, so that they
//! are in one of the two at any time, and a sample seen twice is one sample.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use roaring::RoaringBitmap;

use super::native;
use super::sealed;
use super::shared::Shared;
use crate::model::{Labels, Matcher, Sample, Timestamp};
use crate::promql::{HistogramSeries, QueryError, SelectHints, Series};

/// About so many samples are decoded at once: 4 MiB.
const CHUNK_SAMPLES: i64 = 256 << 10;
/// Guessed distance of two samples, to size the chunks by.
const INTERVAL_MS: i64 = 10_000;
/// Series of a chunk: neighbours share pages, so a few at least.
const CHUNK_SERIES: std::ops::RangeInclusive<i64> = 4..=512;
/// With more chunks than this, threads read ahead of the caller.
const ALONE_CHUNKS_MAX: usize = 1;
/// Threads that read for one query.
const READERS_MAX: usize = 4;

/// See [`crate::promql::Queryable::select`].
pub(super) fn select(
    shared: &Shared,
    start: Timestamp,
    end: Timestamp,
    matchers: &[Matcher],
    hints: &SelectHints,
) -> Result<Vec<Series>, QueryError> {
    let mut found: Vec<Series> = Vec::new();
    let mut left = hints.samples_max;
    for_each(shared, (start, end), matchers, hints, |series| {
        left = left
            .checked_sub(series.samples.len())
            .ok_or(QueryError::TooManySamples)?;
        found.push(series);
        Ok(())
    })?;
    found.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(found)
}

/// Hands over the series one by one, in no order. A few chunks of neighbours are
/// decoded at a time, on other cores while the caller works, so memory is bounded
/// whatever is selected.
pub(super) fn for_each(
    shared: &Shared,
    range: (Timestamp, Timestamp),
    matchers: &[Matcher],
    hints: &SelectHints,
    mut take: impl FnMut(Series) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let targets = targets(shared, matchers);
    let chunks: Vec<&[Target]> = targets.chunks(chunk_series(range)).collect();
    let mut count = 0;
    let mut take_all = |found: Vec<Series>| {
        count += found.len();
        if count > hints.series_max {
            return Err(QueryError::TooManySeries(hints.series_max));
        }
        found.into_iter().try_for_each(&mut take)
    };
    let read = |chunk: &[Target]| {
        if hints.cancel.load(Ordering::Relaxed) {
            return Err(QueryError::Cancelled);
        }
        read_chunk(shared, chunk, range, hints.samples_max)
    };
    if chunks.len() <= ALONE_CHUNKS_MAX {
        return chunks
            .into_iter()
            .try_for_each(|chunk| take_all(read(chunk)?));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let readers = cores.saturating_sub(1).clamp(1, READERS_MAX);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (send, found) = mpsc::sync_channel(readers);
        for _ in 0..readers {
            let (send, next, chunks, read) = (send.clone(), &next, &chunks, &read);
            scope.spawn(move || {
                let mut rest = std::iter::from_fn(|| {
                    chunks.get(next.fetch_add(1, Ordering::Relaxed)).copied()
                });
                // The caller hangs up when it has an error.
                rest.try_for_each(|chunk| send.send(read(chunk)).ok())
            });
        }
        drop(send);
        found.into_iter().try_for_each(|found| take_all(found?))
    })
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
    for_each(shared, range, &parts, hints, |series| {
        left = left
            .checked_sub(series.samples.len())
            .ok_or(QueryError::TooManySamples)?;
        assembly.add(&series.labels, series.samples);
        Ok(())
    })?;
    Ok(assembly.finish())
}

/// How many series of the range make a chunk.
fn chunk_series((start, end): (Timestamp, Timestamp)) -> usize {
    let samples = end.ms_since(start) / INTERVAL_MS + 1;
    let series = (CHUNK_SAMPLES / samples.max(1)).clamp(*CHUNK_SERIES.start(), *CHUNK_SERIES.end());
    usize::try_from(series).expect("it lies in the bounds")
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

fn read_chunk(
    shared: &Shared,
    targets: &[Target],
    (start, end): (Timestamp, Timestamp),
    samples_max: usize,
) -> Result<Vec<Series>, QueryError> {
    let (start, end) = (start.as_ms(), end.as_ms());
    let mut recent = vec![Vec::new(); targets.len()];
    for ((_, id), samples) in targets.iter().zip(&mut recent) {
        shared.head.read(*id, start, end, samples);
    }
    let held: usize = recent.iter().map(Vec::len).sum();
    let left = samples_max
        .checked_sub(held)
        .ok_or(QueryError::TooManySamples)?;
    let mut sealed = vec![Vec::new(); targets.len()];
    shared
        .days
        .read(targets, start, end, left, &mut sealed)
        .map_err(|err| query_error(shared, err))?;
    let index = shared.index();
    let samples = sealed.into_iter().zip(recent);
    let series = targets.iter().zip(samples);
    Ok(series
        .filter_map(|((_, id), (sealed, recent))| {
            let samples = merge(sealed, recent);
            let labels = index.labels(*id).filter(|_| !samples.is_empty())?;
            Some(Series { labels, samples })
        })
        .collect())
}

fn query_error(shared: &Shared, err: sealed::Error) -> QueryError {
    match err {
        sealed::Error::TooManySamples { .. } => QueryError::TooManySamples,
        err => {
            if matches!(err, sealed::Error::Damaged { .. }) {
                shared.metrics.store.checksum_failures.inc();
            }
            QueryError::Store(Box::new(err))
        }
    }
}

/// One list sorted by time; of two samples at one time the sealed one stays.
fn merge(mut sealed: Vec<Sample>, recent: Vec<Sample>) -> Vec<Sample> {
    match (sealed.last(), recent.first()) {
        (None, _) => recent,
        (_, None) => sealed,
        (Some(last), Some(first)) if last.t < first.t => {
            sealed.extend(recent);
            sealed
        }
        _ => {
            // A stable sort, and the sealed ones come first.
            sealed.extend(recent);
            sealed.sort_by_key(|sample| sample.t);
            sealed.dedup_by_key(|sample| sample.t);
            sealed
        }
    }
}

/// The series that fulfil one of the selectors (all when there is none) and have
/// samples in the closed range. What is sealed is known by day.
fn active(
    shared: &Shared,
    selectors: &[Vec<Matcher>],
    start: Timestamp,
    end: Timestamp,
) -> Result<RoaringBitmap, QueryError> {
    let matching = {
        let index = shared.index();
        let union = |selectors: &[Vec<Matcher>]| {
            let sets = selectors.iter().map(|matchers| index.matching(matchers));
            sets.fold(RoaringBitmap::new(), |all, set| all | set)
        };
        let mut matching = if selectors.is_empty() {
            index.all().clone()
        } else {
            union(selectors)
        };
        let parts = index.native_parts();
        if !parts.is_empty() {
            // One part stands for each native histogram.
            matching -= parts;
            let all = [Vec::new()];
            let selectors = if selectors.is_empty() {
                &all
            } else {
                selectors
            };
            let layouts = selectors.iter().map(|m| native::layout_matchers(m));
            matching |= union(&layouts.collect::<Vec<_>>());
        }
        matching
    };
    let (start, end) = (start.as_ms(), end.as_ms());
    let in_head = |id: &u32| shared.head.overlaps(*id, start, end);
    let mut active: RoaringBitmap = matching.iter().filter(in_head).collect();
    let days = shared.days.series(start, end);
    active |= matching & days.map_err(|err| query_error(shared, err))?;
    Ok(active)
}

/// See [`super::Store::series`].
pub(super) fn series(
    shared: &Shared,
    selectors: &[Vec<Matcher>],
    start: Timestamp,
    end: Timestamp,
    limit: usize,
) -> Result<Vec<Labels>, QueryError> {
    let ids: Vec<u32> = active(shared, selectors, start, end)?.iter().collect();
    let mut found = Vec::with_capacity(ids.len());
    for step in ids.chunks(512) {
        let index = shared.index();
        let labels = step.iter().filter_map(|id| index.labels(*id));
        found.extend(labels.map(native::shown));
    }
    found.sort();
    found.dedup();
    found.truncate(limit);
    Ok(found)
}

/// See [`super::Store::label_names`].
pub(super) fn label_names(
    shared: &Shared,
    selectors: &[Vec<Matcher>],
    start: Timestamp,
    end: Timestamp,
    limit: usize,
) -> Result<Vec<String>, QueryError> {
    let ids = active(shared, selectors, start, end)?;
    let (ids, native) = apart(shared, ids);
    let mut names = shared.index().names_in(&ids);
    for labels in &native {
        names.extend(labels.iter().map(|(name, _)| name.to_owned()));
    }
    Ok(sorted(names, limit))
}

/// See [`super::Store::label_values`].
pub(super) fn label_values(
    shared: &Shared,
    name: &str,
    selectors: &[Vec<Matcher>],
    start: Timestamp,
    end: Timestamp,
    limit: usize,
) -> Result<Vec<String>, QueryError> {
    let ids = active(shared, selectors, start, end)?;
    let (ids, native) = apart(shared, ids);
    let mut values = shared.index().values_in(name, &ids);
    values.extend(native.iter().filter_map(|l| l.get(name)).map(str::to_owned));
    Ok(sorted(values, limit))
}

/// Series of floats, and the labels of native histograms.
fn apart(shared: &Shared, mut ids: RoaringBitmap) -> (RoaringBitmap, Vec<Labels>) {
    let index = shared.index();
    let parts = index.native_parts() & &ids;
    ids -= &parts;
    let labels = parts.iter().filter_map(|id| index.labels(id));
    let native = labels.map(native::shown).collect();
    (ids, native)
}

fn sorted(mut texts: Vec<String>, limit: usize) -> Vec<String> {
    texts.sort_unstable();
    texts.dedup();
    texts.truncate(limit);
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Clock;
    use crate::promql::Queryable as _;
    use crate::store::Store;
    use crate::store::tests::{T0, batch, manual, options, row};
    use crate::telemetry::Metrics;

    /// So long a range that a chunk has four series.
    const LONG_MS: i64 = 40 * 86_400_000;

    async fn store_of(dir: &std::path::Path, clock: Clock, series: u32) -> Store {
        let store = Store::open(options(dir), clock, Metrics::new()).unwrap();
        let rows = (0..series).map(|i| row("a", &format!("d{i:02}"), T0, f64::from(i)));
        store.write(batch(rows)).await.unwrap();
        store
    }

    fn visit(
        store: &Store,
        hints: &SelectHints,
        mut take: impl FnMut(f64) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let range = (Timestamp::from_ms(T0 - LONG_MS), Timestamp::from_ms(T0 + 1));
        store.for_each(range.0, range.1, &[], hints, &mut |_, samples| {
            take(samples[0].v)
        })
    }

    #[tokio::test]
    async fn chunks_read_on_other_threads_lose_nothing_and_stop_at_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = store_of(dir.path(), manual(T0 + 1_000).0, 41).await;
        let mut hints = SelectHints::default();
        let mut seen = Vec::new();
        visit(&store, &hints, |v| {
            seen.push(v);
            Ok(())
        })
        .unwrap();
        seen.sort_by(f64::total_cmp);
        assert_eq!(seen, (0..41).map(f64::from).collect::<Vec<_>>());

        let mut count = 0;
        let stopped = visit(&store, &hints, |_| {
            count += 1;
            if count == 6 {
                Err(QueryError::TooManySamples)
            } else {
                Ok(())
            }
        });
        assert!(matches!(stopped, Err(QueryError::TooManySamples)));
        assert_eq!(count, 6);

        hints.series_max = 40;
        let many = visit(&store, &hints, |_| Ok(()));
        assert!(matches!(many, Err(QueryError::TooManySeries(40))));

        hints.cancel.store(true, Ordering::Relaxed);
        let cancelled = visit(&store, &hints, |_| Ok(()));
        assert!(matches!(cancelled, Err(QueryError::Cancelled)));
        store.close().await;
    }
}
