//! Samples in memory, for rules that run over a test file or over history.

use std::collections::{BTreeMap, HashMap};

use super::group::Evaluation;
use crate::model::labels::METRIC_NAME;
use crate::model::{HistogramSample, Labels, MatchOp, Matcher, Sample, Timestamp};
use crate::promql::{HistogramSeries, QueryError, Queryable, SelectHints, Series};
use crate::store::SeriesKey;

/// Series in memory, by metric name.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    names: HashMap<String, BTreeMap<Labels, Vec<Sample>>>,
    histograms: BTreeMap<Labels, Vec<HistogramSample>>,
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

    /// Adds a native histogram, later than those before.
    pub(super) fn push_histogram(&mut self, labels: &Labels, sample: HistogramSample) {
        let samples = self.histograms.entry(labels.clone()).or_default();
        if samples.last().is_none_or(|last| last.t < sample.t) {
            samples.push(sample);
        }
    }

    /// Takes what an evaluation wrote.
    pub(super) fn take(&mut self, evaluation: Evaluation) {
        for (labels, sample) in evaluation.histograms {
            self.push_histogram(&labels, sample);
        }
        for row in evaluation.batch.rows {
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
                all.sort_unstable_by_key(|(labels, _)| *labels);
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

    fn histograms(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        _: &SelectHints,
    ) -> Result<Vec<HistogramSeries>, QueryError> {
        let end = self.till.map_or(end, |till| end.min(till));
        Ok(histograms_in(&self.histograms, start, end, matchers))
    }
}

/// The histograms that matchers select in a range of time.
pub(super) fn histograms_in(
    all: &BTreeMap<Labels, Vec<HistogramSample>>,
    start: Timestamp,
    end: Timestamp,
    matchers: &[Matcher],
) -> Vec<HistogramSeries> {
    let matching = all
        .iter()
        .filter(|(labels, _)| matchers.iter().all(|m| m.matches_labels(labels)));
    let series = matching.map(|(labels, samples)| HistogramSeries {
        labels: labels.clone(),
        samples: samples
            .iter()
            .filter(|s| s.t >= start && s.t <= end)
            .cloned()
            .collect(),
    });
    series.filter(|series| !series.samples.is_empty()).collect()
}
