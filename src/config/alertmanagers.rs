//! `[[alerting.alertmanagers]]`: other Alertmanagers, in Prometheus's words.

use std::path::PathBuf;

use serde::Deserialize;

use super::receivers::{Authorization, BasicAuth, HttpConfig, TlsConfig};
use super::{Secret, Span};

/// Alertmanagers that are reached in the same way.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertmanagersConfig {
    /// `http` or `https`.
    pub scheme: String,
    /// What stands before `/api/v2/alerts`.
    pub path_prefix: String,
    /// How long one request may take.
    pub timeout: Span,
    /// Only `v2`.
    pub api_version: String,
    /// Who they are.
    pub static_configs: Vec<StaticConfig>,
    /// A user and its password.
    pub basic_auth: Option<BasicAuth>,
    /// An `Authorization` of any type.
    pub authorization: Option<Authorization>,
    /// The old form of `authorization`.
    pub bearer_token: Option<Secret>,
    /// A file with it.
    pub bearer_token_file: Option<PathBuf>,
    /// For `https`.
    pub tls_config: TlsConfig,
}

/// Hosts with ports.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticConfig {
    /// `HOST:PORT`
    pub targets: Vec<String>,
}

impl Default for AlertmanagersConfig {
    fn default() -> AlertmanagersConfig {
        AlertmanagersConfig {
            scheme: "http".to_owned(),
            path_prefix: String::new(),
            timeout: Span::secs(10),
            api_version: "v2".to_owned(),
            static_configs: Vec::new(),
            basic_auth: None,
            authorization: None,
            bearer_token: None,
            bearer_token_file: None,
            tls_config: TlsConfig::default(),
        }
    }
}

impl AlertmanagersConfig {
    /// How requests are made.
    pub fn http(&self) -> HttpConfig {
        HttpConfig {
            basic_auth: self.basic_auth.clone(),
            authorization: self.authorization.clone(),
            bearer_token: self.bearer_token.clone(),
            bearer_token_file: self.bearer_token_file.clone(),
            tls_config: self.tls_config.clone(),
            ..HttpConfig::default()
        }
    }
}
