//! Warnings and infos: what a query's author should know about the answer.
//!
//! In Prometheus' words with the place in the query, each once, in the order
//! of the first occurrence.

use super::ast::Span;
use super::literal::{GoFloat, GoQuoted};
use crate::model::Timestamp;
use crate::model::histogram::Merged;

/// Where metric names of counters end.
const COUNTER_SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

/// The texts of one query's evaluation.
#[derive(Default, Debug)]
pub(super) struct Annotations {
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

impl Annotations {
    /// A rate of something that is not named like a counter.
    pub(super) fn rate_of(&mut self, metric: &str, span: Span) {
        if metric.is_empty() || COUNTER_SUFFIXES.iter().any(|s| metric.ends_with(s)) {
            return;
        }
        let text = format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
            GoQuoted(metric)
        );
        self.info(&text, span);
    }

    /// A quantile that is none.
    pub(super) fn quantile(&mut self, q: f64, span: Span) {
        if !(0.0..=1.0).contains(&q) {
            let text = format!(
                "quantile value should be between 0 and 1, got {}",
                GoFloat(q)
            );
            self.warning(&text, span);
        }
    }

    /// A sampling ratio that is none.
    pub(super) fn ratio(&mut self, ratio: f64, used: f64, span: Span) {
        let text = format!(
            "ratio value should be between -1 and 1, got {}, capping to {}",
            GoFloat(ratio),
            GoFloat(used)
        );
        self.warning(&text, span);
    }

    /// A bucket without a bound.
    pub(super) fn bad_bucket(&mut self, metric: &str, le: &str, span: Span) {
        let text = format!(
            "bucket label \"le\" is missing or has a malformed value of {}{}",
            GoQuoted(le),
            for_metric(metric)
        );
        self.warning(&text, span);
    }

    /// Buckets whose counts fell.
    pub(super) fn forced_monotonic(&mut self, metric: &str, span: Span) {
        let text = format!(
            "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}",
            for_metric(metric)
        );
        self.info(&text, span);
    }

    /// What one range function cannot use together.
    pub(super) fn mixed_samples(&mut self, metric: &str, span: Span) {
        let metric = GoQuoted(metric);
        let text = format!("encountered a mix of histograms and floats for metric name {metric}");
        self.warning(&text, span);
    }

    /// What one aggregation cannot use together.
    pub(super) fn mixed_aggregation(&mut self, span: Span) {
        self.warning(
            "encountered a mix of histograms and floats for aggregation",
            span,
        );
    }

    /// Classic and native histograms of the same name at one time.
    pub(super) fn mixed_classic(&mut self, metric: &str, span: Span) {
        let metric = for_metric(metric);
        let text = format!("vector contains a mix of classic and native histograms{metric}");
        self.warning(&text, span);
    }

    /// Buckets that cannot be brought together.
    pub(super) fn mixed_schemas(&mut self, metric: &str, span: Span) {
        let text = format!(
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
            GoQuoted(metric)
        );
        self.warning(&text, span);
    }

    /// A rate of a gauge, or a difference of a counter.
    pub(super) fn not_a(&mut self, wanted: &str, metric: &str, span: Span) {
        let metric = GoQuoted(metric);
        let text = format!("this native histogram metric is not a {wanted}: {metric}");
        self.warning(&text, span);
    }

    /// Operands whose buckets cannot be brought together.
    pub(super) fn incompatible_buckets(&mut self, op: &str, span: Span) {
        let text = format!("incompatible bucket layout encountered for binary operator {op}");
        self.warning(&text, span);
    }

    /// Operands that an operator does not take.
    pub(super) fn incompatible_types(&mut self, left: &str, op: &str, right: &str, span: Span) {
        let text = format!(
            "incompatible sample types encountered for binary operator {}: {left} {op} {right}",
            GoQuoted(op)
        );
        self.info(&text, span);
    }

    /// Histograms in an aggregation of numbers.
    pub(super) fn ignored_in_aggregation(&mut self, aggregation: &str, span: Span) {
        let text = format!("ignored histogram in {aggregation} aggregation");
        self.info(&text, span);
    }

    /// Histograms beside the numbers of a range.
    pub(super) fn ignored_in_range(&mut self, metric: &str, span: Span) {
        let text = format!(
            "ignored histograms in a range containing both floats and histograms for metric name {}",
            GoQuoted(metric)
        );
        self.info(&text, span);
    }

    /// What came out when two histograms were brought together.
    pub(super) fn merged(&mut self, merged: Merged, operation: &str, span: Span) {
        if merged.collision {
            let text = format!("conflicting counter resets during histogram {operation}");
            self.warning(&text, span);
        }
        if merged.reconciled {
            let text = format!("mismatched custom buckets were reconciled during {operation}");
            self.info(&text, span);
        }
    }

    /// Observations of NaN in a quantile.
    pub(super) fn nan_in_quantile(&mut self, result: &str, metric: &str, span: Span) {
        let metric = for_metric(metric);
        let text =
            format!("input to histogram_quantile has NaN observations, result is {result}{metric}");
        self.info(&text, span);
    }

    /// Observations of NaN in a fraction.
    pub(super) fn nan_in_fraction(&mut self, metric: &str, span: Span) {
        let text = format!(
            "input to histogram_fraction has NaN observations, which are excluded from all fractions{}",
            for_metric(metric)
        );
        self.info(&text, span);
    }

    /// Samples that are gone, and what stands for them.
    pub(super) fn rolled_up(&mut self, until: Timestamp, bucket: &str) {
        let text = format!(
            "PromQL info: samples before {until} are gone, roll-ups of {bucket} stand for them"
        );
        push(&mut self.infos, text);
    }

    /// Takes over what was noted elsewhere.
    pub(super) fn append(&mut self, other: Annotations) {
        let kinds = [
            (&mut self.warnings, other.warnings),
            (&mut self.infos, other.infos),
        ];
        for (mine, theirs) in kinds {
            theirs.into_iter().for_each(|text| push(mine, text));
        }
    }

    /// A sort whose order nobody will see.
    pub(super) fn sort_in_range(&mut self, span: Span) {
        self.warning(
            "sort is ineffective for range queries since results are always ordered by labels",
            span,
        );
    }

    fn warning(&mut self, text: &str, span: Span) {
        push(
            &mut self.warnings,
            format!("PromQL warning: {text} {}", place(span)),
        );
    }

    fn info(&mut self, text: &str, span: Span) {
        push(
            &mut self.infos,
            format!("PromQL info: {text} {}", place(span)),
        );
    }
}

fn for_metric(metric: &str) -> String {
    if metric.is_empty() {
        String::new()
    } else {
        format!(" for metric name {}", GoQuoted(metric))
    }
}

fn place(span: Span) -> String {
    format!("({}:{})", span.line, span.column)
}

fn push(texts: &mut Vec<String>, text: String) {
    if !texts.contains(&text) {
        texts.push(text);
    }
}
