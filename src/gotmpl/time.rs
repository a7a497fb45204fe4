//! Go's `time.Time` and `time.Duration` as texts. Everything is UTC.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::model::Timestamp;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// The parts of a layout, the longer of two with the same start first.
const LAYOUT: [&str; 33] = [
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "Z070000",
    "Z07:00:00",
    "Z0700",
    "Z07:00",
    "Z07",
    "-070000",
    "-07:00:00",
    "-0700",
    "-07:00",
    "-07",
    "002",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "__2",
    "_2",
    "PM",
    "pm",
    "1",
    "2",
    "3",
    "4",
    "5",
];

/// Date and time of day in UTC; the ends of the representable time where it is not.
pub(super) fn civil(t: Timestamp) -> DateTime {
    let t = jiff::Timestamp::from_millisecond(t.as_ms()).unwrap_or(if t.as_ms() < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    t.to_zoned(TimeZone::UTC).datetime()
}

/// As Go's `Time.String`: `2023-11-14 22:13:20.25 +0000 UTC`.
pub(super) fn to_string(t: Timestamp) -> String {
    format(t, "2006-01-02 15:04:05.999999999 -0700 MST")
}

/// The English name of the month.
pub(super) fn month(at: DateTime) -> &'static str {
    MONTHS[usize::try_from(at.month() - 1).expect("months count from 1")]
}

/// The English name of the day of the week.
pub(super) fn weekday(at: DateTime) -> &'static str {
    let day = at.weekday().to_sunday_zero_offset();
    DAYS[usize::try_from(day).expect("days count from 0")]
}

/// As Go's `Time.Format`.
pub(super) fn format(t: Timestamp, layout: &str) -> String {
    let at = civil(t);
    let mut out = String::new();
    let mut rest = layout;
    while let Some(c) = rest.chars().next() {
        if let Some(len) = fraction_len(rest) {
            push_fraction(&mut out, at, &rest[..len]);
            rest = &rest[len..];
            continue;
        }
        match LAYOUT.iter().find(|part| starts_with(rest, part)) {
            Some(part) => {
                push_part(&mut out, at, part);
                rest = &rest[part.len()..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// `Jan` must not be the start of a longer word in lower case.
fn starts_with(rest: &str, part: &str) -> bool {
    let longer = |after: &str| after.starts_with(|c: char| c.is_ascii_lowercase());
    rest.strip_prefix(part)
        .is_some_and(|after| !(matches!(part, "Jan" | "Mon") && longer(after)))
}

/// The length of `.000` or `,999` when no digit follows.
fn fraction_len(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix(['.', ','])?;
    let first = body.chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let digits = body.chars().take_while(|c| *c == first).count();
    let ended = !body[digits..].starts_with(|c: char| c.is_ascii_digit());
    ended.then_some(digits + 1)
}

fn push_fraction(out: &mut String, at: DateTime, part: &str) {
    let nanos = format!("{:09}", at.subsec_nanosecond());
    let wanted = part.len() - 1;
    let digits: String = nanos
        .chars()
        .chain(std::iter::repeat('0'))
        .take(wanted)
        .collect();
    let kept = if part.ends_with('9') {
        digits.trim_end_matches('0')
    } else {
        digits.as_str()
    };
    if !kept.is_empty() {
        out.push_str(&part[..1]);
        out.push_str(kept);
    }
}

fn push_part(out: &mut String, at: DateTime, part: &str) {
    let hour12 = match at.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let text = match part {
        "January" => month(at).to_owned(),
        "Jan" => month(at)[..3].to_owned(),
        "Monday" => weekday(at).to_owned(),
        "Mon" => weekday(at)[..3].to_owned(),
        "MST" => "UTC".to_owned(),
        "2006" => format!("{:04}", at.year()),
        "06" => format!("{:02}", at.year().rem_euclid(100)),
        "01" => format!("{:02}", at.month()),
        "1" => at.month().to_string(),
        "02" => format!("{:02}", at.day()),
        "_2" => format!("{:2}", at.day()),
        "2" => at.day().to_string(),
        "002" => format!("{:03}", at.day_of_year()),
        "__2" => format!("{:3}", at.day_of_year()),
        "15" => format!("{:02}", at.hour()),
        "03" => format!("{hour12:02}"),
        "3" => hour12.to_string(),
        "04" => format!("{:02}", at.minute()),
        "4" => at.minute().to_string(),
        "05" => format!("{:02}", at.second()),
        "5" => at.second().to_string(),
        "PM" if at.hour() < 12 => "AM".to_owned(),
        "pm" if at.hour() < 12 => "am".to_owned(),
        "PM" | "pm" => part.to_owned(),
        zone if zone.starts_with('Z') => "Z".to_owned(),
        zone => zone.replace('7', "0").replace('-', "+"),
    };
    out.push_str(&text);
}

/// As Go's `Duration.String`: `1h2m3.5s`, `250ms`, `0s`.
pub(super) fn duration_to_string(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    if magnitude == 0 {
        return "0s".to_owned();
    }
    for (unit, size, limit) in [
        ("ns", 1, 1_000),
        ("µs", 1_000, 1_000_000),
        ("ms", 1_000_000, 1_000_000_000),
    ] {
        if magnitude < limit {
            return format!("{sign}{}{unit}", decimal(magnitude, size));
        }
    }
    let seconds = magnitude / 1_000_000_000;
    let last = decimal(magnitude % 60_000_000_000, 1_000_000_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{last}s"),
        (0, _) => format!("{sign}{minutes}m{last}s"),
        _ => format!("{sign}{hours}h{minutes}m{last}s"),
    }
}

/// `value / size` without trailing zeros.
fn decimal(value: u64, size: u64) -> String {
    let (whole, fraction) = (value / size, value % size);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = usize::try_from(size.ilog10()).expect("a unit has few digits");
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_times_as_go() {
        let t = Timestamp::from_ms(1_700_000_000_250);
        assert_eq!(to_string(t), "2023-11-14 22:13:20.25 +0000 UTC");
        for (layout, want) in [
            ("2006-01-02T15:04:05Z07:00", "2023-11-14T22:13:20Z"),
            (
                "Mon, 02 Jan 2006 15:04:05 -0700",
                "Tue, 14 Nov 2023 22:13:20 +0000",
            ),
            (
                "Monday January 2 3:04PM 06",
                "Tuesday November 14 10:13PM 23",
            ),
            ("15:04:05.000", "22:13:20.250"),
            ("15:04:05.999", "22:13:20.25"),
            ("Janet 002 MST", "Janet 318 UTC"),
        ] {
            assert_eq!(format(t, layout), want, "{layout}");
        }
    }

    #[test]
    fn prints_durations_as_go() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (-90_000_000_000, "-1m30s"),
        ] {
            assert_eq!(duration_to_string(nanos), want);
        }
    }
}
