//! What a histogram tells about the observations, as Prometheus 3 estimates it:
//! between exponential bounds on a logarithmic scale, in the zero bucket and between
//! custom bounds on a straight line.

use super::{Histogram, Range};

/// A quantile, and what observations of NaN did to it.
#[derive(Clone, Copy, Debug)]
pub struct Quantile {
    /// The estimate.
    pub value: f64,
    /// It is NaN because the rank lies among observations of NaN.
    pub among_nan: bool,
    /// It is too high because observations of NaN count as the highest.
    pub skewed: bool,
}

impl Quantile {
    fn plain(value: f64) -> Quantile {
        Quantile {
            value,
            among_nan: false,
            skewed: false,
        }
    }
}

impl Histogram {
    /// The `q` quantile.
    pub fn quantile(&self, q: f64) -> Quantile {
        if q < 0.0 {
            return Quantile::plain(f64::NEG_INFINITY);
        }
        if q > 1.0 {
            return Quantile::plain(f64::INFINITY);
        }
        if self.count == 0.0 || q.is_nan() {
            return Quantile::plain(f64::NAN);
        }
        // From the nearer end, so that rounding of the many does not hit the few.
        let upwards = self.sum.is_nan() || q < 0.5;
        let mut ranges = self.ranges();
        if !upwards {
            ranges.reverse();
        }
        let rank = if upwards { q } else { 1.0 - q } * self.count;
        let mut seen = 0.0;
        let mut hit = None;
        for range in ranges {
            seen += range.count;
            hit = Some(range);
            if seen >= rank {
                break;
            }
        }
        let Some(mut range) = hit else {
            return Quantile {
                among_nan: self.sum.is_nan(),
                ..Quantile::plain(f64::NAN)
            };
        };
        self.clip(&mut range);
        if self.is_custom() {
            if range.lower == f64::NEG_INFINITY {
                return Quantile::plain(range.upper);
            }
            if range.upper == f64::INFINITY {
                return Quantile::plain(range.lower);
            }
        }
        let seen = if seen > self.count { self.count } else { seen };
        if seen < rank {
            if self.sum.is_nan() {
                return Quantile {
                    among_nan: true,
                    ..Quantile::plain(f64::NAN)
                };
            }
            return Quantile::plain(range.upper);
        }
        let within = if upwards {
            rank - (seen - range.count)
        } else {
            seen - rank
        };
        Quantile {
            value: self.inside(&range, within / range.count),
            among_nan: false,
            skewed: self.sum.is_nan(),
        }
    }

    /// The share of observations between two values.
    pub fn fraction(&self, lower: f64, upper: f64) -> f64 {
        if self.count == 0.0 || lower.is_nan() || upper.is_nan() {
            return f64::NAN;
        }
        if lower >= upper {
            return 0.0;
        }
        let ranges = self.ranges();
        // Observations of NaN are in no bucket and in no fraction.
        let total = if self.sum.is_nan() {
            ranges.iter().map(|range| range.count).sum()
        } else {
            self.count
        };
        let below = |v| self.count_below(&ranges, v).unwrap_or(total).min(total);
        (below(upper) - below(lower)) / self.count
    }

    /// How many observations are estimated to be below a value; `None` when it lies
    /// above all buckets.
    fn count_below(&self, ranges: &[Range], v: f64) -> Option<f64> {
        let mut rank = 0.0;
        for range in ranges {
            let mut range = *range;
            self.clip(&mut range);
            if range.lower >= v {
                return Some(rank);
            }
            if range.upper > v {
                return Some(if range.lower == f64::NEG_INFINITY {
                    range.count
                } else {
                    rank + range.count * self.share_below(&range, v)
                });
            }
            rank += range.count;
        }
        None
    }

    /// Lets a bucket around zero begin or end there when nothing is on that side.
    pub(super) fn clip(&self, range: &mut Range) {
        if range.lower > 0.0 || range.upper < 0.0 {
            return;
        }
        if self.is_custom() {
            if range.lower == f64::NEG_INFINITY && range.upper > 0.0 {
                range.lower = 0.0;
            }
        } else if self.negative.is_empty() && !self.positive.is_empty() {
            range.lower = 0.0;
        } else if self.positive.is_empty() && !self.negative.is_empty() {
            range.upper = 0.0;
        }
    }

    pub(super) fn is_linear(&self, range: &Range) -> bool {
        self.is_custom() || range.lower <= 0.0 && range.upper >= 0.0
    }

    /// The value at a share of a bucket.
    fn inside(&self, range: &Range, share: f64) -> f64 {
        let Range { lower, upper, .. } = *range;
        if self.is_linear(range) {
            return lower + (upper - lower) * share;
        }
        let (low, high) = (lower.abs().log2(), upper.abs().log2());
        if lower > 0.0 {
            (low + (high - low) * share).exp2()
        } else {
            -(high + (low - high) * (1.0 - share)).exp2()
        }
    }

    /// The share of a bucket that lies below a value in it.
    pub(super) fn share_below(&self, range: &Range, v: f64) -> f64 {
        let Range { lower, upper, .. } = *range;
        if self.is_linear(range) {
            return (v - lower) / (upper - lower);
        }
        let (low, high, at) = (lower.abs().log2(), upper.abs().log2(), v.abs().log2());
        if v > 0.0 {
            (at - low) / (high - low)
        } else {
            1.0 - (at - high) / (low - high)
        }
    }

    /// The mean observation.
    pub fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// The variance, as if every observation were in the middle of its bucket.
    pub fn variance(&self) -> f64 {
        let mean = self.mean();
        let mut sum = 0.0;
        for range in self.ranges() {
            let middle = if self.is_custom() {
                (range.lower + range.upper) / 2.0
            } else if range.lower <= 0.0 && range.upper >= 0.0 {
                0.0
            } else {
                (range.lower * range.upper).sqrt().copysign(range.upper)
            };
            sum += range.count * (middle - mean) * (middle - mean);
        }
        sum / self.count
    }
}
