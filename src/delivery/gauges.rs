//! One worker's share of the gauges that all destinations add up to.

use prometheus::IntGauge;

use super::queue::Counts;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ServiceName;

/// A share of a gauge; taken back when the worker ends, by a panic too.
struct Share {
    gauge: IntGauge,
    value: i64,
}

impl Share {
    fn new(gauge: IntGauge) -> Share {
        Share { gauge, value: 0 }
    }

    fn set(&mut self, value: i64) {
        self.gauge.add(value - self.value);
        self.value = value;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The gauges of one worker.
pub(super) struct Gauges {
    jobs: Share,
    notifications: Share,
    connection: Share,
    breaker_open: IntGauge,
    disabled: IntGauge,
}

impl Gauges {
    pub(super) fn new(metrics: &Metrics, destination: &str) -> Gauges {
        metrics.delivery.add_destination(destination);
        let queue = |name| {
            let service = ServiceName::DeliveryWorker;
            Share::new(metrics.service.queue(service, name))
        };
        let delivery = &metrics.delivery;
        Gauges {
            jobs: queue("pending_jobs"),
            notifications: queue("pending_notification_jobs"),
            connection: Share::new(delivery.connections.clone()),
            breaker_open: delivery.breaker_open.with_label_values(&[destination]),
            disabled: delivery.disabled.with_label_values(&[destination]),
        }
    }

    pub(super) fn set_depth(&mut self, depth: Counts) {
        let as_gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.jobs.set(as_gauge(depth.telemetry));
        self.notifications.set(as_gauge(depth.notifications));
    }

    pub(super) fn set_reached(&mut self, reached: bool) {
        self.connection.set(i64::from(reached));
    }

    pub(super) fn set_state(&self, breaker_open: bool, disabled: bool) {
        self.breaker_open.set(i64::from(breaker_open));
        self.disabled.set(i64::from(disabled));
    }
}
