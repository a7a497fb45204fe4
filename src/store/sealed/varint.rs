//! Variable-length integers and a reader that never runs past its bytes.
//!
//! An unsigned integer is little-endian base 128, at most 10 bytes; a signed one
//! is mapped to it by zigzag, so that small negative numbers stay short.

use super::Malformed;

/// Appends an unsigned integer.
pub(crate) fn put_u64(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a signed integer.
pub(crate) fn put_i64(value: i64, out: &mut Vec<u8>) {
    put_u64(zigzag(value), out);
}

/// How many bytes [`put_u64`] writes.
pub(crate) fn len_u64(value: u64) -> usize {
    (bits(value).max(1) as usize).div_ceil(7)
}

/// 0, -1, 1, -2, .. to 0, 1, 2, 3, ..
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// How many bits the number needs; 0 for 0.
pub(crate) fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// The low 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
pub(crate) fn low_word(wide: u128) -> u64 {
    wide as u64
}

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What was not read yet.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Most numbers have one or two bytes; those cost no loop.
    #[inline(always)]
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        match *self.rest {
            [a, ref rest @ ..] if a < 0x80 => {
                self.rest = rest;
                Ok(u64::from(a))
            }
            [a, b, ref rest @ ..] if b < 0x80 => {
                self.rest = rest;
                Ok(u64::from(a & 0x7f) | u64::from(b) << 7)
            }
            _ => self.long_u64(),
        }
    }

    #[inline(never)]
    fn long_u64(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let digit = u64::from(byte & 0x7f);
            if shift == 63 && digit > 1 {
                break;
            }
            value |= digit << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("number above 64 bits"))
    }

    #[inline(always)]
    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.u64().map(unzigzag)
    }

    #[inline(always)]
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.u64()?).map_err(|_| Malformed("number above 32 bits"))
    }

    #[inline(always)]
    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        u16::try_from(self.u64()?).map_err(|_| Malformed("number above 16 bits"))
    }

    #[inline(always)]
    pub(crate) fn usize(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u64()?).map_err(|_| Malformed("number above the address space"))
    }
}

const SHORT: Malformed = Malformed("ends too early");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_their_length_is_known() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_u64(value, &mut bytes);
            assert_eq!(bytes.len(), len_u64(value), "{value}");
            assert_eq!(Reader::new(&bytes).u64(), Ok(value));
        }
        for value in [0, -1, 1, -64, 64, i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            put_i64(value, &mut bytes);
            assert_eq!(Reader::new(&bytes).i64(), Ok(value));
        }
    }

    #[test]
    fn an_endless_or_cut_number_is_refused() {
        assert!(Reader::new(&[0xff; 11]).u64().is_err());
        assert!(Reader::new(&[0x80]).u64().is_err());
        assert!(Reader::new(&[]).byte().is_err());
    }
}
