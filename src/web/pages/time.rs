//! Times and spans in few words.

use jiff::tz::TimeZone;

use crate::model::Timestamp;
use crate::web::dashboard::timerange::civil;

/// `12 s`, `4 min`, `3 h`, `2 d`.
pub(super) fn span(ms: i64) -> String {
    let secs = ms.max(0) / 1000;
    match secs {
        0..=89 => format!("{secs}\u{a0}s"),
        90..=5_399 => format!("{}\u{a0}min", (secs + 30) / 60),
        5_400..=129_599 => format!("{}\u{a0}h", (secs + 1_800) / 3_600),
        _ => format!("{}\u{a0}d", (secs + 43_200) / 86_400),
    }
}

/// A time of the day, with the day and the zone.
pub(super) fn moment(at: Timestamp, zone: &TimeZone) -> String {
    civil(at, zone, "%-d %b %Y %H:%M:%S %Z").unwrap_or_else(|| at.to_rfc3339())
}

/// `12 s ago`, or `never`.
pub(super) fn ago(then: Option<Timestamp>, now: Timestamp) -> String {
    match then {
        Some(then) => format!("{} ago", span(now.ms_since(then))),
        None => "never".to_owned(),
    }
}

/// Seconds of work: `3 ms`.
pub(super) fn took(secs: f64) -> String {
    crate::chart::Format::of("s").format(secs).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (secs, want) in [
            (0, "0 s"),
            (89, "89 s"),
            (90, "2 min"),
            (3_600, "60 min"),
            (7_200, "2 h"),
            (200_000, "2 d"),
        ] {
            assert_eq!(span(secs * 1000).replace('\u{a0}', " "), want);
        }
    }
}
