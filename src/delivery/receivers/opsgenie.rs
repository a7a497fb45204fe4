//! Opsgenie's alert API. The alias is the hash of the group's key, so that repeats and
//! the end find the same alert.

use anyhow::ensure;
use serde_json::{Map, Value, json};

use super::{Call, Endpoint, Fields, Notice, Setup, Text, cut, filled, rendered};
use crate::config::receivers::{OpsgenieConfig, OpsgenieResponder};
use crate::delivery::http_config::Http;

/// The longest message that Opsgenie takes.
const MESSAGE_CHARS_MAX: usize = 130;

/// A checked `opsgenie_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Opsgenie {
    endpoint: Endpoint,
    source: Text,
    message: Text,
    /// Texts that are left out when they are empty.
    texts: Fields,
    /// Lists in the form of a text with commas.
    lists: Fields,
    details: Vec<(String, Text)>,
    responders: Vec<Fields>,
}

impl Opsgenie {
    pub(super) fn new(
        config: &OpsgenieConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Opsgenie, Http)> {
        let global = &setup.reader.tree.global;
        let (secret, file) = match (&config.api_key, &config.api_key_file) {
            (None, None) => (&global.opsgenie_api_key, &global.opsgenie_api_key_file),
            own => own,
        };
        let key = setup.secret("api_key", secret.as_ref(), file.as_deref())?;
        let base = global.opsgenie_api_url.as_ref();
        let base = setup.address(config.api_url.as_ref(), base, "https://api.opsgenie.com");
        let http = setup.http(config.http_config.as_ref(), &format!("{base}/v2/alerts"))?;
        ensure!(
            !config.update_alerts,
            "update_alerts: not supported, an alert that is there keeps its text"
        );
        let responders = config.responders.iter().map(|r| responder(r, setup));
        let details = config.details.iter();
        let details = details.map(|(name, text)| Ok((name.clone(), setup.text(name, text)?)));
        let opsgenie = Opsgenie {
            endpoint: Endpoint::of(&http)
                .with_secret("authorization", &format!("GenieKey {key}"))?,
            source: setup.text("source", &config.source)?,
            message: setup.text("message", &config.message)?,
            texts: setup.texts(&[
                ("description", &config.description),
                ("entity", &config.entity),
                ("note", &config.note),
                ("priority", &config.priority),
            ])?,
            lists: setup.texts(&[("tags", &config.tags), ("actions", &config.actions)])?,
            responders: responders.collect::<anyhow::Result<_>>()?,
            details: details.collect::<anyhow::Result<_>>()?,
        };
        Ok((opsgenie, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let alias = notice.incident();
        let source = notice.render(&self.source)?;
        if !notice.message.fires() {
            let mut endpoint = self.endpoint.clone();
            let uri = format!("{}/{alias}/close?identifierType=alias", endpoint.uri);
            endpoint.uri = uri.parse().map_err(|err| format!("{err}"))?;
            return Ok(endpoint.json(&json!({"source": source}), notice));
        }
        let mut alert: Map<String, Value> = Map::new();
        alert.insert("alias".to_owned(), alias.into());
        let message = cut(notice.render(&self.message)?, MESSAGE_CHARS_MAX);
        alert.insert("message".to_owned(), message.into());
        let common = notice.message.common_labels.iter();
        let mut details: Map<String, Value> = common
            .map(|(n, v)| (n.clone(), v.as_str().into()))
            .collect();
        details.append(&mut rendered(notice, &self.details)?);
        alert.insert("details".to_owned(), details.into());
        alert.insert("source".to_owned(), source.into());
        alert.append(&mut filled(notice, &self.texts)?);
        for (name, text) in &self.lists {
            let text = notice.render(text)?;
            let parts = parts(&text);
            if !parts.is_empty() {
                alert.insert((*name).to_owned(), json!(parts));
            }
        }
        let responders = self.responders(notice)?;
        if !responders.is_empty() {
            alert.insert("responders".to_owned(), responders.into());
        }
        Ok(self.endpoint.json(&alert, notice))
    }

    /// Who has to act; those without a name are left out, `teams` are each a `team`.
    fn responders(&self, notice: &Notice) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        for fields in &self.responders {
            let one = filled(notice, fields)?;
            if one.get("type").is_some_and(|kind| kind == "teams") {
                let names = one.get("name").and_then(Value::as_str).unwrap_or_default();
                let team = |name: &&str| json!({"name": name, "type": "team"});
                all.extend(parts(names).iter().map(team));
            } else if one.len() > 1 {
                all.push(one.into());
            }
        }
        Ok(all)
    }
}

/// The parts of a text with commas. As in Alertmanager, spaces within stay.
fn parts(text: &str) -> Vec<&str> {
    let parts = text.trim().split(',');
    parts.filter(|part| !part.is_empty()).collect()
}

fn responder(config: &OpsgenieResponder, setup: &Setup<'_, '_>) -> anyhow::Result<Fields> {
    let kind = config.kind.to_lowercase();
    let names = [&config.id, &config.username, &config.name];
    ensure!(
        names.iter().any(|name| !name.is_empty()),
        "responders: has to have at least one of id, username or name specified"
    );
    let known = ["team", "teams", "user", "escalation", "schedule"];
    ensure!(
        kind.contains("{{") || known.contains(&kind.as_str()),
        "responders: type {kind:?} does not match valid options {known:?}"
    );
    setup.texts(&[
        ("id", &config.id),
        ("name", &config.name),
        ("username", &config.username),
        ("type", &config.kind),
    ])
}
