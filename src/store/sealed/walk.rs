//! Walking every row of a file: what `pulse verify` reads.
//!
//! Each row's checksum is looked at on its own, so that one bad page does not hide
//! the next. When all of them are right, what they must come to together (counts,
//! the chain of pages, every column) is checked as well.

use redb::{ReadTransaction, ReadableTable as _};

use super::file::{Error, SealedFile, Trouble, place};
use super::page::Page;
use super::read::{page_place, verify_pack};
use super::tables::{self, PAGE, SERIES, STAT, SYM, TIMES, WINDOW, WindowRow};

/// One row whose bytes are not those that were written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadRow {
    /// Which one, and what is wrong.
    pub what: String,
    /// Its bytes as they are, to find it in the file.
    pub bytes: Vec<u8>,
}

impl SealedFile {
    /// Looks at every row of the file, and then at what they come to together. Gives
    /// the number of rows; calls `bad` for each that is wrong. Reads the whole file;
    /// memory is that of one page and the list of generations.
    ///
    /// # Errors
    /// When the file cannot be read on, or the rows do not belong together.
    pub fn walk(&self, bad: &mut dyn FnMut(BadRow)) -> Result<u64, Error> {
        let mut count = 0;
        let mut faults = 0;
        let mut report = |row: BadRow| {
            faults += 1;
            bad(row);
        };
        let read = self.begin_read_here()?;
        let packed = self.generations().iter().any(|g| g.packed);
        walk_rows(&read, packed, &mut count, &mut report).map_err(|t| self.trouble("read", t))?;
        drop(read);
        if faults == 0 {
            self.verify()?;
        }
        Ok(count)
    }
}

fn walk_rows(
    read: &ReadTransaction,
    packed: bool,
    count: &mut u64,
    bad: &mut dyn FnMut(BadRow),
) -> Result<(), Trouble> {
    let mut note = |place: String, found: Result<(), super::Malformed>, bytes: &[u8]| {
        *count += 1;
        if let Err(err) = found {
            bad(BadRow {
                what: format!("{place}: {err}"),
                bytes: bytes.to_vec(),
            });
        }
    };
    for row in read.open_table(PAGE)?.iter()? {
        let (key, row) = row?;
        let key = key.value();
        let found = Page::open(row.value()).map(drop);
        let place = page_place(key.0, key.1, tables::entry_key(key));
        note(place, found, row.value());
    }
    for row in read.open_table(TIMES)?.iter()? {
        let (key, row) = row?;
        let (window, generation, id) = key.value();
        let found = if packed {
            verify_pack(row.value(), (window, generation, id)).map(drop)
        } else {
            tables::decode_times(row.value(), (window, generation, id), &mut Vec::new())
        };
        let place = place(window, generation);
        note(format!("{place}, times {id}"), found, row.value());
    }
    for row in read.open_table(WINDOW)?.iter()? {
        let (key, row) = row?;
        let (window, generation) = key.value();
        let found = WindowRow::decode(row.value(), window, generation).map(drop);
        note(place(window, generation), found, row.value());
    }
    for row in read.open_table(SERIES)?.iter()? {
        let (key, row) = row?;
        let found = tables::decode_series(row.value(), key.value()).map(drop);
        note(format!("series {}", key.value()), found, row.value());
    }
    for row in read.open_table(SYM)?.iter()? {
        let (key, row) = row?;
        let found = tables::decode_symbol(row.value(), key.value()).map(drop);
        note(format!("symbol {}", key.value()), found, row.value());
    }
    for row in read.open_table(STAT)?.iter()? {
        let (key, row) = row?;
        let found = tables::open_row(row.value(), tables::stat_seed(key.value())).map(drop);
        note(format!("row {:?}", key.value()), found, row.value());
    }
    Ok(())
}

#[cfg(test)]
impl SealedFile {
    /// The pages as they are stored.
    pub(crate) fn pages(&self) -> Vec<Vec<u8>> {
        let read = self.begin_read().unwrap();
        let rows = read.open_table(PAGE).unwrap();
        let rows = rows.iter().unwrap();
        rows.map(|row| row.unwrap().1.value().to_vec()).collect()
    }
}
