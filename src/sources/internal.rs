//! Our own metrics and the host as a source: collected every
//! `global.scrape_interval` as if a Prometheus scraped us, so that both can be
//! queried, drawn and alerted on without any set-up.
//!
//! Two jobs with one `instance` (`<hostname>:<port>`): `pulse` with everything in
//! our registry, `node` with the families of [`super::host`]. Each collection adds the series that
//! a scrape adds: `up`, `scrape_duration_seconds`, `scrape_samples_scraped`,
//! `scrape_samples_post_metric_relabeling` and `scrape_series_added`. A series
//! that is not there any more gets a staleness marker. `le` and `quantile` are
//! stored as Prometheus 3 stores them (`le="1.0"`).
//!
//! The samples ride along with other commits: nobody waits for them.

mod job;

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::status::{Board, Status};
use crate::model::{Clock, Timestamp};
use crate::store::{self, Store, Urgency, WriteBatch};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::HOST_PREFIX;
use job::Job;

/// A collection may be this much off its schedule and still bears the planned
/// time, as in Prometheus: even steps take a tenth of the bytes.
const TOLERANCE_MS: i64 = 2;

/// What the source needs.
#[derive(Clone)]
pub struct Options {
    /// How often it collects.
    pub interval: Duration,
    /// The label `instance`: host name and port.
    pub instance: String,
    /// Whether the host's families are collected.
    pub host: bool,
}

/// Collects until `stop`, or until the store is closed. The first collection is
/// made at once; `first` says when it can be queried.
pub async fn run(
    options: Options,
    store: Store,
    metrics: Arc<Metrics>,
    board: Board,
    clock: Clock,
    mut first: Option<oneshot::Sender<()>>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let schedule = Schedule::new(clock.now(), options.interval);
    let mut collection = Collection::new(&options, store, metrics, &board, clock.now());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match collection.collect(schedule.snap(clock.now())).await {
            Ok(()) => {}
            Err(store::Error::Closed) => return,
            Err(err) => {
                tracing::warn!(error = %err, "own metrics could not be stored");
                continue;
            }
        }
        if let Some(first) = first.take() {
            // Nobody has to wait for it.
            first.send(()).ok();
        }
    }
}

/// When collections are planned.
struct Schedule {
    start: Timestamp,
    interval_ms: i64,
    tolerance_ms: i64,
}

impl Schedule {
    fn new(start: Timestamp, interval: Duration) -> Schedule {
        let interval_ms = i64::try_from(interval.as_millis())
            .unwrap_or(i64::MAX)
            .max(1);
        Schedule {
            start,
            interval_ms,
            tolerance_ms: TOLERANCE_MS.min(interval_ms / 100),
        }
    }

    /// The planned time, when `now` is close to one.
    fn snap(&self, now: Timestamp) -> Timestamp {
        let half = self.interval_ms / 2;
        let late = (now.ms_since(self.start).saturating_add(half)).rem_euclid(self.interval_ms);
        let off = late - half;
        if off.abs() <= self.tolerance_ms {
            now.minus_ms(off)
        } else {
            now
        }
    }
}

/// The jobs and what they know from the collection before.
struct Collection {
    store: Store,
    metrics: Arc<Metrics>,
    jobs: Vec<(Job, Entry)>,
}

/// A place on the board, given back at the end.
struct Entry {
    board: Board,
    status: Status,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.board.remove(&self.status);
    }
}

impl Collection {
    fn new(
        options: &Options,
        store: Store,
        metrics: Arc<Metrics>,
        board: &Board,
        now: Timestamp,
    ) -> Collection {
        let job = |(name, kind): (&'static str, &'static str)| {
            let status = board.add(name, kind, &options.instance, "at most once", now);
            let board = board.clone();
            (Job::new(name, &options.instance), Entry { board, status })
        };
        let names = [("pulse", "self"), ("node", "host")];
        Collection {
            store,
            metrics,
            jobs: names
                .into_iter()
                .filter(|(name, _)| *name != "node" || options.host)
                .map(job)
                .collect(),
        }
    }

    /// Gathers and writes all jobs; the samples bear the time `at`.
    async fn collect(&mut self, at: Timestamp) -> Result<(), store::Error> {
        let (families, took) = self.gather().await;
        let (node, own): (Vec<_>, Vec<_>) = families
            .into_iter()
            .partition(|family| family.name().starts_with(HOST_PREFIX));
        let mut batch = WriteBatch {
            urgency: Urgency::RideAlong,
            sheds: true,
            is_own: true,
            ..WriteBatch::default()
        };
        for ((job, entry), families) in self.jobs.iter_mut().zip([own, node]) {
            let samples = job.push(&families, took, at, &self.store, &mut batch);
            entry.status.received(samples, at);
        }
        let committed = self.store.write(batch).await?;
        for ((job, entry), outcome) in self.jobs.iter_mut().zip(&committed.outcomes) {
            job.learn(&self.store, outcome);
            if entry.status.view().connects == 0 {
                entry.status.up(at);
            }
        }
        Ok(())
    }

    /// Reads files of `/proc`, so not on the runtime's workers.
    async fn gather(&self) -> (Vec<MetricFamily>, Duration) {
        let metrics = Arc::clone(&self.metrics);
        let work = move || {
            let start = Instant::now();
            let families = metrics.gather();
            (families, start.elapsed())
        };
        tokio::task::spawn_blocking(work)
            .await
            .expect("gathering does not panic, and nobody cancels it")
    }
}

#[cfg(test)]
mod tests;
