//! How the last attempt to read the configuration went.

use prometheus::{Gauge, IntGauge, Registry};

use super::registered;

/// The outcome of the last attempt; the start is the first.
pub struct Reload {
    successful: IntGauge,
    success_seconds: Gauge,
}

impl Reload {
    pub(super) fn new(registry: &Registry) -> Reload {
        let successful = IntGauge::new(
            "pulse_config_last_reload_successful",
            "Whether the last attempt to read the configuration succeeded.",
        );
        let success_seconds = Gauge::new(
            "pulse_config_last_reload_success_timestamp_seconds",
            "When the configuration was read last, in seconds since 1970.",
        );
        Reload {
            successful: registered(registry, successful.expect("BUG: a bad metric name")),
            success_seconds: registered(registry, success_seconds.expect("BUG: a bad metric name")),
        }
    }

    /// Remembers an attempt and, if it succeeded, its time in seconds.
    pub fn tried(&self, succeeded: bool, now: f64) {
        self.successful.set(i64::from(succeeded));
        if succeeded {
            self.success_seconds.set(now);
        }
    }

    /// Whether the last attempt succeeded.
    pub fn succeeded(&self) -> bool {
        self.successful.get() == 1
    }

    /// The time of the last success in seconds.
    pub fn success_seconds(&self) -> f64 {
        self.success_seconds.get()
    }
}
