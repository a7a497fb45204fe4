//! How the last attempt to read the configuration went.
//!
//! Public alert rules ask for it under the names of Prometheus and Alertmanager, so one
//! fact has three names; their values are set together.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{Gauge, IntGauge, Registry};

use super::registered;

/// Whose names there are: one process is all three.
const PREFIXES: [&str; 3] = ["pulse", "prometheus", "alertmanager"];

/// The outcome of the last attempt; the start is the first.
pub struct Reload {
    successful: [IntGauge; 3],
    success_seconds: [Gauge; 3],
    /// When the last attempt failed, as the bits of seconds.
    failed_seconds: AtomicU64,
}

impl Reload {
    pub(super) fn new(registry: &Registry) -> Reload {
        let successful = PREFIXES.map(|prefix| {
            let gauge = IntGauge::new(
                format!("{prefix}_config_last_reload_successful"),
                "Whether the last attempt to read the configuration succeeded.",
            );
            registered(registry, gauge.expect("BUG: a bad metric name"))
        });
        let success_seconds = PREFIXES.map(|prefix| {
            let gauge = Gauge::new(
                format!("{prefix}_config_last_reload_success_timestamp_seconds"),
                "When the configuration was read last, in seconds since 1970.",
            );
            registered(registry, gauge.expect("BUG: a bad metric name"))
        });
        Reload {
            successful,
            success_seconds,
            failed_seconds: AtomicU64::new(0),
        }
    }

    /// Remembers an attempt and its time in seconds.
    pub fn tried(&self, succeeded: bool, now: f64) {
        for gauge in &self.successful {
            gauge.set(i64::from(succeeded));
        }
        if !succeeded {
            self.failed_seconds.store(now.to_bits(), Ordering::Relaxed);
            return;
        }
        for gauge in &self.success_seconds {
            gauge.set(now);
        }
    }

    /// Whether the last attempt succeeded.
    pub fn succeeded(&self) -> bool {
        self.successful[0].get() == 1
    }

    /// The time of the last success in seconds.
    pub fn success_seconds(&self) -> f64 {
        self.success_seconds[0].get()
    }

    /// When the last attempt failed, in seconds; `None` if it succeeded.
    pub fn failed_seconds(&self) -> Option<f64> {
        let at = f64::from_bits(self.failed_seconds.load(Ordering::Relaxed));
        (!self.succeeded() && at > 0.0).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_tells_of_the_last_attempt() {
        let registry = Registry::new();
        let reload = Reload::new(&registry);
        assert_eq!(reload.failed_seconds(), None, "nothing was tried yet");
        reload.tried(true, 5.0);
        reload.tried(false, 7.0);
        assert_eq!(reload.failed_seconds(), Some(7.0));
        let mut shown: Vec<(String, f64)> = registry
            .gather()
            .iter()
            .map(|f| {
                (
                    f.name().to_owned(),
                    f.get_metric()[0].get_gauge().get_value(),
                )
            })
            .collect();
        shown.retain(|(name, _)| !name.starts_with("pulse"));
        let name = |whose, what| format!("{whose}_config_last_reload_{what}");
        assert_eq!(
            shown,
            [
                (name("alertmanager", "success_timestamp_seconds"), 5.0),
                (name("alertmanager", "successful"), 0.0),
                (name("prometheus", "success_timestamp_seconds"), 5.0),
                (name("prometheus", "successful"), 0.0),
            ]
        );
        reload.tried(true, 9.0);
        assert_eq!(reload.failed_seconds(), None);
        assert_eq!(reload.success_seconds(), 9.0);
    }
}
