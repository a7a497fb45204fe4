//! Metric families as protobuf: what a scraper takes native histograms in.
//!
//! ```text
//! MetricFamily { string name = 1; MetricType type = 3; repeated Metric metric = 4 }
//! Metric       { repeated LabelPair label = 1; Untyped untyped = 5;
//!                int64 timestamp_ms = 6; Histogram histogram = 7 }
//! LabelPair    { string name = 1; string value = 2 }
//! Untyped      { double value = 1 }
//! Histogram    { double sample_sum = 2; double sample_count_float = 4; sint32 schema = 5;
//!                double zero_threshold = 6; double zero_count_float = 8;
//!                repeated BucketSpan negative_span = 9; repeated double negative_count = 11;
//!                repeated BucketSpan positive_span = 12; repeated double positive_count = 14 }
//! BucketSpan   { sint32 offset = 1; uint32 length = 2 }
//! ```
//!
//! Each family comes behind its length. The format has no custom buckets.

use super::histogram::{write_spans, zigzag};
use super::protobuf::write;
use crate::model::histogram::{Bucket, ResetHint};
use crate::model::{Histogram, HistogramSample, Sample};

/// What a client takes, by its `Accept` header.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Accepted {
    /// It would rather have protobuf than text.
    pub protobuf: bool,
    /// Names may have any characters; else only those of old.
    pub utf8: bool,
}

impl Accepted {
    /// What the header says. Of forms of equal quality it is protobuf; of the ranges of a
    /// form the first best one counts.
    pub fn of(accept: &str) -> Accepted {
        let (mut protobuf, mut text) = ((0.0, false), (0.0, false));
        for range in accept.split(',') {
            let kind = range.split(';').next().unwrap_or_default().trim();
            let parameter = |name: &str| {
                let mut all = range
                    .split(';')
                    .filter_map(|part| part.trim().split_once('='));
                all.find(|(n, _)| *n == name).map(|(_, value)| value)
            };
            let quality: f64 = parameter("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let best = match kind {
                "application/vnd.google.protobuf"
                    if parameter("proto") == Some("io.prometheus.client.MetricFamily")
                        && parameter("encoding") == Some("delimited") =>
                {
                    &mut protobuf
                }
                "text/plain" | "text/*" | "*/*" => &mut text,
                _ => continue,
            };
            if quality > best.0 {
                *best = (quality, parameter("escaping") == Some("allow-utf-8"));
            }
        }
        let is_protobuf = protobuf.0 > 0.0 && protobuf.0 >= text.0;
        Accepted {
            protobuf: is_protobuf,
            utf8: if is_protobuf { protobuf.1 } else { text.1 },
        }
    }

    /// What the form is called.
    pub fn content_type(self) -> String {
        let escaping = if self.utf8 {
            "allow-utf-8"
        } else {
            "underscores"
        };
        match (self.protobuf, self.utf8) {
            (true, _) => format!(
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited; escaping={escaping}"
            ),
            (false, true) => {
                format!("text/plain; version=1.0.0; charset=utf-8; escaping={escaping}")
            }
            (false, false) => {
                format!("text/plain; version=0.0.4; charset=utf-8; escaping={escaping}")
            }
        }
    }
}

/// The value of a metric.
#[derive(Clone, PartialEq, Debug)]
pub enum Exposed {
    /// A number of a type that nobody knows.
    Untyped(Sample),
    /// A native histogram without custom buckets.
    Histogram(HistogramSample),
}

impl Exposed {
    /// The number of its type; metrics of one type make a family.
    pub fn kind(&self) -> i64 {
        match self {
            Exposed::Untyped(_) => 3,
            Exposed::Histogram(sample) if sample.h.hint == ResetHint::Gauge => 5,
            Exposed::Histogram(_) => 4,
        }
    }
}

/// Begins a family: its name and type.
pub fn family(name: &str, kind: i64) -> Vec<u8> {
    let mut family = Vec::new();
    write::bytes(&mut family, 1, name.as_bytes());
    write::int(&mut family, 3, kind);
    family
}

/// Adds a metric to a family.
pub fn push<'a>(
    family: &mut Vec<u8>,
    mut labels: impl Iterator<Item = (&'a str, &'a str)>,
    value: &Exposed,
) {
    let (mut metric, mut part) = (Vec::new(), Vec::new());
    write::labels(&mut metric, &mut labels);
    let t = match value {
        Exposed::Untyped(sample) => {
            write::double(&mut part, 1, sample.v);
            write::bytes(&mut metric, 5, &part);
            sample.t
        }
        Exposed::Histogram(sample) => {
            histogram(&mut part, &sample.h);
            write::bytes(&mut metric, 7, &part);
            sample.t
        }
    };
    write::int(&mut metric, 6, t.as_ms());
    write::bytes(family, 4, &metric);
}

/// Ends a family: appends it behind its length.
pub fn finish(family: &[u8], out: &mut Vec<u8>) {
    write::varint(out, family.len() as u64);
    out.extend_from_slice(family);
}

fn histogram(out: &mut Vec<u8>, h: &Histogram) {
    write::double(out, 2, h.sum);
    write::double(out, 4, h.count);
    write::int(out, 5, zigzag(h.schema.into()).cast_signed());
    write::double(out, 6, h.zero_threshold);
    write::double(out, 8, h.zero_count);
    side(out, (9, 11), &h.negative);
    side(out, (12, 14), &h.positive);
    if h.positive.is_empty() && h.negative.is_empty() && h.zero_threshold == 0.0 {
        // Else it would be taken for a classic one without buckets.
        write::bytes(out, 12, &[]);
    }
}

fn side(out: &mut Vec<u8>, (number, counts): (u64, u64), buckets: &[Bucket]) {
    write_spans(out, number, buckets);
    for bucket in buckets {
        write::double(out, counts, bucket.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_is_written_for_those_who_prefer_it() {
        let is_preferred = |accept: &str| Accepted::of(accept).protobuf;
        const PROTOBUF: &str = "application/vnd.google.protobuf;\
             proto=io.prometheus.client.MetricFamily;encoding=delimited";
        // What Prometheus 2.42 sends with native histograms, and without.
        let with = format!(
            "{PROTOBUF},application/openmetrics-text;version=1.0.0;q=0.8,\
             application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        );
        assert!(is_preferred(&with));
        assert!(!is_preferred(
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1"
        ));
        assert!(is_preferred(&format!(
            "text/plain;q=0.4, {PROTOBUF}; q=0.6"
        )));
        assert!(!is_preferred(&format!("text/plain;q=0.6,{PROTOBUF};q=0.4")));
        assert!(!is_preferred(&format!("{PROTOBUF};q=0")));
        assert!(!is_preferred(
            "application/vnd.google.protobuf;encoding=delimited"
        ));
        assert!(!is_preferred("*/*"));
        assert!(!is_preferred(""));
    }

    #[test]
    fn names_of_all_characters_are_written_for_those_who_take_them() {
        // What Prometheus 3 sends.
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let check = |accept: &str, want: (bool, bool)| {
            let accepted = Accepted::of(accept);
            assert_eq!((accepted.protobuf, accepted.utf8), want, "{accept}");
        };
        check(prometheus, (false, true));
        check(
            "text/plain;version=0.0.4;q=0.9,text/plain;escaping=allow-utf-8;q=0.4",
            (false, false),
        );
        check("text/plain;escaping=underscores", (false, false));
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;escaping=allow-utf-8";
        check(protobuf, (true, true));
        check(&format!("{protobuf};q=0.1,text/plain"), (false, false));
    }

    #[test]
    fn a_family_is_behind_its_length() {
        let mut one = family("up", 3);
        let sample = Exposed::Untyped(Sample::new(5, 1.0));
        push(&mut one, [("a", "b")].into_iter(), &sample);
        let mut out = Vec::new();
        finish(&one, &mut out);
        let value = 1.0_f64.to_le_bytes();
        let mut metric = vec![0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b', 0x2a, 9, 9];
        metric.extend(value);
        metric.extend([0x30, 5]);
        let mut want = vec![0, 0x0a, 2, b'u', b'p', 0x18, 3, 0x22, 21];
        want.extend(metric);
        want[0] = u8::try_from(want.len() - 1).unwrap();
        assert_eq!(out, want);
    }
}
