//! Queries over 1,712 series of a day, in memory: what the engine alone costs.
//!
//! `cargo bench --profile quick --bench promql`. Each query runs several times;
//! the median counts. Samples per second are those read from the store's side.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use pulse::model::{Labels, Matcher, Sample, Timestamp};
use pulse::promql::queryable::Take;
use pulse::promql::{Engine, Output, QueryError, Queryable, SelectHints, Series, parse};

const HOSTS: usize = 16;
const INTERVAL_MS: i64 = 15_000;
const DAY_MS: i64 = 86_400_000;
const START_MS: i64 = 1_700_000_000_000;
const RUNS: usize = 7;

/// Series that are handed out without a copy, as a store with decoded pages would.
struct Memory(Vec<Series>);

impl Memory {
    fn matching<'a>(&'a self, matchers: &'a [Matcher]) -> impl Iterator<Item = &'a Series> {
        let all = move |s: &&Series| matchers.iter().all(|m| m.matches_labels(&s.labels));
        self.0.iter().filter(all)
    }
}

fn between(samples: &[Sample], start: Timestamp, end: Timestamp) -> &[Sample] {
    let from = samples.partition_point(|s| s.t < start);
    let to = samples.partition_point(|s| s.t <= end);
    &samples[from..to]
}

impl Queryable for Memory {
    fn select(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        _hints: &SelectHints,
    ) -> Result<Vec<Series>, QueryError> {
        let series = self.matching(matchers).map(|s| Series {
            labels: s.labels.clone(),
            samples: between(&s.samples, start, end).to_vec(),
        });
        Ok(series.collect())
    }

    fn for_each(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        _hints: &SelectHints,
        takers: &mut [&mut Take<'_>],
    ) -> Result<(), QueryError> {
        for series in self.matching(matchers) {
            takers[0](&series.labels, between(&series.samples, start, end))?;
        }
        Ok(())
    }
}

/// Sixteen hosts with 107 series each.
fn series() -> Vec<Series> {
    let mut all = Vec::new();
    for host in 0..HOSTS {
        let host = format!("host{host:02}:9100");
        for cpu in 0..8 {
            for mode in [
                "idle", "user", "system", "iowait", "irq", "softirq", "nice", "steal",
            ] {
                let cpu = cpu.to_string();
                add(
                    &mut all,
                    "node_cpu_seconds_total",
                    &host,
                    &[("cpu", &cpu), ("mode", mode)],
                );
            }
        }
        for le in ["0.005", "0.01", "0.05", "0.1", "0.5", "1", "5", "+Inf"] {
            for path in ["/a", "/b"] {
                add(
                    &mut all,
                    "request_seconds_bucket",
                    &host,
                    &[("le", le), ("path", path)],
                );
            }
        }
        for n in 0..27 {
            let n = n.to_string();
            add(
                &mut all,
                "node_filesystem_avail_bytes",
                &host,
                &[("device", &n)],
            );
        }
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all
}

fn add(all: &mut Vec<Series>, name: &str, host: &str, labels: &[(&str, &str)]) {
    let mut pairs = vec![("__name__", name), ("instance", host), ("job", "node")];
    pairs.extend(labels);
    let slope = (all.len() % 13 + 1) as f64 * 0.37;
    let samples = (0..=DAY_MS / INTERVAL_MS).map(|i| {
        let wobble = ((i * 7_919) % 101) as f64 / 100.0;
        Sample::new(START_MS + i * INTERVAL_MS, i as f64 * slope + wobble)
    });
    all.push(Series {
        labels: Labels::from_pairs(pairs),
        samples: samples.collect(),
    });
}

const HOUR: i64 = 3_600_000;
const MINUTE: i64 = 60_000;

/// Name, query, range and step; no range is an instant query.
const QUERIES: [(&str, &str, i64, i64); 12] = [
    (
        "cpu by mode, 24 h",
        "sum by (mode) (rate(node_cpu_seconds_total[5m]))",
        24 * HOUR,
        MINUTE,
    ),
    (
        "cpu by mode, 1 h",
        "sum by (mode) (rate(node_cpu_seconds_total[5m]))",
        HOUR,
        15_000,
    ),
    (
        "topk, 6 h",
        "topk(5, rate(node_cpu_seconds_total{mode=\"user\"}[5m]))",
        6 * HOUR,
        MINUTE,
    ),
    (
        "histogram_quantile, 6 h",
        "histogram_quantile(0.9, sum by (le) (rate(request_seconds_bucket[5m])))",
        6 * HOUR,
        MINUTE,
    ),
    (
        "avg_over_time[1h], day",
        "avg_over_time(node_filesystem_avail_bytes[1h])",
        24 * HOUR,
        5 * MINUTE,
    ),
    (
        "max_over_time[1h], day",
        "max_over_time(node_filesystem_avail_bytes[1h])",
        24 * HOUR,
        MINUTE,
    ),
    (
        "quantile_over_time[1h], 6 h",
        "quantile_over_time(0.9, node_filesystem_avail_bytes[1h])",
        6 * HOUR,
        MINUTE,
    ),
    (
        "quantile, 6 h",
        "quantile by (mode) (0.9, rate(node_cpu_seconds_total[5m]))",
        6 * HOUR,
        MINUTE,
    ),
    (
        "ratio, 6 h",
        "node_cpu_seconds_total / ignoring(cpu) group_left sum without(cpu) (node_cpu_seconds_total)",
        6 * HOUR,
        MINUTE,
    ),
    (
        "scan of the day",
        "sum(count_over_time({job=\"node\"}[1d]))",
        0,
        0,
    ),
    ("instant over all", "{job=\"node\"}", 0, 0),
    (
        "count by name, instant",
        "count by (instance, __name__) ({job=\"node\"})",
        0,
        0,
    ),
];

fn main() {
    let memory = Memory(series());
    let engine = Engine::default();
    let mut out = std::io::stdout();
    let mut line = |text: String| {
        out.write_all(text.as_bytes())
            .expect("standard output works")
    };
    line(format!(
        "{} series, {} samples each\n",
        memory.0.len(),
        memory.0[0].samples.len()
    ));
    for (name, query, range_ms, step_ms) in QUERIES {
        let mut times = Vec::new();
        let mut read = 0;
        for _ in 0..RUNS {
            let started = Instant::now();
            read = run(&engine, &memory, query, range_ms, step_ms).samples_read;
            times.push(started.elapsed());
        }
        times.sort();
        let median = times[RUNS / 2];
        let rate = read as f64 / median.as_secs_f64() / 1e6;
        line(format!(
            "{name:<28} {:>9.3} ms   {read:>9} samples   {rate:>7.1} M/s\n",
            median.as_secs_f64() * 1e3
        ));
    }
}

fn run(engine: &Engine, memory: &Memory, query: &str, range_ms: i64, step_ms: i64) -> Output {
    let expr = parse(query).expect("a valid query");
    let cancel = Arc::new(AtomicBool::new(false));
    let end = Timestamp::from_ms(START_MS + DAY_MS);
    let result = if range_ms == 0 {
        engine.instant(memory, &expr, end, &cancel)
    } else {
        let step = Duration::from_millis(step_ms.unsigned_abs());
        engine.range(memory, &expr, end.minus_ms(range_ms), end, step, &cancel)
    };
    result.expect("the query has an answer")
}
