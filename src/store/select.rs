//! Reads: samples of a selector, label sets, names and values.
//!
//! A reader looks into the head first and into the sealed files after that: a
//! seal shows its file before it takes the samples out of the head, so that they
//! are in one of the two at any time, and a sample seen twice is one sample.

use std::sync::atomic::Ordering;

use roaring::RoaringBitmap;

use super::shared::Shared;
use crate::model::{Labels, Matcher, Timestamp};
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
    let ids: Vec<u32> = shared.index().matching(matchers).iter().collect();
    let mut found = Vec::new();
    let mut left = hints.samples_max;
    for step in ids.chunks(STEP) {
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

fn read_step(
    shared: &Shared,
    ids: &[u32],
    start: Timestamp,
    end: Timestamp,
    left: &mut usize,
    found: &mut Vec<Series>,
) -> Result<(), QueryError> {
    let mut read = Vec::with_capacity(ids.len());
    for id in ids {
        let mut samples = Vec::new();
        shared
            .head
            .read(*id, start.as_ms(), end.as_ms(), &mut samples);
        if !samples.is_empty() {
            *left = left
                .checked_sub(samples.len())
                .ok_or(QueryError::TooManySamples)?;
            read.push((*id, samples));
        }
    }
    let index = shared.index();
    found.extend(read.into_iter().filter_map(|(id, samples)| {
        let labels = index.labels(id)?;
        Some(Series { labels, samples })
    }));
    Ok(())
}

/// The series that fulfil one of the selectors (all when there is none) and have
/// samples in the closed range.
fn active(
    shared: &Shared,
    selectors: &[Vec<Matcher>],
    start: Timestamp,
    end: Timestamp,
) -> RoaringBitmap {
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
    matching
        .iter()
        .filter(|id| shared.head.overlaps(*id, start, end))
        .collect()
}

/// See [`super::Store::series`].
pub(super) fn series(
    shared: &Shared,
    selectors: &[Vec<Matcher>],
    start: Timestamp,
    end: Timestamp,
    limit: usize,
) -> Vec<Labels> {
    let ids: Vec<u32> = active(shared, selectors, start, end).iter().collect();
    let mut found = Vec::with_capacity(ids.len());
    for step in ids.chunks(STEP) {
        let index = shared.index();
        found.extend(step.iter().filter_map(|id| index.labels(*id)));
    }
    found.sort();
    found.truncate(limit);
    found
}

/// See [`super::Store::label_names`].
pub(super) fn label_names(
    shared: &Shared,
    selectors: &[Vec<Matcher>],
    start: Timestamp,
    end: Timestamp,
    limit: usize,
) -> Vec<String> {
    let ids = active(shared, selectors, start, end);
    sorted(shared.index().names_in(&ids), limit)
}

/// See [`super::Store::label_values`].
pub(super) fn label_values(
    shared: &Shared,
    name: &str,
    selectors: &[Vec<Matcher>],
    start: Timestamp,
    end: Timestamp,
    limit: usize,
) -> Vec<String> {
    let ids = active(shared, selectors, start, end);
    sorted(shared.index().values_in(name, &ids), limit)
}

fn sorted(mut texts: Vec<String>, limit: usize) -> Vec<String> {
    texts.sort_unstable();
    texts.truncate(limit);
    texts
}
