//! Where buckets begin and end. Bounds that are no powers of two are rounded from
//! the true value; Prometheus has a table of them whose last bit is sometimes another.

use super::{Bucket, Range};

/// A positive bucket of an exponential schema: `(base^(index-1), base^index]`.
pub(super) fn exponential(schema: i8, bucket: Bucket) -> Range {
    let index = i64::from(bucket.index);
    Range {
        lower: bound(schema, index - 1),
        upper: bound(schema, index),
        lower_closed: false,
        upper_closed: true,
        count: bucket.count,
    }
}

/// A bucket between two of the given bounds. The first has no lower bound, the
/// last no upper one.
pub(super) fn custom(bounds: &[f64], bucket: Bucket) -> Range {
    let index = usize::try_from(bucket.index).unwrap_or(0);
    let below = index.checked_sub(1).and_then(|at| bounds.get(at));
    Range {
        lower: below.copied().unwrap_or(f64::NEG_INFINITY),
        upper: bounds.get(index).copied().unwrap_or(f64::INFINITY),
        lower_closed: index == 0,
        upper_closed: true,
        count: bucket.count,
    }
}

/// The upper bound of a positive bucket. The one that would be 2^1024 is the
/// largest number, so that every finite observation has a finite bucket.
pub(super) fn bound(schema: i8, index: i64) -> f64 {
    let (fraction, exponent) = if schema < 0 {
        (0.5, (index << -schema) + 1)
    } else {
        let parts = 1_i64 << schema;
        let part = index.rem_euclid(parts);
        let fraction = (part as f64 / parts as f64 - 1.0).exp2();
        (fraction, index.div_euclid(parts) + 1)
    };
    if fraction == 0.5 && exponent == 1025 {
        return f64::MAX;
    }
    scaled(fraction, exponent)
}

/// Whether two lists of bounds are the same.
pub(super) fn same(a: &[f64], b: &[f64]) -> bool {
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits();
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// `fraction * 2^exponent` with at most one rounding.
fn scaled(fraction: f64, exponent: i64) -> f64 {
    let exponent = i32::try_from(exponent.clamp(-1400, 1400)).expect("it was clamped");
    let half = exponent / 2;
    fraction * 2.0_f64.powi(half) * 2.0_f64.powi(exponent - half)
}
