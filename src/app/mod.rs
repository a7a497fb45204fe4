//! One running instance: new, start, stop, addresses, reload.
//!
//! Owns the start and stop order and the configuration in force.
//!
//! It must never let anything in before everything below it runs, nor close the
//! store before everything above it has ended.

mod check;
mod control;
mod reload;
mod start;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

pub use check::{Report, check};
pub use control::Control;

use crate::alerting::Alerting;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::ingest::Ingest;
use crate::model::Clock;
use crate::rules::Rules;
use crate::sources::Sources;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Reads the configuration again, command line included.
pub type Load = Box<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

/// The bearer token of `[auth]`, when there is one.
type OperatorToken = Option<Arc<str>>;

/// How long each step of a stop may take. All together: below 20 s.
const SOURCES_STOP: Duration = Duration::from_secs(4);
const RULES_STOP: Duration = Duration::from_secs(3);
const DELIVERY_STOP: Duration = Duration::from_secs(4);
const WEB_STOP: Duration = Duration::from_secs(3);
const INGEST_STOP: Duration = Duration::from_secs(2);
const STORE_STOP: Duration = Duration::from_secs(3);

/// A set of tasks that starts and stops together.
struct Layer {
    tasks: Tasks,
    stop: CancellationToken,
}

/// The parts that run, each with the tasks that it owns.
struct Layers {
    web: Layer,
    ingest: Layer,
    delivery: Layer,
    rules: Layer,
    sources: Layer,
}

/// A running instance. Cloning gives another handle.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    addrs: Vec<SocketAddr>,
    layers: Layers,
    store: Store,
    ingest: Ingest,
    delivery: Delivery,
    alerting: Alerting,
    rules: Rules,
    sources: Sources,
    /// For pushes; pages and API read theirs from the configuration.
    token: watch::Sender<OperatorToken>,
    load: Load,
    config: watch::Sender<Arc<Config>>,
    /// What only a start reads, a reload compares with.
    started_with: Arc<Config>,
    ready: watch::Sender<bool>,
    reloading: Mutex<()>,
    metrics: Arc<Metrics>,
    clean_marker: PathBuf,
    data_dir: PathBuf,
    clock: Clock,
}

impl App {
    /// The addresses that are listened on, with the ports that port 0 became.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.0.addrs
    }

    /// The store, for whoever holds the instance.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Ends when a part without which nothing works has ended.
    pub async fn failed(&self) {
        let layers = &self.0.layers;
        let (web, ingest) = (layers.web.tasks.fatal(), layers.ingest.tasks.fatal());
        tokio::select! {
            () = self.0.store.closed() => tracing::error!("store has ended"),
            () = web.cancelled() => {}
            () = ingest.cancelled() => {}
        }
    }

    /// Stops everything from the outside in; what is not durable yet is committed.
    pub async fn stop(&self) {
        notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("stopping");
        self.0.ready.send_replace(false);
        let layers = &self.0.layers;
        layers.sources.end("sources", SOURCES_STOP).await;
        layers.rules.end("rules", RULES_STOP).await;
        layers.delivery.end("delivery", DELIVERY_STOP).await;
        layers.web.end("web", WEB_STOP).await;
        layers.ingest.end("ingest", INGEST_STOP).await;
        match tokio::time::timeout(STORE_STOP, self.0.store.close()).await {
            Ok(()) if self.0.store.is_read_only() => {}
            Ok(()) => {
                Control::remove(&self.0.data_dir);
                self.mark_clean();
            }
            Err(_) => tracing::error!("store did not close in time"),
        }
        tracing::info!("stopped");
    }

    /// Leaves the mark that tells the next start that this stop was clean.
    fn mark_clean(&self) {
        let text = self.0.clock.now().to_rfc3339();
        if let Err(err) = std::fs::write(&self.0.clean_marker, text) {
            tracing::warn!(error = %err, "cannot mark the stop as clean");
        }
    }
}

impl Layers {
    fn new(metrics: &Metrics) -> Layers {
        let layer = || Layer::new(&metrics.task_restarts);
        Layers {
            web: layer(),
            ingest: layer(),
            delivery: layer(),
            rules: layer(),
            sources: layer(),
        }
    }
}

impl Layer {
    fn new(restarts: &prometheus::IntCounterVec) -> Layer {
        Layer {
            tasks: Tasks::new(restarts.clone()),
            stop: CancellationToken::new(),
        }
    }

    /// Asks the layer's tasks to end and waits for them, up to a limit.
    async fn end(&self, layer: &'static str, limit: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(limit, self.tasks.join())
            .await
            .is_err()
        {
            tracing::warn!(layer, "did not end in time");
        }
    }
}

/// Tells systemd, when it started us.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(err) = sd_notify::notify(states) {
        tracing::debug!(error = %err, "cannot notify systemd");
    }
}
