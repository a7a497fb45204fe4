//! Any page of `hot.redb` of a killed store may be damaged: the start succeeds, what is
//! sealed is whole, no answer is wrong, and it goes on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::backup::{Plan, write_offline};
use super::super::bit_flip::{Came, Whole, compare, copy, fill, open, read};
use super::super::power_cut::{Random, memory_dir};
use super::super::tests::{T0, batch, manual, options, row};
use super::super::verify::verify_offline;
use super::super::{StateOp, Store, WriteBatch, disk};
use super::*;

const PAGE: usize = 4_096;

/// What a process leaves that is killed, and what was in it.
async fn killed() -> (tempfile::TempDir, Whole) {
    let (dir, store) = filled().await;
    // A last commit with a wrong page is one that was cut off, as far as anybody can tell:
    // redb goes back to the one before. So the last one has nothing that is looked at.
    let put = StateOp::Put {
        table: Table::Metadata,
        key: "last".into(),
        value: "1".into(),
    };
    store.write(WriteBatch::of_state(vec![put])).await.unwrap();
    let whole = read(&store).unwrap();
    let image = copy(dir.path());
    store.close().await;
    (image, whole)
}

/// A store that was closed, and all of it.
async fn closed() -> (tempfile::TempDir, Whole) {
    let (dir, store) = filled().await;
    let whole = read(&store).unwrap();
    store.close().await;
    (dir, whole)
}

async fn filled() -> (tempfile::TempDir, Store) {
    let dir = memory_dir();
    let store = fill(dir.path()).await;
    // Enough for tables of several pages.
    let more = (0..400).map(|n| row("more", &format!("a long name of device {n}"), T0 + 1, 0.5));
    store.write(batch(more)).await.unwrap();
    (dir, store)
}

/// Whether the file as it is can be opened by redb alone.
fn is_refused(dir: &Path) -> bool {
    let opened = Hot::open_existing(dir, disk::frozen_files(), 1 << 20);
    opened.is_err()
}

/// The points of what is sealed.
fn sealed(all: &Whole) -> Vec<(&str, Vec<(i64, u64)>)> {
    let before = |points: &[(i64, u64)]| {
        let points = points.iter().filter(|(t, _)| *t < T0).copied();
        points.collect::<Vec<_>>()
    };
    let series = all.iter().filter(|(name, _)| name.contains('{'));
    let series = series.map(|(name, points)| (&**name, before(points)));
    series.filter(|(_, points)| !points.is_empty()).collect()
}

async fn take_one(store: &Store, name: &str) {
    let fresh = row(name, "d1", T0 + 50_000, 7.0);
    store.write(batch([fresh])).await.unwrap();
}

/// Starts with a damaged file, goes on, is killed again, and starts again. Gives what of
/// it all is missing.
async fn check(image: &Path, whole: &Whole, is_damaged: bool, what: &str) -> Came {
    let (store, metrics) = open(image, true).unwrap_or_else(|err| panic!("{what}: {err:?}"));
    let mut came = compare(&read(&store).unwrap(), whole, &metrics);
    drop(store);
    let dir = copy(image);
    for turn in 0..2 {
        let (store, metrics) = open(dir.path(), false).unwrap_or_else(|err| {
            panic!("{what}, turn {turn}: {err:?}");
        });
        let mut found = read(&store).unwrap();
        let fresh: Vec<_> = found
            .extract_if(.., |(name, _)| name.contains("fresh"))
            .collect();
        assert_eq!(fresh.len(), turn, "{what}: {fresh:?}");
        let told = &metrics.store;
        let is_told = told.quarantined.get() > 0 && (turn > 0 || told.checksum_failures.get() > 0);
        assert!(is_told || !is_damaged, "{what}: nobody tells");
        let (left, all) = (sealed(&found), sealed(whole));
        let gone = all.iter().filter(|series| !left.contains(series));
        let gone: Vec<_> = gone.map(|(name, _)| name).collect();
        assert!(gone.is_empty(), "{what}, turn {turn}: {gone:?}");
        let now = compare(&found, whole, &metrics);
        assert!(
            !matches!(now, Came::Wrong(_)),
            "{what}, turn {turn}: {now:?}"
        );
        assert!(
            turn > 0 || now == came,
            "{what}: {now:?}, {came:?} when only read"
        );
        came = now;
        take_one(&store, &format!("fresh{turn}")).await;
        let next = copy(dir.path());
        store.close().await;
        drop(store);
        for file in std::fs::read_dir(next.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
    }
    came
}

/// Damages all pages of the file one after the other; gives how many of them redb refuses,
/// how many it does not see, and how many cost something.
async fn sweep(
    (image, whole): (tempfile::TempDir, Whole),
    damage: impl Fn(&mut [u8], &mut Random),
) -> (usize, usize, usize) {
    assert!(!is_refused(image.path()), "control");
    let came = check(image.path(), &whole, false, "whole").await;
    assert_eq!(came, Came::Unseen);
    let path = image.path().join(HOT_FILE);
    let bytes = std::fs::read(&path).unwrap();
    let mut random = Random::new(11);
    let (mut refused, mut unseen, mut gaps) = (0, 0, 0);
    for page in 0..bytes.len() / PAGE {
        let mut damaged = bytes.clone();
        let place = &mut damaged[page * PAGE..(page + 1) * PAGE];
        if place.iter().all(|byte| *byte == 0) {
            continue;
        }
        damage(place, &mut random);
        std::fs::write(&path, &damaged).unwrap();
        let is_damaged = is_refused(image.path());
        let is_known = is_needed(&path, &disk::frozen_files()).unwrap();
        unseen += usize::from(is_known && !is_damaged);
        let what = format!("page {page} of {}", bytes.len() / PAGE);
        let came = check(image.path(), &whole, is_damaged || is_known, &what).await;
        refused += usize::from(is_damaged);
        gaps += usize::from(came != Came::Unseen);
    }
    (refused, unseen, gaps)
}

fn any(random: &mut Random, n: usize) -> usize {
    usize::try_from(random.below(n as u64)).unwrap()
}

fn flip(page: &mut [u8], random: &mut Random) {
    let used: Vec<usize> = (0..PAGE).filter(|at| page[*at] != 0).collect();
    page[used[any(random, used.len())]] ^= 1 << any(random, 8);
}

#[tokio::test]
async fn a_flipped_bit_costs_a_killed_store_nothing() {
    let (refused, _, gaps) = sweep(killed().await, flip).await;
    assert!(refused > 5, "control: redb alone refused {refused}");
    assert_eq!(gaps, 0);
}

#[tokio::test]
async fn a_flipped_bit_costs_a_closed_store_nothing() {
    let (_, unseen, gaps) = sweep(closed().await, flip).await;
    assert!(unseen > 5, "control: redb alone serves {unseen}");
    assert_eq!(gaps, 0);
}

#[tokio::test]
async fn a_flipped_bit_in_the_last_commit_is_not_taken_for_one_that_was_cut_off() {
    let (dir, store) = filled().await;
    let whole = read(&store).unwrap();
    let image = copy(dir.path());
    store.close().await;
    let (_, unseen, gaps) = sweep((image, whole), flip).await;
    assert!(unseen > 5, "control: redb alone goes back for {unseen}");
    assert_eq!(gaps, 0);
}

fn destroy(page: &mut [u8], random: &mut Random) {
    let from = any(random, PAGE / 2);
    page[from..].iter_mut().for_each(|byte| *byte = !*byte);
}

#[tokio::test]
async fn a_destroyed_page_costs_what_was_in_it() {
    for store in [killed().await, closed().await] {
        let (refused, _, gaps) = sweep(store, destroy).await;
        assert!(refused > 1, "control: redb alone refused {refused}");
        assert!(gaps > 0, "control: no page had anything");
    }
}

#[tokio::test]
async fn what_the_header_says_without_a_checksum_is_not_believed() {
    let (image, whole) = killed().await;
    let path = image.path().join(HOT_FILE);
    let bytes = std::fs::read(&path).unwrap();
    for at in 16..24 {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let is_damaged = is_refused(image.path());
        let came = check(image.path(), &whole, is_damaged, &format!("byte {at}")).await;
        assert_eq!(came, Came::Unseen, "byte {at}");
    }
}

#[tokio::test]
async fn without_any_page_the_sealed_days_are_whole() {
    let (image, whole) = killed().await;
    for bytes in [&b""[..], &[7; 100_000]] {
        std::fs::write(image.path().join(HOT_FILE), bytes).unwrap();
        let came = check(image.path(), &whole, true, "all of it").await;
        assert_eq!(came, Came::Gap);
    }
}

#[tokio::test]
async fn what_is_no_damage_sets_nothing_aside() {
    let (image, _) = killed().await;
    let path = image.path().join(HOT_FILE);
    let before = std::fs::read(&path).unwrap();
    let refused = |cause: Cause| {
        let files = disk::frozen_files();
        let options = super::super::tests::options(image.path());
        let now = Timestamp::from_ms(T0);
        let done = salvage(&options, &files, cause, now, &Metrics::new());
        done.err().unwrap()
    };
    // A panic of ours, while all pages are right.
    let err = refused("its tree of pages cannot be read".into());
    assert!(matches!(err, Error::Damaged { .. }), "{err:?}");
    // A slot of a newer redb, with its checksum.
    let mut newer = before.clone();
    for slot in [64, 192] {
        newer[slot] = 4;
        let hash = xxhash_rust::xxh3::xxh3_128(&newer[slot..slot + 112]);
        newer[slot + 112..slot + 128].copy_from_slice(&hash.to_le_bytes());
    }
    std::fs::write(&path, &newer).unwrap();
    let err = refused(Box::new(redb::Error::Corrupted(
        "of a newer form".to_owned(),
    )));
    assert!(causes(&err).contains("newer"), "{err:?}");
    assert_eq!(std::fs::read(&path).unwrap(), newer);
    assert!(!image.path().join("quarantine").exists());
}

#[tokio::test]
async fn who_cannot_open_a_damaged_file_is_told_that_a_start_can() {
    let (image, whole) = closed().await;
    let (dir, path) = (image.path(), image.path().join(HOT_FILE));
    std::fs::write(&path, [7; 100_000]).unwrap();
    let faults = verify_offline(dir).unwrap().faults;
    let now = Timestamp::from_ms(T0);
    let refused = write_offline(dir, &Plan::default(), now, io::sink());
    for text in [faults[0].to_string(), causes(&refused.unwrap_err())] {
        assert!(text.contains("start pulse on it"), "{text}");
        assert!(text.contains("quarantine/salvaged"), "{text}");
        assert!(!text.contains("move"), "{text}");
    }
    let (store, _) = open(dir, false).unwrap();
    assert_eq!(sealed(&read(&store).unwrap()), sealed(&whole), "it is true");
    store.close().await;
    drop(store);
    assert_eq!(verify_offline(dir).unwrap().faults, []);
    assert!(write_offline(dir, &Plan::default(), now, io::sink()).is_ok());
}

/// A file on a disk with only so much room, of which one sync may fail.
#[derive(Debug)]
struct Failing {
    file: Box<dyn StorageBackend>,
    room: u64,
    sync_fails: Arc<AtomicBool>,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.sync_fails.swap(false, Ordering::Relaxed) {
            true => Err(io::Error::other("a sync failed")),
            false => self.file.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match offset + data.len() as u64 > self.room {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => self.file.write(offset, data),
        }
    }
}

/// Real files, of which those of this name have so much room, and one sync of all may fail.
fn failing(name: Option<&'static str>, room: u64, sync_fails: &Arc<AtomicBool>) -> Backends {
    let counter = || prometheus::IntCounter::new("c", "c").unwrap();
    let files = disk::counted_files(counter(), counter());
    let sync_fails = Arc::clone(sync_fails);
    Arc::new(move |path| {
        let is_small = name.is_some_and(|name| path.ends_with(name));
        Ok(Box::new(Failing {
            file: files(path)?,
            room: if is_small { room } else { u64::MAX },
            sync_fails: Arc::clone(&sync_fails),
        }))
    })
}

#[tokio::test]
async fn without_room_nothing_is_left_behind_and_the_error_says_how_much_it_takes() {
    let (image, whole) = closed().await;
    let (dir, path) = (image.path(), image.path().join(HOT_FILE));
    let new = dir.join("hot.redb.new");
    let mut bytes = std::fs::read(&path).unwrap();
    // The header of the file, which only a salvage does without.
    bytes[..64].fill(7);
    std::fs::write(&path, &bytes).unwrap();
    let needed = (2 * bytes.len()).div_ceil(1 << 20);
    for room in [0, 30_000, 200_000] {
        let files = failing(Some("hot.redb.new"), room, &Arc::default());
        let lock = disk::DirLock::take(dir).unwrap();
        let clock = manual(T0 + 60_000).0;
        let opened = Store::open_on(files, lock, options(dir), clock, Metrics::new());
        let err = opened.err().unwrap();
        assert!(super::super::space::is_full(&err));
        let text = causes(&err);
        assert!(
            text.contains(&format!("needs up to {needed} MiB")),
            "{text}"
        );
        assert!(!new.exists(), "{room}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    // What a killed one leaves.
    std::fs::write(&new, &bytes).unwrap();
    drop(open(dir, true).unwrap());
    assert!(new.exists(), "a read-only start removes nothing");
    let (store, _) = open(dir, false).unwrap();
    assert!(!new.exists());
    assert_eq!(read(&store).unwrap(), whole);
    store.close().await;
    drop(store);
    let len = std::fs::metadata(&path).unwrap().len();
    assert!(len <= 2 * bytes.len() as u64, "{len}");
    std::fs::write(&new, b"left").unwrap();
    drop(open(dir, false).unwrap());
    assert!(!new.exists(), "of a start that needs no salvage too");
}

#[tokio::test]
async fn only_the_newest_damaged_files_are_kept() {
    let (image, _) = killed().await;
    for n in 0..4_u8 {
        let (store, _) = open(image.path(), false).unwrap();
        store.close().await;
        drop(store);
        std::fs::write(image.path().join(HOT_FILE), [n; 9_000]).unwrap();
    }
    drop(open(image.path(), false).unwrap());
    let kept = std::fs::read_dir(image.path().join("quarantine/salvaged")).unwrap();
    let kept = kept.map(|file| file.unwrap().path());
    let of_hot = |path: &PathBuf| path.to_string_lossy().contains("/hot.redb-");
    let kept = kept
        .filter(of_hot)
        .map(|path| std::fs::read(path).unwrap()[0]);
    let mut kept: Vec<u8> = kept.collect();
    kept.sort_unstable();
    assert_eq!(kept, [2, 3]);
}

#[tokio::test]
async fn a_store_that_finds_damage_while_it_runs_ends_and_the_next_one_goes_on() {
    let (image, whole) = killed().await;
    let dir = image.path();
    let fails = Arc::new(AtomicBool::new(false));
    let files = failing(None, 0, &fails);
    let lock = disk::DirLock::take(dir).unwrap();
    let clock = manual(T0 + 60_000).0;
    let store = Store::open_on(files, lock, options(dir), clock, Metrics::new()).unwrap();
    let path = dir.join(HOT_FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[PAGE..].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    fails.store(true, Ordering::Relaxed);
    let fresh = row("fresh", "d1", T0 + 50_000, 7.0);
    let ended = store.write(batch([fresh]));
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    assert!(matches!(ended, Ok(Err(Error::Closed))), "{ended:?}");
    store.closed().await;
    store.close().await;
    drop(store);
    let (store, metrics) = open(dir, false).unwrap();
    assert!(metrics.store.checksum_failures.get() > 0);
    let found = read(&store).unwrap();
    assert_eq!(sealed(&found).len(), sealed(&whole).len());
    take_one(&store, "fresh").await;
    store.close().await;
}
