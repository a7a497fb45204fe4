//! Starts the configured brokers' sources, and replaces those that a reload changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::status::{Board, Status};
use super::{mqtt, nats};
use crate::config::{self, Config, Mistake};
use crate::ingest::Ingest;
use crate::model::Clock;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// What every source needs.
#[derive(Clone)]
pub struct Context {
    /// Takes the messages.
    pub ingest: Ingest,
    /// Keeps what sources need after a restart.
    pub store: Store,
    /// Shows their state.
    pub board: Board,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// Runs them.
    pub tasks: Tasks,
    /// Stops all of them.
    pub stop: CancellationToken,
}

/// Checked options of all configured sources. Making one changes nothing.
pub struct Plan(Vec<Planned>);

struct Planned {
    id: String,
    key: Key,
    options: Options,
}

enum Options {
    Mqtt(mqtt::Options),
    Nats(nats::Options),
}

/// Two sources with equal keys behave alike.
#[derive(Clone, PartialEq)]
struct Key {
    written: Written,
    fingerprint: u64,
}

#[derive(Clone, PartialEq)]
enum Written {
    Mqtt(config::Mqtt),
    Nats(config::Nats),
}

/// The running sources.
pub struct Sources {
    context: Context,
    running: Mutex<HashMap<String, Running>>,
}

struct Running {
    key: Key,
    status: Status,
    stop: CancellationToken,
    /// Cancelled when the task has ended.
    ended: CancellationToken,
}

impl Plan {
    /// Checks all sources, reads their secrets and certificates.
    ///
    /// # Errors
    /// The first one that is of no use; the text names source and field.
    pub fn from_config(config: &Config) -> Result<Plan, Mistake> {
        planned(config).collect::<Result<_, _>>().map(Plan)
    }
}

fn planned(config: &Config) -> impl Iterator<Item = Result<Planned, Mistake>> {
    let mqtt = config.source.mqtt.iter().enumerate().map(|(at, source)| {
        let options = mqtt::Options::from_config(source, config)
            .map_err(|err| Mistake::within(&format!("source.mqtt[{at}]"), &err))?;
        Ok(Planned {
            id: format!("mqtt:{}", source.name),
            key: Key {
                written: Written::Mqtt(source.clone()),
                fingerprint: options.fingerprint,
            },
            options: Options::Mqtt(options),
        })
    });
    let nats = config.source.nats.iter().enumerate().map(|(at, source)| {
        let options = nats::Options::from_config(source, config)
            .map_err(|err| Mistake::within(&format!("source.nats[{at}]"), &err))?;
        Ok(Planned {
            id: format!("nats:{}", source.name),
            key: Key {
                written: Written::Nats(source.clone()),
                fingerprint: options.fingerprint,
            },
            options: Options::Nats(options),
        })
    });
    mqtt.chain(nats)
}

/// Every source of a configuration that is of no use, and why.
pub fn mistakes(config: &Config) -> Vec<Mistake> {
    planned(config).filter_map(Result::err).collect()
}

impl Sources {
    /// Starts all sources of a configuration.
    ///
    /// # Errors
    /// As [`Plan::from_config`]; then none was started.
    pub fn start(config: &Config, context: Context) -> anyhow::Result<Sources> {
        let plan = Plan::from_config(config)?;
        let sources = Sources {
            context,
            running: Mutex::default(),
        };
        sources.apply(plan);
        Ok(sources)
    }

    /// Follows a new configuration.
    ///
    /// # Errors
    /// As [`Plan::from_config`]; then nothing has changed.
    pub fn reload(&self, config: &Config) -> anyhow::Result<()> {
        self.apply(Plan::from_config(config)?);
        Ok(())
    }

    /// Stops what the plan does not have, starts what is new, and replaces what
    /// has changed: there the old one ends first, because a broker knows it by
    /// its client id. The others do not notice.
    pub fn apply(&self, plan: Plan) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *running);
        for planned in plan.0 {
            let id = planned.id.clone();
            let source = match before.remove(&id) {
                Some(same) if same.key == planned.key => same,
                other => {
                    let predecessor = other.map(|old| self.end(&old));
                    self.start_one(planned, predecessor)
                }
            };
            running.insert(id, source);
        }
        for old in before.values() {
            self.end(old);
        }
    }

    fn end(&self, old: &Running) -> CancellationToken {
        old.stop.cancel();
        self.context.board.remove(&old.status);
        old.ended.clone()
    }

    fn start_one(&self, planned: Planned, predecessor: Option<CancellationToken>) -> Running {
        let now = self.context.clock.now();
        let (name, kind, url, guarantee) = match &planned.options {
            Options::Mqtt(o) => (&o.name, "mqtt", &o.url, o.guarantee()),
            Options::Nats(o) => (&o.name, "nats", &o.url, o.guarantee()),
        };
        let running = Running {
            key: planned.key,
            status: self.context.board.add(name, kind, url, guarantee, now),
            stop: self.context.stop.child_token(),
            ended: CancellationToken::new(),
        };
        self.spawn(planned.options, &running, predecessor);
        running
    }

    fn spawn(&self, options: Options, running: &Running, predecessor: Option<CancellationToken>) {
        let task = match &options {
            Options::Mqtt(_) => "source_mqtt",
            Options::Nats(_) => "source_nats",
        };
        let context = self.context.clone();
        let (status, stop) = (running.status.clone(), running.stop.clone());
        let options = Arc::new(options);
        let ended = running.ended.clone().drop_guard();
        let make = move || {
            // Lives as long as the task, over its restarts.
            let _ = &ended;
            let (options, context) = (Arc::clone(&options), context.clone());
            let (status, stop) = (status.clone(), stop.clone());
            let predecessor = predecessor.clone();
            async move {
                if let Some(predecessor) = predecessor {
                    predecessor.cancelled().await;
                }
                run(&options, context, status, stop).await;
            }
        };
        self.context.tasks.spawn(task, running.stop.clone(), make);
    }
}

async fn run(options: &Options, context: Context, status: Status, stop: CancellationToken) {
    let Context {
        ingest,
        store,
        metrics,
        clock,
        ..
    } = context;
    let instruments = Arc::clone(&metrics);
    match options {
        Options::Mqtt(options) => {
            mqtt::run(options.clone(), ingest, store, status, metrics, clock, stop).await;
            instruments.sources.remove_mqtt(&options.name);
        }
        Options::Nats(options) => {
            nats::run(options.clone(), ingest, store, status, metrics, clock, stop).await;
            instruments.sources.remove_nats(&options.name);
        }
    }
}
