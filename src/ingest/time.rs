//! The time in a payload to a [`Timestamp`].
//!
//! `auto` tells the unit by size, as the ranges of plausible years do not
//! overlap: below 1e11 seconds (until the year 5138), below 1e14 milliseconds,
//! below 1e17 microseconds, else nanoseconds. What is finer than a millisecond
//! is cut off, towards the past.

use crate::config::TimeFormat;
use crate::model::Timestamp;

/// A time as it stands in a payload.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Written<'a> {
    /// A whole number.
    Int(i64),
    /// A number with a fraction, or one that does not fit an integer.
    Float(f64),
    /// Text: RFC 3339, or a number in quotes.
    Text(&'a str),
}

/// Reads a time. `None` when it is not one in this format.
pub(super) fn parse(written: Written<'_>, format: TimeFormat) -> Option<Timestamp> {
    match written {
        Written::Text(text) => parse_text(text, format),
        _ if format == TimeFormat::Rfc3339 => None,
        Written::Int(n) => Some(from_int(n, unit_of(n as f64, format))),
        Written::Float(x) if x.is_finite() => Some(from_float(x, unit_of(x, format))),
        Written::Float(_) => None,
    }
}

fn parse_text(text: &str, format: TimeFormat) -> Option<Timestamp> {
    let text = text.trim();
    if format != TimeFormat::Rfc3339 {
        if let Ok(n) = text.parse::<i64>() {
            return parse(Written::Int(n), format);
        }
        if let Ok(x) = text.parse::<f64>() {
            return parse(Written::Float(x), format);
        }
    }
    if !matches!(format, TimeFormat::Auto | TimeFormat::Rfc3339) {
        return None;
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_ms(
        time.as_nanosecond()
            .div_euclid(1_000_000)
            .try_into()
            .expect("a calendar date is within the range of milliseconds"),
    ))
}

/// How many milliseconds a unit is, as a fraction.
#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Ms,
    Us,
    Ns,
}

fn unit_of(size: f64, format: TimeFormat) -> Unit {
    match format {
        TimeFormat::Unix => Unit::Seconds,
        TimeFormat::UnixMs => Unit::Ms,
        TimeFormat::UnixUs => Unit::Us,
        TimeFormat::UnixNs => Unit::Ns,
        TimeFormat::Auto | TimeFormat::Rfc3339 => match size.abs() {
            s if s < 1e11 => Unit::Seconds,
            s if s < 1e14 => Unit::Ms,
            s if s < 1e17 => Unit::Us,
            _ => Unit::Ns,
        },
    }
}

fn from_int(n: i64, unit: Unit) -> Timestamp {
    Timestamp::from_ms(match unit {
        Unit::Seconds => n.saturating_mul(1_000),
        Unit::Ms => n,
        Unit::Us => n.div_euclid(1_000),
        Unit::Ns => n.div_euclid(1_000_000),
    })
}

/// Seconds keep their milliseconds: `1700000000.25` is not exact in binary, so
/// it is rounded to microseconds before the rest is cut off.
#[expect(
    clippy::cast_possible_truncation,
    reason = "float to int casts saturate; such a time is refused as out of the window"
)]
fn from_float(x: f64, unit: Unit) -> Timestamp {
    let ms = match unit {
        Unit::Seconds => ((x * 1e6).round() / 1e3).floor(),
        Unit::Ms => x.floor(),
        Unit::Us => (x / 1e3).floor(),
        Unit::Ns => (x / 1e6).floor(),
    };
    Timestamp::from_ms(ms as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_700_000_000_250;

    fn check(written: Written<'_>, format: TimeFormat, want: Option<i64>) {
        let got = parse(written, format).map(Timestamp::as_ms);
        assert_eq!(got, want, "{written:?} as {format:?}");
    }

    #[test]
    fn auto_tells_the_unit_by_size() {
        use TimeFormat::Auto;
        check(Written::Int(1_700_000_000), Auto, Some(MS - 250));
        check(Written::Int(MS), Auto, Some(MS));
        check(Written::Int(MS * 1_000 + 999), Auto, Some(MS));
        check(Written::Int(MS * 1_000_000 + 999_999), Auto, Some(MS));
        check(Written::Float(1_700_000_000.25), Auto, Some(MS));
        check(Written::Float(1_700_000_000.001), Auto, Some(MS - 249));
        check(Written::Float(MS as f64 + 0.5), Auto, Some(MS));
        check(Written::Int(0), Auto, Some(0));
        check(Written::Int(-1), Auto, Some(-1_000));
    }

    #[test]
    fn text_is_rfc3339_or_a_number() {
        use TimeFormat::Auto;
        check(Written::Text("2023-11-14T22:13:20.250Z"), Auto, Some(MS));
        check(
            Written::Text("2023-11-14T23:13:20.2509+01:00"),
            Auto,
            Some(MS),
        );
        check(Written::Text(" 1700000000250 "), Auto, Some(MS));
        check(Written::Text("1700000000.25"), Auto, Some(MS));
        for bad in ["", "now", "2023-11-14", "2023-11-14T22:13:20", "NaN", "inf"] {
            check(Written::Text(bad), Auto, None);
        }
    }

    #[test]
    fn a_given_format_is_kept_to() {
        check(Written::Int(5), TimeFormat::UnixMs, Some(5));
        check(Written::Int(5), TimeFormat::Unix, Some(5_000));
        check(Written::Int(5_999), TimeFormat::UnixUs, Some(5));
        check(
            Written::Text("2023-11-14T22:13:20Z"),
            TimeFormat::Unix,
            None,
        );
        check(Written::Int(5), TimeFormat::Rfc3339, None);
        check(Written::Text("5"), TimeFormat::Rfc3339, None);
        check(Written::Float(f64::NAN), TimeFormat::Unix, None);
    }

    proptest! {
        #[test]
        fn nothing_panics(n: i64, x: f64, text in ".{0,40}") {
            for format in [TimeFormat::Auto, TimeFormat::Unix, TimeFormat::UnixNs, TimeFormat::Rfc3339] {
                parse(Written::Int(n), format);
                parse(Written::Float(x), format);
                parse(Written::Text(&text), format);
            }
        }
    }
}
