//! VictorOps, now Splunk On-Call. The incident's key is the hash of the group's.

use anyhow::{bail, ensure};
use serde_json::Value;

use super::{Call, Endpoint, Fields, Notice, Setup, Text, cut, rendered};
use crate::config::receivers::VictorOpsConfig;
use crate::delivery::http_config::Http;
use crate::gotmpl::escape_query;

/// The longest message that the service takes.
const MESSAGE_CHARS_MAX: usize = 20_480;
/// What custom fields may not be called.
const RESERVED: [&str; 7] = [
    "routing_key",
    "message_type",
    "state_message",
    "entity_display_name",
    "monitoring_tool",
    "entity_id",
    "entity_state",
];

/// A checked `victorops_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct VictorOps {
    /// The address without the routing key.
    endpoint: Endpoint,
    routing_key: Text,
    message_type: Text,
    state_message: Text,
    texts: Fields,
    custom: Vec<(String, Text)>,
}

impl VictorOps {
    pub(super) fn new(
        config: &VictorOpsConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(VictorOps, Http)> {
        ensure!(
            !config.routing_key.is_empty(),
            "missing Routing key in VictorOps config"
        );
        for name in RESERVED {
            if config.custom_fields.contains_key(name) {
                bail!(
                    "victorOps config contains custom field {name} which cannot be used as it \
                     conflicts with the fixed/static fields"
                );
            }
        }
        let global = &setup.reader.tree.global;
        let (secret, file) = match (&config.api_key, &config.api_key_file) {
            (None, None) => (&global.victorops_api_key, &global.victorops_api_key_file),
            own => own,
        };
        let key = setup.secret("api_key", secret.as_ref(), file.as_deref())?;
        let base = global.victorops_api_url.as_ref();
        let default = "https://alert.victorops.com/integrations/generic/20131114/alert";
        let base = setup.address(config.api_url.as_ref(), base, default);
        let http = setup.http(config.http_config.as_ref(), &format!("{base}/{key}"))?;
        let custom = config.custom_fields.iter();
        let custom = custom.map(|(name, text)| Ok((name.clone(), setup.text(name, text)?)));
        let victorops = VictorOps {
            endpoint: Endpoint::of(&http),
            routing_key: setup.text("routing_key", &config.routing_key)?,
            message_type: setup.text("message_type", &config.message_type)?,
            state_message: setup.text("state_message", &config.state_message)?,
            texts: setup.texts(&[
                ("entity_display_name", &config.entity_display_name),
                ("monitoring_tool", &config.monitoring_tool),
            ])?,
            custom: custom.collect::<anyhow::Result<_>>()?,
        };
        Ok((victorops, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let asked = notice.render(&self.message_type)?;
        let kind = match asked.as_str() {
            _ if !notice.message.fires() => "RECOVERY",
            "INFO" | "WARNING" => &asked,
            _ => "CRITICAL",
        };
        let mut message = rendered(notice, &self.custom)?;
        for (name, text) in &self.texts {
            message.insert((*name).to_owned(), notice.render(text)?.into());
        }
        let said = cut(notice.render(&self.state_message)?, MESSAGE_CHARS_MAX);
        for (name, value) in [
            ("message_type", Value::from(kind)),
            ("entity_id", notice.incident().into()),
            ("state_message", said.into()),
        ] {
            message.insert(name.to_owned(), value);
        }
        let mut endpoint = self.endpoint.clone();
        let routing_key = escape_query(&notice.render(&self.routing_key)?).replace('+', "%20");
        let uri = format!("{}/{routing_key}", endpoint.uri);
        endpoint.uri = uri.parse().map_err(|err| format!("{err}"))?;
        Ok(endpoint.json(&message, notice))
    }
}
