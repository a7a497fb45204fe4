//! Arithmetic of histograms: their buckets are brought to one layout, then added.
//!
//! Of two resolutions the lower one wins, of two zero buckets the wider one, of two
//! lists of custom bounds the bounds that both have. Exponential and custom buckets
//! have nothing in common.

use super::{Bucket, Histogram, ResetHint, bounds};

/// Exponential and custom buckets cannot be brought together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incompatible;

/// What is worth saying about two histograms that were brought together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Merged {
    /// One says that it was reset, the other that it was not.
    pub collision: bool,
    /// Their custom bounds differed.
    pub reconciled: bool,
}

impl Histogram {
    /// Adds another histogram.
    ///
    /// # Errors
    /// When one has custom bounds and the other not; nothing is changed then.
    pub fn add(&mut self, other: &Histogram) -> Result<Merged, Incompatible> {
        self.merge(other, 1.0)
    }

    /// Subtracts another histogram. The hint is left to the caller, who knows
    /// whether the difference is a gauge.
    ///
    /// # Errors
    /// As [`Histogram::add`].
    pub fn sub(&mut self, other: &Histogram) -> Result<Merged, Incompatible> {
        self.merge(other, -1.0)
    }

    fn merge(&mut self, other: &Histogram, sign: f64) -> Result<Merged, Incompatible> {
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible);
        }
        let mut merged = Merged {
            collision: self.merge_hint(other.hint),
            reconciled: false,
        };
        let mut other = other.clone();
        if self.is_custom() {
            merged.reconciled = self.meet_bounds(&mut other);
        } else {
            self.meet_zero(&mut other);
            let schema = self.schema.min(other.schema);
            self.reduce_to(schema);
            other.reduce_to(schema);
            self.zero_count += sign * other.zero_count;
        }
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        self.positive = added(&self.positive, &other.positive, sign);
        self.negative = added(&self.negative, &other.negative, sign);
        Ok(merged)
    }

    /// Takes over what another hint says; tells whether the two exclude each other.
    pub fn merge_hint(&mut self, other: ResetHint) -> bool {
        use ResetHint::{Gauge, Unknown};
        let (hint, collision) = match (self.hint, other) {
            (a, b) if a == b => (a, false),
            (Gauge, _) | (_, Gauge) => (Gauge, false),
            (Unknown, _) | (_, Unknown) => (Unknown, false),
            _ => (Unknown, true),
        };
        self.hint = hint;
        collision
    }

    /// Multiplies every count. What is negative is no counter.
    pub fn scale(&mut self, factor: f64) {
        if factor < 0.0 {
            self.hint = ResetHint::Gauge;
        }
        self.each(|v| v * factor);
    }

    /// Divides every count. Divided by zero, no bucket has a sensible count.
    pub fn divide(&mut self, by: f64) {
        if by < 0.0 {
            self.hint = ResetHint::Gauge;
        }
        self.each(|v| v / by);
        if by == 0.0 {
            self.positive.clear();
            self.negative.clear();
        }
    }

    fn each(&mut self, f: impl Fn(f64) -> f64) {
        for v in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            *v = f(*v);
        }
        for buckets in [&mut self.positive, &mut self.negative] {
            buckets.iter_mut().for_each(|b| b.count = f(b.count));
            buckets.retain(|b| b.count != 0.0);
        }
    }

    /// Joins buckets until the resolution is that of a lower schema.
    pub fn reduce_to(&mut self, schema: i8) {
        if self.is_custom() || schema >= self.schema {
            return;
        }
        let shift = u32::from(self.schema.abs_diff(schema));
        for buckets in [&mut self.positive, &mut self.negative] {
            let reduced = |b: &Bucket| Bucket {
                index: ((b.index - 1) >> shift) + 1,
                count: b.count,
            };
            *buckets = joined(buckets.iter().map(reduced));
        }
        self.schema = schema;
    }

    /// Gives two histograms the wider of their zero buckets, or a wider one still
    /// where that would cut a bucket.
    fn meet_zero(&mut self, other: &mut Histogram) {
        while self.zero_threshold != other.zero_threshold {
            if self.zero_threshold > other.zero_threshold {
                other.widen_zero(self.zero_threshold);
            } else {
                self.widen_zero(other.zero_threshold);
            }
        }
    }

    /// Moves buckets into the zero bucket until it reaches at least as far as
    /// `threshold`; further when that lies inside a bucket.
    fn widen_zero(&mut self, threshold: f64) {
        let mut threshold = threshold;
        // A bucket that is cut moves the threshold outwards, on either side.
        let schema = self.schema;
        let reach = |buckets: &[Bucket], threshold: f64| {
            let ranges = buckets.iter().map(|b| bounds::exponential(schema, *b));
            let inner = ranges.take_while(|range| range.lower < threshold);
            inner.fold(threshold, |reach, range| reach.max(range.upper))
        };
        loop {
            let wider = reach(&self.positive, threshold).max(reach(&self.negative, threshold));
            if wider <= threshold {
                break;
            }
            threshold = wider;
        }
        let mut moved = 0.0;
        for buckets in [&mut self.positive, &mut self.negative] {
            buckets.retain(|b| {
                let inside = bounds::exponential(schema, *b).lower < threshold;
                moved += if inside { b.count } else { 0.0 };
                !inside
            });
        }
        self.zero_count += moved;
        self.zero_threshold = threshold;
    }

    /// Leaves two histograms only the custom bounds that both have; says whether
    /// they differed.
    fn meet_bounds(&mut self, other: &mut Histogram) -> bool {
        if bounds::same(&self.bounds, &other.bounds) {
            return false;
        }
        let shared = |v: &&f64| other.bounds.contains(*v);
        let common: Vec<f64> = self.bounds.iter().filter(shared).copied().collect();
        self.coarsen(&common);
        other.coarsen(&common);
        true
    }

    /// Joins buckets whose bounds are not in `common`.
    fn coarsen(&mut self, common: &[f64]) {
        let buckets = self.positive.iter().map(|b| {
            let upper = bounds::custom(&self.bounds, *b).upper;
            let at = common.partition_point(|bound| *bound < upper);
            Bucket {
                index: i32::try_from(at).unwrap_or(i32::MAX),
                count: b.count,
            }
        });
        self.positive = joined(buckets);
        self.bounds = common.into();
    }

    /// Whether a counter began afresh between `previous` and this one: its hint
    /// says so, or some count fell.
    pub fn is_reset_after(&self, previous: &Histogram) -> bool {
        match self.hint {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < previous.count
            || self.is_custom() != previous.is_custom()
            || !self.is_custom() && self.schema > previous.schema
        {
            return true;
        }
        let mut before = previous.clone();
        if self.is_custom() {
            let mut now = self.clone();
            now.meet_bounds(&mut before);
            return fell(&before.positive, &now.positive);
        }
        if self.zero_threshold < before.zero_threshold {
            return true;
        }
        if self.zero_threshold > before.zero_threshold {
            before.widen_zero(self.zero_threshold);
            // It would have cut a bucket, which a growing zero bucket never does.
            if before.zero_threshold != self.zero_threshold {
                return true;
            }
        }
        before.reduce_to(self.schema);
        self.zero_count < before.zero_count
            || fell(&before.positive, &self.positive)
            || fell(&before.negative, &self.negative)
    }
}

/// Whether some bucket lost observations.
fn fell(before: &[Bucket], now: &[Bucket]) -> bool {
    let mut now = now.iter().peekable();
    before.iter().any(|old| {
        while now.next_if(|new| new.index < old.index).is_some() {}
        let count = now.peek().filter(|new| new.index == old.index);
        count.map_or(0.0, |new| new.count) < old.count
    })
}

/// The sum of two lists of buckets, the second one times `sign`.
fn added(a: &[Bucket], b: &[Bucket], sign: f64) -> Vec<Bucket> {
    let mut all: Vec<Bucket> = Vec::with_capacity(a.len() + b.len());
    all.extend_from_slice(a);
    all.extend(b.iter().map(|b| Bucket {
        index: b.index,
        count: sign * b.count,
    }));
    all.sort_by_key(|b| b.index);
    joined(all)
}

/// Adds neighbours with the same index, and leaves out what is empty then.
pub(super) fn joined(buckets: impl IntoIterator<Item = Bucket>) -> Vec<Bucket> {
    let mut joined: Vec<Bucket> = Vec::new();
    for bucket in buckets {
        match joined.last_mut() {
            Some(last) if last.index == bucket.index => last.count += bucket.count,
            _ => joined.push(bucket),
        }
    }
    joined.retain(|b| b.count != 0.0);
    joined
}
