//! Reading series out of the pages, and walking all of them.
//!
//! A page is found by the largest key that is not above the wanted one. Its
//! checksum is verified before anything else, and its own key must be the one it
//! was found under. What a page says about the key of the next one makes a missing
//! page visible to exactly those reads that needed it: a wanted series must lie
//! before that key, or the next page must be there.

mod room;
mod times;
mod verify;

pub use room::Room;
pub(super) use verify::verify_pack;

use std::ops::{Range, RangeInclusive};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use redb::{AccessGuard, ReadOnlyTable};

use self::times::{Decoded, Times};
use super::column;
use super::ends::{self, Wanted};
use super::file::{Error, Generation, SealedFile, Trouble, place};
use super::kept::{self, Checked};
use super::page::{Entry, EntryKey, Page};
use super::tables::{self, PAGE, PageKey, TIMES};
use crate::model::{Sample, Timestamp};
use crate::store::deleted::{Hidden, Tombstone};

impl SealedFile {
    /// Appends the samples of `targets` (metric symbol, ref; ascending, unique) in
    /// `start..=end` (ms) to the vectors of `out`, one for each target, so that
    /// they stay sorted by time. Of two samples at one time the earlier one is
    /// kept: what `out` had, then the earlier generation's.
    ///
    /// A single series costs some microseconds for each generation in the range.
    ///
    /// # Errors
    /// [`Error::Damaged`] rather than less data; [`Error::TooManySamples`] before
    /// many more of them are decoded than there is room for; [`Error::NotAtHand`].
    pub fn read(
        &self,
        targets: &[(u32, u32)],
        start: i64,
        end: i64,
        room: Room<'_>,
        out: &mut [Vec<Sample>],
    ) -> Result<(), Error> {
        self.read_parts(0..=u16::MAX, targets, (start, end), room, out)
    }

    /// As [`SealedFile::read`], of the entries with these parts.
    pub(super) fn read_parts(
        &self,
        parts: RangeInclusive<u16>,
        targets: &[(u32, u32)],
        (start, end): (i64, i64),
        room: Room<'_>,
        out: &mut [Vec<Sample>],
    ) -> Result<(), Error> {
        // The list first, then the snapshot: every listed generation is in it.
        let generations = self.generations();
        self.read_of(&generations, parts, targets, (start, end), room, out)
    }

    /// As [`SealedFile::read`], of what can be read: what is damaged is left out.
    ///
    /// # Errors
    /// As [`SealedFile::read`], but not for damage.
    pub fn read_rest(
        &self,
        targets: &[(u32, u32)],
        range: (i64, i64),
        room: Room,
        out: &mut [Vec<Sample>],
    ) -> Result<(), Error> {
        let mut left = room;
        for (target, out) in targets.iter().zip(out) {
            let before = out.len();
            self.salvage(*target, range, left, out)?;
            left.samples_max = left.samples_max.saturating_sub(out.len() - before);
        }
        Ok(())
    }

    /// Appends what can be read of one series, generation by generation; gives the
    /// times of those where something cannot.
    ///
    /// # Errors
    /// As [`SealedFile::read`], but not for damage.
    pub(super) fn salvage(
        &self,
        target: (u32, u32),
        (start, end): (i64, i64),
        room: Room,
        out: &mut Vec<Sample>,
    ) -> Result<Option<(i64, i64)>, Error> {
        let mut lost: Option<(i64, i64)> = None;
        for one in self.generations().chunks(1) {
            let mut with_it = out.clone();
            let into = std::slice::from_mut(&mut with_it);
            match self.read_of(one, 0..=u16::MAX, &[target], (start, end), room, into) {
                Ok(()) => *out = with_it,
                Err(err @ (Error::TooManySamples { .. } | Error::NotAtHand)) => return Err(err),
                Err(_) => {
                    let (from, to) = lost.unwrap_or((i64::MAX, i64::MIN));
                    lost = Some((from.min(one[0].min_time), to.max(one[0].max_time)));
                }
            }
        }
        Ok(lost)
    }

    fn read_of(
        &self,
        generations: &[Generation],
        parts: RangeInclusive<u16>,
        targets: &[(u32, u32)],
        (start, end): (i64, i64),
        room: Room<'_>,
        out: &mut [Vec<Sample>],
    ) -> Result<(), Error> {
        assert_eq!(targets.len(), out.len(), "BUG: one vector for each target");
        debug_assert!(targets.windows(2).all(|pair| pair[0] < pair[1]));
        let read = self.begin_read_here()?;
        let tombstones = self.tombstones.all();
        let mut budget = Budget {
            left: room.samples_max,
            limit: room.samples_max,
        };
        let mut buffers = Buffers::default();
        let mut read_all = || -> Result<(), Trouble> {
            let mut tables = None;
            for generation in generations {
                if generation.max_time < start || generation.min_time > end {
                    continue;
                }
                let (pages, times) = match &mut tables {
                    Some(tables) => tables,
                    none => none.insert((read.open_table(PAGE)?, read.open_table(TIMES)?)),
                };
                let hidden = hidden_in(&tombstones, generation, self.bucket_ms);
                let takes_any = room.takes_any_times(generation, end);
                let is_whole = hidden.is_empty();
                Walk {
                    kept: &self.kept,
                    at_hand: room.at_hand,
                    pages,
                    generation,
                    any_times: takes_any && is_whole,
                    hidden,
                    parts: parts.clone(),
                    times: Times::new(times, generation, &mut buffers.times),
                    wanted: Wanted {
                        range: (start, end),
                        // The one before may be seen when the newest is deleted.
                        newest_only: room.newest_only && is_whole,
                    },
                    values: &mut buffers.values,
                    run: &mut buffers.run,
                }
                .read(targets, &mut budget, out)?;
            }
            Ok(())
        };
        // redb panics on some of the bytes that it did not write.
        let read = std::panic::catch_unwind(AssertUnwindSafe(&mut read_all));
        read.unwrap_or_else(|_| Err(Trouble::Damaged("its tree cannot be walked".to_owned())))
            .map_err(|trouble| self.trouble("read", trouble))
    }
}

struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    fn take(&mut self, samples: usize) -> Result<(), Trouble> {
        let left = self.left.checked_sub(samples);
        self.left = left.ok_or(Trouble::TooManySamples(self.limit))?;
        Ok(())
    }
}

type Pages = ReadOnlyTable<PageKey, &'static [u8]>;
type Guard = AccessGuard<'static, &'static [u8]>;

/// What the passes over the generations have in turn.
#[derive(Default)]
struct Buffers {
    times: Decoded,
    values: Vec<f64>,
    run: Vec<Sample>,
}

/// A pass over the pages of one generation.
struct Walk<'a> {
    kept: &'a (Arc<kept::Pages>, u64),
    /// Whether no other pages may be read.
    at_hand: bool,
    pages: &'a Pages,
    generation: &'a Generation,
    hidden: Hidden,
    /// Whether samples of columns that begin in the range get any times.
    any_times: bool,
    /// The entries that are wanted.
    parts: RangeInclusive<u16>,
    times: Times<'a>,
    wanted: Wanted,
    values: &'a mut Vec<f64>,
    run: &'a mut Vec<Sample>,
}

impl Walk<'_> {
    fn read(
        &mut self,
        targets: &[(u32, u32)],
        budget: &mut Budget,
        out: &mut [Vec<Sample>],
    ) -> Result<(), Trouble> {
        let mut at = 0;
        while let Some(&target) = targets.get(at) {
            let Some(mut checked) = self.seek(target)? else {
                at += 1;
                continue;
            };
            // Goes on to the next page only for a series that stands there too.
            loop {
                at = self.read_page(&checked, targets, at, budget, out)?;
                let Some(next) = checked.next else {
                    return Ok(());
                };
                match targets.get(at) {
                    None => return Ok(()),
                    Some(target) if *target == (next.metric_sym, next.ref_id) => {
                        checked = self.get(next)?;
                    }
                    Some(_) => break,
                }
            }
        }
        Ok(())
    }

    /// The page with the largest key up to the target; none when the target lies
    /// before the first page.
    fn seek(&self, target: (u32, u32)) -> Result<Option<Arc<Checked>>, Trouble> {
        let (window, number) = (self.generation.window_start_s, self.generation.generation);
        let wanted = entry_of(target);
        let Some(first) = self.generation.first.filter(|first| *first <= wanted) else {
            return Ok(None);
        };
        if let Some(found) = self.kept.0.find(self.place(wanted)) {
            return Ok(Some(found));
        }
        self.may_fetch()?;
        let from = tables::page_key(window, number, first);
        let to = tables::page_key(window, number, wanted);
        let Some(found) = self.pages.range(from..=to)?.next_back() else {
            return Err(missing(first, self.generation));
        };
        let (key, guard) = found?;
        let key = tables::entry_key(key.value());
        let checked = self.check(key, &guard)?;
        match checked.next {
            Some(next) if next <= wanted => Err(missing(next, self.generation)),
            _ => Ok(Some(checked)),
        }
    }

    fn get(&self, key: EntryKey) -> Result<Arc<Checked>, Trouble> {
        if let Some(found) = self.kept.0.find(self.place(key))
            && found.first == key
        {
            return Ok(found);
        }
        self.may_fetch()?;
        let (window, number) = (self.generation.window_start_s, self.generation.generation);
        let guard = self
            .pages
            .get(tables::page_key(window, number, key))?
            .ok_or_else(|| missing(key, self.generation))?;
        self.check(key, &guard)
    }

    fn may_fetch(&self) -> Result<(), Trouble> {
        if self.at_hand {
            return Err(Trouble::NotAtHand);
        }
        Ok(())
    }

    /// Checks a page, and keeps it.
    fn check(&self, key: EntryKey, guard: &Guard) -> Result<Arc<Checked>, Trouble> {
        let bytes = guard.value();
        let next = open_page(bytes, key, self.generation)?.next;
        let checked = Checked::new(key, next, bytes);
        self.kept.0.keep(self.place(key), &checked);
        Ok(checked)
    }

    fn place(&self, first: EntryKey) -> kept::Place {
        kept::Place {
            file: self.kept.1,
            window: self.generation.window_start_s,
            generation: self.generation.generation,
            first,
        }
    }

    /// Decodes the entries of the targets from `at` on. Gives the index of the
    /// first target that this page may not have completely.
    fn read_page(
        &mut self,
        checked: &Checked,
        targets: &[(u32, u32)],
        mut at: usize,
        budget: &mut Budget,
        out: &mut [Vec<Sample>],
    ) -> Result<usize, Trouble> {
        let key = checked.first;
        let page = checked.page().map_err(at_page(key, self.generation))?;
        let marks = checked.marks(&page);
        // The series of the next page; this one may end with parts of it.
        let end = page.next.map(|next| (next.metric_sym, next.ref_id));
        let mut entries = page.entries();
        while let Some(&target) = targets.get(at) {
            if end.is_some_and(|end| target > end) {
                // Nothing that is wanted can follow here.
                break;
            }
            if let Some(marks) = marks {
                page.jump(&mut entries, marks, target);
            }
            let found = entries.seek(target);
            let Some(entry) = found.map_err(at_page(key, self.generation))? else {
                break;
            };
            let series = (entry.key.metric_sym, entry.key.ref_id);
            while targets.get(at).is_some_and(|target| *target < series) {
                at += 1;
            }
            let wanted = self.parts.contains(&entry.key.part);
            if wanted && targets.get(at) == Some(&series) {
                self.read_entry(&entry, key, budget, &mut out[at])?;
            }
        }
        // Everything before the next page's first series is done.
        while targets
            .get(at)
            .is_some_and(|t| end.is_none_or(|end| *t < end))
        {
            at += 1;
        }
        Ok(at)
    }

    fn read_entry(
        &mut self,
        entry: &Entry<'_>,
        key: EntryKey,
        budget: &mut Budget,
        out: &mut Vec<Sample>,
    ) -> Result<(), Trouble> {
        if self.any_times && self.times.head(entry.times)?.first >= self.wanted.range.0 {
            return self.read_values(entry, key, budget, out);
        }
        if self.wanted.is_short() && self.read_end(entry, key, budget, out)? {
            return Ok(());
        }
        let whole = self.times.get(entry.times)?;
        let times = span_of(entry, whole).map_err(at_page(key, self.generation))?;
        let wanted = within(times, self.wanted.range);
        let n = times.len();
        let times = &times[wanted.clone()];
        let Some(first) = times.first() else {
            return Ok(());
        };
        budget.take(times.len())?;
        self.values.clear();
        column::decode_range(entry.column, n, wanted, self.values)
            .map_err(at_page(key, self.generation))?;
        let hidden = (&self.hidden, entry.key.ref_id);
        let values = (*first, times.iter().copied(), &**self.values);
        append(values, hidden, self.run, out);
        Ok(())
    }

    /// Reads what is wanted of an entry if that is near its end, and keeps it.
    fn read_end(
        &mut self,
        entry: &Entry<'_>,
        key: EntryKey,
        budget: &mut Budget,
        out: &mut Vec<Sample>,
    ) -> Result<bool, Trouble> {
        let column = self.place(entry.key);
        self.run.clear();
        if !self.kept.0.ends.read(column, self.wanted, self.run) {
            let Some(from) = self.decode_end(entry, key)? else {
                return Ok(false);
            };
            self.kept.0.ends.keep(column, from, self.run);
            let end = self.wanted.range.1;
            self.run
                .truncate(self.run.partition_point(|s| s.t.as_ms() <= end));
        }
        budget.take(self.run.len())?;
        self.hidden.trim(entry.key.ref_id, self.run);
        merge(out, self.run);
        Ok(true)
    }

    /// Decodes the end of a column with what is wanted of it to `run`, if that is short;
    /// gives the time from which on these are all.
    fn decode_end(&mut self, entry: &Entry<'_>, key: EntryKey) -> Result<Option<i64>, Trouble> {
        let whole = self.times.get(entry.times)?;
        let times = span_of(entry, whole).map_err(at_page(key, self.generation))?;
        let (n, (start, end)) = (times.len(), self.wanted.range);
        let mut at = times.partition_point(|time| *time < start);
        let mut from = start;
        if self.wanted.newest_only && n - at > ends::SAMPLES_MAX {
            at = n - ends::SAMPLES_MAX;
            from = times[at];
        }
        if n - at > ends::SAMPLES_MAX || from > end {
            return Ok(None);
        }
        self.values.clear();
        column::decode_range(entry.column, n, at..n, self.values)
            .map_err(at_page(key, self.generation))?;
        let samples = times[at..].iter().zip(&*self.values);
        self.run.extend(samples.map(|(t, v)| Sample::new(*t, *v)));
        Ok(Some(from))
    }

    /// Reads an entry without its times: its samples get those that end with the
    /// generation, a millisecond apart.
    fn read_values(
        &mut self,
        entry: &Entry<'_>,
        key: EntryKey,
        budget: &mut Budget,
        out: &mut Vec<Sample>,
    ) -> Result<(), Trouble> {
        let whole = self.times.head(entry.times)?.count;
        let (first, n) = match entry.span {
            None => (0, whole),
            Some(span) => (span.first as usize, span.count as usize),
        };
        if first.saturating_add(n) > whole {
            let outside = super::Malformed("span outside of its times");
            return Err(at_page(key, self.generation)(outside));
        }
        budget.take(n)?;
        self.values.clear();
        column::decode(entry.column, n, self.values).map_err(at_page(key, self.generation))?;
        let start = self.generation.max_time - (whole - first) as i64 + 1;
        let hidden = (&self.hidden, entry.key.ref_id);
        append((start, start.., &**self.values), hidden, self.run, out);
        Ok(())
    }
}

/// Appends values at their times, the first of which is told, without those that are
/// hidden of the series. What is not behind the samples there is merged into them, by
/// way of `run`.
fn append(
    (first, times, values): (i64, impl Iterator<Item = i64>, &[f64]),
    (hidden, series): (&Hidden, u32),
    run: &mut Vec<Sample>,
    out: &mut Vec<Sample>,
) {
    let samples = times.zip(values).map(|(time, v)| Sample::new(time, *v));
    if hidden.is_empty() && out.last().is_none_or(|last| last.t.as_ms() < first) {
        out.extend(samples);
        return;
    }
    run.clear();
    run.extend(samples);
    hidden.trim(series, run);
    merge(out, run);
}

/// Which of the times lie in the closed range; mostly all do.
fn within(times: &[i64], (start, end): (i64, i64)) -> Range<usize> {
    match times {
        [first, .., last] if *first >= start && *last <= end => 0..times.len(),
        _ => {
            let to = times.partition_point(|time| *time <= end);
            times[..to].partition_point(|time| *time < start)..to
        }
    }
}

/// What is deleted in a generation.
fn hidden_in(tombstones: &Arc<[Tombstone]>, generation: &Generation, bucket_ms: i64) -> Hidden {
    let last_seq = generation.commit_seqs.end().0;
    let times = (generation.min_time, generation.max_time);
    Hidden::of(tombstones, last_seq, times, bucket_ms)
}

/// The key of the first entry of a series.
fn entry_of((metric_sym, ref_id): (u32, u32)) -> EntryKey {
    EntryKey {
        metric_sym,
        ref_id,
        part: 0,
    }
}

/// Opens the page and checks that it belongs where it was found.
fn open_page<'p>(
    bytes: &'p [u8],
    key: EntryKey,
    generation: &Generation,
) -> Result<Page<'p>, Trouble> {
    let page = Page::open(bytes).map_err(at_page(key, generation))?;
    let first = page.entries().next();
    let right = page.window_start_s == generation.window_start_s
        && page.generation == generation.generation
        && page.next.is_none_or(|next| next > key)
        && first.is_some_and(|first| first.is_ok_and(|first| first.key == key));
    if right {
        Ok(page)
    } else {
        let place = at_page(key, generation);
        Err(place(super::Malformed("page of another key")))
    }
}

/// The place is written out only when there is an error: this is called for every entry.
fn at_page(key: EntryKey, generation: &Generation) -> impl FnOnce(super::Malformed) -> Trouble {
    move |err| Trouble::at(page_of(key, generation))(err)
}

/// How errors name a page.
pub(super) fn page_place(window: u32, generation: u16, key: EntryKey) -> String {
    let EntryKey {
        metric_sym,
        ref_id,
        part,
    } = key;
    format!(
        "{}, page of metric {metric_sym}, series {ref_id}, part {part}",
        place(window, generation)
    )
}

fn page_of(key: EntryKey, generation: &Generation) -> String {
    page_place(generation.window_start_s, generation.generation, key)
}

fn missing(key: EntryKey, generation: &Generation) -> Trouble {
    Trouble::Damaged(format!("{} is missing", page_of(key, generation)))
}

fn span_of<'t>(entry: &Entry<'_>, times: &'t [i64]) -> Result<&'t [i64], super::Malformed> {
    let Some(span) = entry.span else {
        return Ok(times);
    };
    let (first, count) = (span.first as usize, span.count as usize);
    times
        .get(first..)
        .and_then(|rest| rest.get(..count))
        .ok_or(super::Malformed("span outside of its times"))
}

/// Adds a sorted run to sorted samples; at equal times the sample that was there
/// stays. Cheap when the run lies behind them, which is the rule.
fn merge(out: &mut Vec<Sample>, run: &[Sample]) {
    let Some(first) = run.first() else {
        return;
    };
    if out.last().is_none_or(|last| last.t < first.t) {
        out.extend_from_slice(run);
        return;
    }
    let tail = out.split_off(out.partition_point(|sample| sample.t < first.t));
    let (mut old, mut new) = (tail.into_iter().peekable(), run.iter().copied().peekable());
    let end = Timestamp::MAX;
    loop {
        let next_old = old.peek().map(|s| s.t);
        let next_new = new.peek().map(|s| s.t);
        if next_old.is_none() && next_new.is_none() {
            return;
        }
        if next_old.is_some() && next_old.unwrap_or(end) <= next_new.unwrap_or(end) {
            if next_old == next_new {
                new.next();
            }
            out.extend(old.next());
        } else {
            out.extend(new.next());
        }
    }
}
