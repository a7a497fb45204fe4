//! Series in memory, as the engine reads them.

use pulse::model::{Labels, Matcher, Timestamp};
use pulse::promql::{HistogramSeries, QueryError, Queryable, SelectHints, Series};

/// A few series, sorted by labels.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    series: Vec<Series>,
    histograms: Vec<HistogramSeries>,
}

impl Memory {
    /// Adds a series; one with the same labels gets the samples too.
    pub(crate) fn add(&mut self, added: Series) {
        let found = self
            .series
            .binary_search_by(|series| series.labels.cmp(&added.labels));
        match found {
            Ok(at) => {
                let samples = &mut self.series[at].samples;
                samples.extend(added.samples);
                samples.sort_by_key(|sample| sample.t);
            }
            Err(at) => self.series.insert(at, added),
        }
    }

    /// Adds the histograms of a series.
    pub(crate) fn add_histograms(&mut self, added: HistogramSeries) {
        let mut all = self.histograms.iter_mut();
        match all.find(|series| series.labels == added.labels) {
            Some(series) => {
                series.samples.extend(added.samples);
                series.samples.sort_by_key(|sample| sample.t);
            }
            None => self.histograms.push(added),
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
        let mut selected = Vec::new();
        for series in &self.series {
            if !matchers.iter().all(|m| m.matches_labels(&series.labels)) {
                continue;
            }
            let from = series.samples.partition_point(|s| s.t < start);
            let to = series.samples.partition_point(|s| s.t <= end);
            if from >= to {
                continue;
            }
            if selected.len() == hints.series_max {
                return Err(QueryError::TooManySeries(hints.series_max));
            }
            selected.push(Series {
                labels: series.labels.clone(),
                samples: series.samples[from..to].to_vec(),
            });
        }
        Ok(selected)
    }

    fn histograms(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        _hints: &SelectHints,
    ) -> Result<Vec<HistogramSeries>, QueryError> {
        let wanted = |s: &&HistogramSeries| matchers.iter().all(|m| m.matches_labels(&s.labels));
        let within = |s: &HistogramSeries| {
            let samples = s.samples.iter().filter(|s| s.t >= start && s.t <= end);
            HistogramSeries {
                labels: s.labels.clone(),
                samples: samples.cloned().collect(),
            }
        };
        Ok(self.histograms.iter().filter(wanted).map(within).collect())
    }
}

/// A label set from its text, such as `up{job="a"}`.
pub(crate) fn labels(text: &str) -> Result<Labels, String> {
    if text.trim() == "{}" {
        return Ok(Labels::empty());
    }
    let selector = pulse::promql::parse_selector(text).map_err(|err| err.to_string())?;
    let pairs = selector.matchers.iter().map(|m| (&m.name, &m.value));
    Ok(Labels::from_pairs(pairs))
}
