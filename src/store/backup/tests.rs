//! Backups of a store in use: what was acknowledged comes back, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::copy::Copy;
use super::*;
use crate::model::{Sample, Timestamp};
use crate::store::sealer::tests::rolls::check_rolls;
use crate::store::tests::{T0, batch, labels, manual, options, row, samples};
use crate::store::{Item, Options, StateOp, Store, Table, WriteBatch};
use crate::telemetry::Metrics;

fn open(dir: &Path) -> Store {
    open_with(options(dir))
}

fn open_with(options: Options) -> Store {
    let (clock, _) = manual(T0 + 3 * 3_600_000);
    Store::open(options, clock, Metrics::new()).unwrap()
}

fn source(store: &Store) -> Source<'_> {
    Source {
        dir: &store.shared.dir,
        hot: &store.shared.hot,
        log: &store.shared.log,
        days: &store.shared.days,
    }
}

fn back_up(store: &Store, plan: &Plan, to: &Path) -> Done {
    let file = fs::File::create(to).unwrap();
    let done = store.backup(plan, std::io::BufWriter::new(file)).unwrap();
    assert_eq!(done.bytes, fs::metadata(to).unwrap().len());
    done
}

/// What changed since a backup.
fn after(full: &Path) -> Plan {
    let (head, contents) = contents(full).unwrap();
    let name = full.file_name().unwrap().to_str().unwrap().to_owned();
    Plan {
        base: Some(Base { id: head.id, name }),
        files: contents.files,
    }
}

/// What a store holds: samples, and the rows of one state table.
type Held = (Vec<(String, Vec<Sample>)>, Vec<(Bytes, Bytes)>);

fn held(store: &Store) -> Held {
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    (
        samples(store, &[]),
        store.scan(Table::Kv, all, usize::MAX).unwrap(),
    )
}

async fn held_in(dir: &Path) -> Held {
    let store = open(dir);
    let held = held(&store);
    store.close().await;
    held
}

/// Whether sample number `id` comes with a state row; else it is alone in its commit.
fn has_state(id: i64) -> bool {
    id % 8 == 0
}

/// Sample number `id` of a writer, and a state row of its own or none.
fn numbered(writer: usize, id: i64) -> WriteBatch {
    let mut batch = WriteBatch::default();
    let mut item = Item::default();
    if has_state(id) {
        item.always.push(StateOp::Put {
            table: Table::Kv,
            key: format!("{writer}/{id:06}").into(),
            value: id.to_string().into(),
        });
    }
    // Over three hours, so that seals make many windows.
    let t = T0 - (id % 3) * 3_600_000 + id;
    batch.push([row("v", &format!("d{writer}"), t, id as f64)], item);
    batch
}

#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

/// Every acknowledged commit: its number, the writer, the sample.
type Ledger = Vec<(u64, usize, i64)>;

/// Writes as fast as it is acknowledged until it is told to stop.
async fn write_on(store: Store, writer: usize, stop: Arc<AtomicBool>) -> Ledger {
    let mut ledger = Vec::new();
    for id in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let done = store.write(numbered(writer, id)).await.unwrap();
        assert_eq!(done.outcomes[0].added, 1);
        ledger.push((done.seq.0, writer, id));
    }
    ledger
}

/// Every difference between what a store holds and what was acknowledged.
fn check_ledger((series, rows): &Held, ledger: &Ledger) -> Vec<String> {
    let mut left: BTreeSet<_> = ledger.iter().map(|(_, w, id)| (*w, *id)).collect();
    let n = left.iter().filter(|(_, id)| has_state(*id)).count();
    let mut faults = Vec::new();
    for (name, samples) in series {
        let writer: usize = name[name.find("\"d").unwrap() + 2..][..1].parse().unwrap();
        for sample in samples {
            let id = sample.t.as_ms() % 3_600_000;
            if !left.remove(&(writer, id)) {
                faults.push(format!("{name}: {id} was never acknowledged"));
            }
        }
    }
    faults.extend(left.iter().map(|(w, id)| format!("d{w}: {id} is lost")));
    if rows.len() != n {
        faults.push(format!("{} state rows instead of {n}", rows.len()));
    }
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_under_load_has_all_that_was_acknowledged_before_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("data"));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|w| spawn(write_on(store.clone(), w, Arc::clone(&stop))))
        .collect();
    let sealing = spawn({
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                store.seal_now().await.unwrap();
                // Refused while a backup reads the day's files; that is no matter.
                drop(store.compact_now().await);
            }
        }
    });
    let mut backups: Vec<(PathBuf, Done)> = Vec::new();
    for n in 1..=4 {
        while store.shared.committed.load(Ordering::Relaxed) < n * 60 {
            assert!(!writers.iter().all(|writer| writer.is_finished()));
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let to = dir.path().join(format!("{n}.pulse"));
        let backup = store.clone();
        let path = to.clone();
        let done = tokio::task::spawn_blocking(move || back_up(&backup, &Plan::default(), &path));
        backups.push((to, done.await.unwrap()));
    }
    stop.store(true, Ordering::Relaxed);
    sealing.await.unwrap();
    let mut ledger = Ledger::new();
    for writer in writers {
        ledger.extend(writer.await.unwrap());
    }
    store.close().await;

    for (n, (file, done)) in backups.iter().enumerate() {
        let into = dir.path().join(format!("restored-{n}"));
        let restored = restore(file, None, &into).unwrap();
        assert_eq!(restored.commit_seq, done.commit_seq);
        let before: Ledger = ledger
            .iter()
            .filter(|(seq, ..)| *seq <= done.commit_seq)
            .copied()
            .collect();
        let held = held_in(&into).await;
        assert_eq!(check_ledger(&held, &before), Vec::<String>::new());
        // The control: one commit more is missed, one less is seen as invented.
        if let Some(later) = ledger.iter().find(|(seq, ..)| *seq > done.commit_seq) {
            let more: Ledger = before.iter().chain([later]).copied().collect();
            assert!(!check_ledger(&held, &more).is_empty());
        }
        assert!(!check_ledger(&held, &before[1..].to_vec()).is_empty());
    }
    assert!(ledger.len() > 200, "only {} commits", ledger.len());
    assert!(store.shared.metrics.store.log_commits.get() > 20);
}

/// Copies the sealed files, then seals what was in memory, then copies the rest.
async fn copy_across_a_seal(pinned: bool) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("data"));
    let mut ledger = Ledger::new();
    for id in 0..30 {
        let done = store.write(numbered(0, id)).await.unwrap();
        ledger.push((done.seq.0, 0, id));
    }
    let file = dir.path().join("b.pulse");
    let head = Head {
        id: "x".to_owned(),
        created_at: "now".to_owned(),
        base: None,
    };
    let plan = Plan::default();
    let mut copy = Copy::new(fs::File::create(&file).unwrap(), &head, &plan).unwrap();
    let pin = pinned.then(|| store.shared.days.pin());
    copy.files(&source(&store)).unwrap();
    store.seal_now().await.unwrap();
    // The log is cut in the transaction of the next batch at the latest.
    let done = store.write(numbered(0, 30)).await.unwrap();
    ledger.push((done.seq.0, 0, 30));
    let commit_seq = copy.last(&source(&store), pin).unwrap();
    copy.finish(commit_seq).unwrap();
    store.close().await;
    let into = dir.path().join("restored");
    restore(&file, None, &into).unwrap();
    check_ledger(&held_in(&into).await, &ledger)
}

#[tokio::test]
async fn a_seal_in_the_middle_loses_nothing_because_the_log_stays() {
    assert_eq!(copy_across_a_seal(true).await, Vec::<String>::new());
    let faults = copy_across_a_seal(false).await;
    assert_eq!(faults.len(), 30, "the control: without the pin {faults:?}");
}

#[tokio::test]
async fn the_log_is_cut_again_after_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let pin = store.shared.days.pin();
    for id in 0..50 {
        store.write(numbered(0, id)).await.unwrap();
    }
    store.seal_now().await.unwrap();
    let bytes = &store.shared.metrics.store.wal_bytes;
    let kept = bytes.get();
    assert!(kept > 500, "{kept} bytes of log");
    drop(pin);
    store.write(numbered(0, 50)).await.unwrap();
    store.seal_now().await.unwrap();
    assert!(bytes.get() < kept, "{} of {kept} bytes left", bytes.get());
    store.close().await;
}

#[tokio::test]
async fn an_incremental_backup_leaves_out_what_the_base_has() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut options = options(&data);
    options.store.max_late = crate::config::Span::secs(30 * 86_400);
    let store = open_with(options.clone());
    let day = 86_400_000;
    for back in 1..4 {
        let rows = (0..200).map(|i| row("v", "d1", T0 - back * day + i * 1_000, i as f64));
        store.write(batch(rows)).await.unwrap();
    }
    store.compact_now().await.unwrap();
    let full = dir.path().join("full.pulse");
    let first = back_up(&store, &Plan::default(), &full);
    assert_eq!(first.left_out, 0);

    let rows = (0..200).map(|i| row("v", "d1", T0 + i * 10, i as f64));
    store.write(batch(rows)).await.unwrap();
    store.seal_now().await.unwrap();
    let later = dir.path().join("later.pulse");
    let second = back_up(&store, &after(&full), &later);
    assert_eq!(second.left_out, 4, "three days and FORMAT: {second:?}");
    let before = held(&store);
    store.close().await;

    let into = dir.path().join("restored");
    restore(&later, None, &into).unwrap();
    assert_eq!(held_in(&into).await, before);

    // Elsewhere the base has to be named; another one is refused.
    let moved = dir.path().join("moved");
    fs::create_dir(&moved).unwrap();
    let alone = moved.join("later.pulse");
    fs::copy(&later, &alone).unwrap();
    let err = check(&alone, None).unwrap_err().to_string();
    assert!(err.contains("full.pulse, which is missing"), "{err}");
    let err = check(&alone, Some(&later)).unwrap_err().to_string();
    assert!(err.contains("is another backup"), "{err}");
    let other = dir.path().join("other");
    restore(&alone, Some(&full), &other).unwrap();
    assert_eq!(held_in(&other).await, before);
}

#[tokio::test]
async fn an_offline_backup_changes_nothing_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = open(&data);
    for id in 0..100 {
        store.write(numbered(1, id)).await.unwrap();
        if id == 50 {
            store.seal_now().await.unwrap();
        }
    }
    let before = held(&store);
    let now = Timestamp::from_ms(T0);
    let to = dir.path().join("b.pulse");
    let refused = write_offline(&data, &Plan::default(), now, Vec::new()).unwrap_err();
    assert!(
        refused.to_string().contains("in use by process"),
        "{refused}"
    );
    store.close().await;
    drop(store);

    let bytes = |dir: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        let files = entries.filter(|path| !path.ends_with("LOCK"));
        files
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    };
    let untouched = bytes(&data);
    let out = fs::File::create(&to).unwrap();
    write_offline(&data, &Plan::default(), now, out).unwrap();
    assert_eq!(bytes(&data), untouched);
    let into = dir.path().join("restored");
    restore(&to, None, &into).unwrap();
    assert_eq!(held_in(&into).await, before);
}

#[tokio::test]
async fn a_bad_backup_is_refused_by_name_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("data"));
    for id in 0..60 {
        store.write(numbered(0, id)).await.unwrap();
    }
    store.seal_now().await.unwrap();
    let good = dir.path().join("good.pulse");
    back_up(&store, &Plan::default(), &good);
    store.close().await;
    let whole = fs::read(&good).unwrap();
    let bad = dir.path().join("bad.pulse");
    let into = dir.path().join("into");
    let refused = |bytes: &[u8]| {
        fs::write(&bad, bytes).unwrap();
        let err = restore(&bad, None, &into).unwrap_err().to_string();
        assert!(err.contains("bad.pulse"), "{err}");
        assert!(!into.exists(), "{err}");
        err
    };
    assert!(refused(&whole[..whole.len() / 2]).contains("cut short at byte"));
    assert!(refused(&whole[..whole.len() - 1]).contains("cut short at byte"));
    for at in (100..whole.len()).step_by(whole.len() / 50) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let err = refused(&flipped);
        assert!(err.contains("byte"), "{at}: {err}");
    }
    // The control: the same bytes unchanged are taken.
    fs::write(&bad, &whole).unwrap();
    restore(&bad, None, &into).unwrap();
    let err = restore(&bad, None, &into).unwrap_err();
    let cause = std::error::Error::source(&err).unwrap().to_string();
    assert!(cause.starts_with("it is not empty"), "{cause}");
    let store = open(&into);
    assert!(store.resolve(&labels("v", "d0")).is_some());
    store.close().await;
}

#[tokio::test]
async fn a_restore_that_was_cut_short_is_repeated_and_opened_by_nobody_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("data"));
    for id in 0..60 {
        store.write(numbered(0, id)).await.unwrap();
    }
    store.seal_now().await.unwrap();
    let before = held(&store);
    let backup = dir.path().join("b.pulse");
    back_up(&store, &Plan::default(), &backup);
    store.close().await;
    let into = dir.path().join("into");
    restore(&backup, None, &into).unwrap();
    // As it looks when the last step but one was cut off, and the first.
    let mark = into.join(crate::store::disk::RESTORE_MARK);
    for has_files in [true, false] {
        fs::write(&mark, "").unwrap();
        fs::rename(into.join("hot.redb"), into.join("hot.redb.new")).unwrap();
        if !has_files {
            for entry in fs::read_dir(&into).unwrap().map(Result::unwrap) {
                if entry.path() != mark {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        let (clock, _) = manual(T0);
        let opened = Store::open(options(&into), clock, Metrics::new());
        let why = crate::store::disk::causes(&opened.err().unwrap());
        assert!(why.contains("a restore into it was cut short"), "{why}");
        let verified = crate::store::verify::verify_offline(&into).unwrap_err();
        let why = crate::store::disk::causes(&verified);
        assert!(why.contains("restore again"), "{why}");
        restore(&backup, None, &into).unwrap();
        assert!(!mark.exists());
        assert_eq!(held_in(&into).await, before);
    }
    // What is not of a restore is never removed.
    fs::create_dir(into.join("mine")).unwrap();
    fs::write(&mark, "").unwrap();
    let cause = crate::store::disk::causes(&restore(&backup, None, &into).unwrap_err());
    assert!(cause.contains("empty this one"), "{cause}");
    assert!(into.join("hot.redb").exists());
}

/// Roll-ups are sealed files as others: they come back, and a later backup leaves out
/// those that are as they were.
#[tokio::test]
async fn roll_ups_come_back_also_from_an_incremental_backup() {
    let dir = tempfile::tempdir().unwrap();
    let with_rolls = |at: &Path| {
        let mut options = options(at);
        options.store.rollup_5m_retention = crate::config::Span::secs(90 * 86_400);
        options.store.rollup_1h_retention = crate::config::Span::secs(90 * 86_400);
        open_with(options)
    };
    let data = dir.path().join("data");
    let store = with_rolls(&data);
    let day = 86_400_000;
    for back in 0..3 {
        let rows = (0..200).map(|i| row("v", "d1", T0 - back * day + i * 1_000, i as f64));
        store.write(batch(rows)).await.unwrap();
    }
    store.compact_now().await.unwrap();
    let full = dir.path().join("full.pulse");
    assert_eq!(back_up(&store, &Plan::default(), &full).left_out, 0);
    // A late sample: one of three days, and its roll-ups, are other files now.
    let late = row("v", "d1", T0 - day - 5_000, 7.0);
    store.write(batch([late])).await.unwrap();
    store.compact_now().await.unwrap();
    let later = dir.path().join("later.pulse");
    assert_eq!(
        back_up(&store, &after(&full), &later).left_out,
        7,
        "six and FORMAT"
    );
    let names = |dir: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.ends_with("redb")).collect()
    };
    let (before, files) = (held(&store), names(&data));
    assert_eq!(files.iter().filter(|n| n.starts_with("roll")).count(), 6);
    store.close().await;

    let into = dir.path().join("restored");
    restore(&later, None, &into).unwrap();
    assert_eq!(names(&into), files);
    let store = with_rolls(&into);
    assert_eq!(held(&store), before);
    for back in 0..3 {
        let start_s = u32::try_from((T0 - T0.rem_euclid(day) - back * day) / 1_000).unwrap();
        check_rolls(&store, start_s);
    }
    assert_eq!(store.verify().faults, []);
    // Nothing is made again: they say what the days have.
    store.compact_now().await.unwrap();
    assert_eq!(store.shared.metrics.store.rollups.get(), 0);
    store.close().await;
}
