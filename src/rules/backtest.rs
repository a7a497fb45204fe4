//! What rules would have done over stored history: the same state machine at the
//! same slots, with nothing written and nobody told.
//!
//! What the rules under test record themselves stays in memory and hides what is
//! stored under the same names from the start on, so a rule whose expression
//! changed is not fed with the results of the old one. Alerts begin anew at the
//! start. Owns nothing; it must never write to the store.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::group::{Group, Moved, World};
use super::load::Settings;
use super::memory::Memory;
use super::merge;
pub use super::notices::Notice;
use super::notices::{self, Turning};
use super::spec::{GroupSpec, Kind};
use crate::alerting::Plans;
use crate::model::alert::AlertPhase;
use crate::model::{Labels, Matcher, Timestamp};
use crate::promql::{HistogramSeries, QueryError, Queryable, SelectHints, Series};

/// Evaluations of rules in one backtest: a day of 35 rules at 15 s.
const EVALUATIONS_MAX: i64 = 200_000;

/// Samples that the rules may record in one backtest.
const SAMPLES_MAX: usize = 5_000_000;

/// Intervals that are told of one rule; all are counted.
const INTERVALS_MAX: usize = 1_000;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// More than one may ask for at once.
    #[error("{0} evaluations of rules are asked for, at most 200000 are made: choose less time")]
    TooLong(i64),
    /// The rules record more than fits.
    #[error("the rules record more than 5000000 samples: choose less time")]
    TooMuch,
    /// The store cannot be read.
    #[error("cannot read what is stored: {0}")]
    Read(String),
    /// The caller gave up or the time ran out.
    #[error("backtest was canceled")]
    Cancelled,
}

/// What the rules would have done.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Evaluations of rules.
    pub evaluations: u64,
    /// Those that failed.
    pub failures: u64,
    /// In the order of the file.
    pub rules: Vec<RuleReport>,
    /// What people would have been told, in the order of time.
    pub notifications: Vec<Notice>,
}

/// What one rule would have done.
#[derive(Debug, Serialize)]
pub struct RuleReport {
    /// The group's name.
    pub group: String,
    /// The rule's name.
    pub name: String,
    /// `alerting` or `recording`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The error of its last evaluation.
    #[serde(rename = "lastError", skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How often an alert began to fire.
    pub fired: u64,
    /// How often an alert was pending and never fired.
    #[serde(rename = "pendingOnly")]
    pub pending_only: u64,
    /// How long its alerts fired, all together.
    #[serde(rename = "firingSeconds")]
    pub firing_secs: f64,
    /// The first thousand times that an alert fired.
    pub intervals: Vec<Interval>,
}

/// One time that an alert fired.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Interval {
    /// The alert's labels.
    #[serde(serialize_with = "as_map")]
    pub labels: Labels,
    /// Unix seconds: since when the expression gave it.
    #[serde(rename = "activeAt", serialize_with = "as_secs")]
    pub active_at: Timestamp,
    /// Unix seconds: since when it fired.
    #[serde(rename = "firedAt", serialize_with = "as_secs")]
    pub fired_at: Timestamp,
    /// Unix seconds: when it resolved; nothing when it fired to the end.
    #[serde(rename = "resolvedAt", serialize_with = "as_secs_option")]
    pub resolved_at: Option<Timestamp>,
}

fn as_secs<S: serde::Serializer>(t: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(t.as_secs_f64())
}

fn as_secs_option<S: serde::Serializer>(t: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match t {
        Some(t) => to.serialize_f64(t.as_secs_f64()),
        None => to.serialize_none(),
    }
}

fn as_map<S: serde::Serializer>(labels: &Labels, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(labels.iter())
}

/// Runs the groups over the slots in `start..=end`. Blocking, for as long as the
/// queries of all these evaluations take.
///
/// # Errors
/// See [`BacktestError`].
pub fn run(
    data: &dyn Queryable,
    groups: Vec<Arc<GroupSpec>>,
    settings: &Settings,
    plans: &Plans,
    (start, end): (Timestamp, Timestamp),
    cancel: &Arc<AtomicBool>,
) -> Result<Report, BacktestError> {
    let evaluations = evaluations(&groups, (start, end));
    if evaluations > EVALUATIONS_MAX {
        return Err(BacktestError::TooLong(evaluations));
    }
    let mut replay = replay(data, groups, settings, (start, end), cancel)?;
    let rules = replay
        .groups
        .iter()
        .flat_map(|group| rule_reports(group, &mut replay.records, end))
        .collect();
    Ok(Report {
        evaluations: replay.evaluated,
        failures: replay.failed,
        rules,
        notifications: notices::notices(replay.turnings, plans, end),
    })
}

/// How many evaluations of rules the slots in a range are.
pub(super) fn evaluations(groups: &[Arc<GroupSpec>], (start, end): (Timestamp, Timestamp)) -> i64 {
    let span = end.ms_since(start).max(0);
    let count = |group: &Arc<GroupSpec>| {
        let rules = i64::try_from(group.rules.len()).unwrap_or(i64::MAX);
        (span / group.interval_ms()).saturating_mul(rules)
    };
    groups.iter().map(count).fold(0, i64::saturating_add)
}

/// What groups did over stored history.
pub(super) struct Replay {
    groups: Vec<Group>,
    /// By the number of the rule.
    pub(super) records: BTreeMap<u64, Record>,
    turnings: Vec<Turning>,
    /// What they recorded.
    pub(super) recorded: Memory,
    pub(super) evaluated: u64,
    failed: u64,
}

/// Evaluates the groups at all their slots in `start..=end`.
///
/// # Errors
/// When it is cancelled, and when too much is recorded.
pub(super) fn replay(
    data: &dyn Queryable,
    groups: Vec<Arc<GroupSpec>>,
    settings: &Settings,
    (start, end): (Timestamp, Timestamp),
    cancel: &Arc<AtomicBool>,
) -> Result<Replay, BacktestError> {
    let mut past = Past {
        stored: data,
        recorded: Memory::default(),
        hidden: Hidden::of(&groups),
        start,
    };
    let mut records: BTreeMap<u64, Record> = BTreeMap::new();
    let mut turnings = Vec::new();
    let (mut evaluated, mut failed, mut samples) = (0, 0, 0);
    let fresh = |spec: &Arc<GroupSpec>| Group::restore(Arc::clone(spec), None, |_| Vec::new());
    let mut running: Vec<Group> = groups.iter().map(fresh).collect();
    // By time, and at one time by the order of the file.
    let mut due = BTreeSet::new();
    for (at, group) in groups.iter().enumerate() {
        due.insert((group.first_slot(start), at));
    }
    while let Some((ts, at)) = due.pop_first() {
        if ts > end {
            continue;
        }
        if cancel.load(Ordering::Relaxed) {
            return Err(BacktestError::Cancelled);
        }
        let world = World {
            data: &past,
            settings,
            stepped_ms: 0,
            is_blind: false,
            cancel,
        };
        let mut evaluation = running[at].evaluate(ts, &world);
        evaluated += evaluation.evaluated;
        failed += evaluation.failed;
        for moved in std::mem::take(&mut evaluation.moved) {
            turnings.extend(turning(ts, &moved));
            records.entry(moved.rule_id).or_default().take(ts, moved);
        }
        samples += evaluation.batch.rows.len() + evaluation.histograms.len();
        if samples > SAMPLES_MAX {
            return Err(BacktestError::TooMuch);
        }
        past.recorded.take(evaluation);
        due.insert((ts.plus_ms(groups[at].interval_ms()), at));
    }
    Ok(Replay {
        groups: running,
        records,
        turnings,
        recorded: past.recorded,
        evaluated,
        failed,
    })
}

/// What a change means for notifications.
fn turning(ts: Timestamp, moved: &Moved) -> Option<Turning> {
    let fires = match (moved.from, moved.to) {
        (_, Some(AlertPhase::Firing)) => true,
        (Some(AlertPhase::Firing), _) => false,
        _ => return None,
    };
    Some(Turning {
        at: ts,
        labels: moved.labels.clone(),
        fires,
    })
}

/// What one rule did so far.
#[derive(Default)]
pub(super) struct Record {
    /// Since when each alert that is active now is pending and fires.
    active: BTreeMap<Labels, (Timestamp, Option<Timestamp>)>,
    pub(super) done: Vec<Interval>,
    pending_only: u64,
}

impl Record {
    fn take(&mut self, ts: Timestamp, moved: Moved) {
        match moved.to {
            Some(AlertPhase::Pending) => {
                self.active.insert(moved.labels, (ts, None));
            }
            Some(AlertPhase::Firing) => {
                let alert = self.active.entry(moved.labels).or_insert((ts, None));
                alert.1 = Some(ts);
            }
            Some(AlertPhase::Resolved) | None => {
                if let Some(alert) = self.active.remove(&moved.labels) {
                    self.end(moved.labels, alert, Some(ts));
                }
            }
        }
    }

    fn end(
        &mut self,
        labels: Labels,
        (active_at, fired_at): (Timestamp, Option<Timestamp>),
        resolved_at: Option<Timestamp>,
    ) {
        match fired_at {
            Some(fired_at) => self.done.push(Interval {
                labels,
                active_at,
                fired_at,
                resolved_at,
            }),
            None => self.pending_only += 1,
        }
    }

    /// Ends what is still active, without an end, and sorts by time.
    pub(super) fn finished(mut self) -> Record {
        for (labels, alert) in std::mem::take(&mut self.active) {
            self.end(labels, alert, None);
        }
        self.done
            .sort_unstable_by(|a, b| (a.fired_at, &a.labels).cmp(&(b.fired_at, &b.labels)));
        self
    }
}

fn rule_reports(
    group: &Group,
    records: &mut BTreeMap<u64, Record>,
    end: Timestamp,
) -> Vec<RuleReport> {
    let view = group.view();
    let rules = group.spec.rules.iter().zip(view.rules);
    let report = |(rule, view): (&super::spec::RuleSpec, super::view::RuleView)| {
        let record = records.remove(&rule.id).unwrap_or_default().finished();
        let lasting = |i: &Interval| i.resolved_at.unwrap_or(end).ms_since(i.fired_at);
        let firing_ms: i64 = record.done.iter().map(lasting).sum();
        RuleReport {
            group: group.spec.name.clone(),
            name: rule.name.clone(),
            kind: match rule.kind {
                Kind::Recording => "recording",
                Kind::Alerting(_) => "alerting",
            },
            last_error: view.last_error,
            fired: record.done.len() as u64,
            pending_only: record.pending_only,
            firing_secs: firing_ms as f64 / 1e3,
            intervals: record.done.into_iter().take(INTERVALS_MAX).collect(),
        }
    };
    rules.map(report).collect()
}

/// Series that the rules under test make themselves.
struct Hidden {
    recorded: HashSet<String>,
    alerts: HashSet<String>,
}

impl Hidden {
    fn of(groups: &[Arc<GroupSpec>]) -> Hidden {
        let rules = groups.iter().flat_map(|group| &group.rules);
        let (recording, alerting): (Vec<_>, Vec<_>) =
            rules.partition(|rule| matches!(rule.kind, Kind::Recording));
        Hidden {
            recorded: recording.iter().map(|rule| rule.name.clone()).collect(),
            alerts: alerting.iter().map(|rule| rule.name.clone()).collect(),
        }
    }

    fn holds(&self, labels: &Labels) -> bool {
        match labels.metric_name() {
            "ALERTS" | "ALERTS_FOR_STATE" => self.alerts.contains(labels.value("alertname")),
            name => self.recorded.contains(name),
        }
    }
}

/// What is stored, with what the rules record instead from the start on.
struct Past<'a> {
    stored: &'a dyn Queryable,
    recorded: Memory,
    hidden: Hidden,
    start: Timestamp,
}

impl Queryable for Past<'_> {
    fn select(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<Series>, QueryError> {
        let mut series = self.stored.select(start, end, matchers, hints)?;
        for old in &mut series {
            if self.hidden.holds(&old.labels) {
                let kept = old.samples.partition_point(|s| s.t < self.start);
                old.samples.truncate(kept);
            }
        }
        series.retain(|old| !old.samples.is_empty());
        let recorded = self.recorded.select(start, end, matchers, hints)?;
        merge::series(&mut series, recorded, hints.series_max)?;
        Ok(series)
    }

    fn histograms(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<HistogramSeries>, QueryError> {
        let mut series = self.stored.histograms(start, end, matchers, hints)?;
        for old in &mut series {
            if self.hidden.holds(&old.labels) {
                let kept = old.samples.partition_point(|s| s.t < self.start);
                old.samples.truncate(kept);
            }
        }
        let recorded = self.recorded.histograms(start, end, matchers, hints)?;
        merge::histograms(&mut series, recorded);
        series.retain(|old| !old.samples.is_empty());
        Ok(series)
    }
}
