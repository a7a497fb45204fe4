//! Reading roll-ups in place of samples.
//!
//! For each day it is said anew what is read:
//!
//! - Its samples, when nothing else says the same.
//! - Roll-ups, where every window of the query begins and ends at the end of a bucket,
//!   what is asked for comes out to the last bit, the roll-ups have all that the day
//!   has, and nothing in them is deleted. Sums do not come out so: they are added in
//!   another order.
//! - Roll-ups also where the day's samples are gone; the answer then says so. Of two
//!   resolutions the finer one, if the coarser one does not say the same.
//! - Both, where the samples are gone in part (a file was lost, and late ones came).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::quarantine;
use super::rolls::has_all;
use super::{DAY_S, DayFile, Days, lock};
use crate::model::{Sample, is_stale_nan};
use crate::promql::Gaps;
use crate::promql::queryable::{Coarse, Fold, Reduce, Reduced};
use crate::store::sealed::{self, Kind, Room};

/// The files in which damage was found.
type Damaged = BTreeSet<(u32, Kind)>;

/// What is asked of each day.
struct Asked<'a> {
    targets: &'a [(u32, u32)],
    range: (i64, i64),
    fold: Fold,
    gaps: Option<&'a Gaps>,
}

/// What is read of a day.
struct Source {
    rolls: Option<Arc<DayFile>>,
    samples: Vec<Arc<DayFile>>,
}

impl Source {
    /// Whether some of the day's samples are not there to be read.
    fn is_coarse(&self, days: &Days) -> bool {
        let Some(rolls) = &self.rolls else {
            return false;
        };
        let raw = days.raw_of(rolls.start_s);
        raw.is_empty() || !self.samples.is_empty()
    }
}

impl Days {
    /// What a selection in the closed range would read; `None` when samples only.
    pub(in crate::store) fn reduced(&self, range: (i64, i64), reduce: Reduce) -> Option<Reduced> {
        // Whoever asks for what is set aside is told.
        let mut any = quarantine::has_rolls(&lock(&self.aside), range);
        if !any && self.read_files(Kind::Roll5m).is_empty() {
            return None;
        }
        let sources = self.sources(range, reduce, &Damaged::new());
        let mut reduced = Reduced::default();
        for source in &sources {
            let Some(rolls) = &source.rolls else {
                continue;
            };
            any = true;
            if source.is_coarse(self) {
                let until_ms = (i64::from(rolls.start_s) + i64::from(DAY_S)) * 1_000;
                reduced.add(Coarse {
                    until_ms,
                    bucket_ms: rolls.kind.bucket_ms(),
                });
            }
        }
        any.then_some(reduced)
    }

    /// What is read of each day that overlaps the range, in the order of time. Damaged
    /// roll-ups are not.
    fn sources(&self, (start, end): (i64, i64), reduce: Reduce, damaged: &Damaged) -> Vec<Source> {
        let day_of = |ms: i64| {
            let second = u32::try_from(ms.div_euclid(1_000).max(0)).unwrap_or(u32::MAX);
            super::day_of_window(second)
        };
        let keys = (day_of(start), Kind::Day)..=(day_of(end), Kind::Roll1h);
        let mut files = Vec::new();
        for kind in [Kind::Day, Kind::Roll5m] {
            let of_kind = self.read_files(kind);
            let values = of_kind.range(keys.clone()).map(|(_, file)| file);
            let is_read = |file: &&Arc<DayFile>| {
                let is_whole = || !damaged.contains(&(file.start_s, file.kind));
                file.overlaps(start, end) && (!file.kind.is_roll() || is_whole())
            };
            files.extend(values.filter(is_read).cloned());
        }
        files.sort_unstable_by_key(|file| (file.start_s, file.kind));
        let days = files.chunk_by(|a, b| a.start_s == b.start_s);
        days.map(|of_day| self.source(of_day, reduce)).collect()
    }

    /// What is read of a day that has these files.
    fn source(&self, files: &[Arc<DayFile>], reduce: Reduce) -> Source {
        let (samples, rolls): (Vec<_>, Vec<_>) =
            files.iter().cloned().partition(|file| !file.kind.is_roll());
        if rolls.is_empty() {
            return Source {
                rolls: None,
                samples,
            };
        }
        let mut coarser_first = rolls.iter().rev();
        let same = coarser_first.find(|roll| self.says_the_same(roll, &samples, reduce));
        if let Some(roll) = same.filter(|_| !samples.is_empty()) {
            return Source {
                rolls: Some(Arc::clone(roll)),
                samples: Vec::new(),
            };
        }
        // The finest, and the coarser one that says the same as that.
        let is_whole = rolls.iter().all(|roll| {
            let covered: Vec<_> = samples.iter().flat_map(|file| file.covered()).collect();
            roll.covered().iter().all(|one| covered.contains(one))
        });
        if is_whole && !samples.is_empty() {
            return Source {
                rolls: None,
                samples,
            };
        }
        let finest = &rolls[0];
        let (of_finest, fits) = (std::slice::from_ref(finest), |roll: &&Arc<DayFile>| {
            reduce.grid_ms % roll.kind.bucket_ms() == 0
        });
        let mut coarser_first = rolls.iter().rev().filter(fits);
        let chosen = coarser_first.find(|roll| has_all(roll, of_finest));
        Source {
            rolls: Some(Arc::clone(chosen.unwrap_or(finest))),
            samples,
        }
    }

    fn says_the_same(&self, roll: &DayFile, samples: &[Arc<DayFile>], reduce: Reduce) -> bool {
        let is_aligned = reduce.grid_ms % roll.kind.bucket_ms() == 0;
        is_aligned
            && reduce.fold != Fold::Sum
            && has_all(roll, samples)
            && !self.tombstones.all().iter().any(|t| roll.is_touched(t))
    }

    /// As [`Days::read`], of what stands for the samples.
    ///
    /// # Errors
    /// As [`Days::read`].
    pub(in crate::store) fn read_reduced(
        &self,
        targets: &[(u32, u32)],
        range: (i64, i64),
        reduce: Reduce,
        samples_max: usize,
        gaps: Option<&Gaps>,
        out: &mut [Vec<Sample>],
    ) -> Result<u64, sealed::Error> {
        let has_nothing = |start_s| {
            let mut kinds = Kind::ALL.iter();
            !kinds.any(|kind| self.get(start_s, *kind).is_some())
        };
        quarantine::check(&lock(&self.aside), range, gaps, has_nothing)?;
        let mut damaged = Damaged::new();
        let asked = Asked {
            targets,
            range,
            fold: reduce.fold,
            gaps,
        };
        loop {
            let mut again = false;
            for source in self.sources(range, reduce, &damaged) {
                let before: usize = out.iter().map(Vec::len).sum();
                let left = samples_max.saturating_sub(before);
                again |= self.read_source(&source, &asked, left, &mut damaged, out)?;
            }
            if !again {
                return Ok(damaged.len() as u64);
            }
            out.iter_mut().for_each(Vec::clear);
        }
    }

    /// Reads one day; says whether it has to be read again: a file of it was gone, or
    /// is damaged.
    fn read_source(
        &self,
        source: &Source,
        asked: &Asked<'_>,
        samples_max: usize,
        damaged: &mut Damaged,
        out: &mut [Vec<Sample>],
    ) -> Result<bool, sealed::Error> {
        let Asked {
            targets,
            range,
            fold,
            gaps,
        } = *asked;
        let mut samples = vec![Vec::new(); targets.len()];
        let mut again = false;
        let (start, end) = range;
        let room = Room::of(samples_max);
        let rolls = source.rolls.iter().map(|file| (file, true));
        let all = source.samples.iter().map(|file| (file, false)).chain(rolls);
        for (day, is_roll) in all {
            if is_roll && fold == Fold::Count {
                samples.iter_mut().for_each(|s| count_each(s));
            }
            let key = (day.start_s, day.kind);
            let is_damaged = damaged.contains(&key);
            let read = self.file(day).and_then(|file| {
                let file = file.get();
                if is_damaged {
                    file.read_rest(targets, range, room, &mut samples)
                } else if is_roll {
                    file.read_track(fold, targets, range, room, &mut samples)
                } else {
                    file.read(targets, start, end, room, &mut samples)
                }
            });
            match read {
                Ok(()) => {}
                Err(_) if day.is_gone() => again = true,
                Err(err) => {
                    self.suspect_or(day, err, gaps)?;
                    again |= damaged.insert(key);
                }
            }
        }
        if source.rolls.is_none() && fold == Fold::Count {
            samples.iter_mut().for_each(|s| count_each(s));
        }
        for (all, of_day) in out.iter_mut().zip(samples) {
            all.extend(of_day);
        }
        Ok(again)
    }
}

/// Samples as what stands for buckets: each counts itself.
pub(in crate::store) fn count_each(samples: &mut [Sample]) {
    for sample in samples {
        if !is_stale_nan(sample.v) {
            sample.v = 1.0;
        }
    }
}
