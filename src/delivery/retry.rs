//! When a failed delivery is tried again: two schedules in one engine.
//!
//! Telemetry follows the destination's configured waits, each spread by 20 % in
//! both directions; a `Retry-After` moves the wait within one to two times the
//! configured one, so that a receiver can ask for patience but not for oblivion.
//! There is no extra floor for time-outs or status 429: the operator's waits mean
//! what they say, and a receiver in trouble is protected by the breaker.
//!
//! Notifications follow Alertmanager: 0.5 s times 1.5 to the power of the tries,
//! randomised by half in both directions, at most a minute, until a newer flush of
//! the same group replaces the row or it passes its maximum age. A status such as
//! 400 or 404 ends the tries of one flush: as in Alertmanager the next one comes with
//! the next flush of the group, a `group_interval` after the last one. The row stays until
//! then. If that flush has other things to say it replaces the row, and otherwise the
//! same message is sent under the same id, a moment later so that the flush comes first.
//! Nothing is lost when no further flush comes.
//!
//! The jitter is a hash of event id and attempt: no state, no generator, and the
//! same in a repeated run.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::model::{Delivery, DeliveryKind, Timestamp};

/// Alertmanager's first wait.
const NOTIFICATION_WAIT_MIN: Duration = Duration::from_millis(500);
/// Its longest wait, before it is randomised.
const NOTIFICATION_WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest wait that a receiver may ask for.
const ASKED_MAX: Duration = Duration::from_secs(300);
/// Alertmanager's `group_interval`, of notifications that do not say theirs.
const FLUSH_INTERVAL_MS: i64 = 300_000;
/// A flush has decided after this time, at most a tenth of the interval.
const FLUSH_TAKES_MS: i64 = 1_000;
const NOTIFICATION_GROWTH: f64 = 1.5;
const NOTIFICATION_SPREAD: f64 = 0.5;
const TELEMETRY_SPREAD: f64 = 0.2;

/// The schedules of one destination.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Schedule {
    /// The waits before each further attempt at telemetry.
    pub(super) waits: Vec<Duration>,
    /// How old a notification may become.
    pub(super) notification_max_age: Duration,
}

/// What the failed attempt says about the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Hint {
    /// The receiver understood and refused: 4xx other than 408, 425 and 429.
    pub(super) refused: bool,
    /// The receiver's `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Another attempt, not before this time.
    At(Timestamp),
    /// No further attempt.
    Exhausted,
}

impl Schedule {
    /// What follows the failure of `delivery`, whose `attempts` already count it.
    pub(super) fn next(&self, delivery: &Delivery, hint: Hint, now: Timestamp) -> Next {
        let wait = match delivery.kind {
            DeliveryKind::Telemetry => self.telemetry_wait(delivery, hint),
            DeliveryKind::Notification => self.notification_wait(delivery, hint, now),
        };
        wait.map_or(Next::Exhausted, |wait| Next::At(now.plus_ms(as_ms(wait))))
    }

    /// How long a row may have to wait, ms. A row that claims more was written before the
    /// clock jumped back.
    pub(super) fn longest_ms(&self, delivery: &Delivery) -> i64 {
        match delivery.kind {
            DeliveryKind::Telemetry => as_ms(self.step(delivery.attempts).unwrap_or_default() * 2),
            DeliveryKind::Notification => {
                let (interval, takes) = flushes(delivery);
                as_ms(ASKED_MAX).max(interval.saturating_add(takes))
            }
        }
    }

    /// The configured wait after this many attempts.
    fn step(&self, attempts: u32) -> Option<Duration> {
        let index = usize::try_from(attempts).ok()?.checked_sub(1)?;
        self.waits.get(index).copied()
    }

    fn telemetry_wait(&self, delivery: &Delivery, hint: Hint) -> Option<Duration> {
        let step = self.step(delivery.attempts)?;
        Some(match hint.retry_after {
            Some(asked) => asked.clamp(step, step * 2),
            None => spread(step, TELEMETRY_SPREAD, delivery),
        })
    }

    fn notification_wait(
        &self,
        delivery: &Delivery,
        hint: Hint,
        now: Timestamp,
    ) -> Option<Duration> {
        if now.ms_since(delivery.created_at) >= as_ms(self.notification_max_age) {
            return None;
        }
        if hint.refused {
            return Some(until_flushed(delivery, now));
        }
        // 16 doublings and more are far above the cap; a bounded exponent stays finite.
        let power = i32::try_from(delivery.attempts.saturating_sub(1).min(32)).unwrap_or(32);
        let step = NOTIFICATION_WAIT_MIN
            .mul_f64(NOTIFICATION_GROWTH.powi(power))
            .min(NOTIFICATION_WAIT_MAX);
        let wait = spread(step, NOTIFICATION_SPREAD, delivery);
        let asked = hint.retry_after.unwrap_or_default();
        Some(wait.max(asked.min(ASKED_MAX)))
    }
}

/// How far the flushes of a notification's group are apart, and what one takes, ms.
fn flushes(delivery: &Delivery) -> (i64, i64) {
    let interval = delivery.flush_interval_ms.unwrap_or(FLUSH_INTERVAL_MS);
    let interval = interval.max(1);
    (interval, (interval / 10).min(FLUSH_TAKES_MS))
}

/// How long until the next flush of a notification's group is over.
fn until_flushed(delivery: &Delivery, now: Timestamp) -> Duration {
    let (interval, takes) = flushes(delivery);
    let since_flush = now.ms_since(delivery.created_at).saturating_sub(takes);
    let left = interval.saturating_sub(since_flush % interval);
    Duration::from_millis(left.max(1).unsigned_abs())
}

/// `wait` moved by up to `share` of itself in either direction.
fn spread(wait: Duration, share: f64, delivery: &Delivery) -> Duration {
    let hash = xxh3_64_with_seed(delivery.event_id.as_bytes(), u64::from(delivery.attempts));
    // 53 bits are what a float holds exactly.
    let unit = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    wait.mul_f64(1.0 - share + 2.0 * share * unit)
}

fn as_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    fn schedule() -> Schedule {
        Schedule {
            waits: [5, 30, 120].map(Duration::from_secs).to_vec(),
            notification_max_age: Duration::from_secs(3_600),
        }
    }

    fn delivery(kind: DeliveryKind, id: u32, attempts: u32) -> Delivery {
        Delivery::plain(kind, &format!("event-{id}"), attempts, NOW)
    }

    fn wait_ms(delivery: &Delivery, hint: Hint, now: Timestamp) -> Option<i64> {
        match schedule().next(delivery, hint, now) {
            Next::At(at) => Some(at.ms_since(now)),
            Next::Exhausted => None,
        }
    }

    #[test]
    fn telemetry_follows_the_waits_within_a_fifth_and_then_ends() {
        for (attempts, base) in [(1, 5_000.0), (2, 30_000.0), (3, 120_000.0)] {
            let waits: Vec<f64> = (0..500)
                .map(|id| delivery(DeliveryKind::Telemetry, id, attempts))
                .map(|d| wait_ms(&d, Hint::default(), NOW).unwrap() as f64)
                .collect();
            assert!(
                waits
                    .iter()
                    .all(|w| (base * 0.8 - 1.0..=base * 1.2).contains(w))
            );
            let mean = waits.iter().sum::<f64>() / waits.len() as f64;
            assert!((mean / base - 1.0).abs() < 0.03, "not centred: {mean}");
        }
        let last = delivery(DeliveryKind::Telemetry, 0, 4);
        assert_eq!(wait_ms(&last, Hint::default(), NOW), None);
    }

    #[test]
    fn the_same_event_and_attempt_wait_the_same_time() {
        let one = delivery(DeliveryKind::Telemetry, 7, 1);
        let again = wait_ms(&one, Hint::default(), NOW);
        assert_eq!(wait_ms(&one, Hint::default(), NOW), again);
        let other = delivery(DeliveryKind::Telemetry, 8, 1);
        assert_ne!(wait_ms(&other, Hint::default(), NOW), again);
    }

    #[test]
    fn retry_after_is_held_between_one_and_two_steps() {
        let delivery = delivery(DeliveryKind::Telemetry, 0, 2);
        for (asked_secs, want_ms) in [(1, 30_000), (45, 45_000), (86_400, 60_000)] {
            let hint = Hint {
                retry_after: Some(Duration::from_secs(asked_secs)),
                refused: false,
            };
            assert_eq!(wait_ms(&delivery, hint, NOW), Some(want_ms));
        }
    }

    #[test]
    fn notifications_back_off_as_alertmanager_and_stop_growing() {
        for (attempts, base) in [(1, 500.0), (2, 750.0), (3, 1_125.0), (1_000, 60_000.0)] {
            for id in 0..100 {
                let d = delivery(DeliveryKind::Notification, id, attempts);
                let wait = wait_ms(&d, Hint::default(), NOW).unwrap() as f64;
                assert!(
                    (base * 0.5 - 1.0..=base * 1.5).contains(&wait),
                    "{attempts}: {wait}"
                );
            }
        }
    }

    #[test]
    fn a_refused_notification_waits_for_its_groups_flush_and_an_old_one_ends() {
        let d = delivery(DeliveryKind::Notification, 0, 1);
        let refused = Hint {
            refused: true,
            retry_after: None,
        };
        for (interval, since_flush, want) in [
            (None, 20, 300_980),
            (Some(60_000), 20, 60_980),
            // The flush at 60 s may still be under way, the next one is at 120 s.
            (Some(60_000), 60_999, 1),
            (Some(60_000), 61_000, 60_000),
            (Some(60_000), 61_020, 59_980),
            (Some(1_000), 5, 1_095),
            (Some(86_400_000), 5, 86_400_995),
        ] {
            let mut d = d.clone();
            d.flush_interval_ms = interval;
            let wait = wait_ms(&d, refused, NOW.plus_ms(since_flush));
            assert_eq!(wait, Some(want), "{interval:?} {since_flush}");
        }
        let later = NOW.plus_ms(3_600_000);
        assert_eq!(wait_ms(&d, Hint::default(), later), None);
    }

    #[test]
    fn a_wait_from_before_a_clock_jump_is_bounded_by_the_step() {
        let longest = |kind, attempts, interval| {
            let mut delivery = delivery(kind, 0, attempts);
            delivery.flush_interval_ms = interval;
            schedule().longest_ms(&delivery)
        };
        assert_eq!(longest(DeliveryKind::Telemetry, 1, None), 10_000);
        // A row without attempts has nothing to wait for.
        assert_eq!(longest(DeliveryKind::Telemetry, 0, None), 0);
        assert_eq!(longest(DeliveryKind::Notification, 9, None), 301_000);
        let daily = Some(86_400_000);
        assert_eq!(longest(DeliveryKind::Notification, 9, daily), 86_401_000);
    }
}
