//! Floats as Go's `strconv.FormatFloat` prints them.

/// Digits behind which an f64 has only zeros.
const DIGITS_MAX: usize = 1_100;

/// Formats as verb `e`, `f` or `g` says; no precision means the shortest text
/// that reads back as the same number. The sign of `+Inf` is printed.
pub(super) fn format_float(v: f64, verb: char, precision: Option<usize>) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    match verb {
        'e' => exponential(v, precision),
        'f' => fixed(v, precision),
        _ => general(v, precision),
    }
}

fn exponential(v: f64, precision: Option<usize>) -> String {
    let text = match precision {
        Some(p) => format!("{v:.*e}", p.min(DIGITS_MAX)),
        None => format!("{v:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').expect("an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let zeros = missing_zeros(precision);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}{zeros}e{sign}{:02}", exponent.abs())
}

fn fixed(v: f64, precision: Option<usize>) -> String {
    match precision {
        Some(p) => {
            let text = format!("{v:.*}", p.min(DIGITS_MAX));
            text + &missing_zeros(precision)
        }
        None => format!("{v}"),
    }
}

fn missing_zeros(precision: Option<usize>) -> String {
    "0".repeat(precision.unwrap_or(0).saturating_sub(DIGITS_MAX))
}

/// `%g`: exponents below -4 or from the precision on, without trailing zeros.
fn general(v: f64, precision: Option<usize>) -> String {
    let precision = precision.map(|p| p.clamp(1, DIGITS_MAX));
    let text = match precision {
        Some(p) => format!("{v:.*e}", p - 1),
        None => format!("{v:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').expect("an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let negative = mantissa.starts_with('-');
    let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = all.trim_end_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    let threshold = match precision {
        // As Go: 6 decides for the shortest form, else as many digits as there are.
        None => 6,
        Some(p) => {
            let count = digits.len();
            let integer = usize::try_from(exponent + 1).unwrap_or(0);
            if p > count && count >= integer {
                count
            } else {
                p
            }
        }
    };
    let threshold = i32::try_from(threshold).unwrap_or(i32::MAX);
    let sign = if negative { "-" } else { "" };
    if exponent < -4 || exponent >= threshold {
        return format!("{sign}{}", with_exponent(digits, exponent));
    }
    format!("{sign}{}", with_point(digits, exponent))
}

fn with_exponent(digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}e{sign}{:02}", exponent.abs())
}

fn with_point(digits: &str, exponent: i32) -> String {
    let Ok(exponent) = usize::try_from(exponent) else {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        return format!("0.{}{digits}", "0".repeat(zeros));
    };
    let integer = exponent + 1;
    if digits.len() <= integer {
        return format!("{digits}{}", "0".repeat(integer - digits.len()));
    }
    let (whole, fraction) = digits.split_at(integer);
    format!("{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(v: f64, verb: char, precision: Option<usize>, want: &str) {
        assert_eq!(format_float(v, verb, precision), want, "{v:?} %{verb}");
    }

    #[test]
    fn the_shortest_form_has_an_exponent_from_1e6_on_and_below_1e_minus_4() {
        check(0.0, 'g', None, "0");
        check(-0.0, 'g', None, "-0");
        check(42.0, 'g', None, "42");
        check(90_061.5, 'g', None, "90061.5");
        check(100_000.0, 'g', None, "100000");
        check(1e6, 'g', None, "1e+06");
        check(1_234_567.891, 'g', None, "1.234567891e+06");
        check(123_456_789.0, 'g', None, "1.23456789e+08");
        check(0.0001, 'g', None, "0.0001");
        check(0.00001, 'g', None, "1e-05");
        check(1e-7, 'g', None, "1e-07");
        check(1e100, 'g', None, "1e+100");
        check(f64::INFINITY, 'g', None, "+Inf");
        check(f64::NAN, 'g', None, "NaN");
    }

    #[test]
    fn a_precision_counts_digits() {
        check(1234.5678, 'g', Some(4), "1235");
        check(12345.678, 'g', Some(4), "1.235e+04");
        check(0.1, 'g', Some(4), "0.1");
        check(100.0, 'g', Some(4), "100");
        check(9999.96, 'g', Some(4), "1e+04");
        check(2.5, 'f', Some(0), "2");
        check(3.5, 'f', Some(0), "4");
        check(1.0, 'f', Some(2), "1.00");
        check(1234.5, 'e', Some(2), "1.23e+03");
        check(1e-10, 'e', Some(0), "1e-10");
        check(1.5, 'f', Some(1_200), &format!("1.5{}", "0".repeat(1_199)));
    }
}
