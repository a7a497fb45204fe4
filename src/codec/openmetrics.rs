//! Reads OpenMetrics text, version 1.0, a line at a time: what history is written in.
//!
//! ```text
//! # TYPE http_requests counter
//! # UNIT queue_seconds seconds
//! http_requests_total{code="200"} 1027 1395066363.000 # {trace_id="a1"} 0.5
//! # EOF
//! ```
//!
//! It differs from Prometheus text ([`super::text`]) in the times, which are
//! seconds, in `# UNIT`, in exemplars behind a sample, in four more types and in
//! the end, which is told: a file without it was cut short. As lenient as there
//! with blanks and empty lines, where the standard allows one blank and no empty
//! line. A time is rounded to the nearest millisecond; Prometheus cuts it off, which
//! makes 122 of .123 seconds.

use std::borrow::Cow;

use super::text::{self, BLANKS, expected};

/// What a line says.
#[derive(Clone, PartialEq, Debug)]
pub enum Line<'a> {
    /// `# HELP`
    Help {
        /// The metric family.
        metric: &'a str,
        /// What it is, for people.
        help: Cow<'a, str>,
    },
    /// `# TYPE`
    Type {
        /// The metric family.
        metric: &'a str,
        /// One of [`TYPES`].
        kind: &'static str,
    },
    /// `# UNIT`
    Unit {
        /// The metric family.
        metric: &'a str,
        /// The base unit.
        unit: &'a str,
    },
    /// A sample.
    Sample {
        /// The series as it stands there; [`text::series`] reads it.
        series: &'a str,
        /// The value.
        v: f64,
        /// The time in milliseconds, when there is one.
        t_ms: Option<i64>,
        /// Whether an exemplar stands behind it.
        has_exemplar: bool,
    },
    /// `# EOF`: nothing may follow.
    End,
}

/// The types of metrics.
pub const TYPES: [&str; 8] = [
    "counter",
    "gauge",
    "gaugehistogram",
    "histogram",
    "info",
    "stateset",
    "summary",
    "unknown",
];

/// Reads one line, without its end. `None` when it says nothing.
///
/// # Errors
/// What is wrong, as a sentence with what was expected.
pub fn line(line: &str) -> Result<Option<Line<'_>>, String> {
    let line = line.trim_start_matches(BLANKS);
    match line.strip_prefix('#') {
        _ if line.is_empty() => Ok(None),
        Some(" EOF") => Ok(Some(Line::End)),
        Some(comment) => read_comment(comment),
        None => read_sample(line).map(Some),
    }
}

fn read_comment(comment: &str) -> Result<Option<Line<'_>>, String> {
    let Some((word, metric, rest)) = text::said_of(comment, &["HELP", "TYPE", "UNIT"])? else {
        return Ok(None);
    };
    let word_of = rest.trim_end_matches(BLANKS);
    Ok(Some(match word {
        "HELP" => Line::Help {
            metric,
            help: text::unescaped(rest, true),
        },
        "UNIT" => Line::Unit {
            metric,
            unit: word_of,
        },
        _ => {
            let kind = TYPES.into_iter().find(|kind| *kind == word_of);
            let kind = kind.ok_or_else(|| expected("a metric type", word_of))?;
            Line::Type { metric, kind }
        }
    }))
}

fn read_sample(line: &str) -> Result<Line<'_>, String> {
    let (series, rest) = line.split_at(text::series_len(line)?);
    let (rest, exemplar) = match rest.split_once('#') {
        Some((rest, exemplar)) => (rest, Some(exemplar)),
        None => (rest, None),
    };
    if let Some(exemplar) = exemplar {
        check_exemplar(exemplar)?;
    }
    let mut words = rest.split(BLANKS).filter(|word| !word.is_empty());
    let v = value(words.next())?;
    let t_ms = words.next().map(time).transpose()?;
    if let Some(more) = words.next() {
        return Err(expected("an exemplar or the end of the line", more));
    }
    Ok(Line::Sample {
        series: series.trim_end_matches(BLANKS),
        v,
        t_ms,
        has_exemplar: exemplar.is_some(),
    })
}

fn value(word: Option<&str>) -> Result<f64, String> {
    let word = word.unwrap_or_default();
    text::number(word).ok_or_else(|| expected("a value", word))
}

/// Labels in braces, a value and perhaps a time.
fn check_exemplar(text: &str) -> Result<(), String> {
    let text = text.trim_start_matches(BLANKS);
    if !text.starts_with('{') {
        return Err(expected("an exemplar's labels in braces", text));
    }
    let (_, rest) = text.split_at(text::series_len(text)?);
    let mut words = rest.split(BLANKS).filter(|word| !word.is_empty());
    value(words.next())?;
    words.next().map(time).transpose()?;
    words
        .next()
        .map_or(Ok(()), |more| Err(expected("the end of the line", more)))
}

/// The largest time in ms: all whole numbers up to it are exact.
const TIME_MS_MAX: f64 = (1_u64 << 53) as f64;

fn time(word: &str) -> Result<i64, String> {
    let seconds: Option<f64> = word.parse().ok();
    let ms = seconds.map(|seconds| (seconds * 1e3).round());
    match ms.filter(|ms| ms.abs() < TIME_MS_MAX) {
        #[expect(clippy::cast_possible_truncation, reason = "it was just compared")]
        Some(ms) => Ok(ms as i64),
        None => Err(expected("a time in seconds", word)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, want: &str) {
        let said = match line(text) {
            Ok(None) => String::new(),
            Ok(Some(Line::Sample {
                series,
                v,
                t_ms,
                has_exemplar,
            })) => format!("{series} {v:?} {t_ms:?} {has_exemplar}"),
            Ok(Some(other)) => format!("{other:?}"),
            Err(what) => what,
        };
        assert_eq!(said, want, "{text:?}");
    }

    #[test]
    fn samples_have_times_in_seconds() {
        check("a 1", "a 1.0 None false");
        check("a 1 1520879607.789", "a 1.0 Some(1520879607789) false");
        check("a 1 1.5e9", "a 1.0 Some(1500000000000) false");
        check("a 1 -0.001", "a 1.0 Some(-1) false");
        check("a{b=\"#\"} +Inf 0", "a{b=\"#\"} inf Some(0) false");
        check("a{b=\"c # {\"} 1 2", "a{b=\"c # {\"} 1.0 Some(2000) false");
        // The nearest double of this many seconds lies below .123.
        check("a 1 1600000000.123", "a 1.0 Some(1600000000123) false");
    }

    #[test]
    fn exemplars_are_read_over() {
        for text in [
            "a_bucket{le=\"1\"} 5 7 # {trace_id=\"KOO5S4vxi0o\"} 0.67",
            "a_bucket{le=\"1\"} 5 7 # {trace_id=\"}#\"} 9.8 1520879607.789",
            "a_bucket{le=\"1\"} 5 7 # {} 9.8",
        ] {
            check(text, "a_bucket{le=\"1\"} 5.0 Some(7000) true");
        }
        check("a 1 # {} 1", "a 1.0 None true");
        check(
            "a 1 # x",
            "expected an exemplar's labels in braces, found \"x\"",
        );
        check("a 1 # {}", "expected a value, found the end of the line");
        check(
            "a 1 # {} 1 2 3",
            "expected the end of the line, found \"3\"",
        );
        check(
            "a 1 # {",
            "expected a closing brace, found the end of the line",
        );
    }

    #[test]
    fn comments_say_what_metrics_are() {
        check(
            "# HELP a b \\\"c\\\"\\n",
            "Help { metric: \"a\", help: \"b \\\"c\\\"\\n\" }",
        );
        for kind in TYPES {
            check(
                &format!("# TYPE a {kind}"),
                &format!("Type {{ metric: \"a\", kind: {kind:?} }}"),
            );
        }
        check(
            "# UNIT a_seconds seconds",
            "Unit { metric: \"a_seconds\", unit: \"seconds\" }",
        );
        check("# EOF", "End");
        check("", "");
        check("# a comment", "");
        check("# EOFx", "");
        check(
            "# TYPE a untyped",
            "expected a metric type, found \"untyped\"",
        );
        check("# UNIT 1 s", "expected a metric name, found \"1\"");
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        check("a", "expected a value, found the end of the line");
        check("a x 1", "expected a value, found \"x\"");
        check("a 1 x", "expected a time in seconds, found \"x\"");
        check("a 1 NaN", "expected a time in seconds, found \"NaN\"");
        check("a 1 1e300", "expected a time in seconds, found \"1e300\"");
        check(
            "a 1 2 3",
            "expected an exemplar or the end of the line, found \"3\"",
        );
        check(
            "a{b=\"c 1",
            "expected a closing quote, found the end of the line",
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(\\PC|[{}\"\\\\=, #]){0,80}") {
            drop(line(&text));
        }

        #[test]
        fn every_millisecond_is_read_as_written(ms in -4_000_000_000_000_i64..4_000_000_000_000) {
            let sign = if ms < 0 { "-" } else { "" };
            let text = format!("a 1 {sign}{}.{:03}", ms.abs() / 1_000, ms.abs() % 1_000);
            let read = line(&text).map_err(TestCaseError::fail)?;
            let Some(Line::Sample { t_ms, .. }) = read else {
                return Err(TestCaseError::fail(text));
            };
            prop_assert_eq!(t_ms, Some(ms));
        }
    }
}
