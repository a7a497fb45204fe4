//! Histograms come back as they were stored, whole or not at all.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::model::Timestamp;
use crate::promql::{Queryable as _, SelectHints};
use crate::store::Store;
use crate::store::tests::{T0, batch, labels, manual, options, row};
use crate::telemetry::Metrics;

fn open(dir: &Path) -> Store {
    let (clock, _) = manual(T0 + 60_000);
    Store::open(options(dir), clock, Metrics::new()).unwrap()
}

fn buckets(all: &[(i32, f64)]) -> Vec<Bucket> {
    let all = all.iter();
    all.map(|(index, count)| Bucket {
        index: *index,
        count: *count,
    })
    .collect()
}

fn at(t: i64, h: Histogram) -> HistogramSample {
    HistogramSample {
        t: Timestamp::from_ms(t),
        h: h.into(),
    }
}

fn exponential(count: f64, all: &[(i32, f64)]) -> Histogram {
    Histogram {
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: 1.0,
        count,
        sum: 0.1 + 0.2,
        positive: buckets(all),
        negative: buckets(&[(-9, 2.5)]),
        ..Histogram::default()
    }
}

fn custom(count: f64) -> Histogram {
    Histogram {
        schema: CUSTOM,
        hint: ResetHint::NotReset,
        count,
        sum: -1e-300,
        positive: buckets(&[(0, 1.0), (2, 3.0)]),
        bounds: [0.1, 2.5].into(),
        ..Histogram::default()
    }
}

fn selector(text: &str) -> Vec<Matcher> {
    crate::promql::parse_selector(text).unwrap().matchers
}

fn stored(store: &Store, text: &str) -> Vec<HistogramSeries> {
    let (start, end) = (Timestamp::from_ms(0), Timestamp::from_ms(i64::MAX));
    let hints = SelectHints::default();
    let found = store.histograms(start, end, &selector(text), &hints);
    found.unwrap()
}

fn samples(store: &Store, text: &str) -> Vec<HistogramSample> {
    let mut found = stored(store, text);
    assert!(found.len() <= 1);
    found.pop().map(|s| s.samples).unwrap_or_default()
}

/// Three layouts in one series.
fn history() -> Vec<HistogramSample> {
    vec![
        at(T0, exponential(4.0, &[(0, 1.0), (3, 2.0)])),
        at(T0 + 1_000, exponential(5.0, &[(1, 1.0), (3, 3.0)])),
        at(T0 + 2_000, exponential(9.0, &[(-40, 1.0), (3, 3.0)])),
        at(T0 + 3_000, custom(4.0)),
        at(T0 + 4_000, Histogram::default()),
    ]
}

async fn write(store: &Store, device: &str, all: &[HistogramSample]) -> u32 {
    let rows = all.iter().map(|s| rows(&labels("h", device), s).unwrap());
    let committed = store.write(batch(rows.flatten())).await.unwrap();
    committed.outcomes[0].refused
}

#[tokio::test]
async fn histograms_are_the_same_in_memory_sealed_rewritten_and_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(write(&store, "d1", &history()).await, 0);
    let check = |store: &Store, when: &str| {
        assert_eq!(samples(store, "h{device_id=\"d1\"}"), history(), "{when}");
        assert_eq!(samples(store, "{__name__=~\"h|x\"}"), history(), "{when}");
    };
    check(&store, "in memory");
    store.close().await;
    drop(store);
    let store = open(dir.path());
    check(&store, "replayed");
    store.seal_now().await.unwrap();
    check(&store, "sealed");
    store.compact_now().await.unwrap();
    check(&store, "rewritten");
    store.close().await;
    drop(store);
    let store = open(dir.path());
    check(&store, "reopened");
    assert_eq!(store.verify().faults, []);
    store.close().await;
}

#[tokio::test]
async fn parts_are_seen_as_one_series_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, "d1", &history()).await;
    store
        .write(batch([row("h", "d1", T0 + 9_000, 1.0)]))
        .await
        .unwrap();
    store.write(batch([row("f", "d2", T0, 1.0)])).await.unwrap();
    let (start, end) = (Timestamp::from_ms(0), Timestamp::from_ms(i64::MAX));
    let hints = SelectHints::default();
    let all = store.select(start, end, &[], &hints).unwrap();
    let names = |all: &[Labels]| -> Vec<String> {
        all.iter().map(|l| l.value("__name__").to_owned()).collect()
    };
    let floats: Vec<Labels> = all.into_iter().map(|s| s.labels).collect();
    assert_eq!(names(&floats), ["f", "h"], "only floats");
    for selectors in [vec![], vec![selector("{device_id=~\"d.\"}")]] {
        let series = store.series(&selectors, start, end, 99).unwrap();
        assert_eq!(names(&series), ["f", "h"]);
        assert_eq!(series[1], labels("h", "d1"));
        let found = store.label_names(&selectors, start, end, 99).unwrap();
        assert_eq!(found, ["__name__", "device_id", "tenant_id"]);
        let found = store.label_values("__name__", &selectors, start, end, 99);
        assert_eq!(found.unwrap(), ["f", "h"]);
    }
    // Without its float the histogram is still a series.
    let before = Timestamp::from_ms(T0 + 5_000);
    let series = store.series(&[selector("h")], start, before, 99).unwrap();
    assert_eq!(series, [labels("h", "d1")]);
    store.close().await;
}

#[tokio::test]
async fn the_first_of_two_at_one_time_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = at(T0, exponential(4.0, &[(0, 1.0), (3, 2.0)]));
    assert_eq!(write(&store, "d1", std::slice::from_ref(&first)).await, 0);
    assert_eq!(
        write(&store, "d1", std::slice::from_ref(&first)).await,
        0,
        "again"
    );
    // One more bucket of the same layout, other buckets, other bounds.
    for other in [
        exponential(9.0, &[(0, 1.0), (1, 5.0), (3, 2.0)]),
        exponential(9.0, &[(0, 1.0), (90, 5.0)]),
        custom(4.0),
    ] {
        assert!(write(&store, "d1", &[at(T0, other)]).await > 0, "refused");
        assert_eq!(samples(&store, "h"), std::slice::from_ref(&first));
    }
    store.close().await;
}

/// The control: without one of its parts a histogram is not there, rather than there
/// with a bucket of nothing.
#[tokio::test]
async fn a_histogram_without_one_of_its_parts_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let whole = rows(&labels("h", "d1"), &history()[0]).unwrap();
    for missing in 0..whole.len() {
        let device = format!("m{missing}");
        let mut part = rows(&labels("h", &device), &history()[0]).unwrap();
        part.remove(missing);
        store.write(batch(part)).await.unwrap();
        let text = format!("h{{device_id=\"{device}\"}}");
        assert_eq!(samples(&store, &text), [], "without part {missing}");
    }
    store.write(batch(whole)).await.unwrap();
    assert_eq!(samples(&store, "h{device_id=\"d1\"}"), history()[..1]);
    store.close().await;
}

#[tokio::test]
async fn deleting_a_histogram_deletes_its_parts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, "d1", &history()).await;
    write(&store, "d2", &history()).await;
    let all = [selector("h{device_id=\"d1\"}")];
    let (start, end) = (
        Timestamp::from_ms(T0 + 1_000),
        Timestamp::from_ms(T0 + 3_000),
    );
    assert!(store.delete_series(&all, start, end).await.unwrap() > 0);
    let left = [history()[0].clone(), history()[4].clone()];
    assert_eq!(samples(&store, "h{device_id=\"d1\"}"), left);
    assert_eq!(samples(&store, "h{device_id=\"d2\"}"), history());
    store.clean_tombstones().await.unwrap();
    assert_eq!(samples(&store, "h{device_id=\"d1\"}"), left);
    store.close().await;
}

#[tokio::test]
async fn a_limit_of_label_values_does_not_join_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.label_values_max = 2;
    let (clock, _) = manual(T0 + 60_000);
    let store = Store::open(options, clock, Metrics::new()).unwrap();
    assert_eq!(write(&store, "d1", &history()).await, 0);
    assert_eq!(samples(&store, "h"), history());
    store.close().await;
}

#[test]
fn buckets_that_are_spread_too_wide_are_not_stored() {
    let h = exponential(4.0, &[(-2_000, 1.0), (2_000, 1.0)]);
    assert!(rows(&labels("h", "d1"), &at(T0, h)).is_none());
    assert_eq!(range(&buckets(&[(-5, 1.0), (3, 1.0)])), Some((-8, 12)));
    assert_eq!(range(&buckets(&[(i32::MAX, 1.0)])), None);
    // The text of a label is what somebody may have sent.
    for text in [
        "",
        "0;0;0+-1;0+0;",
        "0;0;2147483647+9;0+0;",
        "0;0;0+9999;0+0;",
        "x;0;0+0;0+0;",
    ] {
        assert_eq!(Layout::parse(text), None, "{text}");
    }
}

fn some_buckets() -> impl Strategy<Value = Vec<Bucket>> {
    let counts = prop_oneof![1e-9..1e18f64, Just(f64::NAN), Just(f64::INFINITY)];
    prop::collection::btree_map(-500..500i32, counts, 0..9).prop_map(|all| {
        let all = all.into_iter();
        all.map(|(index, count)| Bucket { index, count }).collect()
    })
}

proptest! {
    #[test]
    fn parts_put_together_are_the_histogram(
        (schema, positive, negative) in (-4i8..=8, some_buckets(), some_buckets()),
        numbers in prop::array::uniform4(any::<f64>()),
        bounds in prop::collection::vec(any::<f64>(), 0..5),
        hint in 0..4usize,
    ) {
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        let mut h = Histogram {
            schema,
            hint: [Unknown, Reset, NotReset, Gauge][hint],
            zero_threshold: numbers[0],
            zero_count: numbers[1],
            count: numbers[2],
            sum: numbers[3],
            positive,
            negative,
            bounds: Vec::new().into(),
        };
        if bounds.len() > 2 {
            h.schema = CUSTOM;
            (h.zero_count, h.zero_threshold) = (0.0, 0.0);
            h.bounds = bounds.into();
        }
        let sample = at(T0, h);
        let Some(rows) = rows(&labels("h", "d1"), &sample) else { return Ok(()) };
        let mut assembly = Assembly::default();
        for row in rows.into_iter().rev() {
            let SeriesKey::Labels(labels) = row.series else { panic!("labels") };
            assembly.add(&labels, vec![Sample { t: row.t, v: row.v }]);
        }
        let found = assembly.finish();
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!(&found[0].labels, &labels("h", "d1"));
        prop_assert_eq!(&found[0].samples, &vec![sample]);
    }

    #[test]
    fn any_text_is_a_layout_or_none(text in "[-0-9;+,ex.]{0,40}") {
        if let Some(layout) = Layout::parse(&text) {
            prop_assert!(layout.parts().len() <= 3 + 2 * 1024);
        }
    }
}
