//! Collections into a real store.

use std::path::Path;

use super::*;
use crate::config;
use crate::model::clock::ManualClock;
use crate::model::{Clock, Matcher, is_stale_nan};
use crate::promql::{Queryable as _, SelectHints, Series};
use crate::sources::host::Host;
use crate::sources::metadata::Metadata;
use crate::sources::status::SourceState;
use crate::store::Table;
use crate::telemetry::metrics::FamilyBuilder;

const T0: i64 = 1_700_000_100_000;

fn clock() -> Clock {
    Clock::Manual(ManualClock::new(Timestamp::from_ms(T0)))
}

fn open(dir: &Path) -> (Store, Arc<Metrics>) {
    let metrics = Metrics::new();
    metrics.register(Box::new(Host::new(clock())));
    let options = store::Options {
        dir: dir.to_owned(),
        store: config::Store::default(),
        limits: config::Limits::default(),
        tenants: Vec::new(),
    };
    let store = Store::open(options, clock(), Arc::clone(&metrics)).unwrap();
    (store, metrics)
}

fn options(host: bool) -> Options {
    Options {
        interval: Duration::from_secs(15),
        instance: "box:8080".to_owned(),
        host,
    }
}

fn select(store: &Store, name: &str, job: &str) -> Vec<Series> {
    let matchers = [Matcher::equal("__name__", name), Matcher::equal("job", job)];
    let (start, end) = (Timestamp::from_ms(T0), Timestamp::from_ms(T0 + 3_600_000));
    store
        .select(start, end, &matchers, &SelectHints::default())
        .unwrap()
}

/// The values of the one series of that name, by time.
fn values(store: &Store, name: &str, job: &str) -> Vec<(i64, f64)> {
    let series = select(store, name, job);
    assert_eq!(series.len(), 1, "{name} of {job}");
    let samples = series[0].samples.iter();
    samples.map(|s| (s.t.as_ms(), s.v)).collect()
}

#[tokio::test]
async fn the_first_collection_can_be_queried_when_it_is_said_to_be_done() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metrics) = open(dir.path());
    let board = Board::default();
    let (told, first) = oneshot::channel();
    let stop = CancellationToken::new();
    let check = async {
        first.await.unwrap();
        for job in ["pulse", "node"] {
            assert_eq!(values(&store, "up", job), [(T0, 1.0)]);
            let scraped = values(&store, "scrape_samples_scraped", job)[0].1;
            assert!(scraped > 20.0);
            assert_eq!(values(&store, "scrape_series_added", job)[0].1, scraped);
            let same = values(&store, "scrape_samples_post_metric_relabeling", job);
            assert_eq!(same[0].1, scraped);
            assert!(values(&store, "scrape_duration_seconds", job)[0].1 > 0.0);
        }
        let cpu = select(&store, "node_cpu_seconds_total", "node");
        assert!(cpu.len() >= 8);
        assert_eq!(cpu[0].labels.get("instance"), Some("box:8080"));
        let build = select(&store, "pulse_build_info", "pulse");
        assert_eq!(
            build[0].labels.get("version"),
            Some(env!("CARGO_PKG_VERSION"))
        );
        for view in board.list() {
            assert_eq!(view.state, SourceState::Up);
            assert!(view.messages > 20);
        }
        stop.cancel();
    };
    let source = run(
        options(true),
        store.clone(),
        metrics,
        board.clone(),
        clock(),
        Some(told),
        stop.clone(),
    );
    tokio::join!(source, check);
    assert!(board.list().is_empty());
    store.close().await;
}

#[tokio::test]
async fn series_keep_their_ids_and_counters_of_new_ones_go_to_zero() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metrics) = open(dir.path());
    let (options, board) = (options(true), Board::default());
    let mut collection = Collection::new(&options, store.clone(), metrics, &board, Timestamp::MIN);
    for round in 0..4 {
        let at = Timestamp::from_ms(T0 + round * 15_000);
        collection.collect(at).await.unwrap();
    }
    for job in ["pulse", "node"] {
        assert_eq!(values(&store, "up", job).len(), 4);
        let added = values(&store, "scrape_series_added", job);
        assert!(added[0].1 > 20.0);
        assert_eq!(added[3].1, 0.0, "nothing is new in the fourth round");
    }
    drop(collection);
    store.close().await;
}

#[tokio::test]
async fn without_the_view_the_host_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (store, metrics) = open(dir.path());
    let (options, board) = (options(false), Board::default());
    let mut collection = Collection::new(&options, store.clone(), metrics, &board, Timestamp::MIN);
    collection.collect(Timestamp::from_ms(T0)).await.unwrap();
    assert_eq!(select(&store, "up", "pulse").len(), 1);
    assert_eq!(select(&store, "up", "node").len(), 0);
    for job in ["pulse", "node"] {
        assert_eq!(select(&store, "node_load1", job).len(), 0);
    }
    store.close().await;
}

#[tokio::test]
async fn a_series_that_is_gone_gets_one_staleness_marker() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let mut job = Job::new("node", "box:8080");
    let families = |zones: &[&str]| {
        let mut family = FamilyBuilder::gauge("node_thermal_zone_temp", "Zone.");
        for zone in zones {
            family.add(&[("zone", zone), ("job", "inner")], 40.0);
        }
        family.build().into_iter().collect::<Vec<_>>()
    };
    let rounds: [&[&str]; 4] = [&["0", "1"], &["0", "1"], &["0"], &["0"]];
    for (at, zones) in (T0..).step_by(15_000).zip(rounds) {
        let mut batch = WriteBatch::default();
        let at = Timestamp::from_ms(at);
        job.push(&families(zones), Duration::ZERO, at, &store, &mut batch);
        let committed = store.write(batch).await.unwrap();
        assert_eq!(committed.outcomes[0].refused, 0);
        job.learn(&store, &committed.outcomes[0]);
    }
    let zones = select(&store, "node_thermal_zone_temp", "node");
    assert_eq!(zones[0].samples.len(), 4);
    let gone: Vec<bool> = zones[1].samples.iter().map(|s| is_stale_nan(s.v)).collect();
    assert_eq!(gone, [false, false, true]);
    assert_eq!(zones[1].labels.get("exported_job"), Some("inner"));
    store.close().await;
}

#[tokio::test]
async fn metadata_is_written_once_and_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let family = |help| {
        let builder = FamilyBuilder::counter("node_forks_total", help).with(&[], 1.0);
        [builder.build().unwrap()]
    };
    let mut at = T0;
    let mut ops = async |job: &mut Job, help| {
        let mut batch = WriteBatch::default();
        at += 15_000;
        let t = Timestamp::from_ms(at);
        job.push(&family(help), Duration::ZERO, t, &store, &mut batch);
        let ops = batch.items[0].always.len();
        store.write(batch).await.unwrap();
        ops
    };
    let mut job = Job::new("node", "box:8080");
    assert_eq!(ops(&mut job, "Forks.").await, 1);
    assert_eq!(ops(&mut job, "Forks.").await, 0);
    assert_eq!(ops(&mut job, "All forks.").await, 1);
    let mut restarted = Job::new("node", "box:8080");
    assert_eq!(ops(&mut restarted, "All forks.").await, 0);
    let key = b"node_forks_total";
    let row = store.get(Table::Metadata, key).unwrap().unwrap();
    let (_, metadata) = Metadata::decode(key, &row).unwrap();
    assert_eq!(
        (metadata.kind.as_str(), metadata.help.as_str()),
        ("counter", "All forks.")
    );
    store.close().await;
}

#[test]
fn times_close_to_the_schedule_are_the_planned_ones() {
    let schedule = Schedule::new(Timestamp::from_ms(1_000), Duration::from_secs(15));
    let check = |now, want| assert_eq!(schedule.snap(Timestamp::from_ms(now)).as_ms(), want);
    check(1_000, 1_000);
    check(16_002, 16_000);
    check(15_998, 16_000);
    check(16_003, 16_003);
    check(-14_001, -14_000);
    let fast = Schedule::new(Timestamp::from_ms(0), Duration::from_millis(100));
    assert_eq!(fast.snap(Timestamp::from_ms(102)).as_ms(), 102);
    assert_eq!(fast.snap(Timestamp::from_ms(101)).as_ms(), 100);
}
