//! How attempts end: judged, counted, committed together, and settled when that is durable.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use super::{Attempted, COMMIT_RETRY_MIN, Worker};
use crate::delivery::attempts;
use crate::delivery::outcome::{Done, Fate, batch};
use crate::delivery::queue::Row;
use crate::model::DeliveryKind;
use crate::store::{self, Committed};
use crate::telemetry::metrics::ServiceName;

/// How long an attempt's end waits for others before it is committed.
const LINGER: Duration = Duration::from_millis(20);
/// That of a failed try, which is written for people only.
const LINGER_OF_RETRY: Duration = Duration::from_secs(2);
const COMMIT_RETRY_MAX: Duration = Duration::from_secs(30);
/// A pause that people should hear of, as that of telemetry is from the first one on.
const PAUSE_TOLD: Duration = Duration::from_secs(30);
/// Failed notifications are told of at most so often.
const FAILURE_TOLD: Duration = Duration::from_secs(60);

impl Worker {
    pub(super) fn ended_attempt(&mut self, row: Row, attempted: Attempted) {
        let outcome = &attempted.outcome;
        let began = attempted.began.duration_since(self.started);
        self.breaker
            .record(outcome.receiver_failed, began, self.started.elapsed());
        self.tell_pause();
        self.gauges.set_reached(!outcome.receiver_failed);
        if outcome.unmade {
            let unmade = &self.seat.metrics.delivery.unmade;
            unmade.with_label_values(&[self.seat.options.kind]).inc();
        }
        let now = self.seat.clock.now();
        let mut done = Done::new(
            row,
            attempted.at,
            attempted.duration,
            attempted.outcome,
            &self.seat.options.schedule,
            now,
        );
        self.count(&done, attempted.duration);
        self.tell_failure(&done);
        if done.fate == Fate::Disable {
            self.disabled = true;
            let destination = self.seat.options.name.as_str();
            tracing::error!(
                destination,
                "destination answered 410, disabled until a reload"
            );
        }
        if done.is_retried_at_once() {
            // What is written of it needs no body, and an ordered queue keeps the row.
            let body = std::mem::take(&mut done.row.delivery.body);
            let mut again = done.row.clone();
            again.delivery.body = body;
            self.queue.put_back(again, now);
            if !attempts::is_written(&done.row.delivery) {
                return;
            }
        }
        self.commit_soon(&done);
        self.done.push(done);
    }

    fn commit_soon(&mut self, done: &Done) {
        let linger = match done.is_retried_at_once() {
            true => LINGER_OF_RETRY,
            false if self.seat.options.ordered => Duration::ZERO,
            false => LINGER,
        };
        let at = Instant::now() + linger;
        if self.done.is_empty() {
            self.commit_at = self.commit_at.max(at);
        } else if self.commit_retry == COMMIT_RETRY_MIN {
            self.commit_at = self.commit_at.min(at);
        }
    }

    /// Says once that the destination is paused, when that is long enough to notice.
    fn tell_pause(&mut self) {
        if !self.breaker.is_open() {
            self.pause_is_told = false;
        } else if !self.pause_is_told && self.breaker.pause(self.pace()) >= PAUSE_TOLD {
            self.pause_is_told = true;
            let destination = self.seat.options.name.as_str();
            tracing::warn!(destination, "destination keeps failing");
        }
    }

    /// Says that a notification counts as failed: once for each, and once in a while.
    fn tell_failure(&mut self, done: &Done) {
        if !done.has_failed || done.row.delivery.kind != DeliveryKind::Notification {
            return;
        }
        let now = Instant::now();
        if self.failure_told.is_some_and(|at| now < at + FAILURE_TOLD) {
            self.failures_untold += 1;
            return;
        }
        self.failure_told = Some(now);
        tracing::warn!(
            destination = self.seat.options.name.as_str(),
            event_id = done.row.delivery.event_id,
            error = done.attempt.error,
            left_out = std::mem::take(&mut self.failures_untold),
            "notification failed"
        );
    }

    fn count(&self, done: &Done, duration: Duration) {
        let (metrics, kind) = (&self.seat.metrics, self.seat.options.kind);
        let seconds = duration.as_secs_f64();
        metrics
            .delivery
            .seconds
            .with_label_values(&[kind])
            .observe(seconds);
        metrics
            .service
            .observe(ServiceName::DeliveryWorker, "delivery_attempt")
            .observe(seconds);
        let tenant = metrics.tenants.label(done.row.delivery.tenant_id.as_str());
        let result = done.fate.result();
        metrics
            .delivery
            .total
            .with_label_values(&[tenant, kind, result])
            .inc();
        if done.row.delivery.kind == DeliveryKind::Notification {
            let rules = &metrics.rules;
            for (family, is_counted) in [
                (&rules.notification_requests, true),
                (
                    &rules.notification_requests_failed,
                    done.fate != Fate::Delivered,
                ),
                (&rules.notifications_failed, done.has_failed),
            ] {
                if is_counted {
                    family.with_label_values(&[kind]).inc();
                }
            }
        }
        let mut shown = self.seat.shown.lock();
        match &done.attempt.error {
            None => shown.last_success = Some(done.attempt.at),
            Some(error) => {
                shown.failed += 1;
                shown.last_failure = Some(done.attempt.at);
                shown.last_error = Some(error.clone());
            }
        }
    }

    pub(super) fn start_commit(&mut self) {
        if self.committing.is_some() || self.done.is_empty() || Instant::now() < self.commit_at {
            return;
        }
        match batch(&self.seat.store, &mut self.kept, &self.done) {
            Ok((batch, covered)) => {
                let store = self.seat.store.clone();
                let write = Box::pin(async move { store.write(batch).await });
                let rest = self.done.split_off(covered);
                let covered = std::mem::replace(&mut self.done, rest);
                self.committing = Some((write, covered));
            }
            Err(err) => self.commit_later(&err),
        }
    }

    pub(super) fn ended_commit(
        &mut self,
        result: Result<Committed, store::Error>,
    ) -> ControlFlow<()> {
        let (_, mut covered) = self.committing.take().expect("a commit has just ended");
        match result {
            Ok(_) => {
                self.commit_retry = COMMIT_RETRY_MIN;
                covered.drain(..).for_each(|done| self.settle(done));
                ControlFlow::Continue(())
            }
            Err(err) => {
                covered.append(&mut self.done);
                self.done = covered;
                self.commit_later(&err);
                match err {
                    store::Error::Closed => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            }
        }
    }

    /// The end of an attempt is durable.
    fn settle(&mut self, done: Done) {
        if done.is_retried_at_once() {
            return;
        }
        let mut shown = self.seat.shown.lock();
        match done.fate {
            Fate::Delivered => shown.delivered += 1,
            Fate::Dead(_) => shown.dead += 1,
            Fate::Retry | Fate::Disable => {
                drop(shown);
                let now = self.seat.clock.now();
                return self.queue.put_back(done.row, now);
            }
        }
        drop(shown);
        if matches!(done.fate, Fate::Dead(_)) {
            let metrics = &self.seat.metrics;
            let tenant = metrics.tenants.label(done.row.delivery.tenant_id.as_str());
            metrics.delivery.dlq.with_label_values(&[tenant]).inc();
        }
        self.queue.forget(done.row.sequence);
        self.kept.end(done.row.sequence, done.row.delivery.kind);
    }

    fn commit_later(&mut self, err: &store::Error) {
        self.log_store_error(err);
        self.commit_at = Instant::now() + self.commit_retry;
        self.commit_retry = (self.commit_retry * 2).min(COMMIT_RETRY_MAX);
    }

    pub(super) fn log_store_error(&self, err: &store::Error) {
        if !matches!(err, store::Error::Closed) {
            let destination = self.seat.options.name.as_str();
            tracing::warn!(destination, error = %err, "outbox cannot be read or written");
        }
    }
}
