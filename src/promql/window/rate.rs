//! Rates, increases and deltas, extrapolated to the ends of the window as
//! Prometheus does since 2.51.

use super::plan::{Plan, Rates};
use super::{Points, Window, Windows, absent};
use crate::model::Sample;

/// Per-second increase of a counter.
pub(super) fn rate(windows: &Windows, points: Points<'_>, plan: &mut Plan, out: &mut Vec<f64>) {
    let unit = windows.range_ms as f64 / 1000.0;
    counter(plan.rates(windows, unit, points.samples), points, out, unit);
}

/// Increase of a counter over the window.
pub(super) fn increase(windows: &Windows, points: Points<'_>, plan: &mut Plan, out: &mut Vec<f64>) {
    counter(plan.rates(windows, 1.0, points.samples), points, out, 1.0);
}

/// Difference of a gauge over the window.
pub(super) fn delta(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    windows.slide(samples, out, |w| {
        let span = Span::of(w)?;
        let difference = w.last().v - w.first().v;
        Some(difference * span.factor(span.to_start_limited(), 1.0))
    });
}

/// Per-second increase between the last two samples; after a reset the counter
/// began at zero.
pub(super) fn irate(w: &Window<'_>) -> Option<f64> {
    let (a, b) = w.last_two()?;
    let ms = b.t.ms_since(a.t);
    let increase = if b.v < a.v { b.v } else { b.v - a.v };
    (ms != 0).then(|| increase / (ms as f64 / 1000.0))
}

/// The increase for each `unit` of the window.
fn counter(rates: &Rates, points: Points<'_>, out: &mut Vec<f64>, unit: f64) {
    let samples = points.samples;
    if let (true, [first, .., last]) = (points.rises, samples)
        && rates.begin_above_zero(first.v, last.v - first.v)
    {
        return out.extend(rates.extents.iter().map(|w| {
            if w.last <= w.low {
                return absent();
            }
            (samples[w.last as usize].v - samples[w.low as usize].v) * w.factor
        }));
    }
    let resets = Resets::of(samples);
    out.extend(rates.extents.iter().zip(&rates.gaps).map(|(w, gaps)| {
        if w.last <= w.low {
            return absent();
        }
        let (low, last) = (w.low as usize, w.last as usize);
        let first = samples[low].v;
        let increase = resets.add_within(low, last, samples[last].v - first);
        // The counter did not begin below zero: so far back the window does not go.
        if increase > 0.0 && first >= 0.0 && gaps.sampled * first < gaps.to_start * increase {
            let to_zero = gaps.sampled * (first / increase);
            return increase * ((gaps.sampled + to_zero + gaps.to_end) / (gaps.sampled * unit));
        }
        increase * w.factor
    }));
}

/// Where a counter fell, and from what value.
struct Resets(Vec<(usize, f64)>);

impl Resets {
    #[inline]
    fn of(samples: &[Sample]) -> Resets {
        // Most series have none, and looking at all pairs without a branch is quick.
        let falls = |any: bool, pair: &[Sample]| any | (pair[1].v < pair[0].v);
        if !samples.windows(2).fold(false, falls) {
            return Resets(Vec::new());
        }
        let falls = samples
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| pair[1].v < pair[0].v)
            .map(|(i, pair)| (i + 1, pair[0].v));
        Resets(falls.collect())
    }

    /// Adds what was lost by the resets after the first sample of the window,
    /// in the order in which they happened.
    #[inline]
    fn add_within(&self, low: usize, last: usize, increase: f64) -> f64 {
        if self.0.is_empty() {
            return increase;
        }
        let from = self.0.partition_point(|(at, _)| *at <= low);
        self.0[from..]
            .iter()
            .take_while(|(at, _)| *at <= last)
            .fold(increase, |sum, (_, lost)| sum + lost)
    }
}

/// How the samples lie in the window, in milliseconds. A window is computed for every
/// step of every series, so this divides only where it must.
pub(super) struct Span {
    /// From the first to the last sample.
    sampled: f64,
    /// How many distances of neighbours that is.
    intervals: f64,
    to_start: f64,
    to_end: f64,
}

impl Span {
    /// `None` with fewer than two samples.
    #[inline]
    pub(super) fn of(w: &Window<'_>) -> Option<Span> {
        let ends = (w.first().t.as_ms(), w.last().t.as_ms());
        Span::between(ends, w.high - w.low - 1, (w.start, w.end))
    }

    /// The same from the times of the first and the last sample, the number of
    /// intervals between them, and the ends of the window.
    #[inline]
    pub(super) fn between(
        (first, last): (i64, i64),
        intervals: usize,
        (start, end): (i64, i64),
    ) -> Option<Span> {
        if intervals == 0 {
            return None;
        }
        Some(Span {
            sampled: (last - first) as f64,
            intervals: intervals as f64,
            to_start: (first - start) as f64,
            to_end: (end - last) as f64,
        })
    }

    /// From the first to the last sample, in milliseconds.
    pub(super) fn sampled(&self) -> f64 {
        self.sampled
    }

    /// A gap longer than this is no gap between samples: the series begins or ends there.
    #[inline]
    fn limited(&self, gap: f64) -> f64 {
        if gap * self.intervals <= self.sampled {
            return gap;
        }
        // In seconds and in this order, so that the limit falls where Prometheus has it.
        let average = self.sampled / 1000.0 / self.intervals;
        if gap / 1000.0 >= average * 1.1 {
            self.sampled / self.intervals / 2.0
        } else {
            gap
        }
    }

    /// How far back the window may go from its first sample.
    #[inline]
    pub(super) fn to_start_limited(&self) -> f64 {
        self.limited(self.to_start)
    }

    /// How far on it may go from its last one.
    #[inline]
    pub(super) fn to_end_limited(&self) -> f64 {
        self.limited(self.to_end)
    }

    /// How far back the window may go when the counter was `first` in the beginning
    /// and grew by `increase`: it did not begin below zero.
    #[inline]
    pub(super) fn to_zero(&self, first: f64, increase: f64) -> f64 {
        let to_start = self.to_start_limited();
        if increase > 0.0 && first >= 0.0 && self.sampled * first < to_start * increase {
            self.sampled * (first / increase)
        } else {
            to_start
        }
    }

    /// By how much the sampled difference grows when it is extended to the ends, for
    /// each `unit`.
    #[inline]
    pub(super) fn factor(&self, to_start: f64, unit: f64) -> f64 {
        (self.sampled + to_start + self.to_end_limited()) / (self.sampled * unit)
    }
}
