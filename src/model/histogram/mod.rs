//! Native histograms: one value that holds a whole distribution.
//!
//! The design, from the value to the query:
//!
//! - A histogram is kept as floats, whatever it was sent as: a whole count up to
//!   2^53 keeps its exact value, and every function of a query gives floats anyway.
//! - Buckets are a sorted list of index and count without empty ones. Spans, as
//!   they are sent, only say which indexes are meant, and an empty bucket means
//!   the same as none, so nothing else has to be kept. The list is small where a
//!   dense one could be blown up by a single gap.
//! - [`merge`] adds, subtracts and scales, and knows what a counter reset is;
//!   [`estimate`] tells quantiles, fractions and the spread; [`trim`] cuts off a side.
//! - The evaluator holds histograms beside its columns of floats, never in them,
//!   so a query without histograms does not notice them.
//!
//! As Prometheus 3: schemas -4 to 8 have buckets that grow by 2^(2^-schema), schema
//! -53 has upper bounds of its own ("NHCB") and no zero bucket.

mod bounds;
mod estimate;
mod merge;
mod trim;

pub use estimate::Quantile;
pub use merge::{Incompatible, Merged};
pub use trim::Keep;

use std::fmt;
use std::sync::Arc;

use super::Timestamp;
use super::go_float::GoFloat;

/// The schema of histograms with bounds of their own.
pub const CUSTOM: i8 = -53;

/// What is known about a counter reset between a histogram and the one before.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ResetHint {
    /// Nothing: whoever needs it compares the two.
    #[default]
    Unknown,
    /// It began afresh.
    Reset,
    /// It went on.
    NotReset,
    /// It is no counter.
    Gauge,
}

/// A bucket that is not empty.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Which one; of an exponential schema, bucket 0 ends at 1.
    pub index: i32,
    /// How many observations it holds.
    pub count: f64,
}

/// A native histogram.
#[derive(Clone, Default, Debug)]
pub struct Histogram {
    /// The resolution, -4 to 8, or [`CUSTOM`].
    pub schema: i8,
    /// What is known about a reset.
    pub hint: ResetHint,
    /// Observations this close to zero are in the zero bucket.
    pub zero_threshold: f64,
    /// How many they are.
    pub zero_count: f64,
    /// All observations, NaN among them.
    pub count: f64,
    /// The sum of all observations.
    pub sum: f64,
    /// The buckets above zero, or all with [`CUSTOM`]; ascending, none empty.
    pub positive: Vec<Bucket>,
    /// The buckets below zero, by their distance from it; ascending, none empty.
    pub negative: Vec<Bucket>,
    /// The upper bounds of the buckets with [`CUSTOM`], without the infinite one.
    pub bounds: Arc<[f64]>,
}

/// A histogram at a time.
#[derive(Clone, PartialEq, Debug)]
pub struct HistogramSample {
    /// When it was taken.
    pub t: Timestamp,
    /// The histogram, shared with whoever reads it too.
    pub h: Arc<Histogram>,
}

/// A bucket with its bounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Range {
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// Whether the lower bound belongs to it.
    pub lower_closed: bool,
    /// Whether the upper bound belongs to it.
    pub upper_closed: bool,
    /// How many observations it holds.
    pub count: f64,
}

impl Range {
    /// As Prometheus' JSON numbers the kinds of bounds: 0 is open to the left, 1 to
    /// the right, 2 on both sides, 3 on none.
    pub fn rule(&self) -> u8 {
        match (self.lower_closed, self.upper_closed) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        }
    }
}

impl Histogram {
    /// Whether it has bounds of its own.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM
    }

    /// All buckets that are not empty, from the lowest up.
    pub fn ranges(&self) -> Vec<Range> {
        let size = self.negative.len() + self.positive.len() + 1;
        let mut ranges = Vec::with_capacity(size);
        let negative = self.negative.iter().rev();
        ranges.extend(negative.map(|bucket| self.negative_range(*bucket)));
        if self.zero_count != 0.0 {
            ranges.push(self.zero_range());
        }
        let positive = self.positive.iter();
        ranges.extend(positive.map(|bucket| self.positive_range(*bucket)));
        ranges
    }

    fn negative_range(&self, bucket: Bucket) -> Range {
        let range = bounds::exponential(self.schema, bucket);
        Range {
            lower: -range.upper,
            upper: -range.lower,
            lower_closed: true,
            upper_closed: false,
            count: bucket.count,
        }
    }

    fn zero_range(&self) -> Range {
        Range {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_closed: true,
            upper_closed: true,
            count: self.zero_count,
        }
    }

    fn positive_range(&self, bucket: Bucket) -> Range {
        if self.is_custom() {
            bounds::custom(&self.bounds, bucket)
        } else {
            bounds::exponential(self.schema, bucket)
        }
    }

    /// How many numbers it holds; what limits of memory count.
    pub fn size(&self) -> usize {
        6 + 2 * (self.positive.len() + self.negative.len()) + self.bounds.len()
    }

    /// Whether every number is the same by its bits; hints do not count.
    pub fn same_value(&self, other: &Histogram) -> bool {
        let bits = |h: &Histogram| {
            let zero = if h.is_custom() { 0.0 } else { h.zero_threshold };
            [h.count, h.sum, h.zero_count, zero].map(f64::to_bits)
        };
        self.schema == other.schema
            && bits(self) == bits(other)
            && same_buckets(&self.positive, &other.positive)
            && same_buckets(&self.negative, &other.negative)
            && bounds::same(&self.bounds, &other.bounds)
    }
}

fn same_buckets(a: &[Bucket], b: &[Bucket]) -> bool {
    let same =
        |(a, b): (&Bucket, &Bucket)| a.index == b.index && a.count.to_bits() == b.count.to_bits();
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Equal in every bit and in the hint.
impl PartialEq for Histogram {
    fn eq(&self, other: &Histogram) -> bool {
        self.hint == other.hint && self.same_value(other)
    }
}

/// As Prometheus prints one: `{count:3, sum:2.5, [-1,-0.5):1, (0.5,1]:2}`.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, sum) = (GoFloat(self.count), GoFloat(self.sum));
        write!(f, "{{count:{count}, sum:{sum}")?;
        for range in self.ranges() {
            let open = if range.lower_closed { '[' } else { '(' };
            let close = if range.upper_closed { ']' } else { ')' };
            let (lower, upper) = (GoFloat(range.lower), GoFloat(range.upper));
            write!(f, ", {open}{lower},{upper}{close}:{}", GoFloat(range.count))?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;
