//! The entrance: a parsed query in, a value out.
//!
//! The work is done in [`super::eval`]; here are the limits, the two kinds of
//! query and the shape of their answers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::ast::{Expr, Type};
use super::cache::RangeCache;
use super::eval::{Computed, Evaluator};
use super::features::Features;
use super::grid::{Element, Grid, Scalar, Steps, is_absent};
use super::queryable::{QueryError, Queryable};
use super::value::{Output, RangeSeries, Value, VectorSample};
use crate::model::{HistogramSample, Labels, Sample, Timestamp};

/// Limits and defaults of the engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far back an instant selector looks.
    pub lookback: Duration,
    /// The step of a subquery that names none.
    pub subquery_step: Duration,
    /// Samples that one query may hold.
    pub samples_max: usize,
    /// Series that one selector may select.
    pub series_max: usize,
    /// The parts of the language that are on.
    pub features: Features,
    /// Whether the samples that each step looks at are counted. Such a query is always
    /// evaluated whole.
    pub step_stats: bool,
    /// How many threads may read and evaluate the series of one selector.
    pub threads: usize,
    /// Whether a query that takes more than a moment, or needs a disk, is to be given up
    /// with [`QueryError::NotAtHand`] or an error of a limit.
    pub at_hand: bool,
}

/// As Prometheus: 5 minutes, 1 minute, 50 million samples, one thread.
impl Default for Options {
    fn default() -> Options {
        Options {
            lookback: Duration::from_secs(300),
            subquery_step: Duration::from_secs(60),
            samples_max: 50_000_000,
            series_max: 1_000_000,
            features: Features::default(),
            step_stats: false,
            threads: 1,
            at_hand: false,
        }
    }
}

/// The evaluator. Cheap to clone; clones share the kept answers.
#[derive(Clone, Default, Debug)]
pub struct Engine {
    /// Limits and defaults.
    pub options: Options,
    /// Answers of range queries.
    pub cache: Arc<RangeCache>,
}

/// Why a query gave no value.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The query cannot be asked in this way, whatever the data.
    #[error("invalid expression type \"{0}\" for range query, must be Scalar or instant Vector")]
    Type(&'static str),
    /// A length that waits for the query makes no sense in this one.
    #[error("{0}")]
    Length(String),
    /// The query makes no sense on this data, in Prometheus' words.
    #[error("{0}")]
    Execution(String),
    /// Reading failed, a limit was passed, or the query was cancelled.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl EvalError {
    pub(super) fn execution(message: impl Into<String>) -> EvalError {
        EvalError::Execution(message.into())
    }
}

impl Engine {
    /// The value at one time. A vector is in the order that the expression gives
    /// it, which `sort` and `topk` make use of; else it is sorted by labels.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn instant(
        &self,
        data: &dyn Queryable,
        expr: &Expr,
        t: Timestamp,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Output, EvalError> {
        let steps = Steps::one(t);
        let mut evaluator = Evaluator::new(data, &self.options, cancel, (t, t), None);
        evaluator.count_steps(steps);
        let value = if expr.value_type() == Type::Matrix {
            Value::Matrix(evaluator.raw(expr, steps)?)
        } else {
            match evaluator.eval(expr, steps)? {
                Computed::Scalar(scalar) => Value::Scalar { t, v: scalar.at(0) },
                Computed::String(v) => Value::String { t, v },
                Computed::Grid(grid) => Value::Vector {
                    t,
                    samples: elements(&grid.finish()?),
                },
            }
        };
        distinct(&value)?;
        Ok(evaluator.output(value))
    }

    /// The values at `start`, `start + step`, ... up to `end`, as a matrix
    /// sorted by labels. A step of zero, or an end before the start, is one step.
    ///
    /// # Errors
    /// See [`EvalError`]. A query that gives a text or a range vector has no
    /// value over time.
    pub fn range(
        &self,
        data: &dyn Queryable,
        expr: &Expr,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Output, EvalError> {
        let kind = expr.value_type();
        if matches!(kind, Type::String | Type::Matrix) {
            return Err(EvalError::Type(kind.as_str()));
        }
        let steps = range_steps(start, end, step);
        if steps.count > self.options.samples_max {
            return Err(QueryError::TooManySamples.into());
        }
        let version = data.version().filter(|_| !self.options.step_stats);
        let known = version.and_then(|version| {
            let changed = |since| data.changed_since(since);
            let (cache, options) = (&self.cache, &self.options);
            cache.look_up(expr, options, steps, version, changed)
        });
        let left = known.as_ref().map_or(steps, |k| steps.since(k.from));
        let query = Asked {
            times: (start, end),
            step,
            steps: left,
        };
        let output = self.matrix(data, expr, query, cancel)?;
        Ok(match known {
            Some(known) => self.cache.complete(known, steps, output),
            None => output,
        })
    }

    fn matrix(
        &self,
        data: &dyn Queryable,
        expr: &Expr,
        query: Asked,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Output, EvalError> {
        let (times, steps) = (query.times, query.steps);
        let mut evaluator = Evaluator::new(data, &self.options, cancel, times, Some(query.step));
        evaluator.count_steps(steps);
        if steps.count == 0 {
            return Ok(evaluator.output(Value::Matrix(Vec::new())));
        }
        let mut series = match evaluator.eval(expr, steps)? {
            Computed::Scalar(scalar) => vec![scalar_series(&scalar, steps)],
            Computed::String(_) => Vec::new(),
            Computed::Grid(grid) => grid_series(&grid.finish()?, steps),
        };
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        let value = Value::Matrix(series);
        distinct(&value)?;
        Ok(evaluator.output(value))
    }
}

/// A range query: what was asked, and the steps that are to be evaluated.
struct Asked {
    times: (Timestamp, Timestamp),
    step: Duration,
    steps: Steps,
}

fn range_steps(start: Timestamp, end: Timestamp, step: Duration) -> Steps {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let span = end.ms_since(start).max(0);
    Steps {
        start: start.as_ms(),
        step,
        count: usize::try_from(span / step).map_or(usize::MAX, |n| n.saturating_add(1)),
    }
}

fn elements(grid: &Grid) -> Vec<VectorSample> {
    let rows = grid.rows().iter().enumerate();
    rows.map(|(i, row)| VectorSample {
        labels: row.labels(),
        v: match grid.value(i, 0) {
            v if is_absent(v) => 0.0,
            v => v,
        },
        histogram: match grid.element(i, 0) {
            Element::Histogram(h) => Some(h),
            _ => None,
        },
    })
    .collect()
}

fn scalar_series(scalar: &Scalar, steps: Steps) -> RangeSeries {
    let samples = (0..steps.count).map(|i| Sample::new(steps.time(i), scalar.at(i)));
    RangeSeries {
        labels: Labels::empty(),
        samples: samples.collect(),
        histograms: Vec::new(),
    }
}

fn grid_series(grid: &Grid, steps: Steps) -> Vec<RangeSeries> {
    let rows = grid.rows().iter().enumerate();
    rows.map(|(i, row)| RangeSeries {
        labels: row.labels(),
        samples: samples(grid, i, steps),
        histograms: histograms(grid, i, steps),
    })
    .collect()
}

/// A row's values with their times.
pub(super) fn samples(grid: &Grid, row: usize, steps: Steps) -> Vec<Sample> {
    let first = grid.rows()[row].first;
    grid.cells(row)
        .iter()
        .enumerate()
        .filter(|(_, v)| !is_absent(**v))
        .map(|(i, v)| Sample::new(steps.time(first + i), *v))
        .collect()
}

/// A row's histograms with their times.
pub(super) fn histograms(grid: &Grid, row: usize, steps: Steps) -> Vec<HistogramSample> {
    let all = grid.rows()[row].histograms().iter();
    all.map(|(step, h)| HistogramSample {
        t: Timestamp::from_ms(steps.time(*step)),
        h: h.clone(),
    })
    .collect()
}

/// A result names each series once.
fn distinct(value: &Value) -> Result<(), EvalError> {
    let labels: Vec<&Labels> = match value {
        Value::Vector { samples, .. } => samples.iter().map(|s| &s.labels).collect(),
        Value::Matrix(series) => series.iter().map(|s| &s.labels).collect(),
        _ => return Ok(()),
    };
    let mut seen = hashbrown::HashSet::with_capacity(labels.len());
    if labels.into_iter().all(|l| seen.insert(l)) {
        Ok(())
    } else {
        Err(super::eval::same_labels())
    }
}
