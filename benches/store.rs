//! What the store does in a second: `cargo bench --profile quick --bench store`.
//!
//! Times of commits are those of the disk under the temporary directory
//! (`TMPDIR`); CPU times are those of the writer thread alone.

#![expect(clippy::print_stdout, reason = "a bench talks to a terminal")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pulse::config;
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, Labels, Timestamp};
use pulse::promql::{Queryable, SelectHints};
use pulse::store::{Item, Options, Row, SeriesId, SeriesKey, Store, Urgency, WriteBatch};
use pulse::telemetry::Metrics;

const T0: i64 = 1_699_999_200_000;
const STEP: i64 = 15_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        samples(1_000, 240).await;
        samples(10_000, 240).await;
        samples(100_000, 60).await;
        latency().await;
        messages().await;
    });
}

fn open(dir: &Path) -> (Store, Arc<Metrics>) {
    let clock = ManualClock::new(Timestamp::from_ms(T0 + 3_600_000));
    let metrics = Metrics::new();
    let options = Options {
        dir: dir.to_owned(),
        store: config::Store::default(),
        limits: config::Limits::default(),
        tenants: Vec::new(),
    };
    let store = Store::open(options, Clock::Manual(clock), Arc::clone(&metrics));
    (store.expect("a new store"), metrics)
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{}", i % 500)),
        ("device_id", format!("device-{}", i / 500)),
        ("tenant_id", format!("tenant-{}", i % 7)),
        ("job", "bench".to_owned()),
    ])
}

/// A third constant, a third counters, a third gauges with one decimal.
fn value(i: usize, step: i64) -> f64 {
    let noise = (i as i64 * 7_919 + step * 104_729) % 97;
    match i % 3 {
        0 => (i % 10) as f64,
        1 => (step * 120 + noise) as f64,
        _ => 20.0 + noise as f64 / 10.0,
    }
}

/// Rows of one scrape of everything, in batches of 10,000.
fn scrape(ids: &[SeriesId], step: i64) -> Vec<WriteBatch> {
    let chunks = ids.chunks(10_000).enumerate();
    let batch = |(at, ids): (usize, &[SeriesId])| {
        let mut batch = WriteBatch {
            urgency: Urgency::RideAlong,
            ..WriteBatch::default()
        };
        let rows = ids.iter().enumerate().map(|(i, id)| Row {
            series: SeriesKey::Id(*id),
            t: Timestamp::from_ms(T0 + step * STEP),
            v: value(at * 10_000 + i, step),
        });
        batch.push(rows, Item::default());
        batch
    };
    chunks.map(batch).collect()
}

async fn samples(series: usize, steps: i64) {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, metrics) = open(dir.path());
    let rss = resident();
    let begun = Instant::now();
    let mut first = WriteBatch::default();
    let rows = (0..series).map(|i| Row {
        series: SeriesKey::Labels(labels(i)),
        t: Timestamp::from_ms(T0),
        v: value(i, 0),
    });
    first.push(rows, Item::default());
    store.write(first).await.expect("written");
    println!(
        "{series} series: created in {:.0} ms, {:.0} B/series",
        begun.elapsed().as_secs_f64() * 1e3,
        (resident() - rss) / series as f64
    );
    let ids: Vec<SeriesId> = (0..series)
        .map(|i| store.resolve(&labels(i)).expect("there"))
        .collect();
    let (cpu, wall) = (writer_cpu(), Instant::now());
    for step in 1..steps {
        for batch in scrape(&ids, step) {
            store.write(batch).await.expect("written");
        }
    }
    let cpu = writer_cpu() - cpu;
    let n = (series as i64 * (steps - 1)) as f64;
    println!(
        "  ingest: {:.2} M samples per CPU second, {:.2} M per second, {:.0} ns each",
        n / cpu / 1e6,
        n / wall.elapsed().as_secs_f64() / 1e6,
        cpu / n * 1e9
    );
    println!(
        "  memory: {:.0} B/series",
        (resident() - rss) / series as f64
    );
    let begun = Instant::now();
    let hints = SelectHints::default();
    let all = store.select(Timestamp::MIN, Timestamp::MAX, &[], &hints);
    let read: usize = all.expect("read").iter().map(|s| s.samples.len()).sum();
    println!(
        "  select all from memory: {:.1} M samples/s",
        read as f64 / begun.elapsed().as_secs_f64() / 1e6
    );
    store.close().await;
    println!(
        "  log: {:.2} B/sample",
        metrics.store.wal_bytes.get() as f64 / n
    );
    drop(store);
    let (store, metrics) = open(dir.path());
    println!(
        "  replay: {:.0} ms, {:.1} M samples/s",
        metrics.store.replay_seconds.get() * 1e3,
        metrics.store.replay_samples.get() as f64 / metrics.store.replay_seconds.get() / 1e6
    );
    let before = metrics.store.bytes_written.get();
    let begun = Instant::now();
    store.seal_now().await.expect("sealed");
    let written = metrics.store.bytes_written.get() - before;
    println!(
        "  seal: {:.0} ms, {:.0} ns/sample, {:.2} B/sample written",
        begun.elapsed().as_secs_f64() * 1e3,
        begun.elapsed().as_secs_f64() / n * 1e9,
        written as f64 / n
    );
    let begun = Instant::now();
    let all = store.select(Timestamp::MIN, Timestamp::MAX, &[], &hints);
    let read: usize = all.expect("read").iter().map(|s| s.samples.len()).sum();
    println!(
        "  select all from files: {:.1} M samples/s",
        read as f64 / begun.elapsed().as_secs_f64() / 1e6
    );
    store.close().await;
}

/// One caller that waits for each commit.
async fn latency() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = open(dir.path());
    let mut waits = Vec::new();
    for i in 0..300 {
        let begun = Instant::now();
        store.write(one(i, 1)).await.expect("written");
        waits.push(begun.elapsed());
    }
    show("one caller", &mut waits);
    store.close().await;
}

/// 64 callers with batches of 100 messages, as a busy ingest hands them over.
async fn messages() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, metrics) = open(dir.path());
    let (cpu, begun) = (writer_cpu(), Instant::now());
    let callers = (0..64).map(|caller: i64| {
        let store = store.clone();
        async move {
            let mut waits = Vec::new();
            for i in 0..50 {
                let begun = Instant::now();
                let batch = one((caller * 50 + i) * 100, 100);
                store.write(batch).await.expect("written");
                waits.push(begun.elapsed());
            }
            waits
        }
    });
    let mut waits = futures_util::future::join_all(callers).await.concat();
    let n = 64.0 * 50.0 * 100.0;
    println!(
        "messages: {:.0} k/s durable, {:.0} k per CPU second of the writer, {} commits",
        n / begun.elapsed().as_secs_f64() / 1e3,
        n / (writer_cpu() - cpu) / 1e3,
        metrics.store.commits.get()
    );
    show("64 callers, 100 messages a batch", &mut waits);
    store.close().await;
}

/// `n` messages of one row each.
fn one(first: i64, n: i64) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for i in first..first + n {
        let row = Row {
            series: SeriesKey::Labels(labels(usize::try_from(i % 5_000).expect("positive"))),
            t: Timestamp::from_ms(T0 + i),
            v: i as f64,
        };
        batch.push([row], Item::default());
    }
    batch
}

fn show(what: &str, waits: &mut [Duration]) {
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("{what}: ack p50 {:.1} ms, p99 {:.1} ms", at(50), at(99));
}

/// CPU seconds of the writer thread so far.
fn writer_cpu() -> f64 {
    let me = procfs::process::Process::myself().expect("procfs");
    let tasks = me.tasks().expect("tasks").flatten();
    let writers = tasks.filter_map(|task| {
        let stat = task.stat().ok()?;
        (stat.comm == "store-writer").then_some(stat.utime + stat.stime)
    });
    // A thread that has just been made has no name yet, and used no time.
    let ticks: u64 = writers.sum();
    ticks as f64 / procfs::ticks_per_second() as f64
}

/// Resident bytes of the process.
fn resident() -> f64 {
    let me = procfs::process::Process::myself().expect("procfs");
    let pages = me.statm().expect("statm").resident;
    (pages * procfs::page_size()) as f64
}
