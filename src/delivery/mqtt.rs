//! Messages of an MQTT 5 broker, one connection for each.
//!
//! Alerts are rare, so nothing is gained by keeping a connection, and nothing can go
//! stale. The event's id travels as user property `idempotency-key`. Delivered means:
//! the broker acknowledged it (QoS 1), or closed no connection on it (QoS 0).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::{Error as WireError, QoS, v5};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::address::{Policy, connect};
use super::http::{Outcome, Verdict};
use super::http_config::server_name;
use super::integration::Reader;
use super::templates::{Notice, Templates, Text};
use super::tls::{self, Stream};
use super::topic;
use crate::config::receivers::MqttConfig;
use crate::model::Delivery;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What the broker may say to us; its answers are a few bytes.
const PACKET_BYTES_MAX: u32 = 64 << 10;
/// The one packet id of a connection.
const PACKET_ID: u16 = 1;

/// A checked `mqtt_configs` entry.
pub(super) struct Mqtt {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    server_name: Option<ServerName<'static>>,
    login: Option<(String, String)>,
    client_id: Option<String>,
    topic: Text,
    payload: Option<Text>,
    qos: QoS,
    retain: bool,
}

/// Why a message was not taken.
enum Failure {
    /// The broker could not be reached, or does not want us.
    Broken(String),
    /// The broker does not want the message.
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Failure {
        Failure::Broken(err.to_string())
    }
}

impl Mqtt {
    /// Checks an entry; reads its secrets and certificates.
    ///
    /// # Errors
    /// With the field that is wrong.
    pub(super) fn new(
        config: &MqttConfig,
        reader: &mut Reader<'_>,
        templates: &Templates,
    ) -> anyhow::Result<Mqtt> {
        let (scheme, rest) = config.url.split_once("://").unwrap_or_default();
        let default_port = match scheme {
            "mqtt" => 1883,
            "mqtts" => 8883,
            _ => bail!(
                "url: expected mqtt://HOST[:PORT] or mqtts://..., got {:?}",
                config.url
            ),
        };
        let (host, port) = host_and_port(rest, default_port).context("url")?;
        ensure!(!config.topic.is_empty(), "missing topic");
        let tls = (scheme == "mqtts").then(|| reader.tls(&config.tls_config));
        let file = config.password_file.as_deref();
        let password = reader.optional("password", config.password.as_ref(), file)?;
        let payload = config.payload.as_ref();
        Ok(Mqtt {
            host,
            port,
            tls: tls.transpose().context("tls_config")?.map(Arc::new),
            server_name: server_name(&config.tls_config).context("tls_config")?,
            login: config
                .username
                .clone()
                .zip(Some(password.unwrap_or_default())),
            client_id: config.client_id.clone(),
            topic: templates.text("topic", &config.topic)?,
            payload: payload
                .map(|text| templates.text("payload", text))
                .transpose()?,
            qos: match config.qos {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                other => bail!("qos: expected 0 or 1, got {other}"),
            },
            retain: config.retain,
        })
    }

    /// Where it leads.
    pub(super) fn shown(&self) -> String {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Makes one attempt.
    pub(super) async fn attempt(&self, delivery: &Delivery, timeout: Duration) -> Outcome {
        let publish = match self.publish(delivery) {
            Ok(publish) => publish,
            Err(error) => return Outcome::unmade("message", &error),
        };
        let sent = Box::pin(self.send(publish, &delivery.event_id));
        match tokio::time::timeout(timeout, sent).await {
            Ok(Ok(answer)) => Outcome {
                verdict: Verdict::Delivered,
                error: None,
                answer,
                receiver_failed: false,
                ..Outcome::failed(String::new())
            },
            Ok(Err(Failure::Broken(error))) => Outcome::failed(error),
            Ok(Err(Failure::Refused(error))) => Outcome::refused(error),
            Err(_) => Outcome::failed(format!("no answer within {} ms", timeout.as_millis())),
        }
    }

    fn publish(&self, delivery: &Delivery) -> Result<v5::Publish, String> {
        let notice = Notice::of(delivery)?;
        let topic = notice.render_escaped(&self.topic, topic::word)?;
        topic::check_topic(&topic)?;
        let (payload, content_type) = match &self.payload {
            Some(text) => (notice.render(text)?.into_bytes(), None),
            None => (delivery.body.clone(), Some(delivery.content_type.clone())),
        };
        let key = ("idempotency-key".to_owned(), notice.event_id);
        Ok(v5::Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: Bytes::from(topic.into_bytes()),
            pkid: PACKET_ID,
            payload: Bytes::from(payload),
            properties: Some(v5::PublishProperties {
                user_properties: vec![key],
                content_type,
                ..v5::PublishProperties::default()
            }),
        })
    }

    async fn send(&self, publish: v5::Publish, event_id: &str) -> Result<String, Failure> {
        let tcp = connect(Policy::Operator, &self.host, self.port, CONNECT_TIMEOUT);
        let tcp = tokio::time::timeout(CONNECT_TIMEOUT, tcp).await;
        let tcp = tcp.map_err(|_| Failure::Broken("connecting timed out".to_owned()))??;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = self.server_name.clone();
                tls::encrypt(Box::new(tcp), &self.host, name, config).await?
            }
        };
        let mut session = Session {
            stream,
            input: BytesMut::new(),
        };
        session.write(self.connect(event_id)).await?;
        match session.next().await? {
            v5::Packet::ConnAck(ack) if ack.code == v5::ConnectReturnCode::Success => {}
            v5::Packet::ConnAck(ack) => {
                return Err(Failure::Broken(format!(
                    "broker refused us: {:?}",
                    ack.code
                )));
            }
            _ => return Err(Failure::Broken("not an answer to a connect".to_owned())),
        }
        let is_acknowledged = publish.qos == QoS::AtLeastOnce;
        session.write(v5::Packet::Publish(publish)).await?;
        let answer = if is_acknowledged {
            session.acknowledged().await?
        } else {
            "sent".to_owned()
        };
        let reason = v5::DisconnectReasonCode::NormalDisconnection;
        let disconnect = v5::Packet::Disconnect(v5::Disconnect::new(reason));
        // It is taken; how the connection ends changes nothing.
        drop(session.write(disconnect).await);
        drop(session.stream.shutdown().await);
        Ok(answer)
    }

    fn connect(&self, event_id: &str) -> v5::Packet {
        // Two attempts at once must not push each other out.
        let own = event_id.strip_prefix("ntf_").unwrap_or(event_id);
        let own = format!("pulse-{}", own.get(..16).unwrap_or(own));
        let connect = v5::Connect {
            keep_alive: 60,
            client_id: self.client_id.clone().unwrap_or(own),
            clean_start: true,
            properties: None,
        };
        let login = self.login.clone();
        let login = login.map(|(user, password)| v5::Login::new(user, password));
        v5::Packet::Connect(connect, None, login)
    }
}

struct Session {
    stream: Box<dyn Stream>,
    input: BytesMut,
}

impl Session {
    async fn write(&mut self, packet: v5::Packet) -> Result<(), Failure> {
        let mut out = BytesMut::new();
        let written = packet.write(&mut out, None);
        written.map_err(|err| Failure::Refused(err.to_string()))?;
        self.stream.write_all(&out).await?;
        Ok(self.stream.flush().await?)
    }

    async fn next(&mut self) -> Result<v5::Packet, Failure> {
        loop {
            match v5::Packet::read(&mut self.input, Some(PACKET_BYTES_MAX)) {
                Ok(packet) => return Ok(packet),
                Err(WireError::InsufficientBytes(_)) => {}
                Err(err) => return Err(Failure::Broken(err.to_string())),
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Failure::Broken("broker closed the connection".to_owned()));
            }
        }
    }

    async fn acknowledged(&mut self) -> Result<String, Failure> {
        loop {
            match self.next().await? {
                v5::Packet::PubAck(ack) => {
                    let reason = format!("{:?}", ack.reason);
                    return match ack.reason {
                        v5::PubAckReason::Success | v5::PubAckReason::NoMatchingSubscribers => {
                            Ok(reason)
                        }
                        _ => Err(Failure::Refused(format!("broker refused it: {reason}"))),
                    };
                }
                v5::Packet::Disconnect(packet) => {
                    let reason = packet.reason_code;
                    return Err(Failure::Broken(format!("broker left: {reason:?}")));
                }
                _ => {}
            }
        }
    }
}

/// `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
fn host_and_port(text: &str, default_port: u16) -> anyhow::Result<(String, u16)> {
    let text = text.trim_end_matches('/');
    let uri: hyper::Uri = format!("tcp://{text}/").parse()?;
    let is_plain = uri.path() == "/" && uri.query().is_none() && !text.contains('@');
    let port = uri.port_u16();
    let is_plain = is_plain && (port.is_some() || text.ends_with(uri.host().unwrap_or_default()));
    let host = uri.host().filter(|host| is_plain && !host.is_empty());
    let host = host.ok_or_else(|| anyhow!("expected HOST[:PORT], got {text:?}"))?;
    let host = host.trim_matches(['[', ']']);
    Ok((host.to_owned(), port.unwrap_or(default_port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_a_port() {
        let check = |text: &str, want: (&str, u16)| {
            let (host, port) = host_and_port(text, 1883).unwrap();
            assert_eq!((host.as_str(), port), want, "{text}");
        };
        check("h", ("h", 1883));
        check("h:1/", ("h", 1));
        check("[::1]:2", ("::1", 2));
        for bad in ["", "u:p@h", "h/path", "h:x", "h?x"] {
            assert!(host_and_port(bad, 1).is_err(), "{bad}");
        }
    }
}
