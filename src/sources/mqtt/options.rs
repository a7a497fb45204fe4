//! A checked `[[source.mqtt]]`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rumqttc::v5::mqttbytes::valid_filter;
use rustls::ClientConfig;

use super::super::{address, tls};
use crate::config::{self, Config, MqttProtocol, Tls};

/// A longer MQTT string cannot be written.
const STRING_BYTES_MAX: usize = 65_535;
/// All filters go into one packet.
const FILTERS_BYTES_MAX: usize = 1 << 20;
/// The smallest maximum packet size that is of any use.
const PACKET_MAX_MIN: u64 = 256;
/// What MQTT can write as a packet length.
const PACKET_MAX_MAX: u64 = 268_435_455;

/// A subscription at one broker, valid by construction.
#[derive(Clone)]
pub struct Options {
    /// Names the source.
    pub(in super::super) name: String,
    /// As configured; it holds no credentials.
    pub(in super::super) url: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) protocol: MqttProtocol,
    pub(super) topics: Vec<String>,
    pub(super) qos: u8,
    pub(super) client_id: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) keep_alive: Duration,
    pub(super) receive_maximum: u16,
    pub(super) session_expiry: Duration,
    pub(super) packet_max: usize,
    /// Changes with the secrets and certificates, which a reload cannot see in
    /// the configuration itself.
    pub(in super::super) fingerprint: u64,
}

impl Options {
    /// Checks a `[[source.mqtt]]` and reads the secrets and certificates that it names.
    ///
    /// # Errors
    /// When a value is of no use or a file cannot be read; the text begins with the field.
    pub fn from_config(source: &config::Mqtt, config: &Config) -> anyhow::Result<Options> {
        checked(source, config)
    }

    /// What it promises, as pages show it.
    pub(in super::super) fn guarantee(&self) -> &'static str {
        if self.qos == 0 {
            "at most once"
        } else {
            "at least once"
        }
    }
}

fn checked(source: &config::Mqtt, config: &Config) -> anyhow::Result<Options> {
    ensure!(
        !source.name.is_empty() && !source.name.contains('\0'),
        "name: expected at least one character, and no NUL"
    );
    let (secure, rest) = match source.url.split_once("://") {
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        _ => bail!(
            "url: {:?}, expected mqtt://HOST:PORT or mqtts://HOST:PORT",
            source.url
        ),
    };
    let (host, port) = address::parse(rest, if secure { 8883 } else { 1883 })
        .with_context(|| format!("url: {:?}", source.url))?;
    ensure!(
        secure || source.tls == Tls::default(),
        "tls: set, but the url is mqtt://, expected mqtts://"
    );
    check_topics(&source.topics)?;
    match source.qos {
        0 | 1 => {}
        2 => bail!("qos: 2 is not supported, use 1: the store drops what comes twice"),
        other => bail!("qos: {other}, expected 0 or 1"),
    }
    ensure!(
        source.password.is_none() || source.username.is_some(),
        "password: set without username"
    );
    let client_id = match &source.client_id {
        Some(id) => id.clone(),
        None => format!("pulse-{}-{}", address::host_name(), source.name),
    };
    ensure!(
        !client_id.is_empty() && client_id.len() <= STRING_BYTES_MAX,
        "client_id: expected 1 to {STRING_BYTES_MAX} bytes"
    );
    let keep_alive = source.keep_alive.get();
    ensure!(
        (1..=65_535).contains(&keep_alive.as_secs()),
        "keep_alive: {:?}, expected 1s to 65535s",
        source.keep_alive
    );
    ensure!(
        source.receive_maximum > 0,
        "receive_maximum: expected at least 1"
    );
    let packet_max = source.packet_max.get();
    ensure!(
        (PACKET_MAX_MIN..=PACKET_MAX_MAX).contains(&packet_max),
        "packet_max: {:?}, expected {PACKET_MAX_MIN}B to {PACKET_MAX_MAX}B",
        source.packet_max
    );
    let password = source.password.as_ref().map(config::Secret::read);
    let password = password.transpose().context("password")?;
    Ok(Options {
        name: source.name.clone(),
        url: source.url.clone(),
        host,
        port,
        tls: secure
            .then(|| tls::client_config(&source.tls, config))
            .transpose()?,
        protocol: source.protocol,
        topics: source.topics.clone(),
        qos: source.qos,
        client_id,
        username: source.username.clone(),
        fingerprint: tls::fingerprint(&source.tls, config, &[password.as_deref()]),
        password,
        keep_alive,
        receive_maximum: source.receive_maximum,
        session_expiry: source.session_expiry.get(),
        packet_max: source.packet_max.as_usize(),
    })
}

fn check_topics(topics: &[String]) -> anyhow::Result<()> {
    ensure!(!topics.is_empty(), "topics: expected at least one filter");
    for topic in topics {
        ensure!(
            valid_filter(topic) && !topic.contains('\0') && topic.len() <= STRING_BYTES_MAX,
            "topics: {topic:?} is not a topic filter, expected + for one level or # at the end"
        );
    }
    let bytes: usize = topics.iter().map(|topic| topic.len() + 3).sum();
    ensure!(
        bytes <= FILTERS_BYTES_MAX,
        "topics: {bytes} bytes together, expected at most {FILTERS_BYTES_MAX}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &str) -> anyhow::Result<Options> {
        let text = format!("[[source.mqtt]]\nname = \"site\"\n{fields}");
        let config = Config::parse(&text, "c.toml").unwrap();
        Options::from_config(&config.source.mqtt[0], &config)
    }

    fn check_error(fields: &str, want: &str) {
        let err = format!("{:#}", parse(fields).err().expect("an error"));
        assert!(err.contains(want), "{want:?} not in {err}");
    }

    #[test]
    fn defaults_make_a_persistent_session() {
        let options = parse("url = \"mqtt://broker\"").unwrap();
        assert_eq!((&options.host[..], options.port), ("broker", 1883));
        assert_eq!(options.qos, 1);
        assert!(
            options.client_id.starts_with("pulse-"),
            "{}",
            options.client_id
        );
        assert!(
            options.client_id.ends_with("-site"),
            "{}",
            options.client_id
        );
        let secure = parse("url = \"mqtt://[::1]:1\"").unwrap();
        assert_eq!((&secure.host[..], secure.port), ("::1", 1));
    }

    #[test]
    fn errors_name_source_and_field() {
        let url = "url = \"mqtt://h\"\n";
        for (fields, want) in [
            (
                "url = \"tcp://h:1\"",
                "url: \"tcp://h:1\", expected mqtt://",
            ),
            ("url = \"mqtt://h:x\"", "url: \"mqtt://h:x\": port \"x\""),
            ("url = \"mqtt://\"", "url: \"mqtt://\": no host"),
            ("url = \"mqtt://u:p@h\"", "username"),
            (&format!("{url}qos = 2"), "qos: 2 is not supported, use 1"),
            (&format!("{url}qos = 7"), "qos: 7, expected 0 or 1"),
            (&format!("{url}topics = []"), "topics: expected"),
            (&format!("{url}topics = [\"a/#/b\"]"), "topics: \"a/#/b\""),
            (
                &format!("{url}password = \"x\""),
                "password: set without username",
            ),
            (&format!("{url}client_id = \"\""), "client_id: expected"),
            (&format!("{url}keep_alive = \"0s\""), "keep_alive: "),
            (&format!("{url}receive_maximum = 0"), "receive_maximum: "),
            (&format!("{url}packet_max = \"10B\""), "packet_max: 10B"),
            (&format!("{url}tls.ca_file = \"x\""), "tls: set, but"),
            (
                "url = \"mqtts://h\"\ntls.ca_file = \"/nowhere\"",
                "tls.ca_file: cannot read certificates from /nowhere",
            ),
            (
                "url = \"mqtts://h\"\ntls.cert_file = \"x\"",
                "tls.key_file is missing",
            ),
        ] {
            check_error(fields, want);
        }
    }
}
