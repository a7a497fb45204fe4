//! Aggregation groups: the alerts that are told together, and when.
//!
//! A group's row is written with each flush that tells something. What changed
//! since is found again in the alert rows, so nothing is lost between flushes.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::alerts::Alert;
use super::route::Route;
use super::told::Told;
use super::verdict::{Hold, Verdict};
use crate::model::{Labels, Timestamp};
use crate::store::{StateOp, Table};

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
            next_flush: now.plus_ms(as_ms(route.group_wait)),
            has_flushed: false,
            told: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            holds: BTreeMap::new(),
        }
    }

    /// Takes a firing alert in, or what is new about it.
    pub(super) fn insert(&mut self, alert: Alert, route: &Route, now: Timestamp) {
        let due = alert.starts_at.plus_ms(as_ms(route.group_wait));
        // As Alertmanager: who waited long enough elsewhere does not wait here.
        if !self.has_flushed && due < now {
            self.next_flush = self.next_flush.min(now);
        }
        self.members.insert(alert.labels.clone(), alert);
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
        };
        StateOp::Put {
            table: Table::AggGroup,
            key,
            value: Bytes::from(serde_json::to_vec(&row).expect("a group is plain data")),
        }
    }
}

/// What a notification made now would say of these alerts.
pub(super) fn content(alerts: &[&Alert], route: &Route, now: Timestamp, at: Timestamp) -> Told {
    let (firing, resolved): (Vec<&Alert>, Vec<&Alert>) =
        alerts.iter().partition(|alert| alert.fires_at(now));
    let fingerprints = |alerts: Vec<&Alert>| {
        let labels = alerts.into_iter().map(|m| m.labels.fingerprint());
        labels.collect()
    };
    Told {
        at,
        firing: fingerprints(firing),
        resolved: fingerprints(resolved),
        expires: at.plus_ms(as_ms(route.repeat_interval).saturating_mul(2)),
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
