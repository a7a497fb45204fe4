//! Instruments of ingest: how every message ended, by tenant.
//!
//! A message is counted at its final outcome, in [`Meter::end`] and nowhere
//! else; the families of document 3 that tell the same by message type are fed
//! by the same call ([`super::Relay`]). A message that the broker shall send
//! again has not ended: only its reason is counted.
//!
//! Tenants are open-ended; which of them have a label of their own is decided
//! by [`super::Tenants`]. Histograms cost 17 series each and are capped at
//! [`HISTOGRAM_TENANTS_MAX`] on top of that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::onboarding::{Onboarding, Registrations};
use super::relay::{Kind, MESSAGE_TYPES_MAX, Relay};
use super::{OVERFLOW_TENANT, PYTHON_BUCKETS, counters, histograms, registered};
use crate::model::tenant::DEFAULT_TENANT;

/// How a message can end: `result` of `pulse_ingest_messages_total`.
pub(crate) const RESULTS: [&str; 4] = ["accepted", "rejected", "duplicate", "throttled"];

/// The tenant label of messages whose tenant could not be told.
pub const UNKNOWN_TENANT: &str = "_unknown";

/// Tenants with a histogram of their own.
const HISTOGRAM_TENANTS_MAX: usize = 50;

/// Why a message can be refused: `reason` of `pulse_ingest_rejected_total`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// The payload is larger than `limits.payload_max`.
    Size,
    /// The tenant is switched off, or the payload or the credential names another one.
    Tenant,
    /// No `[[ingest.map]]` has a topic of this form, or a level is not a plain name.
    Topic,
    /// Over the tenant's messages per second.
    Quota,
    /// Not what the map expects: bad JSON, too deep, no values.
    Parse,
    /// Not UTF-8.
    Encoding,
    /// The time cannot be read, is too far in the future, or too old.
    Timestamp,
    /// The tenant or the store has as many series as it may.
    SeriesLimit,
    /// More values than `limits.samples_per_message_max`.
    SampleLimit,
    /// Another value is stored at the same time; the first one is kept.
    Conflict,
    /// Too many of the tenant's messages wait for their commit.
    Overload,
    /// The store did not take it.
    Storage,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 12] = [
        Reason::Size,
        Reason::Tenant,
        Reason::Topic,
        Reason::Quota,
        Reason::Parse,
        Reason::Encoding,
        Reason::Timestamp,
        Reason::SeriesLimit,
        Reason::SampleLimit,
        Reason::Conflict,
        Reason::Overload,
        Reason::Storage,
    ];

    /// The label value, also the `reason` of a dead letter.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Size => "size",
            Reason::Tenant => "tenant",
            Reason::Topic => "topic",
            Reason::Quota => "quota",
            Reason::Parse => "parse",
            Reason::Encoding => "encoding",
            Reason::Timestamp => "timestamp",
            Reason::SeriesLimit => "series_limit",
            Reason::SampleLimit => "sample_limit",
            Reason::Conflict => "conflict",
            Reason::Overload => "overload",
            Reason::Storage => "storage",
        }
    }

    /// Whether the refused message is kept as a dead letter. Quota and overload
    /// are not: the dead letters would multiply the load that they defend against.
    pub fn is_kept(self) -> bool {
        !matches!(self, Reason::Quota | Reason::Overload | Reason::Storage)
    }
}

/// How a message ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// At least one of its samples was new, and all of them are stored.
    Accepted,
    /// All of its samples were stored before.
    Duplicate,
    /// Refused for good.
    Rejected(Reason),
    /// Not stored; it has to come again.
    Retry(Reason),
}

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
    /// Registrations of devices.
    pub onboarding: Onboarding,
    /// The words of document 3.
    pub relay: Relay,
    meters: Mutex<HashMap<String, Arc<Meter>>>,
}

/// The instruments of one tenant, found once and kept.
pub struct Meter {
    tenant: String,
    results: [IntCounter; 4],
    reasons: [IntCounter; 12],
    received: [OnceLock<IntCounter>; MESSAGE_TYPES_MAX + 1],
    /// Time of the commits that carried its rows.
    pub batch_write: Histogram,
    /// Samples stored.
    pub samples: IntCounter,
    /// Messages that wait for their commit.
    pub waiting: IntGauge,
    /// How many may.
    pub capacity: IntGauge,
    /// Registrations of its devices.
    pub registrations: Registrations,
}

impl Ingest {
    /// `up` says of each source whether it is connected.
    pub(super) fn new(r: &Registry, up: &IntGaugeVec) -> Ingest {
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
                "Refused messages by reason; overload and storage count each hand-over that has to come again.",
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
            onboarding: Onboarding::new(r),
            relay: Relay::new(up.clone()),
            meters: Mutex::default(),
        };
        ingest.add_tenant(DEFAULT_TENANT);
        ingest
    }

    /// Makes a tenant's children, so that its zeros are visible.
    pub fn add_tenant(&self, label: &str) {
        self.meter(label);
    }

    /// The instruments of a tenant; `label` is what [`super::Tenants::label`]
    /// says. Takes a lock: call it once for a tenant and keep the answer.
    pub fn meter(&self, label: &str) -> Arc<Meter> {
        let mut meters = self.meters();
        if let Some(meter) = meters.get(label) {
            return Arc::clone(meter);
        }
        let histogram = match meters.len() {
            0..HISTOGRAM_TENANTS_MAX => label,
            _ => OVERFLOW_TENANT,
        };
        let meter = Arc::new(self.new_meter(label, histogram));
        for kind in self.relay.kinds() {
            self.received(&meter, &kind);
        }
        meters.insert(label.to_owned(), Arc::clone(&meter));
        meter
    }

    /// Makes the message type's children for every tenant known so far.
    pub fn add_message_type(&self, name: &str) -> Kind {
        let kind = self.relay.kind(name);
        for meter in self.meters().values() {
            self.received(meter, &kind);
        }
        kind
    }

    /// Counts a message that was handed over.
    pub fn count_received(&self, meter: &Meter, kind: &Kind) {
        self.received(meter, kind).inc();
    }

    fn received<'m>(&self, meter: &'m Meter, kind: &Kind) -> &'m IntCounter {
        meter.received[kind.index()].get_or_init(|| self.relay.received(kind, &meter.tenant))
    }

    fn meters(&self) -> MutexGuard<'_, HashMap<String, Arc<Meter>>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_meter(&self, tenant: &str, histogram: &str) -> Meter {
        Meter {
            tenant: tenant.to_owned(),
            results: RESULTS.map(|result| self.messages.with_label_values(&[tenant, result])),
            reasons: Reason::ALL
                .map(|reason| self.rejected.with_label_values(&[tenant, reason.as_str()])),
            received: std::array::from_fn(|_| OnceLock::new()),
            batch_write: self.batch_write_seconds.with_label_values(&[histogram]),
            samples: self.samples.with_label_values(&[tenant]),
            waiting: self.relay.buffer_size.with_label_values(&[tenant]),
            capacity: self.relay.buffer_capacity.with_label_values(&[tenant]),
            registrations: self.onboarding.of(tenant, histogram),
        }
    }
}

impl Meter {
    /// The label value under which this tenant is counted.
    pub fn label(&self) -> &str {
        &self.tenant
    }

    /// Counts a message: the one place where endings are counted.
    pub fn end(&self, kind: &Kind, ending: Ending) {
        match ending {
            Ending::Accepted => self.results[0].inc(),
            Ending::Duplicate => self.results[2].inc(),
            Ending::Rejected(Reason::Quota) => self.results[3].inc(),
            Ending::Rejected(_) => self.results[1].inc(),
            Ending::Retry(_) => {}
        }
        match ending {
            Ending::Accepted | Ending::Duplicate => kind.processed(),
            Ending::Rejected(reason) => {
                self.reasons[reason as usize].inc();
                kind.failed(reason);
            }
            Ending::Retry(reason) => self.reasons[reason as usize].inc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector as _;

    use super::*;
    use crate::telemetry::metrics::gauges;

    fn new() -> Ingest {
        let r = Registry::new();
        Ingest::new(&r, &gauges(&r, "up", "help", &["source"]))
    }

    #[test]
    fn only_the_first_tenants_have_a_histogram_of_their_own() {
        let ingest = new();
        for i in 0..2 * HISTOGRAM_TENANTS_MAX {
            ingest.meter(&format!("t{i}"));
        }
        let families = ingest.batch_write_seconds.collect();
        // The default tenant is one of the first; the rest share one.
        let children = families[0].get_metric().len();
        assert_eq!(children, HISTOGRAM_TENANTS_MAX + 1);
    }

    #[test]
    fn a_message_ends_once() {
        let ingest = new();
        let meter = ingest.meter("a");
        let kind = ingest.add_message_type("telemetry");
        for ending in [
            Ending::Accepted,
            Ending::Duplicate,
            Ending::Rejected(Reason::Parse),
            Ending::Rejected(Reason::Quota),
            Ending::Retry(Reason::Overload),
        ] {
            meter.end(&kind, ending);
        }
        let result = |r: &str| ingest.messages.with_label_values(&["a", r]).get();
        assert_eq!(RESULTS.map(result), [1, 1, 1, 1]);
        let reason = |r: &str| ingest.rejected.with_label_values(&["a", r]).get();
        assert_eq!(["parse", "quota", "overload"].map(reason), [1, 1, 1]);
    }

    #[test]
    fn reasons_are_indexed_in_their_order() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }
}
