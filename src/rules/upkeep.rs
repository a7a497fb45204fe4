//! Alerts and series of rules that are gone, and history that is old.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::alert::RESOLVED_RETENTION_MS;
use super::group::Group;
use super::manager::Inner;
use super::moved::{self, Moves};
use super::roster;
use super::rows::{phase_name, put_transition};
use super::seat::Seat;
use super::spec::GroupSpec;
use crate::model::alert::{AlertPhase, AlertRow, alert_key_rule};
use crate::model::history::{self, Transition};
use crate::model::{Labels, Timestamp, stale_nan};
use crate::store::{self, Item, Row, SeriesKey, StateOp, Store, Table, Urgency, WriteBatch};

/// How long the history is kept, in milliseconds.
const HISTORY_KEEP_MS: i64 = 7 * 86_400_000;

/// Rows of the history that are kept: about 200 MB.
const HISTORY_ROWS_MAX: usize = 500_000;

/// Rows of the history that are removed at once; the rest goes the next time.
const HISTORY_REMOVE_MAX: usize = 10_000;

/// How often resolved alerts of removed rules and old history are cleared away.
const INTERVAL: Duration = Duration::from_secs(600);

/// Alerts that are looked at.
const ALERTS_MAX: usize = 1_000_000;

impl Inner {
    /// Ends the series of groups that are gone, but those that one that is left gives too.
    pub(super) async fn remove(&self, gone: Vec<(Arc<Seat>, Option<Group>)>, left: &[Arc<Seat>]) {
        let mut ended: BTreeSet<Labels> = BTreeSet::new();
        for (seat, group) in gone {
            self.metrics.rules.remove_group(&seat.key);
            self.count_selected(&seat, 0);
            ended.extend(group.iter().flat_map(Group::series).cloned());
        }
        for seat in left {
            if let Some(group) = seat.group.lock().await.as_ref() {
                group.series().for_each(|labels| {
                    ended.remove(labels);
                });
            }
        }
        if ended.is_empty() {
            return;
        }
        let t = self.clock.now();
        let rows = ended.into_iter().map(|labels| Row {
            series: SeriesKey::Labels(labels),
            t,
            v: stale_nan(),
        });
        let mut batch = WriteBatch {
            urgency: Urgency::RideAlong,
            sheds: true,
            volatile: true,
            ..WriteBatch::default()
        };
        batch.push(rows, Item::default());
        if let Err(err) = self.store.write(batch).await {
            tracing::error!(error = %err, "cannot end the series of removed rules");
        }
    }

    /// Resolves the alerts of rules that are gone, moves those of rules that stand
    /// elsewhere now, clears away what is old, and notes which rules there are, all in
    /// one transaction.
    pub(super) async fn settle(&self, groups: &[Arc<GroupSpec>], moves: Arc<Moves>) {
        let (store, now) = (self.store.clone(), self.clock.now());
        let groups = groups.to_vec();
        let work = move || changes(&store, &groups, &moves, now);
        let ops = match tokio::task::spawn_blocking(work).await {
            Ok(Ok(ops)) => ops,
            Ok(Err(err)) => {
                tracing::error!(error = %err, "cannot read the alerts of removed rules");
                return;
            }
            Err(_) => return,
        };
        if ops.is_empty() {
            return;
        }
        if let Err(err) = self
            .store
            .write(WriteBatch::of_state(ops).even_unsaved())
            .await
        {
            tracing::error!(error = %err, "cannot settle the alerts of removed rules");
        }
    }
}

/// Clears away what is old, once in a while.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        // Held till the end: a reload meanwhile would bring rules that are not known here.
        let seats = inner.seats.lock().await;
        let groups: Vec<_> = seats.iter().map(|seat| Arc::clone(&seat.spec)).collect();
        inner.settle(&groups, Arc::default()).await;
    }
}

/// What has to change so that no alert outlives its rule: firing ones resolve,
/// others go. Those of rules that moved follow them. Old history goes too.
///
/// # Errors
/// When the tables cannot be read.
fn changes(
    store: &Store,
    groups: &[Arc<GroupSpec>],
    moves: &Moves,
    now: Timestamp,
) -> Result<Vec<StateOp>, store::Error> {
    let known = moved::ids(groups);
    let mut ops = moved::last_evaluations(store, moves)?;
    let listed = roster::list(groups.iter().map(|group| &**group));
    ops.extend(roster::put(store, &listed)?);
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
        if let Some(to) = moves.get(&rule) {
            moved::rekey(key, row, to, &mut ops);
            continue;
        }
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
        labels: row.labels.to_map(),
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
