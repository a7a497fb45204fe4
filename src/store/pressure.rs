//! How hard the store is pressed, and what it does without for that.
//!
//! Three things can run out: the disk, the room for samples in memory (when
//! sealing keeps failing), and the memory of the process. Each has a level; the
//! worst one counts. From [`Level::NoSeries`] on, samples of new series are
//! refused. At [`Level::Withhold`] a batch with samples waits before it is handed
//! over, so that nothing is acknowledged and brokers keep the data; batches of
//! rules and own metrics leave their samples out and change their state as ever.
//! Reads never wait. When the cause goes, the waiting batches go on.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

use crate::telemetry::metrics;

/// What may run out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// Free space on the disk.
    Disk,
    /// Room for samples that are not sealed.
    Head,
    /// The memory of the process.
    Memory,
}

/// What is done without. Each level includes those before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Level {
    /// Nothing.
    Calm,
    /// The oldest data goes before its time; the open hour is sealed early.
    Shed,
    /// Samples of new series are refused.
    NoSeries,
    /// Samples are not taken at all.
    Withhold,
}

const LEVELS: [Level; 4] = [Level::Calm, Level::Shed, Level::NoSeries, Level::Withhold];

impl Cause {
    pub(super) const ALL: [Cause; 3] = [Cause::Disk, Cause::Head, Cause::Memory];

    /// The label of its gauge.
    pub(super) fn name(self) -> &'static str {
        metrics::STORE_CAUSES[self as usize]
    }
}

/// The levels, and the gate that they close.
#[derive(Debug)]
pub(super) struct Pressure {
    levels: [AtomicU8; Cause::ALL.len()],
    is_open: watch::Sender<bool>,
}

impl Default for Pressure {
    fn default() -> Pressure {
        Pressure {
            levels: Default::default(),
            is_open: watch::Sender::new(true),
        }
    }
}

impl Pressure {
    /// Sets the level of a cause; says what it was before.
    pub(super) fn set(&self, cause: Cause, level: Level, metrics: &metrics::Store) -> Level {
        let before = self.levels[cause as usize].swap(level as u8, Ordering::Relaxed);
        let before = LEVELS[usize::from(before)];
        if before != level {
            let gauge = metrics.pressure.with_label_values(&[cause.name()]);
            gauge.set(i64::from(level as u8));
            let is_open = self.level() < Level::Withhold;
            self.is_open.send_replace(is_open);
            let cause = cause.name();
            tracing::warn!(cause, from = ?before, to = ?level, "pressure changed");
        }
        before
    }

    /// The level of a cause.
    pub(super) fn of(&self, cause: Cause) -> Level {
        LEVELS[usize::from(self.levels[cause as usize].load(Ordering::Relaxed))]
    }

    /// The worst of all levels.
    pub(super) fn level(&self) -> Level {
        let all = Cause::ALL.into_iter().map(|cause| self.of(cause));
        all.max().expect("there are three")
    }

    /// Waits until samples are taken. Cancel-safe.
    pub(super) async fn passes(&self) {
        let mut is_open = self.is_open.subscribe();
        // The sender lives as long as we do.
        drop(is_open.wait_for(|is_open| *is_open).await);
    }

    /// Lets everyone through to find the store closed.
    pub(super) fn let_go(&self) {
        self.is_open.send_replace(true);
    }
}

#[cfg(test)]
mod ladder;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod rolls;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn the_worst_cause_counts_and_the_gate_opens_with_the_last_one() {
        let (pressure, metrics) = (Pressure::default(), Metrics::new());
        pressure.set(Cause::Disk, Level::Withhold, &metrics.store);
        pressure.set(Cause::Head, Level::Withhold, &metrics.store);
        let mut waits = Box::pin(pressure.passes());
        assert!(futures_util::poll!(&mut waits).is_pending());
        pressure.set(Cause::Disk, Level::Calm, &metrics.store);
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert_eq!(pressure.level(), Level::Withhold);
        pressure.set(Cause::Head, Level::NoSeries, &metrics.store);
        assert!(futures_util::poll!(&mut waits).is_ready());
        assert_eq!(pressure.level(), Level::NoSeries);
        let gauge = metrics.store.pressure.with_label_values(&["head"]);
        assert_eq!(gauge.get(), 2);
    }
}
