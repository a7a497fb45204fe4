//! Messages in, write batches out: decode, validate, route, register, commit.
//!
//! Owns the ingest task, the token buckets, the device registry (`Table::Device`)
//! and the dead letters of refused messages. What a message goes through, in
//! order: [`validate`] (in the source's task), [`lanes`], [`decode`], [`series`],
//! [`registry`] and [`route`] (joined in [`batch`]), the store, and the verdict
//! ([`task`]).
//!
//! It must never answer a message before the transaction that holds its samples
//! or its dead letter is durable.

mod batch;
pub mod decode;
mod lanes;
mod letter;
pub mod map;
mod plan;
mod quota;
pub mod registry;
mod route;
mod series;
mod stamps;
mod task;
mod tenants;
mod time;
pub mod topic;
mod validate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Context as _;
use bytes::Bytes;
use subtle::ConstantTimeEq as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::lanes::{Lane, Room};
use self::plan::{Active, Plan};
use self::registry::Registry;
use self::task::Worker;
use self::tenants::Tenants;
use self::validate::Lot;
use crate::config::{Config, Mistake};
use crate::model::tenant::DEFAULT_TENANT;
use crate::model::{Clock, TenantId, Timestamp};
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{self, Ending, ServiceName, UNKNOWN_TENANT};

/// Where messages come from. One value for the life of a source, shared by its messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// `mqtt:NAME`, `nats:NAME` or `http`: as dead letters and pages show it.
    pub source: String,
    /// What kind it is: `mqtt`, `nats`, `http`.
    pub kind: &'static str,
    /// Whether it is a replay of old data.
    pub historical: bool,
}

/// One message as a source received it.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// The topic, with `/` between levels (a NATS subject is translated).
    pub topic: String,
    /// The payload as received.
    pub payload: Bytes,
    /// The stamp of samples whose payload has no time: stable over redelivery.
    pub stamp: Timestamp,
    /// How often it was delivered to us, this time included.
    pub delivered: u32,
    /// The tenant that the credential is bound to; a topic or payload that says
    /// otherwise is refused.
    pub tenant: Option<TenantId>,
    /// Rows to write in the same transaction when a sample takes the stamp: what
    /// keeps the stamp stable over a redelivery.
    pub state: Vec<crate::store::StateOp>,
}

/// What the source tells its broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Durable (or a duplicate of what is durable): acknowledge.
    Committed,
    /// Refused for good, counted, and its dead letter (if it gets one) is durable:
    /// acknowledge or terminate. Holds the reason.
    Rejected(&'static str),
    /// Not stored; the broker shall send it again.
    Retry,
}

/// Messages of one source that are judged together, and where the verdicts go.
pub struct Hand {
    /// Where they come from.
    pub origin: Arc<Origin>,
    /// The messages, in order of receipt.
    pub messages: Vec<Message>,
    /// Takes one verdict for each message, in order. Dropped unanswered only when
    /// the process stops.
    pub reply: Reply,
    /// What admission said about each message.
    lots: Vec<Lot>,
    /// What it was judged by.
    active: Arc<Active>,
    room: Room,
}

/// What is said about messages of a hand, by their place in it.
type Details = HashMap<usize, (String, u32), ahash::RandomState>;

/// Where the answer to a hand goes.
pub struct Reply(Answer);

/// How a message ended, for a source that tells its client more than a broker
/// wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The end.
    pub ending: Ending,
    /// What was wrong and what was expected, where the reason alone says too little.
    pub detail: String,
    /// Its samples that are stored all the same, when it is refused in part.
    pub stored: u32,
}

enum Answer {
    Verdicts(oneshot::Sender<Vec<Verdict>>),
    Endings(oneshot::Sender<Vec<Ended>>),
}

impl Reply {
    /// Answers. A source that is gone does not want to know.
    fn answer(self, endings: &[Ending], details: &mut Details) {
        match self.0 {
            Answer::Verdicts(to) => {
                drop(to.send(endings.iter().map(|&ending| ending.into()).collect()));
            }
            Answer::Endings(to) => {
                let ended = endings.iter().enumerate().map(|(index, &ending)| {
                    let (detail, stored) = details.remove(&index).unwrap_or_default();
                    Ended {
                        ending,
                        detail,
                        stored,
                    }
                });
                drop(to.send(ended.collect()));
            }
        }
    }

    /// Whether it tells more than verdicts.
    fn wants_details(&self) -> bool {
        matches!(self.0, Answer::Endings(_))
    }

    /// Answers in the place of the ingest task, for whoever holds the queue of
    /// [`Ingest::with_queue`].
    ///
    /// # Errors
    /// Gives the verdicts back when the source is gone.
    pub fn send(self, verdicts: Vec<Verdict>) -> Result<(), Vec<Verdict>> {
        match self.0 {
            Answer::Verdicts(to) => to.send(verdicts),
            Answer::Endings(_) => Err(verdicts),
        }
    }
}

impl From<Ending> for Verdict {
    fn from(ending: Ending) -> Verdict {
        match ending {
            Ending::Accepted | Ending::Duplicate => Verdict::Committed,
            Ending::Rejected(reason) => Verdict::Rejected(reason.as_str()),
            Ending::Retry(_) => Verdict::Retry,
        }
    }
}

/// A handle to the ingest task. Cloning gives another handle.
#[derive(Clone)]
pub struct Ingest {
    core: Arc<Core>,
    live: Lane,
    historical: Lane,
}

/// What the handles and the task share.
struct Core {
    active: RwLock<Arc<Active>>,
    tenants: Tenants,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// The ingest task is gone: the process stops.
#[derive(Debug, thiserror::Error)]
#[error("ingest has stopped")]
pub struct Stopped;

/// Why [`start`] and [`Ingest::reload`] would not take this configuration: every
/// map, route, limit and token that is not valid.
pub fn mistakes(config: &Config) -> Vec<Mistake> {
    plan::mistakes(config)
}

/// Starts the ingest task. It runs until `stop`, then takes nothing more,
/// finishes what is queued, answers, and ends. Reads the device registry first,
/// which blocks.
///
/// # Errors
/// With the first of [`mistakes`], and when the registry cannot be read.
pub fn start(
    config: &Config,
    store: Store,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: &Tasks,
    stop: CancellationToken,
) -> anyhow::Result<Ingest> {
    let plan = Plan::compile(config)?;
    let registry = Registry::load(&store).context("cannot read the device registry")?;
    metrics.tenants.set_max(config.metrics.max_tenants);
    if config.has_view("relay") {
        metrics.register(Box::new(metrics.ingest.relay.clone()));
    }
    let queue = metrics.service.queue(ServiceName::Ingest, "ingest_batch");
    let (live, historical, lanes) = lanes::open(&queue);
    let core = Arc::new(Core::new(plan, metrics, clock));
    let lanes = Arc::new(tokio::sync::Mutex::new(lanes));
    let loaded = Mutex::new(Some(registry));
    let (task_core, task_stop) = (Arc::clone(&core), stop.clone());
    tasks.spawn("ingest", stop, move || {
        let first = loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (core, store, lanes) = (Arc::clone(&task_core), store.clone(), Arc::clone(&lanes));
        let stop = task_stop.clone();
        async move {
            // After a panic the devices are read anew, as some may not have been written.
            let registry = first.unwrap_or_else(|| {
                Registry::load(&store).expect("FATAL: the device registry could be read at start")
            });
            let mut lanes = lanes.lock().await;
            Worker::new(core, store, registry)
                .run(&mut lanes, &stop)
                .await;
        }
    });
    Ok(Ingest {
        core,
        live,
        historical,
    })
}

impl Core {
    fn new(plan: Plan, metrics: Arc<Metrics>, clock: Clock) -> Core {
        let core = Core {
            active: RwLock::new(Arc::new(plan.activate(&metrics.ingest))),
            tenants: Tenants::new(Arc::clone(&metrics)),
            metrics,
            clock,
        };
        core.show_tenants(&core.active());
        core
    }

    fn active(&self) -> Arc<Active> {
        let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&active)
    }

    /// Makes the zeros of the tenants that are known without a message.
    fn show_tenants(&self, active: &Active) {
        let configured = active.plan.tenants().map(TenantId::as_str);
        for name in [DEFAULT_TENANT, UNKNOWN_TENANT]
            .into_iter()
            .chain(configured)
        {
            self.tenants.get(name, &active.plan, self.clock.now());
        }
    }
}

impl Ingest {
    /// A handle without a task: whoever holds the other end of the queue judges
    /// the messages. Sources are tested with it.
    pub fn with_queue(queue: mpsc::Sender<Hand>) -> Ingest {
        let metrics = Metrics::new();
        let waiting = metrics.service.queue(ServiceName::Ingest, "ingest_batch");
        let plan = Plan::compile(&Config::default()).expect("the default configuration is valid");
        let lane = Lane::new(queue, waiting);
        Ingest {
            core: Arc::new(Core::new(plan, metrics, Clock::System)),
            live: lane.clone(),
            historical: lane,
        }
    }

    /// Hands messages over and gives a receiver for their verdicts. Waits for
    /// room in the queue; cancel-safe, nothing is handed over when cancelled.
    ///
    /// # Errors
    /// When the process stops.
    pub async fn submit(
        &self,
        origin: &Arc<Origin>,
        messages: Vec<Message>,
    ) -> Result<oneshot::Receiver<Vec<Verdict>>, Stopped> {
        let (reply, verdicts) = oneshot::channel();
        self.hand_over(origin, messages, Answer::Verdicts(reply))
            .await?;
        Ok(verdicts)
    }

    /// As [`Ingest::submit`], for a source that tells its client more than a
    /// broker wants to know.
    ///
    /// # Errors
    /// When the process stops.
    pub async fn submit_counted(
        &self,
        origin: &Arc<Origin>,
        messages: Vec<Message>,
    ) -> Result<oneshot::Receiver<Vec<Ended>>, Stopped> {
        let (reply, endings) = oneshot::channel();
        self.hand_over(origin, messages, Answer::Endings(reply))
            .await?;
        Ok(endings)
    }

    async fn hand_over(
        &self,
        origin: &Arc<Origin>,
        messages: Vec<Message>,
        answer: Answer,
    ) -> Result<(), Stopped> {
        let lane = match origin.historical {
            true => &self.historical,
            false => &self.live,
        };
        let room = lane.room(&messages).await?;
        let place = lane.place().await?;
        let active = self.core.active();
        let lots = self.admit(&active, &messages);
        place.send(Hand {
            origin: Arc::clone(origin),
            messages,
            reply: Reply(answer),
            lots,
            active,
            room,
        });
        Ok(())
    }

    fn admit(&self, active: &Active, messages: &[Message]) -> Vec<Lot> {
        let Core {
            tenants, metrics, ..
        } = &*self.core;
        let now = self.core.clock.now();
        messages
            .iter()
            .map(|message| {
                let lot = validate::admit(active, tenants, message, now);
                let kind = lot.kind(active);
                metrics.ingest.count_received(&lot.tenant.meter, kind);
                lot
            })
            .collect()
    }

    /// Counts messages that never became such: a request body over the limit, or
    /// one for which there was no room.
    pub fn count(&self, tenant: &TenantId, ending: Ending, messages: usize) {
        let active = self.core.active();
        let now = self.core.clock.now();
        let tenant = self.core.tenants.get(tenant.as_str(), &active.plan, now);
        let kind = &active.unknown;
        for _ in 0..messages {
            self.core.metrics.ingest.count_received(&tenant.meter, kind);
            tenant.meter.end(kind, ending);
        }
    }

    /// Whether a tenant may push now: it is switched on and within its rate. A
    /// request counts as one message.
    ///
    /// # Errors
    /// Reason `tenant` or `quota`.
    pub fn admit_request(&self, tenant: &TenantId) -> Result<(), metrics::Reason> {
        let active = self.core.active();
        let now = self.core.clock.now();
        let tenant = self.core.tenants.get(tenant.as_str(), &active.plan, now);
        tenant.pass(now)
    }

    /// Whether so many samples may come in now without a message: they are within the
    /// rate of their tenant, if they have one, and within that of all.
    ///
    /// # Errors
    /// Which rate they are above, as a sentence.
    pub fn admit_samples(
        &self,
        tenant: Option<&TenantId>,
        samples: u64,
    ) -> Result<(), &'static str> {
        let active = self.core.active();
        let now = self.core.clock.now();
        let count = u32::try_from(samples).unwrap_or(u32::MAX);
        let rate_all = active.plan.limits.samples_per_second_all;
        let tenants = &self.core.tenants;
        let passed = match tenant {
            Some(tenant) => {
                let tenant = tenants.get(tenant.as_str(), &active.plan, now);
                tenant.passes_samples(count, rate_all, now)
            }
            None => tenants.passes_samples(count, rate_all, now),
        };
        passed.map_err(tenants::Over::as_str)
    }

    /// Counts samples that were stored for a tenant without a message.
    pub fn count_samples(&self, tenant: &TenantId, samples: u64) {
        let active = self.core.active();
        let now = self.core.clock.now();
        let tenant = self.core.tenants.get(tenant.as_str(), &active.plan, now);
        tenant.meter.samples.inc_by(samples);
    }

    /// The bounds in force.
    pub fn limits(&self) -> crate::config::Limits {
        self.core.active().plan.limits.clone()
    }

    /// The tenants that have a token of their own.
    pub fn token_holders(&self) -> Vec<TenantId> {
        let active = self.core.active();
        let tokens = active.plan.tokens().iter();
        tokens.map(|(tenant, _)| tenant.clone()).collect()
    }

    /// The instruments that messages are counted on.
    pub fn metrics(&self) -> &metrics::Ingest {
        &self.core.metrics.ingest
    }

    /// The tenant that a bearer token is bound to. Takes the same time whatever
    /// token it is.
    pub fn tenant_of_token(&self, token: &str) -> Option<TenantId> {
        let active = self.core.active();
        let tokens = active.plan.tokens().iter();
        tokens.fold(None, |found, (tenant, wanted)| {
            let is_it = bool::from(wanted.as_bytes().ct_eq(token.as_bytes()));
            if is_it { Some(tenant.clone()) } else { found }
        })
    }

    /// Whether a tenant has a token of its own.
    pub fn has_token(&self, tenant: &TenantId) -> bool {
        let active = self.core.active();
        active.plan.tokens().iter().any(|(t, _)| t == tenant)
    }

    /// Applies a changed configuration: maps, routes, limits, tenants and their
    /// tokens. All or nothing: after an error everything is as before. Messages
    /// that were handed over before are judged by what held then.
    ///
    /// # Errors
    /// With the first of [`mistakes`].
    pub fn reload(&self, config: &Config) -> anyhow::Result<()> {
        let plan = Plan::compile(config)?;
        let active = Arc::new(plan.activate(&self.core.metrics.ingest));
        self.core
            .metrics
            .tenants
            .set_max(config.metrics.max_tenants);
        let mut current = self
            .core
            .active
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::clone(&active);
        drop(current);
        self.core.tenants.apply(&active.plan);
        self.core.show_tenants(&active);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
