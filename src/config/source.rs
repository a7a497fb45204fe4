//! `[[source.KIND]]` and `[ingest]`: where messages come from and what they mean.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Secret, Size, Span};

/// `[[source.KIND]]`: every way in that has to be configured.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sources {
    /// `[[source.mqtt]]`
    pub mqtt: Vec<Mqtt>,
    /// `[[source.nats]]`
    pub nats: Vec<Nats>,
}

/// How to trust a server and how to prove who we are.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificates to trust, PEM. Without it: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
}

/// The MQTT protocol version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub enum MqttProtocol {
    /// MQTT 5.
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1, for brokers that refuse 5.
    #[serde(rename = "3.1.1")]
    V3,
}

/// `[[source.mqtt]]`: a subscription at one broker.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// Names the source in metrics, pages and logs.
    pub name: String,
    /// `mqtt://HOST:PORT` or `mqtts://HOST:PORT`.
    pub url: String,
    /// The protocol version.
    #[serde(default)]
    pub protocol: MqttProtocol,
    /// Topic filters.
    #[serde(default = "default_mqtt_topics")]
    pub topics: Vec<String>,
    /// 0 or 1; 2 is refused (exactly-once comes from the store).
    #[serde(default = "default_qos")]
    pub qos: u8,
    /// Must stay the same over restarts, and be nobody else's. Default: `pulse-HOSTNAME-NAME`.
    #[serde(default)]
    pub client_id: Option<String>,
    /// User name.
    #[serde(default)]
    pub username: Option<String>,
    /// Password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// For `mqtts://`.
    #[serde(default)]
    pub tls: Tls,
    /// After twice this time without a sign of life the connection is dead.
    #[serde(default = "default_keep_alive")]
    pub keep_alive: Span,
    /// Unacknowledged messages that the broker may have under way to us.
    #[serde(default = "default_receive_maximum")]
    pub receive_maximum: u16,
    /// How long the broker keeps our session while we are away.
    #[serde(default = "default_session_expiry")]
    pub session_expiry: Span,
    /// Larger packets are skipped by the broker (MQTT 5) and never reach us.
    #[serde(default = "default_packet_max")]
    pub packet_max: Size,
}

fn default_mqtt_topics() -> Vec<String> {
    vec!["tenants/+/devices/+/telemetry".to_owned()]
}

fn default_qos() -> u8 {
    1
}

fn default_keep_alive() -> Span {
    Span::secs(15)
}

fn default_receive_maximum() -> u16 {
    5_000
}

fn default_session_expiry() -> Span {
    Span::secs(7 * 86_400)
}

fn default_packet_max() -> Size {
    Size::mib(2)
}

/// How a NATS source subscribes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatsMode {
    /// A durable pull consumer with explicit acknowledgement.
    #[default]
    Jetstream,
    /// A plain subscription: at most once.
    Core,
}

/// From where a new JetStream consumer starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatsDeliver {
    /// Everything that the stream holds.
    #[default]
    All,
    /// What arrives from now on.
    New,
}

/// The `consumer_type` under which the messages are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatsConsumerType {
    /// Live data.
    #[default]
    Realtime,
    /// A replay of old data: yields to live data.
    Historical,
}

/// `[[source.nats]]`: one consumer or subscription at one server or cluster.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// Names the source in metrics, pages and logs.
    pub name: String,
    /// `nats://HOST:PORT` or `tls://HOST:PORT`; several separated by commas.
    pub url: String,
    /// JetStream or core.
    #[serde(default)]
    pub mode: NatsMode,
    /// The JetStream stream; it must exist.
    #[serde(default)]
    pub stream: String,
    /// The durable consumer's name. Default: `pulse-NAME`.
    #[serde(default)]
    pub consumer: Option<String>,
    /// Subjects to take.
    #[serde(default = "default_subjects")]
    pub subjects: Vec<String>,
    /// From where a new consumer starts.
    #[serde(default)]
    pub deliver: NatsDeliver,
    /// Live or historical.
    #[serde(default)]
    pub consumer_type: NatsConsumerType,
    /// After this time without our acknowledgement the server sends again.
    #[serde(default = "default_ack_wait")]
    pub ack_wait: Span,
    /// Unacknowledged messages under way to us.
    #[serde(default = "default_max_ack_pending")]
    pub max_ack_pending: u16,
    /// User name.
    #[serde(default)]
    pub username: Option<String>,
    /// Password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Token.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A credentials file (JWT and seed).
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// An NKey seed.
    #[serde(default)]
    pub nkey: Option<Secret>,
    /// For `tls://`.
    #[serde(default)]
    pub tls: Tls,
}

fn default_subjects() -> Vec<String> {
    vec!["tenants.*.devices.*.telemetry".to_owned()]
}

fn default_ack_wait() -> Span {
    Span::secs(10)
}

fn default_max_ack_pending() -> u16 {
    5_000
}

/// `[ingest]`: what messages mean.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// `[[ingest.map]]`, the first whose topic matches counts.
    pub map: Vec<Map>,
}

/// The form of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadFormat {
    /// A JSON object.
    #[default]
    Json,
    /// One number as text.
    Number,
    /// Whether something is there, as wills and birth messages say it: `online`,
    /// `offline` and their like, alone or as `state`, `status`, `online` or `connected`
    /// of a JSON object. The value is 1 or 0.
    State,
}

/// How a time in a payload is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// By size: seconds, milliseconds, microseconds or nanoseconds; or RFC 3339.
    #[default]
    Auto,
    /// Seconds since the epoch.
    Unix,
    /// Milliseconds since the epoch.
    UnixMs,
    /// Microseconds since the epoch.
    UnixUs,
    /// Nanoseconds since the epoch.
    UnixNs,
    /// RFC 3339.
    Rfc3339,
}

/// `[[ingest.map]]`: topic and payload to series.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// A topic with `{label}` for one level, `+` for any level, `#` for the rest.
    /// NATS subjects are matched with `.` read as `/`.
    #[serde(default = "default_map_topic")]
    pub topic: String,
    /// The payload's form.
    #[serde(default)]
    pub format: PayloadFormat,
    /// The metric's name; `{field}` is the path of the value joined with `_`.
    #[serde(default = "default_metric_name")]
    pub metric_name: String,
    /// Which values to take: paths with `.`; `*` is one level, `**` any depth.
    #[serde(default = "default_fields")]
    pub fields: Vec<String>,
    /// Labels to add: a literal, or `{path}` of the payload.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The path of the time; default: `ts`, `time` or `timestamp`, whichever is there.
    #[serde(default)]
    pub time: Option<String>,
    /// How that time is written.
    #[serde(default)]
    pub time_format: TimeFormat,
}

impl Default for Map {
    fn default() -> Map {
        Map {
            topic: default_map_topic(),
            format: PayloadFormat::Json,
            metric_name: default_metric_name(),
            fields: default_fields(),
            labels: BTreeMap::new(),
            time: None,
            time_format: TimeFormat::Auto,
        }
    }
}

fn default_map_topic() -> String {
    "tenants/{tenant_id}/devices/{device_id}/telemetry".to_owned()
}

fn default_metric_name() -> String {
    "{field}".to_owned()
}

fn default_fields() -> Vec<String> {
    vec!["**".to_owned()]
}
