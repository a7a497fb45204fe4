//! What queries make of roll-ups: the same answer as of samples, or one that says that
//! samples are gone.

use std::sync::atomic::AtomicBool;

use super::rolls::{DAY, options};
use super::*;
use crate::config::Span;
use crate::model::stale_nan;
use crate::promql::{Engine, Output, RangeSeries, Value, parse};
use crate::store::sealed::Kind;

/// The start of the first whole day before that of T0.
const DAY0: i64 = T0 - 22 * HOUR - DAY;

const MINUTE: i64 = 60_000;

fn ask(store: &Store, query: &str, (from, to, step): (i64, i64, i64)) -> Output {
    let expr = parse(query).unwrap_or_else(|err| panic!("{query}: {err}"));
    let (from, to) = (Timestamp::from_ms(from), Timestamp::from_ms(to));
    let step = Duration::from_millis(u64::try_from(step).unwrap());
    let cancel = Arc::new(AtomicBool::new(false));
    // A new engine each time: it keeps no answers.
    Engine::default()
        .range(store, &expr, from, to, step, &cancel)
        .unwrap_or_else(|err| panic!("{query}: {err}"))
}

fn series(output: Output) -> Vec<RangeSeries> {
    match output.value {
        Value::Matrix(series) => series,
        other => panic!("{other:?}"),
    }
}

/// The same to the last bit, but for the sign of zero and the bits of NaN.
fn assert_same(a: Output, b: Output, what: &str) {
    assert_eq!((&a.infos, &a.warnings), (&b.infos, &b.warnings), "{what}");
    let (a, b) = (series(a), series(b));
    let labels = |all: &[RangeSeries]| all.iter().map(|s| s.labels.clone()).collect::<Vec<_>>();
    assert_eq!(labels(&a), labels(&b), "{what}");
    for (a, b) in a.iter().zip(&b) {
        let times = |s: &RangeSeries| s.samples.iter().map(|s| s.t).collect::<Vec<_>>();
        assert_eq!(times(a), times(b), "{what}");
        for (a, b) in a.samples.iter().zip(&b.samples) {
            let same = a.v == b.v || a.v.is_nan() && b.v.is_nan();
            assert!(same, "{what}: {} and {} at {}", a.v, b.v, a.t);
        }
    }
}

/// A source of numbers that a seed repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, n: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        i64::try_from(self.0 >> 33).unwrap() % n
    }
}

/// Three days of some series with gaps, markers, NaN, and samples on the edges of
/// buckets and days.
fn data(random: &mut Random) -> Vec<Row> {
    let mut rows = Vec::new();
    for device in ["d1", "d2", "d3", "d4"] {
        let mut t = DAY0 + random.below(HOUR);
        let longest = 30_000 + random.below(500_000);
        while t < DAY0 + 2 * DAY + 20 * HOUR {
            let v = match random.below(40) {
                0 => f64::NAN,
                1 | 2 => stale_nan(),
                3 => f64::INFINITY,
                n if n < 10 => -0.25 * n as f64,
                n => random.below(1_000) as f64 / 8.0 - n as f64,
            };
            rows.push(row("a", device, t, v));
            t += match random.below(60) {
                0 => random.below(5 * HOUR),
                1..5 => 300_000 - t.rem_euclid(300_000),
                5 => 3_600_000 - t.rem_euclid(3_600_000),
                _ => 1 + random.below(longest),
            };
        }
    }
    rows
}

const QUERIES: [&str; 24] = [
    "a",
    "a offset 5m",
    "a offset -1h",
    "a offset 61s",
    "a @ 1699956000",
    "sum(a)",
    "timestamp(a)",
    "last_over_time(a[5m])",
    "last_over_time(a[3h])",
    "min_over_time(a[5m])",
    "min_over_time(a[1h])",
    "max_over_time(a[15m] offset 10m)",
    "max_over_time(a[1d])",
    "count_over_time(a[5m])",
    "count_over_time(a[6h])",
    "count_over_time(a[2h] @ end())",
    "present_over_time(a[10m])",
    "ts_of_last_over_time(a[1h])",
    "sum_over_time(a[1h])",
    "avg_over_time(a[30m])",
    "max_over_time(a[1h:5m])",
    "max_over_time(a[7m])",
    "rate(a[1h])",
    "changes(a[2h]) + resets(a[1h]) + quantile_over_time(0.3, a[1h])",
];

/// Aligned and not, from the first day into the open one.
const RANGES: [(i64, i64, i64); 6] = [
    (DAY0, DAY0 + 3 * DAY, 5 * MINUTE),
    (DAY0 + 35 * MINUTE, DAY0 + 3 * DAY, 15 * MINUTE),
    (DAY0, DAY0 + 3 * DAY, HOUR),
    (DAY0 + HOUR, DAY0 + 2 * DAY, 6 * HOUR),
    (DAY0 + 1, DAY0 + 3 * DAY, HOUR),
    (DAY0, DAY0 + 3 * DAY, 7 * MINUTE),
];

fn compare(rolled: &Store, raw: &Store, what: &str) {
    for query in QUERIES {
        for range in RANGES {
            let what = format!("{what}: {query} over {range:?}");
            assert_same(ask(rolled, query, range), ask(raw, query, range), &what);
        }
    }
}

#[tokio::test]
async fn answers_of_roll_ups_are_those_of_samples() {
    let seed = 1;
    {
        let mut random = Random(seed);
        let (one, other) = (Setup::new(), Setup::new());
        let (rolled, raw) = (one.open_with(options(&one)), other.open());
        for setup in [&one, &other] {
            setup
                .clock
                .set(Timestamp::from_ms(DAY0 + 2 * DAY + 21 * HOUR));
        }
        let both = [&rolled, &raw];
        let rows = data(&mut random);
        for store in both {
            for some in rows.chunks(5_000) {
                added(store, some.to_vec()).await;
            }
            store.compact_now().await.unwrap();
        }
        assert_eq!(
            rolled.shared.days.all_rolls().len(),
            4,
            "two days, two each"
        );
        assert!(raw.shared.days.all_rolls().is_empty());
        compare(&rolled, &raw, &format!("seed {seed}"));
        let reads = || rolled.shared.metrics.store.rollup_reads.get();
        assert!(reads() > 50, "{}", reads());
        let few = |store| ask(store, "max_over_time(a[1h])", RANGES[2]).samples_read;
        assert!(
            few(&rolled) * 2 < few(&raw),
            "{} {}",
            few(&rolled),
            few(&raw)
        );
        rolled.close().await;
        raw.close().await;
    }
}

/// The comparison above finds roll-ups that say something else than the samples.
#[tokio::test]
async fn a_wrong_roll_up_is_seen_by_the_comparison() {
    let setup = Setup::new();
    let store = setup.open_with(options(&setup));
    setup.clock.set(Timestamp::from_ms(T0 + 10 * HOUR));
    added(&store, rows(T0 - 20 * HOUR, 2_000)).await;
    store.compact_now().await.unwrap();
    let range = (T0 - 20 * HOUR, T0, HOUR);
    let before = ask(&store, "max_over_time(temp[1h])", range);
    // Another day's values under this day's name, which claim to be made of this day.
    let other = Setup::new();
    let wrong = other.open_with(options(&other));
    other.clock.set(Timestamp::from_ms(T0 + 10 * HOUR));
    let mut shifted = rows(T0 - 20 * HOUR, 2_000);
    shifted.iter_mut().for_each(|row| row.v += 1.0);
    added(&wrong, shifted).await;
    wrong.compact_now().await.unwrap();
    store.close().await;
    wrong.close().await;
    drop((store, wrong));
    for name in ["roll1h-20231114.redb", "roll5m-20231114.redb"] {
        let path = setup.dir.path().join(name);
        std::fs::copy(other.dir.path().join(name), &path).unwrap();
        // As if it did not say whose it is: another store's would be set aside.
        let counter = || prometheus::IntCounter::new("c", "c").unwrap();
        let files = crate::store::disk::counted_files(counter(), counter());
        let file = crate::store::sealed::SealedFile::open(&path, 1 << 20, &files).unwrap();
        file.sign(0).unwrap();
    }
    let store = setup.open_with(options(&setup));
    let after = ask(&store, "max_over_time(temp[1h])", range);
    let values = |output| {
        let all = series(output).into_iter().flat_map(|s| s.samples);
        all.map(|s| s.v).collect::<Vec<_>>()
    };
    let (before, after) = (values(before), values(after));
    assert!(!before.is_empty() && before.len() == after.len());
    assert!(
        before.iter().zip(&after).all(|(a, b)| a + 1.0 == *b),
        "they were not read"
    );
}

/// Sixty days, of which thirty have samples, fifteen more roll-ups of 5 minutes and
/// the first fifteen those of an hour.
#[tokio::test]
async fn sixty_days_are_answered_where_samples_are_kept_for_thirty() {
    let setup = Setup::new();
    let mut options = options(&setup);
    let days = |n: u64| Span::secs(n * 86_400);
    options.store.max_late = days(100);
    options.store.retention = days(100);
    let store = setup.open_with(options.clone());
    let now = DAY0 + DAY + HOUR;
    setup.clock.set(Timestamp::from_ms(now));
    let first = DAY0 - 59 * DAY;
    // The number of the minute of the day, and a marker at the end of one series.
    for day in 0..60 {
        let minutes = (0..1_440).map(|i| row("x", "d1", first + day * DAY + i * MINUTE, i as f64));
        let mut rows: Vec<Row> = minutes.collect();
        if day < 2 {
            let more = (0..100).map(|i| row("x", "d2", first + day * DAY + i * MINUTE, 7.0));
            rows.extend(more);
            rows.push(row(
                "x",
                "d2",
                first + day * DAY + 100 * MINUTE,
                stale_nan(),
            ));
        }
        added(&store, rows).await;
    }
    store.compact_now().await.unwrap();
    assert_eq!(store.shared.days.all_rolls().len(), 120);
    let range = (first + DAY, DAY0 + DAY, DAY);
    let aligned = [
        ("max_over_time(x{device_id=\"d1\"}[1d])", 1_439.0),
        ("min_over_time(x{device_id=\"d1\"}[22h] offset 1h)", 61.0),
        ("count_over_time(x{device_id=\"d1\"}[1d])", 1_440.0),
        // The minutes of a day: 1,439 times 1,440 halves.
        ("sum_over_time(x{device_id=\"d1\"}[1d])", 1_036_080.0),
        ("avg_over_time(x{device_id=\"d1\"}[1d])", 719.5),
        ("last_over_time(x{device_id=\"d1\"}[1d] offset 1h)", 1_380.0),
        ("x{device_id=\"d1\"} offset 1h", 1_380.0),
    ];
    let check = |store: &Store, infos: usize| {
        for (query, want) in aligned {
            let output = ask(store, query, range);
            assert_eq!(output.infos.len(), infos, "{query}: {:?}", output.infos);
            let [one] = series(output).try_into().unwrap();
            // At the last midnight there is no sample yet: its day is not there.
            let all = &one.samples[..59];
            assert_eq!(one.samples.len(), 60, "{query}");
            let wrong: Vec<_> = all.iter().filter(|s| s.v != want).collect();
            assert!(wrong.is_empty(), "{query}: {wrong:?}");
        }
    };
    check(&store, 0);
    store.close().await;
    drop(store);

    options.store.retention = days(30);
    options.store.rollup_5m_retention = days(45);
    options.store.rollup_1h_retention = days(90);
    let store = setup.open_with(options.clone());
    store.seal_now().await.unwrap();
    let count = |kind| {
        store
            .shared
            .days
            .all_kinds()
            .iter()
            .filter(|d| d.kind == kind)
            .count()
    };
    assert_eq!(
        (count(Kind::Day), count(Kind::Roll5m), count(Kind::Roll1h)),
        (30, 45, 60)
    );
    // On the hour those of an hour say the same as those of 5 minutes.
    check(&store, 1);
    let infos = ask(&store, "x", (first + DAY, DAY0, 7 * MINUTE)).infos;
    assert_eq!(infos.len(), 2, "{infos:?}");
    let text = "PromQL info: samples before 2023-10-15T00:00:00.000Z are gone, roll-ups of 5m stand for them";
    assert!(infos.iter().any(|info| info == text), "{infos:?}");
    assert_eq!(ask(&store, "x", (DAY0 - DAY, DAY0, HOUR)).infos, [""; 0]);

    // At any time the last of the bucket before is seen, without gaps.
    let [d1, _] = series(ask(
        &store,
        "x",
        (first + 3 * HOUR, DAY0 + 20 * HOUR, 7 * MINUTE),
    ))
    .try_into()
    .unwrap();
    assert_eq!(
        d1.samples.len(),
        usize::try_from((59 * DAY + 17 * HOUR) / (7 * MINUTE)).unwrap() + 1
    );
}

/// Late samples and deletions change the samples under roll-ups that stand already.
#[tokio::test]
async fn late_and_deleted_samples_are_in_the_answers_of_roll_ups() {
    let mut random = Random(2);
    let (one, other) = (Setup::new(), Setup::new());
    let (rolled, raw) = (one.open_with(options(&one)), other.open());
    let now = Timestamp::from_ms(DAY0 + 2 * DAY + 21 * HOUR);
    one.clock.set(now);
    other.clock.set(now);
    let both = [&rolled, &raw];
    let rows = data(&mut random);
    for store in both {
        added(store, rows.clone()).await;
        store.compact_now().await.unwrap();
    }
    let compare = |what: &str| {
        for query in QUERIES.iter().step_by(3).chain(&QUERIES[9..12]) {
            for range in [RANGES[1], RANGES[3]] {
                let what = format!("{what}: {query} over {range:?}");
                assert_same(ask(&rolled, query, range), ask(&raw, query, range), &what);
            }
        }
    };
    // In memory, then sealed beside the rewritten day.
    for round in 0..2 {
        let times: Vec<i64> = (0..60).map(|_| DAY0 + random.below(2 * DAY)).collect();
        for store in both {
            let late = times.iter().map(|t| row("a", "d2", *t, 1_000.0));
            added(store, late.collect()).await;
        }
        compare(&format!("late {round}"));
        for store in both {
            store.seal_now().await.unwrap();
        }
        compare(&format!("late and sealed {round}"));
    }
    // Hidden, then gone from the files. A whole series, and hours of another one.
    let (from, to) = (DAY0 + 5 * HOUR + 7, DAY0 + 9 * HOUR + 11);
    for (device, from, to) in [("d1", from, to), ("d3", i64::MIN, i64::MAX)] {
        let series = vec![vec![Matcher::equal("device_id", device)]];
        let (from, to) = (Timestamp::from_ms(from), Timestamp::from_ms(to));
        for store in both {
            assert_eq!(store.delete_series(&series, from, to).await.unwrap(), 1);
        }
    }
    compare("deleted");
    for store in both {
        store.clean_tombstones().await.unwrap();
    }
    compare("cleaned");
    for store in both {
        store.compact_now().await.unwrap();
    }
    assert_eq!(rolled.shared.days.all_rolls().len(), 4);
    compare("made again");
    assert!(rolled.resolve(&labels("a", "d3")).is_none());
    rolled.close().await;
    raw.close().await;
}

/// Where the samples are gone by their age, what is deleted leaves the roll-ups too.
#[tokio::test]
async fn a_deleted_series_does_not_live_on_in_roll_ups() {
    let setup = Setup::new();
    let mut options = options(&setup);
    options.store.retention = Span::secs(86_400);
    let store = setup.open_with(options.clone());
    setup.clock.set(Timestamp::from_ms(T0 + 3 * HOUR));
    added(&store, rows(T0 - 20 * HOUR, 4_800)).await;
    store.compact_now().await.unwrap();
    setup.clock.set(Timestamp::from_ms(T0 + 3 * DAY));
    store.seal_now().await.unwrap();
    assert!(store.shared.days.all().is_empty(), "the samples are gone");
    let range = (T0 - 20 * HOUR, T0, HOUR);
    let seen = |store: &Store, device: &str| {
        let query = format!("max_over_time(temp{{device_id=\"{device}\"}}[1h])");
        let series = series(ask(store, &query, range));
        series.iter().map(|s| s.samples.len()).sum::<usize>()
    };
    assert_eq!((seen(&store, "d1"), seen(&store, "d2")), (21, 21));

    // Before roll-ups of hours and of minutes, both at once, and never again.
    let delete = async |store: &Store, device: &str, from: i64, to: i64| {
        let series = vec![vec![Matcher::equal("device_id", device)]];
        let (from, to) = (Timestamp::from_ms(from), Timestamp::from_ms(to));
        assert_eq!(store.delete_series(&series, from, to).await.unwrap(), 1);
    };
    delete(&store, "d1", i64::MIN, i64::MAX).await;
    delete(&store, "d2", T0 - 10 * HOUR, T0 - 8 * HOUR - 1).await;
    // Buckets that the deletion touches are hidden whole: (-11, -10], (-10, -9], (-9, -8].
    let check = |store: &Store, what: &str| {
        assert_eq!(seen(store, "d1"), 0, "{what}");
        assert_eq!(seen(store, "d2"), 18, "{what}");
        assert_eq!(seen(store, "d3"), 21, "{what}");
    };
    check(&store, "hidden");
    store.close().await;
    drop(store);
    let store = setup.open_with(options.clone());
    check(&store, "after a restart");
    store.clean_tombstones().await.unwrap();
    assert_eq!(store.tombstones(), 0);
    check(&store, "cleaned");
    assert!(store.resolve(&labels("temp", "d1")).is_none());
    for kind in Kind::ROLLS {
        let file = store.shared.days.all_rolls();
        let file = file.iter().find(|file| file.kind == kind).unwrap();
        let series = store.shared.days.series_of(file).unwrap();
        assert_eq!(series.len(), 2, "{kind:?} has the deleted series");
    }
    store.close().await;
    drop(store);
    check(&setup.open_with(options), "without tombstones");
}
