//! Chunks as Prometheus keeps samples and `remote_read` streams them: bits written
//! one after the other, readable by anybody who reads its block files.
//!
//! Owns nothing: samples go in, the bytes of one chunk come out. What a chunk is
//! wrapped in is its user's affair.
//!
//! It must never read a chunk: nobody sends us any.

mod bits;
mod histogram;
mod xor;

use crate::model::{HistogramSample, Sample};

/// Samples of one chunk, as Prometheus fills its own.
const SAMPLES_MAX: usize = 120;

/// What a chunk holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Floats.
    Xor = 1,
    /// Native histograms whose counts are floats.
    FloatHistogram = 3,
}

/// A finished chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Chunk {
    /// The time of the first sample, in milliseconds.
    pub(super) min_time: i64,
    /// The time of the last.
    pub(super) max_time: i64,
    /// How the samples are written.
    pub(super) kind: Kind,
    /// The chunk itself.
    pub(super) data: Vec<u8>,
}

/// Hands over the chunks of a series in order of time; no two overlap. Where a series
/// has floats and histograms at once, each chunk holds one kind.
pub(super) fn chunks(
    mut floats: &[Sample],
    native: &[HistogramSample],
    mut take: impl FnMut(Chunk),
) {
    for sample in native {
        let before = floats.partition_point(|float| float.t < sample.t);
        let (first, rest) = floats.split_at(before);
        first.chunks(SAMPLES_MAX).map(of_floats).for_each(&mut take);
        floats = rest;
        let t = sample.t.as_ms();
        take(Chunk {
            min_time: t,
            max_time: t,
            kind: Kind::FloatHistogram,
            data: histogram::encoded(sample),
        });
    }
    floats.chunks(SAMPLES_MAX).map(of_floats).for_each(take);
}

fn of_floats(samples: &[Sample]) -> Chunk {
    let time = |sample: Option<&Sample>| sample.map_or(0, |sample| sample.t.as_ms());
    Chunk {
        min_time: time(samples.first()),
        max_time: time(samples.last()),
        kind: Kind::Xor,
        data: xor::encoded(samples),
    }
}

#[cfg(test)]
mod tests;
