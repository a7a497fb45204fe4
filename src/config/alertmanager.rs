//! The notification tree: what an `alertmanager.yml` holds, or `[alerting]` with the
//! same words.
//!
//! Both forms become one [`Alertmanager`]. The file is read unchanged; what this
//! version cannot do (a proxy, a receiver of another kind) is known by its name and
//! refused at its line rather than passed over.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::document::{Document, YamlMistake};
use super::intervals::NamedIntervals;
use super::mistake::{Mistake, joined};
use super::origin::{Origin, TREE_FILE, Written};
use super::reading;
use super::receivers::{HttpConfig, Receiver, TlsConfig};
use super::routing::{InhibitRule, RouteNode};
use super::{Address, Secret, Span};

/// The whole tree.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alertmanager {
    /// What receivers take when they say nothing of their own.
    pub global: AlertmanagerGlobal,
    /// Files with templates, or patterns of their names.
    pub templates: Vec<String>,
    /// The root of the routes.
    pub route: Option<RouteNode>,
    /// Who can be told.
    pub receivers: Arc<[Receiver]>,
    /// Which alerts make others quiet.
    pub inhibit_rules: Vec<InhibitRule>,
    /// Named times.
    pub time_intervals: Vec<NamedIntervals>,
    /// The old name of `time_intervals`.
    pub mute_time_intervals: Vec<NamedIntervals>,
    /// Where Alertmanager's own traces go; we have none, so it is passed over.
    pub tracing: Option<IgnoredAny>,
    /// The folder that relative paths are relative to.
    #[serde(skip)]
    pub base_dir: PathBuf,
}

/// What receivers take when they say nothing of their own.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertmanagerGlobal {
    /// After this time without news an alert without an end counts as resolved.
    pub resolve_timeout: Option<Span>,
    /// How requests are made.
    pub http_config: Option<HttpConfig>,
    /// The sender of mails.
    pub smtp_from: Option<String>,
    /// How we name ourselves to the mail server.
    pub smtp_hello: Option<String>,
    /// Host and port of the mail server.
    pub smtp_smarthost: Option<String>,
    /// The user at the mail server.
    pub smtp_auth_username: Option<String>,
    /// The user's password.
    pub smtp_auth_password: Option<Secret>,
    /// A file with the user's password.
    pub smtp_auth_password_file: Option<PathBuf>,
    /// For CRAM-MD5, which is not supported.
    pub smtp_auth_secret: Option<Secret>,
    /// A file with it.
    pub smtp_auth_secret_file: Option<PathBuf>,
    /// For PLAIN; it must be the user or empty.
    pub smtp_auth_identity: Option<String>,
    /// Whether mail goes out only encrypted.
    pub smtp_require_tls: Option<bool>,
    /// How to trust the mail server.
    pub smtp_tls_config: Option<TlsConfig>,
    /// Slack's incoming webhook.
    pub slack_api_url: Option<Secret>,
    /// A file with it.
    pub slack_api_url_file: Option<PathBuf>,
    /// Where PagerDuty takes events.
    pub pagerduty_url: Option<Address>,
    /// The key of an Opsgenie integration.
    pub opsgenie_api_key: Option<Secret>,
    /// A file with it.
    pub opsgenie_api_key_file: Option<PathBuf>,
    /// Where Opsgenie takes alerts.
    pub opsgenie_api_url: Option<Address>,
    /// Where Telegram takes messages.
    pub telegram_api_url: Option<Address>,
    /// The key of a VictorOps integration.
    pub victorops_api_key: Option<Secret>,
    /// A file with it.
    pub victorops_api_key_file: Option<PathBuf>,
    /// Where VictorOps takes alerts.
    pub victorops_api_url: Option<Address>,
    /// Where Webex takes messages.
    pub webex_api_url: Option<Address>,
    /// A Rocket.Chat server.
    pub rocketchat_api_url: Option<Address>,
    /// An access token of it.
    pub rocketchat_token: Option<Secret>,
    /// A file with it.
    pub rocketchat_token_file: Option<PathBuf>,
    /// The user of the token.
    pub rocketchat_token_id: Option<Secret>,
    /// A file with it.
    pub rocketchat_token_id_file: Option<PathBuf>,
    /// For WeChat, which has no receiver here.
    pub wechat_api_url: Option<Address>,
    /// For WeChat, which has no receiver here.
    pub wechat_api_secret: Option<Secret>,
    /// For WeChat, which has no receiver here.
    pub wechat_api_corp_id: Option<String>,
    /// For Jira, which has no receiver here.
    pub jira_api_url: Option<Address>,
}

impl Alertmanager {
    /// Reads a file. Its mistakes of form come with what was written;
    /// [`Alertmanager::mistakes`] looks at the rest.
    pub(super) fn read(path: &Path) -> Result<(Alertmanager, Written), Mistake> {
        let text = super::text::read(path)
            .map_err(|err| Mistake::new("alerting.config_file", format!("{err:#}")))?;
        let (mut tree, written) = from_yaml(&text, &path.display().to_string())?;
        tree.base_dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok((tree, written))
    }

    /// Parses and checks the YAML text of a file called `name`.
    ///
    /// # Errors
    /// With file, line, column and what was expected.
    pub fn parse(text: &str, name: &str) -> anyhow::Result<Alertmanager> {
        let (tree, written) = from_yaml(text, name)?;
        let origin = Origin {
            tree: written,
            ..Origin::default()
        };
        let mistakes = tree.mistakes(&HashSet::new()).into_iter();
        let mistakes = mistakes.map(|(path, text)| Mistake::new(joined(TREE_FILE, &path), text));
        let told = origin.tell(mistakes.collect());
        match told.is_empty() {
            true => Ok(tree),
            false => Err(told.into()),
        }
    }

    /// All named intervals, under their new and their old name.
    pub fn intervals(&self) -> impl Iterator<Item = &NamedIntervals> {
        self.time_intervals.iter().chain(&self.mute_time_intervals)
    }

    /// What is wrong in what the parts say of each other: the path of the field and the
    /// message. `more` are receivers that are configured elsewhere.
    pub(super) fn mistakes(&self, more: &HashSet<&str>) -> Vec<(String, String)> {
        let mut found = Vec::new();
        self.global.check(&mut found);
        let mut receivers: HashSet<&str> = more.clone();
        for (index, receiver) in self.receivers.iter().enumerate() {
            for (field, why) in receiver.unsupported() {
                found.push((format!("receivers[{index}].{field}"), why));
            }
            let (path, name) = (format!("receivers[{index}].name"), &receiver.name);
            if name.is_empty() {
                found.push((path, "missing name in receiver".to_owned()));
            } else if !receivers.insert(name) {
                let text = format!("notification config name {name:?} is not unique");
                found.push((path, text));
            }
        }
        let mut intervals = HashSet::new();
        for (list, all) in [
            ("time_intervals", &self.time_intervals),
            ("mute_time_intervals", &self.mute_time_intervals),
        ] {
            for (index, NamedIntervals { name, .. }) in all.iter().enumerate() {
                if name.is_empty() {
                    let text = "missing name in time interval".to_owned();
                    found.push((format!("{list}[{index}].name"), text));
                }
                if !intervals.insert(name.as_str()) {
                    let text = format!("time interval {name:?} is not unique");
                    found.push((format!("{list}[{index}].name"), text));
                }
            }
        }
        let Some(root) = &self.route else {
            let text = "no routes provided, expected a route";
            found.push(("route".to_owned(), text.to_owned()));
            return found;
        };
        check_root(root, &mut found);
        let known = Known {
            receivers: &receivers,
            intervals: &intervals,
        };
        known.check(root, "route", &mut found);
        found
    }
}

impl AlertmanagerGlobal {
    /// Secrets stand either in the file or in one of their own.
    fn check(&self, found: &mut Vec<(String, String)>) {
        let secrets = [
            (
                "slack_api_url",
                &self.slack_api_url,
                &self.slack_api_url_file,
            ),
            (
                "opsgenie_api_key",
                &self.opsgenie_api_key,
                &self.opsgenie_api_key_file,
            ),
            (
                "victorops_api_key",
                &self.victorops_api_key,
                &self.victorops_api_key_file,
            ),
            (
                "rocketchat_token",
                &self.rocketchat_token,
                &self.rocketchat_token_file,
            ),
            (
                "rocketchat_token_id",
                &self.rocketchat_token_id,
                &self.rocketchat_token_id_file,
            ),
            (
                "smtp_auth_password",
                &self.smtp_auth_password,
                &self.smtp_auth_password_file,
            ),
            (
                "smtp_auth_secret",
                &self.smtp_auth_secret,
                &self.smtp_auth_secret_file,
            ),
        ];
        for (field, secret, file) in secrets {
            if secret.is_some() && file.is_some() {
                let text = format!("at most one of {field} & {field}_file must be configured");
                found.push((format!("global.{field}"), text));
            }
        }
    }
}

/// What routes may name.
struct Known<'a> {
    receivers: &'a HashSet<&'a str>,
    intervals: &'a HashSet<&'a str>,
}

impl Known<'_> {
    /// Checks a route and all below it.
    fn check(&self, route: &RouteNode, path: &str, found: &mut Vec<(String, String)>) {
        let receiver = route.receiver.as_deref();
        if let Some(receiver) = receiver.filter(|r| !self.receivers.contains(r)) {
            let text = format!("undefined receiver {receiver:?} used in route");
            found.push((format!("{path}.receiver"), text));
        }
        for (field, names) in [
            ("mute_time_intervals", &route.mute_time_intervals),
            ("active_time_intervals", &route.active_time_intervals),
        ] {
            for (index, name) in names.iter().enumerate() {
                if !self.intervals.contains(name.as_str()) {
                    let text = format!("undefined time interval {name:?} used in route");
                    found.push((format!("{path}.{field}[{index}]"), text));
                }
            }
        }
        for (field, span) in [
            ("group_interval", route.group_interval),
            ("repeat_interval", route.repeat_interval),
            ("digest_interval", route.digest_interval),
        ] {
            if span.is_some_and(|span| span.get().is_zero()) {
                found.push((format!("{path}.{field}"), format!("{field} cannot be zero")));
            }
        }
        for (index, child) in route.routes.iter().enumerate() {
            self.check(child, &format!("{path}.routes[{index}]"), found);
        }
    }
}

fn check_root(root: &RouteNode, found: &mut Vec<(String, String)>) {
    for (field, is_wrong, text) in [
        (
            ".receiver",
            root.receiver.is_none(),
            "root route must specify a default receiver",
        ),
        (
            ".match",
            !root.equals.is_empty(),
            "root route must not have any matchers",
        ),
        (
            ".match_re",
            !root.match_re.is_empty(),
            "root route must not have any matchers",
        ),
        (
            ".matchers",
            !root.matchers.0.is_empty(),
            "root route must not have any matchers",
        ),
        (
            ".mute_time_intervals",
            !root.mute_time_intervals.is_empty(),
            "root route must not have any mute time intervals",
        ),
        (
            ".active_time_intervals",
            !root.active_time_intervals.is_empty(),
            "root route must not have any active time intervals",
        ),
        (
            ".continue",
            root.goes_on,
            "cannot have continue in root route",
        ),
    ] {
        if is_wrong {
            found.push((format!("route{field}"), text.to_owned()));
        }
    }
}

fn from_yaml(text: &str, name: &str) -> Result<(Alertmanager, Written), Mistake> {
    let document = Document::yaml(text).map_err(|err| {
        let YamlMistake {
            line,
            column,
            message,
        } = err;
        Mistake::elsewhere(format!("{name}:{line}:{column}: {message}"))
    })?;
    let mut written = Written::yaml(name, text);
    Ok((reading::fields(&mut written, document), written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, wanted: &str) {
        let err = Alertmanager::parse(text, "am.yml").unwrap_err().to_string();
        assert!(err.contains(wanted), "{text}\n{err}");
    }

    const RECEIVERS: &str = "receivers:\n- name: a\n- name: b\n";

    #[test]
    fn every_mistake_names_its_line() {
        for (text, wanted) in [
            (
                "route:\n  receiver: c\n",
                "am.yml:2:3: route.receiver: undefined receiver \"c\"",
            ),
            (
                "route:\n  group_by: [x]\n",
                "am.yml:1:1: route.receiver: root route must specify",
            ),
            (
                "route:\n  receiver: a\n  routes:\n  - matchers:\n    - a=b\n    - x\n",
                "am.yml:6:7: route.routes[0].matchers[1]: ",
            ),
            (
                "route:\n  receiver: a\n  group_by: ['...', b]\n",
                "am.yml:3:",
            ),
            (
                "route:\n  receiver: a\n  group_wat: 1s\n",
                "am.yml:3:3: route.group_wat: unknown field `group_wat`",
            ),
            (
                "route:\n  receiver: a\n  group_wait: soon\n",
                "am.yml:3:3: route.group_wait: not a valid duration",
            ),
            (
                "route:\n  receiver: a\n  group_interval: 0s\n",
                "am.yml:3:3: route.group_interval: group_interval cannot be zero",
            ),
            (
                "route:\n  receiver: a\n  routes:\n  - mute_time_intervals: [off]\n",
                "am.yml:4:27: route.routes[0].mute_time_intervals[0]: undefined time interval \"off\"",
            ),
            (
                "route:\n  receiver: a\n  continue: true\n",
                "am.yml:3:3: route.continue: cannot have continue in root route",
            ),
        ] {
            check_error(&format!("{text}{RECEIVERS}"), wanted);
        }
        check_error("receivers: []\n", "no routes provided");
        check_error(
            "route: {receiver: a}\nreceivers:\n- name: a\n- name: a\n",
            "am.yml:4:3: receivers[1].name: notification config name \"a\" is not unique",
        );
    }

    #[test]
    fn all_mistakes_of_form_are_named_at_once() {
        let text = "global:\n  resolve_timeout: [5m]\nroute:\n  receiver: a\n  group_wat: 1s\n  \
            routes:\n  - continue: maybe\n  - receiver: 7\nreceivers:\n- nam: a\n- name: '7'\n";
        let err = Alertmanager::parse(text, "am.yml").unwrap_err();
        let places: Vec<String> = err
            .to_string()
            .lines()
            .map(|line| line.splitn(5, ':').skip(1).take(3).collect())
            .collect();
        let wanted = [
            "23 global.resolve_timeout",
            "53 route.group_wat",
            "75 route.routes[0].continue",
            "103 receivers[0].nam",
        ];
        assert_eq!(places, wanted, "{err}");
    }

    #[test]
    fn the_old_matchers_are_shown_as_alertmanager_shows_them() {
        let text = format!(
            "route:\n  receiver: a\n  routes:\n  - match: {{z: '1'}}\n    \
             match_re: {{b: x|y}}\n    matchers: [c!=d]\n    receiver: b\n{RECEIVERS}"
        );
        let tree = Alertmanager::parse(&text, "am.yml").unwrap();
        let child = &tree.route.unwrap().routes[0];
        let shown = crate::model::matchers::Braced(&child.conditions()).to_string();
        assert_eq!(shown, r#"{b=~"^(?:x|y)$",c!="d",z="1"}"#);
    }
}
