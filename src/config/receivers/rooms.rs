//! Receivers that write into a room: Webex and Rocket.Chat.

use std::path::PathBuf;

use serde::Deserialize;

use super::{HttpConfig, SlackField};
use crate::config::{Address, Secret};

/// `webex_configs`: Webex.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebexConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made; the bot's token is its `authorization`.
    pub http_config: Option<HttpConfig>,
    /// Where messages go.
    pub api_url: Option<Address>,
    /// What it says, in markdown.
    pub message: String,
    /// The room.
    pub room_id: String,
}

impl Default for WebexConfig {
    fn default() -> WebexConfig {
        WebexConfig {
            send_resolved: true,
            http_config: None,
            api_url: None,
            message: r#"{{ template "webex.default.message" . }}"#.to_owned(),
            room_id: String::new(),
        }
    }
}

/// `rocketchat_configs`: Rocket.Chat.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RocketchatConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The server.
    pub api_url: Option<Address>,
    /// The user of the token.
    pub token_id: Option<Secret>,
    /// A file with it.
    pub token_id_file: Option<PathBuf>,
    /// An access token.
    pub token: Option<Secret>,
    /// A file with it.
    pub token_file: Option<PathBuf>,
    /// Where the message goes.
    pub channel: String,
    /// The colour of its edge.
    pub color: String,
    /// Its title.
    pub title: String,
    /// Where the title leads.
    pub title_link: String,
    /// What it says.
    pub text: String,
    /// The sender's emoji.
    pub emoji: String,
    /// The sender's picture.
    pub icon_url: String,
    /// A picture.
    pub image_url: String,
    /// A small picture.
    pub thumb_url: String,
    /// Taken as Alertmanager takes it: the service has no such field.
    pub link_names: bool,
    /// Whether fields stand side by side when they do not say.
    pub short_fields: bool,
    /// Fields of the attachment.
    pub fields: Vec<SlackField>,
    /// Buttons of the attachment.
    pub actions: Vec<RocketchatAction>,
}

impl Default for RocketchatConfig {
    fn default() -> RocketchatConfig {
        RocketchatConfig {
            send_resolved: false,
            http_config: None,
            api_url: None,
            token_id: None,
            token_id_file: None,
            token: None,
            token_file: None,
            channel: String::new(),
            color: r#"{{ if eq .Status "firing" }}red{{ else }}green{{ end }}"#.to_owned(),
            title: r#"{{ template "rocketchat.default.title" . }}"#.to_owned(),
            title_link: r#"{{ template "rocketchat.default.titlelink" . }}"#.to_owned(),
            text: r#"{{ template "rocketchat.default.text" . }}"#.to_owned(),
            emoji: r#"{{ template "rocketchat.default.emoji" . }}"#.to_owned(),
            icon_url: r#"{{ template "rocketchat.default.iconurl" . }}"#.to_owned(),
            image_url: String::new(),
            thumb_url: String::new(),
            link_names: false,
            short_fields: false,
            fields: Vec::new(),
            actions: Vec::new(),
        }
    }
}

/// A button of a Rocket.Chat attachment.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RocketchatAction {
    /// Always `button`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says.
    pub text: String,
    /// Where it leads.
    pub url: String,
    /// What it writes into the room.
    pub msg: String,
}
