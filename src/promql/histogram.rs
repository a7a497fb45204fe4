//! Quantiles and fractions of cumulative buckets, linear within a bucket.

/// A bucket of a classic histogram.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Bucket {
    /// The upper bound, included.
    pub(super) bound: f64,
    /// How many observations were not above it.
    pub(super) count: f64,
}

use super::math::almost_equal;

/// Counts that fall by less than this fell by rounding.
const SMALL_DELTA: f64 = 1e-12;

/// The `q` quantile of buckets that are sorted by bound, and whether falling
/// counts had to be lifted for it. Changes the buckets.
pub(super) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if q > 1.0 {
        return (f64::INFINITY, false);
    }
    if !ends_at_infinity(buckets) {
        return (f64::NAN, false);
    }
    coalesce(buckets);
    let forced = make_monotonic(buckets);
    (monotonic_quantile(q, buckets), forced)
}

fn monotonic_quantile(q: f64, buckets: &[Bucket]) -> f64 {
    let [.., before_last, last] = buckets else {
        return f64::NAN;
    };
    if last.count == 0.0 || last.count.is_nan() {
        return f64::NAN;
    }
    let rank = q * last.count;
    let finite = &buckets[..buckets.len() - 1];
    let at = finite.partition_point(|b| b.count < rank);
    let Some(bucket) = finite.get(at) else {
        // Nobody knows how far above the last bound the observations are.
        return before_last.bound;
    };
    match at.checked_sub(1).map(|below| finite[below]) {
        None if bucket.bound <= 0.0 => bucket.bound,
        None => bucket.bound * (rank / bucket.count),
        Some(below) => {
            let within = (rank - below.count) / (bucket.count - below.count);
            below.bound + (bucket.bound - below.bound) * within
        }
    }
}

/// The fraction of observations between two values, for buckets sorted by bound.
pub(super) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !ends_at_infinity(buckets) {
        return f64::NAN;
    }
    coalesce(buckets);
    let total = buckets[buckets.len() - 1].count;
    if total == 0.0 || total.is_nan() || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets) - rank_of(lower, buckets)) / total
}

/// How many observations are estimated to be below a value.
fn rank_of(v: f64, buckets: &[Bucket]) -> f64 {
    let total = buckets[buckets.len() - 1].count;
    let at = buckets.partition_point(|b| b.bound <= v);
    let below = at.checked_sub(1).map(|at| buckets[at]);
    let Some(bucket) = buckets.get(at) else {
        return total;
    };
    let (low, rank) = match below {
        Some(below) => (below.bound, below.count),
        // As for quantiles: positive observations begin at zero.
        None if bucket.bound > 0.0 => (0.0, 0.0),
        None => (f64::NEG_INFINITY, 0.0),
    };
    if v <= low || bucket.bound.is_infinite() {
        return rank.min(total);
    }
    if low.is_infinite() {
        // Nobody knows how far below the observations are: as in Prometheus, none is.
        return bucket.count.min(total);
    }
    (rank + (bucket.count - rank) * (v - low) / (bucket.bound - low)).min(total)
}

fn ends_at_infinity(buckets: &[Bucket]) -> bool {
    buckets.last().is_some_and(|b| b.bound == f64::INFINITY)
}

/// Joins buckets with equal bounds, such as those of `le="1"` and `le="1.0"`.
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// Lifts counts that are below their predecessor's; says whether one was below
/// by more than rounding.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut forced = false;
    let mut previous = f64::NEG_INFINITY;
    for (i, bucket) in buckets.iter_mut().enumerate() {
        if i > 0 && almost_equal(previous, bucket.count, SMALL_DELTA) {
            bucket.count = previous;
        } else if bucket.count < previous {
            bucket.count = previous;
            forced = true;
        }
        previous = bucket.count;
    }
    forced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        let bucket = |(bound, count): &(f64, f64)| Bucket {
            bound: *bound,
            count: *count,
        };
        pairs.iter().map(bucket).collect()
    }

    #[test]
    fn quantiles_are_linear_within_a_bucket() {
        let all = [(1.0, 10.0), (2.0, 30.0), (f64::INFINITY, 40.0)];
        let check = |q: f64, want: f64| assert_eq!(quantile(q, &mut buckets(&all)).0, want);
        check(0.125, 0.5); // rank 5 of the first 10, which begin at 0
        check(0.5, 1.5); // rank 20: half of the 20 between 1 and 2
        check(1.0, 2.0); // above the last bound
        check(-0.1, f64::NEG_INFINITY);
        check(1.1, f64::INFINITY);
    }

    #[test]
    fn a_missing_infinite_bucket_gives_nan() {
        assert!(
            quantile(0.5, &mut buckets(&[(1.0, 1.0), (2.0, 2.0)]))
                .0
                .is_nan()
        );
        assert!(
            quantile(0.5, &mut buckets(&[(f64::INFINITY, 2.0)]))
                .0
                .is_nan()
        );
    }

    #[test]
    fn falling_counts_are_lifted() {
        let mut falling = buckets(&[(1.0, 10.0), (2.0, 5.0), (f64::INFINITY, 20.0)]);
        assert!(quantile(0.5, &mut falling).1);
        let mut rounding = buckets(&[(1.0, 10.0), (2.0, 10.0 - 1e-13), (f64::INFINITY, 20.0)]);
        assert!(!quantile(0.5, &mut rounding).1);
    }

    #[test]
    fn fractions_are_linear_within_a_bucket() {
        let all = [(1.0, 10.0), (2.0, 30.0), (f64::INFINITY, 40.0)];
        let check = |a: f64, b: f64, want: f64| {
            assert_eq!(fraction(a, b, &mut buckets(&all)), want, "{a} to {b}");
        };
        check(0.0, 1.0, 0.25);
        check(0.5, 1.5, (20.0 - 5.0) / 40.0);
        check(2.0, f64::INFINITY, 0.25);
        check(f64::NEG_INFINITY, f64::INFINITY, 1.0);
        check(2.0, 1.0, 0.0);
    }
}
