//! PagerDuty's Events API 2, and 1 for a `service_key`. The incident's key is the hash of the group's, so that
//! repeats and the end find the same incident.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Call, Endpoint, Fields, Notice, Setup, Text, cut, filled, rendered};
use crate::config::receivers::PagerDutyConfig;
use crate::delivery::http_config::Http;

/// The longest summary that PagerDuty takes.
const SUMMARY_CHARS_MAX: usize = 1_024;

/// Where events of the older form go.
const OLD_URL: &str = "https://events.pagerduty.com/generic/2010-04-15/create_event.json";

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
    key: Key,
    client: Text,
    client_url: Text,
    summary: Text,
    /// Fields of the payload, left out when they are empty.
    payload: Fields,
    details: Vec<(String, Text)>,
    images: Vec<Fields>,
    links: Vec<Fields>,
}

/// The integration's key, and with it the form of events.
#[derive(Clone)]
enum Key {
    /// Of the older form.
    Service(String),
    /// Of Events API 2.
    Routing(String),
}

impl PagerDuty {
    pub(super) fn new(
        config: &PagerDutyConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(PagerDuty, Http)> {
        let is_old = config.service_key.is_some() || config.service_key_file.is_some();
        let (key, url) = if is_old {
            let file = config.service_key_file.as_deref();
            let key = setup.secret("service_key", config.service_key.as_ref(), file)?;
            (Key::Service(key), OLD_URL.to_owned())
        } else {
            let file = config.routing_key_file.as_deref();
            let key = setup.secret("routing_key", config.routing_key.as_ref(), file)?;
            let global = setup.reader.tree.global.pagerduty_url.as_ref();
            let default = "https://events.pagerduty.com/v2/enqueue";
            let url = setup.address(config.url.as_ref(), global, default);
            (Key::Routing(key), url)
        };
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let mut details: BTreeMap<&str, &str> = DETAILS.into();
        details.extend(config.details.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let details = details.into_iter();
        let details = details.map(|(name, text)| Ok((name.to_owned(), setup.text(name, text)?)));
        let images = config.images.iter();
        let images = images.map(|image| {
            setup.texts(&[
                ("src", &image.src),
                ("alt", &image.alt),
                ("href", &image.href),
            ])
        });
        let links = config.links.iter();
        let links = links.map(|link| setup.texts(&[("href", &link.href), ("text", &link.text)]));
        let pagerduty = PagerDuty {
            endpoint: Endpoint::of(&http),
            key,
            client: setup.text("client", &config.client)?,
            client_url: setup.text("client_url", &config.client_url)?,
            summary: setup.text("description", &config.description)?,
            payload: setup.texts(&[
                ("source", config.source.as_ref().unwrap_or(&config.client)),
                ("severity", &config.severity),
                ("class", &config.class),
                ("component", &config.component),
                ("group", &config.group),
            ])?,
            images: images.collect::<anyhow::Result<_>>()?,
            links: links.collect::<anyhow::Result<_>>()?,
            details: details.collect::<anyhow::Result<_>>()?,
        };
        Ok((pagerduty, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let summary = cut(notice.render(&self.summary)?, SUMMARY_CHARS_MAX);
        let details = rendered(notice, &self.details)?;
        let fires = notice.message.fires();
        let action = if fires { "trigger" } else { "resolve" };
        let client = notice.render(&self.client)?;
        let client_url = notice.render(&self.client_url)?;
        let routing_key = match &self.key {
            Key::Routing(key) => key,
            Key::Service(key) => {
                let mut event = json!({
                    "service_key": key,
                    "incident_key": notice.incident(),
                    "event_type": action,
                    "event_action": "",
                    "payload": null,
                    "description": summary,
                    "details": details,
                });
                if fires {
                    event["client"] = client.into();
                    event["client_url"] = client_url.into();
                }
                return Ok(self.endpoint.json(&event, notice));
            }
        };
        let mut payload = filled(notice, &self.payload)?;
        payload.insert("summary".to_owned(), summary.into());
        payload.insert("custom_details".to_owned(), details.into());
        let mut event = json!({
            "routing_key": routing_key,
            "dedup_key": notice.incident(),
            "event_action": action,
            "payload": payload,
            "client": client,
            "client_url": client_url,
        });
        for (name, key, all) in [
            ("images", "src", &self.images),
            ("links", "href", &self.links),
        ] {
            let one = |fields: &Fields| {
                let value = |(name, text): &(&str, Text)| {
                    Ok(((*name).to_owned(), Value::from(notice.render(text)?)))
                };
                fields
                    .iter()
                    .map(value)
                    .collect::<Result<Map<String, Value>, String>>()
            };
            let mut all = all.iter().map(one).collect::<Result<Vec<_>, _>>()?;
            all.retain(|one| one[key] != "");
            if !all.is_empty() {
                event[name] = json!(all);
            }
        }
        Ok(self.endpoint.json(&event, notice))
    }
}
