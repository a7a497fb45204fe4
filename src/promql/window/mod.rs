//! Functions of the samples in a window that slides over a series.
//!
//! Owns nothing. Both ends of the window only move forward, so a series is walked once
//! whatever the overlap. Rates need the first and the last sample and the
//! resets between them, counts of changes are differences of running counts:
//! both cost the same for any length of window. Sums, means, extremes and
//! quantiles carry over what neighbouring windows share ([`overlap`]);
//! deviations and trends look at every sample of every window.
//!
//! It must never see a staleness marker: the caller takes them out.

mod extended;
mod native;
mod overlap;
mod plan;
mod rate;
mod regression;
mod spread;

pub(super) use extended::smoothed_at;
pub(super) use native::{Mixed, apply_mixed, total};
pub(super) use plan::Plan;

use super::ast::Bounds;
use super::grid::{Scalar, Steps, absent};
use super::math::{self, Mean};
use crate::model::Sample;

/// A function of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WindowFunction {
    Avg,
    Changes,
    Count,
    Delta,
    Deriv,
    DoubleExponentialSmoothing,
    First,
    Idelta,
    Increase,
    Irate,
    Last,
    Mad,
    Max,
    Min,
    PredictLinear,
    Present,
    Quantile,
    Rate,
    Resets,
    Stddev,
    Stdvar,
    Sum,
    TsOfFirst,
    TsOfLast,
    TsOfMax,
    TsOfMin,
}

impl WindowFunction {
    /// Whether the result is still the metric itself, so that its name stays.
    pub(super) fn keeps_name(self) -> bool {
        matches!(self, WindowFunction::First | WindowFunction::Last)
    }

    /// Whether it is told of counters, which rise.
    pub(super) fn is_of_counters(self) -> bool {
        matches!(self, WindowFunction::Rate | WindowFunction::Increase)
    }

    /// Whether it depends on nothing but the values in a window and their order.
    pub(super) fn looks_at_values_only(self) -> bool {
        use WindowFunction as W;
        matches!(
            self,
            W::Avg
                | W::Changes
                | W::Count
                | W::First
                | W::Last
                | W::Mad
                | W::Max
                | W::Min
                | W::Present
                | W::Quantile
                | W::Resets
                | W::Stddev
                | W::Stdvar
                | W::Sum
        )
    }

    /// Whether the value depends on the evaluation time and not only on the window.
    pub(super) fn knows_time(self) -> bool {
        self == WindowFunction::PredictLinear
    }
}

/// The windows of a range selector or subquery, one for each step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Windows {
    /// The evaluation times.
    pub(super) steps: Steps,
    /// Where every window ends when there is a `@`.
    pub(super) fixed: Option<i64>,
    /// How much earlier than that, or than the step, a window ends.
    pub(super) offset_ms: i64,
    /// The length of a window.
    pub(super) range_ms: i64,
    /// What stands for the values at the ends.
    pub(super) bounds: Bounds,
    /// How far beyond its ends a window that is not `Inside` looks for samples.
    pub(super) lookback_ms: i64,
}

impl Windows {
    /// Where the window of a step ends. The end belongs to it, the start does not.
    #[inline]
    pub(super) fn end(&self, step: usize) -> i64 {
        self.fixed
            .unwrap_or_else(|| self.steps.time(step))
            .saturating_sub(self.offset_ms)
    }

    /// The closed range of times that any window can see.
    pub(super) fn reach(&self) -> (i64, i64) {
        let first = self.end(0).saturating_sub(self.range_ms).saturating_add(1);
        let last = self.end(self.steps.count.saturating_sub(1));
        match self.bounds {
            Bounds::Inside => (first, last),
            Bounds::Anchored => (first.saturating_sub(self.lookback_ms), last),
            Bounds::Smoothed => (
                first.saturating_sub(self.lookback_ms),
                last.saturating_add(self.lookback_ms),
            ),
        }
    }

    /// Calls `f` for the window of each step that holds a sample, and appends its results.
    fn slide(
        &self,
        samples: &[Sample],
        out: &mut Vec<f64>,
        mut f: impl FnMut(&Window<'_>) -> Option<f64>,
    ) {
        out.reserve(self.steps.count);
        self.walk(samples, |w| {
            out.push(w.and_then(|w| f(&w)).unwrap_or_else(absent));
        });
    }

    /// Calls `f` for the window of each step; with none when it holds no sample.
    #[inline(always)]
    fn walk<'s>(&self, samples: &'s [Sample], mut f: impl FnMut(Option<Window<'s>>)) {
        let (mut low, mut high) = (Edge::default(), Edge::default());
        for step in 0..self.steps.count {
            let end = self.end(step);
            let start = end.saturating_sub(self.range_ms);
            let high = high.move_to(samples, end);
            let low = low.move_to(&samples[..high], start);
            f((low < high).then_some(Window {
                samples,
                low,
                high,
                start,
                end,
                step,
            }));
        }
    }
}

/// How many samples from the front are not later than `end`: mostly few.
#[inline]
fn count_until(samples: &[Sample], end: i64) -> usize {
    let near = samples.len().min(8);
    let passed = |sample: &Sample| sample.t.as_ms() <= end;
    let count = samples[..near].iter().take_while(|s| passed(s)).count();
    if count < near {
        return count;
    }
    near + samples[near..].partition_point(passed)
}

/// An end of the window, which moves forward.
#[derive(Default)]
pub(super) struct Edge {
    /// The first sample behind it.
    at: usize,
    /// By how many samples it moved last.
    moved: usize,
}

impl Edge {
    /// Moves behind all samples that are not later than `end`. At regular intervals
    /// they are as many as the last time.
    #[inline]
    pub(super) fn move_to(&mut self, samples: &[Sample], end: i64) -> usize {
        let later = |at: usize| samples.get(at).is_none_or(|sample| sample.t.as_ms() > end);
        let guess = self.at + self.moved;
        let is_behind = self.moved == 0 || guess <= samples.len() && !later(guess - 1);
        if !(is_behind && later(guess)) {
            self.moved = count_until(&samples[self.at..], end);
        }
        self.at += self.moved;
        self.at
    }
}

/// The samples of one step, at least one of them.
struct Window<'a> {
    /// All samples of the series.
    samples: &'a [Sample],
    /// The index of the first in the window.
    low: usize,
    /// The index after the last in the window.
    high: usize,
    /// The excluded start.
    start: i64,
    /// The included end.
    end: i64,
    step: usize,
}

impl<'a> Window<'a> {
    #[inline]
    fn points(&self) -> &'a [Sample] {
        &self.samples[self.low..self.high]
    }

    #[inline]
    fn values(&self) -> impl Iterator<Item = f64> + 'a {
        self.points().iter().map(|sample| sample.v)
    }

    #[inline]
    fn first(&self) -> Sample {
        self.samples[self.low]
    }

    #[inline]
    fn last(&self) -> Sample {
        self.samples[self.high - 1]
    }

    /// The last two samples.
    fn last_two(&self) -> Option<(Sample, Sample)> {
        match self.points() {
            [.., a, b] => Some((*a, *b)),
            _ => None,
        }
    }
}

/// The samples of a series without staleness markers.
#[derive(Clone, Copy)]
pub(super) struct Points<'a> {
    pub(super) samples: &'a [Sample],
    /// Whether they are known to be numbers of which none is below the one before.
    pub(super) rises: bool,
}

impl<'a> Points<'a> {
    /// Samples among which there are no markers.
    pub(super) fn of(samples: &'a [Sample]) -> Points<'a> {
        Points {
            samples,
            rises: false,
        }
    }

    /// Samples that rise, as those of a counter mostly do: so there are no markers among
    /// them, and nothing else has to be looked for.
    pub(super) fn rising(samples: &'a [Sample]) -> Option<Points<'a>> {
        // Looking at all pairs without a branch is quick.
        let rises = |all: bool, pair: &[Sample]| all & (pair[0].v <= pair[1].v);
        let rises = samples.len() > 1 && samples.windows(2).fold(true, rises);
        rises.then_some(Points {
            samples,
            rises: true,
        })
    }
}

/// Appends the value of `function` for each step, missing ones included. `plan` may
/// have served other series.
pub(super) fn apply(
    function: WindowFunction,
    params: &[Scalar],
    windows: &Windows,
    points: Points<'_>,
    plan: &mut Plan,
    out: &mut Vec<f64>,
) {
    use WindowFunction as W;
    let samples = points.samples;
    if windows.bounds != Bounds::Inside {
        return extended::apply(function, windows, samples, out);
    }
    match function {
        W::Rate => rate::rate(windows, points, plan, out),
        W::Increase => rate::increase(windows, points, plan, out),
        W::Delta => rate::delta(windows, samples, out),
        W::Irate => windows.slide(samples, out, rate::irate),
        W::Idelta => windows.slide(samples, out, |w| w.last_two().map(|(a, b)| b.v - a.v)),
        W::Deriv => windows.slide(samples, out, regression::deriv),
        W::PredictLinear => windows.slide(samples, out, |w| {
            let now = windows.steps.time(w.step);
            regression::predict_linear(w, now, params[0].at(w.step))
        }),
        W::DoubleExponentialSmoothing => windows.slide(samples, out, |w| {
            regression::smooth(w, params[0].at(w.step), params[1].at(w.step))
        }),
        W::Changes => running(windows, samples, out, |a, b| {
            a != b && !(a.is_nan() && b.is_nan())
        }),
        W::Resets => running(windows, samples, out, |a, b| b < a),
        W::Count => windows.slide(samples, out, |w| Some((w.high - w.low) as f64)),
        W::Present => windows.slide(samples, out, |_| Some(1.0)),
        W::First => windows.slide(samples, out, |w| Some(w.first().v)),
        W::Last => windows.slide(samples, out, |w| Some(w.last().v)),
        W::TsOfFirst => windows.slide(samples, out, |w| Some(w.first().t.as_secs_f64())),
        W::TsOfLast => windows.slide(samples, out, |w| Some(w.last().t.as_secs_f64())),
        W::TsOfMax => windows.slide(samples, out, |w| {
            Some(time_of(w, |best, v| v >= best || best.is_nan()))
        }),
        W::TsOfMin => windows.slide(samples, out, |w| {
            Some(time_of(w, |best, v| v <= best || best.is_nan()))
        }),
        W::Sum => overlap::sum(windows, samples, out),
        W::Avg => overlap::avg(windows, samples, out),
        W::Max => overlap::max(windows, samples, out),
        W::Min => overlap::min(windows, samples, out),
        W::Stdvar => windows.slide(samples, out, |w| Some(spread::variance(w.points()))),
        W::Stddev => {
            windows.slide(samples, out, |w| Some(spread::variance(w.points()).sqrt()));
        }
        W::Quantile => overlap::quantile(windows, samples, &params[0], out),
        W::Mad => median_deviation(windows, samples, out),
    }
}

/// How many neighbours in the window fulfil a condition, by running counts.
fn running(
    windows: &Windows,
    samples: &[Sample],
    out: &mut Vec<f64>,
    condition: impl Fn(f64, f64) -> bool,
) {
    let mut count = 0u32;
    let mut counts = Vec::with_capacity(samples.len());
    let mut previous = None;
    for sample in samples {
        count += u32::from(previous.is_some_and(|p| condition(p, sample.v)));
        counts.push(count);
        previous = Some(sample.v);
    }
    windows.slide(samples, out, |w| {
        Some(f64::from(counts[w.high - 1] - counts[w.low]))
    });
}

/// The time of the last sample that `better` prefers.
fn time_of(w: &Window<'_>, better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut best = w.first();
    for sample in w.points() {
        if better(best.v, sample.v) {
            best = *sample;
        }
    }
    best.t.as_secs_f64()
}

fn mean(w: &Window<'_>) -> f64 {
    let mut mean = Mean::default();
    w.values().for_each(|v| mean.add(v));
    mean.value()
}

/// The median distance from the median.
fn median_deviation(windows: &Windows, samples: &[Sample], out: &mut Vec<f64>) {
    let mut values = Vec::new();
    windows.slide(samples, out, |w| {
        values.clear();
        values.extend(w.values());
        let median = math::quantile(0.5, &mut values);
        values.iter_mut().for_each(|v| *v = (*v - median).abs());
        Some(math::quantile(0.5, &mut values))
    });
}
