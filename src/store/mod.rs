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
mod packed;
mod paged;
mod parts;
mod postings;
#[cfg(test)]
mod power_cut;
mod pressure;
mod replay;
mod rows;
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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use tokio::sync::{mpsc, oneshot, watch};

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

use appended::Appended;
use days::Days;
pub use disk::DirLock;
use disk::{Backends, io_error};
use hot::Hot;
use intake::Load;
use ledger::Ledger;
use pressure::Level;
use sealer::{Command, Sealer};
use shared::{Ended, Opened, Shared};
use space::Space;
use writer::{Job, Writer};

/// Commands that may wait for the sealer.
const COMMANDS_MAX: usize = 16;

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
    /// The file of what is not sealed yet cannot be read as such.
    #[error(
        "cannot open {path}: it is damaged; restore it from a backup, or move the whole \
         data directory away to begin with an empty one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the directory.
    #[error("data directory {dir} is in use by process {pid}")]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The holder.
        pid: String,
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
        Store::open_held(DirLock::take(&options.dir)?, options, clock, metrics)
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
        hot::caught(&hot, || {
            Store::open_on(files, lock, options, clock, metrics)
        })
    }

    /// As [`Store::open`], on other bytes than files.
    fn open_on(
        backends: Backends,
        lock: DirLock,
        options: Options,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Store, Error> {
        let dir = &options.dir;
        let read_only = options.store.read_only;
        if !read_only {
            Space::new(dir, &options.store).make_room_to_start();
            disk::check_format(dir)?;
        } else if disk::read_format(dir)? == disk::Format::Missing {
            let what = "it has no FORMAT file: this is no data directory";
            return Err(io_error("read", dir, what));
        }
        let cache = options.store.hot_cache.as_usize();
        let l0_cache = options.store.l0_cache.as_usize();
        if !dir.join(tables::HOT_FILE).exists() {
            let days = Days::open_whole(dir, 0, Arc::clone(&backends), l0_cache, read_only)?;
            refuse_days_alone(dir, &days)?;
        }
        let (hot, meta) = if read_only {
            Hot::open_existing(dir, Arc::clone(&backends), cache)?
        } else {
            Hot::open(dir, Arc::clone(&backends), cache)?
        };
        let files = Arc::clone(&backends);
        let days = Days::open_whole(dir, meta.store, files, l0_cache, read_only)?;
        let coverage = days.coverage()?;
        let sealed = meta.wal_sealed_seq;
        let size_max = options.store.size_max.get();
        let log = Appended::open(dir, backends, meta, size_max, !read_only)?;
        let db = hot.database()?;
        let fail = |err| io_error("read", hot.path(), err);
        let appended = log.hold().reader(sealed + 1);
        let mut replayed = hot::caught(hot.path(), || {
            replay::replay(&db, appended, meta, &coverage, &metrics).map_err(fail)
        })?;
        let appended = i64::try_from(log.bytes()).unwrap_or(i64::MAX);
        metrics.store.wal_bytes.add(appended);
        let (ledger, last_key) = Ledger::read(&db).map_err(|err| fail(err.into()))?;
        let newest = replayed.parts.all().map(|part| part.max_t);
        let newest = newest.max().unwrap_or(i64::MIN).max(coverage.max_t);
        clock.resume(clock::saved(&db, newest).map_err(|err| fail(err.into()))?);
        drop(db);
        if let Some(path) = log.lost() {
            let lost = replay::Lost::file(path, replayed.seq, newest);
            lost.tell(&metrics);
            replayed.lost.push(lost);
        }
        let lost = replayed.lost.iter();
        note_lost(
            &days,
            &log,
            lost,
            newest.max(clock.now().as_ms()),
            read_only,
        );
        let aside = i64::try_from(days.damaged()).unwrap_or(i64::MAX);
        metrics.store.quarantined.set(aside);
        let sequence = replayed.sequence.max(last_key);
        let numbers = writer::Log {
            builder: wal::Builder::after(replayed.resets),
            sequence,
            resets: replayed.reset_seqs,
            first: replayed.first,
            sealed,
        };
        let shared = Arc::new(Shared::new(Opened {
            options,
            clock,
            metrics,
            hot,
            log,
            index: replayed.index,
            head: replayed.head,
            parts: replayed.parts,
            ledger,
            committed: replayed.seq,
            days,
            sealed_max_t: coverage.max_t,
            lock,
        }));
        delete::load(&shared)?;
        Store::start(shared, numbers)
    }

    /// Starts the threads.
    fn start(shared: Arc<Shared>, log: writer::Log) -> Result<Store, Error> {
        let fail = |err| io_error("open", &shared.dir, err);
        let (jobs, queue) = mpsc::channel(writer::QUEUE_BATCHES_MAX);
        let (commands, orders) = std::sync::mpsc::sync_channel(COMMANDS_MAX);
        if shared.options.store.read_only {
            // Nobody takes what is sent: there is nothing to write.
            return Ok(Store {
                shared,
                jobs,
                commands,
            });
        }
        let writer = Writer::new(Arc::clone(&shared), queue, log).map_err(fail)?;
        let sealer = Sealer::new(Arc::clone(&shared), jobs.downgrade());
        let stop = commands.clone();
        let ended = EndNotice::new(&shared, |ended| ended.writer = true);
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                let _ended = ended;
                writer.run();
                // When the queue is full the sealer finds the writer gone by itself.
                drop(stop.try_send(Command::Stop));
            })
            .map_err(fail)?;
        let ended = EndNotice::new(&shared, |ended| ended.sealer = true);
        std::thread::Builder::new()
            .name("store-sealer".to_owned())
            .spawn(move || {
                let _ended = ended;
                sealer.run(&orders);
            })
            .map_err(fail)?;
        let scrubbed = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("store-scrub".to_owned())
            .spawn(move || scrub::run(&scrubbed))
            .map_err(fail)?;
        Ok(Store {
            shared,
            jobs,
            commands,
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

/// Tells that a thread has ended, however it did, and has let go of the store.
struct EndNotice {
    ended: Arc<watch::Sender<Ended>>,
    mark: fn(&mut Ended),
}

impl EndNotice {
    fn new(shared: &Shared, mark: fn(&mut Ended)) -> EndNotice {
        EndNotice {
            ended: Arc::clone(&shared.ended),
            mark,
        }
    }
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        self.ended.send_modify(self.mark);
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

/// Notes what of the log is lost, and keeps its damaged files before they are used again.
/// No sample is later than `newest`, in ms.
fn note_lost<'a>(
    days: &Days,
    log: &Appended,
    lost: impl Iterator<Item = &'a replay::Lost>,
    newest: i64,
    read_only: bool,
) {
    let held = log.hold();
    for lost in lost {
        let times = (lost.times.0, lost.times.1.min(newest));
        let mut files: Vec<PathBuf> = lost.places.iter().map(|(path, _)| path.clone()).collect();
        if lost.damaged > files.len() as u64 {
            files.extend(held.files_of(lost.first, lost.last));
        }
        files.sort_unstable();
        files.dedup();
        if files.is_empty() {
            days.note_lost(times, days.dir().join(tables::HOT_FILE));
        }
        for path in files {
            let kept = match read_only {
                true => path,
                false => days.keep_log(&path, times),
            };
            days.note_lost(times, kept);
        }
    }
}

/// Samples in sealed files and in the appended log are found by numbers that only
/// `hot.redb` keeps: with a new one they would be taken for other series'.
fn refuse_days_alone(dir: &Path, days: &Days) -> Result<(), Error> {
    let hot = dir.join(tables::HOT_FILE);
    let text = if days.span().is_some() {
        "it is missing beside sealed days: restore it, or move the l0-*.redb files away"
    } else if appended::is_in(dir)? {
        "it is missing beside a log: restore it, or move the hot-*.log files away"
    } else {
        return Ok(());
    };
    Err(io_error("open", &hot, std::io::Error::other(text)))
}
