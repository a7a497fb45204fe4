//! The times of an evaluation, and scalars at them.

use crate::model::Timestamp;

/// The times at which something is evaluated: `count` of them, `step` apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::promql) struct Steps {
    /// The first, in milliseconds.
    pub(in crate::promql) start: i64,
    /// The distance in milliseconds; positive.
    pub(in crate::promql) step: i64,
    /// How many; at least one but for an empty subquery.
    pub(in crate::promql) count: usize,
}

impl Steps {
    /// A single time.
    pub(in crate::promql) fn one(t: Timestamp) -> Steps {
        Steps {
            start: t.as_ms(),
            step: 1,
            count: 1,
        }
    }

    /// The time of a step.
    #[inline]
    pub(in crate::promql) fn time(self, i: usize) -> i64 {
        let i = i64::try_from(i).unwrap_or(i64::MAX);
        self.start.saturating_add(self.step.saturating_mul(i))
    }

    /// The time of the last step; of no steps, the start.
    pub(in crate::promql) fn last(self) -> i64 {
        self.time(self.count.saturating_sub(1))
    }

    /// The steps that are not before `t`, one of these steps or the one after the last.
    pub(in crate::promql) fn since(self, t: i64) -> Steps {
        let skipped = usize::try_from(t.saturating_sub(self.start) / self.step).unwrap_or(0);
        Steps {
            start: t,
            count: self.count.saturating_sub(skipped),
            ..self
        }
    }

    /// The same steps, earlier.
    pub(in crate::promql) fn earlier(self, ms: i64) -> Steps {
        Steps {
            start: self.start.saturating_sub(ms),
            ..self
        }
    }
}

/// One number for each step.
#[derive(Clone, Debug)]
pub(in crate::promql) enum Scalar {
    /// The same at all steps.
    Same(f64),
    /// One for each step.
    Each(Vec<f64>),
}

impl Scalar {
    /// The number at a step.
    #[inline]
    pub(in crate::promql) fn at(&self, step: usize) -> f64 {
        match self {
            Scalar::Same(v) => *v,
            Scalar::Each(values) => values[step],
        }
    }

    /// Whether it may change from step to step.
    pub(in crate::promql) fn varies(&self) -> bool {
        matches!(self, Scalar::Each(_))
    }

    /// The distinct cases: one value or all of them.
    pub(in crate::promql) fn values(&self) -> &[f64] {
        match self {
            Scalar::Same(v) => std::slice::from_ref(v),
            Scalar::Each(values) => values,
        }
    }

    /// Applies a function to every number.
    pub(in crate::promql) fn map(self, f: impl Fn(f64) -> f64) -> Scalar {
        match self {
            Scalar::Same(v) => Scalar::Same(f(v)),
            Scalar::Each(mut values) => {
                values.iter_mut().for_each(|v| *v = f(*v));
                Scalar::Each(values)
            }
        }
    }
}
