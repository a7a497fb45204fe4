//! The task of one destination: takes rows, makes attempts, commits what came of them.
//!
//! Results are committed together, 20 ms after the first of them, so that a busy
//! destination costs few transactions and a crash repeats at most what one of them
//! holds, with the same ids and bodies. An ordered destination has one row under way
//! and commits at once: the next attempt begins when the last one's end is durable.
//!
//! A failed attempt at telemetry is written into its row. One at a notification is
//! not: such a row may be replaced at any time by a newer flush, which a late write
//! would undo; after a restart its tries begin anew, which is what one wants of a
//! notification. So its next try waits for no commit either, and what is written of the
//! failed ones, for people, is gathered for two seconds.

mod ends;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempts::Kept;
use super::breaker::{Breaker, Pace};
use super::gauges::Gauges;
use super::http::Outcome;
use super::options::Options;
use super::outcome::Done;
use super::queue::{Queue, Row};
use super::target::Sender;
use super::view::{DestinationState, Shown};
use crate::model::{Clock, Timestamp};
use crate::store::{self, Committed, Store, Table};
use crate::telemetry::Metrics;

/// Rows in memory: under way, or ended and not yet committed.
const ROWS_MAX: usize = 64;
/// How often a row that waits is looked at, because the wall clock may jump.
const CLOCK_CHECK: Duration = Duration::from_secs(1);
/// With nothing to do the task still looks once in a while.
const IDLE: Duration = Duration::from_secs(60);
const COMMIT_RETRY_MIN: Duration = Duration::from_secs(1);
/// What a stop allows attempts under way, and then their commit.
const STOP_ATTEMPTS: Duration = Duration::from_secs(3);
const STOP_COMMIT: Duration = Duration::from_secs(3);

/// What a worker is made of.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) options: Arc<Options>,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) shown: Shown,
    pub(super) stop: CancellationToken,
}

type Attempts = FuturesUnordered<Pin<Box<dyn Future<Output = (Row, Attempted)> + Send>>>;
type Commit = Pin<Box<dyn Future<Output = Result<Committed, store::Error>> + Send>>;

struct Attempted {
    at: Timestamp,
    began: Instant,
    duration: Duration,
    outcome: Outcome,
}

/// A running destination.
pub(super) struct Worker {
    seat: Seat,
    sender: Sender,
    queue: Queue,
    breaker: Breaker,
    /// Whether it is said in the log that the destination is paused.
    pause_is_told: bool,
    /// When the log last named a notification that failed, and how many it did not.
    failure_told: Option<Instant>,
    failures_untold: u64,
    gauges: Gauges,
    kept: Kept,
    attempts: Attempts,
    /// Ended and not yet on the way to the store, oldest first.
    done: Vec<Done>,
    /// When those are committed.
    commit_at: Instant,
    commit_retry: Duration,
    /// On the way to the store.
    committing: Option<(Commit, Vec<Done>)>,
    disabled: bool,
    /// The store could not be read just now.
    read_failed: bool,
    /// What the breaker's times count from.
    started: Instant,
}

impl Worker {
    /// Reads which attempts are on record. `is_changed`: the destination was another one
    /// until now, so they say nothing of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn new(seat: Seat, is_changed: bool) -> Result<Worker, store::Error> {
        let Options {
            name,
            schedule,
            ordered,
            ..
        } = &*seat.options;
        let mut kept = Kept::load(&seat.store, name)?;
        let outcomes = kept.take_outcomes();
        let breaker = match is_changed {
            true => Breaker::default(),
            false => Breaker::after(&outcomes),
        };
        // Before anybody looks: that a receiver works again is not said by a restart.
        let gauges = Gauges::new(&seat.metrics, name);
        gauges.set_state(breaker.is_open(), false);
        Ok(Worker {
            sender: Sender::new(&seat.options.target, seat.options.timeout),
            queue: Queue::new(seat.store.clone(), name, schedule.clone(), *ordered),
            breaker,
            pause_is_told: false,
            failure_told: None,
            failures_untold: 0,
            gauges,
            kept,
            attempts: FuturesUnordered::new(),
            done: Vec::new(),
            commit_at: Instant::now(),
            commit_retry: COMMIT_RETRY_MIN,
            committing: None,
            disabled: false,
            read_failed: false,
            started: Instant::now(),
            seat,
        })
    }

    /// Works until it is told to stop or the store closes.
    pub(super) async fn run(mut self) {
        let stop = self.seat.stop.clone();
        let mut changes = self.seat.store.changes(Table::Outbox);
        loop {
            changes.mark_unchanged();
            self.advance();
            let wake = self.wake();
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                Some((row, attempted)) = self.attempts.next() => self.ended_attempt(row, attempted),
                result = committed(&mut self.committing) => {
                    if self.ended_commit(result).is_break() {
                        break;
                    }
                }
                () = tokio::time::sleep(wake) => {}
            }
        }
        self.finish().await;
    }

    /// Does all that can be done now.
    fn advance(&mut self) {
        let started = self.queue.count_new().and_then(|()| self.start_attempts());
        self.read_failed = started.is_err();
        if let Err(err) = started {
            self.log_store_error(&err);
        }
        self.start_commit();
        self.show();
    }

    fn start_attempts(&mut self) -> Result<(), store::Error> {
        while self.has_room() {
            let elapsed = self.started.elapsed();
            let is_free = self.queue.holds_only_notifications();
            if !is_free && !self.breaker.try_attempt(elapsed, self.pace()) {
                break;
            }
            match self.queue.take(self.seat.clock.now()) {
                Ok(Some(row)) => self.start_attempt(row),
                nothing => {
                    if !is_free {
                        self.breaker.give_back();
                    }
                    return nothing.map(|_| ());
                }
            }
        }
        Ok(())
    }

    fn start_attempt(&mut self, row: Row) {
        let sender = self.sender.clone();
        let clock = self.seat.clock.clone();
        self.attempts.push(Box::pin(async move {
            let at = clock.now();
            let began = Instant::now();
            let outcome = sender.attempt(&row.delivery, at).await;
            let duration = began.elapsed();
            let attempted = Attempted {
                at,
                began,
                duration,
                outcome,
            };
            (row, attempted)
        }));
    }

    /// After how long something is due that nothing else wakes the task for.
    fn wake(&self) -> Duration {
        if self.read_failed {
            return CLOCK_CHECK;
        }
        if self.queue.has_more() {
            return Duration::ZERO;
        }
        let mut wake = IDLE;
        if !self.done.is_empty() && self.committing.is_none() {
            wake = self.commit_at.saturating_duration_since(Instant::now());
        }
        let pause = self.pause();
        let is_probing =
            self.breaker.is_open() && pause.is_none() && !self.queue.holds_only_notifications();
        if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
            wake = wake.min(pause);
        } else if let Some(at) = self.queue.next_at()
            && self.has_room()
            && !is_probing
        {
            let ms = at.ms_since(self.seat.clock.now()).max(1);
            let wait = Duration::from_millis(ms.unsigned_abs());
            wake = wake.min(wait).min(CLOCK_CHECK);
        }
        wake
    }

    /// A notification must not wait for as long as telemetry can.
    fn pace(&self) -> Pace {
        match self.queue.depth().notifications {
            0 => Pace::Telemetry,
            _ => Pace::Notifications,
        }
    }

    /// How long no attempt is made from now on; none while attempts are made.
    fn pause(&self) -> Option<Duration> {
        if self.queue.holds_only_notifications() {
            return None;
        }
        let until = self.breaker.open_until(self.pace())?;
        Some(until.saturating_sub(self.started.elapsed()))
    }

    /// Whether another row may be under way.
    fn has_room(&self) -> bool {
        let rows_max = if self.seat.options.ordered {
            1
        } else {
            ROWS_MAX
        };
        !self.disabled
            && self.attempts.len() < self.seat.options.concurrency
            && self.queue.taken() < rows_max
    }

    fn show(&mut self) {
        let now = self.seat.clock.now();
        let depth = self.queue.depth();
        self.gauges.set_depth(depth);
        let backlog = depth.telemetry + depth.notifications;
        // Without anything to send there is no probe, and nobody is held up.
        let holds_up = self.breaker.is_open() && backlog > 0;
        self.gauges.set_state(holds_up, self.disabled);
        let until = self
            .pause()
            .map(|left| now.plus_ms(i64::try_from(left.as_millis()).unwrap_or(i64::MAX)));
        // Notifications are not paused, each has its own next try.
        let next_try = || {
            self.queue
                .holds_only_notifications()
                .then(|| self.next_at(now))
        };
        let open_until = until.or_else(next_try).filter(|_| holds_up);
        let mut shown = self.seat.shown.lock();
        shown.backlog = backlog;
        shown.notifications = depth.notifications;
        shown.in_flight = self.attempts.len();
        shown.state = match open_until {
            _ if self.disabled => DestinationState::Disabled,
            Some(until) => DestinationState::BreakerOpen(until),
            None => DestinationState::Working,
        };
        shown.next_attempt = match open_until {
            _ if self.disabled || shown.backlog == 0 => None,
            Some(until) => Some(until),
            None => Some(self.next_at(now)),
        };
    }

    fn next_at(&self, now: Timestamp) -> Timestamp {
        self.queue.next_at().map_or(now, |at| at.max(now))
    }

    /// Lets attempts under way end, commits what ended, leaves the rest on disk.
    async fn finish(mut self) {
        let deadline = Instant::now() + STOP_ATTEMPTS;
        while let Ok(Some((row, attempted))) =
            tokio::time::timeout_at(deadline, self.attempts.next()).await
        {
            self.ended_attempt(row, attempted);
        }
        let deadline = Instant::now() + STOP_COMMIT;
        loop {
            self.commit_at = Instant::now();
            self.start_commit();
            if self.committing.is_none() {
                break;
            }
            match tokio::time::timeout_at(deadline, committed(&mut self.committing)).await {
                Ok(Ok(written)) => {
                    if self.ended_commit(Ok(written)).is_break() {
                        break;
                    }
                }
                // What is not on record is sent again after the next start.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        self.show();
    }
}

/// The end of the commit under way; never, when there is none.
async fn committed(
    committing: &mut Option<(Commit, Vec<Done>)>,
) -> Result<Committed, store::Error> {
    match committing {
        Some((write, _)) => write.await,
        None => std::future::pending().await,
    }
}
