//! One evaluation of a group: off the runtime, then one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::group::{Evaluation, Group, World};
use super::manager::{GROUPS_AT_ONCE, Inner};
use super::own::Beside;
use super::restore::restore;
use super::seat::Seat;
use super::view::GroupView;
use crate::model::Timestamp;
use crate::model::tenant::DEFAULT_TENANT;
use crate::store;
use crate::telemetry::metrics::ServiceName;

impl Inner {
    /// Evaluates a group for a slot, unless that was done.
    pub(super) async fn evaluate(&self, seat: &Arc<Seat>, slot: Timestamp) {
        let mut held = seat.group.lock().await;
        if held.as_ref().is_some_and(|g| g.last_eval == Some(slot)) {
            return;
        }
        let started = Instant::now();
        let permit = self.gate.acquire().await;
        self.show_gate();
        let done = self.off_the_runtime(seat, held.take(), slot).await;
        drop(permit);
        self.show_gate();
        if let Some((group, evaluation)) = done {
            self.count(seat, &evaluation);
            if evaluation.evaluated > 0 || !evaluation.batch.items.is_empty() {
                self.write(seat, evaluation).await;
            }
            self.publish(&group);
            *held = Some(group);
        }
        let secs = started.elapsed().as_secs_f64();
        let cycle = self
            .metrics
            .service
            .observe(ServiceName::Evaluator, "evaluation_cycle");
        cycle.observe(secs);
        let (rules, label) = (&self.metrics.rules, &[seat.key.as_str()]);
        rules.last_duration.with_label_values(label).set(secs);
        let last = rules.last_evaluation.with_label_values(label);
        last.set(slot.as_secs_f64());
        rules.iterations.with_label_values(label).inc();
    }

    /// Runs the queries on the blocking pool, for at most the query time-out.
    /// `None` when the state could not be read or the evaluation panicked.
    async fn off_the_runtime(
        &self,
        seat: &Arc<Seat>,
        group: Option<Group>,
        slot: Timestamp,
    ) -> Option<(Group, Evaluation)> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (flag, store, seat_) = (Arc::clone(&cancel), self.store.clone(), Arc::clone(seat));
        let (now, stepped_ms) = (self.clock.now(), self.clock.stepped_ms());
        let sight = Arc::clone(&self.sight);
        let mut work = tokio::task::spawn_blocking(move || {
            let mut group = match group {
                Some(group) => group,
                None => restore(&store, &seat_.spec)?,
            };
            if group.last_eval == Some(slot) {
                return Ok((group, Evaluation::default()));
            }
            let settings = &*seat_.settings;
            let own = sight.blind(
                (now, stepped_ms),
                settings.engine.options.lookback,
                &settings.instance,
            );
            let beside = own.as_deref().map(|own| Beside { base: &store, own });
            let world = World {
                data: beside.as_ref().map_or(&store as _, |beside| beside as _),
                settings,
                cancel: &flag,
                stepped_ms,
                is_blind: own.is_some(),
            };
            let evaluation = group.evaluate(slot, &world);
            Ok::<_, store::Error>((group, evaluation))
        });
        let joined = tokio::select! {
            joined = &mut work => joined,
            () = self.stop.cancelled() => {
                cancel.store(true, Ordering::Relaxed);
                work.await
            }
            () = tokio::time::sleep(seat.settings.timeout) => {
                cancel.store(true, Ordering::Relaxed);
                work.await
            }
        };
        match joined {
            Ok(Ok(done)) => Some(done),
            Ok(Err(err)) => {
                tracing::error!(group = seat.spec.name, error = %err, "cannot read the alerts of a group");
                None
            }
            Err(err) => {
                tracing::error!(group = seat.spec.name, error = %err, "evaluation of a group ended early");
                None
            }
        }
    }

    async fn write(&self, seat: &Seat, evaluation: Evaluation) {
        let group = seat.spec.name.as_str();
        match self.store.write(evaluation.into_batch()).await {
            Ok(committed) => {
                let refused: u32 = committed.outcomes.iter().map(|o| o.refused).sum();
                if refused > 0 {
                    tracing::warn!(group, refused, "samples of rules were refused");
                }
            }
            Err(err) => tracing::error!(group, error = %err, "cannot write an evaluation"),
        }
    }

    fn count(&self, seat: &Seat, evaluation: &Evaluation) {
        let rules = &self.metrics.rules;
        let label = &[seat.key.as_str()];
        let evaluations = rules.evaluations.with_label_values(label);
        evaluations.inc_by(evaluation.evaluated);
        let failures = rules.failures.with_label_values(label);
        failures.inc_by(evaluation.failed);
        let tenant = &[DEFAULT_TENANT];
        for (family, count) in [
            (&rules.evaluated, evaluation.evaluated),
            (&rules.errors, evaluation.failed),
        ] {
            family.with_label_values(tenant).inc_by(count);
        }
        for (tenant, count) in &evaluation.fired {
            let tenant = &[self.metrics.tenants.label(tenant)];
            rules
                .alerts_created
                .with_label_values(tenant)
                .inc_by(*count);
        }
        self.count_selected(seat, i64::try_from(evaluation.selected).unwrap_or(i64::MAX));
    }

    /// Keeps the sum over all groups up to date.
    pub(super) fn count_selected(&self, seat: &Seat, selected: i64) {
        let before = seat.selected.swap(selected, Ordering::Relaxed);
        let change = selected - before;
        let sum = self.selected.fetch_add(change, Ordering::Relaxed) + change;
        let queue = &self.metrics.service;
        queue
            .queue(ServiceName::Evaluator, "devices_to_evaluate")
            .set(sum);
    }

    fn publish(&self, group: &Group) {
        let view = group.view();
        let mut views = self.view();
        let views = Arc::make_mut(&mut views);
        let same = |old: &&mut GroupView| old.file == view.file && old.name == view.name;
        if let Some(old) = views.iter_mut().find(same) {
            *old = view;
        }
    }

    pub(super) fn show_gate(&self) {
        let free = self.gate.available_permits();
        let service = &self.metrics.service;
        service.set_pool(ServiceName::Evaluator, GROUPS_AT_ONCE, free);
    }
}
