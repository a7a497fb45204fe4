//! Two hours of samples with everything that makes queries hard: counters with
//! resets, gaps, series that begin late and end early, irregular and shifted
//! intervals, NaN and infinities, huge and tiny numbers, histograms with
//! falling counts, labels to join on.

use std::collections::BTreeMap;
use std::fmt::Write;

use pulse::model::{Sample, Timestamp};
use pulse::promql::{Queryable, SelectHints, Series};

use crate::promql_scripts::memory::{Memory, labels};

/// The time of the first sample, in seconds; a whole hour.
pub(super) const START: i64 = 1_699_999_200;

/// Samples lie this far off whole seconds, so that none is on the edge of a window.
const SHIFT_MS: i64 = 123;

const SPAN: i64 = 7_200;

/// A small generator of numbers that look random and are the same every time.
struct Noise(u64);

impl Noise {
    /// A number of `0..below`.
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn index(&mut self, below: u64) -> usize {
        usize::try_from(self.below(below)).unwrap()
    }

    fn unit(&mut self) -> f64 {
        self.below(1 << 30) as f64 / f64::from(1 << 30)
    }
}

/// All series.
pub(super) fn memory() -> Memory {
    let mut memory = Memory::default();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    counters(&mut memory, &mut noise);
    gauges(&mut memory, &mut noise);
    histograms(&mut memory, &mut noise);
    specials(&mut memory);
    memory
}

/// Samples every `interval` seconds of `from..to`.
fn add(
    memory: &mut Memory,
    metric: &str,
    (from, to, interval): (i64, i64, i64),
    mut value: impl FnMut(i64) -> Option<f64>,
) {
    let mut samples = Vec::new();
    let mut t = from;
    while t < to {
        if let Some(v) = value(t) {
            samples.push(Sample::new((START + t) * 1000 + SHIFT_MS, v));
        }
        t += interval;
    }
    let labels = labels(metric).unwrap();
    memory.add(Series { labels, samples });
}

fn counters(memory: &mut Memory, noise: &mut Noise) {
    for (i, instance) in ["a", "b", "c"].iter().enumerate() {
        for mode in ["idle", "user", "system"] {
            let mut total = noise.unit() * 100.0;
            let reset_every = 150 + 40 * i as u64;
            let metric = format!("cpu_seconds_total{{instance=\"{instance}\",mode=\"{mode}\"}}");
            let from = 5 * i as i64;
            add(memory, &metric, (from, SPAN, 15), |_| {
                total += noise.unit() * 15.0;
                if noise.below(reset_every) == 0 {
                    total = noise.unit();
                }
                Some(total)
            });
        }
    }
    for (code, from, to) in [
        ("200", 0, SPAN),
        ("500", 1_800, 5_000),
        ("404", 3_300, 3_400),
    ] {
        let mut total = 0.0;
        let metric = format!("http_requests_total{{code=\"{code}\",instance=\"a\",job=\"api\"}}");
        add(memory, &metric, (from, to, 30), |_| {
            total += noise.below(5) as f64;
            Some(total)
        });
    }
    // First seen at ten, as far from zero as one interval.
    add(memory, "late_total", (3_000, SPAN, 30), |t| {
        Some(((t - 2_970) / 3) as f64)
    });
    // Flat, then gone for a while, then back at another value.
    add(memory, "jobs_total{instance=\"b\"}", (0, SPAN, 60), |t| {
        let there = !(2_000..4_000).contains(&t);
        there.then_some(if t < 2_000 { 7.0 } else { 3.0 })
    });
}

fn gauges(memory: &mut Memory, noise: &mut Noise) {
    for (i, instance) in ["a", "b", "c"].iter().enumerate() {
        let metric = format!("temperature{{instance=\"{instance}\",room=\"r{}\"}}", i % 2);
        add(memory, &metric, (3, SPAN, 20), |t| {
            let wave = (t as f64 / 600.0).sin() * 10.0;
            // Some samples are lost.
            (noise.below(10) > 0).then(|| 20.0 + wave + noise.unit())
        });
        let metric = format!("memory_bytes{{instance=\"{instance}\",kind=\"used\"}}");
        add(memory, &metric, (0, SPAN, 30), |_| {
            Some(1e9 + (noise.unit() * 1e8).floor())
        });
        let metric = format!("memory_bytes{{instance=\"{instance}\",kind=\"free\"}}");
        add(memory, &metric, (0, SPAN, 30), |_| {
            Some((noise.unit() * 1e9).floor())
        });
        let metric = format!("build_info{{instance=\"{instance}\",version=\"1.{i}\"}}");
        add(memory, &metric, (0, SPAN, 60), |_| Some(1.0));
    }
    for instance in ["a", "b"] {
        let metric = format!("up{{instance=\"{instance}\",job=\"api\"}}");
        add(memory, &metric, (1, SPAN, 15), |_| {
            Some(f64::from(u8::from(noise.below(8) > 0)))
        });
    }
    add(memory, "steps{instance=\"c\"}", (0, SPAN, 45), |t| {
        Some((t / 450) as f64)
    });
}

fn histograms(memory: &mut Memory, noise: &mut Noise) {
    let bounds = ["0.1", "0.5", "1", "2.5", "+Inf"];
    for instance in ["a", "b"] {
        let mut counts = [0.0f64; 5];
        let mut columns: Vec<BTreeMap<i64, f64>> = vec![BTreeMap::new(); 5];
        for t in (0..SPAN).step_by(15) {
            for _ in 0..noise.below(6) {
                let bucket = noise.index(5);
                counts[bucket..].iter_mut().for_each(|count| *count += 1.0);
            }
            for (column, count) in columns.iter_mut().zip(counts) {
                column.insert(t, count);
            }
        }
        for (bound, column) in bounds.iter().zip(&columns) {
            let metric =
                format!("latency_seconds_bucket{{instance=\"{instance}\",le=\"{bound}\"}}");
            add(memory, &metric, (0, SPAN, 15), |t| column.get(&t).copied());
        }
    }
    // Counts that fall from bucket to bucket, and one without the last bucket.
    for (le, v) in [("1", 10.0), ("2", 8.0), ("4", 12.0), ("+Inf", 12.0)] {
        add(
            memory,
            &format!("odd_bucket{{le=\"{le}\",kind=\"falling\"}}"),
            (0, SPAN, 60),
            |_| Some(v),
        );
    }
    for (le, v) in [("1", 1.0), ("2", 2.0)] {
        add(
            memory,
            &format!("odd_bucket{{le=\"{le}\",kind=\"endless\"}}"),
            (0, SPAN, 60),
            |_| Some(v),
        );
    }
    for (le, v) in [("-5", 4.0), ("0", 6.0), ("5", 9.0), ("+Inf", 10.0)] {
        add(
            memory,
            &format!("odd_bucket{{le=\"{le}\",kind=\"negative\"}}"),
            (0, SPAN, 60),
            |_| Some(v),
        );
    }
}

fn specials(memory: &mut Memory) {
    let values = [
        1.0,
        -1.0,
        0.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e300,
        1e-300,
        2.5,
        -2.5,
    ];
    for (i, v) in values.into_iter().enumerate() {
        add(
            memory,
            &format!("special{{n=\"{i}\"}}"),
            (0, SPAN, 60),
            |_| Some(v),
        );
    }
    add(memory, "mixed{n=\"0\"}", (0, SPAN, 60), |t| {
        Some(values[usize::try_from(t / 60).unwrap() % values.len()])
    });
    add(memory, "mixed{n=\"1\"}", (0, SPAN, 60), |t| {
        Some((t % 7) as f64 - 3.0)
    });
    add(memory, "huge{n=\"0\"}", (0, SPAN, 60), |t| {
        Some(if t % 120 == 0 { 1e16 } else { 1.0 })
    });
    add(memory, "huge{n=\"1\"}", (0, SPAN, 60), |_| Some(1.0));
    add(memory, "huge{n=\"2\"}", (0, SPAN, 60), |_| Some(-1e16));
    add(memory, "dates{zone=\"utc\"}", (0, SPAN, 600), |t| {
        Some((t * 86_413) as f64 - 1e8)
    });
}

/// The same as a text that promtool makes blocks of.
pub(super) fn open_metrics(memory: &Memory) -> String {
    let all = pulse::model::Matcher::new("__name__", pulse::model::MatchOp::Regex, ".+").unwrap();
    let series = memory
        .select(
            Timestamp::MIN,
            Timestamp::MAX,
            &[all],
            &SelectHints::default(),
        )
        .unwrap();
    let mut text = String::new();
    for series in series {
        for sample in &series.samples {
            let value = if sample.v.is_infinite() {
                if sample.v > 0.0 {
                    "+Inf".to_owned()
                } else {
                    "-Inf".to_owned()
                }
            } else {
                format!("{:e}", sample.v)
            };
            let seconds = sample.t.as_secs_f64();
            writeln!(text, "{} {value} {seconds}", labels_text(&series.labels)).unwrap();
        }
    }
    text.push_str("# EOF\n");
    text
}

/// OpenMetrics has no blank between labels.
fn labels_text(labels: &pulse::model::Labels) -> String {
    labels.to_string().replace("\", ", "\",")
}
