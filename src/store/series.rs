//! One series' recent samples in memory.
//!
//! New samples go to a byte-coded [`tail`]; a full tail is frozen into a [`chunk`] of
//! two columns, times and values. What comes out of order goes to a small sorted side
//! buffer, which is frozen alike. The chunks and the tail behind them are one chain
//! of [`super::blocks`].
//! Each piece belongs to one *part*: the samples that will be sealed together.

mod chunk;
mod tail;
#[cfg(test)]
mod tests;

use super::blocks::{Blocks, Chain};
use super::parts::Part;
use super::wal::LogState;
use crate::model::Sample;

pub(super) use chunk::Freezer;
use chunk::chunks;
use tail::Tail;

/// A tail or side buffer of this many samples is frozen.
const CHUNK_SAMPLES: u16 = 120;

/// How much shorter the first tail of a series may be.
const STAGGER: u16 = 64;

/// Which samples are sealed together; see [`super::parts`].
pub(super) type PartId = u32;

/// What became of a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placed {
    /// New, and newer than all before.
    Newest,
    /// New, between others.
    Between,
    /// There already, with the same bits.
    Duplicate,
    /// There already, with other bits; the first one is kept.
    Conflict,
}

/// The series. 80 bytes and a chain of blocks, which belongs to the same shard:
/// there are as many as series, so what few of them have is behind a pointer.
#[derive(Debug)]
pub(super) struct HeadSeries {
    /// The state of the log's coder.
    pub(super) log: LogState,
    /// The newest time that was placed.
    max_t: i64,
    /// No sealed sample is newer than this.
    sealed_max: i64,
    /// The chunks, then the tail.
    chain: Chain,
    /// How many bytes the chunks are.
    frozen: u32,
    tail: Tail,
    /// Samples that came between others, sorted by time; boxed as they are rare.
    #[expect(
        clippy::box_collection,
        reason = "8 bytes instead of 24 for each series"
    )]
    side: Option<Box<Vec<(Sample, PartId)>>>,
}

impl HeadSeries {
    /// An empty one; no sealed sample of it is newer than `sealed_max`.
    pub(super) fn new(sealed_max: i64) -> HeadSeries {
        HeadSeries {
            log: LogState::default(),
            max_t: i64::MIN,
            sealed_max,
            chain: Chain::default(),
            frozen: 0,
            tail: Tail::default(),
            side: None,
        }
    }

    fn side(&self) -> &[(Sample, PartId)] {
        self.side.as_ref().map_or(&[], |side| side.as_slice())
    }

    /// Takes a sample in, unless its time is taken. `sealed` looks the time up in
    /// the sealed files; it is called only where they may have it.
    #[inline]
    pub(super) fn place(
        &mut self,
        blocks: &mut Blocks,
        sample: Sample,
        part: PartId,
        freezer: &mut Freezer,
        sealed: impl FnOnce() -> Option<f64>,
    ) -> Placed {
        let t = sample.t.as_ms();
        if t > self.max_t && t > self.sealed_max {
            self.push(blocks, sample, part, freezer);
            return Placed::Newest;
        }
        // What is newer than all that is here is looked for in the files alone: to read
        // what is here for each sample of a backlog would take the square of its length.
        let here = (t <= self.max_t).then(|| self.find(blocks, t)).flatten();
        let stored = here.or_else(|| {
            let may_be_sealed = t <= self.sealed_max;
            may_be_sealed.then(sealed).flatten().map(f64::to_bits)
        });
        match stored {
            Some(bits) if bits == sample.v.to_bits() => Placed::Duplicate,
            Some(_) => Placed::Conflict,
            None if t > self.max_t => {
                self.push(blocks, sample, part, freezer);
                Placed::Newest
            }
            None => {
                self.insert_between(blocks, sample, part, freezer);
                Placed::Between
            }
        }
    }

    #[inline]
    fn push(&mut self, blocks: &mut Blocks, sample: Sample, part: PartId, freezer: &mut Freezer) {
        if self.tail.len > 0 && self.tail.part != part {
            self.freeze_tail(blocks, freezer);
        }
        freezer.bytes.clear();
        self.tail.push(sample, self.max_t, part, &mut freezer.bytes);
        blocks.append(&mut self.chain, &freezer.bytes);
        self.max_t = sample.t.as_ms();
        if self.tail.len >= CHUNK_SAMPLES - STAGGER && self.tail.len >= self.tail_max(freezer) {
            self.freeze_tail(blocks, freezer);
        }
    }

    /// The first tail of a series is shorter by an amount that differs among
    /// neighbours, so that they do not all freeze in the same scrape.
    fn tail_max(&self, freezer: &Freezer) -> u16 {
        if self.frozen == 0 {
            let less = freezer.stagger % u32::from(STAGGER);
            CHUNK_SAMPLES - u16::try_from(less).expect("below 64")
        } else {
            CHUNK_SAMPLES
        }
    }

    #[cold]
    fn freeze_tail(&mut self, blocks: &mut Blocks, freezer: &mut Freezer) {
        freezer.bytes.clear();
        blocks.read(&self.chain, &mut freezer.bytes);
        let bytes = &freezer.bytes[self.frozen as usize..];
        freezer.samples.clear();
        self.tail
            .read(bytes, i64::MIN, i64::MAX, &mut freezer.samples);
        blocks.truncate(&mut self.chain, self.frozen as usize);
        let chunk = freezer.freeze(self.tail.part);
        blocks.append(&mut self.chain, chunk);
        self.frozen += u32::try_from(chunk.len()).expect("a chunk has 120 samples");
        self.tail = Tail::default();
    }

    fn insert_between(
        &mut self,
        blocks: &mut Blocks,
        sample: Sample,
        part: PartId,
        freezer: &mut Freezer,
    ) {
        let side = self.side.get_or_insert_default();
        let at = side.partition_point(|(s, _)| s.t < sample.t);
        side.insert(at, (sample, part));
        if side.len() >= usize::from(CHUNK_SAMPLES) {
            let side = std::mem::take(&mut **side);
            self.side = None;
            self.freeze_side(blocks, side, freezer);
        }
    }

    /// Makes chunks of samples and puts them in front of the tail.
    fn freeze_side(
        &mut self,
        blocks: &mut Blocks,
        mut samples: Vec<(Sample, PartId)>,
        freezer: &mut Freezer,
    ) {
        let mut bytes = self.bytes(blocks);
        let tail = bytes.split_off(self.frozen as usize);
        samples.sort_by_key(|(sample, part)| (*part, sample.t));
        for run in samples.chunk_by(|a, b| a.1 == b.1) {
            freezer.samples.clear();
            let own = run.iter().map(|(sample, _)| *sample);
            freezer.samples.extend(own);
            bytes.extend_from_slice(freezer.freeze(run[0].1));
        }
        self.replace(blocks, &bytes, &tail);
    }

    /// Replaces all bytes.
    fn replace(&mut self, blocks: &mut Blocks, frozen: &[u8], tail: &[u8]) {
        blocks.truncate(&mut self.chain, 0);
        blocks.append(&mut self.chain, frozen);
        blocks.append(&mut self.chain, tail);
        self.frozen = u32::try_from(frozen.len()).expect("a series is below 4 GiB");
    }

    /// The bytes of the chunks and of the tail.
    fn bytes(&self, blocks: &Blocks) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        blocks.read(&self.chain, &mut bytes);
        bytes
    }

    /// Calls `with` on the bytes of the chunks, and on those of the tail.
    fn with_bytes<R>(&self, blocks: &Blocks, with: impl FnOnce(&[u8], &[u8]) -> R) -> R {
        let bytes = self.bytes(blocks);
        let (frozen, tail) = bytes.split_at(self.frozen as usize);
        with(frozen, tail)
    }

    /// The bits stored at `t`.
    fn find(&self, blocks: &Blocks, t: i64) -> Option<u64> {
        if self.tail.len > 0 && t == self.max_t {
            return Some(self.tail.last_bits);
        }
        let mut found = Vec::new();
        self.read(blocks, t, t, &mut found);
        found.first().map(|sample| sample.v.to_bits())
    }

    /// Appends the samples of the closed range to `out`, in time order.
    pub(super) fn read(&self, blocks: &Blocks, start: i64, end: i64, out: &mut Vec<Sample>) {
        let from = out.len();
        self.with_bytes(blocks, |frozen, tail| {
            for chunk in chunks(frozen) {
                chunk.read(start, end, out);
            }
            self.tail.read(tail, start, end, out);
        });
        let within = |s: &Sample| (start..=end).contains(&s.t.as_ms());
        out.extend(self.side().iter().map(|(s, _)| *s).filter(within));
        sort(&mut out[from..]);
    }

    /// The newest sample that is stored anywhere, when it is at hand without decoding
    /// and lies in the closed range.
    #[inline]
    pub(super) fn newest(&self, start: i64, end: i64) -> Option<Sample> {
        let t = self.max_t;
        let at_hand = self.tail.len > 0 && t > self.sealed_max;
        (at_hand && (start..=end).contains(&t))
            .then(|| Sample::new(t, f64::from_bits(self.tail.last_bits)))
    }

    /// Appends the samples of a part to `out`, in time order.
    pub(super) fn read_part(&self, blocks: &Blocks, part: PartId, out: &mut Vec<Sample>) {
        let from = out.len();
        self.with_bytes(blocks, |frozen, tail| {
            for chunk in chunks(frozen).filter(|chunk| chunk.part == part) {
                chunk.read(i64::MIN, i64::MAX, out);
            }
            if self.tail.part == part {
                self.tail.read(tail, i64::MIN, i64::MAX, out);
            }
        });
        let own = self.side().iter().filter(|(_, p)| *p == part);
        out.extend(own.map(|(sample, _)| *sample));
        sort(&mut out[from..]);
    }

    /// The parts that it has samples of, each once.
    pub(super) fn parts(&self, blocks: &Blocks) -> Vec<PartId> {
        let mut parts: Vec<PartId> = self.side().iter().map(|(_, part)| *part).collect();
        parts.extend((self.tail.len > 0).then_some(self.tail.part));
        if self.frozen > 0 {
            self.with_bytes(blocks, |frozen, _| {
                parts.extend(chunks(frozen).map(|chunk| chunk.part));
            });
        }
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// Forgets the samples of parts, which are sealed now.
    pub(super) fn drop_parts(&mut self, blocks: &mut Blocks, sealed: &[Part]) {
        let mut sealed_max = self.sealed_max;
        let mut is_gone = |part: PartId| {
            let part = sealed.iter().find(|sealed| sealed.id == part);
            sealed_max = part.map_or(sealed_max, |part| sealed_max.max(part.max_t));
            part.is_some()
        };
        if let Some(side) = &mut self.side {
            side.retain(|(_, part)| !is_gone(*part));
            if side.is_empty() {
                self.side = None;
            }
        }
        let has_no_tail = self.tail.len > 0 && is_gone(self.tail.part);
        let (bytes, mut kept) = (self.bytes(blocks), Vec::new());
        let (frozen, tail) = bytes.split_at(self.frozen as usize);
        for chunk in chunks(frozen).filter(|chunk| !is_gone(chunk.part)) {
            kept.extend_from_slice(chunk.bytes);
        }
        self.sealed_max = sealed_max;
        if has_no_tail {
            self.tail = Tail::default();
            self.replace(blocks, &kept, &[]);
        } else if kept.len() < frozen.len() {
            self.replace(blocks, &kept, tail);
        }
    }

    /// Moves its bytes from one set of blocks to another.
    pub(super) fn move_to(&mut self, from: &Blocks, to: &mut Blocks) {
        let bytes = self.bytes(from);
        self.chain = Chain::default();
        to.append(&mut self.chain, &bytes);
    }

    /// Notes that a sample at `t` is sealed.
    pub(super) fn note_sealed(&mut self, t: i64) {
        self.sealed_max = self.sealed_max.max(t);
    }

    /// Whether it has no samples.
    pub(super) fn is_empty(&self) -> bool {
        self.tail.len == 0 && self.frozen == 0 && self.side.is_none()
    }

    /// Looks at where the next sample goes.
    #[inline]
    pub(super) fn last_byte(&self, blocks: &Blocks) -> Option<u8> {
        blocks.last_byte(&self.chain)
    }

    /// The newest time that was placed since the series is in memory.
    pub(super) fn max_t(&self) -> i64 {
        self.max_t
    }

    /// Whether a sample may lie in the closed range, without decoding.
    pub(super) fn overlaps(&self, blocks: &Blocks, start: i64, end: i64) -> bool {
        if self.is_empty() || self.max_t < start {
            return false;
        }
        if self.tail.len > 0 && self.max_t <= end {
            return true;
        }
        let mut side = self.side().iter().map(|(sample, _)| sample.t.as_ms());
        let in_bytes = |frozen: &[u8], tail: &[u8]| {
            self.tail.overlaps(tail, self.max_t, start, end)
                || chunks(frozen).any(|chunk| chunk.overlaps(start, end))
        };
        side.any(|t| (start..=end).contains(&t)) || self.with_bytes(blocks, in_bytes)
    }

    /// Bytes that it takes beside itself and its chain.
    pub(super) fn side_bytes(&self) -> usize {
        let side = self.side.as_ref();
        side.map_or(0, |side| side.capacity() * size_of::<(Sample, PartId)>())
    }
}

/// Sorts by time where that is needed; most reads are sorted already.
fn sort(samples: &mut [Sample]) {
    if !samples.is_sorted_by_key(|sample| sample.t) {
        samples.sort_by_key(|sample| sample.t);
    }
}
