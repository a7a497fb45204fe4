//! Leaves a receiver in trouble alone: a circuit breaker, pure, with the time passed in.
//!
//! Five failures in a row, or more than half of at least 20 attempts within a minute,
//! open it. Then one probe goes out after a pause: its success closes the breaker, its
//! failure is followed by a longer pause. No attempt is made, and so none is used up,
//! between them. A failure counts when its attempt began after the last one that counts
//! had ended: a short trouble that many attempts at once run into is one failure.
//!
//! For telemetry the pause is 30 s, twice as long each time, up to 15 minutes. While
//! somebody waits to be told of an alert it is that of Alertmanager's tries: half a
//! second, half as long again each time, up to a minute. Which of the two holds is asked
//! anew each time: a notification does not wait for a pause that telemetry began.
//!
//! Where only notifications wait the worker does not ask: as in Alertmanager each of them
//! is tried at its own times, so that a group whose messages are refused delays no other.
//! The breaker then only says whether the receiver fails.
//!
//! A restart does not close it: it is what the attempts on record made it, but its probe
//! may go out at once, because somebody may have restarted us for that.

use std::collections::VecDeque;
use std::time::Duration;

use super::attempts::Ended;
use crate::model::Timestamp;

const FAILURES_IN_A_ROW: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
const WINDOW_ATTEMPTS_MIN: usize = 20;
/// Outcomes that the window remembers; a busy destination is judged by its latest.
const WINDOW_ATTEMPTS_MAX: usize = 256;

/// How long the pauses are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// Telemetry only: it can wait.
    Telemetry,
    /// Somebody waits to be told of an alert.
    Notifications,
}

impl Pace {
    /// The pause after failures for so long.
    fn pause(self, failing_for: Duration) -> Duration {
        match self {
            // As much again and 30 s: 30 s, 60 s, 120 s ...
            Pace::Telemetry => {
                (failing_for + Duration::from_secs(30)).min(Duration::from_secs(15 * 60))
            }
            // 0.5 s times 1.5 to the power of the probes.
            Pace::Notifications => {
                (failing_for / 2 + Duration::from_millis(500)).min(Duration::from_secs(60))
            }
        }
    }
}

/// Open, with what the next pause depends on.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// How long it was open when the last attempt failed.
    failing_for: Duration,
    /// When that was; `None`: before this process, whose first probe waits for nothing.
    failed_at: Option<Duration>,
    /// One probe is under way.
    is_probing: bool,
}

/// The breaker of one destination. Times are since any fixed moment.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// `None`: closed.
    open: Option<Open>,
    failures_in_a_row: u32,
    /// When the last failure that counts ended.
    last_failure: Option<Duration>,
    /// When each of the latest attempts ended and whether it failed.
    window: VecDeque<(Duration, bool)>,
}

impl Breaker {
    /// As the process before left it: `outcomes` are its latest attempts, in the order of
    /// their ends.
    pub(super) fn after(outcomes: &[Ended]) -> Breaker {
        let mut breaker = Breaker::default();
        let first = outcomes.iter().map(|one| one.began).min();
        let since = |at: Timestamp| {
            let ms = at.ms_since(first.unwrap_or(at));
            Duration::from_millis(ms.unsigned_abs())
        };
        for one in outcomes {
            breaker.record(one.failed, since(one.began), since(one.at));
        }
        if let Some(open) = &mut breaker.open {
            open.failed_at = None;
        }
        // Its times are not those of this process.
        breaker.window.clear();
        breaker.last_failure = None;
        breaker
    }

    /// Asks for permission to make an attempt, whose end must be recorded.
    pub(super) fn try_attempt(&mut self, now: Duration, pace: Pace) -> bool {
        let is_due = self.open_until(pace).is_none_or(|until| until <= now);
        match &mut self.open {
            None => true,
            Some(open) if open.is_probing || !is_due => false,
            Some(open) => {
                open.is_probing = true;
                true
            }
        }
    }

    /// Gives back a permission of which no use was made.
    pub(super) fn give_back(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_probing = false;
        }
    }

    /// Until when no attempt is made; `None` when attempts are made.
    pub(super) fn open_until(&self, pace: Pace) -> Option<Duration> {
        let open = self.open.filter(|open| !open.is_probing)?;
        let until = |at: Duration| at + pace.pause(open.failing_for);
        Some(open.failed_at.map_or(Duration::ZERO, until))
    }

    /// How long the pause before the next probe is; none when it is closed.
    pub(super) fn pause(&self, pace: Pace) -> Duration {
        let open = self.open.map(|open| pace.pause(open.failing_for));
        open.unwrap_or_default()
    }

    /// Whether the receiver is left alone, a probe under way included.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Records how an attempt ended.
    pub(super) fn record(&mut self, failed: bool, began: Duration, now: Duration) {
        match &mut self.open {
            // The end of an attempt that began before it opened.
            Some(open) if open.failed_at.is_some_and(|at| began < at) => {}
            Some(_) if !failed => *self = Breaker::default(),
            Some(open) => {
                let since = open.failed_at.unwrap_or(began);
                *open = Open {
                    failing_for: open.failing_for + now.saturating_sub(since),
                    failed_at: Some(now),
                    is_probing: false,
                };
            }
            None => self.record_closed(failed, began, now),
        }
    }

    fn record_closed(&mut self, failed: bool, began: Duration, now: Duration) {
        if failed && self.last_failure.is_some_and(|at| began < at) {
            return;
        }
        if failed {
            self.failures_in_a_row += 1;
            self.last_failure = Some(now);
        } else {
            self.failures_in_a_row = 0;
        }
        while self
            .window
            .front()
            .is_some_and(|(at, _)| *at + WINDOW < now || self.window.len() >= WINDOW_ATTEMPTS_MAX)
        {
            self.window.pop_front();
        }
        self.window.push_back((now, failed));
        let failures = self.window.iter().filter(|(_, failed)| *failed).count();
        let mostly_failing =
            self.window.len() >= WINDOW_ATTEMPTS_MIN && failures * 2 > self.window.len();
        if self.failures_in_a_row >= FAILURES_IN_A_ROW || mostly_failing {
            self.open = Some(Open {
                failing_for: Duration::ZERO,
                failed_at: Some(now),
                is_probing: false,
            });
            self.failures_in_a_row = 0;
            self.window.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pace::{Notifications, Telemetry};
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Attempts that take no time.
    fn record(breaker: &mut Breaker, failed: bool, now: u64) {
        breaker.record(failed, at(now), at(now));
    }

    fn opened(now: u64) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_IN_A_ROW {
            assert!(breaker.try_attempt(at(now), Telemetry));
            record(&mut breaker, true, now);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for failed in [true, true, true, true, false] {
                record(&mut breaker, failed, 0);
            }
        }
        assert!(!breaker.is_open());
        assert_eq!(opened(7).open_until(Telemetry), Some(at(37)));
    }

    #[test]
    fn a_trouble_that_many_attempts_run_into_at_once_is_one_failure() {
        let mut breaker = Breaker::default();
        for round in 0..4 {
            for attempt in 0..32 {
                let ended = at(round) + Duration::from_millis(500 + attempt);
                breaker.record(true, at(round), ended);
            }
            assert!(!breaker.is_open(), "round {round}");
        }
        breaker.record(true, at(4), at(5));
        assert!(breaker.is_open());
    }

    #[test]
    fn while_a_notification_waits_the_pauses_are_those_of_its_tries() {
        let mut breaker = opened(0);
        let until = |breaker: &Breaker| breaker.open_until(Notifications).unwrap();
        let (mut now, mut pauses) = (at(0), Vec::new());
        for _ in 0..16 {
            pauses.push((until(&breaker) - now).as_secs_f64());
            now = until(&breaker);
            assert!(!breaker.try_attempt(now - Duration::from_millis(1), Notifications));
            assert!(breaker.try_attempt(now, Notifications));
            breaker.record(true, now, now);
        }
        for (power, pause) in (0..).zip(&pauses) {
            let want = (0.5 * 1.5_f64.powi(power)).min(60.0);
            assert!((pause - want).abs() < 0.01, "{pauses:?}");
        }
        assert_eq!(pauses.last(), Some(&60.0));
        // It does not wait for a pause that began with telemetry.
        let breaker = opened(0);
        assert_eq!(breaker.pause(Telemetry), at(30));
        assert_eq!(breaker.pause(Notifications), Duration::from_millis(500));
        assert_eq!(Breaker::default().pause(Telemetry), Duration::ZERO);
        assert_eq!(breaker.open_until(Telemetry), Some(at(30)));
        assert_eq!(until(&breaker), Duration::from_millis(500));
    }

    #[test]
    fn a_restart_leaves_it_as_it_was_and_lets_a_probe_out() {
        let after = |ends: &[(i64, bool)]| {
            let ended = |(secs, failed): &(i64, bool)| Ended {
                began: Timestamp::from_ms(secs * 1_000 - 10),
                at: Timestamp::from_ms(secs * 1_000),
                failed: *failed,
            };
            Breaker::after(&ends.iter().map(ended).collect::<Vec<_>>())
        };
        assert!(!after(&[]).is_open());
        let five: Vec<_> = (100..105).map(|at| (at, true)).collect();
        let mut open = after(&[&five[..], &[(134, true)]].concat());
        assert!(open.is_open() && open.try_attempt(at(0), Telemetry));
        record(&mut open, true, 1);
        assert_eq!(
            open.open_until(Telemetry),
            Some(at(61)),
            "it goes on from 30 s"
        );
        // A probe that succeeded, and one more failure.
        let closed = [&five[..], &[(106, false), (141, true)]].concat();
        assert!(!after(&closed).is_open());
        let mut four = after(&five[..4]);
        assert!(!four.is_open());
        record(&mut four, true, 0);
        assert!(four.is_open(), "the fifth in a row");
    }

    #[test]
    fn more_than_half_of_twenty_within_a_minute_open_it() {
        let outcomes = [true, true, false];
        let mut breaker = Breaker::default();
        for i in 0..19 {
            record(&mut breaker, outcomes[i % 3], 1);
        }
        assert!(!breaker.is_open(), "19 attempts are too few to judge");
        record(&mut breaker, true, 1);
        assert!(breaker.is_open());

        let mut slow = Breaker::default();
        for i in 0..200 {
            record(&mut slow, outcomes[i % 3], 4 * i as u64);
        }
        assert!(!slow.is_open(), "never 20 within a minute");

        let mut half = Breaker::default();
        for i in 0..200 {
            record(&mut half, i % 2 == 1, 1);
        }
        assert!(!half.is_open(), "half is not more than half");
    }

    #[test]
    fn one_probe_goes_out_and_its_failure_doubles_the_time_up_to_a_limit() {
        let mut breaker = opened(0);
        assert!(!breaker.try_attempt(at(29), Telemetry));
        let mut now = 30;
        for open_secs in [60, 120, 240, 480, 900, 900] {
            assert!(breaker.try_attempt(at(now), Telemetry));
            assert!(!breaker.try_attempt(at(now), Telemetry), "one probe only");
            record(&mut breaker, true, now);
            assert_eq!(breaker.open_until(Telemetry), Some(at(now + open_secs)));
            now += open_secs;
        }
        assert!(breaker.try_attempt(at(now), Telemetry));
        record(&mut breaker, false, now);
        assert!(!breaker.is_open());
        assert!(breaker.try_attempt(at(now), Telemetry));
        // The time starts small again.
        for _ in 0..FAILURES_IN_A_ROW {
            record(&mut breaker, true, now);
        }
        assert_eq!(breaker.open_until(Telemetry), Some(at(now + 30)));
    }

    #[test]
    fn late_ends_of_older_attempts_do_not_extend_it() {
        let mut breaker = opened(1);
        breaker.record(true, at(0), at(2));
        breaker.record(false, at(0), at(3));
        assert_eq!(breaker.open_until(Telemetry), Some(at(31)));
    }

    #[test]
    fn a_permission_given_back_can_be_taken_again() {
        let mut breaker = opened(0);
        assert!(breaker.try_attempt(at(30), Telemetry));
        breaker.give_back();
        assert!(breaker.try_attempt(at(30), Telemetry));
    }
}
