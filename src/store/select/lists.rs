//! What there is to ask for: label sets, names and values, without their samples.

use roaring::RoaringBitmap;

use super::super::native;
use super::super::shared::Shared;
use super::query_error;
use crate::model::{Labels, Matcher, Timestamp};
use crate::promql::QueryError;

/// The series that fulfil one of the selectors (all when there is none) and have
/// samples in the closed range. What is sealed is known by day.
fn active(
    shared: &Shared,
    selectors: &[Vec<Matcher>],
    start: Timestamp,
    end: Timestamp,
) -> Result<RoaringBitmap, QueryError> {
    let mut matching = {
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
    let sealed = || {
        let series = shared.days.series(start, end);
        series.map_err(|err| query_error(shared, err))
    };
    // Most series are in a file, and that is known for all of them at once.
    let mut active = &matching & sealed()?;
    matching -= &active;
    if !matching.is_empty() {
        active |= shared.head.overlapping(&matching, start, end);
        // What was not in a file may have been sealed since.
        active |= matching & sealed()?;
    }
    Ok(active)
}

/// See [`crate::store::Store::series`].
pub(in crate::store) fn series(
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
    found.sort_unstable();
    found.dedup();
    found.truncate(limit);
    Ok(found)
}

/// See [`crate::store::Store::label_names`].
pub(in crate::store) fn label_names(
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

/// See [`crate::store::Store::label_values`].
pub(in crate::store) fn label_values(
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
