//! The functions: names, argument types and what computes them.
//!
//! One table row is one function, so adding a function that fits into a class
//! below is one line here and its arithmetic there. The parser checks calls
//! against the table, the evaluator matches on [`Kind`] only.

use super::ast::Type;
use super::date::DatePart;
use super::math;
use super::window::WindowFunction;
use crate::model::Histogram;

/// A function of PromQL.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The types of its arguments.
    pub args: &'static [Type],
    /// How many of `args`, from the end, may be left out or repeated.
    pub optional: Optional,
    /// The type of its value.
    pub returns: Type,
    /// Whether Prometheus calls it experimental.
    pub experimental: bool,
    /// What computes it.
    pub(super) kind: Kind,
}

impl Function {
    const fn experimental(mut self) -> Function {
        self.experimental = true;
        self
    }
}

/// How far the number of arguments may differ from the declared one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Optional {
    /// Not at all.
    No,
    /// The last one may be left out.
    Last,
    /// The last one may be left out, or come any number of times.
    Repeat,
}

/// What computes a function.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A float in, a float out.
    Math(fn(f64) -> f64),
    Round,
    Clamp,
    ClampMin,
    ClampMax,
    /// Of a vector of times, or of the evaluation time.
    Date(DatePart),
    Time,
    /// Of the whole query: its first or last time, its range, its step.
    OfQuery(QueryPart),
    /// The smaller or the larger of two numbers.
    Pick {
        larger: bool,
    },
    Pi,
    Scalar,
    Vector,
    Timestamp,
    StartTimestamp,
    Absent,
    AbsentOverTime,
    Sort {
        descending: bool,
    },
    SortByLabel {
        descending: bool,
    },
    LabelReplace,
    LabelJoin,
    HistogramQuantile,
    HistogramQuantiles,
    HistogramFraction,
    /// Adds labels of info metrics.
    Info,
    /// A number from a native histogram; gives nothing for floats.
    NativeHistogram(fn(&Histogram) -> f64),
    /// Of the samples in a window.
    Window(WindowFunction),
}

/// What a function tells about the whole query.
#[derive(Clone, Copy, Debug)]
pub(super) enum QueryPart {
    Start,
    End,
    Range,
    Step,
}

/// The function with this name.
pub fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS
        .binary_search_by(|f| f.name.cmp(name))
        .ok()
        .map(|at| &FUNCTIONS[at])
}

/// All functions, sorted by name.
pub fn functions() -> &'static [Function] {
    FUNCTIONS
}

use Kind::{Date, Math, NativeHistogram, Window};
use Type::{Matrix as M, Scalar as S, String as T, Vector as V};
use WindowFunction as W;

const fn fixed(name: &'static str, args: &'static [Type], returns: Type, kind: Kind) -> Function {
    variadic(name, args, Optional::No, returns, kind)
}

const fn variadic(
    name: &'static str,
    args: &'static [Type],
    optional: Optional,
    returns: Type,
    kind: Kind,
) -> Function {
    Function {
        name,
        args,
        optional,
        returns,
        experimental: false,
        kind,
    }
}

const fn native(name: &'static str, of: fn(&Histogram) -> f64) -> Function {
    fixed(name, &[V], V, NativeHistogram(of))
}

const fn date(name: &'static str, part: DatePart) -> Function {
    variadic(name, &[V], Optional::Last, V, Date(part))
}

const fn math(name: &'static str, f: fn(f64) -> f64) -> Function {
    fixed(name, &[V], V, Math(f))
}

const fn of_query(name: &'static str, part: QueryPart) -> Function {
    fixed(name, &[], S, Kind::OfQuery(part)).experimental()
}

const fn window(name: &'static str, function: WindowFunction) -> Function {
    fixed(name, &[M], V, Window(function))
}

const FUNCTIONS: &[Function] = &[
    math("abs", f64::abs),
    fixed("absent", &[V], V, Kind::Absent),
    fixed("absent_over_time", &[M], V, Kind::AbsentOverTime),
    math("acos", f64::acos),
    math("acosh", f64::acosh),
    math("asin", f64::asin),
    math("asinh", f64::asinh),
    math("atan", f64::atan),
    math("atanh", f64::atanh),
    window("avg_over_time", W::Avg),
    math("ceil", f64::ceil),
    window("changes", W::Changes),
    fixed("clamp", &[V, S, S], V, Kind::Clamp),
    fixed("clamp_max", &[V, S], V, Kind::ClampMax),
    fixed("clamp_min", &[V, S], V, Kind::ClampMin),
    math("cos", f64::cos),
    math("cosh", math::cosh),
    window("count_over_time", W::Count),
    date("day_of_month", DatePart::DayOfMonth),
    date("day_of_week", DatePart::DayOfWeek),
    date("day_of_year", DatePart::DayOfYear),
    date("days_in_month", DatePart::DaysInMonth),
    math("deg", f64::to_degrees),
    window("delta", W::Delta),
    window("deriv", W::Deriv),
    fixed(
        "double_exponential_smoothing",
        &[M, S, S],
        V,
        Window(W::DoubleExponentialSmoothing),
    )
    .experimental(),
    of_query("end", QueryPart::End),
    math("exp", f64::exp),
    window("first_over_time", W::First),
    math("floor", f64::floor),
    native("histogram_avg", Histogram::mean),
    native("histogram_count", |h| h.count),
    fixed("histogram_fraction", &[S, S, V], V, Kind::HistogramFraction),
    fixed("histogram_quantile", &[S, V], V, Kind::HistogramQuantile),
    variadic(
        "histogram_quantiles",
        &[V, T, S, S],
        Optional::Repeat,
        V,
        Kind::HistogramQuantiles,
    )
    .experimental(),
    native("histogram_stddev", |h| h.variance().sqrt()),
    native("histogram_stdvar", Histogram::variance),
    native("histogram_sum", |h| h.sum),
    date("hour", DatePart::Hour),
    window("idelta", W::Idelta),
    window("increase", W::Increase),
    variadic("info", &[V, V], Optional::Last, V, Kind::Info).experimental(),
    window("irate", W::Irate),
    variadic(
        "label_join",
        &[V, T, T, T],
        Optional::Repeat,
        V,
        Kind::LabelJoin,
    ),
    fixed("label_replace", &[V, T, T, T, T], V, Kind::LabelReplace),
    window("last_over_time", W::Last),
    math("ln", f64::ln),
    math("log10", f64::log10),
    math("log2", f64::log2),
    window("mad_over_time", W::Mad).experimental(),
    fixed("max_of", &[S, S], S, Kind::Pick { larger: true }).experimental(),
    window("max_over_time", W::Max),
    fixed("min_of", &[S, S], S, Kind::Pick { larger: false }).experimental(),
    window("min_over_time", W::Min),
    date("minute", DatePart::Minute),
    date("month", DatePart::Month),
    fixed("pi", &[], S, Kind::Pi),
    fixed("predict_linear", &[M, S], V, Window(W::PredictLinear)),
    window("present_over_time", W::Present),
    fixed("quantile_over_time", &[S, M], V, Window(W::Quantile)),
    math("rad", f64::to_radians),
    of_query("range", QueryPart::Range),
    window("rate", W::Rate),
    window("resets", W::Resets),
    variadic("round", &[V, S], Optional::Last, V, Kind::Round),
    fixed("scalar", &[V], S, Kind::Scalar),
    math("sgn", math::sgn),
    math("sin", f64::sin),
    math("sinh", math::sinh),
    fixed("sort", &[V], V, Kind::Sort { descending: false }),
    variadic(
        "sort_by_label",
        &[V, T],
        Optional::Repeat,
        V,
        Kind::SortByLabel { descending: false },
    )
    .experimental(),
    variadic(
        "sort_by_label_desc",
        &[V, T],
        Optional::Repeat,
        V,
        Kind::SortByLabel { descending: true },
    )
    .experimental(),
    fixed("sort_desc", &[V], V, Kind::Sort { descending: true }),
    math("sqrt", f64::sqrt),
    of_query("start", QueryPart::Start),
    fixed("start_timestamp", &[V], V, Kind::StartTimestamp).experimental(),
    window("stddev_over_time", W::Stddev),
    window("stdvar_over_time", W::Stdvar),
    of_query("step", QueryPart::Step),
    window("sum_over_time", W::Sum),
    math("tan", f64::tan),
    math("tanh", f64::tanh),
    fixed("time", &[], S, Kind::Time),
    fixed("timestamp", &[V], V, Kind::Timestamp),
    window("ts_of_first_over_time", W::TsOfFirst).experimental(),
    window("ts_of_last_over_time", W::TsOfLast).experimental(),
    window("ts_of_max_over_time", W::TsOfMax).experimental(),
    window("ts_of_min_over_time", W::TsOfMin).experimental(),
    fixed("vector", &[S], V, Kind::Vector),
    date("year", DatePart::Year),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_names_are_found() {
        assert!(FUNCTIONS.is_sorted_by_key(|f| f.name));
        for f in FUNCTIONS {
            assert_eq!(function(f.name).map(|f| f.name), Some(f.name));
        }
        assert!(function("nope").is_none());
    }
}
