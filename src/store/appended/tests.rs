//! The appended log on real files: what goes there, what a damaged or torn one costs,
//! and that its files are used again and never taken for what they were.

use std::path::Path;

use super::*;
use crate::store::disk::counted_files;
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

/// Where the record of a commit stands in a file.
fn place_of(path: &Path, commit: u64) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let at = (0..bytes.len()).step_by(512);
    let mut found =
        at.filter(|at| frame::Head::read(&bytes[*at..]).is_some_and(|h| h.seq == commit));
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
    close(store).await;
    let [path] = &files(dir.path())[..] else {
        panic!("one file")
    };
    let whole = std::fs::read(path).unwrap();

    // The last record, cut off: nothing is wrong.
    flip(path, place_of(path, 10) + 42);
    assert_eq!(verify::verify_offline(dir.path()).unwrap().faults, []);
    let store = open(dir.path());
    assert_eq!(found(&store), (0..9).collect::<Vec<_>>());
    assert_eq!(failures(&store), 0);
    // The next one takes its place.
    write(&store, 50).await;
    close(store).await;
    let store = open(dir.path());
    assert_eq!(found(&store), (0..9).chain([50]).collect::<Vec<_>>());
    close(store).await;

    // One in the middle: small ones do not lean on it. Its head is damaged or its body.
    for offset in [42, 20] {
        std::fs::write(path, &whole).unwrap();
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
        std::fs::remove_dir_all(dir.path().join("quarantine")).unwrap();
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
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[0].what.contains("commit 2: missing"), "{faults:?}");
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
    for i in 0..30 {
        write(&store, i).await;
    }
    store.seal_now().await.unwrap();
    assert!(store.shared.metrics.store.wal_bytes.get() < 64);
    assert_eq!(store.shared.log.bytes(), 0);
    // One of the thirty-one places is taken again.
    write(&store, 30).await;
    assert_eq!(files(dir.path()).len(), 1);
    assert_eq!(store.shared.log.bytes(), 512);
    close(store).await;
    let store = open(dir.path());
    assert_eq!(found(&store), (0..=30).collect::<Vec<_>>());
    assert_eq!(store.stats().head_samples, 1);
    assert_eq!((failures(&store), store.verify().faults), (0, vec![]));
    // Who wants the space back gets it.
    store.compact_now().await.unwrap();
    store.shared.log.trim();
    assert_eq!(files(dir.path()), [] as [PathBuf; 0]);
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

fn log_in(dir: &Path, size_max: u64) -> Appended {
    let counter = || prometheus::IntCounter::new("c", "c").unwrap();
    let files = counted_files(counter(), counter());
    Appended::open(dir, files, 0, size_max, true).unwrap()
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
    // A sixteenth of it is two files.
    let log = log_in(dir.path(), 160 << 20);
    let record = vec![7; 1_500_000];
    let mut seq = 0;
    while log.takes(record.len()) {
        seq += 1;
        log.append(seq, &record).unwrap();
    }
    assert_eq!((seq, files(dir.path()).len()), (4, 2));
    let small = vec![9; 100];
    assert!(log.takes(small.len()) && !log.takes(5_000_000));
    log.append(5, &small).unwrap();
    let want: Vec<_> = (1..5)
        .map(|seq| (seq, 1_500_000))
        .chain([(5, 100)])
        .collect();
    assert_eq!(all(&log), want);
    // Opened again it is the same, and a file goes when all of it is sealed.
    let log = log_in(dir.path(), 160 << 20);
    assert_eq!(all(&log), want);
    assert_eq!(log.cut(1), 0);
    let held = log.hold();
    assert_eq!(log.cut(2), 0, "somebody reads it");
    drop(held);
    assert!(log.cut(2) > 3_000_000);
    assert_eq!(all(&log), want[2..]);
    assert!(log.takes(record.len()));
    log.append(6, &record).unwrap();
    log.append(7, &record).unwrap();
    let log = log_in(dir.path(), 160 << 20);
    assert_eq!(
        all(&log).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        [3, 4, 5, 6, 7]
    );
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
