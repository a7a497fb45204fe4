//! What was published and acknowledged, and whether it is all there exactly once.
//!
//! Each id is one sample: device `id % DEVICES`, a millisecond of its own, the
//! value is the id. So every lost, doubled, changed or invented sample shows.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use crate::server::Server;

/// How many devices share the ids.
const DEVICES: u64 = 20;

/// The ids of one run and the time of the first.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) tenant: &'static str,
    pub(crate) base_ms: u64,
    pub(crate) ids: Range<u64>,
}

/// What a device's series held: time in ms to value.
type Samples = Vec<(u64, f64)>;

impl Ledger {
    /// The device that an id is of.
    pub(crate) fn device(&self, id: u64) -> String {
        format!("d{}", id % DEVICES)
    }

    pub(crate) fn topic(&self, id: u64) -> String {
        format!(
            "tenants/{}/devices/{}/telemetry",
            self.tenant,
            self.device(id)
        )
    }

    pub(crate) fn payload(&self, id: u64) -> String {
        format!(r#"{{"ts":{},"v":{id}}}"#, self.base_ms + id)
    }

    /// A moment after the last sample.
    fn end_secs(&self) -> u64 {
        (self.base_ms + self.ids.end) / 1000 + 1
    }

    /// A range that holds all samples and has none on its edges.
    fn window_secs(&self) -> u64 {
        (self.ids.end - self.ids.start) / 1000 + 5
    }

    fn wanted(&self, device: u64) -> Samples {
        let own = self.ids.clone().filter(|id| id % DEVICES == device);
        own.map(|id| (self.base_ms + id, id as f64)).collect()
    }

    /// Whether as many samples are stored as were published.
    pub(crate) async fn is_complete(&self, server: &Server) -> bool {
        let expr = format!(
            "sum(count_over_time(v{{tenant_id=\"{}\"}}[{}s] @ {}))",
            self.tenant,
            self.window_secs(),
            self.end_secs()
        );
        server.value(&expr).await == Some((self.ids.end - self.ids.start) as f64)
    }

    /// Reads everything back and lists what is wrong.
    pub(crate) async fn faults(&self, server: &Server) -> Vec<String> {
        let expr = format!(
            "{{tenant_id=\"{}\"}}[{}s] @ {}",
            self.tenant,
            self.window_secs(),
            self.end_secs()
        );
        let stored = by_device(&server.query(&expr).await);
        self.compare(&stored)
    }

    /// Every difference between what was published and what is stored.
    fn compare(&self, stored: &BTreeMap<String, Samples>) -> Vec<String> {
        let mut faults = Vec::new();
        for device in 0..DEVICES {
            let name = format!("v/d{device}");
            let got = stored.get(&name).cloned().unwrap_or_default();
            let wanted = self.wanted(device);
            if got != wanted {
                let lost = wanted.iter().filter(|s| !got.contains(s)).count();
                let extra = got.iter().filter(|s| !wanted.contains(s)).count();
                faults.push(format!("{name}: {lost} lost or changed, {extra} extra"));
            }
        }
        let known = |name: &str| (0..DEVICES).any(|d| name == format!("v/d{d}"));
        faults.extend(
            stored
                .keys()
                .filter(|n| !known(n))
                .map(|n| format!("{n}: a phantom series")),
        );
        faults
    }
}

/// A matrix as `metric/device` to samples.
fn by_device(matrix: &Value) -> BTreeMap<String, Samples> {
    let mut found = BTreeMap::new();
    for series in matrix.as_array().unwrap() {
        let metric = &series["metric"];
        let text = |name: &str| metric[name].as_str().unwrap_or("").to_owned();
        let name = format!("{}/{}", text("__name__"), text("device_id"));
        let samples = series["values"].as_array().unwrap().iter().map(|pair| {
            let t = pulse::model::Timestamp::from_secs_f64(pair[0].as_f64().unwrap());
            let ms = u64::try_from(t.as_ms()).unwrap();
            (ms, pair[1].as_str().unwrap().parse().unwrap())
        });
        let replaced = found.insert(name.clone(), samples.collect());
        assert!(replaced.is_none(), "two series for {name}");
    }
    found
}

/// The control: the comparison sees one lost, one changed, one extra sample and a phantom series.
#[test]
fn the_ledger_finds_each_kind_of_fault() {
    let ledger = Ledger {
        tenant: "t",
        base_ms: 1_000_000,
        ids: 0..100,
    };
    let good: BTreeMap<String, Samples> = (0..DEVICES)
        .map(|d| (format!("v/d{d}"), ledger.wanted(d)))
        .collect();
    assert_eq!(ledger.compare(&good), Vec::<String>::new());

    let mut lost = good.clone();
    lost.get_mut("v/d3").unwrap().remove(2);
    assert_eq!(ledger.compare(&lost), ["v/d3: 1 lost or changed, 0 extra"]);

    let mut changed = good.clone();
    changed.get_mut("v/d4").unwrap()[0].1 += 1.0;
    assert_eq!(
        ledger.compare(&changed),
        ["v/d4: 1 lost or changed, 1 extra"]
    );

    let mut doubled = good.clone();
    doubled.get_mut("v/d5").unwrap().push((7, 7.0));
    assert_eq!(
        ledger.compare(&doubled),
        ["v/d5: 0 lost or changed, 1 extra"]
    );

    let mut phantom = good;
    phantom.insert("w/d1".to_owned(), vec![(1, 1.0)]);
    assert_eq!(ledger.compare(&phantom), ["w/d1: a phantom series"]);
}
