//! Where a destination leads: one enum over all kinds.

use std::sync::Arc;
use std::time::Duration;

use super::http::{Client, Outcome, Way};
use super::mail::Mail;
use super::mqtt::Mqtt;
use super::nats::Nats;
use super::receivers::Kind;
use super::templates::Notice;
use super::webhook::Webhook;
use crate::model::{Delivery, Timestamp};

/// The checked form of a destination's own settings.
#[derive(Clone)]
pub(super) enum Target {
    /// Everything that is told by an HTTP request.
    Http(Box<HttpTarget>),
    /// Mails.
    Mail(Arc<Mail>),
    /// Messages of an MQTT broker.
    Mqtt(Arc<Mqtt>),
    /// Messages of a NATS server.
    Nats(Arc<Nats>),
}

/// A request's maker with what its connection needs.
#[derive(Clone)]
pub(super) struct HttpTarget {
    pub(super) maker: Maker,
    /// Where it leads, without what may be secret.
    pub(super) shown: String,
    pub(super) way: Way,
}

/// What makes a request of an outbox row.
#[derive(Clone)]
pub(super) enum Maker {
    /// A webhook.
    Webhook(Box<Webhook>),
    /// A receiver of another kind.
    Receiver(Box<Kind>),
}

impl Target {
    /// Where it leads, without what may be secret.
    pub(super) fn shown(&self) -> String {
        match self {
            Target::Http(http) => http.shown.clone(),
            Target::Mail(mail) => mail.shown(),
            Target::Mqtt(mqtt) => mqtt.shown(),
            Target::Nats(nats) => nats.shown(),
        }
    }
}

/// Sends to one destination; holds its connections.
#[derive(Clone)]
pub(super) enum Sender {
    /// By HTTP.
    Http(Arc<(Maker, Client)>),
    /// By a connection for each attempt, which may take so long.
    Mail(Arc<Mail>, Duration),
    /// As mails.
    Mqtt(Arc<Mqtt>, Duration),
    /// As mails.
    Nats(Arc<Nats>, Duration),
}

impl Sender {
    /// Opens nothing yet.
    pub(super) fn new(target: &Target, timeout: Duration) -> Sender {
        match target {
            Target::Http(http) => {
                let client = Client::new(&http.way, timeout);
                Sender::Http(Arc::new((http.maker.clone(), client)))
            }
            Target::Mail(mail) => Sender::Mail(Arc::clone(mail), timeout),
            Target::Mqtt(mqtt) => Sender::Mqtt(Arc::clone(mqtt), timeout),
            Target::Nats(nats) => Sender::Nats(Arc::clone(nats), timeout),
        }
    }

    /// Makes one attempt, `now` by the wall clock.
    pub(super) async fn attempt(&self, delivery: &Delivery, now: Timestamp) -> Outcome {
        match self {
            Sender::Http(http) => {
                let (maker, client) = &**http;
                let call = match maker {
                    Maker::Webhook(webhook) => webhook.call(delivery, now),
                    Maker::Receiver(kind) => Notice::of(delivery).and_then(|n| kind.call(&n)),
                };
                client.send(call, now).await
            }
            Sender::Mail(mail, timeout) => mail.attempt(delivery, *timeout).await,
            Sender::Mqtt(mqtt, timeout) => mqtt.attempt(delivery, *timeout).await,
            Sender::Nats(nats, timeout) => nats.attempt(delivery, *timeout).await,
        }
    }
}
