//! Admission: what can be said about a message before its payload is read.
//!
//! The cheapest question comes first: size, tenant, rate, topic; the payload,
//! its number of values, its labels and its time follow in the ingest task.
//! Admission runs in the source's own task, before the queue, so that what waits
//! there is counted for its tenant: one tenant that floods fills its own buffer
//! and is told to come again, while the others' messages go on.
//!
//! A topic without a tenant level belongs to the credential's tenant, else to
//! `default`. A topic that names another tenant than the credential is refused
//! on the credential's account.

use std::sync::Arc;

use super::Message;
use super::decode::Refused;
use super::plan::{Active, Plan};
use super::tenants::{Tenant, Tenants, id};
use super::topic::{Subject, TOPIC_BYTES_MAX};
use crate::model::tenant::{DEFAULT_TENANT, is_reserved};
use crate::model::{Clock, TenantId, Timestamp};
use crate::store::FUTURE_MAX_MS;
use crate::telemetry::metrics::{Kind, Reason, UNKNOWN_TENANT};

/// What admission says about a message. While it lives, the message counts as
/// waiting for its commit.
pub(super) struct Lot {
    /// The state of the tenant that pays for it.
    pub(super) tenant: Arc<Tenant>,
    /// That tenant's name.
    pub(super) tenant_id: TenantId,
    /// The map that takes its topic.
    pub(super) map: Option<usize>,
    /// Why it goes no further.
    pub(super) refused: Option<(Reason, &'static str)>,
    waits: bool,
}

impl Drop for Lot {
    fn drop(&mut self) {
        if self.waits {
            self.tenant.meter.waiting.dec();
        }
    }
}

impl Lot {
    /// The message type that the message counts under.
    pub(super) fn kind<'a>(&self, active: &'a Active) -> &'a Kind {
        self.map.map_or(&active.unknown, |map| &active.kinds[map])
    }
}

/// Judges a message by its size, its topic and its tenant.
pub(super) fn admit(active: &Active, tenants: &Tenants, message: &Message, now: Timestamp) -> Lot {
    let plan = &active.plan;
    let found = locate(plan, &message.topic);
    let (name, fault) = owner(plan, found, message);
    let tenant = tenants.get(name, plan, now);
    let is_large = message.payload.len() as u64 > plan.limits.payload_max.get();
    let refused = if is_large {
        Some((
            Reason::Size,
            "the payload is larger than limits.payload_max",
        ))
    } else if let Some(fault) = fault.filter(|(reason, _)| *reason == Reason::Tenant) {
        Some(fault)
    } else if let Err(reason) = tenant.pass(now) {
        Some((reason, "the tenant is switched off or over its rate"))
    } else if fault.is_some() {
        fault
    } else if tenant.is_full() {
        Some((Reason::Overload, "too many messages wait for their commit"))
    } else {
        None
    };
    let waits = refused.is_none();
    if waits {
        tenant.meter.waiting.inc();
    }
    Lot {
        tenant_id: id(name),
        tenant,
        map: found.map(|(map, _)| map),
        refused,
        waits,
    }
}

/// The first map that takes the topic, and what the topic says.
fn locate<'t>(plan: &Plan, topic: &'t str) -> Option<(usize, Subject<'t>)> {
    if topic.len() > TOPIC_BYTES_MAX {
        return None;
    }
    let mut maps = plan.maps.iter().enumerate();
    maps.find_map(|(at, map)| Some((at, map.topic.subject(topic)?)))
}

/// Whose message it is, and what is wrong with that.
fn owner<'a>(
    plan: &'a Plan,
    found: Option<(usize, Subject<'a>)>,
    message: &'a Message,
) -> (&'a str, Option<(Reason, &'static str)>) {
    let bound = message.tenant.as_ref().map(TenantId::as_str);
    let Some((map, subject)) = found else {
        let fault = (Reason::Topic, "no map takes this topic");
        return (bound.unwrap_or(UNKNOWN_TENANT), Some(fault));
    };
    let bad = subject.bad.map(|_| {
        (
            Reason::Topic,
            "a level that becomes a label is not a plain name",
        )
    });
    let said = match subject.tenant {
        Some(level) if subject.bad == Some(level) => {
            return (bound.unwrap_or(UNKNOWN_TENANT), bad);
        }
        Some(level) if is_reserved(level) => {
            let fault = (Reason::Topic, "a tenant's name must not begin with __");
            return (bound.unwrap_or(UNKNOWN_TENANT), Some(fault));
        }
        Some(level) => Some(level),
        None => plan.maps[map].tenant.as_ref().map(TenantId::as_str),
    };
    match (said, bound) {
        (Some(said), Some(bound)) if said != bound => {
            let fault = (Reason::Tenant, "the credential is bound to another tenant");
            (bound, Some(fault))
        }
        _ => (said.or(bound).unwrap_or(DEFAULT_TENANT), bad),
    }
}

/// What time it is, and between which times that may lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// The time that we give out.
    pub(super) now: Timestamp,
    earliest: Timestamp,
    latest: Timestamp,
}

impl Moment {
    /// This moment.
    pub(super) fn of(clock: &Clock) -> Moment {
        Moment {
            now: clock.now(),
            earliest: clock.earliest(),
            latest: clock.latest(),
        }
    }
}

/// Whether a sample of this time may be stored now.
///
/// # Errors
/// Reason `timestamp` when not.
pub(super) fn check_time(plan: &Plan, t: Timestamp, at: &Moment) -> Result<(), Refused> {
    if t > at.latest.plus_ms(FUTURE_MAX_MS) {
        let detail = format!("{t} is more than 5 minutes in the future");
        return Err(Refused::new(Reason::Timestamp, detail));
    }
    if t < at.earliest.minus_ms(plan.late_max_ms) {
        let detail = format!("{t} is older than store.max_late allows");
        return Err(Refused::new(Reason::Timestamp, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::telemetry::Metrics;

    struct Desk {
        active: Active,
        tenants: Tenants,
    }

    fn desk(text: &str) -> Desk {
        let metrics = Metrics::new();
        let plan = Plan::compile(&Config::parse(text, "c.toml").unwrap()).unwrap();
        Desk {
            active: plan.activate(&metrics.ingest),
            tenants: Tenants::new(metrics),
        }
    }

    fn message(topic: &str, bound: Option<&str>) -> Message {
        Message {
            topic: topic.to_owned(),
            payload: bytes::Bytes::from_static(b"{}"),
            stamp: Timestamp::from_ms(0),
            delivered: 1,
            tenant: bound.map(|t| TenantId::new(t).unwrap()),
            state: Vec::new(),
        }
    }

    impl Desk {
        fn admit(&self, message: &Message, ms: i64) -> Lot {
            admit(&self.active, &self.tenants, message, Timestamp::from_ms(ms))
        }

        fn check(&self, topic: &str, bound: Option<&str>, tenant: &str, reason: Option<Reason>) {
            let lot = self.admit(&message(topic, bound), 0);
            assert_eq!(lot.tenant_id.as_str(), tenant, "{topic} {bound:?}");
            assert_eq!(lot.refused.map(|(r, _)| r), reason, "{topic} {bound:?}");
        }
    }

    const TOPIC: &str = "tenants/acme/devices/d/telemetry";

    #[test]
    fn the_tenant_comes_from_the_topic_and_must_be_the_credentials() {
        let desk = desk("[[ingest.map]]\ntopic = \"sensors/{device_id}\"\n");
        desk.check(TOPIC, None, "acme", None);
        desk.check(TOPIC, Some("acme"), "acme", None);
        desk.check(TOPIC, Some("other"), "other", Some(Reason::Tenant));
        desk.check("sensors/1", None, "default", None);
        desk.check("sensors/1", Some("other"), "other", None);
    }

    #[test]
    fn hostile_topics_are_refused() {
        let desk = desk("");
        let topic = Some(Reason::Topic);
        for bad in [
            "",
            "x",
            "tenants/a b/devices/d/telemetry",
            "tenants//devices/d/telemetry",
            "tenants/\0/devices/d/telemetry",
            "tenants/__overflow__/devices/d/telemetry",
            "tenants/__/devices/d/telemetry",
            &"x/".repeat(40_000),
        ] {
            desk.check(bad, None, UNKNOWN_TENANT, topic);
            desk.check(bad, Some("other"), "other", topic);
        }
        desk.check("tenants/acme/devices/../telemetry", None, "acme", None);
        desk.check("tenants/acme/devices/\"}/telemetry", None, "acme", topic);
    }

    #[test]
    fn size_is_asked_before_everything_else() {
        let desk =
            desk("[limits]\npayload_max = \"1B\"\n[[tenant]]\nid = \"acme\"\nenabled = false\n");
        desk.check(TOPIC, None, "acme", Some(Reason::Size));
    }

    #[test]
    fn a_disabled_tenant_is_refused() {
        let desk = desk("[[tenant]]\nid = \"acme\"\nenabled = false\n");
        desk.check(TOPIC, None, "acme", Some(Reason::Tenant));
        desk.check("tenants/b/devices/d/telemetry", None, "b", None);
    }

    #[test]
    fn a_tenant_over_its_rate_does_not_touch_the_others() {
        let desk = desk("[limits]\nmessages_per_second = 1\nmessages_burst = 2\n");
        let verdicts = |ms| {
            let lots = [0; 3].map(|_| desk.admit(&message(TOPIC, None), ms));
            lots.map(|lot| lot.refused.map(|(reason, _)| reason))
        };
        assert_eq!(verdicts(0), [None, None, Some(Reason::Quota)]);
        desk.check("tenants/b/devices/d/telemetry", None, "b", None);
        let quota = Some(Reason::Quota);
        assert_eq!(verdicts(1_000), [None, quota, quota]);
    }

    #[test]
    fn a_full_buffer_is_an_overload_until_something_is_answered() {
        let desk = desk("[limits]\nbuffer_per_tenant = 2\n");
        let waiting = [0; 2].map(|_| desk.admit(&message(TOPIC, None), 0));
        assert_eq!(waiting[0].tenant.meter.waiting.get(), 2);
        desk.check(TOPIC, None, "acme", Some(Reason::Overload));
        desk.check("tenants/b/devices/d/telemetry", None, "b", None);
        drop(waiting);
        desk.check(TOPIC, None, "acme", None);
    }

    #[test]
    fn the_window_is_five_minutes_ahead_and_max_late_behind() {
        let desk = desk("[store]\nmax_late = \"1h\"\n");
        let now = Timestamp::from_ms(10_000_000);
        let at = Moment {
            now,
            earliest: now,
            latest: now,
        };
        let ok = |ms| check_time(&desk.active.plan, now.plus_ms(ms), &at).is_ok();
        assert!(ok(0) && ok(300_000) && ok(-3_600_000));
        assert!(!ok(300_001) && !ok(-3_600_001));
        let ends = [Timestamp::MIN, Timestamp::MAX];
        assert!(ends.map(|t| check_time(&desk.active.plan, t, &at).is_err()) == [true; 2]);
    }

    proptest! {
        #[test]
        fn no_topic_breaks_admission(topic in ".{0,60}") {
            let lot = desk("").admit(&message(&topic, None), 0);
            prop_assert!(lot.refused.is_some());
        }
    }
}
