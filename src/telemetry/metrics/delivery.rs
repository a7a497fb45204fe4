//! Instruments of delivery.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::{PYTHON_BUCKETS, counters, gauges, histograms};
use crate::model::tenant::DEFAULT_TENANT;

/// The kinds of destinations: `destination_type`.
pub(crate) const DESTINATION_TYPES: [&str; 1] = ["webhook"];

/// How an attempt can end: `result` of `pulse_delivery_total`.
pub(crate) const RESULTS: [&str; 4] = ["success", "retry", "failed", "dlq"];

/// Deliveries going out.
pub struct Delivery {
    /// Finished attempts by `tenant_id`, `destination_type` and `result`.
    pub total: IntCounterVec,
    /// Time of one attempt by `destination_type`.
    pub seconds: HistogramVec,
    /// Dead letters written by `tenant_id`.
    pub dlq: IntCounterVec,
    /// Dead letters stored by `tenant_id`.
    pub dlq_depth: IntGaugeVec,
}

impl Delivery {
    pub(super) fn new(r: &Registry) -> Delivery {
        let delivery = Delivery {
            total: counters(
                r,
                "pulse_delivery_total",
                "Finished delivery attempts.",
                &["tenant_id", "destination_type", "result"],
            ),
            seconds: histograms(
                r,
                "pulse_delivery_seconds",
                "Time of one delivery attempt.",
                &PYTHON_BUCKETS,
                &["destination_type"],
            ),
            dlq: counters(
                r,
                "pulse_delivery_dlq_total",
                "Dead letters written.",
                &["tenant_id"],
            ),
            dlq_depth: gauges(
                r,
                "pulse_delivery_dlq_depth",
                "Dead letters stored.",
                &["tenant_id"],
            ),
        };
        for kind in DESTINATION_TYPES {
            delivery.seconds.with_label_values(&[kind]);
        }
        delivery.add_tenant(DEFAULT_TENANT);
        delivery
    }

    /// Makes a tenant's children, so that its zeros are visible.
    pub fn add_tenant(&self, tenant: &str) {
        for kind in DESTINATION_TYPES {
            for result in RESULTS {
                self.total.with_label_values(&[tenant, kind, result]);
            }
        }
        self.dlq.with_label_values(&[tenant]);
        self.dlq_depth.with_label_values(&[tenant]);
    }
}
