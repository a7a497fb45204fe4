//! What the configuration says about notifications, made ready for use.

use std::time::Duration;

use super::alerts::Outside;
use super::inhibit;
use super::route::Tree;
use crate::config::Config;

/// Alertmanager's `resolve_timeout`.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(300);

/// What the configuration says.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Settings {
    /// `None` when nobody is told.
    pub(super) tree: Option<Tree>,
    pub(super) inhibit_rules: Vec<inhibit::Rule>,
    pub(super) outside: Outside,
    /// After this time without news a posted alert without an end counts as resolved.
    pub(super) resolve_timeout: Duration,
    pub(super) resolve_through_silence: bool,
    /// Whether another Alertmanager that answers tells people instead of us.
    pub(super) handover: bool,
    /// How often a firing alert is sent to another Alertmanager.
    pub(super) resend_delay: Duration,
}

impl Settings {
    /// Takes what is needed.
    pub(super) fn from_config(config: &Config) -> Settings {
        let file = config.notification_tree();
        let rules = file.iter().flat_map(|file| &file.inhibit_rules);
        let timeout = file.as_ref().and_then(|file| file.global.resolve_timeout);
        Settings {
            tree: Tree::from_config(config),
            inhibit_rules: rules.map(inhibit::Rule::new).collect(),
            outside: Outside {
                labels: config.global.external_labels.clone(),
                url: config.external_url(),
            },
            resolve_timeout: timeout.map_or(RESOLVE_TIMEOUT, |span| span.get()),
            resolve_through_silence: config.alerting.resolve_through_silence,
            handover: config.alerting.handover && !config.alerting.alertmanagers.is_empty(),
            resend_delay: config.rules.resend_delay.get(),
        }
    }
}
