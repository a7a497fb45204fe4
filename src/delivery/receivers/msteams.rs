//! Microsoft Teams' incoming webhooks.

use serde_json::json;

use super::{Call, Endpoint, Notice, Setup, Text};
use crate::config::receivers::MsTeamsConfig;
use crate::delivery::integration::Http;

const RED: &str = "8C1A1A";
const GREEN: &str = "2DC72D";

/// A checked `msteams_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct MsTeams {
    endpoint: Endpoint,
    title: Text,
    summary: Text,
    text: Text,
}

impl MsTeams {
    pub(super) fn new(
        config: &MsTeamsConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(MsTeams, Http)> {
        let file = config.webhook_url_file.as_deref();
        let url = setup.secret("webhook_url", config.webhook_url.as_ref(), file)?;
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let teams = MsTeams {
            endpoint: Endpoint::of(&http),
            title: setup.text("title", &config.title)?,
            summary: setup.text("summary", &config.summary)?,
            text: setup.text("text", &config.text)?,
        };
        Ok((teams, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let message = json!({
            "@context": "http://schema.org/extensions",
            "@type": "MessageCard",
            "title": notice.render(&self.title)?,
            "summary": notice.render(&self.summary)?,
            "text": notice.render(&self.text)?,
            "themeColor": if notice.message.fires() { RED } else { GREEN },
        });
        Ok(self.endpoint.json(&message, notice))
    }
}
