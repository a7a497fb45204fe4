//! The rows of the log into memory, by several threads at once.
//!
//! Most of a replay is spent on looking for the next series in memory. So each thread
//! walks all records in their order and takes the rows of its share of the series in;
//! past the values of the others it only reads, which needs no state of a series and
//! costs little. Threads meet nowhere but where a window begins.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLockWriteGuard};
use std::thread::{Scope, ScopedJoinHandle};

use super::super::days::Coverage;
use super::super::head::{Head, Shard, place_of};
use super::super::parts::{Parts, window_of};
use super::super::series::{Freezer, HeadSeries, PartId, Placed};
use super::super::wal::{self, Record, Rows, Unreadable};
use crate::model::Sample;
use crate::telemetry::Metrics;

/// A thread reads whole lanes of the log. More threads than this would mostly read
/// past what is not theirs.
const THREADS_MAX: usize = wal::LANES;

/// Records go to the threads so many bytes at a time. One that is larger, up to 2 MiB,
/// goes alone.
const BATCH_BYTES: usize = 128 << 10;

/// How many threads this machine has use for.
pub(super) fn threads() -> usize {
    match std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX)) {
        3 => 2,
        threads => threads,
    }
}

/// What the rows go to, and what decides about them.
pub(super) struct Target<'a> {
    pub(super) head: Head,
    pub(super) parts: Mutex<Parts>,
    pub(super) sealed: &'a Coverage,
    pub(super) metrics: &'a Metrics,
}

/// What the rows came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) samples: u64,
    /// Those that were neither sealed nor there already.
    pub(super) added: u64,
}

/// The threads at work.
pub(super) struct Shares<'scope> {
    threads: Vec<Thread<'scope>>,
    batch: Batch,
}

/// One thread. It has no more than one batch, and says when it is done with it.
struct Thread<'scope> {
    queue: SyncSender<Arc<Batch>>,
    done: Receiver<()>,
    is_at_work: bool,
    handle: ScopedJoinHandle<'scope, Taken>,
}

impl Thread<'_> {
    /// Waits until it has no batch. One that has gone panicked: that is seen when it
    /// is joined.
    fn wait(&mut self) {
        if std::mem::take(&mut self.is_at_work) {
            self.done.recv().unwrap_or_default();
        }
    }

    fn give(&mut self, batch: Arc<Batch>) {
        self.is_at_work = true;
        self.queue.send(batch).unwrap_or_default();
    }
}

/// Records one behind the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: Vec<Entry>,
}

struct Entry {
    seq: u64,
    /// How many resets of the value coders there were up to this record.
    resets: u32,
    /// Where its bytes end.
    end: usize,
}

impl<'scope> Shares<'scope> {
    /// Starts the threads: one, two or four, so that each has whole lanes.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        target: &'scope Target<'_>,
        threads: usize,
    ) -> Shares<'scope> {
        let thread = |own| {
            let (queue, batches) = sync_channel(1);
            let (say, done) = sync_channel(1);
            let share = Share::new(target, own, threads);
            Thread {
                queue,
                done,
                is_at_work: false,
                handle: scope.spawn(move || share.run(&batches, &say)),
            }
        };
        Shares {
            threads: (0..threads).map(thread).collect(),
            batch: Batch::default(),
        }
    }

    /// Hands a record over; they come in the order of their commits.
    pub(super) fn push(&mut self, seq: u64, resets: u32, record: &[u8]) {
        if self.batch.bytes.len() + record.len() > BATCH_BYTES {
            self.flush();
        }
        if record.len() > BATCH_BYTES {
            // Two of this size in memory would not make it quicker.
            self.wait();
        }
        if self.batch.bytes.is_empty() {
            let room = record.len().max(BATCH_BYTES);
            self.batch.bytes.reserve_exact(room);
        }
        self.batch.bytes.extend_from_slice(record);
        self.batch.records.push(Entry {
            seq,
            resets,
            end: self.batch.bytes.len(),
        });
    }

    fn flush(&mut self) {
        if self.batch.records.is_empty() {
            return;
        }
        self.wait();
        let batch = Arc::new(std::mem::take(&mut self.batch));
        for thread in &mut self.threads {
            thread.give(Arc::clone(&batch));
        }
    }

    fn wait(&mut self) {
        self.threads.iter_mut().for_each(Thread::wait);
    }

    /// Waits for the threads.
    pub(super) fn finish(mut self) -> Taken {
        self.flush();
        let mut all = Taken::default();
        for thread in self.threads {
            drop(thread.queue);
            let taken = thread.handle.join();
            let taken = taken.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.samples += taken.samples;
            all.added += taken.added;
        }
        all
    }
}

/// One thread's work.
struct Share<'a> {
    target: &'a Target<'a>,
    /// A bit for each shard of the head.
    shards: u64,
    freezer: Freezer,
    tallies: Vec<Tally>,
    recent: usize,
    taken: Taken,
    /// Rows up to the reset after this one cannot be decoded.
    broken: Option<u32>,
}

/// The samples of one window.
struct Tally {
    window: u32,
    /// The record that was asked about last, and whether its samples are sealed.
    seq: u64,
    is_sealed: bool,
    /// Known when a sample is not sealed.
    part: Option<PartId>,
    first_seq: u64,
    samples: u64,
    min_t: i64,
    max_t: i64,
}

impl<'a> Share<'a> {
    fn new(target: &'a Target<'a>, own: usize, of: usize) -> Share<'a> {
        Share {
            target,
            shards: (own..64).step_by(of).map(|shard| 1 << shard).sum(),
            freezer: Freezer::default(),
            tallies: Vec::new(),
            recent: 0,
            taken: Taken::default(),
            broken: None,
        }
    }

    fn run(mut self, batches: &Receiver<Arc<Batch>>, done: &SyncSender<()>) -> Taken {
        for batch in batches {
            let mut from = 0;
            for entry in &batch.records {
                self.take(entry, &batch.bytes[from..entry.end]);
                from = entry.end;
            }
            drop(batch);
            // Nobody waits for the last one.
            done.send(()).unwrap_or_default();
        }
        let mut parts = self.target.parts();
        for tally in self.tallies.iter().filter(|tally| tally.part.is_some()) {
            let times = tally.min_t..=tally.max_t;
            parts.count_all(tally.window, tally.first_seq, tally.samples, &times);
        }
        self.taken
    }

    fn take(&mut self, entry: &Entry, record: &[u8]) {
        let is_whole = self.broken != Some(entry.resets)
            && Record::parse(record)
                .and_then(|record| self.take_rows(entry, record.rows))
                .is_ok();
        if !is_whole {
            self.broken = Some(entry.resets);
            self.target.metrics.store.checksum_failures.inc();
            tracing::error!(
                commit_seq = entry.seq,
                "damaged log record, its samples are left out"
            );
        }
    }

    fn take_rows(&mut self, entry: &Entry, mut rows: Rows<'_>) -> Result<(), Unreadable> {
        let target = self.target;
        // Neighbours mostly share a shard, as in the writer.
        let mut held: Option<(usize, RwLockWriteGuard<'_, Shard>)> = None;
        while let Some(row) = rows.head()? {
            let (at, local) = place_of(row.series);
            if self.shards >> at & 1 == 0 {
                rows.skip(row)?;
                continue;
            }
            if held.as_ref().is_none_or(|(held, _)| *held != at) {
                drop(held.take());
                held = Some((at, target.head.write(at)));
            }
            let (_, shard) = held.as_mut().expect("it was just taken");
            let new = || HeadSeries::new(target.sealed.max_t);
            let (series, blocks) = shard.get_or_insert_with(local, new);
            let v = rows.value(row, entry.resets, &mut series.log)?;
            self.taken.samples += 1;
            let Some(window) = window_of(row.t) else {
                continue;
            };
            let tally = tally_of(
                &mut self.tallies,
                &mut self.recent,
                target,
                window,
                entry.seq,
            );
            let Some(part) = tally.part.filter(|_| !tally.is_sealed) else {
                series.note_sealed(row.t);
                continue;
            };
            let sample = Sample::new(row.t, v);
            self.freezer.stagger = row.series;
            let placed = series.place(blocks, sample, part, &mut self.freezer, || None);
            if matches!(placed, Placed::Newest | Placed::Between) {
                tally.samples += 1;
                tally.min_t = tally.min_t.min(row.t);
                tally.max_t = tally.max_t.max(row.t);
                self.taken.added += 1;
            }
        }
        Ok(())
    }
}

/// The tally of a window, as of a record.
#[inline]
fn tally_of<'t>(
    all: &'t mut Vec<Tally>,
    recent: &mut usize,
    target: &Target<'_>,
    window: u32,
    seq: u64,
) -> &'t mut Tally {
    let known = all.get(*recent);
    if known.is_none_or(|tally| tally.window != window || tally.seq != seq) {
        *recent = look_up(all, target, window, seq);
    }
    &mut all[*recent]
}

#[cold]
fn look_up(all: &mut Vec<Tally>, target: &Target<'_>, window: u32, seq: u64) -> usize {
    let found = all.iter().position(|tally| tally.window == window);
    let at = found.unwrap_or(all.len());
    if found.is_none() {
        all.push(Tally {
            window,
            seq,
            is_sealed: false,
            part: None,
            first_seq: seq,
            samples: 0,
            min_t: i64::MAX,
            max_t: i64::MIN,
        });
    }
    let tally = &mut all[at];
    tally.seq = seq;
    tally.is_sealed = target.sealed.has(window, seq);
    if tally.part.is_none() && !tally.is_sealed {
        tally.first_seq = seq;
        tally.part = Some(target.parts().id_of(window, seq));
    }
    at
}

impl Target<'_> {
    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::super::wal::{Builder, LogState};
    use super::*;

    const T0: i64 = 1_699_999_200_000;

    /// Records of 40 scrapes of 2,000 series, every fifth one with late samples.
    fn records() -> Vec<Vec<u8>> {
        let (mut log, mut states) = (Builder::default(), HashMap::<u32, LogState>::new());
        log.start_anew();
        let mut records = Vec::new();
        for step in 0..40_u32 {
            for series in 1..2_000 {
                let state = states.entry(series).or_default();
                let v = f64::from(step * series % 97) / 10.0;
                let t = T0 + i64::from(step) * 200_000;
                log.push(series, t, v, false, state);
                if step % 5 == 4 {
                    log.push(series, t - 1_000, -v, true, state);
                }
            }
            let mut record = Vec::new();
            log.finish(0, &mut record);
            records.push(record);
        }
        records
    }

    /// The samples of each series, and of each part window, first record and count.
    #[derive(Clone, PartialEq, Debug)]
    struct Found {
        samples: Vec<Vec<Sample>>,
        parts: Vec<(u32, u64, u64)>,
    }

    /// Nothing is sealed and nothing is there.
    fn target<'a>(sealed: &'a Coverage, metrics: &'a Metrics) -> Target<'a> {
        Target {
            head: Head::default(),
            parts: Mutex::default(),
            sealed,
            metrics,
        }
    }

    fn check(records: &[Vec<u8>], threads: usize) -> Found {
        let (sealed, metrics) = (Coverage::none(), Metrics::new());
        let target = target(&sealed, &metrics);
        let taken = std::thread::scope(|scope| {
            let mut shares = Shares::start(scope, &target, threads);
            for (seq, record) in (1..).zip(records) {
                shares.push(seq, 1, record);
            }
            shares.finish()
        });
        assert_eq!((taken.samples, taken.added), (1_999 * 48, 1_999 * 48));
        let read = |series| {
            let mut samples = Vec::new();
            target.head.read(series, i64::MIN, i64::MAX, &mut samples);
            samples
        };
        let parts = target.parts.into_inner().unwrap();
        let parts = parts.all().map(|p| (p.window, p.first_seq, p.samples));
        let mut parts: Vec<_> = parts.collect();
        parts.sort_unstable();
        Found {
            samples: (0..2_001).map(read).collect(),
            parts,
        }
    }

    #[test]
    fn a_shard_is_in_one_lane() {
        for series in (0..70_000).chain([u32::MAX - 300, u32::MAX]) {
            let (shard, _) = place_of(series);
            assert_eq!(shard % wal::LANES, wal::lane(series), "{series}");
        }
    }

    #[test]
    fn any_number_of_threads_finds_the_same() {
        let records = records();
        let found = check(&records, 1);
        assert_eq!(found.samples[1_999].len(), 48);
        // 18 scrapes fall into each of the first two hours.
        let seqs: Vec<u64> = found.parts.iter().map(|part| part.1).collect();
        assert_eq!(seqs, [1, 19, 37]);
        for threads in [2, 4] {
            assert_eq!(check(&records, threads), found);
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_ends_its_run_only() {
        let (sealed, metrics) = (Coverage::none(), Metrics::new());
        let target = target(&sealed, &metrics);
        let records = records();
        let taken = std::thread::scope(|scope| {
            let mut shares = Shares::start(scope, &target, 1);
            shares.push(1, 1, &records[0]);
            shares.push(2, 1, b"not a record");
            shares.push(3, 1, &records[1]);
            shares.push(4, 2, &records[0]);
            shares.finish()
        });
        assert_eq!(taken.samples, 2 * 1_999);
        assert_eq!(taken.added, 1_999, "the same scrape twice");
        assert_eq!(metrics.store.checksum_failures.get(), 2);
    }
}
