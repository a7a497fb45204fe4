//! What pages and the API see of groups, rules and alerts.

use std::collections::BTreeMap;

use crate::model::{Labels, Timestamp};

/// Where an alert stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AlertState {
    /// The expression gives nothing.
    Inactive,
    /// It gives something, but not yet for long enough.
    Pending,
    /// It has for long enough.
    Firing,
}

impl AlertState {
    /// As the API and `ALERTS` say it.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertState::Inactive => "inactive",
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
        }
    }
}

/// A pending or firing alert.
#[derive(Clone, PartialEq, Debug)]
pub struct AlertView {
    /// With `alertname` and the rule's labels.
    pub labels: Labels,
    /// Expanded.
    pub annotations: BTreeMap<String, String>,
    /// Where it stands.
    pub state: AlertState,
    /// Since when the expression gives it.
    pub active_at: Timestamp,
    /// Since when it is only kept firing.
    pub keep_firing_since: Option<Timestamp>,
    /// The last value of the expression.
    pub value: f64,
}

/// What a rule does.
#[derive(Clone, PartialEq, Debug)]
pub enum RuleKind {
    /// Stores its result under the rule's name.
    Recording,
    /// Raises alerts.
    Alerting {
        /// How long a result has to last, in seconds.
        for_secs: f64,
        /// How long an alert goes on firing without a result, in seconds.
        keep_firing_secs: f64,
        /// Not expanded.
        annotations: BTreeMap<String, String>,
        /// Sorted by labels.
        alerts: Vec<AlertView>,
    },
}

/// A rule with its health.
#[derive(Clone, PartialEq, Debug)]
pub struct RuleView {
    /// The alert's or the recorded metric's name.
    pub name: String,
    /// The expression in its printed form.
    pub query: String,
    /// Not expanded.
    pub labels: BTreeMap<String, String>,
    /// What it does.
    pub kind: RuleKind,
    /// Whether the last evaluation went well; `None` before the first.
    pub healthy: Option<bool>,
    /// The last evaluation's error.
    pub last_error: Option<String>,
    /// How long the last evaluation took, in seconds.
    pub evaluation_secs: f64,
    /// When it was.
    pub last_evaluation: Option<Timestamp>,
}

/// A rule group with its timing.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// The file it stands in.
    pub file: String,
    /// How often it runs, in seconds.
    pub interval_secs: f64,
    /// How many results a rule may have; 0 is no limit.
    pub limit: usize,
    /// In order.
    pub rules: Vec<RuleView>,
    /// How long the last evaluation of the whole group took, in seconds.
    pub evaluation_secs: f64,
    /// When it was.
    pub last_evaluation: Option<Timestamp>,
}
