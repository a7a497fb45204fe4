//! Reading of sealed samples, and which series have some.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::super::deleted::Tombstone;
use super::super::disk::causes;
use super::super::sealed::{self, Generation, Kind, Room};
use super::{DayFile, Days, lock, quarantine};
use crate::model::Sample;
use crate::promql::Gaps;

impl Days {
    /// The files that have deleted samples, or had some before they were rewritten.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(in crate::store) fn reached_by_tombstones(
        &self,
    ) -> Result<Vec<Arc<DayFile>>, sealed::Error> {
        let tombstones = self.tombstones.all();
        let mut reached = Vec::new();
        for day in self.all() {
            let series = match self.series_of(&day) {
                Ok(series) => series,
                Err(_) if day.is_gone() => continue,
                Err(err) => return Err(err),
            };
            let generations = day.generations();
            let reaches = |t: &Tombstone| {
                let hits =
                    |g: &Generation| t.reaches(g.commit_seqs.end().0, g.min_time, g.max_time);
                generations.iter().any(hits) && !t.series.is_disjoint(&series)
            };
            if tombstones.iter().any(reaches) {
                reached.push(day);
            }
        }
        Ok(reached)
    }

    /// The series of which a file has nothing that may be seen.
    fn hidden_series(&self, day: &DayFile) -> RoaringBitmap {
        let generations = day.generations();
        let covers_all = |t: &&Tombstone| {
            let covers = |g: &Generation| t.covers(g.commit_seqs.end().0, g.min_time, g.max_time);
            generations.iter().all(covers)
        };
        let tombstones = self.tombstones.all();
        let covering = tombstones.iter().filter(covers_all);
        covering.fold(RoaringBitmap::new(), |all, t| all | &t.series)
    }

    /// Appends the samples of `targets` (metric symbol, ref; ascending) in the
    /// closed range to `out`, one vector for each, sorted by time. What cannot be read
    /// is noted in `gaps` and left out, if there are any. Gives in how many files
    /// damage was found.
    ///
    /// # Errors
    /// When the samples are too many, or not all at hand, and without `gaps` also when a
    /// file is damaged.
    pub(in crate::store) fn read(
        &self,
        targets: &[(u32, u32)],
        range: (i64, i64),
        room: Room<'_>,
        gaps: Option<&Gaps>,
        out: &mut [Vec<Sample>],
    ) -> Result<u64, sealed::Error> {
        self.tell_aside(range, gaps)?;
        self.read_files_of(targets, range, room, gaps, out)
    }

    /// Says in `gaps` which files of the closed range cannot be read.
    ///
    /// # Errors
    /// Without `gaps`, when there is one.
    pub(in crate::store) fn tell_aside(
        &self,
        range: (i64, i64),
        gaps: Option<&Gaps>,
    ) -> Result<(), sealed::Error> {
        quarantine::check(&lock(&self.aside), range, gaps, |_| false)
    }

    /// As [`Days::read`], whatever is set aside.
    fn read_files_of(
        &self,
        targets: &[(u32, u32)],
        (start, end): (i64, i64),
        room: Room<'_>,
        gaps: Option<&Gaps>,
        out: &mut [Vec<Sample>],
    ) -> Result<u64, sealed::Error> {
        // Of these each series is read alone.
        let mut damaged: Vec<(u32, Kind)> = Vec::new();
        loop {
            let mut again = false;
            for day in self.all().iter().filter(|day| day.overlaps(start, end)) {
                let before: usize = out.iter().map(Vec::len).sum();
                let left = Room {
                    samples_max: room.samples_max.saturating_sub(before),
                    ..room
                };
                let file = match room.at_hand {
                    true => self.file_at_hand(day),
                    false => self.file(day),
                };
                let key = (day.start_s, day.kind);
                let is_damaged = damaged.contains(&key);
                let read = file.and_then(|file| match is_damaged {
                    true => file.get().read_rest(targets, (start, end), left, out),
                    false => file.get().read(targets, start, end, left, out),
                });
                match read {
                    Ok(()) => {}
                    Err(_) if day.is_gone() => again = true,
                    Err(err) => {
                        self.suspect_or(day, err, gaps)?;
                        if !is_damaged {
                            damaged.push(key);
                            again = true;
                        }
                    }
                }
            }
            if !again {
                return Ok(damaged.len() as u64);
            }
            out.iter_mut().for_each(Vec::clear);
        }
    }

    /// The spans of time of the generations that overlap the closed range, but of those
    /// that others reach into; ascending.
    pub(in crate::store) fn spans_alone(&self, (start, end): (i64, i64)) -> Vec<(i64, i64)> {
        let mut spans = Vec::new();
        for day in self.all().iter().filter(|day| day.overlaps(start, end)) {
            let generations = day.generations();
            spans.extend(generations.iter().map(|g| (g.min_time, g.max_time)));
        }
        spans.retain(|(min, max)| min <= max);
        spans.sort_unstable();
        let mut until = i64::MIN;
        let mut alone = Vec::new();
        for (at, (min, max)) in spans.iter().copied().enumerate() {
            let next = spans.get(at + 1).map_or(i64::MAX, |next| next.0);
            if min > until && max < next {
                alone.push((min, max));
            }
            until = until.max(max);
        }
        alone
    }

    /// The value of a series at one time.
    pub(in crate::store) fn lookup(
        &self,
        metric: u32,
        series: u32,
        t: i64,
    ) -> Result<Option<f64>, sealed::Error> {
        let mut found = [Vec::new()];
        let room = Room::of(usize::MAX);
        self.read_files_of(&[(metric, series)], (t, t), room, None, &mut found)?;
        Ok(found[0].first().map(|sample| sample.v))
    }

    /// The series that have samples in the days that overlap the closed range.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(in crate::store) fn series(
        &self,
        start: i64,
        end: i64,
    ) -> Result<RoaringBitmap, sealed::Error> {
        loop {
            let mut all = RoaringBitmap::new();
            let mut again = false;
            for day in self.with_all_series(start, end) {
                let day = &day;
                match self.series_of(day) {
                    Ok(series) => all |= &*series - &self.hidden_series(day),
                    Err(_) if day.is_gone() => again = true,
                    Err(err) => {
                        self.suspect(day, &err);
                        return Err(err);
                    }
                }
            }
            if !again {
                return Ok(all);
            }
        }
    }

    /// The files that overlap the closed range, without roll-ups of days that have
    /// their samples.
    fn with_all_series(&self, start: i64, end: i64) -> Vec<Arc<DayFile>> {
        let mut files = self.all();
        let days: Vec<u32> = files.iter().map(|day| day.start_s).collect();
        let rolls = self.all_rolls().into_iter();
        files.extend(rolls.filter(|roll| days.binary_search(&roll.start_s).is_err()));
        files.retain(|day| day.overlaps(start, end));
        files
    }

    /// The series that have a row in a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(in crate::store) fn series_of(
        &self,
        day: &DayFile,
    ) -> Result<Arc<RoaringBitmap>, sealed::Error> {
        if let Some(series) = &*lock(&day.series) {
            return Ok(Arc::clone(series));
        }
        let ids = self.file(day)?.get().series_ids()?;
        let series: Arc<RoaringBitmap> = Arc::new(ids.into_iter().collect());
        *lock(&day.series) = Some(Arc::clone(&series));
        Ok(series)
    }

    /// As [`Days::suspect`]; what is damaged is noted in `gaps`, if there are any.
    ///
    /// # Errors
    /// The same one, when it is noted nowhere.
    pub(super) fn suspect_or(
        &self,
        day: &DayFile,
        err: sealed::Error,
        gaps: Option<&Gaps>,
    ) -> Result<(), sealed::Error> {
        self.suspect(day, &err);
        match gaps.filter(|_| quarantine::is_damage(&err)) {
            Some(gaps) => {
                gaps.note(format!("{}; its samples are left out", causes(&err)));
                Ok(())
            }
            None => Err(err),
        }
    }

    /// Notes the day, if an error in it says that its bytes are wrong.
    pub(super) fn suspect(&self, day: &DayFile, err: &sealed::Error) {
        if quarantine::is_damage(err) {
            self.note_damage(day);
        }
    }

    /// Notes a file that has damage, for the sealer.
    pub(in crate::store) fn note_damage(&self, day: &DayFile) {
        let is_new = match day.kind.is_roll() {
            true => lock(&self.suspect_rolls).insert((day.start_s, day.kind)),
            false => lock(&self.suspects).insert(day.start_s),
        };
        if is_new {
            tracing::error!(path = %day.path.display(), "damage was found in a file");
        }
        // What redb has in memory of it is as doubtful.
        self.close(day);
    }

    /// A day in which a reader found damage; each is given once.
    pub(in crate::store) fn take_suspect(&self) -> Option<u32> {
        lock(&self.suspects).pop_first()
    }

    /// Roll-ups in which a reader found damage; each is given once.
    pub(in crate::store) fn take_suspect_roll(&self) -> Option<(u32, Kind)> {
        lock(&self.suspect_rolls).pop_first()
    }

    /// Whether files lie aside that cannot be read.
    pub(in crate::store) fn has_damage(&self) -> bool {
        !lock(&self.aside).is_empty()
    }
}
