//! Days that leave, and days that are copied.

use std::fs;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pulse::model::clock::ManualClock;
use pulse::model::{Matcher, Timestamp};
use pulse::promql::{Queryable as _, SelectHints};
use pulse::store::backup::Plan;
use pulse::store::{Item, Row, SeriesId, SeriesKey, Store, WriteBatch};
use pulse::telemetry::Metrics;
use pulse::telemetry::metrics::ServiceName;

use super::{DAY, HOUR, Open, STEP, T0, create, mixed, open, scrape, value};

/// Series that are there every day, and those that only the first day has.
const LASTING: usize = 10_000;
const BRIEF: usize = 20_000;

/// Four days of noise: a backup while a fifth grows, then the expiry of the first.
pub(super) async fn run() {
    let dir = tempfile::tempdir().expect("a directory");
    let Open {
        store,
        metrics,
        clock,
    } = open(dir.path(), T0 + HOUR);
    let ids = create(&store, 0..LASTING, false, T0 - 4 * DAY).await;
    create(&store, LASTING..LASTING + BRIEF, false, T0 - 4 * DAY).await;
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
    backup(aside.path(), &store, ids.clone()).await;
    expiry(&store, &metrics, &clock, ids[7]).await;
    store.close().await;
}

/// Numbers of which nothing can be spared.
fn noise(i: u64, t: u64) -> f64 {
    f64::from_bits(mixed(i ^ t.rotate_left(20)) >> 2)
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

/// Moves the clock to where the first days are just too old, while one caller commits
/// and another one asks.
async fn expiry(store: &Store, metrics: &Metrics, clock: &ManualClock, id: SeriesId) {
    store.seal_now().await.expect("sealed");
    let quiet = waits(store, id, tokio::time::sleep(Duration::from_secs(1))).await;
    let retention = metrics.service.observe(ServiceName::OpsWorker, "retention");
    let spent = retention.get_sample_sum();
    let expired = metrics.service.observe(ServiceName::OpsWorker, "expiry");
    let files = metrics.store.expired_files.get();
    let series = store.stats().series;
    clock.set(Timestamp::from_ms(T0 - 3 * DAY + 30 * DAY + 3 * HOUR));
    let is_over =
        || metrics.store.expired_files.get() > files && retention.get_sample_sum() > spent;
    let busy = waits(store, id, async {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_over() {
            assert!(Instant::now() < deadline, "no day expired");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let days = metrics.store.expired_files.get() - files;
    println!(
        "expiry: {days} day(s) unlinked in {:.1} ms, {} series gone after {:.1} ms",
        expired.get_sample_sum() * 1e3,
        series - store.stats().series,
        (retention.get_sample_sum() - spent) * 1e3
    );
    println!("  longest wait before and meanwhile: {quiet}; {busy}");
}

/// The longest waits of a caller that commits and of one that asks until `end`.
async fn waits(store: &Store, id: SeriesId, end: impl Future<Output = ()>) -> String {
    let stop = AtomicBool::new(false);
    let longest_commit = async {
        let mut longest = Duration::ZERO;
        let mut at = T0 - 60_000;
        while !stop.load(Ordering::Relaxed) {
            at += 1;
            let mut batch = WriteBatch::default();
            let row = Row {
                series: SeriesKey::Id(id),
                t: Timestamp::from_ms(at),
                v: 1.0,
            };
            batch.push([row], Item::default());
            let begun = Instant::now();
            store.write(batch).await.expect("written");
            longest = longest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        longest
    };
    let asked = Arc::new(AtomicBool::new(true));
    let query = tokio::task::spawn_blocking({
        let (store, asked) = (store.clone(), Arc::clone(&asked));
        move || {
            let matchers = [Matcher::equal("__name__", "metric_7")];
            let (start, end) = (Timestamp::from_ms(T0 - HOUR), Timestamp::from_ms(T0));
            let mut longest = Duration::ZERO;
            while asked.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let found = store.select(start, end, &matchers, &SelectHints::default());
                found.expect("found");
                longest = longest.max(begun.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            longest
        }
    });
    let until = async {
        end.await;
        stop.store(true, Ordering::Relaxed);
        asked.store(false, Ordering::Relaxed);
    };
    let (commit, ()) = futures_util::future::join(longest_commit, until).await;
    let query = query.await.expect("it ends");
    let ms = |wait: Duration| wait.as_secs_f64() * 1e3;
    format!("commit {:.1} ms, query {:.1} ms", ms(commit), ms(query))
}
