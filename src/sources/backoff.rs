//! How long to wait before the next try.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// A wait that doubles with each failure, with jitter, so that many clients of
/// one broker do not come back at the same moment.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// The first wait is about `min`, none is longer than `max`.
    pub(super) fn new(min: Duration, max: Duration) -> Backoff {
        Backoff {
            min,
            max,
            next: min,
        }
    }

    /// The wait after one more failure: between half and all of its step.
    pub(super) fn step(&mut self) -> Duration {
        self.step_to(self.max)
    }

    /// As [`Backoff::step`], with another upper bound for this step and the following.
    pub(super) fn step_to(&mut self, max: Duration) -> Duration {
        let wait = self.next.min(max);
        self.next = (wait * 2).min(max);
        wait.mul_f64(0.5 + jitter() / 2.0)
    }

    /// The next wait is the first one again.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

/// A number in `0.0..1.0`. Each `RandomState` has keys of its own, which is
/// random enough for this.
fn jitter() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    bits as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_again() {
        let [min, max] = [100, 5_000].map(Duration::from_millis);
        let mut backoff = Backoff::new(min, max);
        let mut step = min;
        for _ in 0..10 {
            let wait = backoff.step();
            assert!(wait >= step / 2 && wait <= step, "{wait:?} for {step:?}");
            step = (step * 2).min(max);
        }
        backoff.reset();
        assert!(backoff.step() <= min);
    }
}
