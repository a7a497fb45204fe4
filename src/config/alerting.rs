//! `[rules]` and `[alerting]`: what is watched and who is told.

use serde::Deserialize;

use super::Span;

/// `[rules]`: Prometheus rule files.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Paths or globs (`*` in the last part) of rule files.
    pub files: Vec<String>,
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
            files: Vec::new(),
            for_grace_period: Span::secs(600),
            for_outage_tolerance: Span::secs(3_600),
            resend_delay: Span::secs(60),
        }
    }
}

/// `[alerting]`: how alerts become notifications, in Alertmanager's words.
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
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// Alerts in one notification; 0 is no limit.
    pub max_alerts: usize,
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
        }
    }
}
