//! Receivers that write into a chat.

use std::path::PathBuf;

use serde::Deserialize;

use super::HttpConfig;
use crate::config::{Address, Secret};

/// `slack_configs`: Slack.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlackConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// Slack's incoming webhook.
    pub api_url: Option<Secret>,
    /// A file with it.
    pub api_url_file: Option<PathBuf>,
    /// Where the message goes.
    pub channel: String,
    /// Who it is from.
    pub username: String,
    /// The colour of its edge.
    pub color: String,
    /// Its title.
    pub title: String,
    /// Where the title leads.
    pub title_link: String,
    /// What stands above it.
    pub pretext: String,
    /// What it says.
    pub text: String,
    /// For clients that show no attachments.
    pub fallback: String,
    /// For interactive messages.
    pub callback_id: String,
    /// The sender's emoji.
    pub icon_emoji: String,
    /// The sender's picture.
    pub icon_url: String,
    /// A picture.
    pub image_url: String,
    /// A small picture.
    pub thumb_url: String,
    /// What stands below it.
    pub footer: String,
    /// Whether names become links.
    pub link_names: bool,
    /// Whether fields stand side by side when they do not say.
    pub short_fields: bool,
    /// In which parts markdown counts.
    pub mrkdwn_in: Vec<String>,
    /// Fields of the attachment.
    pub fields: Vec<SlackField>,
    /// Buttons of the attachment.
    pub actions: Vec<SlackAction>,
}

impl Default for SlackConfig {
    fn default() -> SlackConfig {
        SlackConfig {
            send_resolved: false,
            http_config: None,
            api_url: None,
            api_url_file: None,
            channel: String::new(),
            username: r#"{{ template "slack.default.username" . }}"#.to_owned(),
            color: r#"{{ if eq .Status "firing" }}danger{{ else }}good{{ end }}"#.to_owned(),
            title: r#"{{ template "slack.default.title" . }}"#.to_owned(),
            title_link: r#"{{ template "slack.default.titlelink" . }}"#.to_owned(),
            pretext: r#"{{ template "slack.default.pretext" . }}"#.to_owned(),
            text: r#"{{ template "slack.default.text" . }}"#.to_owned(),
            fallback: r#"{{ template "slack.default.fallback" . }}"#.to_owned(),
            callback_id: r#"{{ template "slack.default.callbackid" . }}"#.to_owned(),
            icon_emoji: r#"{{ template "slack.default.iconemoji" . }}"#.to_owned(),
            icon_url: r#"{{ template "slack.default.iconurl" . }}"#.to_owned(),
            image_url: String::new(),
            thumb_url: String::new(),
            footer: r#"{{ template "slack.default.footer" . }}"#.to_owned(),
            link_names: false,
            short_fields: false,
            mrkdwn_in: Vec::new(),
            fields: Vec::new(),
            actions: Vec::new(),
        }
    }
}

/// `telegram_configs`: Telegram.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelegramConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// Where messages go.
    pub api_url: Option<Address>,
    /// The bot's token.
    pub bot_token: Option<Secret>,
    /// A file with it.
    pub bot_token_file: Option<PathBuf>,
    /// The chat.
    pub chat_id: i64,
    /// The topic of the chat.
    pub message_thread_id: Option<i64>,
    /// What it says.
    pub message: String,
    /// `MarkdownV2`, `Markdown`, `HTML` or nothing.
    pub parse_mode: String,
    /// Whether it comes without a sound.
    pub disable_notifications: bool,
}

impl Default for TelegramConfig {
    fn default() -> TelegramConfig {
        TelegramConfig {
            send_resolved: true,
            http_config: None,
            api_url: None,
            bot_token: None,
            bot_token_file: None,
            chat_id: 0,
            message_thread_id: None,
            message: r#"{{ template "telegram.default.message" . }}"#.to_owned(),
            parse_mode: "HTML".to_owned(),
            disable_notifications: false,
        }
    }
}

/// `discord_configs`: Discord.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscordConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The channel's webhook.
    pub webhook_url: Option<Secret>,
    /// A file with it.
    pub webhook_url_file: Option<PathBuf>,
    /// What stands above it.
    pub content: String,
    /// Its title.
    pub title: String,
    /// What it says.
    pub message: String,
    /// Who it is from.
    pub username: String,
    /// The sender's picture.
    pub avatar_url: String,
}

impl Default for DiscordConfig {
    fn default() -> DiscordConfig {
        DiscordConfig {
            send_resolved: true,
            http_config: None,
            webhook_url: None,
            webhook_url_file: None,
            content: String::new(),
            title: r#"{{ template "discord.default.title" . }}"#.to_owned(),
            message: r#"{{ template "discord.default.message" . }}"#.to_owned(),
            username: String::new(),
            avatar_url: String::new(),
        }
    }
}

/// `msteams_configs`: Microsoft Teams.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MsTeamsConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The channel's webhook.
    pub webhook_url: Option<Secret>,
    /// A file with it.
    pub webhook_url_file: Option<PathBuf>,
    /// Its title.
    pub title: String,
    /// What notifications show.
    pub summary: String,
    /// What it says.
    pub text: String,
}

impl Default for MsTeamsConfig {
    fn default() -> MsTeamsConfig {
        MsTeamsConfig {
            send_resolved: true,
            http_config: None,
            webhook_url: None,
            webhook_url_file: None,
            title: r#"{{ template "msteams.default.title" . }}"#.to_owned(),
            summary: r#"{{ template "msteams.default.summary" . }}"#.to_owned(),
            text: r#"{{ template "msteams.default.text" . }}"#.to_owned(),
        }
    }
}

/// `msteamsv2_configs`: Microsoft Teams through a workflow of Power Automate.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MsTeamsV2Config {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The workflow's address.
    pub webhook_url: Option<Secret>,
    /// A file with it.
    pub webhook_url_file: Option<PathBuf>,
    /// Its title.
    pub title: String,
    /// What it says.
    pub text: String,
}

impl Default for MsTeamsV2Config {
    fn default() -> MsTeamsV2Config {
        MsTeamsV2Config {
            send_resolved: true,
            http_config: None,
            webhook_url: None,
            webhook_url_file: None,
            title: r#"{{ template "msteamsv2.default.title" . }}"#.to_owned(),
            text: r#"{{ template "msteamsv2.default.text" . }}"#.to_owned(),
        }
    }
}

/// `mattermost_configs`: Mattermost.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MattermostConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The incoming webhook.
    pub webhook_url: Option<Secret>,
    /// A file with it.
    pub webhook_url_file: Option<PathBuf>,
    /// Where the message goes.
    pub channel: String,
    /// Who it is from.
    pub username: String,
    /// What it says.
    pub text: String,
}

impl Default for MattermostConfig {
    fn default() -> MattermostConfig {
        MattermostConfig {
            send_resolved: true,
            http_config: None,
            webhook_url: None,
            webhook_url_file: None,
            channel: String::new(),
            username: String::new(),
            text: r#"{{ template "mattermost.default.text" . }}"#.to_owned(),
        }
    }
}

/// A field of a Slack attachment.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlackField {
    /// Its title.
    pub title: String,
    /// Its value.
    pub value: String,
    /// Whether it stands beside the next.
    pub short: Option<bool>,
}

/// A button of a Slack attachment.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlackAction {
    /// Its kind, `button` for instance.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says.
    pub text: String,
    /// Where it leads.
    pub url: String,
    /// `primary` or `danger`.
    pub style: String,
    /// Its name, for a button that answers.
    pub name: String,
    /// What it answers.
    pub value: String,
    /// What is asked before.
    pub confirm: Option<SlackConfirmation>,
}

/// What a button of Slack asks before it does anything.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlackConfirmation {
    /// The question.
    pub text: String,
    /// Its title.
    pub title: String,
    /// What yes is called.
    pub ok_text: String,
    /// What no is called.
    pub dismiss_text: String,
}
