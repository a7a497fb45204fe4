//! Aggregation groups: the alerts that are told together, and when.
//!
//! A group's row is written with each flush that tells something. What changed
//! since is found again in the alert rows, so nothing is lost between flushes.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::alerts::Alert;
use super::current::Firing;
use super::flaps;
use super::route::Route;
use super::told::Told;
use super::verdict::{Hold, Verdict};
use crate::model::{Labels, Timestamp};
use crate::store::{StateOp, Table};

/// The annotation that a digest adds to an alert that fired more than once.
const TIMES_FIRED: &str = "times_fired";

/// A group of alerts with the time of its next flush.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// No two groups share it.
    pub(super) id: String,
    /// As Alertmanager names it.
    pub(super) key: String,
    /// The index of its route.
    pub(super) route: usize,
    pub(super) labels: Labels,
    pub(super) members: BTreeMap<Labels, Alert>,
    pub(super) next_flush: Timestamp,
    pub(super) has_flushed: bool,
    /// What the last flush of this process told or found told, by integration.
    pub(super) told: BTreeMap<String, Told>,
    /// What it found, by integration.
    pub(super) verdicts: BTreeMap<String, Verdict>,
    /// Which alerts it held back, by fingerprint.
    pub(super) holds: BTreeMap<u64, Hold>,
    /// When what flaps is told next.
    pub(super) flaps_at: Option<Timestamp>,
    /// How often alerts began to fire that are told in a digest: since the last one, or
    /// in the last hour if they flap. By fingerprint.
    pub(super) fired: BTreeMap<u64, u32>,
    /// Members that began before all who say now that they fire, with the first start
    /// of those, by fingerprint.
    pub(super) carried: BTreeMap<u64, Timestamp>,
    /// What its row says, see [`Group::mark`].
    pub(super) saved: u64,
}

impl Group {
    /// A group whose first alert just came.
    pub(super) fn new(at: usize, route: &Route, labels: Labels, now: Timestamp) -> Group {
        Group {
            id: route.group_id(&labels),
            key: route.group_key(&labels),
            route: at,
            labels,
            members: BTreeMap::new(),
            next_flush: route.first_flush(now),
            has_flushed: false,
            told: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            holds: BTreeMap::new(),
            flaps_at: None,
            fired: BTreeMap::new(),
            carried: BTreeMap::new(),
            saved: 0,
        }
    }

    /// Takes a firing alert in, or what is new about it. It goes on when it was seen to
    /// fire since those began who say so now: who began it may be forgotten.
    /// Gives its start.
    pub(super) fn insert(&mut self, firing: &Firing, route: &Route, now: Timestamp) -> Timestamp {
        let mut alert = firing.alert.clone();
        let fingerprint = alert.labels.fingerprint();
        let old = self.members.get(&alert.labels);
        let goes_on = |old: &&Alert| old.fires_at(now) && old.updated_at >= firing.alert.starts_at;
        if let Some(old) = old.filter(goes_on) {
            alert.starts_at = alert.starts_at.min(old.starts_at);
        }
        if alert.starts_at < firing.since {
            self.carried.insert(fingerprint, firing.since);
        } else {
            self.carried.remove(&fingerprint);
        }
        let due = alert.starts_at.plus_ms(as_ms(route.group_wait));
        // As Alertmanager: who waited long enough elsewhere does not wait here.
        if !self.has_flushed && due < now && route.digest.is_none() {
            self.next_flush = self.next_flush.min(now);
        }
        if route.digest.is_some() {
            let begins = old.is_none_or(|old| old.starts_at != alert.starts_at);
            let fired = self.fired.entry(fingerprint).or_default();
            *fired = fired.saturating_add(u32::from(begins));
        }
        let starts_at = alert.starts_at;
        self.members.insert(alert.labels.clone(), alert);
        starts_at
    }

    /// The starts of members that are found nowhere else.
    pub(super) fn carried_starts(&self) -> Vec<(Labels, Timestamp)> {
        let carried = |(labels, member): (&Labels, &Alert)| {
            let is_carried = self.carried.contains_key(&labels.fingerprint());
            is_carried.then(|| (labels.clone(), member.starts_at))
        };
        match self.carried.is_empty() {
            true => Vec::new(),
            false => self.members.iter().filter_map(carried).collect(),
        }
    }

    /// A number that changes with what is found nowhere else: all that a digest will
    /// say, because what ended long before it is forgotten, and starts that are carried.
    pub(super) fn mark(&self, is_digest: bool) -> u64 {
        let mut hash = Xxh3::new();
        for member in self.members.values() {
            let fingerprint = member.labels.fingerprint();
            let since = self.carried.get(&fingerprint);
            if !is_digest && since.is_none() {
                continue;
            }
            let end = member.ends_at.map_or(i64::MAX, Timestamp::as_ms);
            let since = since.map_or(i64::MAX, |since| since.as_ms());
            hash.update(&fingerprint.to_le_bytes());
            for ms in [member.starts_at.as_ms(), end, since] {
                hash.update(&ms.to_le_bytes());
            }
        }
        hash.digest()
    }

    /// Whether it is told as a digest: always, or of what flaps now.
    pub(super) fn is_digest(&self, route: &Route) -> bool {
        route.digest.is_some() || !self.fired.is_empty()
    }

    /// Lets through what flaps when its time has come, with how often it fired.
    pub(super) fn tell_flapping(&mut self, holds: &mut BTreeMap<u64, Hold>, now: Timestamp) {
        let flapping: BTreeMap<u64, u32> = holds
            .iter()
            .filter_map(|(fingerprint, hold)| match hold {
                Hold::Flapping { times } => {
                    Some((*fingerprint, u32::try_from(*times).unwrap_or(u32::MAX)))
                }
                _ => None,
            })
            .collect();
        if flapping.is_empty() {
            self.flaps_at = None;
            return;
        }
        let next = flaps::next_digest(now);
        // Never further off, however the clock was set.
        let at = self.flaps_at.map_or(next, |at| at.min(next));
        self.flaps_at = Some(next);
        if now < at {
            self.flaps_at = Some(at);
            return;
        }
        holds.retain(|fingerprint, _| !flapping.contains_key(fingerprint));
        self.fired = flapping;
    }

    /// After a flush: members that ended leave, but those that flap, which are told of at
    /// the full hour. Gives whether any did.
    pub(super) fn let_go(&mut self, now: Timestamp) -> bool {
        let before = self.members.len();
        let holds = &self.holds;
        self.members.retain(|labels, member| {
            let hold = holds.get(&labels.fingerprint());
            member.fires_at(now) || matches!(hold, Some(Hold::Flapping { .. }))
        });
        let members = &self.members;
        let is_left = |of: &u64| members.keys().any(|labels| labels.fingerprint() == *of);
        self.carried.retain(|of, _| is_left(of));
        members.len() < before
    }

    /// The alerts as a digest tells of them: with how often they fired, if repeatedly.
    pub(super) fn counted(&self, alerts: &[&Alert]) -> Vec<Alert> {
        let counted = |alert: &&Alert| {
            let mut alert = (*alert).clone();
            let fired = self.fired.get(&alert.labels.fingerprint()).copied();
            if let Some(fired) = fired.filter(|fired| *fired > 1) {
                alert
                    .annotations
                    .insert(TIMES_FIRED.to_owned(), fired.to_string());
            }
            alert
        };
        alerts.iter().map(counted).collect()
    }

    /// Alerts that fire.
    pub(super) fn firing(&self, now: Timestamp) -> usize {
        let firing = self.members.values().filter(|m| m.fires_at(now));
        firing.count()
    }

    /// Alerts that some integration was not told of as they are now.
    pub(super) fn untold(&self, now: Timestamp) -> usize {
        let is_told = |alert: &&Alert| {
            let fingerprint = alert.labels.fingerprint();
            let mut told = self.told.values();
            alert.fires_at(now)
                && !self.told.is_empty()
                && told.all(|t| t.firing.contains(&fingerprint))
        };
        self.members.values().filter(|m| !is_told(m)).count()
    }

    /// The change that writes the group, or removes it when it is empty.
    pub(super) fn put(&self) -> StateOp {
        let key = Bytes::from(row_key(&self.id));
        if self.members.is_empty() {
            return StateOp::Delete {
                table: Table::AggGroup,
                key,
            };
        }
        let row = Row {
            next_flush: self.next_flush,
            has_flushed: self.has_flushed,
            members: self.members.values().cloned().collect(),
            fired: self.fired.clone(),
        };
        StateOp::Put {
            table: Table::AggGroup,
            key,
            value: Bytes::from(serde_json::to_vec(&row).expect("a group is plain data")),
        }
    }
}

/// What a receiver was told is remembered for two intervals, of which the longer counts,
/// and for as long as the notification may have waited for the receiver: without it the
/// end of an alert would be news of something that nobody was told of.
const LATE_MS: i64 = 7 * 86_400_000;

/// What a notification made now would say of these alerts.
pub(super) fn content(alerts: &[&Alert], route: &Route, now: Timestamp, at: Timestamp) -> Told {
    let (firing, resolved): (Vec<&Alert>, Vec<&Alert>) =
        alerts.iter().partition(|alert| alert.fires_at(now));
    let fingerprints = |alerts: Vec<&Alert>| {
        let labels = alerts.into_iter().map(|m| m.labels.fingerprint());
        labels.collect()
    };
    let between = route.repeat_interval.max(route.group_interval);
    Told {
        at,
        sent_at: None,
        firing: fingerprints(firing),
        resolved: fingerprints(resolved),
        expires: at.plus_ms(as_ms(between).saturating_mul(2).saturating_add(LATE_MS)),
    }
}

/// The key of a group's row: tenant (the operator's name is empty), then the group.
pub(super) fn row_key(group_id: &str) -> Vec<u8> {
    let mut key = vec![0];
    key.extend_from_slice(group_id.as_bytes());
    key
}

/// A row of `agg_group`.
#[derive(Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) next_flush: Timestamp,
    pub(super) has_flushed: bool,
    pub(super) members: Vec<Alert>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) fired: BTreeMap<u64, u32>,
}

impl Row {
    /// Reads a row; `None` when it is damaged.
    pub(super) fn decode(row: &[u8]) -> Option<Row> {
        serde_json::from_slice(row).ok()
    }
}

pub(super) fn as_ms(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
