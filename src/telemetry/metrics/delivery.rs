//! Instruments of delivery.

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{PYTHON_BUCKETS, counters, gauges, histograms, registered};
use crate::model::tenant::DEFAULT_TENANT;

/// The kinds of destinations: `destination_type`.
pub(crate) const DESTINATION_TYPES: [&str; 19] = [
    "webhook",
    "slack",
    "telegram",
    "discord",
    "msteams",
    "msteamsv2",
    "webex",
    "rocketchat",
    "mattermost",
    "pagerduty",
    "opsgenie",
    "victorops",
    "pushover",
    "ntfy",
    "gotify",
    "email",
    "mqtt",
    "nats",
    "heartbeat",
];

/// How an attempt can end: `result` of `pulse_delivery_total`.
pub(crate) const RESULTS: [&str; 4] = ["success", "retry", "failed", "dlq"];

/// Deliveries going out.
pub struct Delivery {
    /// Finished attempts by `tenant_id`, `destination_type` and `result`: `success`,
    /// `retry` (there will be another), `failed` (the destination was disabled, the
    /// row stays), `dlq` (it was the last).
    pub total: IntCounterVec,
    /// Time of one attempt by `destination_type`.
    pub seconds: HistogramVec,
    /// Attempts without anything to send, because a template failed, by `destination_type`.
    pub unmade: IntCounterVec,
    /// Dead letters written by `tenant_id`.
    pub dlq: IntCounterVec,
    /// Dead letters stored by `tenant_id`.
    pub dlq_depth: IntGaugeVec,
    /// Whether a `destination` is left alone for a while after failures.
    pub breaker_open: IntGaugeVec,
    /// Whether a `destination` said 410 and gets nothing until a reload.
    pub disabled: IntGaugeVec,
    /// Outputs whose last attempt reached the receiver.
    pub connections: IntGauge,
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
            unmade: counters(
                r,
                "pulse_delivery_unmade_total",
                "Attempts at which the message could not be made, as when a template fails.",
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
            breaker_open: gauges(
                r,
                "pulse_delivery_breaker_open",
                "Whether the destination is left alone for a while after failures.",
                &["destination"],
            ),
            disabled: gauges(
                r,
                "pulse_delivery_disabled",
                "Whether the destination answered 410 and gets nothing until a reload.",
                &["destination"],
            ),
            connections: registered(
                r,
                IntGauge::new(
                    "consumer_connections",
                    "Outputs whose last attempt reached the receiver.",
                )
                .expect("BUG: a bad metric name"),
            ),
        };
        for kind in DESTINATION_TYPES {
            delivery.seconds.with_label_values(&[kind]);
            delivery.unmade.with_label_values(&[kind]);
        }
        delivery.add_tenant(DEFAULT_TENANT);
        delivery
    }

    /// Makes a tenant's children, so that its zeros are visible.
    pub fn add_tenant(&self, tenant: &str) {
        // Receivers of other kinds get theirs with the first attempt: few have any.
        for result in RESULTS {
            self.total.with_label_values(&[tenant, "webhook", result]);
        }
        self.dlq.with_label_values(&[tenant]);
        self.dlq_depth.with_label_values(&[tenant]);
    }

    /// Makes a destination's children.
    pub fn add_destination(&self, destination: &str) {
        self.breaker_open.with_label_values(&[destination]).set(0);
        self.disabled.with_label_values(&[destination]).set(0);
    }

    /// Removes the children of a destination that is configured no more.
    pub fn remove_destination(&self, destination: &str) {
        // An error says that there were none.
        let _ = self.breaker_open.remove_label_values(&[destination]);
        let _ = self.disabled.remove_label_values(&[destination]);
    }
}
