//! What an hour of scrapes writes to the flash when nobody waits for an answer:
//! `cargo bench --profile quick --bench wear`.
//!
//! 10,000 series at 15 s, a third of them every 5 s, committed every 10 s as the writer
//! does with what rides along. The clock is a manual one, so the hour takes seconds. What
//! goes by real time is made up for: the log starts its value codes anew every five
//! minutes, so the store is closed and opened every five minutes of data, which costs
//! somewhat more.
//!
//! Bytes are those that the store hands to the file system, in whole blocks of 4 KiB.
//! What the file system writes for itself (its journal, at each sync that changes a
//! file's length or blocks) is not among them: no process can count it. Files of the log
//! that are used again change neither.

#![expect(clippy::print_stdout, reason = "a bench talks to a terminal")]

use std::path::Path;
use std::sync::Arc;

use pulse::config;
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, Labels, Timestamp};
use pulse::store::{Item, Options, Row, SeriesId, SeriesKey, Store, Urgency, WriteBatch};
use pulse::telemetry::Metrics;

/// 2023-11-14T22:00:00Z, the start of an hour.
const T0: i64 = 1_699_999_200_000;
const SERIES: usize = 10_000;
/// One third of the series each.
const SLOT: i64 = 5_000;
const SLOTS: i64 = 3_600_000 / SLOT;
const SLOTS_OPEN: i64 = 300_000 / SLOT;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(hour());
}

async fn hour() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(Timestamp::from_ms(T0));
    let (mut bytes, mut syncs, mut appended) = (0, 0, 0);
    let mut ids = Vec::new();
    for begin in (0..SLOTS).step_by(usize::try_from(SLOTS_OPEN).expect("small")) {
        let (store, metrics) = open(dir.path(), &clock);
        if begin == 0 {
            ids = create(&store).await;
        }
        for slot in begin..begin + SLOTS_OPEN {
            clock.set(Timestamp::from_ms(T0 + slot * SLOT));
            scrape(&store, &ids, slot).await;
            if slot % 2 == 1 {
                // An empty batch that waits is what the ten seconds are.
                store.write(WriteBatch::default()).await.expect("committed");
            }
        }
        store.close().await;
        bytes += metrics.store.bytes_written.get();
        syncs += metrics.store.syncs.get();
        appended += metrics.store.log_commits.get();
    }
    let samples = (SERIES as i64 * SLOTS / 3) as f64;
    println!("{samples} samples of {SERIES} series in an hour, nobody waits");
    let tell = |what: &str, bytes: u64| println!("{what}: {:.2} B/sample", bytes as f64 / samples);
    println!("{appended} commits to the appended log, {syncs} syncs");
    tell("log, catalog and clock", bytes);
    let (store, metrics) = open(dir.path(), &clock);
    clock.set(Timestamp::from_ms(T0 + 3_600_000 + 600_000));
    let opened = metrics.store.bytes_written.get();
    store.seal_now().await.expect("sealed");
    let sealed = metrics.store.bytes_written.get() - opened;
    tell("the sealed hour", sealed);
    store.compact_now().await.expect("rewritten");
    let rewritten = metrics.store.bytes_written.get() - opened - sealed;
    tell("the rewrite into long columns", rewritten);
    tell("all", bytes + sealed + rewritten);
    store.close().await;
}

fn open(dir: &Path, clock: &ManualClock) -> (Store, Arc<Metrics>) {
    let metrics = Metrics::new();
    let options = Options {
        dir: dir.to_owned(),
        store: config::Store::default(),
        limits: config::Limits::default(),
        tenants: Vec::new(),
    };
    let store = Store::open(options, Clock::Manual(clock.clone()), Arc::clone(&metrics));
    (store.expect("it opens"), metrics)
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{}", i % 500)),
        ("instance", format!("host-{:04}:9100", i / 500)),
        ("job", "node".to_owned()),
    ])
}

/// A third constant, a third counters, a third gauges with one decimal.
fn value(i: usize, slot: i64) -> f64 {
    let step = slot / 3;
    let noise = (i as i64 * 7_919 + step * 104_729) % 97;
    match i % 3 {
        0 => (i % 10) as f64,
        1 => (step * 120 + noise) as f64,
        _ => 20.0 + noise as f64 / 10.0,
    }
}

/// Makes the series, with a sample before the hour.
async fn create(store: &Store) -> Vec<SeriesId> {
    let mut batch = WriteBatch::default();
    let row = |i| Row {
        series: SeriesKey::Labels(labels(i)),
        t: Timestamp::from_ms(T0 - 15_000),
        v: value(i, 0),
    };
    batch.push((0..SERIES).map(row), Item::default());
    store.write(batch).await.expect("written");
    let known = (0..SERIES).map(|i| store.resolve(&labels(i)).expect("there"));
    known.collect()
}

/// One sample of each series of a third: hosts are scraped one after the other.
async fn scrape(store: &Store, ids: &[SeriesId], slot: i64) {
    let third = usize::try_from(slot % 3).expect("below three");
    let hosts = ids.chunks(500).enumerate();
    for (host, ids) in hosts.filter(|(host, _)| host % 3 == third) {
        let mut batch = WriteBatch {
            urgency: Urgency::RideAlong,
            ..WriteBatch::default()
        };
        let rows = ids.iter().enumerate().map(|(i, id)| Row {
            series: SeriesKey::Id(*id),
            t: Timestamp::from_ms(T0 + slot * SLOT + host as i64),
            v: value(host * 500 + i, slot),
        });
        batch.push(rows, Item::default());
        store.write(batch).await.expect("written");
    }
}
