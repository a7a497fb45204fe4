//! All series with samples in memory, in shards with a lock each.
//!
//! Blocks of 256 neighbouring refs share a shard, so that the writer, whose rows
//! mostly come in the order of their refs, seldom changes locks. A reader holds
//! one shard for the time of decoding one series.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use roaring::RoaringBitmap;

use super::blocks::Blocks;
use super::paged::Paged;
use super::parts::Part;
use super::series::HeadSeries;
use crate::model::Sample;

const SHARDS: u32 = 64;
const SHARD_BITS: u32 = SHARDS.trailing_zeros();
const BLOCK_BITS: u32 = 8;

/// So many series are fetched from memory at once, and as far ahead.
const AHEAD: u32 = 16;
const FAR: u32 = 2 * AHEAD;

/// Series by dense numbers of their own, and their bytes.
#[derive(Debug, Default)]
pub(super) struct Shard {
    series: Paged<HeadSeries>,
    blocks: Blocks,
    /// The series before this one were fetched from memory.
    fetched: u32,
}

impl Shard {
    /// Whether the series is in memory.
    pub(super) fn contains(&self, local: u32) -> bool {
        self.series.get(local).is_some()
    }

    /// A series and where its bytes are; made by `make` when it is not in memory.
    #[inline]
    pub(super) fn get_or_insert_with(
        &mut self,
        local: u32,
        make: impl FnOnce() -> HeadSeries,
    ) -> (&mut HeadSeries, &mut Blocks) {
        self.look_ahead(local);
        let series = self.series.get_or_insert_with(local, make);
        (series, &mut self.blocks)
    }

    /// Has the processor fetch what the series behind this one need: rows mostly come
    /// in the order of their refs, and half of the time was spent on waiting for memory.
    /// Many at once, as it waits for all of them no longer than for one.
    #[inline]
    fn look_ahead(&mut self, local: u32) {
        match self.fetched.checked_sub(local) {
            Some(AHEAD..=FAR) => {}
            Some(..AHEAD) => self.fetch(local),
            // Somewhere else: perhaps the beginning of a run.
            _ => self.fetched = local + 1,
        }
    }

    /// Fetches the next series up to the end of the block.
    #[inline(never)]
    fn fetch(&mut self, local: u32) {
        let block_end = (local | ((1 << BLOCK_BITS) - 1)).saturating_add(1);
        let end = block_end.min(self.fetched + AHEAD);
        let mut seen = None;
        for next in self.fetched..end {
            let series = self.series.get(next);
            seen = seen.max(series.and_then(|series| series.last_byte(&self.blocks)));
        }
        black_box(seen);
        self.fetched = end.max(self.fetched);
    }

    /// Gives unused blocks back, if they are most of them.
    fn tidy(&mut self) {
        if !self.blocks.is_sparse() {
            return;
        }
        let mut blocks = Blocks::default();
        for page in 0..self.series.page_count() {
            for series in self.series.page_mut(page) {
                series.move_to(&self.blocks, &mut blocks);
            }
        }
        self.blocks = blocks;
    }
}

/// The head.
#[derive(Debug)]
pub(super) struct Head {
    shards: Vec<RwLock<Shard>>,
    samples: AtomicU64,
}

impl Default for Head {
    fn default() -> Head {
        Head {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            samples: AtomicU64::new(0),
        }
    }
}

/// Where a series lives: its shard and its number there.
#[inline]
pub(super) fn place_of(series: u32) -> (usize, u32) {
    let block = series >> BLOCK_BITS;
    let local = ((block >> SHARD_BITS) << BLOCK_BITS) | (series & ((1 << BLOCK_BITS) - 1));
    ((block % SHARDS) as usize, local)
}

fn series_at(shard: usize, local: u32) -> u32 {
    let shard = u32::try_from(shard).expect("there are 64 shards");
    let block = ((local >> BLOCK_BITS) << SHARD_BITS) | shard;
    (block << BLOCK_BITS) | (local & ((1 << BLOCK_BITS) - 1))
}

impl Head {
    /// A shard to change. Only the writer and the sealer do.
    pub(super) fn write(&self, shard: usize) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn read_shard(&self, shard: usize) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `with` on a series in memory.
    pub(super) fn with<R>(
        &self,
        series: u32,
        with: impl FnOnce(&HeadSeries, &Blocks) -> R,
    ) -> Option<R> {
        let (shard, local) = place_of(series);
        let shard = self.read_shard(shard);
        let series = shard.series.get(local)?;
        Some(with(series, &shard.blocks))
    }

    /// Appends the samples of a series in the closed range to `out`.
    pub(super) fn read(&self, series: u32, start: i64, end: i64, out: &mut Vec<Sample>) {
        self.with(series, |s, blocks| s.read(blocks, start, end, out));
    }

    /// Those of `series` that may have a sample in the closed range. A lock is taken
    /// once for 256 neighbours.
    pub(super) fn overlapping(
        &self,
        series: &RoaringBitmap,
        start: i64,
        end: i64,
    ) -> RoaringBitmap {
        let mut found = Vec::new();
        let mut ids = series.iter().peekable();
        while let Some(first) = ids.peek().copied() {
            let shard = self.read_shard(place_of(first).0);
            let same_block = |id: &u32| id >> BLOCK_BITS == first >> BLOCK_BITS;
            while let Some(id) = ids.next_if(same_block) {
                let series = shard.series.get(place_of(id).1);
                if series.is_some_and(|s| s.overlaps(&shard.blocks, start, end)) {
                    found.push(id);
                }
            }
        }
        RoaringBitmap::from_sorted_iter(found).expect("the refs ascend")
    }

    /// Visits every series; no lock is held for longer than 256 of them.
    pub(super) fn for_each(&self, mut visit: impl FnMut(u32, &HeadSeries, &Blocks)) {
        for at in 0..self.shards.len() {
            let pages = self.read_shard(at).series.page_count();
            for page in 0..pages {
                let shard = self.read_shard(at);
                for (local, series) in shard.series.page(page) {
                    visit(series_at(at, local), series, &shard.blocks);
                }
            }
        }
    }

    /// Forgets the samples of sealed parts, and the series that have none left and
    /// got none since `idle_before`.
    pub(super) fn drop_parts(&self, parts: &[Part], idle_before: i64) {
        for shard in 0..self.shards.len() {
            let pages = self.read_shard(shard).series.page_count();
            for page in 0..pages {
                let Shard { series, blocks, .. } = &mut *self.write(shard);
                series.retain_page(page, |_, series| {
                    series.drop_parts(blocks, parts);
                    !series.is_empty() || series.max_t() >= idle_before
                });
            }
            self.write(shard).tidy();
        }
    }

    /// Forgets a series, unless it has samples.
    pub(super) fn forget_empty(&self, series: u32) -> bool {
        let (shard, local) = place_of(series);
        let mut shard = self.write(shard);
        let empty = shard.series.get(local).is_none_or(HeadSeries::is_empty);
        if empty {
            shard.series.remove(local);
        }
        empty
    }

    /// How many series are in memory.
    pub(super) fn series(&self) -> usize {
        (0..self.shards.len())
            .map(|shard| self.read_shard(shard).series.len())
            .sum()
    }

    /// Bytes of all series. Walks them.
    pub(super) fn bytes(&self) -> usize {
        let mut bytes = 0;
        self.for_each(|_, series, _| bytes += size_of::<HeadSeries>() + series.side_bytes());
        let blocks = (0..self.shards.len()).map(|at| self.read_shard(at).blocks.bytes());
        bytes + blocks.sum::<usize>()
    }

    /// How many samples are in memory.
    pub(super) fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Counts samples that came.
    pub(super) fn add_samples(&self, n: u64) {
        self.samples.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts samples that left.
    pub(super) fn remove_samples(&self, n: u64) {
        self.samples.fetch_sub(n, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::series::Freezer;

    #[test]
    fn every_ref_has_a_place_of_its_own() {
        for series in (0..200_000).chain([u32::MAX - 1, u32::MAX]) {
            let (shard, local) = place_of(series);
            assert_eq!(series_at(shard, local), series);
        }
        assert_eq!(place_of(0).0, place_of(255).0);
        assert_ne!(place_of(255).0, place_of(256).0);
    }

    #[test]
    fn idle_series_leave_with_their_last_sample() {
        let head = Head::default();
        for series in [1_u32, 300, 70_000] {
            let (shard, local) = place_of(series);
            let mut shard = head.write(shard);
            let new = || HeadSeries::new(i64::MIN);
            let (s, blocks) = shard.get_or_insert_with(local, new);
            let sample = Sample::new(i64::from(series), 1.0);
            s.place(blocks, sample, 9, &mut Freezer::default(), || None);
        }
        let all = RoaringBitmap::from_iter([1, 2, 300, 70_000]);
        let found = head.overlapping(&all, 1, 300);
        assert_eq!(found, RoaringBitmap::from_iter([1, 300]));
        let part = Part {
            id: 9,
            window: 0,
            first_seq: 1,
            last_seq: 1,
            samples: 3,
            min_t: 1,
            max_t: 70_000,
        };
        head.drop_parts(&[part], 100);
        assert_eq!(head.series(), 2);
        assert!(head.with(300, |s, _| s.is_empty()).unwrap());
        assert!(head.overlapping(&all, 0, 1_000).is_empty());
    }
}
