//! The rows of `rule_group` and `alert_history`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::spec::GroupSpec;
use crate::model::alert::{AlertPhase, RuleGroupRow, rule_group_key};
use crate::model::{Labels, Timestamp};
use crate::store::{StateOp, Table};

/// The change that writes a group's row.
pub(super) fn put_group(row: RuleGroupRow, spec: &GroupSpec) -> StateOp {
    StateOp::Put {
        table: Table::RuleGroup,
        key: Bytes::from(rule_group_key(&spec.file, &spec.name)),
        value: Bytes::from(row.encode()),
    }
}

/// A row of `alert_history`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Transition<'a> {
    pub(super) file: &'a str,
    pub(super) group: &'a str,
    pub(super) rule: &'a str,
    pub(super) labels: BTreeMap<&'a str, &'a str>,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) reason: &'static str,
    pub(super) value: String,
}

impl Transition<'_> {
    /// The change that writes the row. Keys are sorted by time; `seq` tells the
    /// transitions of one evaluation of a rule apart.
    pub(super) fn put(&self, ts: Timestamp, rule_id: u64, seq: usize) -> StateOp {
        let mut key = history_prefix(ts);
        key.extend_from_slice(&rule_id.to_be_bytes());
        let seq = u32::try_from(seq).expect("a rule has far less than 4 G alerts");
        key.extend_from_slice(&seq.to_be_bytes());
        let value = serde_json::to_vec(self).expect("a transition is plain data");
        StateOp::Put {
            table: Table::AlertHistory,
            key: Bytes::from(key),
            value: Bytes::from(value),
        }
    }
}

/// What the keys of transitions at `ts` start with: tenant, then time.
pub(super) fn history_prefix(ts: Timestamp) -> Vec<u8> {
    let mut key = vec![0];
    // Sorts like the number, negative ones included.
    let ordered = ts.as_ms().cast_unsigned() ^ (1 << 63);
    key.extend_from_slice(&ordered.to_be_bytes());
    key
}

/// A label set as a map, for JSON.
pub(super) fn pairs(labels: &Labels) -> BTreeMap<&str, &str> {
    labels.iter().collect()
}

/// A phase before or after a transition.
pub(super) fn phase_name(phase: Option<AlertPhase>) -> &'static str {
    phase.map_or("inactive", AlertPhase::as_str)
}
