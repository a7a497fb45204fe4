//! Values by the bits in which they differ from the one before: the fallback for
//! short columns that are not decimal. The scheme is the one of Facebook's Gorilla paper.
//!
//! The first value has its 64 bits. Then for each value: `0` when it is the same;
//! `10` and the changed bits when they lie within the window of the last change;
//! `11`, 5 bits of leading zeros, 6 bits of length less one, and the changed bits
//! otherwise. Most significant bit first.

use std::ops::Range;

use super::Malformed;
use super::varint::low_word;

const LEADING_BITS: u32 = 5;
const LENGTH_BITS: u32 = 6;
const LEADING_MAX: u32 = (1 << LEADING_BITS) - 1;

/// Appends the values.
pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) {
    let Some((first, rest)) = values.split_first() else {
        return;
    };
    let mut bits = Writer::new(out);
    bits.put(first.to_bits(), 64);
    let mut previous = first.to_bits();
    let (mut leading, mut length) = (0, 0);
    for value in rest {
        let value = value.to_bits();
        let change = value ^ previous;
        previous = value;
        if change == 0 {
            bits.put(0, 1);
            continue;
        }
        let (l, t) = (
            change.leading_zeros().min(LEADING_MAX),
            change.trailing_zeros(),
        );
        if length > 0 && l >= leading && t >= 64 - leading - length {
            bits.put(0b10, 2);
        } else {
            (leading, length) = (l, 64 - l - t);
            bits.put(0b11, 2);
            bits.put(u64::from(leading), LEADING_BITS);
            bits.put(u64::from(length - 1), LENGTH_BITS);
        }
        bits.put(change >> (64 - leading - length), length);
    }
    bits.finish();
}

/// Appends the values at `range` to `out`.
pub(super) fn decode(
    body: &[u8],
    range: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Malformed> {
    let start = out.len();
    let mut bits = Reader::new(body);
    let mut value = 0;
    let (mut leading, mut length) = (0, 64);
    for index in 0..range.end {
        if index == 0 {
            value = bits.take(64);
        } else if bits.take(1) == 1 {
            if bits.take(1) == 1 {
                leading = (bits.take(LEADING_BITS) & 31) as u32;
                length = (bits.take(LENGTH_BITS) & 63) as u32 + 1;
                if leading + length > 64 {
                    out.truncate(start);
                    return Err(Malformed("change above 64 bits"));
                }
            }
            value ^= bits.take(length) << (64 - leading - length);
        }
        if index >= range.start {
            out.push(f64::from_bits(value));
        }
    }
    if bits.overrun {
        out.truncate(start);
        return Err(Malformed("ends too early"));
    }
    Ok(())
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Bits that are not written yet, in the low end.
    pending: u128,
    used: u32,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer {
            out,
            pending: 0,
            used: 0,
        }
    }

    /// Appends the low `n` bits, 1 to 64; the others must be zero.
    fn put(&mut self, bits: u64, n: u32) {
        self.pending = (self.pending << n) | u128::from(bits);
        self.used += n;
        if self.used >= 64 {
            self.used -= 64;
            let word = low_word(self.pending >> self.used);
            self.out.extend_from_slice(&word.to_be_bytes());
        }
    }

    fn finish(self) {
        if self.used > 0 {
            let bytes = low_word(self.pending << (64 - self.used)).to_be_bytes();
            self.out
                .extend_from_slice(&bytes[..(self.used as usize).div_ceil(8)]);
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    bit: usize,
    /// Set when more bits were asked for than there are; those were zero.
    overrun: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            bytes,
            bit: 0,
            overrun: false,
        }
    }

    /// The next `n` bits, 1 to 64.
    fn take(&mut self, n: u32) -> u64 {
        let at = self.bit >> 3;
        let offset = self.bit & 7;
        self.bit += n as usize;
        let mut window = [0u8; 16];
        if let Some(full) = self.bytes.get(at..at + 16) {
            window.copy_from_slice(full);
        } else {
            self.overrun |= self.bit > self.bytes.len() * 8;
            let rest = self.bytes.get(at..).unwrap_or(&[]);
            window[..rest.len()].copy_from_slice(rest);
        }
        let aligned = u128::from_be_bytes(window) << offset;
        low_word(aligned >> (128 - n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(values: &[f64]) -> usize {
        let mut body = Vec::new();
        encode(values, &mut body);
        let mut back = Vec::new();
        decode(&body, 0..values.len(), &mut back).unwrap();
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values));
        if values.len() > 1 {
            assert!(
                decode(&body[..body.len() - 1], 0..values.len(), &mut Vec::new()).is_err(),
                "a cut column is noticed"
            );
        }
        body.len()
    }

    #[test]
    fn equal_values_cost_one_bit() {
        assert_eq!(check(&[0.1; 81]), 8 + 10);
    }

    #[test]
    fn special_values_survive() {
        check(&[
            f64::NAN,
            -0.0,
            0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            f64::from_bits(1),
            f64::from_bits(u64::MAX),
            f64::from_bits(0x7ff0_0000_0000_0002),
        ]);
    }

    proptest! {
        #[test]
        fn any_bits_come_back(bits in prop::collection::vec(any::<u64>(), 1..300)) {
            check(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            body in prop::collection::vec(any::<u8>(), 0..300),
            n in 0usize..1_000,
        ) {
            let _ = decode(&body, 0..n, &mut Vec::new());
        }
    }
}
