//! Runs the groups: when each is due, in a task of its own, one transaction for
//! each evaluation.
//!
//! An evaluation belongs to a slot: the interval's multiples, moved by a hash of
//! file and name so that groups do not all run at once. A slot that passed while
//! the group was busy is counted and left out, never made up for. With a manual
//! clock nothing runs by itself: [`Rules::tick`] does what is due.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::group::{Evaluation, Group, World};
use super::late;
use super::load::{Loaded, Settings};
use super::own::{Beside, Sight};
use super::spec::GroupSpec;
use super::upkeep;
use super::view::GroupView;
use crate::model::alert::{AlertRow, RuleGroupRow, alert_rule_prefix, rule_group_key};
use crate::model::tenant::DEFAULT_TENANT;
use crate::model::{Clock, Labels, Timestamp, stale_nan};
use crate::promql::Queryable as _;
use crate::store::{self, Item, Row, SeriesKey, Store, Table, Urgency, WriteBatch};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ServiceName;

/// Groups that evaluate at once: the rest waits, so that rules leave room for people.
const GROUPS_AT_ONCE: usize = 4;

/// A sleeping group looks at the clock at least this often, because it may jump.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Alerts of one rule that are restored.
const ALERTS_PER_RULE_MAX: usize = 100_000;

/// How often it is asked whether late data came.
const LATE_INTERVAL: Duration = Duration::from_secs(60);

/// How often resolved alerts of removed rules and old history are cleared away.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(600);

/// A handle to the running rules. Cloning gives another handle.
#[derive(Clone)]
pub struct Rules(Arc<Inner>);

struct Inner {
    store: Store,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: Tasks,
    stop: CancellationToken,
    gate: Semaphore,
    sight: Arc<Sight>,
    seats: tokio::sync::Mutex<Vec<Arc<Seat>>>,
    view: Mutex<Arc<Vec<GroupView>>>,
    /// Series that the last evaluations of all groups selected.
    selected: AtomicI64,
    /// What came to the store up to this number was looked at for late data.
    seen: AtomicU64,
}

/// A group with its task.
struct Seat {
    spec: Arc<GroupSpec>,
    settings: Arc<Settings>,
    key: String,
    stop: CancellationToken,
    /// `None` before the first evaluation and after one that panicked: then the
    /// state comes from the store.
    group: tokio::sync::Mutex<Option<Group>>,
    selected: AtomicI64,
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
            upkeep_loop(Arc::clone(&inner))
        });
        let inner = Arc::clone(&rules.0);
        tasks.spawn("rules_late", stop, move || late_loop(Arc::clone(&inner)));
    }
    rules
}

impl Rules {
    /// All groups in the order of the files.
    pub fn view(&self) -> Arc<Vec<GroupView>> {
        Arc::clone(&self.0.view())
    }

    /// Takes over other rules. Groups that say the same go on; in the others a rule
    /// that is still there keeps its alerts. Firing alerts of rules that are gone
    /// resolve, and their series end.
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
            let group = seat.group.lock().await.take();
            old.push((seat, group));
        }
        let mut views = Vec::with_capacity(loaded.groups.len());
        for spec in loaded.groups {
            let same = |seat: &Seat| seat.spec.file == spec.file && seat.spec.name == spec.name;
            let kept = old.iter().position(|(seat, _)| same(seat));
            let group = kept.and_then(|at| old.swap_remove(at).1);
            let group = match group {
                Some(group) => Some(group.changed_to(Arc::clone(&spec))),
                None => inner.restored(&spec).await,
            };
            let view = match &group {
                Some(group) => group.view(),
                None => Group::restore(Arc::clone(&spec), None, |_| Vec::new()).view(),
            };
            views.push(view);
            seats.push(inner.seat(spec, Arc::clone(&loaded.settings), group));
        }
        *inner.view() = Arc::new(views);
        inner.remove(old).await;
        inner.settle(&seats).await;
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

impl Seat {
    /// The slot that the clock is in. Each time that the clock goes back, slots move
    /// by a millisecond: the hours that come again get samples of their own.
    fn slot(&self, clock: &Clock) -> Timestamp {
        let offset = self.spec.offset_ms() + i64::from(clock.steps_back());
        let now = clock.now();
        now.minus_ms(offset)
            .floor_to(self.spec.interval_ms())
            .plus_ms(offset)
    }
}

impl Inner {
    fn is_manual(&self) -> bool {
        self.clock.is_manual()
    }

    fn view(&self) -> MutexGuard<'_, Arc<Vec<GroupView>>> {
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
            group_loop(Arc::clone(&inner), Arc::clone(&seat))
        });
    }

    /// A group as the process before left it, so that its alerts are shown before
    /// its first evaluation. When it cannot be read, the evaluation tries again.
    async fn restored(&self, spec: &Arc<GroupSpec>) -> Option<Group> {
        let (store, spec) = (self.store.clone(), Arc::clone(spec));
        let read = tokio::task::spawn_blocking(move || restore(&store, &spec));
        match read.await {
            Ok(Ok(group)) => Some(group),
            Ok(Err(err)) => {
                tracing::error!(error = %err, "cannot read the alerts of a group");
                None
            }
            Err(_) => None,
        }
    }

    /// Ends the series of groups that are gone.
    async fn remove(&self, gone: Vec<(Arc<Seat>, Option<Group>)>) {
        let mut ended: Vec<Labels> = Vec::new();
        for (seat, group) in gone {
            self.metrics.rules.remove_group(&seat.key);
            self.count_selected(&seat, 0);
            ended.extend(group.iter().flat_map(Group::series).cloned());
        }
        if ended.is_empty() {
            return;
        }
        let t = self.clock.now();
        let rows = ended.into_iter().map(|labels| Row {
            series: SeriesKey::Labels(labels),
            t,
            v: stale_nan(),
        });
        let mut batch = WriteBatch {
            urgency: Urgency::RideAlong,
            sheds: true,
            volatile: true,
            ..WriteBatch::default()
        };
        batch.push(rows, Item::default());
        if let Err(err) = self.store.write(batch).await {
            tracing::error!(error = %err, "cannot end the series of removed rules");
        }
    }

    /// Resolves the alerts of rules that are gone, and clears away what is old.
    async fn settle(&self, seats: &[Arc<Seat>]) {
        let rules = seats.iter().flat_map(|seat| &seat.spec.rules);
        let known: HashSet<u64> = rules.map(|rule| rule.id).collect();
        let (store, now) = (self.store.clone(), self.clock.now());
        let work = move || upkeep::changes(&store, &known, now);
        let ops = match tokio::task::spawn_blocking(work).await {
            Ok(Ok(ops)) => ops,
            Ok(Err(err)) => {
                tracing::error!(error = %err, "cannot read the alerts of removed rules");
                return;
            }
            Err(_) => return,
        };
        if ops.is_empty() {
            return;
        }
        if let Err(err) = self
            .store
            .write(WriteBatch::of_state(ops).even_unsaved())
            .await
        {
            tracing::error!(error = %err, "cannot settle the alerts of removed rules");
        }
    }

    /// See [`late`].
    async fn look_at_late_data(&self) {
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
        let work = move || late::look(&store, seen, &groups, &settings, now, &flag);
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

    async fn take_late(&self, found: late::Found) {
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

    /// Evaluates a group for a slot, unless that was done.
    async fn evaluate(&self, seat: &Arc<Seat>, slot: Timestamp) {
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
            let own = sight.blind(now, settings.engine.options.lookback, &settings.instance);
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
    fn count_selected(&self, seat: &Seat, selected: i64) {
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

    fn show_gate(&self) {
        let free = self.gate.available_permits();
        let service = &self.metrics.service;
        service.set_pool(ServiceName::Evaluator, GROUPS_AT_ONCE, free);
    }
}

/// The state of a group from its rows.
fn restore(store: &Store, spec: &Arc<GroupSpec>) -> Result<Group, store::Error> {
    let row = store.get(Table::RuleGroup, &rule_group_key(&spec.file, &spec.name))?;
    let last_eval = row.and_then(|row| RuleGroupRow::decode(&row));
    let mut failed = None;
    let group = Group::restore(
        Arc::clone(spec),
        last_eval.map(|row| row.last_eval),
        |rule_id| {
            restore_rule(store, rule_id).unwrap_or_else(|err| {
                failed = Some(err);
                Vec::new()
            })
        },
    );
    match failed {
        Some(err) => Err(err),
        None => Ok(group),
    }
}

fn restore_rule(store: &Store, rule_id: u64) -> Result<Vec<AlertRow>, store::Error> {
    let prefix = alert_rule_prefix(rule_id);
    let rows = upkeep::scan_prefix(store, Table::Alert, &prefix, ALERTS_PER_RULE_MAX)?;
    let mut alerts = Vec::with_capacity(rows.len());
    for (_, row) in rows {
        match AlertRow::decode(&row) {
            Ok(row) => alerts.push(row),
            Err(err) => tracing::error!(error = %err, "an alert is lost"),
        }
    }
    Ok(alerts)
}

/// Evaluates a group at each of its slots, the next one first.
async fn group_loop(inner: Arc<Inner>, seat: Arc<Seat>) {
    let interval = seat.spec.interval_ms();
    let mut last = seat.slot(&inner.clock);
    let mut stepped_ms = inner.clock.stepped_ms();
    while !seat.stop.is_cancelled() {
        let slot = seat.slot(&inner.clock);
        if slot == last {
            let wait = slot.plus_ms(interval).ms_since(inner.clock.now()).max(1);
            let wait = Duration::from_millis(wait.unsigned_abs()).min(SLEEP_MAX);
            tokio::select! {
                () = seat.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => continue,
            }
        }
        // Time that the clock left out did not pass.
        let stepped =
            inner.clock.stepped_ms() - std::mem::replace(&mut stepped_ms, inner.clock.stepped_ms());
        let missed = (slot.ms_since(last) - stepped) / interval - 1;
        if missed > 0 {
            let label = &[seat.key.as_str()];
            let counter = inner.metrics.rules.missed.with_label_values(label);
            counter.inc_by(missed.unsigned_abs());
            tracing::warn!(group = seat.spec.name, missed, "evaluations were left out");
        }
        last = slot;
        inner.evaluate(&seat, slot).await;
    }
}

async fn late_loop(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(LATE_INTERVAL) => {}
        }
        inner.look_at_late_data().await;
    }
}

async fn upkeep_loop(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(UPKEEP_INTERVAL) => {}
        }
        let seats = inner.seats.lock().await.clone();
        inner.settle(&seats).await;
    }
}
