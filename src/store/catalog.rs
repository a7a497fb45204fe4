//! Rows of the catalog: what `hot.redb` says of a series.
//!
//! ```text
//! row = tenant | group (0: none yet) | first seen (s) | name and value symbols.. | hash u32
//! ```
//!
//! Numbers are varints, the hash is little-endian. It is taken over the series'
//! number, the row and every text that the row's symbols stand for. So it finds a
//! wrong bit in the row, in its key, and in the key and value of each symbol, which
//! need no hash of their own: a series has its own labels, or none at all. Four bytes
//! are enough, as only rows that were damaged have a chance, of one in four billion,
//! to pass.
//!
//! Rows of version 1 of the file have no hash; they get one when the file is opened
//! ([`upgrade`]).

use std::collections::HashMap;

use ahash::RandomState;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable as _, WriteTransaction};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::tables::{SERIES, SYMBOLS};
use super::varint::{self, Reader};

const HASH_LEN: usize = 4;

/// Texts that are kept while rows are walked: most are those of few names.
const TEXTS_MAX: usize = 100_000;

/// Makes a row; `pairs` are the symbols of these labels.
pub(super) fn encode<'a>(
    series: u32,
    (tenant, first_seen_s): (u32, u64),
    pairs: &[u8],
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<u8> {
    let mut row = Vec::with_capacity(16 + pairs.len() + HASH_LEN);
    varint::put(&mut row, u64::from(tenant));
    varint::put(&mut row, 0);
    varint::put(&mut row, first_seen_s);
    row.extend_from_slice(pairs);
    let hash = hash(series, &row, labels);
    row.extend_from_slice(&hash);
    row
}

fn hash<'a>(
    series: u32,
    content: &[u8],
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> [u8; HASH_LEN] {
    let mut hash = xxh3_64_with_seed(content, series.into());
    for (name, value) in labels {
        hash = xxh3_64_with_seed(name.as_bytes(), hash);
        hash = xxh3_64_with_seed(value.as_bytes(), hash);
    }
    let [a, b, c, d, ..] = hash.to_le_bytes();
    [a, b, c, d]
}

/// The symbols in a row; `None` when it is malformed.
pub(super) fn pairs(row: &[u8]) -> Option<&[u8]> {
    pairs_of(row.split_last_chunk::<HASH_LEN>()?.0)
}

fn pairs_of(content: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(content);
    for _ in 0..3 {
        reader.number()?;
    }
    let mut rest = reader.clone();
    while !rest.is_empty() {
        rest.number32()?;
        rest.number32()?;
    }
    Some(reader.0)
}

/// Whether a row and the labels that its symbols stand for are those of the series.
pub(super) fn is_right<'a>(
    series: u32,
    row: &[u8],
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> bool {
    let split = row.split_last_chunk::<HASH_LEN>();
    split.is_some_and(|(content, stored)| *stored == hash(series, content, labels))
}

/// When the series of a row was made, in seconds since the epoch; `None` when the row
/// is malformed.
pub(super) fn first_seen_s(row: &[u8]) -> Option<u64> {
    let mut reader = Reader(row);
    reader.number()?;
    reader.number()?;
    reader.number()
}

/// Looks texts up in the file, for who has no index.
pub(super) struct Texts {
    table: ReadOnlyTable<u32, &'static str>,
    kept: HashMap<u32, Box<str>, RandomState>,
}

impl Texts {
    /// Those of a snapshot.
    pub(super) fn of(read: &ReadTransaction) -> Result<Texts, redb::Error> {
        Ok(Texts {
            table: read.open_table(SYMBOLS)?,
            kept: HashMap::default(),
        })
    }

    /// The labels of these symbols; `None` when one of them has no text.
    fn labels(&mut self, pairs: &[u8]) -> Result<Option<Vec<(&str, &str)>>, redb::Error> {
        let mut reader = Reader(pairs);
        let mut symbols = Vec::with_capacity(24);
        while let Some(symbol) = reader.number32() {
            symbols.push(symbol);
        }
        if self.kept.len() > TEXTS_MAX {
            self.kept.clear();
        }
        for symbol in &symbols {
            if self.kept.contains_key(symbol) {
                continue;
            }
            let Some(text) = self.table.get(symbol)? else {
                return Ok(None);
            };
            self.kept.insert(*symbol, text.value().into());
        }
        let texts = symbols.chunks_exact(2);
        let labels = texts.map(|pair| (&*self.kept[&pair[0]], &*self.kept[&pair[1]]));
        Ok(Some(labels.collect()))
    }

    /// Whether a row is as it was written, and its texts are.
    pub(super) fn are_right(&mut self, series: u32, row: &[u8]) -> Result<bool, redb::Error> {
        let Some(pairs) = pairs(row) else {
            return Ok(false);
        };
        let labels = self.labels(pairs)?;
        Ok(labels.is_some_and(|labels| is_right(series, row, labels)))
    }
}

/// Gives the rows of version 1 their hashes. A row that cannot be read stays as it is,
/// and is found to be damaged later.
pub(super) fn upgrade(read: &ReadTransaction, txn: &WriteTransaction) -> Result<(), redb::Error> {
    let mut texts = Texts::of(read)?;
    let mut table = txn.open_table(SERIES)?;
    for row in read.open_table(SERIES)?.iter()? {
        let (id, row) = row?;
        let (id, mut row) = (id.value(), row.value().to_vec());
        let Some(pairs) = pairs_of(&row) else {
            continue;
        };
        if let Some(labels) = texts.labels(pairs)? {
            let hash = hash(id, &row, labels);
            row.extend_from_slice(&hash);
            table.insert(id, row.as_slice())?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use redb::ReadableDatabase as _;

    /// Gives every row the hash that goes with what is there, right or wrong.
    pub(in crate::store) fn rehash(db: &redb::Database) {
        let txn = db.begin_write().unwrap();
        let mut table = txn.open_table(SERIES).unwrap();
        let read = db.begin_read().unwrap();
        for row in read.open_table(SERIES).unwrap().iter().unwrap() {
            let (id, row) = row.unwrap();
            let content = &row.value()[..row.value().len() - HASH_LEN];
            table.insert(id.value(), content).unwrap();
        }
        drop(table);
        txn.commit().unwrap();
        let txn = db.begin_write().unwrap();
        upgrade(&db.begin_read().unwrap(), &txn).unwrap();
        txn.commit().unwrap();
    }

    #[test]
    fn every_flipped_bit_of_a_row_its_key_and_its_texts_is_seen() {
        let labels = [("__name__", "temp"), ("device_id", "d1")];
        let symbols = [1, 2, 3, 200, 1];
        let row = encode(7, (4, 1_700_000_000), &symbols, labels);
        assert_eq!(pairs(&row), Some(&symbols[..]));
        assert_eq!(first_seen_s(&row), Some(1_700_000_000));
        assert!(is_right(7, &row, labels));
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_right(7, &flipped, labels), "bit {bit}");
        }
        for bit in 0..32 {
            assert!(
                !is_right(7 ^ (1 << bit), &row, labels),
                "bit {bit} of the key"
            );
        }
        for other in [
            [("__name__", "temq"), ("device_id", "d1")],
            [("__name__", "temp"), ("device_id", "d3")],
            [("__name__", "tempd"), ("evice_id", "d1")],
        ] {
            assert!(!is_right(7, &row, other), "{other:?}");
        }
        assert!(!is_right(7, b"abc", []));
    }

    #[test]
    fn what_is_no_row_has_no_pairs() {
        let row = encode(7, (4, 9), &[1, 2], []);
        for len in 0..7 {
            assert_eq!(pairs(&row[..len]), None, "{len} bytes");
        }
        assert_eq!(first_seen_s(&[1, 2]), None);
    }
}
