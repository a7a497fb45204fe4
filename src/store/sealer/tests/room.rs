//! A log that is larger than what it comes to: it goes before a day does, and a full disk
//! is no reason to keep it.

use super::*;
use crate::config::Size;
use crate::store::power_cut::memory_dir;
use crate::store::space::Free;

const DAY: i64 = 24 * HOUR;

fn setup() -> Setup {
    Setup {
        dir: memory_dir(),
        ..Setup::new()
    }
}

/// Commits of one sample each, of which each takes a sector of the log.
async fn small_commits(store: &Store, n: i64) {
    for i in 0..n {
        let t = T0 - 3 * HOUR + i * 1_000;
        added(store, vec![row("small", "d", t, i as f64)]).await;
    }
}

async fn tick(store: &Store) {
    let mut sealer = Setup::sealer(store);
    let work = tokio::task::spawn_blocking(move || assert!(sealer.tick().is_ok()));
    work.await.unwrap();
}

fn log_bytes(store: &Store) -> i64 {
    store.shared.metrics.store.wal_bytes.get()
}

#[tokio::test]
async fn the_log_goes_before_a_day_does() {
    // The control: a log that is too small to be sealed for it.
    for (commits, days_left) in [(3_000, 3), (0, 2)] {
        let setup = setup();
        let mut options = setup.options();
        options.store.reserve = Size::bytes(0);
        let store = setup.open_with(options.clone());
        for day in [3, 2] {
            added(&store, rows(T0 - day * DAY, 4)).await;
        }
        store.compact_now().await.unwrap();
        small_commits(&store, commits).await;
        added(&store, rows(T0, 1)).await;
        let log = u64::try_from(log_bytes(&store)).unwrap();
        store.close().await;
        drop(store);
        let all_of_it = disk_bytes(setup.dir.path());
        options.store.size_max = Size::bytes(all_of_it - log / 2 - 4_096);
        let store = setup.open_with(options.clone());
        let before = all(&store);
        tick(&store).await;
        let left = names(&setup);
        match commits {
            0 => assert!(left.len() < days_left, "{left:?}"),
            _ => {
                assert_eq!(left.len(), days_left, "{left:?}");
                assert_eq!(all(&store), before);
                let size = disk_bytes(setup.dir.path());
                assert!(size <= options.store.size_max.get(), "{size}");
            }
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_full_disk_seals_what_frees_more_than_it_takes() {
    for (commits, is_sealed) in [(20, false), (2_000, true)] {
        let setup = setup();
        let store = setup.open();
        small_commits(&store, commits).await;
        let before = all(&store);
        // A sixteenth of what withholds samples.
        let bytes = store.shared.options.store.free_min.get() / 64;
        store.shared.space.set_probe(move || Free {
            bytes,
            total: 1 << 40,
        });
        tick(&store).await;
        assert_eq!(store.shared.pressure.level(), Level::Withhold);
        assert_eq!(store.stats().head_samples == 0, is_sealed, "{commits}");
        assert_eq!(all(&store), before);
        if is_sealed {
            assert!(log_bytes(&store) < 100_000, "{}", log_bytes(&store));
        }
        store.close().await;
    }
}
