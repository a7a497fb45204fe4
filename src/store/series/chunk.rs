//! Samples in time order that do not change any more.
//!
//! ```text
//! chunk = part varint | samples varint | newest less oldest time varint |
//!         length of the times varint | length of the values varint | times | values
//! ```
//!
//! Both columns are those of the sealed files. The oldest time is the first of the
//! times, so it has no place of its own.

use super::super::sealed::column::{self, Effort, Encoder};
use super::super::sealed::{Malformed, times};
use super::super::varint::{self, Reader};
use super::PartId;
use crate::model::Sample;

/// Makes chunks, and keeps its buffers from one to the next.
#[derive(Default)]
pub(in crate::store) struct Freezer {
    /// A number that differs among neighbouring series.
    pub(in crate::store) stagger: u32,
    pub(super) samples: Vec<Sample>,
    /// Bytes of a series.
    pub(super) bytes: Vec<u8>,
    encoder: Encoder,
    times: Vec<i64>,
    values: Vec<f64>,
    stamps: Vec<u8>,
    column: Vec<u8>,
    chunk: Vec<u8>,
}

impl Freezer {
    /// Encodes its `samples`, which ascend in time and are at least one.
    pub(super) fn freeze(&mut self, part: PartId) -> &[u8] {
        self.times.clear();
        self.times.extend(self.samples.iter().map(|s| s.t.as_ms()));
        self.values.clear();
        self.values.extend(self.samples.iter().map(|s| s.v));
        self.stamps.clear();
        times::encode(&self.times, &mut self.stamps);
        self.column.clear();
        self.encoder
            .encode(&self.values, Effort::Cheap, &mut self.column);
        let span = self.times[self.times.len() - 1] - self.times[0];
        self.chunk.clear();
        for number in [
            u64::from(part),
            self.times.len() as u64,
            span.cast_unsigned(),
            self.stamps.len() as u64,
            self.column.len() as u64,
        ] {
            varint::put(&mut self.chunk, number);
        }
        self.chunk.extend_from_slice(&self.stamps);
        self.chunk.extend_from_slice(&self.column);
        &self.chunk
    }
}

/// One chunk among the bytes of a series.
pub(super) struct Chunk<'a> {
    pub(super) part: PartId,
    len: usize,
    min_t: i64,
    max_t: i64,
    times: &'a [u8],
    values: &'a [u8],
    /// All of it.
    pub(super) bytes: &'a [u8],
}

/// The chunks that `bytes` are.
pub(super) fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let chunk = Chunk::first(rest).expect("BUG: a chunk that cannot be split");
        rest = &rest[chunk.bytes.len()..];
        Some(chunk)
    })
}

impl<'a> Chunk<'a> {
    fn first(all: &'a [u8]) -> Option<Chunk<'a>> {
        let mut reader = Reader(all);
        let part = reader.number32()?;
        let len = usize::try_from(reader.number()?).ok()?;
        let span = reader.number()?.cast_signed();
        let times_len = usize::try_from(reader.number()?).ok()?;
        let values_len = usize::try_from(reader.number()?).ok()?;
        let times = reader.bytes(times_len)?;
        let values = reader.bytes(values_len)?;
        let min_t = times::first(times).ok()?;
        Some(Chunk {
            part,
            len,
            min_t,
            max_t: min_t + span,
            times,
            values,
            bytes: &all[..all.len() - reader.0.len()],
        })
    }

    /// Whether it may have a sample in the closed range.
    pub(super) fn overlaps(&self, start: i64, end: i64) -> bool {
        self.min_t <= end && self.max_t >= start
    }

    /// Appends the samples of the closed range to `out`.
    pub(super) fn read(&self, start: i64, end: i64, out: &mut Vec<Sample>) {
        if self.overlaps(start, end) {
            self.decode(start, end, out)
                .expect("BUG: a chunk that cannot be decoded");
        }
    }

    fn decode(&self, start: i64, end: i64, out: &mut Vec<Sample>) -> Result<(), Malformed> {
        let mut stamps = Vec::with_capacity(self.len);
        times::decode(self.times, self.len, &mut stamps)?;
        let mut values = Vec::with_capacity(self.len);
        column::decode(self.values, self.len, &mut values)?;
        let all = stamps.into_iter().zip(values);
        let within = all.filter(|(t, _)| (start..=end).contains(t));
        out.extend(within.map(|(t, v)| Sample::new(t, v)));
        Ok(())
    }
}
