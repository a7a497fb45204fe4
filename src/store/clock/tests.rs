//! Wrong clocks on a real store: what is stored stays, and what comes is taken.
//!
//! Each proof is repeated with a clock that believes everything, and must fail.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config;
use crate::model::clock::ManualClock;
use crate::model::{Matcher, Sample};
use crate::store::batch::{ItemOutcome, Refusal};
use crate::store::sealer::Sealer;
use crate::store::tests::{T0, batch, options, row, samples};
use crate::store::{Options, Store};
use crate::telemetry::Metrics;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A box with a clock that may be wrong.
struct Machine {
    dir: tempfile::TempDir,
    hands: ManualClock,
    is_guarded: bool,
}

impl Machine {
    fn new(is_guarded: bool) -> Machine {
        Machine {
            dir: tempfile::tempdir().unwrap(),
            hands: ManualClock::new(Timestamp::from_ms(T0 + 60_000)),
            is_guarded,
        }
    }

    fn clock(&self) -> Clock {
        let clock = Clock::Manual(self.hands.clone());
        if self.is_guarded {
            clock.guarded(Timestamp::from_ms(T0 - YEAR), false)
        } else {
            clock
        }
    }

    fn open(&self) -> Store {
        let mut options: Options = options(self.dir.path());
        options.store.retention = config::Span::secs(10 * 86_400);
        Store::open(options, self.clock(), Metrics::new()).unwrap()
    }

    /// A store with a sample on each of the last eight days, sealed.
    async fn with_days(&self) -> Store {
        let store = self.open();
        for days in (0..7).rev() {
            let t = T0 - days * DAY - HOUR;
            let outcome = write(&store, t, t as f64).await;
            assert_eq!(outcome.added, 1);
        }
        store.seal_now().await.unwrap();
        store
    }

    fn set(&self, ms: i64) {
        self.hands.set(Timestamp::from_ms(ms));
    }
}

async fn write(store: &Store, t: i64, v: f64) -> ItemOutcome {
    let rows = [row("temp", "d", t, v)];
    store.write(batch(rows)).await.unwrap().outcomes[0]
}

fn now(store: &Store) -> i64 {
    store.shared.clock.now().as_ms()
}

fn all(store: &Store) -> Vec<Sample> {
    samples(store, &[Matcher::equal("__name__", "temp")])
        .pop()
        .map_or(Vec::new(), |(_, samples)| samples)
}

/// What a wrong clock did.
#[derive(Debug, PartialEq)]
struct Harm {
    /// Old samples that are gone.
    lost: usize,
    /// A new sample that a device stamped rightly was refused.
    refused_device: bool,
    /// A new sample with our own stamp was refused.
    refused_own: bool,
}

const NONE: Harm = Harm {
    lost: 0,
    refused_device: false,
    refused_own: false,
};

/// Lets the clock say `wrong` after a while, over a restart or not, and looks at
/// what comes of it during a day in which the store seals and expires.
async fn harm_of(wrong: i64, restart: bool, is_guarded: bool) -> Harm {
    let machine = Machine::new(is_guarded);
    let mut store = machine.with_days().await;
    let before = all(&store);
    assert_eq!(before.len(), 7);
    let mut true_time = T0 + 120_000;
    if restart {
        store.close().await;
        drop(store);
        machine.set(wrong);
        store = machine.open();
        // The box was off for an hour.
        true_time += HOUR;
    } else {
        machine.set(wrong);
    }
    let mut harm = NONE;
    for turn in 0..22 {
        machine.hands.advance(Duration::from_secs(3_600));
        true_time += HOUR;
        harm.refused_device |= write(&store, true_time, f64::from(turn)).await.added == 0;
        harm.refused_own |= write(&store, now(&store) + 1, 0.5).await.added == 0;
        store.seal_now().await.unwrap();
    }
    let after = all(&store);
    harm.lost = before.iter().filter(|s| !after.contains(s)).count();
    // The clock is set right.
    machine.set(true_time + 1_000);
    assert!(write(&store, true_time + 500, 7.0).await.added == 1 || !is_guarded);
    store.seal_now().await.unwrap();
    let after = all(&store);
    harm.lost = harm
        .lost
        .max(before.iter().filter(|s| !after.contains(s)).count());
    harm
}

#[tokio::test]
async fn no_boot_and_no_jump_damages_old_data_or_blocks_new_data() {
    let jumps = [(0, true), (T0 + 75 * YEAR, true), (T0 + 75 * YEAR, false)];
    let more = [
        (T0 - 6 * HOUR, true),
        (T0 - 6 * HOUR, false),
        (T0 + 60 * DAY, true),
        (T0 + 60 * DAY, false),
    ];
    for (wrong, restart) in jumps.into_iter().chain(more) {
        let harm = harm_of(wrong, restart, true).await;
        assert_eq!(harm, NONE, "{wrong}, restart: {restart}");
    }
}

#[tokio::test]
async fn control_a_clock_that_is_always_believed_does_harm() {
    let boot = harm_of(0, true, false).await;
    assert!(boot.refused_device, "{boot:?}");
    for wrong in [T0 + 75 * YEAR, T0 + 60 * DAY] {
        let jump = harm_of(wrong, false, false).await;
        assert!(jump.lost > 0 && jump.refused_device, "{jump:?}");
    }
    let back = harm_of(T0 - 6 * HOUR, false, false).await;
    assert!(back.refused_device, "{back:?}");
}

#[tokio::test]
async fn a_sample_from_2098_is_refused_and_blocks_nothing() {
    for is_trusted in [true, false] {
        let machine = Machine::new(true);
        let mut store = machine.with_days().await;
        if !is_trusted {
            store.close().await;
            drop(store);
            machine.set(1_000);
            store = machine.open();
        }
        assert_eq!(store.shared.clock.is_trusted(), is_trusted);
        let in_2098 = T0 + 75 * YEAR;
        let outcome = write(&store, in_2098, 1.0).await;
        assert_eq!(outcome.refusal, Some(Refusal::TooNew));
        let refused = &store.shared.metrics.store.refused;
        assert_eq!(refused.with_label_values(&["too_new"]).get(), 1);
        let t = now(&store);
        assert_eq!(write(&store, t + FUTURE_MAX_MS, 1.0).await.added, 1);
        if is_trusted {
            let outcome = write(&store, t + FUTURE_MAX_MS + 1, 1.0).await;
            assert_eq!(outcome.refusal, Some(Refusal::TooNew));
        }
        assert_eq!(write(&store, t, 1.0).await.added, 1);
        store.seal_now().await.unwrap();
        let file = store.shared.dir.join("l0-20981026.redb");
        assert!(!file.exists());
    }
}

/// Lets the sealer look at the clock once.
async fn tick(store: &Store, mut sealer: Sealer) -> Sealer {
    let _keep = store.clone();
    let tick = move || {
        assert!(sealer.tick().is_ok());
        sealer
    };
    tokio::task::spawn_blocking(tick).await.unwrap()
}

#[tokio::test]
async fn a_window_ahead_of_the_clock_is_sealed_with_the_others_and_frees_the_log() {
    let machine = Machine::new(true);
    machine.with_days().await.close().await;
    machine.set(1_000);
    let store = machine.open();
    // A device that knows better than we do.
    let ahead = now(&store) + 40 * DAY;
    assert_eq!(write(&store, ahead, 1.0).await.added, 1);
    assert_eq!(write(&store, now(&store), 1.0).await.added, 1);
    let sealer = Sealer::new(Arc::clone(&store.shared), store.jobs.downgrade());
    let sealer = tick(&store, sealer).await;
    assert_eq!(store.stats().head_samples, 1, "the open window stays");
    machine.hands.advance(Duration::from_secs(2 * 3_600));
    let sealer = tick(&store, sealer).await;
    assert_eq!(store.stats().head_samples, 0);
    drop(sealer);
}

#[tokio::test]
async fn the_sealer_goes_on_after_a_clock_that_was_ahead() {
    let machine = Machine::new(true);
    let store = machine.open();
    let sealer = Sealer::new(Arc::clone(&store.shared), store.jobs.downgrade());
    machine.set(T0 + 200 * DAY);
    let mut sealer = tick(&store, sealer).await;
    machine.set(T0 + 60_000);
    for hours in [0, 3, 6] {
        let t = T0 + hours * HOUR + 120_000;
        machine.set(t);
        assert_eq!(write(&store, t, 1.0).await.added, 1);
        machine.set(t + 2 * HOUR);
        sealer = tick(&store, sealer).await;
        assert_eq!(store.stats().head_samples, 0, "after {hours} hours");
    }
}

#[tokio::test]
async fn a_store_of_an_older_version_goes_on_after_its_newest_sample() {
    let machine = Machine::new(false);
    let store = machine.with_days().await;
    store.close().await;
    drop(store);
    let machine = Machine {
        is_guarded: true,
        ..machine
    };
    machine.set(0);
    assert_eq!(now(&machine.open()), T0 - HOUR);
}
