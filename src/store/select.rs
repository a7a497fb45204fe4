//! Reads: samples of a selector, label sets, names and values.
//!
//! A reader looks into the head first and into the sealed files after that: a
//! seal shows its file before it takes the samples out of the head, so that they
//! are in one of the two at any time, and a sample seen twice is one sample.

use std::sync::atomic::Ordering;

use roaring::RoaringBitmap;

use super::sealed;
use super::shared::Shared;
use crate::model::{Labels, Matcher, Sample, Timestamp};
use crate::promql::{QueryError, SelectHints, Series};

/// How many series are read between two looks at the cancel flag.
const STEP: usize = 512;

/// See [`crate::promql::Queryable::select`].
pub(super) fn select(
    shared: &Shared,
    start: Timestamp,
    end: Timestamp,
    matchers: &[Matcher],
    hints: &SelectHints,
) -> Result<Vec<Series>, QueryError> {
    let targets = targets(shared, matchers);
    let mut found = Vec::new();
    let mut left = hints.samples_max;
    for step in targets.chunks(STEP) {
        if hints.cancel.load(Ordering::Relaxed) {
            return Err(QueryError::Cancelled);
        }
        read_step(shared, step, start, end, &mut left, &mut found)?;
        if found.len() > hints.series_max {
            return Err(QueryError::TooManySeries(hints.series_max));
        }
    }
    found.sort_by(|a: &Series, b: &Series| a.labels.cmp(&b.labels));
    Ok(found)
}

/// A series with the symbol of its metric's name in front, as sealed pages are
/// sorted: steps of neighbours read each page once or twice, not once a step.
type Target = (u32, u32);

fn targets(shared: &Shared, matchers: &[Matcher]) -> Vec<Target> {
    let index = shared.index();
    let ids = index.matching(matchers);
    let mut targets = index.metric_symbols(&ids);
    drop(index);
    targets.sort_unstable();
    targets
}

fn read_step(
    shared: &Shared,
    targets: &[Target],
    start: Timestamp,
    end: Timestamp,
    left: &mut usize,
    found: &mut Vec<Series>,
) -> Result<(), QueryError> {
    let (start, end) = (start.as_ms(), end.as_ms());
    let mut recent = vec![Vec::new(); targets.len()];
    for ((_, id), samples) in targets.iter().zip(&mut recent) {
        shared.head.read(*id, start, end, samples);
        *left = left
            .checked_sub(samples.len())
            .ok_or(QueryError::TooManySamples)?;
    }
    let mut sealed = vec![Vec::new(); targets.len()];
    shared
        .days
        .read(targets, start, end, *left, &mut sealed)
        .map_err(|err| query_error(shared, err))?;
    *left = left.saturating_sub(sealed.iter().map(Vec::len).sum());
    let index = shared.index();
    for ((_, id), (sealed, recent)) in targets.iter().zip(sealed.into_iter().zip(recent)) {
        let samples = merge(sealed, recent);
        if let Some(labels) = index.labels(*id).filter(|_| !samples.is_empty()) {
            found.push(Series { labels, samples });
        }
    }
    Ok(())
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
        if selectors.is_empty() {
            index.all().clone()
        } else {
            let sets = selectors.iter().map(|matchers| index.matching(matchers));
            sets.fold(RoaringBitmap::new(), |all, set| all | set)
        }
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
    for step in ids.chunks(STEP) {
        let index = shared.index();
        found.extend(step.iter().filter_map(|id| index.labels(*id)));
    }
    found.sort();
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
    let names = shared.index().names_in(&ids);
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
    let values = shared.index().values_in(name, &ids);
    Ok(sorted(values, limit))
}

fn sorted(mut texts: Vec<String>, limit: usize) -> Vec<String> {
    texts.sort_unstable();
    texts.truncate(limit);
    texts
}
