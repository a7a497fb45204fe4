//! Alerts that fire or resolved become notifications in the outbox.
//!
//! Owns one task and the tables `agg_group` and `notify_state`. Its truth are the
//! rows of `alert`, which the rule engine commits; it wakes up when they change and
//! when a group is due. A flush is one transaction: the notification's outbox row,
//! whose success will write `notify_state`, and the group. A kill between any two
//! steps repeats work, but gives one fact one id and loses none. A group whose
//! last notification is still in the outbox replaces it, so that a receiver that
//! was away hears once how things stand: also of an alert that came and went
//! meanwhile, which Alertmanager would never mention.
//!
//! It must never send anything itself, or tell what is not committed.

mod dispatcher;
mod group;
mod payload;
mod pending;
mod route;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::model::{Clock, Timestamp};
use crate::store::{self, Item, StateOp, Store, Table, Urgency, WriteBatch};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ServiceName;
use dispatcher::{Dispatcher, Flush, Settings};

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
    settings: std::sync::Mutex<Settings>,
    wake: Notify,
}

/// Checks `[alerting]` without starting anything.
///
/// # Errors
/// With the field that is wrong.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let alerting = &config.alerting;
    for (field, span) in [
        ("group_interval", alerting.group_interval),
        ("repeat_interval", alerting.repeat_interval),
    ] {
        if span.get().is_zero() {
            anyhow::bail!("[alerting] {field} must be longer than 0s");
        }
    }
    Ok(())
}

/// Starts the notifications; they end soon after `stop`. With a manual clock nothing
/// runs by itself: see [`Alerting::tick`].
///
/// # Errors
/// As [`check`].
pub fn start(
    config: &Config,
    store: Store,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: &Tasks,
    stop: CancellationToken,
) -> anyhow::Result<Alerting> {
    check(config)?;
    let is_manual = matches!(clock, Clock::Manual(_));
    let alerting = Alerting(Arc::new(Inner {
        store,
        metrics,
        clock,
        stop: stop.clone(),
        dispatcher: Mutex::default(),
        settings: std::sync::Mutex::new(Settings::from_config(config)),
        wake: Notify::new(),
    }));
    if !is_manual {
        let inner = Arc::clone(&alerting.0);
        tasks.spawn("alerting", stop, move || run(Arc::clone(&inner)));
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
        *self.0.settings() = Settings::from_config(config);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Looks at all alerts and flushes what is due at the clock's time. For tests
    /// with a manual clock.
    pub async fn tick(&self) {
        self.0.pass().await;
    }
}

impl Inner {
    fn settings(&self) -> std::sync::MutexGuard<'_, Settings> {
        self.settings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One look at all alerts; gives how long to wait for the next one.
    async fn pass(&self) -> Duration {
        let started = Instant::now();
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
        let (store, settings) = (self.store.clone(), self.settings().clone());
        let work = move || {
            let mut dispatcher =
                dispatcher.unwrap_or_else(|| Dispatcher::new(store, settings.clone()));
            let moved = dispatcher.reconfigure(settings, now);
            let flushes = dispatcher.due(now)?;
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
            let ops = part
                .iter_mut()
                .map(|f| std::mem::take(&mut f.ops))
                .collect();
            let news = part.iter().filter(|f| f.is_news).count() as u64;
            let rules = &self.metrics.rules;
            let label = &["webhook"];
            if let Err(err) = self.commit(ops, news > 0).await {
                tracing::error!(error = %err, "cannot write notifications");
                let failed = rules.notifications_failed.with_label_values(label);
                failed.inc_by(news);
                return false;
            }
            rules.notifications.with_label_values(label).inc_by(news);
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
        let mut batch = WriteBatch::default();
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

    fn show(&self, dispatcher: &Dispatcher) {
        let (firing, untold) = dispatcher.counts();
        let [firing, untold] = [firing, untold].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let active = self.metrics.rules.alerts.with_label_values(&["active"]);
        active.set(firing);
        let depth = &self.metrics.service;
        depth
            .queue(ServiceName::Dispatcher, "pending_alerts")
            .set(untold);
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
    let mut changes = inner.store.changes(Table::Alert);
    while !inner.stop.is_cancelled() {
        changes.borrow_and_update();
        let wait = inner.pass().await;
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = inner.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
            changed = changes.changed() => {
                if changed.is_err() {
                    // The store is gone: so is the process soon.
                    return;
                }
            }
        }
    }
}
