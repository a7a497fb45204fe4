//! Reading all there is in a file, to see whether it is as it was written.

use redb::ReadTransaction;
use xxhash_rust::xxh3::Xxh3;

use super::super::Malformed;
use super::super::column;
use super::super::file::{Error, Generation, SealedFile, Trouble, place};
use super::super::page::{EntryKey, Page};
use super::super::tables::{self, PAGE, TIMES, WINDOW, WindowRow};
use super::times::{Decoded, Times};
use super::{at_page, missing, open_page, span_of};

impl SealedFile {
    /// Walks every page of every visible generation, checks what there is to
    /// check and decodes every column. Reads the whole file.
    ///
    /// # Errors
    /// The first thing that is not as it was written.
    pub fn verify(&self) -> Result<(), Error> {
        let generations = self.generations();
        let read = self.begin_read_here()?;
        generations
            .iter()
            .try_for_each(|generation| verify_generation(&read, generation))
            .map_err(|trouble| self.trouble("read", trouble))?;
        self.series().map(drop)
    }
}

fn verify_generation(read: &ReadTransaction, generation: &Generation) -> Result<(), Trouble> {
    let (window, number) = (generation.window_start_s, generation.generation);
    let name = place(window, number);
    let rows = read.open_table(WINDOW)?;
    let Some(row) = rows.get((window, number))? else {
        return Err(Trouble::Damaged(format!("{name} is missing")));
    };
    let row = WindowRow::decode(row.value(), window, number).map_err(Trouble::at(&name))?;
    let pages = read.open_table(PAGE)?;
    let table = read.open_table(TIMES)?;
    let mut decoded = Decoded::default();
    let mut times = Times::new(&table, generation, &mut decoded);
    let mut found = Found::default();
    let mut expected = row.first;
    let range = (window, number, 0, 0, 0)..=(window, number, u32::MAX, u32::MAX, u16::MAX);
    for page in pages.range(range)? {
        let (key, bytes) = page?;
        let key = tables::entry_key(key.value());
        if expected != Some(key) {
            return Err(missing(expected.unwrap_or(key), generation));
        }
        let page = open_page(bytes.value(), key, generation)?;
        expected = page.next;
        found.add(&page, key, generation, &mut times)?;
    }
    if let Some(key) = expected {
        return Err(missing(key, generation));
    }
    let (columns, times_hash) = verify_times(read, generation)?;
    let same = found.pages == row.pages
        && found.samples == row.samples
        && found.hash.digest() == row.pages_hash
        && columns == row.times
        && times_hash == row.times_hash;
    if same {
        Ok(())
    } else {
        Err(Trouble::Damaged(format!(
            "{name} has other counts or hashes"
        )))
    }
}

#[derive(Default)]
struct Found {
    pages: u64,
    samples: u64,
    hash: Xxh3,
    values: Vec<f64>,
}

impl Found {
    fn add(
        &mut self,
        page: &Page<'_>,
        key: EntryKey,
        generation: &Generation,
        times: &mut Times<'_>,
    ) -> Result<(), Trouble> {
        self.pages += 1;
        self.hash.update(&page.hash.to_le_bytes());
        for entry in page.entries() {
            let entry = entry.map_err(at_page(key, generation))?;
            let whole = times.get(entry.times)?;
            let times = span_of(&entry, whole).map_err(at_page(key, generation))?;
            self.values.clear();
            column::decode(entry.column, times.len(), &mut self.values)
                .map_err(at_page(key, generation))?;
            self.samples += times.len() as u64;
        }
        Ok(())
    }
}

fn verify_times(read: &ReadTransaction, generation: &Generation) -> Result<(u64, u64), Trouble> {
    let (window, number) = (generation.window_start_s, generation.generation);
    let (mut columns, mut hash) = (0, Xxh3::new());
    let table = read.open_table(TIMES)?;
    for row in table.range((window, number, 0)..=(window, number, u32::MAX))? {
        let (key, row) = row?;
        let (id, row) = (key.value().2, row.value());
        columns += if generation.packed {
            verify_pack(row, (window, number, id))
        } else {
            tables::decode_times(row, (window, number, id), &mut Vec::new()).map(|()| 1)
        }
        .map_err(Trouble::at(place(window, number)))?;
        hash.update(&tables::hash_of(row));
    }
    Ok((columns, hash.digest()))
}

/// How many columns a pack has, all of which can be decoded.
pub(in super::super) fn verify_pack(
    row: &[u8],
    (window, number, first): (u32, u16, u32),
) -> Result<u64, Malformed> {
    let columns = tables::open_pack(row, window, number, first)?;
    let count = columns.len() as u64;
    for column in columns {
        tables::decode_packed(&row[column], &mut Vec::new())?;
    }
    Ok(count)
}
