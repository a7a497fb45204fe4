//! Warnings and infos: what a query's author should know about the answer.
//!
//! In Prometheus' words with the place in the query, each once, in the order
//! of the first occurrence.

use super::ast::Span;
use super::literal::{GoFloat, GoQuoted};

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
