//! Which receiver is told of an alert, and together with which others.
//!
//! One root route for now. Groups carry their route's key, so that a tree of
//! routes only adds routes.

use std::time::Duration;

use crate::config::{self, Config};
use crate::model::Labels;
use crate::model::labels::Quoted;

/// Stands in `group_by` for all labels.
const ALL_LABELS: &str = "...";

/// A node of the routing tree.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Route {
    /// Alertmanager's text of the matchers on the way to it; the root's is `{}`.
    pub(super) key: String,
    /// The destination that is told.
    pub(super) receiver: String,
    pub(super) group_by: Vec<String>,
    pub(super) group_wait: Duration,
    pub(super) group_interval: Duration,
    pub(super) repeat_interval: Duration,
    pub(super) send_resolved: bool,
    /// Alerts in one notification; 0 is no limit.
    pub(super) alerts_max: usize,
}

impl Route {
    /// The root route; `None` when nobody is told.
    pub(super) fn root(config: &Config) -> Option<Route> {
        let alerting: &config::Alerting = &config.alerting;
        Some(Route {
            key: "{}".to_owned(),
            receiver: alerting.receiver.clone()?,
            group_by: alerting.group_by.clone(),
            group_wait: alerting.group_wait.get(),
            group_interval: alerting.group_interval.get(),
            repeat_interval: alerting.repeat_interval.get(),
            send_resolved: alerting.send_resolved,
            alerts_max: alerting.max_alerts,
        })
    }

    /// The labels that the alert shares with all others of its group.
    pub(super) fn group_labels(&self, labels: &Labels) -> Labels {
        let by = |name: &str| {
            self.group_by
                .iter()
                .any(|by| by == name || by == ALL_LABELS)
        };
        Labels::from_sorted(labels.iter().filter(|(name, _)| by(name)))
    }

    /// Alertmanager's name of a group: `{}:{alertname="x"}`.
    pub(super) fn group_key(&self, group_labels: &Labels) -> String {
        let pairs: Vec<String> = group_labels
            .iter()
            .map(|(name, value)| format!("{name}={}", Quoted(value)))
            .collect();
        format!("{}:{{{}}}", self.key, pairs.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(group_by: &[&str]) -> Route {
        let mut config = Config::default();
        config.alerting.receiver = Some("ops".to_owned());
        config.alerting.group_by = group_by.iter().map(|&l| l.to_owned()).collect();
        Route::root(&config).unwrap()
    }

    fn check(group_by: &[&str], want: &str) {
        let labels = Labels::from_pairs([("alertname", "A"), ("site", "x\"y"), ("z", "1")]);
        let route = route(group_by);
        assert_eq!(route.group_key(&route.group_labels(&labels)), want);
    }

    #[test]
    fn group_keys_are_alertmanagers() {
        check(&["alertname"], "{}:{alertname=\"A\"}");
        check(&["z", "alertname", "none"], "{}:{alertname=\"A\", z=\"1\"}");
        check(&["..."], "{}:{alertname=\"A\", site=\"x\\\"y\", z=\"1\"}");
        check(&[], "{}:{}");
        assert!(Route::root(&Config::default()).is_none());
    }
}
