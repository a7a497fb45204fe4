//! Metric families as Prometheus text (0.0.4) and as OpenMetrics text (1.0).
//!
//! The differences that matter, as Prometheus' own Go client writes them:
//!
//! | | Prometheus text | OpenMetrics |
//! |---|---|---|
//! | counter `x_total` | `# TYPE x_total counter` | `# TYPE x counter` |
//! | counter `x` | `# TYPE x counter` | `# TYPE x unknown`: a counter must end in `_total` |
//! | untyped | `untyped` | `unknown` |
//! | `le`, `quantile` of whole numbers | `le="1"` | `le="1.0"` |
//! | escapes in help | `\\`, `\n` | also `\"` |
//! | timestamps | milliseconds | seconds |
//! | end | | `# EOF` |
//!
//! Families are sorted by name and metrics by labels, so that two expositions of
//! the same state are equal.

use std::fmt::{self, Write as _};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use crate::model::labels::{METRIC_NAME, Quoted};
use crate::model::{Labels, LabelsBuilder};

/// Which text to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics text, version 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client with this `Accept` header wants: OpenMetrics when it ranks
    /// it at least as high as anything that plain text answers.
    pub fn for_accept(accept: &str) -> Format {
        let mut open_metrics: Option<f64> = None;
        let mut text: f64 = 0.0;
        for range in accept.split(',') {
            let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
            let quality = parameter(parameters, "q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            match kind.trim().to_ascii_lowercase().as_str() {
                "application/openmetrics-text" if speaks_version_1(parameters) => {
                    open_metrics = Some(open_metrics.unwrap_or(0.0).max(quality));
                }
                "text/plain" | "text/*" | "*/*" => text = text.max(quality),
                _ => {}
            }
        }
        match open_metrics {
            Some(quality) if quality > 0.0 && quality >= text => Format::OpenMetrics,
            _ => Format::Text,
        }
    }

    /// The value of the `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The families as text.
    pub fn write(self, families: &[MetricFamily]) -> String {
        let mut sorted: Vec<&MetricFamily> = families.iter().collect();
        sorted.sort_unstable_by_key(|family| family.name());
        let mut out = String::new();
        for family in sorted {
            if !family.get_metric().is_empty() {
                self.write_family(family, &mut out)
                    .expect("a string takes everything");
            }
        }
        if self == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }

    fn write_family(self, family: &MetricFamily, out: &mut String) -> fmt::Result {
        let (name, kind) = self.name_and_type(family);
        if !family.help().is_empty() {
            write!(out, "# HELP {name} ")?;
            self.write_help(family.help(), out);
            out.push('\n');
        }
        writeln!(out, "# TYPE {name} {kind}")?;
        let mut metrics: Vec<&Metric> = family.get_metric().iter().collect();
        metrics.sort_unstable_by(|a, b| by_labels(a, b));
        for metric in metrics {
            let mut result = Ok(());
            for_each_sample(family, metric, |sample| {
                result = result.and_then(|()| self.write_sample(family, metric, &sample, out));
            });
            result?;
        }
        Ok(())
    }

    fn name_and_type(self, family: &MetricFamily) -> (&str, &'static str) {
        let name = family.name();
        match (self, family.get_field_type()) {
            (Format::OpenMetrics, MetricType::COUNTER) => match name.strip_suffix("_total") {
                Some(stem) => (stem, "counter"),
                None => (name, "unknown"),
            },
            (Format::OpenMetrics, MetricType::UNTYPED) => (name, "unknown"),
            (_, kind) => (name, type_name(kind)),
        }
    }

    fn write_help(self, help: &str, out: &mut String) {
        for c in help.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '"' if self == Format::OpenMetrics => out.push_str("\\\""),
                c => out.push(c),
            }
        }
    }

    fn write_sample(
        self,
        family: &MetricFamily,
        metric: &Metric,
        sample: &FlatSample,
        out: &mut String,
    ) -> fmt::Result {
        out.push_str(family.name());
        out.push_str(sample.suffix);
        let mut separator = '{';
        for label in metric.get_label() {
            write!(out, "{separator}{}={}", label.name(), Quoted(label.value()))?;
            separator = ',';
        }
        if let Some((name, bound)) = sample.extra {
            write!(out, "{separator}{name}=\"{}\"", self.bound(bound))?;
            separator = ',';
        }
        if separator == ',' {
            out.push('}');
        }
        write!(out, " {}", Number(sample.value))?;
        match (self, metric.timestamp_ms()) {
            (_, 0) => {}
            (Format::Text, ms) => write!(out, " {ms}")?,
            (Format::OpenMetrics, ms) => write!(out, " {}", ms as f64 / 1000.0)?,
        }
        out.push('\n');
        Ok(())
    }

    fn bound(self, bound: f64) -> String {
        match self {
            Format::OpenMetrics => normal_bound(bound),
            Format::Text => Number(bound).to_string(),
        }
    }
}

/// The value of a parameter of a media range.
fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    parameters
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(n, _)| n.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().trim_matches('"'))
}

/// A range without a version takes any.
fn speaks_version_1(parameters: &str) -> bool {
    parameter(parameters, "version").is_none_or(|v| v == "1.0.0" || v == "0.0.1")
}

/// The value of `le` and `quantile` as OpenMetrics writes it and as Prometheus 3
/// stores it whatever it was: whole numbers with `.0`.
pub fn normal_bound(bound: f64) -> String {
    let text = Number(bound).to_string();
    if bound.is_finite() && text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return text + ".0";
    }
    text
}

/// The type's name in metadata and in Prometheus text.
pub fn type_name(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::SUMMARY => "summary",
        MetricType::HISTOGRAM => "histogram",
        MetricType::UNTYPED => "untyped",
    }
}

fn by_labels(a: &Metric, b: &Metric) -> std::cmp::Ordering {
    let pairs = |metric: &Metric| {
        let pair = |l: &LabelPair| (l.name().to_owned(), l.value().to_owned());
        metric.get_label().iter().map(pair).collect::<Vec<_>>()
    };
    if a.get_label() == b.get_label() {
        return std::cmp::Ordering::Equal;
    }
    pairs(a).cmp(&pairs(b))
}

/// One line of an exposition: a metric of a histogram or summary has several.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FlatSample {
    /// What follows the family's name: `_bucket`, `_sum`, `_count` or nothing.
    pub suffix: &'static str,
    /// `le` or `quantile` with its number, beside the metric's own labels.
    pub extra: Option<(&'static str, f64)>,
    /// The value.
    pub value: f64,
}

impl FlatSample {
    fn plain(value: f64) -> FlatSample {
        FlatSample {
            suffix: "",
            extra: None,
            value,
        }
    }
}

/// The labels of a sample as a scrape of it would store them, without `honor_labels`.
pub fn scraped_labels(
    job: &str,
    instance: &str,
    family: &MetricFamily,
    metric: &Metric,
    sample: &FlatSample,
) -> Labels {
    let mut labels = LabelsBuilder::default();
    for label in metric.get_label() {
        match label.name() {
            name @ ("job" | "instance") => labels.set(&format!("exported_{name}"), label.value()),
            name => labels.set(name, label.value()),
        };
    }
    if let Some((name, bound)) = sample.extra {
        labels.set(name, &normal_bound(bound));
    }
    labels
        .set(METRIC_NAME, &format!("{}{}", family.name(), sample.suffix))
        .set("job", job)
        .set("instance", instance)
        .build()
}

/// Calls `sink` for every sample of a metric, in the order of an exposition.
pub fn for_each_sample(family: &MetricFamily, metric: &Metric, mut sink: impl FnMut(FlatSample)) {
    match family.get_field_type() {
        MetricType::COUNTER => sink(FlatSample::plain(metric.get_counter().get_value())),
        MetricType::GAUGE => sink(FlatSample::plain(metric.get_gauge().get_value())),
        MetricType::HISTOGRAM => flatten_histogram(metric, &mut sink),
        MetricType::SUMMARY => flatten_summary(metric, &mut sink),
        // The client library makes none and lets nobody read their value.
        MetricType::UNTYPED => {}
    }
}

fn flatten_histogram(metric: &Metric, sink: &mut impl FnMut(FlatSample)) {
    let histogram = metric.get_histogram();
    let mut bucket = |bound: f64, count: u64| {
        sink(FlatSample {
            suffix: "_bucket",
            extra: Some(("le", bound)),
            value: count as f64,
        });
    };
    let mut has_all = false;
    for b in histogram.get_bucket() {
        bucket(b.upper_bound(), b.cumulative_count());
        has_all |= b.upper_bound() == f64::INFINITY;
    }
    if !has_all {
        bucket(f64::INFINITY, histogram.get_sample_count());
    }
    sum_and_count(
        histogram.get_sample_sum(),
        histogram.get_sample_count(),
        sink,
    );
}

fn flatten_summary(metric: &Metric, sink: &mut impl FnMut(FlatSample)) {
    let summary = metric.get_summary();
    for quantile in summary.get_quantile() {
        sink(FlatSample {
            suffix: "",
            extra: Some(("quantile", quantile.quantile())),
            value: quantile.value(),
        });
    }
    sum_and_count(summary.sample_sum(), summary.sample_count(), sink);
}

fn sum_and_count(sum: f64, count: u64, sink: &mut impl FnMut(FlatSample)) {
    for (suffix, value) in [("_sum", sum), ("_count", count as f64)] {
        sink(FlatSample {
            suffix,
            extra: None,
            value,
        });
    }
}

/// A number as the formats spell it: `NaN`, `+Inf`, `-Inf`, else the shortest
/// digits that give the same bits, with an exponent when there would be many.
pub struct Number(pub f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            f.write_str("NaN")
        } else if value.is_infinite() {
            f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
        } else if value != 0.0 && !(1e-5..1e21).contains(&value.abs()) {
            write!(f, "{value:e}")
        } else {
            write!(f, "{value}")
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Quantile, Summary};

    use super::*;

    fn metric(labels: &[(&str, &str)]) -> Metric {
        let pair = |(name, value): &(&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        Metric::from_label(labels.iter().map(pair).collect())
    }

    fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        family
    }

    fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
        let mut metric = metric(labels);
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
        metric
    }

    fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
        let mut metric = metric(labels);
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        metric
    }

    fn histogram() -> Metric {
        let mut metric = metric(&[("op", "x")]);
        let mut histogram = Histogram::default();
        let bucket = |bound: f64, count: u64| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        histogram.set_bucket(vec![bucket(0.5, 1), bucket(1.0, 3)]);
        histogram.set_sample_count(4);
        histogram.set_sample_sum(7.25);
        metric.set_histogram(histogram);
        metric
    }

    fn summary() -> Metric {
        let mut metric = metric(&[]);
        let mut summary = Summary::default();
        let mut quantile = Quantile::default();
        quantile.set_quantile(1.0);
        quantile.set_value(f64::NAN);
        summary.set_quantile(vec![quantile]);
        summary.set_sample_count(2);
        summary.set_sample_sum(1e-9);
        metric.set_summary(summary);
        metric
    }

    fn families() -> Vec<MetricFamily> {
        vec![
            family("z_seconds", "", MetricType::SUMMARY, vec![summary()]),
            family(
                "h_seconds",
                "Time.",
                MetricType::HISTOGRAM,
                vec![histogram()],
            ),
            family("empty", "Nothing.", MetricType::GAUGE, vec![]),
            family(
                "a_total",
                "All \"a\"\\b\nnext.",
                MetricType::COUNTER,
                vec![
                    counter(&[("tenant_id", "b")], 1e21),
                    counter(&[("tenant_id", "a\"\\\nü€")], 3.0),
                ],
            ),
            family("odd", "Odd.", MetricType::COUNTER, vec![counter(&[], 2.0)]),
            family(
                "g",
                "G.",
                MetricType::GAUGE,
                vec![gauge(&[], f64::NEG_INFINITY)],
            ),
        ]
    }

    #[test]
    fn prometheus_text() {
        let want = r#"# HELP a_total All "a"\\b\nnext.
# TYPE a_total counter
a_total{tenant_id="a\"\\\nü€"} 3
a_total{tenant_id="b"} 1e21
# HELP g G.
# TYPE g gauge
g -Inf
# HELP h_seconds Time.
# TYPE h_seconds histogram
h_seconds_bucket{op="x",le="0.5"} 1
h_seconds_bucket{op="x",le="1"} 3
h_seconds_bucket{op="x",le="+Inf"} 4
h_seconds_sum{op="x"} 7.25
h_seconds_count{op="x"} 4
# HELP odd Odd.
# TYPE odd counter
odd 2
# TYPE z_seconds summary
z_seconds{quantile="1"} NaN
z_seconds_sum 1e-9
z_seconds_count 2
"#;
        assert_eq!(Format::Text.write(&families()), want);
    }

    #[test]
    fn open_metrics_text() {
        let want = r#"# HELP a All \"a\"\\b\nnext.
# TYPE a counter
a_total{tenant_id="a\"\\\nü€"} 3
a_total{tenant_id="b"} 1e21
# HELP g G.
# TYPE g gauge
g -Inf
# HELP h_seconds Time.
# TYPE h_seconds histogram
h_seconds_bucket{op="x",le="0.5"} 1
h_seconds_bucket{op="x",le="1.0"} 3
h_seconds_bucket{op="x",le="+Inf"} 4
h_seconds_sum{op="x"} 7.25
h_seconds_count{op="x"} 4
# HELP odd Odd.
# TYPE odd unknown
odd 2
# TYPE z_seconds summary
z_seconds{quantile="1.0"} NaN
z_seconds_sum 1e-9
z_seconds_count 2
# EOF
"#;
        assert_eq!(Format::OpenMetrics.write(&families()), want);
        assert_eq!(Format::OpenMetrics.write(&[]), "# EOF\n");
    }

    #[test]
    fn timestamps_are_milliseconds_or_seconds() {
        let mut metric = gauge(&[], 1.0);
        metric.set_timestamp_ms(1_500);
        let families = [family("g", "", MetricType::GAUGE, vec![metric])];
        assert!(Format::Text.write(&families).ends_with("g 1 1500\n"));
        let open = Format::OpenMetrics.write(&families);
        assert!(open.ends_with("g 1 1.5\n# EOF\n"));
    }

    #[test]
    fn the_accept_header_decides() {
        let check = |accept: &str, want| assert_eq!(Format::for_accept(accept), want, "{accept}");
        check("", Format::Text);
        check("*/*", Format::Text);
        check("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text);
        check("application/openmetrics-text", Format::OpenMetrics);
        // What Prometheus 2 and 3 send.
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        );
        check(
            "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.5",
            Format::OpenMetrics,
        );
        check(
            "application/openmetrics-text;q=0.2,text/plain",
            Format::Text,
        );
        check("application/openmetrics-text;q=0,*/*;q=0", Format::Text);
        check("application/openmetrics-text;version=9.0.0", Format::Text);
    }

    #[test]
    fn numbers_come_back_with_the_same_bits() {
        for value in [
            0.1,
            1.0 / 3.0,
            1e300,
            5e-324,
            123_456_789.0,
            -0.0,
            1e21,
            1e-5,
        ] {
            let text = Number(value).to_string();
            assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(value.to_bits()));
            assert!(text.len() < 25, "{text}");
        }
    }
}
