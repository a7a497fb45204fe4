//! Float arithmetic where Go and Rust, or the textbook and Prometheus, differ.

use super::ast::BinaryOp;
use crate::model::whole;

/// The sign: -1, 0 or 1; zeros and NaN stay as they are.
pub(super) fn sgn(v: f64) -> f64 {
    if v > 0.0 {
        1.0
    } else if v < 0.0 {
        -1.0
    } else {
        v
    }
}

/// The larger number; NaN when one is NaN and the other not infinitely large, as
/// in Go, where 0 is above -0. `f64::max` drops NaN and does not tell zeros apart.
#[inline]
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == b {
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

/// The smaller number; NaN when one is NaN and the other not infinitely small, as
/// in Go, where -0 is below 0. `f64::min` drops NaN and does not tell zeros apart.
#[inline]
pub(super) fn min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == b {
        if a.is_sign_negative() { a } else { b }
    } else {
        a.min(b)
    }
}

/// The hyperbolic sine. As in Go, half of what is too large for a number is too large.
pub(super) fn sinh(v: f64) -> f64 {
    if v.abs() > LARGE {
        (v.abs().exp() * 0.5).copysign(v)
    } else {
        v.sinh()
    }
}

/// The hyperbolic cosine, with the same bounds.
pub(super) fn cosh(v: f64) -> f64 {
    if v.abs() > LARGE {
        v.abs().exp() * 0.5
    } else {
        v.cosh()
    }
}

/// From here on `exp(-v)` is less than a digit of `exp(v)`.
const LARGE: f64 = 21.0;

/// Rounds to a multiple of `1 / inverse`, ties up, in Prometheus' order of operations.
pub(super) fn round(v: f64, inverse: f64) -> f64 {
    (v * inverse + 0.5).floor() / inverse
}

/// An arithmetic operator. Comparisons are [`compare`]'s.
#[inline]
pub(super) fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        // Rust's % is C's fmod, as Go's: the sign of the dividend.
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => pow(a, b),
        BinaryOp::Atan2 => a.atan2(b),
        _ => unreachable!("BUG: {op:?} is not arithmetic"),
    }
}

/// Go's Pow agrees with C's in every special case that Rust's `powf` has.
fn pow(a: f64, b: f64) -> f64 {
    a.powf(b)
}

/// A comparison operator.
#[inline]
pub(super) fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Equal => a == b,
        BinaryOp::NotEqual => a != b,
        BinaryOp::Greater => a > b,
        BinaryOp::Less => a < b,
        BinaryOp::GreaterEqual => a >= b,
        BinaryOp::LessEqual => a <= b,
        _ => unreachable!("BUG: {op:?} is not a comparison"),
    }
}

/// A Kahan-Neumaier sum: the rounding errors are kept beside the sum.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Kahan {
    /// The plain sum.
    pub(super) sum: f64,
    /// What rounding lost.
    pub(super) lost: f64,
}

impl Kahan {
    /// A sum of one number.
    #[inline]
    pub(super) fn of(v: f64) -> Kahan {
        Kahan { sum: v, lost: 0.0 }
    }

    /// The sum of two sums.
    #[inline]
    pub(super) fn join(mut self, other: Kahan) -> Kahan {
        self.add(other.sum);
        if self.sum.is_finite() {
            self.lost += other.lost;
        }
        self
    }

    /// Adds a number. An infinite sum has lost nothing: else Inf would turn into NaN.
    /// The error is the exact one whichever number is larger, found without a branch
    /// (Knuth's two-sum), so that sums of several steps can be made side by side.
    #[inline]
    pub(crate) fn add(&mut self, v: f64) {
        let t = self.sum + v;
        let grown = t - self.sum;
        let error = (self.sum - (t - grown)) + (v - grown);
        self.lost = if t.is_infinite() {
            0.0
        } else {
            self.lost + error
        };
        self.sum = t;
    }

    /// The corrected sum.
    #[inline]
    pub(crate) fn value(self) -> f64 {
        self.sum + self.lost
    }
}

/// A mean that is exact while the sum fits, and does not overflow when it no longer does.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Mean {
    sum: Kahan,
    count: f64,
    /// Whether `sum` holds the mean so far rather than the sum.
    incremental: bool,
}

impl Mean {
    /// Takes one more number.
    #[inline]
    pub(super) fn add(&mut self, v: f64) {
        self.count += 1.0;
        if !self.incremental {
            let mut next = self.sum;
            next.add(v);
            if self.count == 1.0 || next.sum.is_finite() || next.sum.is_nan() {
                self.sum = next;
                return;
            }
            self.incremental = true;
            self.sum.sum /= self.count - 1.0;
            self.sum.lost /= self.count - 1.0;
        }
        let keep = (self.count - 1.0) / self.count;
        self.sum = Kahan {
            sum: self.sum.sum * keep,
            lost: self.sum.lost * keep,
        };
        self.sum.add(v / self.count);
    }

    /// The mean; NaN of nothing.
    #[inline]
    pub(super) fn value(&self) -> f64 {
        if self.incremental {
            self.sum.value()
        } else {
            self.sum.sum / self.count + self.sum.lost / self.count
        }
    }
}

/// Welford's variance.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Variance {
    count: f64,
    mean: Kahan,
    aux: Kahan,
}

impl Variance {
    /// Takes one more number.
    #[inline]
    pub(super) fn add(&mut self, v: f64) {
        self.count += 1.0;
        let delta = v - self.mean.value();
        self.mean.add(delta / self.count);
        self.aux.add(delta * (v - self.mean.value()));
    }

    /// The population variance. An infinite or NaN member makes it NaN.
    #[inline]
    pub(super) fn value(&self) -> f64 {
        self.aux.value() / self.count
    }
}

/// NaN first, then by value: the order of quantiles.
#[inline]
pub(super) fn nan_first(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
        (a, b) => b.cmp(&a),
    }
}

/// The quantile of values that are sorted by [`nan_first`], linear between ranks.
pub(super) fn quantile_sorted(q: f64, sorted: &[f64]) -> f64 {
    if sorted.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let rank = q * (sorted.len() - 1) as f64;
    let lower = index(rank);
    let upper = (lower + 1).min(sorted.len() - 1);
    let weight = rank - rank.floor();
    sorted[lower] * (1.0 - weight) + sorted[upper] * weight
}

/// The quantile of values in any order; sorts them.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    values.sort_unstable_by(|a, b| nan_first(*a, *b));
    quantile_sorted(q, values)
}

/// A rank rounded down.
fn index(rank: f64) -> usize {
    usize::try_from(whole(rank)).expect("a rank is smaller than a slice's length")
}

/// Whether two counts differ by no more than rounding does, as Prometheus compares them.
pub(super) fn almost_equal(a: f64, b: f64, tolerance: f64) -> bool {
    if a == b || a.is_nan() && b.is_nan() {
        return true;
    }
    let sum = a.abs() + b.abs();
    let diff = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < tolerance * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < tolerance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kahan_keeps_what_a_plain_sum_loses() {
        let mut sum = Kahan::default();
        for v in [1.0, 1e100, 1.0, -1e100] {
            sum.add(v);
        }
        assert_eq!(sum.value(), 2.0);
        let mut sum = Kahan::default();
        sum.add(f64::INFINITY);
        sum.add(1.0);
        assert_eq!(sum.value(), f64::INFINITY);
    }

    #[test]
    fn mean_of_huge_numbers_does_not_overflow() {
        let mut mean = Mean::default();
        for _ in 0..4 {
            mean.add(f64::MAX);
        }
        assert!((mean.value() / f64::MAX - 1.0).abs() < 1e-15);
    }

    #[test]
    fn variance_of_an_infinite_member_is_nan() {
        let mut variance = Variance::default();
        variance.add(f64::INFINITY);
        assert!(variance.value().is_nan());
    }

    #[test]
    fn rounding_takes_ties_up() {
        assert_eq!(round(-1.5, 1.0), -1.0);
        assert_eq!(round(2.5, 1.0), 3.0);
    }

    #[test]
    fn go_min_and_max_keep_nan() {
        assert!(max(f64::NAN, 1.0).is_nan());
        assert!(min(1.0, f64::NAN).is_nan());
        assert_eq!(max(f64::NAN, f64::INFINITY), f64::INFINITY);
        assert_eq!(min(f64::NEG_INFINITY, f64::NAN), f64::NEG_INFINITY);
        assert!(min(f64::NAN, f64::INFINITY).is_nan());
    }
}
