//! The embedded time-series store: the only place that knows redb.
//!
//! Owns every file of the data directory, the writer thread (the only one with
//! write transactions on `hot.redb`), the sealer thread (its own files) and the
//! scrub thread, which only reads.
//!
//! It must never acknowledge before the transaction is durable (but [`WriteBatch::volatile`]
//! ones, while the disk refuses), wait for another part of the process, or let a redb type
//! out.

mod analyze;
mod appended;
mod ask;
pub mod backup;
pub mod batch;
#[cfg(test)]
mod bit_flip;
mod bits;
mod blocks;
mod catalog;
mod caught;
mod changed;
mod churn;
mod clock;
#[cfg(test)]
mod damage;
mod days;
mod decimal;
mod delete;
mod deleted;
mod disk;
#[cfg(test)]
mod fixture;
mod head;
mod hot;
mod index;
mod intake;
mod ledger;
mod memory;
mod native;
mod open;
mod packed;
mod paged;
mod parts;
mod postings;
#[cfg(test)]
mod power_cut;
mod pressure;
mod replay;
mod rows;
mod salvage;
mod scrub;
pub mod sealed;
mod sealer;
mod select;
mod series;
mod shared;
mod space;
pub mod state;
mod symbols;
mod tables;
#[cfg(test)]
mod tests;
mod token;
mod transaction;
mod unsaved;
mod upkeep;
mod varint;
pub mod verify;
mod wal;
mod wear;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use tokio::sync::{mpsc, oneshot};

pub use batch::{
    CommitSeq, Committed, Item, ItemOutcome, Refusal, RefusedRow, Row, SeriesId, SeriesKey,
    StateOp, Urgency, WriteBatch,
};
pub use clock::FUTURE_MAX_MS;
pub use index::{Cardinality, Count};
pub use native::{is_own_label, rows as histogram_rows};
pub use state::Table;

use crate::config;
use crate::model::{Clock, Timestamp};
use crate::telemetry::Metrics;

pub use disk::DirLock;
use intake::Load;
use pressure::Level;
use sealer::Command;
use shared::Shared;
use writer::Job;

/// What the store needs to know to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made when missing.
    pub dir: PathBuf,
    /// `[store]`
    pub store: config::Store,
    /// `[limits]`
    pub limits: config::Limits,
    /// Differing series limits of single tenants.
    pub tenants: Vec<config::Tenant>,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file of what is not sealed yet has wrong bytes. A start reads what is left of it.
    #[error(
        "cannot open {path}: it is damaged; start pulse on it: it is then read without redb, \
         lost labels come back from the sealed files, and the damaged file is kept in \
         quarantine/salvaged"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A start could not use that file, nor what was left of it.
    #[error(
        "cannot open {path}: it cannot be used; restore it from a backup, or move the whole \
         data directory away to begin with an empty one"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the directory.
    #[error("data directory {dir} is in use by {holder}")]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// `process 12`, or what else is known.
        holder: String,
    },
    /// The medium, or the configuration, allows no writes.
    #[error("the store is read-only")]
    ReadOnly,
    /// The store is stopping or stopped.
    #[error("the store is closed")]
    Closed,
    /// The disk refused the transaction; it is kept and tried again.
    #[error("cannot commit")]
    Commit(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A handle to the open store. Cloning gives another handle. When the last one
/// goes, the writer commits what it has and ends.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    commands: SyncSender<Command>,
}

/// A batch that the writer has; it is written whether somebody waits or not.
#[must_use = "the answer says what became of the rows"]
pub struct Pending(oneshot::Receiver<Committed>);

impl Pending {
    /// Waits as the batch's urgency says.
    ///
    /// # Errors
    /// [`Error::Closed`] when the store stops before.
    pub async fn committed(self) -> Result<Committed, Error> {
        self.0.await.map_err(|_| Error::Closed)
    }
}

/// Figures for pages and `/api/v1/status/tsdb`.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Series in the index.
    pub series: u64,
    /// Samples in the open window, in memory.
    pub head_samples: u64,
    /// The earliest stored time.
    pub min_time: Option<Timestamp>,
    /// The latest stored time.
    pub max_time: Option<Timestamp>,
    /// Bytes on disk, as allocated.
    pub disk_bytes: u64,
    /// Bytes that a day writes to the disk if it goes on as in the last hour.
    pub written_per_day: u64,
}

impl Store {
    /// Opens the directory, replays the log and starts the writer and the sealer.
    /// Blocking; call it off the runtime's workers.
    ///
    /// # Errors
    /// When the directory is held by another process or cannot be read.
    pub fn open(options: Options, clock: Clock, metrics: Arc<Metrics>) -> Result<Store, Error> {
        let lock = match options.store.read_only {
            true => DirLock::take_to_read(&options.dir)?,
            false => DirLock::take(&options.dir)?,
        };
        Store::open_held(lock, options, clock, metrics)
    }

    /// As [`Store::open`], when the directory is held already.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open_held(
        lock: DirLock,
        options: Options,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Store, Error> {
        let store = &metrics.store;
        store.read_only.set(i64::from(options.store.read_only));
        let files = if options.store.read_only {
            disk::frozen_files()
        } else {
            disk::counted_files(store.bytes_written.clone(), store.syncs.clone())
        };
        let hot = options.dir.join(tables::HOT_FILE);
        let opened = hot::caught(&hot, || {
            Store::open_on(files, lock, options, clock, metrics)
        });
        opened.map_err(|err| match err {
            Error::Damaged { path, source } => Error::Unusable { path, source },
            err => err,
        })
    }

    /// Hands a batch to the writer and waits as its urgency says. Waits for room
    /// in the queue first. Cancel-safe until the batch is handed over; after
    /// that it is written in any case.
    ///
    /// # Errors
    /// [`Error::Closed`] when the store stops.
    pub async fn write(&self, batch: WriteBatch) -> Result<Committed, Error> {
        self.submit(batch).await?.committed().await
    }

    /// Hands a batch to the writer, as soon as there is room in the queue.
    /// Cancel-safe: nothing is handed over when cancelled.
    ///
    /// # Errors
    /// [`Error::Closed`] when the store stops.
    pub async fn submit(&self, batch: WriteBatch) -> Result<Pending, Error> {
        if !batch.sheds && !batch.rows.is_empty() {
            self.shared.pressure.passes().await;
        }
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let load = Load::of(&batch);
        let (reply, answer) = oneshot::channel();
        {
            let _caller = Caller::new(&self.shared);
            // What goes on without the disk does not stand behind what waits for it.
            let bytes = match batch.volatile {
                true => 0,
                false => u32::try_from(load.bytes).unwrap_or(u32::MAX).max(1),
            };
            let room = Arc::clone(&self.shared.room)
                .acquire_many_owned(bytes.min(shared::QUEUE_BYTES_MAX))
                .await
                .map_err(|_| Error::Closed)?;
            let slot = self.jobs.reserve().await.map_err(|_| Error::Closed)?;
            load.enter(&self.shared.metrics.store);
            slot.send(Job::Write(Box::new(writer::Write {
                batch,
                reply,
                room,
                load,
            })));
        }
        Ok(Pending(answer))
    }

    /// How many bytes the outbox has on disk, all destinations together.
    pub fn outbox_bytes(&self) -> u64 {
        self.shared.ledger().bytes(ledger::Kind::Outbox)
    }

    /// Dead letters by tenant. A tenant that had some since the start stays, with 0.
    pub fn dead_letters(&self) -> BTreeMap<String, u64> {
        self.shared.ledger().dead()
    }

    /// What is done without for want of disk or memory, for people; `None` when all
    /// is well.
    pub fn hardship(&self) -> Option<&'static str> {
        match self.shared.pressure.level() {
            Level::Calm => None,
            Level::Shed => Some("the oldest data goes, or the open hour is sealed early"),
            Level::NoSeries => Some("samples of new series are refused"),
            Level::Withhold => Some("no samples are taken, nothing is acknowledged"),
        }
    }

    /// Whether the disk refuses transactions at the moment. Nothing is lost
    /// meanwhile, but nothing is acknowledged either.
    pub fn is_failing(&self) -> bool {
        self.shared.metrics.store.failing.get() != 0
    }

    /// State rows that count although the disk refuses them; they are written as soon
    /// as it does not. See [`WriteBatch::volatile`].
    pub fn unsaved_rows(&self) -> usize {
        self.shared.unsaved.rows()
    }

    /// Whether samples come in: not while the disk refuses transactions or is full.
    pub fn takes_samples(&self) -> bool {
        !self.is_failing() && self.shared.pressure.level() < Level::Withhold
    }

    /// Whether nothing can be written, by configuration or because of the medium.
    pub fn is_read_only(&self) -> bool {
        self.shared.options.store.read_only
    }

    /// What it means that nobody takes a command.
    fn refusal(&self) -> Error {
        if self.is_read_only() {
            Error::ReadOnly
        } else {
            Error::Closed
        }
    }

    /// The times in ms that samples are taken of.
    pub fn accepted(&self) -> std::ops::RangeInclusive<i64> {
        let accepted = self.shared.accepted_ms();
        (*accepted.start()).max(0)..=*accepted.end()
    }

    /// Figures for pages.
    pub fn stats(&self) -> Stats {
        let sealed = self.shared.days.span().unwrap_or((i64::MAX, i64::MIN));
        let (min, max) = self.shared.parts().all().fold(sealed, |(min, max), part| {
            (min.min(part.min_t), max.max(part.max_t))
        });
        let time = |ms: i64| (min <= max).then_some(Timestamp::from_ms(ms));
        Stats {
            series: self.shared.index().len() as u64,
            head_samples: self.shared.head.samples(),
            min_time: time(min),
            max_time: time(max),
            disk_bytes: disk::disk_bytes(&self.shared.dir),
            written_per_day: u64::try_from(self.shared.metrics.store.written_per_day.get())
                .unwrap_or(0),
        }
    }

    /// Ends when the writer has ended, expectedly or not.
    pub async fn closed(&self) {
        let mut ended = self.shared.ended.subscribe();
        // The sender lives in what this handle holds.
        drop(ended.wait_for(|ended| ended.writer).await);
    }

    /// Commits what there is and ends the threads. Further writes are refused.
    pub async fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        if self.is_read_only() {
            return;
        }
        self.shared.pressure.let_go();
        // When the writer has ended already there is nothing to tell it.
        drop(self.jobs.send(Job::Close).await);
        let mut ended = self.shared.ended.subscribe();
        drop(ended.wait_for(|ended| ended.writer && ended.sealer).await);
    }
}

/// Counts a caller from its first wait to its hand-over.
struct Caller<'a>(&'a Shared);

impl<'a> Caller<'a> {
    fn new(shared: &'a Shared) -> Caller<'a> {
        shared.callers.fetch_add(1, Ordering::Relaxed);
        Caller(shared)
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
    }
}
