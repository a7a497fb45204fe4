//! What metrics and pages see of the groups after a look at the alerts.

use std::sync::Arc;

use super::Inner;
use super::dispatcher::Dispatcher;
use super::silence::SilenceState;
use super::view::GroupView;
use crate::telemetry::metrics::ServiceName;

impl Inner {
    /// Sets the gauges and keeps a view of the groups.
    pub(super) fn show(&self, dispatcher: &Dispatcher) {
        let now = self.clock.now();
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (mut firing, mut held, mut untold) = (0, 0, 0);
        for group in dispatcher.groups() {
            firing += group.firing(now);
            held += group.holds.len();
            untold += group.untold(now);
        }
        let rules = &self.metrics.rules;
        let alerts = |state| rules.alerts.with_label_values(&[state]);
        alerts("active").set(gauge(firing.saturating_sub(held)));
        alerts("suppressed").set(gauge(held));
        let depth = &self.metrics.service;
        depth
            .queue(ServiceName::Dispatcher, "pending_alerts")
            .set(gauge(untold.saturating_sub(held)));
        for state in [
            SilenceState::Active,
            SilenceState::Pending,
            SilenceState::Expired,
        ] {
            let silences = dispatcher.silences().iter();
            let count = silences.filter(|s| s.state(now) == state).count();
            let family = rules.silences.with_label_values(&[state.as_str()]);
            family.set(gauge(count));
        }
        let settings = dispatcher.settings();
        let views = dispatcher.groups().map(|g| GroupView::of(g, settings));
        *self.groups() = Arc::new(views.collect());
    }
}
