//! What `/api/v1/status/tsdb` and `pulse tsdb analyze` tell: cardinality and churn.

use std::collections::HashMap;

use redb::{ReadableDatabase as _, ReadableTable as _};

use super::catalog::first_seen_s;
use super::disk::io_error;
use super::index::{Cardinality, Top};
use super::shared::Shared;
use super::tables::SERIES;
use super::{Error, Store};

/// A series is new for this long, in seconds.
const NEW_S: u64 = 3_600;

impl Store {
    /// Which names, values and tenants have most series, and which are new; at most
    /// `max` of each. Reads the catalog for the latter. Blocking.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn cardinality(&self, max: usize) -> Result<Cardinality, Error> {
        let mut found = self.shared.index().cardinality(max);
        let now_s = self.shared.clock.now().as_ms() / 1_000;
        let since = u64::try_from(now_s).unwrap_or(0).saturating_sub(NEW_S);
        let fresh = self.shared.first_seen_since(since);
        let fresh = fresh.map_err(|err| io_error("read", self.shared.hot.path(), err))?;
        found.new_series = fresh.len() as u64;
        let mut by_metric: HashMap<String, u64> = HashMap::new();
        let index = self.shared.index();
        for series in fresh {
            if let Some(labels) = index.labels(series) {
                let metric = labels.metric_name().to_owned();
                *by_metric.entry(metric).or_default() += 1;
            }
        }
        let mut top = Top::of(max);
        for (metric, n) in by_metric {
            top.add(n, metric);
        }
        found.new_by_metric = top.named(|metric| metric);
        Ok(found)
    }
}

impl Shared {
    /// The series in the catalog that are new since a second. Reads all of it.
    pub(super) fn first_seen_since(&self, since: u64) -> Result<Vec<u32>, redb::Error> {
        let db = self.hot.database();
        let db = db.map_err(|err| redb::Error::Io(std::io::Error::other(err)))?;
        let mut fresh = Vec::new();
        for row in db.begin_read()?.open_table(SERIES)?.iter()? {
            let (id, row) = row?;
            if first_seen_s(row.value()).is_some_and(|seen| seen >= since) {
                fresh.push(id.value());
            }
        }
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Store;
    use crate::store::tests::{T0, batch, manual, options, row};
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn the_largest_come_first_and_the_new_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, manual) = manual(T0 + 60_000);
        let store = Store::open(options(dir.path()), clock, Metrics::new()).unwrap();
        let many = (0..5).map(|d| row("big", &format!("d{d}"), T0, 1.0));
        store.write(batch(many)).await.unwrap();
        store
            .write(batch([row("small", "d1", T0, 1.0)]))
            .await
            .unwrap();
        manual.advance(std::time::Duration::from_secs(4_000));
        let late = [row("late", "d1", T0 + 3_900_000, 1.0)];
        store.write(batch(late)).await.unwrap();

        let found = store.cardinality(2).unwrap();
        let named = |all: &[(&str, u64)]| {
            let all = all.iter().map(|(name, n)| ((*name).to_owned(), *n));
            all.collect::<Vec<_>>()
        };
        assert_eq!((found.series, found.pairs, found.new_series), (7, 9, 1));
        assert_eq!(found.by_metric[0], ("big".to_owned(), 5));
        assert_eq!(found.by_metric.len(), 2);
        assert_eq!(
            found.values_by_label,
            named(&[("device_id", 5), ("__name__", 3)])
        );
        assert_eq!(found.bytes_by_label[0], ("__name__".to_owned(), 12));
        let pairs = named(&[("tenant_id=acme", 7), ("__name__=big", 5)]);
        assert_eq!(found.by_pair, pairs);
        assert_eq!(found.by_tenant, named(&[("acme", 7)]));
        assert_eq!(found.new_by_metric, named(&[("late", 1)]));
        store.close().await;
    }
}
