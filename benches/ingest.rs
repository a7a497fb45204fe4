//! What ingest spends on a message: `cargo bench --profile quick --bench ingest`.
//!
//! First the decoder alone: the best of five rounds for each payload, in
//! nanoseconds a message. Then all of ingest over a store on disk: hands of 512
//! messages from 4 sources of 250 devices each, at most 16 hands under way, and
//! the process's own CPU time, writer thread included.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use pulse::config::{Config, Limits, Map};
use pulse::ingest::decode::{Reading, decode};
use pulse::ingest::{Ingest, Message, Origin, Verdict};
use pulse::model::Clock;
use pulse::store::{Options, Store};
use pulse::tasks::Tasks;
use pulse::telemetry::Metrics;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
const MESSAGES: u32 = 500_000;

#[expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]
fn report(name: &str, mut one: impl FnMut()) {
    let best = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..MESSAGES).for_each(|_| one());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(MESSAGES)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name:<32} {best:>8.0} ns/message");
}

fn main() {
    decoder();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(whole());
}

fn decoder() {
    let map = pulse::ingest::map::Map::compile(&Map::default()).expect("the default map compiles");
    let limits = Limits::default();
    let mut reading = Reading::default();
    for (name, payload) in [
        (
            "decode, flat, 2 values",
            r#"{"ts":1700000000000,"temperature":21.5,"humidity":40}"#,
        ),
        (
            "decode, nested, 8 values",
            r#"{"ts":1700000000000,"env":{"temperature":21.5,"humidity":40.25,"co2":612},
            "power":{"battery":3.71,"solar":0.82,"charging":true},"rssi":-71,"seq":123456,"fw":"1.4.2"}"#,
        ),
        (
            "decode, RFC 3339, 1 value",
            r#"{"time":"2023-11-14T22:13:20.250Z","v":1}"#,
        ),
    ] {
        report(name, || {
            decode(
                &map,
                &limits,
                "acme",
                black_box(payload.as_bytes()),
                &mut reading,
            )
            .expect("a good payload");
            black_box(&reading);
        });
    }
}

const SOURCES: usize = 4;
const DEVICES: usize = 250;
const HANDS: usize = 250;
const HAND: usize = 512;
const UNDER_WAY: usize = 16;

/// All of ingest, from a source's hand to its verdicts.
#[expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]
async fn whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (config, metrics, clock) = (Config::default(), Metrics::new(), Clock::System);
    let options = Options {
        dir: dir.path().to_owned(),
        store: config.store.clone(),
        limits: config.limits.clone(),
        tenants: Vec::new(),
    };
    let store = Store::open(options, clock.clone(), Arc::clone(&metrics)).expect("a store");
    let tasks = Tasks::new(metrics.task_restarts.clone());
    let stop = CancellationToken::new();
    let start = pulse::ingest::start;
    let ingest = start(
        &config,
        store.clone(),
        metrics,
        clock.clone(),
        &tasks,
        stop.clone(),
    );
    let ingest = ingest.expect("the default configuration");
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let base = clock.now().as_ms() - 1_000_000;
    let sources = (0..SOURCES).map(|source| send(&ingest, source, base));
    futures_util::future::join_all(sources).await;
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let messages = (SOURCES * HANDS * HAND) as f64;
    println!("all of ingest and store: {messages} messages of 2 values");
    println!(
        "  {:.0} messages/s wall, {:.2} us CPU/message",
        messages / wall,
        cpu / messages * 1e6
    );
    stop.cancel();
    tasks.join().await;
    store.close().await;
}

async fn send(ingest: &Ingest, source: usize, base: i64) {
    let origin = Arc::new(Origin {
        source: format!("bench:{source}"),
        kind: "bench",
        historical: false,
    });
    let mut answers = VecDeque::new();
    for hand in 0..HANDS {
        let messages = (0..HAND)
            .map(|i| message(source, hand * HAND + i, base))
            .collect();
        answers.push_back(
            ingest
                .submit(&origin, messages)
                .await
                .expect("a running task"),
        );
        if answers.len() == UNDER_WAY {
            answers
                .pop_front()
                .expect("it is full")
                .await
                .expect("verdicts");
        }
    }
    for answer in answers {
        check(&answer.await.expect("verdicts"));
    }
}

fn check(verdicts: &[Verdict]) {
    assert!(
        verdicts
            .iter()
            .all(|verdict| *verdict == Verdict::Committed)
    );
}

fn message(source: usize, n: usize, base: i64) -> Message {
    let ts = base + i64::try_from(n / DEVICES).expect("small");
    let value = n % 97;
    Message {
        topic: format!("tenants/t{source}/devices/d{}/telemetry", n % DEVICES),
        payload: format!("{{\"ts\":{ts},\"temperature\":21.{value},\"humidity\":{value}}}").into(),
        stamp: pulse::model::Timestamp::from_ms(ts),
        delivered: 1,
        tenant: None,
        state: Vec::new(),
    }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = procfs::process::Process::myself()
        .and_then(|p| p.stat())
        .expect("/proc");
    (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
}
