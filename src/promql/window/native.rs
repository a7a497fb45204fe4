//! Functions of windows that hold native histograms, with or without numbers
//! beside them.
//!
//! Windows are walked one by one: histograms are few, and each costs more than
//! finding its window. A window without histograms is left to the functions of
//! numbers; what these make of a window with both is Prometheus' choice: some look
//! at every sample, some at the numbers alone, some at neither.

use std::sync::Arc;

use super::super::annotations::Annotations;
use super::super::ast::Span as Place;
use super::super::grid::{Element, Scalar, Steps, absent};
use super::rate::Span;
use super::{Plan, Points, WindowFunction, Windows, apply};
use crate::model::histogram::{Merged, ResetHint};
use crate::model::{Histogram, HistogramSample, Sample, Timestamp};

/// A series with histograms.
pub(in super::super) struct Mixed<'a> {
    /// The numbers, without staleness markers.
    pub(in super::super) samples: &'a [Sample],
    /// The histograms.
    pub(in super::super) histograms: &'a [HistogramSample],
    /// The metric's name, for annotations.
    pub(in super::super) metric: &'a str,
    /// Where the range stands in the query.
    pub(in super::super) place: Place,
}

/// What one window sees.
struct Seen<'a> {
    floats: &'a [Sample],
    native: &'a [HistogramSample],
    metric: &'a str,
    place: Place,
}

/// The values of `function` at all steps.
pub(in super::super) fn apply_mixed(
    function: WindowFunction,
    params: &[Scalar],
    windows: &Windows,
    series: &Mixed<'_>,
    notes: &mut Annotations,
) -> Vec<Element> {
    let mut elements = Vec::with_capacity(windows.steps.count);
    for step in 0..windows.steps.count {
        let end = windows.end(step);
        let start = end.saturating_sub(windows.range_ms);
        let native = series.histograms;
        let from = native.partition_point(|s| s.t.as_ms() <= start);
        let until = native.partition_point(|s| s.t.as_ms() <= end);
        let low = series.samples.partition_point(|s| s.t.as_ms() <= start);
        let high = series.samples.partition_point(|s| s.t.as_ms() <= end);
        let seen = Seen {
            floats: &series.samples[low..high],
            native: &native[from..until],
            metric: series.metric,
            place: series.place,
        };
        let alone = || {
            let one = Windows {
                steps: Steps::one(Timestamp::from_ms(windows.steps.time(step))),
                ..*windows
            };
            let params: Vec<Scalar> = params.iter().map(|p| Scalar::Same(p.at(step))).collect();
            let mut out = Vec::with_capacity(1);
            let plan = &mut Plan::default();
            let points = Points::of(series.samples);
            apply(function, &params, &one, points, plan, &mut out);
            Element::of(out.first().copied().unwrap_or_else(absent))
        };
        elements.push(if seen.native.is_empty() {
            alone()
        } else {
            seen.value(function, (start, end), &alone, notes)
        });
    }
    elements
}

impl Seen<'_> {
    fn value(
        &self,
        function: WindowFunction,
        window: (i64, i64),
        alone: &dyn Fn() -> Element,
        notes: &mut Annotations,
    ) -> Element {
        use WindowFunction as W;
        let count = self.floats.len() + self.native.len();
        match function {
            W::Count => Element::Float(count as f64),
            W::Present => Element::Float(1.0),
            W::First => self.ordered()[0].1.clone(),
            W::Last => self.ordered()[count - 1].1.clone(),
            W::TsOfFirst => Element::Float(self.ordered()[0].0.as_secs_f64()),
            W::TsOfLast => Element::Float(self.ordered()[count - 1].0.as_secs_f64()),
            W::Changes => Element::Float(self.count_pairs(changed)),
            W::Resets => Element::Float(self.count_pairs(fell)),
            W::Irate | W::Idelta => self.between_last_two(function == W::Irate, notes),
            W::Rate | W::Increase | W::Delta | W::Sum | W::Avg if !self.floats.is_empty() => {
                notes.mixed_samples(self.metric, self.place);
                Element::Absent
            }
            W::Rate | W::Increase | W::Delta => self.extrapolated(function, window, notes),
            W::Sum | W::Avg => self.sum(function == W::Avg, notes),
            _ if self.floats.is_empty() => Element::Absent,
            _ => {
                notes.ignored_in_range(self.metric, self.place);
                alone()
            }
        }
    }

    /// Samples of both kinds in time order.
    fn ordered(&self) -> Vec<(Timestamp, Element)> {
        let floats = self.floats.iter().map(|s| (s.t, Element::Float(s.v)));
        let native = self.native.iter();
        let native = native.map(|s| (s.t, Element::Histogram(s.h.clone())));
        let mut all: Vec<_> = floats.chain(native).collect();
        all.sort_by_key(|(t, _)| *t);
        all
    }

    fn count_pairs(&self, condition: fn(&Element, &Element) -> bool) -> f64 {
        let all = self.ordered();
        let pairs = all.windows(2);
        pairs.filter(|p| condition(&p[0].1, &p[1].1)).count() as f64
    }

    fn between_last_two(&self, rate: bool, notes: &mut Annotations) -> Element {
        let all = self.ordered();
        let [.., (from, a), (to, b)] = all.as_slice() else {
            return Element::Absent;
        };
        let seconds = to.ms_since(*from) as f64 / 1000.0;
        let (a, b) = match (a, b) {
            (Element::Histogram(a), Element::Histogram(b)) => (a, b),
            (Element::Float(a), Element::Float(b)) => {
                let increase = if rate && b < a { *b } else { b - a };
                return Element::of(if rate { increase / seconds } else { increase });
            }
            _ => {
                notes.mixed_samples(self.metric, self.place);
                return Element::Absent;
            }
        };
        self.check_kind(rate, &[a, b], notes);
        let mut result = Histogram::clone(b);
        if !(rate && b.is_reset_after(a)) {
            let Some(()) = self.subtract(&mut result, a, notes) else {
                return Element::Absent;
            };
        }
        result.hint = ResetHint::Gauge;
        if rate {
            result.divide(seconds);
        }
        Element::Histogram(result.into())
    }

    /// Says so when a rate is asked of gauges or a difference of counters.
    fn check_kind(&self, counter: bool, all: &[&Arc<Histogram>], notes: &mut Annotations) {
        let gauge = |h: &&Arc<Histogram>| h.hint == ResetHint::Gauge;
        if counter && all.iter().any(gauge) {
            notes.not_a("counter", self.metric, self.place);
        } else if !counter && !all.iter().all(gauge) {
            notes.not_a("gauge", self.metric, self.place);
        }
    }

    /// Subtracts the earlier of two samples; hints do not collide here, because
    /// resets are looked at one by one.
    fn subtract(&self, from: &mut Histogram, h: &Histogram, notes: &mut Annotations) -> Option<()> {
        match from.sub(h) {
            Ok(merged) => self.note_bounds(merged, "subtraction", notes),
            Err(_) => {
                notes.mixed_schemas(self.metric, self.place);
                return None;
            }
        }
        Some(())
    }

    fn note_bounds(&self, merged: Merged, operation: &str, notes: &mut Annotations) {
        let merged = Merged {
            collision: false,
            ..merged
        };
        notes.merged(merged, operation, self.place);
    }

    /// Rate, increase and delta, extended to the ends of the window as those of
    /// numbers are; all buckets by the factor that holds for the count.
    fn extrapolated(
        &self,
        function: WindowFunction,
        window: (i64, i64),
        notes: &mut Annotations,
    ) -> Element {
        let counter = function != WindowFunction::Delta;
        let [first, .., last] = self.native else {
            return Element::Absent;
        };
        let Some(mut result) = self.difference(counter, notes) else {
            return Element::Absent;
        };
        let ends = (first.t.as_ms(), last.t.as_ms());
        let span = Span::between(ends, self.native.len() - 1, window).expect("two samples");
        let to_start = if counter {
            span.to_zero(first.h.count, result.count)
        } else {
            span.to_start_limited()
        };
        let mut factor = span.factor(to_start, 1.0);
        if function == WindowFunction::Rate {
            factor /= (window.1 - window.0) as f64 / 1000.0;
        }
        result.scale(factor);
        Element::Histogram(result.into())
    }

    /// What was added from the first to the last histogram.
    fn difference(&self, counter: bool, notes: &mut Annotations) -> Option<Histogram> {
        let all: Vec<&Arc<Histogram>> = self.native.iter().map(|s| &s.h).collect();
        let (first, last) = (all[0], all[all.len() - 1]);
        if counter {
            self.check_kind(true, &all, notes);
        } else {
            self.check_kind(false, &[first, last], notes);
        }
        // Before a reset right after it, the first sample and its layout do not count.
        let mut previous = first.clone();
        if counter && all[1].is_reset_after(first) {
            previous = Arc::new(Histogram {
                schema: all[1].schema,
                bounds: all[1].bounds.clone(),
                zero_threshold: all[1].zero_threshold,
                ..Histogram::default()
            });
        }
        let middle = if counter { &all[1..] } else { &[last][..] };
        if middle.iter().any(|h| h.is_custom() != previous.is_custom()) {
            notes.mixed_schemas(self.metric, self.place);
            return None;
        }
        let mut result = Histogram::clone(last);
        self.subtract(&mut result, &previous, notes)?;
        if counter {
            for h in &all[1..] {
                if h.is_reset_after(&previous)
                    && let Ok(merged) = result.add(&previous)
                {
                    self.note_bounds(merged, "addition", notes);
                }
                previous = Arc::clone(h);
            }
        }
        result.hint = ResetHint::Gauge;
        Some(result)
    }

    fn sum(&self, mean: bool, notes: &mut Annotations) -> Element {
        let all = self.native.iter().map(|s| &s.h);
        match total(all, notes, self.place) {
            Some(mut sum) => {
                if mean {
                    sum.divide(self.native.len() as f64);
                }
                Element::Histogram(sum.into())
            }
            None => {
                notes.mixed_schemas(self.metric, self.place);
                Element::Absent
            }
        }
    }
}

/// The sum of at least one histogram; `None` when their buckets cannot be brought
/// together. Hints collide when any two of them do.
pub(in super::super) fn total<'a>(
    mut all: impl Iterator<Item = &'a Arc<Histogram>>,
    notes: &mut Annotations,
    place: Place,
) -> Option<Histogram> {
    let mut sum = Histogram::clone(all.next()?);
    let mut resets = [
        sum.hint == ResetHint::Reset,
        sum.hint == ResetHint::NotReset,
    ];
    let mut reconciled = false;
    for h in all {
        resets[0] |= h.hint == ResetHint::Reset;
        resets[1] |= h.hint == ResetHint::NotReset;
        reconciled |= sum.add(h).ok()?.reconciled;
    }
    let merged = Merged {
        collision: resets == [true, true],
        reconciled,
    };
    notes.merged(merged, "aggregation", place);
    Some(sum)
}

fn changed(a: &Element, b: &Element) -> bool {
    match (a, b) {
        (Element::Float(a), Element::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Element::Histogram(a), Element::Histogram(b)) => !a.same_value(b),
        _ => true,
    }
}

/// A change from numbers to histograms, or back, is a reset.
fn fell(a: &Element, b: &Element) -> bool {
    match (a, b) {
        (Element::Float(a), Element::Float(b)) => b < a,
        (Element::Histogram(a), Element::Histogram(b)) => b.is_reset_after(a),
        _ => true,
    }
}
