//! Integers by a prefix code: nearly as small as pco makes them, and decoded three
//! times as fast.
//!
//! `values in a page varint | shift u8 (bit 7: steps) | base zigzag varint |
//!  width of escapes u8 | code lengths | pages`
//!
//! What is coded are the integers or their steps. Each stands `d` above the base: its
//! high bits, `d >> shift`, are a symbol with a code of up to 10 bits, its low bits
//! follow as they are. Numbers near each other are about as frequent, so that with the
//! right shift little is lost, and there are few codes to write down. What lies outside
//! of the 255 symbols comes behind the code of the escape, as a zigzag distance.
//!
//! - code lengths: first symbol u8, count varint, a nibble for each (0: not used), and
//!   one for the escape.
//! - page: its first integer, zigzag varint, if steps are coded; the lengths of four bit
//!   streams, varints; the streams. Each has a quarter of the page's numbers: a look into
//!   the table of codes has to wait for the one before, but four such chains run side by
//!   side. Each page is decoded alone.
//!
//! Codes are canonical: ascending by length and symbol. Bits are taken from the low end.

mod codes;
mod plan;

pub(super) use plan::encode;

use std::ops::Range;

use self::codes::{each_code, read_lengths};
use super::Malformed;
use super::varint::Reader;
use crate::store::bits::{WORD_BITS, word_at};

/// The longest code. The table has an entry for each pattern of so many bits.
const CODE_MAX: u8 = 10;
const TABLE: usize = 1 << CODE_MAX;
/// Symbols besides the escape.
const SYMBOLS: usize = 255;
const ESCAPE: usize = SYMBOLS;
/// Streams of a page.
const STREAMS: usize = 4;
/// The most low bits: with a code they have to come out of one word.
const SHIFT_MAX: u32 = 40;
const IS_STEPS: u8 = 0x80;
/// Values of a page. Each page takes some 8 bytes.
const PAGE_VALUES: usize = 720;

/// Hands the pages that overlap `range` of a sequence of `n` to `sink`, each with the
/// index of its first integer; decodes no others.
pub(super) fn decode(
    body: &[u8],
    n: usize,
    range: Range<usize>,
    sink: &mut dyn FnMut(&[i64], usize),
) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    let page_values = reader.usize()?;
    if page_values == 0 || page_values > n.max(1) {
        return Err(Malformed("pages of another size"));
    }
    let head = reader.byte()?;
    let mut code = Code {
        shift: (head & !IS_STEPS).into(),
        base: reader.i64()?,
        wide: reader.byte()?.into(),
        table: [0; TABLE],
        values: [0; SYMBOLS + 1],
    };
    if code.shift > SHIFT_MAX || code.wide > u64::BITS {
        return Err(Malformed("more bits than a number has"));
    }
    code.fill(&read_lengths(&mut reader)?)?;
    let is_steps = head & IS_STEPS != 0;
    let mut values = vec![0; page_values];
    for at in (0..range.end).step_by(page_values) {
        let page = &mut values[..page_values.min(n - at)];
        let first = if is_steps { reader.i64()? } else { 0 };
        let mut lengths = [0; STREAMS];
        for len in &mut lengths {
            *len = reader.usize()?;
        }
        let streams = reader.rest();
        let all = lengths
            .iter()
            .try_fold(0_usize, |sum, len| sum.checked_add(*len));
        reader.bytes(all.ok_or(Malformed("page too long"))?)?;
        if at + page.len() <= range.start {
            continue;
        }
        if is_steps {
            page[0] = first;
            code.read(streams, lengths, &mut page[1..])?;
            let mut sum = first;
            for value in &mut page[1..] {
                sum = sum.wrapping_add(*value);
                *value = sum;
            }
        } else {
            code.read(streams, lengths, page)?;
        }
        sink(page, at);
    }
    Ok(())
}

/// Which of a page's numbers a stream has.
fn quarter(n: usize, stream: usize) -> Range<usize> {
    n * stream / STREAMS..n * (stream + 1) / STREAMS
}

/// What turns bits into numbers.
struct Code {
    shift: u32,
    base: i64,
    wide: u32,
    /// For each pattern of bits the symbol with whose code it begins, and behind it the
    /// length of that. No code: 0.
    table: [u16; TABLE],
    /// The smallest number of each symbol.
    values: [i64; SYMBOLS + 1],
}

impl Code {
    /// A table of the codes up to one length, twice, is that of those up to the next
    /// one, but for the places of these: each code is written down once.
    fn fill(&mut self, lengths: &[u8; SYMBOLS + 1]) -> Result<(), Malformed> {
        let mut size = 1;
        each_code(lengths, |symbol, code, len| {
            let high = u64::from(symbol) << self.shift;
            self.values[usize::from(symbol)] = self.base.wrapping_add(high.cast_signed());
            double_up_to(1 << len, &mut size, &mut self.table);
            self.table[usize::from(code)] = u16::from_le_bytes([symbol, len]);
        })?;
        double_up_to(TABLE, &mut size, &mut self.table);
        Ok(())
    }

    /// Fills `out` from the streams that `bytes` begins with.
    fn read(
        &self,
        bytes: &[u8],
        lengths: [usize; STREAMS],
        out: &mut [i64],
    ) -> Result<(), Malformed> {
        let mut ats = [0; STREAMS];
        let mut end = 0;
        for (at, len) in ats.iter_mut().zip(lengths) {
            *at = end * 8;
            end += len;
        }
        let n = out.len();
        let (ab, cd) = out.split_at_mut(n / 2);
        let (a, b) = ab.split_at_mut(n / STREAMS);
        let (c, d) = cd.split_at_mut(quarter(n, 2).len());
        let [mut at_a, mut at_b, mut at_c, mut at_d] = ats;
        // Quarters differ by one number at most. Two numbers come out of one word.
        let mut common = 0;
        if 2 * (u32::from(CODE_MAX) + self.shift) <= WORD_BITS {
            common = n / STREAMS / 2 * 2;
            let ab = pairs(a).iter_mut().zip(pairs(b));
            let cd = pairs(c).iter_mut().zip(pairs(d));
            for ((a, b), (c, d)) in ab.zip(cd) {
                (a[0], a[1]) = self.pair(bytes, &mut at_a);
                (b[0], b[1]) = self.pair(bytes, &mut at_b);
                (c[0], c[1]) = self.pair(bytes, &mut at_c);
                (d[0], d[1]) = self.pair(bytes, &mut at_d);
            }
        }
        let rests = [
            (a, &mut at_a),
            (b, &mut at_b),
            (c, &mut at_c),
            (d, &mut at_d),
        ];
        for (rest, at) in rests {
            for value in &mut rest[common..] {
                *value = self.next(bytes, at);
            }
        }
        let mut end = 0;
        for (at, len) in [at_a, at_b, at_c, at_d].into_iter().zip(lengths) {
            end += len;
            if at.div_ceil(8) != end {
                return Err(Malformed("stream of another length"));
            }
        }
        Ok(())
    }

    /// The two numbers at a bit, which moves behind them. No array: to load both at once
    /// right after each was stored took most of the time.
    #[inline(always)]
    fn pair(&self, bytes: &[u8], at: &mut usize) -> (i64, i64) {
        let mask = (1 << self.shift) - 1;
        let word = word_at(bytes, *at);
        let [symbol, len] = self.first(word);
        let (low, more) = (word >> len, u32::from(len) + self.shift);
        let word = word >> more;
        let [other, len] = self.first(word);
        if usize::from(symbol.max(other)) == ESCAPE {
            let first = self.next(bytes, at);
            return (first, self.next(bytes, at));
        }
        *at += (more + u32::from(len) + self.shift) as usize;
        (
            self.values[usize::from(symbol)].wrapping_add((low & mask).cast_signed()),
            self.values[usize::from(other)].wrapping_add((word >> len & mask).cast_signed()),
        )
    }

    /// The symbol with whose code the bits begin, and the length of that.
    #[inline(always)]
    fn first(&self, word: u64) -> [u8; 2] {
        let [a, b, ..] = word.to_le_bytes();
        self.table[usize::from(u16::from_le_bytes([a, b])) % TABLE].to_le_bytes()
    }

    /// The number at a bit, which moves behind it.
    #[inline(never)]
    fn next(&self, bytes: &[u8], at: &mut usize) -> i64 {
        let word = word_at(bytes, *at);
        let [symbol, len] = self.first(word);
        if usize::from(symbol) == ESCAPE {
            *at += usize::from(len);
            return self.escaped(bytes, at);
        }
        let low = (word >> len) & ((1 << self.shift) - 1);
        *at += usize::from(len) + self.shift as usize;
        self.values[usize::from(symbol)].wrapping_add(low.cast_signed())
    }

    #[cold]
    fn escaped(&self, bytes: &[u8], at: &mut usize) -> i64 {
        let low = word_at(bytes, *at) & 0xffff_ffff;
        let high = word_at(bytes, *at + 32) & 0xffff_ffff;
        let both = high << 32 | low;
        let zigzag = both & u64::MAX.checked_shr(u64::BITS - self.wide).unwrap_or(0);
        *at += self.wide as usize;
        let apart = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        self.base.wrapping_add(apart)
    }
}

/// Repeats the first `size` entries until there are `wanted`.
#[inline(always)]
fn double_up_to(wanted: usize, size: &mut usize, table: &mut [u16; TABLE]) {
    while *size < wanted {
        table.copy_within(..*size, *size);
        *size *= 2;
    }
}

fn pairs(numbers: &mut [i64]) -> &mut [[i64; 2]] {
    numbers.as_chunks_mut().0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: usize = 1 << 20;

    fn steps_of(values: &[i64]) -> Vec<i64> {
        let pairs = values.windows(2);
        pairs.map(|pair| pair[1].wrapping_sub(pair[0])).collect()
    }

    /// Encodes and decodes; how many bytes it took.
    fn check(values: &[i64]) -> usize {
        let body = encode(values, &steps_of(values), BYTES_MAX).unwrap();
        let n = values.len();
        for range in [0..n, n / 3..n, n / 4..n / 2, n - 1..n, 0..0] {
            let mut seen = vec![0; n];
            let mut sink = |page: &[i64], at: usize| {
                seen[at..at + page.len()].copy_from_slice(page);
            };
            decode(&body, n, range.clone(), &mut sink).unwrap();
            assert_eq!(seen[range.clone()], values[range]);
        }
        body.len()
    }

    /// Numbers as from a die of so many sides.
    fn dice(n: usize, sides: u64) -> Vec<i64> {
        let mut state = 7_u64;
        let roll = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 33) % sides).cast_signed()
        };
        (0..n).map(roll).collect()
    }

    #[test]
    fn even_jitter_takes_little_more_than_its_bits() {
        let jitter = dice(1_080, 301);
        // log2 301 = 8.23 bits are 1,111 bytes.
        assert!(check(&jitter) < 1_200);
    }

    #[test]
    fn a_counter_is_coded_by_its_steps_and_a_reset_is_an_escape() {
        let mut sum = 0;
        let steps = dice(5_760, 9);
        let mut counter: Vec<i64> = steps.iter().map(|s| (sum += s, sum).1).collect();
        // log2 9 = 3.17 bits, and some bytes for each page.
        let plain = check(&counter);
        assert!(plain < 5_760 * 33 / 80 + 200, "{plain}");
        counter[3_000..].iter_mut().for_each(|v| *v -= 10_000);
        // The escape has a code too: one of the others is longer for it.
        assert!(check(&counter) < plain + 150);
    }

    proptest! {
        #[test]
        fn any_sequence_comes_back(
            shift in 0_u32..64,
            seeds in prop::collection::vec(any::<i64>(), 64..900),
        ) {
            let values: Vec<i64> = seeds.iter().map(|seed| seed >> shift).collect();
            let steps = steps_of(&values);
            if encode(&values, &steps, BYTES_MAX).is_some() {
                check(&values);
            }
        }

        #[test]
        fn rare_far_numbers_come_back(
            values in prop::collection::vec(
                prop_oneof![60 => 0..40_i64, 1 => any::<i64>()], 64..2_000,
            ),
        ) {
            if encode(&values, &steps_of(&values), BYTES_MAX).is_some() {
                check(&values);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            body in prop::collection::vec(any::<u8>(), 0..300),
            n in 1_usize..1_000,
        ) {
            let mut seen = 0;
            let _ = decode(&body, n, 0..n, &mut |page, _| seen += page.len());
            prop_assert!(seen <= n);
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0_usize..600, with in 1_u8..) {
            let values = dice(1_500, 12);
            let mut body = encode(&values, &steps_of(&values), BYTES_MAX).unwrap();
            let at = at % body.len();
            body[at] ^= with;
            let mut seen = 0;
            let _ = decode(&body, 1_500, 0..1_500, &mut |page, _| seen += page.len());
            prop_assert!(seen <= 1_500);
        }
    }
}
