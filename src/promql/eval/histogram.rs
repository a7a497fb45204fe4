//! Functions of histograms: classic ones, which are series with a bucket's upper
//! bound in `le`, and native ones.

use super::super::ast::{Expr, Span};
use super::super::grid::{
    Element, Grid, Groups, Row, Scalar, Steps, absent, is_absent, write_pair,
};
use super::super::histogram::{Bucket, fraction, quantile};
use super::super::literal::GoFloat;
use super::{EvalError, Evaluator, Result};
use crate::model::LabelsBuilder;
use crate::model::labels::METRIC_NAME;

const LE: &str = "le";

/// The buckets of one histogram: bound and row, ascending in the bound.
struct Histogram {
    /// A row to take the labels from.
    row: usize,
    buckets: Vec<(f64, usize)>,
}

impl Evaluator<'_> {
    pub(super) fn histogram_quantile(&mut self, args: &[Expr], steps: Steps) -> Result<Grid> {
        let q = self.scalar(&args[0], steps)?;
        let grid = self.vector(&args[1], steps)?;
        for v in q.values() {
            self.annotations.quantile(*v, args[0].span);
        }
        let (grid, histograms) = self.histograms(grid, args[1].span);
        self.quantile_of(&q, &grid, &histograms, (args[1].span, steps))
    }

    /// Several quantiles, each with its own value of a label.
    pub(super) fn histogram_quantiles(&mut self, args: &[Expr], steps: Steps) -> Result<Grid> {
        let span = args[0].span;
        let grid = self.vector(&args[0], steps)?;
        let label = self.text(&args[1], steps)?;
        if label.is_empty() {
            let message = "invalid label name in histogram_quantiles(): ";
            return Err(EvalError::execution(message));
        }
        let (grid, histograms) = self.histograms(grid, span);
        let mut result = Grid::default();
        for arg in &args[2..] {
            let q = self.scalar(arg, steps)?;
            for v in q.values() {
                self.annotations.quantile(*v, arg.span);
            }
            // A quantile that varies is another series for each of its values.
            let mut values: Vec<f64> = q.values().to_vec();
            values.sort_unstable_by(f64::total_cmp);
            values.dedup_by_key(|v| v.to_bits());
            for value in values {
                let mut one =
                    self.quantile_of(&Scalar::Same(value), &grid, &histograms, (span, steps))?;
                if q.varies() {
                    one.map_steps(|step, v| {
                        if q.at(step).to_bits() == value.to_bits() {
                            v
                        } else {
                            absent()
                        }
                    });
                }
                one.relabel(|row| {
                    let text = open_metrics_float(value);
                    row.labels().to_builder().set(&label, &text).build()
                });
                result.append(&one);
            }
        }
        Ok(result.join_same()?)
    }

    fn quantile_of(
        &mut self,
        q: &Scalar,
        grid: &Grid,
        histograms: &[Histogram],
        (span, steps): (Span, Steps),
    ) -> Result<Grid> {
        let mut forced = Vec::new();
        let mut result = per_histogram(grid, histograms, steps, |histogram, step, buckets| {
            let (v, fixed) = quantile(q.at(step), buckets);
            if fixed {
                forced.push(histogram.row);
            }
            v
        })?;
        forced.dedup();
        for row in forced {
            let metric = grid.rows()[row].value(METRIC_NAME).to_owned();
            self.annotations.forced_monotonic(&metric, span);
        }
        let notes = &mut self.annotations;
        self::native(grid, steps, &mut result, &mut |metric, step, h| {
            let quantile = h.quantile(q.at(step));
            if quantile.among_nan {
                notes.nan_in_quantile("NaN", metric, span);
            } else if quantile.skewed {
                notes.nan_in_quantile("skewed higher", metric, span);
            }
            quantile.value
        });
        Ok(result.join_same()?)
    }

    pub(super) fn histogram_fraction(&mut self, args: &[Expr], steps: Steps) -> Result<Grid> {
        let lower: Scalar = self.scalar(&args[0], steps)?;
        let upper: Scalar = self.scalar(&args[1], steps)?;
        let grid = self.vector(&args[2], steps)?;
        let span = args[2].span;
        let (grid, histograms) = self.histograms(grid, span);
        let mut result = per_histogram(&grid, &histograms, steps, |_, step, buckets| {
            fraction(lower.at(step), upper.at(step), buckets)
        })?;
        let notes = &mut self.annotations;
        self::native(&grid, steps, &mut result, &mut |metric, step, h| {
            if h.sum.is_nan() {
                notes.nan_in_fraction(metric, span);
            }
            h.fraction(lower.at(step), upper.at(step))
        });
        Ok(result.join_same()?)
    }

    /// Puts the buckets of each classic histogram together. Where there is a native
    /// one of the same labels at the same step, neither is left.
    fn histograms(&mut self, mut grid: Grid, span: Span) -> (Grid, Vec<Histogram>) {
        let histograms = self.classic(&grid, span);
        if !grid.has_histograms() {
            return (grid, histograms);
        }
        let mut both: Vec<(usize, usize)> = Vec::new();
        for histogram in &histograms {
            let own = own_labels(&grid.rows()[histogram.row]);
            let same = |row: &Row| !row.histograms().is_empty() && row.labels() == own;
            for (i, row) in grid.rows().iter().enumerate().filter(|(_, r)| same(r)) {
                let at = |step| {
                    let mut buckets = histogram.buckets.iter();
                    buckets.any(|(_, bucket)| !is_absent(grid.value(*bucket, step)))
                };
                let steps = row.histograms().iter().map(|(step, _)| *step);
                for step in steps.filter(|step| at(*step)) {
                    both.push((i, step));
                    both.extend(histogram.buckets.iter().map(|(_, bucket)| (*bucket, step)));
                    let metric = row.value(METRIC_NAME);
                    self.annotations.mixed_classic(metric, span);
                }
            }
        }
        grid.map_histograms(&mut |row, step, h| (!both.contains(&(row, step))).then(|| h.clone()));
        grid.map_in_place(|row, step, v| {
            if both.contains(&(row, step)) {
                absent()
            } else {
                v
            }
        });
        (grid, histograms)
    }

    /// The classic histograms of the numbers.
    fn classic(&mut self, grid: &Grid, span: Span) -> Vec<Histogram> {
        let mut groups = Groups::new();
        let mut histograms: Vec<Histogram> = Vec::new();
        let numbers = grid.rows().iter().enumerate();
        for (i, row) in numbers.filter(|(_, row)| row.len > 0) {
            let le = row.value(LE);
            let Some(bound) = parse_bound(le) else {
                self.annotations
                    .bad_bucket(row.value(METRIC_NAME), le, span);
                continue;
            };
            let group = groups.assign(|key| {
                for (name, value) in row.pairs().filter(|(name, _)| *name != LE) {
                    write_pair(key, name, value);
                }
            });
            if group == histograms.len() {
                let buckets = Vec::new();
                histograms.push(Histogram { row: i, buckets });
            }
            histograms[group].buckets.push((bound, i));
        }
        for histogram in &mut histograms {
            histogram.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        histograms
    }
}

/// Adds a row for each series with native histograms.
fn native(
    grid: &Grid,
    steps: Steps,
    result: &mut Grid,
    f: &mut dyn FnMut(&str, usize, &crate::model::Histogram) -> f64,
) {
    for row in grid
        .rows()
        .iter()
        .filter(|row| !row.histograms().is_empty())
    {
        let mut elements = vec![Element::Absent; steps.count];
        for (step, h) in row.histograms() {
            elements[*step] = Element::Float(f(row.value(METRIC_NAME), *step, h));
        }
        result.push_elements(&row.full_labels().without(METRIC_NAME), elements);
    }
}

/// Calls `f` with the buckets that each histogram has at each step.
fn per_histogram(
    grid: &Grid,
    histograms: &[Histogram],
    steps: Steps,
    mut f: impl FnMut(&Histogram, usize, &mut Vec<Bucket>) -> f64,
) -> Result<Grid> {
    let mut result = Grid::default();
    let mut buckets = Vec::new();
    for histogram in histograms {
        let labels = labels(&grid.rows()[histogram.row]);
        result.push(std::borrow::Cow::Owned(labels), 0, |cells| {
            for step in 0..steps.count {
                buckets.clear();
                let present = histogram.buckets.iter().filter_map(|(bound, row)| {
                    let count = grid.value(*row, step);
                    (!is_absent(count)).then_some(Bucket {
                        bound: *bound,
                        count,
                    })
                });
                buckets.extend(present);
                cells.push(if buckets.is_empty() {
                    absent()
                } else {
                    f(histogram, step, &mut buckets)
                });
            }
        });
    }
    Ok(result.join_same()?)
}

/// As OpenMetrics writes a float: a whole number has one decimal.
fn open_metrics_float(v: f64) -> String {
    let text = GoFloat(v).to_string();
    let whole = text.bytes().all(|b| b == b'-' || b.is_ascii_digit());
    if whole { text + ".0" } else { text }
}

/// The labels that a native histogram of the same name would have.
fn own_labels(row: &Row) -> crate::model::Labels {
    row.labels().without(LE)
}

/// The histogram's own labels.
fn labels(row: &Row) -> crate::model::Labels {
    let mut builder = LabelsBuilder::default();
    for (name, value) in row.pairs() {
        if name != LE && name != METRIC_NAME {
            builder.set(name, value);
        }
    }
    builder.build()
}

/// A bucket's upper bound as Go reads a float.
fn parse_bound(le: &str) -> Option<f64> {
    le.parse().ok()
}
