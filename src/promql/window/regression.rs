//! Trends: least squares and double exponential smoothing.

use super::super::math::Kahan;
use super::Window;
use crate::model::Sample;

/// The slope per second.
pub(super) fn deriv(w: &Window<'_>) -> Option<f64> {
    if w.points().len() < 2 {
        return None;
    }
    // Times relative to the first sample keep the sums small and exact.
    Some(line(w.points(), w.first().t.as_ms()).0)
}

/// The value on the line `seconds` after `now`.
pub(super) fn predict_linear(w: &Window<'_>, now: i64, seconds: f64) -> Option<f64> {
    if w.points().len() < 2 {
        return None;
    }
    let (slope, intercept) = line(w.points(), now);
    Some(slope * seconds + intercept)
}

/// Slope per second and value at `origin` of the least-squares line.
fn line(points: &[Sample], origin: i64) -> (f64, f64) {
    let first = points[0].v;
    if points.iter().all(|p| p.v == first) {
        let flat = (0.0, first);
        let none = (f64::NAN, f64::NAN);
        return if first.is_infinite() { none } else { flat };
    }
    let mut sums = [Kahan::default(); 4];
    for p in points {
        let x = (p.t.as_ms() - origin) as f64 / 1000.0;
        let terms = [x, p.v, x * p.v, x * x];
        for (sum, term) in sums.iter_mut().zip(terms) {
            sum.add(term);
        }
    }
    let n = points.len() as f64;
    let [x, y, xy, xx] = sums.map(Kahan::value);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

/// Holt's linear method: `level` smooths the value, `trend` its slope.
pub(super) fn smooth(w: &Window<'_>, level: f64, trend: f64) -> Option<f64> {
    let [first, second, rest @ ..] = w.points() else {
        return None;
    };
    let mut slope = second.v - first.v;
    let mut smoothed = level * second.v + (1.0 - level) * (first.v + slope);
    let mut previous = first.v;
    for p in rest {
        slope = trend * (smoothed - previous) + (1.0 - trend) * slope;
        previous = smoothed;
        smoothed = level * p.v + (1.0 - level) * (previous + slope);
    }
    Some(smoothed)
}
