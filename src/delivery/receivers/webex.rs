//! Webex's messages.

use anyhow::ensure;
use serde_json::json;

use super::{Call, Endpoint, Notice, Setup, Text};
use crate::config::receivers::WebexConfig;
use crate::delivery::http_config::Http;

/// The longest message that Webex takes.
const MESSAGE_BYTES_MAX: usize = 7_439;

/// A checked `webex_configs` entry.
#[derive(Clone)]
pub(in crate::delivery) struct Webex {
    endpoint: Endpoint,
    message: Text,
    room_id: Text,
}

impl Webex {
    pub(super) fn new(
        config: &WebexConfig,
        setup: &mut Setup<'_, '_>,
    ) -> anyhow::Result<(Webex, Http)> {
        ensure!(
            !config.room_id.is_empty(),
            "missing room_id on webex_config"
        );
        let own = config.http_config.as_ref();
        ensure!(
            own.is_some_and(|http| http.authorization.is_some()),
            "missing webex_configs.http_config.authorization"
        );
        let global = setup.reader.tree.global.webex_api_url.as_ref();
        let default = "https://webexapis.com/v1/messages";
        let url = setup.address(config.api_url.as_ref(), global, default);
        let http = setup.http(own, &url)?;
        let webex = Webex {
            endpoint: Endpoint::of(&http),
            message: setup.text("message", &config.message)?,
            room_id: setup.text("room_id", &config.room_id)?,
        };
        Ok((webex, http))
    }

    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        let mut text = notice.render(&self.message)?;
        if text.len() > MESSAGE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX - '…'.len_utf8()));
            text.push('…');
        }
        let message = json!({"markdown": text, "roomId": notice.render(&self.room_id)?});
        Ok(self.endpoint.json(&message, notice))
    }
}
