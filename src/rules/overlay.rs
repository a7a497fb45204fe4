//! The store as the rules of a group see it: with what earlier rules of the same
//! evaluation gave, which is not written yet.
//!
//! Writing after each rule would cost a transaction each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::memory::histograms_in;
use super::merge;
use crate::model::{HistogramSample, Labels, Matcher, Sample, Timestamp};
use crate::promql::{HistogramSeries, QueryError, Queryable, SelectHints, Series};

/// A store with pending samples on top.
pub(super) struct Overlay<'a> {
    base: &'a dyn Queryable,
    pending: BTreeMap<Labels, Vec<Sample>>,
    histograms: BTreeMap<Labels, Vec<HistogramSample>>,
    selected: AtomicU64,
}

impl<'a> Overlay<'a> {
    /// Nothing is pending yet.
    pub(super) fn new(base: &'a dyn Queryable) -> Overlay<'a> {
        Overlay {
            base,
            pending: BTreeMap::new(),
            histograms: BTreeMap::new(),
            selected: AtomicU64::new(0),
        }
    }

    /// Shows a sample to all later queries, instead of one of the same time. Times of
    /// a series must not go back.
    pub(super) fn push(&mut self, labels: &Labels, sample: Sample) {
        let samples = self.pending.entry(labels.clone()).or_default();
        samples.retain(|old| old.t != sample.t);
        samples.push(sample);
    }

    /// As [`Overlay::push`], a native histogram.
    pub(super) fn push_histogram(&mut self, labels: &Labels, sample: HistogramSample) {
        let samples = self.histograms.entry(labels.clone()).or_default();
        samples.retain(|old| old.t != sample.t);
        samples.push(sample);
    }

    /// How many series all queries selected.
    pub(super) fn selected(&self) -> u64 {
        self.selected.load(Ordering::Relaxed)
    }

    fn pending_series(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
    ) -> Vec<Series> {
        let matching = self
            .pending
            .iter()
            .filter(|(labels, _)| matchers.iter().all(|m| m.matches_labels(labels)));
        let series = matching.filter_map(|(labels, samples)| {
            let inside = samples.iter().filter(|s| s.t >= start && s.t <= end);
            let samples: Vec<Sample> = inside.copied().collect();
            (!samples.is_empty()).then(|| Series {
                labels: labels.clone(),
                samples,
            })
        });
        series.collect()
    }
}

impl Queryable for Overlay<'_> {
    fn select(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<Series>, QueryError> {
        let mut series = self.base.select(start, end, matchers, hints)?;
        let pending = self.pending_series(start, end, matchers);
        merge::series(&mut series, pending, hints.series_max)?;
        self.selected
            .fetch_add(series.len() as u64, Ordering::Relaxed);
        Ok(series)
    }

    fn histograms(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<HistogramSeries>, QueryError> {
        let mut series = self.base.histograms(start, end, matchers, hints)?;
        let pending = histograms_in(&self.histograms, start, end, matchers);
        merge::histograms(&mut series, pending);
        Ok(series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<Series>);

    impl Queryable for Fixed {
        fn select(
            &self,
            _: Timestamp,
            _: Timestamp,
            matchers: &[Matcher],
            _: &SelectHints,
        ) -> Result<Vec<Series>, QueryError> {
            let matching = |s: &&Series| matchers.iter().all(|m| m.matches_labels(&s.labels));
            Ok(self.0.iter().filter(matching).cloned().collect())
        }
    }

    #[test]
    fn pending_samples_are_merged_in_order_of_labels_and_time() {
        let [a, b, c] = ["a", "b", "c"].map(|n| Labels::from_pairs([("__name__", n)]));
        let base = Fixed(vec![Series {
            labels: b.clone(),
            samples: vec![Sample::new(1, 1.0), Sample::new(3, 3.0)],
        }]);
        let mut overlay = Overlay::new(&base);
        overlay.push(&c, Sample::new(2, 9.0));
        overlay.push(&b, Sample::new(2, 2.0));
        overlay.push(&b, Sample::new(3, 99.0));
        overlay.push(&a, Sample::new(50, 9.0));
        let (start, end) = (Timestamp::from_ms(0), Timestamp::from_ms(10));
        let got = overlay
            .select(start, end, &[], &SelectHints::default())
            .unwrap();
        let names: Vec<&str> = got.iter().map(|s| s.labels.metric_name()).collect();
        assert_eq!(names, ["b", "c"]);
        let values: Vec<f64> = got[0].samples.iter().map(|s| s.v).collect();
        assert_eq!(values, [1.0, 2.0, 3.0]);
        assert_eq!(overlay.selected(), 2);
    }
}
