//! `[[route]]`, compiled: which accepted messages go to which destination.
//!
//! A routed message leaves as one JSON object: `tenant_id`, `device_id` (when
//! there is one), `topic`, `timestamp` (RFC 3339) and `payload`, the payload
//! itself when it is JSON, else `payload_base64`. Nothing in it depends on when
//! or how often the message came, so a redelivered message makes the same body.
//!
//! The event id is a SHA-256 over route, tenant, topic, time and payload, cut to
//! 128 bits: receivers use it as their idempotency key, so it must not be
//! possible to make a message that collides with another tenant's.

use std::borrow::Cow;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest;
use serde::Serialize;
use serde_json::value::RawValue;

use super::topic::Template;
use crate::config;
use crate::model::{Delivery, DeliveryKind, TenantId, Timestamp};

/// One compiled `[[route]]`.
#[derive(Debug)]
pub(super) struct Route {
    /// The metric that the message must have a sample of.
    pub(super) metric: Option<String>,
    name: String,
    destination: String,
    tenant: Option<String>,
    topic: Template,
}

/// A message on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'a> {
    /// Whose it is.
    pub(super) tenant: &'a TenantId,
    /// Which device sent it.
    pub(super) device: Option<&'a str>,
    /// Its topic.
    pub(super) topic: &'a str,
    /// Its time: the payload's, else the message's stamp.
    pub(super) time: Timestamp,
    /// The payload as received.
    pub(super) payload: &'a [u8],
}

#[derive(Serialize)]
struct Envelope<'a> {
    tenant_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    topic: &'a str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<Cow<'a, str>>,
}

impl Route {
    /// Compiles a route.
    ///
    /// # Errors
    /// When the topic is not a filter.
    pub(super) fn compile(raw: &config::Route) -> anyhow::Result<Route> {
        Ok(Route {
            metric: raw.metric.clone(),
            name: raw.name.clone(),
            destination: raw.destination.clone(),
            tenant: raw.tenant.clone(),
            topic: Template::filter(&raw.topic).context("topic")?,
        })
    }

    /// Whether it takes messages of this tenant and topic.
    pub(super) fn takes(&self, tenant: &str, topic: &str) -> bool {
        self.tenant.as_deref().is_none_or(|t| t == tenant) && self.topic.matches(topic)
    }

    /// The outbox row of a message.
    pub(super) fn delivery(&self, event: &Event<'_>, now: Timestamp) -> Delivery {
        Delivery {
            kind: DeliveryKind::Telemetry,
            event_id: self.event_id(event),
            destination: self.destination.clone(),
            tenant_id: event.tenant.clone(),
            route: self.name.clone(),
            created_at: now,
            attempts: 0,
            next_at: now,
            flush_interval_ms: None,
            content_type: "application/json".to_owned(),
            on_success: Vec::new(),
            body: body(event),
        }
    }

    /// Every part behind its length, so that no two messages give the same text.
    fn event_id(&self, event: &Event<'_>) -> String {
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in [
            self.name.as_bytes(),
            event.tenant.as_str().as_bytes(),
            event.topic.as_bytes(),
            &event.time.as_ms().to_be_bytes(),
            event.payload,
        ] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finish();
        let (half, _) = digest
            .as_ref()
            .split_first_chunk()
            .expect("SHA-256 has 32 bytes");
        format!("evt_{:032x}", u128::from_be_bytes(*half))
    }
}

fn body(event: &Event<'_>) -> Vec<u8> {
    let payload: Option<&RawValue> = serde_json::from_slice(event.payload).ok();
    let encoded = || Cow::from(BASE64.encode(event.payload));
    let envelope = Envelope {
        tenant_id: event.tenant.as_str(),
        device_id: event.device,
        topic: event.topic,
        timestamp: event.time.to_rfc3339(),
        payload,
        payload_base64: payload.is_none().then(encoded),
    };
    serde_json::to_vec(&envelope).expect("an envelope is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(change: impl FnOnce(&mut config::Route)) -> Route {
        let mut raw = config::Route {
            name: "r".into(),
            tenant: None,
            topic: "#".into(),
            metric: None,
            destination: "hook".into(),
        };
        change(&mut raw);
        Route::compile(&raw).unwrap()
    }

    fn event<'a>(tenant: &'a TenantId, payload: &'a [u8]) -> Event<'a> {
        Event {
            tenant,
            device: Some("d"),
            topic: "tenants/a/devices/d/telemetry",
            time: Timestamp::from_ms(1_700_000_000_000),
            payload,
        }
    }

    fn check_body(payload: &[u8], want: &str) {
        let tenant = TenantId::new("a").unwrap();
        let delivery = route(|_| {}).delivery(&event(&tenant, payload), Timestamp::from_ms(9));
        let head = r#"{"tenant_id":"a","device_id":"d","topic":"tenants/a/devices/d/telemetry","timestamp":"2023-11-14T22:13:20.000Z","#;
        let body = String::from_utf8(delivery.body).unwrap();
        assert_eq!(body, format!("{head}{want}}}"));
    }

    #[test]
    fn a_payload_travels_as_it_came() {
        check_body(br#"{ "v": 1.50 }"#, r#""payload":{ "v": 1.50 }"#);
        check_body(b"21.5", r#""payload":21.5"#);
        check_body(b"+5", r#""payload_base64":"KzU=""#);
        check_body(b"\xff", r#""payload_base64":"/w==""#);
    }

    #[test]
    fn the_id_depends_on_the_message_and_nothing_else() {
        let [a, b] = ["a", "b"].map(|t| TenantId::new(t).unwrap());
        let route_r = route(|_| {});
        let id = |route: &Route, event: Event<'_>, now| {
            route.delivery(&event, Timestamp::from_ms(now)).event_id
        };
        let first = id(&route_r, event(&a, b"1"), 1);
        assert_eq!(first.len(), 36);
        assert_eq!(first, id(&route_r, event(&a, b"1"), 2));
        assert_ne!(first, id(&route_r, event(&b, b"1"), 1));
        assert_ne!(first, id(&route_r, event(&a, b"2"), 1));
        assert_ne!(
            first,
            id(&route(|r| r.name = "s".into()), event(&a, b"1"), 1)
        );
        let later = Event {
            time: Timestamp::from_ms(5),
            ..event(&a, b"1")
        };
        assert_ne!(first, id(&route_r, later, 1));
    }

    #[test]
    fn tenant_and_topic_decide() {
        let narrow = route(|r| {
            r.tenant = Some("a".into());
            r.topic = "tenants/+/devices/d/#".into();
        });
        assert!(narrow.takes("a", "tenants/a/devices/d/telemetry"));
        assert!(!narrow.takes("b", "tenants/b/devices/d/telemetry"));
        assert!(!narrow.takes("a", "tenants/a/devices/e/telemetry"));
    }
}
