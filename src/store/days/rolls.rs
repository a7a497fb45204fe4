//! Roll-ups of days: which there are, which of them say what the samples say, and how
//! they are made.
//!
//! They are made of a rewritten day, and those of hours of those of 5 minutes when
//! there are any. Each says which transactions of which hours it was made of. As long
//! as its day has others besides, because something came late, it stands for nothing
//! and is made again after the day's next rewrite; a crash in between changes nothing
//! of that. A new file is complete and synced under another name before it takes its
//! own.
//!
//! A file of hours is one of a day too, not of a month: a month's would be written anew
//! with each of its days, or late data would change a file that backups hold to be
//! finished. Measured with ten years of two series: 3,650 files take 57 kB each, as redb
//! makes none smaller with these tables, and 0.3 ms each at the start, 1.0 s in all.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use roaring::RoaringBitmap;

use super::quarantine::{self, Aside};
use super::rewrite::NotRewritten;
use super::{DayFile, Days, lock, store_error};
use crate::model::Labels;
use crate::store::Error;
use crate::store::deleted::Tombstone;
use crate::store::disk::io_error;
use crate::store::sealed::{
    Covered, Ended, Kind, Merged, RolledSeries, Rolls, SealedFile, SealedSeries,
};

/// Series of a file of roll-ups that are read at once.
const STEP_SERIES: usize = 256;

/// What the making of roll-ups asks about series.
pub(in crate::store) struct Asks<'a> {
    /// The group of a series.
    pub(in crate::store) group_of: &'a mut dyn FnMut(u32) -> u32,
    /// The labels of a series.
    pub(in crate::store) labels_of: &'a mut dyn FnMut(u32) -> Labels,
    /// The time before which nothing of a series is kept.
    pub(in crate::store) oldest_ms: &'a dyn Fn(u32) -> Option<i64>,
    /// Series that have no roll-ups.
    pub(in crate::store) left_out: &'a RoaringBitmap,
}

type Walk<'a, B> = dyn Iterator<Item = Result<RolledSeries, Ended<B>>> + 'a;

impl DayFile {
    /// Which transactions of which hours are in it.
    pub(super) fn covered(&self) -> Vec<Covered> {
        if self.kind.is_frozen() {
            let rewritten = self.rewritten.read();
            return rewritten
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .to_vec();
        }
        let generations = self.generations();
        let all = generations.iter();
        all.map(|g| (g.window_start_s, g.commit_seqs.clone()))
            .collect()
    }

    /// Whether a tombstone touches something in it, of whatever series.
    pub(super) fn is_touched(&self, by: &Tombstone) -> bool {
        let bucket_ms = self.kind.bucket_ms();
        self.generations().iter().any(|g| {
            let last_seq = g.commit_seqs.end().0;
            by.reaches_buckets(last_seq, (g.min_time, g.max_time), bucket_ms)
        })
    }
}

/// Whether a file has all that others have.
pub(super) fn has_all(file: &DayFile, others: &[Arc<DayFile>]) -> bool {
    let covered = file.covered();
    let mut wanted = others.iter().flat_map(|other| other.covered());
    wanted.all(|one| covered.contains(&one))
}

impl Days {
    /// How many roll-ups were made so far.
    pub(in crate::store) fn rolls_made(&self) -> u64 {
        self.rolls_made.load(Ordering::Acquire)
    }

    /// All files of roll-ups, those of the oldest day first.
    pub(in crate::store) fn all_rolls(&self) -> Vec<Arc<DayFile>> {
        self.read_files(Kind::Roll5m).values().cloned().collect()
    }

    /// The files with the samples of a day.
    pub(super) fn raw_of(&self, start_s: u32) -> Vec<Arc<DayFile>> {
        let files = Kind::RAW.iter();
        files.filter_map(|kind| self.get(start_s, *kind)).collect()
    }

    /// Whether the day has roll-ups of this kind that say what its samples say.
    pub(in crate::store) fn has_current_roll(&self, start_s: u32, kind: Kind) -> bool {
        let roll = self.get(start_s, kind);
        roll.is_some_and(|roll| has_all(&roll, &self.raw_of(start_s)))
    }

    /// Whether roll-ups of the day have something that its samples do not have any
    /// more. They must not be made again of these.
    pub(in crate::store) fn rolls_have_more(&self, start_s: u32) -> bool {
        let raw: Vec<Covered> = self
            .raw_of(start_s)
            .iter()
            .flat_map(|file| file.covered())
            .collect();
        let rolls = Kind::ROLLS.iter();
        let mut rolls = rolls.filter_map(|kind| self.get(start_s, *kind));
        rolls.any(|roll| !roll.covered().iter().all(|one| raw.contains(one)))
    }

    /// Makes a day's roll-ups of one kind from the file of the same day of another, or
    /// anew from itself; says how many entries they have. `pause` is called every some
    /// thousand samples and may end it.
    pub(in crate::store) fn make_rolls<B>(
        &self,
        start_s: u32,
        (from, kind): (Kind, Kind),
        asks: Asks<'_>,
        pause: &mut dyn FnMut() -> ControlFlow<B>,
    ) -> Result<u64, NotRewritten<B>> {
        let failed = NotRewritten::Failed;
        let Some(old) = self.get(start_s, from) else {
            return Ok(0);
        };
        let file = self.file(&old).map_err(|err| failed(store_error(err)))?;
        let covered = file.get().covered();
        let new = DayFile::new(&self.dir, start_s, kind);
        let written = walk_of(file.get(), from, kind, asks.group_of, pause).and_then(|walk| {
            let mut kept = walk.filter_map(|series| match series {
                Ok(series) if asks.left_out.contains(series.ref_id) => None,
                Ok(mut series) => {
                    if let Some(oldest_ms) = (asks.oldest_ms)(series.ref_id) {
                        series.rolls.drop_before(oldest_ms);
                    }
                    Some(Ok(series))
                }
                Err(err) => Some(Err(err)),
            });
            SealedFile::write_rolls(
                &new.path.with_extension("new"),
                (self.cache_bytes, &self.backends),
                (self.store, start_s),
                &covered,
                &mut kept,
                asks.labels_of,
            )
        });
        drop(file);
        let generation = written.map_err(|ended| match ended {
            Ended::File(err) => {
                self.suspect(&old, &err);
                failed(store_error(err))
            }
            Ended::Stopped(reason) => NotRewritten::Stopped(reason),
        })?;
        let pins = lock(&self.pins);
        if *pins > 0 {
            let busy = "a backup reads the day's files";
            return Err(failed(io_error("replace", &new.path, busy)));
        }
        let entries = generation.samples;
        self.replace(new, generation, &covered).map_err(failed)?;
        self.rolls_made.fetch_add(1, Ordering::Release);
        Ok(entries)
    }

    /// The files of roll-ups that have something deleted.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(in crate::store) fn rolls_reached_by_tombstones(
        &self,
    ) -> Result<Vec<Arc<DayFile>>, crate::store::sealed::Error> {
        let tombstones = self.tombstones.all();
        let mut reached = Vec::new();
        for roll in self.all_rolls() {
            let touching: Vec<_> = tombstones.iter().filter(|t| roll.is_touched(t)).collect();
            if touching.is_empty() {
                continue;
            }
            let series = self.series_of(&roll)?;
            if touching.iter().any(|t| !t.series.is_disjoint(&series)) {
                reached.push(roll);
            }
        }
        Ok(reached)
    }

    /// Sets a damaged file of roll-ups aside: it is made again as long as its day has
    /// its samples.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub(in crate::store) fn set_roll_aside(&self, start_s: u32, kind: Kind) -> Result<(), Error> {
        let Some(day) = self.get(start_s, kind) else {
            return Ok(());
        };
        // Nobody opens it meanwhile, under whose name nothing would be.
        let slot = lock(&day.file);
        let path = quarantine::set_aside(&self.dir, &day.path)?;
        day.gone.store(true, Ordering::Release);
        self.write_files(kind).remove(&(start_s, kind));
        self.note_aside(&day);
        drop(slot);
        self.close(&day);
        tracing::error!(path = %path.display(), "set damaged roll-ups aside");
        lock(&self.aside).push(Aside::new(start_s, kind, path));
        Ok(())
    }
}

/// The series of a file with their buckets.
fn walk_of<'a, B: 'a>(
    file: &'a SealedFile,
    from: Kind,
    kind: Kind,
    group_of: &'a mut dyn FnMut(u32) -> u32,
    pause: &'a mut dyn FnMut() -> ControlFlow<B>,
) -> Result<Box<Walk<'a, B>>, Ended<B>> {
    let bucket_ms = kind.bucket_ms();
    if from.is_roll() {
        return Ok(Box::new(RollWalk {
            file,
            keys: file.series_keys()?,
            at: 0,
            ready: Vec::new().into_iter(),
            bucket_ms,
            group_of,
            pause,
        }));
    }
    let merged = Merged::of(vec![file], group_of, pause)?;
    Ok(Box::new(merged.map(move |next| {
        next.map(|series: SealedSeries| RolledSeries {
            ref_id: series.ref_id,
            metric_sym: series.metric_sym,
            group: series.group,
            rolls: Rolls::of(&series.samples, bucket_ms),
        })
    })))
}

/// The series of a file of roll-ups.
struct RollWalk<'a, B> {
    file: &'a SealedFile,
    keys: Vec<(u32, u32)>,
    at: usize,
    ready: std::vec::IntoIter<RolledSeries>,
    bucket_ms: i64,
    group_of: &'a mut dyn FnMut(u32) -> u32,
    pause: &'a mut dyn FnMut() -> ControlFlow<B>,
}

impl<B> RollWalk<'_, B> {
    fn read_step(&mut self) -> Result<(), Ended<B>> {
        if let ControlFlow::Break(reason) = (self.pause)() {
            return Err(Ended::Stopped(reason));
        }
        let end = self.keys.len().min(self.at + STEP_SERIES);
        let keys = &self.keys[self.at..end];
        let mut ready = Vec::with_capacity(keys.len());
        for (&(metric_sym, ref_id), rolls) in keys.iter().zip(self.file.read_rolls(keys)?) {
            ready.push(RolledSeries {
                ref_id,
                metric_sym,
                group: (self.group_of)(ref_id),
                rolls: rolls.coarser(self.bucket_ms),
            });
        }
        self.ready = ready.into_iter();
        self.at = end;
        Ok(())
    }
}

impl<B> Iterator for RollWalk<'_, B> {
    type Item = Result<RolledSeries, Ended<B>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(series) = self.ready.next() {
                return Some(Ok(series));
            }
            if self.at == self.keys.len() {
                return None;
            }
            if let Err(err) = self.read_step() {
                self.at = self.keys.len();
                return Some(Err(err));
            }
        }
    }
}
