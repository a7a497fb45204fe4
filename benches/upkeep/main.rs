//! What an operator waits for: `cargo bench --profile quick --bench upkeep`.
//!
//! - [`hour`]: series in memory, their bytes, and the start after a crash. The crash is
//!   a copy of the files of the open store; another process opens it. A million series
//!   only when asked for: `PULSE_BENCH_ONLY=million`.
//! - [`days`]: the expiry of a day, and for how long commits and queries wait meanwhile.
//!   A backup of 200 MB of days while one writer goes on as fast as it can.
//! - The answer to a lone caller, ten times a second.
//!
//! Files are made under `TMPDIR`. `PULSE_BENCH_ONLY` names one of the parts: `hour`,
//! `million`, `days`, `low`.

#![expect(clippy::print_stdout, reason = "a bench talks to a terminal")]

mod days;
mod hour;

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pulse::config;
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, Labels, Timestamp};
use pulse::store::{Item, Options, Row, SeriesId, SeriesKey, Store, Urgency, WriteBatch};
use pulse::telemetry::Metrics;

/// 2023-11-14T22:00:00Z, the start of an hour.
const T0: i64 = 1_699_999_200_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const STEP: i64 = 15_000;

/// Rows of one batch.
const BATCH: usize = 10_000;

/// Names the directory that a process of this bench opens.
const OPEN: &str = "PULSE_BENCH_OPEN";

/// Says which series a process of this bench makes.
const SERIES: &str = "PULSE_BENCH_SERIES";

/// Names the only part that is wanted.
const ONLY: &str = "PULSE_BENCH_ONLY";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let Some(dir) = std::env::var_os(OPEN) {
        runtime.block_on(hour::restart(Path::new(&dir)));
        return;
    }
    if let Ok(name) = std::env::var(SERIES) {
        runtime.block_on(hour::run(&name));
        return;
    }
    let only = std::env::var(ONLY).ok();
    let is_wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    // What one frees, the next would get: each has a process of its own.
    if is_wanted("hour") {
        for name in ["short", "full", "unique"] {
            run_again(SERIES, name);
        }
    }
    if only.as_deref() == Some("million") {
        run_again(SERIES, "million");
    }
    if is_wanted("days") {
        runtime.block_on(days::run());
    }
    if is_wanted("low") {
        runtime.block_on(low_load());
    }
}

/// Runs this program once more, with a variable that says what to do.
fn run_again(name: &str, value: impl AsRef<std::ffi::OsStr>) {
    let me = std::env::current_exe().expect("our own path");
    let status = Command::new(me).env(name, value).status();
    assert!(status.expect("it starts").success());
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
        limits: config::Limits {
            series_max: 2_000_000,
            series_per_tenant_max: 2_000_000,
            ..config::Limits::default()
        },
        tenants: Vec::new(),
    };
    let store = Store::open(options, Clock::Manual(clock.clone()), Arc::clone(&metrics));
    Open {
        store: store.expect("it opens"),
        metrics,
        clock,
    }
}

/// Labels as those of hosts; with `unique` one value that no other series has.
fn labels(i: usize, unique: bool) -> Labels {
    let mut pairs = vec![
        ("__name__", format!("metric_{}", i % 500)),
        ("instance", format!("host-{:04}:9100", i / 500)),
        ("job", "node".to_owned()),
    ];
    if unique {
        pairs.push(("serial", format!("{:016x}", mixed(i as u64))));
    }
    Labels::from_pairs(pairs)
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
async fn create(store: &Store, series: Range<usize>, unique: bool, t: i64) -> Vec<SeriesId> {
    let mut ids = Vec::with_capacity(series.len());
    for from in series.clone().step_by(BATCH) {
        let some = from..series.end.min(from + BATCH);
        let mut batch = WriteBatch::default();
        let row = |i| Row {
            series: SeriesKey::Labels(labels(i, unique)),
            t: Timestamp::from_ms(t),
            v: value(i, 0),
        };
        batch.push(some.clone().map(row), Item::default());
        store.write(batch).await.expect("written");
        ids.extend(some.map(|i| store.resolve(&labels(i, unique)).expect("there")));
    }
    ids
}

/// Writes one sample of each series, 10,000 in a batch that nobody waits for.
async fn scrape(store: &Store, ids: &[SeriesId], t: i64, value: impl Fn(usize) -> f64) {
    for (at, ids) in ids.chunks(BATCH).enumerate() {
        let mut batch = WriteBatch {
            urgency: Urgency::RideAlong,
            ..WriteBatch::default()
        };
        let rows = ids.iter().enumerate().map(|(i, id)| Row {
            series: SeriesKey::Id(*id),
            t: Timestamp::from_ms(t),
            v: value(at * BATCH + i),
        });
        batch.push(rows, Item::default());
        store.write(batch).await.expect("written");
    }
}

/// A number of which nothing can be spared.
fn mixed(n: u64) -> u64 {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 32
}

/// One caller with one sample, every 100 ms.
async fn low_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let Open { store, .. } = open(dir.path(), T0 + HOUR);
    let ids = create(&store, 0..100, false, T0).await;
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
fn anonymous() -> u64 {
    let me = procfs::process::Process::myself().expect("procfs");
    let status = me.status().expect("status");
    status.rssanon.unwrap_or(0) * 1024
}
