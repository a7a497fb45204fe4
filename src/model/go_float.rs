//! Floats in the words of Go, where a text must be the one that Prometheus prints.

use std::fmt;

/// A float as Go's `%v` prints it: the shortest digits that read back, with an
/// exponent below 1e-4 and from 1e6 on.
pub struct GoFloat(pub f64);

impl fmt::Display for GoFloat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        if v.is_nan() {
            return f.write_str("NaN");
        }
        if v.is_infinite() {
            return f.write_str(if v > 0.0 { "+Inf" } else { "-Inf" });
        }
        let scientific = format!("{v:e}");
        let (digits, exponent) = scientific
            .split_once('e')
            .expect("the exponent form has an exponent");
        let exponent: i32 = exponent.parse().expect("an exponent is a whole number");
        if v != 0.0 && !(-4..6).contains(&exponent) {
            let sign = if exponent < 0 { '-' } else { '+' };
            return write!(f, "{digits}e{sign}{:02}", exponent.abs());
        }
        write!(f, "{v}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_go() {
        for (v, want) in [
            (1.0, "1"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456.5, "123456.5"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1.5e300, "1.5e+300"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(GoFloat(v).to_string(), want);
        }
    }
}
