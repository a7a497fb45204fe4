//! Alerts of rules that are gone, and history that is old.

use std::collections::HashSet;
use std::ops::Bound;

use bytes::Bytes;

use super::alert::RESOLVED_RETENTION_MS;
use super::rows::{pairs, phase_name, put_transition};
use crate::model::Timestamp;
use crate::model::alert::{AlertPhase, AlertRow, alert_key_rule};
use crate::model::history::{self, Transition};
use crate::store::{self, StateOp, Store, Table};

/// How long the history is kept, in milliseconds.
const HISTORY_KEEP_MS: i64 = 7 * 86_400_000;

/// Rows of the history that are kept: about 200 MB.
const HISTORY_ROWS_MAX: usize = 500_000;

/// Rows of the history that are removed at once; the rest goes the next time.
const HISTORY_REMOVE_MAX: usize = 10_000;

/// Alerts that are looked at.
const ALERTS_MAX: usize = 1_000_000;

/// What has to change so that no alert outlives its rule: firing ones resolve,
/// others go. Old history goes too.
///
/// # Errors
/// When the tables cannot be read.
pub(super) fn changes(
    store: &Store,
    known: &HashSet<u64>,
    now: Timestamp,
) -> Result<Vec<StateOp>, store::Error> {
    let mut ops = Vec::new();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut seq = 0;
    for (key, row) in store.scan(Table::Alert, all, ALERTS_MAX)? {
        let Some(rule) = alert_key_rule(&key) else {
            continue;
        };
        if known.contains(&rule) {
            continue;
        }
        let remove = StateOp::Delete {
            table: Table::Alert,
            key: key.clone(),
        };
        let Ok(row) = AlertRow::decode(&row) else {
            ops.push(remove);
            continue;
        };
        let is_old = |at: Timestamp| now.ms_since(at) > RESOLVED_RETENTION_MS;
        match row.phase {
            AlertPhase::Firing => {
                resolve(key, row, rule, seq, now, &mut ops);
                seq += 1;
            }
            AlertPhase::Resolved if !row.resolved_at.is_none_or(is_old) => {}
            _ => ops.push(remove),
        }
    }
    let end = history::prefix(now.minus_ms(HISTORY_KEEP_MS));
    let old = (Bound::Unbounded, Bound::Excluded(end.as_slice()));
    let mut history = store.scan(Table::AlertHistory, old, HISTORY_REMOVE_MAX)?;
    let rows = store.count(Table::AlertHistory)?;
    let surplus = rows
        .saturating_sub(HISTORY_ROWS_MAX)
        .min(HISTORY_REMOVE_MAX);
    if surplus > history.len() {
        let all = (Bound::Unbounded, Bound::Unbounded);
        history = store.scan(Table::AlertHistory, all, surplus)?;
        tracing::warn!(
            rows,
            "history of alerts is too long, the oldest is removed early"
        );
    }
    ops.extend(history.into_iter().map(|(key, _)| StateOp::Delete {
        table: Table::AlertHistory,
        key,
    }));
    Ok(ops)
}

fn resolve(
    key: Bytes,
    mut row: AlertRow,
    rule: u64,
    seq: usize,
    now: Timestamp,
    ops: &mut Vec<StateOp>,
) {
    row.phase = AlertPhase::Resolved;
    row.resolved_at = Some(now);
    row.written_at = now;
    let transition = Transition {
        file: row.file.clone(),
        group: row.group.clone(),
        rule: row.rule.clone(),
        labels: pairs(&row.labels),
        from: phase_name(Some(AlertPhase::Firing)).to_owned(),
        to: phase_name(Some(AlertPhase::Resolved)).to_owned(),
        reason: "its rule is gone".to_owned(),
        value: row.value.to_string(),
    };
    ops.push(put_transition(&transition, now, rule, seq));
    ops.push(StateOp::Put {
        table: Table::Alert,
        key,
        value: Bytes::from(row.encode()),
    });
}

/// The rows whose keys start with `prefix`.
///
/// # Errors
/// When the table cannot be read.
pub(super) fn scan_prefix(
    store: &Store,
    table: Table,
    prefix: &[u8],
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, store::Error> {
    let mut end = prefix.to_vec();
    // The next key of the same length; a prefix of 0xff bytes has none.
    while end.last() == Some(&0xff) {
        end.pop();
    }
    let upper = match end.last_mut() {
        Some(last) => {
            *last += 1;
            Bound::Excluded(end.as_slice())
        }
        None => Bound::Unbounded,
    };
    store.scan(table, (Bound::Included(prefix), upper), limit)
}
