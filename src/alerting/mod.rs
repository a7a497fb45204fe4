//! Alerts that fire or resolved become notifications in the outbox.
//!
//! Owns one task, the tables `agg_group`, `notify_state`, `posted_alert` and `silence`,
//! and the rows of `alert_history` that say what a flush decided. Its truth are the rows
//! of `alert`, which the rule engine commits, and of `posted_alert`, which are committed
//! before their sender gets an answer; it wakes up when they change and when a group is
//! due. A flush is one transaction: the notifications' outbox rows, whose success will
//! write `notify_state`, and the group. A kill between any two steps repeats work, but
//! gives one fact one id and loses none. A group whose last notification is still in the
//! outbox replaces it, so that a receiver that was away hears once how things stand: also
//! of an alert that came and went meanwhile, which Alertmanager would never mention.
//!
//! It must never send anything itself, or tell what is not committed, as long as a commit
//! is possible. While the disk refuses transactions the same rows are in memory only
//! ([`crate::store::WriteBatch::volatile`]), and people are told all the same.

mod alerts;
mod current;
mod dispatcher;
mod explain;
mod flaps;
mod flush;
mod group;
mod history;
mod hour;
mod inhibit;
mod interval;
mod note;
mod payload;
mod pending;
mod plan;
mod posted;
mod reason;
mod route;
mod settings;
mod shown;
mod silence;
mod telling;
mod told;
mod upstream;
mod verdict;
mod view;

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

pub use alerts::Alert;
pub use explain::{Explanation, IntegrationStory, RouteStory};
pub use history::{Entry, HistoryPage, HistoryQuery, What};
pub use note::{FlushNote, hex};
pub use plan::{Plan, Plans};
pub use posted::PostedAlert;
pub use reason::{Phase, Reason};
pub use silence::{Silence, SilenceError, SilenceState};
pub use verdict::{Decision, Hold, Verdict};
pub use view::{AlertGroup, AlertStatus, GroupView, Picture, sort_silences};

use crate::config::{Config, Mistake};
use crate::delivery;
use crate::model::{Clock, Timestamp};
use crate::store::{self, Item, StateOp, Store, Table, Urgency, WriteBatch};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ServiceName;
use dispatcher::Dispatcher;
use flush::Flush;
use settings::Settings;
use silence::Change;
use upstream::Upstream;

/// The task looks at the clock at least this often, because it may jump.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// How long the task waits after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Flushes in one transaction: bounds its size.
const FLUSHES_AT_ONCE: usize = 64;

/// A handle to the running notifications. Cloning gives another handle.
#[derive(Clone)]
pub struct Alerting(Arc<Inner>);

struct Inner {
    store: Store,
    metrics: Arc<Metrics>,
    clock: Clock,
    stop: CancellationToken,
    /// `None` after a panic: then the groups come from the store.
    dispatcher: Mutex<Option<Dispatcher>>,
    settings: std::sync::Mutex<Arc<Settings>>,
    /// Other Alertmanagers that are told.
    upstream: Upstream,
    /// The groups as the last look left them.
    groups: std::sync::Mutex<Arc<Vec<GroupView>>>,
    /// How far the clock had been stepped when posted alerts last followed it.
    stepped_ms: AtomicI64,
    /// One change of silences or posted alerts at a time: each reads before it writes.
    changing: Mutex<()>,
    wake: Notify,
}

/// What is wrong with the times under `[alerting]`.
pub fn mistakes(config: &Config) -> Vec<Mistake> {
    let alerting = &config.alerting;
    let fields = [
        ("alerting.group_interval", alerting.group_interval),
        ("alerting.repeat_interval", alerting.repeat_interval),
    ];
    let none = fields.into_iter().filter(|(_, span)| span.get().is_zero());
    none.map(|(field, _)| Mistake::new(field, "0s, expected more than 0s"))
        .chain(delivery::alertmanagers(config).err())
        .collect()
}

fn check(config: &Config) -> Result<(), Mistake> {
    mistakes(config).into_iter().next().map_or(Ok(()), Err)
}

/// Starts the notifications; they end soon after `stop`. With a manual clock nothing
/// runs by itself: see [`Alerting::tick`].
///
/// # Errors
/// With the first of [`mistakes`].
pub fn start(
    config: &Config,
    store: Store,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: &Tasks,
    stop: CancellationToken,
) -> anyhow::Result<Alerting> {
    check(config)?;
    let (is_manual, stepped_ms) = (clock.is_manual(), clock.stepped_ms());
    let alerting = Alerting(Arc::new(Inner {
        store,
        metrics,
        clock,
        stop: stop.clone(),
        dispatcher: Mutex::default(),
        settings: std::sync::Mutex::new(Arc::new(Settings::from_config(config))),
        upstream: Upstream::new(config)?,
        groups: std::sync::Mutex::default(),
        stepped_ms: AtomicI64::new(stepped_ms),
        changing: Mutex::default(),
        wake: Notify::new(),
    }));
    if !is_manual {
        let inner = Arc::clone(&alerting.0);
        tasks.spawn("alerting", stop.clone(), move || run(Arc::clone(&inner)));
        let inner = Arc::clone(&alerting.0);
        tasks.spawn("alertmanagers", stop, move || {
            upstream::run(Arc::clone(&inner))
        });
    }
    Ok(alerting)
}

impl Alerting {
    /// Takes over a new configuration. Groups that are as before keep their times.
    ///
    /// # Errors
    /// As [`check`]; then nothing has changed.
    pub fn reload(&self, config: &Config) -> anyhow::Result<()> {
        check(config)?;
        self.0.upstream.reload(config)?;
        *self.0.settings() = Arc::new(Settings::from_config(config));
        self.0.wake.notify_one();
        Ok(())
    }

    /// Looks at all alerts and flushes what is due at the clock's time. For tests
    /// with a manual clock.
    pub async fn tick(&self) {
        self.0.pass().await;
    }

    /// All firing alerts with what is made of them. Reads the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn picture(&self) -> Result<Picture, store::Error> {
        let settings = Arc::clone(&self.0.settings());
        let (now, groups) = (self.0.clock.now(), self.groups());
        self.0
            .blocking(move |store| Picture::take(store, &settings, &groups, now))
            .await
    }

    /// Where alerts of our rules are sent besides.
    pub fn alertmanagers(&self) -> Vec<String> {
        self.0.upstream.urls()
    }

    /// What became of the alert with this fingerprint, and why; `None` when nothing is
    /// known of it. Waits for a look at the alerts that is under way.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn explain(&self, fingerprint: u64) -> Result<Option<Explanation>, store::Error> {
        let mut held = self.0.dispatcher.lock().await;
        let (store, settings) = (self.0.store.clone(), Arc::clone(&self.0.settings()));
        let (now, dispatcher) = (self.0.clock.now(), held.take());
        let handed_over = self.0.is_handed_over();
        let work = move || {
            let mut dispatcher = dispatcher.unwrap_or_else(|| Dispatcher::new(store, settings));
            let told = dispatcher.explain(fingerprint, now, handed_over);
            (dispatcher, told)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok((dispatcher, told)) => {
                *held = Some(dispatcher);
                told
            }
            // The runtime ends, or a panic that was reported where it happened.
            Err(_) => Err(store::Error::Closed),
        }
    }

    /// What became of alerts: state changes, flushes and attempts, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, store::Error> {
        let settings = Arc::clone(&self.0.settings());
        self.0
            .blocking(move |store| history::page(store, &settings.outside, &query))
            .await
    }

    /// The names of all receivers.
    pub fn receivers(&self) -> Vec<String> {
        let settings = Arc::clone(&self.0.settings());
        let receivers = settings.tree.iter().flat_map(|tree| &tree.receivers);
        receivers.map(|(name, _)| name.clone()).collect()
    }

    /// The groups as the last look left them.
    pub fn groups(&self) -> Arc<Vec<GroupView>> {
        Arc::clone(&self.0.groups())
    }

    /// All silences, those that ended lately included.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn silences(&self) -> Result<Vec<Silence>, store::Error> {
        self.0.blocking(silence::read).await
    }

    /// Makes or changes a silence, as Alertmanager does; gives its id. It is durable
    /// when this returns.
    ///
    /// # Errors
    /// When it makes no sense, or its id is unknown.
    pub async fn set_silence(&self, silence: Silence) -> Result<String, SilenceError> {
        let now = self.0.clock.now();
        self.0
            .change_silences(move |all| silence::set(all, silence, now))
            .await
    }

    /// Ends a silence of the tenant; the operator (an empty name) ends anybody's.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn expire_silence(&self, tenant: &str, id: &str) -> Result<(), SilenceError> {
        let (tenant, id, now) = (tenant.to_owned(), id.to_owned(), self.0.clock.now());
        let change = self
            .0
            .change_silences(move |all| silence::expire(all, &tenant, &id, now));
        change.await.map(drop)
    }

    /// When an alert begins and ends that is posted now.
    pub fn posted_times(&self, alert: &PostedAlert) -> (Timestamp, Timestamp) {
        let timeout = self.0.settings().resolve_timeout;
        alert.times(self.0.clock.now(), group::as_ms(timeout))
    }

    /// Takes alerts in; they are durable when this returns without an error.
    ///
    /// # Errors
    /// When the store cannot be read or written. While the disk refuses transactions
    /// people are told of the alerts all the same, but their sender has to repeat them.
    pub async fn post(&self, alerts: Vec<PostedAlert>) -> Result<(), store::Error> {
        if alerts.is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.0.changing.lock().await;
        let (now, timeout) = (self.0.clock.now(), self.0.settings().resolve_timeout);
        let ops = self
            .0
            .blocking(move |store| posted::changes(store, alerts, now, group::as_ms(timeout)))
            .await?;
        let batch = WriteBatch::of_state(ops).even_unsaved();
        self.0.store.write(batch).await?;
        self.0.wake.notify_one();
        if self.0.store.is_failing() {
            return Err(store::Error::Commit("the disk refuses transactions".into()));
        }
        Ok(())
    }
}

impl Inner {
    fn settings(&self) -> MutexGuard<'_, Arc<Settings>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, Arc<Vec<GroupView>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the store on the blocking pool.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, store::Error> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(done) => done,
            // The runtime ends, or a panic that was reported where it happened.
            Err(_) => Err(store::Error::Closed),
        }
    }

    /// Whether another Alertmanager tells people of our rules' alerts.
    fn is_handed_over(&self) -> bool {
        self.settings().handover && self.upstream.answers(self.clock.now())
    }

    async fn change_silences(
        &self,
        change: impl FnOnce(&[Silence]) -> Result<Change, SilenceError>,
    ) -> Result<String, SilenceError> {
        let _one_at_a_time = self.changing.lock().await;
        let change = change(&self.blocking(silence::read).await?)?;
        if change.ops.is_empty() {
            return Ok(change.id);
        }
        self.store.write(WriteBatch::of_state(change.ops)).await?;
        self.wake.notify_one();
        Ok(change.id)
    }

    /// One look at all alerts; gives how long to wait for the next one.
    async fn pass(&self) -> Duration {
        let started = Instant::now();
        if let Err(err) = self.follow_clock().await {
            tracing::error!(error = %err, "cannot move posted alerts with the clock");
            return RETRY;
        }
        let mut held = self.dispatcher.lock().await;
        let now = self.clock.now();
        let wait = match self.off_the_runtime(held.take(), now).await {
            Ok((mut dispatcher, flushes)) => {
                let is_written = self.write(&mut dispatcher, flushes).await;
                self.show(&dispatcher);
                let next = dispatcher.next_flush();
                *held = Some(dispatcher);
                match next {
                    _ if !is_written => RETRY,
                    Some(next) => wait_until(next, self.clock.now()),
                    None => SLEEP_MAX,
                }
            }
            Err(err) => {
                tracing::error!(error = %err, "cannot look at the alerts");
                RETRY
            }
        };
        let cycle = self
            .metrics
            .service
            .observe(ServiceName::Dispatcher, "dispatch_cycle");
        cycle.observe(started.elapsed().as_secs_f64());
        wait
    }

    /// Reads the store on the blocking pool.
    async fn off_the_runtime(
        &self,
        dispatcher: Option<Dispatcher>,
        now: Timestamp,
    ) -> anyhow::Result<(Dispatcher, Due)> {
        let (store, settings) = (self.store.clone(), Arc::clone(&self.settings()));
        let handed_over = self.is_handed_over();
        let work = move || {
            let mut dispatcher =
                dispatcher.unwrap_or_else(|| Dispatcher::new(store, Arc::clone(&settings)));
            let moved = dispatcher.reconfigure(&settings, now);
            let flushes = dispatcher.due(now, handed_over)?;
            Ok::<_, store::Error>((dispatcher, Due { moved, flushes }))
        };
        Ok(tokio::task::spawn_blocking(work).await??)
    }

    /// Writes what is due; says whether all of it was written.
    async fn write(&self, dispatcher: &mut Dispatcher, due: Due) -> bool {
        if !due.moved.is_empty() && self.commit(vec![due.moved], false).await.is_err() {
            return false;
        }
        let mut flushes = due.flushes.into_iter().peekable();
        while flushes.peek().is_some() {
            let mut part: Vec<Flush> = flushes.by_ref().take(FLUSHES_AT_ONCE).collect();
            let is_urgent = part.iter().any(Flush::is_urgent);
            let ops = part
                .iter_mut()
                .map(|f| std::mem::take(&mut f.ops))
                .collect();
            let told: Vec<&str> = part.iter().flat_map(|f| f.told.clone()).collect();
            let rules = &self.metrics.rules;
            let written = self.commit(ops, is_urgent).await;
            let family = match written {
                Ok(()) => &rules.notifications,
                Err(_) => &rules.notifications_failed,
            };
            for kind in told {
                family.with_label_values(&[kind]).inc();
            }
            if let Err(err) = written {
                tracing::error!(error = %err, "cannot write notifications");
                return false;
            }
            for flush in part {
                dispatcher.committed(flush);
            }
        }
        true
    }

    /// Writes changes, one item for each list.
    async fn commit(
        &self,
        changes: Vec<Vec<StateOp>>,
        is_urgent: bool,
    ) -> Result<(), store::Error> {
        let mut batch = WriteBatch::default().even_unsaved();
        if !is_urgent {
            batch.urgency = Urgency::RideAlong;
        }
        for always in changes.into_iter().filter(|ops| !ops.is_empty()) {
            let item = Item {
                always,
                ..Item::default()
            };
            batch.push([], item);
        }
        if batch.items.is_empty() {
            return Ok(());
        }
        self.store.write(batch).await.map(drop)
    }
}

/// What one look at the alerts gave.
struct Due {
    /// What a new configuration changed.
    moved: Vec<StateOp>,
    flushes: Vec<Flush>,
}

fn wait_until(next: Timestamp, now: Timestamp) -> Duration {
    let wait = next.ms_since(now).max(1);
    Duration::from_millis(wait.unsigned_abs()).min(SLEEP_MAX)
}

async fn run(inner: Arc<Inner>) {
    let mut own = inner.store.changes(Table::Alert);
    while !inner.stop.is_cancelled() {
        own.borrow_and_update();
        let wait = inner.pass().await;
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = inner.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
            changed = own.changed() => {
                if changed.is_err() {
                    // The store is gone: so is the process soon.
                    return;
                }
            }
        }
    }
}
