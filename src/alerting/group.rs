//! Aggregation groups: the alerts that are told together, and when.
//!
//! A group's row is written with each flush that tells something. What changed
//! since is found again in the alert rows, so nothing is lost between flushes.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::route::Route;
use super::told::Told;
use crate::model::{Labels, Timestamp};
use crate::store::{StateOp, Table};

/// An alert as its receivers see it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Member {
    /// With the external labels.
    pub(super) labels: Labels,
    pub(super) annotations: BTreeMap<String, String>,
    /// The rule's expression.
    pub(super) query: String,
    pub(super) starts_at: Timestamp,
    /// `None` while it fires.
    pub(super) ends_at: Option<Timestamp>,
}

/// A group of alerts with the time of its next flush.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) key: String,
    pub(super) labels: Labels,
    pub(super) members: BTreeMap<Labels, Member>,
    pub(super) next_flush: Timestamp,
    pub(super) has_flushed: bool,
    /// What the last flush of this process told or found told.
    pub(super) told: Option<Told>,
}

impl Group {
    /// A group whose first alert just came.
    pub(super) fn new(route: &Route, labels: Labels, now: Timestamp) -> Group {
        Group {
            key: route.group_key(&labels),
            labels,
            members: BTreeMap::new(),
            next_flush: now.plus_ms(as_ms(route.group_wait)),
            has_flushed: false,
            told: None,
        }
    }

    /// Takes a firing alert in, or what is new about it.
    pub(super) fn insert(&mut self, member: Member, route: &Route, now: Timestamp) {
        let due = member.starts_at.plus_ms(as_ms(route.group_wait));
        // As Alertmanager: who waited long enough elsewhere does not wait here.
        if !self.has_flushed && due < now {
            self.next_flush = self.next_flush.min(now);
        }
        self.members.insert(member.labels.clone(), member);
    }

    /// What a notification made now would say.
    pub(super) fn content(&self, now: Timestamp, route: &Route) -> Told {
        let (firing, resolved): (Vec<&Member>, Vec<&Member>) =
            self.members.values().partition(|m| m.ends_at.is_none());
        let fingerprints = |members: Vec<&Member>| {
            let labels = members.into_iter().map(|m| m.labels.fingerprint());
            labels.collect()
        };
        Told {
            at: now,
            firing: fingerprints(firing),
            resolved: fingerprints(resolved),
            expires: now.plus_ms(as_ms(route.repeat_interval).saturating_mul(2)),
        }
    }

    /// Alerts that fire.
    pub(super) fn firing(&self) -> usize {
        let firing = self.members.values().filter(|m| m.ends_at.is_none());
        firing.count()
    }

    /// Alerts that the receiver was not told of as they are now.
    pub(super) fn untold(&self) -> usize {
        let is_told = |member: &&Member| {
            let fingerprint = member.labels.fingerprint();
            let told = self.told.as_ref();
            member.ends_at.is_none() && told.is_some_and(|t| t.firing.contains(&fingerprint))
        };
        self.members.values().filter(|m| !is_told(m)).count()
    }

    /// The change that writes the group, or removes it when it is empty.
    pub(super) fn put(&self) -> StateOp {
        let key = Bytes::from(row_key(&self.key));
        if self.members.is_empty() {
            return StateOp::Delete {
                table: Table::AggGroup,
                key,
            };
        }
        let row = Row {
            next_flush: self.next_flush,
            has_flushed: self.has_flushed,
            members: self.members.values().map(MemberRow::from).collect(),
        };
        StateOp::Put {
            table: Table::AggGroup,
            key,
            value: Bytes::from(serde_json::to_vec(&row).expect("a group is plain data")),
        }
    }
}

/// The key of a group's row: tenant (the operator's name is empty), then the group.
pub(super) fn row_key(group_key: &str) -> Vec<u8> {
    let mut key = vec![0];
    key.extend_from_slice(group_key.as_bytes());
    key
}

/// A row of `agg_group`.
#[derive(Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) next_flush: Timestamp,
    pub(super) has_flushed: bool,
    members: Vec<MemberRow>,
}

#[derive(Serialize, Deserialize)]
struct MemberRow {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    query: String,
    starts_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_at: Option<Timestamp>,
}

impl Row {
    /// Reads a row; `None` when it is damaged.
    pub(super) fn decode(row: &[u8]) -> Option<Row> {
        serde_json::from_slice(row).ok()
    }

    /// The alerts in it.
    pub(super) fn into_members(self) -> impl Iterator<Item = Member> {
        self.members.into_iter().map(|row| Member {
            labels: Labels::from_pairs(&row.labels),
            annotations: row.annotations,
            query: row.query,
            starts_at: row.starts_at,
            ends_at: row.ends_at,
        })
    }
}

impl From<&Member> for MemberRow {
    fn from(member: &Member) -> MemberRow {
        let owned = |(n, v): (&str, &str)| (n.to_owned(), v.to_owned());
        MemberRow {
            labels: member.labels.iter().map(owned).collect(),
            annotations: member.annotations.clone(),
            query: member.query.clone(),
            starts_at: member.starts_at,
            ends_at: member.ends_at,
        }
    }
}

pub(super) fn as_ms(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
