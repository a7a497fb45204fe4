//! Rules that stand elsewhere than before, in a renamed group or in another file, and
//! rules that have another expression.
//!
//! A rule's number is a hash of where it stands and what it says, so it would be a new
//! rule: its alerts would end, be told so, and begin again after `for`. Such a rule is
//! known again by kind, name, labels and expression, one to one. In the group where it
//! was, the expression may be another one, and of several rules those that come first in
//! the file belong together. Elsewhere it has to be the same. Whoever stands nearer goes
//! first. Prometheus takes the state over in a group that stays, by name, labels and
//! order alone, so that two rules which change places change their alerts as well.
//! Elsewhere it begins anew, but nobody hears of it, because Alertmanager waits for four
//! intervals before it takes silence for an end.
//!
//! At a start the rows of alerts tell of former rules. One without alerts has none: that
//! it was there, and where, is in the [`roster`]; in the directory of an older version it
//! is missing, and the rule seems new.
//!
//! The row of an alert tells the name and the expression of its rule, not the labels.
//! Those are shown by the number: it is the hash of the old place and what the rule says.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::group::{Group, RuleState};
use super::manager::Inner;
use super::roster::{self, Listed};
use super::rows::put_group;
use super::seat::Seat;
use super::spec::{GroupSpec, RuleSpec, rule_id};
use crate::model::Timestamp;
use crate::model::alert::{
    AlertPhase, AlertRow, RuleGroupRow, alert_key, alert_key_rule, rule_group_key,
};
use crate::store::{self, StateOp, Store, Table};

/// Rules of one group that say the same and are told apart when they move.
const ORDINALS_MAX: u64 = 32;

/// Alerts that are looked at.
const ALERTS_MAX: usize = 1_000_000;

/// A rule that is not where it was, or not what it was.
#[derive(Clone, Debug)]
pub(super) struct Former {
    id: u64,
    file: String,
    group: String,
    name: String,
    /// `None` of one without alerts at a start: another one than now, as its number is.
    query: Option<String>,
}

/// Where a rule stands now.
#[derive(Debug)]
pub(super) struct Place {
    from: Former,
    group: Arc<GroupSpec>,
    id: u64,
    query: String,
}

/// How far a rule is from where it was.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Distance {
    SameGroup,
    SameFile,
    Elsewhere,
}

/// Which pairs are made first, and whether they have the same expression.
const PASSES: [(Distance, bool); 4] = [
    (Distance::SameGroup, true),
    (Distance::SameGroup, false),
    (Distance::SameFile, true),
    (Distance::Elsewhere, true),
];

/// The rules that moved, by the number that they had.
pub(super) type Moves = HashMap<u64, Place>;

/// Finds the rules of `gone` among the rules that are new.
pub(super) fn moves(gone: Vec<Former>, groups: &[Arc<GroupSpec>], known: &HashSet<u64>) -> Moves {
    let mut by_name: HashMap<String, Vec<Former>> = HashMap::new();
    for former in gone {
        by_name.entry(former.name.clone()).or_default().push(former);
    }
    let rules = groups
        .iter()
        .flat_map(|group| group.rules.iter().map(move |rule| (group, rule)));
    let mut new: Vec<_> = rules
        .filter(|(_, rule)| !known.contains(&rule.id) && by_name.contains_key(&rule.name))
        .collect();
    let mut moves = Moves::new();
    for pass in PASSES {
        new.retain(|(group, rule)| {
            let named = by_name.get_mut(&rule.name);
            let from = named.and_then(|named| take(named, group, rule, pass));
            let Some(from) = from else {
                return true;
            };
            let place = Place {
                from,
                group: Arc::clone(group),
                id: rule.id,
                query: rule.query.clone(),
            };
            moves.insert(place.from.id, place);
            false
        });
    }
    moves
}

/// Takes the former self of a rule that a pass gives it.
fn take(
    named: &mut Vec<Former>,
    group: &GroupSpec,
    rule: &RuleSpec,
    (distance, has_same_query): (Distance, bool),
) -> Option<Former> {
    let fitting = named.iter().enumerate().filter_map(|(at, former)| {
        let is_fitting = former.distance(group) == distance
            && (former.query.as_ref() == Some(&rule.query)) == has_same_query;
        let ordinal = is_fitting.then(|| former.ordinal(rule))??;
        let (file, name) = (&former.file, &former.group);
        // In another file a group of the same name goes first.
        Some(((*name != group.name, file, name, ordinal), at))
    });
    let (_, at) = fitting.min()?;
    Some(named.remove(at))
}

impl Former {
    /// The rule that wrote the row of an alert.
    fn of_row(id: u64, row: AlertRow) -> Former {
        Former {
            id,
            file: row.file,
            group: row.group,
            name: row.rule,
            query: Some(row.query),
        }
    }

    fn distance(&self, group: &GroupSpec) -> Distance {
        match (self.file == group.file, self.group == group.name) {
            (true, true) => Distance::SameGroup,
            (true, false) => Distance::SameFile,
            (false, _) => Distance::Elsewhere,
        }
    }

    /// Which of the equal rules of its group it was, when it said what `rule` says.
    fn ordinal(&self, rule: &RuleSpec) -> Option<u64> {
        let Some(query) = &self.query else {
            return Some(0);
        };
        let id = |n: u64| rule_id(&self.file, &self.group, rule, query, n);
        (0..ORDINALS_MAX).find(|n| id(*n) == self.id)
    }
}

impl Inner {
    /// The rules of `groups` that stood elsewhere in `old`; at a start, elsewhere when
    /// the process before wrote their alerts.
    pub(super) async fn moves(
        &self,
        old: &[(Arc<Seat>, Option<Group>)],
        groups: &[Arc<GroupSpec>],
    ) -> Moves {
        if !old.is_empty() {
            let specs = old.iter().map(|(seat, _)| &seat.spec);
            return moves_between(&specs.cloned().collect::<Vec<_>>(), groups);
        }
        let (store, groups) = (self.store.clone(), groups.to_vec());
        let work = move || moves_since(&store, &groups);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(moves)) => moves,
            Ok(Err(err)) => {
                tracing::error!(error = %err, "cannot look for rules that moved");
                Moves::new()
            }
            Err(_) => Moves::new(),
        }
    }
}

/// The rules of `groups` that stood elsewhere in `old`.
pub(super) fn moves_between(old: &[Arc<GroupSpec>], groups: &[Arc<GroupSpec>]) -> Moves {
    let (known, left) = (ids(old), ids(groups));
    let mut gone = Vec::new();
    for group in old {
        let rules = group.rules.iter().filter(|rule| !left.contains(&rule.id));
        gone.extend(rules.map(|rule| Former {
            id: rule.id,
            file: group.file.clone(),
            group: group.name.clone(),
            name: rule.name.clone(),
            query: Some(rule.query.clone()),
        }));
    }
    moves(gone, groups, &known)
}

/// The numbers of all rules.
pub(super) fn ids(groups: &[Arc<GroupSpec>]) -> HashSet<u64> {
    let rules = groups.iter().flat_map(|group| &group.rules);
    rules.map(|rule| rule.id).collect()
}

/// The rules of `groups` that stood elsewhere when the alerts in the store were written.
fn moves_since(store: &Store, groups: &[Arc<GroupSpec>]) -> Result<Moves, store::Error> {
    let left = ids(groups);
    let all = (Bound::Unbounded, Bound::Unbounded);
    let rows = store.scan(Table::Alert, all, ALERTS_MAX)?;
    let rule_of = |key: &[u8]| alert_key_rule(key).unwrap_or_default();
    if rows.iter().all(|(key, _)| left.contains(&rule_of(key))) {
        return Ok(Moves::new());
    }
    let listed = roster::read(store)?;
    let mut known = HashSet::new();
    let mut gone: HashMap<u64, (Timestamp, Former)> = HashMap::new();
    for (key, row) in rows {
        let id = rule_of(&key);
        let Ok(row) = AlertRow::decode(&row) else {
            continue;
        };
        if row.phase == AlertPhase::Resolved || !known.insert(id) && left.contains(&id) {
            continue;
        }
        // The newest row has the newest expression.
        let is_newer = gone.get(&id).is_none_or(|(at, _)| *at < row.written_at);
        if is_newer && !left.contains(&id) {
            gone.insert(id, (row.written_at, Former::of_row(id, row)));
        }
    }
    let gone = gone.into_values().map(|(_, former)| former);
    Ok(moves_listed(gone.collect(), &listed, known, groups))
}

/// The rules of `groups` that stood elsewhere: `gone` are those with alerts, `known` those
/// with rows, `listed` all that there were.
fn moves_listed(
    mut gone: Vec<Former>,
    listed: &[Listed],
    mut known: HashSet<u64>,
    groups: &[Arc<GroupSpec>],
) -> Moves {
    let left = ids(groups);
    let with_alerts: HashSet<u64> = gone.iter().map(|former| former.id).collect();
    let mut places = HashMap::with_capacity(listed.len());
    let mut without = HashMap::new();
    for (at, rule) in listed.iter().enumerate() {
        places.insert(rule.id, at);
        known.insert(rule.id);
        if !left.contains(&rule.id) && !with_alerts.contains(&rule.id) {
            without
                .entry(rule.kin)
                .or_insert_with(Vec::new)
                .push(rule.id);
        }
    }
    for group in groups {
        for rule in group.rules.iter().filter(|rule| !known.contains(&rule.id)) {
            let gone_kin = without.remove(&roster::kin(group, rule));
            gone.extend(gone_kin.into_iter().flatten().map(|id| Former {
                id,
                file: group.file.clone(),
                group: group.name.clone(),
                name: rule.name.clone(),
                query: None,
            }));
        }
    }
    // In the order of the file, where it is known.
    let place = |former: &Former| places.get(&former.id).copied();
    gone.sort_by(|a, b| (place(a), &a.query).cmp(&(place(b), &b.query)));
    moves(gone, groups, &known)
}

/// The states of the rules that moved, by the numbers that they have now.
pub(super) fn states(
    old: &mut [(Arc<Seat>, Option<Group>)],
    moves: &Moves,
) -> HashMap<u64, RuleState> {
    let groups = old.iter_mut().filter_map(|(_, group)| group.as_mut());
    let given = groups.flat_map(|group| group.give_up(|id| moves.get(&id).map(|to| to.id)));
    given.collect()
}

/// The changes that move the row of an alert to where its rule stands now.
pub(super) fn rekey(key: Bytes, mut row: AlertRow, to: &Place, ops: &mut Vec<StateOp>) {
    let table = Table::Alert;
    ops.push(StateOp::Delete { table, key });
    row.file.clone_from(&to.group.file);
    row.group.clone_from(&to.group.name);
    row.query.clone_from(&to.query);
    ops.push(StateOp::Put {
        table,
        key: Bytes::from(alert_key(to.id, &row.labels)),
        value: Bytes::from(row.encode()),
    });
}

/// The changes by which the groups of rules that moved know when those ran last: time
/// without evaluations does not count for `for`.
///
/// # Errors
/// When the table cannot be read.
pub(super) fn last_evaluations(store: &Store, moves: &Moves) -> Result<Vec<StateOp>, store::Error> {
    let last_eval = |file: &str, group: &str| {
        let row = store.get(Table::RuleGroup, &rule_group_key(file, group))?;
        let row = row.and_then(|row| RuleGroupRow::decode(&row));
        Ok::<_, store::Error>(row.map(|row| row.last_eval))
    };
    let mut latest: HashMap<Vec<u8>, (Option<Timestamp>, &Arc<GroupSpec>)> = HashMap::new();
    for place in moves.values() {
        let (group, from) = (&place.group, &place.from);
        let key = rule_group_key(&group.file, &group.name);
        let at = last_eval(&from.file, &from.group)?;
        let known = latest.entry(key).or_insert((None, group));
        known.0 = known.0.max(at);
    }
    let mut ops = Vec::new();
    for (at, group) in latest.into_values() {
        let own = last_eval(&group.file, &group.name)?;
        if let Some(last_eval) = at.filter(|_| at > own) {
            let definition = group.definition();
            let row = RuleGroupRow {
                last_eval,
                definition,
            };
            ops.push(put_group(row, group));
        }
    }
    Ok(ops)
}

#[cfg(test)]
mod tests;
