//! Blocks of up to 128 integers, packed to the width that most of them need.
//!
//! `width u8 (bit 7: patched) | reference zigzag varint | patches | packed bits`
//!
//! Every integer is stored as its distance to the reference, wrapping, in `width`
//! bits, least significant bit first. The few that need more are patched: their
//! low bits are packed as all others', `count u8` and then `index u8, high bits
//! varint` for each come before the packed bits. So a counter reset or a spike
//! costs a few bytes instead of widening its whole block.

use super::Malformed;
use super::varint::{Reader, bits, len_u64, low_word, put_i64, put_u64, zigzag};

/// How many integers a full block has.
pub(super) const BLOCK: usize = 128;

const PATCHED: u8 = 0x80;

/// How one block is to be packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    reference: i64,
    width: u8,
    /// The exact size but for the patches, whose bytes are counted by the widest.
    pub(super) bytes: usize,
}

/// Finds the reference and the width that need the fewest bytes.
pub(super) fn plan(block: &[i64]) -> Plan {
    debug_assert!(!block.is_empty() && block.len() <= BLOCK);
    let (mut min, mut max) = (block[0], block[0]);
    for &value in block {
        min = min.min(value);
        max = max.max(value);
    }
    let by_min = plan_from(block, min);
    // A low outlier lifts every other value; then a reference above it is better.
    let spread = bits(distance(max, min));
    if spread > 8 && block.len() > 8 && u32::from(by_min.width) + 2 >= spread {
        let third = third_smallest(block);
        if bits(distance(max, third)) + 1 < spread {
            let by_third = plan_from(block, third);
            if by_third.bytes < by_min.bytes {
                return by_third;
            }
        }
    }
    by_min
}

fn third_smallest(block: &[i64]) -> i64 {
    let mut low = [i64::MAX; 3];
    for &value in block {
        if value < low[2] {
            low[2] = value;
            low.sort_unstable();
        }
    }
    low[2]
}

fn plan_from(block: &[i64], reference: i64) -> Plan {
    let mut counts = [0u8; 65];
    for &value in block {
        counts[bits(distance(value, reference)) as usize] += 1;
    }
    let widest = (0..=64u8)
        .rfind(|width| counts[usize::from(*width)] > 0)
        .unwrap_or(0);
    let head = 1 + len_u64(zigzag(reference));
    let mut best = Plan {
        reference,
        width: widest,
        bytes: head + packed_len(block.len(), widest),
    };
    let mut patches = 0;
    for width in (0..widest).rev() {
        patches += usize::from(counts[usize::from(width) + 1]);
        if patches > block.len() / 4 {
            break;
        }
        let patch_bytes = 1 + usize::from((widest - width).div_ceil(7));
        let bytes = head + 1 + patches * patch_bytes + packed_len(block.len(), width);
        if bytes < best.bytes {
            best.width = width;
            best.bytes = bytes;
        }
    }
    best
}

fn distance(value: i64, reference: i64) -> u64 {
    value.wrapping_sub(reference).cast_unsigned()
}

fn packed_len(n: usize, width: u8) -> usize {
    (n * usize::from(width)).div_ceil(8)
}

/// Appends the block as planned.
pub(super) fn encode(block: &[i64], plan: Plan, out: &mut Vec<u8>) {
    let head_at = out.len();
    out.push(plan.width);
    put_i64(plan.reference, out);
    let mut patches = 0u8;
    let count_at = out.len();
    if plan.width < 64 {
        for (index, &value) in (0u8..).zip(block) {
            let high = distance(value, plan.reference) >> plan.width;
            if high != 0 {
                if patches == 0 {
                    out[head_at] |= PATCHED;
                    out.push(0);
                }
                patches += 1;
                out.push(index);
                put_u64(high, out);
            }
        }
    }
    if patches > 0 {
        out[count_at] = patches;
    }
    pack(block, plan, out);
}

fn pack(block: &[i64], plan: Plan, out: &mut Vec<u8>) {
    if plan.width == 0 {
        return;
    }
    let mask = u64::MAX >> (64 - plan.width);
    let mut pending = 0u128;
    let mut used = 0u8;
    for &value in block {
        pending |= u128::from(distance(value, plan.reference) & mask) << used;
        used += plan.width;
        if used >= 64 {
            out.extend_from_slice(&low_word(pending).to_le_bytes());
            pending >>= 64;
            used -= 64;
        }
    }
    let tail = pending.to_le_bytes();
    out.extend_from_slice(&tail[..usize::from(used).div_ceil(8)]);
}

/// Steps over a block of `n` integers.
pub(super) fn skip(reader: &mut Reader<'_>, n: usize) -> Result<(), Malformed> {
    let head = Head::read(reader)?;
    for _ in 0..head.patches {
        reader.byte()?;
        reader.u64()?;
    }
    reader.bytes(packed_len(n, head.width))?;
    Ok(())
}

/// Reads a block of `out.len()` integers, at most [`BLOCK`].
pub(super) fn decode(reader: &mut Reader<'_>, out: &mut [i64]) -> Result<(), Malformed> {
    debug_assert!(out.len() <= BLOCK);
    let head = Head::read(reader)?;
    let mut patches = *reader;
    for _ in 0..head.patches {
        reader.byte()?;
        reader.u64()?;
    }
    let packed = reader.bytes(packed_len(out.len(), head.width))?;
    unpack(packed, head.width, head.reference, out);
    for _ in 0..head.patches {
        let index = usize::from(patches.byte()?);
        let high = patches.u64()?;
        let value = out.get_mut(index).ok_or(Malformed("patch outside block"))?;
        *value = value.wrapping_add((high << head.width).cast_signed());
    }
    Ok(())
}

struct Head {
    width: u8,
    reference: i64,
    patches: u8,
}

impl Head {
    fn read(reader: &mut Reader<'_>) -> Result<Head, Malformed> {
        let head = reader.byte()?;
        let patched = head & PATCHED != 0;
        let width = head & !PATCHED;
        if width > 64 || (patched && width == 64) {
            return Err(Malformed("block width above 64 bits"));
        }
        Ok(Head {
            width,
            reference: reader.i64()?,
            patches: if patched { reader.byte()? } else { 0 },
        })
    }
}

fn unpack(packed: &[u8], width: u8, reference: i64, out: &mut [i64]) {
    match width {
        0 => out.fill(reference),
        1..=56 => unpack_narrow(packed, width, reference, out),
        _ => unpack_wide(packed, width, reference, out),
    }
}

fn unpack_narrow(packed: &[u8], width: u8, reference: i64, out: &mut [i64]) {
    let bytes = usize::from(width);
    let (groups, _) = out.as_chunks_mut::<GROUP>();
    // Groups with a word behind their last integer's first byte; the others are few.
    let whole = (packed.len().saturating_sub(WORD) / bytes).min(groups.len());
    UNPACK[bytes - 1](packed, reference, &mut groups[..whole]);
    let left = packed.get(whole * bytes..).unwrap_or_default();
    unpack_rest(left, width, reference, &mut out[whole * GROUP..]);
}

/// Integers that end at a whole byte whatever their width is.
const GROUP: usize = 8;
const WORD: usize = 8;

type Unpack = fn(&[u8], i64, &mut [[i64; GROUP]]);

macro_rules! unpack_of {
    ($($width:literal),*) => { [$(unpack_groups::<$width>),*] };
}

/// One function for each width from 1 to 56: all their shifts are constants.
#[rustfmt::skip]
const UNPACK: [Unpack; 56] = unpack_of!(
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
        15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
        29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42,
        43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56
);

fn unpack_groups<const WIDTH: usize>(packed: &[u8], reference: i64, out: &mut [[i64; GROUP]]) {
    for (group, at) in out.iter_mut().zip((0..).step_by(WIDTH)) {
        unpack_group::<WIDTH>(&packed[at..], reference, group);
    }
}

/// What is behind the groups that have a whole word behind them: shorter code than
/// one more loop for each width.
fn unpack_rest(packed: &[u8], width: u8, reference: i64, out: &mut [i64]) {
    let mut padded = [0; 2 * (56 + WORD)];
    padded[..packed.len()].copy_from_slice(packed);
    let mask = u64::MAX >> (64 - width);
    for (value, bit) in out.iter_mut().zip((0..).step_by(usize::from(width))) {
        let word = padded[bit / 8..].first_chunk::<WORD>().expect("a word");
        let distance = (u64::from_le_bytes(*word) >> (bit % 8)) & mask;
        *value = reference.wrapping_add(distance.cast_signed());
    }
}

#[inline(always)]
fn unpack_group<const WIDTH: usize>(bytes: &[u8], reference: i64, group: &mut [i64; GROUP]) {
    let bytes = &bytes[..WIDTH + WORD];
    let mask = u64::MAX >> (64 - WIDTH);
    for (i, value) in group.iter_mut().enumerate() {
        let bit = i * WIDTH;
        let word = bytes[bit / 8..].first_chunk::<WORD>().expect("a word");
        let distance = (u64::from_le_bytes(*word) >> (bit % 8)) & mask;
        *value = reference.wrapping_add(distance.cast_signed());
    }
}

/// For widths above 56, with which an integer may touch nine bytes.
fn unpack_wide(packed: &[u8], width: u8, reference: i64, out: &mut [i64]) {
    let mask = u64::MAX >> (64 - width);
    let mut bit = 0;
    for value in out {
        let rest = &packed[bit / 8..];
        let mut word = [0u8; 16];
        let len = rest.len().min(word.len());
        word[..len].copy_from_slice(&rest[..len]);
        let distance = low_word(u128::from_le_bytes(word) >> (bit % 8)) & mask;
        *value = reference.wrapping_add(distance.cast_signed());
        bit += usize::from(width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(block: &[i64]) -> usize {
        let mut bytes = Vec::new();
        encode(block, plan(block), &mut bytes);
        let mut reader = Reader::new(&bytes);
        let mut back = vec![0; block.len()];
        decode(&mut reader, &mut back).unwrap();
        assert_eq!(back, block);
        assert!(reader.rest().is_empty());
        let mut skipping = Reader::new(&bytes);
        skip(&mut skipping, block.len()).unwrap();
        assert!(skipping.rest().is_empty());
        bytes.len()
    }

    #[test]
    fn equal_values_need_only_the_reference() {
        assert_eq!(check(&[7; BLOCK]), 2);
    }

    #[test]
    fn a_spike_or_a_reset_does_not_widen_the_block() {
        let mut block: Vec<i64> = (0..128).map(|i| 1_500 + i % 8).collect();
        let plain = check(&block);
        block[60] = 1 << 50;
        assert!(check(&block) < plain + 15);
        block[61] = -(1 << 50);
        assert!(check(&block) < plain + 30);
    }

    #[test]
    fn the_ends_of_the_range_survive() {
        check(&[i64::MIN, i64::MAX, 0, -1, 1]);
        check(&[i64::MAX]);
    }

    proptest! {
        #[test]
        fn any_block_comes_back(block in prop::collection::vec(any::<i64>(), 1..=BLOCK)) {
            check(&block);
        }

        #[test]
        fn blocks_of_any_width_come_back(
            shift in 0u32..64,
            seeds in prop::collection::vec(any::<i64>(), 1..=BLOCK),
        ) {
            let block: Vec<i64> = seeds.iter().map(|seed| seed >> shift).collect();
            check(&block);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            n in 1usize..=BLOCK,
        ) {
            let mut out = vec![0; n];
            let _ = decode(&mut Reader::new(&bytes), &mut out);
            let _ = skip(&mut Reader::new(&bytes), n);
        }
    }
}
