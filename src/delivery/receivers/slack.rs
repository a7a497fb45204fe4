//! Slack's incoming webhooks.

use serde_json::{Map, Value, json};

use super::{Call, Endpoint, Notice, Setup, Text, cut};
use crate::config::receivers::SlackConfig;
use crate::delivery::integration::Http;

/// The longest title that Slack shows.
const TITLE_CHARS_MAX: usize = 1_024;

/// A checked `slack_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Slack {
    endpoint: Endpoint,
    /// Fields of the message, left out when they are empty.
    outer: Vec<(&'static str, Text)>,
    /// Fields of the attachment; the flag says whether an empty one is left out.
    inner: Vec<(&'static str, Text, bool)>,
    fields: Vec<(Text, Text, bool)>,
    link_names: bool,
    mrkdwn_in: Vec<String>,
}

impl Slack {
    pub(super) fn new(
        config: &SlackConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Slack, Http)> {
        let global = &setup.reader.tree.global;
        let (secret, file) = match (&config.api_url, &config.api_url_file) {
            (None, None) => (&global.slack_api_url, &global.slack_api_url_file),
            own => own,
        };
        let url = setup.secret("api_url", secret.as_ref(), file.as_deref())?;
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let text = |name, text: &str| setup.text(name, text);
        let fields = config.fields.iter().map(|field| {
            let short = field.short.unwrap_or(config.short_fields);
            Ok((
                text("title", &field.title)?,
                text("value", &field.value)?,
                short,
            ))
        });
        let slack = Slack {
            endpoint: Endpoint::of(&http),
            outer: vec![
                ("channel", text("channel", &config.channel)?),
                ("username", text("username", &config.username)?),
                ("icon_emoji", text("icon_emoji", &config.icon_emoji)?),
                ("icon_url", text("icon_url", &config.icon_url)?),
            ],
            inner: vec![
                ("title", text("title", &config.title)?, true),
                ("title_link", text("title_link", &config.title_link)?, true),
                ("pretext", text("pretext", &config.pretext)?, true),
                ("text", text("text", &config.text)?, false),
                ("fallback", text("fallback", &config.fallback)?, false),
                (
                    "callback_id",
                    text("callback_id", &config.callback_id)?,
                    false,
                ),
                ("image_url", text("image_url", &config.image_url)?, true),
                ("thumb_url", text("thumb_url", &config.thumb_url)?, true),
                ("footer", text("footer", &config.footer)?, false),
                ("color", text("color", &config.color)?, true),
            ],
            fields: fields.collect::<anyhow::Result<_>>()?,
            link_names: config.link_names,
            mrkdwn_in: if config.mrkdwn_in.is_empty() {
                ["fallback", "pretext", "text"].map(str::to_owned).to_vec()
            } else {
                config.mrkdwn_in.clone()
            },
        };
        Ok((slack, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let mut attachment = Map::new();
        for (name, text, skip) in &self.inner {
            let text = cut(notice.render(text)?, TITLE_CHARS_MAX.max(3_000));
            let text = if *name == "title" {
                cut(text, TITLE_CHARS_MAX)
            } else {
                text
            };
            if !(*skip && text.is_empty()) {
                attachment.insert((*name).to_owned(), text.into());
            }
        }
        if !self.fields.is_empty() {
            let field = |(title, value, short): &(Text, Text, bool)| {
                let (title, value) = (notice.render(title)?, notice.render(value)?);
                Ok(json!({"title": title, "value": value, "short": short}))
            };
            let fields: Result<Vec<Value>, String> = self.fields.iter().map(field).collect();
            attachment.insert("fields".to_owned(), fields?.into());
        }
        attachment.insert("mrkdwn_in".to_owned(), json!(self.mrkdwn_in));
        let mut message = Map::new();
        for (name, text) in &self.outer {
            let text = notice.render(text)?;
            if !text.is_empty() {
                message.insert((*name).to_owned(), text.into());
            }
        }
        if self.link_names {
            message.insert("link_names".to_owned(), true.into());
        }
        message.insert("attachments".to_owned(), json!([attachment]));
        Ok(self.endpoint.json(&message, notice))
    }
}
