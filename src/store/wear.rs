//! The wear governor: how many bytes a day the flash gets, and how long a commit
//! waits for more so that they stay within `[store] write_budget`.
//!
//! What a commit costs is its sync and its pages, hardly its payload, so fewer
//! commits is what saves the flash. A bucket holds one day's budget; each commit
//! and each seal takes what it wrote, and time fills it. While it is at least half
//! full, commits wait as `[store] linger` says, so bursts and low load are quick.
//! Below that the wait grows, up to a second when the bucket is empty.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_secs(86_400);

/// The longest wait.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// Below this part of the bucket commits wait longer.
const CALM_PART: f64 = 0.5;

/// The projection looks back over this many marks.
const MARKS_MAX: usize = 60;

/// How far marks are apart.
const MARK_EVERY: Duration = Duration::from_secs(60);

/// The bucket, and what was written lately.
#[derive(Debug)]
pub(super) struct Wear {
    /// Bytes; 0 is no budget.
    budget: f64,
    tokens: f64,
    filled: Instant,
    /// All bytes written when they were counted last.
    counted: u64,
    /// What had been written when, the oldest first.
    marks: VecDeque<(Instant, u64)>,
}

impl Wear {
    /// A full bucket for so many bytes a day; `counted` were written before.
    pub(super) fn new(budget: u64, counted: u64, now: Instant) -> Wear {
        Wear {
            budget: budget as f64,
            tokens: budget as f64,
            filled: now,
            counted,
            marks: VecDeque::from([(now, counted)]),
        }
    }

    /// Counts what was written since the last call; `total` is all there ever was.
    pub(super) fn count(&mut self, total: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        let fills = passed.as_secs_f64() / DAY.as_secs_f64() * self.budget;
        let spent = total.saturating_sub(self.counted) as f64;
        self.tokens = (self.tokens + fills - spent).clamp(0.0, self.budget);
        (self.filled, self.counted) = (now, total);
        let last = self.marks.back().map_or(now, |(at, _)| *at);
        if now.saturating_duration_since(last) >= MARK_EVERY {
            if self.marks.len() >= MARKS_MAX {
                self.marks.pop_front();
            }
            self.marks.push_back((now, total));
        }
    }

    /// How long a commit waits for more, where it would wait for `usual`.
    pub(super) fn linger(&self, usual: Duration) -> Duration {
        if self.budget <= 0.0 {
            return usual;
        }
        let short = 1.0 - (self.tokens / self.budget / CALM_PART).min(1.0);
        let longest = LINGER_MAX.saturating_sub(usual);
        usual + longest.mul_f64(short * short)
    }

    /// Bytes that a day would take if it went on as in the last hour.
    pub(super) fn per_day(&self, now: Instant) -> f64 {
        let Some((at, bytes)) = self.marks.front() else {
            return 0.0;
        };
        let secs = now.saturating_duration_since(*at).as_secs_f64().max(1.0);
        self.counted.saturating_sub(*bytes) as f64 / secs * DAY.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// What redb writes for a small commit, as measured.
    const COMMIT: u64 = 25_000;

    /// Bytes written on each of three days by commits one after the other.
    fn bytes_by_day(budget: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut wear = Wear::new(budget, 0, start);
        let (mut now, mut total) = (Duration::ZERO, 0);
        let mut days = vec![0; 3];
        while now < 3 * DAY {
            total += COMMIT;
            days[usize::try_from(now.as_secs() / DAY.as_secs()).unwrap()] += COMMIT;
            wear.count(total, start + now);
            // The sync itself takes some time.
            now += Duration::from_millis(20) + wear.linger(Duration::from_millis(2));
        }
        days
    }

    #[test]
    fn a_budget_holds_from_the_second_day_on_and_without_one_it_does_not() {
        let days = bytes_by_day(8 * GIB);
        assert!(days[0] <= 16 * GIB, "{days:?}");
        assert!(days[1] <= 8 * GIB * 11 / 10, "{days:?}");
        assert!(days[2] <= 8 * GIB * 102 / 100, "{days:?}");
        // The control.
        let free = bytes_by_day(0);
        assert!(free[2] > 80 * GIB, "{free:?}");
    }

    #[test]
    fn waits_grow_only_when_the_bucket_is_below_a_half() {
        let now = Instant::now();
        let mut wear = Wear::new(1_000, 0, now);
        let usual = Duration::from_millis(2);
        for (spent, want_ms) in [(0, 2), (500, 2), (750, 251), (1_000, 1_000), (9_000, 1_000)] {
            wear.count(spent, now);
            assert_eq!(wear.linger(usual).as_millis(), want_ms, "after {spent}");
        }
        // Half a day fills half of it.
        wear.count(9_000, now + DAY / 2);
        assert_eq!(wear.linger(usual), usual);
    }

    #[test]
    fn the_projection_is_that_of_the_last_hour() {
        let start = Instant::now();
        let mut wear = Wear::new(0, 1_000, start);
        for minute in 1..=120_u32 {
            let total = if minute <= 60 {
                1_000
            } else {
                1_000 + u64::from(minute - 60) * 10
            };
            wear.count(total, start + MARK_EVERY * minute);
        }
        let per_day = wear.per_day(start + MARK_EVERY * 120);
        assert!((per_day - 14_400.0).abs() < 1.0, "{per_day}");
    }
}
