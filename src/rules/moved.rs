//! Rules that stand elsewhere than before, in a renamed group or in another file, and
//! rules that have another expression.
//!
//! A rule's number is a hash of where it stands and what it says, so it would be a new
//! rule: its alerts would end, be told so, and begin again after `for`. Such a rule is
//! known again by kind, name, labels and expression, one to one. In the group where it
//! was, the expression may be another one, and of several rules those that come first in
//! the file belong together. Elsewhere it has to be the same: a rule without alerts has
//! no rows and seems new at a start, and would take those of a rule that it never was.
//! Whoever stands nearer goes first. Prometheus takes the state over in a group that
//! stays, by name, labels and order alone, so that two rules which change places change
//! their alerts as well. Elsewhere it begins anew, but nobody hears of it, because
//! Alertmanager waits for four intervals before it takes silence for an end.
//!
//! The row of an alert tells the name and the expression of its rule, not the labels.
//! Those are shown by the number: it is the hash of the old place and what the rule says.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::group::{Group, RuleState};
use super::manager::Inner;
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
    query: String,
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
        let is_fitting =
            former.distance(group) == distance && (former.query == rule.query) == has_same_query;
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
            query: row.query,
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
        let id = |n: u64| rule_id(&self.file, &self.group, rule, &self.query, n);
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
            query: rule.query.clone(),
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
    let mut gone: Vec<Former> = gone.collect();
    // The rows do not tell the order of the file.
    gone.sort_by(|a, b| a.query.cmp(&b.query));
    Ok(moves(gone, groups, &known))
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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rules::file::{self, Defaults};

    const A: &str = "  - {alert: A, expr: up == 0}\n";

    /// File, group and rules.
    type Text<'a> = (&'a str, &'a str, &'a str);

    fn groups(all: &[Text<'_>]) -> Vec<Arc<GroupSpec>> {
        let defaults = Defaults::every(Duration::from_secs(60));
        let parse = |(file, group, rules): &Text<'_>| {
            let text = format!("groups:\n- name: {group}\n  rules:\n{rules}");
            file::parse(file, &text, defaults).unwrap()
        };
        all.iter().flat_map(parse).map(Arc::new).collect()
    }

    /// Group and place in it of the rules that moved, before and after.
    type Pair = ((usize, usize), (usize, usize));

    fn check(before: &[Text<'_>], after: &[Text<'_>], want: &[Pair]) {
        let (old, new) = (groups(before), groups(after));
        let moves = moves_between(&old, &new);
        check_moves(&moves, &old, &new, want);
    }

    /// At a start: only the rules at the places of `firing` have rows.
    fn check_start(
        before: &[Text<'_>],
        firing: &[(usize, usize)],
        after: &[Text<'_>],
        want: &[Pair],
    ) {
        let (old, new) = (groups(before), groups(after));
        let left = ids(&new);
        let rows = firing.iter().map(|(g, r)| former(&old[*g], *r));
        let (stayed, gone): (Vec<_>, Vec<_>) = rows.partition(|rule| left.contains(&rule.id));
        let known = stayed.iter().chain(&gone).map(|rule| rule.id).collect();
        check_moves(&moves(gone, &new, &known), &old, &new, want);
    }

    fn former(group: &GroupSpec, rule: usize) -> Former {
        let rule = &group.rules[rule];
        Former {
            id: rule.id,
            file: group.file.clone(),
            group: group.name.clone(),
            name: rule.name.clone(),
            query: rule.query.clone(),
        }
    }

    fn check_moves(moves: &Moves, old: &[Arc<GroupSpec>], new: &[Arc<GroupSpec>], want: &[Pair]) {
        let place = |groups: &[Arc<GroupSpec>], id: u64| {
            let mut all = groups.iter().enumerate();
            all.find_map(|(g, group)| {
                let rule = group.rules.iter().position(|rule| rule.id == id);
                Some((g, rule?))
            })
        };
        let pair = |(from, to): (&u64, &Place)| Some((place(old, *from)?, place(new, to.id)?));
        let mut got: Vec<Pair> = moves.iter().filter_map(pair).collect();
        got.sort_unstable();
        assert_eq!(got, want, "{old:?} {new:?}");
    }

    #[test]
    fn a_rule_is_known_again_wherever_it_stands() {
        let here = [("a", "g", A)];
        check(&here, &here, &[]);
        check(&here, &[("a", "h", A)], &[((0, 0), (0, 0))]);
        check(&here, &[("b", "g", A)], &[((0, 0), (0, 0))]);
        let second = format!("  - {{record: r, expr: up}}\n{A}");
        check(&here, &[("b", "h", &second)], &[((0, 0), (0, 1))]);
        let record = "  - {record: r, expr: up, labels: {x: y}}\n";
        check(
            &[("a", "g", record)],
            &[("b", "g", record)],
            &[((0, 0), (0, 0))],
        );
    }

    #[test]
    fn another_name_kind_or_label_is_another_rule() {
        for other in [
            "  - {alert: B, expr: up == 0}\n",
            "  - {record: A, expr: up == 0}\n",
            "  - {alert: A, expr: up == 0, labels: {x: y}}\n",
            "",
        ] {
            check(&[("a", "g", A)], &[("b", "g", other)], &[]);
        }
    }

    #[test]
    fn the_same_expression_goes_before_another_one() {
        let other = A.replace("== 0", "< 1");
        let (both, turned) = (format!("{A}{other}"), format!("{other}{A}"));
        check(
            &[("a", "g", A)],
            &[("b", "g", &turned)],
            &[((0, 0), (0, 1))],
        );
        let crossed = [((0, 0), (0, 1)), ((0, 1), (0, 0))];
        check(&[("a", "g", &both)], &[("b", "g", &turned)], &crossed);
        // Another expression elsewhere is another rule.
        check(&[("a", "g", A)], &[("b", "g", &other)], &[]);
        check(&[("a", "g", A)], &[("a", "h", &other)], &[]);
    }

    #[test]
    fn nobody_takes_the_alerts_of_a_rule_that_is_nearer_to_another_one() {
        let [two, three, four, five] =
            ["== 2", "== 3", "== 4", "== 5"].map(|c| A.replace("== 0", c));
        // The first has no alerts and did not change.
        let before = [("a", "g", two.as_str()), ("b", "g", A)];
        let after = [("a", "g", two.as_str()), ("b", "g", three.as_str())];
        let stays = [((1, 0), (1, 0))];
        check_start(&before, &[(1, 0)], &after, &stays);
        check(&before, &after, &stays);
        // All changed.
        let before = [("a", "g", A), ("b", "g", two.as_str()), ("c", "g", A)];
        let after = [
            ("a", "g", three.as_str()),
            ("b", "g", four.as_str()),
            ("c", "g", five.as_str()),
        ];
        let stay = [((1, 0), (1, 0)), ((2, 0), (2, 0))];
        check_start(&before, &[(1, 0), (2, 0)], &after, &stay);
        // Another one comes before it, in another file or in another group; also one
        // that says now what the changed one said.
        for first in [A, two.as_str()] {
            for place in [("a", "g"), ("b", "a")] {
                let after = [(place.0, place.1, first), ("b", "g", three.as_str())];
                check(&[("b", "g", A)], &after, &[((0, 0), (1, 0))]);
            }
        }
        // The same expression: the group of the same file goes first.
        let after = [("a", "g", A), ("b", "h", A)];
        check(&[("b", "g", A)], &after, &[((0, 0), (1, 0))]);
        // It is gone; the other one stands where it was, and had no alerts.
        let before = [("a", "g", two.as_str()), ("b", "g", A)];
        check_start(&before, &[(1, 0)], &[("a", "g", two.as_str())], &[]);
    }

    #[test]
    fn rows_have_the_new_expression_so_that_a_second_change_is_known_too() {
        let texts = ["== 0", "== 1", "== 2"].map(|c| A.replace("== 0", c));
        let [first, second, third] = texts.each_ref().map(|rule| groups(&[("a", "g", rule)]));
        let moved = moves_between(&first, &second);
        let id = first[0].rules[0].id;
        let row = AlertRow {
            file: "a".to_owned(),
            group: "g".to_owned(),
            rule: "A".to_owned(),
            query: first[0].rules[0].query.clone(),
            labels: crate::model::Labels::from_pairs([("alertname", "A")]),
            annotations: std::collections::BTreeMap::new(),
            phase: AlertPhase::Firing,
            value: 0.0,
            active_at: Timestamp::from_ms(1),
            fired_at: Some(Timestamp::from_ms(2)),
            resolved_at: None,
            keep_firing_since: None,
            written_at: Timestamp::from_ms(2),
        };
        let mut ops = Vec::new();
        let key = Bytes::from(alert_key(id, &row.labels));
        rekey(key, row, &moved[&id], &mut ops);
        let Some(StateOp::Put { key, value, .. }) = ops.pop() else {
            panic!("no row: {ops:?}");
        };
        let row = AlertRow::decode(&value).unwrap();
        assert_eq!(row.query, second[0].rules[0].query);
        let id = alert_key_rule(&key).unwrap();
        assert_eq!(id, second[0].rules[0].id);
        let again = moves(vec![Former::of_row(id, row)], &third, &HashSet::from([id]));
        assert_eq!(again[&id].id, third[0].rules[0].id);
    }

    #[test]
    fn in_a_group_that_stays_the_number_follows_the_expression() {
        let other = A.replace("== 0", "< 1");
        let (both, turned) = (format!("{A}{other}"), format!("{other}{A}"));
        check(&[("a", "g", &both)], &[("a", "g", &turned)], &[]);
        let number = |rules: &str, at: usize| groups(&[("a", "g", rules)])[0].rules[at].id;
        assert_eq!(number(&both, 0), number(&turned, 1));
        assert_eq!(number(&both, 1), number(&turned, 0));
        assert_ne!(number(&both, 0), number(&both, 1));
        // Only one of them changed, or both: then they belong together in order.
        let third = A.replace("== 0", "!= 1");
        let one = format!("{third}{A}");
        check(
            &[("a", "g", &both)],
            &[("a", "g", &one)],
            &[((0, 1), (0, 0))],
        );
        let in_order = [((0, 0), (0, 0)), ((0, 1), (0, 1))];
        let both_changed = both.replace("up", "down");
        check(
            &[("a", "g", &both)],
            &[("a", "g", &both_changed)],
            &in_order,
        );
    }

    #[test]
    fn of_equal_rules_each_has_one_former_self_the_nearest_first() {
        let three = A.repeat(3);
        let in_order = [((0, 0), (0, 0)), ((0, 1), (0, 1)), ((0, 2), (0, 2))];
        check(&[("a", "g", &three)], &[("a", "h", &three)], &in_order);
        check(&[("a", "g", A)], &[("b", "g", &three)], &[((0, 0), (0, 0))]);
        check(
            &[("a", "g", A), ("b", "g", A)],
            &[("b", "h", A), ("a", "h", A)],
            &[((0, 0), (1, 0)), ((1, 0), (0, 0))],
        );
        // One that is still there is nobody's former self.
        check(&[("a", "g", A)], &[("a", "g", A), ("b", "g", A)], &[]);
    }
}
