//! The rows of `rule_group`, and those that rules write into `alert_history`.

use bytes::Bytes;

use super::spec::GroupSpec;
use crate::model::Timestamp;
use crate::model::alert::{AlertPhase, RuleGroupRow, rule_group_key};
use crate::model::history::{self, Transition};
use crate::store::{StateOp, Table};

/// The change that writes a group's row.
pub(super) fn put_group(row: RuleGroupRow, spec: &GroupSpec) -> StateOp {
    StateOp::Put {
        table: Table::RuleGroup,
        key: Bytes::from(rule_group_key(&spec.file, &spec.name)),
        value: Bytes::from(row.encode()),
    }
}

/// The change that writes a row of `alert_history`. `seq` tells the transitions of one
/// evaluation of a rule apart.
pub(super) fn put_transition(
    transition: &Transition,
    ts: Timestamp,
    rule_id: u64,
    seq: usize,
) -> StateOp {
    let seq = u32::try_from(seq).expect("a rule has far less than 4 G alerts");
    StateOp::Put {
        table: Table::AlertHistory,
        key: Bytes::from(history::transition_key(ts, rule_id, seq)),
        value: Bytes::from(transition.encode()),
    }
}

/// A phase before or after a transition.
pub(super) fn phase_name(phase: Option<AlertPhase>) -> &'static str {
    phase.map_or("inactive", AlertPhase::as_str)
}
