//! The variance of a window.

use super::super::math::Variance;
use crate::model::Sample;

/// Samples that are looked at twice while they are near.
const BLOCK: usize = 512;

/// The population variance of at least one sample. Each block is passed over twice,
/// for its mean and for the squares around it, and the blocks are put together by the
/// formula of Chan, Golub and LeVeque: there is no division for each sample, and
/// several sums run side by side. Equal values have none.
pub(super) fn variance(points: &[Sample]) -> f64 {
    let mut all = Moments::default();
    for block in points.chunks(BLOCK) {
        all = all.with(Moments::of(block));
    }
    if !all.mean.is_finite() {
        let mut variance = Variance::default();
        points.iter().for_each(|s| variance.add(s.v));
        return variance.value();
    }
    all.squares / all.count
}

/// How many numbers, their mean, and the sum of their squared distances to it.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Distances are counted from the first number, so that equal ones have none.
    fn of(block: &[Sample]) -> Moments {
        let count = block.len() as f64;
        let first = block[0].v;
        let [sum, _] = sums(block, |v| [v - first, 0.0]);
        let mean = first + sum / count;
        // The second sum is what rounding left of the mean.
        let [squares, rest] = sums(block, |v| [(v - mean) * (v - mean), v - mean]);
        Moments {
            count,
            mean,
            squares: squares - rest * rest / count,
        }
    }

    fn with(self, other: Moments) -> Moments {
        if self.count == 0.0 {
            return other;
        }
        let count = self.count + other.count;
        let apart = other.mean - self.mean;
        Moments {
            count,
            mean: self.mean + apart * (other.count / count),
            squares: self.squares
                + other.squares
                + apart * apart * (self.count * other.count / count),
        }
    }
}

/// Two sums, each in four parts that do not wait for each other.
#[inline(always)]
fn sums(points: &[Sample], f: impl Fn(f64) -> [f64; 2]) -> [f64; 2] {
    let mut parts = [[0.0; 2]; 4];
    let (fours, rest) = points.as_chunks::<4>();
    for four in fours {
        for i in 0..4 {
            let [a, b] = f(four[i].v);
            parts[i][0] += a;
            parts[i][1] += b;
        }
    }
    for sample in rest {
        let [a, b] = f(sample.v);
        parts[0][0] += a;
        parts[0][1] += b;
    }
    let total = |i: usize| (parts[0][i] + parts[1][i]) + (parts[2][i] + parts[3][i]);
    [total(0), total(1)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> f64 {
        let samples: Vec<Sample> = (0..).zip(values).map(|(t, v)| Sample::new(t, *v)).collect();
        variance(&samples)
    }

    #[test]
    fn equal_values_have_none_and_infinite_ones_no_number() {
        assert_eq!(of(&[0.1; 2_000]), 0.0);
        let mut values = vec![1.0; 1_500];
        values[700] = f64::INFINITY;
        assert!(of(&values).is_nan());
        values[700] = f64::NAN;
        assert!(of(&values).is_nan());
    }

    #[test]
    fn a_far_first_value_and_a_large_base_cost_no_digits() {
        let mut values: Vec<f64> = (0..1_000).map(|i| 1e9 + f64::from(i % 2)).collect();
        assert!((of(&values) - 0.25).abs() < 1e-9);
        values[0] = -1e9;
        // Of 999 numbers around m and one that lies 2e9 below.
        let want = 4e18 * 0.999 * 0.001;
        assert!((of(&values) / want - 1.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn blocks_give_what_one_number_after_the_other_gives(
            values in prop::collection::vec(-1e3..1e3f64, 1..1_600),
            base in prop::sample::select(vec![0.0, 1e6, -1e9]),
        ) {
            let values: Vec<f64> = values.iter().map(|v| v + base).collect();
            let mut one = Variance::default();
            values.iter().for_each(|v| one.add(*v));
            let (got, want) = (of(&values), one.value());
            prop_assert!((got - want).abs() <= 1e-9 * want.abs() + 1e-12, "{} {}", got, want);
        }
    }
}
