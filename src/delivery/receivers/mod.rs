//! The kinds of receivers that are told by an HTTP request: each makes its own request
//! of the same notification.
//!
//! One small file for each, over one shared sender.

mod discord;
mod gotify;
mod mattermost;
mod msteams;
mod ntfy;
mod opsgenie;
mod pagerduty;
mod pushover;
mod rocketchat;
mod slack;
mod telegram;
#[cfg(test)]
mod tests;
mod victorops;
mod webex;

use std::path::Path;

use anyhow::anyhow;
use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::{Map, Value};

use super::http::Call;
use super::http_config::Http;
use super::integration::Reader;
use super::templates::{Notice, Templates, Text};
use crate::config::receivers::{HttpConfig, Receiver};
use crate::config::{Address, Secret};

/// A receiver's checked configuration.
#[derive(Clone)]
pub(super) enum Kind {
    /// `slack_configs`
    Slack(slack::Slack),
    /// `telegram_configs`
    Telegram(telegram::Telegram),
    /// `discord_configs`
    Discord(discord::Discord),
    /// `msteams_configs`
    MsTeams(msteams::MsTeams),
    /// `msteamsv2_configs`
    MsTeamsV2(msteams::MsTeamsV2),
    /// `webex_configs`
    Webex(webex::Webex),
    /// `rocketchat_configs`
    Rocketchat(rocketchat::Rocketchat),
    /// `mattermost_configs`
    Mattermost(mattermost::Mattermost),
    /// `pagerduty_configs`
    PagerDuty(pagerduty::PagerDuty),
    /// `opsgenie_configs`
    Opsgenie(opsgenie::Opsgenie),
    /// `victorops_configs`
    VictorOps(victorops::VictorOps),
    /// `pushover_configs`
    Pushover(pushover::Pushover),
    /// `ntfy_configs`
    Ntfy(ntfy::Ntfy),
    /// `gotify_configs`
    Gotify(gotify::Gotify),
}

impl Kind {
    /// The request that tells of the notification.
    ///
    /// # Errors
    /// When a template fails.
    pub(super) fn call(&self, notice: &Notice) -> Result<Call, String> {
        match self {
            Kind::Slack(kind) => kind.call(notice),
            Kind::Telegram(kind) => kind.call(notice),
            Kind::Discord(kind) => kind.call(notice),
            Kind::MsTeams(kind) => kind.call(notice),
            Kind::MsTeamsV2(kind) => kind.call(notice),
            Kind::Webex(kind) => kind.call(notice),
            Kind::Rocketchat(kind) => kind.call(notice),
            Kind::Mattermost(kind) => kind.call(notice),
            Kind::PagerDuty(kind) => kind.call(notice),
            Kind::Opsgenie(kind) => kind.call(notice),
            Kind::VictorOps(kind) => kind.call(notice),
            Kind::Pushover(kind) => kind.call(notice),
            Kind::Ntfy(kind) => kind.call(notice),
            Kind::Gotify(kind) => kind.call(notice),
        }
    }
}

/// One made receiver: what its configuration says, for comparing; its kind; how it is
/// reached; what was read for it.
pub(super) type Made = anyhow::Result<(String, Kind, Http, Vec<Vec<u8>>)>;

/// All but the webhooks, in the order of [`Receiver::integrations`].
pub(super) fn all(receiver: &Receiver, setup: &mut Setup<'_, '_>) -> Vec<(&'static str, Made)> {
    let mut all = Vec::new();
    macro_rules! add {
        ($name:literal, $configs:ident, $make:path, $kind:path) => {
            for config in &receiver.$configs {
                let made = $make(config, setup);
                let read = setup.reader.taken();
                let written = format!("{config:?}");
                let made = made.map(|(kind, http)| (written, $kind(kind), http, read));
                all.push(($name, made));
            }
        };
    }
    add!("slack", slack_configs, slack::Slack::new, Kind::Slack);
    add!(
        "telegram",
        telegram_configs,
        telegram::Telegram::new,
        Kind::Telegram
    );
    add!(
        "discord",
        discord_configs,
        discord::Discord::new,
        Kind::Discord
    );
    add!(
        "msteams",
        msteams_configs,
        msteams::MsTeams::new,
        Kind::MsTeams
    );
    add!(
        "msteamsv2",
        msteamsv2_configs,
        msteams::MsTeamsV2::new,
        Kind::MsTeamsV2
    );
    add!("webex", webex_configs, webex::Webex::new, Kind::Webex);
    add!(
        "rocketchat",
        rocketchat_configs,
        rocketchat::Rocketchat::new,
        Kind::Rocketchat
    );
    add!(
        "mattermost",
        mattermost_configs,
        mattermost::Mattermost::new,
        Kind::Mattermost
    );
    add!(
        "pagerduty",
        pagerduty_configs,
        pagerduty::PagerDuty::new,
        Kind::PagerDuty
    );
    add!(
        "opsgenie",
        opsgenie_configs,
        opsgenie::Opsgenie::new,
        Kind::Opsgenie
    );
    add!(
        "victorops",
        victorops_configs,
        victorops::VictorOps::new,
        Kind::VictorOps
    );
    add!(
        "pushover",
        pushover_configs,
        pushover::Pushover::new,
        Kind::Pushover
    );
    add!("ntfy", ntfy_configs, ntfy::Ntfy::new, Kind::Ntfy);
    add!("gotify", gotify_configs, gotify::Gotify::new, Kind::Gotify);
    all
}

/// What receivers are made with.
pub(super) struct Setup<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    pub(super) templates: &'r Templates,
}

impl Setup<'_, '_> {
    fn text(&self, field: &str, text: &str) -> anyhow::Result<Text> {
        self.templates.text(field, text)
    }

    /// Fields by their names.
    fn texts(&self, fields: &[(&'static str, &str)]) -> anyhow::Result<Fields> {
        let text = |(name, text): &(&'static str, &str)| Ok((*name, self.text(name, text)?));
        fields.iter().map(text).collect()
    }

    fn secret(
        &mut self,
        field: &str,
        secret: Option<&Secret>,
        file: Option<&Path>,
    ) -> anyhow::Result<String> {
        self.reader.required(field, secret, file)
    }

    fn http(&mut self, own: Option<&HttpConfig>, url: &str) -> anyhow::Result<Http> {
        self.reader.http(own, url)
    }

    /// A base address with a path behind it.
    fn address(
        &mut self,
        own: Option<&Address>,
        global: Option<&Address>,
        default: &str,
    ) -> String {
        let address = own.or(global).map_or(default, |address| &**address);
        self.reader.note(address);
        address.trim_end_matches('/').to_owned()
    }
}

/// Where and with what headers a receiver is asked.
#[derive(Clone)]
struct Endpoint {
    uri: Uri,
    headers: HeaderMap,
}

impl Endpoint {
    fn of(http: &Http) -> Endpoint {
        Endpoint {
            uri: http.uri.clone(),
            headers: http.headers.clone(),
        }
    }

    /// Adds a header that holds a secret.
    fn with_secret(mut self, name: &'static str, value: &str) -> anyhow::Result<Endpoint> {
        let mut value =
            HeaderValue::from_str(value).map_err(|_| anyhow!("a key holds control characters"))?;
        value.set_sensitive(true);
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    fn post(&self, content_type: &'static str, body: Vec<u8>, notice: &Notice) -> Call {
        let mut headers = self.headers.clone();
        let kind = HeaderValue::from_static(content_type);
        headers.insert(hyper::header::CONTENT_TYPE, kind);
        if let Ok(id) = HeaderValue::from_str(&notice.event_id) {
            headers.insert(HeaderName::from_static("idempotency-key"), id);
        }
        Call {
            uri: self.uri.clone(),
            headers,
            body,
        }
    }

    fn json(&self, value: &impl Serialize, notice: &Notice) -> Call {
        let body = serde_json::to_vec(value).expect("a message is plain data");
        self.post("application/json", body, notice)
    }
}

/// Fields by their names in a message.
type Fields = Vec<(&'static str, Text)>;

/// Those of the fields that are not empty.
fn filled(notice: &Notice, fields: &Fields) -> Result<Map<String, Value>, String> {
    let mut filled = Map::new();
    for (name, text) in fields {
        let text = notice.render(text)?;
        if !text.is_empty() {
            filled.insert((*name).to_owned(), text.into());
        }
    }
    Ok(filled)
}

/// Fields under names of the operator's.
fn rendered(notice: &Notice, fields: &[(String, Text)]) -> Result<Map<String, Value>, String> {
    let mut rendered = Map::new();
    for (name, text) in fields {
        rendered.insert(name.clone(), notice.render(text)?.into());
    }
    Ok(rendered)
}

/// At most this many characters; a longer text ends in `…`.
fn cut(text: String, max: usize) -> String {
    if text.chars().count() <= max {
        return text;
    }
    let mut cut: String = text.chars().take(max - 1).collect();
    cut.push('…');
    cut
}
