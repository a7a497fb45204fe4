//! A notification as receivers see it: read from the outbox row's body, which is
//! always Alertmanager's version 4 message, and made into a template's data.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::gotmpl::value::{ALERTS, Struct};
use crate::gotmpl::{Value, ZERO_TIME_MS};
use crate::model::Timestamp;

/// The message.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub(super) receiver: String,
    pub(super) status: String,
    pub(super) alerts: Vec<Alert>,
    pub(super) group_labels: BTreeMap<String, String>,
    pub(super) common_labels: BTreeMap<String, String>,
    pub(super) common_annotations: BTreeMap<String, String>,
    #[serde(rename = "externalURL")]
    pub(super) external_url: String,
    pub(super) group_key: String,
}

/// One of its alerts.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert {
    pub(super) status: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) starts_at: String,
    pub(super) ends_at: String,
    #[serde(rename = "generatorURL")]
    pub(super) generator_url: String,
    pub(super) fingerprint: String,
}

impl Message {
    /// Reads a row's body.
    ///
    /// # Errors
    /// When it is no such message, as that of routed telemetry.
    pub(super) fn parse(body: &[u8]) -> Result<Message, String> {
        serde_json::from_slice(body).map_err(|err| format!("not a notification: {err}"))
    }

    /// Whether anything in it fires.
    pub(super) fn fires(&self) -> bool {
        self.status == "firing"
    }

    /// What templates call dot.
    pub(super) fn data(&self) -> Value {
        let alerts = self.alerts.iter().map(Alert::data).collect();
        structure(
            "*template.Data",
            vec![
                ("Receiver", Value::str(self.receiver.as_str())),
                ("Status", Value::str(self.status.as_str())),
                ("Alerts", Value::list(ALERTS, alerts)),
                ("GroupLabels", kv(&self.group_labels)),
                ("CommonLabels", kv(&self.common_labels)),
                ("CommonAnnotations", kv(&self.common_annotations)),
                ("ExternalURL", Value::str(self.external_url.as_str())),
            ],
        )
    }
}

impl Alert {
    fn data(&self) -> Value {
        structure(
            "template.Alert",
            vec![
                ("Status", Value::str(self.status.as_str())),
                ("Labels", kv(&self.labels)),
                ("Annotations", kv(&self.annotations)),
                ("StartsAt", time(&self.starts_at)),
                ("EndsAt", time(&self.ends_at)),
                ("GeneratorURL", Value::str(self.generator_url.as_str())),
                ("Fingerprint", Value::str(self.fingerprint.as_str())),
            ],
        )
    }
}

fn structure(type_name: &'static str, fields: Vec<(&'static str, Value)>) -> Value {
    Value::Struct(Arc::new(Struct { type_name, fields }))
}

fn kv(pairs: &BTreeMap<String, String>) -> Value {
    Value::kv(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
}

fn time(text: &str) -> Value {
    let at = text.parse::<jiff::Timestamp>().ok();
    let ms = at.map_or(ZERO_TIME_MS, jiff::Timestamp::as_millisecond);
    Value::Time(Timestamp::from_ms(ms))
}
