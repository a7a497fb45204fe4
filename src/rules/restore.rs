//! A group as the process before left it.

use std::sync::Arc;

use super::group::Group;
use super::manager::Inner;
use super::spec::GroupSpec;
use super::upkeep;
use crate::model::alert::{AlertRow, RuleGroupRow, alert_rule_prefix, rule_group_key};
use crate::store::{self, Store, Table};

/// Alerts of one rule that are restored.
const ALERTS_PER_RULE_MAX: usize = 100_000;

impl Inner {
    /// A group as the process before left it, so that its alerts are shown before
    /// its first evaluation. When it cannot be read, the evaluation tries again.
    pub(super) async fn restored(&self, spec: &Arc<GroupSpec>) -> Option<Group> {
        let (store, spec) = (self.store.clone(), Arc::clone(spec));
        let read = tokio::task::spawn_blocking(move || restore(&store, &spec));
        match read.await {
            Ok(Ok(group)) => Some(group),
            Ok(Err(err)) => {
                tracing::error!(error = %err, "cannot read the alerts of a group");
                None
            }
            Err(_) => None,
        }
    }
}

/// The state of a group from its rows.
pub(super) fn restore(store: &Store, spec: &Arc<GroupSpec>) -> Result<Group, store::Error> {
    let row = store.get(Table::RuleGroup, &rule_group_key(&spec.file, &spec.name))?;
    let last_eval = row.and_then(|row| RuleGroupRow::decode(&row));
    let mut failed = None;
    let group = Group::restore(
        Arc::clone(spec),
        last_eval.map(|row| row.last_eval),
        |rule_id| {
            restore_rule(store, rule_id).unwrap_or_else(|err| {
                failed = Some(err);
                Vec::new()
            })
        },
    );
    match failed {
        Some(err) => Err(err),
        None => Ok(group),
    }
}

fn restore_rule(store: &Store, rule_id: u64) -> Result<Vec<AlertRow>, store::Error> {
    let prefix = alert_rule_prefix(rule_id);
    let rows = upkeep::scan_prefix(store, Table::Alert, &prefix, ALERTS_PER_RULE_MAX)?;
    let mut alerts = Vec::with_capacity(rows.len());
    for (_, row) in rows {
        match AlertRow::decode(&row) {
            Ok(row) => alerts.push(row),
            Err(err) => tracing::error!(error = %err, "an alert is lost"),
        }
    }
    Ok(alerts)
}
