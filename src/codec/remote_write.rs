//! Prometheus remote_write 1.0: a snappy block that holds a protobuf message.
//!
//! ```text
//! WriteRequest   { repeated TimeSeries timeseries = 1; repeated MetricMetadata metadata = 3 }
//! TimeSeries     { repeated Label labels = 1; repeated Sample samples = 2;
//!                  repeated Exemplar exemplars = 3; repeated Histogram histograms = 4 }
//! Label          { string name = 1; string value = 2 }
//! Sample         { double value = 1; int64 timestamp = 2 }
//! MetricMetadata { MetricType type = 1; string metric_family_name = 2; string help = 4; string unit = 5 }
//! ```
//!
//! The reader borrows: a series' labels stay the bytes that came, so that a
//! receiver can recognise a series by them and need not look inside. A generated
//! decoder makes two strings of every label.

use std::borrow::Cow;

pub use super::protobuf::Malformed;
use super::protobuf::{Fields, Value};
use crate::model::Sample;

/// A block of n bytes cannot unpack to more than this many times n: the best that
/// snappy has is a copy of 64 bytes in 3.
const RATIO_MAX: usize = 22;

/// How a label of a series, and the value and the time of a sample, begin.
const LABEL_TAG: u8 = 1 << 3 | 2;
const VALUE_TAG: u8 = 1 << 3 | 1;
const TIME_TAG: u8 = 2 << 3;

/// Why a body cannot be unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unpack {
    /// It would be larger than allowed.
    #[error("the unpacked body is larger than {0} bytes")]
    TooLarge(usize),
    /// It is no snappy block.
    #[error("not a snappy block")]
    Malformed,
}

/// Unpacks a snappy block of at most `bytes_max` bytes into `out`, whose room is
/// used again. What the block claims to be is checked before room is made for it.
///
/// # Errors
/// When it is too large or damaged; `out` is empty then.
pub fn unpack(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), Unpack> {
    out.clear();
    let len = snap::raw::decompress_len(block).map_err(|_| Unpack::Malformed)?;
    if len > bytes_max {
        return Err(Unpack::TooLarge(bytes_max));
    }
    if len > block.len().saturating_mul(RATIO_MAX) {
        return Err(Unpack::Malformed);
    }
    out.resize(len, 0);
    let unpacked = snap::raw::Decoder::new().decompress(block, out);
    if unpacked != Ok(len) {
        out.clear();
        return Err(Unpack::Malformed);
    }
    Ok(())
}

/// Reads a message part by part.
#[derive(Clone, Debug)]
pub struct Request<'a>(Fields<'a>);

/// A part of a message.
#[derive(Clone, PartialEq, Debug)]
pub enum Part<'a> {
    /// A series; its samples went to the caller's buffer.
    Series(Series<'a>),
    /// What a metric is.
    Metadata(Metadata<'a>),
}

/// A series of a message, without its samples.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series<'a> {
    /// The label fields as they came, tags included; [`labels`] reads them.
    pub labels: Cow<'a, [u8]>,
    /// Its native histograms as they came; [`super::histogram::read`] reads them.
    pub histograms: Vec<&'a [u8]>,
    /// How many exemplars it holds.
    pub exemplars: usize,
}

/// What a metric is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metadata<'a> {
    /// The metric's name.
    pub metric: &'a str,
    /// `counter`, `gauge`, ... as text expositions name it; `unknown` otherwise.
    pub kind: &'static str,
    /// What it is, for people.
    pub help: &'a str,
    /// Its unit.
    pub unit: &'a str,
}

impl<'a> Request<'a> {
    /// A reader of an unpacked message.
    pub fn new(message: &'a [u8]) -> Request<'a> {
        Request(Fields(message))
    }

    /// The next part; `Ok(None)` at the end. The samples of a series replace what
    /// is in `samples`.
    ///
    /// # Errors
    /// When the message is malformed. Nothing can be read after that.
    #[inline]
    pub fn next_part(&mut self, samples: &mut Vec<Sample>) -> Result<Option<Part<'a>>, Malformed> {
        while let Some((number, value)) = self.0.next()? {
            match (number, value) {
                (1, Value::Bytes(series)) => {
                    samples.clear();
                    return Ok(Some(Part::Series(read_series(series, samples)?)));
                }
                (3, Value::Bytes(metadata)) => {
                    return Ok(Some(Part::Metadata(read_metadata(metadata)?)));
                }
                (1 | 3, _) => return Err(Malformed("a series of the wrong type")),
                _ => {}
            }
        }
        Ok(None)
    }
}

#[inline]
fn read_series<'a>(message: &'a [u8], samples: &mut Vec<Sample>) -> Result<Series<'a>, Malformed> {
    let mut fields = Fields(message);
    let mut series = Series {
        labels: Cow::Borrowed(&[]),
        histograms: Vec::new(),
        exemplars: 0,
    };
    // Every sender writes the labels first and in one piece.
    fields.skip_short(LABEL_TAG);
    let (mut start, mut end) = (0, message.len() - fields.0.len());
    loop {
        let at = message.len() - fields.0.len();
        let Some((number, value)) = fields.next()? else {
            break;
        };
        match (number, value) {
            (1, Value::Bytes(_)) => {
                if at != end {
                    series
                        .labels
                        .to_mut()
                        .extend_from_slice(&message[start..end]);
                    start = at;
                }
                end = message.len() - fields.0.len();
            }
            (2, Value::Bytes(sample)) => samples.push(read_sample(sample)?),
            (3, Value::Bytes(_)) => series.exemplars += 1,
            (4, Value::Bytes(histogram)) => series.histograms.push(histogram),
            (1..=4, _) => return Err(Malformed("a field of a series of the wrong type")),
            _ => {}
        }
    }
    match &mut series.labels {
        Cow::Owned(labels) if !labels.is_empty() => labels.extend_from_slice(&message[start..end]),
        labels => *labels = Cow::Borrowed(&message[start..end]),
    }
    Ok(series)
}

#[inline]
fn read_sample(message: &[u8]) -> Result<Sample, Malformed> {
    // As every sender writes it: both fields, in their order.
    if let Some(([VALUE_TAG, bits @ .., TIME_TAG], rest)) = message.split_first_chunk::<10>() {
        let mut rest = Fields(rest);
        let ms = rest.varint()?;
        if rest.0.is_empty() {
            return Ok(Sample::new(ms.cast_signed(), f64::from_le_bytes(*bits)));
        }
    }
    let (mut t, mut v) = (0, 0.0);
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Fixed64(bits)) => v = f64::from_bits(bits),
            (2, Value::Varint(ms)) => t = ms.cast_signed(),
            (1 | 2, _) => return Err(Malformed("a field of a sample of the wrong type")),
            _ => {}
        }
    }
    Ok(Sample::new(t, v))
}

fn read_metadata(message: &[u8]) -> Result<Metadata<'_>, Malformed> {
    let mut metadata = Metadata {
        metric: "",
        kind: "unknown",
        help: "",
        unit: "",
    };
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Varint(kind)) => metadata.kind = kind_name(kind),
            (2, Value::Bytes(bytes)) => metadata.metric = text(bytes)?,
            (4, Value::Bytes(bytes)) => metadata.help = text(bytes)?,
            (5, Value::Bytes(bytes)) => metadata.unit = text(bytes)?,
            (1 | 2 | 4 | 5, _) => return Err(Malformed("a field of metadata of the wrong type")),
            _ => {}
        }
    }
    Ok(metadata)
}

fn kind_name(kind: u64) -> &'static str {
    match kind {
        1 => "counter",
        2 => "gauge",
        3 => "histogram",
        4 => "gaugehistogram",
        5 => "summary",
        6 => "info",
        7 => "stateset",
        _ => "unknown",
    }
}

/// The names and values of a series' labels, in the order in which they came.
pub fn labels(fields: &[u8]) -> LabelReader<'_> {
    LabelReader(Fields(fields))
}

/// Iterates over labels; ends after the first error.
#[derive(Clone, Debug)]
pub struct LabelReader<'a>(Fields<'a>);

impl<'a> Iterator for LabelReader<'a> {
    type Item = Result<(&'a str, &'a str), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let label = read_label(&mut self.0).transpose();
        if let Some(Err(_)) = label {
            self.0 = Fields(&[]);
        }
        label
    }
}

fn read_label<'a>(fields: &mut Fields<'a>) -> Result<Option<(&'a str, &'a str)>, Malformed> {
    let Some((_, value)) = fields.next()? else {
        return Ok(None);
    };
    let Value::Bytes(label) = value else {
        return Err(Malformed("a label of the wrong type"));
    };
    let (mut name, mut text_of) = ("", "");
    let mut fields = Fields(label);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => name = text(bytes)?,
            (2, Value::Bytes(bytes)) => text_of = text(bytes)?,
            (1 | 2, _) => return Err(Malformed("a field of a label of the wrong type")),
            _ => {}
        }
    }
    Ok(Some((name, text_of)))
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::protobuf::write;
    use super::*;
    use crate::model::stale_nan;

    type Told = (Vec<(String, String)>, Vec<Sample>);

    fn label(name: &str, value: &str) -> Vec<u8> {
        let mut label = Vec::new();
        write::bytes(&mut label, 1, name.as_bytes());
        write::bytes(&mut label, 2, value.as_bytes());
        label
    }

    fn sample(sample: &Sample) -> Vec<u8> {
        let mut out = Vec::new();
        write::double(&mut out, 1, sample.v);
        write::int(&mut out, 2, sample.t.as_ms());
        out
    }

    fn message(told: &[Told]) -> Vec<u8> {
        let mut message = Vec::new();
        for (labels, samples) in told {
            let mut series = Vec::new();
            for (name, value) in labels {
                write::bytes(&mut series, 1, &label(name, value));
            }
            for s in samples {
                write::bytes(&mut series, 2, &sample(s));
            }
            write::bytes(&mut message, 1, &series);
        }
        message
    }

    fn read(message: &[u8]) -> Result<Vec<Told>, Malformed> {
        let mut request = Request::new(message);
        let (mut samples, mut told) = (Vec::new(), Vec::new());
        while let Some(part) = request.next_part(&mut samples)? {
            let Part::Series(series) = part else { continue };
            let pairs: Result<Vec<_>, _> = labels(&series.labels)
                .map(|pair| pair.map(|(n, v)| (n.to_owned(), v.to_owned())))
                .collect();
            told.push((pairs?, samples.clone()));
        }
        Ok(told)
    }

    fn told() -> impl Strategy<Value = Vec<Told>> {
        let pair = ("[a-z_ü]{0,8}", ".{0,140}");
        let sample = (any::<i64>(), any::<u64>());
        let sample = sample.prop_map(|(t, bits)| Sample::new(t, f64::from_bits(bits)));
        let series = (
            prop::collection::vec(pair, 0..5),
            prop::collection::vec(sample, 0..5),
        );
        prop::collection::vec(series, 0..5)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(told in told()) {
            let message = message(&told);
            prop_assert_eq!(read(&message).unwrap(), told.clone());
            let block = snap::raw::Encoder::new().compress_vec(&message).unwrap();
            let mut out = vec![1; 7];
            unpack(&block, message.len(), &mut out).unwrap();
            prop_assert_eq!(&out, &message);
            if let Some(less) = message.len().checked_sub(1) {
                prop_assert_eq!(unpack(&block, less, &mut out), Err(Unpack::TooLarge(less)));
            }
        }

        #[test]
        fn a_cut_message_is_refused_or_shorter(told in told(), at: prop::sample::Index) {
            let message = message(&told);
            let at = at.index(message.len() + 1);
            if let Ok(read) = read(&message[..at]) {
                prop_assert!(read.len() <= told.len());
                prop_assert_eq!(&read[..], &told[..read.len()]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            drop(read(&bytes));
            let mut out = Vec::new();
            let _ = unpack(&bytes, 1 << 20, &mut out);
            prop_assert!(out.len() <= bytes.len() * RATIO_MAX);
        }
    }

    #[test]
    fn left_out_numbers_are_zero_and_stale_markers_keep_their_bits() {
        let mut series = Vec::new();
        write::bytes(&mut series, 1, &label("__name__", "up"));
        write::bytes(&mut series, 2, &[]);
        write::bytes(&mut series, 2, &sample(&Sample::new(-5, stale_nan())));
        let mut message = Vec::new();
        write::bytes(&mut message, 1, &series);
        let want = [Sample::new(0, 0.0), Sample::new(-5, stale_nan())];
        assert_eq!(read(&message).unwrap()[0].1, want);
    }

    #[test]
    fn labels_in_pieces_are_joined() {
        let one = Sample::new(1, 1.0);
        let mut series = Vec::new();
        write::bytes(&mut series, 2, &sample(&one));
        for i in 0..3 {
            write::bytes(&mut series, 1, &label(&format!("n{i}"), "a"));
            write::bytes(&mut series, 1, &label(&format!("n{i}"), "b"));
            write::bytes(&mut series, 3, b"exemplar");
            write::bytes(&mut series, 9, b"of a later version");
        }
        let mut message = Vec::new();
        write::bytes(&mut message, 1, &series);
        let told = read(&message).unwrap();
        let names: Vec<_> = told[0].0.iter().map(|(n, v)| format!("{n}{v}")).collect();
        assert_eq!(names, ["n0a", "n0b", "n1a", "n1b", "n2a", "n2b"]);
        let part = Request::new(&message).next_part(&mut Vec::new());
        let Ok(Some(Part::Series(series))) = part else {
            panic!("a series");
        };
        assert_eq!((series.exemplars, series.histograms.len()), (3, 0));
    }

    #[test]
    fn metadata_is_read() {
        let mut metadata = Vec::new();
        write::int(&mut metadata, 1, 1);
        write::bytes(&mut metadata, 2, b"requests_total");
        write::bytes(&mut metadata, 4, b"All of them.");
        let mut message = Vec::new();
        write::bytes(&mut message, 3, &metadata);
        let want = Metadata {
            metric: "requests_total",
            kind: "counter",
            help: "All of them.",
            unit: "",
        };
        let part = Request::new(&message).next_part(&mut Vec::new());
        assert_eq!(part, Ok(Some(Part::Metadata(want))));
    }

    #[test]
    fn a_block_that_promises_more_than_it_can_hold_makes_no_room() {
        // Ten bytes that claim a gibibyte, and some that claim 1,000.
        let mut out = Vec::new();
        let giant = [0x80, 0x80, 0x80, 0x80, 0x04, 0, 0, 0, 0, 0];
        assert_eq!(unpack(&giant, usize::MAX, &mut out), Err(Unpack::Malformed));
        let bomb = [0xe8, 0x07, 0, 0];
        assert_eq!(unpack(&bomb, 10_000, &mut out), Err(Unpack::Malformed));
        assert_eq!(out.capacity(), 0);
        assert_eq!(unpack(&[], 10_000, &mut out), Err(Unpack::Malformed));
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let mut bad = Vec::new();
        write::bytes(&mut bad, 1, b"\xff");
        let mut series = Vec::new();
        write::bytes(&mut series, 1, &bad);
        assert_eq!(
            labels(&series).collect::<Vec<_>>(),
            [Err(Malformed("a text that is not UTF-8"))]
        );
    }
}
