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

const DAY: i64 = 86_400;

impl DatePart {
    /// The part of a time in seconds; fractions of a second are cut off. NaN
    /// and infinities have no date: the result is NaN.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cutting off is meant, and the cast saturates"
    )]
    pub(super) fn of(self, seconds: f64) -> f64 {
        if !seconds.is_finite() {
            return f64::NAN;
        }
        let seconds = seconds as i64;
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

/// Year, month and day of a number of days since the epoch, in the proleptic
/// Gregorian calendar. Years are counted from March, so that the leap day is
/// the last day of a year.
fn civil(days: i64) -> (i64, i64, i64) {
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
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

fn days_in_month(year: i64, month: i64) -> i64 {
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
        let got = part.of(seconds);
        let is_same = got == want || got.is_nan() && want.is_nan();
        assert!(is_same, "{part:?} of {seconds}: {got}, want {want}");
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
        // What is beyond the seconds that fit ends at the last one.
        check(1e300, DatePart::Year, 292_277_026_596.0);
        check(-1e300, DatePart::Minute, 29.0);
        check(f64::INFINITY, DatePart::Year, f64::NAN);
    }

    #[test]
    fn civil_dates_come_back() {
        for days in (-1_000_000..1_000_000).step_by(97) {
            let (year, month, day) = civil(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
