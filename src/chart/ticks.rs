//! Round places for labels, on values and on times.

use jiff::civil::{Date, DateTime, time};
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

use super::scale::{Spread, YScale};
use crate::model::Timestamp;

/// What the value axis has to show.
#[derive(Clone, Copy, Debug, Default)]
pub struct YWish {
    /// A fixed bottom.
    pub min: Option<f64>,
    /// A fixed top.
    pub max: Option<f64>,
    /// Whether zero belongs to the picture: areas, stacks and bars.
    pub zero: bool,
    /// How values are spread.
    pub spread: Spread,
    /// Whether round means powers of two.
    pub binary: bool,
    /// The factor to seconds, when values are times: then 15 and 30 are round.
    pub seconds: Option<f64>,
}

/// The axis for values between `low` and `high`, and its ticks from the bottom up.
pub fn y_axis(low: f64, high: f64, wish: &YWish) -> (YScale, Vec<f64>) {
    match wish.spread {
        Spread::Linear => linear_axis(low, high, wish),
        Spread::Log(base) => log_axis(low, high, base, wish),
    }
}

const TICKS_WANTED: f64 = 4.6;

fn linear_axis(low: f64, high: f64, wish: &YWish) -> (YScale, Vec<f64>) {
    let (mut low, mut high) = if low.is_finite() && high.is_finite() {
        (low, high)
    } else {
        (0.0, 1.0)
    };
    // Zero is shown when it is near: half of the height may be empty for it.
    if wish.zero || (low > 0.0 && low < 0.55 * high) || low == high {
        low = low.min(0.0);
        high = high.max(0.0);
    }
    low = wish.min.unwrap_or(low);
    high = wish.max.unwrap_or(high);
    // Noise in the last digits is a flat line, and not a mountain range.
    let noise = low.abs().max(high.abs()) * 1e-9;
    if high - low <= noise {
        high = low + if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
    }
    let step = round_step((high - low) / TICKS_WANTED, wish);
    let bottom = wish
        .min
        .unwrap_or_else(|| (low / step + 1e-9).floor() * step);
    let top = wish
        .max
        .unwrap_or_else(|| (high / step - 1e-9).ceil() * step);
    let top = if top > bottom { top } else { bottom + step };
    let scale = YScale {
        min: bottom,
        max: top,
        spread: Spread::Linear,
    };
    let first = (bottom / step - 1e-9).ceil();
    let ticks = (0..12)
        .map(|i| (first + f64::from(i)) * step)
        .take_while(|tick| *tick <= top + step * 1e-6)
        .map(|tick| if tick.abs() < step * 1e-9 { 0.0 } else { tick })
        .collect();
    (scale, ticks)
}

/// The smallest round step that is not below `rough`.
fn round_step(rough: f64, wish: &YWish) -> f64 {
    if wish.binary && rough >= 1.0 {
        let power = 1024f64.powf(rough.log(1024.0).floor());
        let steps = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
        let found = steps.iter().find(|step| *step * power >= rough);
        return found.map_or(1024.0 * power, |step| step * power);
    }
    if let Some(factor) = wish.seconds.filter(|factor| rough * factor >= 1.0) {
        let steps = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
            7200.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0,
        ];
        if let Some(step) = steps.iter().find(|step| **step >= rough * factor) {
            return step / factor;
        }
    }
    let power = 10f64.powf(rough.log10().floor());
    let found = [1.0, 2.0, 2.5, 5.0, 10.0]
        .iter()
        .find(|step| *step * power >= rough * (1.0 - 1e-9));
    found.map_or(10.0 * power, |step| step * power)
}

fn log_axis(low: f64, high: f64, base: f64, wish: &YWish) -> (YScale, Vec<f64>) {
    let base = if base > 1.0 { base } else { 10.0 };
    let high = wish.max.unwrap_or(high);
    let high = if high > 0.0 && high.is_finite() {
        high
    } else {
        1.0
    };
    let low = wish.min.unwrap_or(low);
    let low = if low > 0.0 && low < high {
        low
    } else {
        high / base
    };
    let bottom = (low.log(base) + 1e-9).floor();
    let top = (high.log(base) - 1e-9).ceil().max(bottom + 1.0);
    let scale = YScale {
        min: base.powf(bottom),
        max: base.powf(top),
        spread: wish.spread,
    };
    let every = ((top - bottom) / 6.0).ceil().max(1.0);
    let ticks = (0..7)
        .map(|i| bottom + f64::from(i) * every)
        .take_while(|power| *power <= top)
        .map(|power| base.powf(power))
        .collect();
    (scale, ticks)
}

/// A label of the time axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimeTick {
    /// Where it stands.
    pub t: Timestamp,
    /// What it says.
    pub label: String,
}

/// Steps of less than a month, in seconds.
const STEPS: [i64; 22] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    172_800, 345_600, 604_800, 1_209_600,
];
const DAY: i64 = 86_400;

/// About `wanted` ticks at round local times, in time order. Clock changes keep
/// the ticks at round local times.
pub fn time_ticks(start: Timestamp, end: Timestamp, wanted: i64, zone: &TimeZone) -> Vec<TimeTick> {
    let span = end.ms_since(start).max(1) / 1000;
    let rough = span / wanted.max(1);
    let local = |t: Timestamp| -> Option<Zoned> {
        let instant = jiff::Timestamp::from_millisecond(t.as_ms()).ok()?;
        Some(instant.to_zoned(zone.clone()))
    };
    let (Some(first), Some(last)) = (local(start), local(end)) else {
        return Vec::new();
    };
    let step = STEPS.iter().copied().find(|step| *step >= rough);
    let places = match step {
        Some(step) if step < 2 * DAY => by_seconds(&first, &last, step),
        Some(step) => by_days(&first, &last, step / DAY),
        None => by_months(&first, &last, rough / (30 * DAY) + 1),
    };
    let multi_day = span > DAY;
    places
        .into_iter()
        .filter_map(|place| {
            let zoned = place.to_zoned(zone.clone()).ok()?;
            let t = Timestamp::from_ms(zoned.timestamp().as_millisecond());
            let label = label(place, step, multi_day);
            (t >= start && t <= end).then_some(TimeTick { t, label })
        })
        .collect()
}

fn by_seconds(first: &Zoned, last: &Zoned, step: i64) -> Vec<DateTime> {
    // Round from local midnight, so that 6 h ticks are at 0, 6, 12 and 18 o'clock.
    let midnight = first.date().to_datetime(time(0, 0, 0, 0));
    let seconds = first.datetime().duration_since(midnight).as_secs();
    let mut at = midnight.saturating_add((seconds / step * step).seconds());
    let mut places = Vec::new();
    while at <= last.datetime() && places.len() < 64 {
        places.push(at);
        at = at.saturating_add(step.seconds());
    }
    places
}

fn by_days(first: &Zoned, last: &Zoned, days: i64) -> Vec<DateTime> {
    let epoch = Date::constant(1970, 1, 5); // a Monday, so that weeks begin there
    let since = i64::from(first.date().since(epoch).map_or(0, |span| span.get_days()));
    let mut at = epoch.saturating_add((since.div_euclid(days) * days).days());
    let mut places = Vec::new();
    while at <= last.date() && places.len() < 64 {
        places.push(at.to_datetime(time(0, 0, 0, 0)));
        at = at.saturating_add(days.days());
    }
    places
}

fn by_months(first: &Zoned, last: &Zoned, rough: i64) -> Vec<DateTime> {
    let months = [1, 2, 3, 6, 12, 24, 60, 120, 600]
        .into_iter()
        .find(|m| *m >= rough)
        .unwrap_or(1200);
    let mut at = first.date().first_of_year();
    let mut places = Vec::new();
    for _ in 0..500 {
        if at > last.date() {
            break;
        }
        places.push(at.to_datetime(time(0, 0, 0, 0)));
        at = at.saturating_add(months.months());
    }
    places
}

fn label(at: DateTime, step: Option<i64>, multi_day: bool) -> String {
    let format = match step {
        None => "%b %Y",
        Some(step) if step >= DAY => "%-d %b",
        Some(_) if multi_day && at.time() == time(0, 0, 0, 0) => "%-d %b",
        Some(step) if step >= 60 => "%H:%M",
        Some(_) => "%H:%M:%S",
    };
    at.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_y(low: f64, high: f64, wish: &YWish, want: &[f64]) {
        let (_, ticks) = y_axis(low, high, wish);
        let same = ticks.len() == want.len()
            && ticks
                .iter()
                .zip(want)
                .all(|(a, b)| (a - b).abs() < 1e-9 * b.abs().max(1.0));
        assert!(same, "{low}..{high}: {ticks:?}, wanted {want:?}");
    }

    #[test]
    fn value_ticks_are_round() {
        let plain = YWish::default();
        check_y(0.0, 21_000.0, &plain, &[0.0, 5e3, 1e4, 15e3, 2e4, 25e3]);
        check_y(95.8, 100.0, &plain, &[95.0, 96.0, 97.0, 98.0, 99.0, 100.0]);
        check_y(-3.0, 7.0, &plain, &[-5.0, -2.5, 0.0, 2.5, 5.0, 7.5]);
        check_y(
            f64::INFINITY,
            f64::NEG_INFINITY,
            &plain,
            &[0.0, 0.25, 0.5, 0.75, 1.0],
        );
        check_y(0.0, 0.0, &plain, &[0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn a_flat_line_is_drawn_above_zero() {
        let (scale, ticks) = y_axis(42.0, 42.0, &YWish::default());
        assert_eq!(scale.min, 0.0);
        assert!(ticks.len() >= 4);
    }

    #[test]
    fn bytes_and_times_have_their_own_round_numbers() {
        let binary = YWish {
            binary: true,
            ..YWish::default()
        };
        let mib = 1024.0 * 1024.0;
        check_y(
            0.0,
            3.5 * mib,
            &binary,
            &[0.0, mib, 2.0 * mib, 3.0 * mib, 4.0 * mib],
        );
        let seconds = YWish {
            seconds: Some(1.0),
            ..YWish::default()
        };
        check_y(0.0, 100.0, &seconds, &[0.0, 30.0, 60.0, 90.0, 120.0]);
    }

    #[test]
    fn fixed_ends_hold() {
        let wish = YWish {
            min: Some(0.0),
            max: Some(1.0),
            ..YWish::default()
        };
        let (scale, ticks) = y_axis(0.2, 7.0, &wish);
        assert_eq!((scale.min, scale.max), (0.0, 1.0));
        assert_eq!(ticks, [0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn logarithmic_ticks_are_powers() {
        let wish = YWish {
            spread: Spread::Log(10.0),
            ..YWish::default()
        };
        let (_, ticks) = y_axis(0.02, 300.0, &wish);
        let names: Vec<String> = ticks.iter().map(|t| format!("{t:.2}")).collect();
        assert_eq!(names.join(" "), "0.01 0.10 1.00 10.00 100.00 1000.00");
    }

    fn labels(start: &str, end: &str, zone: &str) -> String {
        let ms = |text: &str| {
            let t: jiff::Timestamp = text.parse().unwrap();
            Timestamp::from_ms(t.as_millisecond())
        };
        let zone = TimeZone::get(zone).unwrap();
        let ticks = time_ticks(ms(start), ms(end), 7, &zone);
        let texts: Vec<String> = ticks.into_iter().map(|tick| tick.label).collect();
        texts.join(" ")
    }

    #[test]
    fn time_ticks_are_round_in_the_local_zone() {
        let got = labels("2026-11-20T10:25:00Z", "2026-11-20T13:25:00Z", "UTC");
        assert_eq!(got, "10:30 11:00 11:30 12:00 12:30 13:00");
        let got = labels(
            "2026-11-20T10:25:00Z",
            "2026-11-20T13:25:00Z",
            "Asia/Kolkata",
        );
        assert_eq!(got, "16:00 16:30 17:00 17:30 18:00 18:30");
        let got = labels("2026-11-18T10:00:00Z", "2026-11-20T10:00:00Z", "UTC");
        assert_eq!(got, "12:00 19 Nov 12:00 20 Nov");
        let got = labels("2026-11-20T10:00:00Z", "2026-11-20T10:00:40Z", "UTC");
        assert_eq!(
            got,
            "10:00:00 10:00:05 10:00:10 10:00:15 10:00:20 10:00:25 10:00:30 10:00:35 10:00:40"
        );
        let got = labels("2025-01-10T00:00:00Z", "2026-06-10T00:00:00Z", "UTC");
        assert_eq!(got, "Apr 2025 Jul 2025 Oct 2025 Jan 2026 Apr 2026");
    }

    #[test]
    fn a_clock_change_keeps_ticks_on_round_hours() {
        let got = labels(
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
            "Europe/Berlin",
        );
        assert_eq!(got, "25 Oct 06:00 12:00 18:00 26 Oct");
    }

    #[test]
    fn absurd_ranges_end() {
        assert!(time_ticks(Timestamp::MIN, Timestamp::MAX, 7, &TimeZone::UTC).is_empty());
        let far = time_ticks(
            Timestamp::from_ms(0),
            Timestamp::from_ms(i64::MAX / 40_000),
            7,
            &TimeZone::UTC,
        );
        assert!(far.len() < 500);
    }
}
