//! Receivers behind a message broker, and the dead man's switch.

use std::path::PathBuf;

use serde::Deserialize;

use super::{HttpConfig, TlsConfig};
use crate::config::{Secret, Span};

/// `mqtt_configs`: a topic of an MQTT 5 broker.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// `mqtt://HOST:PORT` or `mqtts://HOST:PORT`.
    pub url: String,
    /// The topic; what comes from an alert cannot add levels or wildcards to it.
    pub topic: String,
    /// What it says; without it Alertmanager's webhook message.
    pub payload: Option<String>,
    /// 0 or 1.
    pub qos: u8,
    /// Whether the broker keeps the message for later subscribers.
    pub retain: bool,
    /// Default: another one for each message.
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// A file with it.
    pub password_file: Option<PathBuf>,
    /// For `mqtts://`.
    pub tls_config: TlsConfig,
}

impl Default for MqttConfig {
    fn default() -> MqttConfig {
        MqttConfig {
            send_resolved: true,
            url: String::new(),
            topic: String::new(),
            payload: None,
            qos: 1,
            retain: false,
            client_id: None,
            username: None,
            password: None,
            password_file: None,
            tls_config: TlsConfig::default(),
        }
    }
}

/// `nats_configs`: a subject of a NATS server.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// `nats://HOST:PORT` or `tls://HOST:PORT`; several separated by commas.
    pub url: String,
    /// The subject; what comes from an alert cannot add tokens or wildcards to it.
    pub subject: String,
    /// What it says; without it Alertmanager's webhook message.
    pub payload: Option<String>,
    /// Whether a stream has to take it; then it is stored once, whatever is repeated.
    pub jetstream: bool,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// A file with it.
    pub password_file: Option<PathBuf>,
    /// Token.
    pub token: Option<Secret>,
    /// A file with it.
    pub token_file: Option<PathBuf>,
    /// A credentials file (JWT and seed).
    pub credentials_file: Option<PathBuf>,
    /// For `tls://`.
    pub tls_config: TlsConfig,
}

impl Default for NatsConfig {
    fn default() -> NatsConfig {
        NatsConfig {
            send_resolved: true,
            url: String::new(),
            subject: String::new(),
            payload: None,
            jetstream: false,
            username: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            credentials_file: None,
            tls_config: TlsConfig::default(),
        }
    }
}

/// `heartbeat_configs`: who notices when this process falls silent. Exactly one of
/// `url` (or `url_file`), `mqtt` and `nats`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatConfig {
    /// How often it is told that the alerts still fire; at most every `group_interval`.
    pub interval: Span,
    /// Where to POST.
    pub url: Option<Secret>,
    /// A file with the URL.
    pub url_file: Option<PathBuf>,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// A topic.
    pub mqtt: Option<MqttConfig>,
    /// A subject.
    pub nats: Option<NatsConfig>,
}

impl Default for HeartbeatConfig {
    fn default() -> HeartbeatConfig {
        HeartbeatConfig {
            interval: Span::secs(60),
            url: None,
            url_file: None,
            http_config: None,
            mqtt: None,
            nats: None,
        }
    }
}
