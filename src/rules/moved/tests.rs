//! Which former selves rules have.

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
fn check_start(before: &[Text<'_>], firing: &[(usize, usize)], after: &[Text<'_>], want: &[Pair]) {
    let (old, new) = (groups(before), groups(after));
    check_moves(&at_start(&old, firing, &new, &[]), &old, &new, want);
}

/// As [`check_start`], in a directory that tells which rules there were.
fn check_listed(before: &[Text<'_>], firing: &[(usize, usize)], after: &[Text<'_>], want: &[Pair]) {
    let (old, new) = (groups(before), groups(after));
    let listed = roster::list(old.iter().map(|group| &**group));
    check_moves(&at_start(&old, firing, &new, &listed), &old, &new, want);
}

fn at_start(
    old: &[Arc<GroupSpec>],
    firing: &[(usize, usize)],
    new: &[Arc<GroupSpec>],
    listed: &[Listed],
) -> Moves {
    let left = ids(new);
    let rows = firing.iter().map(|(g, r)| former(&old[*g], *r));
    let (stayed, gone): (Vec<_>, Vec<_>) = rows.partition(|rule| left.contains(&rule.id));
    let known = stayed.iter().chain(&gone).map(|rule| rule.id).collect();
    moves_listed(gone, listed, known, new)
}

fn former(group: &GroupSpec, rule: usize) -> Former {
    let rule = &group.rules[rule];
    Former {
        id: rule.id,
        file: group.file.clone(),
        group: group.name.clone(),
        name: rule.name.clone(),
        query: Some(rule.query.clone()),
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
    let [two, three, four, five] = ["== 2", "== 3", "== 4", "== 5"].map(|c| A.replace("== 0", c));
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

#[test]
fn at_a_start_a_rule_without_alerts_takes_none_of_another_rule() {
    let [zero, one, two, three] = ["== 0", "== 1", "== 2", "== 3"].map(|c| A.replace("== 0", c));
    let before = [("a", "g", [zero.as_str(), &one].concat())];
    let before = before.each_ref().map(|(f, g, r)| (*f, *g, r.as_str()));
    let after = |rules: &[&str], check: &dyn Fn(&[Text<'_>])| check(&[("a", "g", &rules.concat())]);
    // The second one fires and changed, the first has no alerts and did not.
    let stays = [((0, 1), (0, 1))];
    after(&[&zero, &two], &|after| {
        check_listed(&before, &[(0, 1)], after, &stays);
        // Without the roster the first one seems new.
        check_start(&before, &[(0, 1)], after, &[((0, 1), (0, 0))]);
    });
    // The same, and they changed places.
    after(&[&two, &zero], &|after| {
        check_listed(&before, &[(0, 1)], after, &[((0, 1), (0, 0))]);
    });
    // Both changed: in order, although only the second one fires.
    after(&[&two, &three], &|after| {
        let both = [((0, 0), (0, 0)), ((0, 1), (0, 1))];
        check_listed(&before, &[(0, 1)], after, &both);
        check_listed(&before, &[(0, 0)], after, &both);
    });
    // One that is really new takes those of the one that is gone.
    after(&[&zero, &three], &|after| {
        check_listed(&before, &[(0, 1), (0, 0)], after, &stays);
    });
    // Another group is another thing.
    check_listed(&before, &[(0, 1)], &[("a", "h", &two)], &[]);
    check_listed(&before, &[(0, 1)], &[("a", "h", &one)], &[((0, 1), (0, 0))]);
}
