//! Bad files: named, set aside, never deleted; the rest serves, and no answer is wrong.

use std::path::{Path, PathBuf};

use super::sealer::Sealer;
use super::tests::{T0, batch, flip, manual, options, row, samples};
use super::*;
use crate::promql::{Queryable as _, SelectHints};

const DAY: i64 = 86_400_000;

fn open(dir: &Path) -> Result<Store, Error> {
    let (clock, _) = manual(T0 + 60_000);
    Store::open(options(dir), clock, Metrics::new())
}

/// 40 series over three days; the two older ones are rewritten.
async fn filled(dir: &Path) -> Store {
    let store = open(dir).unwrap();
    for day in (0..3).rev() {
        let rows = (0..40).flat_map(|series| {
            let value = move |i: i64| ((i * i * 7 + series * 31) % 101) as f64 / 10.0;
            (0..400).map(move |i| {
                let t = T0 - day * DAY - DAY / 4 + i * 15_000;
                row(&format!("m{series}"), "d", t, value(i))
            })
        });
        store.write(batch(rows)).await.unwrap();
        if day > 0 {
            store.compact_now().await.unwrap();
        }
    }
    store.seal_now().await.unwrap();
    store
}

fn all(store: &Store) -> Vec<(String, Vec<crate::model::Sample>)> {
    samples(store, &[])
}

fn read(store: &Store) -> Result<Vec<crate::promql::Series>, crate::promql::QueryError> {
    store.select(Timestamp::MIN, Timestamp::MAX, &[], &SelectHints::default())
}

fn aside(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.join("quarantine")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// Flips a bit of the first page of a file, and of what earlier commits left of it.
fn flip_page(path: &Path) {
    let page = verify::tests::pages_of(path).remove(0);
    let bytes = std::fs::read(path).unwrap();
    let all = bytes.windows(page.len()).enumerate();
    for (at, _) in all.filter(|(_, some)| *some == page) {
        flip(path, (at + page.len() / 2) as u64);
    }
}

/// Has the days rewritten in which a reader found damage.
async fn salvage(store: &Store) {
    let shared = Arc::clone(&store.shared);
    let jobs = store.jobs.downgrade();
    let salvage = tokio::task::spawn_blocking(move || {
        let (_commands, orders) = std::sync::mpsc::sync_channel(1);
        assert!(Sealer::new(shared, jobs).rewrite_due(&orders).is_ok());
    });
    salvage.await.unwrap();
}

#[tokio::test]
async fn files_that_are_no_sealed_days_are_set_aside_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let before = all(&store);
    store.close().await;
    drop(store);
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    // Cut in the middle, cut to nothing, text, another program's database.
    let day = std::fs::read(path("day-20231112.redb")).unwrap();
    std::fs::write(path("day-20231112.redb"), &day[..day.len() / 3]).unwrap();
    std::fs::write(path("l0-20231001.redb"), b"").unwrap();
    std::fs::write(path("l0-20231002.redb"), b"not a database at all").unwrap();
    let foreign = redb::Database::create(path("day-20231003.redb")).unwrap();
    let txn = foreign.begin_write().unwrap();
    let table: redb::TableDefinition<'_, u32, u32> = redb::TableDefinition::new("theirs");
    txn.open_table(table).unwrap();
    txn.commit().unwrap();
    drop(foreign);
    std::fs::write(path("copy of l0.redb"), &day).unwrap();

    let store = open(dir.path()).unwrap();
    assert_eq!(
        aside(dir.path()),
        [
            "day-20231003.redb",
            "day-20231112.redb",
            "l0-20231001.redb",
            "l0-20231002.redb"
        ]
    );
    assert_eq!(store.shared.metrics.store.quarantined.get(), 4);
    assert!(path("copy of l0.redb").exists(), "not ours to move");
    let kept = std::fs::read(path("quarantine/day-20231112.redb")).unwrap();
    assert_eq!(kept, day[..day.len() / 3]);
    assert!(read(&store).is_err(), "a day is missing");
    store.close().await;
    drop(store);

    // Who looked at them and gives them up takes them away.
    std::fs::remove_dir_all(path("quarantine")).unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(store.shared.metrics.store.quarantined.get(), 0);
    let after = all(&store);
    assert_eq!(after.len(), before.len());
    for ((name, samples), (_, whole)) in after.iter().zip(&before) {
        assert_eq!(
            samples[..],
            whole[400..],
            "{name}: the other days are there"
        );
    }
    // The day takes samples again.
    let late = row("m1", "d", T0 - 2 * DAY - DAY / 4, 8.0);
    store.write(batch([late])).await.unwrap();
    store.compact_now().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_damaged_page_is_an_error_first_and_then_a_gap() {
    for name in ["day-20231113.redb", "l0-20231114.redb"] {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path()).await;
        let before = all(&store);
        store.close().await;
        drop(store);
        let path = dir.path().join(name);
        flip_page(&path);
        let store = open(dir.path()).unwrap();
        let err = read(&store).unwrap_err();
        let cause = std::error::Error::source(&err).unwrap().to_string();
        assert!(
            cause.contains(name) && cause.contains("checksum"),
            "{cause}"
        );
        // Other days answer meanwhile.
        let recent = Timestamp::from_ms(if name.starts_with("day") {
            T0 - DAY / 3
        } else {
            0
        });
        let until = Timestamp::from_ms(if name.starts_with("day") {
            T0
        } else {
            T0 - DAY / 2
        });
        assert_eq!(
            store
                .select(recent, until, &[], &SelectHints::default())
                .unwrap()
                .len(),
            40
        );
        assert_eq!(aside(dir.path()), [] as [&str; 0]);
        let failures = store.shared.metrics.store.checksum_failures.get();
        assert!(failures > 0);

        salvage(&store).await;
        assert_eq!(aside(dir.path()), ["salvaged"]);
        let kept = std::fs::read_dir(dir.path().join("quarantine/salvaged")).unwrap();
        let kept: Vec<_> = kept.map(|entry| entry.unwrap().file_name()).collect();
        let kept = kept[0].to_str().unwrap();
        assert!(kept.starts_with(&format!("{name}.")), "{kept}");
        assert!(read(&store).is_ok());
        let after = all(&store);
        let mut gaps = 0;
        for (series, samples) in &after {
            let (_, whole) = before.iter().find(|(name, _)| name == series).unwrap();
            assert!(
                samples.iter().all(|s| whole.contains(s)),
                "a wrong value in {series}"
            );
            gaps += usize::from(samples.len() < whole.len());
        }
        assert!(gaps > 0, "control: the page held something");
        store.close().await;
        drop(store);
        assert_eq!(all(&open(dir.path()).unwrap()), after);
    }
}

/// What a query over everything gives: samples, and the warnings.
fn ask(store: &Store) -> (usize, Vec<String>) {
    ask_for(store, "{__name__=~\"m.*\"}[4d]")
}

fn ask_for(store: &Store, expr: &str) -> (usize, Vec<String>) {
    use crate::promql::{Engine, Value, parse};
    let expr = parse(expr).unwrap();
    let cancel = Arc::default();
    let output = Engine::default().instant(store, &expr, Timestamp::from_ms(T0), &cancel);
    let output = output.unwrap();
    assert_eq!(output.is_incomplete, !output.warnings.is_empty());
    let Value::Matrix(series) = output.value else {
        panic!("no matrix");
    };
    (
        series.iter().map(|s| s.samples.len()).sum(),
        output.warnings,
    )
}

#[tokio::test]
async fn a_query_gets_the_rest_of_a_damaged_file_and_a_warning() {
    for name in ["day-20231113.redb", "l0-20231114.redb"] {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path()).await;
        assert_eq!(ask(&store), (3 * 40 * 400, vec![]), "control");
        assert_eq!(ask_for(&store, "lost[4d]"), (0, vec![]), "control");
        store.close().await;
        drop(store);
        let path = dir.path().join(name);
        flip_page(&path);
        let store = open(dir.path()).unwrap();
        let failures = || store.shared.metrics.store.checksum_failures.get();
        let (found, warnings) = ask(&store);
        assert!((32_000..48_000).contains(&found), "{name}: {found}");
        assert!(warnings[0].contains(name), "{warnings:?}");
        assert!(warnings[0].contains("wrong checksum"), "{warnings:?}");
        assert!(failures() > 0);
        // When the rest is rewritten the warning stays, over a restart too.
        salvage(&store).await;
        let (rest, warnings) = ask(&store);
        assert!(rest >= found, "{rest}, {found}");
        assert!(warnings[0].contains("quarantine/salvaged"), "{warnings:?}");
        // Nobody knows whether it had what is known nowhere else.
        assert_eq!(ask_for(&store, "lost[4d]"), (0, warnings.clone()));
        store.close().await;
        drop(store);
        let store = open(dir.path()).unwrap();
        assert_eq!(ask(&store), (rest, warnings));
        // Until somebody has seen it.
        store.close().await;
        drop(store);
        std::fs::remove_dir_all(dir.path().join("quarantine")).unwrap();
        let store = open(dir.path()).unwrap();
        assert_eq!(ask(&store), (rest, vec![]));
        store.close().await;
    }
}

#[tokio::test]
async fn files_of_other_days_and_stores_are_not_believed_by_their_names() {
    let faults = |dir: &Path| verify::verify_offline(dir).unwrap().fault_count;
    let other = tempfile::tempdir().unwrap();
    filled(other.path()).await.close().await;
    for name in ["day-20231112.redb", "l0-20231114.redb"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await.close().await;
        assert_eq!(faults(dir.path()), 0, "control");
        let theirs = std::fs::read(other.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name), &theirs).unwrap();
        assert_eq!(faults(dir.path()), 1, "{name}");
        let store = open(dir.path()).unwrap();
        assert_eq!(aside(dir.path()), [name]);
        let (found, warnings) = ask(&store);
        assert_eq!(found, 2 * 40 * 400, "{name}: the other days");
        assert!(warnings[0].contains(name), "{warnings:?}");
        store.close().await;
    }
    // Two days of one store, each under the other's name.
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await.close().await;
    let names = ["day-20231112.redb", "day-20231113.redb"];
    let [a, b] = names.map(|name| dir.path().join(name));
    let free = dir.path().join("free");
    std::fs::rename(&a, &free).unwrap();
    std::fs::rename(&b, &a).unwrap();
    std::fs::rename(&free, &b).unwrap();
    assert_eq!(faults(dir.path()), 2);
    let store = open(dir.path()).unwrap();
    assert_eq!(aside(dir.path()), names);
    let (found, warnings) = ask(&store);
    assert_eq!((found, warnings.len()), (40 * 400, 2));
    store.close().await;
}

#[tokio::test]
async fn a_newer_format_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await.close().await;
    let path = dir.path().join("day-20231112.redb");
    sealed::file::write_format(&path, 9);
    let err = open(dir.path()).err().unwrap();
    let cause = std::error::Error::source(&err).unwrap().to_string();
    assert!(
        cause.contains("has format 9") && cause.contains("written by a newer pulse"),
        "{cause}"
    );
    assert!(path.exists() && aside(dir.path()).is_empty());
}
