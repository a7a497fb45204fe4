//! Bottom-up start: listener, store, delivery, alerting, rules, ingest, sources.
//!
//! The listener is bound and answers health checks before the store is opened, so
//! that a long replay is visible and a taken port is found at once.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::{App, Control, Inner, Layer, Layers, Load, OperatorToken, notify};
use crate::config::Config;
use crate::model::Clock;
use crate::promql::{Engine, Features, RangeCache, engine};
use crate::sources::{self, Board, Sources, internal, push};
use crate::store::{self, Store};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ClockState;
use crate::web::context::{Context, Gate, Parts};
use crate::web::{self, Front, Listeners};
use crate::{alerting, delivery, ingest, rules};

/// Left in the data directory by a clean stop, gone while we run.
const CLEAN_MARKER: &str = "CLEAN";

/// How long the first collection of own and host metrics may delay readiness.
const FIRST_COLLECTION: Duration = Duration::from_secs(2);

/// The wait until a refused control file is tried again.
const CONTROL_RETRY: Duration = Duration::from_secs(5);

/// More threads than this for one query would take the machine from all others.
const QUERY_THREADS_MAX: usize = 4;

impl App {
    /// Starts everything. `load` reads the configuration again for a reload.
    ///
    /// # Errors
    /// When an address is taken, the store cannot be opened, or the configuration
    /// names something that is of no use.
    pub async fn start(config: Config, load: Load, clock: Clock) -> anyhow::Result<App> {
        let metrics = Metrics::new();
        metrics.register(Box::new(sources::host::Host::new(clock.clone())));
        metrics.register(Box::new(ClockState::new(clock.clone())));
        let layers = Layers::new(&metrics);
        let listeners = Listeners::bind(&config.server.listen).await?;
        let addrs = listeners.addresses().to_vec();
        let (config, in_force) = watch::channel(Arc::new(completed(config, &addrs)));
        let (ready, is_ready) = watch::channel(false);
        let front = Front::new(Arc::clone(&metrics), in_force.clone(), is_ready.clone());
        let web = web::serve(front, listeners, &layers.web.tasks, &layers.web.stop);
        let current = Arc::clone(&in_force.borrow());
        let clean_marker = current.server.data_dir.join(CLEAN_MARKER);
        let is_new = !current.server.data_dir.exists();
        let wanted = current.store.read_only;
        let (lock, read_only) = store::DirLock::take_to_run(&current.server.data_dir, wanted)?;
        let current = if read_only {
            reading_only(&current)
        } else {
            current
        };
        tracing::info!(addresses = ?addrs, "listening");
        let store = open_store(lock, &current, clock.clone(), Arc::clone(&metrics)).await?;
        let control = Control::new(&addrs)?;
        let data_dir = current.server.data_dir.clone();
        if !read_only {
            note_last_stop(&clean_marker, is_new);
            leave_control(&control, &data_dir, &layers.web);
        }
        let base = Base {
            config: current,
            store,
            metrics,
            clock,
        };
        let delivery = base.start_delivery(&layers.delivery)?;
        let alerting = base.start_alerting(&layers.delivery)?;
        let rules = base.start_rules(&layers.rules).await?;
        let ingest = base.start_ingest(&layers.ingest)?;
        let board = Board::default();
        let (reloads, reload_requests) = mpsc::channel(1);
        let groups = rules.clone();
        let context = Context::new(Parts {
            store: base.store.clone(),
            engine: base.engine(),
            gate: Gate::new(base.config.query.concurrency).shown_in(Arc::clone(&base.metrics)),
            lists: Gate::new(base.config.query.concurrency),
            clock: base.clock.clone(),
            metrics: Arc::clone(&base.metrics),
            board: board.clone(),
            groups: Arc::new(move || groups.view()),
            alerting: alerting.clone(),
            delivery: delivery.clone(),
            local: web::Local::new(control.token),
            reloads,
            config: in_force,
            ready: is_ready,
            started: base.clock.now(),
        });
        let (token, push_token) = watch::channel(operator_token(&base.config)?);
        let write = base.write(&ingest, &board, push_token.clone());
        let push = base.push(&ingest, &board, push_token);
        web.open(
            context,
            push::router(push).merge(push::write::router(write)),
        );
        let sources = base.start_sources(&layers.sources, &ingest, board).await?;
        let app = App(Arc::new(Inner {
            addrs,
            layers,
            store: base.store,
            ingest,
            delivery,
            alerting,
            rules,
            sources,
            token,
            load,
            started_with: base.config,
            config,
            ready,
            reloading: Mutex::default(),
            metrics: Arc::clone(&base.metrics),
            clean_marker,
            data_dir,
            clock: base.clock,
        }));
        let answering = app.clone().answer_reloads(reload_requests);
        app.0.layers.web.tasks.spawn_once(answering);
        let now = app.0.clock.now().as_secs_f64();
        app.0.metrics.reload.tried(None, now);
        app.0.ready.send_replace(true);
        notify(&[sd_notify::NotifyState::Ready]);
        tracing::info!("ready");
        Ok(app)
    }
}

/// What every part above the store is made of.
struct Base {
    config: Arc<Config>,
    store: Store,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Base {
    fn start_delivery(&self, layer: &Layer) -> anyhow::Result<delivery::Delivery> {
        delivery::start(
            &self.config,
            self.store.clone(),
            Arc::clone(&self.metrics),
            self.clock.clone(),
            layer.tasks.clone(),
            layer.stop.clone(),
        )
    }

    fn start_alerting(&self, layer: &Layer) -> anyhow::Result<alerting::Alerting> {
        alerting::start(
            &self.config,
            self.store.clone(),
            Arc::clone(&self.metrics),
            self.clock.clone(),
            &layer.tasks,
            layer.stop.clone(),
        )
    }

    async fn start_rules(&self, layer: &Layer) -> anyhow::Result<rules::Rules> {
        let loaded = rules::load(&self.config)?;
        let rules = rules::start(
            loaded,
            self.store.clone(),
            Arc::clone(&self.metrics),
            self.clock.clone(),
            layer.tasks.clone(),
            layer.stop.clone(),
        );
        Ok(rules.await)
    }

    fn start_ingest(&self, layer: &Layer) -> anyhow::Result<ingest::Ingest> {
        ingest::start(
            &self.config,
            self.store.clone(),
            Arc::clone(&self.metrics),
            self.clock.clone(),
            &layer.tasks,
            layer.stop.clone(),
        )
    }

    /// The engine of the API and the pages.
    fn engine(&self) -> Engine {
        Engine {
            options: engine::Options {
                lookback: self.config.query.lookback_delta.get(),
                subquery_step: self.config.global.evaluation_interval.get(),
                samples_max: self.config.query.samples_max,
                series_max: self.config.query.series_max,
                features: Features::of(&self.config.query.features),
                step_stats: false,
                threads: query_threads(),
                at_hand: false,
            },
            cache: Arc::new(RangeCache::new(self.config.query.cache.as_usize())),
        }
    }

    /// What takes telemetry over HTTP.
    fn push(
        &self,
        ingest: &ingest::Ingest,
        board: &Board,
        operator_token: watch::Receiver<OperatorToken>,
    ) -> push::PushState {
        let (url, now) = (&self.config.global.external_url, self.clock.now());
        push::PushState {
            ingest: ingest.clone(),
            clock: self.clock.clone(),
            status: board.add("push", "http", url, "at least once", now),
            operator_token,
            body_bytes_max: self.config.server.body_max.as_usize(),
            is_read_only: self.store.is_read_only(),
        }
    }

    /// What takes samples over HTTP.
    fn write(
        &self,
        ingest: &ingest::Ingest,
        board: &Board,
        operator_token: watch::Receiver<OperatorToken>,
    ) -> push::write::Parts {
        let (url, now) = (&self.config.global.external_url, self.clock.now());
        push::write::Parts {
            store: self.store.clone(),
            ingest: ingest.clone(),
            clock: self.clock.clone(),
            status: board.add("write", "remote_write", url, "at least once", now),
            operator_token,
            body_bytes_max: self.config.server.body_max.as_usize(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Starts what brings data in, and waits for the first own and host metrics.
    async fn start_sources(
        &self,
        layer: &Layer,
        ingest: &ingest::Ingest,
        board: Board,
    ) -> anyhow::Result<Sources> {
        let first = if self.store.is_read_only() {
            None
        } else {
            Some(self.start_internal(layer, board.clone())?)
        };
        let context = sources::Context {
            ingest: ingest.clone(),
            store: self.store.clone(),
            board,
            metrics: Arc::clone(&self.metrics),
            clock: self.clock.clone(),
            tasks: layer.tasks.clone(),
            stop: layer.stop.clone(),
        };
        let sources = Sources::start(&self.config, context)?;
        if let Some(first) = first
            && tokio::time::timeout(FIRST_COLLECTION, first).await.is_err()
        {
            tracing::warn!("own metrics are late");
        }
        Ok(sources)
    }
}

impl Base {
    /// Starts the collection of own and host metrics; gives a receiver that is
    /// told when the first one can be queried.
    fn start_internal(&self, layer: &Layer, board: Board) -> anyhow::Result<oneshot::Receiver<()>> {
        let options = internal::Options {
            interval: self.config.global.scrape_interval.get(),
            instance: self.config.instance(),
            host: self.config.has_view("node"),
        };
        let (told, first) = oneshot::channel();
        let mut told = Some(told);
        let (store, metrics) = (self.store.clone(), Arc::clone(&self.metrics));
        let (clock, stop) = (self.clock.clone(), layer.stop.clone());
        layer.tasks.spawn("internal", layer.stop.clone(), move || {
            internal::run(
                options.clone(),
                store.clone(),
                Arc::clone(&metrics),
                board.clone(),
                clock.clone(),
                told.take(),
                stop.clone(),
            )
        });
        Ok(first)
    }
}

/// How many threads a query of the API may use: the cores, and a few at most.
fn query_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(QUERY_THREADS_MAX))
}

async fn open_store(
    lock: store::DirLock,
    config: &Config,
    clock: Clock,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Store> {
    let options = store::Options {
        dir: config.server.data_dir.clone(),
        store: config.store.clone(),
        limits: config.limits.clone(),
        tenants: config.tenant.clone(),
    };
    let dir = options.dir.clone();
    let opening = move || Store::open_held(lock, options, clock, metrics);
    // Some damage makes the database library panic rather than say so.
    let opened = tokio::task::spawn_blocking(opening).await;
    Ok(opened.with_context(|| {
        format!(
            "cannot open the data directory {}: it seems to be damaged; restore it from a \
             backup, or move it away to begin with an empty one",
            dir.display()
        )
    })??)
}

/// The configuration of a process that cannot write: nothing comes in, nothing is
/// evaluated or delivered. Queries and pages work.
fn reading_only(config: &Config) -> Arc<Config> {
    tracing::warn!(
        path = %config.server.data_dir.display(),
        "read-only: sources, rules and deliveries are off, pushes are refused"
    );
    let mut config = config.clone();
    config.store.read_only = true;
    let nothing = Config::default();
    config.source = nothing.source;
    config.destination = nothing.destination;
    config.route = nothing.route;
    config.rules = nothing.rules;
    config.alerting = nothing.alerting;
    Arc::new(config)
}

/// Tells the command line how to reach us; on a full disk as soon as there is room.
fn leave_control(control: &Control, data_dir: &Path, layer: &Layer) {
    let Err(err) = control.write(data_dir) else {
        return;
    };
    tracing::error!(
        error = %err,
        "cannot write CONTROL in the data directory, trying again: \
         backup, verify and tsdb do not reach this process"
    );
    let (control, dir, stop) = (control.clone(), data_dir.to_owned(), layer.stop.clone());
    layer.tasks.spawn_once(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(CONTROL_RETRY) => {}
            }
            if control.write(&dir).is_ok() {
                tracing::info!("wrote CONTROL");
                return;
            }
        }
    });
}

/// Says how the last run ended, and takes its mark away.
fn note_last_stop(marker: &Path, is_new: bool) {
    match fs::remove_file(marker) {
        Ok(()) => tracing::info!("the last stop was clean"),
        Err(_) if is_new => tracing::info!("made a new data directory"),
        Err(_) => tracing::warn!("the last stop was not clean"),
    }
}

/// Reads the token of `[auth]`, when there is one.
pub(super) fn operator_token(config: &Config) -> anyhow::Result<OperatorToken> {
    let token = config.auth.token.as_ref();
    token.map(|t| t.read().map(Arc::from)).transpose()
}

/// Fills in what depends on where we listen.
pub(super) fn completed(mut config: Config, addrs: &[SocketAddr]) -> Config {
    if config.global.external_url.is_empty() {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let port = addrs.first().map_or(0, SocketAddr::port);
        config.global.external_url = format!("http://{host}:{port}");
    }
    config
}
