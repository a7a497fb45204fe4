//! The one clock of the process. Nothing else reads the time.
//!
//! Stamps, rules and `for` durations all use [`Clock::now`], so that they agree
//! with each other also while the box has no trustworthy time. What makes a time
//! trustworthy is told in [`guard`].

pub mod guard;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::guard::{Guard, Jump, Saved};
use super::Timestamp;

/// 2026-01-01T00:00:00Z: the compiler that this program needs is younger.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// The time before which this program cannot run: `SOURCE_DATE_EPOCH` of the
/// build (seconds), else the beginning of 2026, so that two builds of the same
/// source are the same.
pub fn build_date() -> Timestamp {
    let given = option_env!("SOURCE_DATE_EPOCH").and_then(|secs| secs.trim().parse::<i64>().ok());
    Timestamp::from_ms(given.map_or(EPOCH_MS, |secs| secs.saturating_mul(1_000)))
}

/// Where the time comes from. Cloning gives another handle to the same clock.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's wall clock, whatever it says.
    #[default]
    System,
    /// A clock that tests set.
    Manual(ManualClock),
    /// One of the two, followed as far as it can be trusted.
    Guarded(Arc<Guard>),
}

/// A clock that stands still until it is told otherwise.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicI64,
    is_synchronised: AtomicBool,
}

impl ManualClock {
    /// Starts at `start`.
    pub fn new(start: Timestamp) -> ManualClock {
        ManualClock(Arc::new(Hands {
            wall_ms: AtomicI64::new(start.as_ms()),
            monotonic_ms: AtomicI64::new(0),
            is_synchronised: AtomicBool::new(false),
        }))
    }

    /// Jumps to `to`, in either direction. No time passes.
    pub fn set(&self, to: Timestamp) {
        self.0.wall_ms.store(to.as_ms(), Ordering::SeqCst);
    }

    /// Lets `by` pass.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.0.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.0.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Says whether a time server confirms what the clock shows.
    pub fn set_synchronised(&self, is_synchronised: bool) {
        let hands = &self.0.is_synchronised;
        hands.store(is_synchronised, Ordering::SeqCst);
    }
}

/// What the machine says about the time, both in ms.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Since the epoch; may be wrong and may jump.
    wall: i64,
    /// Since some moment; never wrong, goes on while the machine sleeps.
    monotonic: i64,
}

impl Clock {
    /// This clock, followed only as far as it can be trusted. `build` is a time
    /// that has passed for sure; with `trusts_all` every time is believed, and
    /// jumps are still told.
    #[must_use]
    pub fn guarded(self, build: Timestamp, trusts_all: bool) -> Clock {
        match self {
            Clock::Guarded(_) => self,
            clock => Clock::Guarded(Arc::new(Guard::new(clock, build, trusts_all))),
        }
    }

    /// The current time.
    #[inline]
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::Guarded(guard) => guard.now(),
            Clock::Manual(_) | Clock::System => self.wall(),
        }
    }

    /// What the machine's own clock says, believed or not.
    pub fn wall(&self) -> Timestamp {
        match self {
            Clock::Manual(clock) => Timestamp::from_ms(clock.0.wall_ms.load(Ordering::SeqCst)),
            Clock::System => system_time(),
            Clock::Guarded(guard) => guard.wall(),
        }
    }

    /// It is not earlier than this. Differs from [`Clock::now`] for a day after a
    /// large step forward that nobody confirmed: what is deleted because of its
    /// age is measured by this one.
    pub fn earliest(&self) -> Timestamp {
        match self {
            Clock::Guarded(guard) => guard.bounds().0,
            Clock::Manual(_) | Clock::System => self.now(),
        }
    }

    /// It is not later than this. Differs from [`Clock::now`] while the clock is
    /// not trusted: the machine may have been off for long.
    pub fn latest(&self) -> Timestamp {
        match self {
            Clock::Guarded(guard) => guard.bounds().1,
            Clock::Manual(_) | Clock::System => self.now(),
        }
    }

    /// Whether [`Clock::now`] is what the machine's clock says.
    pub fn is_trusted(&self) -> bool {
        match self {
            Clock::Guarded(guard) => guard.is_trusted(),
            Clock::Manual(_) | Clock::System => true,
        }
    }

    /// How far [`Clock::now`] was stepped, all in all, beside the time that passed.
    /// Who measures durations between two readings takes the change of this off.
    pub fn stepped_ms(&self) -> i64 {
        match self {
            Clock::Guarded(guard) => guard.stepped_ms(),
            Clock::Manual(_) | Clock::System => 0,
        }
    }

    /// How often [`Clock::now`] went back since the data directory was made: the
    /// hours after that come a second time.
    pub fn steps_back(&self) -> u32 {
        match self {
            Clock::Guarded(guard) => guard.steps_back(),
            Clock::Manual(_) | Clock::System => 0,
        }
    }

    /// How many jumps there were since the start, and the last ones, oldest first.
    pub fn jumps(&self) -> (u64, Vec<Jump>) {
        match self {
            Clock::Guarded(guard) => guard.jumps(),
            Clock::Manual(_) | Clock::System => (0, Vec::new()),
        }
    }

    /// Goes on from what an earlier process saved; `None`: there was none.
    pub fn resume(&self, saved: Option<Saved>) {
        if let (Clock::Guarded(guard), Some(saved)) = (self, saved) {
            guard.resume(saved);
        }
    }

    /// What the next process shall go on from; `None` when nothing has to be saved.
    pub fn save(&self) -> Option<Saved> {
        match self {
            Clock::Guarded(guard) => Some(guard.save()),
            Clock::Manual(_) | Clock::System => None,
        }
    }

    /// Whether time stands still until a test moves it: then nothing runs by itself.
    pub fn is_manual(&self) -> bool {
        match self {
            Clock::Manual(_) => true,
            Clock::System => false,
            Clock::Guarded(guard) => guard.source().is_manual(),
        }
    }

    fn read(&self) -> Reading {
        Reading {
            wall: self.wall().as_ms(),
            monotonic: match self {
                Clock::Manual(clock) => clock.0.monotonic_ms.load(Ordering::SeqCst),
                Clock::System | Clock::Guarded(_) => boot_time(),
            },
        }
    }

    /// Whether a time server confirms what the machine's clock says.
    fn is_synchronised(&self, reading: Reading) -> bool {
        match self {
            Clock::Manual(clock) => clock.0.is_synchronised.load(Ordering::SeqCst),
            Clock::System | Clock::Guarded(_) => marker_confirms(reading),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the wall clock"
)]
fn system_time() -> Timestamp {
    Timestamp::from_ms(since_epoch(SystemTime::now()))
}

fn since_epoch(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// Milliseconds since the machine started, time asleep included.
fn boot_time() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

/// Left by systemd-timesyncd at every adjustment, and by systemd-time-wait-sync
/// once any other time service has synchronised the kernel's clock. (The kernel
/// itself could be asked only through a call that is unsafe in Rust.)
const MARKER: &str = "/run/systemd/timesync/synchronized";

/// How far the marker's time may be off.
const MARKER_SLACK_MS: i64 = 60_000;

/// The marker counts when it was left since the machine started, told by the
/// clock that is in question: after a jump it lies before the start or ahead.
fn marker_confirms(reading: Reading) -> bool {
    let left = std::fs::metadata(MARKER).and_then(|marker| marker.modified());
    left.is_ok_and(|left| is_between_start_and_now(since_epoch(left), reading))
}

fn is_between_start_and_now(left: i64, reading: Reading) -> bool {
    let start = reading.wall - reading.monotonic;
    (start - MARKER_SLACK_MS..=reading.wall + MARKER_SLACK_MS).contains(&left)
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

    #[test]
    fn the_machine_has_passed_the_build_date() {
        assert!(Clock::System.now() > build_date());
        let reading = Clock::System.read();
        assert!(reading.monotonic > 0);
    }

    #[test]
    fn a_marker_from_before_a_jump_confirms_nothing() {
        let (hour, year) = (3_600_000, 31_536_000_000);
        let check = |left: i64, wall: i64, want: bool| {
            // The machine runs for two hours.
            let monotonic = 2 * hour;
            let reading = Reading { wall, monotonic };
            assert_eq!(is_between_start_and_now(left, reading), want);
        };
        let now = 60 * year;
        check(now - hour, now, true);
        check(now - 3 * hour, now, false);
        check(now - hour, now + 75 * year, false);
        check(now - hour, now - 6 * hour, false);
    }
}
