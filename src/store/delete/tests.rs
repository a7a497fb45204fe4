//! Deleted samples are gone at once, stay gone, and make room for others.

use std::path::Path;

use crate::config;
use crate::model::{Matcher, Sample, Timestamp};
use crate::promql::Queryable as _;
use crate::store::tests::{T0, batch, manual, options, row, samples};
use crate::store::{Row, Store};
use crate::telemetry::Metrics;

const DAY: i64 = 86_400_000;

fn open(dir: &Path) -> Store {
    let (clock, _) = manual(T0 + 60_000);
    let mut options = options(dir);
    options.store.max_late = config::Span::secs(30 * 86_400);
    Store::open(options, clock, Metrics::new()).unwrap()
}

/// Ten samples of two devices on each of three days, the last of them today.
fn rows(value: f64) -> Vec<Row> {
    let days = [2, 1, 0].map(|back| T0 - back * DAY);
    let times = days
        .into_iter()
        .flat_map(|day| (0..10).map(move |i| day + i * 1_000));
    times
        .flat_map(|t| ["d1", "d2"].map(|d| row("v", d, t, value)))
        .collect()
}

fn only(device: &str) -> Vec<Vec<Matcher>> {
    let text = format!("v{{device_id=\"{device}\"}}");
    vec![crate::promql::parse_selector(&text).unwrap().matchers]
}

/// Times and values of a device.
fn of(store: &Store, device: &str) -> Vec<Sample> {
    let mut found = samples(store, &only(device)[0]);
    assert!(found.len() <= 1);
    found.pop().map(|(_, samples)| samples).unwrap_or_default()
}

async fn delete(store: &Store, device: &str, start: i64, end: i64) -> u64 {
    let (start, end) = (Timestamp::from_ms(start), Timestamp::from_ms(end));
    let selectors = only(device);
    store.delete_series(&selectors, start, end).await.unwrap()
}

async fn reopened(store: Store, dir: &Path) -> Store {
    store.close().await;
    drop(store);
    open(dir)
}

#[tokio::test]
async fn deleted_samples_never_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.write(batch(rows(1.0))).await.unwrap();
    // A day of long columns, sealed hours, and samples in memory.
    store.compact_now().await.unwrap();
    let late = (0..5).map(|i| row("v", "d1", T0 - DAY + 60_000 + i, 1.0));
    store.write(batch(late)).await.unwrap();
    store.seal_now().await.unwrap();
    let now = (0..5).map(|i| row("v", "d1", T0 + 30_000 + i, 1.0));
    store.write(batch(now)).await.unwrap();
    assert_eq!(of(&store, "d1").len(), 40);

    // Yesterday from its sixth sample on, and all of today.
    let from = T0 - DAY + 5_000;
    let version = store.version().unwrap();
    assert_eq!(delete(&store, "d1", from, i64::MAX).await, 1);
    assert_eq!(store.changed_since(version), Timestamp::MIN);
    let kept: Vec<i64> = of(&store, "d1").iter().map(|s| s.t.as_ms()).collect();
    assert_eq!(kept.len(), 15);
    assert!(kept.iter().all(|t| *t < from));
    assert_eq!(of(&store, "d2").len(), 30, "the others stay");

    store = reopened(store, dir.path()).await;
    assert_eq!(of(&store, "d1").len(), 15, "after a restart");
    assert_eq!(store.tombstones(), 1);
    store.compact_now().await.unwrap();
    assert_eq!(of(&store, "d1").len(), 15, "after a rewrite");
    store.clean_tombstones().await.unwrap();
    assert_eq!(store.tombstones(), 0);
    assert_eq!(of(&store, "d1").len(), 15, "without the tombstone");
    store = reopened(store, dir.path()).await;
    assert_eq!((of(&store, "d1").len(), of(&store, "d2").len()), (15, 30));
    assert_eq!(store.verify().faults, []);
    store.close().await;
}

#[tokio::test]
async fn what_is_written_after_a_deletion_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.write(batch(rows(1.0))).await.unwrap();
    delete(&store, "d1", i64::MIN, i64::MAX).await;
    assert_eq!(of(&store, "d1"), []);
    // The same times with other values: neither duplicates nor conflicts.
    let again: Vec<Row> = rows(2.0).into_iter().step_by(2).collect();
    let done = store.write(batch(again)).await.unwrap();
    assert_eq!(done.outcomes[0].added, 30);
    let check = |store: &Store| {
        let found = of(store, "d1");
        assert_eq!(found.len(), 30);
        assert!(found.iter().all(|s| s.v == 2.0));
    };
    check(&store);
    store.seal_now().await.unwrap();
    check(&store);
    store = reopened(store, dir.path()).await;
    check(&store);
    store.clean_tombstones().await.unwrap();
    check(&store);
    store.close().await;
}

#[tokio::test]
async fn a_series_without_samples_leaves_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.write(batch(rows(1.0))).await.unwrap();
    let listed = |store: &Store| {
        let (start, end) = (Timestamp::MIN, Timestamp::MAX);
        store.series(&only("d1"), start, end, 10).unwrap().len()
    };
    assert_eq!((listed(&store), store.stats().series), (1, 2));
    delete(&store, "d1", i64::MIN, i64::MAX).await;
    assert_eq!(listed(&store), 0, "it has nothing to show");
    store.clean_tombstones().await.unwrap();
    assert_eq!(store.stats().series, 1);
    store = reopened(store, dir.path()).await;
    assert_eq!(store.stats().series, 1);
    assert_eq!(delete(&store, "d1", i64::MIN, i64::MAX).await, 0);
    store.close().await;
}

/// The control of the first test: without the tombstone the samples are there.
#[tokio::test]
async fn the_tombstone_is_what_hides() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.write(batch(rows(1.0))).await.unwrap();
    delete(&store, "d1", i64::MIN, i64::MAX).await;
    assert_eq!(of(&store, "d1"), []);
    store.shared.days.tombstones().replace(Vec::new());
    assert_eq!(of(&store, "d1").len(), 30);
    store.close().await;
}

#[tokio::test]
async fn a_snapshot_is_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.write(batch(rows(1.0))).await.unwrap();
    store.compact_now().await.unwrap();
    let more = (0..5).map(|i| row("v", "d1", T0 + 20_000 + i, 3.0));
    let last = store.write(batch(more)).await.unwrap().seq;
    let name = store.snapshot(false).unwrap();
    let sealed = store.snapshot(true).unwrap();
    assert_ne!(name, sealed);
    let at = |name: &str| dir.path().join("snapshots").join(name);
    let day = |dir: &Path| std::fs::metadata(dir.join("day-20231113.redb")).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(day(dir.path()).ino(), day(&at(&name)).ino(), "a link");

    let copy = open(&at(&name));
    assert_eq!(samples(&copy, &[]), samples(&store, &[]));
    assert_eq!(copy.verify().faults, []);
    copy.close().await;
    let copy = open(&at(&sealed));
    assert_eq!(of(&copy, "d1").len(), 30);
    // It goes on counting where the other is, and takes what was left out.
    let more = (0..5).map(|i| row("v", "d1", T0 + 20_000 + i, 3.0));
    let done = copy.write(batch(more)).await.unwrap();
    assert!(done.seq > last);
    assert_eq!(done.outcomes[0].added, 5);
    let copy = reopened(copy, &at(&sealed)).await;
    assert_eq!(of(&copy, "d1").len(), 35);
    copy.close().await;
    store.close().await;
}
