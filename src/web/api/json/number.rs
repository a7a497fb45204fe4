//! Numbers and times as Prometheus' JSON has them.
//!
//! An answer is mostly these: a range query over a day of one series spent half of its
//! time here. So there is one check for the room of many points, not one for each part of
//! each; digits are made eight at a time in a register and stored at once; a decimal of
//! few digits is written as whole numbers are; and of the times of a series, which differ
//! in their last digits, the first ones are made once. A buffer of its own for each point
//! made it twice as slow: bytes that were stored one by one are long in coming when they
//! are copied at once.

use crate::model::{Sample, Timestamp};

/// `[time,"value"]`
pub fn point(out: &mut Vec<u8>, sample: Sample) {
    append(out, |text| {
        text.push(b'[');
        text.time(sample.t);
        text.value_of_point(sample.v);
    });
}

/// `[[time,"value"],...]`
pub fn points(out: &mut Vec<u8>, samples: &[Sample]) {
    let mut times = Times::default();
    out.push(b'[');
    for (i, many) in samples.chunks(POINTS_AT_ONCE).enumerate() {
        let at = out.len();
        out.resize(at + many.len() * SHORT_MAX, 0);
        let mut len = 0;
        for (j, sample) in many.iter().enumerate() {
            let mut text = Short {
                bytes: &mut out[at + len..],
                len: 0,
            };
            if i + j > 0 {
                text.push(b',');
            }
            times.begin_point(&mut text, sample.t);
            text.value_of_point(sample.v);
            len += text.len;
        }
        out.truncate(at + len);
    }
    out.push(b']');
}

/// Seconds, with three decimals when there is a fraction.
pub fn time(out: &mut Vec<u8>, t: Timestamp) {
    append(out, |text| text.time(t));
}

/// The text of [`go_float`].
pub fn float(out: &mut Vec<u8>, value: f64) {
    append(out, |text| text.float(value));
}

/// Appends a short text: it is written into room that was made for it.
#[inline]
fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Short<'_>)) {
    let at = out.len();
    out.resize(at + SHORT_MAX, 0);
    let mut text = Short {
        bytes: &mut out[at..],
        len: 0,
    };
    write(&mut text);
    let end = at + text.len;
    out.truncate(end);
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

/// The longest text is a point with a comma: a time has up to 21 bytes, a number up to
/// 26. Eight bytes more may be written than stay.
const SHORT_MAX: usize = 64;

/// For so many points room is made at once.
const POINTS_AT_ONCE: usize = 64;

/// A text in the making.
struct Short<'a> {
    /// Room for all of it.
    bytes: &'a mut [u8],
    len: usize,
}

/// Decimals have at most so many places to be written quickly.
const PLACES: usize = 4;
const PLACES_POWER: u64 = 10_000;

impl Short<'_> {
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn raw(&mut self, text: &str) {
        let end = self.len + text.len();
        self.bytes[self.len..end].copy_from_slice(text.as_bytes());
        self.len = end;
    }

    /// A whole number with at least `width` digits.
    fn digits(&mut self, number: u64, width: usize) {
        if number >= EIGHT_END {
            self.digits(number / EIGHT_END, width.saturating_sub(8));
            return self.some_digits(eight_digits(number % EIGHT_END), 8);
        }
        let digits = eight_digits(number);
        let zeros = digits.trailing_zeros() as usize / 8;
        self.some_digits(digits, (8 - zeros.min(7)).max(width));
    }

    /// The last `count` of eight digits.
    fn some_digits(&mut self, digits: u64, count: usize) {
        let text = (digits | u64::from_ne_bytes([b'0'; 8])) >> (8 * (8 - count));
        self.bytes[self.len..][..8].copy_from_slice(&text.to_le_bytes());
        self.len += count;
    }

    /// The digits behind a point, without zeros at the end.
    fn places(&mut self, number: u64) {
        let digits = four_digits(number);
        let text = (digits | u32::from_ne_bytes([b'0'; 4])).to_le_bytes();
        self.bytes[self.len..][..PLACES].copy_from_slice(&text);
        self.len += PLACES - digits.leading_zeros() as usize / 8;
    }

    /// What follows the time in a point.
    fn value_of_point(&mut self, value: f64) {
        self.push(b',');
        self.push(b'"');
        self.float(value);
        self.push(b'"');
        self.push(b']');
    }

    fn time(&mut self, t: Timestamp) {
        let ms = t.as_ms();
        if ms < 0 {
            self.push(b'-');
        }
        let ms = ms.unsigned_abs();
        self.digits(ms / 1000, 1);
        if !ms.is_multiple_of(1000) {
            self.push(b'.');
            self.digits(ms % 1000, 3);
        }
    }

    fn float(&mut self, value: f64) {
        if let Some(number) = whole(value) {
            if value < 0.0 {
                self.push(b'-');
            }
            return self.digits(number, 1);
        }
        if let Some(number) = decimal(value) {
            if value < 0.0 {
                self.push(b'-');
            }
            self.digits(number / PLACES_POWER, 1);
            self.push(b'.');
            return self.places(number % PLACES_POWER);
        }
        if value.is_finite() {
            let mut buffer = zmij::Buffer::new();
            let text = buffer.format_finite(value);
            // It has another form than Go for what is small or large.
            if PLAIN.contains(&value.abs()) {
                return self.raw(text);
            }
            if !text.contains('e') {
                return self.raw(text.strip_suffix(".0").unwrap_or(text));
            }
        }
        self.raw(&go_float(value));
    }
}

/// Numbers that surely have no exponent, and are not whole.
const PLAIN: std::ops::Range<f64> = 1e-4..1e15;

/// Numbers of eight digits end before it.
const EIGHT_END: u64 = 100_000_000;

/// The four digits of a number, the first one in the lowest byte.
fn four_digits(number: u64) -> u32 {
    (eight_digits(number) >> 32) as u32
}

/// The eight digits of a number, the first one in the lowest byte. Two numbers of four
/// digits, then four of two and eight of one, are divided by one multiplication each.
fn eight_digits(number: u64) -> u64 {
    let high = number / 10_000;
    let fours = high | (number - 10_000 * high) << 32;
    let hundreds = ((fours * 5_243) >> 19) & 0x0000_007f_0000_007f;
    let pairs = hundreds | (fours - 100 * hundreds) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (pairs - 10 * tens) << 8
}

/// The times of one series.
#[derive(Default)]
struct Times {
    /// Of the time before, in ten thousands of seconds.
    high: u64,
    /// Its six digits behind a bracket, and one byte more.
    text: [u8; 8],
}

impl Times {
    /// `[time`
    fn begin_point(&mut self, out: &mut Short<'_>, t: Timestamp) {
        let ms = match u64::try_from(t.as_ms()) {
            // Ten digits of seconds: from 2001 to 2286.
            Ok(ms) if (1_000_000_000_000..10_000_000_000_000).contains(&ms) => ms,
            _ => {
                out.push(b'[');
                return out.time(t);
            }
        };
        let (seconds, fraction) = (ms / 1_000, ms % 1_000);
        let (high, low) = (seconds / 10_000, seconds % 10_000);
        if high != self.high {
            self.high = high;
            let digits = eight_digits(high) | u64::from_ne_bytes([b'0'; 8]);
            self.text = (digits >> 8 & !0xff | u64::from(b'[')).to_le_bytes();
        }
        let low = four_digits(low) | u32::from_ne_bytes([b'0'; 4]);
        let room = &mut out.bytes[out.len..][..12];
        room[..8].copy_from_slice(&self.text);
        room[7..11].copy_from_slice(&low.to_le_bytes());
        out.len += 11;
        if fraction != 0 {
            out.push(b'.');
            out.digits(fraction, 3);
        }
    }
}

/// The size of a decimal in parts of [`PLACES_POWER`]. No two decimals of up to 15 digits
/// have the same number for nearest, so these digits are the fewest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is rounded, has no sign and few digits"
)]
fn decimal(value: f64) -> Option<u64> {
    let size = value.abs();
    let scaled = size * PLACES_POWER as f64;
    if !(0.5..1e15).contains(&scaled) {
        return None;
    }
    let number = (scaled + 0.5) as u64;
    (number as f64 / PLACES_POWER as f64 == size).then_some(number)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Short<'_>)) -> String {
        let mut out = b"x".to_vec();
        append(&mut out, write);
        String::from_utf8(out).unwrap().split_off(1)
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
            assert_eq!(written(|text| text.float(value)), want);
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
            assert_eq!(written(|text| text.time(Timestamp::from_ms(ms))), want);
        }
    }

    #[test]
    fn the_longest_point_fits() {
        let mut out = Vec::new();
        let longest = Sample::new(i64::MIN, -1.234_567_890_123_456_7e-6);
        point(&mut out, longest);
        let want = b"[-9223372036854775.808,\"-0.0000012345678901234567\"]";
        assert_eq!(out, want);
    }

    fn joined(samples: &[Sample]) -> String {
        let each = samples.iter().map(|sample| {
            let mut out = Vec::new();
            point(&mut out, *sample);
            String::from_utf8(out).unwrap()
        });
        format!("x[{}]", each.collect::<Vec<_>>().join(","))
    }

    proptest! {
        #[test]
        fn points_are_written_as_each_alone(
            start in prop::sample::select(vec![i64::MIN, -1_500, 0, 999_999_990_000, 1_795_223_820_890, 9_999_999_990_000, i64::MAX - 9_000_000]),
            step in prop::sample::select(vec![0, 1, 1_000, 14_999, 60_000]),
            values in prop::collection::vec(any::<f64>(), 0..150),
        ) {
            let samples: Vec<Sample> = (0..).zip(values).map(|(i, v)| Sample::new(start + i * step, v)).collect();
            let mut out = b"x".to_vec();
            points(&mut out, &samples);
            prop_assert_eq!(String::from_utf8(out).unwrap(), joined(&samples));
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
                prop_assert_eq!(written(|text| text.float(value)), go_float(value));
            }
            let number = bits >> shift;
            prop_assert_eq!(written(|text| text.digits(number, 1)), number.to_string());
            prop_assert_eq!(written(|text| text.digits(number, 3)), format!("{number:03}"));
        }

        #[test]
        fn decimals_are_written_as_all_others(number in any::<i64>(), shift in 1u32..64, scale in 0i32..7) {
            let value = (number >> shift) as f64 / 10_f64.powi(scale);
            prop_assert_eq!(written(|text| text.float(value)), go_float(value));
        }
    }
}
