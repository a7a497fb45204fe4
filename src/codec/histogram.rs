//! Native histograms as remote_write and remote_read carry them.
//!
//! ```text
//! Histogram  { oneof { uint64 count_int = 1; double count_float = 2 }; double sum = 3;
//!              sint32 schema = 4; double zero_threshold = 5;
//!              oneof { uint64 zero_count_int = 6; double zero_count_float = 7 };
//!              repeated BucketSpan negative_spans = 8; repeated sint64 negative_deltas = 9;
//!              repeated double negative_counts = 10;
//!              repeated BucketSpan positive_spans = 11; repeated sint64 positive_deltas = 12;
//!              repeated double positive_counts = 13;
//!              ResetHint reset_hint = 14; int64 timestamp = 15; repeated double custom_values = 16 }
//! BucketSpan { sint32 offset = 1; uint32 length = 2 }
//! ```
//!
//! One with whole numbers has deltas, each to the count before; one with floats has
//! counts. Both are read as floats: a whole count up to 2^53 keeps its value.

use super::protobuf::{Fields, Malformed, Value, write};
use crate::model::histogram::{Bucket, CUSTOM, ResetHint};
use crate::model::{Histogram, HistogramSample, Timestamp};

/// The schemas with exponential buckets.
const EXPONENTIAL: std::ops::RangeInclusive<i64> = -4..=8;

/// The fields as they came.
#[derive(Default)]
struct Told {
    count: f64,
    zero_count: f64,
    sum: f64,
    schema: i64,
    zero_threshold: f64,
    negative: Side,
    positive: Side,
    hint: u64,
    t: i64,
    bounds: Vec<f64>,
}

/// The buckets on one side of zero as they came.
#[derive(Default)]
struct Side {
    /// Offset and length.
    spans: Vec<(i64, u64)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// Reads one histogram. `None`: it can be read, but says what cannot be.
///
/// # Errors
/// When the message is malformed.
pub fn read(message: &[u8]) -> Result<Option<HistogramSample>, Malformed> {
    let mut told = Told::default();
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Varint(n)) => told.count = n as f64,
            (6, Value::Varint(n)) => told.zero_count = n as f64,
            (2, Value::Fixed64(bits)) => told.count = f64::from_bits(bits),
            (3, Value::Fixed64(bits)) => told.sum = f64::from_bits(bits),
            (5, Value::Fixed64(bits)) => told.zero_threshold = f64::from_bits(bits),
            (7, Value::Fixed64(bits)) => told.zero_count = f64::from_bits(bits),
            (4, Value::Varint(n)) => told.schema = signed(n),
            (8, Value::Bytes(span)) => told.negative.spans.push(read_span(span)?),
            (11, Value::Bytes(span)) => told.positive.spans.push(read_span(span)?),
            (9, value) => read_deltas(value, &mut told.negative.deltas)?,
            (12, value) => read_deltas(value, &mut told.positive.deltas)?,
            (10, value) => read_doubles(value, &mut told.negative.counts)?,
            (13, value) => read_doubles(value, &mut told.positive.counts)?,
            (16, value) => read_doubles(value, &mut told.bounds)?,
            (14, Value::Varint(hint)) => told.hint = hint,
            (15, Value::Varint(ms)) => told.t = ms.cast_signed(),
            (1..=8 | 11 | 14 | 15, _) => {
                return Err(Malformed("a field of a histogram of the wrong type"));
            }
            _ => {}
        }
    }
    Ok(told.checked())
}

impl Told {
    /// The histogram, if its parts fit together.
    fn checked(self) -> Option<HistogramSample> {
        let custom = self.schema == i64::from(CUSTOM);
        let fits = custom || EXPONENTIAL.contains(&self.schema);
        let ascend = self.bounds.is_sorted_by(|a, b| a < b);
        if !fits || !ascend || self.bounds.iter().any(|v| v.is_nan() || v.is_infinite()) {
            return None;
        }
        let h = Histogram {
            schema: i8::try_from(self.schema).ok()?,
            hint: match self.hint {
                1 => ResetHint::Reset,
                2 => ResetHint::NotReset,
                3 => ResetHint::Gauge,
                _ => ResetHint::Unknown,
            },
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive: self.positive.buckets()?,
            negative: self.negative.buckets()?,
            bounds: self.bounds.into(),
        };
        let bounded = |b: &Bucket| usize::try_from(b.index).is_ok_and(|i| i <= h.bounds.len());
        let only_custom = h.negative.is_empty() && h.zero_count == 0.0;
        let parts_fit = if custom {
            only_custom && h.positive.iter().all(bounded)
        } else {
            h.bounds.is_empty() && h.zero_threshold >= 0.0
        };
        (parts_fit && h.zero_count.is_nan() | (h.zero_count >= 0.0)).then(|| HistogramSample {
            t: Timestamp::from_ms(self.t),
            h: h.into(),
        })
    }
}

impl Side {
    /// The buckets that are not empty, if there are as many counts as the spans say.
    fn buckets(self) -> Option<Vec<Bucket>> {
        let mut counts = if self.deltas.is_empty() {
            self.counts
        } else {
            let mut sum = 0_i64;
            let mut counts = Vec::with_capacity(self.deltas.len());
            for delta in self.deltas {
                sum = sum.checked_add(delta)?;
                counts.push(sum as f64);
            }
            counts
        }
        .into_iter();
        let mut buckets = Vec::with_capacity(counts.len());
        let mut index = 0_i64;
        for (i, (offset, length)) in self.spans.into_iter().enumerate() {
            if i > 0 && offset < 0 {
                return None;
            }
            index = index.checked_add(offset)?;
            for _ in 0..length {
                // As many counts as there are bound the loop.
                let count = counts
                    .next()
                    .filter(|count| count.is_nan() || *count >= 0.0)?;
                if count != 0.0 {
                    let index = i32::try_from(index).ok()?;
                    buckets.push(Bucket { index, count });
                }
                index += 1;
            }
        }
        counts.next().is_none().then_some(buckets)
    }
}

fn read_span(message: &[u8]) -> Result<(i64, u64), Malformed> {
    let (mut offset, mut length) = (0, 0);
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Varint(n)) => offset = signed(n),
            (2, Value::Varint(n)) => length = n,
            (1 | 2, _) => return Err(Malformed("a field of a span of the wrong type")),
            _ => {}
        }
    }
    Ok((offset, length))
}

/// Signed numbers, packed into one field or each in its own.
fn read_deltas(value: Value<'_>, out: &mut Vec<i64>) -> Result<(), Malformed> {
    match value {
        Value::Varint(n) => out.push(signed(n)),
        Value::Bytes(packed) => {
            let mut rest = Fields(packed);
            while !rest.0.is_empty() {
                out.push(signed(rest.varint()?));
            }
        }
        _ => return Err(Malformed("counts of the wrong type")),
    }
    Ok(())
}

/// Doubles, packed into one field or each in its own.
fn read_doubles(value: Value<'_>, out: &mut Vec<f64>) -> Result<(), Malformed> {
    match value {
        Value::Fixed64(bits) => out.push(f64::from_bits(bits)),
        Value::Bytes(packed) => {
            let (all, rest) = packed.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(Malformed("a number that is cut short"));
            }
            out.extend(all.iter().map(|bytes| f64::from_le_bytes(*bytes)));
        }
        _ => return Err(Malformed("counts of the wrong type")),
    }
    Ok(())
}

/// The number of which `n` is the zigzag form.
fn signed(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

/// The zigzag form.
pub(super) fn zigzag(n: i64) -> u64 {
    (n.cast_unsigned() << 1) ^ (n >> 63).cast_unsigned()
}

/// Appends a histogram, as floats.
pub fn write(out: &mut Vec<u8>, sample: &HistogramSample) {
    let h = &*sample.h;
    write::double(out, 2, h.count);
    write::double(out, 3, h.sum);
    write::int(out, 4, zigzag(h.schema.into()).cast_signed());
    write::double(out, 5, h.zero_threshold);
    write::double(out, 7, h.zero_count);
    write_side(out, (8, 10), &h.negative);
    write_side(out, (11, 13), &h.positive);
    let hint = match h.hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    };
    write::int(out, 14, hint);
    write::int(out, 15, sample.t.as_ms());
    write_doubles(out, 16, &mut h.bounds.iter().copied());
}

/// Appends where the buckets lie, a field for each of their [`spans`].
pub(super) fn write_spans(out: &mut Vec<u8>, number: u64, buckets: &[Bucket]) {
    for (offset, length) in spans(buckets) {
        let mut span = Vec::new();
        write::int(&mut span, 1, zigzag(offset).cast_signed());
        write::int(&mut span, 2, length.cast_signed());
        write::bytes(out, number, &span);
    }
}

fn write_side(out: &mut Vec<u8>, (number, counts): (u64, u64), buckets: &[Bucket]) {
    write_spans(out, number, buckets);
    write_doubles(out, counts, &mut buckets.iter().map(|b| b.count));
}

/// The runs of neighbouring buckets: the gap before each, the first one's from index
/// zero, and its length.
pub(super) fn spans(buckets: &[Bucket]) -> Vec<(i64, u64)> {
    let mut next = 0_i64;
    let runs = buckets.chunk_by(|a, b| a.index + 1 == b.index);
    runs.map(|run| {
        let first = i64::from(run[0].index);
        let offset = first - next;
        let length = i64::try_from(run.len()).expect("there are fewer buckets than indexes");
        next = first + length;
        (offset, length.cast_unsigned())
    })
    .collect()
}

fn write_doubles(out: &mut Vec<u8>, number: u64, values: &mut dyn Iterator<Item = f64>) {
    let packed: Vec<u8> = values.flat_map(f64::to_le_bytes).collect();
    if !packed.is_empty() {
        write::bytes(out, number, &packed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One with whole numbers: spans (0,2) and (1,1), deltas 1, +1, -1, and one below.
    fn whole() -> Vec<u8> {
        let mut out = Vec::new();
        write::int(&mut out, 1, 7);
        write::double(&mut out, 3, 5.5);
        write::int(&mut out, 4, zigzag(0).cast_signed());
        write::double(&mut out, 5, 0.001);
        write::int(&mut out, 6, 2);
        for (offset, length) in [(0, 2), (1, 1)] {
            let mut span = Vec::new();
            write::int(&mut span, 1, zigzag(offset).cast_signed());
            write::int(&mut span, 2, length);
            write::bytes(&mut out, 11, &span);
        }
        let deltas: Vec<u8> = [1, 1, -1]
            .into_iter()
            .map(|n| u8::try_from(zigzag(n)).unwrap())
            .collect();
        write::bytes(&mut out, 12, &deltas);
        let mut span = Vec::new();
        write::int(&mut span, 1, zigzag(-3).cast_signed());
        write::int(&mut span, 2, 1);
        write::bytes(&mut out, 8, &span);
        // Not packed.
        write::int(&mut out, 9, zigzag(1).cast_signed());
        write::int(&mut out, 15, 1_000);
        out
    }

    #[test]
    fn whole_numbers_are_deltas() {
        let sample = read(&whole()).unwrap().unwrap();
        assert_eq!(sample.t.as_ms(), 1_000);
        assert_eq!(
            sample.h.to_string(),
            "{count:7, sum:5.5, [-0.125,-0.0625):1, [-0.001,0.001]:2, (0.5,1]:1, (1,2]:2, (4,8]:1}"
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut message = whole();
            change(&mut message);
            read(&message).unwrap()
        };
        assert!(changed(&|_| {}).is_some());
        // An unknown schema, a count too many, a negative count, custom bounds beside
        // exponential buckets.
        assert!(changed(&|m| write::int(m, 4, zigzag(9).cast_signed())).is_none());
        assert!(changed(&|m| write::int(m, 12, 0)).is_none());
        assert!(changed(&|m| write::int(m, 9, zigzag(-2).cast_signed())).is_none());
        assert!(changed(&|m| write::double(m, 16, 1.0)).is_none());
        let long_span = |m: &mut Vec<u8>| {
            let mut span = Vec::new();
            write::int(&mut span, 2, i64::MAX);
            write::bytes(m, 11, &span);
        };
        assert!(changed(&long_span).is_none());
        assert!(read(&[0x09, 1]).is_err());
    }

    fn buckets(index: std::ops::Range<i32>) -> impl Strategy<Value = Vec<Bucket>> {
        prop::collection::btree_map(index, 0.1..1e9f64, 0..12).prop_map(|all| {
            let all = all.into_iter();
            all.map(|(index, count)| Bucket { index, count }).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (schema, positive, negative) in (-4i8..=8, buckets(-900..900), buckets(-900..900)),
            custom in any::<bool>(),
            (sum, t, hint) in (any::<f64>(), any::<i64>(), 0..4usize),
        ) {
            use ResetHint::{Gauge, NotReset, Reset, Unknown};
            let hint = [Unknown, Reset, NotReset, Gauge][hint];
            let mut h = Histogram { schema, hint, sum, count: 9.5, positive, ..Histogram::default() };
            if custom {
                h.schema = CUSTOM;
                h.positive.retain(|b| (0..3).contains(&b.index));
                h.bounds = [-1.5, 1e10].into();
            } else {
                (h.zero_threshold, h.zero_count, h.negative) = (0.25, 3.0, negative);
            }
            let sample = HistogramSample { t: Timestamp::from_ms(t), h: h.into() };
            let mut message = Vec::new();
            write(&mut message, &sample);
            prop_assert_eq!(read(&message).unwrap().unwrap(), sample);
        }

        #[test]
        fn arbitrary_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
        }
    }
}
