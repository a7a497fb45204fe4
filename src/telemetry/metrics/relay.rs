//! The words of document 3 for what ingest, the sources and the pages do.
//!
//! `user_id` is the tenant; `message_type` is the last plain level of the topic
//! template that took the message (`telemetry`), at most
//! [`MESSAGE_TYPES_MAX`] of them, the rest `other`. The rest of the document
//! (`db_`, `http_`, `consumer_connections`) is its own parts'. Registered when
//! `metrics.views` has `relay`; fed in any case, as the feeding costs an
//! increment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::ingest::Reason;

/// Message types with children of their own.
pub(super) const MESSAGE_TYPES_MAX: usize = 16;

/// The message type of all above [`MESSAGE_TYPES_MAX`].
const OTHER: &str = "other";

/// The families of document 3. Cloning gives another handle.
#[derive(Clone)]
pub struct Relay {
    received: IntCounterVec,
    processed: IntCounterVec,
    failed: IntCounterVec,
    /// Messages of a tenant that wait for their commit.
    pub(super) buffer_size: IntGaugeVec,
    /// How many may.
    pub(super) buffer_capacity: IntGaugeVec,
    /// Connected sources and `pushing` together, at the time of the question.
    edge_relay_connections: IntGauge,
    connected: IntGaugeVec,
    /// Push requests under way. Set by the push source.
    pub pushing: IntGauge,
    /// Connections that have asked the pages or the API for something. Set by the web part.
    pub active_sessions: IntGauge,
    /// Sessions that began.
    pub sessions_created: IntCounter,
    /// Sessions that ended.
    pub sessions_ended: IntCounter,
    kinds: Arc<Mutex<Vec<Kind>>>,
}

/// A message type and its instruments. Cloning gives another handle.
#[derive(Clone)]
pub struct Kind(Arc<KindInner>);

struct KindInner {
    name: String,
    index: usize,
    processed: IntCounter,
    failed: [IntCounter; 12],
}

impl Relay {
    pub(super) fn new(connected: IntGaugeVec) -> Relay {
        Relay {
            received: counter_vec(
                "messages_received_total",
                "Messages handed over by a source.",
                &["message_type", "user_id"],
            ),
            processed: counter_vec(
                "messages_processed_total",
                "Messages whose samples are stored.",
                &["message_type"],
            ),
            failed: counter_vec(
                "messages_failed_total",
                "Messages refused by reason.",
                &["message_type", "error_type"],
            ),
            buffer_size: gauge_vec(
                "buffer_size",
                "Messages of the tenant that wait for their commit.",
            ),
            buffer_capacity: gauge_vec(
                "buffer_capacity",
                "Messages of the tenant that may wait for their commit.",
            ),
            edge_relay_connections: gauge(
                "edge_relay_connections",
                "Live inputs: connected brokers and push clients.",
            ),
            connected,
            pushing: gauge("pushing", "Push requests under way."),
            active_sessions: gauge(
                "active_sessions",
                "Open connections that have asked the pages or the API for something.",
            ),
            sessions_created: counter("sessions_created_total", "Sessions that began."),
            sessions_ended: counter("sessions_ended_total", "Sessions that ended."),
            kinds: Arc::default(),
        }
    }

    /// The message type of that name, or the one that all above the cap share.
    pub(super) fn kind(&self, name: &str) -> Kind {
        let mut kinds = self.lock();
        let name = if kinds.len() < MESSAGE_TYPES_MAX {
            name
        } else {
            OTHER
        };
        if let Some(kind) = kinds.iter().find(|kind| kind.0.name == name) {
            return kind.clone();
        }
        let kind = Kind(Arc::new(KindInner {
            name: name.to_owned(),
            index: kinds.len(),
            processed: self.processed.with_label_values(&[name]),
            failed: Reason::ALL
                .map(|reason| self.failed.with_label_values(&[name, reason.as_str()])),
        }));
        kinds.push(kind.clone());
        kind
    }

    /// The message types so far.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn received(&self, kind: &Kind, tenant: &str) -> IntCounter {
        self.received.with_label_values(&[&kind.0.name, tenant])
    }

    fn parts(&self) -> [&dyn Collector; 9] {
        [
            &self.received,
            &self.processed,
            &self.failed,
            &self.buffer_size,
            &self.buffer_capacity,
            &self.edge_relay_connections,
            &self.active_sessions,
            &self.sessions_created,
            &self.sessions_ended,
        ]
    }
}

impl Kind {
    /// From 0, below `MESSAGE_TYPES_MAX + 1`.
    pub(super) fn index(&self) -> usize {
        self.0.index
    }

    pub(super) fn processed(&self) {
        self.0.processed.inc();
    }

    pub(super) fn failed(&self, reason: Reason) {
        self.0.failed[reason as usize].inc();
    }
}

impl Collector for Relay {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().iter().flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let sources = self.connected.collect();
        let connected = sources.iter().flat_map(|family| family.get_metric());
        let connected = connected
            .filter(|m| m.get_gauge().get_value() > 0.0)
            .count();
        let connected = i64::try_from(connected).unwrap_or(i64::MAX);
        self.edge_relay_connections
            .set(connected + self.pushing.get());
        self.parts()
            .iter()
            .flat_map(|part| part.collect())
            .collect()
    }
}

const FIXED: &str = "BUG: a bad metric name";

fn counter_vec(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(FIXED)
}

fn gauge_vec(name: &str, help: &str) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), &["user_id"]).expect(FIXED)
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect(FIXED)
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect(FIXED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_types_above_the_cap_are_other() {
        let connected = IntGaugeVec::new(Opts::new("up", "help"), &["source"]).unwrap();
        let relay = Relay::new(connected);
        for i in 0..MESSAGE_TYPES_MAX {
            assert_eq!(relay.kind(&format!("t{i}")).index(), i);
        }
        assert_eq!(relay.kind("one-more").index(), MESSAGE_TYPES_MAX);
        assert_eq!(relay.kind("yet-another").0.name, OTHER);
    }

    #[test]
    fn live_inputs_are_connected_sources_and_push_requests() {
        let connected = IntGaugeVec::new(Opts::new("up", "help"), &["source"]).unwrap();
        let relay = Relay::new(connected.clone());
        connected.with_label_values(&["a"]).set(1);
        connected.with_label_values(&["b"]).set(0);
        relay.pushing.inc();
        let families = relay.collect();
        let family = families
            .iter()
            .find(|f| f.name() == "edge_relay_connections");
        let metric = &family.unwrap().get_metric()[0];
        assert_eq!(metric.get_gauge().get_value(), 2.0);
    }
}
