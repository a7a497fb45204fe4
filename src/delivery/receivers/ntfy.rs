//! ntfy: a message published as JSON.

use anyhow::ensure;
use serde_json::json;

use super::{Call, Endpoint, Notice, Setup, Text, cut};
use crate::config::receivers::NtfyConfig;
use crate::delivery::http_config::Http;

/// A longer message would become an attachment.
const CHARS_MAX: usize = 4_000;

/// A checked `ntfy_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Ntfy {
    endpoint: Endpoint,
    topic: String,
    title: Text,
    message: Text,
    priority: Text,
    tags: Text,
    click: Text,
}

impl Ntfy {
    pub(super) fn new(
        config: &NtfyConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Ntfy, Http)> {
        ensure!(!config.topic.is_empty(), "missing topic");
        let url = setup.address(config.url.as_ref(), None, "https://ntfy.sh");
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let mut endpoint = Endpoint::of(&http);
        let file = config.token_file.as_deref();
        if let Some(token) = setup
            .reader
            .optional("token", config.token.as_ref(), file)?
        {
            endpoint = endpoint.with_secret("authorization", &format!("Bearer {token}"))?;
        }
        let ntfy = Ntfy {
            endpoint,
            topic: config.topic.clone(),
            title: setup.text("title", &config.title)?,
            message: setup.text("message", &config.message)?,
            priority: setup.text("priority", &config.priority)?,
            tags: setup.text("tags", &config.tags)?,
            click: setup.text("click", &config.click)?,
        };
        Ok((ntfy, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let priority = notice.render(&self.priority)?;
        let priority: u8 = priority.trim().parse().unwrap_or(3);
        let tags = notice.render(&self.tags)?;
        let tags: Vec<&str> = tags
            .split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .collect();
        let message = json!({
            "topic": self.topic,
            "title": notice.render(&self.title)?.trim(),
            "message": cut(notice.render(&self.message)?, CHARS_MAX),
            "priority": priority.clamp(1, 5),
            "tags": tags,
            "click": notice.render(&self.click)?,
        });
        Ok(self.endpoint.json(&message, notice))
    }
}
