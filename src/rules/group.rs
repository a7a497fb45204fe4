//! One rule group: an evaluation is a function of its state, the time and the samples.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::alert::Alerts;
use super::load::Settings;
use super::overlay::Overlay;
use super::rows::put_group;
use super::spec::{GroupSpec, Kind, RuleSpec};
use super::turn::Turn;
use super::view::{AlertState, AlertView, GroupView, RuleKind, RuleView};
use crate::model::alert::{AlertPhase, AlertRow, RuleGroupRow};
use crate::model::{HistogramSample, Labels, Timestamp, stale_nan};
use crate::promql::Queryable;
use crate::store::{Item, Row, SeriesKey, StateOp, Urgency, WriteBatch, histogram_rows};

/// The state of a group between evaluations.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) spec: Arc<GroupSpec>,
    rules: Vec<RuleState>,
    /// The time of the last evaluation, this process' or an earlier one's.
    pub(super) last_eval: Option<Timestamp>,
    /// Series that the last evaluation of a rule gave which is not there any more.
    orphans: BTreeSet<Labels>,
    evaluation_secs: f64,
    definition: u64,
    /// How far the clock was stepped at the last evaluation.
    stepped_ms: Option<i64>,
}

/// The state of a rule between evaluations.
#[derive(Debug, Default)]
pub(super) struct RuleState {
    pub(super) alerts: Alerts,
    /// What the last good evaluation gave: each gets a staleness marker when it ends.
    pub(super) series: BTreeSet<Labels>,
    pub(super) healthy: Option<bool>,
    pub(super) last_error: Option<String>,
    pub(super) evaluation_secs: f64,
    pub(super) last_evaluation: Option<Timestamp>,
}

/// What an evaluation needs besides the group.
pub(super) struct World<'a> {
    pub(super) data: &'a dyn Queryable,
    pub(super) settings: &'a Settings,
    pub(super) cancel: &'a Arc<AtomicBool>,
    /// How far the clock was stepped, see [`crate::model::Clock::stepped_ms`].
    pub(super) stepped_ms: i64,
    /// Whether samples may be missing that will still come: then nothing resolves.
    pub(super) is_blind: bool,
}

/// What an evaluation gave.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    /// To be written in one transaction, together with the histograms.
    pub(super) batch: WriteBatch,
    /// Native histograms that were recorded.
    pub(super) histograms: Vec<(Labels, HistogramSample)>,
    /// Series that the queries selected.
    pub(super) selected: u64,
    pub(super) evaluated: u64,
    pub(super) failed: u64,
    /// Alerts that began to fire, by tenant.
    pub(super) fired: BTreeMap<String, u64>,
    /// Alerts that changed their phase.
    pub(super) moved: Vec<Moved>,
    /// Series that some rule gave.
    pub(super) given: BTreeSet<Labels>,
    /// Series that a rule gave before and does not give any more.
    pub(super) ended: BTreeSet<Labels>,
}

/// An alert that changed its phase; `None` is inactive.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) rule_id: u64,
    pub(super) labels: Labels,
    pub(super) from: Option<AlertPhase>,
    pub(super) to: Option<AlertPhase>,
}

impl Evaluation {
    /// The transaction with everything in it.
    pub(super) fn into_batch(self) -> WriteBatch {
        let mut batch = self.batch;
        let mut rows = Vec::new();
        for (labels, sample) in &self.histograms {
            match histogram_rows(labels, sample) {
                Some(parts) => rows.extend(parts),
                None => tracing::warn!(
                    name = labels.metric_name(),
                    "a recorded histogram has its buckets too far apart to be stored"
                ),
            }
        }
        if !rows.is_empty() {
            batch.push(rows, Item::default());
        }
        batch
    }
}

impl Group {
    /// A group with the alerts of a process that is gone; `rows` gives those of a rule.
    pub(super) fn restore(
        spec: Arc<GroupSpec>,
        last_eval: Option<Timestamp>,
        mut rows: impl FnMut(u64) -> Vec<AlertRow>,
    ) -> Group {
        let mut group = Group::new(spec, last_eval);
        for (spec, state) in group.spec.rules.iter().zip(&mut group.rules) {
            let rows = rows(spec.id);
            if !rows.is_empty() {
                state.alerts = Alerts::restore(rows, last_eval);
            }
        }
        group
    }

    fn new(spec: Arc<GroupSpec>, last_eval: Option<Timestamp>) -> Group {
        Group {
            rules: spec.rules.iter().map(|_| RuleState::default()).collect(),
            definition: spec.definition(),
            spec,
            last_eval,
            orphans: BTreeSet::new(),
            evaluation_secs: 0.0,
            stepped_ms: None,
        }
    }

    /// The group under another definition: a rule that is still there keeps its state.
    pub(super) fn changed_to(mut self, spec: Arc<GroupSpec>) -> Group {
        let mut old: BTreeMap<u64, RuleState> = BTreeMap::new();
        for (rule, state) in self.spec.rules.iter().zip(self.rules.drain(..)) {
            old.insert(rule.id, state);
        }
        let mut group = Group::new(spec, self.last_eval);
        for (rule, state) in group.spec.rules.iter().zip(&mut group.rules) {
            if let Some(kept) = old.remove(&rule.id) {
                *state = kept;
            }
        }
        group.orphans = self.orphans;
        group.stepped_ms = self.stepped_ms;
        for state in old.into_values() {
            group.orphans.extend(state.series);
        }
        group
    }

    /// The states of the rules for which `moved` has a new number, with that number.
    pub(super) fn give_up(&mut self, moved: impl Fn(u64) -> Option<u64>) -> Vec<(u64, RuleState)> {
        let rules = self.spec.rules.iter().zip(&mut self.rules);
        let given =
            rules.filter_map(|(rule, state)| Some((moved(rule.id)?, std::mem::take(state))));
        given.collect()
    }

    /// Takes the states of those of its rules that stood elsewhere.
    pub(super) fn take_over(&mut self, states: &mut HashMap<u64, RuleState>) {
        for (rule, state) in self.spec.rules.iter().zip(&mut self.rules) {
            if let Some(moved) = states.remove(&rule.id) {
                *state = moved;
            }
        }
    }

    /// The series that end with the group.
    pub(super) fn series(&self) -> impl Iterator<Item = &Labels> {
        let rules = self.rules.iter().flat_map(|state| &state.series);
        rules.chain(&self.orphans)
    }

    /// Evaluates all rules in order at `ts`. Blocking, as long as its queries run.
    pub(super) fn evaluate(&mut self, ts: Timestamp, world: &World<'_>) -> Evaluation {
        let started = Instant::now();
        self.follow_clock(world.stepped_ms);
        let mut overlay = Overlay::new(world.data);
        let mut out = Evaluation {
            batch: WriteBatch {
                urgency: Urgency::RideAlong,
                sheds: true,
                volatile: true,
                ..WriteBatch::default()
            },
            ..Evaluation::default()
        };
        let spec = Arc::clone(&self.spec);
        let at = sample_time(&spec, ts);
        out.ended = std::mem::take(&mut self.orphans);
        for (rule, state) in spec.rules.iter().zip(&mut self.rules) {
            let mut turn = Turn {
                group: &spec,
                rule,
                ts,
                world,
                overlay: &mut overlay,
                out: &mut out,
                gap: None,
            };
            turn.run(state);
        }
        if out.batch.urgency == Urgency::RideAlong && self.has_pending() {
            out.batch.urgency = Urgency::Soon;
        }
        // A series that moved from one rule to another has not ended.
        let ended = out.ended.difference(&out.given);
        let markers = ended.map(|labels| (labels.clone(), stale_nan())).collect();
        self.last_eval = Some(ts);
        let row = RuleGroupRow {
            last_eval: ts,
            definition: self.definition,
        };
        push_item(&mut out.batch, at, markers, vec![put_group(row, &spec)]);
        out.selected = overlay.selected();
        self.evaluation_secs = started.elapsed().as_secs_f64();
        out
    }

    /// Whether some alert waits to fire. After a kill the time since the last evaluation
    /// that is on disk does not count for its `for`: with 10 s more of it, it fired 10 s
    /// later than in Prometheus. Groups share a commit, so it costs at most one a second.
    fn has_pending(&self) -> bool {
        let mut alerts = self.rules.iter().flat_map(|state| state.alerts.iter());
        alerts.any(|(_, alert)| alert.phase == AlertPhase::Pending)
    }

    /// What was counted before a step of the clock goes on after it.
    pub(super) fn follow_clock(&mut self, stepped_ms: i64) {
        let by = stepped_ms - self.stepped_ms.replace(stepped_ms).unwrap_or(stepped_ms);
        if by != 0 {
            self.rules
                .iter_mut()
                .for_each(|state| state.alerts.shift(by));
        }
    }

    /// Labels and annotations of the firing alerts of the rules of that name.
    pub(super) fn firing<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a Labels, &'a BTreeMap<String, String>)> {
        let rules = self.spec.rules.iter().zip(&self.rules);
        let named = rules
            .filter(move |(rule, _)| rule.name == name && matches!(rule.kind, Kind::Alerting(_)));
        let alerts = named.flat_map(|(_, state)| state.alerts.iter());
        let firing = alerts.filter(|(_, alert)| alert.phase == AlertPhase::Firing);
        firing.map(|(labels, alert)| (labels, &alert.annotations))
    }

    /// The rules whose last evaluation failed, with the error.
    pub(super) fn errors(&self) -> impl Iterator<Item = (&str, &str)> {
        let rules = self.spec.rules.iter().zip(&self.rules);
        let failed = rules.filter(|(_, state)| state.healthy == Some(false));
        failed.filter_map(|(rule, state)| Some((rule.name.as_str(), state.last_error.as_deref()?)))
    }

    /// What pages and the API see.
    pub(super) fn view(&self) -> GroupView {
        let rules = self.spec.rules.iter().zip(&self.rules);
        let times = self.rules.iter().map(|state| state.last_evaluation);
        GroupView {
            name: self.spec.name.clone(),
            file: self.spec.file.clone(),
            interval_secs: self.spec.interval.as_secs_f64(),
            limit: self.spec.limit,
            rules: rules.map(|(rule, state)| state.view(rule)).collect(),
            evaluation_secs: self.evaluation_secs,
            last_evaluation: times.max().flatten(),
        }
    }
}

/// The time that queries look at and results get.
pub(super) fn sample_time(spec: &GroupSpec, ts: Timestamp) -> Timestamp {
    let offset = i64::try_from(spec.query_offset.as_millis()).unwrap_or(i64::MAX);
    ts.minus_ms(offset)
}

/// Adds what one rule gave to the transaction.
pub(super) fn push_item(
    batch: &mut WriteBatch,
    at: Timestamp,
    samples: Vec<(Labels, f64)>,
    always: Vec<StateOp>,
) {
    if samples.is_empty() && always.is_empty() {
        return;
    }
    let rows = samples.into_iter().map(|(labels, v)| Row {
        series: SeriesKey::Labels(labels),
        t: at,
        v,
    });
    let item = Item {
        always,
        ..Item::default()
    };
    batch.push(rows, item);
}

impl RuleState {
    fn view(&self, rule: &RuleSpec) -> RuleView {
        RuleView {
            name: rule.name.clone(),
            query: rule.query.clone(),
            labels: rule.labels.clone(),
            kind: match &rule.kind {
                Kind::Recording => RuleKind::Recording,
                Kind::Alerting(alerting) => RuleKind::Alerting {
                    for_secs: alerting.hold.as_secs_f64(),
                    keep_firing_secs: alerting.keep_firing.as_secs_f64(),
                    annotations: alerting.annotations.clone(),
                    alerts: self.alert_views(),
                },
            },
            healthy: self.healthy,
            last_error: self.last_error.clone(),
            evaluation_secs: self.evaluation_secs,
            last_evaluation: self.last_evaluation,
        }
    }

    fn alert_views(&self) -> Vec<AlertView> {
        let mut views = Vec::new();
        for (labels, alert) in self.alerts.iter() {
            let state = match alert.phase {
                AlertPhase::Pending => AlertState::Pending,
                AlertPhase::Firing => AlertState::Firing,
                AlertPhase::Resolved => continue,
            };
            views.push(AlertView {
                labels: labels.clone(),
                annotations: alert.annotations.clone(),
                state,
                active_at: alert.active_at,
                keep_firing_since: alert.keep_firing_since,
                value: alert.value,
            });
        }
        views
    }
}
