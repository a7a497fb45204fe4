//! Rocket.Chat's `chat.postMessage`.

use serde_json::{Value, json};

use super::{Call, Endpoint, Fields, Notice, Setup, Text, cut, filled};
use crate::config::receivers::RocketchatConfig;
use crate::delivery::http_config::Http;

/// The longest title, as in Alertmanager.
const TITLE_CHARS_MAX: usize = 1_024;

/// A checked `rocketchat_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Rocketchat {
    endpoint: Endpoint,
    /// Fields of the message, left out when they are empty.
    outer: Fields,
    /// Fields of the attachment, left out when they are empty.
    inner: Fields,
    fields: Vec<(Text, Text, bool)>,
    actions: Vec<Fields>,
}

impl Rocketchat {
    pub(super) fn new(
        config: &RocketchatConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Rocketchat, Http)> {
        let global = &setup.reader.tree.global;
        let (token, token_file) = match (&config.token, &config.token_file) {
            (None, None) => (&global.rocketchat_token, &global.rocketchat_token_file),
            own => own,
        };
        let token = setup.secret("token", token.as_ref(), token_file.as_deref())?;
        let (user, user_file) = match (&config.token_id, &config.token_id_file) {
            (None, None) => (
                &global.rocketchat_token_id,
                &global.rocketchat_token_id_file,
            ),
            own => own,
        };
        let user = setup.secret("token_id", user.as_ref(), user_file.as_deref())?;
        let base = global.rocketchat_api_url.as_ref();
        let base = setup.address(config.api_url.as_ref(), base, "https://open.rocket.chat");
        let url = format!("{base}/api/v1/chat.postMessage");
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let fields = config.fields.iter().map(|field| {
            let short = field.short.unwrap_or(config.short_fields);
            let title = setup.text("title", &field.title)?;
            Ok((title, setup.text("value", &field.value)?, short))
        });
        let actions = config.actions.iter().map(|action| {
            let fields = [
                ("text", action.text.as_str()),
                ("url", &action.url),
                ("msg", &action.msg),
            ];
            setup.texts(&fields)
        });
        let rocketchat = Rocketchat {
            endpoint: Endpoint::of(&http)
                .with_secret("x-auth-token", &token)?
                .with_secret("x-user-id", &user)?,
            outer: setup.texts(&[
                ("channel", &config.channel),
                ("emoji", &config.emoji),
                ("avatar", &config.icon_url),
            ])?,
            inner: setup.texts(&[
                ("title", &config.title),
                ("title_link", &config.title_link),
                ("text", &config.text),
                ("image_url", &config.image_url),
                ("thumb_url", &config.thumb_url),
                ("color", &config.color),
            ])?,
            fields: fields.collect::<anyhow::Result<_>>()?,
            actions: actions.collect::<anyhow::Result<_>>()?,
        };
        Ok((rocketchat, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let mut attachment = filled(notice, &self.inner)?;
        if let Some(Value::String(title)) = attachment.get_mut("title") {
            *title = cut(std::mem::take(title), TITLE_CHARS_MAX);
        }
        if !self.fields.is_empty() {
            let field = |(title, value, short): &(Text, Text, bool)| {
                let (title, value) = (notice.render(title)?, notice.render(value)?);
                Ok(json!({"title": title, "value": value, "short": short}))
            };
            let fields: Result<Vec<Value>, String> = self.fields.iter().map(field).collect();
            attachment.insert("fields".to_owned(), fields?.into());
        }
        if !self.actions.is_empty() {
            let action = |texts: &Fields| {
                let mut action = filled(notice, texts)?;
                action.insert("type".to_owned(), "button".into());
                action.insert("is_webview".to_owned(), false.into());
                action.insert("msg_in_chat_window".to_owned(), false.into());
                Ok(Value::Object(action))
            };
            let actions: Result<Vec<Value>, String> = self.actions.iter().map(action).collect();
            attachment.insert("actions".to_owned(), actions?.into());
        }
        let mut message = filled(notice, &self.outer)?;
        message.insert("attachments".to_owned(), json!([attachment]));
        Ok(self.endpoint.json(&message, notice))
    }
}
