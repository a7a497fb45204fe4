//! Prometheus remote_read: a question about raw samples as a snappy block that
//! holds a protobuf message, and the answer in the same form.
//!
//! ```text
//! ReadRequest  { repeated Query queries = 1; repeated ResponseType accepted_response_types = 2 }
//! Query        { int64 start_timestamp_ms = 1; int64 end_timestamp_ms = 2;
//!                repeated LabelMatcher matchers = 3; ReadHints hints = 4 }
//! LabelMatcher { Type type = 1; string name = 2; string value = 3 }
//! ReadResponse { repeated QueryResult results = 1 }
//! QueryResult  { repeated TimeSeries timeseries = 1 }
//! ```
//!
//! A reader lists the kinds of answer that it takes, and gets the first of them that
//! is known here: samples as above, or chunks, see [`super::streamed`].

use super::protobuf::{Fields, Malformed, Value, write};
use crate::model::{HistogramSample, Labels, MatchOp, Matcher, Sample};

/// What a reader asks, and how it wants the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The questions.
    pub queries: Vec<Query>,
    /// The kind of the answer.
    pub kind: AnswerKind,
}

/// The kinds of answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerKind {
    /// One message with all samples.
    Samples,
    /// A stream of messages with chunks.
    Chunks,
}

/// One question: the series that fulfil all matchers, within a closed range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// The first time, in milliseconds.
    pub start: i64,
    /// The last time, in milliseconds.
    pub end: i64,
    /// The conditions.
    pub matchers: Vec<Matcher>,
}

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadRequest {
    /// It is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A pattern does not compile.
    #[error(transparent)]
    Regex(#[from] crate::model::matcher::InvalidRegex),
}

/// Reads a request. One that lists no kind of answer takes samples, and so does one
/// that lists only unknown ones, which Prometheus refuses.
///
/// # Errors
/// When it is no such message, or one of its patterns does not compile.
pub fn request(message: &[u8]) -> Result<Request, BadRequest> {
    let mut queries = Vec::new();
    let mut kinds = Vec::new();
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => queries.push(query(bytes)?),
            (2, Value::Varint(kind)) => kinds.push(kind),
            (2, Value::Bytes(packed)) => {
                let mut rest = Fields(packed);
                while !rest.0.is_empty() {
                    kinds.push(rest.varint()?);
                }
            }
            _ => {}
        }
    }
    let known = kinds.into_iter().find_map(|kind| match kind {
        0 => Some(AnswerKind::Samples),
        1 => Some(AnswerKind::Chunks),
        _ => None,
    });
    Ok(Request {
        queries,
        kind: known.unwrap_or(AnswerKind::Samples),
    })
}

fn query(message: &[u8]) -> Result<Query, BadRequest> {
    let mut query = Query {
        start: 0,
        end: 0,
        matchers: Vec::new(),
    };
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Varint(n)) => query.start = n.cast_signed(),
            (2, Value::Varint(n)) => query.end = n.cast_signed(),
            (3, Value::Bytes(bytes)) => query.matchers.push(matcher(bytes)?),
            _ => {}
        }
    }
    Ok(query)
}

fn matcher(message: &[u8]) -> Result<Matcher, BadRequest> {
    let (mut op, mut name, mut value) = (MatchOp::Equal, "", "");
    let mut fields = Fields(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Value::Varint(n)) => {
                op = match n {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return Err(Malformed("an unknown kind of matcher").into()),
                }
            }
            (2, Value::Bytes(bytes)) => name = text(bytes)?,
            (3, Value::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
    }
    Ok(Matcher::new(name, op, value)?)
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("a text that is no UTF-8"))
}

/// The result of one question, growing series by series.
#[derive(Default, Debug)]
pub struct QueryResult {
    message: Vec<u8>,
    series: Vec<u8>,
    part: Vec<u8>,
}

impl QueryResult {
    /// Adds a series with floats, native histograms or both. Samples go out as they are, staleness markers included.
    pub fn push(&mut self, labels: &Labels, samples: &[Sample], native: &[HistogramSample]) {
        self.series.clear();
        write::labels(&mut self.series, &mut labels.iter());
        for sample in samples {
            self.part.clear();
            write::double(&mut self.part, 1, sample.v);
            write::int(&mut self.part, 2, sample.t.as_ms());
            write::bytes(&mut self.series, 2, &self.part);
        }
        for sample in native {
            self.part.clear();
            super::histogram::write(&mut self.part, sample);
            write::bytes(&mut self.series, 4, &self.part);
        }
        write::bytes(&mut self.message, 1, &self.series);
    }

    /// How many bytes it has so far.
    pub fn size(&self) -> usize {
        self.message.len()
    }
}

/// The whole answer as a snappy block: the results in the order of the questions.
pub fn answer(results: &[QueryResult]) -> Vec<u8> {
    let mut message = Vec::with_capacity(results.iter().map(|r| r.size() + 8).sum());
    for result in results {
        write::bytes(&mut message, 1, &result.message);
    }
    snap::raw::Encoder::new()
        .compress_vec(&message)
        .expect("an answer is far below snappy's 4 GiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::stale_nan;

    fn request(start: i64, end: i64, matchers: &[(i64, &str, &str)]) -> Vec<u8> {
        let mut query = Vec::new();
        write::int(&mut query, 1, start);
        write::int(&mut query, 2, end);
        for (kind, name, value) in matchers {
            let mut matcher = Vec::new();
            write::int(&mut matcher, 1, *kind);
            write::bytes(&mut matcher, 2, name.as_bytes());
            write::bytes(&mut matcher, 3, value.as_bytes());
            write::bytes(&mut query, 3, &matcher);
        }
        let mut message = Vec::new();
        write::bytes(&mut message, 1, &query);
        write::int(&mut message, 2, 1);
        write::int(&mut message, 2, 0);
        message
    }

    #[test]
    fn the_first_known_kind_of_answer_is_taken() {
        let of = |kinds: &[u8]| {
            let mut packed = Vec::new();
            write::bytes(&mut packed, 2, kinds);
            super::request(&packed).unwrap().kind
        };
        assert_eq!(of(&[]), AnswerKind::Samples);
        assert_eq!(of(&[0, 1]), AnswerKind::Samples);
        assert_eq!(of(&[1, 0]), AnswerKind::Chunks);
        assert_eq!(of(&[7, 1]), AnswerKind::Chunks);
        assert_eq!(of(&[7]), AnswerKind::Samples);
    }

    #[test]
    fn questions_are_read() {
        let message = request(-5, 1000, &[(0, "__name__", "up"), (3, "job", "a|b")]);
        let Request { queries, kind } = super::request(&message).unwrap();
        assert_eq!((queries.len(), kind), (1, AnswerKind::Chunks));
        assert_eq!((queries[0].start, queries[0].end), (-5, 1000));
        let texts: Vec<String> = queries[0].matchers.iter().map(Matcher::to_string).collect();
        assert_eq!(texts, ["__name__=\"up\"", "job!~\"a|b\""]);
    }

    #[test]
    fn bad_questions_are_refused() {
        assert!(super::request(&request(0, 0, &[(2, "a", "(")])).is_err());
        assert!(super::request(&request(0, 0, &[(9, "a", "b")])).is_err());
        assert!(super::request(&[0x0a, 9]).is_err());
    }

    #[test]
    fn an_answer_holds_labels_times_and_bits() {
        let mut result = QueryResult::default();
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        result.push(
            &labels,
            &[Sample::new(-7, stale_nan()), Sample::new(8, 1.5)],
            &[],
        );
        let block = answer(&[result, QueryResult::default()]);
        let message = snap::raw::Decoder::new().decompress_vec(&block).unwrap();
        let mut results = Vec::new();
        let mut fields = Fields(&message);
        while let Some((1, Value::Bytes(bytes))) = fields.next().unwrap() {
            results.push(bytes);
        }
        assert_eq!(results.len(), 2);
        assert!(results[1].is_empty());
        let Some((1, Value::Bytes(series))) = Fields(results[0]).next().unwrap() else {
            panic!("no series");
        };
        let (mut names, mut samples) = (Vec::new(), Vec::new());
        let mut fields = Fields(series);
        while let Some((number, Value::Bytes(bytes))) = fields.next().unwrap() {
            let mut inner = Fields(bytes);
            let first = inner.next().unwrap().unwrap().1;
            let second = inner.next().unwrap().unwrap().1;
            match (number, first, second) {
                (1, Value::Bytes(name), Value::Bytes(_)) => names.push(name),
                (2, Value::Fixed64(v), Value::Varint(t)) => samples.push((t.cast_signed(), v)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names, [&b"__name__"[..], b"job"]);
        assert_eq!(
            samples,
            [(-7, stale_nan().to_bits()), (8, 1.5f64.to_bits())]
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = super::request(&bytes);
        }
    }
}
