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

    /// The beginning of a day of the Gregorian calendar in UTC; `None` when there is no
    /// such day. Years from 0 to 9999, as RFC 3339 has them.
    pub fn of_day(year: i64, month: i64, day: i64) -> Option<Timestamp> {
        if !(0..=9999).contains(&year) || !(1..=12).contains(&month) {
            return None;
        }
        let first = days_before(year, month);
        let is_day = (1..=days_before(year, month + 1) - first).contains(&day);
        is_day.then(|| Timestamp((first + day - 1) * DAY_MS))
    }

    /// RFC 3339 in UTC with milliseconds, for people and for JSON. It has no word for
    /// years with more than four digits: those are told in milliseconds.
    pub fn to_rfc3339(self) -> String {
        let (days, ms) = (self.0.div_euclid(DAY_MS), self.0.rem_euclid(DAY_MS));
        let since = days - days_before(0, 1);
        if since < 0 || days >= days_before(10_000, 1) {
            return format!("{} ms", self.0);
        }
        // Never too few: a year has at least so many days.
        let mut year = since / 365;
        while days_before(year, 1) > days {
            year -= 1;
        }
        let mut months = (1..=12).rev();
        let month = months
            .find(|month| days_before(year, *month) <= days)
            .expect("January begins with the year");
        let day = days - days_before(year, month) + 1;
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
        let ms = ms % 1_000;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

const DAY_MS: i64 = 86_400_000;

/// Days from 1970-01-01 to the first of a month; the 13th is the next January.
fn days_before(year: i64, month: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // From March on lengths repeat after five months of 153 days.
    year * 365 + leaps + (month * 153 + 2) / 5 - 719_468
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
        let end = Timestamp::of_day(9999, 12, 31).unwrap();
        let end = end.plus_ms(DAY_MS - 1);
        assert_eq!(end.to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(end.plus_ms(1).to_string(), "253402300800000 ms");
        let start = Timestamp::of_day(0, 1, 1).unwrap();
        assert_eq!(start.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(start.minus_ms(1).to_string(), "-62167219200001 ms");
    }

    #[test]
    fn every_day_of_ten_thousand_years_is_the_one_of_the_calendar() {
        let mut date = jiff::civil::date(0, 1, 1);
        let mut days = -719_528;
        loop {
            let [y, m, d] = [date.year().into(), date.month().into(), date.day().into()];
            let t = Timestamp::of_day(y, m, d).unwrap();
            assert_eq!(t.as_ms(), days * DAY_MS, "{date}");
            let text = t.plus_ms(DAY_MS - 1).to_rfc3339();
            assert_eq!(text, format!("{date}T23:59:59.999Z"));
            // Its calendar ends with the year 9999.
            let Ok(next) = date.tomorrow() else {
                break;
            };
            (date, days) = (next, days + 1);
        }
        assert_eq!(days, 2_932_896);
    }

    #[test]
    fn a_day_that_is_not_in_the_calendar_is_none() {
        for (year, month, day) in [
            (2023, 2, 29),
            (1900, 2, 29),
            (2023, 4, 31),
            (2023, 0, 1),
            (2023, 13, 1),
            (2023, 1, 0),
            (2023, 1, 32),
            (-1, 1, 1),
            (10_000, 1, 1),
        ] {
            assert_eq!(
                Timestamp::of_day(year, month, day),
                None,
                "{year}-{month}-{day}"
            );
        }
    }
}
