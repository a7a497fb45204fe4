//! E-mail.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::TlsConfig;
use crate::config::Secret;

/// `email_configs`
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmailConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// Who gets it: addresses, separated by commas.
    pub to: String,
    /// Who sends it.
    pub from: Option<String>,
    /// How we name ourselves to the mail server.
    pub hello: Option<String>,
    /// Host and port of the mail server; 465 is encrypted from the beginning.
    pub smarthost: Option<String>,
    /// The user at the mail server.
    pub auth_username: Option<String>,
    /// The user's password.
    pub auth_password: Option<Secret>,
    /// A file with it.
    pub auth_password_file: Option<PathBuf>,
    /// For CRAM-MD5, which is refused.
    pub auth_secret: Option<Secret>,
    /// A file with it.
    pub auth_secret_file: Option<PathBuf>,
    /// For PLAIN: on whose behalf.
    pub auth_identity: Option<String>,
    /// More headers, or other ones than the default.
    pub headers: BTreeMap<String, String>,
    /// What it says to those who read HTML; empty is none.
    pub html: String,
    /// What it says to the others; empty is none.
    pub text: String,
    /// Whether it goes out only encrypted.
    pub require_tls: Option<bool>,
    /// How to trust the server.
    pub tls_config: Option<TlsConfig>,
}

impl Default for EmailConfig {
    fn default() -> EmailConfig {
        EmailConfig {
            send_resolved: false,
            to: String::new(),
            from: None,
            hello: None,
            smarthost: None,
            auth_username: None,
            auth_password: None,
            auth_password_file: None,
            auth_secret: None,
            auth_secret_file: None,
            auth_identity: None,
            headers: BTreeMap::new(),
            html: r#"{{ template "email.default.html" . }}"#.to_owned(),
            text: String::new(),
            require_tls: None,
            tls_config: None,
        }
    }
}
