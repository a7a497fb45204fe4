//! Which tenants have series of their own.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use super::OVERFLOW_TENANT;

/// The tenants that are shown by name; the first ones seen, up to `metrics.max_tenants`.
/// All parts share it, so that a tenant is either in all families or in none.
pub struct Tenants {
    shown: RwLock<HashSet<String>>,
    max: AtomicUsize,
}

impl Tenants {
    pub(super) fn new() -> Tenants {
        Tenants {
            shown: RwLock::default(),
            max: AtomicUsize::new(500),
        }
    }

    /// Sets `metrics.max_tenants`. Tenants that are shown already stay.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// The `tenant_id` under which this tenant is counted: its own, or that of the rest.
    pub fn label<'a>(&self, tenant: &'a str) -> &'a str {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        if shown.contains(tenant) {
            return tenant;
        }
        let is_full = shown.len() >= self.max.load(Ordering::Relaxed);
        drop(shown);
        if is_full {
            return OVERFLOW_TENANT;
        }
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        if shown.len() < self.max.load(Ordering::Relaxed) {
            shown.insert(tenant.to_owned());
        }
        if shown.contains(tenant) {
            tenant
        } else {
            OVERFLOW_TENANT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tenants_keep_their_names_and_the_rest_share_one() {
        let tenants = Tenants::new();
        tenants.set_max(2);
        let seen: Vec<&str> = ["a", "b", "c", "a", "d", "b"]
            .map(|t| tenants.label(t))
            .into();
        let rest = OVERFLOW_TENANT;
        assert_eq!(seen, ["a", "b", rest, "a", rest, "b"]);
    }
}
