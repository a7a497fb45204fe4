//! What an operator waits for: `cargo bench --profile quick --bench upkeep`.
//!
//! - A full hour of 100,000 series at 15 s in memory: its bytes, and the start after
//!   a crash. The crash is a copy of the files of the open store; another process
//!   opens it.
//! - The expiry of a day, as the store's own metric has it.
//! - A backup of 200 MB of days while one writer goes on as fast as it can.
//! - The answer to a lone caller, ten times a second.
//!
//! Files are made under `TMPDIR`.

#![expect(clippy::print_stdout, reason = "a bench talks to a terminal")]

use std::fs;
use std::io::BufWriter;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pulse::config;
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, Labels, Timestamp};
use pulse::store::backup::Plan;
use pulse::store::{Item, Options, Row, SeriesId, SeriesKey, Store, Urgency, WriteBatch};
use pulse::telemetry::Metrics;
use pulse::telemetry::metrics::ServiceName;

/// 2023-11-14T22:00:00Z, the start of an hour.
const T0: i64 = 1_699_999_200_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const STEP: i64 = 15_000;

/// Names the directory that a process of this bench opens.
const OPEN: &str = "PULSE_BENCH_OPEN";

/// Says how many samples a series gets in a process of this bench.
const STEPS: &str = "PULSE_BENCH_STEPS";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let Some(dir) = std::env::var_os(OPEN) {
        runtime.block_on(restart(Path::new(&dir)));
        return;
    }
    if let Ok(steps) = std::env::var(STEPS) {
        runtime.block_on(full_hour(100_000, steps.parse().expect("a number")));
        return;
    }
    // What one frees, the next would get: each has a process of its own.
    run_again(STEPS, "48");
    run_again(STEPS, "240");
    runtime.block_on(async {
        days().await;
        low_load().await;
    });
}

struct Open {
    store: Store,
    metrics: Arc<Metrics>,
    clock: ManualClock,
}

fn open(dir: &Path, now: i64) -> Open {
    let clock = ManualClock::new(Timestamp::from_ms(now));
    let metrics = Metrics::new();
    let options = Options {
        dir: dir.to_owned(),
        store: config::Store::default(),
        limits: config::Limits::default(),
        tenants: Vec::new(),
    };
    let store = Store::open(options, Clock::Manual(clock.clone()), Arc::clone(&metrics));
    Open {
        store: store.expect("it opens"),
        metrics,
        clock,
    }
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{}", i % 500)),
        ("instance", format!("host-{:04}:9100", i / 500)),
        ("job", "node".to_owned()),
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

/// Makes series with a first sample at `t`.
async fn create(store: &Store, series: usize, t: i64) -> Vec<SeriesId> {
    let mut batch = WriteBatch::default();
    let row = |i| Row {
        series: SeriesKey::Labels(labels(i)),
        t: Timestamp::from_ms(t),
        v: value(i, 0),
    };
    batch.push((0..series).map(row), Item::default());
    store.write(batch).await.expect("written");
    let known = (0..series).map(|i| store.resolve(&labels(i)).expect("there"));
    known.collect()
}

/// Writes one sample of each series, 10,000 in a batch that nobody waits for.
async fn scrape(store: &Store, ids: &[SeriesId], t: i64, value: impl Fn(usize) -> f64) {
    for (at, ids) in ids.chunks(10_000).enumerate() {
        let mut batch = WriteBatch {
            urgency: Urgency::RideAlong,
            ..WriteBatch::default()
        };
        let rows = ids.iter().enumerate().map(|(i, id)| Row {
            series: SeriesKey::Id(*id),
            t: Timestamp::from_ms(t),
            v: value(at * 10_000 + i),
        });
        batch.push(rows, Item::default());
        store.write(batch).await.expect("written");
    }
}

async fn full_hour(series: usize, steps: i64) {
    let dir = tempfile::tempdir().expect("a directory");
    let before = anonymous();
    let Open { store, .. } = open(dir.path(), T0 + HOUR);
    let ids = create(&store, series, T0).await;
    for step in 1..steps {
        scrape(&store, &ids, T0 + step * STEP, |i| value(i, step)).await;
    }
    // An empty batch that waits is behind everything.
    store.write(WriteBatch::default()).await.expect("committed");
    drop(ids);
    println!(
        "{series} series x {steps} samples: {:.0} B/series anonymous memory",
        (anonymous() - before) / series as f64
    );
    let crashed = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(dir.path()).expect("a directory").flatten() {
        let to = crashed.path().join(entry.file_name());
        if entry.file_name() != "LOCK" && entry.path().is_file() {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
    store.close().await;
    drop(store);
    for _ in 0..3 {
        let again = tempfile::tempdir().expect("a directory");
        for entry in fs::read_dir(crashed.path()).expect("a directory").flatten() {
            fs::copy(entry.path(), again.path().join(entry.file_name())).expect("copied");
        }
        run_again(OPEN, again.path());
    }
}

/// Runs this program once more, with a variable that says what to do.
fn run_again(name: &str, value: impl AsRef<std::ffi::OsStr>) {
    let me = std::env::current_exe().expect("our own path");
    let status = Command::new(me).env(name, value).status();
    assert!(status.expect("it starts").success());
}

/// Opens what a crash left.
async fn restart(dir: &Path) {
    let before = anonymous();
    let begun = Instant::now();
    let Open { store, metrics, .. } = open(dir, T0 + HOUR);
    let took = begun.elapsed();
    let stats = store.stats();
    println!(
        "  after a crash: {:.0} ms to open, of that log and catalog {:.0} ms, {} samples, {:.0} B/series",
        took.as_secs_f64() * 1e3,
        metrics.store.replay_seconds.get() * 1e3,
        stats.head_samples,
        (anonymous() - before) / stats.series as f64
    );
    store.close().await;
}

/// Four days of noise: a backup while a fifth grows, then the expiry of the first.
async fn days() {
    let dir = tempfile::tempdir().expect("a directory");
    let Open {
        store,
        metrics,
        clock,
    } = open(dir.path(), T0 + HOUR);
    let ids = create(&store, 10_000, T0 - 4 * DAY).await;
    for day in (1..=4).rev() {
        for step in 1..660 {
            let t = T0 - day * DAY + step * STEP;
            scrape(&store, &ids, t, |i| noise(i as u64, t.cast_unsigned())).await;
        }
        store.seal_now().await.expect("sealed");
    }
    let bytes = |dir: &Path| -> u64 {
        let entries = fs::read_dir(dir).expect("a directory").flatten();
        let days = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("l0-"));
        days.map(|entry| entry.metadata().map_or(0, |meta| meta.len()))
            .sum()
    };
    println!("four days: {:.0} MB", bytes(dir.path()) as f64 / 1e6);
    let aside = tempfile::tempdir().expect("a directory");
    backup(aside.path(), &store, ids).await;
    expiry(&store, &metrics, &clock).await;
    store.close().await;
}

/// Numbers of which nothing can be spared.
fn noise(i: u64, t: u64) -> f64 {
    let mixed = (i ^ t.rotate_left(20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    f64::from_bits((mixed ^ mixed >> 32) >> 2)
}

async fn backup(dir: &Path, store: &Store, ids: Vec<SeriesId>) {
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let feed = async {
        let mut step = 0;
        while !stop.load(Ordering::Relaxed) {
            step += 1;
            scrape(store, &ids, T0 + step, |i| value(i, step)).await;
            written.fetch_add(ids.len() as u64, Ordering::Relaxed);
        }
    };
    let rate = |from: u64, since: Instant| {
        (written.load(Ordering::Relaxed) - from) as f64 / since.elapsed().as_secs_f64() / 1e6
    };
    let measure = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (from, since) = (written.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let alone = rate(from, since);
        let (from, since) = (written.load(Ordering::Relaxed), Instant::now());
        let copy = tokio::task::spawn_blocking({
            let (store, path) = (store.clone(), dir.join("backup.pulse"));
            move || {
                let file = fs::File::create(path).expect("a file");
                let out = BufWriter::with_capacity(1 << 20, file);
                store.backup(&Plan::default(), out).expect("a backup")
            }
        });
        let done = copy.await.expect("it ends");
        println!(
            "backup: {:.0} MB in {:.2} s; ingest {:.2} M samples/s meanwhile, {alone:.2} M before",
            done.bytes as f64 / 1e6,
            since.elapsed().as_secs_f64(),
            rate(from, since)
        );
        stop.store(true, Ordering::Relaxed);
    };
    futures_util::future::join(feed, measure).await;
}

/// Moves the clock to where the first day is just too old.
async fn expiry(store: &Store, metrics: &Metrics, clock: &ManualClock) {
    store.seal_now().await.expect("sealed");
    let retention = metrics.service.observe(ServiceName::OpsWorker, "retention");
    let spent = retention.get_sample_sum();
    let files = metrics.store.expired_files.get();
    clock.set(Timestamp::from_ms(T0 - 3 * DAY + 30 * DAY + 3 * HOUR));
    let deadline = Instant::now() + Duration::from_secs(60);
    while metrics.store.expired_files.get() == files || retention.get_sample_sum() == spent {
        assert!(Instant::now() < deadline, "no day expired");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "expiry: {} day(s) in {:.1} ms",
        metrics.store.expired_files.get() - files,
        (retention.get_sample_sum() - spent) * 1e3
    );
}

/// One caller with one sample, every 100 ms.
async fn low_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let Open { store, .. } = open(dir.path(), T0 + HOUR);
    let ids = create(&store, 100, T0).await;
    let mut waits = Vec::new();
    for id in ids {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut batch = WriteBatch::default();
        let row = Row {
            series: SeriesKey::Id(id),
            t: Timestamp::from_ms(T0 + STEP),
            v: 1.0,
        };
        batch.push([row], Item::default());
        let begun = Instant::now();
        store.write(batch).await.expect("written");
        waits.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    waits.sort_by(f64::total_cmp);
    println!(
        "low load: ack p50 {:.1} ms, p99 {:.1} ms",
        waits[49], waits[98]
    );
    store.close().await;
}

/// Anonymous bytes of the process.
fn anonymous() -> f64 {
    let me = procfs::process::Process::myself().expect("procfs");
    let status = me.status().expect("status");
    status.rssanon.unwrap_or(0) as f64 * 1024.0
}
