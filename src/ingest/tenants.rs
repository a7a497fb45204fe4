//! The tenants that send: what each may do, and its instruments.
//!
//! Tenants need not be configured, so their number is bounded: those above
//! [`TENANTS_MAX`] share one state, one rate and one buffer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::plan::{Plan, Rule};
use super::quota::Bucket;
use crate::model::{TenantId, Timestamp};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Meter, OVERFLOW_TENANT, Reason};

/// Tenants with a state of their own, about 300 bytes each.
pub(super) const TENANTS_MAX: usize = 16_384;

/// The state of one tenant. It is not told from its name which one it is, as
/// tenants may share it.
pub(super) struct Tenant {
    /// Its instruments.
    pub(super) meter: Arc<Meter>,
    gate: Mutex<Gate>,
    all: Arc<Mutex<All>>,
    /// The last commit that was timed for it.
    timed: AtomicU64,
}

struct Gate {
    rule: Rule,
    bucket: Bucket,
    samples: Bucket,
}

/// The samples of all tenants together: there from the first one on.
type All = Option<Bucket>;

/// Whose samples per second are too many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    /// The tenant's.
    Tenant,
    /// Those of all tenants together.
    All,
}

impl Over {
    /// What a sender is told.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Over::Tenant => "the tenant sends more samples per second than it may",
            Over::All => "all tenants together send more samples per second than they may",
        }
    }
}

/// All tenants seen since the start.
pub(super) struct Tenants {
    known: RwLock<HashMap<String, Arc<Tenant>>>,
    all: Arc<Mutex<All>>,
    metrics: Arc<Metrics>,
}

impl Tenants {
    /// None yet.
    pub(super) fn new(metrics: Arc<Metrics>) -> Tenants {
        Tenants {
            known: RwLock::default(),
            all: Arc::default(),
            metrics,
        }
    }

    /// The state of a tenant, made at first sight.
    pub(super) fn get(&self, name: &str, plan: &Plan, now: Timestamp) -> Arc<Tenant> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let name = match known.get(name) {
            Some(tenant) => return Arc::clone(tenant),
            None if known.len() < TENANTS_MAX => name,
            None => OVERFLOW_TENANT,
        };
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let made = || self.make(name, plan.rule(name), now);
        Arc::clone(known.entry(name.to_owned()).or_insert_with(made))
    }

    fn make(&self, name: &str, rule: Rule, now: Timestamp) -> Arc<Tenant> {
        let label = self.metrics.tenants.label(name);
        let meter = self.metrics.ingest.meter(label);
        meter.capacity.set(to_gauge(rule.buffer));
        let bucket = Bucket::new(rule.burst, now);
        let samples = Bucket::new(samples_burst(rule.samples), now);
        Arc::new(Tenant {
            meter,
            gate: Mutex::new(Gate {
                rule,
                bucket,
                samples,
            }),
            all: Arc::clone(&self.all),
            timed: AtomicU64::new(0),
        })
    }

    /// Whether so many samples of nobody in particular are within the rate of all.
    pub(super) fn passes_samples(&self, count: u32, rate: u32, now: Timestamp) -> Result<(), Over> {
        take_of_all(&self.all, count, rate, now)
    }

    /// Makes what a new plan says hold for everyone. Tokens that were used stay used.
    pub(super) fn apply(&self, plan: &Plan) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        for (name, tenant) in known.iter() {
            let rule = plan.rule(name);
            tenant.meter.capacity.set(to_gauge(rule.buffer));
            tenant.lock().rule = rule;
        }
    }
}

fn take_of_all(all: &Mutex<All>, count: u32, rate: u32, now: Timestamp) -> Result<(), Over> {
    if rate == 0 {
        return Ok(());
    }
    let burst = samples_burst(rate);
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let bucket = all.get_or_insert_with(|| Bucket::new(burst, now));
    match bucket.take(count, rate, burst, now) {
        true => Ok(()),
        false => Err(Over::All),
    }
}

/// Samples at once above a rate: those of ten seconds.
fn samples_burst(rate: u32) -> u32 {
    rate.saturating_mul(10)
}

impl Tenant {
    /// Whether a message may go on: its tenant is switched on and within its rate.
    ///
    /// # Errors
    /// The reason why not.
    pub(super) fn pass(&self, now: Timestamp) -> Result<(), Reason> {
        let mut gate = self.lock();
        let Rule {
            enabled,
            rate,
            burst,
            ..
        } = gate.rule;
        if !enabled {
            return Err(Reason::Tenant);
        }
        if gate.bucket.take(1, rate, burst, now) {
            Ok(())
        } else {
            Err(Reason::Quota)
        }
    }

    /// Whether so many samples are within the tenant's rate, and within that of all
    /// tenants. The tenant first: what it may not send, the others may.
    pub(super) fn passes_samples(
        &self,
        count: u32,
        rate_all: u32,
        now: Timestamp,
    ) -> Result<(), Over> {
        let mut gate = self.lock();
        let rate = gate.rule.samples;
        if !gate.samples.take(count, rate, samples_burst(rate), now) {
            return Err(Over::Tenant);
        }
        drop(gate);
        take_of_all(&self.all, count, rate_all, now)
    }

    /// Whether as many of its messages wait as may.
    pub(super) fn is_full(&self) -> bool {
        self.meter.waiting.get() >= self.meter.capacity.get()
    }

    /// Observes the time of a commit once, whatever number of its messages was in it.
    pub(super) fn time_commit(&self, commit: u64, seconds: f64) {
        if self.timed.swap(commit, Ordering::Relaxed) != commit {
            self.meter.batch_write.observe(seconds);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tenant's name for labels; the caller has checked that it is one.
pub(super) fn id(name: &str) -> TenantId {
    TenantId::new(name).expect("admission lets only valid names through")
}

fn to_gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn plan(text: &str) -> Plan {
        Plan::compile(&Config::parse(text, "c.toml").unwrap()).unwrap()
    }

    #[test]
    fn a_new_plan_holds_for_tenants_that_are_known() {
        let tenants = Tenants::new(Metrics::new());
        let now = Timestamp::from_ms(0);
        let tenant = tenants.get("a", &plan(""), now);
        assert_eq!(tenant.pass(now), Ok(()));
        tenants.apply(&plan("[[tenant]]\nid = \"a\"\nenabled = false\n"));
        assert_eq!(tenant.pass(now), Err(Reason::Tenant));
        tenants.apply(&plan(
            "[limits]\nmessages_per_second = 1\nbuffer_per_tenant = 7\n",
        ));
        assert_eq!(tenant.meter.capacity.get(), 7);
    }

    #[test]
    fn strangers_without_number_share_one_state() {
        let tenants = Tenants::new(Metrics::new());
        let (plan, now) = (plan(""), Timestamp::from_ms(0));
        for i in 0..TENANTS_MAX + 10 {
            tenants.get(&format!("t{i}"), &plan, now);
        }
        let [x, y] = ["x", "y"].map(|name| tenants.get(name, &plan, now));
        assert!(Arc::ptr_eq(&x, &y));
        assert!(tenants.known.read().unwrap().len() <= TENANTS_MAX + 1);
    }
}
