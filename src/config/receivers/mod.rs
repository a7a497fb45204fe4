//! Receivers: who can be told, and how, in the words of an `alertmanager.yml`.

mod brokers;
mod chat;
mod email;
mod http;
mod paging;
mod rooms;

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

pub use brokers::{HeartbeatConfig, MqttConfig, NatsConfig};
pub use chat::{
    DiscordConfig, MattermostConfig, MsTeamsConfig, MsTeamsV2Config, SlackAction, SlackConfig,
    SlackField, TelegramConfig,
};
pub use email::EmailConfig;
pub use http::{Authorization, BasicAuth, HeaderValues, HttpConfig, TlsConfig, WebhookConfig};
pub use paging::{
    GotifyConfig, NtfyConfig, OpsgenieConfig, OpsgenieResponder, PagerDutyConfig, PushoverConfig,
    VictorOpsConfig,
};
pub use rooms::{RocketchatConfig, WebexConfig};

/// A receiver: everything in it is told of the same alerts.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Receiver {
    /// As routes name it.
    pub name: String,
    /// HTTP endpoints that take Alertmanager's webhook message.
    pub webhook_configs: Vec<WebhookConfig>,
    /// Slack.
    pub slack_configs: Vec<SlackConfig>,
    /// Telegram.
    pub telegram_configs: Vec<TelegramConfig>,
    /// Discord.
    pub discord_configs: Vec<DiscordConfig>,
    /// Microsoft Teams.
    pub msteams_configs: Vec<MsTeamsConfig>,
    /// Microsoft Teams through a workflow.
    pub msteamsv2_configs: Vec<MsTeamsV2Config>,
    /// Webex.
    pub webex_configs: Vec<WebexConfig>,
    /// Rocket.Chat.
    pub rocketchat_configs: Vec<RocketchatConfig>,
    /// Mattermost.
    pub mattermost_configs: Vec<MattermostConfig>,
    /// PagerDuty (Events API 2).
    pub pagerduty_configs: Vec<PagerDutyConfig>,
    /// Opsgenie.
    pub opsgenie_configs: Vec<OpsgenieConfig>,
    /// VictorOps.
    pub victorops_configs: Vec<VictorOpsConfig>,
    /// Pushover.
    pub pushover_configs: Vec<PushoverConfig>,
    /// ntfy.
    pub ntfy_configs: Vec<NtfyConfig>,
    /// Gotify.
    pub gotify_configs: Vec<GotifyConfig>,
    /// E-mail.
    pub email_configs: Vec<EmailConfig>,
    /// Topics of MQTT brokers.
    pub mqtt_configs: Vec<MqttConfig>,
    /// Subjects of NATS servers.
    pub nats_configs: Vec<NatsConfig>,
    /// Dead man's switches.
    pub heartbeat_configs: Vec<HeartbeatConfig>,
    /// WeChat, which is refused.
    pub wechat_configs: Vec<IgnoredAny>,
    /// Amazon's SNS, which is refused.
    pub sns_configs: Vec<IgnoredAny>,
    /// Jira, which is refused.
    pub jira_configs: Vec<IgnoredAny>,
    /// incident.io, which is refused.
    pub incidentio_configs: Vec<IgnoredAny>,
}

/// One way of telling within a receiver. What has to be told to it waits in the
/// outbox under its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Integration {
    /// `RECEIVER/KIND[INDEX]`; the name alone for a `[[destination.KIND]]`.
    pub name: String,
    /// The kind, as metrics name it.
    pub kind: &'static str,
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// Alerts in one notification; 0 is no limit.
    pub alerts_max: usize,
    /// For a dead man's switch: how often it has to hear of us.
    pub every: Option<Duration>,
}

impl Receiver {
    /// All its ways of telling, in the order of the kinds.
    pub fn integrations(&self) -> Vec<Integration> {
        let mut all = Vec::new();
        for (i, config) in self.webhook_configs.iter().enumerate() {
            all.push(Integration {
                alerts_max: config.max_alerts,
                ..self.integration("webhook", i, config.send_resolved)
            });
        }
        let told = self.slack_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "slack", told);
        let told = self.telegram_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "telegram", told);
        let told = self.discord_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "discord", told);
        let told = self.msteams_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "msteams", told);
        let told = self.msteamsv2_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "msteamsv2", told);
        let told = self.webex_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "webex", told);
        let told = self.rocketchat_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "rocketchat", told);
        let told = self.mattermost_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "mattermost", told);
        let told = self.pagerduty_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "pagerduty", told);
        let told = self.opsgenie_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "opsgenie", told);
        let told = self.victorops_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "victorops", told);
        let told = self.pushover_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "pushover", told);
        let told = self.ntfy_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "ntfy", told);
        let told = self.gotify_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "gotify", told);
        let told = self.email_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "email", told);
        let told = self.mqtt_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "mqtt", told);
        let told = self.nats_configs.iter().map(|c| c.send_resolved);
        self.add(&mut all, "nats", told);
        for (i, config) in self.heartbeat_configs.iter().enumerate() {
            all.push(Integration {
                every: Some(config.interval.get()),
                ..self.integration("heartbeat", i, false)
            });
        }
        all
    }

    /// The kinds of Alertmanager's that there are not here, with the reason.
    pub(super) fn unsupported(&self) -> impl Iterator<Item = (&'static str, String)> {
        let more = "a webhook to a service that translates works";
        let kinds = [
            ("wechat_configs", &self.wechat_configs, "WeChat"),
            ("sns_configs", &self.sns_configs, "Amazon SNS"),
            ("jira_configs", &self.jira_configs, "Jira"),
            (
                "incidentio_configs",
                &self.incidentio_configs,
                "incident.io",
            ),
        ];
        let used = kinds
            .into_iter()
            .filter(|(_, configs, _)| !configs.is_empty());
        used.map(move |(field, _, name)| (field, format!("{name} is not supported, {more}")))
    }

    fn add(
        &self,
        all: &mut Vec<Integration>,
        kind: &'static str,
        send_resolved: impl Iterator<Item = bool>,
    ) {
        let of_kind = send_resolved.enumerate();
        all.extend(of_kind.map(|(i, told)| self.integration(kind, i, told)));
    }

    fn integration(&self, kind: &'static str, index: usize, send_resolved: bool) -> Integration {
        Integration {
            name: format!("{}/{kind}[{index}]", self.name),
            kind,
            send_resolved,
            alerts_max: 0,
            every: None,
        }
    }
}
