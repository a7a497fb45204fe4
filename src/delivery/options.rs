//! `[[destination.KIND]]` made valid: addresses parsed, secrets and certificates read.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::address::{Policy, bare};
use super::http::Way;
use super::integration;
use super::proxy::is_https;
use super::retry::Schedule;
use super::sign::Signer;
use super::target::{HttpTarget, Maker, Target};
use super::tls;
use super::webhook::Webhook;
use crate::config::{self, Config, Mistake, Secret};

/// The most attempts at once at one destination.
const CONCURRENCY_MAX: usize = 32;
/// An attempt holds one of the few slots, so it may not last for ever.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// What the configuration may not set, because we do.
pub(super) const RESERVED_HEADERS: [HeaderName; 5] = [
    header::HOST,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
];

/// A destination that is valid by construction.
#[derive(Clone)]
pub struct Options {
    /// The configured name.
    pub name: String,
    /// As metrics name it.
    pub kind: &'static str,
    pub(super) target: Target,
    pub(super) schedule: Schedule,
    /// For one attempt, connection included.
    pub(super) timeout: Duration,
    /// Attempts at once; 1 when ordered.
    pub(super) concurrency: usize,
    pub(super) ordered: bool,
    pub(super) identity: Identity,
}

/// What was configured and read; two equal ones behave equally.
#[derive(Clone, PartialEq, Default)]
pub(super) struct Identity {
    pub(super) written: String,
    pub(super) read: Vec<Vec<u8>>,
}

/// Whether a running destination can stay as it is.
impl PartialEq for Options {
    fn eq(&self, other: &Options) -> bool {
        self.identity == other.identity
    }
}

impl Options {
    /// All destinations of the configuration: `[[destination.KIND]]`, then the
    /// receivers' ways of telling.
    ///
    /// # Errors
    /// With the table, the name and the field of the first that is wrong.
    pub fn all(config: &Config) -> anyhow::Result<Vec<Options>> {
        let mut all: Vec<Options> = Options::webhooks(config).collect::<Result<_, _>>()?;
        all.extend(
            integration::all(config)
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?,
        );
        Ok(all)
    }

    /// All that is wrong with the destinations and the receivers.
    pub fn mistakes(config: &Config) -> Vec<Mistake> {
        let receivers = integration::all(config).into_iter().filter_map(Result::err);
        let webhooks = Options::webhooks(config).filter_map(Result::err);
        webhooks.chain(receivers).collect()
    }

    fn webhooks(config: &Config) -> impl Iterator<Item = Result<Options, Mistake>> {
        let webhooks = config.destination.webhook.iter().enumerate();
        webhooks.map(|(at, webhook)| {
            Options::from_config(webhook, config)
                .map_err(|err| Mistake::within(&format!("destination.webhook[{at}]"), &err))
        })
    }

    /// Checks one destination; reads its secrets and certificates.
    ///
    /// # Errors
    /// With the field that is wrong and what was expected.
    pub fn from_config(webhook: &config::Webhook, config: &Config) -> anyhow::Result<Options> {
        ensure!(
            crate::model::tenant::is_valid_name(&webhook.name),
            "name: expected 1 to 128 characters of [A-Za-z0-9._:-]"
        );
        ensure!(
            (1..=CONCURRENCY_MAX).contains(&webhook.concurrency),
            "concurrency: expected 1 to {CONCURRENCY_MAX}, got {}",
            webhook.concurrency
        );
        let timeout = timeout(webhook.timeout)?;
        let mut read = Vec::new();
        let uri = uri(&webhook.url)?;
        let tls = if is_https(&uri) {
            let files = tls::files(&webhook.tls, &config.base_dir, &mut read);
            let client = files.and_then(|pems| tls::client(&pems));
            Some(Arc::new(client.context("tls")?))
        } else {
            ensure!(
                webhook.tls == config::Tls::default(),
                "tls: only for https://, but the url is {:?}",
                webhook.url
            );
            None
        };
        let scheme = uri.scheme_str().unwrap_or_default();
        let authority = uri.authority().map_or("", |a| a.as_str());
        let shown = format!("{scheme}://{authority}{}", uri.path());
        let maker = Maker::Webhook(Box::new(Webhook {
            uri,
            headers: headers(webhook, &mut read)?,
            signer: signer(webhook, &mut read)?,
            body: None,
        }));
        read.push(webhook.url.as_bytes().to_vec());
        Ok(Options {
            name: webhook.name.clone(),
            kind: "webhook",
            target: Target::Http(Box::new(HttpTarget {
                maker,
                shown,
                way: Way {
                    server_name: None,
                    tls,
                    proxy: None,
                    redirects: None,
                    policy: Policy::Operator,
                },
            })),
            schedule: Schedule {
                waits: webhook.retry.iter().map(|wait| wait.get()).collect(),
                notification_max_age: webhook.notification_max_age.get(),
            },
            timeout,
            concurrency: if webhook.ordered {
                1
            } else {
                webhook.concurrency
            },
            ordered: webhook.ordered,
            identity: Identity {
                written: format!("{webhook:?}"),
                read,
            },
        })
    }

    /// Where it leads, without the query, which may hold a token.
    pub(super) fn shown_url(&self) -> String {
        self.target.shown()
    }
}

/// Checks the time for one attempt.
///
/// # Errors
/// When it is none or too long.
pub(super) fn timeout(span: config::Span) -> anyhow::Result<Duration> {
    let timeout = span.get();
    ensure!(
        !timeout.is_zero() && timeout <= TIMEOUT_MAX,
        "timeout: expected more than 0s and at most 5m, got {span:?}"
    );
    Ok(timeout)
}

/// Checks where requests go.
///
/// # Errors
/// With what was expected.
pub(super) fn uri(text: &str) -> anyhow::Result<Uri> {
    let expected = "expected http://HOST[:PORT]/PATH or https://...";
    let uri: Uri = text
        .parse()
        .map_err(|err| anyhow!("url: {err}, {expected}"))?;
    ensure!(
        matches!(uri.scheme_str(), Some("http" | "https")),
        "url: {expected}, got {text:?}"
    );
    let authority = uri.authority().map_or("", |a| a.as_str());
    ensure!(
        !authority.contains('@'),
        "url: must not hold a user and password; use bearer_token or headers"
    );
    let host = uri.host().unwrap_or_default();
    ensure!(!host.is_empty(), "url: {expected}, got {text:?}");
    let port = authority.strip_prefix(host).unwrap_or_default();
    ensure!(
        matches!(port, "" | ":") || uri.port_u16().is_some(),
        "url: invalid port {port:?}, {expected}"
    );
    let mut escapes = uri.path().split('%').skip(1);
    let is_byte = |rest: &str| {
        rest.get(..2)
            .is_some_and(|hex| u8::from_str_radix(hex, 16).is_ok())
    };
    ensure!(
        escapes.all(is_byte),
        "url: a percent sign without two hexadecimal digits in the path"
    );
    if let Ok(address) = bare(host).parse() {
        Policy::Operator.check(address).context("url")?;
    }
    Ok(uri)
}

fn headers(webhook: &config::Webhook, read: &mut Vec<Vec<u8>>) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &webhook.headers {
        let header: HeaderName = name
            .parse()
            .map_err(|_| anyhow!("headers: {name:?} is not a header name"))?;
        if RESERVED_HEADERS.contains(&header) || header.as_str().starts_with("webhook-") {
            bail!("headers: {name:?} is set by pulse");
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| anyhow!("headers: the value of {name:?} holds control characters"))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    if let Some(token) = secret("bearer_token", webhook.bearer_token.as_ref(), read)? {
        ensure!(
            !headers.contains_key(header::AUTHORIZATION),
            "bearer_token: headers has an Authorization already, expected one of them"
        );
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| anyhow!("bearer_token: holds control characters"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

fn signer(webhook: &config::Webhook, read: &mut Vec<Vec<u8>>) -> anyhow::Result<Signer> {
    let current = secret("secret", webhook.secret.as_ref(), read)?;
    let old = secret("secret_old", webhook.secret_old.as_ref(), read)?;
    ensure!(
        current.is_some() || old.is_none(),
        "secret_old: expected a secret beside it"
    );
    for (field, text) in [("secret", &current), ("secret_old", &old)] {
        Signer::new(text.as_deref()).map_err(|err| anyhow!("{field}: {err}"))?;
    }
    Signer::new(current.as_deref().into_iter().chain(old.as_deref()))
        .map_err(|err| anyhow!("secret: {err}"))
}

fn secret(
    field: &'static str,
    secret: Option<&Secret>,
    read: &mut Vec<Vec<u8>>,
) -> anyhow::Result<Option<String>> {
    let Some(secret) = secret else {
        return Ok(None);
    };
    let text = secret.read().context(field)?;
    read.push(text.clone().into_bytes());
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> anyhow::Result<Vec<Options>> {
        let text = format!("[[destination.webhook]]\nname = \"hook\"\n{text}");
        Options::all(&Config::parse(&text, "c.toml").unwrap())
    }

    fn check_error(text: &str, wanted: &[&str]) {
        let err = match options(text) {
            Ok(_) => panic!("{text} was taken"),
            Err(err) => format!("{err:#}"),
        };
        for part in ["[destination.webhook[0]] "].iter().chain(wanted) {
            assert!(err.contains(part), "{part:?} not in {err}");
        }
    }

    #[test]
    fn every_error_names_its_field() {
        let url = "url = \"http://h/\"\n";
        check_error("url = \"ftp://h/\"", &["url: expected http://HOST"]);
        check_error("url = \"/path\"", &["url: expected http://HOST"]);
        check_error("url = \"http://u:p@h/\"", &["url: must not hold a user"]);
        check_error("url = \"http://169.254.169.254/\"", &["url", "metadata"]);
        check_error("url = \"http://[fe80::1]/\"", &["url", "link-local"]);
        for (field, value, wanted) in [
            ("concurrency", "0", "concurrency: expected 1 to 32"),
            ("timeout", "\"0s\"", "timeout: expected more than 0s"),
            ("timeout", "\"1h\"", "timeout: expected more than 0s"),
            ("secret", "\"whsec_%\"", "secret: not base64"),
            ("secret_old", "\"x\"", "secret_old: expected a secret"),
            ("headers", "{ Host = \"x\" }", "\"Host\" is set by pulse"),
            ("headers", "{ Webhook-Id = \"x\" }", "\"Webhook-Id\" is set"),
            ("headers", "{ \"a b\" = \"x\" }", "is not a header name"),
            ("tls", "{ ca_file = \"x\" }", "tls: only for https://"),
            ("secret", "{ file = \"/none\" }", "secret: read secret from"),
        ] {
            check_error(&format!("{url}{field} = {value}"), &[wanted]);
        }
        let https = "url = \"https://h/\"\n";
        check_error(
            &format!("{https}tls = {{ ca_file = \"/none\" }}"),
            &["tls.ca_file: cannot read /none"],
        );
    }

    #[test]
    fn a_changed_secret_is_a_changed_destination() {
        let read = |secret: &str| {
            options(&format!("url = \"http://h/\"\nsecret = \"{secret}\""))
                .unwrap()
                .remove(0)
        };
        assert!(read("a") == read("a"));
        assert!(read("a") != read("b"));
    }

    #[test]
    fn the_shown_url_has_no_query() {
        let options = options("url = \"http://h:1/p?token=x\"").unwrap().remove(0);
        assert_eq!(options.shown_url(), "http://h:1/p");
    }

    #[test]
    fn ordered_means_one_at_a_time() {
        let options = options("url = \"http://h/\"\nordered = true").unwrap();
        assert_eq!(options[0].concurrency, 1);
    }
}
