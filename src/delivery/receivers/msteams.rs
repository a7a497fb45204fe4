//! Microsoft Teams' incoming webhooks, and the workflows that follow them.

use serde_json::json;

use super::{Call, Endpoint, Notice, Setup, Text};
use crate::config::receivers::{MsTeamsConfig, MsTeamsV2Config};
use crate::delivery::http_config::Http;

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

/// A checked `msteamsv2_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct MsTeamsV2 {
    endpoint: Endpoint,
    title: Text,
    text: Text,
}

impl MsTeamsV2 {
    pub(super) fn new(
        config: &MsTeamsV2Config,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(MsTeamsV2, Http)> {
        let file = config.webhook_url_file.as_deref();
        let url = setup.secret("webhook_url", config.webhook_url.as_ref(), file)?;
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let teams = MsTeamsV2 {
            endpoint: Endpoint::of(&http),
            title: setup.text("title", &config.title)?,
            text: setup.text("text", &config.text)?,
        };
        Ok((teams, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let fires = notice.message.fires();
        let card = json!({
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.2",
            "body": [
                {
                    "type": "TextBlock",
                    "text": notice.render(&self.title)?,
                    "weight": "Bolder",
                    "size": "Medium",
                    "wrap": true,
                    "style": "heading",
                    "color": if fires { "Attention" } else { "Good" },
                },
                {"type": "TextBlock", "text": notice.render(&self.text)?, "wrap": true},
            ],
            "msteams": {"width": "full"},
        });
        let message = json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": null,
                "content": card,
            }],
        });
        Ok(self.endpoint.json(&message, notice))
    }
}
