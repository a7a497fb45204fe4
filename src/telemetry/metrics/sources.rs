//! Instruments of brokers and other sources.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{counters, gauges};

/// Why a source itself drops a message: `reason` of `pulse_mqtt_dropped_total`
/// and `pulse_nats_dropped_total`.
const DROP_REASONS: [&str; 2] = ["overload", "size"];

/// Instruments of brokers and other sources. Children are made when a source
/// starts and removed when a reload takes it away.
pub struct Sources {
    pub(super) up: IntGaugeVec,
    mqtt_received: IntCounterVec,
    mqtt_redelivered: IntCounterVec,
    mqtt_unacked: IntGaugeVec,
    mqtt_queue_bytes: IntGaugeVec,
    mqtt_stale_acks: IntCounterVec,
    mqtt_epoch: IntGaugeVec,
    mqtt_reconnects: IntCounterVec,
    mqtt_dropped: IntCounterVec,
    nats_received: IntCounterVec,
    nats_redelivered: IntCounterVec,
    nats_unacked: IntGaugeVec,
    nats_queue_bytes: IntGaugeVec,
    nats_reconnects: IntCounterVec,
    nats_dropped: IntCounterVec,
    nats_slow_consumers: IntCounterVec,
    nats_consumer_pending: IntGaugeVec,
    nats_consumer_ack_pending: IntGaugeVec,
    nats_consumer_redelivered: IntGaugeVec,
}

/// Instruments of one MQTT source.
pub struct Mqtt {
    /// Whether it is connected and subscribed.
    pub up: IntGauge,
    /// Messages received, redeliveries included.
    pub received: IntCounter,
    /// Those that the broker says it has sent before.
    pub redelivered: IntCounter,
    /// Messages received and not answered yet.
    pub unacked: IntGauge,
    /// Their bytes in memory.
    pub queue_bytes: IntGauge,
    /// Acknowledgements withheld because their connection was gone.
    pub stale_acks: IntCounter,
    /// The number of the connection.
    pub epoch: IntGauge,
    /// Connections after the first one.
    pub reconnects: IntCounter,
    /// Messages dropped because the queue was full.
    pub dropped_overload: IntCounter,
    /// Messages above the maximum packet size.
    pub dropped_size: IntCounter,
}

/// Instruments of one NATS source.
pub struct Nats {
    /// Whether it is connected and subscribed.
    pub up: IntGauge,
    /// Messages received, redeliveries included.
    pub received: IntCounter,
    /// Those that were delivered before.
    pub redelivered: IntCounter,
    /// Messages received and not answered yet.
    pub unacked: IntGauge,
    /// Their bytes in memory.
    pub queue_bytes: IntGauge,
    /// Connections after the first one.
    pub reconnects: IntCounter,
    /// Messages dropped because the queue was full.
    pub dropped_overload: IntCounter,
    /// Times the client said that it could not keep up.
    pub slow_consumers: IntCounter,
}

/// What JetStream says of one consumer.
pub struct Consumer {
    /// Messages in the stream that were not delivered yet.
    pub pending: IntGauge,
    /// Delivered and not acknowledged.
    pub ack_pending: IntGauge,
    /// Delivered more than once and not acknowledged.
    pub redelivered: IntGauge,
}

impl Sources {
    pub(super) fn new(r: &Registry) -> Sources {
        let source = &["source"];
        let consumer = &["stream", "consumer"];
        Sources {
            up: gauges(
                r,
                "pulse_source_up",
                "Whether a source is connected and subscribed.",
                &["source", "kind"],
            ),
            mqtt_received: counters(
                r,
                "pulse_mqtt_received_total",
                "Messages received from an MQTT broker, redeliveries included.",
                source,
            ),
            mqtt_redelivered: counters(
                r,
                "pulse_mqtt_redelivered_total",
                "Messages that the broker says it has sent before.",
                source,
            ),
            mqtt_unacked: gauges(
                r,
                "pulse_mqtt_unacked",
                "Messages received and not answered yet.",
                source,
            ),
            mqtt_queue_bytes: gauges(
                r,
                "pulse_mqtt_queue_bytes",
                "Memory of messages received and not answered yet.",
                source,
            ),
            mqtt_stale_acks: counters(
                r,
                "pulse_mqtt_stale_acks_total",
                "Acknowledgements withheld because their connection was gone.",
                source,
            ),
            mqtt_epoch: gauges(
                r,
                "pulse_mqtt_epoch",
                "The number of the connection since the start.",
                source,
            ),
            mqtt_reconnects: counters(
                r,
                "pulse_mqtt_reconnects_total",
                "Connections after the first one.",
                source,
            ),
            mqtt_dropped: counters(
                r,
                "pulse_mqtt_dropped_total",
                "Messages that never reached ingest.",
                &["source", "reason"],
            ),
            nats_received: counters(
                r,
                "pulse_nats_received_total",
                "Messages received from a NATS server, redeliveries included.",
                source,
            ),
            nats_redelivered: counters(
                r,
                "pulse_nats_redelivered_total",
                "Messages that the server delivered before.",
                source,
            ),
            nats_unacked: gauges(
                r,
                "pulse_nats_unacked",
                "Messages received and not answered yet.",
                source,
            ),
            nats_queue_bytes: gauges(
                r,
                "pulse_nats_queue_bytes",
                "Memory of messages received and not answered yet.",
                source,
            ),
            nats_reconnects: counters(
                r,
                "pulse_nats_reconnects_total",
                "Connections after the first one.",
                source,
            ),
            nats_dropped: counters(
                r,
                "pulse_nats_dropped_total",
                "Messages that never reached ingest.",
                &["source", "reason"],
            ),
            nats_slow_consumers: counters(
                r,
                "pulse_nats_slow_consumer_events_total",
                "Times the client dropped messages because we did not keep up.",
                source,
            ),
            nats_consumer_pending: gauges(
                r,
                "pulse_nats_consumer_pending",
                "Messages of the stream that the consumer was not sent yet.",
                consumer,
            ),
            nats_consumer_ack_pending: gauges(
                r,
                "pulse_nats_consumer_ack_pending",
                "Messages sent to the consumer and not acknowledged.",
                consumer,
            ),
            nats_consumer_redelivered: gauges(
                r,
                "pulse_nats_consumer_redelivered",
                "Messages sent to the consumer more than once and not acknowledged.",
                consumer,
            ),
        }
    }

    /// Makes the children of an MQTT source.
    pub fn mqtt(&self, source: &str) -> Mqtt {
        let dropped = |reason| self.mqtt_dropped.with_label_values(&[source, reason]);
        let source = &[source];
        Mqtt {
            up: self.up.with_label_values(&[source[0], "mqtt"]),
            received: self.mqtt_received.with_label_values(source),
            redelivered: self.mqtt_redelivered.with_label_values(source),
            unacked: self.mqtt_unacked.with_label_values(source),
            queue_bytes: self.mqtt_queue_bytes.with_label_values(source),
            stale_acks: self.mqtt_stale_acks.with_label_values(source),
            epoch: self.mqtt_epoch.with_label_values(source),
            reconnects: self.mqtt_reconnects.with_label_values(source),
            dropped_overload: dropped(DROP_REASONS[0]),
            dropped_size: dropped(DROP_REASONS[1]),
        }
    }

    /// Makes the children of a NATS source.
    pub fn nats(&self, source: &str) -> Nats {
        let source = &[source];
        Nats {
            up: self.up.with_label_values(&[source[0], "nats"]),
            received: self.nats_received.with_label_values(source),
            redelivered: self.nats_redelivered.with_label_values(source),
            unacked: self.nats_unacked.with_label_values(source),
            queue_bytes: self.nats_queue_bytes.with_label_values(source),
            reconnects: self.nats_reconnects.with_label_values(source),
            dropped_overload: self
                .nats_dropped
                .with_label_values(&[source[0], DROP_REASONS[0]]),
            slow_consumers: self.nats_slow_consumers.with_label_values(source),
        }
    }

    /// Makes the children of a JetStream consumer.
    pub fn consumer(&self, stream: &str, consumer: &str) -> Consumer {
        let labels = &[stream, consumer];
        Consumer {
            pending: self.nats_consumer_pending.with_label_values(labels),
            ack_pending: self.nats_consumer_ack_pending.with_label_values(labels),
            redelivered: self.nats_consumer_redelivered.with_label_values(labels),
        }
    }

    /// Whether another kind of source works, for those without instruments of their own.
    pub fn up(&self, source: &str, kind: &str) -> IntGauge {
        self.up.with_label_values(&[source, kind])
    }

    /// Removes what [`Sources::mqtt`] made.
    pub fn remove_mqtt(&self, source: &str) {
        // An error only says that there is no such child.
        let _ = self.up.remove_label_values(&[source, "mqtt"]);
        for counter in [
            &self.mqtt_received,
            &self.mqtt_redelivered,
            &self.mqtt_stale_acks,
            &self.mqtt_reconnects,
        ] {
            let _ = counter.remove_label_values(&[source]);
        }
        for gauge in [&self.mqtt_unacked, &self.mqtt_queue_bytes, &self.mqtt_epoch] {
            let _ = gauge.remove_label_values(&[source]);
        }
        for reason in DROP_REASONS {
            let _ = self.mqtt_dropped.remove_label_values(&[source, reason]);
        }
    }

    /// Removes what [`Sources::nats`] made.
    pub fn remove_nats(&self, source: &str) {
        let _ = self.up.remove_label_values(&[source, "nats"]);
        for counter in [
            &self.nats_received,
            &self.nats_redelivered,
            &self.nats_reconnects,
            &self.nats_slow_consumers,
        ] {
            let _ = counter.remove_label_values(&[source]);
        }
        for gauge in [&self.nats_unacked, &self.nats_queue_bytes] {
            let _ = gauge.remove_label_values(&[source]);
        }
        let _ = self
            .nats_dropped
            .remove_label_values(&[source, DROP_REASONS[0]]);
    }

    /// Removes what [`Sources::consumer`] made.
    pub fn remove_consumer(&self, stream: &str, consumer: &str) {
        for gauge in [
            &self.nats_consumer_pending,
            &self.nats_consumer_ack_pending,
            &self.nats_consumer_redelivered,
        ] {
            let _ = gauge.remove_label_values(&[stream, consumer]);
        }
    }
}
