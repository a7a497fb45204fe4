//! Receivers that page people.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::HttpConfig;
use crate::config::{Address, Secret, Span};

/// `pagerduty_configs`: PagerDuty (Events API 2).
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagerDutyConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The integration's key.
    pub routing_key: Option<Secret>,
    /// A file with it.
    pub routing_key_file: Option<PathBuf>,
    /// The key of an integration of the older kind (Events API 1).
    pub service_key: Option<Secret>,
    /// A file with it.
    pub service_key_file: Option<PathBuf>,
    /// Where events go.
    pub url: Option<Address>,
    /// Who sends.
    pub client: String,
    /// Where the sender is.
    pub client_url: String,
    /// What it is about.
    pub description: String,
    /// What is affected; left out: the client.
    pub source: Option<String>,
    /// `critical`, `error`, `warning` or `info`.
    pub severity: String,
    /// The kind of event.
    pub class: String,
    /// The part that is affected.
    pub component: String,
    /// The group of parts.
    pub group: String,
    /// More facts.
    pub details: BTreeMap<String, String>,
    /// Pictures.
    pub images: Vec<PagerDutyExtra>,
    /// Links.
    pub links: Vec<PagerDutyExtra>,
}

/// A picture or a link of an event.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagerDutyExtra {
    /// Where the picture is.
    pub src: String,
    /// What it shows.
    pub alt: String,
    /// Where it leads.
    pub href: String,
    /// What the link says.
    pub text: String,
}

impl Default for PagerDutyConfig {
    fn default() -> PagerDutyConfig {
        PagerDutyConfig {
            send_resolved: true,
            http_config: None,
            routing_key: None,
            routing_key_file: None,
            service_key: None,
            service_key_file: None,
            url: None,
            client: r#"{{ template "pagerduty.default.client" . }}"#.to_owned(),
            client_url: r#"{{ template "pagerduty.default.clientURL" . }}"#.to_owned(),
            description: r#"{{ template "pagerduty.default.description" . }}"#.to_owned(),
            source: None,
            severity: "error".to_owned(),
            class: String::new(),
            component: String::new(),
            group: String::new(),
            details: BTreeMap::new(),
            images: Vec::new(),
            links: Vec::new(),
        }
    }
}

/// `opsgenie_configs`: Opsgenie.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpsgenieConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The integration's key.
    pub api_key: Option<Secret>,
    /// A file with it.
    pub api_key_file: Option<PathBuf>,
    /// Where alerts go.
    pub api_url: Option<Address>,
    /// What it is about.
    pub message: String,
    /// What it says.
    pub description: String,
    /// Who sends.
    pub source: String,
    /// More facts, besides the common labels.
    pub details: BTreeMap<String, String>,
    /// What is affected.
    pub entity: String,
    /// Actions, separated by commas.
    pub actions: String,
    /// Tags, separated by commas.
    pub tags: String,
    /// A note.
    pub note: String,
    /// `P1` to `P5`.
    pub priority: String,
    /// Who has to act.
    pub responders: Vec<OpsgenieResponder>,
    /// Only `false`: an alert that is there already keeps its text.
    pub update_alerts: bool,
}

/// Who has to act: one of the three names, and what it names.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpsgenieResponder {
    /// Its id.
    pub id: String,
    /// Its name; `teams` may be several, separated by commas.
    pub name: String,
    /// A user's name.
    pub username: String,
    /// `team`, `teams`, `user`, `escalation`, `schedule`, or a template.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Default for OpsgenieConfig {
    fn default() -> OpsgenieConfig {
        OpsgenieConfig {
            send_resolved: true,
            http_config: None,
            api_key: None,
            api_key_file: None,
            api_url: None,
            message: r#"{{ template "opsgenie.default.message" . }}"#.to_owned(),
            description: r#"{{ template "opsgenie.default.description" . }}"#.to_owned(),
            source: r#"{{ template "opsgenie.default.source" . }}"#.to_owned(),
            details: BTreeMap::new(),
            entity: String::new(),
            actions: String::new(),
            tags: String::new(),
            note: String::new(),
            priority: String::new(),
            responders: Vec::new(),
            update_alerts: false,
        }
    }
}

/// `pushover_configs`: Pushover.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushoverConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The user's key.
    pub user_key: Option<Secret>,
    /// A file with it.
    pub user_key_file: Option<PathBuf>,
    /// The application's token.
    pub token: Option<Secret>,
    /// A file with it.
    pub token_file: Option<PathBuf>,
    /// Where messages go.
    pub api_url: Option<Address>,
    /// Its title.
    pub title: String,
    /// What it says.
    pub message: String,
    /// Where it leads.
    pub url: String,
    /// What the link says.
    pub url_title: String,
    /// The device it goes to.
    pub device: String,
    /// Its sound.
    pub sound: String,
    /// -2 to 2.
    pub priority: String,
    /// How often a message of priority 2 is repeated.
    pub retry: Span,
    /// How long it is repeated.
    pub expire: Span,
    /// How long the message is kept; 0s is for ever.
    pub ttl: Span,
    /// Whether the message is HTML.
    pub html: bool,
    /// Whether its letters are of one width.
    pub monospace: bool,
}

impl Default for PushoverConfig {
    fn default() -> PushoverConfig {
        PushoverConfig {
            send_resolved: true,
            http_config: None,
            user_key: None,
            user_key_file: None,
            token: None,
            token_file: None,
            api_url: None,
            title: r#"{{ template "pushover.default.title" . }}"#.to_owned(),
            message: r#"{{ template "pushover.default.message" . }}"#.to_owned(),
            url: r#"{{ template "pushover.default.url" . }}"#.to_owned(),
            url_title: String::new(),
            device: String::new(),
            sound: String::new(),
            priority: r#"{{ if eq .Status "firing" }}2{{ else }}0{{ end }}"#.to_owned(),
            retry: Span::secs(60),
            expire: Span::secs(3_600),
            ttl: Span::secs(0),
            html: false,
            monospace: false,
        }
    }
}

/// `victorops_configs`: VictorOps, now Splunk On-Call.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VictorOpsConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The integration's key.
    pub api_key: Option<Secret>,
    /// A file with it.
    pub api_key_file: Option<PathBuf>,
    /// Where alerts go.
    pub api_url: Option<Address>,
    /// Which team is told.
    pub routing_key: String,
    /// `CRITICAL`, `WARNING` or `INFO`.
    pub message_type: String,
    /// What it says.
    pub state_message: String,
    /// What it is about.
    pub entity_display_name: String,
    /// Who sends.
    pub monitoring_tool: String,
    /// More facts.
    pub custom_fields: BTreeMap<String, String>,
}

impl Default for VictorOpsConfig {
    fn default() -> VictorOpsConfig {
        VictorOpsConfig {
            send_resolved: true,
            http_config: None,
            api_key: None,
            api_key_file: None,
            api_url: None,
            routing_key: String::new(),
            message_type: "CRITICAL".to_owned(),
            state_message: r#"{{ template "victorops.default.state_message" . }}"#.to_owned(),
            entity_display_name: r#"{{ template "victorops.default.entity_display_name" . }}"#
                .to_owned(),
            monitoring_tool: r#"{{ template "victorops.default.monitoring_tool" . }}"#.to_owned(),
            custom_fields: BTreeMap::new(),
        }
    }
}

/// `ntfy_configs`: ntfy.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NtfyConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The server.
    pub url: Option<Address>,
    /// The topic.
    pub topic: String,
    /// An access token.
    pub token: Option<Secret>,
    /// A file with it.
    pub token_file: Option<PathBuf>,
    /// Its title.
    pub title: String,
    /// What it says.
    pub message: String,
    /// 1 to 5.
    pub priority: String,
    /// Tags, separated by commas.
    pub tags: String,
    /// Where it leads.
    pub click: String,
}

impl Default for NtfyConfig {
    fn default() -> NtfyConfig {
        NtfyConfig {
            send_resolved: true,
            http_config: None,
            url: None,
            topic: String::new(),
            token: None,
            token_file: None,
            title: r#"{{ template "__subject" . }}"#.to_owned(),
            message: r#"{{ template "ntfy.default.message" . }}"#.to_owned(),
            priority: r#"{{ if eq .Status "firing" }}4{{ else }}3{{ end }}"#.to_owned(),
            tags:
                r#"{{ if eq .Status "firing" }}rotating_light{{ else }}white_check_mark{{ end }}"#
                    .to_owned(),
            click: "{{ .ExternalURL }}/alerts".to_owned(),
        }
    }
}

/// `gotify_configs`: Gotify.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GotifyConfig {
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The server.
    pub url: Option<Address>,
    /// The application's token.
    pub token: Option<Secret>,
    /// A file with it.
    pub token_file: Option<PathBuf>,
    /// Its title.
    pub title: String,
    /// What it says.
    pub message: String,
    /// 0 to 10.
    pub priority: String,
}

impl Default for GotifyConfig {
    fn default() -> GotifyConfig {
        GotifyConfig {
            send_resolved: true,
            http_config: None,
            url: None,
            token: None,
            token_file: None,
            title: r#"{{ template "__subject" . }}"#.to_owned(),
            message: r#"{{ template "gotify.default.message" . }}"#.to_owned(),
            priority: r#"{{ if eq .Status "firing" }}8{{ else }}2{{ end }}"#.to_owned(),
        }
    }
}
