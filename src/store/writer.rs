//! The one thread with write transactions on `hot.redb`: group commit.
//!
//! It takes every batch that waits, puts its samples into the head (where queries
//! see them) and into the open log record, and closes the record with one redb
//! transaction, or one write to the appended log when it has samples alone: durable
//! with one sync, one commit number. Answers go out after that. A batch that rides
//! along is answered at once and is durable within 10 s.
//!
//! The record waits for more only when more is expected: a caller stands at the
//! queue, or the crowd of the commit before (who was answered by it, and who came
//! while it ran) is not all back. It waits for `[store] linger`, and somewhat longer
//! for the crowd: a commit costs a sync, and 26 kB besides its record if it is one of
//! redb, however many share it. Who is alone never waits.
//!
//! When the disk refuses a transaction, the record is kept, the database is
//! opened again, and the record is written again unless its number is there. An
//! appended record is written again in any case, to the same place.

mod commit;
mod reset;
mod volatile;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roaring::RoaringBitmap;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::batch::{CommitSeq, Committed, Urgency, WriteBatch};
use super::clock::Keeper;
use super::index::Removed;
use super::intake::{Intake, Load};
use super::parts::Part;
use super::series::PartId;
use super::shared::Shared;
use super::transaction::{Change, Changes};
use super::wear::Wear;
use super::{Error, StateOp, Table, wal};

/// Batches that may wait in the queue.
pub(super) const QUEUE_BATCHES_MAX: usize = 4;

/// A record is closed at this size at the latest.
const RECORD_BYTES_MAX: usize = 2 << 20;

/// What rides along is durable within this time.
const RIDE_ALONG: Duration = Duration::from_secs(10);
/// What rides along and is wanted soon.
const SOON: Duration = Duration::from_secs(1);

/// How long callers are waited for that are expected back.
const CROWD_WAIT: Duration = Duration::from_millis(8);

/// Series that leave the index while its readers wait.
const FORGET_STEP: usize = 100;

/// After this time the value coders start anew at a place where the log can be cut.
const RESET_AFTER: Duration = Duration::from_secs(300);

/// So many records lean on each other, the first one included, or more until so many
/// values of each series do: a damaged one costs no more than these. See the module head
/// of [`reset`].
pub(super) const LEANING_MAX: u32 = 32;

/// Something for the writer to do.
pub(super) enum Job {
    /// A caller's batch.
    Write(Box<Write>),
    /// Commit, then give away the parts of all windows but these (in hours).
    Take {
        leave: RangeInclusive<u32>,
        reply: oneshot::Sender<Vec<Part>>,
    },
    /// These parts are in sealed files: drop what the log no longer needs.
    Sealed {
        parts: Vec<PartId>,
        reply: oneshot::Sender<()>,
    },
    /// Drop these series, as far as they still have no samples in memory.
    Forget {
        series: RoaringBitmap,
        reply: oneshot::Sender<()>,
    },
    /// Delete all of the log that is sealed and give its space back to the disk.
    Compact(oneshot::Sender<Result<(), Error>>),
    /// Commit and end.
    Close,
}

/// A caller that is answered after the commit.
struct Waiting {
    reply: oneshot::Sender<Committed>,
    committed: Committed,
    is_volatile: bool,
}

/// A caller's batch on its way.
pub(super) struct Write {
    pub(super) batch: WriteBatch,
    pub(super) reply: oneshot::Sender<Committed>,
    pub(super) room: OwnedSemaphorePermit,
    pub(super) load: Load,
}

/// Where the log stands after replay.
pub(super) struct Log {
    pub(super) builder: wal::Builder,
    /// The last number given to an outbox row or dead letter.
    pub(super) sequence: u64,
    /// The commits that begin with a reset.
    pub(super) resets: Vec<u64>,
    /// The first commit that the table holds.
    pub(super) first: u64,
    /// Commits up to this one are sealed.
    pub(super) sealed: u64,
}

/// The writer's state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    clock: tokio::runtime::Runtime,
    intake: Intake,
    changes: Changes,
    /// The last number given to an outbox row or dead letter.
    sequence: u64,
    /// The number of the open transaction.
    seq: u64,
    /// Commits that begin with a reset of the value coders: the log can be cut there.
    resets: VecDeque<u64>,
    /// The first commit in the log that is sealed and not deleted yet.
    wal_first: u64,
    /// Commits up to this one are sealed.
    wal_sealed: u64,
    /// Catalog rows that the next commit deletes.
    removed: Removed,
    /// The sealer, who is answered after the commit.
    sealer: Vec<oneshot::Sender<()>>,
    /// Callers that are answered after the commit.
    waiting: Vec<Waiting>,
    /// The changes of the open transaction that may count before it is durable.
    volatile: Vec<(Table, Bytes, Change)>,
    /// Whether some of them do.
    is_in_memory: bool,
    /// Jobs that came while the disk refused.
    aside: VecDeque<Job>,
    load: Load,
    /// When the open record has to be committed.
    due: Option<Instant>,
    /// Callers that are expected.
    crowd: usize,
    bytes_max: usize,
    record: Vec<u8>,
    /// The open record goes to redb for want of a file of the log.
    is_for_log: bool,
    last_reset: Instant,
    leaning: reset::Leaning,
    keeper: Keeper,
    wear: Wear,
}

impl Writer {
    /// A writer that goes on after the given numbers.
    pub(super) fn new(
        shared: Arc<Shared>,
        jobs: mpsc::Receiver<Job>,
        log: Log,
    ) -> std::io::Result<Writer> {
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let seq = shared.committed.load(Ordering::Relaxed) + 1;
        let write_budget = shared.options.store.write_budget.get();
        let written = shared.metrics.store.bytes_written.get();
        let quarter = shared.options.store.hot_cache.as_usize() / 4;
        Ok(Writer {
            intake: Intake::new(Arc::clone(&shared), log.builder),
            shared,
            jobs,
            clock,
            changes: Changes::default(),
            sequence: log.sequence,
            seq,
            resets: log.resets.into(),
            wal_first: log.first,
            wal_sealed: log.sealed,
            removed: Removed::default(),
            sealer: Vec::new(),
            waiting: Vec::new(),
            volatile: Vec::new(),
            is_in_memory: false,
            aside: VecDeque::new(),
            load: Load::default(),
            due: None,
            crowd: 0,
            bytes_max: RECORD_BYTES_MAX.min(quarter).max(1),
            record: Vec::new(),
            is_for_log: false,
            last_reset: Instant::now(),
            leaning: reset::Leaning::default(),
            keeper: Keeper::default(),
            wear: Wear::new(write_budget, written, Instant::now()),
        })
    }

    /// Works until the store is closed or no handle is left.
    pub(super) fn run(mut self) {
        self.start_anew();
        while let Some(go_on) = self.turn() {
            if !go_on {
                break;
            }
        }
        // Who is half through the door is let in and turned away: a job that comes
        // after the receiver has gone would keep its caller waiting for ever.
        self.jobs.close();
        while self.clock.block_on(self.jobs.recv()).is_some() {}
        if let Err(err) = self.note_end() {
            tracing::warn!(error = %err, "cannot note where the log ends");
        }
    }

    /// One round: wait, take all there is, commit when it is time. `None` when
    /// nobody can send any more.
    fn turn(&mut self) -> Option<bool> {
        let mut open = true;
        match self.wait() {
            Waited::Job(job) => open = self.take(job),
            Waited::Due => {}
            Waited::Gone => open = false,
        }
        while open && !self.is_full() {
            match self.next_job() {
                Some(job) => open = self.take(job),
                None => break,
            }
        }
        if !open || self.is_due() {
            open &= self.commit();
        }
        open.then_some(true)
    }

    /// A job that is there already.
    fn next_job(&mut self) -> Option<Job> {
        let first = self.aside.pop_front();
        first.or_else(|| self.jobs.try_recv().ok())
    }

    fn wait(&mut self) -> Waited {
        if let Some(job) = self.aside.pop_front() {
            return Waited::Job(job);
        }
        let jobs = &mut self.jobs;
        let job = match self.due {
            None => self.clock.block_on(jobs.recv()),
            Some(due) => {
                let wait = self
                    .clock
                    .block_on(async { tokio::time::timeout_at(due.into(), jobs.recv()).await });
                match wait {
                    Ok(job) => job,
                    Err(_) => return Waited::Due,
                }
            }
        };
        job.map_or(Waited::Gone, Waited::Job)
    }

    /// Takes a job in; says whether to go on.
    fn take(&mut self, job: Job) -> bool {
        match job {
            Job::Write(write) => self.take_batch(*write),
            Job::Take { leave, reply } => return self.give_parts(&leave, reply),
            Job::Sealed { parts, reply } => self.note_sealed(&parts, reply),
            Job::Forget { series, reply } => self.forget(&series, reply),
            Job::Compact(reply) => return self.compact(reply),
            Job::Close => return false,
        }
        true
    }

    /// All samples up to the last commit are in the parts that go away; those of
    /// later commits open new ones.
    fn give_parts(
        &mut self,
        leave: &RangeInclusive<u32>,
        reply: oneshot::Sender<Vec<Part>>,
    ) -> bool {
        if !self.commit() {
            return false;
        }
        self.start_anew();
        let parts = self.shared.parts().take_all_but(leave, self.seq - 1);
        drop(reply.send(parts));
        true
    }

    fn note_sealed(&mut self, sealed: &[PartId], reply: oneshot::Sender<()>) {
        let first_unsealed = {
            let mut parts = self.shared.parts();
            for id in sealed {
                parts.sealed(*id);
            }
            parts.first_unsealed_seq().unwrap_or(self.seq)
        };
        // The last reset before the first record that is still needed.
        while self
            .resets
            .get(1)
            .is_some_and(|next| *next <= first_unsealed)
        {
            self.resets.pop_front();
        }
        if let Some(cut) = self.resets.front().filter(|cut| **cut <= first_unsealed) {
            self.wal_sealed = self.wal_sealed.max(cut - 1);
        }
        self.sealer.push(reply);
        self.due_within(Duration::ZERO);
    }

    fn compact(&mut self, reply: oneshot::Sender<Result<(), Error>>) -> bool {
        while !self.is_idle() {
            if !self.commit() {
                return false;
            }
        }
        self.shared.log.trim();
        let compacted = self.shared.hot.compact();
        if compacted.is_err()
            && let Err(err) = self.shared.hot.reopen()
        {
            tracing::error!(error = %err, "cannot open the store again");
        }
        // A caller that went away wants no answer.
        drop(reply.send(compacted));
        true
    }

    fn forget(&mut self, series: &RoaringBitmap, reply: oneshot::Sender<()>) {
        let empty = series
            .iter()
            .filter(|id| self.shared.head.forget_empty(*id));
        let empty: Vec<u32> = empty.collect();
        for some in empty.chunks(FORGET_STEP) {
            let some = some.iter().copied().collect();
            let removed = self.shared.index_mut().remove(&some);
            self.removed.series.extend(removed.series);
            self.removed.symbols.extend(removed.symbols);
        }
        self.intake.forgot();
        self.sealer.push(reply);
        self.due_within(Duration::ZERO);
    }

    fn take_batch(&mut self, write: Write) {
        let batch = write.batch;
        let is_volatile = batch.volatile;
        let (outcomes, refused) = self.intake.take(&batch, self.seq);
        for (item, outcome) in batch.items.into_iter().zip(&outcomes) {
            if outcome.added > 0 {
                self.take_ops(item.on_new, is_volatile);
            }
            self.take_ops(item.always, is_volatile);
        }
        self.load.add(&write.load);
        let committed = Committed {
            seq: CommitSeq(self.seq),
            outcomes,
            refused,
        };
        match batch.urgency {
            Urgency::Commit => {
                self.waiting.push(Waiting {
                    reply: write.reply,
                    committed,
                    is_volatile,
                });
                self.due_within(self.linger());
            }
            Urgency::RideAlong | Urgency::Soon => {
                // A caller that went away wants no answer.
                drop(write.reply.send(committed));
                self.due_within(match batch.urgency {
                    Urgency::Soon => SOON,
                    _ => RIDE_ALONG,
                });
            }
        }
        drop(write.room);
    }

    fn due_within(&mut self, wait: Duration) {
        let due = Instant::now() + wait;
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// How long the open record waits for more.
    fn linger(&self) -> Duration {
        let usual = self.shared.options.store.linger.get();
        let wait = if self.waiting.len() < self.crowd && !usual.is_zero() {
            CROWD_WAIT.max(usual)
        } else if self.callers() > 0 {
            usual
        } else {
            Duration::ZERO
        };
        self.wear.linger(wait)
    }

    /// Callers that stand at the queue.
    fn callers(&self) -> usize {
        self.shared.callers.load(Ordering::Relaxed)
    }

    /// Notes who shared a commit or came while it ran: they are expected again.
    fn expect_crowd(&mut self) {
        self.crowd = self.waiting.len() + self.jobs.len() + self.callers();
    }

    fn take_ops(&mut self, ops: Vec<StateOp>, is_volatile: bool) {
        for op in ops {
            let (table, key, change) = self.change_of(op);
            if is_volatile {
                self.volatile.push((table, key.clone(), change.clone()));
            }
            self.changes.push(table, key, change);
        }
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn is_full(&self) -> bool {
        self.intake.log_bytes() + self.changes.bytes() >= self.bytes_max
    }

    fn is_due(&self) -> bool {
        self.is_full() || self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Whether there is anything to commit.
    fn is_idle(&self) -> bool {
        self.intake.is_idle()
            && self.changes.is_empty()
            && self.waiting.is_empty()
            && self.sealer.is_empty()
            && !self.has_records_to_cut()
            && !self.shared.days.has_records()
    }

    /// Whether there are sealed records that may be deleted.
    fn has_records_to_cut(&self) -> bool {
        self.wal_first <= self.wal_sealed && !self.shared.days.is_pinned()
    }
}

enum Waited {
    Job(Job),
    Due,
    Gone,
}
