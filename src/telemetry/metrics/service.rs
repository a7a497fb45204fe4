//! Queues, cycles and permits of each service (document 4).

use prometheus::{HistogramVec, IntGauge, IntGaugeVec, Registry};

use super::{gauges, histograms};

/// The buckets that document 4 asks for.
const DURATION_BUCKETS: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The parts of the process, in the documents' words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ServiceName {
    /// Messages in.
    Ingest,
    /// Rule groups.
    Evaluator,
    /// Alert notifications.
    Dispatcher,
    /// The outbox.
    DeliveryWorker,
    /// Retention and other upkeep.
    OpsWorker,
    /// Pages and API.
    UiApi,
}

impl ServiceName {
    /// All services.
    pub const ALL: [ServiceName; 6] = [
        ServiceName::Ingest,
        ServiceName::Evaluator,
        ServiceName::Dispatcher,
        ServiceName::DeliveryWorker,
        ServiceName::OpsWorker,
        ServiceName::UiApi,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceName::Ingest => "ingest",
            ServiceName::Evaluator => "evaluator",
            ServiceName::Dispatcher => "dispatcher",
            ServiceName::DeliveryWorker => "delivery_worker",
            ServiceName::OpsWorker => "ops_worker",
            ServiceName::UiApi => "ui_api",
        }
    }
}

/// The queues that exist: service and `queue_name`.
const QUEUES: [(ServiceName, &str); 6] = [
    (ServiceName::Ingest, "ingest_batch"),
    (ServiceName::Evaluator, "devices_to_evaluate"),
    (ServiceName::Dispatcher, "pending_alerts"),
    (ServiceName::DeliveryWorker, "pending_jobs"),
    (ServiceName::DeliveryWorker, "pending_notification_jobs"),
    (ServiceName::Ingest, "onboarding"),
];

/// The cycles that are timed: service and `operation`.
const OPERATIONS: [(ServiceName, &str); 6] = [
    (ServiceName::Evaluator, "evaluation_cycle"),
    (ServiceName::Dispatcher, "dispatch_cycle"),
    (ServiceName::DeliveryWorker, "delivery_attempt"),
    (ServiceName::OpsWorker, "retention"),
    (ServiceName::Ingest, "commit"),
    (ServiceName::UiApi, "render"),
];

/// Queues, cycles and permits by service.
pub struct Service {
    queue_depth: IntGaugeVec,
    processing: HistogramVec,
    /// Permits of the store access by service: how many queries or transactions it may hold.
    pub pool_size: IntGaugeVec,
    /// Those that are free.
    pub pool_free: IntGaugeVec,
    /// The configured maximum.
    pub pool_max: IntGaugeVec,
}

impl Service {
    pub(super) fn new(r: &Registry) -> Service {
        let service = Service {
            queue_depth: gauges(
                r,
                "pulse_queue_depth",
                "Entries waiting in an internal queue.",
                &["service", "queue_name"],
            ),
            processing: histograms(
                r,
                "pulse_processing_duration_seconds",
                "Time of one processing cycle, failed ones included.",
                &DURATION_BUCKETS,
                &["service", "operation"],
            ),
            pool_size: gauges(
                r,
                "pulse_db_pool_size",
                "Permits for access to the store.",
                &["service"],
            ),
            pool_free: gauges(
                r,
                "pulse_db_pool_free",
                "Free permits for access to the store.",
                &["service"],
            ),
            pool_max: gauges(
                r,
                "pulse_db_pool_max",
                "Largest number of permits for access to the store.",
                &["service"],
            ),
        };
        for (name, queue) in QUEUES {
            service.queue(name, queue);
        }
        for (name, operation) in OPERATIONS {
            service.observe(name, operation);
        }
        for name in ServiceName::ALL {
            service.set_pool(name, 1, 1);
        }
        service
    }

    /// The depth gauge of a queue.
    pub fn queue(&self, service: ServiceName, queue_name: &str) -> IntGauge {
        self.queue_depth
            .with_label_values(&[service.as_str(), queue_name])
    }

    /// The duration histogram of an operation.
    pub fn observe(&self, service: ServiceName, operation: &str) -> prometheus::Histogram {
        self.processing
            .with_label_values(&[service.as_str(), operation])
    }

    /// Sets the permits of a service; its maximum is its size.
    pub fn set_pool(&self, service: ServiceName, size: usize, free: usize) {
        let label = &[service.as_str()];
        let [size, free] = [size, free].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        self.pool_size.with_label_values(label).set(size);
        self.pool_max.with_label_values(label).set(size);
        self.pool_free.with_label_values(label).set(free);
    }
}
