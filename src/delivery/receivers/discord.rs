//! Discord's webhooks.

use serde_json::json;

use super::{Call, Endpoint, Notice, Setup, Text, cut};
use crate::config::receivers::DiscordConfig;
use crate::delivery::integration::Http;

/// The longest parts that Discord takes.
const TITLE_CHARS_MAX: usize = 256;
const TEXT_CHARS_MAX: usize = 2_048;
/// The colours of the edge.
const RED: u32 = 10_038_562;
const GREEN: u32 = 3_066_993;

/// A checked `discord_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Discord {
    endpoint: Endpoint,
    title: Text,
    message: Text,
}

impl Discord {
    pub(super) fn new(
        config: &DiscordConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Discord, Http)> {
        let file = config.webhook_url_file.as_deref();
        let url = setup.secret("webhook_url", config.webhook_url.as_ref(), file)?;
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let discord = Discord {
            endpoint: Endpoint::of(&http),
            title: setup.text("title", &config.title)?,
            message: setup.text("message", &config.message)?,
        };
        Ok((discord, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let message = json!({
            "content": "",
            "embeds": [{
                "title": cut(notice.render(&self.title)?, TITLE_CHARS_MAX),
                "description": cut(notice.render(&self.message)?, TEXT_CHARS_MAX),
                "color": if notice.message.fires() { RED } else { GREEN },
            }],
        });
        Ok(self.endpoint.json(&message, notice))
    }
}
