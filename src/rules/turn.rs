//! The evaluation of one rule: a query, and what its kind makes of the result.
//!
//! Where something of what it asks for cannot be read (a damaged page, a lost file), it
//! is evaluated on the rest and its health says so. A series that such an answer lacks
//! says nothing: an alert that it lacks neither ends nor resolves, pending ones wait on,
//! and a recorded series gets no staleness marker. An alert that it gives begins as ever,
//! as silence would be worse than one alert too many, and `for` waits in any case; so do
//! recorded values hold for what can be read.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;

use super::alert::{Alerts, Change, Results, Times};
use super::group::{Evaluation, Moved, RuleState, World, push_item, sample_time};
use super::overlay::Overlay;
use super::rows;
use super::spec::{Alerting, GroupSpec, Kind, RuleSpec, Text};
use crate::gotmpl::{Env, Limits, prometheus};
use crate::model::alert::{AlertPhase, AlertRow, alert_key};
use crate::model::history::Transition;
use crate::model::tenant::{DEFAULT_TENANT, TENANT_LABEL};
use crate::model::{HistogramSample, Labels, Sample, Timestamp, stale_nan};
use crate::promql::{self, Queryable, Value, VectorSample};
use crate::store::{StateOp, Table, Urgency};

const METRIC_NAME: &str = "__name__";
const ALERT_NAME: &str = "alertname";

/// The floats and the histograms that a recording rule gave.
type Recorded = (Vec<(Labels, f64)>, Vec<(Labels, HistogramSample)>);

/// The evaluation of one rule.
pub(super) struct Turn<'a, 'w> {
    pub(super) group: &'a GroupSpec,
    pub(super) rule: &'a RuleSpec,
    pub(super) ts: Timestamp,
    pub(super) world: &'a World<'w>,
    pub(super) overlay: &'a mut Overlay<'w>,
    pub(super) out: &'a mut Evaluation,
    /// What could not be read.
    pub(super) gap: Option<String>,
}

impl Turn<'_, '_> {
    /// Evaluates the rule and puts what it gave into the transaction.
    pub(super) fn run(&mut self, state: &mut RuleState) {
        let started = Instant::now();
        let mut ops = Vec::new();
        let outcome = match &self.rule.kind {
            Kind::Recording => self.record(),
            Kind::Alerting(alerting) => self
                .raise(alerting, &mut state.alerts, &mut ops)
                .map(|samples| (samples, Vec::new())),
        };
        let mut samples = Vec::new();
        match outcome {
            Ok((given, histograms)) => {
                self.show(&given, &histograms, &mut state.series);
                samples = given;
                self.out.histograms.extend(histograms);
                state.healthy = Some(true);
                state.last_error = self.gap.take();
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
        push_item(&mut self.out.batch, at, samples, ops);
        self.out.evaluated += 1;
        state.evaluation_secs = started.elapsed().as_secs_f64();
        state.last_evaluation = Some(self.ts);
    }

    /// Shows what the rule gave, and what it gave before and does not give any more,
    /// to the rules after it.
    fn show(
        &mut self,
        given: &[(Labels, f64)],
        histograms: &[(Labels, HistogramSample)],
        before: &mut BTreeSet<Labels>,
    ) {
        let t = sample_time(self.group, self.ts);
        let mut series = BTreeSet::new();
        for (labels, sample) in histograms {
            self.overlay.push_histogram(labels, sample.clone());
            series.insert(labels.clone());
        }
        for (labels, v) in given {
            self.overlay.push(labels, Sample { t, v: *v });
            series.insert(labels.clone());
        }
        if self.gap.is_some() {
            series.append(before);
        }
        for labels in before.difference(&series) {
            if !self.out.given.contains(labels) {
                let v = stale_nan();
                self.overlay.push(labels, Sample { t, v });
            }
            self.out.ended.insert(labels.clone());
        }
        self.out.given.extend(series.iter().cloned());
        *before = series;
    }

    /// The elements of the rule's expression.
    fn query(&mut self) -> Result<Vec<VectorSample>, String> {
        let at = sample_time(self.group, self.ts);
        let (all, gap) = elements(self.world, self.overlay, &self.rule.expr, at)?;
        self.gap = gap;
        Ok(all)
    }

    fn record(&mut self) -> Result<Recorded, String> {
        let mut seen = BTreeSet::new();
        let (mut samples, mut histograms) = (Vec::new(), Vec::new());
        let at = sample_time(self.group, self.ts);
        for sample in self.query()? {
            let mut builder = sample.labels.to_builder();
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
            match sample.histogram {
                Some(h) => histograms.push((labels, HistogramSample { t: at, h })),
                None => samples.push((labels, sample.v)),
            }
        }
        let (limit, count) = (self.group.limit, samples.len() + histograms.len());
        if limit > 0 && count > limit {
            return Err(format!("exceeded limit of {limit} with {count} series"));
        }
        Ok((samples, histograms))
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
            is_blind: self.world.is_blind || self.gap.is_some(),
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
    fn results(&mut self, alerting: &Alerting) -> Result<Results, String> {
        let mut results = Results::new();
        for sample in self.query()? {
            let (series, v) = (sample.labels, sample.v);
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
        self.out.moved.push(Moved {
            rule_id: self.rule.id,
            labels: change.labels.clone(),
            from: change.from,
            to: change.to,
        });
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
            file: self.group.file.clone(),
            group: self.group.name.clone(),
            rule: self.rule.name.clone(),
            labels: change.labels.to_map(),
            from: rows::phase_name(change.from).to_owned(),
            to: rows::phase_name(change.to).to_owned(),
            reason: change.reason.to_owned(),
            value: value.to_string(),
        };
        ops.push(rows::put_transition(
            &transition,
            self.ts,
            self.rule.id,
            seq,
        ));
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

/// The elements of an instant query as numbers; a histogram is 0, as it is to
/// Prometheus' alerts.
///
/// # Errors
/// As [`elements`].
pub(super) fn instant(
    world: &World<'_>,
    data: &dyn Queryable,
    expr: &promql::Expr,
    at: Timestamp,
) -> Result<Vec<(Labels, f64)>, String> {
    let all = elements(world, data, expr, at)?.0.into_iter();
    Ok(all.map(|s| (s.labels, s.v)).collect())
}

/// The elements of an instant query, and what of the data could not be read; a scalar is
/// one element without labels.
///
/// # Errors
/// With the error's text, and when the result is neither vector nor scalar.
pub(super) fn elements(
    world: &World<'_>,
    data: &dyn Queryable,
    expr: &promql::Expr,
    at: Timestamp,
) -> Result<(Vec<VectorSample>, Option<String>), String> {
    let output = world
        .settings
        .engine
        .instant(data, expr, at, world.cancel)
        .map_err(|err| err.to_string())?;
    let all = match output.value {
        Value::Vector { samples, .. } => samples,
        Value::Scalar { v, .. } => vec![VectorSample {
            labels: Labels::empty(),
            v,
            histogram: None,
        }],
        _ => return Err("rule result is not a vector or scalar".to_owned()),
    };
    let gap = output.is_incomplete.then(|| output.warnings.join("; "));
    Ok((all, gap))
}
