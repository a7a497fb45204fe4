//! What public dashboards and alert rules ask of Prometheus, where we measure the same
//! thing under a name of our own: read from our instruments when it is gathered, so
//! that nothing is counted twice.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{Store, gauges};
use crate::model::whole;

struct Anchors {
    head_series: (IntGauge, IntGauge),
    compactions_failed: (IntCounter, IntCounter),
    samples_appended: (IntCounter, IntCounterVec),
}

/// Registers the families; `samples` counts stored samples by tenant.
pub(super) fn register(registry: &Registry, store: &Store, samples: &IntCounterVec) {
    const FIXED: &str = "BUG: a bad metric name";
    let head_series = IntGauge::new(
        "prometheus_tsdb_head_series",
        "Total number of series in the head block.",
    );
    let compactions_failed = IntCounter::new(
        "prometheus_tsdb_compactions_failed_total",
        "Total number of windows that could not be sealed.",
    );
    let samples_appended = IntCounter::new(
        "prometheus_tsdb_head_samples_appended_total",
        "Total number of appended samples.",
    );
    let anchors = Anchors {
        head_series: (head_series.expect(FIXED), store.head_series.clone()),
        compactions_failed: (
            compactions_failed.expect(FIXED),
            store.seal_failures.clone(),
        ),
        samples_appended: (samples_appended.expect(FIXED), samples.clone()),
    };
    registry
        .register(Box::new(anchors))
        .expect("BUG: two instruments of one name");
    for whose in ["prometheus", "alertmanager"] {
        let help = "A metric with a constant '1' value labeled by version.";
        let info = gauges(registry, &format!("{whose}_build_info"), help, &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }
}

impl Collector for Anchors {
    fn desc(&self) -> Vec<&Desc> {
        [
            self.head_series.0.desc(),
            self.compactions_failed.0.desc(),
            self.samples_appended.0.desc(),
        ]
        .concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (shown, source) = &self.head_series;
        shown.set(source.get());
        let mut families = shown.collect();
        let by_tenant = self.samples_appended.1.collect();
        let by_tenant = by_tenant.iter().flat_map(MetricFamily::get_metric);
        // Counts of samples are exact in a float up to 2^53.
        let samples = by_tenant.map(|m| m.get_counter().get_value()).sum::<f64>();
        for (shown, now) in [
            (&self.compactions_failed.0, self.compactions_failed.1.get()),
            (&self.samples_appended.0, whole(samples)),
        ] {
            shown.inc_by(now.saturating_sub(shown.get()));
            families.extend(shown.collect());
        }
        families
    }
}
