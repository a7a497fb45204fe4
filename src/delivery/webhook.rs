//! Webhooks: a POST with Standard Webhooks headers.
//!
//! The body is that of the outbox row, byte for byte, or what a template makes of the
//! notification in it: the same in every attempt.

use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderValue};

use super::http::Call;
use super::sign::Signer;
use super::templates::{Notice, Text};
use crate::model::{Delivery, Timestamp};

/// A webhook's checked configuration.
#[derive(Clone)]
pub(super) struct Webhook {
    pub(super) uri: Uri,
    /// Sent with every request.
    pub(super) headers: HeaderMap,
    pub(super) signer: Signer,
    /// A body of its own.
    pub(super) body: Option<Body>,
}

/// What is sent instead of the row's body.
#[derive(Clone)]
pub(super) struct Body {
    pub(super) text: Text,
    pub(super) content_type: String,
}

impl Webhook {
    pub(super) fn call(&self, delivery: &Delivery, now: Timestamp) -> Result<Call, String> {
        let timestamp = now.as_ms().div_euclid(1000);
        let (content_type, body) = match &self.body {
            None => (&delivery.content_type, delivery.body.clone()),
            Some(own) => {
                let body = Notice::of(delivery)?.render(&own.text)?;
                (&own.content_type, body.into_bytes())
            }
        };
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value).map_err(|err| err.to_string())?;
            headers.insert(name, value);
            Ok::<(), String>(())
        };
        set(header::CONTENT_TYPE.as_str(), content_type)?;
        set("webhook-id", &delivery.event_id)?;
        set("webhook-timestamp", &timestamp.to_string())?;
        let signature = self.signer.sign(&delivery.event_id, timestamp, &body);
        if let Some(signature) = signature {
            set("webhook-signature", &signature)?;
        }
        // After ours, so that a configured user agent wins.
        headers.extend(self.headers.clone());
        Ok(Call {
            uri: self.uri.clone(),
            headers,
            body,
        })
    }
}
