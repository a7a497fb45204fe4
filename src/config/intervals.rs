//! Time intervals: when routes are quiet or active, in Alertmanager's form.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, de};

/// A named set of intervals; it holds while one of them does.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedIntervals {
    /// As routes name it.
    pub name: String,
    /// The intervals.
    #[serde(default)]
    pub time_intervals: Vec<TimeInterval>,
}

/// Holds while all that it names does; what it leaves out always does.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeInterval {
    /// Parts of the day.
    pub times: Vec<TimeRange>,
    /// `monday`, `tuesday:friday`.
    pub weekdays: Vec<Weekdays>,
    /// `1`, `1:5`, `-3:-1` counts from the end of the month.
    pub days_of_month: Vec<DaysOfMonth>,
    /// `may:august`, `1:3`.
    pub months: Vec<Months>,
    /// `2026`, `2026:2028`.
    pub years: Vec<Years>,
    /// The zone in which all is meant; UTC when left out.
    pub location: Location,
}

/// A part of the day, in minutes since midnight: from the start to before the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeRange {
    /// The first minute.
    pub start: u16,
    /// The first minute after it.
    pub end: u16,
}

/// Days of the week, 0 is Sunday.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Weekdays(pub RangeInclusive<i16>);

/// Days of the month from 1, or from -1 backwards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaysOfMonth(pub RangeInclusive<i16>);

/// Months, 1 is January.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Months(pub RangeInclusive<i16>);

/// Years.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Years(pub RangeInclusive<i16>);

/// A time zone by its IANA name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location(pub jiff::tz::TimeZone);

impl Default for Location {
    fn default() -> Location {
        Location(jiff::tz::TimeZone::UTC)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTimeRange {
    start_time: String,
    end_time: String,
}

impl<'de> Deserialize<'de> for TimeRange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<TimeRange, D::Error> {
        let raw = RawTimeRange::deserialize(from)?;
        let minute = |text: &str| {
            minute_of_day(text).ok_or_else(|| {
                de::Error::custom(format!(
                    "couldn't parse timestamp {text}, invalid format, expected HH:MM"
                ))
            })
        };
        let range = TimeRange {
            start: minute(&raw.start_time)?,
            end: minute(&raw.end_time)?,
        };
        if range.start >= range.end {
            return Err(de::Error::custom(
                "start time cannot be equal or greater than end time",
            ));
        }
        Ok(range)
    }
}

impl fmt::Display for Weekdays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |day: i16| usize::try_from(day).ok().and_then(|at| WEEKDAYS.get(at));
        named(f, &self.0, name)
    }
}

impl fmt::Display for Months {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |month: i16| {
            usize::try_from(month.saturating_sub(1))
                .ok()
                .and_then(|at| MONTHS.get(at))
        };
        named(f, &self.0, name)
    }
}

impl fmt::Display for DaysOfMonth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.start(), self.0.end())
    }
}

impl fmt::Display for Years {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.start(), self.0.end())
    }
}

fn named(
    f: &mut fmt::Formatter<'_>,
    range: &RangeInclusive<i16>,
    name: impl Fn(i16) -> Option<&'static &'static str>,
) -> fmt::Result {
    let name = |at: &i16| name(*at).map_or_else(|| at.to_string(), |&name| name.to_owned());
    write!(f, "{}:{}", name(range.start()), name(range.end()))
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let is_time = (hours < 24 && minutes < 60) || (hours == 24 && minutes == 0);
    is_time.then_some(hours * 60 + minutes)
}

const WEEKDAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl<'de> Deserialize<'de> for Weekdays {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Weekdays, D::Error> {
        range(from, |text| {
            let at = WEEKDAYS.iter().position(|day| *day == text.to_lowercase());
            at.and_then(|at| i16::try_from(at).ok())
                .ok_or_else(|| format!("{text} is not a valid weekday"))
        })
        .map(Weekdays)
    }
}

impl<'de> Deserialize<'de> for Months {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Months, D::Error> {
        range(from, |text| {
            let named = MONTHS
                .iter()
                .position(|month| *month == text.to_lowercase());
            let named = named.and_then(|at| i16::try_from(at + 1).ok());
            // As Alertmanager, any number: that of no month never holds.
            let number = || text.parse().ok();
            named
                .or_else(number)
                .ok_or_else(|| format!("{text} is not a valid month"))
        })
        .map(Months)
    }
}

impl<'de> Deserialize<'de> for Years {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Years, D::Error> {
        range(from, |text| {
            let year: Option<i64> = text.parse().ok();
            let year = year.ok_or_else(|| format!("{text} is not a valid year"))?;
            let far = if year < 0 { i16::MIN } else { i16::MAX };
            Ok(i16::try_from(year).unwrap_or(far))
        })
        .map(Years)
    }
}

impl<'de> Deserialize<'de> for DaysOfMonth {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<DaysOfMonth, D::Error> {
        let text = text_of(from)?;
        let day = |text: &str| {
            let day: Option<i16> = text.parse().ok();
            day.filter(|day| *day != 0 && (-31..=31).contains(day))
                .ok_or_else(|| de::Error::custom(format!("{text} is not a valid day of the month")))
        };
        let (first, last) = text.split_once(':').unwrap_or((&text, &text));
        let (first, last) = (day(first)?, day(last)?);
        if first < 0 && last > 0 {
            return Err(de::Error::custom(
                "end day must be negative if start day is negative",
            ));
        }
        // As Alertmanager, by the shortest month and one day too strictly: 28:-1 is none.
        let from_start = |day: i16| if day < 0 { 28 + day } else { day };
        if from_start(first) > from_start(last) {
            let text = format!("end day {last} is always before start day {first}");
            return Err(de::Error::custom(text));
        }
        // Bounds of different signs are no range of numbers, only two ends.
        Ok(DaysOfMonth(RangeInclusive::new(first, last)))
    }
}

/// `FIRST:LAST` or one value.
fn range<'de, D: Deserializer<'de>>(
    from: D,
    one: impl Fn(&str) -> Result<i16, String>,
) -> Result<RangeInclusive<i16>, D::Error> {
    let text = text_of(from)?;
    let (first, last) = text.split_once(':').unwrap_or((&text, &text));
    let first = one(first).map_err(de::Error::custom)?;
    let last = one(last).map_err(de::Error::custom)?;
    if first > last {
        return Err(de::Error::custom(
            "start cannot be before end: the range is empty",
        ));
    }
    Ok(first..=last)
}

/// A text, or a number that stands without quotes.
fn text_of<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    struct TextOrNumber;
    impl de::Visitor<'_> for TextOrNumber {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text such as \"monday:friday\" or a number")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    from.deserialize_any(TextOrNumber)
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Location, D::Error> {
        let name = Option::<String>::deserialize(from)?.unwrap_or_default();
        match name.as_str() {
            "" => return Ok(Location::default()),
            "Local" => return Ok(Location(jiff::tz::TimeZone::system())),
            _ => {}
        }
        // By its very name: Go looks for a file.
        let zone = jiff::tz::TimeZone::get(&name).ok();
        let zone = zone.filter(|zone| zone.iana_name() == Some(name.as_str()));
        let unknown = || de::Error::custom(format!("unknown time zone {name:?}"));
        zone.map(Location).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, wanted: &str) {
        let err = toml::from_str::<TimeInterval>(text).unwrap_err();
        assert!(err.to_string().contains(wanted), "{text}: {err}");
    }

    #[test]
    fn ranges_are_read_in_words_and_numbers() {
        let text = "times = [{start_time = \"09:00\", end_time = \"24:00\"}]\n\
                    weekdays = [\"monday:Friday\", \"sunday\"]\n\
                    days_of_month = [\"1:5\", \"-3:-1\", \"1:-1\"]\n\
                    months = [\"may:august\", \"12\"]\nyears = [\"2026:2028\"]\n\
                    location = \"Europe/Berlin\"\n";
        let interval: TimeInterval = toml::from_str(text).unwrap();
        assert_eq!(
            interval.times[0],
            TimeRange {
                start: 540,
                end: 1440
            }
        );
        assert_eq!(interval.weekdays, [Weekdays(1..=5), Weekdays(0..=0)]);
        assert_eq!(interval.months, [Months(5..=8), Months(12..=12)]);
        assert_eq!(interval.days_of_month[1], DaysOfMonth(-3..=-1));
    }

    #[test]
    fn what_never_holds_is_refused() {
        check_error(
            "times = [{start_time = \"9:00\", end_time = \"10:00\"}]",
            "expected HH:MM",
        );
        check_error(
            "times = [{start_time = \"10:00\", end_time = \"10:00\"}]",
            "start time cannot be",
        );
        check_error("weekdays = [\"friday:monday\"]", "empty");
        check_error("weekdays = [\"fryday\"]", "fryday is not a valid weekday");
        check_error("days_of_month = [\"0\"]", "not a valid day");
        check_error("days_of_month = [\"-1:5\"]", "must be negative");
        check_error("days_of_month = [\"5:2\"]", "before start day");
        check_error("location = \"Mars/Olympus\"", "unknown time zone");
    }
}
