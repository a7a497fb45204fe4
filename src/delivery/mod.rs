//! Empties the outbox: each row goes to its destination, once or until it is given up.
//!
//! Owns one task for each destination, one that counts dead letters, and the tables
//! `outbox` (whose rows others write) and `attempt`. A row stays on disk until the
//! transaction that records its delivery or its end; within a row id and body never
//! change, so that a receiver that knows the id takes each event once.
//!
//! It must never send before the commit that made the row (a notification: while the disk
//! refuses transactions, before the row is readable), follow a redirect of telemetry, use up
//! attempts while a receiver is known to be down, or drop a row without a dead letter.

pub mod address;
mod attempts;
mod breaker;
mod connector;
mod depth;
mod gauges;
mod http;
mod http_config;
mod integration;
mod mail;
mod message;
mod mqtt;
mod nats;
mod options;
mod outcome;
mod poster;
mod proxy;
mod queue;
mod receivers;
mod redirect;
mod retry;
mod sign;
mod target;
mod templates;
mod tls;
mod topic;
mod view;
mod webhook;
mod worker;

use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use attempts::{Attempt, End, History, history_since};
pub use nats::servers as nats_servers;
pub use options::Options;
pub use poster::{Poster, alertmanagers};
pub use view::{DestinationState, DestinationView, waiting};

use crate::config::{Config, Mistake};
use crate::model::{Clock, Timestamp};
use crate::store::state::outbox_key;
use crate::store::{self, Store, Table};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use view::Shown;
use worker::{Seat, Worker};

/// How long a worker waits before it tries again to read the store at its start.
const OPEN_RETRY: Duration = Duration::from_secs(1);

/// A handle to the running deliveries. Cloning gives another handle.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    store: Store,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: Tasks,
    stop: CancellationToken,
    running: Mutex<Vec<Running>>,
}

struct Running {
    options: Arc<Options>,
    shown: Shown,
    stop: CancellationToken,
    /// Cancelled when the task has ended.
    ended: CancellationToken,
}

/// Every destination and receiver of a configuration that is of no use, with its field.
pub fn mistakes(config: &Config) -> Vec<Mistake> {
    Options::mistakes(config)
}

/// What is not wrong, but not safe either.
pub fn warnings(config: &Config) -> Vec<Mistake> {
    integration::warnings(config)
}

/// Starts a task for each destination; they end soon after `stop`, leaving on disk
/// what is not delivered.
///
/// # Errors
/// With the first of [`mistakes`].
pub fn start(
    config: &Config,
    store: Store,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: Tasks,
    stop: CancellationToken,
) -> anyhow::Result<Delivery> {
    let options = Options::all(config)?;
    let (of_depth, counted) = (stop.clone(), (store.clone(), Arc::clone(&metrics)));
    tasks.spawn("delivery_depth", stop.clone(), move || {
        depth::watch(counted.0.clone(), Arc::clone(&counted.1), of_depth.clone())
    });
    let delivery = Delivery(Arc::new(Inner {
        store,
        metrics,
        clock,
        tasks,
        stop,
        running: Mutex::default(),
    }));
    delivery.apply(options);
    Ok(delivery)
}

impl Delivery {
    /// Takes over a new configuration: destinations that are as before go on, unless
    /// they were disabled; the others end their attempts and start anew or not.
    ///
    /// # Errors
    /// With the first of [`mistakes`]; then nothing has changed.
    pub fn reload(&self, config: &Config) -> anyhow::Result<()> {
        self.apply(Options::all(config)?);
        Ok(())
    }

    /// All destinations, in the order of the configuration.
    pub fn view(&self) -> Vec<DestinationView> {
        let running = self.running();
        running.iter().map(|one| one.shown.lock().clone()).collect()
    }

    /// The latest attempts at a destination by event, newest event first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn history(&self, destination: &str, limit: usize) -> Result<Vec<History>, store::Error> {
        history_since(&self.0.store, destination, Timestamp::MIN, limit)
    }

    fn apply(&self, wanted: Vec<Options>) {
        let mut running = self.running();
        let mut before: Vec<Running> = running.drain(..).collect();
        for options in wanted {
            let old = before
                .iter()
                .position(|one| one.options.name == options.name);
            let old = old.map(|at| before.remove(at));
            running.push(match old {
                Some(old) if *old.options == options && !old.is_disabled() => old,
                Some(old) => {
                    old.stop.cancel();
                    self.spawn(options, Some(old.ended))
                }
                None => self.spawn(options, None),
            });
        }
        for old in before {
            old.stop.cancel();
            self.0
                .metrics
                .delivery
                .remove_destination(&old.options.name);
        }
        self.warn_of_unknown(&running);
    }

    /// Starts a destination's task, which begins when the one `before` it has ended.
    fn spawn(&self, options: Options, before: Option<CancellationToken>) -> Running {
        let inner = &self.0;
        let options = Arc::new(options);
        let shown = Shown::new(
            &options.name,
            options.kind,
            options.shown_url(),
            options.ordered,
        );
        let stop = inner.stop.child_token();
        let ended = CancellationToken::new();
        let seat = Seat {
            options: Arc::clone(&options),
            store: inner.store.clone(),
            metrics: Arc::clone(&inner.metrics),
            clock: inner.clock.clone(),
            shown: shown.clone(),
            stop: stop.clone(),
        };
        // Lives as long as the task, its restarts after a panic included.
        let until_end = ended.clone().drop_guard();
        inner.tasks.spawn("delivery", stop.clone(), move || {
            let _ = &until_end;
            work(seat.clone(), before.clone())
        });
        Running {
            options,
            shown,
            stop,
            ended,
        }
    }

    /// Rows of a destination that is not configured stay until it is again.
    fn warn_of_unknown(&self, running: &[Running]) {
        let known = |name: &str| running.iter().any(|one| one.options.name == name);
        match outbox_destinations(&self.0.store) {
            Ok(names) => {
                for destination in names.iter().filter(|name| !known(name)) {
                    tracing::warn!(destination, "outbox holds rows of an unknown destination");
                }
            }
            Err(err) => tracing::warn!(error = %err, "outbox cannot be read"),
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn is_disabled(&self) -> bool {
        self.shown.lock().state == DestinationState::Disabled
    }
}

async fn work(seat: Seat, before: Option<CancellationToken>) {
    let is_changed = before.is_some();
    if let Some(before) = before {
        before.cancelled().await;
    }
    loop {
        match Worker::new(seat.clone(), is_changed) {
            Ok(worker) => return Box::pin(worker.run()).await,
            Err(store::Error::Closed) => return,
            Err(err) => {
                let destination = seat.options.name.as_str();
                tracing::warn!(destination, error = %err, "attempts cannot be read");
            }
        }
        tokio::select! {
            () = seat.stop.cancelled() => return,
            () = tokio::time::sleep(OPEN_RETRY) => {}
        }
    }
}

/// The destinations that have rows. One read for each.
fn outbox_destinations(store: &Store) -> Result<Vec<String>, store::Error> {
    let mut names = Vec::new();
    let mut from = Vec::new();
    loop {
        let range = (Bound::Excluded(&from[..]), Bound::Unbounded);
        let Some((key, _)) = store.scan(Table::Outbox, range, 1)?.pop() else {
            return Ok(names);
        };
        let name = key.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        from = outbox_key(&name, u64::MAX);
        names.push(name);
    }
}
