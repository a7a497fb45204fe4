//! Size and speed of the value columns: `cargo bench --profile quick --bench codec`.
//!
//! Prints, for shapes of real series in columns of 120 and 240 values, the bytes
//! and the CPU time per sample of each effort. Times on a shared machine are
//! upper bounds; bytes are exact.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use pulse::store::sealed::column::{Effort, Encoder, decode};

/// Samples of each shape; enough that one round takes milliseconds.
const SAMPLES: usize = 240 * 400;
const ROUNDS: usize = 5;

fn main() {
    println!("shape              n  effort  B/sample  enc ns  dec ns");
    for (name, values) in shapes() {
        for n in [120, 240] {
            for effort in [Effort::Cheap, Effort::Fast, Effort::Best] {
                measure(name, &values, n, effort);
            }
        }
    }
}

fn measure(name: &str, values: &[f64], n: usize, effort: Effort) {
    let mut encoder = Encoder::default();
    let mut columns: Vec<Vec<u8>> = Vec::new();
    let encode_ns = best_of(values.len(), || {
        columns.clear();
        for chunk in values.chunks(n) {
            let mut column = Vec::with_capacity(1024);
            encoder.encode(chunk, effort, &mut column);
            columns.push(column);
        }
    });
    let mut out = Vec::with_capacity(n);
    let decode_ns = best_of(values.len(), || {
        for column in &columns {
            out.clear();
            decode(column, n, &mut out).expect("just encoded");
            black_box(&out);
        }
    });
    let bytes: usize = columns.iter().map(Vec::len).sum();
    let size = bytes as f64 / values.len() as f64;
    let effort = format!("{effort:?}");
    println!("{name:16} {n:3}  {effort:6}  {size:8.3}  {encode_ns:6.1}  {decode_ns:6.1}");
}

/// Nanoseconds per sample of the fastest round.
fn best_of(samples: usize, mut round: impl FnMut()) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        round();
        start.elapsed().as_nanos() as f64 / samples as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

fn shapes() -> Vec<(&'static str, Vec<f64>)> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut walk = |step: f64, digits: f64| {
        let mut value = 50.0;
        series(|_| {
            value += (random.next() - 0.5) * step;
            (value * digits).round() / digits
        })
    };
    let gauge_1 = walk(0.6, 10.0);
    let gauge_2 = walk(4.0, 100.0);
    let noisy = walk(1.0, 1e14);
    let mut sum = 0.0;
    let counter = series(|_| {
        sum += 1_500.0 + (random.next() * 200.0).floor();
        sum
    });
    let mut seconds = 0.0;
    let cpu = series(|_| {
        seconds += (random.next() * 40.0).floor();
        seconds / 100.0
    });
    let mut rare = 0.0;
    let events = series(|_| {
        rare += if random.next() < 0.03 { 1.0 } else { 0.0 };
        rare
    });
    vec![
        ("const", series(|i| (i / 2_400) as f64)),
        ("rare counter", events),
        ("byte counter", counter),
        ("cpu seconds", cpu),
        ("gauge 1 digit", gauge_1),
        ("gauge 2 digits", gauge_2),
        ("noisy float", noisy),
    ]
}

fn series(value: impl FnMut(usize) -> f64) -> Vec<f64> {
    (0..SAMPLES).map(value).collect()
}

/// Xorshift: numbers in 0..1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
