//! Receivers: who can be told, and how, in the words of an `alertmanager.yml`.

mod http;

use serde::Deserialize;

pub use http::{Authorization, BasicAuth, HttpConfig, TlsConfig, WebhookConfig};

/// A receiver: everything in it is told of the same alerts.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Receiver {
    /// As routes name it.
    pub name: String,
    /// HTTP endpoints that take Alertmanager's webhook message.
    pub webhook_configs: Vec<WebhookConfig>,
}

/// One way of telling within a receiver. What has to be told to it waits in the
/// outbox under its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Integration {
    /// `RECEIVER/KIND[INDEX]`; the name alone for a `[[destination.KIND]]`.
    pub name: String,
    /// The kind, as metrics name it.
    pub kind: &'static str,
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// Alerts in one notification; 0 is no limit.
    pub alerts_max: usize,
}

impl Receiver {
    /// All its ways of telling, in the order of the kinds.
    pub fn integrations(&self) -> Vec<Integration> {
        let mut all = Vec::new();
        for (i, config) in self.webhook_configs.iter().enumerate() {
            all.push(Integration {
                alerts_max: config.max_alerts,
                ..self.integration("webhook", i, config.send_resolved)
            });
        }
        all
    }

    fn integration(&self, kind: &'static str, index: usize, send_resolved: bool) -> Integration {
        Integration {
            name: format!("{}/{kind}[{index}]", self.name),
            kind,
            send_resolved,
            alerts_max: 0,
        }
    }
}
