//! Any query over a few awkward series: the engine answers within its limits.
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pulse::model::histogram::{Bucket, CUSTOM};
use pulse::model::{Histogram, HistogramSample, Labels, Matcher, Sample, Timestamp, stale_nan};
use pulse::promql::{Engine, HistogramSeries, QueryError, Queryable, SelectHints, Series, parse};

struct Few(Vec<Series>);

impl Queryable for Few {
    fn select(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        _: &SelectHints,
    ) -> Result<Vec<Series>, QueryError> {
        let matches = |s: &&Series| matchers.iter().all(|m| m.matches_labels(&s.labels));
        let cut = |s: &Series| Series {
            labels: s.labels.clone(),
            samples: s
                .samples
                .iter()
                .copied()
                .filter(|p| p.t >= start && p.t <= end)
                .collect(),
        };
        let cut = self.0.iter().filter(matches).map(cut);
        Ok(cut.filter(|s| !s.samples.is_empty()).collect())
    }

    fn histograms(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        _: &SelectHints,
    ) -> Result<Vec<HistogramSeries>, QueryError> {
        let all = [("h", 0), ("h", 2), ("c", CUSTOM), ("a", 1)]
            .map(|(name, schema)| native(name, schema));
        let matches = |s: &HistogramSeries| matchers.iter().all(|m| m.matches_labels(&s.labels));
        let cut = |mut s: HistogramSeries| {
            s.samples.retain(|p| p.t >= start && p.t <= end);
            s
        };
        Ok(all.into_iter().filter(matches).map(cut).collect())
    }
}

/// A few histograms; those of `a` lie beside numbers.
fn native(name: &str, schema: i8) -> HistogramSeries {
    let sample = |i: i32| {
        let v = f64::from(i);
        let bucket = |index| Bucket {
            index,
            count: v + 1.0,
        };
        let mut h = Histogram {
            schema,
            count: 3.0 * v + 4.0,
            sum: if i == 3 { f64::NAN } else { v - 1.0 },
            positive: vec![bucket(i % 2), bucket(2)],
            ..Histogram::default()
        };
        if h.is_custom() {
            h.bounds = [-1.0, 1.0, 2.5 + f64::from(i % 2)].into();
        } else {
            h.zero_threshold = 0.001 * f64::from(i % 2);
            h.zero_count = f64::from(i % 3);
            h.negative = vec![bucket(-1)];
        }
        HistogramSample {
            t: Timestamp::from_ms(i64::from(i) * 15_000 + 5),
            h: Arc::new(h),
        }
    };
    HistogramSeries {
        labels: Labels::from_pairs([
            ("__name__", name),
            ("x", if schema == 2 { "2" } else { "1" }),
        ]),
        samples: (0..5).map(sample).collect(),
    }
}

fn series(pairs: &[(&str, &str)], values: &[f64]) -> Series {
    let sample = |(i, v): (usize, &f64)| Sample::new(i as i64 * 15_000, *v);
    Series {
        labels: Labels::from_pairs(pairs.iter().copied()),
        samples: values.iter().enumerate().map(sample).collect(),
    }
}

/// One input; bytes that are no text are replaced.
pub(crate) fn run(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    let Ok(expr) = parse(text) else { return };
    let mut few = Few(vec![
        series(
            &[("__name__", "a"), ("x", "1")],
            &[0.0, 1.0, 5.0, 2.0, f64::NAN],
        ),
        series(
            &[("__name__", "a"), ("x", "2")],
            &[f64::INFINITY, -1e300, stale_nan(), 1.0],
        ),
        series(
            &[("__name__", "b"), ("x", "1"), ("le", "1")],
            &[1.0, 2.0, 3.0],
        ),
        series(
            &[("__name__", "b"), ("x", "1"), ("le", "+Inf")],
            &[2.0, 2.0, 9.0],
        ),
    ]);
    few.0.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut engine = Engine::default();
    engine.options.samples_max = 100_000;
    let cancel = Arc::new(AtomicBool::new(false));
    let t = Timestamp::from_ms;
    let _ = engine.instant(&few, &expr, t(45_000), &cancel);
    let step = Duration::from_secs(10);
    let _ = engine.range(&few, &expr, t(-5_000), t(90_000), step, &cancel);
    let _ = engine.why_empty(&few, &expr, t(45_000), &cancel);
}
