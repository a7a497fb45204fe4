//! Samples in time order, still growing: a byte or a few for each.
//!
//! A tail begins with the first time (signed varint) and the tokens of the first
//! value, of [`super::super::token`], relative to 0. Then:
//!
//! | byte | meaning |
//! |---|---|
//! | `0x00 + n` | `n + 1` samples with the same step and the same value |
//! | `0x20 + n` | the step changes, and the tokens of the value follow |
//! | `0x30 + n` | the step changes, the value does not |
//! | others | the step is the same: tokens of the value |
//!
//! The change of the step in ms is, in zigzag order, `n + 1` up to 13; with 13, 14
//! and 15 it follows in 1, 2 and 8 bytes. The last samples that change nothing are
//! only counted.

use super::super::token::Coder;
use super::super::varint::{self, Reader};
use super::PartId;
use crate::model::Sample;

const STEP: u8 = 0x20;
const STEP_SAME: u8 = 0x30;
const TOKEN: u8 = 0x40;

/// Samples that one byte says to change nothing.
const STEADY_MAX: u8 = STEP;

/// Changes of the step up to this one (in zigzag order) are part of their byte.
const SMALL_MAX: u64 = 13;

/// What is known of a tail beside its bytes. The newest time is that of the series.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The newest value.
    pub(super) last_bits: u64,
    /// A part is an hour long, so a step fits; in ms.
    last_step: i32,
    pub(super) part: PartId,
    pub(super) len: u16,
    exponent: u8,
    /// The last samples that change nothing and are not in the bytes yet.
    steady: u8,
}

impl Tail {
    /// Adds a sample that is newer than `last_t`, the newest one so far. Its bytes
    /// are appended to `out`; often there are none.
    #[inline]
    pub(super) fn push(&mut self, sample: Sample, last_t: i64, part: PartId, out: &mut Vec<u8>) {
        if self.len == 0 {
            self.begin(sample, part, out);
            return;
        }
        let bits = sample.v.to_bits();
        let step = sample.t.as_ms() - last_t;
        let change = step - i64::from(self.last_step);
        let same = bits == self.last_bits;
        self.len += 1;
        if same && change == 0 && self.steady < STEADY_MAX {
            self.steady += 1;
            return;
        }
        if self.steady > 0 {
            out.push(self.steady - 1);
            self.steady = 0;
        }
        if change != 0 {
            put_change(change, if same { STEP_SAME } else { STEP }, out);
            self.last_step = i32::try_from(step).expect("a part is an hour long");
        }
        if !same {
            let mut coder = Coder {
                bits: self.last_bits,
                exponent: self.exponent,
            };
            coder.encode(sample.v, out);
            self.exponent = coder.exponent;
            self.last_bits = bits;
        } else if change == 0 {
            self.steady = 1;
        }
    }

    fn begin(&mut self, sample: Sample, part: PartId, out: &mut Vec<u8>) {
        varint::put_signed(out, sample.t.as_ms());
        let mut coder = Coder::default();
        coder.encode(sample.v, out);
        *self = Tail {
            last_bits: sample.v.to_bits(),
            last_step: 0,
            part,
            len: 1,
            exponent: coder.exponent,
            steady: 0,
        };
    }

    /// Whether it may have a sample in the closed range; `last_t` is its newest time.
    pub(super) fn overlaps(&self, bytes: &[u8], last_t: i64, start: i64, end: i64) -> bool {
        let first = Reader(bytes).signed();
        self.len > 0 && first.is_some_and(|first| first <= end && last_t >= start)
    }

    /// Appends the samples of the closed range to `out`.
    pub(super) fn read(&self, bytes: &[u8], start: i64, end: i64, out: &mut Vec<Sample>) {
        if self.len > 0 {
            self.decode(bytes, start, end, out)
                .expect("BUG: a tail that cannot be decoded");
        }
    }

    /// `None` when its bytes are not those of a tail.
    fn decode(&self, bytes: &[u8], start: i64, end: i64, out: &mut Vec<Sample>) -> Option<()> {
        let mut reader = Reader(bytes);
        let mut t = reader.signed()?;
        let mut coder = Coder::default();
        coder.decode(&mut reader)?;
        let (mut step, mut read, mut steady) = (0, 1, 0);
        loop {
            if t > end {
                return Some(());
            }
            if t >= start {
                out.push(Sample::new(t, f64::from_bits(coder.bits)));
            }
            if read == self.len {
                return Some(());
            }
            read += 1;
            if steady > 0 {
                steady -= 1;
            } else {
                match reader.0.first().copied() {
                    // The last ones are only counted.
                    None => steady = self.len - read,
                    Some(TOKEN..) => drop(coder.decode(&mut reader)?),
                    Some(head) => {
                        reader.byte()?;
                        match head {
                            STEP.. => step += take_change(head, &mut reader)?,
                            _ => steady = u16::from(head),
                        }
                        if (STEP..STEP_SAME).contains(&head) {
                            coder.decode(&mut reader)?;
                        }
                    }
                }
            }
            t += step;
        }
    }
}

fn put_change(change: i64, head: u8, out: &mut Vec<u8>) {
    let zigzag = varint::zigzag(change);
    let bytes = zigzag.to_le_bytes();
    let (n, len) = match zigzag {
        ..=SMALL_MAX => (bytes[0] - 1, 0),
        14..=0xff => (13, 1),
        0x100..=0xffff => (14, 2),
        _ => (15, 8),
    };
    out.push(head + n);
    out.extend_from_slice(&bytes[..len]);
}

fn take_change(head: u8, reader: &mut Reader<'_>) -> Option<i64> {
    let zigzag = match head & 0x0f {
        13 => u64::from(reader.byte()?),
        14 => u64::from(u16::from_le_bytes(reader.bytes(2)?.try_into().ok()?)),
        15 => reader.fixed64()?,
        n => u64::from(n) + 1,
    };
    Some(varint::unzigzag(zigzag))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(samples: &[Sample]) -> usize {
        let (mut tail, mut bytes) = (Tail::default(), Vec::new());
        let mut last_t = i64::MIN;
        for (i, sample) in samples.iter().enumerate() {
            tail.push(*sample, last_t, 1, &mut bytes);
            last_t = sample.t.as_ms();
            assert_eq!(usize::from(tail.len), i + 1);
        }
        let mut back = Vec::new();
        tail.read(&bytes, i64::MIN, i64::MAX, &mut back);
        let bits = |samples: &[Sample]| -> Vec<(i64, u64)> {
            let bits = samples.iter().map(|s| (s.t.as_ms(), s.v.to_bits()));
            bits.collect()
        };
        assert_eq!(bits(&back), bits(samples));
        bytes.len()
    }

    #[test]
    fn a_steady_clock_costs_nothing() {
        let at = |v: fn(i64) -> f64| -> Vec<Sample> {
            (0..100).map(|i| Sample::new(i * 15_000, v(i))).collect()
        };
        // First time, first value, the first step; then 98 samples, or 99 values.
        let time = 1 + 1 + 3;
        assert_eq!(check(&at(|_| 0.0)), time + 98 / usize::from(STEADY_MAX));
        assert_eq!(check(&at(|i| i as f64)), time + 99);
    }

    #[test]
    fn values_never_begin_like_a_step() {
        for v in [1.0, -1.0, 0.5, 1e300, f64::NAN, f64::INFINITY, -0.0, 77.125] {
            let mut out = Vec::new();
            Coder::default().encode(v, &mut out);
            assert!(out[0] >= TOKEN, "{v}");
        }
    }

    proptest! {
        #[test]
        fn samples_survive(
            steps in prop::collection::vec(
                (
                    prop_oneof![Just(15_000_i64), 14_985_i64..15_016, 1_i64..3_600_000],
                    prop_oneof![any::<u64>(), 0_u64..3],
                ),
                1..130,
            ),
        ) {
            let mut t = 1_699_999_200_000;
            let samples: Vec<Sample> = steps
                .into_iter()
                .map(|(step, bits)| {
                    t += step;
                    Sample::new(t, f64::from_bits(bits))
                })
                .collect();
            check(&samples);
        }
    }
}
