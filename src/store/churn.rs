//! Which new series the store takes: their number per hour, the form of their
//! labels, and how many values a label may have.
//!
//! A label of one tenant that has as many values as `[limits] label_values_max`
//! says gets the value `__overflow__` for every further one. The series that share
//! it then are one series: the first sample of each millisecond stays.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use super::batch::Refusal;
use super::index::Index;
use super::native;
use crate::config::Limits;
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;
use crate::model::tenant::TENANT_LABEL;
use crate::telemetry::metrics::OVERFLOW_TENANT;

/// The value of a label that has too many.
const OVERFLOW: &str = OVERFLOW_TENANT;

const HOUR_S: u64 = 3_600;

/// Counts the new series of this hour, from full hour to full hour.
#[derive(Debug, Default)]
pub(super) struct Churn {
    /// Since the epoch; `None` until the first new series of this process.
    hour: Option<u64>,
    all: usize,
    of_tenant: HashMap<String, usize>,
}

impl Churn {
    /// Counts a new series of a tenant, unless there were too many (0: no limit).
    /// `found` gives the tenants of the series that were new since a second, one for
    /// each, and is asked once: an earlier process may have used the hour up.
    ///
    /// # Errors
    /// [`Refusal::SeriesRate`].
    pub(super) fn admit(
        &mut self,
        tenant: &str,
        limits: &Limits,
        now_s: u64,
        found: &dyn Fn(u64) -> Vec<String>,
    ) -> Result<(), Refusal> {
        if limits.new_series_per_hour == 0 && limits.new_series_per_tenant_per_hour == 0 {
            return Ok(());
        }
        let hour = now_s / HOUR_S;
        let is_first = self.hour.is_none();
        if self.hour != Some(hour) {
            *self = Churn {
                hour: Some(hour),
                ..Churn::default()
            };
        }
        if is_first {
            for tenant in found(hour * HOUR_S) {
                self.all += 1;
                *self.of_tenant.entry(tenant).or_default() += 1;
            }
        }
        let is_over = |count: usize, max: usize| max > 0 && count >= max;
        if is_over(self.all, limits.new_series_per_hour) {
            return Err(Refusal::SeriesRate);
        }
        let max = limits.new_series_per_tenant_per_hour;
        if max > 0 {
            let own = self.of_tenant.get(tenant).copied().unwrap_or(0);
            if is_over(own, max) {
                return Err(Refusal::SeriesRate);
            }
            *self.of_tenant.entry(tenant.to_owned()).or_default() += 1;
        }
        self.all += 1;
        Ok(())
    }
}

/// Whether the labels of a new series keep the bounds of `[limits]`.
///
/// # Errors
/// [`Refusal::Labels`].
pub(super) fn check_labels(labels: &Labels, limits: &Limits) -> Result<(), Refusal> {
    let fits = |(name, value): (&str, &str)| {
        name.len() <= limits.label_name_bytes_max && value.len() <= limits.label_value_bytes_max
    };
    match labels.len() <= limits.labels_max && labels.iter().all(fits) {
        true => Ok(()),
        false => Err(Refusal::Labels),
    }
}

/// The values that each label of each tenant has, as hashes.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// By a hash of tenant and label name; `None` until somebody asks.
    known: Option<HashMap<u64, HashSet<u64>>>,
}

impl Values {
    /// Forgets them: series have left the store.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }

    /// The labels with the values that there is no room for replaced; `None` when
    /// there is room for all. Reads the index once, and again after
    /// [`Values::forget`].
    pub(super) fn cap(&mut self, labels: &Labels, max: usize, index: &Index) -> Option<Labels> {
        if max == 0 {
            return None;
        }
        let known = self.known.get_or_insert_with(|| read(index));
        let mut capped = None;
        for (name, value) in labels.iter().filter(|(name, _)| is_capped(name)) {
            let values = known.entry(place(labels, name)).or_default();
            let value = xxh3_64(value.as_bytes());
            if values.contains(&value) {
                continue;
            }
            if values.len() < max {
                values.insert(value);
                continue;
            }
            let builder = capped.get_or_insert_with(|| labels.to_builder());
            builder.set(name, OVERFLOW);
        }
        capped.map(|builder| builder.build())
    }
}

fn is_capped(name: &str) -> bool {
    name != METRIC_NAME && name != TENANT_LABEL && !native::is_part_label(name)
}

fn place(labels: &Labels, name: &str) -> u64 {
    let tenant = labels.get(TENANT_LABEL).unwrap_or_default();
    let mut bytes = Vec::with_capacity(tenant.len() + name.len() + 1);
    bytes.extend_from_slice(tenant.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(name.as_bytes());
    xxh3_64(&bytes)
}

fn read(index: &Index) -> HashMap<u64, HashSet<u64>> {
    let mut known: HashMap<u64, HashSet<u64>> = HashMap::new();
    for labels in index.all().iter().filter_map(|id| index.labels(id)) {
        for (name, value) in labels.iter().filter(|(name, _)| is_capped(name)) {
            let values = known.entry(place(&labels, name)).or_default();
            if value != OVERFLOW {
                values.insert(xxh3_64(value.as_bytes()));
            }
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_series_are_counted_by_the_hour_for_all_and_for_each() {
        let limits = Limits {
            new_series_per_hour: 5,
            new_series_per_tenant_per_hour: 2,
            ..Limits::default()
        };
        let now = 500_000 * HOUR_S + 1_000;
        let none = |_: u64| Vec::new();
        let mut churn = Churn::default();
        let mut admitted = |tenant: &str, at| churn.admit(tenant, &limits, at, &none).is_ok();
        assert!(admitted("a", now) && admitted("a", now) && !admitted("a", now));
        assert!(admitted("b", now) && admitted("b", now) && !admitted("b", now));
        assert!(admitted("c", now) && !admitted("c", now) && !admitted("d", now));
        assert!(admitted("a", now + HOUR_S));
        let mut free = Churn::default();
        let limits = Limits::default();
        assert!((0..10_000).all(|_| free.admit("a", &limits, now, &none).is_ok()));
    }

    #[test]
    fn a_process_goes_on_counting_where_the_one_before_ended() {
        let limits = Limits {
            new_series_per_tenant_per_hour: 2,
            ..Limits::default()
        };
        let mut churn = Churn::default();
        let before = |since: u64| {
            assert_eq!(since, 7 * HOUR_S);
            vec!["a".to_owned(), "a".to_owned(), "b".to_owned()]
        };
        let mut admitted =
            |tenant: &str, at: u64| churn.admit(tenant, &limits, at, &before).is_ok();
        assert!(!admitted("a", 7 * HOUR_S + 5));
        assert!(admitted("b", 7 * HOUR_S + 5) && !admitted("b", 7 * HOUR_S + 5));
        assert!(admitted("a", 8 * HOUR_S));
    }

    #[test]
    fn labels_have_bounds() {
        let limits = Limits {
            labels_max: 2,
            label_name_bytes_max: 8,
            label_value_bytes_max: 3,
            ..Limits::default()
        };
        let check = |pairs: &[(&str, &str)], ok: bool| {
            let labels = Labels::from_pairs(pairs.iter().copied());
            assert_eq!(check_labels(&labels, &limits).is_ok(), ok, "{labels}");
        };
        check(&[("__name__", "abc"), ("b", "123")], true);
        check(&[("__name__", "abcd")], false);
        check(&[("long_name", "a")], false);
        check(&[("a", "1"), ("b", "2"), ("c", "3")], false);
    }

    #[test]
    fn the_values_of_a_label_overflow_within_their_tenant() {
        let mut index = Index::default();
        let mut values = Values::default();
        let labels = |tenant: &str, user: &str| {
            Labels::from_pairs([("__name__", "m"), (TENANT_LABEL, tenant), ("user", user)])
        };
        let mut add = |tenant: &str, user: &str| {
            let wanted = labels(tenant, user);
            let capped = values.cap(&wanted, 2, &index);
            let kept = capped.unwrap_or(wanted);
            if index.lookup(&kept).is_none() {
                index.add(&kept, 0);
            }
            kept.get("user").unwrap().to_owned()
        };
        assert_eq!(
            [add("a", "1"), add("a", "2"), add("a", "3")],
            ["1", "2", OVERFLOW]
        );
        assert_eq!(
            [add("a", "2"), add("a", "4"), add("b", "3")],
            ["2", OVERFLOW, "3"]
        );
        // The same after a restart.
        let mut values = Values::default();
        assert_eq!(values.cap(&labels("a", "1"), 2, &index), None);
        assert_eq!(
            values.cap(&labels("a", "5"), 2, &index),
            Some(labels("a", OVERFLOW))
        );
        assert_eq!(values.cap(&labels("a", "5"), 0, &index), None);
    }
}
