//! Numbers for people: the units of Grafana's files, with its decimals.
//!
//! An unknown unit prints as a plain suffix, as Grafana does for custom units.

use std::fmt::Write as _;

use crate::model::Timestamp;

/// A number in words: `18.4`, `k msg/s`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Formatted {
    /// The number, with its sign and decimals.
    pub text: String,
    /// The unit with its scale, without a leading space; may be empty.
    pub suffix: String,
}

impl Formatted {
    fn plain(text: impl Into<String>) -> Formatted {
        Formatted {
            text: text.into(),
            suffix: String::new(),
        }
    }
}

impl std::fmt::Display for Formatted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)?;
        if !self.suffix.is_empty() {
            write!(f, "\u{a0}{}", self.suffix)?;
        }
        Ok(())
    }
}

/// How to print the values of a field.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Format {
    /// The unit's id in Grafana's words: `short`, `bytes`, `percentunit`, ...
    pub unit: String,
    /// Fixed decimals; by the size of the number when not given.
    pub decimals: Option<usize>,
    /// What `dateTimeFromNow` counts from.
    pub now: Option<Timestamp>,
}

/// How a unit's numbers grow.
enum Scale {
    /// `k M G T ...` in front of the suffix.
    Si(&'static str),
    /// `Ki Mi Gi ...` in front of the suffix.
    Iec(&'static str),
    /// Only the suffix.
    Fixed(&'static str),
    /// A time; the factor to seconds.
    Time(f64),
}

const SI: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
const IEC: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Format {
    /// Of a unit, with decimals by size.
    pub fn of(unit: &str) -> Format {
        Format {
            unit: unit.to_owned(),
            ..Format::default()
        }
    }

    /// Prints a value.
    pub fn format(&self, value: f64) -> Formatted {
        if !value.is_finite() {
            return Formatted::plain(match value {
                v if v.is_nan() => "NaN",
                v if v > 0.0 => "+Inf",
                _ => "-Inf",
            });
        }
        if let Some(text) = self.special(value) {
            return Formatted::plain(text);
        }
        let (scaled, suffix) = self.scaled(value);
        Formatted {
            text: fixed(scaled, self.decimals),
            suffix,
        }
    }

    /// The unit's words, when they are long and the same on every scale: `msg/s`.
    /// An axis says them once.
    pub fn words(&self) -> Option<&'static str> {
        match scale_of(&self.unit) {
            Some(Scale::Si(suffix)) if !is_symbol(suffix) => Some(suffix),
            _ => None,
        }
    }

    /// The same without those words: `18.4 k`.
    pub fn without_words(&self) -> Format {
        let mut format = self.clone();
        if self.words().is_some() {
            "short".clone_into(&mut format.unit);
        }
        format
    }

    /// Whether ticks of this unit lie on powers of two.
    pub fn is_binary(&self) -> bool {
        matches!(scale_of(&self.unit), Some(Scale::Iec(_)))
    }

    /// The factor from this unit to seconds, when it is a time.
    pub fn seconds_factor(&self) -> Option<f64> {
        match scale_of(&self.unit) {
            Some(Scale::Time(factor)) => Some(factor),
            _ => None,
        }
    }

    /// Labels of an axis: of one number of decimals, as few as are exact.
    pub fn axis_labels(&self, ticks: &[f64]) -> Vec<String> {
        if ticks.iter().any(|tick| self.special(*tick).is_some()) {
            return ticks.iter().map(|t| self.format(*t).to_string()).collect();
        }
        let scaled: Vec<(f64, String)> = ticks.iter().map(|t| self.scaled(*t)).collect();
        let exact = |suffix: &str| {
            (0..=4)
                .find(|d| {
                    let factor = 10f64.powi(*d);
                    scaled.iter().filter(|(_, s)| s == suffix).all(|(v, _)| {
                        let shifted = v * factor;
                        (shifted - shifted.round()).abs() < 1e-6 * factor.max(1.0)
                    })
                })
                .and_then(|d| usize::try_from(d).ok())
                .unwrap_or(4)
        };
        scaled
            .iter()
            .map(|(v, suffix)| {
                let formatted = Formatted {
                    text: if *v == 0.0 {
                        "0".to_owned()
                    } else {
                        fixed(*v, Some(exact(suffix)))
                    },
                    suffix: suffix.clone(),
                };
                // Zero needs a unit only where all numbers have the same one.
                if *v == 0.0 && !matches!(scale_of(&self.unit), Some(Scale::Fixed(_))) {
                    formatted.text
                } else {
                    formatted.to_string()
                }
            })
            .collect()
    }

    /// Units that are words rather than numbers with a suffix.
    fn special(&self, value: f64) -> Option<String> {
        let words = |yes: &str, no: &str| Some(if value == 0.0 { no } else { yes }.to_owned());
        match self.unit.as_str() {
            "bool" => words("True", "False"),
            "bool_yes_no" => words("Yes", "No"),
            "bool_on_off" => words("On", "Off"),
            "locale" => Some(grouped(value, self.decimals)),
            "dtdurations" | "dtdurationsms" => {
                Some(duration(value * 1000.0, self.decimals.unwrap_or(0)))
            }
            "dtdurationms" => Some(duration(value, self.decimals.unwrap_or(0))),
            "dateTimeFromNow" => Some(self.relative_to_now(value)),
            "dateTimeAsIso" => Some(Timestamp::from_secs_f64(value / 1000.0).to_rfc3339()),
            _ => None,
        }
    }

    /// The number on its scale and the suffix with the scale's letter.
    fn scaled(&self, value: f64) -> (f64, String) {
        let unit = self.unit.as_str();
        if let Some(suffix) = unit.strip_prefix("suffix:") {
            return (value, suffix.to_owned());
        }
        if let Some(suffix) = unit.strip_prefix("si:") {
            let (scaled, letter) = scaled_by(value, 1000.0, &SI);
            return (scaled, format!("{letter}{suffix}"));
        }
        match scale_of(unit) {
            None => (value, unit.to_owned()),
            Some(Scale::Fixed(suffix)) => {
                let factor = if unit == "percentunit" { 100.0 } else { 1.0 };
                (value * factor, suffix.to_owned())
            }
            Some(Scale::Si(suffix)) => {
                let (scaled, letter) = scaled_by(value * si_factor(unit), 1000.0, &SI);
                (scaled, joined(letter, suffix))
            }
            Some(Scale::Iec(suffix)) => {
                let (scaled, letter) = scaled_by(value * iec_factor(unit), 1024.0, &IEC);
                (scaled, joined(letter, suffix))
            }
            Some(Scale::Time(factor)) => time(value * factor),
        }
    }

    fn relative_to_now(&self, value_ms: f64) -> String {
        let Some(now) = self.now else {
            return Timestamp::from_secs_f64(value_ms / 1000.0).to_rfc3339();
        };
        let ms = value_ms - now.as_secs_f64() * 1000.0;
        let text = duration(ms.abs(), 0);
        if ms > 0.0 {
            format!("in {text}")
        } else {
            format!("{text} ago")
        }
    }
}

/// `k` and `msg/s` need a space between them, `k` and `B` do not.
fn joined(letter: &str, suffix: &str) -> String {
    if letter.is_empty() || is_symbol(suffix) {
        format!("{letter}{suffix}")
    } else {
        format!("{letter} {suffix}")
    }
}

/// Whether a suffix is a symbol that takes a scale's letter: `B`, `b/s`, `Hz`.
fn is_symbol(suffix: &str) -> bool {
    matches!(suffix, "B/s" | "b/s") || suffix.len() <= 2
}

fn scale_of(unit: &str) -> Option<Scale> {
    Some(match unit {
        "" | "none" | "string" => Scale::Fixed(""),
        "short" | "sishort" => Scale::Si(""),
        "percent" | "percentunit" => Scale::Fixed("%"),
        "humidity" => Scale::Fixed("%H"),
        "celsius" => Scale::Fixed("°C"),
        "fahrenheit" => Scale::Fixed("°F"),
        "kelvin" => Scale::Fixed("K"),
        "dB" => Scale::Fixed("dB"),
        "rotrpm" => Scale::Fixed("rpm"),
        "currencyUSD" => Scale::Fixed("$"),
        "currencyEUR" => Scale::Fixed("€"),
        "bytes" | "kbytes" | "mbytes" | "gbytes" => Scale::Iec("B"),
        "bits" => Scale::Iec("b"),
        "binBps" | "KiBs" | "MiBs" => Scale::Iec("B/s"),
        "binbps" => Scale::Iec("b/s"),
        "decbytes" | "deckbytes" | "decmbytes" | "decgbytes" => Scale::Si("B"),
        "decbits" => Scale::Si("b"),
        "Bps" | "KBs" | "MBs" => Scale::Si("B/s"),
        "bps" | "Kbits" | "Mbits" => Scale::Si("b/s"),
        "ops" => Scale::Si("ops/s"),
        "opm" => Scale::Si("ops/min"),
        "reqps" => Scale::Si("req/s"),
        "reqpm" => Scale::Si("req/min"),
        "rps" => Scale::Si("rd/s"),
        "wps" => Scale::Si("wr/s"),
        "pps" => Scale::Si("p/s"),
        "cps" => Scale::Si("c/s"),
        "cpm" => Scale::Si("c/min"),
        "eps" => Scale::Si("evt/s"),
        "epm" => Scale::Si("evt/min"),
        "mps" => Scale::Si("msg/s"),
        "mpm" => Scale::Si("msg/min"),
        "iops" => Scale::Si("io/s"),
        "rowsps" => Scale::Si("rows/s"),
        "recps" => Scale::Si("rec/s"),
        "hertz" | "rothz" => Scale::Si("Hz"),
        "volt" => Scale::Si("V"),
        "amp" => Scale::Si("A"),
        "watt" => Scale::Si("W"),
        "watth" => Scale::Si("Wh"),
        "joule" => Scale::Si("J"),
        "ns" => Scale::Time(1e-9),
        "µs" | "us" => Scale::Time(1e-6),
        "ms" => Scale::Time(1e-3),
        "s" => Scale::Time(1.0),
        "m" => Scale::Time(60.0),
        "h" => Scale::Time(3600.0),
        "d" => Scale::Time(86_400.0),
        _ => return None,
    })
}

fn si_factor(unit: &str) -> f64 {
    match unit {
        "deckbytes" | "KBs" | "Kbits" => 1e3,
        "decmbytes" | "MBs" | "Mbits" => 1e6,
        "decgbytes" => 1e9,
        _ => 1.0,
    }
}

fn iec_factor(unit: &str) -> f64 {
    match unit {
        "kbytes" | "KiBs" => 1024.0,
        "mbytes" | "MiBs" => 1024.0 * 1024.0,
        "gbytes" => 1024.0 * 1024.0 * 1024.0,
        _ => 1.0,
    }
}

fn scaled_by(value: f64, base: f64, letters: &[&'static str]) -> (f64, &'static str) {
    let mut scaled = value;
    let mut at = 0;
    while scaled.abs() >= base && at + 1 < letters.len() {
        scaled /= base;
        at += 1;
    }
    (scaled, letters[at])
}

/// Seconds in the largest unit that gives at least one.
fn time(secs: f64) -> (f64, String) {
    let size = secs.abs();
    let (factor, suffix) = match size {
        0.0 => (1.0, "s"),
        _ if size < 1e-6 => (1e9, "ns"),
        _ if size < 1e-3 => (1e6, "µs"),
        _ if size < 1.0 => (1e3, "ms"),
        _ if size < 60.0 => (1.0, "s"),
        _ if size < 3600.0 => (1.0 / 60.0, "min"),
        _ if size < 86_400.0 => (1.0 / 3600.0, "h"),
        _ if size < 7.0 * 86_400.0 => (1.0 / 86_400.0, "d"),
        _ if size < 365.0 * 86_400.0 => (1.0 / (7.0 * 86_400.0), "weeks"),
        _ => (1.0 / (365.0 * 86_400.0), "years"),
    };
    (secs * factor, suffix.to_owned())
}

/// With these decimals, or with as many as its size asks for.
fn fixed(value: f64, decimals: Option<usize>) -> String {
    let text = format!(
        "{value:.*}",
        decimals.unwrap_or_else(|| decimals_for(value))
    );
    if text.starts_with('-') && !text.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        return text[1..].to_owned();
    }
    text
}

/// Grafana's rule: three digits that count, a fourth for small leading ones, none for
/// whole numbers. What the last bits of a quotient add to a whole number is no digit.
fn decimals_for(value: f64) -> usize {
    let whole = value.round();
    if (value - whole).abs() <= whole.abs() * 1e-12 {
        return 0;
    }
    let log10 = value.abs().log10().floor();
    let mut decimals = 1.0 - log10;
    let norm = value.abs() / 10f64.powf(-decimals);
    if norm > 2.25 {
        decimals += 1.0;
    }
    (0..=15)
        .find(|d| f64::from(*d) >= decimals)
        .map_or(0, |d: u8| usize::from(d))
}

/// With a comma between thousands.
fn grouped(value: f64, decimals: Option<usize>) -> String {
    let text = fixed(value, decimals);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.as_str()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut out = sign.to_owned();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        let _ = write!(out, ".{fraction}");
    }
    out
}

/// `1 day, 2 hours`: the largest part and `more` smaller ones.
fn duration(ms: f64, more: usize) -> String {
    const PARTS: [(&str, f64); 8] = [
        ("year", 31_536_000_000.0),
        ("month", 2_628_000_000.0),
        ("week", 604_800_000.0),
        ("day", 86_400_000.0),
        ("hour", 3_600_000.0),
        ("minute", 60_000.0),
        ("second", 1_000.0),
        ("millisecond", 1.0),
    ];
    let mut rest = ms.abs();
    let mut words: Vec<String> = Vec::new();
    let mut started = false;
    for (name, size) in PARTS {
        let count = (rest / size).floor();
        if count >= 1.0 || started {
            started = true;
            rest -= count * size;
            if count >= 1.0 {
                let plural = if count == 1.0 { "" } else { "s" };
                words.push(format!("{count} {name}{plural}"));
            }
            if words.len() > more {
                break;
            }
        }
    }
    let sign = if ms < 0.0 { "-" } else { "" };
    if words.is_empty() {
        "0 seconds".to_owned()
    } else {
        format!("{sign}{}", words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unit: &str, value: f64, want: &str) {
        let got = Format::of(unit).format(value).to_string();
        assert_eq!(got.replace('\u{a0}', " "), want, "{value} {unit}");
    }

    #[test]
    fn the_common_units_read_well() {
        check("short", 18_400.0, "18.4 k");
        check("short", 0.0, "0");
        check("short", 999.0, "999");
        check("short", 1_234_567.0, "1.23 M");
        check("none", 1_234_567.0, "1234567");
        check("", 0.25, "0.250");
        check("bytes", 1024.0, "1 KiB");
        check("bytes", 1_500_000.0, "1.43 MiB");
        check("decbytes", 1_500_000.0, "1.50 MB");
        check("Bps", 12_345.0, "12.3 kB/s");
        check("binBps", 2048.0, "2 KiB/s");
        check("bps", 1e9, "1 Gb/s");
        check("percent", 12.5, "12.5 %");
        check("percentunit", 0.125, "12.5 %");
        check("mps", 18_400.0, "18.4 k msg/s");
        check("reqps", 0.25, "0.250 req/s");
        check("celsius", 41.0, "41 °C");
        check("hertz", 50.0, "50 Hz");
        check("widgets", 3.0, "3 widgets");
        check("suffix:msgs", 3.0, "3 msgs");
        check("si:J", 3e6, "3 MJ");
    }

    #[test]
    fn times_find_their_unit() {
        check("s", 0.041, "41 ms");
        check("s", 0.000_041, "41 µs");
        check("s", 4.1e-8, "41 ns");
        check("s", 90.0, "1.50 min");
        check("ms", 7_200_000.0, "2 h");
        check("s", 86_400.0 * 10.0, "1.43 weeks");
        check("dtdurations", 93_784.0, "1 day");
        check("bool_yes_no", 1.0, "Yes");
        check("locale", 1_234_567.0, "1,234,567");
        check("locale", -1234.0, "-1,234");
    }

    #[test]
    fn decimals_follow_the_size_and_zero_has_no_sign() {
        check("none", 2.25, "2.25");
        check("none", 0.000_123, "0.000123");
        check("none", -0.0, "0");
        check("none", 2.000_000_000_000_000_4, "2");
        check("mps", 10.999_999_999_999_998, "11 msg/s");
        check("none", 2.000_001, "2.00");
        check("none", f64::NAN, "NaN");
        check("none", f64::NEG_INFINITY, "-Inf");
        let two = Format {
            decimals: Some(2),
            ..Format::of("percent")
        };
        assert_eq!(two.format(99.999).text, "100.00");
    }

    #[test]
    fn durations_show_as_many_parts_as_asked() {
        let format = Format {
            decimals: Some(1),
            ..Format::of("dtdurations")
        };
        assert_eq!(format.format(93_784.0).text, "1 day, 2 hours");
        assert_eq!(format.format(0.0).text, "0 seconds");
        let ago = Format {
            now: Some(Timestamp::from_ms(120_000)),
            ..Format::of("dateTimeFromNow")
        };
        assert_eq!(ago.format(0.0).text, "2 minutes ago");
    }

    #[test]
    fn axis_labels_share_their_decimals() {
        let labels = |unit: &str, ticks: &[f64]| {
            Format::of(unit)
                .axis_labels(ticks)
                .join("|")
                .replace('\u{a0}', " ")
        };
        assert_eq!(
            labels("short", &[0.0, 500.0, 1000.0, 1500.0]),
            "0|500|1.0 k|1.5 k"
        );
        assert_eq!(
            labels("percentunit", &[0.95, 0.975, 1.0]),
            "95.0 %|97.5 %|100.0 %"
        );
        assert_eq!(labels("percent", &[0.0, 50.0]), "0 %|50 %");
        assert_eq!(labels("s", &[0.0, 0.04, 0.08]), "0|40 ms|80 ms");
    }
}
