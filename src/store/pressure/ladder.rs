//! The ladder on a real store: disk, head and memory run short and come back.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::Size;
use crate::model::Matcher;
use crate::store::batch::{Committed, Refusal, WriteBatch};
use crate::store::sealer::Sealer;
use crate::store::space::Free;
use crate::store::tests::{T0, batch, manual, options, row, samples};
use crate::store::{Error, Options, StateOp, Store, Table};
use crate::telemetry::Metrics;

const MIB: u64 = 1 << 20;
const DAY: i64 = 86_400_000;

/// Long enough for what happens at once, short enough to wait for what does not.
pub(super) const SOON: Duration = Duration::from_millis(300);

/// Longer than anything takes that happens.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

#[expect(clippy::disallowed_methods, reason = "the test joins it")]
fn in_the_background<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

pub(super) struct Machine {
    pub(super) store: Store,
    free: Arc<AtomicU64>,
    sealer: Option<Sealer>,
}

impl Machine {
    pub(super) fn open(options: Options) -> Machine {
        let (clock, _) = manual(T0 + 60_000);
        let store = Store::open(options, clock, Metrics::new()).unwrap();
        Machine {
            sealer: Some(Sealer::new(
                Arc::clone(&store.shared),
                store.jobs.downgrade(),
            )),
            free: Arc::new(AtomicU64::new(1 << 40)),
            store,
        }
    }

    /// On a disk whose free space the test says.
    fn on_told_disk(options: Options) -> Machine {
        let machine = Machine::open(options);
        let free = Arc::clone(&machine.free);
        machine.store.shared.space.set_probe(move || Free {
            bytes: free.load(Ordering::SeqCst),
            total: 1 << 40,
        });
        machine
    }

    fn set_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::SeqCst);
    }

    /// One look of the sealer.
    pub(super) async fn tick(&mut self) {
        let mut sealer = self.sealer.take().unwrap();
        let ticked = tokio::task::spawn_blocking(move || {
            assert!(sealer.tick().is_ok());
            sealer
        });
        self.sealer = Some(ticked.await.unwrap());
    }

    async fn write(&self, device: &str, t: i64) -> Result<Committed, Error> {
        self.store
            .write(batch([row("a", device, t, t as f64)]))
            .await
    }

    async fn refusal(&self, device: &str, t: i64) -> Option<Refusal> {
        self.write(device, t).await.unwrap().outcomes[0].refusal
    }

    pub(super) async fn state(&self, value: &str) -> bool {
        let op = StateOp::Put {
            table: Table::Kv,
            key: Bytes::from_static(b"k"),
            value: Bytes::copy_from_slice(value.as_bytes()),
        };
        let write = self.store.write(WriteBatch::of_state(vec![op]));
        tokio::time::timeout(SOON * 20, write).await.is_ok()
    }

    /// The values of state and of a rule's batch while samples are withheld.
    async fn check_alive(&self) {
        let stored = samples(&self.store, &[Matcher::equal("__name__", "a")]);
        assert!(!stored.is_empty(), "queries work");
        assert!(self.state("while withheld").await);
        let rule = WriteBatch {
            sheds: true,
            ..batch([row("ALERTS", "d", T0, 1.0)])
        };
        let written = tokio::time::timeout(DEADLINE, self.store.write(rule)).await;
        let outcome = written.unwrap().unwrap().outcomes[0];
        assert_eq!(outcome.refusal, Some(Refusal::Overload));
    }

    pub(super) fn days(&self) -> usize {
        self.store.shared.days.all().len()
    }
}

/// Two device series on each of four days, sealed.
async fn with_days(machine: &Machine) {
    for day in (0..4).rev() {
        for device in ["d1", "d2"] {
            let refusal = machine.refusal(device, T0 - day * DAY).await;
            assert_eq!(refusal, None);
        }
    }
    machine.store.seal_now().await.unwrap();
    assert_eq!(machine.days(), 4);
}

#[tokio::test]
async fn the_disk_ladder_goes_up_step_by_step_and_down_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Machine::on_told_disk(options(dir.path()));
    with_days(&machine).await;
    machine.tick().await;
    assert_eq!(machine.days(), 4);
    assert!(dir.path().join("ballast").exists());

    // 1: the oldest data goes, one file at each look, but never the newest day.
    machine.set_free(255 * MIB);
    for left in [3, 2, 1, 1] {
        machine.tick().await;
        assert_eq!(machine.days(), left);
    }
    assert_eq!(machine.refusal("new1", T0).await, None);

    // 2: no new series.
    machine.set_free(127 * MIB);
    machine.tick().await;
    assert_eq!(machine.refusal("new2", T0).await, Some(Refusal::NoRoom));
    assert_eq!(machine.refusal("d1", T0 + 1).await, None);

    // 3: nothing is acknowledged, everything else goes on.
    machine.set_free(63 * MIB);
    machine.tick().await;
    let waits = {
        let store = machine.store.clone();
        in_the_background(async move { store.write(batch([row("a", "d1", T0 + 2, 2.0)])).await })
    };
    assert!(machine.store.hardship().is_some());
    machine.check_alive().await;
    tokio::time::sleep(SOON).await;
    assert!(!waits.is_finished(), "acknowledged on a full disk");

    // And back.
    machine.set_free(1 << 40);
    machine.tick().await;
    let done = tokio::time::timeout(DEADLINE, waits).await.unwrap();
    assert_eq!(done.unwrap().unwrap().outcomes[0].added, 1);
    assert_eq!(machine.refusal("new2", T0).await, None);
    assert_eq!(machine.store.hardship(), None);
    assert_eq!(machine.store.shared.metrics.store.shed_files.get(), 3);
}

/// On a full disk, with days and no bound for free space.
async fn full_without_a_bound(dir: &Path) -> Machine {
    let mut options = options(dir);
    options.store.free_min = Size::bytes(0);
    let machine = Machine::on_told_disk(options);
    with_days(&machine).await;
    machine.set_free(0);
    machine
}

#[tokio::test]
async fn control_without_a_bound_a_full_disk_is_not_seen_coming() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = full_without_a_bound(dir.path()).await;
    machine.tick().await;
    assert_eq!(machine.days(), 4);
    assert_eq!(machine.refusal("new", T0).await, None);
}

#[tokio::test]
async fn without_a_bound_no_day_goes_and_samples_are_taken_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = full_without_a_bound(dir.path()).await;
    // As after a commit that the disk refused.
    let shared = Arc::clone(&machine.store.shared);
    let pressure = &shared.pressure;
    pressure.set(Cause::Disk, Level::Withhold, &shared.metrics.store);
    for (free, want) in [(0, Level::Withhold), (1 << 30, Level::Calm)] {
        machine.set_free(free);
        machine.tick().await;
        assert_eq!((machine.days(), pressure.of(Cause::Disk)), (4, want));
    }
}

#[tokio::test]
async fn samples_wait_while_sealing_fails_and_go_on_when_it_works_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.store.head_max = Size::bytes(2_000);
    let mut machine = Machine::open(options);
    // A folder where the day's file has to be made.
    let obstacle = dir.path().join("l0-20231114.new");
    std::fs::create_dir(&obstacle).unwrap();
    let rows = |at: i64| (0..50).map(move |i| row("a", &format!("d{i}"), T0 + at, 1.0));
    machine.store.write(batch(rows(0))).await.unwrap();
    machine.tick().await;
    assert_eq!(
        machine.store.shared.pressure.of(Cause::Head),
        Level::Withhold
    );
    let failures = machine.store.shared.metrics.store.seal_failures.get();
    assert!(failures > 0, "the seal was to fail");
    let waits = {
        let store = machine.store.clone();
        in_the_background(async move { store.write(batch(rows(1_000))).await })
    };
    machine.check_alive().await;
    machine.tick().await;
    tokio::time::sleep(SOON).await;
    assert!(!waits.is_finished(), "the head grows without a bound");

    std::fs::remove_dir(&obstacle).unwrap();
    machine.tick().await;
    let done = tokio::time::timeout(DEADLINE, waits).await.unwrap();
    assert_eq!(done.unwrap().unwrap().outcomes[0].added, 50);
    assert_eq!(samples(&machine.store, &[]).len(), 50);
}

#[tokio::test]
async fn a_head_that_grows_between_two_looks_is_stopped_by_its_samples() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.store.head_max = Size::bytes(64_000);
    let mut machine = Machine::open(options);
    machine.tick().await;
    let rows = (0..6_000).map(|i| row("a", "d", T0 - i, 1.0));
    machine.store.write(batch(rows)).await.unwrap();
    assert_eq!(machine.store.shared.pressure.level(), Level::Withhold);
    machine.tick().await;
    assert_eq!(machine.refusal("d", T0 + 1).await, None);
}

#[tokio::test]
async fn the_memory_guard_seals_early_and_then_refuses_new_series() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.store.memory_limit = Size::bytes(1_000);
    let mut machine = Machine::open(options);
    assert_eq!(machine.refusal("d1", T0).await, None);
    let shared = Arc::clone(&machine.store.shared);
    for (used, head, new) in [
        (790, 1, None),
        (800, 0, None),
        (950, 0, Some(Refusal::NoRoom)),
        (100, 0, None),
    ] {
        shared.memory.used.store(used, Ordering::Relaxed);
        machine.tick().await;
        assert_eq!(machine.store.stats().head_samples, head, "at {used}");
        let device = format!("at {used}");
        assert_eq!(machine.refusal(&device, T0).await, new);
        machine.store.seal_now().await.unwrap();
        if used < 800 {
            assert_eq!(machine.refusal("d1", T0 + 1).await, None);
        }
    }
    let gauge = shared.metrics.store.pressure.with_label_values(&["memory"]);
    assert_eq!(gauge.get(), 0);
}

/// A file system of a few megabytes; unmounted at the end.
pub(super) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where one may not mount.
    pub(super) fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(dir));
        }
        let must = std::env::var_os("PULSE_TEST_FULL").is_some();
        assert!(!must, "cannot mount a tmpfs");
        #[expect(clippy::print_stderr, reason = "a skip has to be seen")]
        {
            eprintln!("SKIPPED: cannot mount a tmpfs");
        }
        None
    }

    /// The data directory on it.
    pub(super) fn data(&self) -> std::path::PathBuf {
        let data = self.0.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        data
    }

    /// Fills all but `left` bytes; gives the file.
    pub(super) fn fill(&self, left: u64) -> std::path::PathBuf {
        let filler = self.0.path().join("filler");
        let stat = rustix::fs::statvfs(self.0.path()).unwrap();
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
        let size = usize::try_from(bytes).unwrap();
        std::fs::write(&filler, vec![1_u8; size]).unwrap();
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

/// Without a bound for free space and without a reserve.
pub(super) fn bare(data: &Path) -> Options {
    let mut options = options(data);
    options.store.free_min = Size::bytes(0);
    options.store.reserve = Size::bytes(0);
    options
}

/// Writes large rows of state until the disk refuses one; false when it never did.
pub(super) async fn exhaust(machine: &Machine) -> bool {
    for i in 0..200_u32 {
        let op = StateOp::Put {
            table: Table::Kv,
            key: Bytes::copy_from_slice(&i.to_be_bytes()),
            value: Bytes::from(vec![7; 100_000]),
        };
        let write = machine.store.write(WriteBatch::of_state(vec![op]));
        if tokio::time::timeout(SOON, write).await.is_err() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_real_full_disk_loses_nothing_keeps_state_alive_and_recovers() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let data = disk.data();
    let mut machine = Machine::open(options(&data));
    machine.tick().await;
    assert!(data.join("ballast").exists());
    let mut acknowledged = 0;
    for i in 0..100 {
        assert_eq!(machine.refusal("d1", T0 + i).await, None);
        acknowledged += 1;
    }
    // Somebody else takes all of it at once.
    let filler = disk.fill(0);
    let waits = {
        let store = machine.store.clone();
        in_the_background(async move {
            let rows = (0..20_000).map(|i| row("a", "d1", T0 - i, (i as f64).sin()));
            let first = store.write(batch(rows)).await;
            let second = store.write(batch([row("a", "d1", T0 + 1_000, 1.0)])).await;
            (first, second)
        })
    };
    tokio::time::sleep(SOON).await;
    // The reserve keeps state alive, also after a commit that the disk refused.
    machine.check_alive().await;
    let stored = samples(&machine.store, &[Matcher::equal("device_id", "d1")]);
    assert!(stored[0].1.len() >= acknowledged);
    let failing = machine.store.shared.metrics.store.commit_failures.get();
    let withheld = machine.store.shared.pressure.of(Cause::Disk) == Level::Withhold;
    assert!(withheld, "{failing} commits were refused");
    assert!(!waits.is_finished(), "acknowledged on a full disk");

    std::fs::remove_file(&filler).unwrap();
    machine.tick().await;
    let (first, second) = tokio::time::timeout(DEADLINE, waits)
        .await
        .unwrap()
        .unwrap();
    assert!(first.unwrap().outcomes[0].added > 19_000);
    assert_eq!(second.unwrap().outcomes[0].added, 1);
    let before = samples(&machine.store, &[]);
    machine.store.close().await;
    drop(machine);
    assert_eq!(samples(&Machine::open(options(&data)).store, &[]), before);
}

#[tokio::test]
async fn control_without_ladder_and_reserve_a_full_disk_stops_state_too() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let machine = Machine::open(bare(&disk.data()));
    assert_eq!(machine.refusal("d1", T0).await, None);
    let filler = disk.fill(0);
    assert!(exhaust(&machine).await, "the disk took everything");
    assert!(!machine.state("stopped").await);
    assert!(machine.store.is_failing());
    std::fs::remove_file(&filler).unwrap();
    assert!(machine.state("going on").await);
    machine.store.close().await;
}
