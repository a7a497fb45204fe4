//! Opsgenie's alert API. The alias is the hash of the group's key, so that repeats and
//! the end find the same alert.

use serde_json::{Map, Value, json};

use super::{Call, Endpoint, Notice, Setup, Text, cut};
use crate::config::receivers::OpsgenieConfig;
use crate::delivery::integration::Http;

/// The longest message that Opsgenie takes.
const MESSAGE_CHARS_MAX: usize = 130;

/// A checked `opsgenie_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Opsgenie {
    endpoint: Endpoint,
    source: Text,
    message: Text,
    /// Texts that are left out when they are empty.
    texts: Vec<(&'static str, Text)>,
    /// Lists in the form of a text with commas.
    lists: Vec<(&'static str, Text)>,
    details: Vec<(String, Text)>,
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
        let details = config.details.iter();
        let details = details.map(|(name, text)| Ok((name.clone(), setup.text(name, text)?)));
        let opsgenie = Opsgenie {
            endpoint: Endpoint::of(&http)
                .with_secret("authorization", &format!("GenieKey {key}"))?,
            source: setup.text("source", &config.source)?,
            message: setup.text("message", &config.message)?,
            texts: vec![
                (
                    "description",
                    setup.text("description", &config.description)?,
                ),
                ("entity", setup.text("entity", &config.entity)?),
                ("note", setup.text("note", &config.note)?),
                ("priority", setup.text("priority", &config.priority)?),
            ],
            lists: vec![
                ("tags", setup.text("tags", &config.tags)?),
                ("actions", setup.text("actions", &config.actions)?),
            ],
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
        for (name, text) in &self.details {
            details.insert(name.clone(), notice.render(text)?.into());
        }
        alert.insert("details".to_owned(), details.into());
        alert.insert("source".to_owned(), source.into());
        for (name, text) in &self.texts {
            let text = notice.render(text)?;
            if !text.is_empty() {
                alert.insert((*name).to_owned(), text.into());
            }
        }
        for (name, text) in &self.lists {
            let text = notice.render(text)?;
            // As Alertmanager: spaces stay.
            let parts = text.split(',').filter(|part| !part.is_empty());
            let parts: Vec<&str> = parts.collect();
            if !parts.is_empty() {
                alert.insert((*name).to_owned(), json!(parts));
            }
        }
        Ok(self.endpoint.json(&alert, notice))
    }
}
