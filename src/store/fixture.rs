//! Data directories of former versions: every later one must open them.

use std::path::Path;

use bytes::Bytes;

use super::tests::{T0, batch, manual, options, row, samples};
use super::*;
use crate::model::{Matcher, Sample};

/// What the log of the fixture holds, by metric: all kinds of steps and values.
fn series() -> Vec<(&'static str, Vec<Sample>)> {
    let sample = |i: i64, v: f64| Sample::new(T0 + i * 15_000, v);
    let odd = [
        f64::INFINITY,
        -0.0,
        crate::model::stale_nan(),
        1.0 / 3.0,
        1e300,
    ];
    vec![
        (
            "counter",
            (0..300).map(|i| sample(i, (i * 512) as f64)).collect(),
        ),
        (
            "decimal",
            (0..300).map(|i| sample(i, (i % 7) as f64 / 10.0)).collect(),
        ),
        (
            "odd",
            (0..50)
                .map(|i| sample(i * 3, odd[usize::try_from(i % 5).unwrap()]))
                .collect(),
        ),
    ]
}

fn put(key: &str, value: &str) -> StateOp {
    StateOp::Put {
        table: Table::Kv,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn open(dir: &Path) -> Store {
    let (clock, _) = manual(T0 + 7_200_000);
    Store::open(options(dir), clock, Metrics::new()).unwrap()
}

/// Writes the fixture; only right before a version is first released.
async fn write(to: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (name, samples) in series() {
        let rows = samples.iter().map(|s| row(name, "d1", s.t.as_ms(), s.v));
        store.write(batch(rows)).await.unwrap();
    }
    let ops = vec![put("a", "1"), put("b", "2")];
    store.write(WriteBatch::of_state(ops)).await.unwrap();
    store.shared.hot.compact().unwrap();
    store.close().await;
    drop(store);
    std::fs::copy(dir.path().join(tables::HOT_FILE), to).unwrap();
}

fn check(store: &Store) {
    let bits = |samples: &[Sample]| -> Vec<(i64, u64)> {
        samples
            .iter()
            .map(|s| (s.t.as_ms(), s.v.to_bits()))
            .collect()
    };
    for (name, wanted) in series() {
        let found = samples(store, &[Matcher::equal("__name__", name)]);
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(bits(&found[0].1), bits(&wanted), "{name}");
    }
    assert_eq!(store.get(Table::Kv, b"a").unwrap().unwrap(), "1");
    assert_eq!(store.get(Table::Kv, b"b").unwrap().unwrap(), "2");
    assert_eq!(store.stats().series, 3);
}

#[tokio::test]
async fn the_data_directory_of_the_first_version_opens() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/hot.redb");
    if std::env::var_os("PULSE_WRITE_FIXTURE").is_some_and(|which| which == "hot") {
        write(&fixture).await;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(&fixture, dir.path().join(tables::HOT_FILE)).unwrap();
    std::fs::write(dir.path().join("FORMAT"), "pulse data version 1\n").unwrap();
    // Its series had no checksums; they get theirs.
    let store = open(dir.path());
    check(&store);
    let meta = tables::Meta::read(&store.shared.hot.database().unwrap()).unwrap();
    assert_eq!(meta.version, tables::VERSION);
    assert_eq!(store.verify().faults, []);
    // It goes on from there.
    store
        .write(batch([row("counter", "d2", T0, 1.0)]))
        .await
        .unwrap();
    store.compact_now().await.unwrap();
    let found = samples(&store, &[Matcher::equal("__name__", "counter")]);
    assert_eq!(found.len(), 2);
    store.close().await;
    drop(store);
    let store = open(dir.path());
    assert_eq!(
        samples(&store, &[Matcher::equal("__name__", "odd")])[0]
            .1
            .len(),
        50
    );
    store.close().await;
}

/// The files of the directory with roll-ups: a rewritten day with both of them, hours
/// of the next day, and samples and state in both logs.
const ROLLED: [&str; 6] = [
    "FORMAT",
    "day-20231113.redb",
    "hot-00.log",
    "hot.redb",
    "l0-20231114.redb",
    "roll1h-20231113.redb",
];
const ROLL_5M: &str = "roll5m-20231113.redb";

/// The length of a file of the appended log, of which the fixture has the beginning.
const LOG_BYTES: u64 = 4 << 20;

/// The first second of the rewritten day.
const ROLLED_DAY_S: u32 = 1_699_833_600;

fn rolled_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/rolled")
}

fn open_rolled(dir: &Path, read_only: bool) -> Store {
    let mut options = options(dir);
    options.store.read_only = read_only;
    options.store.rollup_5m_retention = config::Span::secs(100 * 86_400);
    options.store.rollup_1h_retention = config::Span::secs(100 * 86_400);
    Store::open(options, manual(T0 + 3_600_000).0, Metrics::new()).unwrap()
}

/// What the directory holds: four hours of the day before, one of this day, and a minute.
fn rolled_rows() -> [Vec<Row>; 4] {
    let rows = |from: i64, n: i64| -> Vec<Row> {
        let value = |i: i64| ((i * i * 7) % 101) as f64 / 10.0;
        (0..n)
            .flat_map(|i| ["d1", "d2"].map(|d| row("temp", d, from + i * 15_000, value(i))))
            .collect()
    };
    let last = T0 + 1_800_000;
    [
        rows(T0 - 86_400_000, 4 * 240 - 480),
        rows(T0 - 7_200_000, 240),
        rows(last, 2),
        rows(last + 30_000, 2),
    ]
}

/// Writes the fixture; only right while the version is the one that it stands for.
async fn write_rolled(to: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let store = open_rolled(dir.path(), false);
    let [day, hours, with_state, alone] = rolled_rows();
    store.write(batch(day)).await.unwrap();
    store.compact_now().await.unwrap();
    store.write(batch(hours)).await.unwrap();
    store.seal_now().await.unwrap();
    let mut last = WriteBatch::default();
    let on_new = vec![put("b", "2")];
    let item = Item {
        on_new,
        ..Item::default()
    };
    last.push(with_state, item);
    store.write(last).await.unwrap();
    store.write(batch(alone)).await.unwrap();
    store.shared.hot.compact().unwrap();
    store.close().await;
    drop(store);
    std::fs::create_dir_all(to).unwrap();
    for name in ROLLED.into_iter().chain([ROLL_5M]) {
        let mut bytes = std::fs::read(dir.path().join(name)).unwrap();
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        if name == "hot-00.log" {
            assert_eq!(bytes.len() as u64, LOG_BYTES);
            bytes.truncate(end.next_multiple_of(4_096));
        }
        std::fs::write(to.join(name), bytes).unwrap();
    }
}

fn check_rolled(store: &Store) {
    let mut wanted: Vec<(i64, u64)> = rolled_rows()
        .iter()
        .flatten()
        .filter(|row| row.series == SeriesKey::Labels(tests::labels("temp", "d2")))
        .map(|row| (row.t.as_ms(), row.v.to_bits()))
        .collect();
    wanted.sort_unstable();
    let found = samples(store, &[Matcher::equal("device_id", "d2")]);
    let points = found[0].1.iter().map(|s| (s.t.as_ms(), s.v.to_bits()));
    assert_eq!(points.collect::<Vec<_>>(), wanted);
    assert_eq!(store.get(Table::Kv, b"b").unwrap().unwrap(), "2");
    sealer::tests::rolls::check_rolls(store, ROLLED_DAY_S);
    assert_eq!(store.verify().faults, []);
}

#[tokio::test]
async fn a_data_directory_with_roll_ups_opens() {
    if std::env::var_os("PULSE_WRITE_FIXTURE").is_some_and(|which| which == "rolled") {
        write_rolled(&rolled_dir()).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let copied = |name: &str| dir.path().join(name);
    for name in ROLLED.into_iter().chain([ROLL_5M]) {
        std::fs::copy(rolled_dir().join(name), copied(name)).unwrap();
    }
    let log = std::fs::OpenOptions::new()
        .write(true)
        .open(copied("hot-00.log"));
    log.unwrap().set_len(LOG_BYTES).unwrap();
    // A start that may not write changes nothing.
    let bytes = || ROLLED.map(|name| std::fs::read(copied(name)).unwrap());
    let before = bytes();
    let store = open_rolled(dir.path(), true);
    check_rolled(&store);
    store.close().await;
    drop(store);
    assert_eq!(bytes(), before);
    assert_eq!(verify::verify_offline(dir.path()).unwrap().faults, []);

    let store = open_rolled(dir.path(), false);
    check_rolled(&store);
    // Late samples, and all is made again of what there is.
    let late = row("temp", "d3", T0 - 86_400_000 + 7, 5.0);
    store.write(batch([late])).await.unwrap();
    store.compact_now().await.unwrap();
    assert_eq!(store.shared.metrics.store.rollups.get(), 2);
    check_rolled(&store);
    store.close().await;
    drop(store);
    let store = open_rolled(dir.path(), false);
    check_rolled(&store);
    assert_eq!(store.stats().series, 3);
}
