//! What ingest spends on a message: `cargo bench --profile quick --bench ingest`.
//!
//! Prints the best of five rounds for each payload, in nanoseconds a message.

use std::hint::black_box;
use std::time::Instant;

use pulse::config::{Limits, Map};
use pulse::ingest::decode::{Reading, decode};

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
