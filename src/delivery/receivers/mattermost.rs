//! Mattermost's incoming webhooks.

use serde_json::{Map, Value};

use super::{Call, Endpoint, Notice, Setup, Text, cut};
use crate::config::receivers::MattermostConfig;
use crate::delivery::http_config::Http;

/// The longest post that Mattermost takes.
const CHARS_MAX: usize = 16_383;

/// A checked `mattermost_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Mattermost {
    endpoint: Endpoint,
    texts: Vec<(&'static str, Text)>,
}

impl Mattermost {
    pub(super) fn new(
        config: &MattermostConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Mattermost, Http)> {
        let file = config.webhook_url_file.as_deref();
        let url = setup.secret("webhook_url", config.webhook_url.as_ref(), file)?;
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let mattermost = Mattermost {
            endpoint: Endpoint::of(&http),
            texts: vec![
                ("channel", setup.text("channel", &config.channel)?),
                ("username", setup.text("username", &config.username)?),
                ("text", setup.text("text", &config.text)?),
            ],
        };
        Ok((mattermost, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let mut message: Map<String, Value> = Map::new();
        for (name, text) in &self.texts {
            let text = cut(notice.render(text)?, CHARS_MAX);
            if !text.is_empty() {
                message.insert((*name).to_owned(), text.into());
            }
        }
        Ok(self.endpoint.json(&message, notice))
    }
}
