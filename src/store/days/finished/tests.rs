//! A file that is gone is told, until it is back, given up or expired; one that left is
//! not, wherever a crash came.

use std::ops::ControlFlow;

use super::super::rewrite::Series;
use super::*;
use crate::config::Span;
use crate::model::Matcher;
use crate::model::clock::ManualClock;
use crate::promql::{Queryable as _, SelectHints};
use crate::store::backup::{self, Plan};
use crate::store::sealed::SealedSeries;
use crate::store::tests::{T0, batch, manual, options, row};
use crate::store::verify::verify_offline;
use crate::store::{Options, Store, tables};
use crate::telemetry::Metrics;

const HOURS: &str = "l0-20231113.redb";
const REWRITTEN: &str = "day-20231112.redb";
const ROLLED: &str = "roll5m-20231112.redb";

fn rolling(dir: &Path) -> Options {
    let mut options = options(dir);
    options.store.rollup_5m_retention = Span::secs(400 * 86_400);
    options
}

fn open_at(dir: &Path, now: i64) -> (Store, ManualClock) {
    let (clock, hand) = manual(now);
    let store = Store::open(rolling(dir), clock, Metrics::new());
    (store.unwrap(), hand)
}

fn open(dir: &Path) -> Store {
    open_at(dir, T0 + 60_000).0
}

fn open_read_only(dir: &Path) -> Store {
    let mut options = rolling(dir);
    options.store.read_only = true;
    Store::open(options, manual(T0 + 60_000).0, Metrics::new()).unwrap()
}

async fn put(store: &Store, t: i64) {
    let written = store.write(batch([row("a", "d", t, 1.0)])).await.unwrap();
    assert_eq!(written.outcomes[0].added, 1);
}

async fn close(store: Store) {
    store.close().await;
}

/// A rewritten day with its roll-ups, a day of hours, and a sample in the log.
async fn filled(dir: &Path) -> Store {
    let store = open(dir);
    put(&store, T0 - 2 * DAY_MS).await;
    store.compact_now().await.unwrap();
    put(&store, T0 - DAY_MS).await;
    store.seal_now().await.unwrap();
    put(&store, T0).await;
    store
}

/// How many samples a query of all times finds, and what it warns of.
fn ask(store: &Store) -> (usize, Vec<String>) {
    let gaps = crate::promql::Gaps::default();
    let hints = SelectHints {
        gaps: Some(gaps.clone()),
        ..SelectHints::default()
    };
    let all = [Matcher::equal("__name__", "a")];
    let found = store.select(Timestamp::MIN, Timestamp::MAX, &all, &hints);
    let count = found.unwrap().iter().map(|s| s.samples.len()).sum();
    (count, gaps.all())
}

fn told(store: &Store) -> i64 {
    store.shared.metrics.store.quarantined.get()
}

/// What `pulse verify` says of a directory that nobody uses.
fn faults(dir: &Path) -> Vec<String> {
    let checked = verify_offline(dir).unwrap();
    checked.faults.iter().map(ToString::to_string).collect()
}

/// What a killed process leaves.
fn image(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

fn marks(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| is_mark(name)).count()
}

#[tokio::test]
async fn a_sealed_file_that_vanished_is_told_until_it_is_back() {
    for name in [HOURS, REWRITTEN] {
        let dir = tempfile::tempdir().unwrap();
        close(filled(dir.path()).await).await;
        assert_eq!(faults(dir.path()), [""; 0], "control");
        let (path, aside) = (dir.path().join(name), dir.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        for read_only in [true, true, false, false] {
            let store = match read_only {
                true => open_read_only(dir.path()),
                false => open(dir.path()),
            };
            let (found, warnings) = ask(&store);
            assert_eq!((found, warnings.len()), (2, 1), "{warnings:?}");
            assert!(warnings[0].contains(name), "{warnings:?}");
            assert!(warnings[0].contains(".left"), "{warnings:?}");
            assert_eq!(told(&store), 1);
            let online = store.verify();
            assert_eq!(online.faults.len(), 1);
            assert_eq!(online.faults[0].file, path);
            close(store).await;
            let faults = faults(dir.path());
            assert!(faults.len() == 1 && faults[0].contains(name), "{faults:?}");
        }
        fs::rename(&aside, &path).unwrap();
        let store = open(dir.path());
        assert_eq!((ask(&store), told(&store)), ((3, vec![]), 0));
        close(store).await;
        assert_eq!(faults(dir.path()), [""; 0]);
    }
}

#[tokio::test]
async fn who_gives_a_missing_file_up_hears_no_more_of_it() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    fs::remove_file(dir.path().join(HOURS)).unwrap();
    fs::write(dir.path().join("l0-20231113.left"), b"").unwrap();
    assert_eq!(faults(dir.path()), [""; 0]);
    for _ in 0..2 {
        let store = open(dir.path());
        assert_eq!((ask(&store), told(&store)), ((2, vec![]), 0));
        close(store).await;
        assert_eq!(marks(dir.path()), 0);
    }
}

#[tokio::test]
async fn a_missing_file_is_forgotten_when_its_day_expires() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    fs::remove_file(dir.path().join(HOURS)).unwrap();
    let (store, clock) = open_at(dir.path(), T0 + 60_000);
    assert_eq!(told(&store), 1);
    let retention = store.shared.options.store.retention.as_ms();
    clock.set(Timestamp::from_ms(T0 + retention + 2 * DAY_MS));
    store.seal_now().await.unwrap();
    assert_eq!((ask(&store).1, told(&store)), (vec![], 0));
    close(store).await;
    assert_eq!(faults(dir.path()), [""; 0]);
}

#[tokio::test]
async fn what_comes_for_the_day_of_a_missing_file_does_not_hide_that_it_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    fs::remove_file(dir.path().join(HOURS)).unwrap();
    let store = open(dir.path());
    put(&store, T0 - DAY_MS + 1).await;
    store.seal_now().await.unwrap();
    assert!(dir.path().join(HOURS).exists());
    close(store).await;
    for _ in 0..2 {
        let store = open(dir.path());
        let (found, warnings) = ask(&store);
        assert_eq!((found, warnings.len(), told(&store)), (3, 1, 1));
        // Nor does it when that leaves.
        store.compact_now().await.unwrap();
        assert!(!dir.path().join(HOURS).exists());
        close(store).await;
    }
}

#[tokio::test]
async fn missing_roll_ups_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    fs::remove_file(dir.path().join(ROLLED)).unwrap();
    assert!(faults(dir.path())[0].contains(ROLLED));
    let store = open(dir.path());
    assert_eq!((ask(&store).1, told(&store)), (vec![], 1));
    store.compact_now().await.unwrap();
    assert!(dir.path().join(ROLLED).exists());
    assert_eq!(told(&store), 0);
    close(store).await;
    assert_eq!(faults(dir.path()), [""; 0]);
}

/// Starts what a killed process left: nothing is missing, and no mark stays.
async fn check_image(dir: &Path, found: usize) {
    for _ in 0..2 {
        let copy = image(dir);
        assert_eq!(faults(copy.path()), [""; 0]);
        let store = open_read_only(copy.path());
        assert_eq!((ask(&store), told(&store)), ((found, vec![]), 0));
        close(store).await;
        let store = open(copy.path());
        assert_eq!((ask(&store), told(&store)), ((found, vec![]), 0));
        close(store).await;
        assert_eq!(faults(copy.path()), [""; 0]);
        assert_eq!(marks(copy.path()), 0);
    }
}

/// Rewrites the day of a time, without any commit.
fn rewrite(store: &Store, t: i64) {
    let start_s = u32::try_from(t.div_euclid(DAY_MS) * DAY_MS / 1_000).unwrap();
    let shared = &store.shared;
    let series = Series {
        group_of: |id| shared.index().group(id),
        labels_of: |id| shared.index().labels(id).unwrap_or_default(),
        trim: |_: &mut SealedSeries| {},
    };
    let go_on = || ControlFlow::<()>::Continue(());
    shared.days.rewrite(start_s, None, series, go_on).unwrap();
}

#[tokio::test]
async fn what_was_rewritten_removed_or_expired_is_not_missing_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = open_at(dir.path(), T0 + 60_000);
    for (n, day) in [3, 2, 1].into_iter().enumerate() {
        put(&store, T0 - day * DAY_MS).await;
        check_image(dir.path(), n + 1).await;
        store.seal_now().await.unwrap();
        check_image(dir.path(), n + 1).await;
        rewrite(&store, T0 - day * DAY_MS);
        assert_eq!(marks(dir.path()), 1, "control: nothing was committed");
        check_image(dir.path(), n + 1).await;
        store.compact_now().await.unwrap();
        assert_eq!(marks(dir.path()), 0);
        check_image(dir.path(), n + 1).await;
    }
    // Hours of the same name come and leave before the next commit.
    for n in 1..3 {
        put(&store, T0 - DAY_MS + n).await;
        store.seal_now().await.unwrap();
        rewrite(&store, T0 - DAY_MS);
    }
    check_image(dir.path(), 5).await;
    store.compact_now().await.unwrap();
    // As on a full disk, where no transaction says so.
    for left in [4, 3] {
        let files = store.shared.days.all_kinds();
        let start_s = files.iter().map(|file| file.start_s).min();
        for file in files.iter().filter(|file| Some(file.start_s) == start_s) {
            store.shared.days.remove(file).unwrap();
        }
        assert!(marks(dir.path()) > 0, "control: nothing was committed");
        check_image(dir.path(), left).await;
    }
    clock.set(Timestamp::from_ms(T0 + 20_000 * DAY_MS));
    store.seal_now().await.unwrap();
    check_image(dir.path(), 0).await;
    close(store).await;
    check_image(dir.path(), 0).await;
}

#[tokio::test]
async fn a_crash_between_mark_and_removal_leaves_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    for file in store.shared.days.all_kinds() {
        store.shared.days.note_leaving([&*file]);
    }
    check_image(dir.path(), 3).await;
    put(&store, T0 + 1).await;
    check_image(dir.path(), 4).await;
    close(store).await;
}

#[tokio::test]
async fn restored_backups_have_no_missing_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    store
        .backup(&Plan::default(), fs::File::create(at("full")).unwrap())
        .unwrap();
    let (head, contents) = backup::contents(&at("full")).unwrap();
    let base = Some(backup::Base {
        id: head.id,
        name: "full".to_owned(),
    });
    store.compact_now().await.unwrap();
    let files = contents.files;
    let plan = Plan { base, files };
    store
        .backup(&plan, fs::File::create(at("later")).unwrap())
        .unwrap();
    // Files that are sealed while a backup is on its way are not in it.
    let all = store.shared.days.pin();
    put(&store, T0 - 3 * DAY_MS).await;
    store.seal_now().await.unwrap();
    drop(all);
    let name = store.snapshot(false).unwrap();
    close(store).await;
    fs::remove_file(dir.path().join("snapshots").join(&name).join(REWRITTEN)).unwrap();
    for (file, found) in [("full", 3), ("later", 3)] {
        let to = at(&format!("{file}-restored"));
        backup::restore(&at(file), None, &to).unwrap();
        assert_eq!(faults(&to), [""; 0]);
        check_image(&to, found).await;
    }
    // Nor has a snapshot of which somebody takes a part.
    check_image(&dir.path().join("snapshots").join(name), 3).await;
}

#[tokio::test]
async fn a_directory_of_a_former_version_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    let db = Database::open(dir.path().join(HOT_FILE)).unwrap();
    let rows = tables::finished(&db.begin_read().unwrap()).unwrap();
    assert!(rows.contains_key(HOURS) && rows.contains_key(REWRITTEN));
    let txn = db.begin_write().unwrap();
    for name in rows.keys() {
        tables::put_finished(&txn, name, None).unwrap();
    }
    txn.commit().unwrap();
    drop(db);
    fs::remove_file(dir.path().join(REWRITTEN)).unwrap();
    for name in ["day", "roll5m", "roll1h"] {
        let name = format!("{name}-20231112.redb");
        fs::remove_file(dir.path().join(name)).unwrap_or_default();
    }
    check_image(dir.path(), 2).await;
    // From then on it is known.
    close(open(dir.path())).await;
    fs::remove_file(dir.path().join(HOURS)).unwrap();
    let store = open(dir.path());
    assert_eq!((ask(&store).0, told(&store)), (1, 1));
    close(store).await;
}

#[tokio::test]
async fn a_file_that_was_set_aside_and_taken_away_is_not_missing() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    fs::write(dir.path().join(HOURS), [7; 20_000]).unwrap();
    let store = open(dir.path());
    assert_eq!((ask(&store).1.len(), told(&store)), (1, 1));
    close(store).await;
    fs::remove_dir_all(dir.path().join("quarantine")).unwrap();
    assert_eq!(faults(dir.path()), [""; 0]);
    let store = open(dir.path());
    assert_eq!((ask(&store), told(&store)), ((2, vec![]), 0));
    close(store).await;
}

#[tokio::test]
async fn what_was_set_aside_excuses_nothing_that_goes_later() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    fs::write(dir.path().join(HOURS), [7; 20_000]).unwrap();
    let store = open(dir.path());
    // Killed at once, and its quarantine cleared: an image has none.
    check_image(dir.path(), 2).await;
    put(&store, T0 - DAY_MS + 1).await;
    store.seal_now().await.unwrap();
    close(store).await;
    assert_eq!(faults(dir.path()), [""; 0]);
    fs::remove_file(dir.path().join(HOURS)).unwrap();
    let faults = faults(dir.path());
    assert!(faults.len() == 1 && faults[0].contains(HOURS), "{faults:?}");
}

#[tokio::test]
async fn a_file_that_somebody_removes_meanwhile_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    // It is open, so its samples are still there to be rewritten.
    assert_eq!(ask(&store).0, 3);
    fs::remove_file(dir.path().join(HOURS)).unwrap();
    store.compact_now().await.unwrap();
    assert_eq!((ask(&store), told(&store)), ((3, vec![]), 0));
    check_image(dir.path(), 3).await;
    fs::remove_file(dir.path().join(REWRITTEN)).unwrap();
    let files = store.shared.days.all_kinds();
    let expired = store.shared.days.expire(|_| T0 + DAY_MS, |_| false);
    assert_eq!(expired.unwrap().removed, files.len());
    assert_eq!(store.shared.days.all_kinds().len(), 0);
    close(store).await;
}

#[tokio::test]
async fn a_backup_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    fs::remove_file(dir.path().join(HOURS)).unwrap();
    let store = open(dir.path());
    let work = tempfile::tempdir().unwrap();
    let (file, to) = (work.path().join("backup"), work.path().join("restored"));
    store
        .backup(&Plan::default(), fs::File::create(&file).unwrap())
        .unwrap();
    close(store).await;
    backup::restore(&file, None, &to).unwrap();
    let faults = faults(&to);
    assert!(faults.len() == 1 && faults[0].contains(HOURS), "{faults:?}");
    let store = open(&to);
    assert_eq!((ask(&store).1.len(), told(&store)), (1, 1));
    close(store).await;
}

#[tokio::test]
async fn a_missing_file_can_be_given_up_while_pulse_runs() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    fs::remove_file(dir.path().join(HOURS)).unwrap();
    let store = open(dir.path());
    fs::write(dir.path().join("l0-20231113.left"), b"").unwrap();
    put(&store, T0 - DAY_MS + 1).await;
    store.seal_now().await.unwrap();
    assert_eq!(ask(&store), (3, vec![]));
    close(store).await;
    check_image(dir.path(), 3).await;
}

#[tokio::test]
async fn rows_that_a_former_version_did_not_keep_say_nothing() {
    let dir = tempfile::tempdir().unwrap();
    close(filled(dir.path()).await).await;
    for name in [HOURS, REWRITTEN, ROLLED] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    assert!(faults(dir.path()).len() > 2, "control");
    // It sealed, and wrote the number of that alone.
    let db = Database::open(dir.path().join(HOT_FILE)).unwrap();
    let txn = db.begin_write().unwrap();
    tables::put_kept(&txn, 12_345).unwrap();
    txn.commit().unwrap();
    drop(db);
    check_image(dir.path(), 1).await;
    // Nor later, when rows are kept again.
    let store = open(dir.path());
    store.seal_now().await.unwrap();
    close(store).await;
    check_image(dir.path(), 1).await;
}
