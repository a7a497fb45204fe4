//! Sums, means and extremes of windows that may overlap a lot.

use super::super::math::Kahan;
use super::{Window, Windows, mean};
use crate::model::Sample;

/// The sum of the window.
pub(super) fn sum(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    windows.slide(samples, out, |w| {
        let mut sum = Kahan::default();
        w.values().for_each(|v| sum.add(v));
        Some(sum.value())
    });
}

/// The mean of the window.
pub(super) fn avg(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    windows.slide(samples, out, |w| Some(mean(w)));
}

/// The largest value; NaN only when all are.
pub(super) fn max(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    windows.slide(samples, out, |w| Some(best(w, |best, v| v > best)));
}

/// The smallest value; NaN only when all are.
pub(super) fn min(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    windows.slide(samples, out, |w| Some(best(w, |best, v| v < best)));
}

fn best(w: &Window<'_>, better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut best = w.first().v;
    for v in w.values() {
        if better(best, v) || best.is_nan() {
            best = v;
        }
    }
    best
}
