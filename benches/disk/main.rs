//! What a day of samples takes on disk: `cargo bench --profile quick --bench disk`.
//!
//! Feeds a day of hosts, of devices and, when `PULSE_RECORDING` names a directory
//! with one text scrape of a node exporter in each file, that recording at 15 s.
//! Then everything is rewritten as it would be two hours after the day's end. All
//! files of the data directory count, log and catalog too; allocated bytes, and in
//! brackets the lengths of the files.

#![expect(clippy::print_stdout, reason = "a bench talks to a terminal")]

mod host;
mod recording;
mod shapes;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pulse::config;
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, Labels, MatchOp, Matcher, Timestamp};
use pulse::promql::{Queryable, SelectHints};
use pulse::store::{Item, Options, Row, SeriesId, SeriesKey, Store, Urgency, WriteBatch};
use pulse::telemetry::Metrics;

/// 2026-01-01T00:00:00Z.
const T0: i64 = 1_767_225_600_000;
const DAY: i64 = 86_400_000;

#[tokio::main]
async fn main() {
    let hosts = (0..24).map(|i| host::host(i, 15_000)).collect();
    sources("24 hosts, a day at 15 s", hosts, 15_000).await;
    let devices = (0..2_000).map(|i| shapes::device(i, 60_000)).collect();
    sources("2,000 devices, a day at 60 s", devices, 60_000).await;
    if let Some(dir) = std::env::var_os("PULSE_RECORDING") {
        recording(Path::new(&dir)).await;
    }
}

/// A store under load.
struct Run {
    dir: tempfile::TempDir,
    store: Store,
    metrics: Arc<Metrics>,
    batch: WriteBatch,
    samples: u64,
}

impl Run {
    fn new() -> Run {
        let dir = tempfile::tempdir().expect("a directory");
        let metrics = Metrics::new();
        let mut options = Options {
            dir: dir.path().to_owned(),
            store: config::Store::default(),
            limits: config::Limits::default(),
            tenants: Vec::new(),
        };
        options.store.head_max = config::Size::mib(8_192);
        // It is no data.
        options.store.reserve = config::Size::bytes(0);
        let clock = Clock::Manual(ManualClock::new(Timestamp::from_ms(T0 + DAY)));
        let store = Store::open(options, clock, Arc::clone(&metrics)).expect("a new store");
        Run {
            dir,
            store,
            metrics,
            batch: empty(),
            samples: 0,
        }
    }

    async fn ids(&self, labels: &[Labels]) -> Vec<SeriesId> {
        let id = |labels| self.store.resolve(labels).expect("it was written");
        labels.iter().map(id).collect()
    }

    async fn add(&mut self, rows: Vec<Row>) {
        self.samples += rows.len() as u64;
        self.batch.push(rows, Item::default());
        if self.batch.rows.len() > 10_000 {
            self.send().await;
        }
    }

    async fn send(&mut self) {
        let batch = std::mem::replace(&mut self.batch, empty());
        self.store.write(batch).await.expect("written");
    }

    async fn finish(mut self, name: &str, series: usize) {
        self.send().await;
        let cpu = sealer_cpu();
        self.store.seal_now().await.expect("sealed");
        let seal_cpu = sealer_cpu() - cpu;
        println!("{name}: {series} series, {} samples", self.samples);
        self.show("  sealed by the hour", seal_cpu);
        let (cpu, written) = (sealer_cpu(), self.metrics.store.bytes_written.get());
        self.store.compact_now().await.expect("rewritten");
        self.show("  rewritten as a day", sealer_cpu() - cpu);
        let written = self.metrics.store.bytes_written.get() - written;
        println!(
            "    written by the rewrite: {:.3} B/sample",
            written as f64 / self.samples as f64
        );
        self.read(T0, T0 + DAY, "all of the day");
        self.read(T0 + DAY / 2, T0 + DAY / 2 + 3_600_000, "one hour");
        self.store.close().await;
        self.show("  closed", 0.0);
    }

    fn read(&self, start: i64, end: i64, what: &str) {
        let begun = Instant::now();
        let (start, end) = (Timestamp::from_ms(start), Timestamp::from_ms(end));
        let hints = SelectHints {
            samples_max: usize::MAX,
            ..SelectHints::default()
        };
        let names = ["node_load1", "telemetry_rssi_dbm", "node_cpu_seconds_total"];
        let matchers =
            [Matcher::new("__name__", MatchOp::Regex, &names.join("|")).expect("a pattern")];
        let series = self.store.select(start, end, &matchers, &hints);
        let samples: usize = series.expect("read").iter().map(|s| s.samples.len()).sum();
        let took = begun.elapsed().as_secs_f64();
        println!("    read {what}: {samples} samples in {:.1} ms", took * 1e3);
    }

    fn show(&self, what: &str, cpu: f64) {
        let (mut allocated, mut long) = (0, 0);
        let mut parts = Vec::new();
        for entry in std::fs::read_dir(self.dir.path()).expect("readable") {
            let entry = entry.expect("readable");
            let meta = entry.metadata().expect("readable");
            allocated += meta.blocks() * 512;
            long += meta.len();
            let name = entry.file_name().to_string_lossy().into_owned();
            if meta.len() > 10_000 {
                parts.push(format!("{name} {} kB", meta.blocks() / 2));
            }
        }
        let each = |bytes: u64| bytes as f64 / self.samples as f64;
        println!(
            "{what}: {:.3} B/sample ({:.3}), {:.0} ns CPU/sample; {}",
            each(allocated),
            each(long),
            cpu / self.samples as f64 * 1e9,
            parts.join(", ")
        );
    }
}

fn empty() -> WriteBatch {
    WriteBatch {
        urgency: Urgency::RideAlong,
        ..WriteBatch::default()
    }
}

async fn sources(name: &str, mut all: Vec<shapes::Source>, step_ms: i64) {
    let mut run = Run::new();
    let mut ids: Vec<Vec<SeriesId>> = Vec::new();
    let mut values = Vec::new();
    for step in 0..DAY / step_ms - 1 {
        for (at, source) in all.iter_mut().enumerate() {
            let t = source.step(T0 + step * step_ms, step_ms, &mut values);
            let t = Timestamp::from_ms(t.max(T0));
            let rows = values.iter().enumerate().map(|(i, v)| Row {
                series: match ids.get(at) {
                    Some(ids) => SeriesKey::Id(ids[i]),
                    None => SeriesKey::Labels(source.labels[i].clone()),
                },
                t,
                v: *v,
            });
            run.add(rows.collect()).await;
        }
        if step == 0 {
            run.send().await;
            for source in &all {
                ids.push(run.ids(&source.labels).await);
            }
        }
    }
    let series = all.iter().map(|source| source.labels.len()).sum();
    run.finish(name, series).await;
}

/// Twenty copies, each from another place of the recording on, for as long as it is.
async fn recording(dir: &Path) {
    const COPIES: usize = 20;
    let (labels, scrapes) = recording::recording(dir);
    let mut run = Run::new();
    let mut known: Vec<Vec<Option<SeriesId>>> = vec![vec![None; labels.len()]; COPIES];
    let own = |copy: usize, labels: &Labels| {
        let pairs = labels.iter().filter(|(name, _)| *name != "instance");
        let instance = format!("recorded-{copy:02}:9100");
        let all = pairs.chain([("instance", instance.as_str())]);
        Labels::from_pairs(all.collect::<Vec<_>>())
    };
    for step in 0..scrapes.len() {
        for (copy, known) in known.iter_mut().enumerate() {
            // Behind the end each counter goes on from what it had there.
            let at = (step + copy * 37) % scrapes.len();
            let lap = (step + copy * 37) / scrapes.len();
            let t = T0 + i64::try_from(step).expect("few") * 15_000 + copy as i64 * 691;
            let mut rows = Vec::new();
            for (i, value) in scrapes[at].iter().enumerate().filter(|(_, v)| !v.is_nan()) {
                let last = scrapes[scrapes.len() - 1].get(i).copied().unwrap_or(0.0);
                let first = scrapes[0].get(i).copied().unwrap_or(0.0);
                let is_counter = labels[i]
                    .get("__name__")
                    .is_some_and(|n| n.ends_with("_total"));
                let more = if is_counter && lap > 0 {
                    last - first
                } else {
                    0.0
                };
                let series = match known[i] {
                    Some(id) => SeriesKey::Id(id),
                    None => {
                        let labels = own(copy, &labels[i]);
                        known[i] = run.store.resolve(&labels);
                        SeriesKey::Labels(labels)
                    }
                };
                rows.push(Row {
                    series,
                    t: Timestamp::from_ms(t),
                    v: value + more,
                });
            }
            run.add(rows).await;
        }
    }
    let name = format!("{COPIES} copies of {} scrapes at 15 s", scrapes.len());
    run.finish(&name, labels.len() * COPIES).await;
}

/// CPU seconds of the sealer thread so far.
fn sealer_cpu() -> f64 {
    let me = procfs::process::Process::myself().expect("procfs");
    let tasks = me.tasks().expect("tasks").flatten();
    let sealers = tasks.filter_map(|task| {
        let stat = task.stat().ok()?;
        (stat.comm == "store-sealer").then_some(stat.utime + stat.stime)
    });
    let ticks: u64 = sealers.sum();
    ticks as f64 / procfs::ticks_per_second() as f64
}
