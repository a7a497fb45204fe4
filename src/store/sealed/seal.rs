//! Writing one generation: samples in, pages out, in commits of bounded size.
//!
//! Rows are gathered until they reach a quarter of redb's cache, then inserted in
//! key order and committed; beyond its write buffer redb would write every page
//! twice. The first commit leaves a mark in `stat`, the last one takes it away and
//! adds the `window` row, so a generation is either complete or known not to be.
//! A seal that fits in one commit needs no mark.
//!
//! A page is held back until the first key of the page after it is known.

mod times;

use std::collections::HashMap;
use std::ops::RangeInclusive;

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::Xxh3;

use self::times::{Place, TimesTable};
use super::column::{Effort, Encoder};
use super::file::{Covered, Error, Generation, SealedFile, SealedSeries, Trouble};
use super::page::{Builder, Entry, EntryKey, LONG_PAGE_MAX, PAGE_MAX};
use super::rolled::RolledSeries;
use super::tables::{self, PAGE, PageKey, SERIES, STAT, SYM, TIMES, WINDOW, WindowRow};
use crate::model::{Labels, Sample};
use crate::store::CommitSeq;

/// How long columns and pages are, and how hard to look for short ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    effort: Effort,
    page_max: usize,
    /// The most samples of one entry: their timestamp column takes at most 8 bytes
    /// for each, so that it fits in one value as well.
    entry_samples: usize,
    /// Timestamp columns are packed.
    packed: bool,
    /// An entry that does not fit any more is split to fill the page.
    fills: bool,
}

/// Columns are cut at multiples of this many samples, of which pco's pages are.
const SPLIT: usize = 240;

impl Layout {
    /// For the seal of an hour.
    pub(super) const HOURS: Layout = Layout {
        effort: Effort::Fast,
        page_max: PAGE_MAX,
        entry_samples: 2_000,
        packed: false,
        fills: true,
    };

    /// For the rewrite of a day: a sample each 15 s makes one entry.
    pub(super) const DAY: Layout = Layout {
        effort: Effort::Best,
        page_max: LONG_PAGE_MAX,
        entry_samples: 8_000,
        packed: true,
        fills: true,
    };

    /// For roll-ups: a day has some hundred buckets.
    pub(super) const ROLLS: Layout = Layout {
        fills: false,
        ..Layout::DAY
    };
}

/// A seal that is under way.
pub(super) struct Seal<'a> {
    file: &'a SealedFile,
    layout: Layout,
    window: u32,
    generation: u16,
    batch: Batch,
    marked: bool,
    page: Builder,
    /// The finished page that waits for the key of the next one.
    last_key: (u32, u32),
    times: TimesTable,
    known: Known,
    encoder: Encoder,
    values: Vec<f64>,
    millis: Vec<i64>,
    column: Vec<u8>,
    row: WindowRow,
    pages_hash: Xxh3,
}

/// Rows for the next commit, each table's in key order.
#[derive(Default)]
struct Batch {
    pages: Vec<(PageKey, Vec<u8>)>,
    times: Vec<((u32, u16, u32), Vec<u8>)>,
    series: Vec<(u32, Vec<u8>)>,
    symbols: Vec<(u32, Vec<u8>)>,
    /// Of pages and timestamp columns.
    page_bytes: usize,
    /// Of series and symbols.
    row_bytes: usize,
}

impl<'a> Seal<'a> {
    pub(super) fn begin(
        file: &'a SealedFile,
        window: u32,
        generation: u16,
        layout: Layout,
    ) -> Result<Seal<'a>, Error> {
        Ok(Seal {
            file,
            layout,
            window,
            generation,
            batch: Batch::default(),
            marked: false,
            page: Builder::new(window, generation, layout.page_max),
            last_key: (0, 0),
            times: TimesTable::new(layout.packed),
            known: Known::load(file)?,
            encoder: Encoder::default(),
            values: Vec::new(),
            millis: Vec::new(),
            column: Vec::new(),
            row: WindowRow {
                pages: 0,
                samples: 0,
                seq_min: 0,
                seq_max: 0,
                min_time: i64::MAX,
                max_time: i64::MIN,
                first: None,
                times: 0,
                pages_hash: 0,
                times_hash: 0,
            },
            pages_hash: Xxh3::new(),
        })
    }

    /// Writes all of it, and makes it visible with the last commit.
    pub(super) fn write<E: From<Error>>(
        mut self,
        commit_seqs: RangeInclusive<CommitSeq>,
        rewritten: &[Covered],
        series: impl IntoIterator<Item = Result<SealedSeries, E>>,
        mut labels_of: impl FnMut(u32) -> Labels,
    ) -> Result<Generation, E> {
        for series in series {
            self.add(&series?, &mut labels_of)?;
        }
        Ok(self.finish(commit_seqs, rewritten)?)
    }

    /// As [`Seal::write`], of roll-ups: a series' tracks stand one after the other.
    pub(super) fn write_rolled<E: From<Error>>(
        mut self,
        commit_seqs: RangeInclusive<CommitSeq>,
        rewritten: &[Covered],
        series: &mut dyn Iterator<Item = Result<RolledSeries, E>>,
        labels_of: &mut dyn FnMut(u32) -> Labels,
    ) -> Result<Generation, E> {
        for series in series {
            let series = series?;
            if self.begin_series((series.metric_sym, series.ref_id), labels_of, || {
                series.rolls.is_empty()
            }) {
                for (part, samples) in series.rolls.tracks() {
                    self.add_run(series.key(part), series.group, samples)?;
                }
                self.flush_if_large()?;
            }
        }
        Ok(self.finish(commit_seqs, rewritten)?)
    }

    /// Adds a series. Commits when enough has come together.
    fn add(
        &mut self,
        series: &SealedSeries,
        labels_of: &mut dyn FnMut(u32) -> Labels,
    ) -> Result<(), Error> {
        let key = EntryKey {
            metric_sym: series.metric_sym,
            ref_id: series.ref_id,
            part: 0,
        };
        if self.begin_series((series.metric_sym, series.ref_id), labels_of, || {
            series.samples.is_empty()
        }) {
            self.add_run(key, series.group, &series.samples)?;
            self.flush_if_large()?;
        }
        Ok(())
    }

    /// Whether the series has something to add; it is known from then on.
    fn begin_series(
        &mut self,
        (metric_sym, ref_id): (u32, u32),
        labels_of: &mut dyn FnMut(u32) -> Labels,
        is_empty: impl FnOnce() -> bool,
    ) -> bool {
        let key = (metric_sym, ref_id);
        assert!(
            key > self.last_key || self.row.samples == 0,
            "BUG: series do not ascend"
        );
        self.last_key = key;
        if is_empty() {
            return false;
        }
        self.known.add(key, labels_of, &mut self.batch);
        true
    }

    /// Adds a run of samples as entries from this key on.
    fn add_run(&mut self, mut key: EntryKey, group: u32, samples: &[Sample]) -> Result<(), Error> {
        if samples.is_empty() {
            return Ok(());
        }
        self.count(samples);
        for samples in samples.chunks(self.layout.entry_samples) {
            self.millis.clear();
            self.millis.extend(samples.iter().map(|s| s.t.as_ms()));
            let place = self.times.place(
                group,
                &self.millis,
                (self.window, self.generation),
                &mut self.batch,
            );
            self.add_entry(&mut key, samples, place)?;
        }
        Ok(())
    }

    fn flush_if_large(&mut self) -> Result<(), Error> {
        if self.batch.page_bytes >= self.file.commit_bytes() {
            self.flush()?;
        }
        Ok(())
    }

    fn count(&mut self, samples: &[Sample]) {
        debug_assert!(samples.windows(2).all(|pair| pair[0].t < pair[1].t));
        let (first, last) = (samples[0].t.as_ms(), samples[samples.len() - 1].t.as_ms());
        self.row.min_time = self.row.min_time.min(first);
        self.row.max_time = self.row.max_time.max(last);
        self.row.samples += samples.len() as u64;
    }

    /// Adds one entry; halves it, as often as needed, when its column is too long
    /// for a page.
    fn add_entry(
        &mut self,
        key: &mut EntryKey,
        samples: &[Sample],
        place: Place,
    ) -> Result<(), Error> {
        self.encode(samples);
        if self.column.len() > self.page.column_max() {
            let (early, late) = samples.split_at(samples.len() / 2);
            self.add_entry(key, early, place.part(0, early.len()))?;
            return self.add_entry(key, late, place.part(early.len(), late.len()));
        }
        if self.push(*key, place) {
            key.part = next_part(key.part);
            return Ok(());
        }
        if let Some(early) = self.part_for_rest(samples.len()) {
            self.encode(&samples[..early]);
            if self.push(*key, place.part(0, early)) {
                key.part = next_part(key.part);
                let late = place.part(early, samples.len() - early);
                return self.add_entry(key, &samples[early..], late);
            }
            self.encode(samples);
        }
        finish_page(
            &mut self.page,
            Some(*key),
            &mut self.batch,
            (self.window, self.generation),
            &mut self.row,
            &mut self.pages_hash,
        );
        assert!(self.push(*key, place), "BUG: an empty page takes any entry");
        key.part = next_part(key.part);
        Ok(())
    }

    fn encode(&mut self, samples: &[Sample]) {
        self.values.clear();
        self.values.extend(samples.iter().map(|s| s.v));
        self.column.clear();
        self.encoder
            .encode(&self.values, self.layout.effort, &mut self.column);
    }

    /// Puts the encoded column into the page, if it fits.
    fn push(&mut self, key: EntryKey, place: Place) -> bool {
        self.page.push(&Entry {
            key,
            times: place.id,
            span: place.span,
            column: &self.column,
        })
    }

    /// How many of the samples whose column does not fit would probably fill the
    /// rest of the page. None when little would be won: a column has a head.
    fn part_for_rest(&self, samples: usize) -> Option<usize> {
        let room = self.page.room();
        if !self.layout.fills || room < self.layout.page_max / 64 || self.column.len() < 1_024 {
            return None;
        }
        let share = samples * (room - room / 16) / self.column.len();
        let early = share.next_multiple_of(SPLIT) - SPLIT;
        (early > 0 && early < samples).then_some(early)
    }

    /// Commits what was gathered, behind the mark.
    fn flush(&mut self) -> Result<(), Error> {
        let write = self.file.begin_write()?;
        self.insert_pages(&write)
            .and_then(|()| self.mark(&write))
            .and_then(|()| {
                if self.batch.row_bytes < self.file.commit_bytes() / 2 {
                    return Ok(());
                }
                self.insert_rows(&write)
            })
            .map_err(|err| self.file.trouble("write", err))?;
        self.file.commit(write)?;
        self.marked = true;
        Ok(())
    }

    fn mark(&self, write: &WriteTransaction) -> Result<(), Trouble> {
        if self.marked {
            return Ok(());
        }
        let numbers = [self.window.into(), self.generation.into()];
        let row = tables::encode_stat(tables::STAT_OPEN, &numbers);
        put(write, STAT, tables::STAT_OPEN, &row)
    }

    /// Commits the rest with the window row, and takes the mark away.
    fn finish(
        mut self,
        commit_seqs: RangeInclusive<CommitSeq>,
        rewritten: &[Covered],
    ) -> Result<Generation, Error> {
        if self.page.first().is_some() {
            finish_page(
                &mut self.page,
                None,
                &mut self.batch,
                (self.window, self.generation),
                &mut self.row,
                &mut self.pages_hash,
            );
        }
        let generation = (self.window, self.generation);
        self.times.finish(generation, &mut self.batch);
        self.row.seq_min = commit_seqs.start().0;
        self.row.seq_max = commit_seqs.end().0;
        self.row.times = self.times.next.into();
        self.row.pages_hash = self.pages_hash.digest();
        self.row.times_hash = self.times.hash.digest();
        let mut write = self.file.begin_write()?;
        // The allocator's state goes with the last commit: an open after a crash
        // then needs no walk through the file, and a read-only open no clean end.
        write.set_quick_repair(true);
        self.insert_pages(&write)
            .and_then(|()| self.insert_rows(&write))
            .and_then(|()| self.insert_last(&write, rewritten))
            .map_err(|err| self.file.trouble("write", err))?;
        self.file.commit(write)?;
        let packed = self.layout.packed;
        Ok(Generation::of(
            self.window,
            self.generation,
            &self.row,
            packed,
        ))
    }

    fn insert_last(&self, write: &WriteTransaction, rewritten: &[Covered]) -> Result<(), Trouble> {
        let generations = self.file.generations().len() as u64 + 1;
        let row = self.row.encode(self.window, self.generation);
        put(write, WINDOW, (self.window, self.generation), &row)?;
        let totals = tables::encode_stat(tables::STAT_TOTALS, &[generations]);
        put(write, STAT, tables::STAT_TOTALS, &totals)?;
        write.open_table(STAT)?.remove(tables::STAT_OPEN)?;
        if !rewritten.is_empty() {
            let row = tables::encode_rewritten(rewritten);
            put(write, STAT, tables::STAT_REWRITTEN, &row)?;
        }
        Ok(())
    }

    fn insert_pages(&mut self, write: &WriteTransaction) -> Result<(), Trouble> {
        insert_sorted(write, PAGE, &std::mem::take(&mut self.batch.pages))?;
        insert_sorted(write, TIMES, &std::mem::take(&mut self.batch.times))?;
        self.batch.page_bytes = 0;
        Ok(())
    }

    /// Refs come in the order of metrics, so that each commit would touch the
    /// same leaves again: their rows are kept for one commit, or for a few.
    fn insert_rows(&mut self, write: &WriteTransaction) -> Result<(), Trouble> {
        let mut rows = std::mem::take(&mut self.batch.series);
        rows.sort_unstable_by_key(|(ref_id, _)| *ref_id);
        let mut series = write.open_table(SERIES)?;
        for (ref_id, row) in &rows {
            series.insert(ref_id, row.as_slice())?;
        }
        let mut symbols = write.open_table(SYM)?;
        for (number, row) in std::mem::take(&mut self.batch.symbols) {
            symbols.insert(number, row.as_slice())?;
        }
        self.batch.row_bytes = 0;
        Ok(())
    }
}

fn put<'k, K: redb::Key + 'static>(
    write: &WriteTransaction,
    table: TableDefinition<K, &'static [u8]>,
    key: K::SelfType<'k>,
    row: &[u8],
) -> Result<(), Trouble> {
    write.open_table(table)?.insert(key, row)?;
    Ok(())
}

/// Inserts ascending keys between which there is no other: fills pages to the brim.
fn insert_sorted<K>(
    write: &WriteTransaction,
    table: TableDefinition<K, &'static [u8]>,
    rows: &[(K, Vec<u8>)],
) -> Result<(), Trouble>
where
    K: redb::Key + for<'k> redb::Value<SelfType<'k> = K> + Copy + 'static,
{
    let mut table = write.open_table(table)?;
    let Some((first, _)) = rows.first() else {
        return Ok(());
    };
    let mut cursor = table.upper_bound_mut(std::ops::Bound::Included(*first))?;
    for (key, row) in rows {
        cursor.insert_before(*key, row.as_slice())?;
    }
    cursor.close()?;
    Ok(())
}

/// Puts the page into the batch. `next` is the first key of the one after it.
fn finish_page(
    page: &mut Builder,
    next: Option<EntryKey>,
    batch: &mut Batch,
    (window, generation): (u32, u16),
    row: &mut WindowRow,
    hash: &mut Xxh3,
) {
    let first = page.first().expect("called with entries only");
    let bytes = page.finish(next);
    hash.update(&tables::hash_of(&bytes));
    row.pages += 1;
    row.first.get_or_insert(first);
    batch.page_bytes += bytes.len();
    batch
        .pages
        .push((tables::page_key(window, generation, first), bytes));
}

fn next_part(part: u16) -> u16 {
    part.checked_add(1)
        .expect("BUG: a window with 65,536 entries of one series")
}

/// Which series and texts the file has already.
struct Known {
    refs: RoaringBitmap,
    symbols: HashMap<Box<str>, u32, ahash::RandomState>,
    next_symbol: u32,
}

impl Known {
    fn load(file: &SealedFile) -> Result<Known, Error> {
        let load = || -> Result<Known, Trouble> {
            let read = file.begin_read()?;
            let mut known = Known {
                refs: RoaringBitmap::new(),
                symbols: HashMap::default(),
                next_symbol: 0,
            };
            for row in read.open_table(SERIES)?.iter()? {
                known.refs.insert(row?.0.value());
            }
            for row in read.open_table(SYM)?.iter()? {
                let (number, text) = row?;
                let number = number.value();
                let text =
                    tables::decode_symbol(text.value(), number).map_err(Trouble::at("sym"))?;
                known.symbols.insert(text.into(), number);
                known.next_symbol = known.next_symbol.max(number + 1);
            }
            Ok(known)
        };
        load().map_err(|err| file.trouble("read", err))
    }

    /// Adds the series' row, and those of its new texts, when it is new.
    fn add(
        &mut self,
        (metric_sym, ref_id): (u32, u32),
        labels_of: &mut dyn FnMut(u32) -> Labels,
        batch: &mut Batch,
    ) {
        if !self.refs.insert(ref_id) {
            return;
        }
        let mut numbers = Vec::new();
        for (name, value) in labels_of(ref_id).iter() {
            numbers.push(self.symbol(name, batch));
            numbers.push(self.symbol(value, batch));
        }
        let row = tables::encode_series(ref_id, metric_sym, &numbers);
        batch.row_bytes += row.len();
        batch.series.push((ref_id, row));
    }

    fn symbol(&mut self, text: &str, batch: &mut Batch) -> u32 {
        if let Some(&number) = self.symbols.get(text) {
            return number;
        }
        let number = self.next_symbol;
        self.next_symbol = number + 1;
        self.symbols.insert(text.into(), number);
        let row = tables::encode_symbol(number, text);
        batch.row_bytes += row.len();
        batch.symbols.push((number, row));
        number
    }
}
