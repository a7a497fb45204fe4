//! Roll-ups: when they are made, when they hold, what removes them.

use super::*;
use crate::config::{Size, Span};
use crate::promql::queryable::Fold;
use crate::store::sealed::{Kind, Rolls, Room};

pub(super) const DAY: i64 = 24 * HOUR;

/// The first second of T0's day, of which two hours are left.
const TODAY_S: u32 = 1_699_920_000;

pub(super) fn options(setup: &Setup) -> Options {
    let mut options = setup.options();
    options.store.rollup_5m_retention = Span::secs(180 * 86_400);
    options.store.rollup_1h_retention = Span::secs(730 * 86_400);
    options
}

/// Runs something on a second sealer.
pub(in crate::store) async fn work<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&mut Sealer, &Receiver<Command>) -> T + Send + 'static,
) -> T {
    let mut sealer = Setup::sealer(store);
    let done = tokio::task::spawn_blocking(move || {
        let (_commands, orders) = std::sync::mpsc::sync_channel(1);
        work(&mut sealer, &orders)
    });
    done.await.unwrap()
}

fn rolled(store: &Store, start_s: u32, kind: Kind) -> Option<Vec<(u32, Rolls)>> {
    let days = &store.shared.days;
    let roll = days.get(start_s, kind)?;
    let read = |file: &crate::store::sealed::SealedFile| {
        let keys = file.series_keys().unwrap();
        let rolls = file.read_rolls(&keys).unwrap();
        let keys = keys.into_iter().map(|(_, id)| id);
        keys.zip(rolls).collect::<Vec<_>>()
    };
    Some(days.with_file(&roll, read).unwrap())
}

/// Whether the day's roll-ups say what its samples say.
pub(in crate::store) fn check_rolls(store: &Store, start_s: u32) {
    for kind in Kind::ROLLS {
        check_roll(store, start_s, kind);
    }
}

/// The same of those that claim to.
pub(in crate::store) fn check_current(store: &Store, start_s: u32) {
    for kind in Kind::ROLLS {
        if store.shared.days.has_current_roll(start_s, kind) {
            check_roll(store, start_s, kind);
        }
    }
}

fn check_roll(store: &Store, start_s: u32, kind: Kind) {
    let (from, to) = (
        i64::from(start_s) * 1_000,
        i64::from(start_s) * 1_000 + DAY - 1,
    );
    let days = &store.shared.days;
    let index = store.shared.index();
    let rolls = rolled(store, start_s, kind).unwrap();
    assert!(!rolls.is_empty());
    for (id, found) in rolls {
        let key = (index.metric_symbol(id), id);
        let mut samples = [Vec::new()];
        let room = Room::of(usize::MAX);
        days.read(&[key], (from, to), room, None, &mut samples)
            .unwrap();
        let wanted = Rolls::of(&samples[0], kind.bucket_ms());
        for fold in Fold::ALL {
            let pairs = |rolls: &Rolls| {
                let track = rolls.track(fold).iter();
                track
                    .map(|s| (s.t.as_ms(), s.v.to_bits()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(pairs(&found), pairs(&wanted), "{kind:?} {fold:?}");
        }
    }
}

#[tokio::test]
async fn a_day_stays_beyond_its_retention_until_it_is_rolled_up() {
    for wants_rolls in [true, false] {
        let setup = Setup::new();
        let mut options = match wants_rolls {
            true => options(&setup),
            false => setup.options(),
        };
        options.store.retention = Span::secs(5 * 86_400);
        let store = setup.open_with(options);
        added(&store, rows(T0 - 20 * HOUR, 4_000)).await;
        store.seal_now().await.unwrap();
        setup.clock.set(Timestamp::from_ms(T0 + 8 * DAY));
        work(&store, |sealer, orders| {
            assert!(matches!(sealer.expire(), Ok(Ok(()))));
            assert!(matches!(sealer.rewrite(TODAY_S, orders), Ok(Ok(()))));
            assert!(matches!(sealer.expire(), Ok(Ok(()))));
            assert!(matches!(sealer.roll_all(orders), Ok(Ok(()))));
            assert!(matches!(sealer.expire(), Ok(Ok(()))));
        })
        .await;
        // The control: without roll-ups nothing is left.
        let wanted: &[&str] = match wants_rolls {
            true => &["roll1h-20231114.redb", "roll5m-20231114.redb"],
            false => &[],
        };
        assert_eq!(names(&setup), wanted);
        store.close().await;
    }
}

#[tokio::test]
async fn a_day_that_is_over_is_rolled_up_and_again_after_late_samples() {
    let setup = Setup::new();
    let store = setup.open_with(options(&setup));
    added(&store, rows(T0 - 20 * HOUR, 4_000)).await;
    store.seal_now().await.unwrap();
    work(&store, |sealer, orders| {
        assert!(sealer.roll_due(orders).is_ok())
    })
    .await;
    assert_eq!(names(&setup), [HOURS_FILE], "neither over nor rewritten");

    setup.clock.set(Timestamp::from_ms(T0 + 5 * HOUR));
    let roll_files = ["roll1h-20231114.redb", "roll5m-20231114.redb"];
    for late in [false, true] {
        if late {
            // Between two samples of a bucket, and as its last one.
            let more = [T0 - 3 * HOUR + 1, T0 - 3 * HOUR - 1];
            let more = more.map(|t| row("temp", "d2", t, -70.5));
            added(&store, more.to_vec()).await;
            store.seal_now().await.unwrap();
            assert!(!store.shared.days.has_current_roll(TODAY_S, Kind::Roll5m));
            work(&store, |sealer, orders| {
                assert!(sealer.roll_due(orders).is_ok());
                assert!(matches!(sealer.rewrite(TODAY_S, orders), Ok(Ok(()))));
            })
            .await;
            assert!(!store.shared.days.has_current_roll(TODAY_S, Kind::Roll5m));
        } else {
            work(&store, |sealer, orders| {
                assert!(matches!(sealer.rewrite(TODAY_S, orders), Ok(Ok(()))));
            })
            .await;
        }
        for _ in 0..3 {
            work(&store, |sealer, orders| {
                assert!(sealer.roll_due(orders).is_ok())
            })
            .await;
        }
        let mut wanted = vec![DAY_FILE];
        wanted.extend(roll_files);
        assert_eq!(names(&setup), wanted);
        assert!(store.shared.days.has_current_roll(TODAY_S, Kind::Roll1h));
        check_rolls(&store, TODAY_S);
    }
    let metrics = &store.shared.metrics.store;
    assert_eq!(metrics.rollups.get(), 4, "none of them for nothing");
    assert!(metrics.rollup_bytes.with_label_values(&["5m"]).get() > 0);
    assert_eq!(store.verify().faults, []);
    store.close().await;
    drop(store);
    let store = setup.open_with(options(&setup));
    assert!(store.shared.days.has_current_roll(TODAY_S, Kind::Roll5m));
    check_rolls(&store, TODAY_S);
    // The administrator's command does all of it; there is nothing to do.
    store.compact_now().await.unwrap();
    assert_eq!(store.shared.metrics.store.rollups.get(), 0);
}

#[tokio::test]
async fn a_crash_around_the_making_leaves_a_day_that_is_rolled_up_later() {
    for step in 0..3 {
        let setup = Setup::new();
        let store = setup.open_with(options(&setup));
        added(&store, rows(T0 - 20 * HOUR, 2_000)).await;
        setup.clock.set(Timestamp::from_ms(T0 + 5 * HOUR));
        work(&store, |sealer, orders| {
            assert!(sealer.take(NO_WINDOW).is_ok());
            assert!(matches!(sealer.seal_parts(), Ok(Ok(()))));
            assert!(matches!(sealer.rewrite(TODAY_S, orders), Ok(Ok(()))));
        })
        .await;
        let before = all(&store);
        let dir = setup.dir.path().to_owned();
        work(&store, move |sealer, orders| match step {
            // A file that was cut short, under the name that it has until it is whole.
            0 => std::fs::write(dir.join("roll5m-20231114.new"), b"cut short").unwrap(),
            // One of the two.
            1 => assert!(sealer.roll_due(orders).is_ok()),
            // A file from before the late samples came, which the day has now.
            _ => {
                assert!(sealer.roll_due(orders).is_ok());
                assert!(sealer.roll_due(orders).is_ok());
                std::fs::copy(dir.join("roll5m-20231114.redb"), dir.join("kept")).unwrap();
            }
        })
        .await;
        if step == 2 {
            added(&store, vec![row("temp", "d1", T0 - 19 * HOUR + 7, 3.5)]).await;
            store.compact_now().await.unwrap();
            check_rolls(&store, TODAY_S);
        }
        let before = if step == 2 { all(&store) } else { before };
        store.close().await;
        drop(store);
        if step == 2 {
            let to = setup.dir.path().join("roll5m-20231114.redb");
            std::fs::rename(setup.dir.path().join("kept"), to).unwrap();
        }
        let store = setup.open_with(options(&setup));
        assert_eq!(all(&store), before, "after step {step}");
        assert!(!store.shared.days.has_current_roll(TODAY_S, Kind::Roll5m) || step == 1);
        store.compact_now().await.unwrap();
        check_rolls(&store, TODAY_S);
        assert_eq!(names(&setup).len(), 3, "after step {step}");
        assert_eq!(all(&store), before);
        store.close().await;
    }
}

/// A sample each 5 minutes on each of some days before T0's.
async fn with_days(store: &Store, days: i64) {
    for day in (0..days).rev() {
        let from = T0 - day * DAY - 10 * HOUR;
        let of_day = (0..24).map(|i| row("temp", "d1", from + i * 300_000, i as f64));
        added(store, of_day.collect()).await;
    }
    store.compact_now().await.unwrap();
}

#[tokio::test]
async fn each_resolution_has_its_own_retention_and_keeps_its_series() {
    let setup = Setup::new();
    let mut options = options(&setup);
    options.store.max_late = Span::secs(40 * 86_400);
    options.store.retention = Span::secs(3 * 86_400);
    options.store.rollup_5m_retention = Span::secs(6 * 86_400);
    options.store.rollup_1h_retention = Span::secs(8 * 86_400);
    let store = setup.open_with(options);
    setup.clock.set(Timestamp::from_ms(T0 + 3 * HOUR));
    with_days(&store, 2).await;
    let count = |of: &str| names(&setup).iter().filter(|n| n.starts_with(of)).count();
    assert_eq!((count("day"), count("roll5m"), count("roll1h")), (2, 2, 2));
    let left = [
        (1, (2, 2, 2)),
        (2, (1, 2, 2)),
        (3, (0, 2, 2)),
        (5, (0, 1, 2)),
        (6, (0, 0, 2)),
        (7, (0, 0, 1)),
    ];
    for (days, want) in left {
        setup
            .clock
            .set(Timestamp::from_ms(T0 + days * DAY + 3 * HOUR));
        store.seal_now().await.unwrap();
        let left = (count("day"), count("roll5m"), count("roll1h"));
        assert_eq!(left, want, "after {days} days");
        assert!(store.resolve(&labels("temp", "d1")).is_some());
    }
    setup.clock.set(Timestamp::from_ms(T0 + 8 * DAY + 3 * HOUR));
    store.seal_now().await.unwrap();
    assert_eq!(names(&setup), [""; 0]);
    assert!(store.resolve(&labels("temp", "d1")).is_none());
    assert_eq!(
        store
            .shared
            .metrics
            .store
            .rollup_bytes
            .with_label_values(&["1h"])
            .get(),
        0
    );
}

#[tokio::test]
async fn rolls_go_before_samples_and_are_not_made_without_room() {
    let setup = Setup::new();
    let mut options = options(&setup);
    let store = setup.open_with(options.clone());
    setup.clock.set(Timestamp::from_ms(T0 + 3 * HOUR));
    with_days(&store, 3).await;
    let days = &store.shared.days;
    let mut left = Vec::new();
    while let Some(kind) = super::super::room::shed_one(&store.shared).unwrap() {
        left.push((kind, names(&setup).len()));
    }
    use Kind::{Day, Roll1h, Roll5m};
    let order = [Roll5m, Roll5m, Roll5m, Roll1h, Roll1h, Roll1h, Day, Day];
    assert_eq!(
        left.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        order
    );
    assert_eq!(days.all().len(), 1, "the newest day stays");
    // On a disk with little room none are made; with more they are.
    let free = |bytes: u64| crate::store::space::Free {
        bytes,
        total: 1 << 40,
    };
    for (bytes, want) in [(300 << 20, 0), (1 << 30, 2)] {
        store.shared.space.set_probe(move || free(bytes));
        store.compact_now().await.unwrap();
        assert_eq!(days.all_rolls().len(), want);
    }
    store.close().await;
    drop(store);
    // The budget of the directory: rolls leave, the day stays.
    let budget = crate::store::disk::disk_bytes(setup.dir.path()) - 4_096;
    options.store.size_max = Size::bytes(budget);
    let store = setup.open_with(options);
    store.seal_now().await.unwrap();
    assert!(store.shared.days.all_rolls().len() < 2);
    assert_eq!(store.shared.days.all().len(), 1);
    store.compact_now().await.unwrap();
    assert!(store.shared.days.all_rolls().len() < 2, "no room for them");
}

#[tokio::test]
async fn deleted_samples_and_those_of_a_shorter_retention_leave_the_rolls() {
    let setup = Setup::new();
    let mut options = options(&setup);
    options.store.max_late = Span::secs(40 * 86_400);
    options.store.retention = Span::secs(30 * 86_400);
    let tenant = r#"id = "acme"
        retention = "60d""#;
    options.tenants = vec![toml::from_str(tenant).unwrap()];
    let store = setup.open_with(options);
    setup.clock.set(Timestamp::from_ms(T0 + 3 * HOUR));
    added(&store, rows(T0 - 10 * HOUR, 400)).await;
    let other = |t: i64| {
        let mut row = row("temp", "d9", t, 4.0);
        let pairs = [("__name__", "temp"), ("tenant_id", "other")];
        row.series = SeriesKey::Labels(crate::model::Labels::from_pairs(pairs));
        row
    };
    added(&store, vec![other(T0 - 10 * HOUR)]).await;
    store.compact_now().await.unwrap();
    check_rolls(&store, TODAY_S);
    let d1 = vec![vec![
        Matcher::equal("__name__", "temp"),
        Matcher::equal("device_id", "d1"),
    ]];
    // A minute of one series: its buckets are hidden whole, those beside them are not.
    let (from, to) = (T0 - 10 * HOUR + 400_000, T0 - 10 * HOUR + 460_000);
    let (from, to) = (Timestamp::from_ms(from), Timestamp::from_ms(to));
    assert_eq!(store.delete_series(&d1, from, to).await.unwrap(), 1);
    let id = store.resolve(&labels("temp", "d1")).unwrap().0;
    let of = |rolls: Option<Vec<(u32, Rolls)>>, id: u32| {
        let rolls = rolls.unwrap().into_iter().find(|(of, _)| *of == id);
        rolls.map(|(_, rolls)| rolls)
    };
    let times = |rolls: &Rolls| {
        let track = rolls.track(Fold::Count).iter();
        track
            .map(|s| (s.t.as_ms() - (T0 - 10 * HOUR)) / 60_000)
            .collect::<Vec<_>>()
    };
    let seen = of(rolled(&store, TODAY_S, Kind::Roll5m), id).unwrap();
    assert_eq!(times(&seen)[..3], [0, 5, 15]);
    store.clean_tombstones().await.unwrap();
    assert_eq!(store.shared.days.all_rolls().len(), 0, "to be made again");
    store.compact_now().await.unwrap();
    check_rolls(&store, TODAY_S);
    let whole = of(rolled(&store, TODAY_S, Kind::Roll5m), id).unwrap();
    assert_eq!(
        times(&whole)[..3],
        [0, 5, 10],
        "what is left of the bucket is in"
    );

    // Without the samples the rolls are cleaned themselves.
    setup.clock.set(Timestamp::from_ms(T0 + 40 * DAY));
    store.seal_now().await.unwrap();
    assert_eq!(
        names(&setup),
        ["roll1h-20231114.redb", "roll5m-20231114.redb"]
    );
    let all = (Timestamp::MIN, Timestamp::MAX);
    assert_eq!(store.delete_series(&d1, all.0, all.1).await.unwrap(), 1);
    assert_eq!(
        of(rolled(&store, TODAY_S, Kind::Roll5m), id).unwrap(),
        Rolls::default()
    );
    store.clean_tombstones().await.unwrap();
    assert_eq!(of(rolled(&store, TODAY_S, Kind::Roll1h), id), None);
    assert!(store.resolve(&labels("temp", "d1")).is_none());
    let d2 = store.resolve(&labels("temp", "d2")).unwrap().0;
    assert_eq!(
        of(rolled(&store, TODAY_S, Kind::Roll5m), d2),
        Some(rolls_of_d2())
    );

    // The tenant's go after its own retention, those of others stay.
    setup.clock.set(Timestamp::from_ms(T0 + 62 * DAY));
    work(&store, |sealer, orders| {
        assert!(matches!(sealer.expire(), Ok(Ok(()))));
        assert_eq!(sealer.rolls_to_trim.len(), 2);
        for _ in 0..2 {
            assert!(sealer.trim_rolls(orders).is_ok());
        }
        assert!(sealer.rolls_to_trim.is_empty());
    })
    .await;
    assert!(store.resolve(&labels("temp", "d2")).is_none());
    for kind in Kind::ROLLS {
        assert_eq!(rolled(&store, TODAY_S, kind).unwrap().len(), 1);
    }
}

/// What `d2` has.
fn rolls_of_d2() -> Rolls {
    let samples: Vec<Sample> = rows(T0 - 10 * HOUR, 400)
        .into_iter()
        .filter(|row| row.series == SeriesKey::Labels(labels("temp", "d2")))
        .map(|row| Sample { t: row.t, v: row.v })
        .collect();
    Rolls::of(&samples, Kind::Roll5m.bucket_ms())
}

#[tokio::test]
async fn damaged_rolls_are_set_aside_and_made_again() {
    let setup = Setup::new();
    let store = setup.open_with(options(&setup));
    setup.clock.set(Timestamp::from_ms(T0 + 3 * HOUR));
    added(&store, rows(T0 - 10 * HOUR, 400)).await;
    store.compact_now().await.unwrap();
    let before = all(&store);
    store.close().await;
    drop(store);
    let path = setup.dir.path().join("roll5m-20231114.redb");
    let whole = std::fs::read(&path).unwrap();
    // Damage that is found at start, and such that is found by a reader.
    for at_start in [true, false] {
        let mut bytes = whole.clone();
        if at_start {
            bytes.truncate(bytes.len() / 2);
        } else {
            let page = pages_of(&path).swap_remove(0);
            let at = bytes.windows(page.len()).position(|w| w == page).unwrap();
            bytes[at + page.len() / 2] ^= 4;
        }
        std::fs::write(&path, bytes).unwrap();
        let store = setup.open_with(options(&setup));
        assert_eq!(all(&store), before, "the samples are whole");
        if !at_start {
            assert_ne!(store.verify().faults, []);
            // The hours are made of them, which finds it.
            let roll = store.shared.days.get(TODAY_S, Kind::Roll1h).unwrap();
            store.shared.days.remove(&roll).unwrap();
            let failed = work(&store, |sealer, orders| {
                let made = sealer.roll(TODAY_S, (Kind::Day, Kind::Roll1h), orders);
                matches!(made, Ok(Err(_)))
            });
            assert!(failed.await, "rolls made of damaged ones");
            work(&store, |sealer, orders| {
                assert!(sealer.roll_due(orders).is_ok())
            })
            .await;
        }
        let aside = std::fs::read_dir(setup.dir.path().join("quarantine")).unwrap();
        assert_eq!(aside.count(), if at_start { 1 } else { 2 });
        store.compact_now().await.unwrap();
        check_rolls(&store, TODAY_S);
        assert_eq!(all(&store), before);
        assert_eq!(store.verify().faults, []);
        store.close().await;
    }
}

fn pages_of(path: &std::path::Path) -> Vec<Vec<u8>> {
    let backends = crate::store::disk::frozen_files();
    crate::store::sealed::SealedFile::open(path, 1 << 20, &backends)
        .unwrap()
        .pages()
}
