//! The data of the disk bench: how series of hosts and devices move.
//!
//! The shapes are those of the side-by-side benchmark with other servers: a host
//! has 214 series (counters of several digits, gauges in pages of memory, constants,
//! two histograms, durations with all their nanoseconds), all read at one moment; a
//! device has 5 (three walks with one or two digits, a signal strength, a counter),
//! sent as one message whose time is off by up to 150 ms.

use pulse::model::Labels;

/// xorshift64*, seeded.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        let mixed = seed.wrapping_add(1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Random(mixed ^ (mixed >> 31) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About a standard normal number.
    fn normal(&mut self) -> f64 {
        let sum: f64 = (0..6).map(|_| self.unit()).sum();
        (sum - 3.0) * std::f64::consts::SQRT_2
    }

    /// A whole number in `-n..=n`.
    fn within(&mut self, n: i64) -> i64 {
        i64::try_from(self.next() >> 33).expect("31 bits") % (2 * n + 1) - n
    }
}

/// How one series moves.
pub(crate) enum Shape {
    Fixed(f64),
    /// Counts `units` of 10^-digits; moves with the load, `often` of the steps.
    Counter {
        digits: i32,
        per_second: f64,
        spread: f64,
        often: f64,
        units: f64,
    },
    /// A walk in multiples of `quantum`.
    Walk {
        quantum: f64,
        step: f64,
        most: f64,
        often: f64,
        at: f64,
    },
    /// A daily wave with noise that returns to it.
    Wave {
        digits: i32,
        base: f64,
        height: f64,
        noise: f64,
        at: f64,
    },
    /// A short time in nanoseconds.
    Duration(f64),
    /// The time itself, with a jitter below a millisecond.
    Clock,
    /// Part `index` of a cumulative histogram; past its buckets: sum, count.
    Histogram {
        which: usize,
        index: usize,
    },
}

pub(crate) struct Histogram {
    per_second: f64,
    cumulative: [f64; BUCKETS.len()],
    sum: f64,
}

pub(crate) const BUCKETS: [&str; 12] = [
    "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf",
];
pub(crate) const SHARES: [f64; BUCKETS.len()] = [
    0.56, 0.18, 0.11, 0.06, 0.04, 0.025, 0.015, 0.006, 0.002, 0.001, 0.0004, 0.0,
];

/// What sends its series at one moment.
pub(crate) struct Source {
    pub(crate) labels: Vec<Labels>,
    shapes: Vec<Shape>,
    pub(crate) histograms: Vec<Histogram>,
    random: Random,
    phase_ms: i64,
    jitter_ms: i64,
    load: f64,
}

impl Source {
    pub(crate) fn new(seed: u64, step_ms: i64, jitter_ms: i64) -> Source {
        let mut random = Random::new(seed);
        let phase_ms = i64::try_from(random.next() >> 33).expect("31 bits") % step_ms;
        Source {
            labels: Vec::new(),
            shapes: Vec::new(),
            histograms: Vec::new(),
            random,
            phase_ms,
            jitter_ms,
            load: 1.0,
        }
    }

    pub(crate) fn add(
        &mut self,
        base: &[(&str, String)],
        name: &str,
        own: &[(&str, &str)],
        shape: Shape,
    ) {
        let all = base
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(own.iter().copied())
            .chain([("__name__", name)]);
        self.labels.push(Labels::from_pairs(all));
        self.shapes.push(shape);
    }

    /// The time of this step and the values of all series.
    pub(crate) fn step(&mut self, t: i64, step_ms: i64, values: &mut Vec<f64>) -> i64 {
        let seconds = step_ms as f64 / 1e3;
        let t = t + self.phase_ms + self.random.within(self.jitter_ms);
        let random = &mut self.random;
        self.load += (1.0 - self.load) * 0.02 + random.normal() * 0.06;
        self.load = self.load.clamp(0.05, 4.0);
        for histogram in &mut self.histograms {
            histogram.observe(seconds * self.load, random);
        }
        values.clear();
        for shape in &mut self.shapes {
            values.push(shape.next(t, seconds, self.load, random, &self.histograms));
        }
        t
    }
}

impl Histogram {
    /// One that counts so many observations per second.
    pub(crate) fn new(per_second: f64) -> Histogram {
        Histogram {
            per_second,
            cumulative: [0.0; BUCKETS.len()],
            sum: 0.0,
        }
    }

    fn observe(&mut self, load_seconds: f64, random: &mut Random) {
        let n = (self.per_second * load_seconds * (0.7 + 0.6 * random.unit())).round();
        let mut left = n;
        let mut counts = [0.0; BUCKETS.len()];
        for at in (0..BUCKETS.len()).rev() {
            let share = n * SHARES[at] * (0.6 + 0.8 * random.unit()) + random.unit();
            let count = if at == 0 {
                left
            } else {
                share.floor().min(left)
            };
            counts[at] = count;
            left -= count;
            self.sum += count * 0.005 * (at as f64 + 0.5) * (0.5 + random.unit());
        }
        let mut run = 0.0;
        for (total, count) in self.cumulative.iter_mut().zip(counts) {
            run += count;
            *total += run;
        }
    }
}

impl Shape {
    fn next(
        &mut self,
        t: i64,
        seconds: f64,
        load: f64,
        random: &mut Random,
        histograms: &[Histogram],
    ) -> f64 {
        match self {
            Shape::Fixed(value) => *value,
            Shape::Counter {
                digits,
                per_second,
                spread,
                often,
                units,
            } => {
                if *often >= 1.0 || random.unit() < *often {
                    let mean = *per_second * seconds * (1.0 + (load - 1.0) * 0.8);
                    let more = (mean * (1.0 + *spread * random.normal())).max(0.0);
                    *units += (more * 10f64.powi(*digits)).round();
                }
                *units / 10f64.powi(*digits)
            }
            Shape::Walk {
                quantum,
                step,
                most,
                often,
                at,
            } => {
                if *often >= 1.0 || random.unit() < *often {
                    *at = (*at + random.normal() * *step).clamp(0.0, *most);
                }
                if *quantum < 1.0 {
                    (*at / *quantum).round() / (1.0 / *quantum).round()
                } else {
                    (*at / *quantum).round() * *quantum
                }
            }
            Shape::Wave {
                digits,
                base,
                height,
                noise,
                at,
            } => {
                *at += *at * -0.05 + random.normal() * *noise;
                let turn = t as f64 / 86_400_000.0 * std::f64::consts::TAU;
                let power = 10f64.powi(*digits);
                ((*base + *height * turn.sin() + *at) * power).round() / power
            }
            Shape::Duration(scale) => {
                (*scale * (1.0 + 0.3 * random.normal().abs()) * 1e9).round() / 1e9
            }
            Shape::Clock => t as f64 / 1e3 + (random.unit() * 1e6).floor() / 1e9,
            Shape::Histogram { which, index } => {
                let histogram = &histograms[*which];
                match index.checked_sub(BUCKETS.len()) {
                    None => histogram.cumulative[*index],
                    Some(0) => histogram.sum,
                    Some(_) => histogram.cumulative[BUCKETS.len() - 1],
                }
            }
        }
    }
}

pub(crate) fn wave(digits: i32, base: f64, height: f64, noise: f64) -> Shape {
    Shape::Wave {
        digits,
        base,
        height,
        noise,
        at: 0.0,
    }
}

/// One device: 5 series.
pub(crate) fn device(number: usize, step_ms: i64) -> Source {
    let mut device = Source::new(number as u64 ^ 0x10d, step_ms, 150);
    let mut start = Random::new(2_000_000 + number as u64);
    // A few large tenants, many small ones.
    let tenant = (start.unit() * start.unit() * 20.0).floor();
    let id = (number as u64 * 2_654_435_761) & 0xffff_ffff;
    let base = [
        ("tenant_id", format!("tenant-{tenant:03.0}")),
        ("device_id", format!("dev-{id:08x}")),
        ("site", format!("site-{:02}", number % 40)),
    ];
    let temperature = wave(1, 15.0 + 10.0 * start.unit(), 4.0, 0.12);
    device.add(&base, "telemetry_temperature_celsius", &[], temperature);
    let humidity = wave(1, 40.0 + 20.0 * start.unit(), 8.0, 0.25);
    device.add(&base, "telemetry_humidity_percent", &[], humidity);
    let battery = Shape::Walk {
        quantum: 0.01,
        step: 0.004,
        most: 4.2,
        often: 0.5,
        at: 3.3 + 0.8 * start.unit(),
    };
    device.add(&base, "telemetry_battery_volts", &[], battery);
    let signal = wave(0, -75.0 + 20.0 * start.unit(), 1.0, 0.9);
    device.add(&base, "telemetry_rssi_dbm", &[], signal);
    let messages = Shape::Counter {
        digits: 0,
        per_second: 1_000.0 / step_ms as f64,
        spread: 0.15,
        often: 1.0,
        units: (start.unit() * 1e6).floor(),
    };
    device.add(&base, "telemetry_messages_total", &[], messages);
    device
}
