//! Instruments of samples that were pushed over HTTP: remote_write and text.
//!
//! The requests themselves are counted with all others, by route and status.

use prometheus::{IntCounter, Registry};

use super::counters;

/// How samples are pushed: `protocol` of the families.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// Prometheus remote_write.
    RemoteWrite,
    /// Prometheus text.
    Text,
}

impl Protocol {
    const ALL: [Protocol; 2] = [Protocol::RemoteWrite, Protocol::Text];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::RemoteWrite => "remote_write",
            Protocol::Text => "text",
        }
    }
}

/// Why a pushed sample is refused: `reason` of
/// `pulse_push_rejected_total`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PushReason {
    /// No metric name, a name twice, a name of our own, or more or longer labels than
    /// `[limits]` allows.
    Labels,
    /// The series names another tenant than the one that the request may write for, or
    /// what is no tenant's name.
    Tenant,
    /// Too far in the future, or too old.
    Timestamp,
    /// Another value is stored at the same time; the first one is kept.
    Conflict,
    /// The tenant or the store has as many series as it may.
    SeriesLimit,
    /// The request came above its tenant's samples per second, or those of all: nothing
    /// of it is stored.
    Quota,
    /// A native histogram whose parts do not fit together, or whose buckets are
    /// spread too wide.
    Histogram,
    /// An exemplar: not stored, and not an error.
    Exemplar,
}

impl PushReason {
    /// All reasons.
    pub const ALL: [PushReason; 8] = [
        PushReason::Labels,
        PushReason::Tenant,
        PushReason::Timestamp,
        PushReason::Conflict,
        PushReason::SeriesLimit,
        PushReason::Quota,
        PushReason::Histogram,
        PushReason::Exemplar,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            PushReason::Labels => "labels",
            PushReason::Tenant => "tenant",
            PushReason::Timestamp => "timestamp",
            PushReason::Conflict => "conflict",
            PushReason::SeriesLimit => "series_limit",
            PushReason::Quota => "quota",
            PushReason::Histogram => "histogram",
            PushReason::Exemplar => "exemplar",
        }
    }
}

/// Samples pushed over HTTP.
pub struct Push {
    meters: [PushMeter; Protocol::ALL.len()],
}

/// The instruments of one protocol.
pub struct PushMeter {
    /// Samples that are new and stored.
    pub accepted: IntCounter,
    /// Samples that were stored before with the same value.
    pub duplicates: IntCounter,
    rejected: [IntCounter; PushReason::ALL.len()],
}

impl Push {
    pub(super) fn new(r: &Registry) -> Push {
        let samples = counters(
            r,
            "pulse_push_samples_total",
            "Samples of remote_write and text pushes that are stored, by result.",
            &["protocol", "result"],
        );
        let rejected = counters(
            r,
            "pulse_push_rejected_total",
            "Samples, native histograms and exemplars of pushes that are not stored, by reason.",
            &["protocol", "reason"],
        );
        let meters = Protocol::ALL.map(|protocol| {
            let protocol = protocol.as_str();
            PushMeter {
                accepted: samples.with_label_values(&[protocol, "accepted"]),
                duplicates: samples.with_label_values(&[protocol, "duplicate"]),
                rejected: PushReason::ALL
                    .map(|reason| rejected.with_label_values(&[protocol, reason.as_str()])),
            }
        });
        Push { meters }
    }

    /// The instruments of a protocol.
    pub fn of(&self, protocol: Protocol) -> &PushMeter {
        &self.meters[protocol as usize]
    }
}

impl PushMeter {
    /// Samples refused for this reason.
    pub fn rejected(&self, reason: PushReason) -> &IntCounter {
        &self.rejected[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_indexed_in_their_order() {
        let orders = PushReason::ALL.iter().map(|r| *r as usize);
        assert!(orders.eq(0..PushReason::ALL.len()));
        let push = Push::new(&Registry::new());
        let text = push.of(Protocol::Text);
        text.rejected(PushReason::Conflict).inc();
        assert_eq!(text.rejected[3].get(), 1);
        assert_eq!(push.of(Protocol::RemoteWrite).rejected[3].get(), 0);
    }
}
