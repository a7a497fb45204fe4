//! Metric families that are made when they are asked for, value by value.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// A family under construction.
pub struct FamilyBuilder {
    name: String,
    help: &'static str,
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl FamilyBuilder {
    /// A family of counters; the name ends in `_total`.
    pub fn counter(name: impl Into<String>, help: &'static str) -> FamilyBuilder {
        FamilyBuilder::new(name.into(), help, MetricType::COUNTER)
    }

    /// A family of gauges.
    pub fn gauge(name: impl Into<String>, help: &'static str) -> FamilyBuilder {
        FamilyBuilder::new(name.into(), help, MetricType::GAUGE)
    }

    fn new(name: String, help: &'static str, kind: MetricType) -> FamilyBuilder {
        FamilyBuilder {
            name,
            help,
            kind,
            metrics: Vec::new(),
        }
    }

    /// Adds a value with these labels.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut labels: Vec<LabelPair> = labels.iter().map(pair).collect();
        labels.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        let mut metric = Metric::from_label(labels);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// The same family with one more value.
    #[must_use]
    pub fn with(mut self, labels: &[(&str, &str)], value: f64) -> FamilyBuilder {
        self.add(labels, value);
        self
    }

    /// The family; nothing when no value was added.
    pub fn build(self) -> Option<MetricFamily> {
        if self.metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name);
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(self.metrics);
        Some(family)
    }
}

fn pair((name, value): &(&str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name((*name).to_owned());
    pair.set_value((*value).to_owned());
    pair
}
