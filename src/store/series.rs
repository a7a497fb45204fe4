//! One series' recent samples in memory.
//!
//! New samples go to a byte-coded tail; a full tail is frozen into a chunk of two
//! columns, times and values. What comes out of order goes to a small sorted side
//! buffer, which is frozen alike.
//! Each piece belongs to one *part*: the samples that will be sealed together.

#[cfg(test)]
mod tests;

use super::sealed::column::{self, Effort, Encoder};
use super::sealed::{Malformed, times};
use super::token::Coder;
use super::varint::{self, Reader};
use super::wal::LogState;
use crate::model::Sample;

/// A tail or side buffer of this many samples is frozen.
const CHUNK_SAMPLES: u16 = 120;

/// How much shorter the first tail of a series may be.
const STAGGER: u16 = 64;

/// The head of samples that change neither the step nor the value.
const STEADY: u8 = 1;

/// A tail has room for one more sample at least: its time and its value's tokens.
const SAMPLE_BYTES_MAX: usize = 24;

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

/// The series. 88 bytes and the encoded samples: there are as many as series, so
/// what few of them have is behind one pointer.
#[derive(Debug)]
pub(super) struct HeadSeries {
    /// The state of the log's coder.
    pub(super) log: LogState,
    /// The newest time that was placed.
    max_t: i64,
    /// No sealed sample is newer than this.
    sealed_max: i64,
    tail: Tail,
    rest: Option<Box<Rest>>,
}

/// What a series has beside its tail.
#[derive(Debug, Default)]
struct Rest {
    chunks: Vec<Chunk>,
    /// Samples that came between others, sorted by time.
    side: Vec<(Sample, PartId)>,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.side.is_empty()
    }
}

/// Samples in time order, still growing: the first one raw, then per sample the
/// change of the step with an "unchanged value" bit, and the value's token. Where
/// neither changes, the number of such samples less one follows instead; the last
/// of them are only counted. The newest time is that of the series.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    /// The newest value.
    last_bits: u64,
    /// A part is an hour long, so a step fits; in ms.
    last_step: i32,
    part: PartId,
    len: u16,
    exponent: u8,
    /// The last samples that change nothing and are not in the bytes yet.
    steady: u8,
}

/// Samples in time order that do not change any more: the length of the times'
/// column, the times, the values.
#[derive(Debug)]
struct Chunk {
    part: PartId,
    len: u16,
    min_t: i64,
    max_t: i64,
    bytes: Box<[u8]>,
}

/// Makes chunks, and keeps its buffers from one to the next.
#[derive(Default)]
pub(super) struct Freezer {
    /// A number that differs among neighbouring series.
    pub(super) stagger: u32,
    encoder: Encoder,
    samples: Vec<Sample>,
    times: Vec<i64>,
    values: Vec<f64>,
    column: Vec<u8>,
    bytes: Vec<u8>,
}

impl Freezer {
    /// Encodes `samples`, which ascend in time and are at least one.
    fn freeze(&mut self, part: PartId) -> Chunk {
        self.times.clear();
        self.times.extend(self.samples.iter().map(|s| s.t.as_ms()));
        self.values.clear();
        self.values.extend(self.samples.iter().map(|s| s.v));
        self.column.clear();
        times::encode(&self.times, &mut self.column);
        self.bytes.clear();
        varint::put(&mut self.bytes, self.column.len() as u64);
        self.bytes.extend_from_slice(&self.column);
        self.encoder
            .encode(&self.values, Effort::Cheap, &mut self.bytes);
        Chunk {
            part,
            len: u16::try_from(self.times.len()).expect("a chunk has 120 samples"),
            min_t: self.times[0],
            max_t: self.times[self.times.len() - 1],
            bytes: self.bytes.as_slice().into(),
        }
    }
}

impl HeadSeries {
    /// An empty one; no sealed sample of it is newer than `sealed_max`.
    pub(super) fn new(sealed_max: i64) -> HeadSeries {
        HeadSeries {
            log: LogState::default(),
            max_t: i64::MIN,
            sealed_max,
            tail: Tail::default(),
            rest: None,
        }
    }

    fn chunks(&self) -> &[Chunk] {
        self.rest.as_ref().map_or(&[], |rest| &rest.chunks)
    }

    fn side(&self) -> &[(Sample, PartId)] {
        self.rest.as_ref().map_or(&[], |rest| &rest.side)
    }

    /// Takes a sample in, unless its time is taken. `sealed` looks the time up in
    /// the sealed files; it is called only where they may have it.
    #[inline]
    pub(super) fn place(
        &mut self,
        sample: Sample,
        part: PartId,
        freezer: &mut Freezer,
        sealed: impl FnOnce() -> Option<f64>,
    ) -> Placed {
        let t = sample.t.as_ms();
        if t > self.max_t && t > self.sealed_max {
            self.push(sample, part, freezer);
            return Placed::Newest;
        }
        let stored = self.find(t).or_else(|| {
            let may_be_sealed = t <= self.sealed_max;
            may_be_sealed.then(sealed).flatten().map(f64::to_bits)
        });
        match stored {
            Some(bits) if bits == sample.v.to_bits() => Placed::Duplicate,
            Some(_) => Placed::Conflict,
            None if t > self.max_t => {
                self.push(sample, part, freezer);
                Placed::Newest
            }
            None => {
                self.insert_between(sample, part, freezer);
                Placed::Between
            }
        }
    }

    #[inline]
    fn push(&mut self, sample: Sample, part: PartId, freezer: &mut Freezer) {
        if self.tail.len > 0 && self.tail.part != part {
            self.freeze_tail(freezer);
        }
        self.tail.push(sample, self.max_t, part);
        self.max_t = sample.t.as_ms();
        if self.tail.len >= CHUNK_SAMPLES - STAGGER && self.tail.len >= self.tail_max(freezer) {
            self.freeze_tail(freezer);
        }
    }

    /// The first tail of a series is shorter by an amount that differs among
    /// neighbours, so that they do not all freeze in the same scrape.
    fn tail_max(&self, freezer: &Freezer) -> u16 {
        if self.chunks().is_empty() {
            let less = freezer.stagger % u32::from(STAGGER);
            CHUNK_SAMPLES - u16::try_from(less).expect("below 64")
        } else {
            CHUNK_SAMPLES
        }
    }

    #[cold]
    fn freeze_tail(&mut self, freezer: &mut Freezer) {
        let tail = std::mem::take(&mut self.tail);
        freezer.samples.clear();
        tail.read(self.max_t, i64::MIN, i64::MAX, &mut freezer.samples);
        self.keep(freezer.freeze(tail.part));
        // The next one will be about as long: half of its room is not made in steps.
        self.tail.bytes.reserve_exact(tail.bytes.len() / 2);
    }

    /// A series has two or three chunks, so room for more would be a waste.
    fn keep(&mut self, chunk: Chunk) {
        let chunks = &mut self.rest.get_or_insert_default().chunks;
        if chunks.len() < 4 {
            chunks.reserve_exact(1);
        }
        chunks.push(chunk);
    }

    fn insert_between(&mut self, sample: Sample, part: PartId, freezer: &mut Freezer) {
        let side = &mut self.rest.get_or_insert_default().side;
        let at = side.partition_point(|(s, _)| s.t < sample.t);
        side.insert(at, (sample, part));
        if side.len() >= usize::from(CHUNK_SAMPLES) {
            let side = std::mem::take(side);
            self.freeze_side(side, freezer);
        }
    }

    fn freeze_side(&mut self, mut samples: Vec<(Sample, PartId)>, freezer: &mut Freezer) {
        samples.sort_by_key(|(sample, part)| (*part, sample.t));
        for run in samples.chunk_by(|a, b| a.1 == b.1) {
            freezer.samples.clear();
            freezer
                .samples
                .extend(run.iter().map(|(sample, _)| *sample));
            self.keep(freezer.freeze(run[0].1));
        }
    }

    /// The bits stored at `t`.
    fn find(&self, t: i64) -> Option<u64> {
        if self.tail.len > 0 && t == self.max_t {
            return Some(self.tail.last_bits);
        }
        let mut found = Vec::new();
        self.read(t, t, &mut found);
        found.first().map(|sample| sample.v.to_bits())
    }

    /// Appends the samples of the closed range to `out`, in time order.
    pub(super) fn read(&self, start: i64, end: i64, out: &mut Vec<Sample>) {
        let from = out.len();
        for chunk in self.chunks() {
            if chunk.min_t <= end && chunk.max_t >= start {
                chunk.read(start, end, out);
            }
        }
        self.tail.read(self.max_t, start, end, out);
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
    pub(super) fn read_part(&self, part: PartId, out: &mut Vec<Sample>) {
        let from = out.len();
        for chunk in self.chunks().iter().filter(|chunk| chunk.part == part) {
            chunk.read(i64::MIN, i64::MAX, out);
        }
        if self.tail.part == part {
            self.tail.read(self.max_t, i64::MIN, i64::MAX, out);
        }
        let own = self.side().iter().filter(|(_, p)| *p == part);
        out.extend(own.map(|(sample, _)| *sample));
        sort(&mut out[from..]);
    }

    /// Whether it has samples of the part.
    pub(super) fn has_part(&self, part: PartId) -> bool {
        (self.tail.len > 0 && self.tail.part == part)
            || self.chunks().iter().any(|chunk| chunk.part == part)
            || self.side().iter().any(|(_, p)| *p == part)
    }

    /// The parts that it has samples of, some of them more than once.
    pub(super) fn parts(&self) -> impl Iterator<Item = PartId> {
        let chunks = self.chunks().iter().map(|chunk| chunk.part);
        let tail = (self.tail.len > 0).then_some(self.tail.part);
        let side = self.side().iter().map(|(_, part)| *part);
        chunks.chain(tail).chain(side)
    }

    /// Forgets the samples of a part, if it has some. The part is sealed now and
    /// ends at `max_t`.
    pub(super) fn drop_part(&mut self, part: PartId, max_t: i64) {
        if !self.has_part(part) {
            return;
        }
        self.sealed_max = self.sealed_max.max(max_t);
        if self.tail.part == part {
            self.tail = Tail::default();
        }
        if let Some(rest) = &mut self.rest {
            rest.chunks.retain(|chunk| chunk.part != part);
            rest.side.retain(|(_, p)| *p != part);
            if rest.is_empty() {
                self.rest = None;
            }
        }
    }

    /// Notes that a sample at `t` is sealed.
    pub(super) fn note_sealed(&mut self, t: i64) {
        self.sealed_max = self.sealed_max.max(t);
    }

    /// Whether it has no samples.
    pub(super) fn is_empty(&self) -> bool {
        self.tail.len == 0 && self.rest.as_ref().is_none_or(|rest| rest.is_empty())
    }

    /// The newest time that was placed since the series is in memory.
    pub(super) fn max_t(&self) -> i64 {
        self.max_t
    }

    /// Whether a sample may lie in the closed range, without decoding.
    pub(super) fn overlaps(&self, start: i64, end: i64) -> bool {
        let mut side = self.side().iter().map(|(sample, _)| sample.t.as_ms());
        self.chunks()
            .iter()
            .any(|chunk| chunk.min_t <= end && chunk.max_t >= start)
            || self.tail.overlaps(self.max_t, start, end)
            || side.any(|t| (start..=end).contains(&t))
    }

    /// Bytes it takes, the struct included.
    pub(super) fn bytes(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| {
            let chunks: usize = rest.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
            size_of::<Rest>()
                + rest.chunks.capacity() * size_of::<Chunk>()
                + chunks
                + rest.side.capacity() * size_of::<(Sample, PartId)>()
        });
        size_of::<HeadSeries>() + self.tail.bytes.capacity() + rest
    }
}

/// Sorts by time where that is needed; most reads are sorted already.
fn sort(samples: &mut [Sample]) {
    if !samples.is_sorted_by_key(|sample| sample.t) {
        samples.sort_by_key(|sample| sample.t);
    }
}

impl Tail {
    /// Adds a sample that is newer than `last_t`, the newest one so far.
    #[inline]
    fn push(&mut self, sample: Sample, last_t: i64, part: PartId) {
        let bits = sample.v.to_bits();
        if self.len == 0 {
            self.begin(sample, part);
        } else {
            let step = sample.t.as_ms() - last_t;
            let change = step - i64::from(self.last_step);
            let same = bits == self.last_bits;
            if same && change == 0 && self.steady < u8::MAX {
                self.steady += 1;
                self.len += 1;
                return;
            }
            self.end_steady();
            self.make_room();
            let change = varint::zigzag(change);
            varint::put(&mut self.bytes, (change << 1) | u64::from(same));
            if !same {
                let mut coder = Coder {
                    bits: self.last_bits,
                    exponent: self.exponent,
                };
                coder.encode(sample.v, &mut self.bytes);
                self.exponent = coder.exponent;
            } else if change == 0 {
                self.bytes.push(0);
            }
            self.last_step = i32::try_from(step).expect("a part is an hour long");
        }
        self.last_bits = bits;
        self.len += 1;
    }

    fn begin(&mut self, sample: Sample, part: PartId) {
        self.make_room();
        let (t, bits) = (sample.t.as_ms(), sample.v.to_bits());
        self.bytes.extend_from_slice(&t.to_le_bytes());
        self.bytes.extend_from_slice(&bits.to_le_bytes());
        self.exponent = 0;
        self.last_step = 0;
        self.part = part;
    }

    fn end_steady(&mut self) {
        if self.steady > 0 {
            self.make_room();
            self.bytes.push(STEADY);
            varint::put(&mut self.bytes, u64::from(self.steady - 1));
            self.steady = 0;
        }
    }

    /// Room grows by a quarter: doubling would leave a third of all tails' bytes
    /// unused.
    #[inline]
    fn make_room(&mut self) {
        let len = self.bytes.len();
        if self.bytes.capacity() - len < SAMPLE_BYTES_MAX {
            self.bytes.reserve_exact(SAMPLE_BYTES_MAX.max(len / 4));
        }
    }

    fn overlaps(&self, last_t: i64, start: i64, end: i64) -> bool {
        let first = Reader(&self.bytes).fixed64().map(u64::cast_signed);
        first.is_some_and(|first| first <= end && last_t >= start)
    }

    fn read(&self, last_t: i64, start: i64, end: i64, out: &mut Vec<Sample>) {
        if self.overlaps(last_t, start, end) {
            self.decode(start, end, out)
                .expect("BUG: a tail that cannot be decoded");
        }
    }

    /// `None` when its bytes are not those of a tail.
    fn decode(&self, start: i64, end: i64, out: &mut Vec<Sample>) -> Option<()> {
        let mut reader = Reader(&self.bytes);
        let mut t = reader.fixed64()?.cast_signed();
        let mut coder = Coder::starting_at(f64::from_bits(reader.fixed64()?));
        let (mut step, mut read, mut steady) = (0, 1, 0);
        loop {
            if t > end {
                return Some(());
            }
            if t >= start {
                out.push(Sample::new(t, f64::from_bits(coder.bits)));
            }
            if read == self.len {
                return Some(());
            }
            read += 1;
            if steady > 0 {
                steady -= 1;
            } else if reader.is_empty() {
                // The last ones are only counted.
                steady = u64::from(self.len - read);
            } else {
                let head = reader.number()?;
                if head == u64::from(STEADY) {
                    steady = reader.number()?;
                }
                step += varint::unzigzag(head >> 1);
                if head & 1 == 0 {
                    coder.decode(&mut reader)?;
                }
            }
            t += step;
        }
    }
}

impl Chunk {
    fn read(&self, start: i64, end: i64, out: &mut Vec<Sample>) {
        self.decode(start, end, out)
            .expect("BUG: a chunk that cannot be decoded");
    }

    fn decode(&self, start: i64, end: i64, out: &mut Vec<Sample>) -> Result<(), Malformed> {
        let cut = Malformed("chunk too short");
        let mut reader = Reader(&self.bytes);
        let times_len = reader.number32().ok_or(cut)? as usize;
        let len = usize::from(self.len);
        let mut stamps = Vec::with_capacity(len);
        times::decode(reader.bytes(times_len).ok_or(cut)?, len, &mut stamps)?;
        let mut values = Vec::with_capacity(len);
        column::decode(reader.0, len, &mut values)?;
        let all = stamps.into_iter().zip(values);
        let within = all.filter(|(t, _)| (start..=end).contains(t));
        out.extend(within.map(|(t, v)| Sample::new(t, v)));
        Ok(())
    }
}
