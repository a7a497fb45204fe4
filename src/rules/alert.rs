//! The state machine of one alerting rule: pure.
//!
//! As Prometheus, with three differences for the better. State is loaded from
//! the rows that were committed with each transition, so firing alerts and their
//! `keep_firing_for` survive a restart. A restored firing alert does not resolve
//! in the first evaluation. When a rule passes its limit, its firing alerts
//! resolve instead of vanishing untold. An alert that fires goes on firing when a
//! reload makes `for` longer.

use std::collections::{BTreeMap, btree_map};
use std::time::Duration;

use crate::model::alert::{AlertPhase, AlertRow};
use crate::model::{Labels, Timestamp};

/// How long a resolved alert is kept, so that people are told, in milliseconds.
pub(super) const RESOLVED_RETENTION_MS: i64 = 15 * 60 * 1_000;

/// One alert.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Alert {
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) phase: AlertPhase,
    pub(super) value: f64,
    pub(super) active_at: Timestamp,
    pub(super) fired_at: Option<Timestamp>,
    pub(super) resolved_at: Option<Timestamp>,
    pub(super) keep_firing_since: Option<Timestamp>,
    /// When its row was last written.
    written_at: Timestamp,
    /// Whether the annotations or the start are newer than the row.
    is_refreshed: bool,
    /// Whether the start is. It is written with the evaluation that moved it: after a kill
    /// a row with the old one would count what was taken off it again.
    is_moved: bool,
}

/// What the expression gave, with the rule's labels and annotations.
pub(super) type Results = BTreeMap<Labels, (BTreeMap<String, String>, f64)>;

/// The times of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) hold: Duration,
    pub(super) keep_firing: Duration,
    /// How often a changed annotation is written again.
    pub(super) resend_delay: Duration,
    /// See `[rules] for_grace_period`.
    pub(super) grace: Duration,
    /// See `[rules] for_outage_tolerance`.
    pub(super) tolerance: Duration,
    /// Whether what is missing may only be late: then no alert ends.
    pub(super) is_blind: bool,
}

/// What an evaluation did to one alert.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Change {
    pub(super) labels: Labels,
    /// The phase before; `None`: there was no alert, or it was resolved.
    pub(super) from: Option<AlertPhase>,
    /// The phase now; `None`: the row goes.
    pub(super) to: Option<AlertPhase>,
    pub(super) reason: &'static str,
    /// Whether it has to be durable before anything follows from it.
    pub(super) is_urgent: bool,
}

/// The alerts of one rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Alerts {
    active: BTreeMap<Labels, Alert>,
    /// When the process before was last heard of; taken by the first evaluation.
    down_since: Option<Timestamp>,
}

impl Alerts {
    /// The alerts of a process that is gone, last heard of at `last_eval`.
    pub(super) fn restore(rows: Vec<AlertRow>, last_eval: Option<Timestamp>) -> Alerts {
        let latest = rows.iter().map(|row| row.written_at).max();
        let active = rows.into_iter().map(|row| {
            let alert = Alert {
                annotations: row.annotations,
                phase: row.phase,
                value: row.value,
                active_at: row.active_at,
                fired_at: row.fired_at,
                resolved_at: row.resolved_at,
                keep_firing_since: row.keep_firing_since,
                written_at: row.written_at,
                is_refreshed: false,
                is_moved: false,
            };
            (row.labels, alert)
        });
        Alerts {
            active: active.collect(),
            down_since: last_eval.max(latest),
        }
    }

    /// All alerts, resolved ones included.
    pub(super) fn iter(&self) -> btree_map::Iter<'_, Labels, Alert> {
        self.active.iter()
    }

    /// One alert.
    pub(super) fn get(&self, labels: &Labels) -> Option<&Alert> {
        self.active.get(labels)
    }

    /// One evaluation at `ts`.
    ///
    /// # Errors
    /// When the rule has more than `limit` alerts (0: no limit), with the text of
    /// the error; the changes hold in this case too.
    pub(super) fn step(
        &mut self,
        ts: Timestamp,
        times: Times,
        limit: usize,
        results: Results,
    ) -> (Vec<Change>, Result<(), String>) {
        let restored = self.down_since.take();
        if let Some(down_since) = restored {
            self.shift_pending(ts, down_since, times);
        }
        let mut changes = Vec::new();
        let present: Vec<Labels> = results.keys().cloned().collect();
        for (labels, (annotations, value)) in results {
            self.see(ts, labels, annotations, value);
        }
        let mut gone = Vec::new();
        let mut count = 0;
        for (labels, alert) in &mut self.active {
            let is_present = present.binary_search(labels).is_ok();
            let keep = is_present || restored.is_some() || times.is_blind;
            let (change, is_active) = alert.advance(ts, times, is_present, keep);
            count += usize::from(is_active);
            if let Some((from, to, reason)) = change {
                if to.is_none() {
                    gone.push(labels.clone());
                }
                changes.push(Change {
                    labels: labels.clone(),
                    from,
                    to,
                    reason,
                    is_urgent: from != to || reason == KEPT || reason == RETURNED,
                });
            }
        }
        for labels in gone {
            self.active.remove(&labels);
        }
        if limit > 0 && count > limit {
            changes.extend(self.clear(ts, "the rule has more alerts than its limit"));
            let text = format!("exceeded limit of {limit} with {count} alerts");
            return (changes, Err(text));
        }
        (changes, Ok(()))
    }

    /// Ends every alert: pending ones go, firing ones resolve.
    pub(super) fn clear(&mut self, ts: Timestamp, reason: &'static str) -> Vec<Change> {
        let mut changes = Vec::new();
        for (labels, alert) in &mut self.active {
            let from = Some(alert.phase);
            let to = match alert.phase {
                AlertPhase::Resolved => continue,
                AlertPhase::Pending => None,
                AlertPhase::Firing => {
                    alert.resolve(ts);
                    Some(AlertPhase::Resolved)
                }
            };
            changes.push(Change {
                labels: labels.clone(),
                from,
                to,
                reason,
                is_urgent: true,
            });
        }
        self.active
            .retain(|_, alert| alert.phase != AlertPhase::Pending);
        changes
    }

    /// A result: refreshes its alert, or begins a new one.
    fn see(
        &mut self,
        ts: Timestamp,
        labels: Labels,
        annotations: BTreeMap<String, String>,
        value: f64,
    ) {
        match self.active.get_mut(&labels) {
            Some(alert) if alert.phase != AlertPhase::Resolved => {
                alert.value = value;
                if alert.annotations != annotations {
                    alert.annotations = annotations;
                    alert.is_refreshed = true;
                }
            }
            _ => {
                self.active
                    .insert(labels, Alert::new(ts, annotations, value));
            }
        }
    }

    /// The clock was stepped by `by_ms` while time went on: what was waited for, is
    /// waited for as long as before. Rows of pending alerts follow with the next
    /// evaluation, others with their next change.
    pub(super) fn shift(&mut self, by_ms: i64) {
        for alert in self.active.values_mut() {
            if alert.phase == AlertPhase::Pending {
                alert.active_at = alert.active_at.plus_ms(by_ms);
                alert.is_moved = true;
            }
            for at in [&mut alert.keep_firing_since, &mut alert.resolved_at] {
                *at = at.map(|at| at.plus_ms(by_ms));
            }
            if alert.written_at != Timestamp::MIN {
                alert.written_at = alert.written_at.plus_ms(by_ms);
            }
        }
    }

    /// Time during which nobody looked does not count for `for`. A clock that went
    /// back meanwhile takes the alerts along.
    fn shift_pending(&mut self, ts: Timestamp, down_since: Timestamp, times: Times) {
        let down = ts.ms_since(down_since);
        let (hold, grace) = (as_ms(times.hold), as_ms(times.grace));
        let too_long = down > as_ms(times.tolerance);
        for alert in self.active.values_mut() {
            if alert.phase != AlertPhase::Pending {
                continue;
            }
            let remaining = hold - down_since.ms_since(alert.active_at);
            if too_long {
                alert.active_at = ts;
            } else if remaining <= 0 {
                // Due already: fires in this evaluation.
            } else if remaining < grace && hold >= grace {
                alert.active_at = ts.plus_ms(grace - hold);
            } else {
                alert.active_at = alert.active_at.plus_ms(down);
            }
            alert.is_moved = true;
        }
    }
}

const NEW: &str = "the expression gives it";
const HELD: &str = "it lasted for long enough";
const VANISHED: &str = "the expression does not give it any more";
const KEPT: &str = "the expression does not give it, but keep_firing_for holds it";
const RETURNED: &str = "the expression gives it again";
const REFRESHED: &str = "its annotations or its start changed";
const FORGOTTEN: &str = "it was resolved long enough ago";

/// Phases before and after, and why.
type Advance = Option<(Option<AlertPhase>, Option<AlertPhase>, &'static str)>;

impl Alert {
    fn new(ts: Timestamp, annotations: BTreeMap<String, String>, value: f64) -> Alert {
        Alert {
            annotations,
            phase: AlertPhase::Pending,
            value,
            active_at: ts,
            fired_at: None,
            resolved_at: None,
            keep_firing_since: None,
            // Never: the row is not written yet.
            written_at: Timestamp::MIN,
            is_refreshed: false,
            is_moved: false,
        }
    }

    /// The row that says what the alert is now.
    pub(super) fn row(&self, labels: &Labels) -> AlertRow {
        AlertRow {
            file: String::new(),
            group: String::new(),
            rule: String::new(),
            query: String::new(),
            labels: labels.clone(),
            annotations: self.annotations.clone(),
            phase: self.phase,
            value: self.value,
            active_at: self.active_at,
            fired_at: self.fired_at,
            resolved_at: self.resolved_at,
            keep_firing_since: self.keep_firing_since,
            written_at: self.written_at,
        }
    }

    /// One evaluation: what changed, and whether the alert counts as active.
    /// `keep`: the alert may not resolve now.
    fn advance(
        &mut self,
        ts: Timestamp,
        times: Times,
        is_present: bool,
        keep: bool,
    ) -> (Advance, bool) {
        let is_new = self.written_at == Timestamp::MIN;
        let from = (!is_new).then_some(self.phase);
        let mut reason = is_new.then_some(NEW);
        if is_present {
            if self.keep_firing_since.take().is_some() {
                reason = Some(RETURNED);
            }
        } else {
            match self.absent(ts, times, keep) {
                Absence::Gone(why) => return (Some((from, None, why)), false),
                Absence::Resolved(why) => {
                    self.written_at = ts;
                    return (Some((from, Some(self.phase), why)), false);
                }
                Absence::Quiet => return (None, false),
                Absence::Kept(why) => reason = why,
            }
        }
        if self.phase == AlertPhase::Pending && ts.ms_since(self.active_at) >= as_ms(times.hold) {
            self.phase = AlertPhase::Firing;
            self.fired_at = Some(ts);
            reason = Some(HELD);
        }
        let is_due = ts.ms_since(self.written_at) >= as_ms(times.resend_delay);
        if reason.is_none() && (self.is_moved || (self.is_refreshed && is_due)) {
            reason = Some(REFRESHED);
        }
        if reason.is_some() {
            self.written_at = ts;
            self.is_refreshed = false;
            self.is_moved = false;
        }
        (reason.map(|why| (from, Some(self.phase), why)), true)
    }

    fn absent(&mut self, ts: Timestamp, times: Times, keep: bool) -> Absence {
        match self.phase {
            AlertPhase::Pending if times.is_blind => Absence::Quiet,
            AlertPhase::Pending => Absence::Gone(VANISHED),
            AlertPhase::Resolved => {
                let since = self.resolved_at.unwrap_or(ts);
                if ts.ms_since(since) > RESOLVED_RETENTION_MS {
                    Absence::Gone(FORGOTTEN)
                } else {
                    Absence::Quiet
                }
            }
            AlertPhase::Firing => {
                let is_first = self.keep_firing_since.is_none();
                if !times.keep_firing.is_zero() {
                    let since = *self.keep_firing_since.get_or_insert(ts);
                    if ts.ms_since(since) < as_ms(times.keep_firing) {
                        return Absence::Kept(is_first.then_some(KEPT));
                    }
                }
                if keep {
                    return Absence::Kept(None);
                }
                self.resolve(ts);
                Absence::Resolved(VANISHED)
            }
        }
    }

    fn resolve(&mut self, ts: Timestamp) {
        self.phase = AlertPhase::Resolved;
        self.resolved_at = Some(ts);
        self.keep_firing_since = None;
        self.written_at = ts;
    }
}

/// What becomes of an alert that the expression does not give.
enum Absence {
    Gone(&'static str),
    Resolved(&'static str),
    Kept(Option<&'static str>),
    Quiet,
}

fn as_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
