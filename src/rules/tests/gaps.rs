//! Rules on data of which something cannot be read.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{at, parse};
use crate::config::Config;
use crate::model::{Labels, Matcher, Sample, Timestamp, is_stale_nan};
use crate::promql::{QueryError, Queryable, SelectHints, Series};
use crate::rules::group::{Evaluation, Group, World};
use crate::rules::view::{RuleKind, RuleView};
use crate::rules::{AlertState, settings};
use crate::store::SeriesKey;

/// Two series, of which one may be in a page that is damaged.
struct Data {
    is_damaged: bool,
    /// The values of both.
    up: [f64; 2],
}

impl Queryable for Data {
    fn select(
        &self,
        _: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<Series>, QueryError> {
        if self.is_damaged {
            let gaps = hints.gaps.as_ref().expect("rules go on without it");
            gaps.note("l0-20231114.redb is damaged".to_owned());
        }
        let there = if self.is_damaged { 1 } else { 2 };
        let all = self.up[..there].iter().enumerate();
        let all = all.map(|(i, v)| Series {
            labels: Labels::from_pairs([("__name__", "up"), ("i", &i.to_string())]),
            samples: vec![Sample { t: end, v: *v }],
        });
        let wanted = |s: &Series| matchers.iter().all(|m| m.matches_labels(&s.labels));
        Ok(all.filter(wanted).collect())
    }
}

pub(super) const RULES: &str = "
groups:
- name: g
  rules:
  - {alert: Down, expr: up == 0}
  - {alert: Slow, expr: up == 0, for: 2m}
  - {record: seen, expr: up}
";

pub(super) fn evaluate(group: &mut Group, secs: i64, is_damaged: bool, up: [f64; 2]) -> Evaluation {
    let cancel = Arc::new(AtomicBool::new(false));
    let settings = settings(&Config::default());
    let data = Data { is_damaged, up };
    let world = World {
        data: &data,
        settings: &settings,
        cancel: &cancel,
        stepped_ms: 0,
        is_blind: false,
    };
    group.evaluate(at(secs), &world)
}

/// The states of a rule's alerts.
fn states(rule: &RuleView) -> Vec<AlertState> {
    let RuleKind::Alerting { alerts, .. } = &rule.kind else {
        panic!("no alerting rule");
    };
    alerts.iter().map(|alert| alert.state).collect()
}

/// How many series end.
fn ended(evaluation: &Evaluation) -> usize {
    let rows = &evaluation.batch.rows;
    let markers = rows.iter().filter(|row| is_stale_nan(row.v));
    let labels = markers.filter(|row| matches!(&row.series, SeriesKey::Labels(_)));
    labels.count()
}

#[test]
fn what_an_incomplete_answer_lacks_neither_ends_nor_resolves() {
    use AlertState::{Firing, Pending};
    let mut group = Group::restore(Arc::new(parse(RULES).remove(0)), None, |_| Vec::new());
    evaluate(&mut group, 0, false, [0.0, 0.0]);
    let view = group.view();
    assert_eq!(states(&view.rules[0]), [Firing; 2]);
    assert_eq!(states(&view.rules[1]), [Pending; 2]);

    // The second series cannot be read for two minutes. The first one is well.
    for secs in [60, 120] {
        let up = if secs == 60 { [0.0; 2] } else { [1.0, 0.0] };
        let evaluation = evaluate(&mut group, secs, true, up);
        assert_eq!((evaluation.failed, ended(&evaluation)), (0, 0));
        let view = group.view();
        for rule in &view.rules {
            assert_eq!(rule.healthy, Some(true));
            let error = rule.last_error.as_deref().unwrap_or_default();
            assert!(error.contains("l0-20231114.redb"), "{error}");
        }
        assert_eq!(states(&view.rules[0]), [Firing; 2], "at {secs}");
        assert_eq!(states(&view.rules[1]), [Pending; 2], "at {secs}");
    }
    assert_eq!(group.errors().count(), 0);

    // Whole again: the one that is still down goes on, the other one ends.
    let evaluation = evaluate(&mut group, 180, false, [1.0, 0.0]);
    let view = group.view();
    assert!(view.rules.iter().all(|rule| rule.last_error.is_none()));
    assert_eq!(states(&view.rules[0]), [Firing]);
    assert_eq!(states(&view.rules[1]), [Firing]);
    assert!(ended(&evaluation) > 0, "its ALERTS end");

    // A new alert begins on what can be read.
    evaluate(&mut group, 240, true, [0.0, 0.0]);
    assert_eq!(states(&group.view().rules[0]), [Firing; 2]);
}
