//! Sums, means, extremes and quantiles of windows that may overlap a lot.
//!
//! A window of an hour at steps of a minute shares 59 parts of 60 with the one
//! before. Sums and extremes of such windows are kept as two stacks: folds of
//! the older part, one for each place where a window may begin, and one running
//! fold of the newer part. When windows have moved past the older part, the
//! newer one takes its place. Every sample is folded twice however long the
//! windows are, and nothing is ever subtracted, so infinities and NaN leave no
//! trace behind and a sum stays as exact as one made afresh (the additions come
//! in another order, so its last bit may differ). Quantiles keep the window
//! sorted.

use super::super::grid::Scalar;
use super::super::math::{Kahan, nan_first, quantile_sorted};
use super::{Window, Windows, mean};
use crate::model::Sample;

/// Windows are folded afresh when fewer than this many share a sample.
const SHARED_MIN: i64 = 4;

/// The sum of the window.
pub(super) fn sum(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    if overlaps(windows) {
        let mut folds = Folds::new(Kahan::default(), compensated());
        windows.slide(samples, out, |w| Some(folds.of(w).value()));
    } else {
        windows.slide(samples, out, |w| Some(fold(w.points()).value()));
    }
}

/// A sum in four parts, which do not wait for each other.
fn fold(points: &[Sample]) -> Kahan {
    let mut parts = [Kahan::default(); 4];
    let (fours, rest) = points.as_chunks::<4>();
    for four in fours {
        for (part, sample) in parts.iter_mut().zip(four) {
            part.add(sample.v);
        }
    }
    for (part, sample) in parts.iter_mut().zip(rest) {
        part.add(sample.v);
    }
    let [a, b, c, d] = parts;
    a.join(b).join(c.join(d))
}

/// The mean of the window.
pub(super) fn avg(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    // A sum that overflowed may still have a mean.
    let mean_of = |sum: Kahan, w: &Window<'_>| {
        let count = (w.high - w.low) as f64;
        Some(if sum.sum.is_finite() {
            sum.sum / count + sum.lost / count
        } else {
            mean(w)
        })
    };
    if overlaps(windows) {
        let mut folds = Folds::new(Kahan::default(), compensated());
        windows.slide(samples, out, |w| mean_of(folds.of(w), w));
    } else {
        windows.slide(samples, out, |w| mean_of(fold(w.points()), w));
    }
}

/// The largest value; NaN only when all are.
pub(super) fn max(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    extreme(windows, samples, out, |a, b| {
        if b > a || a.is_nan() { b } else { a }
    });
}

/// The smallest value; NaN only when all are.
pub(super) fn min(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    extreme(windows, samples, out, |a, b| {
        if b < a || a.is_nan() { b } else { a }
    });
}

fn extreme(
    windows: &Windows,
    samples: &[Sample],
    out: &mut Vec<f64>,
    better: impl Fn(f64, f64) -> f64 + Copy,
) {
    if overlaps(windows) {
        let mut folds = Folds::new(
            f64::NAN,
            Combine {
                lift: |v| v,
                join: better,
            },
        );
        windows.slide(samples, out, |w| Some(folds.of(w)));
    } else {
        windows.slide(samples, out, |w| Some(best(w.points(), better)));
    }
}

/// The value that `better` prefers, found in four parts that do not wait for each
/// other. Of equal values the first one stays; that only the sign of a zero shows.
fn best(points: &[Sample], better: impl Fn(f64, f64) -> f64 + Copy) -> f64 {
    let mut parts = [f64::NAN; 4];
    let (fours, rest) = points.as_chunks::<4>();
    for four in fours {
        for (part, sample) in parts.iter_mut().zip(four) {
            *part = better(*part, sample.v);
        }
    }
    let found = parts.into_iter().fold(f64::NAN, better);
    let found = rest.iter().fold(found, |a, s| better(a, s.v));
    if found == 0.0 {
        return points.iter().fold(f64::NAN, |a, s| better(a, s.v));
    }
    found
}

/// A quantile of the window, which may change from step to step.
pub(super) fn quantile(windows: &Windows, samples: &[Sample], q: &Scalar, out: &mut Vec<f64>) {
    let mut sorted = Sorted::default();
    windows.slide(samples, out, |w| {
        sorted.move_to(w);
        Some(quantile_sorted(q.at(w.step), &sorted.values))
    });
}

fn overlaps(windows: &Windows) -> bool {
    windows.steps.count > 1 && windows.range_ms / SHARED_MIN >= windows.steps.step
}

/// How values are folded.
#[derive(Clone, Copy)]
struct Combine<L, J> {
    lift: L,
    join: J,
}

fn compensated() -> Combine<impl Fn(f64) -> Kahan, impl Fn(Kahan, Kahan) -> Kahan> {
    Combine {
        lift: Kahan::of,
        join: Kahan::join,
    }
}

/// The two stacks.
struct Folds<T, L, J> {
    empty: T,
    combine: Combine<L, J>,
    /// The sample at which the newer part begins.
    middle: usize,
    /// Folds from each sample of the older part to its end; the last is that
    /// of the sample right before `middle`.
    older: Vec<T>,
    newer: T,
    /// The sample after the newer part.
    end: usize,
}

impl<T: Copy, L: Fn(f64) -> T, J: Fn(T, T) -> T> Folds<T, L, J> {
    fn new(empty: T, combine: Combine<L, J>) -> Folds<T, L, J> {
        Folds {
            empty,
            combine,
            middle: 0,
            older: Vec::new(),
            newer: empty,
            end: 0,
        }
    }

    /// The fold of a window; windows only move forward.
    fn of(&mut self, w: &Window<'_>) -> T {
        let Combine { lift, join } = &self.combine;
        if w.low >= self.middle {
            self.middle = w.high;
            self.end = w.high;
            self.newer = self.empty;
            self.older.clear();
            let mut fold = self.empty;
            for sample in w.points().iter().rev() {
                // In the order of time: of equal values the first one stays.
                fold = join(lift(sample.v), fold);
                self.older.push(fold);
            }
        }
        for sample in &w.samples[self.end..w.high] {
            self.newer = join(self.newer, lift(sample.v));
        }
        self.end = w.high;
        // `older` grew from its end: the fold from `low` is that many from the top.
        let older = self.older[self.middle - w.low - 1];
        if self.end == self.middle {
            older
        } else {
            join(older, self.newer)
        }
    }
}

/// The values of a window in the order of quantiles.
#[derive(Default)]
struct Sorted {
    values: Vec<f64>,
    low: usize,
    high: usize,
}

impl Sorted {
    fn move_to(&mut self, w: &Window<'_>) {
        let changed = (w.low - self.low) + (w.high - self.high);
        // Moving one value costs a copy of half the window, sorting about ten.
        if changed >= (w.high - w.low) / 4 || w.low >= self.high {
            self.values.clear();
            self.values.extend(w.values());
            self.values.sort_unstable_by(|a, b| nan_first(*a, *b));
        } else {
            for sample in &w.samples[self.low..w.low] {
                let at = self.place(sample.v);
                self.values.remove(at);
            }
            for sample in &w.samples[self.high..w.high] {
                let at = self.place(sample.v);
                self.values.insert(at, sample.v);
            }
        }
        self.low = w.low;
        self.high = w.high;
    }

    /// Where a value stands, or would.
    fn place(&self, v: f64) -> usize {
        self.values.partition_point(|a| nan_first(*a, v).is_lt())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::grid::Steps;
    use super::*;

    /// What the functions give when every window is folded afresh.
    fn afresh(windows: &Windows, samples: &[Sample], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let mut out = Vec::new();
        windows.slide(samples, &mut out, |w| {
            Some(f(&w.values().collect::<Vec<_>>()))
        });
        out
    }

    fn close(a: f64, b: f64) -> bool {
        a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e3..1e3f64,
            1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1e16, -1e16]),
        ]
    }

    fn zero() -> impl Strategy<Value = f64> {
        prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, f64::NAN])
    }

    proptest! {
        #[test]
        fn the_first_of_two_zeros_stays(
            values in prop::collection::vec(zero(), 0..200),
            step in 1i64..9,
            range_ms in 1i64..90,
        ) {
            let samples: Vec<Sample> = (1..).zip(values).map(|(t, v)| Sample::new(t, v)).collect();
            let windows = Windows {
                steps: Steps { start: 0, step, count: 200 },
                fixed: None,
                offset_ms: 0,
                range_ms,
                bounds: crate::promql::ast::Bounds::Inside,
                lookback_ms: 0,
            };
            let bits = |values: Vec<f64>| -> Vec<u64> { values.into_iter().map(f64::to_bits).collect() };
            let (mut tops, mut lows) = (Vec::new(), Vec::new());
            max(&windows, &samples, &mut tops);
            min(&windows, &samples, &mut lows);
            let top = |values: &[f64]| {
                let better = |a: f64, b: &f64| if *b > a || a.is_nan() { *b } else { a };
                values.iter().fold(f64::NAN, better)
            };
            let low = |values: &[f64]| {
                let better = |a: f64, b: &f64| if *b < a || a.is_nan() { *b } else { a };
                values.iter().fold(f64::NAN, better)
            };
            prop_assert_eq!(bits(tops), bits(afresh(&windows, &samples, top)));
            prop_assert_eq!(bits(lows), bits(afresh(&windows, &samples, low)));
        }

        #[test]
        fn sliding_is_the_same_as_folding_afresh(
            values in prop::collection::vec((value(), 1i64..40), 0..200),
            step in 1i64..30,
            range_ms in 1i64..600,
            q in 0.0..1.0f64,
        ) {
            let mut t = 0;
            let samples: Vec<Sample> = values
                .into_iter()
                .map(|(v, gap)| {
                    t += gap;
                    Sample::new(t, v)
                })
                .collect();
            let steps = Steps { start: -10, step, count: 150 };
            let windows = Windows {
                steps,
                fixed: None,
                offset_ms: 0,
                range_ms,
                bounds: crate::promql::ast::Bounds::Inside,
                lookback_ms: 0,
            };
            let check = |name: &str, f: &dyn Fn(&mut Vec<f64>), want: Vec<f64>| {
                let mut got = Vec::new();
                f(&mut got);
                let same = got.len() == want.len() && got.iter().zip(&want).all(|(a, b)| close(*a, *b));
                prop_assert!(same, "{}: {:?}, not {:?}", name, got, want);
                Ok(())
            };
            let fold = |values: &[f64]| {
                let mut sum = Kahan::default();
                values.iter().for_each(|v| sum.add(*v));
                sum.value()
            };
            check("sum", &|out| sum(&windows, &samples, out), afresh(&windows, &samples, fold))?;
            let means = afresh(&windows, &samples, |values| {
                let mut mean = super::super::Mean::default();
                values.iter().for_each(|v| mean.add(*v));
                mean.value()
            });
            check("avg", &|out| avg(&windows, &samples, out), means)?;
            let tops = afresh(&windows, &samples, |values| values.iter().copied().fold(f64::NAN, f64::max));
            check("max", &|out| max(&windows, &samples, out), tops)?;
            let lows = afresh(&windows, &samples, |values| values.iter().copied().fold(f64::NAN, f64::min));
            check("min", &|out| min(&windows, &samples, out), lows)?;
            let quantiles = afresh(&windows, &samples, |values| {
                super::super::math::quantile(q, &mut values.to_vec())
            });
            let q = Scalar::Same(q);
            check("quantile", &|out| quantile(&windows, &samples, &q, out), quantiles)?;
        }
    }
}
