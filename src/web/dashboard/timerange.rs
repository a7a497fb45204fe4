//! The time range of a page: `now-3h`, `now/d`, epoch milliseconds, RFC 3339,
//! and what a panel makes of it: step, `$__interval`, `$__rate_interval`.

use jiff::civil::{DateTime, Weekday, time};
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

use crate::model::{Timestamp, duration};

/// A resolved range with the words it was written in.
#[derive(Clone, PartialEq, Debug)]
pub struct Range {
    /// As written.
    pub from_text: String,
    /// As written.
    pub to_text: String,
    /// The beginning.
    pub from: Timestamp,
    /// The end; after the beginning.
    pub to: Timestamp,
}

impl Range {
    /// Resolves the words; what cannot be read becomes the last hour.
    pub fn resolve(from: &str, to: &str, now: Timestamp, zone: &TimeZone) -> Range {
        let ends = (point(from, now, zone, false), point(to, now, zone, true));
        match ends {
            (Some(start), Some(end)) if start < end => Range {
                from_text: from.to_owned(),
                to_text: to.to_owned(),
                from: start,
                to: end,
            },
            _ => Range {
                from_text: "now-1h".to_owned(),
                to_text: "now".to_owned(),
                from: now.minus_ms(3_600_000),
                to: now,
            },
        }
    }

    /// Its length in milliseconds.
    pub fn span_ms(&self) -> i64 {
        self.to.ms_since(self.from).max(1)
    }

    /// Whether it moves with the clock.
    pub fn is_relative(&self) -> bool {
        self.to_text.starts_with("now")
    }

    /// `Last 3 hours`, or both ends in local time.
    pub fn label(&self, zone: &TimeZone) -> String {
        if let (Some(past), "now") = (self.from_text.strip_prefix("now-"), self.to_text.as_str())
            && let Some((count, unit)) = split_unit(past)
        {
            let unit = match unit {
                "s" => "second",
                "m" => "minute",
                "h" => "hour",
                "d" => "day",
                "w" => "week",
                "M" => "month",
                _ => "year",
            };
            return match count {
                1 => format!("Last {unit}"),
                n => format!("Last {n} {unit}s"),
            };
        }
        if self.from_text == "now/d" && self.to_text.starts_with("now") {
            return "Today".to_owned();
        }
        let text = |t: Timestamp| civil(t, zone, "%-d %b %H:%M").unwrap_or_default();
        format!("{} – {}", text(self.from), text(self.to))
    }
}

/// A time in a zone by a format of `strftime`.
pub fn civil(t: Timestamp, zone: &TimeZone, format: &str) -> Option<String> {
    let instant = jiff::Timestamp::from_millisecond(t.as_ms()).ok()?;
    Some(instant.to_zoned(zone.clone()).strftime(format).to_string())
}

/// One end of a range. A rounded end (`now/d`) means the last moment of the day
/// where it closes the range.
fn point(text: &str, now: Timestamp, zone: &TimeZone, is_end: bool) -> Option<Timestamp> {
    let text = text.trim();
    let Some(mut rest) = text.strip_prefix("now") else {
        return absolute(text, zone);
    };
    let instant = jiff::Timestamp::from_millisecond(now.as_ms()).ok()?;
    let mut at = instant.to_zoned(zone.clone());
    while !rest.is_empty() {
        let (sign, tail) = rest.split_at_checked(1)?;
        if sign == "/" {
            let (unit, tail) = tail.split_at_checked(1)?;
            at = rounded(&at, unit, is_end)?;
            rest = tail;
            continue;
        }
        let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = tail.get(..digits)?.parse().ok()?;
        let count = count.min(100_000) * if sign == "-" { -1 } else { 1 };
        (sign == "-" || sign == "+").then_some(())?;
        let (unit, tail) = tail.get(digits..)?.split_at_checked(1)?;
        at = moved(&at, count, unit)?;
        rest = tail;
    }
    Some(Timestamp::from_ms(at.timestamp().as_millisecond()))
}

fn moved(at: &Zoned, count: i64, unit: &str) -> Option<Zoned> {
    let span = match unit {
        "s" => count.seconds(),
        "m" => count.minutes(),
        "h" => count.hours(),
        "d" => count.days(),
        "w" => count.weeks(),
        "M" => count.months(),
        "y" => jiff::Span::new().try_years(count).ok()?,
        _ => return None,
    };
    at.checked_add(span).ok()
}

fn rounded(at: &Zoned, unit: &str, up: bool) -> Option<Zoned> {
    let date = at.date();
    let hour = time(at.hour(), 0, 0, 0);
    let start: DateTime = match unit {
        "m" => date.to_datetime(time(at.hour(), at.minute(), 0, 0)),
        "h" => date.to_datetime(hour),
        "d" => date.to_datetime(time(0, 0, 0, 0)),
        "w" => {
            let back = date.weekday().since(Weekday::Monday);
            date.checked_sub(i64::from(back).days())
                .ok()?
                .to_datetime(time(0, 0, 0, 0))
        }
        "M" => date.first_of_month().to_datetime(time(0, 0, 0, 0)),
        "y" => date.first_of_year().to_datetime(time(0, 0, 0, 0)),
        _ => return None,
    };
    let start = start.to_zoned(at.time_zone().clone()).ok()?;
    if up {
        moved(&start, 1, unit)?.checked_sub(1.millisecond()).ok()
    } else {
        Some(start)
    }
}

/// Epoch milliseconds, RFC 3339, or a local date and time as a form sends it.
fn absolute(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(ms) = text.parse::<i64>() {
        return Some(Timestamp::from_ms(ms));
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_ms(instant.as_millisecond()));
    }
    let local: DateTime = text.replace(' ', "T").parse().ok()?;
    let zoned = local.to_zoned(zone.clone()).ok()?;
    Some(Timestamp::from_ms(zoned.timestamp().as_millisecond()))
}

fn split_unit(text: &str) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = &text[digits..];
    matches!(unit, "s" | "m" | "h" | "d" | "w" | "M" | "y").then_some(())?;
    Some((text[..digits].parse().ok()?, unit))
}

/// What a panel asks for: whole steps on a grid that does not move with the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steps {
    /// `$__interval`, in milliseconds.
    pub interval_ms: i64,
    /// The step of the query: the interval times the target's factor.
    pub step_ms: i64,
    /// `$__rate_interval`, in milliseconds.
    pub rate_interval_ms: i64,
}

/// Steps for a range of `span_ms` drawn with at most `points` points, no finer
/// than `min_ms`, of series that are scraped every `scrape_ms`.
pub fn steps(span_ms: i64, points: usize, min_ms: i64, scrape_ms: i64, factor: usize) -> Steps {
    let points = i64::try_from(points.max(1)).unwrap_or(i64::MAX);
    let interval_ms = round_interval(span_ms / points).max(min_ms).max(1);
    // A query may not have more than 11,000 steps.
    let interval_ms = interval_ms.max(span_ms / 11_000 + 1);
    Steps {
        interval_ms,
        step_ms: interval_ms * i64::try_from(factor.max(1)).unwrap_or(1),
        rate_interval_ms: (interval_ms + scrape_ms).max(4 * scrape_ms),
    }
}

/// Grafana's table: the round interval that is nearest to this one.
fn round_interval(ms: i64) -> i64 {
    const TABLE: [(i64, i64); 27] = [
        (10, 1),
        (15, 10),
        (35, 20),
        (75, 50),
        (150, 100),
        (350, 200),
        (750, 500),
        (1_500, 1_000),
        (3_500, 2_000),
        (7_500, 5_000),
        (12_500, 10_000),
        (17_500, 15_000),
        (25_000, 20_000),
        (45_000, 30_000),
        (90_000, 60_000),
        (210_000, 120_000),
        (450_000, 300_000),
        (750_000, 600_000),
        (1_050_000, 900_000),
        (1_500_000, 1_200_000),
        (2_700_000, 1_800_000),
        (5_400_000, 3_600_000),
        (9_000_000, 7_200_000),
        (16_200_000, 10_800_000),
        (32_400_000, 21_600_000),
        (86_400_000, 43_200_000),
        (604_800_000, 86_400_000),
    ];
    TABLE.iter().find(|(below, _)| ms < *below).map_or(
        if ms < 1_814_400_000 {
            604_800_000
        } else {
            2_592_000_000
        },
        |(_, to)| *to,
    )
}

/// A duration in the words of a file (`30s`, `>10s`, `1m`), in milliseconds.
pub fn duration_ms(text: &str) -> Option<i64> {
    let text = text.trim().trim_start_matches('>');
    let ms = duration::parse_ms(text).ok()?;
    i64::try_from(ms).ok().filter(|ms| *ms > 0)
}

/// `90000` as `1m30s`.
pub fn duration_text(ms: i64) -> String {
    let ms = u64::try_from(ms).unwrap_or(0);
    duration::format(std::time::Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-20T13:31:07Z";

    fn check(from: &str, to: &str, want: &str) {
        let now: jiff::Timestamp = NOW.parse().unwrap();
        let now = Timestamp::from_ms(now.as_millisecond());
        let range = Range::resolve(from, to, now, &TimeZone::UTC);
        let got = format!(
            "{} {} {}",
            range.from,
            range.to,
            range.label(&TimeZone::UTC)
        );
        assert_eq!(got, want, "{from} {to}");
    }

    #[test]
    fn ranges_are_read_as_grafana_reads_them() {
        check(
            "now-3h",
            "now",
            "2026-11-20T10:31:07.000Z 2026-11-20T13:31:07.000Z Last 3 hours",
        );
        check(
            "now/d",
            "now/d",
            "2026-11-20T00:00:00.000Z 2026-11-20T23:59:59.999Z Today",
        );
        check(
            "now-1d/d",
            "now-1d/d",
            "2026-11-19T00:00:00.000Z 2026-11-19T23:59:59.999Z 19 Nov 00:00 – 19 Nov 23:59",
        );
        check(
            "now/w",
            "now",
            "2026-11-16T00:00:00.000Z 2026-11-20T13:31:07.000Z 16 Nov 00:00 – 20 Nov 13:31",
        );
        check(
            "1763631000000",
            "2025-11-20T10:00:00Z",
            "2025-11-20T09:30:00.000Z 2025-11-20T10:00:00.000Z 20 Nov 09:30 – 20 Nov 10:00",
        );
        check(
            "2025-11-20T09:30",
            "2025-11-20 10:00",
            "2025-11-20T09:30:00.000Z 2025-11-20T10:00:00.000Z 20 Nov 09:30 – 20 Nov 10:00",
        );
    }

    #[test]
    fn nonsense_is_the_last_hour() {
        for (from, to) in [
            ("", ""),
            ("now", "now-1h"),
            ("now-1x", "now"),
            ("now-ä", "now"),
            ("now-99999999999999999999h", "now"),
        ] {
            check(
                from,
                to,
                "2026-11-20T12:31:07.000Z 2026-11-20T13:31:07.000Z Last hour",
            );
        }
    }

    #[test]
    fn intervals_follow_range_and_width() {
        let hour = 3_600_000;
        let got = steps(hour, 480, 15_000, 15_000, 1);
        assert_eq!((got.step_ms, got.rate_interval_ms), (15_000, 60_000));
        let got = steps(24 * hour, 480, 15_000, 15_000, 2);
        assert_eq!((got.interval_ms, got.step_ms), (120_000, 240_000));
        assert_eq!(got.rate_interval_ms, 135_000);
        assert!(steps(i64::MAX / 4, 100_000, 1, 1, 1).step_ms > 0);
    }
}
