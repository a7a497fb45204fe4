//! One rule group: an evaluation is a function of its state, the time and the samples.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;

use super::alert::{Alerts, Change, Results, Times};
use super::load::Settings;
use super::overlay::Overlay;
use super::rows::{self, GroupRow, Transition};
use super::spec::{Alerting, GroupSpec, Kind, RuleSpec, Text};
use super::view::{AlertState, AlertView, GroupView, RuleKind, RuleView};
use crate::gotmpl::{Env, Limits, prometheus};
use crate::model::alert::{AlertPhase, AlertRow, alert_key};
use crate::model::tenant::{DEFAULT_TENANT, TENANT_LABEL};
use crate::model::{Labels, Sample, Timestamp, stale_nan};
use crate::promql::{self, Queryable, Value};
use crate::store::{Item, Row, SeriesKey, StateOp, Table, Urgency, WriteBatch};

const METRIC_NAME: &str = "__name__";
const ALERT_NAME: &str = "alertname";

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
}

#[derive(Debug, Default)]
struct RuleState {
    alerts: Alerts,
    /// What the last good evaluation gave: each gets a staleness marker when it ends.
    series: BTreeSet<Labels>,
    healthy: Option<bool>,
    last_error: Option<String>,
    evaluation_secs: f64,
    last_evaluation: Option<Timestamp>,
}

/// What an evaluation needs besides the group.
pub(super) struct World<'a> {
    pub(super) data: &'a dyn Queryable,
    pub(super) settings: &'a Settings,
    pub(super) cancel: &'a Arc<AtomicBool>,
}

/// What an evaluation gave.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    /// To be written in one transaction.
    pub(super) batch: WriteBatch,
    /// Series that the queries selected.
    pub(super) selected: u64,
    pub(super) evaluated: u64,
    pub(super) failed: u64,
    /// Alerts that began to fire, by tenant.
    pub(super) fired: BTreeMap<String, u64>,
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
        for state in old.into_values() {
            group.orphans.extend(state.series);
        }
        group
    }

    /// The series that end with the group.
    pub(super) fn series(&self) -> impl Iterator<Item = &Labels> {
        let rules = self.rules.iter().flat_map(|state| &state.series);
        rules.chain(&self.orphans)
    }

    /// Evaluates all rules in order at `ts`. Blocking, as long as its queries run.
    pub(super) fn evaluate(&mut self, ts: Timestamp, world: &World<'_>) -> Evaluation {
        let started = Instant::now();
        let mut overlay = Overlay::new(world.data);
        let mut out = Evaluation {
            batch: WriteBatch {
                urgency: Urgency::RideAlong,
                ..WriteBatch::default()
            },
            ..Evaluation::default()
        };
        let spec = Arc::clone(&self.spec);
        let at = sample_time(&spec, ts);
        let ended = std::mem::take(&mut self.orphans);
        let markers = ended.into_iter().map(|labels| (labels, stale_nan()));
        let markers: Vec<(Labels, f64)> = markers.collect();
        push_item(&mut out.batch, &mut overlay, at, markers, Vec::new());
        for (rule, state) in spec.rules.iter().zip(&mut self.rules) {
            let mut turn = Turn {
                group: &spec,
                rule,
                ts,
                world,
                overlay: &mut overlay,
                out: &mut out,
            };
            turn.run(state);
        }
        self.last_eval = Some(ts);
        let row = GroupRow {
            last_eval: ts,
            definition: self.definition,
        };
        push_item(
            &mut out.batch,
            &mut overlay,
            at,
            Vec::new(),
            vec![row.put(&spec)],
        );
        out.selected = overlay.selected();
        self.evaluation_secs = started.elapsed().as_secs_f64();
        out
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
fn sample_time(spec: &GroupSpec, ts: Timestamp) -> Timestamp {
    let offset = i64::try_from(spec.query_offset.as_millis()).unwrap_or(i64::MAX);
    ts.minus_ms(offset)
}

/// Adds what one rule gave to the transaction, and shows it to the rules after it.
fn push_item(
    batch: &mut WriteBatch,
    overlay: &mut Overlay<'_>,
    at: Timestamp,
    samples: Vec<(Labels, f64)>,
    always: Vec<StateOp>,
) {
    if samples.is_empty() && always.is_empty() {
        return;
    }
    let rows = samples.into_iter().map(|(labels, v)| {
        overlay.push(&labels, Sample { t: at, v });
        Row {
            series: SeriesKey::Labels(labels),
            t: at,
            v,
        }
    });
    let item = Item {
        always,
        ..Item::default()
    };
    batch.push(rows, item);
}

/// The evaluation of one rule.
struct Turn<'a, 'w> {
    group: &'a GroupSpec,
    rule: &'a RuleSpec,
    ts: Timestamp,
    world: &'a World<'w>,
    overlay: &'a mut Overlay<'w>,
    out: &'a mut Evaluation,
}

impl Turn<'_, '_> {
    fn run(&mut self, state: &mut RuleState) {
        let started = Instant::now();
        let mut ops = Vec::new();
        let outcome = match &self.rule.kind {
            Kind::Recording => self.record(),
            Kind::Alerting(alerting) => self.raise(alerting, &mut state.alerts, &mut ops),
        };
        let mut samples = Vec::new();
        match outcome {
            Ok(given) => {
                let series: BTreeSet<Labels> = given.iter().map(|(l, _)| l.clone()).collect();
                let ended = state.series.difference(&series);
                samples.extend(ended.map(|labels| (labels.clone(), stale_nan())));
                samples.extend(given);
                state.series = series;
                state.healthy = Some(true);
                state.last_error = None;
            }
            Err(error) => {
                self.out.failed += 1;
                tracing::warn!(
                    group = self.group.name,
                    rule = self.rule.name,
                    error,
                    "cannot evaluate rule"
                );
                state.healthy = Some(false);
                state.last_error = Some(error);
            }
        }
        let at = sample_time(self.group, self.ts);
        push_item(&mut self.out.batch, self.overlay, at, samples, ops);
        self.out.evaluated += 1;
        state.evaluation_secs = started.elapsed().as_secs_f64();
        state.last_evaluation = Some(self.ts);
    }

    /// The elements of the rule's expression.
    fn query(&self) -> Result<Vec<(Labels, f64)>, String> {
        let at = sample_time(self.group, self.ts);
        instant(self.world, self.overlay, &self.rule.expr, at)
    }

    fn record(&mut self) -> Result<Vec<(Labels, f64)>, String> {
        let mut seen = BTreeSet::new();
        let mut samples = Vec::new();
        for (labels, v) in self.query()? {
            let mut builder = labels.to_builder();
            builder.set(METRIC_NAME, &self.rule.name);
            for (name, value) in &self.rule.labels {
                builder.set(name, value);
            }
            let labels = builder.build();
            if !seen.insert(labels.clone()) {
                return Err(
                    "vector contains metrics with the same labelset after applying rule labels"
                        .to_owned(),
                );
            }
            samples.push((labels, v));
        }
        let (limit, count) = (self.group.limit, samples.len());
        if limit > 0 && count > limit {
            return Err(format!("exceeded limit of {limit} with {count} series"));
        }
        Ok(samples)
    }

    fn raise(
        &mut self,
        alerting: &Alerting,
        alerts: &mut Alerts,
        ops: &mut Vec<StateOp>,
    ) -> Result<Vec<(Labels, f64)>, String> {
        let results = self.results(alerting)?;
        let settings = self.world.settings;
        let times = Times {
            hold: alerting.hold,
            keep_firing: alerting.keep_firing,
            resend_delay: settings.resend_delay,
            grace: settings.for_grace_period,
            tolerance: settings.for_outage_tolerance,
        };
        let (changes, outcome) = alerts.step(self.ts, times, self.group.limit, results);
        for (seq, change) in changes.iter().enumerate() {
            self.note(change, seq, alerts, ops);
        }
        outcome?;
        let mut samples = Vec::new();
        for (labels, alert) in alerts.iter() {
            if alert.phase != AlertPhase::Resolved {
                samples.extend(self.alert_samples(labels, alert.phase, alert.active_at));
            }
        }
        Ok(samples)
    }

    /// The expression's elements with the rule's labels and annotations.
    fn results(&self, alerting: &Alerting) -> Result<Results, String> {
        let mut results = Results::new();
        for (series, v) in self.query()? {
            let mut builder = series.without(METRIC_NAME).to_builder();
            for (name, text) in &alerting.label_texts {
                builder.set(name, &self.expand(text, &series, v));
            }
            builder.set(ALERT_NAME, &self.rule.name);
            let annotations = alerting.annotation_texts.iter();
            let annotations = annotations
                .map(|(name, text)| (name.clone(), self.expand(text, &series, v)))
                .collect();
            if results.insert(builder.build(), (annotations, v)).is_some() {
                return Err(
                    "vector contains metrics with the same labelset after applying alert labels"
                        .to_owned(),
                );
            }
        }
        Ok(results)
    }

    /// A label's or annotation's text for one series. A failure becomes the text.
    fn expand(&self, text: &Text, series: &Labels, v: f64) -> String {
        let template = match text {
            Text::Plain(text) => return text.clone(),
            Text::Template(template) => template,
        };
        let settings = self.world.settings;
        let data = prometheus::data(series, &settings.external_labels, &settings.external_url, v);
        let query = |text: &str| {
            let expr = promql::parse(text).map_err(|err| err.to_string())?;
            instant(self.world, self.overlay, &expr, self.ts)
        };
        let env = Env {
            query: &query,
            external_url: &settings.external_url,
            now: self.ts,
            limits: Limits::default(),
        };
        template.execute(&data, &env).unwrap_or_else(|err| {
            let name = &self.rule.name;
            format!("<error expanding template: error executing template __alert_{name}: {err}>")
        })
    }

    /// Turns a change into rows.
    fn note(&mut self, change: &Change, seq: usize, alerts: &Alerts, ops: &mut Vec<StateOp>) {
        let key = Bytes::from(alert_key(self.rule.id, &change.labels));
        let alert = alerts.get(&change.labels);
        let value = alert.map_or(f64::NAN, |alert| alert.value);
        ops.push(match alert {
            Some(alert) if change.to.is_some() => {
                let row = AlertRow {
                    file: self.group.file.clone(),
                    group: self.group.name.clone(),
                    rule: self.rule.name.clone(),
                    query: self.rule.query.clone(),
                    ..alert.row(&change.labels)
                };
                StateOp::Put {
                    table: Table::Alert,
                    key,
                    value: Bytes::from(row.encode()),
                }
            }
            _ => StateOp::Delete {
                table: Table::Alert,
                key,
            },
        });
        if change.is_urgent {
            self.out.batch.urgency = Urgency::Commit;
        }
        if change.from == change.to {
            return;
        }
        if change.to == Some(AlertPhase::Firing) {
            let tenant = match change.labels.value(TENANT_LABEL) {
                "" => DEFAULT_TENANT,
                tenant => tenant,
            };
            *self.out.fired.entry(tenant.to_owned()).or_default() += 1;
        }
        // That a resolved alert is forgotten is no transition.
        if change.from == Some(AlertPhase::Resolved) && change.to.is_none() {
            return;
        }
        let transition = Transition {
            file: &self.group.file,
            group: &self.group.name,
            rule: &self.rule.name,
            labels: rows::pairs(&change.labels),
            from: rows::phase_name(change.from),
            to: rows::phase_name(change.to),
            reason: change.reason,
            value: value.to_string(),
        };
        ops.push(transition.put(self.ts, self.rule.id, seq));
    }

    /// `ALERTS` and `ALERTS_FOR_STATE` of one alert.
    fn alert_samples(
        &self,
        labels: &Labels,
        phase: AlertPhase,
        active_at: Timestamp,
    ) -> [(Labels, f64); 2] {
        let mut builder = labels.to_builder();
        builder.set(METRIC_NAME, "ALERTS_FOR_STATE");
        let for_state = builder.build();
        builder.set(METRIC_NAME, "ALERTS");
        builder.set("alertstate", phase.as_str());
        let since = active_at.as_ms().div_euclid(1_000) as f64;
        [(builder.build(), 1.0), (for_state, since)]
    }
}

/// The elements of an instant query; a scalar is one element without labels.
fn instant(
    world: &World<'_>,
    data: &dyn Queryable,
    expr: &promql::Expr,
    at: Timestamp,
) -> Result<Vec<(Labels, f64)>, String> {
    let output = world
        .settings
        .engine
        .instant(data, expr, at, world.cancel)
        .map_err(|err| err.to_string())?;
    match output.value {
        Value::Vector { samples, .. } => Ok(samples.into_iter().map(|s| (s.labels, s.v)).collect()),
        Value::Scalar { v, .. } => Ok(vec![(Labels::empty(), v)]),
        _ => Err("rule result is not a vector or scalar".to_owned()),
    }
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
