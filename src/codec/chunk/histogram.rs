//! Native histograms, one to a chunk. A chunk with several would save what their
//! buckets have in common; a single one has no buckets to bring together, and costs
//! about as much as in the other kind of answer.

use super::bits::Bits;
use crate::codec::histogram::spans;
use crate::model::HistogramSample;
use crate::model::histogram::ResetHint;

/// One chunk with this histogram.
pub(super) fn encoded(sample: &HistogramSample) -> Vec<u8> {
    let h = &sample.h;
    let hint = match h.hint {
        ResetHint::Unknown => 0b00,
        ResetHint::NotReset => 0b01,
        ResetHint::Reset => 0b10,
        ResetHint::Gauge => 0b11,
    };
    let mut bits = Bits::after(vec![0, 1, hint << 6]);
    zero_threshold(&mut bits, h.zero_threshold);
    bits.signed_varbit(i64::from(h.schema));
    let (positive, negative) = (spans(&h.positive), spans(&h.negative));
    for spans in [&positive, &negative] {
        bits.varbit(spans.len() as u64);
        for (offset, len) in spans {
            bits.varbit(*len);
            bits.signed_varbit(*offset);
        }
    }
    if h.is_custom() {
        bits.varbit(h.bounds.len() as u64);
        h.bounds.iter().for_each(|v| bound(&mut bits, *v));
    }
    bits.signed_varbit(sample.t.as_ms());
    for v in [h.count, h.zero_count, h.sum] {
        bits.float(v);
    }
    for bucket in h.positive.iter().chain(&h.negative) {
        bits.float(bucket.count);
    }
    bits.into_bytes()
}

/// Zero and the powers of two from 2^-243 to 2^10 are one byte, others a byte and a float.
fn zero_threshold(bits: &mut Bits, v: f64) {
    const POWERS: std::ops::RangeInclusive<u64> = 1023 - 243..=1023 + 10;
    let power = v.to_bits() >> 52;
    if v == 0.0 {
        bits.push(0, 8);
    } else if v.to_bits().trailing_zeros() >= 52 && POWERS.contains(&power) {
        bits.push(power - POWERS.start() + 1, 8);
    } else {
        bits.push(255, 8);
        bits.float(v);
    }
}

/// Bounds with at most three decimals are short, others a zero bit and a float.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is whole, positive and below 2^25"
)]
fn bound(bits: &mut Bits, v: f64) {
    let thousandths = (v * 1000.0).round();
    if (0.0..=33_554_430.0).contains(&thousandths) && thousandths / 1000.0 == v {
        bits.varbit(thousandths as u64 + 1);
    } else {
        bits.push(0, 1);
        bits.float(v);
    }
}
