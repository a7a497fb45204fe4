//! Milliseconds since the Unix epoch, the only form of time in the product.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, as in Prometheus. May be negative.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest representable time.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The latest representable time.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// From milliseconds since the epoch.
    #[inline]
    pub const fn from_ms(ms: i64) -> Timestamp {
        Timestamp(ms)
    }

    /// From seconds since the epoch, rounded to the nearest millisecond.
    /// Values out of range saturate; NaN is the epoch.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "float to int casts saturate, which is what is documented"
    )]
    pub fn from_secs_f64(secs: f64) -> Timestamp {
        Timestamp((secs * 1000.0).round() as i64)
    }

    /// Milliseconds since the epoch.
    #[inline]
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch; exact for every time within 285,000 years.
    #[inline]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// This time moved by `ms` milliseconds, saturating at the ends.
    #[must_use]
    #[inline]
    pub const fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }

    /// This time moved back by `ms` milliseconds, saturating at the ends.
    #[must_use]
    #[inline]
    pub const fn minus_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to this time, saturating.
    #[inline]
    pub const fn ms_since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The largest multiple of `step_ms` that is not after this time.
    ///
    /// `step_ms` must be positive.
    #[must_use]
    pub const fn floor_to(self, step_ms: i64) -> Timestamp {
        Timestamp(self.0 - self.0.rem_euclid(step_ms))
    }

    /// RFC 3339 in UTC with milliseconds, for people and for JSON.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => format!("{t:.3}"),
            Err(_) => format!("{} ms", self.0),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_goes_down_for_negative_times_too() {
        assert_eq!(Timestamp::from_ms(-1).floor_to(10).as_ms(), -10);
        assert_eq!(Timestamp::from_ms(19).floor_to(10).as_ms(), 10);
    }

    #[test]
    fn prints_as_rfc3339_with_milliseconds() {
        let t = Timestamp::from_ms(1_700_000_000_250);
        assert_eq!(t.to_string(), "2023-11-14T22:13:20.250Z");
    }
}
