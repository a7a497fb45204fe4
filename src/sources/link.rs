//! One source's connection as others see it: the board, the metrics and the log
//! say the same.

use prometheus::IntGauge;

use super::Status;
use crate::model::Clock;

/// Tells whether a source works.
pub(super) struct Link {
    name: String,
    status: Status,
    up: IntGauge,
    clock: Clock,
    /// The last error that was logged: a broker that stays away is one line.
    logged: Option<String>,
}

impl Link {
    /// Starts as not connected.
    pub(super) fn new(name: &str, status: Status, up: IntGauge, clock: Clock) -> Link {
        up.set(0);
        Link {
            name: name.to_owned(),
            status,
            up,
            clock,
            logged: None,
        }
    }

    /// Connected and subscribed.
    pub(super) fn up(&mut self) {
        tracing::info!(source = self.name, "source connected");
        self.logged = None;
        self.up.set(1);
        self.status.up(self.clock.now());
    }

    /// Not connected, and why.
    pub(super) fn down(&mut self, error: &str) {
        if self.logged.as_deref() != Some(error) {
            tracing::warn!(source = self.name, error, "source not connected");
            self.logged = Some(error.to_owned());
        }
        self.up.set(0);
        self.status.down(error, self.clock.now());
    }

    /// Messages came in.
    pub(super) fn received(&self, count: u64) {
        self.status.received(count, self.clock.now());
    }

    /// The source ends.
    pub(super) fn ended(&self) {
        self.up.set(0);
    }
}
