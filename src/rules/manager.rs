//! The groups that run, and what becomes of them when others take their place.
//!
//! With a manual clock nothing runs by itself: [`Rules::tick`] does what is due.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::group::Group;
use super::late;
use super::load::{Loaded, Settings};
use super::moved;
use super::own::Sight;
use super::seat::{self, Seat};
use super::spec::GroupSpec;
use super::upkeep;
use super::view::GroupView;
use crate::model::Clock;
use crate::promql::Queryable as _;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Groups that evaluate at once: the rest waits, so that rules leave room for people.
pub(super) const GROUPS_AT_ONCE: usize = 4;

/// A handle to the running rules. Cloning gives another handle.
#[derive(Clone)]
pub struct Rules(Arc<Inner>);

/// What all groups share.
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(super) stop: CancellationToken,
    pub(super) gate: Semaphore,
    pub(super) sight: Arc<Sight>,
    pub(super) seats: tokio::sync::Mutex<Vec<Arc<Seat>>>,
    pub(super) view: Mutex<Arc<Vec<GroupView>>>,
    /// Series that the last evaluations of all groups selected.
    pub(super) selected: AtomicI64,
    /// What came to the store up to this number was looked at for late data.
    pub(super) seen: AtomicU64,
}

/// Starts the rules. They end soon after `stop`; a running evaluation is cancelled
/// and leaves its alerts as they are.
pub async fn start(
    loaded: Loaded,
    store: Store,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: Tasks,
    stop: CancellationToken,
) -> Rules {
    let seen = store.version().unwrap_or_default();
    let rules = Rules(Arc::new(Inner {
        seen: AtomicU64::new(seen),
        sight: Arc::new(Sight::new(store.clone(), Arc::clone(&metrics))),
        store,
        metrics,
        clock,
        tasks: tasks.clone(),
        stop: stop.clone(),
        gate: Semaphore::new(GROUPS_AT_ONCE),
        seats: tokio::sync::Mutex::default(),
        view: Mutex::default(),
        selected: AtomicI64::new(0),
    }));
    rules.0.show_gate();
    rules.reload(loaded).await;
    if !rules.0.is_manual() {
        let inner = Arc::clone(&rules.0);
        tasks.spawn("rules_upkeep", stop.clone(), move || {
            upkeep::run(Arc::clone(&inner))
        });
        let inner = Arc::clone(&rules.0);
        tasks.spawn("rules_late", stop, move || late::run(Arc::clone(&inner)));
    }
    rules
}

impl Rules {
    /// All groups in the order of the files.
    pub fn view(&self) -> Arc<Vec<GroupView>> {
        Arc::clone(&self.0.view())
    }

    /// Takes over other rules. Groups that say the same go on; in the others a rule
    /// that is still there keeps its alerts, and so does one that stands elsewhere now.
    /// Firing alerts of rules that are gone resolve, and their series end.
    pub async fn reload(&self, loaded: Loaded) {
        let inner = &self.0;
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "rule file is not as Prometheus takes it");
        }
        let mut seats = inner.seats.lock().await;
        let before = std::mem::take(&mut *seats);
        for seat in &before {
            seat.stop.cancel();
        }
        let mut old = Vec::with_capacity(before.len());
        for seat in before {
            // Waits for a running evaluation.
            let mut group = seat.group.lock().await.take();
            if let Some(group) = &mut group {
                group.follow_clock(inner.clock.stepped_ms());
            }
            old.push((seat, group));
        }
        let moves = Arc::new(inner.moves(&old, &loaded.groups).await);
        let mut states = moved::states(&mut old, &moves);
        // Before groups are read: from here on the rows are where their rules are.
        inner.settle(&loaded.groups, moves).await;
        let mut views = Vec::with_capacity(loaded.groups.len());
        for spec in loaded.groups {
            let same = |seat: &Seat| seat.spec.file == spec.file && seat.spec.name == spec.name;
            let kept = old.iter().position(|(seat, _)| same(seat));
            let group = kept.and_then(|at| old.swap_remove(at).1);
            let mut group = match group {
                Some(group) => Some(group.changed_to(Arc::clone(&spec))),
                None => inner.restored(&spec).await,
            };
            if let Some(group) = &mut group {
                group.follow_clock(inner.clock.stepped_ms());
                group.take_over(&mut states);
            }
            let view = match &group {
                Some(group) => group.view(),
                None => Group::restore(Arc::clone(&spec), None, |_| Vec::new()).view(),
            };
            views.push(view);
            seats.push(inner.seat(spec, Arc::clone(&loaded.settings), group));
        }
        *inner.view() = Arc::new(views);
        inner.remove(old, &seats).await;
        if !inner.is_manual() {
            for seat in seats.iter() {
                inner.run(seat);
            }
        }
    }

    /// Runs the rules again over the slots into which late data fell since the last
    /// time. For tests with a manual clock.
    pub async fn look_at_late_data(&self) {
        self.0.look_at_late_data().await;
    }

    /// Evaluates every group whose slot at the clock's time was not evaluated yet,
    /// one after the other. For tests with a manual clock.
    pub async fn tick(&self) {
        let seats = self.0.seats.lock().await.clone();
        for seat in seats {
            let slot = seat.slot(&self.0.clock);
            self.0.evaluate(&seat, slot).await;
        }
    }
}

impl Inner {
    fn is_manual(&self) -> bool {
        self.clock.is_manual()
    }

    pub(super) fn view(&self) -> MutexGuard<'_, Arc<Vec<GroupView>>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(
        &self,
        spec: Arc<GroupSpec>,
        settings: Arc<Settings>,
        group: Option<Group>,
    ) -> Arc<Seat> {
        let key = spec.key();
        let rules = &self.metrics.rules;
        rules.add_group(&key, spec.interval.as_secs_f64(), spec.rules.len());
        Arc::new(Seat {
            spec,
            settings,
            key,
            stop: self.stop.child_token(),
            group: tokio::sync::Mutex::new(group),
            selected: AtomicI64::new(0),
        })
    }

    fn run(self: &Arc<Inner>, seat: &Arc<Seat>) {
        let (inner, seat) = (Arc::clone(self), Arc::clone(seat));
        let stop = seat.stop.clone();
        self.tasks.spawn("rule_group", stop, move || {
            seat::run(Arc::clone(&inner), Arc::clone(&seat))
        });
    }
}
