//! Our own metrics and the host's as a source: what a scrape of ourselves would give.
//!
//! The families of `/metrics` become series under two jobs: `node` for the host
//! (families `node_*`), `pulse` for the rest, each with the `up` and `scrape_*`
//! series of a real target. Nothing is printed and parsed: the instruments are
//! read in memory.
//!
//! A series is found by a 128-bit hash of its parts, so that after the first
//! round no label set is built. A series that is gone since the round before gets
//! a staleness marker, as Prometheus does.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::Xxh3;

use super::status::{Board, Status};
use crate::model::labels::METRIC_NAME;
use crate::model::{Clock, Labels, LabelsBuilder, Timestamp, stale_nan};
use crate::store::{Item, Row, SeriesId, SeriesKey, Store, Urgency, WriteBatch};
use crate::telemetry::Metrics;

/// What the source needs.
#[derive(Clone)]
pub struct Options {
    /// How often it collects.
    pub interval: Duration,
    /// The label `instance`: host name and port.
    pub instance: String,
    /// Whether the host's families are collected.
    pub host: bool,
}

/// Collects until `stop`. The first collection is made at once; `first` says when
/// it can be queried.
pub async fn run(
    options: Options,
    store: Store,
    metrics: Arc<Metrics>,
    board: Board,
    clock: Clock,
    first: Option<oneshot::Sender<()>>,
    stop: CancellationToken,
) {
    let now = clock.now();
    let mut targets = vec![Target::new("pulse", &options, &board, now)];
    if options.host {
        targets.push(Target::new("node", &options, &board, now));
    }
    let mut first = first;
    let mut ticks = tokio::time::interval(options.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        collect(&mut targets, &store, &metrics, &clock).await;
        if let Some(first) = first.take() {
            // Nobody has to wait for it.
            first.send(()).ok();
        }
    }
    for target in &targets {
        board.remove(&target.status);
    }
}

/// One round of all targets in one batch.
async fn collect(targets: &mut [Target], store: &Store, metrics: &Metrics, clock: &Clock) {
    let now = clock.now();
    let begin = tokio::time::Instant::now();
    let families = metrics.gather();
    let mut batch = WriteBatch {
        urgency: Urgency::RideAlong,
        ..WriteBatch::default()
    };
    let mut fresh = Vec::new();
    for (i, target) in targets.iter_mut().enumerate() {
        let job = target.job;
        let mut round = target.begin(now);
        for family in families.iter().filter(|f| owner(f) == job) {
            round.add_family(family);
        }
        round.finish(begin.elapsed());
        batch.push(std::mem::take(&mut target.rows), Item::default());
        fresh.extend(
            target
                .fresh
                .drain(..)
                .map(|(hash, labels)| (i, hash, labels)),
        );
    }
    if store.write(batch).await.is_err() {
        return;
    }
    for (i, hash, labels) in fresh {
        if let (Some(id), Some(known)) = (store.resolve(&labels), targets[i].known.get_mut(&hash)) {
            known.id = Some(id);
        }
    }
}

/// The job that a family belongs to.
fn owner(family: &MetricFamily) -> &'static str {
    if family.name().starts_with("node_") {
        "node"
    } else {
        "pulse"
    }
}

/// A series that was seen.
struct Known {
    /// `None` until the store has told it.
    id: Option<SeriesId>,
    /// The last round that had it.
    round: u64,
}

/// One job with its series.
struct Target {
    job: &'static str,
    instance: String,
    status: Status,
    known: HashMap<u128, Known>,
    round: u64,
    rows: Vec<Row>,
    /// Series of this round that have no id yet.
    fresh: Vec<(u128, Labels)>,
}

impl Target {
    fn new(job: &'static str, options: &Options, board: &Board, now: Timestamp) -> Target {
        let kind = if job == "node" { "host" } else { "self" };
        Target {
            job,
            instance: options.instance.clone(),
            status: board.add(job, kind, &options.instance, "every round", now),
            known: HashMap::new(),
            round: 0,
            rows: Vec::new(),
            fresh: Vec::new(),
        }
    }

    fn begin(&mut self, now: Timestamp) -> Round<'_> {
        if self.round == 0 {
            self.status.up(now);
        }
        self.round += 1;
        Round {
            target: self,
            now,
            added: 0,
        }
    }
}

/// One collection of one target.
struct Round<'a> {
    target: &'a mut Target,
    now: Timestamp,
    added: u32,
}

impl Round<'_> {
    fn add_family(&mut self, family: &MetricFamily) {
        let name = family.name();
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::COUNTER => self.add(name, "", metric, metric.get_counter().get_value()),
                MetricType::GAUGE => self.add(name, "", metric, metric.get_gauge().get_value()),
                MetricType::HISTOGRAM => self.add_histogram(name, metric),
                // We have none of these.
                MetricType::SUMMARY | MetricType::UNTYPED => {}
            }
        }
    }

    fn add(&mut self, name: &str, suffix: &str, metric: &Metric, value: f64) {
        self.put((name, suffix), metric.get_label(), None, value);
    }

    fn add_histogram(&mut self, name: &str, metric: &Metric) {
        let histogram = metric.get_histogram();
        let count = histogram.get_sample_count() as f64;
        for bucket in histogram.get_bucket() {
            let le = float_text(bucket.upper_bound());
            let value = bucket.cumulative_count() as f64;
            self.put((name, "_bucket"), metric.get_label(), Some(&le), value);
        }
        self.put((name, "_bucket"), metric.get_label(), Some("+Inf"), count);
        self.add(name, "_sum", metric, histogram.get_sample_sum());
        self.add(name, "_count", metric, count);
    }

    /// Adds a sample of the series made of these parts.
    fn put(&mut self, name: (&str, &str), pairs: &[LabelPair], le: Option<&str>, value: f64) {
        let hash = hash(name, pairs, le);
        let target = &mut *self.target;
        let round = target.round;
        let known = target.known.entry(hash).or_insert_with(|| {
            self.added += 1;
            Known { id: None, round }
        });
        known.round = round;
        let series = match known.id {
            Some(id) => SeriesKey::Id(id),
            None => {
                let labels = labels(name, pairs, le, target.job, &target.instance);
                target.fresh.push((hash, labels.clone()));
                SeriesKey::Labels(labels)
            }
        };
        target.rows.push(Row {
            series,
            t: self.now,
            v: value,
        });
    }

    /// Adds what a scrape says about itself, and ends series that are gone.
    fn finish(mut self, took: Duration) {
        let samples = self.target.rows.len();
        for (name, value) in [
            ("up", 1.0),
            ("scrape_duration_seconds", took.as_secs_f64()),
            ("scrape_samples_scraped", samples as f64),
            ("scrape_samples_post_metric_relabeling", samples as f64),
            ("scrape_series_added", f64::from(self.added)),
        ] {
            self.put((name, ""), &[], None, value);
        }
        let target = self.target;
        let (round, t) = (target.round, self.now);
        target.known.retain(|_, known| {
            let gone = known.round != round;
            if let (true, Some(id)) = (gone, known.id) {
                let series = SeriesKey::Id(id);
                target.rows.push(Row {
                    series,
                    t,
                    v: stale_nan(),
                });
            }
            !gone
        });
        target.status.received(samples as u64, t);
    }
}

/// A hash that tells series apart without building their labels. 128 bits: two of
/// a million series collide with a chance of 1 in 10^26.
fn hash((name, suffix): (&str, &str), pairs: &[LabelPair], le: Option<&str>) -> u128 {
    let mut hasher = Xxh3::new();
    let mut eat = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(&[0xff]);
    };
    eat(name);
    eat(suffix);
    for pair in pairs {
        eat(pair.name());
        eat(pair.value());
    }
    if let Some(le) = le {
        eat("le");
        eat(le);
    }
    hasher.digest128()
}

fn labels(
    (name, suffix): (&str, &str),
    pairs: &[LabelPair],
    le: Option<&str>,
    job: &str,
    instance: &str,
) -> Labels {
    let mut builder = LabelsBuilder::default();
    for pair in pairs {
        builder.set(pair.name(), pair.value());
    }
    if let Some(le) = le {
        builder.set("le", le);
    }
    builder.set(METRIC_NAME, &format!("{name}{suffix}"));
    builder.set("job", job).set("instance", instance);
    builder.build()
}

/// A bucket's bound as Prometheus stores it: `0.005`, `1.0`, `+Inf`.
fn float_text(bound: f64) -> String {
    if bound == f64::INFINITY {
        "+Inf".to_owned()
    } else {
        // As Prometheus 3 normalises the bounds of buckets.
        format!("{bound:?}")
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

    use super::*;
    use crate::model::{Matcher, clock::ManualClock, is_stale_nan};
    use crate::promql::{Queryable as _, SelectHints, Series};
    use crate::{config, store};

    struct Bed {
        store: Store,
        metrics: Arc<Metrics>,
        clock: ManualClock,
        targets: Vec<Target>,
        _dir: tempfile::TempDir,
    }

    impl Bed {
        fn new() -> Bed {
            let dir = tempfile::tempdir().unwrap();
            let clock = ManualClock::new(Timestamp::from_ms(1_700_000_000_000));
            let metrics = Metrics::new();
            let options = store::Options {
                dir: dir.path().to_owned(),
                store: config::Store::default(),
                limits: config::Limits::default(),
                tenants: Vec::new(),
            };
            let manual = Clock::Manual(clock.clone());
            let store = Store::open(options, manual, Arc::clone(&metrics)).unwrap();
            let options = Options {
                interval: Duration::from_secs(15),
                instance: "box:8080".to_owned(),
                host: false,
            };
            let targets = vec![Target::new(
                "pulse",
                &options,
                &Board::default(),
                Timestamp::MIN,
            )];
            Bed {
                store,
                metrics,
                clock,
                targets,
                _dir: dir,
            }
        }

        async fn round(&mut self) {
            self.clock.advance(Duration::from_secs(15));
            let clock = Clock::Manual(self.clock.clone());
            collect(&mut self.targets, &self.store, &self.metrics, &clock).await;
        }

        fn select(&self, name: &str) -> Vec<Series> {
            let matchers = [Matcher::equal(METRIC_NAME, name)];
            let all = (Timestamp::from_ms(0), Timestamp::from_ms(2_000_000_000_000));
            self.store
                .select(all.0, all.1, &matchers, &SelectHints::default())
                .unwrap()
        }
    }

    #[tokio::test]
    async fn families_become_series_of_a_target() {
        let mut bed = Bed::new();
        let opts = HistogramOpts::new("h_seconds", "help").buckets(vec![0.5, 1.0]);
        let histogram = HistogramVec::new(opts, &["op"]).unwrap();
        histogram.with_label_values(&["x"]).observe(0.75);
        bed.metrics.register(Box::new(histogram));
        bed.round().await;
        let buckets = bed.select("h_seconds_bucket");
        let shown: Vec<String> = buckets
            .iter()
            .map(|s| format!("{} {}", s.labels, s.samples[0].v))
            .collect();
        let own = "instance=\"box:8080\", job=\"pulse\"";
        assert_eq!(
            shown,
            [
                format!("h_seconds_bucket{{{own}, le=\"+Inf\", op=\"x\"}} 1"),
                format!("h_seconds_bucket{{{own}, le=\"0.5\", op=\"x\"}} 0"),
                format!("h_seconds_bucket{{{own}, le=\"1.0\", op=\"x\"}} 1"),
            ]
        );
        assert_eq!(bed.select("h_seconds_sum")[0].samples[0].v, 0.75);
        assert_eq!(bed.select("up").len(), 1);
        let counted = bed.select("scrape_samples_scraped")[0].samples[0].v;
        assert_eq!(bed.select("scrape_series_added")[0].samples[0].v, counted);
        bed.store.close().await;
    }

    #[tokio::test]
    async fn a_series_that_is_gone_gets_a_staleness_marker() {
        let mut bed = Bed::new();
        let counter = IntCounterVec::new(Opts::new("c_total", "help"), &["a"]).unwrap();
        counter.with_label_values(&["x"]).inc();
        bed.metrics.register(Box::new(counter.clone()));
        bed.round().await;
        bed.round().await;
        counter.remove_label_values(&["x"]).unwrap();
        counter.with_label_values(&["y"]).inc();
        bed.round().await;
        let series = bed.select("c_total");
        assert_eq!(series.len(), 2);
        let x = &series[0].samples;
        assert_eq!(x.len(), 3);
        assert!(is_stale_nan(x[2].v));
        assert_eq!(series[1].samples.len(), 1);
        // The marker is written once, and `up` goes on.
        bed.round().await;
        assert_eq!(bed.select("c_total")[0].samples.len(), 3);
        assert_eq!(bed.select("up")[0].samples.len(), 4);
        bed.store.close().await;
    }
}
