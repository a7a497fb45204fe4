//! The way back at start: catalog, then the log, record by record, through the
//! code that took the samples in. Memory is that of the running store. The rows are
//! taken in by several threads, see [`share`].

mod lost;
mod share;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus::IntGauge;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::appended;
use super::days::Coverage;
use super::head::Head;
use super::index::Index;
use super::parts::Parts;
use super::tables::{Meta, SERIES, SYMBOLS, WAL};
use super::wal::{Record, Unreadable};
use crate::telemetry::Metrics;
pub(super) use lost::Lost;
use lost::Watch;
use share::{Shares, Target};

/// Of the commits that begin with a reset, so many apart are remembered: the log can be
/// cut there.
const RESETS_APART: u64 = 64;

/// What the start found.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) index: Index,
    pub(super) head: Head,
    pub(super) parts: Parts,
    /// The last transaction.
    pub(super) seq: u64,
    /// The last number given to an outbox row or dead letter.
    pub(super) sequence: u64,
    /// How many resets of the value coders were read.
    pub(super) resets: u32,
    /// The transactions that begin with one.
    pub(super) reset_seqs: Vec<u64>,
    /// The first transaction that the table holds, sealed or not.
    pub(super) first: u64,
    /// Bytes of the log in `hot.redb`.
    pub(super) bytes: u64,
    /// What of the log cannot be read.
    pub(super) lost: Vec<Lost>,
}

/// Why the log cannot be read.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Reads catalog and log.
///
/// # Errors
/// When redb cannot read, or a newer version wrote the log. A damaged record is
/// counted, told and left out, with what depends on it.
pub(super) fn replay(
    db: &Database,
    mut appended: appended::Reader,
    meta: Meta,
    sealed: &Coverage,
    metrics: &Metrics,
) -> Result<Replayed, Failure> {
    let begun = Instant::now();
    let mut replayed = Replayed {
        seq: meta.wal_sealed_seq,
        sequence: meta.sequence,
        ..Replayed::default()
    };
    let target = Target {
        head: Head::default(),
        parts: Mutex::default(),
        sealed,
        metrics,
    };
    // The two do not meet: the log knows series by their numbers only.
    let (catalog, log, taken) = std::thread::scope(|scope| {
        let catalog = scope.spawn(|| read_catalog(db, meta, metrics));
        let mut shares = Shares::start(scope, &target, share::threads());
        let mut watch = Watch::new(sealed.max_t);
        let log = replayed.read_logs(db, &mut appended, &mut watch, &mut shares, metrics);
        let broken = appended.take_broken();
        // Each commit begins when the one before it is durable.
        let torn = broken.iter().map(|broken| broken.seq).max();
        let next = torn.unwrap_or_default().max(meta.end + 1);
        watch.missing(replayed.seq + 1, next);
        replayed.lost = watch.finish(&broken);
        let taken = shares.finish();
        (catalog.join(), log, taken)
    });
    replayed.index = catalog.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    log?;
    for lost in &replayed.lost {
        lost.tell(metrics);
    }
    replayed.head = target.head;
    // A number whose series is lost is not given again, as its samples are still there.
    let mut last_ref = 0;
    replayed
        .head
        .for_each(|id, _, _| last_ref = last_ref.max(id));
    replayed.index.skip_to(last_ref, 0);
    let parts = target.parts.into_inner();
    replayed.parts = parts.unwrap_or_else(PoisonError::into_inner);
    replayed.head.add_samples(taken.added);
    let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let store = &metrics.store;
    store.replay_seconds.set(begun.elapsed().as_secs_f64());
    store.replay_samples.set(gauge(taken.samples));
    store.wal_bytes.set(gauge(replayed.bytes));
    store.series.set(gauge(replayed.index.len() as u64));
    store.head_samples.set(gauge(replayed.head.samples()));
    Ok(replayed)
}

fn show(position: &IntGauge, seq: u64) {
    position.set(i64::try_from(seq).unwrap_or(i64::MAX));
}

/// Reads symbols and series.
fn read_catalog(db: &Database, meta: Meta, metrics: &Metrics) -> Result<Index, Failure> {
    let mut index = Index::default();
    let txn = db.begin_read()?;
    for row in txn.open_table(SYMBOLS)?.iter()? {
        let (id, text) = row?;
        index.restore_symbol(id.value(), text.value());
    }
    let mut damaged = 0;
    for row in txn.open_table(SERIES)?.iter()? {
        let (id, row) = row?;
        if index.restore_series(id.value(), row.value()).is_none() {
            damaged += 1;
            tracing::error!(series = id.value(), "damaged catalog row, series left out");
        }
    }
    if damaged > 0 {
        metrics.store.checksum_failures.inc_by(damaged);
        // A damaged text may be that of another symbol now, which stands for it.
        index.drop_unused_symbols();
    }
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    index.skip_to(number(meta.last_ref), number(meta.last_symbol));
    Ok(index)
}

impl Replayed {
    /// Reads both logs behind the last sealed commit, in the order of the commits.
    fn read_logs(
        &mut self,
        db: &Database,
        appended: &mut appended::Reader,
        watch: &mut Watch,
        shares: &mut Shares<'_>,
        metrics: &Metrics,
    ) -> Result<(), Failure> {
        let mut record = Vec::new();
        let mut current = None;
        let from = self.seq + 1;
        let table = db.begin_read()?.open_table(WAL)?;
        let first = table.first()?.map(|(key, _)| key.value().0);
        self.first = first.map_or(from, |first| first.min(from));
        let last = table.last()?.map_or(self.seq, |(key, _)| key.value().0);
        let at = &metrics.store.replay_at;
        show(&at.first, from.min(last));
        show(&at.last, last);
        for row in table.range((from, 0)..)? {
            let (key, piece) = row?;
            let (seq, _) = key.value();
            if let Some(done) = current.filter(|current| *current != seq) {
                self.read_appended(appended, done, watch, shares, metrics)?;
                self.read_record(done, &record, watch, shares, metrics)?;
                record.clear();
            }
            current = Some(seq);
            record.extend_from_slice(piece.value());
            self.bytes += piece.value().len() as u64;
        }
        if let Some(last) = current {
            self.read_appended(appended, last, watch, shares, metrics)?;
            self.read_record(last, &record, watch, shares, metrics)?;
        }
        self.read_appended(appended, u64::MAX, watch, shares, metrics)?;
        // How far the appended log reaches shows only now.
        show(&at.last, self.seq);
        Ok(())
    }

    /// Reads the appended records up to a commit.
    fn read_appended(
        &mut self,
        appended: &mut appended::Reader,
        limit: u64,
        watch: &mut Watch,
        shares: &mut Shares<'_>,
        metrics: &Metrics,
    ) -> Result<(), Failure> {
        while let Some((seq, record)) = appended.next_up_to(limit)? {
            self.read_record(seq, record, watch, shares, metrics)?;
        }
        Ok(())
    }

    fn read_record(
        &mut self,
        seq: u64,
        bytes: &[u8],
        watch: &mut Watch,
        shares: &mut Shares<'_>,
        metrics: &Metrics,
    ) -> Result<(), Failure> {
        if seq <= self.seq {
            // Both logs have it.
            return Ok(());
        }
        watch.missing(self.seq + 1, seq);
        self.seq = seq;
        show(&metrics.store.replay_at.current, seq);
        match Record::parse(bytes) {
            Ok(record) => {
                self.sequence = self.sequence.max(record.sequence);
                if record.resets {
                    self.resets = self.resets.wrapping_add(1);
                    let before = self.reset_seqs.last();
                    if before.is_none_or(|before| seq - before >= RESETS_APART) {
                        self.reset_seqs.push(seq);
                    }
                }
                if watch.reads(seq, &record, bytes) {
                    shares.push(seq, self.resets, bytes);
                }
            }
            Err(Unreadable::Damaged) => watch.missing(seq, seq + 1),
            Err(newer) => return Err(newer.into()),
        }
        Ok(())
    }
}
