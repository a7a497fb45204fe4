//! Function calls.

use std::borrow::Cow;

use super::super::ast::{Call, Expr, ExprKind, Selector, Span, Type};
use super::super::date::DatePart;
use super::super::grid::{Grid, Scalar, Steps, absent, is_absent};
use super::super::math;
use super::super::signature::{Kind, QueryPart};
use super::super::window::WindowFunction;
use super::select::WindowCall;
use super::{Computed, EvalError, Evaluator, Result, native};
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, LabelsBuilder, MatchOp, Matcher};

impl Evaluator<'_> {
    pub(super) fn call(&mut self, call: &Call, span: Span, steps: Steps) -> Result<Computed> {
        let args = &call.args;
        let grid = match call.function.kind {
            Kind::Time => return Ok(Computed::Scalar(seconds(steps))),
            Kind::OfQuery(part) => {
                return Ok(Computed::Scalar(Scalar::Same(self.of_query(part))));
            }
            Kind::Pick { larger } => {
                return self.pick(args, larger, steps).map(Computed::Scalar);
            }
            Kind::Pi => return Ok(Computed::Scalar(Scalar::Same(std::f64::consts::PI))),
            Kind::Scalar => return self.only_element(&args[0], steps).map(Computed::Scalar),
            Kind::Vector => self.one_element(&args[0], steps)?,
            Kind::Math(f) => {
                let mut grid = self.floats(&args[0], steps)?;
                grid.map(f);
                self.drop_names(grid)?
            }
            Kind::Round => self.round(args, steps)?,
            Kind::Clamp => self.clamp(args, steps)?,
            Kind::ClampMin => self.clamp_one(args, steps, math::max)?,
            Kind::ClampMax => self.clamp_one(args, steps, math::min)?,
            Kind::Date(part) => self.date(part, args.first(), steps)?,
            Kind::Timestamp => self.timestamp(&args[0], steps)?,
            Kind::StartTimestamp => {
                // No sample has one; Prometheus answers the same unless it stores them.
                self.vector(&args[0], steps)?;
                Grid::default()
            }
            Kind::Absent => self.absent(&args[0], steps)?,
            Kind::AbsentOverTime => self.absent_over_time(&args[0], steps)?,
            Kind::Sort { descending } => self.sort(&args[0], descending, span, steps)?,
            Kind::SortByLabel { descending } => {
                self.sort_by_label(args, descending, span, steps)?
            }
            Kind::LabelReplace => self.label_replace(args, steps)?,
            Kind::LabelJoin => self.label_join(args, steps)?,
            Kind::HistogramQuantile => self.histogram_quantile(args, steps)?,
            Kind::HistogramQuantiles => self.histogram_quantiles(args, steps)?,
            Kind::Info => self.info(args, steps)?,
            Kind::HistogramFraction => self.histogram_fraction(args, steps)?,
            Kind::NativeHistogram(of) => {
                let grid = self.vector(&args[0], steps)?;
                self.drop_names(native::each(&grid, steps, of))?
            }
            Kind::Window(function) => self.window_function(function, args, steps)?,
        };
        Ok(Computed::Grid(grid))
    }

    fn of_query(&self, part: QueryPart) -> f64 {
        match part {
            QueryPart::Start => self.query.0.as_secs_f64(),
            QueryPart::End => self.query.1.as_secs_f64(),
            QueryPart::Range => self.query_lengths().range,
            QueryPart::Step => self.query_lengths().step,
        }
    }

    fn pick(&mut self, args: &[Expr], larger: bool, steps: Steps) -> Result<Scalar> {
        let a = self.scalar(&args[0], steps)?;
        let b = self.scalar(&args[1], steps)?;
        let pick = if larger { math::max } else { math::min };
        Ok(match (a, b) {
            (Scalar::Same(a), Scalar::Same(b)) => Scalar::Same(pick(a, b)),
            (a, b) => Scalar::Each((0..steps.count).map(|i| pick(a.at(i), b.at(i))).collect()),
        })
    }

    fn window_function(
        &mut self,
        function: WindowFunction,
        args: &[Expr],
        steps: Steps,
    ) -> Result<Grid> {
        let (range, others): (Vec<&Expr>, Vec<&Expr>) = args
            .iter()
            .partition(|arg| arg.value_type() == Type::Matrix);
        let range = range[0];
        let mut params = Vec::with_capacity(others.len());
        for arg in &others {
            params.push(self.scalar(arg, steps)?);
        }
        match function {
            WindowFunction::Quantile => {
                for q in params[0].values() {
                    self.annotations.quantile(*q, others[0].span);
                }
            }
            WindowFunction::DoubleExponentialSmoothing => {
                self.check_factors(range, &params, steps)?;
            }
            _ => {}
        }
        let window = WindowCall {
            function,
            params: &params,
            place: range.span,
        };
        let grid = self.windowed(range, &window, steps)?;
        if matches!(function, WindowFunction::Rate | WindowFunction::Increase) {
            self.note_rates(&grid, range.span);
        }
        if function.keeps_name() {
            return Ok(grid);
        }
        if self.options.features.delayed_name_removal {
            return self.drop_names(grid);
        }
        Ok(grid.drop_names_strict()?)
    }

    /// As in Prometheus, bad factors of a smoothing are an error only where there is
    /// something to smooth.
    fn check_factors(&mut self, range: &Expr, params: &[Scalar], steps: Steps) -> Result<()> {
        let bad = |step| {
            bad_factor(&params[0], "smoothing", "sf", step)
                .or_else(|| bad_factor(&params[1], "trend", "tf", step))
        };
        let Some(first) = (0..steps.count).find(|step| bad(*step).is_some()) else {
            return Ok(());
        };
        let present = WindowCall {
            function: WindowFunction::Present,
            params: &[],
            place: range.span,
        };
        // What this looks at the smoothing looks at anyway.
        let (tally, read) = (std::mem::take(&mut self.tally), self.samples_read);
        let grid = self.windowed(range, &present, steps)?;
        (self.tally, self.samples_read) = (tally, read);
        for step in first..steps.count {
            let is_seen = || (0..grid.rows().len()).any(|row| grid.is_present(row, step));
            if let Some(message) = bad(step)
                && is_seen()
            {
                return Err(EvalError::execution(message));
            }
        }
        Ok(())
    }

    fn note_rates(&mut self, grid: &Grid, span: Span) {
        let mut last = "";
        for row in grid.rows().iter().filter(|row| row.len > 0) {
            let name = row.value(METRIC_NAME);
            if name != last {
                self.annotations.rate_of(name, span);
                last = name;
            }
        }
    }

    /// The value of the only element of each step.
    fn only_element(&mut self, arg: &Expr, steps: Steps) -> Result<Scalar> {
        let grid = self.floats(arg, steps)?;
        let mut values = vec![f64::NAN; steps.count];
        let mut counts = vec![0u8; steps.count];
        for (i, row) in grid.rows().iter().enumerate() {
            for (step, v) in row.steps().zip(grid.cells(i)) {
                if !is_absent(*v) {
                    counts[step] = counts[step].saturating_add(1);
                    values[step] = if counts[step] == 1 { *v } else { f64::NAN };
                }
            }
        }
        Ok(Scalar::Each(values))
    }

    fn one_element(&mut self, arg: &Expr, steps: Steps) -> Result<Grid> {
        let scalar = self.scalar(arg, steps)?;
        Ok(one_row(Labels::empty(), steps, |step| scalar.at(step)))
    }

    fn round(&mut self, args: &[Expr], steps: Steps) -> Result<Grid> {
        let mut grid = self.floats(&args[0], steps)?;
        let to = match args.get(1) {
            Some(to) => self.scalar(to, steps)?,
            None => Scalar::Same(1.0),
        };
        // As Prometheus: dividing by the inverse is exact for 0.1 and its like.
        let inverse = to.map(|to| 1.0 / to);
        grid.map_steps(|step, v| math::round(v, inverse.at(step)));
        self.drop_names(grid)
    }

    fn clamp(&mut self, args: &[Expr], steps: Steps) -> Result<Grid> {
        let mut grid = self.floats(&args[0], steps)?;
        let low = self.scalar(&args[1], steps)?;
        let high = self.scalar(&args[2], steps)?;
        grid.map_steps(|step, v| {
            let (low, high) = (low.at(step), high.at(step));
            if high < low {
                absent()
            } else {
                math::max(low, math::min(high, v))
            }
        });
        self.drop_names(grid)
    }

    fn clamp_one(&mut self, args: &[Expr], steps: Steps, f: fn(f64, f64) -> f64) -> Result<Grid> {
        let mut grid = self.floats(&args[0], steps)?;
        let bound = self.scalar(&args[1], steps)?;
        grid.map_steps(|step, v| f(bound.at(step), v));
        self.drop_names(grid)
    }

    /// A part of the date of each value, or of the evaluation time.
    fn date(&mut self, part: DatePart, arg: Option<&Expr>, steps: Steps) -> Result<Grid> {
        let Some(arg) = arg else {
            let now = seconds(steps);
            return Ok(one_row(Labels::empty(), steps, |step| {
                part.of(now.at(step))
            }));
        };
        let mut grid = self.floats(arg, steps)?;
        grid.map(|v| part.of(v));
        self.drop_names(grid)
    }

    /// The time of the sample of a plain selector; of anything else, the time of the step.
    fn timestamp(&mut self, arg: &Expr, steps: Steps) -> Result<Grid> {
        let grid = match &arg.without_parens().kind {
            ExprKind::Selector(selector) => self.instant(selector, steps, true)?,
            _ => {
                let now = seconds(steps);
                let mut grid = native::to_floats(self.vector(arg, steps)?, steps);
                grid.map_steps(|step, _| now.at(step));
                grid
            }
        };
        self.drop_names(grid)
    }

    fn absent(&mut self, arg: &Expr, steps: Steps) -> Result<Grid> {
        let grid = self.vector(arg, steps)?;
        Ok(missing(&grid, absent_labels(arg), steps))
    }

    fn absent_over_time(&mut self, arg: &Expr, steps: Steps) -> Result<Grid> {
        let present = WindowCall {
            function: WindowFunction::Present,
            params: &[],
            place: arg.span,
        };
        let grid = self.windowed(arg, &present, steps)?;
        Ok(missing(&grid, absent_labels(arg), steps))
    }
}

/// The times of the steps in seconds.
fn seconds(steps: Steps) -> Scalar {
    let at = |i| steps.time(i) as f64 / 1000.0;
    if steps.count == 1 {
        Scalar::Same(at(0))
    } else {
        Scalar::Each((0..steps.count).map(at).collect())
    }
}

/// A grid of one series with a value at every step that `f` gives one for.
fn one_row(labels: Labels, steps: Steps, f: impl Fn(usize) -> f64) -> Grid {
    let mut grid = Grid::default();
    grid.push(Cow::Owned(labels), 0, |cells| {
        cells.extend((0..steps.count).map(f));
    });
    grid
}

/// 1 at the steps where no series has a value.
fn missing(grid: &Grid, labels: Labels, steps: Steps) -> Grid {
    let mut values = vec![1.0; steps.count];
    for (i, row) in grid.rows().iter().enumerate() {
        for (step, v) in row.steps().zip(grid.cells(i)) {
            if !is_absent(*v) {
                values[step] = absent();
            }
        }
        for (step, _) in row.histograms() {
            values[*step] = absent();
        }
    }
    one_row(labels, steps, |step| values[step])
}

/// What a missing selector would have had for labels: those with one equality matcher,
/// and behind it no other matcher.
fn absent_labels(arg: &Expr) -> Labels {
    let selector: &Selector = match &arg.without_parens().kind {
        ExprKind::Selector(selector) => selector,
        ExprKind::Matrix(matrix) => &matrix.selector,
        _ => return Labels::empty(),
    };
    let mut builder = LabelsBuilder::default();
    for (i, matcher) in selector.matchers.iter().enumerate() {
        let name = &matcher.name;
        if name == METRIC_NAME {
            continue;
        }
        let is_equality = |m: &Matcher| m.op == MatchOp::Equal && m.name == *name;
        let again = selector.matchers[..i].iter().any(is_equality);
        if matcher.op == MatchOp::Equal && !again {
            builder.set(name, &matcher.value);
        } else {
            builder.remove(name);
        }
    }
    builder.build()
}

/// What is wrong with a factor at a step.
fn bad_factor(param: &Scalar, kind: &str, name: &str, step: usize) -> Option<String> {
    let v = param.at(step);
    let is_bad = v <= 0.0 || v >= 1.0;
    is_bad.then(|| format!("invalid {kind} factor. Expected: 0 < {name} < 1, got: {v:.6}"))
}
