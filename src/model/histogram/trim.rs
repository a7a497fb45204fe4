//! Takes the observations on one side of a value out of a histogram.
//!
//! A bucket that the value divides keeps the share that is estimated to lie on the
//! other side, on the same scale as quantiles are. How much the observations that are
//! left sum up to is not known either: each counts as the middle of what is left of
//! its bucket, the geometric one between exponential bounds, the arithmetic one
//! elsewhere. A histogram that loses nothing stays what it is, sum included.
//!
//! Custom buckets without a bound cannot be divided. Their observations count as
//! infinitely far away, but the first bucket begins at zero when it ends above it and
//! the value is not below zero. These rules, and which bucket goes entirely, are
//! Prometheus 3.14's.

use super::{Histogram, Range};

/// What stays after a trim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Observations up to the value.
    Below,
    /// Observations above the value.
    Above,
}

impl Histogram {
    /// The histogram without the observations on the other side of `at`. Nothing is
    /// known to be on a side of NaN, so nothing stays.
    #[must_use]
    pub fn trimmed(&self, at: f64, keep: Keep) -> Histogram {
        let everything = match keep {
            Keep::Below => f64::INFINITY,
            Keep::Above => f64::NEG_INFINITY,
        };
        if at == everything {
            return self.clone();
        }
        let cut = Cut {
            histogram: self,
            at,
            keep,
        };
        let mut left = Left::default();
        let mut trimmed = self.clone();
        trimmed.negative.retain_mut(|bucket| {
            bucket.count = left.take(&cut, self.negative_range(*bucket));
            bucket.count != 0.0
        });
        if !self.is_custom() {
            trimmed.zero_count = left.take(&cut, self.zero_range());
        }
        trimmed.positive.retain_mut(|bucket| {
            bucket.count = left.take(&cut, self.positive_range(*bucket));
            bucket.count != 0.0
        });
        if !left.is_less {
            return self.clone();
        }
        trimmed.count = left.count;
        trimmed.sum = left.sum;
        trimmed
    }
}

/// The sums over what stays.
#[derive(Default)]
struct Left {
    count: f64,
    sum: f64,
    is_less: bool,
}

impl Left {
    /// Adds what stays of a bucket and says how many observations that are.
    fn take(&mut self, cut: &Cut<'_>, range: Range) -> f64 {
        if range.count == 0.0 {
            return 0.0;
        }
        let (share, middle) = cut.of(range);
        self.is_less |= share < 1.0;
        if share <= 0.0 {
            return 0.0;
        }
        let count = range.count * share;
        self.count += count;
        self.sum += count * middle;
        count
    }
}

struct Cut<'a> {
    histogram: &'a Histogram,
    at: f64,
    keep: Keep,
}

impl Cut<'_> {
    /// The share of a bucket that stays, and the middle of it.
    fn of(&self, mut range: Range) -> (f64, f64) {
        let (at, below) = (self.at, self.keep == Keep::Below);
        if at.is_nan() || at.is_infinite() {
            return (0.0, 0.0);
        }
        let unbounded = (range.lower.is_infinite(), range.upper.is_infinite());
        match unbounded {
            (true, true) => return (0.0, 0.0),
            (true, false) if range.upper > 0.0 && (below || at >= 0.0) => range.lower = 0.0,
            (true, false) => return (f64::from(u8::from(below)), range.upper.min(at)),
            (false, true) => return (f64::from(u8::from(!below)), range.lower.max(at)),
            (false, false) => self.histogram.clip(&mut range),
        }
        let inside = range.lower < at && at < range.upper;
        let share_below = || self.histogram.share_below(&range, at);
        let share = match self.keep {
            Keep::Below if inside => share_below(),
            Keep::Above if inside => 1.0 - share_below(),
            Keep::Below => f64::from(u8::from(range.upper <= at)),
            Keep::Above => f64::from(u8::from(range.lower >= at)),
        };
        let (lower, upper) = match self.keep {
            Keep::Below => (range.lower, range.upper.min(at)),
            Keep::Above => (range.lower.max(at), range.upper),
        };
        let middle = if self.histogram.is_linear(&range) {
            f64::midpoint(lower, upper)
        } else {
            (lower.abs().sqrt() * upper.abs().sqrt()).copysign(lower)
        };
        (share, middle)
    }
}
