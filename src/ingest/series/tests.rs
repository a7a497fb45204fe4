//! The series cache against label sets built by hand.

use super::*;
use crate::config;
use crate::ingest::decode::decode;

struct Desk {
    cache: Cache,
    map: Map,
    limits: Limits,
    tenant: TenantId,
}

fn desk(change: impl FnOnce(&mut config::Map)) -> Desk {
    let mut raw = config::Map::default();
    change(&mut raw);
    Desk {
        cache: Cache::default(),
        map: Map::compile(&raw).unwrap(),
        limits: Limits::default(),
        tenant: TenantId::new("acme").unwrap(),
    }
}

impl Desk {
    fn find(&mut self, topic: &str, payload: &str) -> Result<Vec<Found>, Refused> {
        self.find_with(topic, payload, |_| None)
    }

    fn find_with(
        &mut self,
        topic: &str,
        payload: &str,
        resolve: impl Fn(&Labels) -> Option<SeriesId>,
    ) -> Result<Vec<Found>, Refused> {
        let mut reading = Reading::default();
        decode(
            &self.map,
            &self.limits,
            "acme",
            payload.as_bytes(),
            &mut reading,
        )
        .unwrap();
        let source = Source {
            map: &self.map,
            topic,
            tenant: &self.tenant,
            limits: &self.limits,
        };
        let mut out = Vec::new();
        self.cache
            .find(&source, &reading, Box::default, resolve, &mut out)?;
        Ok(out)
    }
}

fn names(found: &[Found]) -> Vec<String> {
    let name = |f: &Found| match &f.key {
        SeriesKey::Labels(labels) => labels.to_string(),
        SeriesKey::Id(id) => id.0.to_string(),
    };
    found.iter().map(name).collect()
}

const TOPIC: &str = "tenants/acme/devices/d1/telemetry";

#[test]
fn values_become_series_of_tenant_and_device() {
    let mut desk = desk(|m| {
        m.labels.insert("site".into(), "{meta.site}".into());
        m.labels.insert("kind".into(), "probe".into());
    });
    let found = desk
        .find(TOPIC, r#"{"meta":{"site":"n\"1"},"soil":{"t":1},"h":2}"#)
        .unwrap();
    let rest = r#"{device_id="d1", kind="probe", site="n\"1", tenant_id="acme"}"#;
    assert_eq!(names(&found), [format!("soil_t{rest}"), format!("h{rest}")]);
    // Another label value is another series of the same topic.
    let other = desk.find(TOPIC, r#"{"meta":{"site":"n2"},"h":2}"#).unwrap();
    assert!(names(&other)[0].contains("n2"));
    let none = desk.find(TOPIC, r#"{"h":2}"#).unwrap();
    assert!(!names(&none)[0].contains("site"));
}

#[test]
fn a_resolved_series_is_an_id_from_then_on() {
    let mut desk = desk(|_| {});
    let labels = names(&desk.find(TOPIC, r#"{"a":1,"b":2}"#).unwrap());
    assert!(labels[0].starts_with("a{"));
    let resolve = |labels: &Labels| (labels.metric_name() == "a").then_some(SeriesId(7));
    let found = desk.find_with(TOPIC, r#"{"a":1,"b":2}"#, resolve).unwrap();
    assert_eq!(names(&found)[0], "7");
    let again = desk.find_with(TOPIC, r#"{"b":2,"a":1}"#, |_| None).unwrap();
    assert_eq!(names(&again)[1], "7");
    assert_eq!(found[0].hash, again[1].hash);
}

#[test]
fn fields_in_any_order_and_number_are_told_apart() {
    let mut desk = desk(|_| {});
    let payload = |order: &mut dyn Iterator<Item = usize>| {
        let fields: Vec<String> = order.map(|i| format!("\"f{i}\":{i}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let up = names(&desk.find(TOPIC, &payload(&mut (0..100))).unwrap());
    let mut down = names(&desk.find(TOPIC, &payload(&mut (0..100).rev())).unwrap());
    down.reverse();
    assert_eq!(up, down);
    let few = names(&desk.find(TOPIC, &payload(&mut (40..43))).unwrap());
    assert_eq!(few, up[40..43]);
}

#[test]
fn two_values_for_one_field_are_two_of_one_series() {
    let mut desk = desk(|_| {});
    for payload in [
        r#"{"a":1,"a":2}"#,
        r#"{"b":1,"a":1,"a":1}"#,
        r#"{"x":{"y":1},"x.y":1}"#,
    ] {
        let found = names(&desk.find(TOPIC, payload).unwrap());
        assert_eq!(found[found.len() - 2], found[found.len() - 1], "{payload}");
        assert!(desk.cache.last().has_twins);
    }
    assert_eq!(desk.find(TOPIC, r#"{"a":1,"b":2}"#).unwrap().len(), 2);
}

#[test]
fn the_names_of_native_histograms_are_ours() {
    let mut desk = desk(|_| {});
    let refused = desk
        .find(TOPIC, r#"{"__native_histogram__":1}"#)
        .unwrap_err();
    assert_eq!(refused.reason, Reason::Parse);
    assert!(refused.detail.contains("of our own"), "{}", refused.detail);
}

#[test]
fn labels_are_limited() {
    let mut desk = desk(|m| {
        m.labels.insert("site".into(), "{site}".into());
    });
    let long = format!("{{\"site\":\"{}\",\"v\":1}}", "x".repeat(2_049));
    let refused = desk.find(TOPIC, &long).unwrap_err();
    assert!(
        refused.detail.contains("label site of 2049 bytes"),
        "{}",
        refused.detail
    );
    desk.limits.labels_max = 3;
    assert!(desk.find(TOPIC, r#"{"v":1}"#).is_ok());
    let refused = desk.find(TOPIC, r#"{"site":"a","v":1}"#).unwrap_err();
    assert!(refused.detail.contains("4 labels, the limit is 3"));
}

#[test]
fn invented_devices_do_not_grow_the_cache() {
    let mut desk = desk(|_| {});
    for i in 0..3 * FIELDS_MAX / 2 {
        let topic = format!("tenants/acme/devices/d{i}/telemetry");
        desk.find(&topic, r#"{"v":1}"#).unwrap();
        assert!(desk.cache.current.len() + desk.cache.previous.len() <= FIELDS_MAX + 2);
    }
}
