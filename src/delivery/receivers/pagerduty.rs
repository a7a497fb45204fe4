//! PagerDuty's Events API 2. The incident's key is the hash of the group's, so that
//! repeats and the end find the same incident.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Call, Endpoint, Notice, Setup, Text, cut};
use crate::config::receivers::PagerDutyConfig;
use crate::delivery::integration::Http;

/// The longest summary that PagerDuty takes.
const SUMMARY_CHARS_MAX: usize = 1_024;

/// The facts that are always there, as in Alertmanager.
const DETAILS: [(&str, &str); 4] = [
    (
        "firing",
        r#"{{ template "pagerduty.default.instances" .Alerts.Firing }}"#,
    ),
    (
        "resolved",
        r#"{{ template "pagerduty.default.instances" .Alerts.Resolved }}"#,
    ),
    ("num_firing", "{{ .Alerts.Firing | len }}"),
    ("num_resolved", "{{ .Alerts.Resolved | len }}"),
];

/// A checked `pagerduty_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct PagerDuty {
    endpoint: Endpoint,
    routing_key: String,
    client: Text,
    client_url: Text,
    summary: Text,
    /// Fields of the payload, left out when they are empty.
    payload: Vec<(&'static str, Text)>,
    details: Vec<(String, Text)>,
}

impl PagerDuty {
    pub(super) fn new(
        config: &PagerDutyConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(PagerDuty, Http)> {
        let file = config.routing_key_file.as_deref();
        let routing_key = setup.secret("routing_key", config.routing_key.as_ref(), file)?;
        let global = setup.reader.tree.global.pagerduty_url.as_ref();
        let default = "https://events.pagerduty.com/v2/enqueue";
        let url = setup.address(config.url.as_ref(), global, default);
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let mut details: BTreeMap<&str, &str> = DETAILS.into();
        details.extend(config.details.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let details = details.into_iter();
        let details = details.map(|(name, text)| Ok((name.to_owned(), setup.text(name, text)?)));
        let pagerduty = PagerDuty {
            endpoint: Endpoint::of(&http),
            routing_key,
            client: setup.text("client", &config.client)?,
            client_url: setup.text("client_url", &config.client_url)?,
            summary: setup.text("description", &config.description)?,
            payload: vec![
                ("source", setup.text("source", &config.source)?),
                ("severity", setup.text("severity", &config.severity)?),
                ("class", setup.text("class", &config.class)?),
                ("component", setup.text("component", &config.component)?),
                ("group", setup.text("group", &config.group)?),
            ],
            details: details.collect::<anyhow::Result<_>>()?,
        };
        Ok((pagerduty, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let mut payload = Map::new();
        let summary = cut(notice.render(&self.summary)?, SUMMARY_CHARS_MAX);
        payload.insert("summary".to_owned(), summary.into());
        for (name, text) in &self.payload {
            let text = notice.render(text)?;
            if !text.is_empty() {
                payload.insert((*name).to_owned(), text.into());
            }
        }
        let mut details: Map<String, Value> = Map::new();
        for (name, text) in &self.details {
            details.insert(name.clone(), notice.render(text)?.into());
        }
        payload.insert("custom_details".to_owned(), details.into());
        let fires = notice.message.fires();
        let event = json!({
            "routing_key": self.routing_key,
            "dedup_key": notice.incident(),
            "event_action": if fires { "trigger" } else { "resolve" },
            "payload": payload,
            "client": notice.render(&self.client)?,
            "client_url": notice.render(&self.client_url)?,
        });
        Ok(self.endpoint.json(&event, notice))
    }
}
