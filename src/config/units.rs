//! Durations and sizes as they stand in the configuration.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::model::duration;

/// A duration written as in Prometheus: `"30s"`, `"1h30m"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// From milliseconds.
    pub const fn ms(ms: u64) -> Span {
        Span(Duration::from_millis(ms))
    }

    /// From seconds.
    pub const fn secs(secs: u64) -> Span {
        Span(Duration::from_secs(secs))
    }

    /// As a standard duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// In whole milliseconds, saturating.
    pub fn as_ms(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::format(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration::parse(&text).map(Span).map_err(de::Error::custom)
    }
}

/// A number of bytes written with a unit: `"64MiB"`, `"1500B"`, `"2GB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Decimal and binary units, as Prometheus' size flags take them; longest first.
const SIZE_UNITS: [(&str, u64); 13] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1 << 10),
    ("MB", 1 << 20),
    ("GB", 1 << 30),
    ("TB", 1 << 40),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("B", 1),
];

impl Size {
    /// From bytes.
    pub const fn bytes(bytes: u64) -> Size {
        Size(bytes)
    }

    /// From mebibytes.
    pub const fn mib(mib: u64) -> Size {
        Size(mib << 20)
    }

    /// In bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// In bytes, for things in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS[..4]
            .iter()
            .rev()
            .find(|(_, size)| self.0 > 0 && self.0.is_multiple_of(*size));
        match unit {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wanted = || {
            format!(
                "not a valid size: {text:?}, expected a number with a unit B, KiB, MiB, GiB or TiB"
            )
        };
        let (number, unit) = SIZE_UNITS
            .iter()
            .find_map(|(name, size)| text.strip_suffix(name).map(|number| (number, *size)))
            .ok_or_else(wanted)?;
        let count: u64 = number.trim_end().parse().map_err(|_| wanted())?;
        count.checked_mul(unit).map(Size).ok_or_else(wanted)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_print() {
        for (text, bytes) in [
            ("0B", 0),
            ("1500B", 1500),
            ("64MiB", 64 << 20),
            ("2GB", 2 << 30),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "5", "MiB", "-1B", "1.5GiB", "99999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(format!("{:?}", Size::mib(64)), "64MiB");
    }
}
