//! The receivers of the notification tree as destinations.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderValue};

use super::address::Policy;
use super::options::{self, Identity, Options};
use super::receivers::{self, Setup};
use super::retry::Schedule;
use super::sign::Signer;
use super::target::{HttpTarget, Maker, Target};
use super::templates::Templates;
use super::tls;
use super::webhook::Webhook;
use crate::config::receivers::{HttpConfig, Receiver, WebhookConfig};
use crate::config::{self, Alertmanager, Config, Mistake, Secret, Span};

/// For one attempt, when the receiver does not say.
const TIMEOUT: Span = Span::secs(15);
/// How long a notification is tried; a newer one of its group replaces it long before.
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);
/// Attempts at once: notifications of different groups do not wait for each other.
const CONCURRENCY: usize = 4;

/// Checks all receivers; reads their secrets and certificates.
///
/// # Errors
/// Each with the field that is wrong.
pub(super) fn all(config: &Config) -> Vec<Result<Options, Mistake>> {
    let Some(tree) = config.notification_tree() else {
        return Vec::new();
    };
    let (templates, wrong) = Templates::load(&tree, config);
    let mut all: Vec<_> = wrong.into_iter().map(Err).collect();
    for (at, receiver) in tree.receivers.iter().enumerate() {
        let mut reader = Reader {
            tree: &tree,
            read: Vec::new(),
        };
        let targets = targets(receiver, &mut reader, &templates);
        let mut of_kind = ("", 0);
        for (integration, made) in receiver.integrations().into_iter().zip(targets) {
            let index = if of_kind.0 == integration.kind {
                of_kind.1 + 1
            } else {
                0
            };
            of_kind = (integration.kind, index);
            let made = made.map_err(|err| {
                let path = format!("receivers[{at}].{}_configs[{index}]", integration.kind);
                Mistake::within(&config.tree_path(&path), &err)
            });
            all.push(made.map(|made| {
                assert_eq!(
                    made.kind, integration.kind,
                    "BUG: the kinds have another order"
                );
                made.options(integration.name)
            }));
        }
    }
    all
}

/// What differs between the kinds.
struct Made {
    kind: &'static str,
    target: Target,
    timeout: Duration,
    identity: Identity,
}

impl Made {
    fn options(self, name: String) -> Options {
        Options {
            name,
            kind: self.kind,
            target: self.target,
            schedule: Schedule {
                waits: Vec::new(),
                notification_max_age: MAX_AGE,
            },
            timeout: self.timeout,
            concurrency: CONCURRENCY,
            ordered: false,
            identity: self.identity,
        }
    }
}

/// In the order of [`Receiver::integrations`].
fn targets(
    receiver: &Receiver,
    reader: &mut Reader<'_>,
    templates: &Templates,
) -> Vec<anyhow::Result<Made>> {
    let webhooks = receiver.webhook_configs.iter();
    let mut all: Vec<_> = webhooks.map(|config| webhook(config, reader)).collect();
    let mut setup = Setup { reader, templates };
    for (kind, made) in receivers::all(receiver, &mut setup) {
        all.push(made.map(|(written, maker, http, read)| Made {
            kind,
            target: Target::Http(HttpTarget {
                maker: Maker::Receiver(Box::new(maker)),
                shown: shown(&http.uri),
                tls: http.tls,
                policy: Policy::Operator,
            }),
            timeout: TIMEOUT.get(),
            identity: Identity {
                written,
                read: [read, templates.read.clone()].concat(),
            },
        }));
    }
    all
}

/// Scheme and host: the rest of a chat's address is its secret.
fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", uri.authority().map_or("", |a| a.as_str()))
}

fn webhook(config: &WebhookConfig, reader: &mut Reader<'_>) -> anyhow::Result<Made> {
    let url = reader.required("url", config.url.as_ref(), config.url_file.as_deref())?;
    let secret = reader.optional("secret", config.secret.as_ref(), None)?;
    let signer = Signer::new(secret.as_deref()).map_err(|err| anyhow!("secret: {err}"))?;
    let http = reader.http(config.http_config.as_ref(), &url)?;
    let shown = shown(&http.uri);
    let maker = Maker::Webhook(Webhook {
        uri: http.uri,
        headers: http.headers,
        signer,
    });
    Ok(Made {
        kind: "webhook",
        target: Target::Http(HttpTarget {
            maker,
            shown,
            tls: http.tls,
            policy: Policy::Operator,
        }),
        timeout: options::timeout(config.timeout.unwrap_or(TIMEOUT))?,
        identity: reader.identity(config),
    })
}

/// Reads secrets and remembers what it read.
pub(super) struct Reader<'a> {
    pub(super) tree: &'a Alertmanager,
    read: Vec<Vec<u8>>,
}

/// Where and how requests go.
pub(super) struct Http {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Reader<'_> {
    /// What was written and read since the last call.
    fn identity(&mut self, config: &impl std::fmt::Debug) -> Identity {
        Identity {
            written: format!("{config:?}"),
            read: std::mem::take(&mut self.read),
        }
    }

    /// Remembers a text that `Debug` does not show in full.
    pub(super) fn note(&mut self, text: &str) {
        self.read.push(text.as_bytes().to_vec());
    }

    /// What was read since the last call.
    pub(super) fn taken(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.read)
    }

    /// A secret, or the file that holds it: the first line, as elsewhere.
    pub(super) fn optional(
        &mut self,
        field: &str,
        secret: Option<&Secret>,
        file: Option<&Path>,
    ) -> anyhow::Result<Option<String>> {
        let text = match (secret, file) {
            (Some(_), Some(_)) => bail!("at most one of {field} & {field}_file must be configured"),
            (Some(secret), None) => secret.read().with_context(|| field.to_owned())?,
            (None, Some(path)) => Secret::File(self.tree.base_dir.join(path))
                .read()
                .with_context(|| format!("{field}_file"))?,
            (None, None) => return Ok(None),
        };
        let text = text.trim().to_owned();
        self.read.push(text.clone().into_bytes());
        Ok(Some(text))
    }

    pub(super) fn required(
        &mut self,
        field: &str,
        secret: Option<&Secret>,
        file: Option<&Path>,
    ) -> anyhow::Result<String> {
        self.optional(field, secret, file)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| anyhow!("missing {field}, expected {field} or {field}_file"))
    }

    /// How requests to `url` are made.
    pub(super) fn http(&mut self, own: Option<&HttpConfig>, url: &str) -> anyhow::Result<Http> {
        let uri = options::uri(url)?;
        let plain = HttpConfig::default();
        let global = self.tree.global.http_config.as_ref();
        let config = own.or(global).unwrap_or(&plain);
        let mut headers = HeaderMap::new();
        if let Some(value) = self.authorization(config).context("http_config")? {
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| anyhow!("http_config: the credentials hold control characters"))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let of_tls = &config.tls_config;
        ensure!(
            !of_tls.insecure_skip_verify,
            "http_config: insecure_skip_verify: not supported, name the certificate in ca_file"
        );
        let tls = if uri.scheme_str() == Some("https") {
            let files = config::Tls {
                ca_file: of_tls.ca_file.clone(),
                cert_file: of_tls.cert_file.clone(),
                key_file: of_tls.key_file.clone(),
            };
            let client = tls::client(&files, &self.tree.base_dir, &mut self.read);
            Some(Arc::new(client.context("http_config: tls_config")?))
        } else {
            None
        };
        Ok(Http { uri, headers, tls })
    }

    fn authorization(&mut self, config: &HttpConfig) -> anyhow::Result<Option<String>> {
        let forms = [
            config.basic_auth.is_some(),
            config.authorization.is_some(),
            config.bearer_token.is_some() || config.bearer_token_file.is_some(),
        ];
        ensure!(
            forms.iter().filter(|used| **used).count() <= 1,
            "at most one of basic_auth, authorization & bearer_token must be configured"
        );
        if let Some(basic) = &config.basic_auth {
            let file = basic.password_file.as_deref();
            let password = self.optional("password", basic.password.as_ref(), file)?;
            let pair = format!("{}:{}", basic.username, password.unwrap_or_default());
            self.read.push(pair.clone().into_bytes());
            return Ok(Some(format!("Basic {}", BASE64.encode(pair))));
        }
        if let Some(auth) = &config.authorization {
            let file = auth.credentials_file.as_deref();
            let credentials = self.required("credentials", auth.credentials.as_ref(), file)?;
            let scheme = auth.scheme.as_deref().unwrap_or("Bearer");
            return Ok(Some(format!("{scheme} {credentials}")));
        }
        let file = config.bearer_token_file.as_deref();
        let token = self.optional("bearer_token", config.bearer_token.as_ref(), file)?;
        Ok(token.map(|token| format!("Bearer {token}")))
    }
}
