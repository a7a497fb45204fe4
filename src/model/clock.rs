//! The one clock of the process. Nothing else reads the time.
//!
//! Stamps, rules and `for` durations all use [`Clock::now`], so that they agree
//! with each other also while the box has no trustworthy time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Timestamp;

/// Where the time comes from. Cloning gives another handle to the same clock.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's wall clock.
    #[default]
    System,
    /// A clock that tests set.
    Manual(ManualClock),
}

/// A clock that stands still until it is told otherwise.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Starts at `start`.
    pub fn new(start: Timestamp) -> ManualClock {
        ManualClock(Arc::new(AtomicI64::new(start.as_ms())))
    }

    /// Jumps to `to`, in either direction.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.as_ms(), Ordering::SeqCst);
    }

    /// Moves on by `by`.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock {
    /// The current time.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::Manual(clock) => Timestamp::from_ms(clock.0.load(Ordering::SeqCst)),
            Clock::System => {
                let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
                    Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
                    Err(before) => {
                        -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX)
                    }
                };
                Timestamp::from_ms(ms)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let manual = ManualClock::new(Timestamp::from_ms(5));
        let clock = Clock::Manual(manual.clone());
        assert_eq!(clock.now().as_ms(), 5);
        manual.advance(Duration::from_secs(1));
        assert_eq!(clock.now().as_ms(), 1005);
    }
}
