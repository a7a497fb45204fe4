//! Pushover's message API.

use anyhow::bail;

use super::{Call, Endpoint, Notice, Setup, Text, cut};
use crate::config::receivers::PushoverConfig;
use crate::delivery::http_config::Http;

/// A message of this priority is repeated until somebody reacts.
const EMERGENCY: &str = "2";

/// A checked `pushover_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Pushover {
    endpoint: Endpoint,
    token: String,
    user_key: String,
    /// With the most characters that Pushover takes.
    texts: Vec<(&'static str, Text, usize)>,
    priority: Text,
    retry_secs: u64,
    expire_secs: u64,
    ttl_secs: u64,
    /// How the message is set: `html` or `monospace`.
    set_in: Option<&'static str>,
}

impl Pushover {
    pub(super) fn new(
        config: &PushoverConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Pushover, Http)> {
        let set_in = match (config.html, config.monospace) {
            (true, true) => bail!("at most one of monospace & html must be configured"),
            (true, false) => Some("html"),
            (false, true) => Some("monospace"),
            (false, false) => None,
        };
        let file = config.user_key_file.as_deref();
        let user_key = setup.secret("user_key", config.user_key.as_ref(), file)?;
        let file = config.token_file.as_deref();
        let token = setup.secret("token", config.token.as_ref(), file)?;
        let default = "https://api.pushover.net/1/messages.json";
        let url = setup.address(config.api_url.as_ref(), None, default);
        let http = setup.http(config.http_config.as_ref(), &url)?;
        let pushover = Pushover {
            endpoint: Endpoint::of(&http),
            token,
            user_key,
            texts: vec![
                ("title", setup.text("title", &config.title)?, 250),
                ("message", setup.text("message", &config.message)?, 1_024),
                ("url", setup.text("url", &config.url)?, 512),
                (
                    "url_title",
                    setup.text("url_title", &config.url_title)?,
                    100,
                ),
                ("device", setup.text("device", &config.device)?, 200),
                ("sound", setup.text("sound", &config.sound)?, 100),
            ],
            priority: setup.text("priority", &config.priority)?,
            retry_secs: config.retry.get().as_secs(),
            expire_secs: config.expire.get().as_secs(),
            ttl_secs: config.ttl.get().as_secs(),
            set_in,
        };
        Ok((pushover, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", &self.token);
        form.append_pair("user", &self.user_key);
        for (name, text, max) in &self.texts {
            let text = cut(notice.render(text)?, *max);
            match (*name, text.trim()) {
                // A message may not be empty.
                ("message", "") => {
                    form.append_pair("message", "(no details)");
                }
                (_, "") => {}
                (name, _) => {
                    form.append_pair(name, &text);
                }
            }
        }
        let priority = notice.render(&self.priority)?;
        form.append_pair("priority", priority.trim());
        if priority.trim() == EMERGENCY {
            form.append_pair("retry", &self.retry_secs.to_string());
            form.append_pair("expire", &self.expire_secs.to_string());
        }
        if self.ttl_secs > 0 {
            form.append_pair("ttl", &self.ttl_secs.to_string());
        }
        if let Some(set_in) = self.set_in {
            form.append_pair(set_in, "1");
        }
        let body = form.finish().into_bytes();
        let kind = "application/x-www-form-urlencoded";
        Ok(self.endpoint.post(kind, body, notice))
    }
}
