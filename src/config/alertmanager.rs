//! The notification tree: what an `alertmanager.yml` holds, or `[alerting]` with the
//! same words.
//!
//! Both forms become one [`Alertmanager`]. The file is read unchanged; what this
//! version cannot do (a proxy, a receiver of another kind) is refused at its line
//! rather than passed over.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Deserialize;

use super::intervals::NamedIntervals;
use super::receivers::{HttpConfig, Receiver};
use super::routing::{InhibitRule, RouteNode};
use super::{Address, Secret, Span};

/// The whole tree.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alertmanager {
    /// What receivers take when they say nothing of their own.
    pub global: AlertmanagerGlobal,
    /// Files with templates; `*` is allowed in the last part.
    pub templates: Vec<String>,
    /// The root of the routes.
    pub route: Option<RouteNode>,
    /// Who can be told.
    pub receivers: Vec<Receiver>,
    /// Which alerts make others quiet.
    pub inhibit_rules: Vec<InhibitRule>,
    /// Named times.
    pub time_intervals: Vec<NamedIntervals>,
    /// The old name of `time_intervals`.
    pub mute_time_intervals: Vec<NamedIntervals>,
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
    /// For PLAIN; it must be the user or empty.
    pub smtp_auth_identity: Option<String>,
    /// Whether mail goes out only encrypted.
    pub smtp_require_tls: Option<bool>,
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
}

impl Alertmanager {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// With file, line, column and what was expected.
    pub fn load(path: &Path) -> anyhow::Result<Alertmanager> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.display().to_string();
        let mut tree = Alertmanager::parse(&text, &name)?;
        tree.base_dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(tree)
    }

    /// Parses and checks the YAML text of a file called `name`.
    ///
    /// # Errors
    /// As [`Alertmanager::load`].
    pub fn parse(text: &str, name: &str) -> anyhow::Result<Alertmanager> {
        let tree: Alertmanager = serde_saphyr::from_str(text).map_err(|err| {
            let (line, column) = err.location().map_or((1, 1), |at| (at.line(), at.column()));
            let whole = err.without_snippet().to_string();
            let first = whole.lines().next().unwrap_or_default();
            let message = first.strip_prefix("error: ").unwrap_or(first);
            anyhow!("{name}:{line}:{column}: {message}")
        })?;
        tree.check(&HashSet::new()).map_err(|mistake| {
            let line = mistake.line_in(text);
            anyhow!("{name}:{line}: {}", mistake.message)
        })?;
        Ok(tree)
    }

    /// All named intervals, under their new and their old name.
    pub fn intervals(&self) -> impl Iterator<Item = &NamedIntervals> {
        self.time_intervals.iter().chain(&self.mute_time_intervals)
    }

    /// Checks what the parts say of each other. `more` are receivers that are
    /// configured elsewhere.
    pub(super) fn check(&self, more: &HashSet<&str>) -> Result<(), Mistake> {
        let Some(root) = &self.route else {
            return mistake("route", "", "no routes provided, expected a route");
        };
        let mut receivers: HashSet<&str> = more.clone();
        for receiver in &self.receivers {
            if receiver.name.is_empty() {
                return mistake("name", "", "missing name in receiver");
            }
            if !receivers.insert(&receiver.name) {
                let text = format!("notification config name {:?} is not unique", receiver.name);
                return mistake("name", &receiver.name, &text);
            }
        }
        let mut intervals = HashSet::new();
        for named in self.intervals() {
            if !intervals.insert(named.name.as_str()) {
                let text = format!("time interval {:?} is not unique", named.name);
                return mistake("name", &named.name, &text);
            }
        }
        check_root(root)?;
        for route in root.all() {
            if let Some(receiver) = route.receiver.as_deref().filter(|r| !receivers.contains(r)) {
                let text = format!("undefined receiver {receiver:?} used in route");
                return mistake("receiver", receiver, &text);
            }
            let named = route.mute_time_intervals.iter();
            for name in named.chain(&route.active_time_intervals) {
                if !intervals.contains(name.as_str()) {
                    let text = format!("undefined time interval {name:?} used in route");
                    return mistake("time_intervals", name, &text);
                }
            }
            check_times(route)?;
        }
        Ok(())
    }
}

/// A mistake, with the field and the name that stand in its line.
pub(super) struct Mistake {
    field: &'static str,
    name: String,
    pub(super) message: String,
}

impl Mistake {
    /// The last line that sets the field to the name, or that holds both; counted from
    /// 1, and 1 when there is none.
    pub(super) fn line_in(&self, text: &str) -> usize {
        let sets = |line: &str| {
            let (key, value) = line.split_once([':', '=']).unwrap_or((line, ""));
            key.trim_end().ends_with(self.field) && value.contains(&self.name)
        };
        let holds = |line: &str| line.contains(self.field) && line.contains(&self.name);
        let last = |is_it: &dyn Fn(&str) -> bool| {
            let found = text.lines().enumerate().filter(|(_, line)| is_it(line));
            found.last().map(|(i, _)| i + 1)
        };
        last(&sets).or_else(|| last(&holds)).unwrap_or(1)
    }
}

fn mistake<T>(field: &'static str, name: &str, message: &str) -> Result<T, Mistake> {
    Err(Mistake {
        field,
        name: name.to_owned(),
        message: message.to_owned(),
    })
}

fn check_root(root: &RouteNode) -> Result<(), Mistake> {
    if root.receiver.is_none() {
        return mistake("route", "", "root route must specify a default receiver");
    }
    if !root.conditions().is_empty() {
        return mistake("route", "", "root route must not have any matchers");
    }
    if !root.mute_time_intervals.is_empty() {
        let text = "root route must not have any mute time intervals";
        return mistake("mute_time_intervals", "", text);
    }
    if !root.active_time_intervals.is_empty() {
        let text = "root route must not have any active time intervals";
        return mistake("active_time_intervals", "", text);
    }
    if root.goes_on {
        return mistake("continue", "", "cannot have continue in root route");
    }
    Ok(())
}

fn check_times(route: &RouteNode) -> Result<(), Mistake> {
    for (field, span) in [
        ("group_interval", route.group_interval),
        ("repeat_interval", route.repeat_interval),
    ] {
        if span.is_some_and(|span| span.get().is_zero()) {
            return mistake(field, "", &format!("{field} cannot be zero"));
        }
    }
    Ok(())
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
                "am.yml:2: undefined receiver \"c\"",
            ),
            (
                "route:\n  group_by: [x]\n",
                "am.yml:1: root route must specify",
            ),
            (
                "route:\n  receiver: a\n  routes:\n  - matchers: ['x']\n",
                "am.yml:4:",
            ),
            (
                "route:\n  receiver: a\n  group_by: ['...', b]\n",
                "am.yml:3:",
            ),
            (
                "route:\n  receiver: a\n  group_wat: 1s\n",
                "am.yml:3:3: unknown field",
            ),
            (
                "route:\n  receiver: a\n  group_wait: soon\n",
                "am.yml:3:15: not a valid duration",
            ),
            (
                "route:\n  receiver: a\n  group_interval: 0s\n",
                "am.yml:3: group_interval cannot be zero",
            ),
            (
                "route:\n  receiver: a\n  routes:\n  - mute_time_intervals: [off]\n",
                "am.yml:4: undefined time interval \"off\"",
            ),
            (
                "route:\n  receiver: a\n  continue: true\n",
                "am.yml:3: cannot have continue in root route",
            ),
        ] {
            check_error(&format!("{text}{RECEIVERS}"), wanted);
        }
        check_error("receivers: []\n", "no routes provided");
        check_error(
            "route: {receiver: a}\nreceivers:\n- name: a\n- name: a\n",
            "am.yml:4: notification config name \"a\" is not unique",
        );
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
