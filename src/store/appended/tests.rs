//! The appended log on real files: what goes there, what a damaged or torn one costs,
//! and that its files are used again and never taken for what they were.

use std::path::Path;

use super::*;
use crate::model::Timestamp;
use crate::promql::{Gaps, Queryable as _, SelectHints};
use crate::store::bit_flip::copy;
use crate::store::disk::{counted_files, frozen_files};
use crate::store::hot::Hot;
use crate::store::tests::{T0, batch, flip, manual, options, row, samples};
use crate::store::{Options, StateOp, Store, Table, WriteBatch, verify};
use crate::telemetry::Metrics;

fn open_with(options: Options) -> Result<Store, Error> {
    let (clock, _) = manual(T0 + 3_600_000);
    Store::open(options, clock, Metrics::new())
}

fn open(dir: &Path) -> Store {
    open_with(options(dir)).unwrap()
}

async fn close(store: Store) {
    store.close().await;
    drop(store);
}

/// Sample number `i` of one series: after the first one, a commit of samples alone.
async fn write(store: &Store, i: i64) {
    let rows = [row("m", "d", T0 + i * 1_000, i as f64)];
    store.write(batch(rows)).await.unwrap();
}

async fn put_state(store: &Store) {
    let put = StateOp::Put {
        table: Table::Kv,
        key: "k".into(),
        value: "v".into(),
    };
    store.write(WriteBatch::of_state(vec![put])).await.unwrap();
}

fn found(store: &Store) -> Vec<i64> {
    let all = samples(store, &[]);
    let all = all.into_iter().flat_map(|(_, samples)| samples);
    all.map(|s| (s.t.as_ms() - T0) / 1_000).collect()
}

fn log_commits(store: &Store) -> u64 {
    store.shared.metrics.store.log_commits.get()
}

fn failures(store: &Store) -> u64 {
    store.shared.metrics.store.checksum_failures.get()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let numbers = numbers(dir).unwrap();
    numbers.into_iter().map(|n| path_of(dir, n)).collect()
}

fn meta_of(dir: &Path) -> Meta {
    Hot::open_existing(dir, frozen_files(), 1 << 20).unwrap().1
}

/// Whose frames are in the log of a closed directory.
pub(super) fn owner_of(dir: &Path) -> Owner {
    Owner {
        store: meta_of(dir).store,
        former_below: 0,
    }
}

/// The file in which the log of a closed directory goes on.
pub(in crate::store) fn current_of(dir: &Path) -> PathBuf {
    path_of(dir, meta_of(dir).log.unwrap().0)
}

/// Where the record of a commit stands in a file.
fn place_of(path: &Path, commit: u64) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let at = (0..bytes.len()).step_by(512);
    let owner = owner_of(path.parent().unwrap());
    let head = |at: usize| frame::Head::read(&bytes[at..], owner);
    let mut found = at.filter(|at| head(*at).is_some_and(|h| h.seq == commit));
    found.next().expect("it is there") as u64
}

#[tokio::test]
async fn samples_alone_are_appended_and_come_back_in_order_with_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 0..20 {
        write(&store, i).await;
        if i % 5 == 4 {
            put_state(&store).await;
        }
    }
    // The first one brings a series, four bring state.
    assert_eq!(log_commits(&store), 19);
    let syncs = store.shared.metrics.store.syncs.get();
    let bytes = store.shared.metrics.store.bytes_written.get();
    write(&store, 20).await;
    assert_eq!(store.shared.metrics.store.syncs.get() - syncs, 1);
    assert_eq!(
        store.shared.metrics.store.bytes_written.get() - bytes,
        4_096
    );
    let last = store
        .shared
        .committed
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(store.verify().faults, []);
    close(store).await;
    assert_eq!(verify::verify_offline(dir.path()).unwrap().faults, []);
    let store = open(dir.path());
    assert_eq!(found(&store), (0..=20).collect::<Vec<_>>());
    assert_eq!(failures(&store), 0);
    // The numbers go on from the last one of both logs.
    let rows = [row("m", "d", T0 + 21_000, 1.0)];
    assert_eq!(store.write(batch(rows)).await.unwrap().seq.0, last + 1);
    close(store).await;
}

#[tokio::test]
async fn a_torn_end_is_no_record_and_a_damaged_middle_is_told_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 0..10 {
        write(&store, i).await;
    }
    let crashed = copy(dir.path());
    close(store).await;
    let whole = dir;
    let [path] = &files(whole.path())[..] else {
        panic!("one file")
    };

    // The last record, cut off by a crash: nothing is wrong.
    let last = place_of(path, 10) + 42;
    flip(&files(crashed.path())[0], last);
    let faults = verify::verify_offline(crashed.path()).unwrap().faults;
    assert_eq!(faults, []);
    let store = open(crashed.path());
    assert_eq!(found(&store), (0..9).collect::<Vec<_>>());
    assert_eq!(failures(&store), 0);
    // The next one takes its place.
    write(&store, 50).await;
    close(store).await;
    let store = open(crashed.path());
    assert_eq!(found(&store), (0..9).chain([50]).collect::<Vec<_>>());
    close(store).await;

    // After a clean stop it is known that there was one.
    let stopped = copy(whole.path());
    flip(&files(stopped.path())[0], last);
    let faults = verify::verify_offline(stopped.path()).unwrap().faults;
    assert_eq!(faults.len(), 1, "{faults:?}");

    // One in the middle: small ones do not lean on it. Its head is damaged or its body.
    for offset in [42, 20] {
        let dir = copy(whole.path());
        let path = &files(dir.path())[0];
        let at = place_of(path, 5);
        flip(path, at + offset);
        let faults = verify::verify_offline(dir.path()).unwrap().faults;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(
            faults[0].what.contains("log record of commit 5"),
            "{faults:?}"
        );
        assert_eq!(faults[0].offset, (offset == 42).then_some(at));
        let store = open(dir.path());
        assert_eq!(found(&store), (0..4).chain(5..10).collect::<Vec<_>>());
        assert_eq!(failures(&store), 1);
        // A copy is kept, once; the log goes on.
        let kept = dir.path().join("quarantine/salvaged");
        let name = format!("hot-00.log.{}..{}", T0 + 3_000, T0 + 5_000);
        assert_eq!(
            std::fs::read(kept.join(&name)).unwrap(),
            std::fs::read(path).unwrap()
        );
        assert_eq!(store.shared.metrics.store.quarantined.get(), 1);
        write(&store, 60).await;
        close(store).await;
        let store = open(dir.path());
        let rest = (0..4).chain(5..10).chain([60]);
        assert_eq!(found(&store), rest.collect::<Vec<_>>());
        close(store).await;
    }
}

#[tokio::test]
async fn a_missing_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 0..4 {
        write(&store, i).await;
    }
    put_state(&store).await;
    close(store).await;
    std::fs::remove_file(&files(dir.path())[0]).unwrap();
    let faults = verify::verify_offline(dir.path()).unwrap().faults;
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert!(
        faults[0].what.contains("its records are lost"),
        "{faults:?}"
    );
    assert!(faults[1].what.contains("commit 2: missing"), "{faults:?}");
    let store = open(dir.path());
    assert_eq!(found(&store), [0]);
    assert!(failures(&store) > 0);
    close(store).await;
}

#[tokio::test]
async fn a_log_without_its_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, 0).await;
    write(&store, 1).await;
    close(store).await;
    std::fs::remove_file(dir.path().join("hot.redb")).unwrap();
    let err = open_with(options(dir.path())).err().unwrap();
    let cause = std::error::Error::source(&err).unwrap().to_string();
    assert!(cause.contains("missing beside a log"), "{cause}");
}

#[tokio::test]
async fn sealed_files_are_used_again_and_their_old_records_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 0..100 {
        write(&store, i).await;
    }
    let lengths = || {
        files(dir.path())
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .collect::<Vec<_>>()
    };
    assert_eq!(lengths(), [2 * GROW_BYTES]);
    store.seal_now().await.unwrap();
    // A new file is begun, and the old one is free and short.
    assert_eq!(lengths(), [GROW_BYTES; 2]);
    assert!(store.shared.metrics.store.wal_bytes.get() < 600);
    assert_eq!(store.shared.log.bytes(), 512);
    write(&store, 100).await;
    assert_eq!(store.shared.log.bytes(), 1_024);
    // It is used again with the next seal, and no third one is made.
    store.seal_now().await.unwrap();
    write(&store, 101).await;
    assert_eq!(files(dir.path()).len(), 2);
    assert_eq!(store.shared.log.bytes(), 1_024);
    close(store).await;
    let store = open(dir.path());
    assert_eq!(found(&store), (0..=101).collect::<Vec<_>>());
    assert_eq!(store.stats().head_samples, 1);
    assert_eq!((failures(&store), store.verify().faults), (0, vec![]));
    // Who wants the space back gets it.
    store.compact_now().await.unwrap();
    store.shared.log.trim();
    assert_eq!(files(dir.path()).len(), 1, "the log goes on in one");
    close(store).await;
}

#[tokio::test]
async fn a_read_only_start_reads_the_log_and_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 0..5 {
        write(&store, i).await;
    }
    close(store).await;
    let path = &files(dir.path())[0];
    let before = std::fs::read(path).unwrap();
    let mut options = options(dir.path());
    options.store.read_only = true;
    let store = open_with(options).unwrap();
    assert_eq!(found(&store), [0, 1, 2, 3, 4]);
    assert_eq!(std::fs::read(path).unwrap(), before);
    close(store).await;
}

fn log_in(dir: &Path, meta: Meta) -> Appended {
    let counter = || prometheus::IntCounter::new("c", "c").unwrap();
    let files = counted_files(counter(), counter());
    // A quarter of it is two files.
    Appended::open(dir, files, meta, 40 << 20, true).unwrap()
}

/// What the writer does with a commit of samples alone; says whether it was appended.
fn commit(log: &Appended, meta: &mut Meta, seq: u64, record: &[u8]) -> bool {
    if log.takes(record.len()) {
        log.append(seq, record).unwrap();
        return true;
    }
    if let Some(name) = log.turn(seq, 0, Some(record.len())) {
        log.turned();
        meta.log = name;
    }
    false
}

fn all(log: &Appended) -> Vec<(u64, usize)> {
    let mut reader = log.hold().reader(0);
    let mut all = Vec::new();
    while let Some((seq, record)) = reader.next_up_to(u64::MAX).unwrap() {
        all.push((seq, record.len()));
    }
    all
}

#[test]
fn files_follow_each_other_within_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let mut meta = Meta::default();
    let log = log_in(dir.path(), meta);
    let record = vec![7; 1_500_000];
    let appended = (1..8).map(|seq| commit(&log, &mut meta, seq, &record));
    let appended: Vec<bool> = appended.collect();
    // The first and the fourth begin files, there is no room for a third one.
    assert_eq!(appended, [false, true, true, false, true, true, false]);
    assert_eq!((files(dir.path()).len(), meta.log), (2, Some((1, 4))));
    let small = vec![9; 100];
    assert!(commit(&log, &mut meta, 8, &small) && !log.takes(5_000_000));
    let large = [2, 3, 5, 6].map(|seq| (seq, 1_500_000));
    let want: Vec<_> = large.into_iter().chain([(8, 100)]).collect();
    assert_eq!(all(&log), want);
    // Opened again it is the same, and a file goes when all of it is sealed.
    let log = log_in(dir.path(), meta);
    assert_eq!((all(&log), log.lost()), (want.clone(), None));
    assert_eq!(log.cut(2), 0);
    let held = log.hold();
    assert_eq!(log.cut(3), 0, "somebody reads it");
    drop(held);
    assert!(log.cut(3) > 3_000_000);
    assert_eq!(all(&log), want[2..]);
    // A power cut before the transaction by which the next file would be known.
    assert_eq!(log.turn(9, 0, Some(record.len())), Some(Some((0, 9))));
    drop(log);
    let log = log_in(dir.path(), meta);
    assert_eq!((all(&log), log.lost()), (want[2..].to_vec(), None));
    assert!(commit(&log, &mut meta, 9, &small), "the one before goes on");
    assert!(!commit(&log, &mut meta, 10, &record));
    assert_eq!(meta.log, Some((0, 10)));
    assert!(commit(&log, &mut meta, 11, &record));
    let log = log_in(dir.path(), meta);
    let seqs: Vec<u64> = all(&log).iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, [5, 6, 8, 9, 11]);
    assert!(commit(&log, &mut meta, 12, &record));
    // When all is sealed the log turns with the transaction that says so.
    assert_eq!(log.turn(13, 11, None), None);
    assert!(log.turn(13, 12, None).is_none_or(|name| name.is_none()));
}

/// What is made of the last file of the log, from its bytes and those of another store's.
type Change = fn(&Path, Vec<u8>, Vec<u8>);

#[tokio::test]
async fn a_last_file_that_is_missing_empty_cut_short_or_foreign_is_told() {
    let changes: [(&str, Change); 6] = [
        ("missing", |path, _, _| std::fs::remove_file(path).unwrap()),
        ("empty", |path, _, _| std::fs::write(path, b"").unwrap()),
        ("zeros", |path, own, _| {
            std::fs::write(path, vec![0; own.len()]).unwrap();
        }),
        ("cut", |path, own, _| {
            std::fs::write(path, &own[..3_000]).unwrap();
        }),
        ("foreign", |path, _, other| {
            std::fs::write(path, other).unwrap();
        }),
        ("text", |path, _, _| {
            std::fs::write(path, "no log at all\n".repeat(900)).unwrap();
        }),
    ];
    let other = tempfile::tempdir().unwrap();
    let store = open(other.path());
    for i in 0..10 {
        write(&store, 100 + i).await;
    }
    close(store).await;
    let theirs = std::fs::read(current_of(other.path())).unwrap();
    for (what, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for i in 0..10 {
            write(&store, i).await;
        }
        close(store).await;
        let path = current_of(dir.path());
        let own = std::fs::read(&path).unwrap();
        assert_eq!(verify::verify_offline(dir.path()).unwrap().faults, []);
        change(&path, own, theirs.clone());
        let left = std::fs::read(&path).ok();
        let faults = verify::verify_offline(dir.path()).unwrap().faults;
        assert!(
            faults.iter().any(|fault| fault.file == path),
            "{what}: {faults:?}"
        );

        let store = open(dir.path());
        let kept = if what == "cut" { 6 } else { 1 };
        assert_eq!(found(&store), (0..kept).collect::<Vec<_>>(), "{what}");
        assert!(failures(&store) > 0, "{what}");
        let gaps = Gaps::default();
        let hints = SelectHints {
            gaps: Some(gaps.clone()),
            ..SelectHints::default()
        };
        let (start, end) = (Timestamp::MIN, Timestamp::MAX);
        store.select(start, end, &[], &hints).unwrap();
        assert!(
            gaps.all()[0].contains("hot-00.log"),
            "{what}: {:?}",
            gaps.all()
        );
        if ["foreign", "text"].contains(&what) {
            let aside = std::fs::read(dir.path().join("quarantine/hot-00.log"));
            assert_eq!(aside.ok(), left, "{what}");
        }
        // It goes on, and is told once.
        for i in 50..60 {
            write(&store, i).await;
        }
        close(store).await;
        assert_eq!(
            verify::verify_offline(dir.path()).unwrap().faults,
            [],
            "{what}"
        );
        let store = open(dir.path());
        let want: Vec<_> = (0..kept).chain(50..60).collect();
        assert_eq!((found(&store), failures(&store)), (want, 0), "{what}");
        close(store).await;
    }
}

#[test]
fn names_are_those_of_the_log_only() {
    for (name, want) in [
        ("hot-00.log", true),
        ("hot-63.log", true),
        ("hot-100.log", true),
        ("hot-1.log", false),
        ("hot.log", false),
        ("hot-00.log.new", false),
    ] {
        assert_eq!(is_name(name), want, "{name}");
    }
}
