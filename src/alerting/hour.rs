//! What holds alerts back at one moment: inhibition, time intervals and silences.

use super::alerts::Alert;
use super::current::Current;
use super::flaps::Flaps;
use super::inhibit::Inhibitor;
use super::interval;
use super::note;
use super::route::{Route, Tree};
use super::settings::Settings;
use super::silence::{self, Silence};
use super::verdict::Hold;
use crate::model::{Labels, Timestamp};

/// What all flushes of one look share.
pub(super) struct Hour<'a> {
    pub(super) settings: &'a Settings,
    pub(super) tree: &'a Tree,
    silences: &'a [Silence],
    inhibitor: Inhibitor<'a>,
    pub(super) now: Timestamp,
    /// Whether another Alertmanager tells of our rules' alerts.
    handed_over: bool,
    pub(super) flaps: &'a Flaps,
}

impl<'a> Hour<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        tree: &'a Tree,
        silences: &'a [Silence],
        current: &Current,
        now: Timestamp,
        handed_over: bool,
        flaps: &'a Flaps,
    ) -> Hour<'a> {
        Hour {
            settings,
            tree,
            silences,
            inhibitor: Inhibitor::new(&settings.inhibit_rules, current.firing.keys()),
            now,
            handed_over,
            flaps,
        }
    }

    /// Why an alert of this route is held back, in Alertmanager's order of stages.
    pub(super) fn hold(&self, route: &Route, alert: &Alert) -> Option<Hold> {
        if let Some(by) = self.inhibitor.by(&alert.labels) {
            let by = format!("{by:016x}");
            return Some(Hold::Inhibited { by });
        }
        if let Some(hold) = self.untimely(route) {
            return Some(hold);
        }
        let by = silence::silencing(self.silences, &alert.labels, self.now);
        if !by.is_empty() {
            return Some(Hold::Silenced { by });
        }
        if self.handed_over && alert.is_own {
            return Some(Hold::HandedOver);
        }
        self.flapping(route, &alert.labels)
    }

    /// Whether it begins and ends more often than people are to hear of.
    fn flapping(&self, route: &Route, alert: &Labels) -> Option<Hold> {
        let limit = route.flap_limit?;
        let times = self.flaps.count(alert.fingerprint(), self.now);
        (times > limit && route.digest.is_none()).then_some(Hold::Flapping { times })
    }

    /// All that holds an alert of this route back.
    /// `is_own`: it is of one of our rules.
    pub(super) fn holds(&self, route: &Route, alert: &Labels, is_own: bool) -> Vec<Hold> {
        let inhibited = self
            .inhibitor
            .by(alert)
            .map(|by| Hold::Inhibited { by: note::hex(by) });
        let by = silence::silencing(self.silences, alert, self.now);
        let silenced = (!by.is_empty()).then_some(Hold::Silenced { by });
        let handed_over = (self.handed_over && is_own).then_some(Hold::HandedOver);
        let flapping = self.flapping(route, alert);
        let all = [
            inhibited,
            self.untimely(route),
            silenced,
            handed_over,
            flapping,
        ];
        all.into_iter().flatten().collect()
    }

    /// Whether nobody is told at this hour.
    fn untimely(&self, route: &Route) -> Option<Hold> {
        let holds = |name: &&String| {
            let intervals = self.tree.intervals.get(*name);
            intervals.is_some_and(|all| interval::any_holds(all, self.now))
        };
        if !route.active.is_empty() && !route.active.iter().any(|name| holds(&name)) {
            return Some(Hold::OutsideActiveTime {
                intervals: route.active.clone(),
            });
        }
        let muting = route.mute.iter().find(holds)?;
        Some(Hold::Muted {
            interval: muting.clone(),
        })
    }
}
