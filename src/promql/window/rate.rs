//! Rates, increases and deltas, extrapolated to the ends of the window as
//! Prometheus does since 2.51.

use super::{Window, Windows};
use crate::model::Sample;

/// Per-second increase of a counter.
pub(super) fn rate(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    let seconds = windows.range_ms as f64 / 1000.0;
    counter(windows, samples, out, |factor| factor / seconds);
}

/// Increase of a counter over the window.
pub(super) fn increase(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    counter(windows, samples, out, |factor| factor);
}

/// Difference of a gauge over the window.
pub(super) fn delta(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    windows.slide(samples, out, |w| {
        let span = Span::of(w)?;
        let difference = w.last().v - w.first().v;
        Some(difference * span.factor(span.to_start_limited()))
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

fn counter(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>, scale: impl Fn(f64) -> f64) {
    let resets = Resets::of(samples);
    windows.slide(samples, out, |w| {
        let span = Span::of(w)?;
        let first = w.first().v;
        let increase = resets.add_within(w, w.last().v - first);
        let to_start = span.to_zero(first, increase);
        Some(increase * scale(span.factor(to_start)))
    });
}

/// Where a counter fell, and from what value.
struct Resets(Vec<(usize, f64)>);

impl Resets {
    #[inline]
    fn of(samples: &[Sample]) -> Resets {
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
    fn add_within(&self, w: &Window<'_>, increase: f64) -> f64 {
        if self.0.is_empty() {
            return increase;
        }
        let from = self.0.partition_point(|(at, _)| *at <= w.low);
        self.0[from..]
            .iter()
            .take_while(|(at, _)| *at < w.high)
            .fold(increase, |sum, (_, lost)| sum + lost)
    }
}

/// How the samples lie in the window, in seconds.
pub(super) struct Span {
    /// From the first to the last sample.
    sampled: f64,
    /// The mean distance of samples.
    average: f64,
    to_start: f64,
    to_end: f64,
}

impl Span {
    /// `None` with fewer than two samples.
    #[inline]
    fn of(w: &Window<'_>) -> Option<Span> {
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
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let sampled = seconds(last - first);
        Some(Span {
            sampled,
            average: sampled / intervals as f64,
            to_start: seconds(first - start),
            to_end: seconds(end - last),
        })
    }

    /// A gap longer than this is no gap between samples: the series begins or ends there.
    #[inline]
    fn limited(&self, gap: f64) -> f64 {
        if gap >= self.average * 1.1 {
            self.average / 2.0
        } else {
            gap
        }
    }

    #[inline]
    pub(super) fn to_start_limited(&self) -> f64 {
        self.limited(self.to_start)
    }

    /// How far back the window may go when the counter was `first` in the beginning
    /// and grew by `increase`: it did not begin below zero.
    #[inline]
    pub(super) fn to_zero(&self, first: f64, increase: f64) -> f64 {
        let to_start = self.to_start_limited();
        if increase > 0.0 && first >= 0.0 {
            to_start.min(self.sampled * (first / increase))
        } else {
            to_start
        }
    }

    /// By how much the sampled difference grows when it is extended to the ends.
    #[inline]
    pub(super) fn factor(&self, to_start: f64) -> f64 {
        (self.sampled + to_start + self.limited(self.to_end)) / self.sampled
    }
}
