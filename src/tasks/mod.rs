//! The only place that spawns tasks: named, restarted after a panic, counted.
//!
//! Owns the set of running tasks, so that a stop can wait for all of them.
//!
//! It must never know what a task does.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus::IntCounterVec;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The first wait before a panicked task is started again; doubles up to [`RESTART_WAIT_MAX`].
const RESTART_WAIT_MIN: Duration = Duration::from_millis(100);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(30);

/// Spawns tasks and knows when all have ended. Cloning gives another handle.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    fatal: CancellationToken,
    restarts: IntCounterVec,
}

impl Tasks {
    /// `restarts` counts restarts by `task`.
    pub fn new(restarts: IntCounterVec) -> Tasks {
        Tasks {
            tracker: TaskTracker::new(),
            fatal: CancellationToken::new(),
            restarts,
        }
    }

    /// Runs `make()`'s future; after a panic makes a new one, with back-off,
    /// until `stop` is cancelled. A future that returns is done.
    pub fn spawn<F, Fut>(&self, name: &'static str, stop: CancellationToken, mut make: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let restarts = self.restarts.with_label_values(&[name]);
        self.spawn_raw(async move {
            let mut wait = RESTART_WAIT_MIN;
            while AssertUnwindSafe(make()).catch_unwind().await.is_err() {
                restarts.inc();
                tracing::error!(task = name, "task panicked, restarting");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(RESTART_WAIT_MAX),
                }
            }
        });
    }

    /// Runs a future that the process cannot go on without: its panic sets [`Tasks::fatal`].
    pub fn spawn_vital(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let fatal = self.fatal.clone();
        self.spawn_raw(async move {
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                tracing::error!(task = name, "vital task panicked, stopping");
                fatal.cancel();
            }
        });
    }

    /// Runs a short-lived future once; a panic ends only it.
    pub fn spawn_once(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_raw(future);
    }

    /// Cancelled when a part without which the process must not go on has ended.
    pub fn fatal(&self) -> CancellationToken {
        self.fatal.clone()
    }

    /// Waits until every task has ended.
    pub async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns"
    )]
    fn spawn_raw(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(self.tracker.track_future(future)));
    }
}
