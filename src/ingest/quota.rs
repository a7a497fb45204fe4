//! A token bucket: so many messages or samples a second, and a few more at once.

use crate::model::Timestamp;

/// What a tenant may still send. Full at the start.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Timestamp,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(burst: u32, now: Timestamp) -> Bucket {
        Bucket {
            tokens: f64::from(burst),
            filled: now,
        }
    }

    /// Takes so many tokens, if they are there; from a full bucket also more than it
    /// holds, which time then pays back. A rate of 0 is no limit. A clock that goes
    /// back fills nothing in at that moment and goes on filling from there: an hour
    /// back must not block a tenant for an hour.
    pub(super) fn take(&mut self, count: u32, rate: u32, burst: u32, now: Timestamp) -> bool {
        if rate == 0 {
            return true;
        }
        // A burst of 0 would refuse everything for ever.
        let size = f64::from(burst.max(1));
        let passed_ms = now.ms_since(self.filled).max(0);
        self.filled = now;
        self.tokens = (self.tokens + passed_ms as f64 / 1e3 * f64::from(rate)).min(size);
        let count = f64::from(count);
        let is_there = self.tokens >= count.min(size);
        if is_there {
            self.tokens -= count;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut Bucket, rate: u32, burst: u32, ms: i64) -> usize {
        let now = Timestamp::from_ms(ms);
        (0..1_000)
            .filter(|_| bucket.take(1, rate, burst, now))
            .count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(20, Timestamp::from_ms(0));
        assert_eq!(taken(&mut bucket, 10, 20, 0), 20);
        assert_eq!(taken(&mut bucket, 10, 20, 50), 0);
        assert_eq!(taken(&mut bucket, 10, 20, 1_000), 10);
        assert_eq!(taken(&mut bucket, 10, 20, 3_600_000), 20);
    }

    #[test]
    fn no_rate_is_no_limit_and_no_burst_still_lets_one_through() {
        let mut bucket = Bucket::new(0, Timestamp::from_ms(0));
        assert_eq!(taken(&mut bucket, 0, 0, 0), 1_000);
        assert_eq!(taken(&mut bucket, 1, 0, 1_000), 1);
    }

    #[test]
    fn a_load_above_the_burst_is_paid_back() {
        let mut bucket = Bucket::new(10, Timestamp::from_ms(0));
        assert!(bucket.take(25, 10, 10, Timestamp::from_ms(0)));
        for (ms, want) in [(1_000, false), (1_500, false), (1_700, true)] {
            assert_eq!(bucket.take(1, 10, 10, Timestamp::from_ms(ms)), want, "{ms}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_fills_nothing_and_blocks_nothing() {
        let mut bucket = Bucket::new(5, Timestamp::from_ms(3_600_000));
        assert_eq!(taken(&mut bucket, 1, 5, 3_600_000), 5);
        assert_eq!(taken(&mut bucket, 1, 5, 0), 0);
        assert_eq!(taken(&mut bucket, 1, 5, 2_000), 2);
    }
}
