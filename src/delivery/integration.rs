//! The receivers of the notification tree as destinations.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use hyper::Uri;
use hyper::header::HeaderValue;

use super::http_config::{self, Http};
use super::mail::Mail;
use super::mqtt::Mqtt;
use super::nats::Nats;
use super::options::{self, Identity, Options};
use super::receivers::{self, Setup};
use super::retry::Schedule;
use super::sign::Signer;
use super::target::{HttpTarget, Maker, Target};
use super::templates::Templates;
use super::webhook::{Body, Webhook};
use crate::config::receivers::{HeartbeatConfig, Receiver, WebhookConfig};
use crate::config::{Alertmanager, Config, Mistake, Secret, Span};

/// For one attempt, when the receiver does not say.
const TIMEOUT: Span = Span::secs(15);
/// How long a notification is tried; a newer one of its group replaces it long before.
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);
/// Requests at once: notifications of different groups do not wait for each other. As many
/// as rows are held in memory; each is small.
const CONCURRENCY: usize = 64;
/// Of what opens a connection for each message.
const CONNECTIONS: usize = 4;
/// The shortest interval of a dead man's switch.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

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
        let mut reader = Reader::new(&tree);
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

/// The receivers that are reached without knowing who answers.
pub(super) fn warnings(config: &Config) -> Vec<Mistake> {
    let tree = config.notification_tree();
    let tree = tree.unwrap_or_default();
    let (templates, _) = Templates::load(&tree, config);
    let mut found = Vec::new();
    for (at, receiver) in tree.receivers.iter().enumerate() {
        let mut reader = Reader::new(&tree);
        targets(receiver, &mut reader, &templates);
        for (holds, text) in [
            (reader.trusts_anybody, http_config::TRUSTS_ANYBODY),
            (reader.asks_old_tls, http_config::ASKS_OLD_TLS),
        ] {
            if holds {
                let path = config.tree_path(&format!("receivers[{at}]"));
                found.push(Mistake::new(path, text));
            }
        }
    }
    for (at, entry) in config.alerting.alertmanagers.iter().enumerate() {
        if entry.tls_config.insecure_skip_verify {
            let path = format!("alerting.alertmanagers[{at}].tls_config.insecure_skip_verify");
            found.push(Mistake::new(path, http_config::TRUSTS_ANYBODY));
        }
    }
    found
}

/// What differs between the kinds.
struct Made {
    kind: &'static str,
    target: Target,
    timeout: Duration,
    max_age: Duration,
    identity: Identity,
}

impl Made {
    fn options(self, name: String) -> Options {
        Options {
            name,
            kind: self.kind,
            schedule: Schedule {
                waits: Vec::new(),
                notification_max_age: self.max_age,
            },
            timeout: self.timeout,
            concurrency: match self.target {
                Target::Http(_) => CONCURRENCY,
                Target::Mail(_) | Target::Mqtt(_) | Target::Nats(_) => CONNECTIONS,
            },
            ordered: false,
            target: self.target,
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
    let mut all: Vec<_> = webhooks
        .map(|config| webhook(config, reader, templates))
        .collect();
    let mut setup = Setup { reader, templates };
    for (kind, made) in receivers::all(receiver, &mut setup) {
        all.push(made.map(|(written, maker, http, read)| Made {
            kind,
            target: http_target(Maker::Receiver(Box::new(maker)), http),
            timeout: TIMEOUT.get(),
            max_age: MAX_AGE,
            identity: Identity {
                written,
                read: [read, templates.read.clone()].concat(),
            },
        }));
    }
    for config in &receiver.email_configs {
        let mail = Mail::new(config, reader, templates);
        let target = mail.map(|mail| Target::Mail(Arc::new(mail)));
        all.push(target.map(|target| plain("email", target, reader.identity(config, templates))));
    }
    for config in &receiver.mqtt_configs {
        let target = Mqtt::new(config, reader, templates).map(|mqtt| Target::Mqtt(Arc::new(mqtt)));
        all.push(target.map(|target| plain("mqtt", target, reader.identity(config, templates))));
    }
    for config in &receiver.nats_configs {
        let target = Nats::new(config, reader, templates).map(|nats| Target::Nats(Arc::new(nats)));
        all.push(target.map(|target| plain("nats", target, reader.identity(config, templates))));
    }
    for config in &receiver.heartbeat_configs {
        all.push(heartbeat(config, reader, templates));
    }
    all
}

fn plain(kind: &'static str, target: Target, identity: Identity) -> Made {
    Made {
        kind,
        target,
        timeout: TIMEOUT.get(),
        max_age: MAX_AGE,
        identity,
    }
}

fn http_target(maker: Maker, http: Http) -> Target {
    Target::Http(Box::new(HttpTarget {
        maker,
        shown: shown(&http.uri),
        way: http.way,
    }))
}

/// A dead man's switch: a message of any form that comes often. One that waits for
/// longer than two intervals says nothing true any more.
fn heartbeat(
    config: &HeartbeatConfig,
    reader: &mut Reader<'_>,
    templates: &Templates,
) -> anyhow::Result<Made> {
    let interval = config.interval.get();
    ensure!(
        interval >= HEARTBEAT_MIN,
        "interval: expected at least 1s, got {:?}",
        config.interval
    );
    let has_url = config.url.is_some() || config.url_file.is_some();
    let target = match (has_url, &config.mqtt, &config.nats) {
        (true, None, None) => {
            let url = reader.required("url", config.url.as_ref(), config.url_file.as_deref())?;
            let http = reader.http_of_secret(config.http_config.as_ref(), &url)?;
            let maker = Maker::Webhook(Box::new(Webhook {
                uri: http.uri.clone(),
                headers: http.headers.clone(),
                signer: Signer::new(None).map_err(|err| anyhow!("{err}"))?,
                body: None,
            }));
            http_target(maker, http)
        }
        (false, Some(mqtt), None) => Target::Mqtt(Arc::new(
            Mqtt::new(mqtt, reader, templates).context("mqtt")?,
        )),
        (false, None, Some(nats)) => Target::Nats(Arc::new(
            Nats::new(nats, reader, templates).context("nats")?,
        )),
        _ => bail!("expected exactly one of url, mqtt & nats"),
    };
    Ok(Made {
        max_age: interval * 2,
        ..plain("heartbeat", target, reader.identity(config, templates))
    })
}

/// Scheme and host: the rest of a chat's address is its secret.
fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", uri.authority().map_or("", |a| a.as_str()))
}

fn webhook(
    config: &WebhookConfig,
    reader: &mut Reader<'_>,
    templates: &Templates,
) -> anyhow::Result<Made> {
    let url = reader.required("url", config.url.as_ref(), config.url_file.as_deref())?;
    let secret = reader.optional("secret", config.secret.as_ref(), None)?;
    let signer = Signer::new(secret.as_deref()).map_err(|err| anyhow!("secret: {err}"))?;
    let http = reader.http_of_secret(config.http_config.as_ref(), &url)?;
    ensure!(
        HeaderValue::from_str(&config.content_type).is_ok(),
        "content_type: holds control characters"
    );
    let body = config.body.as_ref().map(|body| {
        let text = templates.text("body", body)?;
        let content_type = config.content_type.clone();
        Ok::<_, anyhow::Error>(Body { text, content_type })
    });
    let maker = Maker::Webhook(Box::new(Webhook {
        uri: http.uri.clone(),
        headers: http.headers.clone(),
        signer,
        body: body.transpose()?,
    }));
    let given = config.timeout.filter(|span| !span.get().is_zero());
    Ok(Made {
        // As in Alertmanager, 0s is not a limit of the operator's.
        timeout: options::timeout(given.unwrap_or(TIMEOUT))?,
        ..plain(
            "webhook",
            http_target(maker, http),
            reader.identity(config, templates),
        )
    })
}

/// Reads secrets and remembers what it read.
pub(super) struct Reader<'a> {
    pub(super) tree: &'a Alertmanager,
    pub(super) read: Vec<Vec<u8>>,
    /// Whether anybody may say to be one of the servers.
    pub(super) trusts_anybody: bool,
    /// Whether some server may speak a version of TLS that we do not.
    pub(super) asks_old_tls: bool,
}

impl<'a> Reader<'a> {
    /// Has read nothing yet.
    pub(super) fn new(tree: &'a Alertmanager) -> Reader<'a> {
        Reader {
            tree,
            read: Vec::new(),
            trusts_anybody: false,
            asks_old_tls: false,
        }
    }

    /// What was written and read since the last call.
    fn identity(&mut self, config: &dyn std::fmt::Debug, templates: &Templates) -> Identity {
        Identity {
            written: format!("{config:?}"),
            read: [self.taken(), templates.read.clone()].concat(),
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
}
