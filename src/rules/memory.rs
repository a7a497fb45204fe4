//! Samples in memory, for rules that run over a test file or over history.

use std::collections::{BTreeMap, HashMap};

use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, MatchOp, Matcher, Sample, Timestamp};
use crate::promql::{QueryError, Queryable, SelectHints, Series};
use crate::store::{SeriesKey, WriteBatch};

/// Series in memory, by metric name.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    names: HashMap<String, BTreeMap<Labels, Vec<Sample>>>,
    /// Samples after this time are not there yet.
    till: Option<Timestamp>,
}

impl Memory {
    /// Adds a sample. As the store: of two at one time the first stays.
    pub(super) fn push(&mut self, labels: &Labels, sample: Sample) {
        let series = self.names.entry(labels.metric_name().to_owned());
        let samples = series.or_default().entry(labels.clone()).or_default();
        match samples.last() {
            Some(last) if last.t >= sample.t => {
                if let Err(at) = samples.binary_search_by_key(&sample.t, |s| s.t) {
                    samples.insert(at, sample);
                }
            }
            _ => samples.push(sample),
        }
    }

    /// Takes what an evaluation wrote.
    pub(super) fn take(&mut self, batch: WriteBatch) {
        for row in batch.rows {
            if let SeriesKey::Labels(labels) = &row.series {
                self.push(labels, Sample { t: row.t, v: row.v });
            }
        }
    }

    /// Drops the samples before `from`, and series that have no others.
    pub(super) fn forget_before(&mut self, from: Timestamp) {
        for series in self.names.values_mut() {
            series.retain(|_, samples| {
                samples.retain(|sample| sample.t >= from);
                !samples.is_empty()
            });
        }
    }

    /// Hides the samples after `till`.
    pub(super) fn show_till(&mut self, till: Timestamp) {
        self.till = Some(till);
    }

    fn candidates(&self, matchers: &[Matcher]) -> Vec<(&Labels, &Vec<Sample>)> {
        let is_name = |m: &&Matcher| m.name == METRIC_NAME && m.op == MatchOp::Equal;
        match matchers.iter().find(is_name) {
            Some(name) => self.names.get(&name.value).into_iter().flatten().collect(),
            None => {
                let mut all: Vec<_> = self.names.values().flatten().collect();
                all.sort_by_key(|(labels, _)| *labels);
                all
            }
        }
    }
}

impl Queryable for Memory {
    fn select(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<Series>, QueryError> {
        let end = self.till.map_or(end, |till| end.min(till));
        let mut selected = Vec::new();
        for (labels, samples) in self.candidates(matchers) {
            if !matchers.iter().all(|m| m.matches_labels(labels)) {
                continue;
            }
            let from = samples.partition_point(|s| s.t < start);
            let to = samples.partition_point(|s| s.t <= end);
            if from >= to {
                continue;
            }
            if selected.len() == hints.series_max {
                return Err(QueryError::TooManySeries(hints.series_max));
            }
            selected.push(Series {
                labels: labels.clone(),
                samples: samples[from..to].to_vec(),
            });
        }
        Ok(selected)
    }
}
