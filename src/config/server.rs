//! `[server]`, `[global]`, `[metrics]`, `[auth]`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Secret, Size, Span};

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[server]`: the listener and the process.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Where the store lives.
    pub data_dir: PathBuf,
    /// Open connections at once; more wait.
    pub connections_max: usize,
    /// The largest request body.
    pub body_max: Size,
    /// Host names under which browsers may reach us, besides IP addresses and localhost.
    pub allowed_hosts: Vec<String>,
    /// A pattern for the origins whose pages may read the query API; empty: none.
    pub cors_origin: String,
    /// A folder of Grafana dashboards to show beside the shipped ones.
    pub dashboards_dir: Option<PathBuf>,
    /// Whether `/api/v1/admin/tsdb/...` (delete, snapshot, compact) answers.
    pub enable_admin_api: bool,
    /// A filter as in `info` or `pulse=debug,warn`.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            data_dir: PathBuf::from("data"),
            connections_max: 512,
            body_max: Size::mib(16),
            allowed_hosts: Vec::new(),
            cors_origin: String::new(),
            enable_admin_api: false,
            dashboards_dir: None,
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

/// `[global]`: the words of Prometheus' global section.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Global {
    /// How often own metrics, the host and scrape targets are read.
    pub scrape_interval: Span,
    /// How often rule groups without an interval run.
    pub evaluation_interval: Span,
    /// How far in the past the queries of rules look, in groups that do not say it.
    pub rule_query_offset: Span,
    /// Added to what leaves the process: notifications, federation, remote_write.
    pub external_labels: BTreeMap<String, String>,
    /// Under which URL people reach us; stands in notifications. Empty: made
    /// from the host name and the first listen address.
    pub external_url: String,
    /// Whether the machine's clock is believed whatever it says.
    pub trust_clock: bool,
}

impl Default for Global {
    fn default() -> Global {
        Global {
            scrape_interval: Span::secs(15),
            evaluation_interval: Span::secs(15),
            rule_query_offset: Span::secs(0),
            external_labels: BTreeMap::new(),
            external_url: String::new(),
            trust_clock: false,
        }
    }
}

/// `[metrics]`: what `/metrics` shows and what is stored of ourselves.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Optional families: `http`, `relay`, `node`. The core is always there.
    pub views: Vec<String>,
    /// Tenants with series of their own; the rest share `__overflow__`.
    pub max_tenants: usize,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            views: ["http", "relay", "node"].map(str::to_owned).to_vec(),
            max_tenants: 500,
        }
    }
}

/// `[auth]`: who may do what. Without a token only loopback listeners are allowed.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// A bearer token (or the password of basic authentication) for everything.
    pub token: Option<Secret>,
}
