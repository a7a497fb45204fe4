//! How many dead letters are stored of each tenant: `pulse_delivery_dlq_depth`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::{Store, Table};
use crate::telemetry::Metrics;

/// Changes are looked at together.
const LINGER: Duration = Duration::from_secs(1);

/// Keeps the gauge right until it is told to stop.
pub(super) async fn watch(store: Store, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut changes = store.changes(Table::Dead);
    let mut shown = HashSet::new();
    loop {
        changes.mark_unchanged();
        publish(&store, &metrics, &mut shown);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LINGER) => {}
        }
    }
}

/// Sets the gauge of every tenant that has dead letters or had some.
fn publish(store: &Store, metrics: &Metrics, shown: &mut HashSet<String>) {
    let mut counts: HashMap<String, u64> = shown.iter().map(|t| (t.clone(), 0)).collect();
    for (tenant, count) in store.dead_letters() {
        *counts
            .entry(metrics.tenants.label(&tenant).to_owned())
            .or_default() += count;
    }
    for (tenant, count) in counts {
        let gauge = metrics.delivery.dlq_depth.with_label_values(&[&tenant]);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        shown.insert(tenant);
    }
}
