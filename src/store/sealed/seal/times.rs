//! The timestamp columns of a generation, of which many series share one.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use super::super::page::Span;
use super::super::tables::{self, TimesPack};
use super::Batch;

/// Where the times of an entry stand.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) id: u32,
    /// The whole column when `None`.
    pub(super) span: Option<Span>,
}

impl Place {
    /// The place of `count` of these times from `first` on.
    pub(super) fn part(self, first: usize, count: usize) -> Place {
        let to_u32 = |n: usize| u32::try_from(n).expect("an entry is short");
        Place {
            id: self.id,
            span: Some(Span {
                first: self.span.map_or(0, |span| span.first) + to_u32(first),
                count: to_u32(count),
            }),
        }
    }
}

/// The timestamp columns of this generation: equal ones are written once.
pub(super) struct TimesTable {
    /// The number of the next column.
    pub(super) next: u32,
    pack: Option<TimesPack>,
    /// Columns by their hash, with a seed that nobody knows: 128 bits do not
    /// collide by chance, and cannot be made to on purpose.
    by_hash: HashMap<u128, u32, ahash::RandomState>,
    seed: u64,
    /// The last column of each group, for series that have a part of it. Bounded.
    recent: HashMap<u32, (u32, Box<[i64]>), ahash::RandomState>,
    recent_times: usize,
    /// Over the checksums of the rows.
    pub(super) hash: Xxh3,
    bytes: Vec<u8>,
}

/// At most this many times are kept for finding parts: 2 MiB.
const RECENT_TIMES_MAX: usize = 1 << 18;

impl TimesTable {
    pub(super) fn new(packed: bool) -> TimesTable {
        TimesTable {
            next: 0,
            pack: packed.then(TimesPack::default),
            by_hash: HashMap::default(),
            seed: RandomState::new().hash_one(0),
            recent: HashMap::default(),
            recent_times: 0,
            hash: Xxh3::new(),
            bytes: Vec::new(),
        }
    }

    /// Finds the column with these times, or a column of the group of which they
    /// are a part, or makes a new one.
    pub(super) fn place(
        &mut self,
        group: u32,
        times: &[i64],
        (window, generation): (u32, u16),
        batch: &mut Batch,
    ) -> Place {
        self.bytes.clear();
        self.bytes
            .extend(times.iter().flat_map(|time| time.to_le_bytes()));
        let hash = xxh3_128_with_seed(&self.bytes, self.seed);
        if let Some(&id) = self.by_hash.get(&hash) {
            return Place { id, span: None };
        }
        if let Some(place) = self.part_of_recent(group, times) {
            return place;
        }
        let id = self.next;
        self.next += 1;
        self.by_hash.insert(hash, id);
        self.remember(group, id, times);
        let row = match &mut self.pack {
            Some(pack) => pack.push(id, times, (window, generation)),
            None => Some((id, tables::encode_times(times, window, generation, id))),
        };
        if let Some(row) = row {
            self.add_row(row, (window, generation), batch);
        }
        Place { id, span: None }
    }

    fn add_row(
        &mut self,
        (id, row): (u32, Vec<u8>),
        (window, generation): (u32, u16),
        batch: &mut Batch,
    ) {
        self.hash.update(&tables::hash_of(&row));
        batch.page_bytes += row.len();
        batch.times.push(((window, generation, id), row));
    }

    /// Adds the last pack.
    pub(super) fn finish(&mut self, generation: (u32, u16), batch: &mut Batch) {
        if let Some(row) = self.pack.as_mut().and_then(|pack| pack.finish(generation)) {
            self.add_row(row, generation, batch);
        }
    }

    fn part_of_recent(&self, group: u32, times: &[i64]) -> Option<Place> {
        let (id, whole) = self.recent.get(&group)?;
        let first = whole.binary_search(&times[0]).ok()?;
        if whole.get(first..first + times.len())? != times {
            return None;
        }
        let whole = Place {
            id: *id,
            span: None,
        };
        Some(whole.part(first, times.len()))
    }

    fn remember(&mut self, group: u32, id: u32, times: &[i64]) {
        if self.recent_times + times.len() > RECENT_TIMES_MAX {
            self.recent.clear();
            self.recent_times = 0;
        }
        match self.recent.get(&group) {
            Some((_, longer)) if longer.len() >= times.len() => {}
            _ => {
                self.recent_times += times.len();
                self.recent.insert(group, (id, times.into()));
            }
        }
    }
}
