//! The page: the value columns of many series in one value of bounded size.
//!
//! `head | directory | columns | xxh3-64 (LE) of everything before`
//!
//! - head: `version u8 | window start in s varint | generation varint | part of the
//!   first entry varint | next | entries varint | directory bytes varint`. `next`
//!   is `0` for the last page of a generation, else `1` and the key with which the
//!   following page starts (metric, ref, part varints). With it a reader notices
//!   that a page is missing without counting all of them.
//! - directory, for each entry: metric delta varint, ref varint (a delta while the
//!   metric stays), `times id * 2 + partial` varint, then, if partial, first index
//!   and count varints, and the column's length varint. An entry that is not
//!   partial has as many values as its timestamp column has times.
//!
//! redb gives a large value its own page of the next power of two: 16,300 bytes
//! fill one of 16 KiB (1.03 bytes on disk for each), 16,500 take two. So the hours
//! of a day, whose columns have some hundred bytes, are in pages of 16,300. The
//! columns of whole days have some thousand: they would leave an eighth of such a
//! page empty, and have pages of 65,400.
//!
//! Entries ascend by (metric, ref); a series with many samples has several entries
//! in a row, its parts, in the order of time.

use xxhash_rust::xxh3::xxh3_64;

use super::Malformed;
use super::varint::{Reader, put_u64};

/// The most bytes of a page with the columns of an hour.
pub const PAGE_MAX: usize = 16_300;

/// The most bytes of a page with the columns of a day.
pub const LONG_PAGE_MAX: usize = 65_400;

const VERSION: u8 = 1;
const HASH_LEN: usize = 8;
/// The longest head: version, five-byte varints, and `next` with all three.
const HEAD_MAX: usize = 1 + 5 + 3 + 3 + (1 + 5 + 5 + 3) + 3 + 3;
/// The longest directory row.
const ROW_MAX: usize = 5 + 5 + 6 + 3 + 3 + 3;

/// The longest column that still fits in a page of its own.
const fn column_max(page_max: usize) -> usize {
    page_max - HEAD_MAX - ROW_MAX - HASH_LEN
}

/// The key of an entry within its generation; that of a page is its first entry's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct EntryKey {
    /// The symbol of the metric name.
    pub metric_sym: u32,
    /// The series.
    pub ref_id: u32,
    /// The number of the entry among those of its series, from 0.
    pub part: u16,
}

/// Which times of its timestamp column an entry has values for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The index of the first time.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// One series' column as it stands in a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Which entry.
    pub key: EntryKey,
    /// The timestamp column of this generation that it belongs to.
    pub times: u32,
    /// Which of its times; `None` for all.
    pub span: Option<Span>,
    /// The value column.
    pub column: &'a [u8],
}

/// Gathers entries until the page is full.
pub struct Builder {
    page_max: usize,
    window_start_s: u32,
    generation: u16,
    first: Option<EntryKey>,
    last: (u32, u32),
    entries: usize,
    directory: Vec<u8>,
    columns: Vec<u8>,
    row: Vec<u8>,
}

impl Builder {
    /// An empty page of this generation, of at most `page_max` bytes.
    pub fn new(window_start_s: u32, generation: u16, page_max: usize) -> Builder {
        Builder {
            page_max,
            window_start_s,
            generation,
            first: None,
            last: (0, 0),
            entries: 0,
            directory: Vec::new(),
            columns: Vec::with_capacity(page_max),
            row: Vec::new(),
        }
    }

    /// The longest column that an empty page takes.
    pub fn column_max(&self) -> usize {
        column_max(self.page_max)
    }

    /// About how many bytes are left for a further column.
    pub fn room(&self) -> usize {
        let used = HEAD_MAX + self.directory.len() + self.columns.len() + ROW_MAX + HASH_LEN;
        self.page_max.saturating_sub(used)
    }

    /// The key of the first entry; `None` while there is none.
    pub fn first(&self) -> Option<EntryKey> {
        self.first
    }

    /// Adds an entry; says no, and adds nothing, when it does not fit any more.
    /// An empty page takes every column of at most [`Builder::column_max`] bytes.
    pub fn push(&mut self, entry: &Entry<'_>) -> bool {
        let key = (entry.key.metric_sym, entry.key.ref_id);
        assert!(key >= self.last, "BUG: entries do not ascend");
        self.row.clear();
        put_row(entry, self.last, &mut self.row);
        let bytes = self.directory.len() + self.row.len() + self.columns.len();
        if HEAD_MAX + bytes + entry.column.len() + HASH_LEN > self.page_max {
            assert!(self.entries > 0, "BUG: a column is too long for a page");
            return false;
        }
        self.first.get_or_insert(entry.key);
        self.last = key;
        self.entries += 1;
        self.directory.extend_from_slice(&self.row);
        self.columns.extend_from_slice(entry.column);
        true
    }

    /// The finished page, and an empty builder for the next one. `next` is the
    /// first key of the page that follows.
    pub fn finish(&mut self, next: Option<EntryKey>) -> Vec<u8> {
        let first = self.first.expect("BUG: a page without entries");
        let mut page = Vec::with_capacity(self.page_max);
        page.push(VERSION);
        put_u64(self.window_start_s.into(), &mut page);
        put_u64(self.generation.into(), &mut page);
        put_u64(first.part.into(), &mut page);
        page.push(u8::from(next.is_some()));
        if let Some(next) = next {
            put_u64(next.metric_sym.into(), &mut page);
            put_u64(next.ref_id.into(), &mut page);
            put_u64(next.part.into(), &mut page);
        }
        put_u64(self.entries as u64, &mut page);
        put_u64(self.directory.len() as u64, &mut page);
        page.extend_from_slice(&self.directory);
        page.extend_from_slice(&self.columns);
        page.extend_from_slice(&xxh3_64(&page).to_le_bytes());
        assert!(page.len() <= self.page_max, "BUG: a page is too long");
        self.clear();
        page
    }

    fn clear(&mut self) {
        self.first = None;
        self.last = (0, 0);
        self.entries = 0;
        self.directory.clear();
        self.columns.clear();
    }
}

fn put_row(entry: &Entry<'_>, last: (u32, u32), row: &mut Vec<u8>) {
    let (metric, ref_id) = last;
    let metric_delta = entry.key.metric_sym - metric;
    let ref_base = if metric_delta == 0 { ref_id } else { 0 };
    put_u64(metric_delta.into(), row);
    put_u64((entry.key.ref_id - ref_base).into(), row);
    put_u64(
        u64::from(entry.times) * 2 + u64::from(entry.span.is_some()),
        row,
    );
    if let Some(span) = entry.span {
        put_u64(span.first.into(), row);
        put_u64(span.count.into(), row);
    }
    put_u64(entry.column.len() as u64, row);
}

/// A page whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The start of its window in seconds.
    pub window_start_s: u32,
    /// Its generation.
    pub generation: u16,
    /// Where the following page starts; `None` for the last one.
    pub next: Option<EntryKey>,
    /// The checksum.
    pub hash: u64,
    first_part: u16,
    entries: usize,
    directory: &'a [u8],
    columns: &'a [u8],
}

impl<'a> Page<'a> {
    /// Checks the checksum and reads the head.
    ///
    /// # Errors
    /// When a bit is wrong, or the page is of a version that we do not know.
    pub fn open(bytes: &'a [u8]) -> Result<Page<'a>, Malformed> {
        let (content, hash) = bytes
            .split_last_chunk::<HASH_LEN>()
            .ok_or(Malformed("page too short"))?;
        if xxh3_64(content) != u64::from_le_bytes(*hash) {
            return Err(Malformed("wrong checksum"));
        }
        Page::open_checked(bytes)
    }

    /// Reads the head of a page whose checksum was right before.
    ///
    /// # Errors
    /// When the page is of a version that we do not know.
    pub fn open_checked(bytes: &'a [u8]) -> Result<Page<'a>, Malformed> {
        let (content, hash) = bytes
            .split_last_chunk::<HASH_LEN>()
            .ok_or(Malformed("page too short"))?;
        let hash = u64::from_le_bytes(*hash);
        let mut reader = Reader::new(content);
        if reader.byte()? != VERSION {
            return Err(Malformed("unknown page version"));
        }
        let window_start_s = reader.u32()?;
        let generation = reader.u16()?;
        let first_part = reader.u16()?;
        let next = match reader.byte()? {
            0 => None,
            _ => Some(EntryKey {
                metric_sym: reader.u32()?,
                ref_id: reader.u32()?,
                part: reader.u16()?,
            }),
        };
        let entries = reader.usize()?;
        let directory_len = reader.usize()?;
        Ok(Page {
            window_start_s,
            generation,
            next,
            hash,
            first_part,
            entries,
            directory: reader.bytes(directory_len)?,
            columns: reader.rest(),
        })
    }

    /// The entries in order; looks at no column.
    pub fn entries(&self) -> Entries<'a> {
        Entries {
            left: self.entries,
            directory: Reader::new(self.directory),
            columns: Reader::new(self.columns),
            last: None,
            first_part: self.first_part,
        }
    }
}

/// Entries between two marks.
const MARK_ENTRIES: usize = 16;

/// Places in a page's directory from which it can be walked, for a page in which
/// entries are looked for often.
#[derive(Debug)]
pub struct Marks(Box<[Mark]>);

#[derive(Debug)]
struct Mark {
    /// The entry before.
    last: EntryKey,
    /// The entries that are left, and where their rows and columns begin.
    left: usize,
    directory: usize,
    columns: usize,
}

impl<'a> Page<'a> {
    /// Walks the directory once. Stops where it is no directory.
    pub fn marks(&self) -> Marks {
        let mut marks = Vec::with_capacity(self.entries / MARK_ENTRIES);
        let mut entries = self.entries();
        while let Some(Ok(entry)) = entries.by_ref().nth(MARK_ENTRIES - 1) {
            marks.push(Mark {
                last: entry.key,
                left: entries.left,
                directory: self.directory.len() - entries.directory.rest().len(),
                columns: self.columns.len() - entries.columns.rest().len(),
            });
        }
        Marks(marks.into())
    }

    /// Steps over entries up to shortly before the first one of a series (metric
    /// symbol, ref), where that is known. The marks must be those of this page.
    pub fn jump(&self, entries: &mut Entries<'a>, marks: &Marks, series: (u32, u32)) {
        let before = |mark: &Mark| (mark.last.metric_sym, mark.last.ref_id) < series;
        let Some(at) = marks.0.partition_point(before).checked_sub(1) else {
            return;
        };
        let mark = &marks.0[at];
        if mark.left < entries.left {
            *entries = Entries {
                left: mark.left,
                directory: Reader::new(&self.directory[mark.directory..]),
                columns: Reader::new(&self.columns[mark.columns..]),
                last: Some(mark.last),
                first_part: self.first_part,
            };
        }
    }
}

/// Walks the directory of a page.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    left: usize,
    directory: Reader<'a>,
    columns: Reader<'a>,
    last: Option<EntryKey>,
    first_part: u16,
}

impl<'a> Entries<'a> {
    /// The first of the entries that are left whose series is not before this one
    /// (metric symbol, ref). Those before it cost a few nanoseconds each.
    ///
    /// # Errors
    /// When the directory is no directory; there are then no more entries.
    pub fn seek(&mut self, series: (u32, u32)) -> Result<Option<Entry<'a>>, Malformed> {
        while self.left > 0 {
            self.left -= 1;
            let row = self.row().inspect_err(|_| self.left = 0)?;
            if (row.key.metric_sym, row.key.ref_id) >= series {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    #[inline(always)]
    fn row(&mut self) -> Result<Entry<'a>, Malformed> {
        let (metric, ref_id) = self.last.map_or((0, 0), |l| (l.metric_sym, l.ref_id));
        let metric_delta = self.directory.u32()?;
        let ref_base = if metric_delta == 0 { ref_id } else { 0 };
        let overflow = Malformed("key above 32 bits");
        let metric_sym = metric.checked_add(metric_delta).ok_or(overflow)?;
        let ref_id = ref_base
            .checked_add(self.directory.u32()?)
            .ok_or(overflow)?;
        let part = match self.last {
            None => self.first_part,
            Some(last) if (last.metric_sym, last.ref_id) == (metric_sym, ref_id) => {
                last.part.checked_add(1).ok_or(overflow)?
            }
            Some(_) => 0,
        };
        let key = EntryKey {
            metric_sym,
            ref_id,
            part,
        };
        self.last = Some(key);
        let times = self.directory.u64()?;
        let span = if times & 1 == 0 {
            None
        } else {
            Some(Span {
                first: self.directory.u32()?,
                count: self.directory.u32()?,
            })
        };
        let len = self.directory.usize()?;
        Ok(Entry {
            key,
            times: u32::try_from(times >> 1).map_err(|_| overflow)?,
            span,
            column: self.columns.bytes(len)?,
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Result<Entry<'a>, Malformed>> {
        self.left = self.left.checked_sub(1)?;
        Some(self.row().inspect_err(|_| self.left = 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(metric_sym: u32, ref_id: u32, part: u16) -> EntryKey {
        EntryKey {
            metric_sym,
            ref_id,
            part,
        }
    }

    const COLUMN_MAX: usize = column_max(PAGE_MAX);

    /// A page of some entries with columns of these lengths; the keys are made up.
    fn build(lengths: &[usize]) -> (Vec<u8>, Vec<(EntryKey, usize)>) {
        let mut builder = Builder::new(1_700_000_000, 3, PAGE_MAX);
        let mut wanted: Vec<(EntryKey, usize)> = Vec::new();
        let column = [0x5a; COLUMN_MAX];
        for (i, &len) in lengths.iter().enumerate() {
            let i = u32::try_from(i).unwrap();
            let key = match wanted.last() {
                Some((last, _)) if i % 5 == 4 => key(last.metric_sym, last.ref_id, last.part + 1),
                _ => key(i / 7, 1_000 * (i % 7) + 5, 0),
            };
            let key = wanted.last().map_or(key, |(last, _)| key.max(*last));
            let entry = Entry {
                key,
                times: i,
                span: (i % 3 == 0).then_some(Span { first: i, count: 9 }),
                column: &column[..len],
            };
            if !builder.push(&entry) {
                break;
            }
            wanted.push((key, len));
        }
        (builder.finish(Some(key(u32::MAX, u32::MAX, 7))), wanted)
    }

    #[test]
    fn entries_come_back_in_order_with_their_parts() {
        let (bytes, wanted) = build(&[10, 0, 300, 5, 5, 5, 5, 5, 5, 5, 5, 5]);
        let page = Page::open(&bytes).unwrap();
        assert_eq!((page.window_start_s, page.generation), (1_700_000_000, 3));
        assert_eq!(page.next, Some(key(u32::MAX, u32::MAX, 7)));
        let found: Vec<_> = page
            .entries()
            .map(|entry| entry.map(|e| (e.key, e.column.len())).unwrap())
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn an_entry_is_found_from_the_marks_as_from_the_start() {
        let (bytes, wanted) = build(&[40; 300]);
        let page = Page::open(&bytes).unwrap();
        let marks = page.marks();
        assert!(marks.0.len() >= 15);
        for (key, _) in &wanted {
            for series in [
                (key.metric_sym, key.ref_id),
                (key.metric_sym, key.ref_id + 1),
            ] {
                let mut entries = page.entries();
                page.jump(&mut entries, &marks, series);
                assert_eq!(entries.seek(series), page.entries().seek(series));
            }
        }
    }

    #[test]
    fn a_page_never_exceeds_its_size_and_is_filled_well() {
        let (bytes, wanted) = build(&[97; 1_000]);
        assert!(bytes.len() <= PAGE_MAX && bytes.len() > PAGE_MAX - 200);
        assert!(wanted.len() > 150);
        let (bytes, wanted) = build(&[COLUMN_MAX]);
        assert!(bytes.len() <= PAGE_MAX && wanted.len() == 1);
    }

    #[test]
    fn every_single_bit_flip_is_detected() {
        let (bytes, _) = build(&[10, 0, 30, 500]);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Page::open(&flipped).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_cut_page_is_detected() {
        let (bytes, _) = build(&[10, 20]);
        for len in 0..bytes.len() {
            assert!(Page::open(&bytes[..len]).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_behind_a_right_checksum_never_panic(
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = vec![VERSION];
            bytes.extend(body);
            bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
            if let Ok(page) = Page::open(&bytes) {
                for entry in page.entries() {
                    let _ = entry;
                }
            }
        }
    }
}
