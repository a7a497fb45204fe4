//! Registrations of devices, in the words of document 1; `company_id` is the tenant.
//!
//! The registration of a device is a row in the commit of its first message, so
//! a registration's time is the time from first sight to that commit, and one
//! that is waiting is one whose commit is under way.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use super::{PYTHON_BUCKETS, counters, histograms, registered};

/// How a registration can end: `status`.
const STATUSES: [&str; 4] = [
    "success_created",
    "success_exists",
    "error_db",
    "error_other",
];

/// Registrations of devices.
pub struct Onboarding {
    submitted: IntCounterVec,
    processed: IntCounterVec,
    seconds: HistogramVec,
    refused: IntCounterVec,
    /// Registrations whose commit is under way.
    pub queue_length: IntGauge,
}

/// How a registration ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registered {
    /// The device is registered now.
    Created,
    /// Its message was stored before, so the device was registered then.
    Exists,
    /// The store did not take it.
    Storage,
    /// The message that brought it was refused.
    Refused,
}

/// The registrations of one tenant.
pub struct Registrations {
    /// Devices seen for the first time.
    pub submitted: IntCounter,
    /// Messages of devices that are not registered, as there are too many.
    pub refused: IntCounter,
    processed: [IntCounter; 4],
    seconds: Histogram,
}

impl Onboarding {
    pub(super) fn new(r: &Registry) -> Onboarding {
        Onboarding {
            submitted: counters(
                r,
                "onboarding_tasks_submitted_total",
                "Devices seen for the first time.",
                &["company_id"],
            ),
            processed: counters(
                r,
                "onboarding_tasks_processed_total",
                "Registrations of devices by how they ended.",
                &["company_id", "status"],
            ),
            seconds: histograms(
                r,
                "onboarding_processing_duration_seconds",
                "Time from a device's first sight to the commit that registers it.",
                &PYTHON_BUCKETS,
                &["company_id"],
            ),
            refused: counters(
                r,
                "pulse_ingest_unregistered_total",
                "Messages of devices above the limit of registered devices.",
                &["tenant_id"],
            ),
            queue_length: registered(
                r,
                IntGauge::new(
                    "onboarding_queue_length",
                    "Registrations whose commit is under way.",
                )
                .expect("BUG: a bad metric name"),
            ),
        }
    }

    /// A tenant's instruments; `histogram` is its label there.
    pub(super) fn of(&self, tenant: &str, histogram: &str) -> Registrations {
        Registrations {
            submitted: self.submitted.with_label_values(&[tenant]),
            refused: self.refused.with_label_values(&[tenant]),
            processed: STATUSES.map(|status| self.processed.with_label_values(&[tenant, status])),
            seconds: self.seconds.with_label_values(&[histogram]),
        }
    }
}

impl Registrations {
    /// Counts a registration that ended after `seconds`.
    pub fn end(&self, how: Registered, seconds: f64) {
        self.processed[how as usize].inc();
        self.seconds.observe(seconds);
    }
}
