//! The main job measured on the real binary with real brokers.
//!
//! `cargo bench --bench main_job` prints: start to ready and idle memory,
//! messages per second and our own CPU per message from MQTT and from JetStream,
//! and the time from publish to queryable at 1,000 messages per second.
//! `RUNS=n` repeats the throughput parts, `MESSAGES=n` sets their size.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measuring program: it stops at the first surprise and talks to its user"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn main() {
    let part = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let wants = |name: &str| part.as_deref().is_none_or(|p| p == name);
    if wants("idle") {
        idle();
    }
    if wants("mqtt") {
        throughput("mqtt", mqtt_run);
    }
    if wants("jetstream") {
        throughput("jetstream", jetstream_run);
    }
    if wants("latency") {
        latency();
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The binary to measure; `PULSE_BIN` names another one.
fn binary() -> String {
    std::env::var("PULSE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_pulse").to_owned())
}

/// A child that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(program: &str, args: &[&str]) -> Running {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn wait_for(port: u16) {
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        thread::sleep(Duration::from_millis(2));
    }
}

/// A running pulse with its files in a folder of its own.
struct Pulse {
    process: Running,
    port: u16,
    ready_after: Duration,
}

impl Pulse {
    fn start(dir: &Path, config: &str) -> Pulse {
        let file = dir.join("pulse.toml");
        fs::write(&file, config).unwrap();
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let data = dir.join("data");
        let args = [
            "run",
            "--config",
            file.to_str().unwrap(),
            "--listen",
            &listen,
            "--data-dir",
            data.to_str().unwrap(),
            "--log-level",
            "warn",
        ];
        let begin = Instant::now();
        let process = start(&binary(), &args);
        while get(port, "/-/ready").is_none_or(|(status, _)| status != 200) {
            thread::sleep(Duration::from_millis(1));
        }
        Pulse {
            process,
            port,
            ready_after: begin.elapsed(),
        }
    }

    /// User and system time so far, in seconds.
    fn cpu_secs(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }

    /// A line of `/proc/PID/status` in MiB.
    fn memory_mib(&self, line: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let found = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
        let kib: f64 = found
            .trim_matches([':', '\t', ' ', 'k', 'B'])
            .parse()
            .unwrap();
        kib / 1024.0
    }

    fn query(&self, expr: &str) -> Option<f64> {
        let expr: String = form_urlencoded::byte_serialize(expr.as_bytes()).collect();
        let (_, body) = get(self.port, &format!("/api/v1/query?query={expr}"))?;
        let answer: serde_json::Value = serde_json::from_str(&body).ok()?;
        answer["data"]["result"][0]["value"][1]
            .as_str()?
            .parse()
            .ok()
    }

    fn wait_for_source(&self) {
        while get(self.port, "/metrics").is_none_or(|(_, body)| {
            !body.lines().any(|l| {
                l.starts_with("pulse_source_up{") && l.contains("\"bench\"") && l.ends_with(" 1")
            })
        }) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A GET over a connection of its own.
fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.get(9..12)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

fn idle() {
    let dir = tempfile::tempdir().unwrap();
    let mut ready = Vec::new();
    for round in 0..5 {
        let data = dir.path().join(format!("{round}"));
        fs::create_dir(&data).unwrap();
        ready.push(Pulse::start(&data, "").ready_after.as_secs_f64() * 1000.0);
    }
    println!(
        "start to ready, empty store: median {:.1} ms of {ready:.1?}",
        median(ready.clone())
    );
    let data = dir.path().join("idle");
    fs::create_dir(&data).unwrap();
    let pulse = Pulse::start(&data, "");
    let (cpu, begin) = (pulse.cpu_secs(), Instant::now());
    thread::sleep(Duration::from_secs(60));
    println!(
        "idle after 60 s with defaults: RSS {:.1} MiB (anonymous {:.1}), {:.2} % of one core",
        pulse.memory_mib("VmRSS"),
        pulse.memory_mib("RssAnon"),
        100.0 * (pulse.cpu_secs() - cpu) / begin.elapsed().as_secs_f64(),
    );
}

/// Wall rate and messages per second of our own CPU of one run.
type Rates = (f64, f64, f64);

fn throughput(name: &str, run: fn(usize) -> Rates) {
    let messages = number("MESSAGES", 300_000);
    let runs: Vec<Rates> = (0..number("RUNS", 5)).map(|_| run(messages)).collect();
    for (wall, cpu, rss) in &runs {
        println!("{name}: {wall:.0} msg/s, {cpu:.0} msg per CPU-second, peak RSS {rss:.0} MiB");
    }
    println!(
        "{name}: medians of {}: {:.0} msg/s, {:.0} msg per CPU-second",
        runs.len(),
        median(runs.iter().map(|r| r.0).collect()),
        median(runs.iter().map(|r| r.1).collect()),
    );
}

/// Message `id`: one of 1,000 devices, a millisecond of its own.
fn topic(id: usize) -> String {
    format!("tenants/t{}/devices/d{}/telemetry", id % 10, id % 1000)
}

fn payload(id: usize, base_ms: i64) -> String {
    format!(
        r#"{{"ts":{},"temperature":{}.5}}"#,
        base_ms + i64::try_from(id).unwrap(),
        id % 90
    )
}

fn base_ms() -> i64 {
    pulse::model::Clock::System.now().as_ms() - 3_600_000
}

/// Waits until all messages are stored and gives the rates since `begin`.
fn measure(pulse: &Pulse, messages: usize, begin: Instant, cpu: f64) -> Rates {
    let done = || {
        let (_, body) = get(pulse.port, "/metrics").unwrap();
        let accepted: f64 = body
            .lines()
            .filter(|l| l.starts_with("pulse_ingest_messages_total{") && l.contains("\"accepted\""))
            .map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum();
        accepted >= messages as f64
    };
    while !done() {
        thread::sleep(Duration::from_millis(20));
    }
    let wall = begin.elapsed().as_secs_f64();
    let used = pulse.cpu_secs() - cpu;
    (
        messages as f64 / wall,
        messages as f64 / used,
        pulse.memory_mib("VmHWM"),
    )
}

fn mosquitto(dir: &Path) -> (Running, u16) {
    let port = free_port();
    let file = dir.join("mosquitto.conf");
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
         max_queued_messages 0\nset_tcp_nodelay true\n"
    );
    fs::write(&file, config).unwrap();
    let broker = start("/usr/sbin/mosquitto", &["-c", file.to_str().unwrap()]);
    wait_for(port);
    (broker, port)
}

fn mqtt_config(port: u16) -> String {
    format!("[[source.mqtt]]\nname = \"bench\"\nurl = \"mqtt://127.0.0.1:{port}\"\n")
}

fn mqtt_run(messages: usize) -> Rates {
    let dir = tempfile::tempdir().unwrap();
    let (_broker, port) = mosquitto(dir.path());
    let pulse = Pulse::start(dir.path(), &mqtt_config(port));
    pulse.wait_for_source();
    let (begin, cpu) = (Instant::now(), pulse.cpu_secs());
    publish_mqtt(port, messages, 1_000);
    measure(&pulse, messages, begin, cpu)
}

/// Publishes with QoS 1, at most `window` unacknowledged, in large writes.
fn publish_mqtt(port: u16, messages: usize, window: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    // CONNECT, MQTT 3.1.1, clean session, client id "bench".
    stream
        .write_all(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05bench")
        .unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    let base = base_ms();
    let (mut sent, mut acked, mut partial) = (0, 0, 0);
    let mut packets = Vec::new();
    let mut answers = vec![0; 64 * 1024];
    while acked < messages {
        packets.clear();
        while sent < messages && sent - acked < window {
            push_publish(&mut packets, sent, base);
            sent += 1;
        }
        stream.write_all(&packets).unwrap();
        // Each PUBACK has four bytes.
        let read = stream.read(&mut answers).unwrap() + partial;
        acked += read / 4;
        partial = read % 4;
    }
}

fn push_publish(packets: &mut Vec<u8>, id: usize, base: i64) {
    let (topic, payload) = (topic(id), payload(id, base));
    let length = 2 + topic.len() + 2 + payload.len();
    packets.push(0x32);
    if length >= 128 {
        packets.push(u8::try_from(length % 128).unwrap() | 0x80);
        packets.push(u8::try_from(length / 128).unwrap());
    } else {
        packets.push(u8::try_from(length).unwrap());
    }
    packets.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    packets.extend(topic.as_bytes());
    packets.extend(u16::try_from(id % 65_535 + 1).unwrap().to_be_bytes());
    packets.extend(payload.as_bytes());
}

fn jetstream_run(messages: usize) -> Rates {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let store = dir.path().join("js");
    let (port_text, store) = (port.to_string(), store.to_str().unwrap().to_owned());
    let args = ["-a", "127.0.0.1", "-p", &port_text, "-js", "-sd", &store];
    let _server = start("/usr/sbin/nats-server", &args);
    wait_for(port);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let jetstream = runtime.block_on(create_stream(port));
    let config = format!(
        "[[source.nats]]\nname = \"bench\"\nurl = \"nats://127.0.0.1:{port}\"\nstream = \"TELEMETRY\"\n"
    );
    let pulse = Pulse::start(dir.path(), &config);
    pulse.wait_for_source();
    let (begin, cpu) = (Instant::now(), pulse.cpu_secs());
    runtime.block_on(publish_jetstream(&jetstream, messages));
    measure(&pulse, messages, begin, cpu)
}

async fn create_stream(port: u16) -> async_nats::jetstream::Context {
    let client = async_nats::connect(format!("nats://127.0.0.1:{port}"))
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let config = async_nats::jetstream::stream::Config {
        name: "TELEMETRY".to_owned(),
        // As the source's default `subjects`: a narrower filter makes the server itself slow.
        subjects: vec!["tenants.*.devices.*.telemetry".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    jetstream
}

async fn publish_jetstream(jetstream: &async_nats::jetstream::Context, messages: usize) {
    let base = base_ms();
    let mut waiting = std::collections::VecDeque::new();
    for id in 0..messages {
        let subject = topic(id).replace('/', ".");
        waiting.push_back(
            jetstream
                .publish(subject, payload(id, base).into())
                .await
                .unwrap(),
        );
        if waiting.len() == 1_000 {
            waiting.pop_front().unwrap().await.unwrap();
        }
    }
    for ack in waiting {
        ack.await.unwrap();
    }
}

/// Publish to queryable, while 1,000 other messages per second go by.
fn latency() {
    let dir = tempfile::tempdir().unwrap();
    let (_broker, port) = mosquitto(dir.path());
    let pulse = Pulse::start(dir.path(), &mqtt_config(port));
    pulse.wait_for_source();
    let load = thread::spawn(move || {
        let begin = Instant::now();
        for tenth in 0..200_u32 {
            publish_mqtt(port, 100, 100);
            let next = Duration::from_millis(100) * (tenth + 1);
            thread::sleep(next.saturating_sub(begin.elapsed()));
        }
    });
    let mut waits = Vec::new();
    for probe in 1..=300_u32 {
        let begin = Instant::now();
        publish_one(port, probe);
        while pulse.query("probe{device_id=\"p\"}") != Some(f64::from(probe)) {
            thread::sleep(Duration::from_micros(500));
        }
        waits.push(begin.elapsed().as_secs_f64() * 1000.0);
        thread::sleep(Duration::from_millis(20));
    }
    load.join().unwrap();
    waits.sort_by(f64::total_cmp);
    println!(
        "publish to queryable at 1,000 msg/s: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {}",
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits[waits.len() - 1],
        waits.len()
    );
}

fn publish_one(port: u16, value: u32) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .write_all(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05probe")
        .unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    let (topic, payload) = (
        "tenants/t/devices/p/telemetry",
        format!("{{\"probe\":{value}}}"),
    );
    let mut packet = vec![
        0x32,
        u8::try_from(2 + topic.len() + 2 + payload.len()).unwrap(),
    ];
    packet.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    packet.extend(topic.as_bytes());
    packet.extend([0, 1]);
    packet.extend(payload.as_bytes());
    stream.write_all(&packet).unwrap();
    let mut puback = [0; 4];
    stream.read_exact(&mut puback).unwrap();
}
