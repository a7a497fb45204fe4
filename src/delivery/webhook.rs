//! Webhooks: a POST with Standard Webhooks headers.
//!
//! The body is that of the outbox row, byte for byte.

use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderValue};

use super::http::Call;
use super::sign::Signer;
use crate::model::{Delivery, Timestamp};

/// A webhook's checked configuration.
#[derive(Clone)]
pub(super) struct Webhook {
    pub(super) uri: Uri,
    /// Sent with every request.
    pub(super) headers: HeaderMap,
    pub(super) signer: Signer,
}

impl Webhook {
    pub(super) fn call(&self, delivery: &Delivery, now: Timestamp) -> Result<Call, String> {
        let timestamp = now.as_ms().div_euclid(1000);
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value).map_err(|err| err.to_string())?;
            headers.insert(name, value);
            Ok::<(), String>(())
        };
        set(header::CONTENT_TYPE.as_str(), &delivery.content_type)?;
        set("webhook-id", &delivery.event_id)?;
        set("webhook-timestamp", &timestamp.to_string())?;
        let signature = self
            .signer
            .sign(&delivery.event_id, timestamp, &delivery.body);
        if let Some(signature) = signature {
            set("webhook-signature", &signature)?;
        }
        // After ours, so that a configured user agent wins.
        headers.extend(self.headers.clone());
        Ok(Call {
            uri: self.uri.clone(),
            headers,
            body: delivery.body.clone(),
        })
    }
}
