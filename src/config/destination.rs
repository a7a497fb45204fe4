//! `[[destination.KIND]]` and `[[route]]`: where things go.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::{Secret, Span, Tls};

/// `[[destination.KIND]]`
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Destinations {
    /// `[[destination.webhook]]`
    pub webhook: Vec<Webhook>,
}

impl Destinations {
    /// The names of all destinations of every kind.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.webhook.iter().map(|w| &w.name)
    }
}

/// A URL whose query may hold a key: printed without it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl std::ops::Deref for Address {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once('?') {
            Some((place, _)) => write!(f, "\"{place}?***\""),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// `[[destination.webhook]]`: an HTTP endpoint that takes POST requests.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Names the destination in routes, metrics, pages and logs.
    pub name: String,
    /// Where to POST.
    pub url: Address,
    /// Signs each request by Standard Webhooks: `whsec_` and base64, or any text.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// The previous secret, while receivers change over.
    #[serde(default)]
    pub secret_old: Option<Secret>,
    /// More request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A bearer token for the receiver.
    #[serde(default)]
    pub bearer_token: Option<Secret>,
    /// How long one attempt may take, connection included.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Attempts at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Keep the order: one attempt at a time, a failing head blocks the rest.
    #[serde(default)]
    pub ordered: bool,
    /// The waits before each further attempt at telemetry; then it is a dead letter.
    #[serde(default = "default_retry_waits")]
    pub retry: Vec<Span>,
    /// How long an alert notification is tried; then it is a dead letter. A newer
    /// notification of the same group replaces it long before.
    #[serde(default = "default_notification_max_age")]
    pub notification_max_age: Span,
    /// For `https://`.
    #[serde(default)]
    pub tls: Tls,
}

fn default_timeout() -> Span {
    Span::secs(15)
}

fn default_concurrency() -> usize {
    4
}

fn default_retry_waits() -> Vec<Span> {
    [5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 43_200]
        .map(Span::secs)
        .to_vec()
}

fn default_notification_max_age() -> Span {
    Span::secs(7 * 86_400)
}

/// `[[route]]`: accepted messages that match go to a destination.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Names the route.
    pub name: String,
    /// Only this tenant's messages; default: every tenant's.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Only messages whose topic matches this filter (`+`, `#`).
    #[serde(default = "any_topic")]
    pub topic: String,
    /// Only messages with a sample of this metric.
    #[serde(default)]
    pub metric: Option<String>,
    /// Where they go.
    pub destination: String,
}

fn any_topic() -> String {
    "#".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_query_is_not_printed() {
        let address = |text: &str| format!("{:?}", Address(text.to_owned()));
        assert_eq!(address("http://h/p?key=sekrit"), "\"http://h/p?***\"");
        assert_eq!(address("http://h/p"), "\"http://h/p\"");
    }
}
