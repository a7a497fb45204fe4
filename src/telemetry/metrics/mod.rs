//! Our own instruments, one struct for each part, in a registry of our own.
//!
//! One fact is counted once. Children with fixed labels are made at start, so
//! that zero is visible before the first event.

mod anchors;
mod clock;
mod delivery;
mod family;
mod http;
mod ingest;
mod onboarding;
mod process;
mod push;
mod relay;
mod reload;
mod rules;
mod service;
mod sources;
mod store;
mod tenants;

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

pub use clock::ClockState;
pub use delivery::Delivery;
pub use family::FamilyBuilder;
pub use http::Http;
pub use ingest::{Ending, Ingest, Meter, Reason, UNKNOWN_TENANT};
pub use onboarding::{Onboarding, Registered, Registrations};
pub use push::{Protocol, Push, PushMeter, PushReason};
pub use relay::{Kind, Relay};
pub use reload::Reload;
pub use rules::Rules;
pub use service::{Service, ServiceName};
pub use sources::{Consumer, Mqtt, Nats, Sources};
pub(crate) use store::ROLLUPS as STORE_ROLLUPS;
pub use store::Store;
#[cfg(test)]
pub(crate) use store::TABLES as STORE_TABLES;
pub(crate) use store::{CAUSES as STORE_CAUSES, REFUSALS as STORE_REFUSALS};
pub use tenants::Tenants;

/// The default buckets of the Python client, which the documents' code uses.
pub const PYTHON_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// What all families of the host start with, and no other family does.
pub const HOST_PREFIX: &str = "node_";

/// The tenant label value of all tenants above `metrics.max_tenants`.
pub const OVERFLOW_TENANT: &str = "__overflow__";

/// All instruments of the process. Handed around in an `Arc`.
pub struct Metrics {
    registry: Registry,
    /// Messages coming in.
    pub ingest: Ingest,
    /// Samples pushed over HTTP.
    pub push: Push,
    /// Deliveries going out.
    pub delivery: Delivery,
    /// The store.
    pub store: Store,
    /// Brokers and other sources.
    pub sources: Sources,
    /// Rule groups and alerts.
    pub rules: Rules,
    /// Queues, cycles and permits by service (document 4).
    pub service: Service,
    /// How the configuration was read last.
    pub reload: Reload,
    /// Our own HTTP server.
    pub http: Http,
    /// Which tenants are counted by name.
    pub tenants: Tenants,
    /// Restarts of panicked tasks by `task`.
    pub task_restarts: IntCounterVec,
}

impl Metrics {
    /// Makes and registers all instruments.
    pub fn new() -> Arc<Metrics> {
        let registry = Registry::new();
        let r = &registry;
        process::register(r);
        let sources = Sources::new(r);
        let ingest = Ingest::new(r, &sources.up);
        let store = Store::new(r);
        anchors::register(r, &store, &ingest.samples);
        Arc::new(Metrics {
            ingest,
            push: Push::new(r),
            delivery: Delivery::new(r),
            store,
            sources,
            rules: Rules::new(r),
            service: Service::new(r),
            reload: Reload::new(r),
            http: Http::new(r),
            tenants: Tenants::new(),
            task_restarts: counters(
                r,
                "pulse_task_restarts_total",
                "Restarts of a task after a panic.",
                &["task"],
            ),
            registry,
        })
    }

    /// Adds a collector whose families are made when they are asked for.
    pub fn register(&self, collector: Box<dyn Collector>) {
        self.registry
            .register(collector)
            .expect("BUG: two collectors with the same families");
    }

    /// All families, sorted by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

/// A counter with labels.
pub(crate) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> IntCounterVec {
    registered(
        registry,
        IntCounterVec::new(Opts::new(name, help), labels).expect("BUG: a bad metric name"),
    )
}

/// A gauge with labels.
pub(crate) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(
        registry,
        IntGaugeVec::new(Opts::new(name, help), labels).expect("BUG: a bad metric name"),
    )
}

/// A histogram with labels.
pub(crate) fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(
        registry,
        HistogramVec::new(opts, labels).expect("BUG: a bad metric name"),
    )
}

/// Registers an instrument and gives it back.
pub(crate) fn registered<C: Collector + Clone + 'static>(registry: &Registry, instrument: C) -> C {
    registry
        .register(Box::new(instrument.clone()))
        .expect("BUG: two instruments of one name");
    instrument
}
