//! Times in what is posted, in all forms that Alertmanager reads.
//!
//! RFC 3339, but also without seconds, without a zone (then UTC), with a comma, after
//! three decimals with a zone of four digits, and with a space instead of the `T` when
//! neither zone nor fraction follows.

use super::answer::Error;
use crate::model::Timestamp;

/// A time that has to be there. An empty text is the beginning of 1970.
///
/// # Errors
/// When it is no time.
pub(super) fn time(what: &'static str, text: &str) -> Result<Timestamp, Error> {
    match text {
        "" => Ok(Timestamp::from_ms(0)),
        text => parsed(text).map_err(|why| Error::Unparsed(what, why)),
    }
}

/// A time; none when it is left out or Go's zero time. An empty text is none too;
/// Alertmanager takes it for the beginning of 1970, so that the alert would have ended
/// long ago.
///
/// # Errors
/// With the bare reason when it is no time.
pub(super) fn read(text: &str) -> Result<Option<Timestamp>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let at = parsed(text)?;
    Ok(Some(at).filter(|_| Timestamp::of_day(1, 1, 1) != Some(at)))
}

fn parsed(text: &str) -> Result<Timestamp, String> {
    parse(text).ok_or_else(|| format!("parsing time {text:?}: expected RFC 3339"))
}

fn parse(text: &str) -> Option<Timestamp> {
    let mut rest = Rest(text.as_bytes());
    let year = rest.number(4, 9999)?;
    rest.skip(b"-")?;
    let month = rest.number(2, 12)?;
    rest.skip(b"-")?;
    let day = Timestamp::of_day(year, month, rest.number(2, 31)?)?;
    let separator = rest.skip(b"T ")?;
    let mut ms = rest.number(2, 23)? * 3_600_000;
    rest.skip(b":")?;
    ms += rest.number(2, 59)? * 60_000;
    let has_seconds = rest.skip(b":").is_some();
    let mut decimals = 0;
    if has_seconds {
        ms += rest.number(2, 59)? * 1_000;
        if rest.skip(b".,").is_some() {
            let (fraction, count) = rest.fraction_ms()?;
            ms += fraction;
            decimals = count;
        }
    }
    let zone = match (separator, has_seconds, rest.0) {
        (b'T', _, b"Z" | b"") => 0,
        (b' ', true, b"") => 0,
        (b'T', true, _) => rest.zone_ms(decimals == 3)?,
        _ => return None,
    };
    Some(day.plus_ms(ms - zone))
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, any: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !any.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self, digits: usize, max: i64) -> Option<i64> {
        let mut number = 0;
        for _ in 0..digits {
            number = number * 10 + i64::from(self.skip(b"0123456789")? - b'0');
        }
        (number <= max).then_some(number)
    }

    /// Milliseconds, cut off, and the number of digits.
    fn fraction_ms(&mut self) -> Option<(i64, usize)> {
        let (mut ms, mut unit, mut count) = (self.number(1, 9)? * 100, 10, 1);
        while let Some(digit) = self.number(1, 9) {
            ms += digit * unit;
            unit /= 10;
            count += 1;
        }
        Some((ms, count))
    }

    fn zone_ms(&mut self, without_colon: bool) -> Option<i64> {
        let sign = if self.skip(b"+-")? == b'-' { -1 } else { 1 };
        let hours = self.number(2, 24)?;
        if self.skip(b":").is_none() && !without_colon {
            return None;
        }
        let minutes = self.number(2, 59)?;
        let is_end = self.0.is_empty();
        is_end.then_some(sign * (hours * 60 + minutes) * 60_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Option<&str>) {
        let got = read(text).ok().flatten().map(Timestamp::to_rfc3339);
        assert_eq!(got.as_deref(), want, "{text:?}");
    }

    #[test]
    fn every_form_of_the_generator_is_a_time() {
        for (text, want) in [
            ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05.000Z"),
            ("2020-01-02T03:04:05.6Z", "2020-01-02T03:04:05.600Z"),
            ("2020-01-02T03:04:05,6789Z", "2020-01-02T03:04:05.678Z"),
            ("2020-01-02T03:04:05+01:30", "2020-01-02T01:34:05.000Z"),
            ("2020-01-02T03:04:05.000-0130", "2020-01-02T04:34:05.000Z"),
            ("2020-01-02T03:04:05", "2020-01-02T03:04:05.000Z"),
            ("2020-01-02T03:04Z", "2020-01-02T03:04:00.000Z"),
            ("2020-01-02T03:04", "2020-01-02T03:04:00.000Z"),
            ("2020-01-02 03:04:05", "2020-01-02T03:04:05.000Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
            (
                "2020-01-02T03:04:05.123456789012Z",
                "2020-01-02T03:04:05.123Z",
            ),
        ] {
            check(text, Some(want));
        }
    }

    #[test]
    fn what_is_left_out_and_the_zero_time_are_none() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("0001-01-01T00:00:00Z"), Ok(None));
        assert_eq!(read("0001-01-01T00:00:00.000Z"), Ok(None));
        assert!(read("0001-01-01T00:00:00.5Z").unwrap().is_some());
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "x",
            "2020",
            "2020-01-02",
            "2020-01-02 03:04:05Z",
            "2020-01-02t03:04:05z",
            "2020-01-02T24:00:00Z",
            "2020-02-30T00:00:00Z",
            "2020-13-01T00:00:00Z",
            "2020-01-02T03:04:60Z",
            "2020-01-02T03:04:05.Z",
            "2020-01-02T03:04:05-0130",
            "2020-01-02T03:04+01:00",
            "2020-01-02T03:04:05+01:00 ",
            "10000-01-01T00:00:00Z",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
