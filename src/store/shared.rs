//! What the handles, the writer and the sealer share.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{Semaphore, watch};

use super::appended::Appended;
use super::changed::Changed;
use super::clock::FUTURE_MAX_MS;
use super::days::Days;
use super::disk::DirLock;
use super::head::Head;
use super::hot::Hot;
use super::index::Index;
use super::ledger::Ledger;
use super::memory::Memory;
use super::parts::Parts;
use super::pressure::Pressure;
use super::space::Space;
use super::unsaved::Unsaved;
use super::{Options, Table};
use crate::model::Clock;
use crate::telemetry::Metrics;

/// Bytes of batches that may wait for the writer.
pub(super) const QUEUE_BYTES_MAX: u32 = 16 << 20;

/// Which threads have ended, expectedly or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ended {
    pub(super) writer: bool,
    pub(super) sealer: bool,
}

/// The state of an open store.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) hot: Hot,
    pub(super) log: Appended,
    pub(super) head: Head,
    index: RwLock<Index>,
    parts: Mutex<Parts>,
    ledger: Mutex<Ledger>,
    /// The last durable transaction.
    pub(super) committed: AtomicU64,
    /// The sealed files.
    pub(super) days: Days,
    /// No sealed sample is newer than this.
    pub(super) sealed_max_t: AtomicI64,
    /// Which answers of queries still hold.
    pub(super) changed: Changed,
    /// What is done without.
    pub(super) pressure: Pressure,
    pub(super) space: Space,
    pub(super) memory: Memory,
    /// State rows that the disk refuses.
    pub(super) unsaved: Unsaved,
    /// So many samples may be in memory until somebody measures their bytes again.
    pub(super) head_samples_max: AtomicU64,
    /// Bytes of the queue that are free.
    pub(super) room: Arc<Semaphore>,
    /// Callers that are about to hand a batch over.
    pub(super) callers: AtomicUsize,
    /// Set when the store shall stop, so that the writer gives up on a dead disk.
    pub(super) closing: AtomicBool,
    /// One deletion or cleaning at a time.
    pub(super) deleting: tokio::sync::Mutex<()>,
    /// Which threads have ended.
    pub(super) ended: Arc<watch::Sender<Ended>>,
    changes: [watch::Sender<u64>; Table::ALL.len()],
    /// The last field: other processes may come in when all the rest is gone.
    _lock: DirLock,
}

/// What [`Shared::new`] is made of.
pub(super) struct Opened {
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) hot: Hot,
    pub(super) log: Appended,
    pub(super) index: Index,
    pub(super) head: Head,
    pub(super) parts: Parts,
    pub(super) ledger: Ledger,
    pub(super) committed: u64,
    pub(super) days: Days,
    pub(super) sealed_max_t: i64,
    pub(super) lock: DirLock,
}

impl Shared {
    /// The state after replay.
    pub(super) fn new(opened: Opened) -> Shared {
        let store = &opened.options.store;
        let space = Space::new(&opened.options.dir, store);
        let memory = Memory::new(store.memory_limit.get());
        Shared {
            dir: opened.options.dir.clone(),
            options: opened.options,
            clock: opened.clock,
            metrics: opened.metrics,
            hot: opened.hot,
            log: opened.log,
            head: opened.head,
            index: RwLock::new(opened.index),
            parts: Mutex::new(opened.parts),
            ledger: Mutex::new(opened.ledger),
            committed: AtomicU64::new(opened.committed),
            days: opened.days,
            sealed_max_t: AtomicI64::new(opened.sealed_max_t),
            changed: Changed::default(),
            pressure: Pressure::default(),
            space,
            memory,
            unsaved: Unsaved::default(),
            head_samples_max: AtomicU64::new(u64::MAX),
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize)),
            callers: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            deleting: tokio::sync::Mutex::new(()),
            ended: Arc::new(watch::Sender::new(Ended::default())),
            changes: [(); Table::ALL.len()].map(|()| watch::Sender::new(0)),
            _lock: opened.lock,
        }
    }

    /// The index to read. Hold it briefly: the writer waits for it with new series.
    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index to change. Only the writer does.
    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts that are not sealed.
    pub(super) fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The depths of outbox and dead letters.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number that turns after commits that changed `table`.
    pub(super) fn changes(&self, table: Table) -> &watch::Sender<u64> {
        &self.changes[table as usize]
    }

    /// Counts the damaged and missing files.
    pub(super) fn measure_damaged(&self) {
        let files = i64::try_from(self.days.damaged()).unwrap_or(i64::MAX);
        self.metrics.store.quarantined.set(files);
    }

    /// Whether the store shall stop.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// The times that are taken in, in ms.
    pub(super) fn accepted_ms(&self) -> RangeInclusive<i64> {
        let store = &self.options.store;
        let late = store.max_late.as_ms().min(store.retention.as_ms());
        let oldest = self.clock.earliest().minus_ms(late);
        let newest = self.clock.latest().plus_ms(FUTURE_MAX_MS);
        oldest.as_ms()..=newest.as_ms()
    }
}
