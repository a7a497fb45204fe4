//! Discord's webhooks.

use serde_json::json;

use super::{Call, Endpoint, Fields, Notice, Setup, Text, cut, filled};
use crate::config::receivers::DiscordConfig;
use crate::delivery::http_config::Http;

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
    content: Text,
    title: Text,
    message: Text,
    /// Fields of the message, left out when they are empty.
    outer: Fields,
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
            outer: setup.texts(&[
                ("username", &config.username),
                ("avatar_url", &config.avatar_url),
            ])?,
            content: setup.text("content", &config.content)?,
        };
        Ok((discord, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let mut message = filled(notice, &self.outer)?;
        message.insert("content".to_owned(), notice.render(&self.content)?.into());
        message.insert(
            "embeds".to_owned(),
            json!([{
                "title": cut(notice.render(&self.title)?, TITLE_CHARS_MAX),
                "description": cut(notice.render(&self.message)?, TEXT_CHARS_MAX),
                "color": if notice.message.fires() { RED } else { GREEN },
            }]),
        );
        Ok(self.endpoint.json(&message, notice))
    }
}
