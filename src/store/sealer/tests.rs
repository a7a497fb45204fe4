//! Seals, rewrites, crashes between their steps, late samples, retention.

use bytes::Bytes;

use super::*;
use crate::config;
use crate::model::clock::ManualClock;
use crate::model::{MatchOp, Matcher, Sample, Timestamp};
use crate::promql::{QueryError, Queryable as _, SelectHints};
use crate::store::batch::{Refusal, Row, SeriesKey, StateOp, WriteBatch};
use crate::store::disk::disk_bytes;
use crate::store::tests::{T0, batch, labels, manual, options, row, samples};
use crate::store::{Options, Store, Table};
use crate::telemetry::Metrics;

pub(super) const HOUR: i64 = WINDOW_MS;

pub(super) struct Setup {
    pub(super) dir: tempfile::TempDir,
    pub(super) clock: ManualClock,
}

impl Setup {
    pub(super) fn new() -> Setup {
        let (_, clock) = manual(T0 + 60_000);
        let dir = tempfile::tempdir().unwrap();
        Setup { dir, clock }
    }

    pub(super) fn options(&self) -> Options {
        options(self.dir.path())
    }

    pub(super) fn open(&self) -> Store {
        self.open_with(self.options())
    }

    pub(super) fn open_with(&self, options: Options) -> Store {
        let clock = crate::model::Clock::Manual(self.clock.clone());
        Store::open(options, clock, Metrics::new()).unwrap()
    }

    /// A second sealer, so that a test can stop between two steps.
    pub(super) fn sealer(store: &Store) -> Sealer {
        Sealer::new(Arc::clone(&store.shared), store.jobs.downgrade())
    }
}

/// Three series with a sample each 15 s from `from` on, `n` each.
pub(super) fn rows(from: i64, n: i64) -> Vec<Row> {
    let devices = ["d1", "d2", "d3"];
    let times = (0..n).flat_map(|i| devices.map(|d| (d, from + i * 15_000, (i % 9) as f64)));
    times.map(|(d, t, v)| row("temp", d, t, v)).collect()
}

pub(super) fn all(store: &Store) -> Vec<(String, Vec<Sample>)> {
    samples(store, &[])
}

pub(super) async fn added(store: &Store, rows: Vec<Row>) -> (u32, u32, u32) {
    let outcome = store.write(batch(rows)).await.unwrap().outcomes[0];
    (outcome.added, outcome.duplicates, outcome.refused)
}

#[tokio::test]
async fn sealed_samples_are_read_as_before_and_survive() {
    let setup = Setup::new();
    setup.clock.set(Timestamp::from_ms(T0 + 2 * HOUR));
    let store = setup.open();
    added(&store, rows(T0 - 2 * HOUR, 600)).await;
    let before = all(&store);
    let stats = store.stats();
    store.seal_now().await.unwrap();
    assert_eq!(store.stats().head_samples, 0);
    assert_eq!(all(&store), before);
    assert_eq!(store.stats().min_time, stats.min_time);
    assert_eq!(store.stats().max_time, stats.max_time);
    // What is left is the record of the commit that dropped the others, and the mark of
    // the next log file.
    assert!(store.shared.metrics.store.wal_bytes.get() < 600);
    // The head goes on beside the files.
    added(&store, rows(T0 + HOUR, 10)).await;
    let both = all(&store);
    assert_eq!(both[0].1.len(), 610);
    store.close().await;
    drop(store);
    let store = setup.open();
    assert_eq!(all(&store), both);
    assert_eq!(store.stats().head_samples, 30);
}

#[tokio::test]
async fn a_crash_after_any_step_of_a_seal_loses_and_doubles_nothing() {
    for step in 0..4 {
        let setup = Setup::new();
        let store = setup.open();
        added(&store, rows(T0 - HOUR, 240)).await;
        added(&store, rows(T0, 4)).await;
        let before = all(&store);
        let mut sealer = Setup::sealer(&store);
        let done = tokio::task::spawn_blocking(move || {
            let window = window_of(T0).unwrap();
            if step >= 1 {
                assert!(sealer.take(window..=u32::MAX).is_ok());
            }
            if step >= 2 {
                let members = sealer.members();
                for part in sealer.parts.clone() {
                    let series = members[&part.id].clone();
                    sealer.seal_part(&part, series).unwrap();
                }
            }
            if step >= 3 {
                let parts = sealer.parts.iter().map(|part| part.id).collect();
                assert!(sealer.ask(|reply| Job::Sealed { parts, reply }).is_ok());
            }
        });
        done.await.unwrap();
        assert_eq!(all(&store), before, "live after step {step}");
        store.close().await;
        drop(store);

        let store = setup.open();
        assert_eq!(all(&store), before, "replayed after step {step}");
        let in_memory = if step >= 2 { 12 } else { 3 * 244 };
        assert_eq!(store.stats().head_samples, in_memory, "after step {step}");
        // Repeats are known, wherever they are; the seal can be done again.
        assert_eq!(added(&store, rows(T0 - HOUR, 240)).await, (0, 720, 0));
        store.seal_now().await.unwrap();
        assert_eq!(all(&store), before, "sealed after step {step}");
        store.close().await;
        drop(store);
        assert_eq!(all(&setup.open()), before);
    }
}

#[tokio::test]
async fn sealed_samples_are_known_as_repeats_and_conflicts() {
    let setup = Setup::new();
    let mut store = setup.open();
    added(&store, rows(T0 - HOUR, 100)).await;
    store.seal_now().await.unwrap();
    for restart in [true, false] {
        let other_value = [row("temp", "d1", T0 - HOUR, 77.0)];
        let outcome = store.write(batch(other_value)).await.unwrap().outcomes[0];
        assert_eq!(outcome.refusal, Some(Refusal::Conflict));
        assert_eq!(added(&store, rows(T0 - HOUR, 100)).await, (0, 300, 0));
        if restart {
            store.close().await;
            drop(store);
            store = setup.open();
        }
    }
}

#[tokio::test]
async fn late_samples_become_a_further_generation() {
    let setup = Setup::new();
    let store = setup.open();
    added(&store, rows(T0 - HOUR, 100)).await;
    store.seal_now().await.unwrap();
    let late: Vec<Row> = (0..50)
        .map(|i| row("temp", "d2", T0 - HOUR + i * 15_000 + 1, 0.5))
        .collect();
    assert_eq!(added(&store, late.clone()).await, (50, 0, 0));
    let before = all(&store);
    assert_eq!(before[1].1.len(), 150);
    assert!(before[1].1.is_sorted_by_key(|s| s.t));
    store.seal_now().await.unwrap();
    assert_eq!(all(&store), before);
    let days = store.shared.days.all();
    assert_eq!(days[0].generations().len(), 2);
    assert_eq!(added(&store, late).await, (0, 50, 0));
}

#[tokio::test]
async fn the_clock_seals_finished_windows_only() {
    let setup = Setup::new();
    let store = setup.open();
    added(&store, rows(T0 - HOUR, 240)).await;
    added(&store, rows(T0, 4)).await;
    let mut sealer = Setup::sealer(&store);
    // Right after the hour the window is still open for what is on its way.
    setup.clock.set(Timestamp::from_ms(T0 + 60_000));
    let sealer = tokio::task::spawn_blocking(move || {
        assert!(sealer.tick().is_ok());
        sealer
    });
    let mut sealer = sealer.await.unwrap();
    assert_eq!(store.stats().head_samples, 732);
    setup.clock.set(Timestamp::from_ms(T0 + 400_000));
    let tick = tokio::task::spawn_blocking(move || assert!(sealer.tick().is_ok()));
    tick.await.unwrap();
    assert_eq!(store.stats().head_samples, 12);
}

#[tokio::test]
async fn a_backlog_is_sealed_before_the_hour_turns() {
    let setup = Setup::new();
    let store = setup.open();
    let mut sealer = Setup::sealer(&store);
    sealer.backlog_max = 600;
    let tick = |mut sealer: Sealer| {
        tokio::task::spawn_blocking(move || {
            assert!(sealer.tick().is_ok());
            sealer
        })
    };
    let sealer = tick(sealer).await.unwrap();
    added(&store, rows(T0 - 3 * HOUR, 200)).await;
    added(&store, rows(T0, 4)).await;
    let sealer = tick(sealer).await.unwrap();
    assert_eq!(store.stats().head_samples, 612, "no more than the bound");
    added(&store, rows(T0 - 2 * HOUR, 1)).await;
    assert!(sealer.is_due());
    let sealer = tick(sealer).await.unwrap();
    assert_eq!(store.stats().head_samples, 0, "so that the log can be cut");
    assert!(!sealer.is_due());
    // What else comes in is too little.
    added(&store, rows(T0 - 2 * HOUR + 15_000, 1)).await;
    tick(sealer).await.unwrap();
    assert_eq!(store.stats().head_samples, 3);
}

#[tokio::test]
async fn free_pages_of_the_hot_file_go_before_a_day_does() {
    for has_compacted in [false, true] {
        let setup = Setup::new();
        let mut options = setup.options();
        options.store.reserve = config::Size::bytes(0);
        let store = setup.open_with(options.clone());
        for day in [2, 1, 0] {
            added(&store, rows(T0 - day * 24 * HOUR, 4)).await;
        }
        store.seal_now().await.unwrap();
        store.close().await;
        drop(store);
        let before = disk_bytes(setup.dir.path());
        options.store.size_max = config::Size::bytes(before + (1 << 20));
        let store = setup.open_with(options);
        let write = async |value: Option<Bytes>| {
            let key = |i: u32| Bytes::copy_from_slice(&i.to_be_bytes());
            let op = |i| {
                let (table, key) = (Table::Kv, key(i));
                match value.clone() {
                    Some(value) => StateOp::Put { table, key, value },
                    None => StateOp::Delete { table, key },
                }
            };
            let ops = (0..60).map(op).collect();
            store.write(WriteBatch::of_state(ops)).await.unwrap();
        };
        write(Some(Bytes::from(vec![7; 100_000]))).await;
        write(None).await;
        let after = disk_bytes(setup.dir.path());
        assert!(after > before + (4 << 20), "{before} {after}");
        let mut sealer = Setup::sealer(&store);
        // The control: just before it was as small as it gets.
        sealer.compacted = has_compacted.then(Instant::now);
        let tick = tokio::task::spawn_blocking(move || assert!(sealer.tick().is_ok()));
        tick.await.unwrap();
        assert_eq!(names(&setup).len(), if has_compacted { 1 } else { 3 });
        store.close().await;
    }
}

#[tokio::test]
async fn a_full_memory_seals_the_open_window() {
    let setup = Setup::new();
    let mut options = setup.options();
    options.store.head_max = config::Size::bytes(1);
    let store = setup.open_with(options);
    added(&store, rows(T0, 4)).await;
    let mut sealer = Setup::sealer(&store);
    let tick = tokio::task::spawn_blocking(move || assert!(sealer.tick().is_ok()));
    tick.await.unwrap();
    assert_eq!(store.stats().head_samples, 0);
    assert_eq!(all(&store)[0].1.len(), 4);
}

#[tokio::test]
async fn expired_days_go_with_the_series_that_only_they_had() {
    let setup = Setup::new();
    let store = setup.open();
    let day = 86_400_000;
    added(
        &store,
        vec![row("old", "gone", T0, 1.0), row("both", "d", T0, 1.0)],
    )
    .await;
    store.seal_now().await.unwrap();
    setup.clock.set(Timestamp::from_ms(T0 + 20 * day));
    added(&store, vec![row("both", "d", T0 + 20 * day, 2.0)]).await;
    let gone = store.resolve(&labels("old", "gone")).unwrap();
    setup.clock.set(Timestamp::from_ms(T0 + 32 * day));
    store.seal_now().await.unwrap();
    assert_eq!(store.resolve(&labels("old", "gone")), None);
    let left = all(&store);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].1, [Sample::new(T0 + 20 * day, 2.0)]);
    let names = store
        .label_values("__name__", &[], Timestamp::MIN, Timestamp::MAX, 9)
        .unwrap();
    assert_eq!(names, ["both"]);
    let by_id = Row {
        series: SeriesKey::Id(gone),
        t: Timestamp::from_ms(T0 + 32 * day),
        v: 1.0,
    };
    let outcome = store.write(batch([by_id])).await.unwrap().outcomes[0];
    assert_eq!(outcome.refusal, Some(Refusal::UnknownSeries));
    store.close().await;
    drop(store);
    // The number is not used again, also not by the next process.
    let store = setup.open();
    assert_eq!(store.stats().series, 1);
    added(&store, vec![row("new", "d", T0 + 32 * day, 1.0)]).await;
    let new = store.resolve(&labels("new", "d")).unwrap();
    assert!(new > gone);
}

#[tokio::test]
async fn time_ranges_of_label_questions_reach_into_sealed_days() {
    let setup = Setup::new();
    let store = setup.open();
    let day = 86_400_000;
    added(&store, vec![row("a", "d", T0 - 2 * day, 1.0)]).await;
    store.seal_now().await.unwrap();
    added(&store, vec![row("b", "d", T0, 1.0)]).await;
    let names = |from: i64, to: i64| {
        let (from, to) = (Timestamp::from_ms(from), Timestamp::from_ms(to));
        store.label_values("__name__", &[], from, to, 9).unwrap()
    };
    assert_eq!(names(T0 - 3 * day, T0), ["a", "b"]);
    assert_eq!(names(T0 - 3 * day, T0 - 2 * day), ["a"]);
    assert_eq!(names(T0 - day, T0), ["b"]);
    let hints = SelectHints {
        samples_max: 1,
        ..SelectHints::default()
    };
    let matchers = [Matcher::equal("device_id", "d")];
    let all = store.select(Timestamp::MIN, Timestamp::MAX, &matchers, &hints);
    assert!(all.is_err(), "two samples where one is allowed");
}

#[tokio::test]
async fn what_is_asked_for_at_hand_is_not_fetched_from_a_file() {
    let setup = Setup::new();
    let store = setup.open();
    added(&store, vec![row("a", "d", T0, 1.0), row("b", "d", T0, 2.0)]).await;
    store.seal_now().await.unwrap();
    let select = |matcher: Matcher, at_hand: bool| {
        let hints = SelectHints {
            at_hand,
            ..SelectHints::default()
        };
        let (from, to) = (T0 - 60_000, T0 + 60_000);
        let (from, to) = (Timestamp::from_ms(from), Timestamp::from_ms(to));
        store.select(from, to, &[matcher], &hints)
    };
    let d = || Matcher::equal("device_id", "d");
    let any = || Matcher::new("device_id", MatchOp::Regex, "d.*").unwrap();
    assert!(matches!(select(d(), true), Err(QueryError::NotAtHand)));
    let all = select(d(), false).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(select(d(), true).unwrap(), all, "in memory now");
    let err = select(any(), true);
    assert!(
        matches!(err, Err(QueryError::NotAtHand)),
        "a look at all values"
    );
    added(&store, vec![row("a", "d", T0 + 1_000, 3.0)]).await;
    let all = select(d(), true).unwrap();
    assert_eq!(all.iter().map(|s| s.samples.len()).sum::<usize>(), 3);
}

/// The names of the sealed files.
pub(super) fn names(setup: &Setup) -> Vec<String> {
    let entries = std::fs::read_dir(setup.dir.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| Kind::parse(name).is_some()).collect();
    names.sort();
    names
}

mod reduced;
pub(in crate::store) mod rolls;
mod room;

const DAY_FILE: &str = "day-20231114.redb";
const HOURS_FILE: &str = "l0-20231114.redb";

#[tokio::test]
async fn a_rewritten_day_reads_as_before_and_takes_late_samples() {
    let setup = Setup::new();
    let store = setup.open();
    added(&store, rows(T0 - 20 * HOUR, 4_800)).await;
    let early = all(&store);
    store.seal_now().await.unwrap();
    store.compact_now().await.unwrap();
    assert_eq!(names(&setup), [DAY_FILE]);
    assert_eq!(all(&store), early);
    // What is late for a rewritten day starts a new file of hours.
    let late: Vec<Row> = (0..500)
        .map(|i| row("temp", "d2", T0 - 19 * HOUR + i * 60_000 + 1, 0.25))
        .collect();
    assert_eq!(added(&store, late.clone()).await, (500, 0, 0));
    let both = all(&store);
    store.seal_now().await.unwrap();
    assert_eq!(names(&setup), [DAY_FILE, HOURS_FILE]);
    assert_eq!(all(&store), both);
    store.compact_now().await.unwrap();
    assert_eq!(names(&setup), [DAY_FILE]);
    assert_eq!(all(&store), both);
    assert_eq!(added(&store, late).await, (0, 500, 0));
    assert_eq!(
        added(&store, rows(T0 - 20 * HOUR, 4_800)).await,
        (0, 14_400, 0)
    );
    store.close().await;
    drop(store);
    let store = setup.open();
    assert_eq!(all(&store), both);
    assert_eq!(store.stats().head_samples, 0);
    assert_eq!(store.stats().min_time.unwrap().as_ms(), T0 - 20 * HOUR);
}

#[tokio::test]
async fn a_crash_around_a_rewrite_loses_and_doubles_nothing() {
    for step in 0..3 {
        let setup = Setup::new();
        let store = setup.open();
        added(&store, rows(T0 - 2 * HOUR, 480)).await;
        let before = all(&store);
        // The log still has what the hours have.
        let mut sealer = Setup::sealer(&store);
        let hours = setup.dir.path().join(HOURS_FILE);
        let kept = setup.dir.path().join("kept");
        let unfinished = setup.dir.path().join("day-20231114.new");
        let done = tokio::task::spawn_blocking(move || {
            assert!(sealer.take(NO_WINDOW).is_ok());
            let members = sealer.members();
            for part in sealer.parts.clone() {
                let series = members[&part.id].clone();
                sealer.seal_part(&part, series).unwrap();
            }
            if step == 0 {
                std::fs::write(&unfinished, b"cut short").unwrap();
                return;
            }
            std::fs::copy(&hours, &kept).unwrap();
            let (_commands, orders) = std::sync::mpsc::sync_channel(1);
            let start_s = u32::try_from(T0 / 86_400_000 * 86_400).unwrap();
            assert!(matches!(sealer.rewrite(start_s, &orders), Ok(Ok(()))));
            if step == 1 {
                // The power went before the hours were removed.
                std::fs::rename(&kept, &hours).unwrap();
            }
        });
        done.await.unwrap();
        assert_eq!(all(&store), before, "live after step {step}");
        store.close().await;
        drop(store);
        let store = setup.open();
        assert_eq!(all(&store), before, "replayed after step {step}");
        assert_eq!(store.stats().head_samples, 0, "after step {step}");
        assert!(
            store.shared.metrics.store.replay_samples.get() > 0,
            "the log was read"
        );
        assert_eq!(added(&store, rows(T0 - 2 * HOUR, 480)).await, (0, 1_440, 0));
        store.compact_now().await.unwrap();
        assert_eq!(names(&setup), [DAY_FILE]);
        assert_eq!(all(&store), before, "rewritten after step {step}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_day_is_rewritten_two_hours_after_its_end() {
    let setup = Setup::new();
    let store = setup.open();
    added(&store, rows(T0 - HOUR, 4)).await;
    store.seal_now().await.unwrap();
    let (_commands, orders) = std::sync::mpsc::sync_channel(1);
    let mut sealer = Setup::sealer(&store);
    let day_end = T0 + 2 * HOUR;
    let mut due = |ms: i64, quiet: Duration| {
        setup.clock.set(Timestamp::from_ms(ms));
        sealer.quiet = quiet;
        sealer.due_day()
    };
    assert_eq!(due(day_end + 2 * HOUR - 1, Duration::ZERO), None);
    assert_eq!(
        due(day_end + 2 * HOUR, Duration::MAX),
        None,
        "still being loaded"
    );
    assert!(due(day_end + 2 * HOUR, Duration::ZERO).is_some());
    let done = tokio::task::spawn_blocking(move || {
        assert!(sealer.rewrite_due(&orders).is_ok());
        sealer
    });
    let mut sealer = done.await.unwrap();
    assert_eq!(names(&setup), [DAY_FILE]);
    // One late sample of twelve is few, and waits; two are not.
    for (late, want) in [(1, false), (2, true)] {
        added(&store, vec![row("temp", "d1", T0 - HOUR + late, 1.0)]).await;
        store.seal_now().await.unwrap();
        assert_eq!(sealer.due_day().is_some(), want);
    }
    sealer.quiet = Duration::MAX;
    assert_eq!(sealer.due_day(), None);
}

#[tokio::test]
async fn readers_see_every_sample_while_days_are_rewritten() {
    let setup = Setup::new();
    let store = setup.open();
    added(&store, rows(T0 - 20 * HOUR, 4_000)).await;
    store.seal_now().await.unwrap();
    let temp = |store: &Store| samples(store, &[Matcher::equal("__name__", "temp")]);
    let before = temp(&store);
    let reader = {
        let (store, before) = (store.clone(), before.clone());
        std::thread::spawn(move || {
            let mut reads = 0;
            while !store.shared.is_closing() {
                assert_eq!(temp(&store), before);
                reads += 1;
            }
            reads
        })
    };
    for i in 0..6 {
        let late = row("other", "d1", T0 - 20 * HOUR + i * 15_000, 1.0);
        added(&store, vec![late]).await;
        store.compact_now().await.unwrap();
    }
    store.close().await;
    let reads = tokio::task::spawn_blocking(move || reader.join().unwrap());
    assert!(reads.await.unwrap() > 3);
}
