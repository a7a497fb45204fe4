//! Selectors: from stored samples to rows.

use std::borrow::Cow;

use super::super::annotations::Annotations;
use super::super::ast::{Bounds, Expr, ExprKind, Matrix, Selector, Span, Subquery};
use super::super::engine::{histograms, samples};
use super::super::grid::{Element, Grid, Scalar, Steps, absent};
use super::super::queryable::{Fold, QueryError};
use super::super::value::RangeSeries;
use super::super::window::{self, Mixed, Plan, Points, WindowFunction, Windows};
use super::latest::{latest, latest_mixed};
use super::read::Wanted;
use super::reduce;
use super::{Evaluator, Result};
use crate::model::labels::METRIC_NAME;
use crate::model::{HistogramSample, Labels, Sample, Timestamp, is_stale_nan};

/// What the windows of a series probably hold all together, when it is quick to see.
const AT_HAND_LOOKS_MAX: usize = 8 << 10;

/// A function of windows with its parameters.
pub(super) struct WindowCall<'a> {
    pub(super) function: WindowFunction,
    pub(super) params: &'a [Scalar],
    /// Where the range stands in the query.
    pub(super) place: Span,
}

impl Evaluator<'_> {
    /// The value of each series at each step: its latest sample within the
    /// lookback that is not a staleness marker, or that sample's time in seconds.
    pub(super) fn instant(
        &mut self,
        selector: &Selector,
        steps: Steps,
        times: bool,
    ) -> Result<Grid> {
        let fixed = self.fixed_time(selector.at);
        let looks = match fixed {
            Some(t) => Steps::one(Timestamp::from_ms(t)),
            None => steps,
        }
        .earlier(self.length(&selector.offset)?);
        let lookback = self.lookback_ms();
        let from = looks.start.saturating_sub(lookback).saturating_add(1);
        let smoothed = selector.bounds == Bounds::Smoothed;
        let ahead = if smoothed { lookback } else { 0 };
        let to = looks.last().saturating_add(ahead);
        let mut wanted = Wanted {
            matchers: &selector.matchers,
            range: (from, to),
            newest_only: looks.count == 1 && !smoothed,
            reduce: None,
            any_times: false,
        };
        let grid_ms = if smoothed {
            1
        } else {
            reduce::grid_of_looks(looks)
        };
        let gaps = self.reduce(&mut wanted, Fold::Last, grid_ms);
        wanted.range.0 = from.saturating_sub(gaps.longest_ms());
        let grid = self.rows(&wanted, &|part, labels, samples, native| {
            if !native.is_empty() && !smoothed {
                let at = |i| latest_mixed(samples, native, looks.time(i), lookback, times);
                let elements = (0..looks.count).map(at).collect();
                part.grid.push_elements(labels, elements);
                return;
            }
            part.grid.push(Cow::Borrowed(labels), 0, |cells| {
                if smoothed && !times {
                    let samples = without_stale(samples, &mut part.buffer);
                    let at = |i| window::smoothed_at(samples, looks.time(i), lookback);
                    cells.extend((0..looks.count).map(|i| at(i).unwrap_or_else(absent)));
                } else {
                    let reach = |t| lookback.saturating_add(gaps.gap_ms(t));
                    latest(samples, looks, reach, times, cells);
                }
            });
        })?;
        let grid = if fixed.is_some() {
            grid.repeat(steps.count)
        } else {
            grid
        };
        self.tally.found(&grid, steps);
        Ok(grid)
    }

    /// A function of the windows of a range selector or subquery. Names stay.
    pub(super) fn windowed(
        &mut self,
        range: &Expr,
        call: &WindowCall<'_>,
        steps: Steps,
    ) -> Result<Grid> {
        match &range.without_parens().kind {
            ExprKind::Matrix(matrix) => {
                let windows = self.matrix_windows(matrix, steps)?;
                let (windows, repeat) = once_if_fixed(windows, call);
                let grid = self.windowed_selector(&matrix.selector, call, &windows)?;
                Ok(grid.repeat(repeat))
            }
            ExprKind::Subquery(subquery) => {
                let windows = self.subquery_windows(subquery, steps)?;
                let (windows, repeat) = once_if_fixed(windows, call);
                let grid = self.windowed_subquery(subquery, call, &windows)?;
                Ok(grid.repeat(repeat))
            }
            _ => Err(super::EvalError::execution("expected a range vector")),
        }
    }

    fn windowed_selector(
        &mut self,
        selector: &Selector,
        call: &WindowCall<'_>,
        windows: &Windows,
    ) -> Result<Grid> {
        if call.function == WindowFunction::Avg
            && let Some(grid) = self.rolled_mean(selector, call, windows)?
        {
            return Ok(grid);
        }
        let mut wanted = Wanted::all(selector, windows);
        // What is read is then just what the one window holds.
        wanted.any_times = call.function.looks_at_values_only()
            && windows.steps.count == 1
            && windows.bounds == Bounds::Inside;
        let function = self.reduce_windows(&mut wanted, call.function, windows);
        let call = &WindowCall { function, ..*call };
        self.windows_of(&wanted, call, windows)
    }

    /// A function of the windows of what is read.
    pub(super) fn windows_of(
        &mut self,
        wanted: &Wanted<'_>,
        call: &WindowCall<'_>,
        windows: &Windows,
    ) -> Result<Grid> {
        self.check_windows(windows)?;
        let tally = std::mem::take(&mut self.tally);
        let grid = self.rows(wanted, &|part, labels, samples, native| {
            let rising = call
                .function
                .is_of_counters()
                .then(|| Points::rising(samples));
            let points = match rising.flatten() {
                Some(points) => points,
                None => Points::of(without_stale(samples, &mut part.buffer)),
            };
            let samples = points.samples;
            tally.windows(windows, samples, native);
            if !native.is_empty() && windows.bounds == Bounds::Inside {
                let series = call.on(samples, native, labels.value(METRIC_NAME));
                let elements = call.elements(windows, &series, &mut part.notes);
                part.grid.push_elements(labels, elements);
                return;
            }
            part.grid.push(Cow::Borrowed(labels), 0, |cells| {
                let plan = &mut part.plan;
                window::apply(call.function, call.params, windows, points, plan, cells);
            });
        });
        self.tally = tally;
        grid
    }

    /// Gives up when the windows look at too much to be done at hand.
    fn check_windows(&self, windows: &Windows) -> Result<()> {
        let each = usize::try_from(windows.range_ms / 10_000).unwrap_or(usize::MAX);
        let looks = windows.steps.count.saturating_mul(each.saturating_add(1));
        if self.options.at_hand && looks > AT_HAND_LOOKS_MAX {
            return Err(QueryError::NotAtHand.into());
        }
        Ok(())
    }

    fn windowed_subquery(
        &mut self,
        subquery: &Subquery,
        call: &WindowCall<'_>,
        windows: &Windows,
    ) -> Result<Grid> {
        self.check_windows(windows)?;
        let before = self.held;
        let (inner, steps) = self.subquery(subquery, windows)?;
        let mut grid = Grid::default();
        let mut plan = Plan::default();
        for (i, row) in inner.rows().iter().enumerate() {
            self.check_cancel()?;
            let samples = samples(&inner, i, steps);
            let native = histograms(&inner, i, steps);
            self.tally.windows(windows, &samples, &native);
            if !native.is_empty() {
                let series = call.on(&samples, &native, row.value(METRIC_NAME));
                let elements = call.elements(windows, &series, &mut self.annotations);
                grid.push_elements_like(row, elements);
                continue;
            }
            grid.push_like(row, 0, |cells| {
                let (plan, points) = (&mut plan, Points::of(&samples));
                window::apply(call.function, call.params, windows, points, plan, cells);
            });
        }
        self.held = before;
        Ok(grid)
    }

    /// The inner expression at the subquery's own steps, which are multiples of
    /// its step whatever the steps of the query are.
    fn subquery(&mut self, subquery: &Subquery, windows: &Windows) -> Result<(Grid, Steps)> {
        let step = match &subquery.step {
            Some(step) => self.positive_length(step)?,
            None => i64::try_from(self.options.subquery_step.as_millis())
                .unwrap_or(i64::MAX)
                .max(1),
        };
        let (from, to) = windows.reach();
        let below = Timestamp::from_ms(from.saturating_sub(1)).floor_to(step);
        let start = below.plus_ms(step).as_ms();
        let count = if start > to {
            0
        } else {
            usize::try_from((to - start) / step).map_or(usize::MAX, |n| n.saturating_add(1))
        };
        let steps = Steps { start, step, count };
        if count > self.options.samples_max {
            return Err(QueryError::TooManySamples.into());
        }
        if count == 0 {
            return Ok((Grid::default(), steps));
        }
        // Its own steps are not those of the query.
        let tally = std::mem::take(&mut self.tally);
        let inner = self.vector(&subquery.expr, steps);
        self.tally = tally;
        Ok((inner?, steps))
    }

    /// The samples of a range expression at one time, for an instant query of it.
    pub(in super::super) fn raw(&mut self, expr: &Expr, steps: Steps) -> Result<Vec<RangeSeries>> {
        let mut series = Vec::new();
        match &expr.without_parens().kind {
            ExprKind::Matrix(matrix) => {
                let selector = &matrix.selector;
                let windows = self.matrix_windows(matrix, steps)?;
                let mut held = 0;
                let mut take = |labels: &Labels, samples: &[Sample], native: &[HistogramSample]| {
                    let mut fresh = Vec::new();
                    let samples = without_stale(samples, &mut fresh).to_vec();
                    held += samples.len() + native.iter().map(|s| s.h.size()).sum::<usize>();
                    if !samples.is_empty() || !native.is_empty() {
                        series.push(RangeSeries {
                            labels: labels.clone(),
                            samples,
                            histograms: native.to_vec(),
                        });
                    }
                    held
                };
                let mut wanted = Wanted::all(selector, &windows);
                self.reduce(&mut wanted, Fold::Last, 1);
                self.visit(&wanted, &mut [&mut take])?;
                for one in &series {
                    self.tally.windows(&windows, &one.samples, &one.histograms);
                }
            }
            ExprKind::Subquery(subquery) => {
                let windows = self.subquery_windows(subquery, steps)?;
                let (grid, steps) = self.subquery(subquery, &windows)?;
                let grid = grid.finish()?;
                let rows = grid.rows().iter().enumerate();
                series.extend(rows.map(|(i, row)| RangeSeries {
                    labels: row.labels(),
                    samples: samples(&grid, i, steps),
                    histograms: histograms(&grid, i, steps),
                }));
                for one in &series {
                    self.tally.windows(&windows, &one.samples, &one.histograms);
                }
            }
            _ => return Err(super::EvalError::execution("expected a range vector")),
        }
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(series)
    }

    fn matrix_windows(&self, matrix: &Matrix, steps: Steps) -> Result<Windows> {
        let selector = &matrix.selector;
        Ok(Windows {
            steps,
            fixed: self.fixed_time(selector.at),
            offset_ms: self.length(&selector.offset)?,
            range_ms: self.positive_length(&matrix.range)?,
            bounds: selector.bounds,
            lookback_ms: self.lookback_ms(),
        })
    }

    fn subquery_windows(&self, subquery: &Subquery, steps: Steps) -> Result<Windows> {
        Ok(Windows {
            steps,
            fixed: self.fixed_time(subquery.at),
            offset_ms: self.length(&subquery.offset)?,
            range_ms: self.positive_length(&subquery.range)?,
            bounds: Bounds::Inside,
            lookback_ms: 0,
        })
    }

    fn lookback_ms(&self) -> i64 {
        i64::try_from(self.options.lookback.as_millis()).unwrap_or(i64::MAX)
    }
}

impl WindowCall<'_> {
    fn on<'s>(
        &self,
        samples: &'s [Sample],
        histograms: &'s [HistogramSample],
        metric: &'s str,
    ) -> Mixed<'s> {
        Mixed {
            samples,
            histograms,
            metric,
            place: self.place,
        }
    }

    fn elements(
        &self,
        windows: &Windows,
        series: &Mixed<'_>,
        notes: &mut Annotations,
    ) -> Vec<Element> {
        window::apply_mixed(self.function, self.params, windows, series, notes)
    }
}

/// With `@`, every step sees the same window: one evaluation serves all, unless
/// the function also looks at the step.
fn once_if_fixed(windows: Windows, call: &WindowCall<'_>) -> (Windows, usize) {
    let varies = call.function.knows_time() || call.params.iter().any(Scalar::varies);
    if windows.fixed.is_none() || varies {
        return (windows, 1);
    }
    let steps = Steps {
        count: 1,
        ..windows.steps
    };
    (Windows { steps, ..windows }, windows.steps.count)
}

/// Windows skip staleness markers.
fn without_stale<'s>(samples: &'s [Sample], fresh: &'s mut Vec<Sample>) -> &'s [Sample] {
    // Looking at all without a branch is quicker than stopping at the first.
    let stale = |any: bool, s: &Sample| any | is_stale_nan(s.v);
    if !samples.iter().fold(false, stale) {
        return samples;
    }
    fresh.clear();
    fresh.extend(samples.iter().filter(|s| !is_stale_nan(s.v)));
    fresh
}
