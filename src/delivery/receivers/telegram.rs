//! Telegram's bot API.

use anyhow::ensure;
use serde_json::json;

use super::{Call, Endpoint, Notice, Setup, Text, cut};
use crate::config::receivers::TelegramConfig;
use crate::delivery::http_config::Http;

/// The longest message that Telegram takes.
const CHARS_MAX: usize = 4_096;

/// A checked `telegram_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Telegram {
    endpoint: Endpoint,
    message: Text,
    chat_id: i64,
    thread: Option<i64>,
    parse_mode: String,
    silent: bool,
}

impl Telegram {
    pub(super) fn new(
        config: &TelegramConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Telegram, Http)> {
        ensure!(config.chat_id != 0, "missing chat_id on telegram_config");
        let modes = ["", "MarkdownV2", "Markdown", "HTML"];
        ensure!(
            modes.contains(&config.parse_mode.as_str()),
            "unknown parse_mode on telegram_config, must be Markdown, MarkdownV2, HTML or empty string"
        );
        let file = config.bot_token_file.as_deref();
        let token = setup.secret("bot_token", config.bot_token.as_ref(), file)?;
        let global = setup.reader.tree.global.telegram_api_url.as_ref();
        let base = setup.address(config.api_url.as_ref(), global, "https://api.telegram.org");
        let url = format!("{base}/bot{token}/sendMessage");
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let telegram = Telegram {
            endpoint: Endpoint::of(&http),
            message: setup.text("message", &config.message)?,
            chat_id: config.chat_id,
            thread: config.message_thread_id,
            parse_mode: config.parse_mode.clone(),
            silent: config.disable_notifications,
        };
        Ok((telegram, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        // As Alertmanager: values must not be taken for tags.
        let text = match self.parse_mode.as_str() {
            "HTML" => notice.render_html(&self.message)?,
            _ => notice.render(&self.message)?,
        };
        let mut message = json!({
            "chat_id": self.chat_id,
            "text": cut(text, CHARS_MAX),
            "disable_web_page_preview": true,
        });
        if self.silent {
            message["disable_notification"] = true.into();
        }
        if !self.parse_mode.is_empty() {
            message["parse_mode"] = self.parse_mode.as_str().into();
        }
        if let Some(thread) = self.thread {
            message["message_thread_id"] = thread.into();
        }
        Ok(self.endpoint.json(&message, notice))
    }
}
