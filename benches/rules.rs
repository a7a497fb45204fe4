//! What rules cost: `cargo bench --profile quick --bench rules`.
//!
//! The groups run through the real manager over a real store, one round after
//! the other on a manual clock, so a round's CPU time divided by its interval is
//! the share of a core that the rules take. The API is asked over HTTP.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measuring program: it stops at the first surprise and talks to its user"
)]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp as Time;
use pulse::config::Config;
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, Labels, Timestamp};
use pulse::rules::{self, Rules};
use pulse::store::{Item, Options, Row, SeriesKey, Store, WriteBatch};
use pulse::tasks::Tasks;
use pulse::telemetry::Metrics;
use tokio_util::sync::CancellationToken;

const T0: i64 = 1_699_999_200_000;
const INTERVAL_MS: i64 = 15_000;
const INTERVAL: Duration = Duration::from_secs(15);
const SERIES: usize = 5_000;
const SHARDS: usize = 100;
const ROUNDS: usize = 12;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        round("100 rules in 1 group over 5,000 series", 1, 100).await;
        round("10,000 rules in 100 groups over 5,000 series", 100, 100).await;
    });
    api(4_000);
    wire(40);
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = procfs::process::Process::myself().unwrap().stat().unwrap();
    let ticks = stat.utime + stat.stime;
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Rules that look at a shard of 50 series each; a tenth of the series is above.
fn rule_file(groups: usize, rules: usize) -> String {
    let mut text = "groups:\n".to_owned();
    for group in 0..groups {
        writeln!(text, "- name: g{group}\n  interval: 15s\n  rules:").unwrap();
        for rule in 0..rules {
            let shard = (group + rule) % SHARDS;
            writeln!(
                text,
                "  - {{alert: A{rule}, expr: 'm{{shard=\"{shard}\"}} > 90', for: 5m, \
                 labels: {{severity: page}}, annotations: {{summary: '{{{{ $labels.i }}}} is at {{{{ $value | humanize }}}}'}}}}"
            )
            .unwrap();
        }
    }
    text
}

struct Bed {
    store: Store,
    metrics: Arc<Metrics>,
    clock: ManualClock,
    rules: Rules,
    series: Vec<Labels>,
}

impl Bed {
    async fn new(dir: &Path, groups: usize, rules: usize) -> Bed {
        std::fs::write(dir.join("rules.yml"), rule_file(groups, rules)).unwrap();
        let mut config = Config::parse("[rules]\nrule_files = [\"rules.yml\"]\n", "c").unwrap();
        config.base_dir = dir.to_owned();
        let manual = ManualClock::new(Timestamp::from_ms(T0));
        let clock = Clock::Manual(manual.clone());
        let metrics = Metrics::new();
        let options = Options {
            dir: dir.join("data"),
            store: config.store.clone(),
            limits: config.limits.clone(),
            tenants: Vec::new(),
        };
        let store = Store::open(options, clock.clone(), Arc::clone(&metrics)).unwrap();
        let tasks = Tasks::new(metrics.task_restarts.clone());
        let loaded = rules::load(&config).unwrap();
        let parts = (store.clone(), Arc::clone(&metrics));
        let stop = CancellationToken::new();
        let rules = rules::start(loaded, parts.0, parts.1, clock, tasks, stop).await;
        let label = |i: usize| {
            let (shard, i) = ((i % SHARDS).to_string(), i.to_string());
            Labels::from_pairs([("__name__", "m"), ("i", &i), ("shard", &shard)])
        };
        Bed {
            store,
            metrics,
            clock: manual,
            rules,
            series: (0..SERIES).map(label).collect(),
        }
    }

    async fn feed(&self, round: usize) {
        let t = Clock::Manual(self.clock.clone()).now();
        let rows = self.series.iter().enumerate().map(|(i, labels)| Row {
            series: SeriesKey::Labels(labels.clone()),
            t,
            v: ((i / SHARDS * 7 + round / 40) % 100) as f64,
        });
        let mut batch = WriteBatch::default();
        batch.push(rows, Item::default());
        self.store.write(batch).await.unwrap();
    }
}

async fn round(what: &str, groups: usize, rules: usize) {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::new(dir.path(), groups, rules).await;
    let (mut walls, mut cpus, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        bed.clock.advance(INTERVAL);
        bed.feed(round).await;
        let (wall, before) = (Instant::now(), cpu());
        bed.rules.tick().await;
        walls.push(wall.elapsed().as_secs_f64());
        cpus.push((cpu() - before).as_secs_f64());
        let views = bed.rules.view();
        single.extend(views.iter().map(|group| group.evaluation_secs));
    }
    let evaluated: f64 = bed
        .metrics
        .rules
        .evaluated
        .with_label_values(&["default"])
        .get() as f64;
    let alerts: usize = bed
        .rules
        .view()
        .iter()
        .flat_map(|group| &group.rules)
        .map(alerts_of)
        .sum();
    let cpu = median(cpus);
    println!(
        "{what}: {evaluated} evaluations, {alerts} alerts; a round takes {:.1} ms wall, {:.1} ms CPU \
         = {:.3} cores at 15 s; a group's evaluation {:.1} ms (median), {:.1} ms (slowest)",
        median(walls) * 1e3,
        cpu * 1e3,
        cpu / (INTERVAL_MS as f64 / 1e3),
        median(single.clone()) * 1e3,
        single.iter().copied().fold(0.0, f64::max) * 1e3,
    );
    bed.store.close().await;
}

fn alerts_of(rule: &rules::RuleView) -> usize {
    match &rule.kind {
        rules::RuleKind::Alerting { alerts, .. } => alerts.len(),
        rules::RuleKind::Recording => 0,
    }
}

/// A child that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts the program with a configuration; gives it with its port when it is ready.
fn start(dir: &Path, config: &str) -> (Running, u16) {
    let file = dir.join("pulse.toml");
    std::fs::write(&file, config).unwrap();
    let port = free_port();
    let program = std::env::var("PULSE_BIN").unwrap_or(env!("CARGO_BIN_EXE_pulse").to_owned());
    let child = Command::new(program)
        .args(["run", "--listen", &format!("127.0.0.1:{port}"), "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let started = Instant::now();
    while get(port, "/-/ready").is_none_or(|answer| !answer.starts_with(b"HTTP/1.1 200")) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "pulse is not ready"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    (running, port)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// How long `/api/v1/rules` takes with that many rules.
fn api(count: usize) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yml"), rule_file(count / 100, 100)).unwrap();
    let (_running, port) = start(dir.path(), "[rules]\nrule_files = [\"rules.yml\"]\n");
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..21 {
        let before = Instant::now();
        let answer = get(port, "/api/v1/rules").unwrap();
        times.push(before.elapsed().as_secs_f64());
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        bytes = answer.len();
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    println!(
        "/api/v1/rules with {count} rules: {bytes} bytes in {:.1} ms (median), {:.1} ms (slowest)",
        median(times) * 1e3,
        slowest * 1e3,
    );
}

/// How long after the evaluation that fires a notification arrives: from the time of
/// its slot, which the message names, to the last byte of the message.
fn wire(alerts: usize) {
    let dir = tempfile::tempdir().unwrap();
    let rules =
        "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {alert: Hot, expr: 'temp > 30'}\n";
    std::fs::write(dir.path().join("rules.yml"), rules).unwrap();
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[rules]\nrule_files = [\"rules.yml\"]\n[alerting]\nreceiver = \"ops\"\ngroup_by = [\"...\"]\n\
         group_wait = \"0s\"\n[[destination.webhook]]\nname = \"ops\"\nurl = \"http://{}/\"\n",
        sink.local_addr().unwrap()
    );
    let (_running, port) = start(dir.path(), &config);
    let (mut stream, mut times) = (None, Vec::new());
    for i in 0..alerts {
        push(port, i);
        let stream = stream.get_or_insert_with(|| sink.accept().unwrap().0);
        let body = request(stream);
        let now = Time::now();
        let message: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let starts_at: Time = message["alerts"][0]["startsAt"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        times.push(now.duration_since(starts_at).as_secs_f64());
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    println!(
        "notification on the wire, group_wait 0: {:.1} ms after the evaluation (median of {alerts}), {:.1} ms (slowest)",
        median(times) * 1e3,
        slowest * 1e3,
    );
}

fn push(port: u16, device: usize) {
    let body = r#"{"temp":40}"#;
    let request = format!(
        "POST /api/v1/ingest/acme?device=d{device} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(port, &request).unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

/// Reads one request with a `Content-Length`, answers it, and gives its body.
fn request(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        let mut buffer = [0; 16_384];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "pulse closed the connection");
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
        if body.len() >= length {
            let body = body.as_bytes().to_vec();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).unwrap();
            return body;
        }
    }
}

fn get(port: u16, path: &str) -> Option<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    exchange(port, &request)
}

fn exchange(port: u16, request: &str) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(answer)
}
