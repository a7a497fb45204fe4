//! How the last attempt to read the configuration went.
//!
//! Public alert rules ask for it under the names of Prometheus and Alertmanager, so one
//! fact has three names; their values are set together.

use std::sync::{Mutex, PoisonError};

use prometheus::{Gauge, IntGauge, Registry};

use super::registered;

/// Whose names there are: one process is all three.
const PREFIXES: [&str; 3] = ["pulse", "prometheus", "alertmanager"];

/// The outcome of the last attempt; the start is the first.
pub struct Reload {
    successful: [IntGauge; 3],
    success_seconds: [Gauge; 3],
    failure: Mutex<Option<Failure>>,
}

/// An attempt that failed.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    /// When, in seconds since 1970.
    pub seconds: f64,
    /// Every mistake, one in a line.
    pub error: String,
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
            failure: Mutex::default(),
        }
    }

    /// Remembers an attempt and its time in seconds, with the error if it failed.
    pub fn tried(&self, error: Option<String>, now: f64) {
        let succeeded = error.is_none();
        for gauge in &self.successful {
            gauge.set(i64::from(succeeded));
        }
        if succeeded {
            for gauge in &self.success_seconds {
                gauge.set(now);
            }
        }
        let failure = error.map(|error| Failure {
            seconds: now,
            error,
        });
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// Whether the last attempt succeeded.
    pub fn succeeded(&self) -> bool {
        self.successful[0].get() == 1
    }

    /// The time of the last success in seconds.
    pub fn success_seconds(&self) -> f64 {
        self.success_seconds[0].get()
    }

    /// The last attempt if it failed.
    pub fn failure(&self) -> Option<Failure> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_tells_of_the_last_attempt() {
        let registry = Registry::new();
        let reload = Reload::new(&registry);
        assert_eq!(reload.failure(), None, "nothing was tried yet");
        reload.tried(None, 5.0);
        reload.tried(Some("x.yml:1:1: no".to_owned()), 7.0);
        let failure = reload.failure().unwrap();
        assert_eq!((failure.seconds, &*failure.error), (7.0, "x.yml:1:1: no"));
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
        reload.tried(None, 9.0);
        assert_eq!(reload.failure(), None);
        assert_eq!(reload.success_seconds(), 9.0);
    }
}
