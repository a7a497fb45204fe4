//! Floats: times as differences of differences, values as what changed of their bits.

use super::bits::{Bits, fits};
use crate::model::Sample;

/// The widths of a difference of differences, each with the bits that announce it.
const WIDTHS: [(u32, u64, u32); 3] = [(14, 0b10, 2), (17, 0b110, 3), (20, 0b1110, 4)];

/// One chunk of at most 65,535 samples, ascending in time.
pub(super) fn encoded(samples: &[Sample]) -> Vec<u8> {
    let count = u16::try_from(samples.len()).expect("BUG: a chunk of more than 65,535 samples");
    let mut bits = Bits::after(count.to_be_bytes().to_vec());
    let Some((first, rest)) = samples.split_first() else {
        return bits.into_bytes();
    };
    bits.signed_varint(first.t.as_ms());
    bits.float(first.v);
    let mut values = Values {
        last: first.v.to_bits(),
        window: None,
    };
    let (mut t, mut delta) = (first.t.as_ms(), 0);
    for (i, sample) in rest.iter().enumerate() {
        let next = sample.t.as_ms().wrapping_sub(t);
        if i == 0 {
            bits.varint(next.cast_unsigned());
        } else {
            difference(&mut bits, next.wrapping_sub(delta));
        }
        (t, delta) = (sample.t.as_ms(), next);
        values.push(&mut bits, sample.v);
    }
    bits.into_bytes()
}

fn difference(bits: &mut Bits, number: i64) {
    if number == 0 {
        bits.push(0, 1);
        return;
    }
    match WIDTHS.iter().find(|(width, ..)| fits(number, *width)) {
        Some((width, mark, len)) => {
            bits.push(*mark, *len);
            bits.push(number.cast_unsigned(), *width);
        }
        None => {
            bits.push(0b1111, 4);
            bits.push(number.cast_unsigned(), 64);
        }
    }
}

/// The values so far.
struct Values {
    last: u64,
    /// Zeros before and after the bits that were written last.
    window: Option<(u32, u32)>,
}

impl Values {
    fn push(&mut self, bits: &mut Bits, v: f64) {
        let changed = v.to_bits() ^ self.last;
        self.last = v.to_bits();
        if changed == 0 {
            bits.push(0, 1);
            return;
        }
        bits.push(1, 1);
        // Five bits say how many zeros lead.
        let (leading, trailing) = (changed.leading_zeros().min(31), changed.trailing_zeros());
        if let Some((before, after)) = self.window
            && leading >= before
            && trailing >= after
        {
            bits.push(0, 1);
            bits.push(changed >> after, 64 - before - after);
            return;
        }
        self.window = Some((leading, trailing));
        let width = 64 - leading - trailing;
        bits.push(1, 1);
        bits.push(u64::from(leading), 5);
        // Of 64 the lowest six bits are zero, which no width has otherwise.
        bits.push(u64::from(width), 6);
        bits.push(changed >> trailing, width);
    }
}
