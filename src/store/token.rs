//! The byte-aligned value code of the head's tails, and of log records as written
//! before values were packed ([`super::packed`]).
//!
//! A value is written as its difference from the series' previous one:
//!
//! | token | meaning |
//! |---|---|
//! | `0x00 + n` | the same bits again; in the log `n` more series had theirs again, too |
//! | `0x40 + e` | from here on decimal exponent `e` (0 to 6); another token follows |
//! | `0x50 + k` | difference of the values times `10^e`, zigzag, in `k` bytes |
//! | `0x60 + n` | the same difference, zigzag, of `n + 1` (1 to 32) |
//! | `0x80 + 8 lz + tz` | the bits XOR the previous bits, without `lz` leading and `tz` trailing zero bytes |
//!
//! Every bit pattern survives: the decimal form is taken only where turning it
//! back gives the same bits, which -0.0, infinities and NaNs never do.

use super::decimal::{INTEGER_MAX, POWERS, from_integer, to_integer};
use super::varint::{Reader, unzigzag, zigzag};

const SAME: u8 = 0x00;
const EXPONENT: u8 = 0x40;
const DELTA: u8 = 0x50;
const SMALL: u8 = 0x60;
const XOR: u8 = 0x80;

/// Differences up to this one (in zigzag order) are part of their token.
const SMALL_MAX: u64 = 32;

/// So many series one token can say to be unchanged.
const SAME_MAX: u8 = 0x40;

/// How many series a token says to be unchanged; `None` when it is another one.
#[inline]
pub(super) fn same_count(token: u8) -> Option<u8> {
    (token < SAME_MAX).then_some(token + 1)
}

/// The state that encoder and decoder of one series share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Coder {
    /// The bits of the previous value.
    pub(super) bits: u64,
    /// The decimal exponent in force.
    pub(super) exponent: u8,
}

impl Coder {
    /// Appends the tokens of `v` and makes it the previous value.
    #[inline]
    pub(super) fn encode(&mut self, v: f64, out: &mut Vec<u8>) {
        let bits = v.to_bits();
        if bits == self.bits {
            out.push(SAME);
            return;
        }
        let xor = bits ^ self.bits;
        let xor_len = 8 - (xor.leading_zeros() / 8 + xor.trailing_zeros() / 8) as usize;
        match self.decimal_delta(v) {
            Some((exponent, delta)) => {
                let zigzag = zigzag(delta);
                // Equal numbers have equal bits here, so the difference is not 0.
                let is_small = zigzag <= SMALL_MAX;
                let len = match is_small {
                    true => 0,
                    false => 8 - (zigzag.leading_zeros() / 8) as usize,
                };
                let switch = usize::from(exponent != self.exponent);
                if len + switch <= xor_len {
                    if switch == 1 {
                        out.push(EXPONENT | exponent);
                        self.exponent = exponent;
                    }
                    if is_small {
                        out.push(SMALL | (zigzag - 1).to_le_bytes()[0]);
                    } else {
                        out.push(DELTA | len.to_le_bytes()[0]);
                        // All eight and back to those wanted: quicker than a call.
                        out.extend_from_slice(&zigzag.to_le_bytes());
                        out.truncate(out.len() - (8 - len));
                    }
                } else {
                    put_xor(xor, out);
                }
            }
            None => put_xor(xor, out),
        }
        self.bits = bits;
    }

    /// The exponent at which the previous and this value are both decimal, and
    /// their difference. Tries the one in force first.
    #[inline]
    fn decimal_delta(&self, v: f64) -> Option<(u8, i64)> {
        let previous = f64::from_bits(self.bits);
        let at = |e: u8| -> Option<(u8, i64)> {
            Some((e, to_integer(v, e)? - to_integer(previous, e)?))
        };
        if let Some(found) = at(self.exponent) {
            return Some(found);
        }
        // What is no decimal with six digits is none with fewer, unless it is huge.
        if v.abs() < INTEGER_MAX / POWERS[6] && to_integer(v, 6).is_none() {
            return None;
        }
        (0..=6).filter(|e| *e != self.exponent).find_map(at)
    }

    /// Reads the tokens of one value and makes it the previous one; `None` when
    /// they are cut or not valid.
    #[inline]
    pub(super) fn decode(&mut self, from: &mut Reader<'_>) -> Option<f64> {
        let mut token = from.byte()?;
        if (EXPONENT..EXPONENT + 7).contains(&token) {
            self.exponent = token - EXPONENT;
            token = from.byte()?;
        }
        match token {
            SAME => {}
            0x51..=0x58 => {
                self.add(little_endian(from.bytes(usize::from(token - DELTA))?))?;
            }
            SMALL..XOR => self.add(u64::from(token - SMALL) + 1)?,
            XOR.. => {
                let (lz, tz) = (usize::from((token >> 3) & 7), usize::from(token & 7));
                let len = 8_usize.checked_sub(lz + tz)?;
                let xor = little_endian(from.bytes(len)?) << (8 * tz);
                self.bits ^= xor;
            }
            _ => return None,
        }
        Some(f64::from_bits(self.bits))
    }

    /// Adds a difference that is written in zigzag order.
    #[inline]
    fn add(&mut self, zigzag: u64) -> Option<()> {
        let previous = to_integer(f64::from_bits(self.bits), self.exponent)?;
        let integer = previous.checked_add(unzigzag(zigzag))?;
        self.bits = from_integer(integer, self.exponent).to_bits();
        Some(())
    }
}

/// Reads past the tokens of one value; `None` when they are cut or not valid.
#[inline]
pub(super) fn skip(from: &mut Reader<'_>) -> Option<()> {
    let mut token = from.byte()?;
    if (EXPONENT..EXPONENT + 7).contains(&token) {
        token = from.byte()?;
    }
    let len = match token {
        SAME | SMALL..XOR => 0,
        0x51..=0x58 => usize::from(token - DELTA),
        XOR.. => 8_usize.checked_sub(usize::from((token >> 3) & 7) + usize::from(token & 7))?,
        _ => return None,
    };
    from.bytes(len)?;
    Some(())
}

fn put_xor(xor: u64, out: &mut Vec<u8>) {
    let lz = (xor.leading_zeros() / 8).min(7);
    let tz = (xor.trailing_zeros() / 8).min(7 - lz);
    let len = 8 - (lz + tz) as usize;
    out.push(XOR | (lz << 3 | tz).to_le_bytes()[0]);
    out.extend_from_slice(&(xor >> (8 * tz)).to_le_bytes()[..len]);
}

#[inline]
fn little_endian(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::stale_nan;

    fn check(values: &[f64]) -> usize {
        let mut out = Vec::new();
        let mut coder = Coder::default();
        for v in values {
            coder.encode(*v, &mut out);
        }
        let mut decoder = Coder::default();
        let (mut reader, mut others) = (Reader(&out), Reader(&out));
        for v in values {
            skip(&mut others).unwrap();
            let got = decoder.decode(&mut reader).unwrap();
            assert_eq!(got.to_bits(), v.to_bits(), "{v} in {values:?}");
            assert_eq!(others.0, reader.0);
        }
        assert!(reader.is_empty());
        assert_eq!(coder, decoder);
        out.len()
    }

    #[test]
    fn special_values_keep_their_bits() {
        check(&[
            0.0,
            -0.0,
            f64::NAN,
            stale_nan(),
            f64::from_bits(0xfff8_dead_beef_0001),
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            f64::from_bits(1),
            f64::MAX,
            -0.0,
            9_007_199_254_740_991.0,
            -9_007_199_254_740_991.0,
            9_007_199_254_740_993.0,
        ]);
    }

    #[test]
    fn counters_and_decimals_take_two_bytes() {
        let counter: Vec<f64> = (0..100).map(|i| 1e9 + f64::from(i) * 7.0).collect();
        assert!(check(&counter) < 2 * 100 + 8);
        let decimals: Vec<f64> = (0..100).map(|i| 21.5 + f64::from(i % 7) / 10.0).collect();
        assert!(check(&decimals) < 2 * 100 + 8);
    }

    #[test]
    fn small_steps_take_one_byte() {
        let walk: Vec<f64> = (0..100_u32).map(|i| f64::from((i * 7) % 17)).collect();
        assert!(check(&walk) < 100 + 8);
        assert_eq!(
            (same_count(0), same_count(SAME_MAX - 1)),
            (Some(1), Some(SAME_MAX))
        );
        assert_eq!(same_count(EXPONENT), None);
    }

    #[test]
    fn an_xor_with_all_bytes_set_fits() {
        check(&[f64::from_bits(0x0102_0304_0506_0708), 0.1, 0.3, 1.0 / 3.0]);
    }

    /// Floats of any bits.
    pub(in crate::store) fn any_floats() -> impl Strategy<Value = Vec<f64>> {
        let bits = prop::collection::vec(any::<u64>(), 0..50);
        bits.prop_map(|bits| bits.into_iter().map(f64::from_bits).collect())
    }

    /// Numbers with up to so many decimal places.
    pub(in crate::store) fn decimals(places: i32) -> impl Strategy<Value = Vec<f64>> {
        let one = (-1_000_000_000_i64..1_000_000_000, 0..=places);
        let one = one.prop_map(|(i, e)| i as f64 / 10_f64.powi(e));
        prop::collection::vec(one, 0..50)
    }

    proptest! {
        #[test]
        fn every_bit_pattern_survives(values in any_floats()) {
            check(&values);
        }

        #[test]
        fn decimals_survive(values in decimals(6)) {
            check(&values);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut reader = Reader(&bytes);
            let mut coder = Coder::default();
            while coder.decode(&mut reader).is_some() && !reader.is_empty() {}
        }
    }
}
