//! Late data: samples of a time that the rules have already looked at.
//!
//! A device that was cut off sends what it kept; a broker delivers what came while we
//! were down. Once a minute the groups run again over the slots into which such data
//! fell, over what is stored now. What a recording rule gives and gave not then is
//! stored. What it gave then stays: a stored value is never replaced, so a value that
//! would be another one now is only counted. An alert that would have fired is an entry
//! in the history ([`RETROACTIVE`]), with the time at which it would have; nobody is
//! paged for what is past, and the alerts of now do not change.
//!
//! Bounded: six hours back, and [`EVALUATIONS_MAX`] evaluations at a time; what is beyond
//! is left out and counted. Native histograms are not recomputed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::backtest::{self, BacktestError, Interval, Replay};
use super::load::Settings;
use super::manager::Inner;
use super::rows;
use super::spec::{GroupSpec, Kind, RuleSpec};
use crate::model::history::Transition;
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, Matcher, Sample, Timestamp, is_stale_nan};
use crate::promql::{QueryError, Queryable, SelectHints, Series};
use crate::store::{Item, Row, SeriesKey, StateOp, Urgency, WriteBatch};

/// Data this much behind the clock is late; less is the way of messages.
const LATE_MS: i64 = 3 * 60_000;

/// How often it is asked whether late data came.
const INTERVAL: Duration = Duration::from_secs(60);

/// How far back slots are looked at again.
const BACK_MS: i64 = 6 * 3_600_000;

/// How long before the late data alerts begin anew, so that their `for` is right.
const HOLD_MS_MAX: i64 = 3_600_000;

/// Evaluations of rules at a time.
const EVALUATIONS_MAX: i64 = 20_000;

/// Alerts that are noted at a time.
const ALERTS_MAX: usize = 1_000;

/// What an alert became that only late data shows.
pub(super) const RETROACTIVE: &str = "retroactive";

/// What came of a look at late data.
#[derive(Debug, Default)]
struct Found {
    /// To be written; empty when there is nothing.
    pub(super) batch: WriteBatch,
    pub(super) evaluated: u64,
    /// Samples that were missing.
    pub(super) filled: u64,
    /// Samples that would have another value now.
    pub(super) differing: u64,
    /// Alerts that would have fired.
    pub(super) alerts: u64,
    /// Whether the slots were too many, or too far back.
    pub(super) is_cut: bool,
}

impl Inner {
    /// Looks at the data that came since the last time, and writes what it gave.
    pub(super) async fn look_at_late_data(&self) {
        let seats = self.seats.lock().await.clone();
        let Some(settings) = seats.first().map(|seat| Arc::clone(&seat.settings)) else {
            return;
        };
        let groups: Vec<_> = seats.iter().map(|seat| Arc::clone(&seat.spec)).collect();
        let next = self.store.version().unwrap_or_default();
        let seen = self.seen.swap(next, Ordering::Relaxed);
        let (store, now) = (self.store.clone(), self.clock.now());
        let cancel = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancel);
        let work = move || look(&store, seen, &groups, &settings, now, &flag);
        let mut work = tokio::task::spawn_blocking(work);
        let looked = tokio::select! {
            looked = &mut work => looked,
            () = self.stop.cancelled() => {
                cancel.store(true, Ordering::Relaxed);
                work.await
            }
        };
        match looked {
            Ok(Ok(found)) => self.take_late(found).await,
            Ok(Err(err)) => tracing::warn!(error = %err, "cannot look at late data"),
            // The runtime ends, or a panic that was reported where it happened.
            Err(_) => {}
        }
    }

    async fn take_late(&self, found: Found) {
        let rules = &self.metrics.rules;
        for (counter, count) in [
            (&rules.late_evaluations, found.evaluated),
            (&rules.late_filled, found.filled),
            (&rules.late_differing, found.differing),
            (&rules.late_alerts, found.alerts),
            (&rules.late_cut, u64::from(found.is_cut)),
        ] {
            counter.inc_by(count);
        }
        if found.batch.items.is_empty() {
            return;
        }
        let (samples, alerts) = (found.filled, found.alerts);
        tracing::info!(
            samples,
            alerts,
            "late data changed what rules say of the past"
        );
        if let Err(err) = self.store.write(found.batch).await {
            tracing::error!(error = %err, "cannot write what late data gave");
        }
    }
}

/// Looks once in a while.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        inner.look_at_late_data().await;
    }
}

/// Looks at the data that came after `version`; gives what has to be written. Blocking.
///
/// # Errors
/// When the store cannot be read, or `cancel` is set.
fn look(
    data: &dyn Queryable,
    version: u64,
    groups: &[Arc<GroupSpec>],
    settings: &Settings,
    now: Timestamp,
    cancel: &Arc<AtomicBool>,
) -> Result<Found, BacktestError> {
    let mut found = Found::default();
    let from = data.changed_since(version);
    if groups.is_empty() || now.ms_since(from) < LATE_MS {
        return Ok(found);
    }
    let oldest = now.minus_ms(BACK_MS);
    found.is_cut = from < oldest;
    let from = from.max(oldest);
    let start = from.minus_ms(longest_hold(groups));
    if backtest::evaluations(groups, (start, now)) > EVALUATIONS_MAX {
        found.is_cut = true;
        return Ok(found);
    }
    let replay = backtest::replay(data, groups.to_vec(), settings, (start, now), cancel)?;
    found.evaluated = replay.evaluated;
    found.batch = WriteBatch {
        urgency: Urgency::RideAlong,
        sheds: true,
        volatile: true,
        ..WriteBatch::default()
    };
    let range = (from, now);
    let fill = |err: QueryError| BacktestError::Read(err.to_string());
    for group in groups {
        for rule in &group.rules {
            if matches!(rule.kind, Kind::Recording) {
                found.fill(data, rule, &replay, range).map_err(fill)?;
            }
        }
    }
    found.note(data, groups, replay, range).map_err(fill)?;
    Ok(found)
}

/// The longest `for`, as far as it is followed.
fn longest_hold(groups: &[Arc<GroupSpec>]) -> i64 {
    let rules = groups.iter().flat_map(|group| &group.rules);
    let holds = rules.filter_map(|rule| match &rule.kind {
        Kind::Alerting(alerting) => i64::try_from(alerting.hold.as_millis()).ok(),
        Kind::Recording => None,
    });
    holds.max().unwrap_or(0).min(HOLD_MS_MAX)
}

impl Found {
    /// The samples of a recording rule that were missing.
    fn fill(
        &mut self,
        data: &dyn Queryable,
        rule: &RuleSpec,
        replay: &Replay,
        (from, end): (Timestamp, Timestamp),
    ) -> Result<(), QueryError> {
        let matchers = [Matcher::equal(METRIC_NAME, &rule.name)];
        let hints = SelectHints::default();
        let now = replay.recorded.select(from, end, &matchers, &hints)?;
        let then = data.select(from, end, &matchers, &hints)?;
        let mut rows = Vec::new();
        for series in now {
            let stored = then.binary_search_by(|old| old.labels.cmp(&series.labels));
            let stored = stored.map_or(&[][..], |at| &then[at].samples);
            self.missing(&series, stored, &mut rows);
        }
        if !rows.is_empty() {
            self.filled += rows.len() as u64;
            self.batch.push(rows, Item::default());
        }
        Ok(())
    }

    fn missing(&mut self, now: &Series, then: &[Sample], rows: &mut Vec<Row>) {
        for sample in now.samples.iter().filter(|s| !is_stale_nan(s.v)) {
            match then.binary_search_by_key(&sample.t, |s| s.t) {
                Ok(at) => {
                    let is_same = then[at].v.to_bits() == sample.v.to_bits();
                    self.differing += u64::from(!is_same);
                }
                Err(_) => rows.push(Row {
                    series: SeriesKey::Labels(now.labels.clone()),
                    t: sample.t,
                    v: sample.v,
                }),
            }
        }
    }

    /// Alerts that would have fired, and of which the rules knew nothing.
    fn note(
        &mut self,
        data: &dyn Queryable,
        groups: &[Arc<GroupSpec>],
        mut replay: Replay,
        (from, end): (Timestamp, Timestamp),
    ) -> Result<(), QueryError> {
        let mut ops = Vec::new();
        for group in groups {
            for rule in &group.rules {
                let Some(record) = replay.records.remove(&rule.id) else {
                    continue;
                };
                for interval in record.finished().done {
                    let is_inside = interval.fired_at >= from && interval.fired_at <= end;
                    if !is_inside || ops.len() >= ALERTS_MAX {
                        continue;
                    }
                    if !was_known(data, &interval, end)? {
                        ops.push(entry(group, rule, &interval));
                    }
                }
            }
        }
        if !ops.is_empty() {
            self.alerts = ops.len() as u64;
            self.batch.urgency = Urgency::Commit;
            let item = Item {
                always: ops,
                ..Item::default()
            };
            self.batch.push([], item);
        }
        Ok(())
    }
}

/// Whether the rules had the alert, pending or firing, at some time of the interval.
fn was_known(
    data: &dyn Queryable,
    interval: &Interval,
    end: Timestamp,
) -> Result<bool, QueryError> {
    let mut matchers = vec![Matcher::equal(METRIC_NAME, "ALERTS")];
    let labels = interval.labels.iter();
    matchers.extend(labels.map(|(name, value)| Matcher::equal(name, value)));
    let end = interval.resolved_at.unwrap_or(end);
    let found = data.select(interval.active_at, end, &matchers, &SelectHints::default())?;
    let is_it = |labels: &Labels| {
        let mut builder = labels.to_builder();
        builder.remove(METRIC_NAME).remove("alertstate");
        builder.build() == interval.labels
    };
    let mut same = found.iter().filter(|series| is_it(&series.labels));
    Ok(same.any(|series| series.samples.iter().any(|s| !is_stale_nan(s.v))))
}

/// The entry of the history. The same alert at the same time has the same key, however
/// often it is found.
fn entry(group: &GroupSpec, rule: &RuleSpec, interval: &Interval) -> StateOp {
    let till = match interval.resolved_at {
        Some(at) => format!("to {}", at.to_rfc3339()),
        None => "on".to_owned(),
    };
    let transition = Transition {
        file: group.file.clone(),
        group: group.name.clone(),
        rule: rule.name.clone(),
        labels: interval.labels.to_map(),
        from: rows::phase_name(None).to_owned(),
        to: RETROACTIVE.to_owned(),
        reason: format!(
            "late data shows that it would have fired from {} {till}; nobody was told",
            interval.fired_at.to_rfc3339()
        ),
        value: String::new(),
    };
    let seq = interval.labels.fingerprint() & u64::from(u32::MAX);
    let seq = usize::try_from(seq).expect("32 bits");
    rows::put_transition(&transition, interval.fired_at, rule.id, seq)
}
