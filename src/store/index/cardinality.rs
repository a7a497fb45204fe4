//! Where the series come from: which names, values and tenants have most.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use super::Index;
use crate::model::labels::METRIC_NAME;

/// A name and how often it is there.
pub type Count = (String, u64);

/// What the index holds, the largest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cardinality {
    /// Series.
    pub series: u64,
    /// Different pairs of label name and value.
    pub pairs: u64,
    /// Series of each metric name.
    pub by_metric: Vec<Count>,
    /// Different values of each label.
    pub values_by_label: Vec<Count>,
    /// Bytes of the texts of those values.
    pub bytes_by_label: Vec<Count>,
    /// Series of each pair, as `name=value`.
    pub by_pair: Vec<Count>,
    /// Series of each tenant; the operator's own under the empty name.
    pub by_tenant: Vec<Count>,
    /// Series first seen within the last hour, by metric name.
    pub new_by_metric: Vec<Count>,
    /// Series first seen within the last hour.
    pub new_series: u64,
}

/// The largest counts, of at most so many.
pub(in crate::store) struct Top<T> {
    kept: BinaryHeap<Reverse<(u64, T)>>,
    max: usize,
}

impl<T: Ord> Top<T> {
    pub(in crate::store) fn of(max: usize) -> Top<T> {
        let kept = BinaryHeap::new();
        Top { kept, max }
    }

    pub(in crate::store) fn add(&mut self, count: u64, what: T) {
        self.kept.push(Reverse((count, what)));
        if self.kept.len() > self.max {
            self.kept.pop();
        }
    }

    /// The largest first; of equal ones in the order of their names.
    pub(in crate::store) fn named(self, name: impl Fn(T) -> String) -> Vec<Count> {
        let kept = self.kept.into_iter();
        let mut all: Vec<Count> = kept.map(|Reverse((n, what))| (name(what), n)).collect();
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all
    }
}

impl Index {
    /// Counts everything but churn. Costs a step for each pair of name and value.
    pub(in crate::store) fn cardinality(&self, max: usize) -> Cardinality {
        let text = |symbol: u32| self.symbols.text(symbol).to_owned();
        let mut metrics = Top::of(max);
        let mut values_by_label = Top::of(max);
        let mut bytes_by_label = Top::of(max);
        let mut by_pair = Top::of(max);
        let mut pairs = 0;
        let metric_name = self.symbols.get(METRIC_NAME);
        for (name, values) in &self.names {
            let mut bytes = 0;
            for (value, series) in values {
                let n = series.len();
                bytes += self.symbols.text(*value).len() as u64;
                by_pair.add(n, (*name, *value));
                if Some(*name) == metric_name {
                    metrics.add(n, *value);
                }
            }
            pairs += values.len() as u64;
            values_by_label.add(values.len() as u64, *name);
            bytes_by_label.add(bytes, *name);
        }
        let mut by_tenant = Top::of(max);
        for (tenant, series) in &self.tenants {
            by_tenant.add(*series as u64, *tenant);
        }
        let tenant = |symbol: u32| match symbol {
            0 => String::new(),
            symbol => text(symbol),
        };
        Cardinality {
            series: self.len() as u64,
            pairs,
            by_metric: metrics.named(text),
            values_by_label: values_by_label.named(text),
            bytes_by_label: bytes_by_label.named(text),
            by_pair: by_pair.named(|(name, value)| format!("{}={}", text(name), text(value))),
            by_tenant: by_tenant.named(tenant),
            ..Cardinality::default()
        }
    }
}
