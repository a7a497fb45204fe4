//! The texts of numbers, durations and strings, both ways.

use std::fmt;

use super::ast::Number;
use crate::model::duration;
pub(super) use crate::model::go_float::GoFloat;

/// The value of a number or duration token, or what is wrong with it.
///
/// As Prometheus: a leading `0` means octal when the rest allows it, `_` may
/// stand between digits, and a duration counts as its seconds.
pub(super) fn number(text: &str) -> Result<f64, String> {
    if let Some(value) = integer(text) {
        return Ok(value);
    }
    let bad = || format!("error parsing number: {text:?}");
    if text.starts_with("0x") || text.starts_with("0X") || misplaced_underscore(text) {
        return Err(bad());
    }
    text.replace('_', "").parse().map_err(|_| bad())
}

/// A whole number as Go's base 0 reads it: `0x1f`, `017`, `1_000`.
fn integer(text: &str) -> Option<f64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // After the x of 0x an underscore may stand where a digit may.
    let checked = if radix == 16 { &text[1..] } else { text };
    if misplaced_underscore(checked) {
        return None;
    }
    // from_str_radix would take a sign.
    if !digits.bytes().all(|b| b == b'_' || b.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(&digits.replace('_', ""), radix)
        .ok()
        .map(|n| n as f64)
}

/// Whether an underscore stands anywhere but between two digits.
fn misplaced_underscore(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_hexdigit)
    };
    (0..bytes.len())
        .filter(|at| bytes[*at] == b'_')
        .any(|at| !digit(at.checked_sub(1)) || !digit(Some(at + 1)))
}

/// The milliseconds of a duration token.
pub(super) fn duration_ms(text: &str) -> Result<i64, String> {
    let ms = duration::parse_ms(text).map_err(|error| match error {
        duration::DurationError::OutOfRange(_) => "duration out of range".to_owned(),
        _ => format!("not a valid duration string: {text:?}"),
    })?;
    i64::try_from(ms).map_err(|_| "duration out of range".to_owned())
}

/// Seconds to whole milliseconds, or `None` when they do not fit into Prometheus' durations.
pub(super) fn seconds_to_ms(seconds: f64) -> Option<i64> {
    const SECONDS_MAX: f64 = i64::MAX as f64 / 1e9;
    if !(-SECONDS_MAX..=SECONDS_MAX).contains(&seconds) {
        return None;
    }
    Some(crate::model::Timestamp::from_secs_f64(seconds).as_ms())
}

/// The text inside the quotes, with Go's escapes replaced.
pub(super) fn unquote(quoted: &str) -> Result<String, String> {
    let inner = &quoted[1..quoted.len() - 1];
    if quoted.starts_with('`') || !inner.contains('\\') {
        return Ok(inner.to_owned());
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            escape(&mut chars, &quoted[..1], &mut bytes)
                .ok_or_else(|| format!("error unquoting string {quoted:?}: invalid syntax"))?;
        } else {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| format!("error unquoting string {quoted:?}: invalid UTF-8"))
}

/// Appends what the escape sequence after a backslash stands for.
fn escape(chars: &mut std::str::Chars<'_>, quote: &str, out: &mut Vec<u8>) -> Option<()> {
    let c = chars.next()?;
    match c {
        'a' => out.push(0x07),
        'b' => out.push(0x08),
        'f' => out.push(0x0c),
        'n' => out.push(b'\n'),
        'r' => out.push(b'\r'),
        't' => out.push(b'\t'),
        'v' => out.push(0x0b),
        '\\' => out.push(b'\\'),
        '"' | '\'' if quote.starts_with(c) => out.push(if c == '"' { b'"' } else { b'\'' }),
        'x' => out.push(u8::try_from(code(chars, 16, 2, 0)?).ok()?),
        '0'..='7' => out.push(u8::try_from(code(chars, 8, 2, c.to_digit(8)?)?).ok()?),
        'u' | 'U' => {
            let digits = if c == 'u' { 4 } else { 8 };
            let c = char::from_u32(code(chars, 16, digits, 0)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        _ => return None,
    }
    Some(())
}

/// Exactly `count` more digits of a number that begins with `value`.
fn code(chars: &mut std::str::Chars<'_>, radix: u32, count: usize, mut value: u32) -> Option<u32> {
    for _ in 0..count {
        let digit = chars.next()?.to_digit(radix)?;
        value = value.checked_mul(radix)?.checked_add(digit)?;
    }
    Some(value)
}

/// A text in double quotes as Go's `%q` prints it.
pub(super) struct GoQuoted<'a>(pub(super) &'a str);

impl fmt::Display for GoQuoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\x07' => f.write_str("\\a")?,
                '\x08' => f.write_str("\\b")?,
                '\x0b' => f.write_str("\\v")?,
                '\x0c' => f.write_str("\\f")?,
                c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// A number as Prometheus prints it in a query.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match seconds_to_ms(self.value) {
            Some(ms) if self.duration => fmt::Display::fmt(&Duration(ms), f),
            _ => fmt::Display::fmt(&GoFloat(self.value), f),
        }
    }
}

/// Milliseconds as Prometheus prints a duration, with a sign when negative.
pub(super) struct Duration(pub(super) i64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let length = std::time::Duration::from_millis(self.0.unsigned_abs());
        f.write_str(&duration::format(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_prometheus() {
        for (text, want) in [
            ("1", 1.0),
            ("1_000", 1000.0),
            ("0x1F", 31.0),
            ("0755", 493.0),
            ("08", 8.0),
            ("5.", 5.0),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("1_0.5_0", 10.5),
            ("inF", f64::INFINITY),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
        ] {
            assert_eq!(number(text), Ok(want), "{text}");
        }
        assert!(number("NaN").unwrap().is_nan());
        for text in ["1e", "0x", "1__0", "1_", "1_.5"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn strings_have_gos_escapes() {
        for (quoted, want) in [
            (r#""a\n\t\"b""#, "a\n\t\"b"),
            (r"'it\'s'", "it's"),
            (r"`a\n`", r"a\n"),
            (r#""\x41\101\u00fc\U0001F600""#, "AAü😀"),
            (r#""\xc3\xbc""#, "ü"),
        ] {
            assert_eq!(unquote(quoted).as_deref(), Ok(want), "{quoted}");
        }
        for quoted in [
            r#""\'""#,
            r#""\q""#,
            r#""\xff""#,
            r#""\400""#,
            r#""\ud800""#,
        ] {
            assert!(unquote(quoted).is_err(), "{quoted}");
        }
    }

    #[test]
    fn durations_print_with_their_sign() {
        let number = |value, duration| Number { value, duration }.to_string();
        assert_eq!(number(5400.0, true), "1h30m");
        assert_eq!(number(-60.0, true), "-1m");
        assert_eq!(number(5400.0, false), "5400");
    }
}
