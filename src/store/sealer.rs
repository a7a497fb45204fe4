//! The sealer thread: moves finished windows out of memory into sealed files.
//!
//! A seal has four steps, and a crash between any two of them is harmless:
//!
//! 1. The writer closes its record and gives the windows' parts away. Nothing is
//!    on disk; after a crash replay makes the parts again.
//! 2. Each part becomes a generation of its day's file. One that was cut short is
//!    invisible and is removed by the next seal. A complete one says up to which
//!    transaction it holds its window, and replay leaves those rows out.
//! 3. One transaction of the writer drops the log records that are sealed whole.
//!    Records that also hold samples of open windows stay.
//! 4. The samples leave memory. Until then a reader sees them twice, as one.
//!
//! The writer is asked twice and never waits. Days older than the retention are
//! unlinked, and series that no day and no memory holds leave the index
//! ([`retention`]). Days that are over are rewritten ([`rewrite`]) and rolled up
//! ([`rolls`]); a seal that becomes due goes first.

mod clean;
mod retention;
mod rewrite;
mod rolls;
pub(super) mod room;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::batch::CommitSeq;
use super::clock::{FUTURE_MAX_MS, Witness};
use super::disk::causes;
use super::parts::{Part, WINDOW_MS, window_of};
use super::pressure::{Cause, Level};
use super::sealed::{Kind, SealedSeries};
use super::series::PartId;
use super::shared::Shared;
use super::writer::Job;
use crate::model::Labels;

/// How often the sealer looks at the clock and at the memory.
const TICK: Duration = Duration::from_secs(5);

/// How often it looks whether a backlog came in.
const LOOK: Duration = Duration::from_secs(1);

/// A window is sealed this long after its end, so that what is on its way when
/// the hour turns needs no generation of its own.
const GRACE_MS: i64 = 180_000;

/// So many samples of windows that are over are sealed at once, not when the hour turns:
/// a backlog that comes in would else be read by every start, 0.1 s for so many. The open
/// window is sealed with it, as the log can only be cut before what is not sealed.
const BACKLOG_MAX: u64 = 4_000_000;

/// Installations differ by up to this much, so that a rack does not seal at once.
const STAGGER_MS: u64 = 120_000;

const DAY_S: u32 = 86_400;

/// To leave no window open: the range is empty.
const NO_WINDOW: RangeInclusive<u32> = RangeInclusive::new(1, 0);

/// Something for the sealer to do.
pub(super) enum Command {
    /// Seal all there is, the open window included, and say how it went.
    Seal(oneshot::Sender<Result<(), Error>>),
    /// Seal all there is and rewrite every day that has hours, also the open one.
    Compact(oneshot::Sender<Result<(), Error>>),
    /// Rewrite every day that has deleted samples.
    Clean(oneshot::Sender<Result<(), Error>>),
    /// End.
    Stop,
}

/// The writer has ended, so nothing can be sealed any more.
pub(super) struct Gone;

/// The sealer's state.
pub(super) struct Sealer {
    shared: Arc<Shared>,
    jobs: mpsc::WeakSender<Job>,
    /// Taken from the writer and not sealed yet.
    parts: Vec<Part>,
    /// The first window that was open when others were taken last.
    taken_before: Option<u32>,
    witness: Witness,
    expired_at_day: i64,
    /// When each day's hours were last written, by this process.
    sealed_at: HashMap<u32, Instant>,
    begun: Instant,
    ticked: Instant,
    /// A day is left alone for this long after something was sealed into it.
    quiet: Duration,
    /// [`BACKLOG_MAX`]
    backlog_max: u64,
    /// When the process' memory made the open hour be sealed.
    sealed_for_memory: Option<Instant>,
    /// When all was sealed to get room on a full disk.
    sealed_for_room: Option<Instant>,
    /// When `hot.redb` was made smaller for the budget.
    pub(super) compacted: Option<Instant>,
    /// When the log said that the budget cannot be kept.
    over_told: Option<Instant>,
    /// Days with samples that their tenant does not keep any more.
    to_trim: BTreeSet<u32>,
    /// Roll-ups with some.
    rolls_to_trim: BTreeSet<(u32, Kind)>,
    /// After something went wrong, or there was no room.
    no_rolls_until: Option<Instant>,
    /// Came while a day was rewritten.
    waiting: Vec<Command>,
}

impl Sealer {
    pub(super) fn new(shared: Arc<Shared>, jobs: mpsc::WeakSender<Job>) -> Sealer {
        Sealer {
            shared,
            jobs,
            parts: Vec::new(),
            taken_before: None,
            witness: Witness::default(),
            expired_at_day: i64::MIN,
            sealed_at: HashMap::new(),
            begun: Instant::now(),
            ticked: Instant::now(),
            quiet: rewrite::QUIET,
            backlog_max: BACKLOG_MAX,
            sealed_for_memory: None,
            sealed_for_room: None,
            compacted: None,
            over_told: None,
            to_trim: BTreeSet::new(),
            rolls_to_trim: BTreeSet::new(),
            no_rolls_until: None,
            waiting: Vec::new(),
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let command = match self.waiting.pop() {
                Some(command) => Some(command),
                None => match commands.recv_timeout(LOOK) {
                    Ok(command) => Some(command),
                    Err(RecvTimeoutError::Timeout) if !self.is_due() => continue,
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            let work = AssertUnwindSafe(|| match command {
                Some(Command::Stop) => Err(Gone),
                Some(Command::Seal(reply)) => self.seal_all(reply),
                Some(Command::Compact(reply)) => self.compact(reply, commands),
                Some(Command::Clean(reply)) => self.clean(reply, commands),
                None => self.idle(commands),
            });
            match std::panic::catch_unwind(work) {
                Ok(Ok(())) => {}
                Ok(Err(Gone)) => return,
                Err(_) => {
                    self.shared.metrics.store.seal_failures.inc();
                    tracing::error!("BUG: the sealer panicked, going on");
                }
            }
        }
    }

    fn is_due(&self) -> bool {
        self.ticked.elapsed() >= TICK || self.has_backlog(&self.open_windows())
    }

    fn has_backlog(&self, open: &RangeInclusive<u32>) -> bool {
        self.shared.parts().backlog(open) > self.backlog_max
    }

    /// What is done when nobody wants anything.
    fn idle(&mut self, commands: &Receiver<Command>) -> Result<(), Gone> {
        self.ticked = Instant::now();
        self.tick()?;
        self.rewrite_due(commands)?;
        self.roll_due(commands)?;
        self.trim_rolls(commands)
    }

    fn seal_all(&mut self, reply: oneshot::Sender<Result<(), Error>>) -> Result<(), Gone> {
        self.take(NO_WINDOW)?;
        let mut sealed = self.seal_parts()?;
        if let Err(err) = self.expire()? {
            sealed = sealed.and(Err(err));
        }
        // A caller that went away wants no answer.
        drop(reply.send(sealed));
        Ok(())
    }

    /// Looks at the clock and at the memory, and does what is due.
    pub(super) fn tick(&mut self) -> Result<(), Gone> {
        self.make_room()?;
        let is_large = self.measure();
        self.witness.look(&self.shared.clock);
        let open = self.open_windows();
        if is_large && self.parts.is_empty() || self.has_backlog(&open) {
            self.take(NO_WINDOW)?;
        } else if self.taken_before != Some(*open.start()) {
            // Also when the clock went back.
            self.taken_before = Some(*open.start());
            self.take(open)?;
        }
        // What the budget says is asked behind it, without the log that it frees.
        let has_room = self.shared.pressure.of(Cause::Disk) < Level::Withhold;
        if !has_room {
            self.seal_for_room()?;
        } else if !self.parts.is_empty()
            && let Err(err) = self.seal_parts()?
        {
            tracing::error!(error = %causes(&err), "cannot seal, trying again");
        }
        if let Err(err) = self.expire()? {
            tracing::error!(error = %causes(&err), "cannot remove an expired day");
        }
        self.measure();
        Ok(())
    }

    /// The windows that new samples belong to, by the clock. Those before are over;
    /// those after were opened by a clock that was wrong, and their log records
    /// must not wait until their time comes.
    fn open_windows(&self) -> RangeInclusive<u32> {
        let now = self.shared.clock.now().as_ms();
        let stagger = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(&self.shared.dir);
        let stagger = i64::try_from(stagger % STAGGER_MS).expect("below two minutes");
        let first = window_of(now - GRACE_MS - stagger).unwrap_or(0);
        first..=window_of(now + FUTURE_MAX_MS).unwrap_or(first)
    }

    /// Step 1.
    fn take(&mut self, leave: RangeInclusive<u32>) -> Result<(), Gone> {
        let taken = self.ask(|reply| Job::Take { leave, reply })?;
        self.parts.extend(taken);
        Ok(())
    }

    fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.upgrade().ok_or(Gone)?;
        jobs.blocking_send(job(reply)).map_err(|_| Gone)?;
        drop(jobs);
        answer.blocking_recv().map_err(|_| Gone)
    }

    /// Steps 2 to 4 for all parts that were taken. A part that fails stays.
    fn seal_parts(&mut self) -> Result<Result<(), Error>, Gone> {
        self.seal_first(usize::MAX)
    }

    /// The same for the first so many.
    fn seal_first(&mut self, count: usize) -> Result<Result<(), Error>, Gone> {
        let mut members = self.members();
        let mut done = Vec::new();
        let mut failed = Ok(());
        // A part leaves the list only when it is sealed, so that a panic strands none.
        let mut at = 0;
        while at + done.len() < count
            && let Some(part) = self.parts.get(at).cloned()
        {
            let series = members.remove(&part.id).unwrap_or_default();
            match self.seal_part(&part, series) {
                Ok(()) => done.push(self.parts.remove(at)),
                Err(err) => {
                    self.shared.metrics.store.seal_failures.inc();
                    at += 1;
                    failed = Err(err);
                }
            }
        }
        if !done.is_empty() {
            let ids = done.iter().map(|part| part.id).collect();
            self.ask(|reply| Job::Sealed { parts: ids, reply })?;
            self.drop_from_head(&done);
        }
        Ok(failed)
    }

    /// The series of each part.
    fn members(&self) -> HashMap<PartId, Vec<u32>> {
        let mut members: HashMap<PartId, Vec<u32>> = self
            .parts
            .iter()
            .map(|part| (part.id, Vec::new()))
            .collect();
        self.shared.head.for_each(|id, series, blocks| {
            for part in series.parts(blocks) {
                if let Some(list) = members.get_mut(&part) {
                    list.push(id);
                }
            }
        });
        members
    }

    /// Step 2.
    fn seal_part(&mut self, part: &Part, series: Vec<u32>) -> Result<(), Error> {
        let begun = Instant::now();
        let shared = Arc::clone(&self.shared);
        let mut sorted = {
            let index = shared.index();
            let key = |id: u32| (index.metric_symbol(id), id, index.group(id));
            series.into_iter().map(key).collect::<Vec<_>>()
        };
        sorted.sort_unstable();
        sorted.dedup();
        let window_s = part.window * u32::try_from(WINDOW_MS / 1_000).expect("an hour");
        let seqs = CommitSeq(part.first_seq)..=CommitSeq(part.last_seq);
        let columns = sorted.into_iter().map(|(metric_sym, ref_id, group)| {
            let mut samples = Vec::new();
            shared.head.with(ref_id, |series, blocks| {
                series.read_part(blocks, part.id, &mut samples);
            });
            SealedSeries {
                ref_id,
                metric_sym,
                group,
                samples,
            }
        });
        let columns = columns.filter(|column| !column.samples.is_empty());
        let labels_of = |id: u32| -> Labels { shared.index().labels(id).unwrap_or_default() };
        let generation = shared.days.write(window_s, |file| {
            file.write_generation(window_s, seqs, columns, labels_of)
        })?;
        self.sealed_at
            .insert(window_s - window_s % DAY_S, Instant::now());
        assert_eq!(
            generation.samples, part.samples,
            "BUG: a seal with other samples than its part"
        );
        shared.sealed_max_t.fetch_max(part.max_t, Ordering::Relaxed);
        shared.metrics.store.seals.inc();
        let took = begun.elapsed();
        shared
            .metrics
            .store
            .seal_seconds
            .observe(took.as_secs_f64());
        tracing::debug!(
            window_s,
            samples = generation.samples,
            duration_ms = took.as_millis(),
            "window sealed"
        );
        Ok(())
    }

    /// Step 4.
    fn drop_from_head(&self, done: &[Part]) {
        let newest = done.iter().map(|part| part.max_t).max();
        let idle_before = newest.map_or(i64::MIN, |t| t.saturating_sub(2 * WINDOW_MS));
        self.shared.head.drop_parts(done, idle_before);
        self.shared
            .head
            .remove_samples(done.iter().map(|part| part.samples).sum());
    }
}

/// Whether it is time for what is done at most so often; then it is noted as done.
fn is_time_again(last: &mut Option<Instant>, pause: Duration) -> bool {
    let is_time = last.is_none_or(|at| at.elapsed() >= pause);
    if is_time {
        *last = Some(Instant::now());
    }
    is_time
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
