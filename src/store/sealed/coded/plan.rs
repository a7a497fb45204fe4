//! Finding the code of a sequence, and writing it.

use super::super::varint::{bits, put_i64, put_u64, zigzag};
use super::{
    CODE_MAX, ESCAPE, IS_STEPS, PAGE_VALUES, SHIFT_MAX, STREAMS, SYMBOLS, TABLE, each_code, quarter,
};

/// Of each end of the sorted numbers this part may be escapes.
const FAR: usize = 256;

/// The smaller form of both: of the integers or of their steps. Nothing when it would
/// not be below `bytes_max`.
pub(in super::super) fn encode(values: &[i64], steps: &[i64], bytes_max: usize) -> Option<Vec<u8>> {
    let by_value = Plan::of(values);
    let by_step = Plan::of(steps);
    let is_steps = by_step.bits <= by_value.bits;
    let plan = if is_steps { by_step } else { by_value };
    if plan.bits == usize::MAX || plan.bits / 8 >= bytes_max {
        return None;
    }
    let mut out = Vec::with_capacity(plan.bits / 8 + 64);
    put_u64(PAGE_VALUES.min(values.len()) as u64, &mut out);
    out.push(plan.shift | if is_steps { IS_STEPS } else { 0 });
    put_i64(plan.base, &mut out);
    out.push(plan.wide);
    plan.put_lengths(&mut out);
    let codes = plan.codes();
    for (at, page) in (0..).step_by(PAGE_VALUES).zip(values.chunks(PAGE_VALUES)) {
        if is_steps {
            put_i64(page[0], &mut out);
            let steps = &steps[at..at + page.len() - 1];
            plan.put_page(steps, &codes, &mut out);
        } else {
            plan.put_page(page, &codes, &mut out);
        }
    }
    (out.len() < bytes_max).then_some(out)
}

/// How numbers are coded.
struct Plan {
    base: i64,
    shift: u8,
    /// Bits of an escaped distance.
    wide: u8,
    /// The length of each symbol's code, and of the escape's.
    lengths: [u8; SYMBOLS + 1],
    /// What all comes to, about.
    bits: usize,
}

impl Plan {
    fn of(numbers: &[i64]) -> Plan {
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable();
        let far = sorted.len() / FAR;
        let ends = (sorted[0], sorted[sorted.len() - 1]);
        let inner = (sorted[far], sorted[sorted.len() - 1 - far]);
        let width = |(low, high): (i64, i64)| bits(distance(high, low));
        let (base, last) = if width(ends) == width(inner) {
            ends
        } else {
            inner
        };
        let needed = bits(distance(last, base)).saturating_sub(8);
        let mut best = Plan::none();
        // With more low bits there are fewer codes to write down, up to a point.
        for shift in needed..=SHIFT_MAX {
            let shift = u8::try_from(shift).expect("40 at most");
            let plan = Plan::with(&sorted, base, shift);
            if plan.bits >= best.bits {
                break;
            }
            best = plan;
        }
        best
    }

    /// Numbers that are too far from each other.
    fn none() -> Plan {
        Plan {
            base: 0,
            shift: 0,
            wide: 64,
            lengths: [0; SYMBOLS + 1],
            bits: usize::MAX,
        }
    }

    fn with(numbers: &[i64], base: i64, shift: u8) -> Plan {
        let mut counts = [0_u32; SYMBOLS + 1];
        let mut wide = 0;
        for number in numbers {
            let symbol = symbol_of(*number, base, shift);
            counts[symbol] += 1;
            if symbol == ESCAPE {
                wide = wide.max(bits(zigzag(number.wrapping_sub(base))));
            }
        }
        let lengths = code_lengths(&counts);
        let used = counts.iter().zip(&lengths);
        let coded: usize = used.map(|(n, len)| *n as usize * usize::from(*len)).sum();
        let low = numbers.len() * usize::from(shift);
        let far = counts[ESCAPE] as usize * wide as usize;
        let table = counts[..ESCAPE].iter().rposition(|n| *n > 0).unwrap_or(0);
        Plan {
            base,
            shift,
            wide: u8::try_from(wide).expect("64 at most"),
            lengths,
            bits: coded + low + far + 4 * table,
        }
    }

    fn put_lengths(&self, out: &mut Vec<u8>) {
        let is_used = |len: &u8| *len > 0;
        let first = self.lengths[..ESCAPE].iter().position(is_used).unwrap_or(0);
        let end = self.lengths[..ESCAPE].iter().rposition(is_used);
        let count = end.map_or(0, |end| end + 1 - first);
        out.push(u8::try_from(first).expect("255 symbols"));
        put_u64(count as u64, out);
        let escape = std::iter::once(self.lengths[ESCAPE]);
        let mut nibbles = self.lengths[first..first + count]
            .iter()
            .copied()
            .chain(escape);
        while let Some(low) = nibbles.next() {
            out.push(low | nibbles.next().unwrap_or(0) << 4);
        }
    }

    /// Of each symbol its code, first bit lowest.
    fn codes(&self) -> [u16; SYMBOLS + 1] {
        let mut codes = [0; SYMBOLS + 1];
        let note = |symbol: u8, code, _| codes[usize::from(symbol)] = code;
        each_code(&self.lengths, note).expect("BUG: lengths of no prefix code");
        codes
    }

    fn put_page(&self, numbers: &[i64], codes: &[u16; SYMBOLS + 1], out: &mut Vec<u8>) {
        let mut streams = Vec::new();
        for at in 0..STREAMS {
            let mut stream = Bits::default();
            for number in &numbers[quarter(numbers.len(), at)] {
                self.put(*number, codes, &mut stream);
            }
            let before = streams.len();
            stream.finish(&mut streams);
            put_u64((streams.len() - before) as u64, out);
        }
        out.extend_from_slice(&streams);
    }

    fn put(&self, number: i64, codes: &[u16; SYMBOLS + 1], out: &mut Bits) {
        let symbol = symbol_of(number, self.base, self.shift);
        out.put(codes[symbol].into(), self.lengths[symbol]);
        if symbol == ESCAPE {
            out.put(zigzag(number.wrapping_sub(self.base)), self.wide);
        } else {
            let low = distance(number, self.base) & ((1 << self.shift) - 1);
            out.put(low, self.shift);
        }
    }
}

fn distance(number: i64, base: i64) -> u64 {
    number.wrapping_sub(base).cast_unsigned()
}

fn symbol_of(number: i64, base: i64, shift: u8) -> usize {
    let high = distance(number, base) >> shift;
    usize::try_from(high).map_or(ESCAPE, |high| high.min(ESCAPE))
}

/// Code lengths by Huffman. Too long ones are cut, and what that takes too much is taken
/// from the longest of the others.
fn code_lengths(counts: &[u32; SYMBOLS + 1]) -> [u8; SYMBOLS + 1] {
    let mut lengths = [0; SYMBOLS + 1];
    // Counts with their symbols below them, ascending.
    let leaves = counts.iter().zip(0_u64..).filter(|(count, _)| **count > 0);
    let mut leaves: Vec<u64> = leaves
        .map(|(count, i)| u64::from(*count) << 8 | i)
        .collect();
    leaves.sort_unstable();
    let symbol_of = |leaf: &u64| usize::from(leaf.to_le_bytes()[0]);
    if let [only] = &leaves[..] {
        lengths[symbol_of(only)] = 1;
        return lengths;
    }
    // Nodes ascend by weight, first the leaves, then what joins two of them.
    let n = leaves.len();
    let mut weights: Vec<u64> = leaves.iter().map(|leaf| leaf >> 8).collect();
    let mut parents = vec![0; 2 * n];
    let (mut leaf, mut node) = (0, n);
    for next in n..(2 * n).saturating_sub(1) {
        let mut weight = 0;
        for _ in 0..2 {
            let lighter = node >= next || leaf < n && weights[leaf] <= weights[node];
            let taken = if lighter { &mut leaf } else { &mut node };
            weight += weights[*taken];
            parents[*taken] = next;
            *taken += 1;
        }
        weights.push(weight);
    }
    let mut depths = vec![0_u8; 2 * n];
    for at in (0..(2 * n).saturating_sub(2)).rev() {
        depths[at] = depths[parents[at]] + 1;
    }
    for (depth, leaf) in depths.iter().zip(&leaves) {
        lengths[symbol_of(leaf)] = (*depth).min(CODE_MAX);
    }
    let space = |lengths: &[u8]| -> usize {
        let used = lengths.iter().filter(|len| **len > 0);
        used.map(|len| TABLE >> len).sum()
    };
    while space(&lengths) > TABLE {
        let longest = leaves.iter().map(symbol_of);
        let longest = longest.filter(|symbol| lengths[*symbol] < CODE_MAX);
        let longest = longest.max_by_key(|symbol| lengths[*symbol]);
        lengths[longest.expect("256 codes of 8 bits fit")] += 1;
    }
    lengths
}

/// Bits in the making, the first one lowest.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u128,
    used: u8,
}

impl Bits {
    fn put(&mut self, bits: u64, count: u8) {
        self.pending |= u128::from(bits) << self.used;
        self.used += count;
        while self.used >= 8 {
            self.bytes.push(self.pending.to_le_bytes()[0]);
            self.pending >>= 8;
            self.used -= 8;
        }
    }

    fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        let rest = self.pending.to_le_bytes();
        out.extend_from_slice(&rest[..usize::from(self.used.div_ceil(8))]);
    }
}
