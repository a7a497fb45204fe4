//! MQTT packets in both protocol versions, as far as a subscriber needs them.
//!
//! Packets that come once in a connection are written and read by rumqttc's
//! codecs. PUBLISH and PUBACK, which come with every message, are done here:
//!
//! - a packet above the maximum is skipped byte by byte and still acknowledged.
//!   rumqttc's decoder fails there, and a 3.1.1 broker would send it again after
//!   each reconnect for ever, with nothing behind it ever delivered;
//! - a topic that is not UTF-8 is no error of the connection;
//! - properties of a PUBLISH are skipped, not parsed: we announce no topic alias,
//!   and no other property matters here.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::options::Options;
use crate::config::MqttProtocol;

const PUBLISH: u8 = 3;
const PUBREL: u8 = 6;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;

/// A packet from the broker.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Packet {
    /// The answer to our connect.
    ConnAck(ConnAck),
    /// A message.
    Publish(Publish),
    /// A message above the maximum packet size, of which only this is known.
    Oversize(Answer),
    /// The answer to a subscribe: for each filter whether, and else why not.
    SubAck(Vec<Result<u8, String>>),
    /// The broker releases a QoS 2 message.
    PubRel(u16),
    /// The answer to a ping.
    PingResp,
    /// The broker closes the connection, and why.
    Disconnect(String),
    /// Nothing that matters.
    Other,
}

/// The answer to our connect.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ConnAck {
    /// Whether the broker still has our session.
    pub(super) session_present: bool,
    /// Why it refuses us.
    pub(super) refused: Option<String>,
    /// The keep-alive time that it wants instead, in seconds.
    pub(super) keep_alive: Option<u16>,
    /// For how long it keeps the session, if it says so, in seconds.
    pub(super) session_expiry: Option<u32>,
}

/// A message.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Publish {
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    /// Whether the broker has sent it before.
    pub(super) dup: bool,
    pub(super) answer: Answer,
}

/// How a message is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// QoS 0: not at all.
    None,
    /// QoS 1.
    PubAck(u16),
    /// QoS 2, which we never ask for, but an old session of our id may hold.
    PubRec(u16),
}

/// Bytes that are not MQTT.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Error {
    /// A packet that cannot be read.
    #[error("broker sent a malformed packet: {0}")]
    Malformed(String),
    /// A packet that is no message and above the maximum.
    #[error("broker sent a packet of {0} bytes that is no message")]
    TooLarge(usize),
}

/// Cuts packets out of the bytes of one connection.
#[derive(Debug)]
pub(super) struct Decoder {
    protocol: MqttProtocol,
    packet_max: usize,
    /// What is left of a packet that is being skipped.
    skip: usize,
}

impl Decoder {
    /// For a new connection.
    pub(super) fn new(protocol: MqttProtocol, packet_max: usize) -> Decoder {
        Decoder {
            protocol,
            packet_max,
            skip: 0,
        }
    }

    /// The next packet in `input`; `None` when more bytes are needed, for which
    /// there is room then.
    ///
    /// # Errors
    /// When the bytes are not MQTT; the connection is of no use any more.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Packet>, Error> {
        let skipped = self.skip.min(input.len());
        input.advance(skipped);
        self.skip -= skipped;
        let Some(header) = Header::read(input)? else {
            return Ok(None);
        };
        if header.total() > self.packet_max {
            return self.oversize(header, input);
        }
        if input.len() < header.total() {
            input.reserve(header.total() - input.len());
            return Ok(None);
        }
        let mut packet = input.split_to(header.total());
        let (kind, bare) = (header.first >> 4, header.remaining == 0);
        match kind {
            PUBLISH => {
                let packet = packet.freeze().slice(header.length..);
                publish(self.protocol, header.first, packet).map(Some)
            }
            PUBREL => Ok(Some(Packet::PubRel(take_u16(
                &mut packet.split_off(header.length),
            )?))),
            PINGRESP => Ok(Some(Packet::PingResp)),
            DISCONNECT if bare => Ok(Some(Packet::Disconnect("no reason given".to_owned()))),
            _ => match self.protocol {
                MqttProtocol::V5 => control_v5(&mut packet).map(Some),
                MqttProtocol::V3 => control_v3(&mut packet).map(Some),
            },
        }
    }

    /// As soon as the packet id is there, the rest is skipped.
    fn oversize(&mut self, header: Header, input: &mut BytesMut) -> Result<Option<Packet>, Error> {
        if header.first >> 4 != PUBLISH {
            return Err(Error::TooLarge(header.total()));
        }
        let Some(topic) = input.get(header.length..header.length + 2) else {
            return Ok(None);
        };
        let topic_bytes = usize::from(u16::from_be_bytes([topic[0], topic[1]]));
        let qos = qos(header.first)?;
        let needed = header.length + 2 + topic_bytes + if qos > 0 { 2 } else { 0 };
        if needed > header.total() {
            return Err(Error::Malformed("a topic beyond its packet".to_owned()));
        }
        if input.len() < needed {
            input.reserve(needed - input.len());
            return Ok(None);
        }
        let mut id = &input[needed.saturating_sub(2)..needed];
        let answer = answer(qos, &mut id)?;
        let skipped = header.total().min(input.len());
        input.advance(skipped);
        self.skip = header.total() - skipped;
        Ok(Some(Packet::Oversize(answer)))
    }
}

/// What every packet starts with.
#[derive(Clone, Copy)]
struct Header {
    first: u8,
    /// Its own length: 2 to 5.
    length: usize,
    /// The length of what follows.
    remaining: usize,
}

impl Header {
    fn read(input: &[u8]) -> Result<Option<Header>, Error> {
        let Some((&first, rest)) = input.split_first() else {
            return Ok(None);
        };
        Ok(var_int(rest)?.map(|(remaining, bytes)| Header {
            first,
            length: 1 + bytes,
            remaining,
        }))
    }

    fn total(&self) -> usize {
        self.length + self.remaining
    }
}

/// A number in 1 to 4 bytes, and how many they were.
fn var_int(input: &[u8]) -> Result<Option<(usize, usize)>, Error> {
    let mut value = 0;
    for (i, byte) in input.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    match input.len() {
        0..4 => Ok(None),
        _ => Err(Error::Malformed("a length of more than 4 bytes".to_owned())),
    }
}

fn take_u16(input: &mut impl Buf) -> Result<u16, Error> {
    input
        .try_get_u16()
        .map_err(|_| Error::Malformed("a packet that ends too early".to_owned()))
}

fn qos(first: u8) -> Result<u8, Error> {
    match first >> 1 & 3 {
        3 => Err(Error::Malformed("a message with QoS 3".to_owned())),
        qos => Ok(qos),
    }
}

fn answer(qos: u8, input: &mut impl Buf) -> Result<Answer, Error> {
    if qos == 0 {
        return Ok(Answer::None);
    }
    match (take_u16(input)?, qos) {
        (0, _) => Err(Error::Malformed("a message with packet id 0".to_owned())),
        (id, 1) => Ok(Answer::PubAck(id)),
        (id, _) => Ok(Answer::PubRec(id)),
    }
}

fn publish(protocol: MqttProtocol, first: u8, mut packet: Bytes) -> Result<Packet, Error> {
    let short = || Error::Malformed("a message that ends too early".to_owned());
    let topic_bytes = usize::from(take_u16(&mut packet)?);
    if packet.len() < topic_bytes {
        return Err(short());
    }
    let topic = packet.split_to(topic_bytes);
    let answer = answer(qos(first)?, &mut packet)?;
    if protocol == MqttProtocol::V5 {
        let (properties, bytes) = var_int(&packet)?.ok_or_else(short)?;
        if packet.len() < bytes + properties {
            return Err(short());
        }
        packet.advance(bytes + properties);
    }
    Ok(Packet::Publish(Publish {
        topic,
        payload: packet,
        dup: first & 8 != 0,
        answer,
    }))
}

fn control_v5(packet: &mut BytesMut) -> Result<Packet, Error> {
    let packet = v5::Packet::read(packet, None).map_err(|err| Error::Malformed(err.to_string()))?;
    Ok(match packet {
        v5::Packet::ConnAck(ack) => {
            let properties = ack.properties.as_ref();
            let text = properties.and_then(|p| p.reason_string.as_deref());
            let refused = ack.code != v5::ConnectReturnCode::Success;
            Packet::ConnAck(ConnAck {
                session_present: ack.session_present,
                refused: refused.then(|| reason(&ack.code, text)),
                keep_alive: properties.and_then(|p| p.server_keep_alive),
                session_expiry: properties.and_then(|p| p.session_expiry_interval),
            })
        }
        v5::Packet::SubAck(ack) => Packet::SubAck(
            ack.return_codes
                .iter()
                .map(|code| match code {
                    v5::SubscribeReasonCode::Success(qos) => Ok(*qos as u8),
                    other => Err(reason(other, None)),
                })
                .collect(),
        ),
        v5::Packet::Disconnect(packet) => {
            let properties = packet.properties.as_ref();
            let text = properties.and_then(|p| p.reason_string.as_deref());
            Packet::Disconnect(reason(&packet.reason_code, text))
        }
        _ => Packet::Other,
    })
}

fn control_v3(packet: &mut BytesMut) -> Result<Packet, Error> {
    let packet =
        v4::Packet::read(packet, usize::MAX).map_err(|err| Error::Malformed(err.to_string()))?;
    Ok(match packet {
        v4::Packet::ConnAck(ack) => {
            let refused = ack.code != v4::ConnectReturnCode::Success;
            Packet::ConnAck(ConnAck {
                session_present: ack.session_present,
                refused: refused.then(|| reason(&ack.code, None)),
                keep_alive: None,
                session_expiry: None,
            })
        }
        v4::Packet::SubAck(ack) => Packet::SubAck(
            ack.return_codes
                .iter()
                .map(|code| match code {
                    v4::SubscribeReasonCode::Success(qos) => Ok(*qos as u8),
                    v4::SubscribeReasonCode::Failure => Err("refused".to_owned()),
                })
                .collect(),
        ),
        _ => Packet::Other,
    })
}

/// `NotAuthorized` as `not authorized`, and what the broker adds to it.
fn reason(code: &impl std::fmt::Debug, text: Option<&str>) -> String {
    let mut words = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    match text {
        Some(text) => format!("{words}: {text}"),
        None => words,
    }
}

/// Writes our connect: never a clean start, so that the broker keeps what we missed.
pub(super) fn connect(options: &Options, out: &mut BytesMut) {
    let client_id = options.client_id.clone();
    let keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
    let user = options.username.clone().unwrap_or_default();
    let password = options.password.clone().unwrap_or_default();
    let has_login = options.username.is_some();
    let written = match options.protocol {
        MqttProtocol::V5 => {
            let connect = v5::Connect {
                keep_alive,
                client_id,
                clean_start: false,
                properties: Some(v5::ConnectProperties {
                    session_expiry_interval: Some(
                        u32::try_from(options.session_expiry.as_secs()).unwrap_or(u32::MAX),
                    ),
                    receive_maximum: Some(options.receive_maximum),
                    max_packet_size: Some(u32::try_from(options.packet_max).unwrap_or(u32::MAX)),
                    ..v5::ConnectProperties::new()
                }),
            };
            let login = has_login.then(|| v5::Login::new(user, password));
            let packet = v5::Packet::Connect(connect, None, login);
            packet.write(out, None).map_err(drop)
        }
        MqttProtocol::V3 => {
            let mut connect = v4::Connect::new(client_id);
            connect.keep_alive = keep_alive;
            connect.clean_session = false;
            if has_login {
                connect.set_login(user, password);
            }
            let packet = v4::Packet::Connect(connect);
            packet.write(out, usize::MAX).map_err(drop)
        }
    };
    written.expect("a connect is far below 256 MiB");
}

/// Writes a subscribe to `filters`.
pub(super) fn subscribe(options: &Options, filters: &[String], packet_id: u16, out: &mut BytesMut) {
    let written = match options.protocol {
        MqttProtocol::V5 => {
            let qos = if options.qos == 0 {
                rumqttc::v5::mqttbytes::QoS::AtMostOnce
            } else {
                rumqttc::v5::mqttbytes::QoS::AtLeastOnce
            };
            let filters = filters.iter().map(|path| v5::Filter {
                path: path.clone(),
                qos,
                nolocal: false,
                preserve_retain: true,
                // Retained messages only for what the session did not have before.
                retain_forward_rule: v5::RetainForwardRule::OnNewSubscribe,
            });
            let mut packet = v5::Subscribe::new_many(filters, None);
            packet.pkid = packet_id;
            v5::Packet::Subscribe(packet).write(out, None).map_err(drop)
        }
        MqttProtocol::V3 => {
            let qos = if options.qos == 0 {
                rumqttc::mqttbytes::QoS::AtMostOnce
            } else {
                rumqttc::mqttbytes::QoS::AtLeastOnce
            };
            let filters = filters.iter().map(|path| v4::SubscribeFilter {
                path: path.clone(),
                qos,
            });
            let mut packet = v4::Subscribe::new_many(filters);
            packet.pkid = packet_id;
            v4::Packet::Subscribe(packet)
                .write(out, usize::MAX)
                .map_err(drop)
        }
    };
    written.expect("filters were checked to fit a packet");
}

/// Writes an unsubscribe from `filters`.
pub(super) fn unsubscribe(
    protocol: MqttProtocol,
    filters: Vec<String>,
    packet_id: u16,
    out: &mut BytesMut,
) {
    let written = match protocol {
        MqttProtocol::V5 => v5::Packet::Unsubscribe(v5::Unsubscribe {
            pkid: packet_id,
            filters,
            properties: None,
        })
        .write(out, None)
        .map_err(drop),
        MqttProtocol::V3 => v4::Packet::Unsubscribe(v4::Unsubscribe {
            pkid: packet_id,
            topics: filters,
        })
        .write(out, usize::MAX)
        .map_err(drop),
    };
    written.expect("filters were checked to fit a packet");
}

/// Writes the acknowledgement of a message. Both versions write success alike.
pub(super) fn acknowledge(answer: Answer, out: &mut BytesMut) {
    let (first, id) = match answer {
        Answer::None => return,
        Answer::PubAck(id) => (0x40, id),
        Answer::PubRec(id) => (0x50, id),
    };
    out.put_slice(&[first, 2]);
    out.put_u16(id);
}

/// Answers a [`Packet::PubRel`], also for an id that we do not know: that is the
/// second half of a QoS 2 message that was acknowledged before a restart.
pub(super) fn complete(packet_id: u16, out: &mut BytesMut) {
    out.put_slice(&[0x70, 2]);
    out.put_u16(packet_id);
}

/// Writes a ping.
pub(super) fn ping(out: &mut BytesMut) {
    out.put_slice(&[0xc0, 0]);
}

/// Writes a clean end of the connection. The session lives on.
pub(super) fn disconnect(out: &mut BytesMut) {
    out.put_slice(&[0xe0, 0]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: [MqttProtocol; 2] = [MqttProtocol::V5, MqttProtocol::V3];

    /// A PUBLISH as rumqttc's codec of that version writes it.
    fn written(protocol: MqttProtocol, topic: &str, qos: u8, id: u16, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        match protocol {
            MqttProtocol::V5 => {
                let level = rumqttc::v5::mqttbytes::qos(qos).unwrap();
                let mut packet = v5::Publish::new(topic, level, payload.to_vec(), None);
                packet.pkid = id;
                packet.dup = id.is_multiple_of(2);
                packet.properties = id.is_multiple_of(3).then(|| v5::PublishProperties {
                    user_properties: vec![("a".into(), "b".into())],
                    ..v5::PublishProperties::default()
                });
                v5::Packet::Publish(packet).write(&mut out, None).unwrap();
            }
            MqttProtocol::V3 => {
                let level = rumqttc::mqttbytes::qos(qos).unwrap();
                let mut packet = v4::Publish::new(topic, level, payload);
                packet.pkid = id;
                packet.dup = id.is_multiple_of(2);
                v4::Packet::Publish(packet)
                    .write(&mut out, usize::MAX)
                    .unwrap();
            }
        }
        out
    }

    /// Feeds `bytes` in pieces of `step`.
    fn decode_all(decoder: &mut Decoder, bytes: &[u8], step: usize) -> Result<Vec<Packet>, Error> {
        let mut input = BytesMut::new();
        let mut packets = Vec::new();
        for piece in bytes.chunks(step) {
            input.extend_from_slice(piece);
            while let Some(packet) = decoder.decode(&mut input)? {
                packets.push(packet);
            }
        }
        Ok(packets)
    }

    #[test]
    fn a_packet_above_the_maximum_is_skipped_and_the_next_one_arrives() {
        for protocol in BOTH {
            for qos in [0, 1, 2] {
                let mut bytes = written(protocol, "a/b", qos, 9, &[0xff; 3_000]);
                bytes.extend_from_slice(&written(protocol, "a/c", 1, 10, b"next"));
                for step in [1, 7, 1_000, 10_000] {
                    let mut decoder = Decoder::new(protocol, 100);
                    let packets = decode_all(&mut decoder, &bytes, step).unwrap();
                    let answer =
                        [Answer::None, Answer::PubAck(9), Answer::PubRec(9)][usize::from(qos)];
                    assert_eq!(packets[0], Packet::Oversize(answer));
                    let Packet::Publish(next) = &packets[1] else {
                        panic!("{packets:?}");
                    };
                    assert_eq!((&next.payload[..], packets.len()), (&b"next"[..], 2));
                }
            }
        }
    }

    #[test]
    fn refusals_say_why() {
        let mut decoder = Decoder::new(MqttProtocol::V5, 100);
        let packets = decode_all(&mut decoder, &[0x20, 3, 0, 0x86, 0], 9).unwrap();
        let Packet::ConnAck(ack) = &packets[0] else {
            panic!("{packets:?}");
        };
        assert_eq!(ack.refused.as_deref(), Some("bad user name password"));
        let mut decoder = Decoder::new(MqttProtocol::V3, 100);
        let packets = decode_all(&mut decoder, &[0x20, 2, 0, 5, 0x90, 3, 0, 1, 0x80], 9).unwrap();
        assert!(matches!(&packets[0], Packet::ConnAck(ack) if ack.refused.is_some()));
        assert_eq!(packets[1], Packet::SubAck(vec![Err("refused".to_owned())]));
    }

    #[test]
    fn a_disconnect_says_why() {
        let mut decoder = Decoder::new(MqttProtocol::V5, 100);
        let packets = decode_all(&mut decoder, &[0xe0, 2, 0x8e, 0, 0xe0, 0], 9).unwrap();
        assert_eq!(
            packets,
            [
                Packet::Disconnect("session taken over".to_owned()),
                Packet::Disconnect("no reason given".to_owned())
            ]
        );
    }

    #[test]
    fn a_topic_that_is_not_utf8_is_a_message_like_any_other() {
        let bytes = [0x30, 5, 0, 2, 0xff, 0xfe, b'1'];
        let mut decoder = Decoder::new(MqttProtocol::V3, 100);
        let packets = decode_all(&mut decoder, &bytes, 3).unwrap();
        assert!(matches!(&packets[0], Packet::Publish(p) if p.topic[..] == [0xff, 0xfe]));
    }

    proptest! {
        #[test]
        fn messages_read_as_rumqttc_writes_them(
            topic in "[a-z/äß]{1,40}",
            qos in 0u8..3,
            id in 1u16..,
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            step in 1usize..400,
        ) {
            for protocol in BOTH {
                let bytes = written(protocol, &topic, qos, id, &payload);
                let mut decoder = Decoder::new(protocol, 10_000);
                let packets = decode_all(&mut decoder, &bytes, step).unwrap();
                let answer = [Answer::None, Answer::PubAck(id), Answer::PubRec(id)][usize::from(qos)];
                let want = Publish {
                    topic: Bytes::copy_from_slice(topic.as_bytes()),
                    payload: Bytes::copy_from_slice(&payload),
                    dup: id.is_multiple_of(2),
                    answer,
                };
                prop_assert_eq!(packets, vec![Packet::Publish(want)]);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            step in 1usize..50,
        ) {
            for protocol in BOTH {
                let _ = decode_all(&mut Decoder::new(protocol, 64), &bytes, step);
            }
        }
    }
}
