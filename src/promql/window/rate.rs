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
        let mut to_start = span.to_start_limited();
        if increase > 0.0 && first >= 0.0 {
            // A counter does not go below zero, so it cannot have begun earlier.
            to_start = to_start.min(span.sampled * (first / increase));
        }
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
struct Span {
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
        let intervals = w.high - w.low - 1;
        if intervals == 0 {
            return None;
        }
        let (first, last) = (w.first().t.as_ms(), w.last().t.as_ms());
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let sampled = seconds(last - first);
        Some(Span {
            sampled,
            average: sampled / intervals as f64,
            to_start: seconds(first - w.start),
            to_end: seconds(w.end - last),
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
    fn to_start_limited(&self) -> f64 {
        self.limited(self.to_start)
    }

    /// By how much the sampled difference grows when it is extended to the ends.
    #[inline]
    fn factor(&self, to_start: f64) -> f64 {
        (self.sampled + to_start + self.limited(self.to_end)) / self.sampled
    }
}
