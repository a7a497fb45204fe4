//! Durations as Prometheus writes them: `1h30m`, `500ms`, `1y` (365 days), `1w`.
//!
//! The one parser for configuration, rule files and queries, because the same
//! strings stand in all three.

use std::time::Duration;

/// Units in the order in which they must appear, with their milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a text is not a duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing was there.
    #[error("empty duration, expected something like 30s or 1h30m")]
    Empty,
    /// Not of the form.
    #[error(
        "not a valid duration: {0:?}, expected numbers with units y, w, d, h, m, s, ms in that order"
    )]
    Malformed(String),
    /// More than 64 bits of nanoseconds.
    #[error("duration out of range: {0:?}")]
    OutOfRange(String),
}

/// Parses a Prometheus duration; `0` stands without a unit.
///
/// # Errors
/// When the text is empty, malformed, or longer than about 292 years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    parse_ms(text).map(Duration::from_millis)
}

/// The same in milliseconds.
///
/// # Errors
/// As [`parse`].
pub fn parse_ms(text: &str) -> Result<u64, DurationError> {
    match text {
        "" => return Err(DurationError::Empty),
        "0" => return Ok(0),
        _ => {}
    }
    let malformed = || DurationError::Malformed(text.to_owned());
    let out_of_range = || DurationError::OutOfRange(text.to_owned());
    let mut rest = text;
    let mut next_unit = 0;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(malformed());
        }
        let count: u64 = rest[..digits].parse().map_err(|_| out_of_range())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = UNITS
            .iter()
            .position(|(name, _)| *name == &rest[..letters])
            .filter(|unit| *unit >= next_unit)
            .ok_or_else(malformed)?;
        next_unit = unit + 1;
        rest = &rest[letters..];
        total = count
            .checked_mul(UNITS[unit].1)
            .and_then(|ms| total.checked_add(ms))
            // As Prometheus: it must fit into 63 bits of nanoseconds.
            .filter(|ms| *ms < i64::MAX.unsigned_abs() / 1_000_000)
            .ok_or_else(out_of_range)?;
    }
    Ok(total)
}

/// Prints a duration as Prometheus does: weeks and years only when nothing remains.
pub fn format(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (i, (name, size)) in UNITS.iter().enumerate() {
        let whole_only = i < 2;
        if whole_only && !ms.is_multiple_of(*size) {
            continue;
        }
        let count = ms / size;
        if count > 0 {
            out.push_str(&format!("{count}{name}"));
            ms -= count * size;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_prometheus_parses() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("324ms", 324),
            ("3s", 3_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("4d", 4 * 86_400_000),
            ("4d1h", 4 * 86_400_000 + 3_600_000),
            ("3w", 3 * 7 * 86_400_000),
            ("10y", 10 * 365 * 86_400_000),
            ("1h30m15s1ms", 5_415_001),
        ] {
            assert_eq!(parse_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn refuses_what_prometheus_refuses() {
        for text in [
            "",
            "1",
            "1y1m1d",
            "-1w",
            "1.5d",
            "d",
            "294y",
            "200y10400w",
            "1s1s",
            "5µs",
            "1 s",
        ] {
            assert!(parse_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_back_in_the_shortest_form() {
        for text in [
            "0s", "324ms", "5m", "1h30m", "4d", "4d1h", "3w", "10y", "8d",
        ] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(format(Duration::from_secs(3600)), "1h");
    }
}
