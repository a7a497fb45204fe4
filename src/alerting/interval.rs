//! Whether a time interval holds.

use jiff::civil::DateTime;

use crate::config::intervals::{DaysOfMonth, TimeInterval};
use crate::model::Timestamp;

/// Whether one of the intervals holds at `now`.
pub(super) fn any_holds(intervals: &[TimeInterval], now: Timestamp) -> bool {
    intervals.iter().any(|interval| holds(interval, now))
}

fn holds(interval: &TimeInterval, now: Timestamp) -> bool {
    let Ok(instant) = jiff::Timestamp::from_millisecond(now.as_ms()) else {
        return false;
    };
    let zone = interval.location.0.clone();
    let now = instant.to_zoned(zone).datetime();
    let minute = u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute()))
        .expect("a day has 1440 minutes");
    let weekday = i16::from(now.weekday().to_sunday_zero_offset());
    let month = i16::from(now.month());
    any(&interval.times, |t| t.start <= minute && minute < t.end)
        && any(&interval.days_of_month, |days| has_day(days, now))
        && any(&interval.weekdays, |days| days.0.contains(&weekday))
        && any(&interval.months, |months| months.0.contains(&month))
        && any(&interval.years, |years| years.0.contains(&now.year()))
}

/// Whether one of them does; none at all is no condition.
fn any<T>(all: &[T], holds: impl Fn(&T) -> bool) -> bool {
    all.is_empty() || all.iter().any(holds)
}

/// Negative days count from the end of the month; both ends stay within it.
fn has_day(days: &DaysOfMonth, now: DateTime) -> bool {
    let last = i16::from(now.date().days_in_month());
    let from_start = |day: i16| if day < 0 { last + day + 1 } else { day };
    let begin = from_start(*days.0.start());
    let end = from_start(*days.0.end());
    // As Alertmanager: a range that begins behind the end of a short month has no day.
    if begin > last {
        return false;
    }
    (begin.max(1)..=end.min(last)).contains(&i16::from(now.day()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(interval: &str, time: &str, want: bool) {
        let interval: TimeInterval = toml::from_str(interval).unwrap();
        let at: jiff::Timestamp = time.parse().unwrap();
        let got = holds(&interval, Timestamp::from_ms(at.as_millisecond()));
        assert_eq!(got, want, "{interval:?} at {time}");
    }

    #[test]
    fn parts_of_the_day_end_before_their_end() {
        let day = "times = [{start_time = \"09:00\", end_time = \"17:00\"}]";
        check(day, "2026-11-21T08:59:59Z", false);
        check(day, "2026-11-21T09:00:00Z", true);
        check(day, "2026-11-21T16:59:59Z", true);
        check(day, "2026-11-21T17:00:00Z", false);
    }

    #[test]
    fn all_that_is_named_has_to_hold() {
        let week = "weekdays = [\"monday:friday\"]\nmonths = [\"november\"]";
        check(week, "2026-11-20T12:00:00Z", true);
        check(week, "2026-11-21T12:00:00Z", false);
        check(week, "2026-12-01T12:00:00Z", false);
        check("years = [\"2025\"]", "2026-01-01T00:00:00Z", false);
        check("", "2026-01-01T00:00:00Z", true);
    }

    #[test]
    fn days_count_from_both_ends_of_the_month() {
        let last = "days_of_month = [\"-1\"]";
        check(last, "2028-02-29T12:00:00Z", true);
        check(last, "2026-02-28T12:00:00Z", true);
        check(last, "2026-03-30T12:00:00Z", false);
        check("days_of_month = [\"1:-2\"]", "2026-04-29T00:00:00Z", true);
        check("days_of_month = [\"1:-2\"]", "2026-04-30T00:00:00Z", false);
        check("days_of_month = [\"31\"]", "2026-04-30T00:00:00Z", false);
    }

    #[test]
    fn the_zone_decides_what_day_it_is() {
        let monday = "weekdays = [\"monday\"]\nlocation = \"Asia/Tokyo\"";
        check(monday, "2026-11-22T15:30:00Z", true);
        check(monday, "2026-11-23T15:30:00Z", false);
    }
}
