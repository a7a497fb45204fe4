//! The daily scrub: every checksum of every file, whether anybody reads the file or not.
//!
//! Memory cards and disks lose bits in places that no query reaches for months. The
//! first round begins ten minutes after the start, so that machines which are
//! switched off each night have theirs too; further ones follow a day after the last
//! began. Each file is followed by a pause of three times what it took, so three
//! quarters of the disk's time are left to others.
//!
//! What is found is named in the log and counted. A damaged day is given to the
//! sealer, which rewrites the rest of it and keeps the file in quarantine, as after a
//! query that met the damage.
//!
//! A day that is rewritten no more is read past the caches of redb and of the kernel,
//! which may still hold what the disk has lost.

use std::sync::Weak;
use std::time::{Duration, Instant};

use super::days::DayFile;
use super::sealed::Kind;
use super::shared::Shared;
use super::verify::{self, Checked};

/// When the first round begins, after the start.
const FIRST: Duration = Duration::from_secs(600);

/// When the next one begins, after the last one began.
const EVERY: Duration = Duration::from_secs(86_400);

/// How often it looks whether the store is closing.
const LOOK: Duration = Duration::from_secs(1);

/// Of the time that a file took, that many times is left to others.
const PAUSE: u32 = 3;

/// Scrubs until the store is closed or gone.
pub(super) fn run(store: &Weak<Shared>) {
    let mut wait = FIRST;
    while pause(store, wait) {
        let begun = Instant::now();
        if round(store).is_none() {
            return;
        }
        wait = EVERY.saturating_sub(begun.elapsed());
    }
}

/// Waits; says whether the store is still there.
fn pause(store: &Weak<Shared>, wait: Duration) -> bool {
    let begun = Instant::now();
    loop {
        if store.upgrade().is_none_or(|shared| shared.is_closing()) {
            return false;
        }
        let left = wait.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// Reads every file once; gives how many faults there are. `None` when the store
/// closed meanwhile.
pub(super) fn round(store: &Weak<Shared>) -> Option<u64> {
    let begun = Instant::now();
    let mut faults = 0;
    let days = store.upgrade()?.days.all_kinds();
    for day in days {
        let one = Instant::now();
        let shared = store.upgrade()?;
        faults += check_day(&shared, &day);
        // Nobody waits for us to let go of the directory.
        drop(shared);
        if !pause(store, one.elapsed() * PAUSE) {
            return None;
        }
    }
    let shared = store.upgrade()?;
    faults += report(&shared, &verify::verify_hot(&shared.hot, &shared.log));
    let metrics = &shared.metrics.store;
    metrics.scrubs.inc();
    metrics.scrub_seconds.set(begun.elapsed().as_secs_f64());
    tracing::info!(
        faults,
        duration_ms = begun.elapsed().as_millis(),
        "files scrubbed"
    );
    Some(faults)
}

fn check_day(shared: &Shared, day: &DayFile) -> u64 {
    let checked = match day.kind {
        Kind::Hours => verify::verify_day(&shared.days, day),
        // Written once, so that it can be read beside the store.
        Kind::Day | Kind::Roll5m | Kind::Roll1h => verify::verify_file(&day.path),
    };
    // It may have been replaced or removed while it was read.
    if day.is_gone() {
        return 0;
    }
    let faults = report(shared, &checked);
    if faults > 0 {
        shared.days.note_damage(day);
    }
    faults
}

/// Counts and names what was found.
fn report(shared: &Shared, checked: &Checked) -> u64 {
    let metrics = &shared.metrics.store;
    metrics.checksum_failures.inc_by(checked.fault_count);
    for fault in &checked.faults {
        tracing::error!(fault = %fault, "the scrub found damage");
    }
    checked.fault_count
}

#[cfg(test)]
mod tests {
    use super::super::sealer::Sealer;
    use super::super::tests::{T0, batch, manual, options, row, samples};
    use super::super::{Metrics, Store};
    use super::*;
    use std::sync::Arc;

    const DAY: i64 = 86_400_000;

    fn open(dir: &std::path::Path) -> Store {
        Store::open(options(dir), manual(T0 + 60_000).0, Metrics::new()).unwrap()
    }

    #[tokio::test]
    async fn damage_that_nobody_reads_is_found_and_the_rest_is_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for day in [2, 1, 0] {
            let value = |i: i64| ((i * i) % 101) as f64 / 10.0;
            let of_day = |i: i64| row("a", "d", T0 - day * DAY + i * 1_000, value(i));
            let rows: Vec<_> = (0..60).map(of_day).collect();
            store.write(batch(rows)).await.unwrap();
            if day > 0 {
                store.compact_now().await.unwrap();
            }
        }
        store.seal_now().await.unwrap();
        let weak = Arc::downgrade(&store.shared);
        let scrub = async || {
            let weak = weak.clone();
            tokio::task::spawn_blocking(move || round(&weak))
                .await
                .unwrap()
        };
        let failures = || store.shared.metrics.store.checksum_failures.get();
        assert_eq!(
            (scrub().await, failures()),
            (Some(0), 0),
            "control: all is well"
        );
        // Under the feet of the running store.
        let path = dir.path().join("day-20231113.redb");
        let page = verify::tests::pages_of(&path).remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(page.len()).position(|some| some == page);
        bytes[at.unwrap() + page.len() / 2] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!((scrub().await, failures()), (Some(1), 1));
        let jobs = store.jobs.downgrade();
        let shared = Arc::clone(&store.shared);
        let salvage = tokio::task::spawn_blocking(move || {
            let (_commands, orders) = std::sync::mpsc::sync_channel(1);
            assert!(Sealer::new(shared, jobs).rewrite_due(&orders).is_ok());
        });
        salvage.await.unwrap();
        let kept = std::fs::read_dir(dir.path().join("quarantine/salvaged")).unwrap();
        let kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(std::fs::read(&kept[0]).unwrap(), bytes);
        assert_eq!(
            samples(&store, &[])[0].1.len(),
            120,
            "the other days are whole"
        );
        assert_eq!(scrub().await, Some(0));
        assert_eq!(store.shared.metrics.store.scrubs.get(), 3);
        store.close().await;
        assert_eq!(scrub().await, None, "a closed store is left alone");
    }
}
