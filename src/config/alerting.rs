//! `[rules]` and `[alerting]`: what is watched and who is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::Span;
use super::alertmanager::{Alertmanager, AlertmanagerGlobal};
use super::alertmanagers::AlertmanagersConfig;
use super::intervals::NamedIntervals;
use super::receivers::Receiver;
use super::routing::{GroupBy, InhibitRule, RouteNode};

/// `[rules]`: Prometheus rule files.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Paths or globs of rule files.
    #[serde(alias = "files")]
    pub rule_files: Vec<String>,
    /// Rules that come with the program.
    pub packs: Vec<String>,
    /// After a restart, a pending alert with at least this `for` waits at least this long.
    pub for_grace_period: Span,
    /// After a longer restart, pending alerts begin anew.
    pub for_outage_tolerance: Span,
    /// How often changed annotations of an alert are written and told again.
    pub resend_delay: Span,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            rule_files: Vec::new(),
            packs: Vec::new(),
            for_grace_period: Span::secs(600),
            for_outage_tolerance: Span::secs(3_600),
            resend_delay: Span::secs(60),
        }
    }
}

/// `[alerting]`: how alerts become notifications, in Alertmanager's words.
///
/// Three forms: one `receiver` with its times right here; a tree under
/// `[alerting.route]`; or an `alertmanager.yml` named by `config_file`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerting {
    /// The destination that is told; none: alerts are only shown.
    pub receiver: Option<String>,
    /// Alerts with equal values of these labels share one notification.
    pub group_by: Vec<String>,
    /// How long a new group waits for more alerts.
    pub group_wait: Span,
    /// How long a group waits before it tells of changes.
    pub group_interval: Span,
    /// How long until an unchanged group is told again.
    pub repeat_interval: Span,
    /// Whether resolved alerts are told to `[[destination.KIND]]`.
    pub send_resolved: bool,
    /// Alerts in one notification to a `[[destination.KIND]]`; 0 is no limit.
    pub max_alerts: usize,
    /// Whether an alert that was told and ends while it is silenced is told to have
    /// ended.
    pub resolve_through_silence: bool,
    /// Whether people hear of our rules' alerts from one of the `alertmanagers`, and not
    /// from us, while it answers.
    pub handover: bool,
    /// Other Alertmanagers that our rules' alerts are sent to.
    pub alertmanagers: Vec<AlertmanagersConfig>,
    /// An `alertmanager.yml` that says all of what follows.
    pub config_file: Option<PathBuf>,
    /// What receivers take when they say nothing of their own.
    pub global: AlertmanagerGlobal,
    /// Files with templates.
    pub templates: Vec<String>,
    /// The root of the routes.
    pub route: Option<RouteNode>,
    /// Who can be told, besides the destinations.
    pub receivers: Arc<[Receiver]>,
    /// Which alerts make others quiet.
    pub inhibit_rules: Vec<InhibitRule>,
    /// Named times.
    pub time_intervals: Vec<NamedIntervals>,
    /// The old name of `time_intervals`.
    pub mute_time_intervals: Vec<NamedIntervals>,
    /// What `config_file` holds.
    #[serde(skip)]
    pub file: Option<Arc<Alertmanager>>,
}

impl Default for Alerting {
    fn default() -> Alerting {
        Alerting {
            receiver: None,
            group_by: vec!["alertname".to_owned()],
            group_wait: Span::secs(30),
            group_interval: Span::secs(300),
            repeat_interval: Span::secs(4 * 3_600),
            send_resolved: true,
            max_alerts: 0,
            resolve_through_silence: false,
            handover: false,
            alertmanagers: Vec::new(),
            config_file: None,
            global: AlertmanagerGlobal::default(),
            templates: Vec::new(),
            route: None,
            receivers: Arc::default(),
            inhibit_rules: Vec::new(),
            time_intervals: Vec::new(),
            mute_time_intervals: Vec::new(),
            file: None,
        }
    }
}

impl Alerting {
    /// The tree in force, whichever form it was written in; `None` when nobody is told.
    pub fn tree(&self, base_dir: &Path) -> Option<Arc<Alertmanager>> {
        if let Some(file) = &self.file {
            return Some(Arc::clone(file));
        }
        let route = self.route.clone().or_else(|| self.root_of_one())?;
        Some(Arc::new(Alertmanager {
            global: self.global.clone(),
            templates: self.templates.clone(),
            route: Some(route),
            receivers: self.receivers.clone(),
            inhibit_rules: self.inhibit_rules.clone(),
            time_intervals: self.time_intervals.clone(),
            mute_time_intervals: self.mute_time_intervals.clone(),
            tracing: None,
            base_dir: base_dir.to_owned(),
        }))
    }

    /// The root for one `receiver`.
    fn root_of_one(&self) -> Option<RouteNode> {
        Some(RouteNode {
            receiver: Some(self.receiver.clone()?),
            group_by: GroupBy(self.group_by.clone()),
            group_wait: Some(self.group_wait),
            group_interval: Some(self.group_interval),
            repeat_interval: Some(self.repeat_interval),
            ..RouteNode::default()
        })
    }

    /// That only one form is used. The error names the field that is too much.
    pub(super) fn check_form(&self) -> Result<(), &'static str> {
        let plain = Alerting::default();
        let own = [
            ("receiver", self.receiver.is_some()),
            ("group_by", self.group_by != plain.group_by),
            ("group_wait", self.group_wait != plain.group_wait),
            (
                "group_interval",
                self.group_interval != plain.group_interval,
            ),
            (
                "repeat_interval",
                self.repeat_interval != plain.repeat_interval,
            ),
        ];
        let tree = [
            ("route", self.route.is_some()),
            ("receivers", !self.receivers.is_empty()),
            ("global", self.global != plain.global),
            ("templates", !self.templates.is_empty()),
            ("inhibit_rules", !self.inhibit_rules.is_empty()),
            ("time_intervals", !self.time_intervals.is_empty()),
            ("mute_time_intervals", !self.mute_time_intervals.is_empty()),
        ];
        let first = |fields: &[(&'static str, bool)]| {
            fields
                .iter()
                .find(|(_, is_set)| *is_set)
                .map(|(name, _)| *name)
        };
        let surplus = match (&self.config_file, &self.route) {
            (Some(_), _) => first(&own).or_else(|| first(&tree)),
            (None, Some(_)) => first(&own),
            (None, None) => None,
        };
        surplus.map_or(Ok(()), Err)
    }
}
