//! Floats that stand for whole numbers.

/// A float that is not negative, rounded down: sums of counters, ranks, sizes. One above
/// all numbers is the largest, NaN and what is negative are none.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float to an integer saturates, which is what is documented"
)]
pub fn whole(v: f64) -> u64 {
    v as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_rounded_down_and_kept_within_bounds() {
        for (v, want) in [
            (0.0, 0),
            (2.999, 2),
            (-1.0, 0),
            (f64::NAN, 0),
            (f64::INFINITY, u64::MAX),
        ] {
            assert_eq!(whole(v), want, "{v}");
        }
    }
}
