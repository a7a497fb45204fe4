//! Where a destination leads: one enum over all kinds.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::address::Policy;
use super::http::{Client, Outcome};
use super::message::Message;
use super::receivers::Kind;
use super::templates::Notice;
use super::webhook::Webhook;
use crate::model::{Delivery, Timestamp};

/// The checked form of a destination's own settings.
#[derive(Clone)]
pub(super) enum Target {
    /// Everything that is told by an HTTP request.
    Http(HttpTarget),
}

/// A request's maker with what its connection needs.
#[derive(Clone)]
pub(super) struct HttpTarget {
    pub(super) maker: Maker,
    /// Where it leads, without what may be secret.
    pub(super) shown: String,
    /// `None` for `http://`.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) policy: Policy,
}

/// What makes a request of an outbox row.
#[derive(Clone)]
pub(super) enum Maker {
    /// A webhook.
    Webhook(Webhook),
    /// A receiver of another kind.
    Receiver(Box<Kind>),
}

impl Target {
    /// Where it leads, without what may be secret.
    pub(super) fn shown(&self) -> String {
        let Target::Http(http) = self;
        http.shown.clone()
    }
}

/// Sends to one destination; holds its connections.
#[derive(Clone)]
pub(super) enum Sender {
    /// By HTTP.
    Http(Maker, Client),
}

impl Sender {
    /// Opens nothing yet.
    pub(super) fn new(target: &Target, timeout: Duration) -> Sender {
        match target {
            Target::Http(http) => {
                let client = Client::new(http.tls.as_deref(), http.policy, timeout);
                Sender::Http(http.maker.clone(), client)
            }
        }
    }

    /// Makes one attempt, `now` by the wall clock.
    pub(super) async fn attempt(&self, delivery: &Delivery, now: Timestamp) -> Outcome {
        match self {
            Sender::Http(Maker::Webhook(webhook), client) => {
                let call = webhook.call(delivery, now);
                client.send(call, now).await
            }
            Sender::Http(Maker::Receiver(kind), client) => {
                let message = Message::parse(&delivery.body);
                let notice = message.map(|m| Notice::new(m, &delivery.event_id, now));
                let call = notice.and_then(|notice| kind.call(&notice));
                client.send(call, now).await
            }
        }
    }
}
