//! Leaves a receiver in trouble alone: a circuit breaker, pure, with the time passed in.
//!
//! Five failures in a row, or more than half of at least 20 attempts within a
//! minute, open it for 30 s. Then one probe goes out: its success closes the
//! breaker, its failure opens it for twice as long, up to 15 minutes. No attempt is
//! made, and so none is used up, while it is open.
//!
//! A restart does not close it: it is what the attempts on record made it, but its probe
//! may go out at once, because somebody may have restarted us for that.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::Timestamp;

const FAILURES_IN_A_ROW: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
const WINDOW_ATTEMPTS_MIN: usize = 20;
/// Outcomes that the window remembers; a busy destination is judged by its latest.
const WINDOW_ATTEMPTS_MAX: usize = 256;
const OPEN_MIN: Duration = Duration::from_secs(30);
const OPEN_MAX: Duration = Duration::from_secs(15 * 60);

/// Whether attempts may be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed,
    /// Until this time.
    Open(Duration),
    /// One probe is under way.
    Probing,
}

/// The breaker of one destination. Times are since any fixed moment.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    failures_in_a_row: u32,
    /// When each of the latest attempts ended and whether it failed.
    window: VecDeque<(Duration, bool)>,
    open_for: Duration,
}

impl Breaker {
    /// Closed.
    pub(super) fn new() -> Breaker {
        Breaker {
            state: State::Closed,
            failures_in_a_row: 0,
            window: VecDeque::new(),
            open_for: OPEN_MIN,
        }
    }

    /// As the process before left it: `outcomes` are the ends of its latest attempts, and
    /// whether the receiver failed, oldest first.
    pub(super) fn after(outcomes: &[(Timestamp, bool)]) -> Breaker {
        let mut breaker = Breaker::new();
        let first = outcomes.first().map_or(Timestamp::MIN, |(at, _)| *at);
        for (at, failed) in outcomes {
            let now = Duration::from_millis(at.ms_since(first).unsigned_abs());
            // A probe, if it was due.
            breaker.try_attempt(now);
            breaker.record(*failed, now);
        }
        if breaker.is_open() {
            breaker.state = State::Open(Duration::ZERO);
        }
        // Its times are not those of this process.
        breaker.window.clear();
        breaker
    }

    /// Asks for permission to make an attempt, whose end must be recorded.
    pub(super) fn try_attempt(&mut self, now: Duration) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) if until <= now => {
                self.state = State::Probing;
                true
            }
            State::Open(_) | State::Probing => false,
        }
    }

    /// Gives back a permission of which no use was made.
    pub(super) fn give_back(&mut self, now: Duration) {
        if self.state == State::Probing {
            self.state = State::Open(now);
        }
    }

    /// Until when no attempt is made; `None` when attempts are made.
    pub(super) fn open_until(&self) -> Option<Duration> {
        match self.state {
            State::Open(until) => Some(until),
            State::Closed | State::Probing => None,
        }
    }

    /// Whether the receiver is left alone, a probe under way included.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Records how an attempt ended.
    pub(super) fn record(&mut self, failed: bool, now: Duration) {
        match self.state {
            State::Probing if failed => {
                self.open_for = (self.open_for * 2).min(OPEN_MAX);
                self.state = State::Open(now + self.open_for);
            }
            State::Probing => *self = Breaker::new(),
            // The end of an attempt that began before it opened.
            State::Open(_) => {}
            State::Closed => self.record_closed(failed, now),
        }
    }

    fn record_closed(&mut self, failed: bool, now: Duration) {
        self.failures_in_a_row = if failed {
            self.failures_in_a_row + 1
        } else {
            0
        };
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
            self.state = State::Open(now + self.open_for);
            self.failures_in_a_row = 0;
            self.window.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn opened(now: u64) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 0..FAILURES_IN_A_ROW {
            assert!(breaker.try_attempt(at(now)));
            breaker.record(true, at(now));
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let mut breaker = Breaker::new();
        for _ in 0..3 {
            for failed in [true, true, true, true, false] {
                breaker.record(failed, at(0));
            }
        }
        assert!(!breaker.is_open());
        assert_eq!(opened(7).open_until(), Some(at(37)));
    }

    #[test]
    fn a_restart_leaves_it_as_it_was_and_lets_a_probe_out() {
        let after = |ends: &[(i64, bool)]| {
            let ends = ends.iter();
            let ends: Vec<_> = ends
                .map(|(secs, failed)| (Timestamp::from_ms(secs * 1_000), *failed))
                .collect();
            Breaker::after(&ends)
        };
        assert!(!after(&[]).is_open());
        let five: Vec<_> = (100..105).map(|at| (at, true)).collect();
        let mut open = after(&five);
        assert!(open.is_open() && open.try_attempt(at(0)));
        open.record(true, at(1));
        assert_eq!(open.open_until(), Some(at(61)), "it goes on from 30 s");
        // A probe that succeeded, and one more failure.
        let closed = [&five[..], &[(140, false), (141, true)]].concat();
        assert!(!after(&closed).is_open());
        let mut four = after(&five[..4]);
        assert!(!four.is_open());
        four.record(true, at(0));
        assert!(four.is_open(), "the fifth in a row");
    }

    #[test]
    fn more_than_half_of_twenty_within_a_minute_open_it() {
        let outcomes = [true, true, false];
        let mut breaker = Breaker::new();
        for i in 0..19 {
            breaker.record(outcomes[i % 3], at(1));
        }
        assert!(!breaker.is_open(), "19 attempts are too few to judge");
        breaker.record(true, at(1));
        assert!(breaker.is_open());

        let mut slow = Breaker::new();
        for i in 0..200 {
            slow.record(outcomes[i % 3], at(4 * i as u64));
        }
        assert!(!slow.is_open(), "never 20 within a minute");

        let mut half = Breaker::new();
        for i in 0..200 {
            half.record(i % 2 == 1, at(1));
        }
        assert!(!half.is_open(), "half is not more than half");
    }

    #[test]
    fn one_probe_goes_out_and_its_failure_doubles_the_time_up_to_a_limit() {
        let mut breaker = opened(0);
        assert!(!breaker.try_attempt(at(29)));
        let mut now = 30;
        for open_secs in [60, 120, 240, 480, 900, 900] {
            assert!(breaker.try_attempt(at(now)));
            assert!(!breaker.try_attempt(at(now)), "one probe only");
            breaker.record(true, at(now));
            assert_eq!(breaker.open_until(), Some(at(now + open_secs)));
            now += open_secs;
        }
        assert!(breaker.try_attempt(at(now)));
        breaker.record(false, at(now));
        assert!(!breaker.is_open());
        assert!(breaker.try_attempt(at(now)));
        // The time starts small again.
        for _ in 0..FAILURES_IN_A_ROW {
            breaker.record(true, at(now));
        }
        assert_eq!(breaker.open_until(), Some(at(now + 30)));
    }

    #[test]
    fn late_ends_of_older_attempts_do_not_extend_it() {
        let mut breaker = opened(0);
        breaker.record(true, at(1));
        breaker.record(false, at(2));
        assert_eq!(breaker.open_until(), Some(at(30)));
    }

    #[test]
    fn a_permission_given_back_can_be_taken_again() {
        let mut breaker = opened(0);
        assert!(breaker.try_attempt(at(30)));
        breaker.give_back(at(30));
        assert!(breaker.try_attempt(at(30)));
    }
}
