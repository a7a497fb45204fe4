//! Slack's incoming webhooks.

use anyhow::ensure;
use serde_json::{Map, Value, json};

use super::{Call, Endpoint, Fields, Notice, Setup, Text, cut, filled};
use crate::config::receivers::{SlackAction, SlackConfig};
use crate::delivery::http_config::Http;

/// The longest title that Slack shows.
const TITLE_CHARS_MAX: usize = 1_024;

/// A checked `slack_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Slack {
    endpoint: Endpoint,
    /// Fields of the message, left out when they are empty.
    outer: Fields,
    /// Fields of the attachment; the flag says whether an empty one is left out.
    inner: Vec<(&'static str, Text, bool)>,
    fields: Vec<(Text, Text, bool)>,
    /// Each with what it asks before.
    actions: Vec<(Fields, Option<Fields>)>,
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
            ensure!(
                !field.title.is_empty() && !field.value.is_empty(),
                "missing title or value in Slack field configuration"
            );
            Ok((
                text("title", &field.title)?,
                text("value", &field.value)?,
                short,
            ))
        });
        let actions = config.actions.iter().map(|action| action_of(action, setup));
        let actions = actions.collect::<anyhow::Result<_>>()?;
        let slack = Slack {
            actions,
            endpoint: Endpoint::of(&http),
            outer: setup.texts(&[
                ("channel", &config.channel),
                ("username", &config.username),
                ("icon_emoji", &config.icon_emoji),
                ("icon_url", &config.icon_url),
            ])?,
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
        if !self.actions.is_empty() {
            let action = |(action, confirm): &(Fields, Option<Fields>)| {
                let mut action = filled(notice, action)?;
                if let Some(confirm) = confirm {
                    action.insert("confirm".to_owned(), filled(notice, confirm)?.into());
                }
                Ok(Value::Object(action))
            };
            let actions: Result<Vec<Value>, String> = self.actions.iter().map(action).collect();
            attachment.insert("actions".to_owned(), actions?.into());
        }
        let mut message = filled(notice, &self.outer)?;
        if self.link_names {
            message.insert("link_names".to_owned(), true.into());
        }
        message.insert("attachments".to_owned(), json!([attachment]));
        Ok(self.endpoint.json(&message, notice))
    }
}

/// Checks a button: one that leads somewhere answers nothing, as in Alertmanager.
fn action_of(
    action: &SlackAction,
    setup: &Setup<'_, '_>,
) -> anyhow::Result<(Fields, Option<Fields>)> {
    ensure!(
        !action.kind.is_empty(),
        "missing type in Slack action configuration"
    );
    ensure!(
        !action.text.is_empty(),
        "missing text in Slack action configuration"
    );
    ensure!(
        !action.url.is_empty() || !action.name.is_empty(),
        "missing name or url in Slack action configuration"
    );
    let mut fields = vec![
        ("type", action.kind.as_str()),
        ("text", &action.text),
        ("url", &action.url),
        ("style", &action.style),
    ];
    let mut asked = None;
    if action.url.is_empty() {
        fields.extend([("name", action.name.as_str()), ("value", &action.value)]);
        asked = action.confirm.as_ref();
    }
    let confirm = asked.map(|confirm| {
        ensure!(
            !confirm.text.is_empty(),
            "missing text in Slack confirmation configuration"
        );
        setup.texts(&[
            ("text", &confirm.text),
            ("title", &confirm.title),
            ("ok_text", &confirm.ok_text),
            ("dismiss_text", &confirm.dismiss_text),
        ])
    });
    Ok((setup.texts(&fields)?, confirm.transpose()?))
}
