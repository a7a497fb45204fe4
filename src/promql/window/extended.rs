//! `anchored` and `smoothed`: windows whose ends have values of their own.
//!
//! An anchored window begins with the last sample before or at its start, if one
//! is within the lookback; nothing is extrapolated. A smoothed window takes the
//! values on the lines between the samples around its ends. Where the design
//! leaves a case open, this does as Prometheus 3.7 to 3.14.

use super::super::ast::Bounds;
use super::super::grid::absent;
use super::{WindowFunction, Windows, count_until};
use crate::model::Sample;

/// Appends the value of `function` for each step.
pub(super) fn apply(
    function: WindowFunction,
    windows: &Windows,
    samples: &[Sample],
    out: &mut Vec<f64>,
) {
    let seconds = windows.range_ms as f64 / 1000.0;
    for step in 0..windows.steps.count {
        let end = windows.end(step);
        let start = end.saturating_sub(windows.range_ms);
        let after = match windows.bounds {
            Bounds::Smoothed => windows.lookback_ms,
            Bounds::Anchored | Bounds::Inside => 0,
        };
        let high = count_until(samples, end.saturating_add(after));
        let low = count_until(&samples[..high], start.saturating_sub(windows.lookback_ms));
        let seen = Seen {
            points: &samples[low..high],
            start,
            end,
            smoothed: windows.bounds == Bounds::Smoothed,
        };
        let value = match function {
            WindowFunction::Delta => seen.change(false),
            WindowFunction::Increase => seen.change(true),
            WindowFunction::Rate => seen.change(true).map(|v| v / seconds),
            WindowFunction::Changes => seen.count(|a, b| a != b && !(a.is_nan() && b.is_nan())),
            WindowFunction::Resets => seen.count(|a, b| b < a),
            // The parser lets no other function see such a window.
            _ => None,
        };
        out.push(value.unwrap_or_else(absent));
    }
}

/// What one window sees of its series, beyond its ends too.
struct Seen<'a> {
    points: &'a [Sample],
    start: i64,
    end: i64,
    smoothed: bool,
}

impl Seen<'_> {
    /// The last sample before or at the start, else the first of all. The very
    /// last sample is never taken for it.
    fn first(&self) -> usize {
        let before = self.points.len() - 1;
        count_until(&self.points[..before], self.start).saturating_sub(1)
    }

    /// The increase of a counter or the difference of a gauge.
    fn change(&self, counter: bool) -> Option<f64> {
        let newest = self.points.len().checked_sub(1)?;
        let first = self.first();
        let last = if self.smoothed {
            let inside = self.points[..newest].iter();
            inside.take_while(|p| p.t.as_ms() < self.end).count()
        } else {
            newest
        };
        let points = self.points;
        if points[last].t.as_ms() <= self.start || points[first].t.as_ms() > self.end {
            return None;
        }
        let left = if self.smoothed && points[first].t.as_ms() < self.start {
            let (a, b) = (points[first], points[first + 1]);
            // A counter that fell on the way began again at zero.
            let from = if counter && b.v < a.v { 0.0 } else { a.v };
            between((a, from), (b, b.v), self.start)
        } else {
            points[first].v
        };
        let right = if self.smoothed && last > 0 && points[last].t.as_ms() > self.end {
            let (a, b) = (points[last - 1], points[last]);
            let to = if counter && b.v < a.v { b.v + a.v } else { b.v };
            between((a, a.v), (b, to), self.end)
        } else {
            points[last].v
        };
        let difference = right - left;
        if !counter {
            return Some(difference);
        }
        let inside = points.get(first + 1..last).unwrap_or_default();
        Some(difference + resets(left, right, inside))
    }

    /// How many neighbours fulfil a condition.
    fn count(&self, condition: impl Fn(f64, f64) -> bool) -> Option<f64> {
        if self.points.is_empty() {
            return None;
        }
        let pairs = self.points[self.first()..].windows(2);
        Some(pairs.filter(|p| condition(p[0].v, p[1].v)).count() as f64)
    }
}

/// What resets took away between two values.
fn resets(left: f64, right: f64, inside: &[Sample]) -> f64 {
    let values = inside.iter().map(|p| p.v).chain([right]);
    let mut lost = 0.0;
    let mut previous = left;
    for v in values {
        if v < previous {
            lost += previous;
        }
        previous = v;
    }
    lost
}

/// The value at `t` on the line between two samples with these values.
fn between((a, from): (Sample, f64), (b, to): (Sample, f64), t: i64) -> f64 {
    from + (to - from) * (t - a.t.as_ms()) as f64 / b.t.ms_since(a.t) as f64
}

/// The value at `t` on the line between the samples around it; the value of the
/// nearest one where there is a sample on one side only.
pub(in super::super) fn smoothed_at(samples: &[Sample], t: i64, lookback_ms: i64) -> Option<f64> {
    let until = count_until(samples, t);
    let near = |p: &&Sample| p.t.as_ms().abs_diff(t) < lookback_ms.unsigned_abs();
    let before = until.checked_sub(1).map(|at| &samples[at]).filter(near);
    let after = samples.get(until).filter(near);
    match (before, after) {
        (Some(a), _) if a.t.as_ms() == t => Some(a.v),
        (Some(a), Some(b)) => Some(between((*a, a.v), (*b, b.v), t)),
        (a, b) => a.or(b).map(|p| p.v),
    }
}
