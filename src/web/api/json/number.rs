//! Numbers and times in JSON.
//!
//! Numbers are what Go prints: `f` or, below 1e-6 and from 1e21, `e` with at least two
//! digits of exponent, in quotes; times are seconds with three decimals or none.
//!
//! An answer of a day has thousands of points, and writing them was half of what it
//! took: so a point is put together in a small buffer by copies of fixed lengths, and
//! numbers with up to three decimals, as most that are measured, need no search for
//! their shortest form.

use crate::model::{Sample, Timestamp};

/// `[time,"value"]`
pub fn point(out: &mut Vec<u8>, sample: Sample) {
    let mut text = Text::default();
    text.byte(b'[');
    text.time(sample.t);
    text.byte(b',');
    text.byte(b'"');
    if !text.float(sample.v) {
        out.extend_from_slice(text.bytes());
        out.extend_from_slice(go_float(sample.v).as_bytes());
        text = Text::default();
    }
    text.byte(b'"');
    text.byte(b']');
    out.extend_from_slice(text.bytes());
}

/// Seconds, with three decimals when there is a fraction.
pub fn time(out: &mut Vec<u8>, t: Timestamp) {
    let mut text = Text::default();
    text.time(t);
    out.extend_from_slice(text.bytes());
}

/// The text of [`go_float`].
pub fn float(out: &mut Vec<u8>, value: f64) {
    let mut text = Text::default();
    if text.float(value) {
        out.extend_from_slice(text.bytes());
    } else {
        out.extend_from_slice(go_float(value).as_bytes());
    }
}

/// A point is shorter: 22 bytes of time and 24 of value, with six around them.
const TEXT_MAX: usize = 64;

/// A short text that is put together.
struct Text {
    bytes: [u8; TEXT_MAX],
    len: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text {
            bytes: [0; TEXT_MAX],
            len: 0,
        }
    }
}

impl Text {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn time(&mut self, t: Timestamp) {
        let ms = t.as_ms();
        if ms < 0 {
            self.byte(b'-');
        }
        let ms = ms.unsigned_abs();
        self.digits(ms / 1000, 1);
        if !ms.is_multiple_of(1000) {
            self.byte(b'.');
            self.digits(ms % 1000, 3);
        }
    }

    /// A number, if it is one of those that have a short way.
    fn float(&mut self, value: f64) -> bool {
        if let Some(thousandths) = thousandths(value) {
            self.sign(value);
            self.digits(thousandths / 1000, 1);
            let rest = thousandths % 1000;
            if rest > 0 {
                self.byte(b'.');
                match (rest % 10, rest % 100) {
                    (_, 0) => self.digits(rest / 100, 1),
                    (0, _) => self.digits(rest / 10, 2),
                    _ => self.digits(rest, 3),
                }
            }
            return true;
        }
        if let Some(number) = whole(value) {
            self.sign(value);
            self.digits(number, 1);
            return true;
        }
        // Outside of this the shortest digits come in another form than Go's.
        if !(1e-5..1e16).contains(&value.abs()) {
            return false;
        }
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value).as_bytes();
        let text = match text {
            [front @ .., b'.', b'0'] => front,
            _ => text,
        };
        self.short(text);
        true
    }

    fn sign(&mut self, value: f64) {
        if value < 0.0 {
            self.byte(b'-');
        }
    }

    /// Appends up to 24 bytes, eight at a time: a call to copy them would cost more.
    #[inline]
    fn short(&mut self, text: &[u8]) {
        let place = &mut self.bytes[self.len..self.len + text.len()];
        let (eights, rest) = text.as_chunks::<8>();
        let (places, left) = place.as_chunks_mut::<8>();
        for (place, eight) in places.iter_mut().zip(eights) {
            *place = *eight;
        }
        for (place, byte) in left.iter_mut().zip(rest) {
            *place = *byte;
        }
        self.len += text.len();
    }

    /// A whole number with at least `width` digits, two at a time.
    #[inline]
    fn digits(&mut self, mut number: u64, width: usize) {
        let count = number.checked_ilog10().map_or(1, |log| log as usize + 1);
        let place = &mut self.bytes[self.len..self.len + count.max(width)];
        self.len += place.len();
        let mut at = place.len();
        while number >= 10 {
            at -= 2;
            let pair = (number % 100) as usize * 2;
            place[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
            number /= 100;
        }
        if number > 0 {
            at -= 1;
            place[at] = b'0' + (number % 10) as u8;
        }
        place[..at].fill(b'0');
    }
}

/// The numbers below 100 with two digits each.
const PAIRS: &[u8; 200] =
    b"00010203040506070809101112131415161718192021222324252627282930313233343536373839\
    40414243444546474849505152535455565758596061626364656667686970717273747576777879\
    8081828384858687888990919293949596979899";

/// The size of a number in thousandths, if it has at most three decimals and eleven
/// digits before them. No other decimal of so few digits is this number, so its
/// digits without zeros at the end are the shortest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is whole, below 2^51 and has no sign"
)]
fn thousandths(value: f64) -> Option<u64> {
    /// Adding and subtracting it rounds what is below 2^51.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let size = value.abs();
    let rounded = (size * 1_000.0 + ROUND) - ROUND;
    let same = size < 1e11 && rounded / 1_000.0 == size;
    (same && value.to_bits() != (-0.0_f64).to_bits()).then_some(rounded as u64)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn digits(number: u64, width: usize) -> String {
        let mut text = Text::default();
        text.digits(number, width);
        String::from_utf8(text.bytes().to_vec()).unwrap()
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
    fn the_longest_points_fit() {
        for v in [
            f64::MIN,
            -1.234_567_890_123_456_7e-5,
            -1e15 - 0.125,
            -5e-324,
            f64::NAN,
        ] {
            let sample = Sample::new(i64::MIN, v);
            let want = format!("[-9223372036854775.808,\"{}\"]", go_float(v));
            assert_eq!(written(|out| point(out, sample)), want);
        }
    }

    proptest! {
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
            prop_assert_eq!(digits(number, 1), number.to_string());
            prop_assert_eq!(digits(number, 3), format!("{number:03}"));
        }

        #[test]
        fn decimals_are_written_as_all_others(number in any::<i64>(), shift in 1u32..64, scale in 0i32..7) {
            let value = (number >> shift) as f64 / 10_f64.powi(scale);
            prop_assert_eq!(written(|out| float(out, value)), go_float(value));
        }
    }
}
