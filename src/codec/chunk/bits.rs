//! A text of bits, the highest bit of a byte first.

use crate::codec::histogram::zigzag;

/// How many bits a number of variable length may have; the first fits what is small.
const WIDTHS: [u32; 7] = [3, 6, 9, 12, 18, 25, 56];

/// Bits written one after the other.
#[derive(Debug)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not written yet.
    free: u32,
}

impl Bits {
    /// Begins after whole bytes.
    pub(super) fn after(bytes: Vec<u8>) -> Bits {
        Bits { bytes, free: 0 }
    }

    /// The bytes; what is left of the last one is zero.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends the lowest `count` bits of a number, the highest of them first.
    pub(super) fn push(&mut self, number: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let now = left.min(self.free);
            left -= now;
            self.free -= now;
            let part = number >> left & ((1 << now) - 1);
            let last = self.bytes.last_mut().expect("one was pushed");
            *last |= part.to_le_bytes()[0] << self.free;
        }
    }

    /// Appends the 64 bits of a float.
    pub(super) fn float(&mut self, v: f64) {
        self.push(v.to_bits(), 64);
    }

    /// Appends a number in groups of seven bits, the lowest first.
    pub(super) fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number & 0x7f | 0x80, 8);
            number >>= 7;
        }
        self.push(number, 8);
    }

    /// The same with a sign, which goes to the lowest bit.
    pub(super) fn signed_varint(&mut self, number: i64) {
        self.varint(zigzag(number));
    }

    /// Appends a number with few bits if it is small: one for zero, else as many ones
    /// as there are shorter widths, a zero, and the number.
    pub(super) fn varbit(&mut self, number: u64) {
        let width = WIDTHS.iter().position(|width| number >> width == 0);
        self.in_width(number, number == 0, width);
    }

    /// The same with a sign.
    pub(super) fn signed_varbit(&mut self, number: i64) {
        let width = WIDTHS.iter().position(|width| fits(number, *width));
        self.in_width(number.cast_unsigned(), number == 0, width);
    }

    fn in_width(&mut self, number: u64, is_zero: bool, width: Option<usize>) {
        match width {
            _ if is_zero => self.push(0, 1),
            None => {
                self.push(0xff, 8);
                self.push(number, 64);
            }
            Some(at) => {
                let ones = u32::try_from(at).expect("there are seven widths") + 1;
                self.push(!1, ones + 1);
                self.push(number, WIDTHS[at]);
            }
        }
    }
}

/// Whether a number fits into so many bits. One more above zero than below it, which
/// is not how the rest of the world counts, but how Prometheus reads them.
pub(super) fn fits(number: i64, bits: u32) -> bool {
    let half = 1_i64 << (bits - 1);
    (-half + 1..=half).contains(&number)
}
