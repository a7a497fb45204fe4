//! Instruments of ingest.

use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry};

use super::{PYTHON_BUCKETS, counters, histograms, registered};
use crate::model::tenant::DEFAULT_TENANT;

/// How a message can end: `result` of `pulse_ingest_messages_total`.
pub(crate) const RESULTS: [&str; 4] = ["accepted", "rejected", "duplicate", "throttled"];

/// Why a message can be refused: `reason` of `pulse_ingest_rejected_total`.
pub(crate) const REASONS: [&str; 12] = [
    "size",
    "tenant",
    "topic",
    "quota",
    "parse",
    "encoding",
    "timestamp",
    "series_limit",
    "sample_limit",
    "conflict",
    "overload",
    "storage",
];

/// Messages coming in.
pub struct Ingest {
    /// Messages by `tenant_id` and `result`, at their final outcome.
    pub messages: IntCounterVec,
    /// Refused messages by `tenant_id` and `reason`.
    pub rejected: IntCounterVec,
    /// Time of the commit that carried a tenant's rows, by `tenant_id`.
    pub batch_write_seconds: HistogramVec,
    /// Messages that JetStream holds for all our consumers.
    pub nats_pending: IntGauge,
    /// Samples stored by `tenant_id`.
    pub samples: IntCounterVec,
}

impl Ingest {
    pub(super) fn new(r: &Registry) -> Ingest {
        let ingest = Ingest {
            messages: counters(
                r,
                "pulse_ingest_messages_total",
                "Messages at their final outcome.",
                &["tenant_id", "result"],
            ),
            rejected: counters(
                r,
                "pulse_ingest_rejected_total",
                "Refused messages by reason.",
                &["tenant_id", "reason"],
            ),
            batch_write_seconds: histograms(
                r,
                "pulse_ingest_batch_write_seconds",
                "Time of the store commit that carried rows of the tenant.",
                &PYTHON_BUCKETS,
                &["tenant_id"],
            ),
            nats_pending: registered(
                r,
                IntGauge::new(
                    "pulse_ingest_nats_pending",
                    "Messages that JetStream holds for all our consumers.",
                )
                .expect("BUG: a bad metric name"),
            ),
            samples: counters(
                r,
                "pulse_ingest_samples_total",
                "Samples stored.",
                &["tenant_id"],
            ),
        };
        ingest.add_tenant(DEFAULT_TENANT);
        ingest
    }

    /// Makes a tenant's children, so that its zeros are visible.
    pub fn add_tenant(&self, tenant: &str) {
        for result in RESULTS {
            self.messages.with_label_values(&[tenant, result]);
        }
        for reason in REASONS {
            self.rejected.with_label_values(&[tenant, reason]);
        }
        self.batch_write_seconds.with_label_values(&[tenant]);
        self.samples.with_label_values(&[tenant]);
    }
}
