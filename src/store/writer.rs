//! The one thread with write transactions on `hot.redb`: group commit.
//!
//! It takes every batch that waits, puts its samples into the head (where queries
//! see them) and into the open log record, and closes the record with one redb
//! transaction: durable with one sync, one commit number. Answers go out after
//! that. A batch that rides along is answered at once and is durable within 10 s.
//!
//! The record waits for more (`[store] linger`) only when more is expected: a
//! caller stands at the queue, or batches came closer together than the linger of
//! late. A lone caller that waits for each of its commits never waits for it.
//!
//! When the disk refuses a transaction, the record is kept, the database is
//! opened again, and the record is written again unless its number is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::batch::{CommitSeq, Committed, Urgency, WriteBatch};
use super::index::Removed;
use super::intake::{Intake, Load};
use super::ledger::Ledger;
use super::parts::Part;
use super::series::PartId;
use super::shared::Shared;
use super::tables::{self, Meta, has_commit};
use super::transaction::{self, Bounds, Changes, Evicted};
use super::{StateOp, Table, state, wal};

/// Batches that may wait in the queue.
pub(super) const QUEUE_BATCHES_MAX: usize = 4;

/// A record is closed at this size at the latest.
const RECORD_BYTES_MAX: usize = 2 << 20;

/// What rides along is durable within this time.
const RIDE_ALONG: Duration = Duration::from_secs(10);

/// All value coders start anew after this time, so that a damaged record costs
/// the log behind it no more than that.
const RESET_AFTER: Duration = Duration::from_secs(300);

/// The waits between attempts at a disk that refuses.
const RETRY_MIN: Duration = if cfg!(test) {
    Duration::from_millis(1)
} else {
    Duration::from_secs(1)
};
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Sealed records that one transaction deletes: it has to read them.
const CUT_BYTES: usize = 4 << 20;

/// The wait until the next transaction deletes more, when nothing else happens.
const CUT_PAUSE: Duration = Duration::from_millis(50);

/// How soon a waiting writer sees that the store closes.
const RETRY_POLL: Duration = if cfg!(test) {
    Duration::from_millis(1)
} else {
    Duration::from_millis(20)
};

/// Above this size redb keeps what makes opening after a crash quick.
const QUICK_REPAIR_BYTES: u64 = 64 << 20;

/// Something for the writer to do.
pub(super) enum Job {
    /// A caller's batch.
    Write(Box<Write>),
    /// Commit, then give away the parts of the windows before this one (in hours).
    Take {
        before: u32,
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
    /// Commit and end.
    Close,
}

/// A caller's batch on its way.
pub(super) struct Write {
    pub(super) batch: WriteBatch,
    pub(super) reply: oneshot::Sender<Committed>,
    pub(super) room: OwnedSemaphorePermit,
    pub(super) load: Load,
    pub(super) sent: Instant,
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
    waiting: Vec<(oneshot::Sender<Committed>, Committed)>,
    load: Load,
    /// When the open record has to be committed.
    due: Option<Instant>,
    arrivals: Arrivals,
    bytes_max: usize,
    record: Vec<u8>,
    last_reset: Instant,
}

/// How close together batches arrive.
#[derive(Debug)]
struct Arrivals {
    last: Instant,
    gap: Duration,
}

impl Arrivals {
    /// Notes an arrival; the mean gap forgets by a quarter each time.
    fn note(&mut self, at: Instant) {
        let gap = at.saturating_duration_since(self.last);
        self.gap = (self.gap * 3 + gap.min(Duration::from_secs(1))) / 4;
        self.last = self.last.max(at);
    }
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
            load: Load::default(),
            due: None,
            arrivals: Arrivals {
                last: Instant::now(),
                gap: Duration::from_secs(1),
            },
            bytes_max: RECORD_BYTES_MAX.min(quarter).max(1),
            record: Vec::new(),
            last_reset: Instant::now(),
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
            match self.jobs.try_recv() {
                Ok(job) => open = self.take(job),
                Err(_) => break,
            }
        }
        if !open || self.is_due() {
            open &= self.commit();
        }
        open.then_some(true)
    }

    fn wait(&mut self) -> Waited {
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
            Job::Take { before, reply } => return self.give_parts(before, reply),
            Job::Sealed { parts, reply } => self.note_sealed(&parts, reply),
            Job::Forget { series, reply } => self.forget(&series, reply),
            Job::Close => return false,
        }
        true
    }

    /// Makes the next record one that the log can be cut at.
    fn start_anew(&mut self) {
        self.last_reset = Instant::now();
        self.intake.start_anew();
        if self.resets.back() != Some(&self.seq) {
            self.resets.push_back(self.seq);
        }
    }

    /// All samples up to the last commit are in the parts that go away; those of
    /// later commits open new ones.
    fn give_parts(&mut self, before: u32, reply: oneshot::Sender<Vec<Part>>) -> bool {
        if !self.commit() {
            return false;
        }
        self.start_anew();
        let parts = self.shared.parts().take_before(before, self.seq - 1);
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

    fn forget(&mut self, series: &RoaringBitmap, reply: oneshot::Sender<()>) {
        let empty = series
            .iter()
            .filter(|id| self.shared.head.forget_empty(*id));
        let empty: RoaringBitmap = empty.collect();
        let removed = self.shared.index_mut().remove(&empty);
        self.removed.series.extend(removed.series);
        self.removed.symbols.extend(removed.symbols);
        self.sealer.push(reply);
        self.due_within(Duration::ZERO);
    }

    fn take_batch(&mut self, write: Write) {
        self.arrivals.note(write.sent);
        let batch = write.batch;
        let outcomes = self.intake.take(&batch, self.seq);
        for (item, outcome) in batch.items.into_iter().zip(&outcomes) {
            if outcome.added > 0 {
                self.take_ops(item.on_new);
            }
            self.take_ops(item.always);
        }
        self.load.add(&write.load);
        let committed = Committed {
            seq: CommitSeq(self.seq),
            outcomes,
        };
        match batch.urgency {
            Urgency::Commit => {
                self.waiting.push((write.reply, committed));
                self.due_within(self.linger());
            }
            Urgency::RideAlong => {
                // A caller that went away wants no answer.
                drop(write.reply.send(committed));
                self.due_within(RIDE_ALONG);
            }
        }
        drop(write.room);
    }

    fn due_within(&mut self, wait: Duration) {
        let due = Instant::now() + wait;
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    fn linger(&self) -> Duration {
        let linger = self.shared.options.store.linger.get();
        let expected =
            self.shared.callers.load(Ordering::Relaxed) > 0 || self.arrivals.gap < linger;
        if expected { linger } else { Duration::ZERO }
    }

    fn take_ops(&mut self, ops: Vec<StateOp>) {
        for op in ops {
            match op {
                StateOp::Put { table, key, value } => self.changes.push(table, key, Some(value)),
                StateOp::Delete { table, key } => self.changes.push(table, key, None),
                StateOp::Enqueue(delivery) => {
                    let key = state::outbox_key(&delivery.destination, self.next_sequence());
                    let row = state::encode_delivery(&delivery);
                    self.changes
                        .push(Table::Outbox, key.into(), Some(row.into()));
                }
                StateOp::Bury(letter) => {
                    let key = self.next_sequence().to_be_bytes().to_vec();
                    let row = state::encode_dead_letter(&letter);
                    self.changes.push(Table::Dead, key.into(), Some(row.into()));
                }
            }
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
            && self.wal_first > self.wal_sealed
    }

    /// Commits the open record and answers; says whether to go on.
    fn commit(&mut self) -> bool {
        self.due = None;
        if self.is_idle() {
            return true;
        }
        let begun = Instant::now();
        let mut wait = RETRY_MIN;
        let evicted = loop {
            match self.try_commit() {
                Ok(evicted) => break evicted,
                Err(err) => {
                    if !self.ride_out(&err, wait) {
                        return false;
                    }
                    wait = (wait * 2).min(RETRY_MAX);
                    if self.is_committed() {
                        self.count_again();
                        break Evicted::default();
                    }
                }
            }
        };
        self.committed(begun.elapsed(), &evicted);
        true
    }

    fn try_commit(&mut self) -> Result<Evicted, redb::Error> {
        let db = self.shared.hot.database().map_err(to_redb)?;
        let long = std::fs::metadata(self.shared.hot.path())
            .is_ok_and(|meta| meta.len() > QUICK_REPAIR_BYTES);
        let txn = transaction::begin(&db, long)?;
        let limits = &self.shared.options.limits;
        let bounds = Bounds {
            outbox_bytes: limits.outbox_max.get(),
            dead_bytes: limits.dead_letters_max.get(),
        };
        let mut sequence = self.sequence;
        let applied = {
            let mut ledger = self.shared.ledger();
            let applied =
                transaction::put_state(&txn, &self.changes, bounds, &mut ledger, &mut sequence);
            if applied.is_err() {
                ledger.take_back();
            }
            applied
        };
        let done = applied.and_then(|evicted| {
            self.intake.finish(sequence, &mut self.record);
            transaction::put_record(&txn, self.seq, &self.record)?;
            transaction::put_catalog(&txn, self.intake.added())?;
            let cut = self.cut_log(&txn, sequence)?;
            txn.commit()?;
            Ok((evicted, cut))
        });
        let mut ledger = self.shared.ledger();
        match done {
            Ok((evicted, cut)) => {
                ledger.keep();
                self.sequence = sequence;
                self.wal_first = cut.next;
                self.shared.metrics.store.wal_bytes.sub(cut.bytes);
                Ok(evicted)
            }
            Err(err) => {
                ledger.take_back();
                Err(err)
            }
        }
    }

    /// Deletes sealed records, a bounded number of them, and removed series.
    fn cut_log(&self, txn: &redb::WriteTransaction, sequence: u64) -> Result<Cut, redb::Error> {
        let mut cut = Cut {
            next: self.wal_first,
            bytes: 0,
        };
        let removes = !self.removed.series.is_empty();
        if cut.next > self.wal_sealed && !removes {
            return Ok(cut);
        }
        let (last_ref, last_symbol) = self.shared.index().last();
        let meta = Meta {
            version: tables::VERSION,
            wal_sealed_seq: self.wal_sealed,
            sequence,
            last_ref: last_ref.into(),
            last_symbol: last_symbol.into(),
        };
        meta.write(txn)?;
        transaction::delete_catalog(txn, &self.removed)?;
        if cut.next <= self.wal_sealed {
            let to = self.wal_sealed;
            let (next, bytes) = transaction::delete_records(txn, cut.next, to, CUT_BYTES)?;
            cut = Cut {
                next,
                bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            };
        }
        Ok(cut)
    }

    /// After a refused transaction: waits, and opens the database again. Says
    /// whether to try again; not when the store is closing.
    fn ride_out(&self, err: &redb::Error, wait: Duration) -> bool {
        let metrics = &self.shared.metrics.store;
        metrics.commit_failures.inc();
        metrics.failing.set(1);
        tracing::error!(commit_seq = self.seq, error = %err, "cannot commit, trying again");
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.shared.is_closing() {
                return false;
            }
            std::thread::sleep(RETRY_POLL);
        }
        if let Err(err) = self.shared.hot.reopen() {
            tracing::error!(error = %err, "cannot open the store again");
        }
        true
    }

    /// Whether the open transaction is on disk after all.
    fn is_committed(&self) -> bool {
        let db = self.shared.hot.database();
        db.is_ok_and(|db| has_commit(&db, self.seq).unwrap_or(false))
    }

    /// The refused transaction was there after all, and its counts were taken back.
    fn count_again(&mut self) {
        let read = || -> Result<(Ledger, u64), Box<dyn std::error::Error>> {
            Ok(Ledger::read(&*self.shared.hot.database()?)?)
        };
        match read() {
            Ok((ledger, last)) => {
                *self.shared.ledger() = ledger;
                self.sequence = self.sequence.max(last);
            }
            Err(err) => tracing::error!(error = %err, "cannot count outbox and dead letters"),
        }
    }

    fn committed(&mut self, took: Duration, evicted: &Evicted) {
        let shared = Arc::clone(&self.shared);
        shared.committed.store(self.seq, Ordering::Release);
        self.observe(took, evicted);
        for table in Table::ALL {
            let evicted = table == Table::Dead && !evicted.deliveries.is_empty();
            if evicted || !self.changes.of(table).is_empty() {
                shared.changes(table).send_replace(self.seq);
            }
        }
        for (reply, committed) in self.waiting.drain(..) {
            // A caller that went away wants no answer.
            drop(reply.send(committed));
        }
        for reply in self.sealer.drain(..) {
            reply.send(()).unwrap_or_default();
        }
        self.removed = Removed::default();
        self.changes = Changes::default();
        self.intake.clear();
        self.seq += 1;
        if self.last_reset.elapsed() >= RESET_AFTER {
            self.start_anew();
        }
        if self.wal_first <= self.wal_sealed {
            self.due_within(CUT_PAUSE);
        }
    }

    fn observe(&mut self, took: Duration, evicted: &Evicted) {
        let metrics = &self.shared.metrics;
        let seconds = took.as_secs_f64();
        metrics.store.failing.set(0);
        metrics.store.commits.inc();
        metrics.store.commit_seconds.observe(seconds);
        metrics
            .service
            .observe(crate::telemetry::metrics::ServiceName::Ingest, "commit")
            .observe(seconds);
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let record_bytes = gauge(self.record.len());
        metrics.store.wal_bytes.add(record_bytes);
        metrics
            .store
            .dead_letters_dropped
            .inc_by(evicted.dead_letters);
        metrics
            .store
            .outbox_evicted
            .inc_by(evicted.deliveries.len() as u64);
        let tables = Table::ALL
            .iter()
            .map(|table| (table.name(), self.changes.of(*table).len()));
        let own = [
            ("samples", self.intake.log_rows()),
            ("series", self.intake.added().len()),
        ];
        for (table, rows) in tables.chain(own).filter(|(_, rows)| *rows > 0) {
            let label = &[table];
            let store = &metrics.store;
            store.db_writes.with_label_values(label).inc_by(rows as u64);
            store
                .db_write_duration
                .with_label_values(label)
                .observe(seconds);
            store
                .db_batch_size
                .with_label_values(label)
                .observe(rows as f64);
        }
        std::mem::take(&mut self.load).leave(&metrics.store);
        self.intake.observe();
    }
}

/// How far sealed records were deleted.
struct Cut {
    /// The first commit that is still in the table.
    next: u64,
    bytes: i64,
}

enum Waited {
    Job(Job),
    Due,
    Gone,
}

/// Our error where redb's is expected.
fn to_redb(err: super::Error) -> redb::Error {
    redb::Error::Io(std::io::Error::other(err))
}
