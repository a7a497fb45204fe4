//! Gotify's message API.

use anyhow::Context as _;
use serde_json::json;

use super::{Call, Endpoint, Notice, Setup, Text};
use crate::config::receivers::GotifyConfig;
use crate::delivery::http_config::Http;

/// A checked `gotify_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Gotify {
    endpoint: Endpoint,
    title: Text,
    message: Text,
    priority: Text,
}

impl Gotify {
    pub(super) fn new(
        config: &GotifyConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Gotify, Http)> {
        let base = config.url.as_ref().context("missing url")?;
        let base = setup.address(Some(base), None, "");
        let http = setup.http(config.http_config.as_ref(), &format!("{base}/message"))?;
        let file = config.token_file.as_deref();
        let token = setup.secret("token", config.token.as_ref(), file)?;
        let gotify = Gotify {
            endpoint: Endpoint::of(&http).with_secret("x-gotify-key", &token)?,
            title: setup.text("title", &config.title)?,
            message: setup.text("message", &config.message)?,
            priority: setup.text("priority", &config.priority)?,
        };
        Ok((gotify, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let priority = notice.render(&self.priority)?;
        let message = json!({
            "title": notice.render(&self.title)?.trim(),
            "message": notice.render(&self.message)?,
            "priority": priority.trim().parse::<u8>().unwrap_or(5),
        });
        Ok(self.endpoint.json(&message, notice))
    }
}
