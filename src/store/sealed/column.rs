//! The value column: lossless for every f64, bit by bit.
//!
//! `tag u8 | exponent u8 (bit 7: exceptions) | exceptions | body`
//!
//! Most measured values are decimals with few digits. If `value * 10^exponent` is
//! an integer for (almost) all values of a column, the integers are stored in the
//! smallest form of [`super::ints`] (tags 0 to 5, 20 and 22), and the value is the
//! correctly rounded quotient `integer / 10^exponent`; that it has the same bits
//! is checked for each value before it is written. Values that are not such
//! decimals (the staleness marker and other NaNs, infinities, -0.0, odd ones) are
//! exceptions: `count varint`, then `index delta varint, 8 bytes` for each.
//!
//! Columns that are not decimal have exponent 63 and tag 0 (one value, 8 bytes),
//! 9 (xor, [`super::xor`]), 21 or, when long, 23 (pco f64 in one or many pages;
//! NaNs are exceptions there too).
//! Tags 32 to 47 are reserved for histograms.
//!
//! Measured with `cargo bench --profile quick --bench codec` (columns of 240):
//! one-digit gauge 0.41 B a sample, cpu seconds 0.79, byte counter 1.05, noisy
//! floats 6.1; 20 to 30 ns to encode (pco 240), 2 to 4 ns to decode (pco 20) on a
//! busy machine.

use std::ops::Range;

use super::ints::{self, IntEncoder, Pco};
use super::varint::{Reader, put_i64, put_u64};
use super::{pco, xor};

/// Bytes that no encoder of ours has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed column: {0}")]
pub struct Malformed(pub &'static str);

/// How long to look for the smallest form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Packed integers, else xor: about 10 ns a sample. For chunks in memory.
    Cheap,
    /// As `Cheap`, and pco for what is not decimal. For the hourly seal.
    Fast,
    /// The smallest of all forms, 100 to 200 ns a sample. For what is kept long.
    Best,
}

/// The most values that one column holds.
pub const VALUES_MAX: usize = 1 << 16;

const XOR: u8 = 9;
const PCO_F64: u8 = 21;
const PCO_F64_PAGES: u8 = 23;
const NOT_DECIMAL: u8 = 63;
const HAS_EXCEPTIONS: u8 = 0x80;

/// Shorter columns are not worth pco's price of some microseconds.
const PCO_F64_MIN: usize = 120;
const PCO_LEVEL_FAST: usize = 4;
const PCO_LEVEL_BEST: usize = 8;

/// Encodes columns; keeps its buffers between calls.
#[derive(Default)]
pub struct Encoder {
    ints: IntEncoder,
    numbers: Vec<i64>,
    floats: Vec<f64>,
    exceptions: Vec<Exception>,
    body: Vec<u8>,
    other: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Exception {
    index: usize,
    value: f64,
}

impl Encoder {
    /// Appends the column to `out`. At most [`VALUES_MAX`] values.
    pub fn encode(&mut self, values: &[f64], effort: Effort, out: &mut Vec<u8>) {
        assert!(values.len() <= VALUES_MAX, "BUG: a column is too long");
        if let Some(first) = all_equal(values) {
            return encode_const(first, out);
        }
        let start = out.len();
        let decimal = self.encode_decimal(values, effort, out);
        if decimal && effort != Effort::Best {
            return;
        }
        self.encode_float(values, effort);
        if !decimal || self.other.len() < out.len() - start {
            out.truncate(start);
            out.extend_from_slice(&self.other);
        }
    }

    /// Appends the column as integers; appends nothing and says no when too few
    /// of the values are decimals.
    fn encode_decimal(&mut self, values: &[f64], effort: Effort, out: &mut Vec<u8>) -> bool {
        let Some(exponent) = decimal::convert(values, &mut self.numbers, &mut self.exceptions)
        else {
            return false;
        };
        let pco = if effort == Effort::Best {
            Pco::PagesOrCoded(PCO_LEVEL_BEST)
        } else {
            Pco::Never
        };
        self.body.clear();
        let tag = self.ints.encode(&self.numbers, pco, &mut self.body);
        put_head(tag, exponent, &self.exceptions, out);
        out.extend_from_slice(&self.body);
        true
    }

    /// Makes the smaller of xor and, where the effort allows, pco in `other`.
    fn encode_float(&mut self, values: &[f64], effort: Effort) {
        self.other.clear();
        put_head(XOR, NOT_DECIMAL, &[], &mut self.other);
        xor::encode(values, &mut self.other);
        let level = match effort {
            Effort::Cheap => return,
            Effort::Fast if values.len() < PCO_F64_MIN => return,
            Effort::Fast => PCO_LEVEL_FAST,
            Effort::Best if values.len() < ints::PCO_MIN => return,
            Effort::Best => PCO_LEVEL_BEST,
        };
        self.lift_nans(values);
        let (tag, pages) = if effort == Effort::Best && pco::is_long(values.len()) {
            (PCO_F64_PAGES, pco::encode_pages(&self.floats, level))
        } else {
            (PCO_F64, pco::encode(&self.floats, level))
        };
        self.body.clear();
        put_head(tag, NOT_DECIMAL, &self.exceptions, &mut self.body);
        if let Some(page) = pages
            && self.body.len() + page.len() < self.other.len()
        {
            self.other.clear();
            self.other.extend_from_slice(&self.body);
            self.other.extend_from_slice(&page);
        }
    }

    /// The values without their NaNs, which become exceptions; a NaN among
    /// numbers would spoil pco's bins.
    fn lift_nans(&mut self, values: &[f64]) {
        self.exceptions.clear();
        self.floats.clear();
        let mut last = values.iter().find(|v| !v.is_nan()).copied().unwrap_or(0.0);
        for (index, &value) in values.iter().enumerate() {
            if value.is_nan() {
                self.exceptions.push(Exception { index, value });
            } else {
                last = value;
            }
            self.floats.push(last);
        }
    }
}

fn all_equal(values: &[f64]) -> Option<f64> {
    let (first, rest) = values.split_first()?;
    let bits = first.to_bits();
    rest.iter()
        .all(|value| value.to_bits() == bits)
        .then_some(*first)
}

fn encode_const(value: f64, out: &mut Vec<u8>) {
    if let Some((number, exponent)) = decimal::shortest(value) {
        put_head(ints::CONST, exponent, &[], out);
        put_i64(number, out);
    } else {
        put_head(ints::CONST, NOT_DECIMAL, &[], out);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn put_head(tag: u8, exponent: u8, exceptions: &[Exception], out: &mut Vec<u8>) {
    out.push(tag);
    if exceptions.is_empty() {
        out.push(exponent);
        return;
    }
    out.push(exponent | HAS_EXCEPTIONS);
    put_u64(exceptions.len() as u64, out);
    let mut next = 0;
    for exception in exceptions {
        put_u64((exception.index - next) as u64, out);
        out.extend_from_slice(&exception.value.to_le_bytes());
        next = exception.index + 1;
    }
}

/// Appends the `n` values of a column to `out`.
///
/// # Errors
/// When the bytes are not a column of `n` values; `out` is then as before.
pub fn decode(bytes: &[u8], n: usize, out: &mut Vec<f64>) -> Result<(), Malformed> {
    decode_range(bytes, n, 0..n, out)
}

/// Appends the values at `range` of a column of `n` values to `out`. Forms with
/// independent blocks step over those before the range.
///
/// # Errors
/// As [`decode`].
pub fn decode_range(
    bytes: &[u8],
    n: usize,
    range: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Malformed> {
    if n > VALUES_MAX || range.start > range.end || range.end > n {
        return Err(Malformed("count out of bounds"));
    }
    let mut reader = Reader::new(bytes);
    let tag = reader.byte()?;
    let exponent = reader.byte()?;
    let mut exceptions = reader;
    let count = if exponent & HAS_EXCEPTIONS == 0 {
        0
    } else {
        skip_exceptions(&mut reader, n)?
    };
    let start = out.len();
    out.reserve(range.len());
    let done = decode_body(tag, exponent & 63, reader.rest(), n, range.clone(), out)
        .and_then(|()| check_count(out.len() - start, range.len()))
        .and_then(|()| apply_exceptions(&mut exceptions, count, range, &mut out[start..]));
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn check_count(found: usize, expected: usize) -> Result<(), Malformed> {
    if found == expected {
        Ok(())
    } else {
        Err(Malformed("another number of values"))
    }
}

fn decode_body(
    tag: u8,
    exponent: u8,
    body: &[u8],
    n: usize,
    range: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Malformed> {
    match (tag, exponent) {
        (ints::CONST, NOT_DECIMAL) => {
            let bits = Reader::new(body).array()?;
            out.resize(out.len() + range.len(), f64::from_le_bytes(bits));
            Ok(())
        }
        (XOR, NOT_DECIMAL) => xor::decode(body, range, out),
        (PCO_F64, NOT_DECIMAL) => {
            let mut values = Vec::new();
            pco::decode(body, n, &mut values)?;
            out.extend_from_slice(&values[range]);
            Ok(())
        }
        (PCO_F64_PAGES, NOT_DECIMAL) => {
            pco::decode_pages(body, n, range.clone(), &mut |run: &[f64], at| {
                let from = range.start.clamp(at, at + run.len()) - at;
                let to = range.end.clamp(at, at + run.len()) - at;
                out.extend_from_slice(&run[from..to]);
            })
        }
        (_, 0) => ints::decode(tag, body, n, range, &mut |run| {
            decimal::values(run, 1.0, out);
        }),
        _ => {
            let scale = decimal::scale(exponent).ok_or(Malformed("unknown form"))?;
            ints::decode(tag, body, n, range, &mut |run| {
                decimal::values(run, scale, out);
            })
        }
    }
}

fn skip_exceptions(reader: &mut Reader<'_>, n: usize) -> Result<usize, Malformed> {
    let count = reader.usize()?;
    if count > n {
        return Err(Malformed("more exceptions than values"));
    }
    for _ in 0..count {
        reader.u64()?;
        reader.array::<8>()?;
    }
    Ok(count)
}

fn apply_exceptions(
    reader: &mut Reader<'_>,
    count: usize,
    range: Range<usize>,
    values: &mut [f64],
) -> Result<(), Malformed> {
    if count == 0 {
        return Ok(());
    }
    reader.usize()?;
    let mut next = 0usize;
    for _ in 0..count {
        let index = next.saturating_add(reader.usize()?);
        let value = f64::from_le_bytes(reader.array()?);
        if range.contains(&index) {
            values[index - range.start] = value;
        }
        next = index.saturating_add(1);
    }
    Ok(())
}

mod decimal {
    //! From values to integers of one decimal exponent, and whether that is exact.

    use super::Exception;

    /// Larger exponents would match values that are not decimals by chance: of
    /// random doubles near 1 about one in 9,000 has 12 digits, one in 9 has 15.
    const EXPONENT_MAX: u8 = 12;

    const POWERS: [f64; EXPONENT_MAX as usize + 1] = [
        1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
    ];

    /// Adding and subtracting 1.5 * 2^52 rounds a number below 2^51 to an
    /// integer, which then stands in the low bits of the sum.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const ROUND_MAX: f64 = 2_251_799_813_685_248.0;

    /// What a decimal digit costs in a packed value, and an exception, in bytes.
    const DIGIT_COST: f64 = 0.415;
    const EXCEPTION_COST: f64 = 10.0;

    pub(super) fn scale(exponent: u8) -> Option<f64> {
        POWERS.get(usize::from(exponent)).copied()
    }

    /// The integer that gives the same bits when it is divided by the power.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast back shows whether anything was lost"
    )]
    fn number(value: f64, exponent: u8) -> Option<i64> {
        let power = POWERS[usize::from(exponent)];
        let scaled = value * power;
        if scaled.abs() < ROUND_MAX {
            let rounded = scaled + ROUND;
            let number = rounded
                .to_bits()
                .wrapping_sub(ROUND.to_bits())
                .cast_signed();
            let back = (rounded - ROUND) / power;
            return (back.to_bits() == value.to_bits()).then_some(number);
        }
        let number = value as i64;
        let exact = exponent == 0 && number.unsigned_abs() < 1 << 62 && number as f64 == value;
        exact.then_some(number)
    }

    /// Appends the values of numbers: their quotients by the power. Where all are small,
    /// they become floats by [`ROUND`], which takes the processor several at a time.
    pub(super) fn values(numbers: &[i64], power: f64, out: &mut Vec<f64>) {
        // Numbers from -2^51 to below 2^51 have 52 bits when 2^51 is added.
        let lifted = |number: &i64| number.wrapping_add(1 << 51).cast_unsigned();
        if numbers.iter().fold(0, |all, number| all | lifted(number)) >> 52 == 0 {
            let float = |number: &i64| {
                let bits = ROUND.to_bits().wrapping_add(number.cast_unsigned());
                f64::from_bits(bits) - ROUND
            };
            out.extend(numbers.iter().map(|number| float(number) / power));
        } else {
            out.extend(numbers.iter().map(|number| *number as f64 / power));
        }
    }

    /// The number and the smallest exponent.
    pub(super) fn shortest(value: f64) -> Option<(i64, u8)> {
        (0..=EXPONENT_MAX).find_map(|exponent| Some((number(value, exponent)?, exponent)))
    }

    /// Fills `numbers` and `exceptions`; the exponent, or nothing when more than
    /// one value in 8 is not decimal.
    pub(super) fn convert(
        values: &[f64],
        numbers: &mut Vec<i64>,
        exceptions: &mut Vec<Exception>,
    ) -> Option<u8> {
        let exceptions_max = values.len() / 8;
        let exponent = find_exponent(values, exceptions_max)?;
        numbers.clear();
        exceptions.clear();
        for (index, &value) in values.iter().enumerate() {
            let number = number(value, exponent).unwrap_or_else(|| {
                exceptions.push(Exception { index, value });
                numbers.last().copied().unwrap_or(0)
            });
            numbers.push(number);
        }
        if exceptions.first().is_some_and(|first| first.index == 0) {
            level_start(numbers, exceptions);
        }
        (exceptions.len() <= exceptions_max).then_some(exponent)
    }

    /// Exceptions at the very start take the number of the first good value.
    fn level_start(numbers: &mut [i64], exceptions: &[Exception]) {
        let run = exceptions
            .iter()
            .enumerate()
            .take_while(|(i, e)| *i == e.index)
            .count();
        if let Some(&first) = numbers.get(run) {
            numbers[..run].fill(first);
        }
    }

    /// The exponent that costs least: each more makes all values longer, each
    /// less makes exceptions of those that need it.
    fn find_exponent(values: &[f64], exceptions_max: usize) -> Option<u8> {
        let (mut exponent, mut misses, mut raises_late) = (0, 0, 0);
        for (index, &value) in values.iter().enumerate() {
            if number(value, exponent).is_some() {
                continue;
            }
            match (exponent + 1..=EXPONENT_MAX).find(|e| number(value, *e).is_some()) {
                Some(higher) => {
                    if index > 8 {
                        raises_late += higher - exponent;
                    }
                    exponent = higher;
                }
                None => misses += 1,
            }
            if misses > exceptions_max {
                return None;
            }
        }
        if raises_late > 2 {
            exponent = cheapest_exponent(values, exponent);
        }
        Some(exponent)
    }

    fn cheapest_exponent(values: &[f64], highest: u8) -> u8 {
        let mut needs = [0u32; EXPONENT_MAX as usize + 1];
        for &value in values {
            if let Some((_, exponent)) = shortest(value) {
                needs[usize::from(exponent)] += 1;
            }
        }
        let cost = |exponent: u8| {
            let above: u32 = needs[usize::from(exponent) + 1..].iter().sum();
            f64::from(above) * EXCEPTION_COST
                + f64::from(exponent) * DIGIT_COST * values.len() as f64
        };
        (0..=highest)
            .min_by(|a, b| cost(*a).total_cmp(&cost(*b)))
            .unwrap_or(highest)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn check(values: &[f64], want: Option<(u8, usize)>) {
            let (mut numbers, mut exceptions) = (Vec::new(), Vec::new());
            let exponent = convert(values, &mut numbers, &mut exceptions);
            assert_eq!(exponent.map(|e| (e, exceptions.len())), want, "{values:?}");
        }

        #[test]
        fn finds_the_digits_of_measured_values() {
            check(&[1.0, 2.0, 3.0], Some((0, 0)));
            check(&[21.5, 21.25, -3.0], Some((2, 0)));
            check(&[1e15, 9_007_199_254_740_993.0, 1e17], Some((0, 0)));
            check(&[0.000_000_001], Some((9, 0)));
            check(&[1.0 / 3.0; 9], None);
        }

        #[test]
        fn numbers_become_the_floats_that_they_are() {
            let edge = 1_i64 << 51;
            let small = [0, 1, -1, 7, edge - 1, 1 - edge];
            let large = [5, edge, -edge, i64::MAX, i64::MIN];
            for numbers in [&small[..], &large[..]] {
                for power in [1.0, 10.0, 1e12] {
                    let mut out = Vec::new();
                    values(numbers, power, &mut out);
                    let want: Vec<f64> = numbers.iter().map(|n| *n as f64 / power).collect();
                    assert_eq!(out, want);
                }
            }
        }

        #[test]
        fn one_long_value_is_an_exception_and_does_not_lengthen_the_rest() {
            let mut values = vec![21.5; 100];
            values[50] = 0.123_456_789;
            check(&values, Some((1, 1)));
        }

        #[test]
        fn negative_zero_and_nan_are_exceptions() {
            let mut values = vec![0.0; 32];
            values[0] = -0.0;
            values[9] = f64::NAN;
            check(&values, Some((0, 2)));
        }
    }
}

#[cfg(test)]
mod tests;
