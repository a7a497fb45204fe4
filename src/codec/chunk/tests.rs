//! Chunks are read back by a reader that is only here.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::histogram::{Bucket, CUSTOM};
use crate::model::{Histogram, Timestamp};

/// Reads what [`bits::Bits`] writes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bits(&mut self, count: u32) -> u64 {
        let mut number = 0;
        for _ in 0..count {
            let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
            number = number << 1 | u64::from(bit);
            self.at += 1;
        }
        number
    }

    fn float(&mut self) -> f64 {
        f64::from_bits(self.bits(64))
    }

    fn varint(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.bits(8);
            number |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }

    fn signed_varint(&mut self) -> i64 {
        let number = self.varint();
        (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
    }

    /// How many ones stand before the next zero, not more than `most`.
    fn ones(&mut self, most: usize) -> usize {
        (0..most).take_while(|_| self.bits(1) == 1).count()
    }

    /// A number with a sign: those above the middle of the width are negative.
    fn signed(&mut self, width: u32) -> i64 {
        let number = self.bits(width);
        if width < 64 && number > 1 << (width - 1) {
            return number.cast_signed() - (1 << width);
        }
        number.cast_signed()
    }

    fn signed_varbit(&mut self) -> i64 {
        match self.ones(8) {
            0 => 0,
            ones => self.signed([3, 6, 9, 12, 18, 25, 56, 64][ones - 1]),
        }
    }

    fn varbit(&mut self) -> u64 {
        match self.ones(8) {
            0 => 0,
            ones => self.bits([3, 6, 9, 12, 18, 25, 56, 64][ones - 1]),
        }
    }
}

fn decoded(data: &[u8]) -> Vec<Sample> {
    let mut reader = Reader { bytes: data, at: 0 };
    let count = reader.bits(16);
    let (mut t, mut delta, mut bits) = (0_i64, 0_i64, 0_u64);
    let (mut leading, mut width) = (0, 0);
    let mut samples = Vec::new();
    for i in 0..count {
        match i {
            0 => t = reader.signed_varint(),
            1 => delta = reader.varint().cast_signed(),
            _ => {
                let difference = match reader.ones(4) {
                    0 => 0,
                    ones => reader.signed([14, 17, 20, 64][ones - 1]),
                };
                delta = delta.wrapping_add(difference);
            }
        }
        if i == 0 {
            bits = reader.bits(64);
        } else {
            t = t.wrapping_add(delta);
            if reader.bits(1) == 1 {
                if reader.bits(1) == 1 {
                    leading = u32::try_from(reader.bits(5)).unwrap();
                    width = match u32::try_from(reader.bits(6)).unwrap() {
                        0 => 64,
                        width => width,
                    };
                }
                bits ^= reader.bits(width) << (64 - leading - width);
            }
        }
        samples.push(Sample::new(t, f64::from_bits(bits)));
    }
    assert_eq!(reader.at.div_ceil(8), data.len(), "nothing is left over");
    samples
}

fn decoded_histogram(data: &[u8]) -> HistogramSample {
    let mut reader = Reader { bytes: data, at: 0 };
    assert_eq!(reader.bits(16), 1);
    let hint = reader.bits(8) >> 6;
    let mut h = Histogram {
        zero_threshold: match reader.bits(8) {
            0 => 0.0,
            255 => reader.float(),
            power => 2.0_f64.powi(i32::try_from(power).unwrap() - 244),
        },
        ..Histogram::default()
    };
    h.schema = i8::try_from(reader.signed_varbit()).unwrap();
    let mut sides = [Vec::new(), Vec::new()];
    for side in &mut sides {
        let mut index = 0;
        for _ in 0..reader.varbit() {
            let len = i64::try_from(reader.varbit()).unwrap();
            index += reader.signed_varbit();
            side.extend(index..index + len);
            index += len;
        }
    }
    if h.is_custom() {
        let bounds = (0..reader.varbit()).map(|_| {
            let at = reader.at;
            match reader.bits(1) {
                0 => reader.float(),
                _ => {
                    reader.at = at;
                    (reader.varbit() - 1) as f64 / 1000.0
                }
            }
        });
        h.bounds = bounds.collect();
    }
    let t = reader.signed_varbit();
    h.count = reader.float();
    h.zero_count = reader.float();
    h.sum = reader.float();
    let mut read = sides.map(|side| {
        let counts = side.into_iter().map(|index| Bucket {
            index: i32::try_from(index).unwrap(),
            count: reader.float(),
        });
        counts.collect()
    });
    (h.positive, h.negative) = (std::mem::take(&mut read[0]), std::mem::take(&mut read[1]));
    h.hint = [
        crate::model::histogram::ResetHint::Unknown,
        crate::model::histogram::ResetHint::NotReset,
        crate::model::histogram::ResetHint::Reset,
        crate::model::histogram::ResetHint::Gauge,
    ][usize::try_from(hint).unwrap()];
    assert_eq!(reader.at.div_ceil(8), data.len(), "nothing is left over");
    HistogramSample {
        t: Timestamp::from_ms(t),
        h: Arc::new(h),
    }
}

fn all(floats: &[Sample], native: &[HistogramSample]) -> Vec<Chunk> {
    let mut all = Vec::new();
    chunks(floats, native, |chunk| all.push(chunk));
    all
}

#[test]
fn the_bytes_are_those_of_the_format() {
    // 2 samples; -1 and 1.5; 1,000 later, the value is the same.
    let samples = [Sample::new(-1, 1.5), Sample::new(999, 1.5)];
    let mut want = vec![0, 2, 1];
    want.extend(1.5_f64.to_be_bytes());
    want.extend([0xe8, 0x07, 0]);
    assert_eq!(all(&samples, &[])[0].data, want);
}

#[test]
fn a_chunk_ends_after_120_samples_and_before_a_histogram() {
    let floats: Vec<Sample> = (0..130).map(|t| Sample::new(t, 1.0)).collect();
    let h = HistogramSample {
        t: Timestamp::from_ms(5),
        h: Arc::default(),
    };
    let told: Vec<_> = all(&floats, std::slice::from_ref(&h))
        .iter()
        .map(|chunk| (chunk.kind, chunk.min_time, chunk.max_time))
        .collect();
    let want = [
        (Kind::Xor, 0, 4),
        (Kind::FloatHistogram, 5, 5),
        (Kind::Xor, 5, 124),
        (Kind::Xor, 125, 129),
    ];
    assert_eq!(told, want);
    assert_eq!(all(&[], &[]), []);
}

/// Times as they come: regular, shaken, with gaps, and anything.
fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let gap = prop_oneof![
        4 => Just(15_000_i64),
        2 => 14_000..16_000_i64,
        1 => 1..100_000_000_i64,
        1 => 1..i64::MAX / 256,
    ];
    let value = prop_oneof![
        2 => Just(1.0),
        2 => (0..1000_i32).prop_map(f64::from),
        1 => any::<u64>().prop_map(f64::from_bits),
    ];
    let all = prop::collection::vec((gap, value), 0..120);
    (-1_000_000_i64..2_000_000_000_000, all).prop_map(|(mut t, all)| {
        let next = |(gap, v)| {
            t += gap;
            Sample::new(t, v)
        };
        all.into_iter().map(next).collect()
    })
}

fn histograms() -> impl Strategy<Value = HistogramSample> {
    let buckets = |index: std::ops::Range<i32>| {
        prop::collection::btree_map(index, 0.1..1e9f64, 0..12).prop_map(|all| {
            let all = all.into_iter();
            all.map(|(index, count)| Bucket { index, count })
                .collect::<Vec<_>>()
        })
    };
    let threshold = prop_oneof![Just(0.0), Just(0.25), Just(0.001), Just(1e-200), Just(1e5)];
    let bounds = prop::collection::btree_set(-50_000_i32..50_000, 0..9);
    let parts = (
        any::<i64>(),
        -4..=8_i8,
        threshold,
        buckets(-2000..2000),
        buckets(-30..30),
        (any::<bool>(), bounds, 0..4_usize),
    );
    parts.prop_map(|(t, schema, zero_threshold, positive, negative, others)| {
        let (custom, bounds, hint) = others;
        use crate::model::histogram::ResetHint as H;
        let mut h = Histogram {
            schema,
            zero_threshold,
            zero_count: 1.5,
            count: 7.25,
            sum: -3.5,
            positive,
            negative,
            hint: [H::Unknown, H::NotReset, H::Reset, H::Gauge][hint],
            ..Histogram::default()
        };
        if custom {
            h.schema = CUSTOM;
            (h.zero_threshold, h.zero_count) = (0.0, 0.0);
            h.negative.clear();
            h.bounds = bounds.into_iter().map(|b| f64::from(b) / 8.0).collect();
        }
        HistogramSample {
            t: Timestamp::from_ms(t),
            h: Arc::new(h),
        }
    })
}

proptest! {
    #[test]
    fn floats_come_back_bit_by_bit(samples in samples()) {
        let chunks = all(&samples, &[]);
        let read: Vec<Sample> = chunks.iter().flat_map(|chunk| decoded(&chunk.data)).collect();
        let bits = |all: &[Sample]| all.iter().map(|s| (s.t, s.v.to_bits())).collect::<Vec<_>>();
        prop_assert_eq!(bits(&read), bits(&samples));
    }

    #[test]
    fn histograms_come_back(sample in histograms()) {
        let chunks = all(&[], std::slice::from_ref(&sample));
        prop_assert_eq!(decoded_histogram(&chunks[0].data), sample);
    }
}
