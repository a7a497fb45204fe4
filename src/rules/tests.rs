//! Rule files and the state machine of alerts.

mod gaps;
mod restarts;
mod soon;

use std::collections::BTreeMap;
use std::time::Duration;

use super::alert::{Alerts, Change, Results, Times};
use super::file::{self, Defaults};
use super::spec::{GroupSpec, Kind};
use crate::model::alert::AlertPhase::{self, Firing, Pending, Resolved};
use crate::model::{Labels, Timestamp};

const MINUTE: Duration = Duration::from_secs(60);

const DEFAULTS: Defaults = Defaults {
    interval: MINUTE,
    query_offset: Duration::ZERO,
};

fn parse(text: &str) -> Vec<GroupSpec> {
    file::parse("r.yml", text, DEFAULTS).unwrap()
}

fn check_error(text: &str, want: &str) {
    let errors = match file::parse("r.yml", text, DEFAULTS) {
        Ok(_) => panic!("accepted: {text}"),
        Err(errors) => errors,
    };
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(
        all.iter().any(|err| err.contains(want)),
        "{all:#?}\nfor\n{text}"
    );
}

#[test]
fn the_rules_of_document_3_load_unchanged() {
    let groups = parse(include_str!("../../tests/data/rules/document3.yml"));
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].name, "ingestion_alerts");
    assert_eq!(groups[0].interval, MINUTE);
    let rules = groups[0].rules.iter();
    let holds: Vec<(&str, u64)> = rules
        .map(|rule| match &rule.kind {
            Kind::Alerting(alerting) => (rule.name.as_str(), alerting.hold.as_secs()),
            Kind::Recording => panic!("{} records", rule.name),
        })
        .collect();
    let want = [
        ("HighErrorRate", 300),
        ("BufferFull", 120),
        ("NoConnections", 600),
    ];
    assert_eq!(holds, want);
}

#[test]
fn a_full_group_is_taken_as_written() {
    let groups = parse(
        "groups:\n\
         - name: g\n\
         \x20 interval: 5s\n\
         \x20 limit: 7\n\
         \x20 query_offset: 1m\n\
         \x20 labels: {team: a, level: low}\n\
         \x20 rules:\n\
         \x20 - record: a:b\n\
         \x20   expr: 1\n\
         \x20   labels: {level: 3}\n\
         \x20 - alert: A\n\
         \x20   expr: |\n\
         \x20     a > 1\n\
         \x20   for: 1d\n\
         \x20   keep_firing_for: 5m\n\
         \x20   annotations: {s: '{{ $value }}', empty: }\n\
         - name: empty\n\
         \x20 rules:\n",
    );
    let group = &groups[0];
    assert_eq!(group.interval, Duration::from_secs(5));
    assert_eq!((group.limit, group.query_offset), (7, MINUTE));
    let labels: Vec<_> = group.rules[0].labels.iter().collect();
    let text = |s: &str| s.to_owned();
    assert_eq!(
        labels,
        [(&text("level"), &text("3")), (&text("team"), &text("a"))]
    );
    assert!(matches!(group.rules[0].kind, Kind::Recording));
    let Kind::Alerting(alerting) = &group.rules[1].kind else {
        panic!("an alerting rule");
    };
    assert_eq!(alerting.keep_firing, MINUTE * 5);
    assert_eq!(alerting.annotations["empty"], "");
    assert!(groups[1].rules.is_empty());
    assert!(parse("").is_empty() && parse("# nothing\n").is_empty());
}

#[test]
fn a_mistake_is_told_with_its_place() {
    let rule = |rule: &str| format!("groups:\n- name: g\n  rules:\n  - {rule}\n");
    for (text, want) in [
        ("alert: A\n    exp: up", "r.yml:5:5: unknown field `exp`"),
        (
            "alert: A\n    expr: up\n    expr: up",
            "r.yml:6:5: duplicate",
        ),
        ("alert: A", "r.yml:4:5: field 'expr' must be set in rule"),
        (
            "expr: up",
            "r.yml:4:5: one of 'record' or 'alert' must be set",
        ),
        (
            "alert: A\n    record: b\n    expr: up",
            "only one of 'record' and 'alert' must be set",
        ),
        (
            "record: b-c\n    expr: up",
            "r.yml:4:13: invalid recording rule name: b-c",
        ),
        (
            "record: b\n    expr: up\n    for: 5m",
            "invalid field 'for' in recording rule",
        ),
        (
            "alert: A\n    expr: up\n    for: 5 minutes",
            "r.yml:6:10: not a valid duration",
        ),
        (
            "alert: A\n    expr: up\n    labels: {a-b: c}",
            "r.yml:6:19: invalid label name: a-b",
        ),
        (
            "alert: A\n    expr: up\n    labels: {__name__: c}",
            "invalid label name: __name__",
        ),
        (
            "alert: A\n    expr: up\n    annotations: {'1': c}",
            "invalid annotation name: 1",
        ),
        (
            "alert: A\n    expr: up\n    annotations: {s: '{{ foo }}'}",
            "error parsing template __alert_A: template: __alert_A:1: function \"foo\" not defined",
        ),
        (
            "alert: A\n    expr: up\n    labels: [a]",
            "r.yml:6:5: labels: invalid type: sequence",
        ),
        ("alert: [", "r.yml:"),
    ] {
        check_error(&rule(text), want);
    }
    check_error(
        "groups:\n- name: a\n- name: a\n",
        "r.yml:3:9: groupname: \"a\" is repeated",
    );
    check_error("groups:\n- name: ''\n", "groupname must not be empty");
    check_error("groups:\n- interval: 1m\n", "missing field `name`");
    check_error("groups: 5\n", "r.yml:1:1: groups: invalid type: integer");
    check_error("- a\n", "r.yml:1:1:");
}

#[test]
fn every_mistake_of_a_file_is_told_and_none_that_only_follows() {
    let text = "groups:\n\
        - name: g\n\
        \x20 interval: often\n\
        \x20 limit: many\n\
        \x20 owner: me\n\
        \x20 rules:\n\
        \x20 - alert: A\n\
        \x20   expr: [up]\n\
        \x20   fro: 5m\n\
        \x20 - alert: B\n\
        \x20   for: 5m\n\
        \x20 - alert: C\n\
        \x20   expr: up ==\n";
    let errors = file::parse("r.yml", text, DEFAULTS).unwrap_err();
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let begins = [
        "r.yml:3:13: not a valid duration",
        "r.yml:4:3: limit: invalid type: string \"many\", expected",
        "r.yml:5:3: unknown field `owner`",
        "r.yml:8:5: expr: invalid type: sequence",
        "r.yml:9:5: unknown field `fro`",
        "r.yml:10:5: field 'expr' must be set in rule",
        "r.yml:13:11: could not parse expression",
    ];
    assert_eq!(told.len(), begins.len(), "{told:#?}");
    for (line, begin) in told.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}, expected {begin}");
    }
}

#[test]
fn a_negative_limit_is_none_as_in_prometheus() {
    let groups = parse("groups:\n- name: g\n  limit: -5\n  rules:\n  - {alert: A, expr: up}\n");
    assert_eq!(groups[0].limit, 0);
}

#[test]
fn rule_numbers_stay_when_a_rule_moves_and_tell_equal_rules_apart() {
    let ids = |text: &str| -> Vec<u64> {
        let text = format!("groups:\n- name: g\n  rules:\n{text}");
        parse(&text)[0].rules.iter().map(|rule| rule.id).collect()
    };
    let a = "  - {alert: A, expr: up}\n";
    let b = "  - {alert: A, expr: up, labels: {x: y}}\n";
    let first = ids(&format!("{a}{b}{a}"));
    let second = ids(&format!("{b}{a}{a}"));
    assert_eq!([first[1], first[0], first[2]], second[..]);
    assert_eq!(first.len(), 3);
    assert!(first[0] != first[1] && first[0] != first[2]);
    let longer = ids("  - {alert: A, expr: up, for: 5m, annotations: {x: y}}\n");
    assert_eq!(longer[0], first[0]);
    let changed = ids("  - {alert: A, expr: 'up == 0'}\n");
    assert_ne!(changed[0], first[0]);
}

/// Drives one alert from its beginning.
fn check_alert(times: Times, steps: &[Step]) -> Alerts {
    let mut alerts = Alerts::default();
    run(&mut alerts, times, steps);
    alerts
}

type Phase = Option<AlertPhase>;

/// Seconds, whether the expression gives it, and the phases of the expected change.
type Step = (i64, bool, Option<(Phase, Phase)>);

fn run(alerts: &mut Alerts, times: Times, steps: &[Step]) {
    for (secs, given, want) in steps {
        let results = if *given {
            result("x", "")
        } else {
            Results::new()
        };
        let (changes, outcome) = alerts.step(at(*secs), times, 0, results);
        outcome.unwrap();
        let got = changes.first().map(|change| (change.from, change.to));
        assert_eq!(got, *want, "at {secs} s");
        assert!(changes.len() <= 1);
    }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_ms(secs * 1_000)
}

fn labels(name: &str) -> Labels {
    Labels::from_pairs([("alertname", "A"), ("i", name)])
}

fn result(name: &str, note: &str) -> Results {
    let annotations = BTreeMap::from([("note".to_owned(), note.to_owned())]);
    Results::from([(labels(name), (annotations, 1.0))])
}

fn times(hold: u64, keep_firing: u64) -> Times {
    Times {
        hold: Duration::from_secs(hold),
        keep_firing: Duration::from_secs(keep_firing),
        resend_delay: MINUTE,
        grace: Duration::from_secs(600),
        tolerance: Duration::from_secs(3_600),
        is_blind: false,
    }
}

#[test]
fn a02_pending_fires_after_for_and_resolves_at_once() {
    check_alert(
        times(120, 0),
        &[
            (0, true, Some((None, Some(Pending)))),
            (60, true, None),
            (120, true, Some((Some(Pending), Some(Firing)))),
            (180, true, None),
            (240, false, Some((Some(Firing), Some(Resolved)))),
            (300, false, None),
            (240 + 900, false, None),
            (240 + 901, false, Some((Some(Resolved), None))),
        ],
    );
}

#[test]
fn a02_without_for_it_fires_in_the_first_evaluation() {
    let alerts = check_alert(times(0, 0), &[(5, true, Some((None, Some(Firing))))]);
    let alert = alerts.get(&labels("x")).unwrap();
    assert_eq!((alert.active_at, alert.fired_at), (at(5), Some(at(5))));
}

#[test]
fn a02_a_pending_alert_that_vanishes_is_forgotten() {
    check_alert(
        times(120, 0),
        &[
            (0, true, Some((None, Some(Pending)))),
            (60, false, Some((Some(Pending), None))),
            (120, true, Some((None, Some(Pending)))),
            (180, true, None),
        ],
    );
}

#[test]
fn a02_a_resolved_alert_that_returns_begins_anew() {
    let alerts = check_alert(
        times(60, 0),
        &[
            (0, true, Some((None, Some(Pending)))),
            (60, true, Some((Some(Pending), Some(Firing)))),
            (120, false, Some((Some(Firing), Some(Resolved)))),
            (180, true, Some((None, Some(Pending)))),
            (240, true, Some((Some(Pending), Some(Firing)))),
        ],
    );
    let alert = alerts.get(&labels("x")).unwrap();
    assert_eq!((alert.fired_at, alert.resolved_at), (Some(at(240)), None));
}

#[test]
fn a03_keep_firing_for_bridges_a_gap_and_starts_again_after_a_return() {
    let firing = Some(Firing);
    check_alert(
        times(0, 100),
        &[
            (0, true, Some((None, firing))),
            (60, false, Some((firing, firing))),
            (120, false, None),
            (150, true, Some((firing, firing))),
            (180, false, Some((firing, firing))),
            (240, false, None),
            (280, false, Some((firing, Some(Resolved)))),
        ],
    );
}

fn step(alerts: &mut Alerts, secs: i64, limit: usize, results: Results) -> Vec<Change> {
    alerts.step(at(secs), times(0, 0), limit, results).0
}

#[test]
fn a18_while_samples_are_missing_no_alert_ends_and_none_fires_unseen() {
    for (is_blind, want) in [(true, 0), (false, 2)] {
        let mut alerts = Alerts::default();
        let seen = |alerts: &mut Alerts, secs, times, results| {
            alerts.step(at(secs), times, 0, results).0.len()
        };
        seen(&mut alerts, 0, times(0, 0), result("fires", ""));
        seen(&mut alerts, 15, times(60, 0), both_of("fires", "waits"));
        let times = Times {
            is_blind,
            ..times(60, 0)
        };
        // Gone and resolved, or neither.
        assert_eq!(seen(&mut alerts, 90, times, Results::new()), want);
        // Back again, the one that waited has done so long enough.
        let changes = alerts.step(at(105), times, 0, both_of("fires", "waits")).0;
        let fires = changes.iter().filter(|c| c.to == Some(AlertPhase::Firing));
        assert_eq!(fires.count(), usize::from(is_blind));
    }
}

fn both_of(a: &str, b: &str) -> Results {
    let mut both = result(a, "");
    both.extend(result(b, ""));
    both
}

#[test]
fn a06_above_the_limit_nothing_stays_and_firing_alerts_resolve() {
    let mut alerts = Alerts::default();
    let mut both = result("x", "");
    step(&mut alerts, 0, 1, both.clone());
    both.extend(result("y", ""));
    let (changes, outcome) = alerts.step(at(60), times(0, 0), 1, both);
    assert_eq!(outcome.unwrap_err(), "exceeded limit of 1 with 2 alerts");
    let last = changes.last().unwrap();
    assert_eq!((last.from, last.to), (Some(Firing), Some(Resolved)));
    assert!(alerts.iter().all(|(_, alert)| alert.phase == Resolved));
}

#[test]
fn changed_annotations_are_written_once_per_resend_delay_and_do_not_wait() {
    let mut alerts = Alerts::default();
    assert!(step(&mut alerts, 0, 0, result("x", "a"))[0].is_urgent);
    assert!(step(&mut alerts, 15, 0, result("x", "b")).is_empty());
    assert!(step(&mut alerts, 30, 0, result("x", "c")).is_empty());
    let changes = step(&mut alerts, 60, 0, result("x", "c"));
    assert_eq!(changes.len(), 1);
    assert!(!changes[0].is_urgent);
    assert!(step(&mut alerts, 150, 0, result("x", "c")).is_empty());
}

#[test]
fn vmalerts_fields_are_let_through_with_a_warning_where_they_change_nothing() {
    let text = "groups:\n- name: g\n  type: prometheus\n  concurrency: 4\n  eval_delay: 30s\n  \
                rules:\n  - {alert: A, expr: up, debug: true}\n";
    let parsed = file::parse_lenient("r.yml", text, DEFAULTS).unwrap();
    assert_eq!(parsed.groups[0].query_offset, Duration::from_secs(30));
    let told: Vec<String> = parsed.extras.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(
        told.iter()
            .any(|t| t.starts_with("r.yml:5:15: eval_delay is a field of vmalert")),
        "{told:#?}"
    );
    assert_eq!(file::parse("r.yml", text, DEFAULTS).unwrap_err().len(), 4);
    let graphite = text.replace("prometheus", "graphite");
    assert!(file::parse_lenient("r.yml", &graphite, DEFAULTS).is_err());
}

#[test]
fn a_group_without_a_query_offset_has_the_global_one() {
    let defaults = Defaults {
        query_offset: MINUTE,
        ..DEFAULTS
    };
    let text = "groups:\n- name: a\n- {name: b, query_offset: 5s}\n- {name: c, query_offset: 0s}\n";
    let groups = file::parse("r.yml", text, defaults).unwrap();
    let offsets: Vec<u64> = groups.iter().map(|g| g.query_offset.as_secs()).collect();
    assert_eq!(offsets, [60, 5, 0]);
}
