//! Reads Prometheus text, version 0.0.4: what targets expose and scripts push.
//!
//! ```text
//! # HELP http_requests_total Requests.
//! # TYPE http_requests_total counter
//! http_requests_total{code="200",path="/"} 1027 1395066363000
//! ```
//!
//! As Prometheus reads it: blanks and tabs between the parts, a comma behind the
//! last label, `\\`, `\"` and `\n` in label values and every other backslash as it
//! is, no hexadecimal numbers, one bit pattern for every NaN, names in quotes
//! (`{"a.b","c.d"="e"}`) as Prometheus 3. More lenient in two things: lines may
//! end in `\r\n`, and the last one needs no end.
//!
//! The reader borrows, and leaves the text of a series as it is: a receiver that
//! has seen it before need not look inside. [`series`] does that.

use std::borrow::Cow;

use crate::model::labels::METRIC_NAME;

/// The NaN of ordinary values, as in Prometheus: quiet, with payload 1.
const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// A text that is not an exposition: where, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Error {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// A line that says something.
#[derive(Clone, PartialEq, Debug)]
pub enum Line<'a> {
    /// `# HELP`
    Help {
        /// The metric.
        metric: &'a str,
        /// What it is, for people.
        help: Cow<'a, str>,
    },
    /// `# TYPE`
    Type {
        /// The metric.
        metric: &'a str,
        /// `counter`, `gauge`, `histogram`, `summary` or `unknown`.
        kind: &'static str,
    },
    /// A sample.
    Sample(Sample<'a>),
}

/// One sample.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample<'a> {
    /// The series as it stands there; [`series`] reads it.
    pub series: &'a str,
    /// The value.
    pub v: f64,
    /// The time in milliseconds, when there is one.
    pub t_ms: Option<i64>,
}

/// A name and value; a label's text with escapes is a copy.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Reads an exposition line by line.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a whole exposition.
    pub fn new(text: &'a str) -> Reader<'a> {
        Reader {
            rest: text,
            line: 0,
        }
    }

    /// The number of the line that was read last, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The next line that says something; `Ok(None)` at the end.
    ///
    /// # Errors
    /// When a line cannot be read. Reading may go on with the next one.
    pub fn next_line(&mut self) -> Result<Option<Line<'a>>, Error> {
        while !self.rest.is_empty() {
            let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            (self.rest, self.line) = (rest, self.line + 1);
            let line = line.strip_suffix('\r').unwrap_or(line);
            let line = line.trim_start_matches(BLANKS);
            let read = match line.strip_prefix('#') {
                _ if line.is_empty() => Ok(None),
                Some(comment) => read_comment(comment),
                None => read_sample(line).map(|sample| Some(Line::Sample(sample))),
            };
            match read {
                Ok(None) => {}
                Ok(said) => return Ok(said),
                Err(what) => return Err(self.error(what)),
            }
        }
        Ok(None)
    }

    /// An error of the line that was read last.
    pub fn error(&self, what: String) -> Error {
        Error {
            line: self.line,
            what,
        }
    }
}

pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// What is said of a metric behind `#`: the word, the metric, the rest. `None` when
/// the word is not one of `words`, which says nothing.
pub(super) fn said_of<'a>(
    comment: &'a str,
    words: &[&str],
) -> Result<Option<(&'a str, &'a str, &'a str)>, String> {
    let text = comment.trim_start_matches(BLANKS);
    let Some((word, rest)) = text.split_once(BLANKS) else {
        return Ok(None);
    };
    if comment.len() == text.len() || !words.contains(&word) {
        return Ok(None);
    }
    let rest = rest.trim_start_matches(BLANKS);
    let (metric, rest) = rest.split_once(BLANKS).unwrap_or((rest, ""));
    if !is_metric_name(metric) {
        return Err(expected("a metric name", metric));
    }
    Ok(Some((word, metric, rest.trim_start_matches(BLANKS))))
}

/// A comment that is neither help nor type says nothing.
fn read_comment(comment: &str) -> Result<Option<Line<'_>>, String> {
    let Some((word, metric, rest)) = said_of(comment, &["HELP", "TYPE"])? else {
        return Ok(None);
    };
    if word == "HELP" {
        let help = unescaped(rest, false);
        return Ok(Some(Line::Help { metric, help }));
    }
    let kind = match rest.trim_end_matches(BLANKS) {
        "counter" => "counter",
        "gauge" => "gauge",
        "histogram" => "histogram",
        "summary" => "summary",
        "untyped" | "unknown" => "unknown",
        other => return Err(expected("a metric type", other)),
    };
    Ok(Some(Line::Type { metric, kind }))
}

fn read_sample(line: &str) -> Result<Sample<'_>, String> {
    let (series, rest) = line.split_at(series_len(line)?);
    let series = series.trim_end_matches(BLANKS);
    let mut words = rest.split(BLANKS).filter(|word| !word.is_empty());
    let value = words.next().ok_or_else(|| expected("a value", ""))?;
    let v = number(value).ok_or_else(|| expected("a value", value))?;
    let time = words.next().map(|word| {
        word.parse()
            .map_err(|_| expected("a time in milliseconds", word))
    });
    if let Some(more) = words.next() {
        return Err(expected("the end of the line", more));
    }
    Ok(Sample {
        series,
        v,
        t_ms: time.transpose()?,
    })
}

/// How long the series in front of a line is, its braces included. Looks at
/// quotes, so that a brace in a value does not end it.
pub(super) fn series_len(line: &str) -> Result<usize, String> {
    let bytes = line.as_bytes();
    let name_end = bytes
        .iter()
        .position(|b| matches!(b, b'{' | b' ' | b'\t'))
        .unwrap_or(bytes.len());
    let blanks = bytes[name_end..]
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'));
    let brace = name_end + blanks.count();
    if bytes.get(brace) != Some(&b'{') {
        return match name_end {
            0 => Err(expected("a metric name", line)),
            _ => Ok(name_end),
        };
    }
    let (mut quoted, mut at) = (false, brace + 1);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Ok(at + 1),
            _ => {}
        }
        at += 1;
    }
    let missing = if quoted {
        "a closing quote"
    } else {
        "a closing brace"
    };
    Err(expected(missing, ""))
}

pub(super) fn number(word: &str) -> Option<f64> {
    let v: f64 = word.parse().ok()?;
    if v.is_nan() {
        return Some(f64::from_bits(NORMAL_NAN_BITS));
    }
    // As Prometheus: a number that is too large is none, not infinity.
    let is_too_large = v.is_infinite() && word.bytes().any(|byte| byte.is_ascii_digit());
    (!is_too_large).then_some(v)
}

/// Reads a series into pairs, in the order in which they stand there, the metric's
/// name as the label `__name__`.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn series<'a>(text: &'a str, pairs: &mut Vec<Pair<'a>>) -> Result<(), String> {
    pairs.clear();
    let (name, labels) = match text.find('{') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let name = name.trim_end_matches(BLANKS);
    if !name.is_empty() {
        if !is_metric_name(name) {
            return Err(expected("a metric name", name));
        }
        pairs.push((METRIC_NAME.into(), name.into()));
    }
    if !labels.is_empty() {
        read_labels(&mut Words(&labels[1..]), pairs)?;
    }
    if pairs.iter().any(|(name, _)| name == METRIC_NAME) {
        Ok(())
    } else {
        Err(expected("a metric name", text))
    }
}

fn read_labels<'a>(words: &mut Words<'a>, pairs: &mut Vec<Pair<'a>>) -> Result<(), String> {
    loop {
        if words.eat('}') {
            return words.end();
        }
        let (name, is_quoted) = words.name()?;
        if words.eat('=') {
            pairs.push((name, words.quoted()?));
        } else if is_quoted {
            pairs.push((METRIC_NAME.into(), name));
        } else {
            return Err(expected("= behind a label name", words.0));
        }
        if !words.eat(',') && !words.0.starts_with('}') {
            return Err(expected(", or } behind a label", words.0));
        }
    }
}

/// What is left between the braces.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    /// Takes a character, and the blanks around it.
    fn eat(&mut self, wanted: char) -> bool {
        let rest = self.0.trim_start_matches(BLANKS);
        let eaten = rest.strip_prefix(wanted);
        self.0 = eaten.unwrap_or(rest).trim_start_matches(BLANKS);
        eaten.is_some()
    }

    fn end(&self) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(expected("nothing behind the brace", self.0))
    }

    fn name(&mut self) -> Result<(Cow<'a, str>, bool), String> {
        if self.0.starts_with('"') {
            return Ok((self.quoted()?, true));
        }
        let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let len = self.0.find(|c| !is_inside(c)).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(len);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(expected("a label name", self.0));
        }
        self.0 = rest;
        Ok((name.into(), false))
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, String> {
        let Some(text) = self.0.strip_prefix('"') else {
            return Err(expected("a text in quotes", self.0));
        };
        let mut escaped = false;
        let end = text.bytes().position(|b| {
            let is_end = b == b'"' && !escaped;
            escaped = b == b'\\' && !escaped;
            is_end
        });
        let Some(end) = end else {
            return Err(expected("a closing quote", ""));
        };
        self.0 = &text[end + 1..];
        Ok(unescaped(&text[..end], true))
    }
}

/// `\\` and `\n`, and `\"` in label values; other backslashes stay.
pub(super) fn unescaped(text: &str, quotes: bool) -> Cow<'_, str> {
    let Some(first) = text.find('\\') else {
        return text.into();
    };
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..first]);
    let mut chars = text[first..].chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => out.push('\\'),
            Some('n') => out.push('\n'),
            Some('"') if quotes => out.push('"'),
            other => {
                out.push('\\');
                out.extend(other);
            }
        }
    }
    out.into()
}

fn is_metric_name(name: &str) -> bool {
    let is_inside = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(is_inside)
}

/// A sentence that shows at most the beginning of what was found instead.
pub(super) fn expected(what: &str, found: &str) -> String {
    const SHOWN: usize = 40;
    if found.is_empty() {
        return format!("expected {what}, found the end of the line");
    }
    match found.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("expected {what}, found {:?}...", &found[..end]),
        None => format!("expected {what}, found {found:?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Labels;

    /// What an exposition says, line by line.
    fn told(text: &str) -> Result<Vec<String>, Error> {
        let mut reader = Reader::new(text);
        let mut told = Vec::new();
        let mut pairs = Vec::new();
        while let Some(line) = reader.next_line()? {
            told.push(match line {
                Line::Help { metric, help } => format!("help {metric} {help:?}"),
                Line::Type { metric, kind } => format!("type {metric} {kind}"),
                Line::Sample(sample) => {
                    series(sample.series, &mut pairs).map_err(|what| reader.error(what))?;
                    let labels = Labels::from_pairs(pairs.iter().cloned());
                    format!("{labels} {:?} {:?}", sample.v, sample.t_ms)
                }
            });
        }
        Ok(told)
    }

    fn check(text: &str, want: &[&str]) {
        assert_eq!(told(text).unwrap(), want, "{text:?}");
    }

    fn fails(text: &str, want: &str) {
        assert_eq!(told(text).unwrap_err().to_string(), want, "{text:?}");
    }

    #[test]
    fn the_documented_example_is_read() {
        check(
            "# HELP http_requests_total The total number of HTTP requests.\n\
             # TYPE http_requests_total counter\n\
             http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
             \n\
             # Escaping in label values:\n\
             msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9\n\
             metric_without_timestamp_and_labels 12.47\n\
             something_weird{problem=\"division by zero\"} +Inf -3982045\n\
             # TYPE rpc_duration_seconds summary\n\
             rpc_duration_seconds{quantile=\"0.01\"} 3102\n\
             rpc_duration_seconds_sum 1.7560473e+07\n",
            &[
                "help http_requests_total \"The total number of HTTP requests.\"",
                "type http_requests_total counter",
                "http_requests_total{code=\"200\", method=\"post\"} 1027.0 Some(1395066363000)",
                "msdos_file_access_time_seconds{error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\", path=\"C:\\\\DIR\\\\FILE.TXT\"} 1458255915.0 None",
                "metric_without_timestamp_and_labels 12.47 None",
                "something_weird{problem=\"division by zero\"} inf Some(-3982045)",
                "type rpc_duration_seconds summary",
                "rpc_duration_seconds{quantile=\"0.01\"} 3102.0 None",
                "rpc_duration_seconds_sum 17560473.0 None",
            ],
        );
    }

    #[test]
    fn blanks_braces_and_ends_are_taken_as_prometheus_takes_them() {
        check("a 1", &["a 1.0 None"]);
        check("a 1\r\nb 2\r\n", &["a 1.0 None", "b 2.0 None"]);
        check(" a\t{ b = \"c\" , } \t1  5 ", &["a{b=\"c\"} 1.0 Some(5)"]);
        check("a{} 1", &["a 1.0 None"]);
        check("a{b=\"}{\"} 1", &["a{b=\"}{\"} 1.0 None"]);
        check("a{b=\"\\x\\\\\"} 1", &["a{b=\"\\\\x\\\\\"} 1.0 None"]);
        check("a{b=\"\"} 1", &["a 1.0 None"]);
        check("a:b 1e-3", &["a:b 0.001 None"]);
        check("{\"a.b\",\"c d\"=\"e\"} 1", &["a.b{c d=\"e\"} 1.0 None"]);
        check("#a comment\n# another\n#\n# HELP\n# TYPEx y\n", &[]);
        check(
            "# HELP a b\\\\c\\nd\\\"",
            &["help a \"b\\\\c\\nd\\\\\\\"\""],
        );
        check("# HELP a", &["help a \"\""]);
        check("# TYPE a untyped", &["type a unknown"]);
        check("", &[]);
    }

    #[test]
    fn every_nan_has_the_same_bits() {
        for text in ["a NaN", "a nan", "a -NaN"] {
            let Ok(Some(Line::Sample(sample))) = Reader::new(text).next_line() else {
                panic!("a sample");
            };
            assert_eq!(sample.v.to_bits(), NORMAL_NAN_BITS);
        }
    }

    #[test]
    fn errors_name_the_line_and_what_was_expected() {
        fails(
            "a 1\nb\n",
            "line 2: expected a value, found the end of the line",
        );
        fails("a x", "line 1: expected a value, found \"x\"");
        fails("a 0x1p3", "line 1: expected a value, found \"0x1p3\"");
        fails("a 1_0", "line 1: expected a value, found \"1_0\"");
        fails(
            "a 1 2.5",
            "line 1: expected a time in milliseconds, found \"2.5\"",
        );
        fails(
            "a 1 2 3",
            "line 1: expected the end of the line, found \"3\"",
        );
        fails(
            "a{b=\"c\" 1",
            "line 1: expected a closing brace, found the end of the line",
        );
        fails(
            "a{b=\"c} 1",
            "line 1: expected a closing quote, found the end of the line",
        );
        fails(
            "a{b} 1",
            "line 1: expected = behind a label name, found \"}\"",
        );
        fails(
            "a{b=c} 1",
            "line 1: expected a text in quotes, found \"c}\"",
        );
        fails(
            "a{1b=\"c\"} 1",
            "line 1: expected a label name, found \"1b=\\\"c\\\"}\"",
        );
        fails("a{,} 1", "line 1: expected a label name, found \",}\"");
        fails(
            "a{b=\"c\"d=\"e\"} 1",
            "line 1: expected , or } behind a label, found \"d=\\\"e\\\"}\"",
        );
        fails(
            "{b=\"c\"} 1",
            "line 1: expected a metric name, found \"{b=\\\"c\\\"}\"",
        );
        fails("1a 1", "line 1: expected a metric name, found \"1a\"");
        fails(
            "\n\n# TYPE a foo",
            "line 3: expected a metric type, found \"foo\"",
        );
        fails("# HELP 1 x", "line 1: expected a metric name, found \"1\"");
        fails(
            &"é".repeat(50),
            "line 1: expected a value, found the end of the line",
        );
        fails(
            &format!("a {}", "é".repeat(50)),
            &format!("line 1: expected a value, found {:?}...", "é".repeat(40)),
        );
    }

    #[test]
    fn reading_goes_on_behind_a_bad_line() {
        let mut reader = Reader::new("bad\na 1\n");
        assert!(reader.next_line().is_err());
        assert!(matches!(reader.next_line(), Ok(Some(Line::Sample(_)))));
        assert_eq!((reader.line(), reader.next_line()), (2, Ok(None)));
    }

    fn pair() -> impl Strategy<Value = (String, String)> {
        ("[a-z_][a-z0-9_]{0,6}", "(\\PC|\n|\\\\|\"){1,20}")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            name in "[a-z_:][a-z0-9_:]{0,10}",
            pairs in prop::collection::vec(pair(), 0..5),
            v: f64,
            t in proptest::option::of(any::<i64>()),
        ) {
            let labels = Labels::from_pairs(pairs.iter().cloned().chain([(METRIC_NAME.to_owned(), name)]));
            let time = t.map_or(String::new(), |t| format!(" {t}"));
            let v = if v.is_nan() { f64::from_bits(NORMAL_NAN_BITS) } else { v };
            let text = format!("{labels} {v:e}{time}\n");
            let Ok(Some(Line::Sample(sample))) = Reader::new(&text).next_line() else {
                return Err(TestCaseError::fail(text));
            };
            prop_assert_eq!((sample.v.to_bits(), sample.t_ms), (v.to_bits(), t));
            let mut read = Vec::new();
            series(sample.series, &mut read).map_err(TestCaseError::fail)?;
            prop_assert_eq!(Labels::from_pairs(read), labels);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(\\PC|[{}\"\\\\=, #\n]){0,80}") {
            let mut reader = Reader::new(&text);
            for _ in 0..100 {
                match reader.next_line() {
                    Ok(None) => break,
                    Ok(Some(Line::Sample(sample))) => drop(series(sample.series, &mut Vec::new())),
                    Ok(Some(_)) | Err(_) => {}
                }
            }
            prop_assert!(reader.line() <= text.lines().count());
        }
    }
}
