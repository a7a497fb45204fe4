//! The data directory of the first version: every later one must open it.

use bytes::Bytes;

use super::tests::{T0, batch, manual, options, row, samples};
use super::*;
use crate::model::Sample;

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
    let store = open(dir.path());
    check(&store);
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
