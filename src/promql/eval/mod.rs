//! The evaluator: one method call evaluates one node for all steps.
//!
//! Owns nothing. A selector is read once for the whole range and turned, series
//! by series, into one row of values, so raw samples are held only while their
//! series is at hand; functions and operators then work on rows. What is held
//! is counted: raw samples of the series at hand are the store's affair, values
//! of results are counted here against `samples_max`.
//!
//! It must never panic on a tree that the parser made, or run long without a
//! look at the cancel flag. Recursion is bounded by the parser's limits; a chain
//! of operators is a loop.

mod aggregate;
mod aggregate_native;
mod binary;
mod call;
mod count_values;
mod fold;
mod histogram;
mod info;
mod latest;
mod native;
mod read;
mod reduce;
mod relabel;
mod select;
mod sets;
mod sort;
mod sums;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::annotations::Annotations;
use super::ast::{At, Expr, ExprKind};
use super::engine::{EvalError, Options};
use super::grid::{Grid, SameLabels, Scalar, Steps};
use super::length::{Length, QueryLengths};
use super::queryable::{Gaps, QueryError, Queryable};
use super::value::{Output, Value};
use crate::model::Timestamp;
use tally::Tally;

type Result<T> = std::result::Result<T, EvalError>;

/// The value of a node over all steps.
pub(super) enum Computed {
    Scalar(Scalar),
    String(String),
    Grid(Grid),
}

impl Computed {
    /// How many values it holds.
    fn size(&self) -> usize {
        match self {
            Computed::Scalar(scalar) => scalar.values().len(),
            Computed::String(_) => 0,
            Computed::Grid(grid) => grid.size(),
        }
    }
}

/// Evaluates one query.
pub(super) struct Evaluator<'a> {
    data: &'a dyn Queryable,
    options: &'a Options,
    cancel: &'a Arc<AtomicBool>,
    /// What `@ start()` and `@ end()` mean, also inside subqueries. The end need
    /// not be a step.
    query: (Timestamp, Timestamp),
    /// The step of a range query.
    step: Option<Duration>,
    annotations: Annotations,
    gaps: Gaps,
    samples_read: u64,
    tally: Tally,
    /// Values held by finished nodes whose result is still needed.
    held: usize,
    /// The most that was held so far.
    peak: usize,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(
        data: &'a dyn Queryable,
        options: &'a Options,
        cancel: &'a Arc<AtomicBool>,
        query: (Timestamp, Timestamp),
        step: Option<Duration>,
    ) -> Evaluator<'a> {
        Evaluator {
            data,
            options,
            cancel,
            query,
            step,
            annotations: Annotations::default(),
            gaps: Gaps::default(),
            samples_read: 0,
            tally: Tally::default(),
            held: 0,
            peak: 0,
        }
    }

    /// Counts the samples that each of the query's steps looks at, if it is to be told.
    pub(super) fn count_steps(&mut self, steps: Steps) {
        if self.options.step_stats {
            self.tally = Tally::of(steps.count);
        }
    }

    /// The value with what was noticed on the way.
    pub(super) fn output(self, value: Value) -> Output {
        let mut warnings = self.annotations.warnings;
        let gaps = self.gaps.all();
        let is_incomplete = !gaps.is_empty();
        warnings.extend(gaps);
        Output {
            value,
            warnings,
            infos: self.annotations.infos,
            is_incomplete,
            samples_read: self.samples_read,
            step_samples: self.tally.finished(),
            samples_peak: self.peak,
        }
    }

    /// Evaluates a node and counts what its result holds.
    pub(super) fn eval(&mut self, expr: &Expr, steps: Steps) -> Result<Computed> {
        self.check_cancel()?;
        let before = self.held;
        let computed = self.node(expr, steps)?;
        // What the operands held is gone with them.
        self.held = before;
        self.hold(computed.size())?;
        Ok(computed)
    }

    fn node(&mut self, expr: &Expr, steps: Steps) -> Result<Computed> {
        match &expr.kind {
            ExprKind::Number(number) => Ok(Computed::Scalar(Scalar::Same(number.value))),
            ExprKind::String(text) => Ok(Computed::String(text.clone())),
            ExprKind::Selector(selector) => {
                self.instant(selector, steps, false).map(Computed::Grid)
            }
            ExprKind::Call(call) => self.call(call, expr.span, steps),
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, steps).map(Computed::Grid),
            ExprKind::Binary(binary) => self.binary(binary, expr.span, steps),
            ExprKind::Unary(unary) => {
                let computed = self.eval(&unary.expr, steps)?;
                if unary.negative {
                    self.negate(computed)
                } else {
                    Ok(computed)
                }
            }
            ExprKind::Paren(inner) => self.eval(inner, steps),
            // The parser lets range vectors only where a function takes them.
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => {
                Err(EvalError::execution("range vector is not allowed here"))
            }
        }
    }

    /// Evaluates a node that the parser found to be a vector.
    fn vector(&mut self, expr: &Expr, steps: Steps) -> Result<Grid> {
        match self.eval(expr, steps)? {
            Computed::Grid(grid) => Ok(grid),
            _ => Err(EvalError::execution("expected an instant vector")),
        }
    }

    /// The same for what knows numbers only: it does not see histograms.
    fn floats(&mut self, expr: &Expr, steps: Steps) -> Result<Grid> {
        Ok(self.vector(expr, steps)?.without_histograms())
    }

    /// Evaluates a node that the parser found to be a scalar.
    fn scalar(&mut self, expr: &Expr, steps: Steps) -> Result<Scalar> {
        match self.eval(expr, steps)? {
            Computed::Scalar(scalar) => Ok(scalar),
            _ => Err(EvalError::execution("expected a scalar")),
        }
    }

    /// The text of a node that the parser found to be a string.
    fn text(&mut self, expr: &Expr, steps: Steps) -> Result<String> {
        match self.eval(expr, steps)? {
            Computed::String(text) => Ok(text),
            _ => Err(EvalError::execution("expected a string")),
        }
    }

    /// Takes the names off, or lets them go at the end of the query.
    fn drop_names(&self, mut grid: Grid) -> Result<Grid> {
        if self.options.features.delayed_name_removal {
            grid.drop_names_later();
            return Ok(grid);
        }
        Ok(grid.drop_names()?)
    }

    /// Changes the sign; the result is another metric.
    fn negate(&self, computed: Computed) -> Result<Computed> {
        Ok(match computed {
            Computed::Scalar(scalar) => Computed::Scalar(scalar.map(|v| -v)),
            Computed::Grid(mut grid) => {
                native::scale(&mut grid, -1.0);
                grid.map(|v| -v);
                Computed::Grid(if self.options.features.delayed_name_removal {
                    self.drop_names(grid)?
                } else {
                    grid.drop_names_strict()?
                })
            }
            Computed::String(text) => Computed::String(text),
        })
    }

    /// The fixed time of an `@`.
    fn fixed_time(&self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Time(t) => t.as_ms(),
            At::Start => self.query.0.as_ms(),
            At::End => self.query.1.as_ms(),
        })
    }

    /// The milliseconds of a length that may depend on the query.
    fn length(&self, length: &Length) -> Result<i64> {
        match &length.expr {
            Some(expr) if expr.depends_on_query() => {
                expr.ms(self.query_lengths()).map_err(EvalError::Length)
            }
            _ => Ok(length.ms),
        }
    }

    /// The same where nothing and less make no sense.
    fn positive_length(&self, length: &Length) -> Result<i64> {
        match self.length(length)? {
            ms if ms <= 0 => {
                let text = "duration must be greater than 0";
                Err(EvalError::Length(text.to_owned()))
            }
            ms => Ok(ms),
        }
    }

    /// What `step()` and `range()` mean.
    fn query_lengths(&self) -> QueryLengths {
        QueryLengths {
            step: self.step.unwrap_or_default().as_secs_f64(),
            range: self.query.1.ms_since(self.query.0) as f64 / 1000.0,
        }
    }

    fn check_cancel(&self) -> std::result::Result<(), QueryError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(QueryError::Cancelled);
        }
        Ok(())
    }

    /// Counts values that stay in memory.
    fn hold(&mut self, count: usize) -> Result<()> {
        self.held = self.held.saturating_add(count);
        self.peak = self.peak.max(self.held);
        if self.held > self.options.samples_max {
            return Err(QueryError::TooManySamples.into());
        }
        Ok(())
    }
}

/// The error of two series with the same labels in one vector.
pub(super) fn same_labels() -> EvalError {
    EvalError::execution("vector cannot contain metrics with the same labelset")
}

impl From<SameLabels> for EvalError {
    fn from(_: SameLabels) -> EvalError {
        same_labels()
    }
}
