//! Writes Prometheus' JSON straight into one buffer: no tree is built in between.
//!
//! Numbers are what Go prints: `f` or, below 1e-6 and from 1e21, `e` with at least two
//! digits of exponent, in quotes; times are seconds with three decimals or none.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::model::{Histogram, Labels, Sample, Timestamp};

/// Wraps written data into the envelope of a success.
///
/// `data` writes the value of `data`; warnings and infos follow when there are any.
pub fn success(warnings: &[String], infos: &[String], data: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"status\":\"success\",\"data\":");
    data(&mut out);
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        if !texts.is_empty() {
            out.push(b',');
            string(&mut out, name);
            out.push(b':');
            array(&mut out, texts, |out, text| html_safe_string(out, text));
        }
    }
    out.push(b'}');
    out
}

/// An answer made of finished JSON.
pub fn respond(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A JSON array of `items`.
pub fn array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, value) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item(out, value);
    }
    out.push(b']');
}

/// Writes the fields of an object in the order of the calls.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Begins an object.
    pub fn new(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, first: true }
    }

    /// The buffer, after the field's name.
    pub fn field(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A text.
    pub fn text(&mut self, name: &str, text: &str) -> &mut Object<'a> {
        html_safe_string(self.field(name), text);
        self
    }

    /// A whole number.
    pub fn integer(&mut self, name: &str, value: impl Into<i128>) -> &mut Object<'a> {
        raw(self.field(name), &value.into().to_string());
        self
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str, value: bool) -> &mut Object<'a> {
        raw(self.field(name), if value { "true" } else { "false" });
        self
    }

    /// A number that is not in quotes, as Go's encoder prints it.
    pub fn number(&mut self, name: &str, value: f64) -> &mut Object<'a> {
        let text = go_float(value).replace("e-0", "e-");
        raw(self.field(name), &text);
        self
    }

    /// A text from pairs, as an object.
    pub fn pairs<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        name: &str,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> &mut Object<'a> {
        let mut object = Object::new(self.field(name));
        for (name, value) in pairs {
            object.text(name.as_ref(), value.as_ref());
        }
        object.end();
        self
    }

    /// Ends the object.
    pub fn end(&mut self) {
        self.out.push(b'}');
    }
}

/// Plain bytes.
pub fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// A label set as an object, in name order.
pub fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

/// `[time,"value"]`
pub fn point(out: &mut Vec<u8>, sample: Sample) {
    out.push(b'[');
    time(out, sample.t);
    raw(out, ",\"");
    float(out, sample.v);
    raw(out, "\"]");
}

/// `[time,{"count":"9","sum":"2.5","buckets":[[0,"0.5","1","9"]]}]`: a native
/// histogram with the buckets that are not empty, each with the kind of its bounds.
pub fn histogram_point(out: &mut Vec<u8>, t: Timestamp, h: &Histogram) {
    let number = |out: &mut Vec<u8>, v: f64| {
        raw(out, "\"");
        raw(out, &go_float(v));
        raw(out, "\"");
    };
    out.push(b'[');
    time(out, t);
    raw(out, ",{\"count\":");
    number(out, h.count);
    raw(out, ",\"sum\":");
    number(out, h.sum);
    let ranges = h.ranges();
    if !ranges.is_empty() {
        raw(out, ",\"buckets\":");
        array(out, ranges, |out, range| {
            raw(out, &format!("[{}", range.rule()));
            for v in [range.lower, range.upper, range.count] {
                out.push(b',');
                number(out, v);
            }
            out.push(b']');
        });
    }
    raw(out, "}]");
}

/// Seconds, with three decimals when there is a fraction.
pub fn time(out: &mut Vec<u8>, t: Timestamp) {
    let ms = t.as_ms();
    if ms < 0 {
        out.push(b'-');
    }
    let ms = ms.unsigned_abs();
    digits(out, ms / 1000, 1);
    if !ms.is_multiple_of(1000) {
        out.push(b'.');
        digits(out, ms % 1000, 3);
    }
}

/// The numbers below 100 with two digits each.
const PAIRS: &[u8; 200] =
    b"00010203040506070809101112131415161718192021222324252627282930313233343536373839\
    40414243444546474849505152535455565758596061626364656667686970717273747576777879\
    8081828384858687888990919293949596979899";

/// A whole number with at least `width` digits, two at a time.
fn digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while number >= 10 {
        at -= 2;
        let pair = (number % 100) as usize * 2;
        text[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
        number /= 100;
    }
    if number > 0 {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
    }
    out.extend_from_slice(&text[at.min(text.len() - width)..]);
}

/// The text of [`go_float`].
pub fn float(out: &mut Vec<u8>, value: f64) {
    if let Some(number) = whole(value) {
        if value < 0.0 {
            out.push(b'-');
        }
        digits(out, number, 1);
        return;
    }
    if value.is_finite() {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value);
        // It has another form than Go for what is small or large.
        if !text.contains('e') {
            raw(out, text.strip_suffix(".0").unwrap_or(text));
            return;
        }
    }
    raw(out, &go_float(value));
}

/// The size of a whole number that has all its digits. There is a negative zero too,
/// which is not one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast back shows whether anything was lost, and the rest has no sign"
)]
fn whole(value: f64) -> Option<u64> {
    let size = value.abs();
    let number = size as u64;
    let is_whole = number as f64 == size && number < 1 << 53;
    (is_whole && value.to_bits() != (-0.0_f64).to_bits()).then_some(number)
}

/// As Go's `strconv.FormatFloat` with the shortest digits: `f`, or `e` when the value
/// is below 1e-6 or at least 1e21.
pub fn go_float(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return not_finite(value).to_owned();
    }
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        return go_exponent(value);
    }
    let sign = sign(value);
    let (digits, exponent) = shortest(size);
    let zeros = |count: usize| "0".repeat(count);
    match usize::try_from(exponent) {
        Err(_) => {
            let zeros = zeros(exponent.unsigned_abs() as usize - 1);
            format!("{sign}0.{zeros}{digits}")
        }
        Ok(exponent) if digits.len() <= exponent + 1 => {
            let zeros = zeros(exponent + 1 - digits.len());
            format!("{sign}{digits}{zeros}")
        }
        Ok(exponent) => {
            let (whole, rest) = digits.split_at(exponent + 1);
            format!("{sign}{whole}.{rest}")
        }
    }
}

/// As Go's `e` form with the shortest digits: `9e+01`, `1.5e-07`.
pub fn go_exponent(value: f64) -> String {
    if !value.is_finite() {
        return not_finite(value).to_owned();
    }
    let (digits, exponent) = shortest(value.abs());
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let minus = if exponent < 0 { '-' } else { '+' };
    let (sign, size) = (sign(value), exponent.unsigned_abs());
    format!("{sign}{first}{point}{rest}e{minus}{size:0>2}")
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

fn sign(value: f64) -> &'static str {
    if value.is_sign_negative() { "-" } else { "" }
}

/// The fewest digits that only this number has for nearest, and the power of ten of
/// the first one. Of two that are as near the even one counts, as in Go.
fn shortest(size: f64) -> (String, i32) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(size);
    let (mantissa, power) = text.split_once('e').unwrap_or((text, "0"));
    let power: i32 = power.parse().expect("a small number follows the e");
    let (whole, rest) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{rest}");
    let small = digits.trim_start_matches('0');
    let passed = digits.len() - small.len() + 1;
    let point = i32::try_from(whole.len()).expect("whole numbers have few digits")
        - i32::try_from(passed).expect("and small ones few zeros");
    match small.trim_end_matches('0') {
        "" => ("0".to_owned(), 0),
        digits => (digits.to_owned(), point + power),
    }
}

/// A JSON string as jsoniter writes it: only what must be escaped is.
pub fn string(out: &mut Vec<u8>, text: &str) {
    escaped(out, text, false);
}

/// The same with `<`, `>` and `&` escaped, as Go's encoder does by default.
pub fn html_safe_string(out: &mut Vec<u8>, text: &str) {
    escaped(out, text, true);
}

fn escaped(out: &mut Vec<u8>, text: &str, html_safe: bool) {
    out.push(b'"');
    let bytes = text.as_bytes();
    // Looks at every byte, which is quicker than to look where to stop.
    let special = |b: u8| (b < 0x20) | matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
    if !bytes.iter().fold(false, |any, b| any | special(*b)) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut plain = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        let replacement = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            b'<' if html_safe => "\\u003c",
            b'>' if html_safe => "\\u003e",
            b'&' if html_safe => "\\u0026",
            0x00..0x20 => {
                out.extend_from_slice(&bytes[plain..i]);
                plain = i + 1;
                raw(out, &format!("\\u{byte:04x}"));
                continue;
            }
            // U+2028 and U+2029 end a line in scripts.
            0xe2 if matches!(bytes.get(i + 1..i + 3), Some([0x80, 0xa8 | 0xa9])) => {
                out.extend_from_slice(&bytes[plain..i]);
                plain = i + 3;
                raw(
                    out,
                    if bytes[i + 2] == 0xa8 {
                        "\\u2028"
                    } else {
                        "\\u2029"
                    },
                );
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..i]);
        plain = i + 1;
        raw(out, replacement);
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_what_go_prints() {
        // By Go 1.19: strconv.FormatFloat(v, fmt, -1, 64).
        for (value, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (9.9e-7, "9.9e-07"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (5e-324, "5e-324"),
            (123_456.789, "123456.789"),
            // Both neighbours with one decimal are as near: the even one counts.
            (1_543_358_109_375_192.0 + 0.25, "1543358109375192.2"),
            (1_543_358_109_375_192.0 + 0.75, "1543358109375192.8"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(go_float(value), want);
            assert_eq!(written(|out| float(out, value)), want);
        }
        for (value, want) in [
            (90.0, "9e+01"),
            (0.0, "0e+00"),
            (1.5e-7, "1.5e-07"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(go_exponent(value), want);
        }
    }

    #[test]
    fn times_have_three_decimals_or_none() {
        for (ms, want) in [
            (0, "0"),
            (1_700_000_000_000, "1700000000"),
            (1_700_000_000_250, "1700000000.250"),
            (1_001, "1.001"),
            (-1_500, "-1.500"),
            (-5, "-0.005"),
        ] {
            assert_eq!(written(|out| time(out, Timestamp::from_ms(ms))), want);
        }
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let text = "a\"\\\n\r\t\u{1}<&>\u{2028}\u{2029}ü€";
        assert_eq!(
            written(|out| string(out, text)),
            "\"a\\\"\\\\\\n\\r\\t\\u0001<&>\\u2028\\u2029ü€\""
        );
        assert_eq!(
            written(|out| html_safe_string(out, "<&>")),
            "\"\\u003c\\u0026\\u003e\""
        );
    }

    #[test]
    fn the_envelope_leaves_out_what_is_empty() {
        let body = success(&[], &["x".to_owned()], |out| raw(out, "1"));
        assert_eq!(
            body,
            b"{\"status\":\"success\",\"data\":1,\"infos\":[\"x\"]}"
        );
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text in any::<String>()) {
            for write in [string, html_safe_string] {
                let json = written(|out| write(out, &text));
                prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text.clone());
            }
        }

        #[test]
        fn every_number_comes_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [go_float(value), go_exponent(value)] {
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits, "{}", text);
            }
        }

        #[test]
        fn every_number_is_written_as_go_does(bits in any::<u64>(), shift in 0u32..64) {
            for value in [f64::from_bits(bits), (bits >> shift) as f64, -((bits >> shift) as f64)] {
                prop_assert_eq!(written(|out| float(out, value)), go_float(value));
            }
            let number = bits >> shift;
            prop_assert_eq!(written(|out| digits(out, number, 1)), number.to_string());
            prop_assert_eq!(written(|out| digits(out, number, 3)), format!("{number:03}"));
        }

        #[test]
        fn decimals_are_written_as_all_others(number in any::<i64>(), shift in 1u32..64, scale in 0i32..7) {
            let value = (number >> shift) as f64 / 10_f64.powi(scale);
            prop_assert_eq!(written(|out| float(out, value)), go_float(value));
        }
    }
}
