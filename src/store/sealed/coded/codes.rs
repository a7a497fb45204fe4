//! Which symbol has which code.

use super::super::Malformed;
use super::super::varint::Reader;
use super::{CODE_MAX, ESCAPE, SYMBOLS, TABLE};

/// The lengths of codes as they are written down; 0 for symbols that have none.
pub(super) fn read_lengths(reader: &mut Reader<'_>) -> Result<[u8; SYMBOLS + 1], Malformed> {
    let mut lengths = [0; SYMBOLS + 1];
    let first = usize::from(reader.byte()?);
    let count = reader.usize()?;
    if first.saturating_add(count) > SYMBOLS {
        return Err(Malformed("more symbols than there are"));
    }
    let nibbles = reader.bytes(count / 2 + 1)?;
    let nibble = |at: usize| nibbles[at / 2] >> (at % 2 * 4) & 15;
    for (at, len) in lengths[first..first + count].iter_mut().enumerate() {
        *len = nibble(at);
    }
    lengths[ESCAPE] = nibble(count);
    Ok(lengths)
}

/// Visits all symbols that have a code, by its length and in their own order: each with
/// its code, whose first bit is lowest, and the length.
pub(super) fn each_code(
    lengths: &[u8; SYMBOLS + 1],
    mut visit: impl FnMut(u8, u16, u8),
) -> Result<(), Malformed> {
    let mut code = 0_u16;
    for symbol in sorted(lengths)?.iter() {
        let len = lengths[usize::from(*symbol)];
        visit(*symbol, code, len);
        // One more: the last bit, which is the highest, carries to those before it.
        let zeros = code ^ ((1 << len) - 1);
        let Some(last) = zeros.checked_ilog2() else {
            break;
        };
        code = code & ((1 << last) - 1) | 1 << last;
    }
    Ok(())
}

/// Symbols, at most all.
struct Symbols {
    all: [u8; SYMBOLS + 1],
    count: usize,
}

impl Symbols {
    fn iter(&self) -> std::slice::Iter<'_, u8> {
        self.all[..self.count].iter()
    }
}

/// The symbols that have a code, in the order of codes.
fn sorted(lengths: &[u8; SYMBOLS + 1]) -> Result<Symbols, Malformed> {
    let used = used(lengths);
    let length = |symbol: &u8| usize::from(lengths[usize::from(*symbol)] & 15);
    let mut counts = [0_usize; 16];
    used.iter().for_each(|symbol| counts[length(symbol)] += 1);
    let (short, long) = counts.split_at(usize::from(CODE_MAX) + 1);
    let space: usize = (0..).zip(short).map(|(len, n)| n * (TABLE >> len)).sum();
    if long.iter().any(|n| *n > 0) || space > TABLE {
        return Err(Malformed("no prefix code"));
    }
    let mut place = 0;
    for count in &mut counts {
        place += std::mem::replace(count, place);
    }
    let mut sorted = [0; SYMBOLS + 1];
    for symbol in used.iter() {
        let place = &mut counts[length(symbol)];
        sorted[*place] = *symbol;
        *place += 1;
    }
    Ok(Symbols {
        all: sorted,
        count: used.count,
    })
}

/// The symbols that have a code. Most have none, and that is seen of eight at once.
fn used(lengths: &[u8; SYMBOLS + 1]) -> Symbols {
    let mut used = Symbols {
        all: [0; SYMBOLS + 1],
        count: 0,
    };
    for (first, eight) in (0_u16..).step_by(8).zip(lengths.as_chunks::<8>().0) {
        if *eight == [0; 8] {
            continue;
        }
        for (symbol, len) in (first..).zip(eight) {
            used.all[used.count] = symbol.to_le_bytes()[0];
            used.count += usize::from(*len > 0);
        }
    }
    used
}
