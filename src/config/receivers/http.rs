//! Webhooks, and how HTTP requests of all receivers are made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::{Secret, Span};

/// `webhook_configs`
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// Where to POST; the path may be secret, so it is shown without it.
    pub url: Option<Secret>,
    /// A file with the URL.
    pub url_file: Option<PathBuf>,
    /// Alerts in one notification; 0 is no limit.
    pub max_alerts: usize,
    /// How long one attempt may take.
    pub timeout: Option<Span>,
    /// Signs each request by Standard Webhooks.
    pub secret: Option<Secret>,
    /// What it says; without it Alertmanager's webhook message.
    pub body: Option<String>,
    /// The type of that body.
    pub content_type: String,
}

impl Default for WebhookConfig {
    fn default() -> WebhookConfig {
        WebhookConfig {
            send_resolved: true,
            http_config: None,
            url: None,
            url_file: None,
            max_alerts: 0,
            timeout: None,
            secret: None,
            body: None,
            content_type: "application/json".to_owned(),
        }
    }
}

/// `http_config`: how requests are made. OAuth is known and refused.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// A user and its password.
    pub basic_auth: Option<BasicAuth>,
    /// An `Authorization` of any type.
    pub authorization: Option<Authorization>,
    /// The old form of `authorization`.
    pub bearer_token: Option<Secret>,
    /// A file with it.
    pub bearer_token_file: Option<PathBuf>,
    /// For `https://`.
    pub tls_config: TlsConfig,
    /// Whether redirects are followed; default: yes.
    pub follow_redirects: Option<bool>,
    /// Taken; requests are HTTP/1.1.
    pub enable_http2: Option<bool>,
    /// More request headers.
    pub http_headers: BTreeMap<String, HeaderValues>,
    /// An `http://` proxy on the way to the receiver.
    pub proxy_url: Option<Secret>,
    /// Hosts, domains, addresses and ranges that are reached straight.
    pub no_proxy: Option<String>,
    /// Whether proxy and hosts are those of the environment.
    pub proxy_from_environment: bool,
    /// Headers for a proxy that makes a tunnel.
    pub proxy_connect_header: BTreeMap<String, Vec<Secret>>,
    /// Refused.
    pub oauth2: Option<IgnoredAny>,
}

/// The values of one request header.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderValues {
    /// Values that may be shown.
    pub values: Vec<String>,
    /// Values that may not.
    pub secrets: Vec<Secret>,
    /// Files with values.
    pub files: Vec<PathBuf>,
}

/// A user and its password.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// A file with the user.
    pub username_file: Option<PathBuf>,
    /// The password.
    pub password: Option<Secret>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
}

/// An `Authorization` header.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// The scheme; `Bearer` when left out.
    #[serde(rename = "type")]
    pub scheme: Option<String>,
    /// What follows it.
    pub credentials: Option<Secret>,
    /// A file with it.
    pub credentials_file: Option<PathBuf>,
}

/// How to trust a server and how to prove who we are.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates to trust, PEM. Without it: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// The text of `ca_file`.
    pub ca: Option<Secret>,
    /// The text of `cert_file`.
    pub cert: Option<Secret>,
    /// The text of `key_file`.
    pub key: Option<Secret>,
    /// Refused: a server is known by the name in its address.
    pub server_name: Option<String>,
    /// Up to `TLS12`, which is what is asked for in any case.
    pub min_version: Option<String>,
    /// Only `TLS13`.
    pub max_version: Option<String>,
    /// Whether whoever answers is taken for the server.
    pub insecure_skip_verify: bool,
}
