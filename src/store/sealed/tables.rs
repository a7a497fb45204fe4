//! The tables of a sealed file: names, keys and the rows besides pages.
//!
//! | table | key | row |
//! |---|---|---|
//! | `page` | window u32, generation u16, metric symbol u32, ref u32, part u16 | [`super::page`] |
//! | `ts` | window u32, generation u16, id u32 | `times varint`, [`super::times`]; from format 3 on a pack |
//! | `window` | window u32, generation u16 | [`WindowRow`] |
//! | `series` | ref u32 | `metric symbol varint, (name, value) symbol varints` sorted by name |
//! | `sym` | number u32 | the text |
//! | `stat` | `store` | the number of the store that wrote the file; none in older files |
//! | `stat` | `format` | [`FORMAT_HOURS`], [`FORMAT_DAY`] or [`FORMAT_ROLL`] |
//! | | `open` | the generation being written |
//! | | `totals` | how many generations are complete |
//! | | `rewritten` | of a day's file and of roll-ups: which transactions of which hours are in it |
//!
//! redb checks no checksum when it reads, so every row ends in its own xxh3-64,
//! seeded with the row's key: a row under a wrong key is as wrong as a wrong bit.
//! (Pages carry their key inside.) The symbol numbers in `sym` and `series` are
//! the file's own; metric symbols and refs are the catalog's, whose order is the
//! order of the pages.
//!
//! A pack is `count varint, length varint for each, columns`: timestamp columns with
//! the ids from that of its key on. Those of whole days have one or two kilobytes:
//! alone they would leave a fifth of redb's 4 KiB leaves empty.
//!
//! Two keys differ from the first design: `page` has the part, because a split
//! column would otherwise need two pages of one key, and `ts` has the generation
//! and a number of its own instead of the group, because the late samples of a
//! group have other times than those sealed before.

use std::ops::Range;

use redb::TableDefinition;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Malformed;
use super::file::Covered;
use super::page::{EntryKey, LONG_PAGE_MAX};
use super::varint::{Reader, put_i64, put_u64};
use crate::store::CommitSeq;

/// The version of a file of hours.
pub(super) const FORMAT_HOURS: u64 = 1;

/// The first version with packs of times.
pub(super) const FORMAT_PACKED: u64 = 3;

/// The version of a day's file: as the third, with columns in a prefix code (tag 5).
///
/// The second was as the first, with columns of many pages (tags 22 and 23), values
/// of up to 64 KiB and the row `rewritten`; the third has packs of times. A day with one
/// of them is read as it is, and has this version after its next rewrite.
pub(super) const FORMAT_DAY: u64 = 5;

/// The version of a file of roll-ups: as that of a day's file, where the part of an
/// entry says which track it is. The fourth was the same without the prefix code.
pub(super) const FORMAT_ROLL: u64 = 6;

/// The newest version that is known.
pub(super) const FORMAT_MAX: u64 = FORMAT_ROLL;

pub(super) type PageKey = (u32, u16, u32, u32, u16);

pub(super) const PAGE: TableDefinition<PageKey, &[u8]> = TableDefinition::new("page");
pub(super) const TIMES: TableDefinition<(u32, u16, u32), &[u8]> = TableDefinition::new("ts");
pub(super) const WINDOW: TableDefinition<(u32, u16), &[u8]> = TableDefinition::new("window");
pub(super) const SERIES: TableDefinition<u32, &[u8]> = TableDefinition::new("series");
pub(super) const SYM: TableDefinition<u32, &[u8]> = TableDefinition::new("sym");
pub(super) const STAT: TableDefinition<&str, &[u8]> = TableDefinition::new("stat");

/// Changes a byte of the first window row. For tests of damage.
#[cfg(test)]
pub(crate) fn flip_window(txn: &redb::WriteTransaction) {
    use redb::ReadableTable as _;
    let mut table = txn.open_table(WINDOW).unwrap();
    let (key, mut row) = {
        let (key, row) = table.first().unwrap().unwrap();
        (key.value(), row.value().to_vec())
    };
    row[3] ^= 1;
    table.insert(key, row.as_slice()).unwrap();
}

/// Changes a byte of the first row of figures. For tests of damage.
#[cfg(test)]
pub(crate) fn flip_stat(txn: &redb::WriteTransaction) {
    use redb::ReadableTable as _;
    let mut table = txn.open_table(STAT).unwrap();
    let (key, mut row) = {
        let (key, row) = table.first().unwrap().unwrap();
        (key.value().to_owned(), row.value().to_vec())
    };
    row[0] ^= 1;
    table.insert(key.as_str(), row.as_slice()).unwrap();
}

pub(super) const STAT_FORMAT: &str = "format";
pub(super) const STAT_OPEN: &str = "open";
pub(super) const STAT_STORE: &str = "store";
pub(super) const STAT_TOTALS: &str = "totals";
pub(super) const STAT_REWRITTEN: &str = "rewritten";

/// The key of the page that starts with this entry.
pub(super) fn page_key(window: u32, generation: u16, entry: EntryKey) -> PageKey {
    (
        window,
        generation,
        entry.metric_sym,
        entry.ref_id,
        entry.part,
    )
}

/// The entry with which the page of that key starts.
pub(super) fn entry_key((_, _, metric_sym, ref_id, part): PageKey) -> EntryKey {
    EntryKey {
        metric_sym,
        ref_id,
        part,
    }
}

/// The seed of a row's checksum: its table and its key.
pub(super) fn seed(table: &str, key: [u64; 3]) -> u64 {
    let mut bytes = [0u8; 24];
    for (chunk, number) in bytes.chunks_exact_mut(8).zip(key) {
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    xxh3_64_with_seed(&bytes, xxh3_64_with_seed(table.as_bytes(), 0))
}

/// The seed of a row of `stat`.
pub(super) fn stat_seed(name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed("stat", [0; 3]))
}

/// Appends the checksum.
pub(super) fn close_row(mut row: Vec<u8>, seed: u64) -> Vec<u8> {
    let hash = xxh3_64_with_seed(&row, seed);
    row.extend_from_slice(&hash.to_le_bytes());
    row
}

/// The row without its checksum, which was right.
pub(super) fn open_row(row: &[u8], seed: u64) -> Result<&[u8], Malformed> {
    let (content, hash) = row
        .split_last_chunk::<8>()
        .ok_or(Malformed("row too short"))?;
    if xxh3_64_with_seed(content, seed) == u64::from_le_bytes(*hash) {
        Ok(content)
    } else {
        Err(Malformed("wrong checksum"))
    }
}

/// What says that a generation is complete; written in its last transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WindowRow {
    pub(super) pages: u64,
    pub(super) samples: u64,
    pub(super) seq_min: u64,
    pub(super) seq_max: u64,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    /// The key of the first page; `None` when the generation has none.
    pub(super) first: Option<EntryKey>,
    /// How many timestamp columns there are.
    pub(super) times: u64,
    /// Over the hashes of the pages, in order.
    pub(super) pages_hash: u64,
    /// Over the hashes of the timestamp columns, in order.
    pub(super) times_hash: u64,
}

fn window_seed(window: u32, generation: u16) -> u64 {
    seed("window", [window.into(), generation.into(), 0])
}

impl WindowRow {
    pub(super) fn encode(&self, window: u32, generation: u16) -> Vec<u8> {
        let mut row = Vec::new();
        for number in [self.pages, self.samples, self.seq_min, self.seq_max] {
            put_u64(number, &mut row);
        }
        put_i64(self.min_time, &mut row);
        put_i64(self.max_time, &mut row);
        row.push(u8::from(self.first.is_some()));
        if let Some(first) = self.first {
            put_u64(first.metric_sym.into(), &mut row);
            put_u64(first.ref_id.into(), &mut row);
            put_u64(first.part.into(), &mut row);
        }
        put_u64(self.times, &mut row);
        row.extend_from_slice(&self.pages_hash.to_le_bytes());
        row.extend_from_slice(&self.times_hash.to_le_bytes());
        close_row(row, window_seed(window, generation))
    }

    pub(super) fn decode(row: &[u8], window: u32, generation: u16) -> Result<WindowRow, Malformed> {
        let mut reader = Reader::new(open_row(row, window_seed(window, generation))?);
        Ok(WindowRow {
            pages: reader.u64()?,
            samples: reader.u64()?,
            seq_min: reader.u64()?,
            seq_max: reader.u64()?,
            min_time: reader.i64()?,
            max_time: reader.i64()?,
            first: match reader.byte()? {
                0 => None,
                _ => Some(EntryKey {
                    metric_sym: reader.u32()?,
                    ref_id: reader.u32()?,
                    part: reader.u16()?,
                }),
            },
            times: reader.u64()?,
            pages_hash: u64::from_le_bytes(reader.array()?),
            times_hash: u64::from_le_bytes(reader.array()?),
        })
    }
}

fn times_seed(window: u32, generation: u16, id: u32) -> u64 {
    seed("ts", [window.into(), generation.into(), id.into()])
}

/// A row of `ts`: a timestamp column behind its count.
pub(super) fn encode_times(times: &[i64], window: u32, generation: u16, id: u32) -> Vec<u8> {
    let mut row = Vec::new();
    put_u64(times.len() as u64, &mut row);
    super::times::encode(times, &mut row);
    close_row(row, times_seed(window, generation, id))
}

/// Appends the times of a row of `ts` to `out`.
pub(super) fn decode_times(
    row: &[u8],
    (window, generation, id): (u32, u16, u32),
    out: &mut Vec<i64>,
) -> Result<(), Malformed> {
    decode_packed(open_times(row, (window, generation, id))?, out)
}

/// The timestamp column of a row that has one.
pub(super) fn open_times(
    row: &[u8],
    (window, generation, id): (u32, u16, u32),
) -> Result<&[u8], Malformed> {
    open_row(row, times_seed(window, generation, id))
}

/// The most bytes of a pack with more than one column. As a page's: in 16 KiB, a
/// column of a kilobyte that did not fit any more left a twelfth empty.
pub(super) const PACK_MAX: usize = LONG_PAGE_MAX;

/// Timestamp columns with ids in a row, in the making.
#[derive(Default)]
pub(super) struct TimesPack {
    first: u32,
    lengths: Vec<usize>,
    columns: Vec<u8>,
}

impl TimesPack {
    /// Adds the column with the next id. Gives the row of the columns before it,
    /// and its id, when it does not fit any more.
    pub(super) fn push(
        &mut self,
        id: u32,
        times: &[i64],
        (window, generation): (u32, u16),
    ) -> Option<(u32, Vec<u8>)> {
        let mut column = Vec::new();
        put_u64(times.len() as u64, &mut column);
        super::times::encode_of_day(times, &mut column);
        // Three bytes are enough for each length, and for the count.
        let head = 3 * (self.lengths.len() + 2) + 8;
        let full = head + self.columns.len() + column.len() > PACK_MAX;
        let done = full.then(|| self.finish((window, generation))).flatten();
        if self.lengths.is_empty() {
            self.first = id;
        }
        self.lengths.push(column.len());
        self.columns.extend_from_slice(&column);
        done
    }

    /// The row of what there is, and its id.
    pub(super) fn finish(&mut self, (window, generation): (u32, u16)) -> Option<(u32, Vec<u8>)> {
        if self.lengths.is_empty() {
            return None;
        }
        let mut row = Vec::with_capacity(self.columns.len() + 64);
        put_u64(self.lengths.len() as u64, &mut row);
        for length in self.lengths.drain(..) {
            put_u64(length as u64, &mut row);
        }
        row.append(&mut self.columns);
        let row = close_row(row, times_seed(window, generation, self.first));
        Some((self.first, row))
    }
}

/// Where in the row the columns of a pack stand, whose checksum is right.
pub(super) fn open_pack(
    row: &[u8],
    window: u32,
    generation: u16,
    first: u32,
) -> Result<Vec<Range<usize>>, Malformed> {
    let content = open_row(row, times_seed(window, generation, first))?;
    let mut reader = Reader::new(content);
    let count = reader.usize()?;
    if count > row.len() {
        return Err(Malformed("more columns than bytes"));
    }
    let lengths = (0..count)
        .map(|_| reader.usize())
        .collect::<Result<Vec<_>, _>>()?;
    let mut at = content.len() - reader.rest().len();
    let mut column = |len: usize| {
        let end = at.checked_add(len).filter(|end| *end <= content.len());
        let start = std::mem::replace(&mut at, end.ok_or(Malformed("column cut short"))?);
        Ok(start..at)
    };
    lengths.into_iter().map(&mut column).collect()
}

/// Appends the times of a column of a pack to `out`.
pub(super) fn decode_packed(column: &[u8], out: &mut Vec<i64>) -> Result<(), Malformed> {
    let mut reader = Reader::new(column);
    let n = reader.usize()?;
    super::times::decode(reader.rest(), n, out)
}

/// What a column of times begins with.
#[derive(Clone, Copy, Default)]
pub(super) struct Head {
    /// How many times it has.
    pub(super) count: usize,
    /// The first of them.
    pub(super) first: i64,
}

/// What a column of a pack begins with.
pub(super) fn head_of_packed(column: &[u8]) -> Result<Head, Malformed> {
    let mut reader = Reader::new(column);
    Ok(Head {
        count: reader.usize()?,
        first: super::times::first(reader.rest())?,
    })
}

/// The checksum with which a row or a page ends.
pub(super) fn hash_of(row: &[u8]) -> [u8; 8] {
    *row.last_chunk().expect("every row ends in its checksum")
}

/// A row of `series`.
pub(super) fn encode_series(ref_id: u32, metric_sym: u32, symbols: &[u32]) -> Vec<u8> {
    let mut row = Vec::new();
    put_u64(metric_sym.into(), &mut row);
    for symbol in symbols {
        put_u64((*symbol).into(), &mut row);
    }
    close_row(row, seed("series", [ref_id.into(), 0, 0]))
}

/// The metric symbol and the symbols of names and values in turn.
pub(super) fn decode_series(row: &[u8], ref_id: u32) -> Result<(u32, Vec<u32>), Malformed> {
    let mut reader = Reader::new(open_row(row, seed("series", [ref_id.into(), 0, 0]))?);
    let metric_sym = reader.u32()?;
    let mut symbols = Vec::new();
    while !reader.rest().is_empty() {
        symbols.push(reader.u32()?);
    }
    if symbols.len() % 2 == 0 {
        Ok((metric_sym, symbols))
    } else {
        Err(Malformed("a label without value"))
    }
}

/// A row of `sym`.
pub(super) fn encode_symbol(number: u32, text: &str) -> Vec<u8> {
    let row = text.as_bytes().to_vec();
    close_row(row, seed("sym", [number.into(), 0, 0]))
}

/// The text of a row of `sym`.
pub(super) fn decode_symbol(row: &[u8], number: u32) -> Result<&str, Malformed> {
    let text = open_row(row, seed("sym", [number.into(), 0, 0]))?;
    std::str::from_utf8(text).map_err(|_| Malformed("text is not UTF-8"))
}

/// A row of `stat`: some numbers.
pub(super) fn encode_stat(name: &str, numbers: &[u64]) -> Vec<u8> {
    let mut row = Vec::new();
    for number in numbers {
        put_u64(*number, &mut row);
    }
    close_row(row, stat_seed(name))
}

/// The numbers of a row of `stat`.
pub(super) fn decode_stat<const N: usize>(name: &str, row: &[u8]) -> Result<[u64; N], Malformed> {
    let mut reader = Reader::new(open_row(row, stat_seed(name))?);
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = reader.u64()?;
    }
    Ok(numbers)
}

/// The row `rewritten` of `stat`.
pub(super) fn encode_rewritten(all: &[Covered]) -> Vec<u8> {
    let mut row = Vec::new();
    put_u64(all.len() as u64, &mut row);
    for (window, seqs) in all {
        put_u64((*window).into(), &mut row);
        put_u64(seqs.start().0, &mut row);
        put_u64(seqs.end().0, &mut row);
    }
    close_row(row, stat_seed(STAT_REWRITTEN))
}

/// What the row `rewritten` says.
pub(super) fn decode_rewritten(row: &[u8]) -> Result<Vec<Covered>, Malformed> {
    let mut reader = Reader::new(open_row(row, stat_seed(STAT_REWRITTEN))?);
    let count = reader.usize()?;
    let mut all = Vec::new();
    for _ in 0..count {
        let window = reader.u32()?;
        let first = CommitSeq(reader.u64()?);
        all.push((window, first..=CommitSeq(reader.u64()?)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_only_right_under_its_own_key() {
        let row = encode_symbol(7, "up");
        assert_eq!(decode_symbol(&row, 7), Ok("up"));
        assert!(decode_symbol(&row, 8).is_err());
        let row = encode_times(&[1, 2, 3], 60, 0, 5);
        let mut times = vec![9];
        assert!(decode_times(&row, (60, 1, 5), &mut times).is_err());
        assert_eq!(decode_times(&row, (60, 0, 5), &mut times), Ok(()));
        assert_eq!(times, [9, 1, 2, 3]);
    }

    #[test]
    fn a_window_row_comes_back() {
        let row = WindowRow {
            pages: 1,
            samples: 2,
            seq_min: 3,
            seq_max: u64::MAX,
            min_time: -5,
            max_time: 6,
            first: Some(EntryKey {
                metric_sym: 1,
                ref_id: u32::MAX,
                part: 3,
            }),
            times: 7,
            pages_hash: 8,
            times_hash: u64::MAX,
        };
        let bytes = row.encode(3600, 2);
        assert_eq!(WindowRow::decode(&bytes, 3600, 2), Ok(row));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(WindowRow::decode(&flipped, 3600, 2).is_err());
        }
    }

    #[test]
    fn packed_times_come_back_by_their_ids() {
        let times = |id: u32| -> Vec<i64> {
            let jitter = |i: i64| (i * i * 7 + i64::from(id) * 13) % 300;
            (0..1_440).map(|i| i * 60_000 + jitter(i)).collect()
        };
        let mut pack = TimesPack::default();
        let mut rows: Vec<_> = (0..240)
            .filter_map(|id| pack.push(id, &times(id), (7, 1)))
            .collect();
        rows.extend(pack.finish((7, 1)));
        assert!(pack.finish((7, 1)).is_none());
        assert!(rows.len() > 2 && rows.iter().all(|(_, row)| row.len() <= PACK_MAX));
        let mut id = 0;
        for (first, row) in &rows {
            assert_eq!(*first, id);
            assert!(
                open_pack(row, 7, 0, *first).is_err(),
                "of another generation"
            );
            for column in open_pack(row, 7, 1, *first).unwrap() {
                let mut back = Vec::new();
                assert_eq!(decode_packed(&row[column], &mut back), Ok(()));
                assert_eq!(back, times(id));
                id += 1;
            }
        }
        assert_eq!(id, 240);
    }

    #[test]
    fn a_row_of_what_was_rewritten_comes_back() {
        let all = vec![
            (3_600, CommitSeq(7)..=CommitSeq(90)),
            (u32::MAX, CommitSeq(0)..=CommitSeq(u64::MAX)),
        ];
        let row = encode_rewritten(&all);
        assert_eq!(decode_rewritten(&row), Ok(all));
        assert!(decode_rewritten(&row[1..]).is_err());
    }

    #[test]
    fn a_series_row_comes_back() {
        let row = encode_series(9, 4, &[1, 2, 3, 4]);
        assert_eq!(decode_series(&row, 9), Ok((4, vec![1, 2, 3, 4])));
        assert!(decode_series(&encode_series(9, 4, &[1]), 9).is_err());
    }
}
