//! What every handler can reach, and the gate in front of queries.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::api::admin::Local;
use super::api::lifecycle::Reloads;
use crate::alerting::Alerting;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::model::{Clock, Timestamp};
use crate::promql::Engine;
use crate::rules::GroupView;
use crate::sources::status::Board;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ServiceName;

/// Gives the rule groups as they stand now.
pub type RuleGroups = Arc<dyn Fn() -> Arc<Vec<GroupView>> + Send + Sync>;

/// The parts that handlers use. Made once by the process that is served.
pub struct Parts {
    /// Samples and state tables.
    pub store: Store,
    /// The evaluator of every query.
    pub engine: Engine,
    /// Bounds how many queries run at once.
    pub gate: Gate,
    /// Bounds how many lists are made and how many samples are handed out as they are.
    /// Slow queries do not hold these up: Grafana asks for labels, a Prometheus federates.
    pub lists: Gate,
    /// The one clock.
    pub clock: Clock,
    /// Our own instruments.
    pub metrics: Arc<Metrics>,
    /// The state of all sources.
    pub board: Board,
    /// The rule groups as they stand.
    pub groups: RuleGroups,
    /// Alerts, groups and silences.
    pub alerting: Alerting,
    /// The running deliveries.
    pub delivery: Delivery,
    /// What the command line on this machine may ask for.
    pub local: Local,
    /// Where a reload is asked for.
    pub reloads: Reloads,
    /// The configuration in force; replaced as a whole by a reload.
    pub config: watch::Receiver<Arc<Config>>,
    /// Whether every part runs.
    pub ready: watch::Receiver<bool>,
    /// When the process started.
    pub started: Timestamp,
}

/// A handle to the parts. Cloning costs one reference count.
#[derive(Clone)]
pub struct Context(Arc<Parts>);

impl Context {
    /// Wraps the parts for sharing.
    pub fn new(parts: Parts) -> Context {
        Context(Arc::new(parts))
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }
}

impl Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// A flag that a running query looks at; set when nobody waits for it any more.
pub type Cancel = Arc<AtomicBool>;

/// Why a query did not run to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GateError {
    /// All permits were taken until the time ran out.
    #[error("too many queries at once")]
    Busy,
    /// It ran too long and was cancelled.
    #[error("query timed out")]
    TimedOut,
    /// It panicked.
    #[error("query failed inside")]
    Failed,
}

/// Permits for queries: a query holds one while it runs on the blocking pool.
pub struct Gate {
    permits: Arc<Semaphore>,
    /// Its size, and where it is told how many permits are taken.
    shown: Option<(usize, Arc<Metrics>)>,
}

impl Gate {
    /// Lets `size` queries run at once (at least one).
    pub fn new(size: usize) -> Gate {
        Gate {
            permits: Arc::new(Semaphore::new(size.max(1))),
            shown: None,
        }
    }

    /// From now on these instruments show how many run.
    #[must_use]
    pub fn shown_in(self, metrics: Arc<Metrics>) -> Gate {
        let size = self.permits.available_permits();
        let gate = Gate {
            shown: Some((size, metrics)),
            ..self
        };
        gate.publish();
        gate
    }

    /// Runs `work` on the blocking pool within `timeout`, the wait for a permit
    /// included. When the time is over, or the caller drops the future, the
    /// flag is set and the work ends soon after; its permit is free only then.
    ///
    /// # Errors
    /// See [`GateError`].
    pub async fn run<T: Send + 'static>(
        &self,
        timeout: Duration,
        work: impl FnOnce(&Cancel) -> T + Send + 'static,
    ) -> Result<T, GateError> {
        let cancel = Cancel::default();
        let _guard = CancelOnDrop(Arc::clone(&cancel));
        let waited = tokio::time::Instant::now();
        let permit = tokio::time::timeout(timeout, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| GateError::Busy)?
            .expect("the semaphore is never closed");
        self.publish();
        let task = tokio::task::spawn_blocking(move || {
            let answer = work(&cancel);
            drop(permit);
            answer
        });
        let answer = tokio::time::timeout(timeout.saturating_sub(waited.elapsed()), task).await;
        self.publish();
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(GateError::Failed),
            Err(_) => Err(GateError::TimedOut),
        }
    }

    /// Runs `work`, which takes no time to speak of, on this thread: what it costs to hand
    /// it over would be more. `None` when all permits are taken.
    pub fn run_here<T>(&self, work: impl FnOnce(&Cancel) -> T) -> Option<T> {
        let _permit = self.permits.try_acquire().ok()?;
        Some(work(&Cancel::default()))
    }

    fn publish(&self) {
        if let Some((size, metrics)) = &self.shown {
            let free = self.permits.available_permits();
            metrics.service.set_pool(ServiceName::UiApi, *size, free);
        }
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_runs_too_long_is_told_to_stop() {
        let gate = Gate::new(1);
        let (told, heard) = std::sync::mpsc::channel();
        let answer = gate
            .run(Duration::from_millis(10), move |cancel| {
                while !cancel.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                told.send(()).unwrap();
            })
            .await;
        assert_eq!(answer, Err(GateError::TimedOut));
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[tokio::test]
    async fn a_panic_in_a_query_stays_there_and_frees_its_permit() {
        let gate = Gate::new(1);
        let answer: Result<(), _> = gate.run(Duration::from_secs(5), |_| panic!("no")).await;
        assert_eq!(answer, Err(GateError::Failed));
        assert_eq!(gate.run(Duration::from_secs(5), |_| 7).await, Ok(7));
    }
}
