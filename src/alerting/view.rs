//! What pages and the API see of alerts, groups and silences.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::alerts::Alert;
use super::current::Current;
use super::group::Group;
use super::inhibit::Inhibitor;
use super::settings::Settings;
use super::silence::{self, Silence};
use super::verdict::{Hold, Verdict};
use crate::model::{Labels, Timestamp};
use crate::store::{self, Store};

/// An alert that fires, with what is made of it.
#[derive(Clone, PartialEq, Debug)]
pub struct AlertStatus {
    /// The alert.
    pub alert: Alert,
    /// Who is told, in the order of the routes.
    pub receivers: Vec<String>,
    /// The ids of silences that hold.
    pub silenced_by: Vec<String>,
    /// The fingerprint of the alert that makes it quiet.
    pub inhibited_by: Option<String>,
}

impl AlertStatus {
    /// Whether nobody is told.
    pub fn is_suppressed(&self) -> bool {
        !self.silenced_by.is_empty() || self.inhibited_by.is_some()
    }
}

/// Alerts that are told together.
pub struct AlertGroup<'a> {
    /// What they share.
    pub labels: Labels,
    /// Who is told.
    pub receiver: &'a str,
    /// The alerts, by fingerprint.
    pub alerts: Vec<&'a AlertStatus>,
}

/// The firing alerts at one moment.
pub struct Picture {
    /// Sorted by fingerprint.
    pub alerts: Vec<AlertStatus>,
    settings: Arc<Settings>,
}

impl Picture {
    /// Reads the store. `groups` know earlier starts than it does.
    pub(super) fn take(
        store: &Store,
        settings: &Arc<Settings>,
        groups: &[GroupView],
        now: Timestamp,
    ) -> Result<Picture, store::Error> {
        let mut current = Current::read(store, &settings.outside, now)?;
        for (labels, starts_at) in groups.iter().flat_map(|group| &group.carried) {
            if let Some(firing) = current.firing.get_mut(labels) {
                firing.alert.starts_at = firing.alert.starts_at.min(*starts_at);
            }
        }
        let silences = silence::read(store)?;
        let inhibitor = Inhibitor::new(&settings.inhibit_rules, current.firing.keys());
        let mut alerts: Vec<AlertStatus> = current
            .firing
            .into_values()
            .map(|firing| firing.alert)
            .map(|alert| AlertStatus {
                receivers: receivers(settings, &alert.labels),
                silenced_by: silence::silencing(&silences, &alert.labels, now),
                inhibited_by: inhibitor.by(&alert.labels).map(|by| format!("{by:016x}")),
                alert,
            })
            .collect();
        alerts.sort_by_cached_key(|status| status.alert.labels.fingerprint());
        Ok(Picture {
            alerts,
            settings: Arc::clone(settings),
        })
    }

    /// The alerts that fulfil `wanted`, in the groups of receivers that do: by group
    /// labels, then by receiver.
    pub fn groups(
        &self,
        wanted: &dyn Fn(&AlertStatus) -> bool,
        receiver: &dyn Fn(&str) -> bool,
    ) -> Vec<AlertGroup<'_>> {
        let Some(tree) = &self.settings.tree else {
            return Vec::new();
        };
        let mut groups: BTreeMap<(Labels, &str, &str), Vec<&AlertStatus>> = BTreeMap::new();
        for status in self.alerts.iter().filter(|status| wanted(status)) {
            for at in tree.matching(&status.alert.labels) {
                let route = &tree.routes[at];
                if !receiver(&route.receiver) {
                    continue;
                }
                let labels = route.group_labels(&status.alert.labels);
                let key = (labels, route.receiver.as_str(), route.id.as_str());
                groups.entry(key).or_default().push(status);
            }
        }
        let group = |((labels, receiver, _), alerts)| AlertGroup {
            labels,
            receiver,
            alerts,
        };
        let mut groups: Vec<AlertGroup<'_>> = groups.into_iter().map(group).collect();
        groups
            .sort_by(|a, b| before(&a.labels, &b.labels).then_with(|| a.receiver.cmp(b.receiver)));
        groups
    }
}

/// Alertmanager's order of label sets: the smaller one, then the one that lacks a
/// label which the other has, then by value; labels in the order of their names.
fn before(a: &Labels, b: &Labels) -> Ordering {
    let names: BTreeSet<&str> = a.iter().chain(b.iter()).map(|(name, _)| name).collect();
    let one = |name: &&str| match (a.get(name), b.get(name)) {
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (a, b) => a.cmp(&b),
    };
    let mut parts = names.iter().map(one);
    let by_size = a.len().cmp(&b.len());
    by_size.then_with(|| parts.find(|o| o.is_ne()).unwrap_or(Ordering::Equal))
}

fn receivers(settings: &Settings, labels: &Labels) -> Vec<String> {
    let Some(tree) = &settings.tree else {
        return Vec::new();
    };
    let matching = tree.matching(labels).into_iter();
    matching
        .map(|at| tree.routes[at].receiver.clone())
        .collect()
}

/// A group as the last look left it.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// As Alertmanager names it.
    pub key: String,
    /// Who is told.
    pub receiver: String,
    /// What its alerts share.
    pub labels: Labels,
    /// The alerts, by fingerprint.
    pub alerts: Vec<u64>,
    /// When it is looked at next.
    pub next_flush: Timestamp,
    /// Whether it was looked at before.
    pub has_flushed: bool,
    /// What the last look decided, by integration.
    pub verdicts: BTreeMap<String, Verdict>,
    /// Which alerts it held back.
    pub holds: BTreeMap<u64, Hold>,
    /// Alerts that fire since before all who say so now, with their start.
    pub carried: Vec<(Labels, Timestamp)>,
}

impl GroupView {
    pub(super) fn of(group: &Group, settings: &Settings) -> GroupView {
        let tree = settings.tree.as_ref();
        let receiver = tree.map(|tree| tree.routes[group.route].receiver.clone());
        GroupView {
            key: group.key.clone(),
            receiver: receiver.unwrap_or_default(),
            labels: group.labels.clone(),
            alerts: group.members.keys().map(Labels::fingerprint).collect(),
            next_flush: group.next_flush,
            has_flushed: group.has_flushed,
            verdicts: group.verdicts.clone(),
            holds: group.holds.clone(),
            carried: group.carried_starts(),
        }
    }
}

/// Silences in Alertmanager's order: active ones by their end, then those to come by
/// their start, then those that ended, the latest first.
pub fn sort_silences(silences: &mut [Silence], now: Timestamp) {
    silences.sort_by_key(|silence| {
        let state = silence.state(now);
        let at = match state {
            silence::SilenceState::Active => silence.ends_at.as_ms(),
            silence::SilenceState::Pending => silence.starts_at.as_ms(),
            silence::SilenceState::Expired => silence.ends_at.as_ms().saturating_neg(),
        };
        (state, at)
    });
}
