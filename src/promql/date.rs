//! The date functions: parts of a Unix time in UTC.
//!
//! Computed by the civil-calendar formula over days rather than by a time
//! library, because the functions must answer for every float, not only for
//! the years that a library knows.

/// A part of a date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DatePart {
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    DaysInMonth,
    Hour,
    Minute,
    Month,
    Year,
}

const DAY: i128 = 86_400;

impl DatePart {
    /// The part of a time in seconds; fractions of a second are cut off. What
    /// has no date has the one that Prometheus gives it on common machines.
    pub(super) fn of(self, seconds: f64) -> f64 {
        let seconds = whole_seconds(seconds);
        let days = seconds.div_euclid(DAY);
        let of_day = seconds.rem_euclid(DAY);
        let (year, month, day) = civil(days);
        let part = match self {
            DatePart::DayOfMonth => day,
            // The epoch was a Thursday.
            DatePart::DayOfWeek => (days + 4).rem_euclid(7),
            DatePart::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
            DatePart::DaysInMonth => days_in_month(year, month),
            DatePart::Hour => of_day / 3600,
            DatePart::Minute => of_day / 60 % 60,
            DatePart::Month => month,
            DatePart::Year => year,
        };
        part as f64
    }
}

/// The seconds on which Go's calendar counts: NaN and what does not fit is the
/// smallest number, and a time before its first year comes round to its end.
#[expect(
    clippy::cast_possible_truncation,
    reason = "cutting off is meant, and only numbers that fit are cast"
)]
fn whole_seconds(seconds: f64) -> i128 {
    /// From the first second of Go's calendar to the epoch.
    const BEFORE_EPOCH: i128 = 9_223_372_028_715_321_600;
    let limit = -(i64::MIN as f64);
    let whole = if (-limit..limit).contains(&seconds) {
        seconds as i64
    } else {
        i64::MIN
    };
    (i128::from(whole) + BEFORE_EPOCH).rem_euclid(1 << 64) - BEFORE_EPOCH
}

/// Year, month and day of a number of days since the epoch, in the proleptic
/// Gregorian calendar. Years are counted from March, so that the leap day is
/// the last day of a year.
fn civil(days: i128) -> (i128, i128, i128) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil`].
fn days_from_civil(year: i128, month: i128, day: i128) -> i128 {
    let year = year - i128::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

fn days_in_month(year: i128, month: i128) -> i128 {
    let next = if month == 12 {
        days_from_civil(year + 1, 1, 1)
    } else {
        days_from_civil(year, month + 1, 1)
    };
    next - days_from_civil(year, month, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: f64, part: DatePart, want: f64) {
        assert_eq!(part.of(seconds), want, "{part:?} of {seconds:e}");
    }

    #[test]
    fn parts_of_known_times() {
        // 2024-02-29T12:34:56Z, a Thursday.
        let leap_day = 1_709_210_096.0;
        check(leap_day, DatePart::Year, 2024.0);
        check(leap_day, DatePart::Month, 2.0);
        check(leap_day, DatePart::DayOfMonth, 29.0);
        check(leap_day, DatePart::DayOfWeek, 4.0);
        check(leap_day, DatePart::DayOfYear, 60.0);
        check(leap_day, DatePart::DaysInMonth, 29.0);
        check(leap_day, DatePart::Hour, 12.0);
        check(leap_day, DatePart::Minute, 34.0);
        // 1969-12-31T23:59:59Z, a Wednesday.
        check(-1.0, DatePart::Year, 1969.0);
        check(-1.0, DatePart::DayOfYear, 365.0);
        check(-1.0, DatePart::DayOfWeek, 3.0);
        check(-1.0, DatePart::Hour, 23.0);
    }

    #[test]
    fn times_beyond_all_calendars_have_a_date_too() {
        // As Prometheus 2.42 answers.
        check(1e17, DatePart::Year, 3_168_875_820.0);
        check(1e18, DatePart::Year, 31_688_740_476.0);
        check(1e18, DatePart::Month, 10.0);
        check(1e18, DatePart::DayOfMonth, 23.0);
        check(1e18, DatePart::DayOfYear, 297.0);
        check(1e18, DatePart::Hour, 1.0);
        check(-1e18, DatePart::Year, -31_688_736_537.0);
        check(-1e18, DatePart::DayOfWeek, 2.0);
        check(9.2e18, DatePart::DaysInMonth, 31.0);
    }

    #[test]
    fn what_has_no_date_has_that_of_the_smallest_number() {
        // 292277026596-12-04T15:30:08Z, as Go prints it.
        for none in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e19] {
            check(none, DatePart::Year, 292_277_026_596.0);
            check(none, DatePart::Month, 12.0);
            check(none, DatePart::DayOfMonth, 4.0);
            check(none, DatePart::Hour, 15.0);
            check(none, DatePart::DayOfWeek, 0.0);
        }
    }

    #[test]
    fn civil_dates_come_back() {
        for days in (-1_000_000..1_000_000).step_by(97) {
            let (year, month, day) = civil(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
