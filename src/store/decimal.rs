//! Decimals as whole numbers, for the codes of the log and of the head's tails.

/// The largest exponent there is.
pub(super) const EXPONENT_MAX: u8 = 12;

pub(super) const POWERS: [f64; EXPONENT_MAX as usize + 1] = [
    1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
];

/// Decimal digits beyond this are not exact in an f64.
pub(super) const INTEGER_MAX: f64 = (1_u64 << 53) as f64;

/// Adding 1.5 * 2^52 rounds a number below 2^51, ties to even, and leaves the whole
/// number in the low bits. The instruction for it is not in every processor, and the
/// call that stands for it took a twentieth of a replay.
const ROUND: f64 = 6_755_399_441_055_744.0;
const ROUND_MAX: f64 = 2_251_799_813_685_248.0;

/// `v * 10^e` where that is whole and gives the same bits when turned back.
#[inline]
pub(super) fn to_integer(v: f64, e: u8) -> Option<i64> {
    let scaled = v * POWERS[usize::from(e)];
    if scaled.abs() >= INTEGER_MAX || scaled.is_nan() {
        return None;
    }
    let integer = round(scaled);
    (from_integer(integer, e).to_bits() == v.to_bits()).then_some(integer)
}

/// The number that `integer` stands for.
#[inline]
pub(super) fn from_integer(integer: i64, e: u8) -> f64 {
    integer as f64 / POWERS[usize::from(e)]
}

/// The whole number of a decimal that [`to_integer`] has one for.
#[inline]
pub(super) fn integer_of(v: f64, e: u8) -> i64 {
    round(v * POWERS[usize::from(e)])
}

#[inline]
fn round(scaled: f64) -> i64 {
    if scaled.abs() < ROUND_MAX {
        let bits = (scaled + ROUND).to_bits();
        return bits.wrapping_sub(ROUND.to_bits()).cast_signed();
    }
    round_large(scaled)
}

#[cold]
#[expect(
    clippy::cast_possible_truncation,
    reason = "float to int casts saturate"
)]
fn round_large(scaled: f64) -> i64 {
    scaled.round_ties_even() as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rounding_is_that_of_the_processor(bits: u64, small in -3e16_f64..3e16, half: i32) {
            for v in [f64::from_bits(bits), small, f64::from(half) + 0.5, ROUND_MAX + small] {
                #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
                let want = v.round_ties_even() as i64;
                prop_assert_eq!(round(v), want, "{}", v);
            }
        }

        #[test]
        fn what_is_a_decimal_comes_back(number in -(1_i64 << 53)..1 << 53, e in 0..=EXPONENT_MAX) {
            let v = from_integer(number, e);
            if let Some(found) = to_integer(v, e) {
                prop_assert_eq!(from_integer(found, e).to_bits(), v.to_bits());
                prop_assert_eq!(integer_of(v, e), found);
            }
        }
    }

    #[test]
    fn no_decimals() {
        let max = INTEGER_MAX;
        for v in [-0.0, f64::NAN, f64::INFINITY, max, -max, 0.5, max - 0.5] {
            assert_eq!(to_integer(v, 0), None, "{v}");
        }
        assert_eq!(to_integer(max - 1.0, 0), Some((1 << 53) - 1));
        assert_eq!(to_integer(21.5, 1), Some(215));
    }
}
