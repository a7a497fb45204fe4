//! Messages of a NATS server, one connection for each.
//!
//! The event's id travels as `Nats-Msg-Id`, by which a stream keeps a repeat out.
//! With `jetstream` delivered means: a stream stored it. Without, the server took it: a
//! message to ourselves behind it came back, and messages keep their order. Who was
//! not listening then has missed it, which is how NATS is meant.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_nats::{ConnectOptions, HeaderMap, ServerAddr};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::http::{Outcome, Verdict};
use super::http_config::server_name;
use super::integration::Reader;
use super::templates::{Notice, Templates, Text};
use super::topic;
use crate::config::receivers::NatsConfig;
use crate::model::Delivery;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A checked `nats_configs` entry.
pub(super) struct Nats {
    servers: Vec<ServerAddr>,
    shown: String,
    tls: Option<rustls::ClientConfig>,
    auth: Auth,
    subject: Text,
    payload: Option<Text>,
    jetstream: bool,
}

enum Auth {
    None,
    User(String, String),
    Token(String),
    Credentials(String),
}

/// What is to be sent.
struct Message {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl Nats {
    /// Checks an entry; reads its secrets and certificates.
    ///
    /// # Errors
    /// With the field that is wrong.
    pub(super) fn new(
        config: &NatsConfig,
        reader: &mut Reader<'_>,
        templates: &Templates,
    ) -> anyhow::Result<Nats> {
        let servers = servers(&config.url).with_context(|| format!("url: {:?}", config.url))?;
        let is_encrypted = servers.iter().any(ServerAddr::tls_required);
        ensure!(!config.subject.is_empty(), "missing subject");
        let tls = is_encrypted.then(|| reader.tls(&config.tls_config));
        ensure!(
            server_name(&config.tls_config)?.is_none(),
            "tls_config: server_name: not supported, servers are known by the names in their addresses"
        );
        let payload = config.payload.as_ref();
        Ok(Nats {
            servers,
            shown: config.url.clone(),
            tls: tls.transpose().context("tls_config")?,
            auth: auth(config, reader)?,
            subject: templates.text("subject", &config.subject)?,
            payload: payload
                .map(|text| templates.text("payload", text))
                .transpose()?,
            jetstream: config.jetstream,
        })
    }

    /// Where it leads.
    pub(super) fn shown(&self) -> String {
        self.shown.clone()
    }

    /// Makes one attempt.
    pub(super) async fn attempt(&self, delivery: &Delivery, timeout: Duration) -> Outcome {
        let message = match self.message(delivery) {
            Ok(message) => message,
            Err(error) => return Outcome::unmade("message", &error),
        };
        match tokio::time::timeout(timeout, Box::pin(self.send(message))).await {
            Ok(Ok(answer)) => Outcome {
                verdict: Verdict::Delivered,
                error: None,
                answer,
                receiver_failed: false,
                ..Outcome::failed(String::new())
            },
            Ok(Err(error)) => Outcome::failed(format!("{error:#}")),
            Err(_) => Outcome::failed(format!("no answer within {} ms", timeout.as_millis())),
        }
    }

    fn message(&self, delivery: &Delivery) -> Result<Message, String> {
        let notice = Notice::of(delivery)?;
        let subject = notice.render_escaped(&self.subject, topic::word)?;
        topic::check_subject(&subject)?;
        let payload = match &self.payload {
            Some(text) => notice.render(text)?.into_bytes(),
            None => delivery.body.clone(),
        };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", notice.event_id.as_str());
        Ok(Message {
            subject,
            headers,
            payload: Bytes::from(payload),
        })
    }

    async fn send(&self, message: Message) -> anyhow::Result<String> {
        let client = self.options()?.connect(&self.servers[..]).await?;
        if self.jetstream {
            let stream = async_nats::jetstream::new(client);
            let Message {
                subject,
                headers,
                payload,
            } = message;
            let sent = stream.publish_with_headers(subject, headers, payload);
            let ack = sent.await?.await?;
            let again = if ack.duplicate { ", again" } else { "" };
            return Ok(format!("{} {}{again}", ack.stream, ack.sequence));
        }
        let inbox = client.new_inbox();
        let mut echo = client.subscribe(inbox.clone()).await?;
        client
            .publish_with_headers(message.subject, message.headers, message.payload)
            .await?;
        client.publish(inbox, Bytes::new()).await?;
        client.flush().await?;
        match echo.next().await {
            Some(_) => Ok("taken".to_owned()),
            None => bail!("connection lost"),
        }
    }

    fn options(&self) -> std::io::Result<ConnectOptions> {
        let mut options = ConnectOptions::new()
            .name("pulse alerts")
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(CONNECT_TIMEOUT))
            .max_reconnects(Some(0))
            .require_tls(self.tls.is_some());
        if let Some(tls) = &self.tls {
            options = options.tls_client_config(tls.clone());
        }
        Ok(match &self.auth {
            Auth::None => options,
            Auth::User(name, password) => options.user_and_password(name.clone(), password.clone()),
            Auth::Token(token) => options.token(token.clone()),
            Auth::Credentials(text) => options.credentials(text)?,
        })
    }
}

/// The servers of an address: one or several, separated by commas.
///
/// # Errors
/// With what is wrong with the first that is none.
pub fn servers(url: &str) -> anyhow::Result<Vec<ServerAddr>> {
    let server = |server: &str| {
        let server = server.trim();
        ensure!(
            server.starts_with("nats://") || server.starts_with("tls://"),
            "expected nats://HOST:PORT or tls://HOST:PORT"
        );
        let server: ServerAddr = server.parse()?;
        ensure!(
            server.username().is_none() && server.password().is_none(),
            "credentials do not belong into the url, use username and password or token"
        );
        ensure!(!server.host().is_empty(), "no host");
        Ok(server)
    };
    url.split(',').map(server).collect()
}

/// At most one way to prove who we are.
fn auth(config: &NatsConfig, reader: &mut Reader<'_>) -> anyhow::Result<Auth> {
    let has_token = config.token.is_some() || config.token_file.is_some();
    let ways = [
        config.username.is_some(),
        has_token,
        config.credentials_file.is_some(),
    ];
    ensure!(
        ways.iter().filter(|set| **set).count() <= 1,
        "at most one of username, token & credentials_file must be configured"
    );
    if let Some(user) = &config.username {
        let file = config.password_file.as_deref();
        let password = reader.optional("password", config.password.as_ref(), file)?;
        return Ok(Auth::User(user.clone(), password.unwrap_or_default()));
    }
    if has_token {
        let file = config.token_file.as_deref();
        let token = reader.required("token", config.token.as_ref(), file)?;
        return Ok(Auth::Token(token));
    }
    if let Some(path) = &config.credentials_file {
        let path = reader.tree.base_dir.join(path);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("credentials_file: cannot read {}", path.display()))?;
        ConnectOptions::with_credentials(&text)
            .with_context(|| format!("credentials_file: {} is damaged", path.display()))?;
        reader.note(&text);
        return Ok(Auth::Credentials(text));
    }
    Ok(Auth::None)
}
