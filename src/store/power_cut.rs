//! Power cuts and failing syncs on a fake disk.
//!
//! The disk keeps what was not synced apart, in sectors of 512 bytes. At a cut a
//! random part of those survives, in no order. A sync fails now and then: then a
//! random part reached the disk and the rest is gone at the next open, although
//! reads showed it until then, as with a real kernel.
//!
//! Two of three messages are samples alone: they go to the appended log. In one of four
//! runs the day is over, so that each rewrite is followed by its roll-ups, and late
//! samples come into a day that has some.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use redb::StorageBackend;

use super::disk::Backends;
use super::tests::{T0, manual, options, row};
use super::*;
use crate::model::Matcher;

const SECTOR: usize = 512;

/// xorshift64*: all that a test needs.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The disk: outlives power cuts and handles.
#[derive(Debug)]
pub(super) struct Disk(Mutex<State>);

#[derive(Debug)]
struct State {
    /// By inode, so that a file keeps its bytes when it is renamed.
    files: BTreeMap<u64, Content>,
    random: Random,
    /// The cut comes with this write, counted down.
    writes_left: Option<u64>,
    dead: bool,
    /// One sync in so many fails; 0: none does.
    sync_fails_one_in: u64,
    /// Syncs of the appended log do nothing: the control.
    skips_log_syncs: bool,
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    /// Sectors that were written and not synced.
    pending: BTreeMap<usize, [u8; SECTOR]>,
    len: usize,
    /// A sync failed: what is pending is lost at the next open.
    poisoned: bool,
}

/// What the test asserts to have happened.
pub(super) static SECTORS_LOST: AtomicU64 = AtomicU64::new(0);
static SYNCS_FAILED: AtomicU64 = AtomicU64::new(0);

impl Disk {
    pub(super) fn new(seed: u64, sync_fails_one_in: u64) -> Arc<Disk> {
        Arc::new(Disk(Mutex::new(State {
            files: BTreeMap::new(),
            random: Random::new(seed),
            writes_left: None,
            dead: false,
            sync_fails_one_in,
            skips_log_syncs: false,
        })))
    }

    /// From now on syncs of the appended log do nothing.
    fn skip_log_syncs(&self) {
        self.state().skips_log_syncs = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power with the `writes`th write from now on.
    pub(super) fn cut_after(&self, writes: u64) {
        self.state().writes_left = Some(writes);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Switches the power on again.
    pub(super) fn power_on(&self) {
        let mut state = self.state();
        state.dead = false;
        state.writes_left = None;
    }

    /// Opens files on this disk. Names are on a disk that never fails: empty real
    /// files stand for them.
    pub(super) fn backends(self: &Arc<Disk>) -> Backends {
        let disk = Arc::clone(self);
        Arc::new(move |path: &Path| {
            let mut state = disk.state();
            state.alive()?;
            let new = !path.exists();
            let name = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .open(path)?;
            let inode = name.metadata()?.ino();
            let file = state.files.entry(inode).or_default();
            if new {
                *file = Content::default();
            } else if std::mem::take(&mut file.poisoned) {
                let lost = std::mem::take(&mut file.pending).len();
                SECTORS_LOST.fetch_add(lost as u64, Ordering::Relaxed);
            }
            Ok(Box::new(Handle {
                disk: Arc::clone(&disk),
                inode,
                is_log: path.extension().is_some_and(|ending| ending == "log"),
            }))
        })
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    fn file(&mut self, inode: u64) -> &mut Content {
        self.files.entry(inode).or_default()
    }

    /// A random part of the pending sectors survives.
    fn settle(&mut self) {
        for file in self.files.values_mut() {
            file.poisoned = false;
            for (at, bytes) in std::mem::take(&mut file.pending) {
                if self.random.one_in(2) {
                    file.persist(at, &bytes);
                } else {
                    SECTORS_LOST.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn count_write(&mut self) -> io::Result<()> {
        self.alive()?;
        if let Some(left) = &mut self.writes_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.dead = true;
                self.settle();
                return self.alive();
            }
        }
        Ok(())
    }
}

impl Content {
    fn persist(&mut self, at: usize, bytes: &[u8; SECTOR]) {
        let end = (at + 1) * SECTOR;
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[at * SECTOR..end].copy_from_slice(bytes);
    }

    fn sector(&self, at: usize) -> [u8; SECTOR] {
        if let Some(bytes) = self.pending.get(&at) {
            return *bytes;
        }
        let durable = self.durable.get(at * SECTOR..(at + 1) * SECTOR);
        durable.map_or([0; SECTOR], |bytes| bytes.try_into().unwrap())
    }
}

#[derive(Debug)]
struct Handle {
    disk: Arc<Disk>,
    inode: u64,
    is_log: bool,
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.alive()?;
        Ok(state.file(self.inode).len as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.alive()?;
        let file = state.file(self.inode);
        let offset = usize::try_from(offset).unwrap();
        if offset + out.len() > file.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut at, mut out) = (offset, out);
        while !out.is_empty() {
            let from = at % SECTOR;
            let n = out.len().min(SECTOR - from);
            let (front, rest) = out.split_at_mut(n);
            front.copy_from_slice(&file.sector(at / SECTOR)[from..from + n]);
            (at, out) = (at + n, rest);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.alive()?;
        state.file(self.inode).len = usize::try_from(len).unwrap();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.alive()?;
        let state = &mut *state;
        if self.is_log && state.skips_log_syncs {
            return Ok(());
        }
        let file = state.files.entry(self.inode).or_default();
        let one_in = state.sync_fails_one_in;
        let fails = one_in > 0 && state.random.one_in(one_in);
        for (at, bytes) in file.pending.clone() {
            if !fails || state.random.one_in(2) {
                file.persist(at, &bytes);
            }
        }
        if fails {
            SYNCS_FAILED.fetch_add(1, Ordering::Relaxed);
            file.poisoned = true;
            return Err(io::Error::other("the sync failed"));
        }
        file.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.count_write()?;
        let file = state.file(self.inode);
        let mut offset = usize::try_from(offset).unwrap();
        let mut data = data;
        while !data.is_empty() {
            let (at, from) = (offset / SECTOR, offset % SECTOR);
            let n = data.len().min(SECTOR - from);
            let mut sector = file.sector(at);
            sector[from..from + n].copy_from_slice(&data[..n]);
            file.pending.insert(at, sector);
            (offset, data) = (offset + n, &data[n..]);
        }
        Ok(())
    }
}

/// Neighbours are in different windows, so that records hold samples of several.
fn time_of(id: u64) -> i64 {
    let id = i64::try_from(id).unwrap();
    T0 - (id % 3) * 3_600_000 + id
}

/// Whether a message has a row of state.
fn has_state(id: u64) -> bool {
    id.is_multiple_of(3)
}

/// One message: two samples, and a row of state or none; or nothing.
fn message(id: u64, urgency: Urgency) -> WriteBatch {
    let t = time_of(id);
    let device = format!("d{}", id % 5);
    let v = (id % 7) as f64 / 10.0;
    let mut batch = WriteBatch {
        urgency,
        ..WriteBatch::default()
    };
    let key = Bytes::copy_from_slice(&id.to_be_bytes());
    let mut item = Item::default();
    if has_state(id) {
        item.on_new.push(StateOp::Put {
            table: Table::Kv,
            key,
            value: Bytes::from(vec![7; 40]),
        });
    }
    batch.push([row("a", &device, t, v), row("b", &device, t, -v)], item);
    batch
}

/// More than that are never sent.
const MESSAGES_MAX: u64 = 404;

/// Which messages are there, and what is there in part.
fn present(store: &Store) -> (Vec<u64>, Vec<&'static str>) {
    let at = |name: &str| -> BTreeMap<i64, f64> {
        let found = tests::samples(store, &[Matcher::equal("__name__", name)]);
        let samples = found.into_iter().flat_map(|(_, samples)| samples);
        samples.map(|s| (s.t.as_ms(), s.v)).collect()
    };
    let (a, b) = (at("a"), at("b"));
    let rows = store
        .scan(Table::Kv, (Bound::Unbounded, Bound::Unbounded), usize::MAX)
        .unwrap();
    let rows: Vec<u64> = rows
        .iter()
        .map(|(key, _)| u64::from_be_bytes(key[..].try_into().unwrap()))
        .collect();
    let ids: Vec<u64> = (0..MESSAGES_MAX)
        .filter(|id| a.contains_key(&time_of(*id)))
        .collect();
    let with_state: Vec<u64> = ids.iter().copied().filter(|id| has_state(*id)).collect();
    let mut halves = Vec::new();
    if rows != with_state {
        halves.push("state and samples differ");
    }
    for id in &ids {
        let t = time_of(*id);
        let v = (*id % 7) as f64 / 10.0;
        let bits = |v: Option<&f64>| v.map(|v| v.to_bits());
        assert_eq!(bits(a.get(&t)), Some(v.to_bits()), "{id} in a");
        if bits(b.get(&t)) != Some((-v).to_bits()) {
            halves.push("one of two samples");
        }
    }
    if (a.len(), b.len()) != (ids.len(), ids.len()) {
        halves.push("one of two samples");
    }
    (ids, halves)
}

/// What one run found.
#[derive(Default, Debug)]
struct Found {
    acknowledged: u64,
    /// Acknowledged and gone.
    lost: u64,
    /// Written and not acknowledged, and gone: nothing wrong with that.
    cut_off: u64,
    cuts: u64,
    seals: u64,
    rewrites: u64,
    /// Commits that went to the appended log.
    appended: u64,
    /// Roll-ups that were made.
    rolls: u64,
}

/// The first second of the day that the samples are in.
const DAY_S: u32 = 1_699_920_000;

/// What a run is made with, and its clock.
fn setup(dir: &Path, seed: u64) -> (Options, Clock) {
    let mut options = options(dir);
    if seed % 4 != 1 {
        return (options, manual(T0).0);
    }
    options.store.rollup_5m_retention = config::Span::secs(100 * 86_400);
    options.store.rollup_1h_retention = config::Span::secs(100 * 86_400);
    (options, manual(T0 + 4 * 3_600_000).0)
}

/// A directory, in memory where there is such a place.
pub(super) fn memory_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    dir.unwrap()
}

/// Another test's child process holds the lock as well between its fork and its
/// exec, for a moment after we let go of it.
fn take_lock(dir: &Path) -> DirLock {
    loop {
        match DirLock::take(dir) {
            Ok(lock) => return lock,
            Err(Error::Locked { .. }) => std::thread::yield_now(),
            Err(err) => panic!("{err:?}"),
        }
    }
}

async fn run(seed: u64, urgency: Urgency, sync_fails_one_in: u64) -> Found {
    run_on(Disk::new(seed, sync_fails_one_in), seed, urgency).await
}

async fn run_on(disk: Arc<Disk>, seed: u64, urgency: Urgency) -> Found {
    let sync_fails_one_in = disk.state().sync_fails_one_in;
    let mut random = Random::new(seed ^ 0xabcd);
    let dir = memory_dir();
    let mut found = Found::default();
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut next = 0;
    for _ in 0..3 {
        // A store writes about a hundred times until it is open and has sealed once.
        let writes = if random.one_in(3) { 600 } else { 120 };
        disk.cut_after(1 + random.below(writes));
        let (options, clock) = setup(dir.path(), seed);
        let lock = take_lock(dir.path());
        let opened = Store::open_on(disk.backends(), lock, options, clock, Metrics::new());
        if let Ok(store) = opened {
            while !disk.is_dead() && next < 400 {
                let group: Vec<u64> = (next..next + 1 + random.below(4)).collect();
                next = group[group.len() - 1] + 1;
                let writes = group.iter().map(|id| store.write(message(*id, urgency)));
                let all = futures_util::future::join_all(writes);
                // When the power goes the writer tries again until it is told to stop.
                let answers = tokio::select! {
                    answers = all => answers,
                    () = power_off(&disk) => break,
                };
                let taken = group.iter().zip(&answers).filter(|(_, a)| a.is_ok());
                acknowledged.extend(taken.map(|(id, _)| *id));
                if random.one_in(6) {
                    tokio::select! {
                        sealed = store.seal_now() => found.seals += u64::from(sealed.is_ok()),
                        () = power_off(&disk) => break,
                    }
                }
                if random.one_in(12) {
                    tokio::select! {
                        done = store.compact_now() => found.rewrites += u64::from(done.is_ok()),
                        () = power_off(&disk) => break,
                    }
                }
            }
            found.cuts += u64::from(disk.is_dead());
            let metrics = &store.shared.metrics.store;
            found.appended += metrics.log_commits.get();
            found.rolls += metrics.rollups.get();
            store.close().await;
        }
        disk.power_on();
    }
    // Opening must not fail for longer than syncs do.
    let store = loop {
        let metrics = Metrics::new();
        let lock = take_lock(dir.path());
        let (options, clock) = setup(dir.path(), seed);
        match Store::open_on(disk.backends(), lock, options, clock, metrics) {
            Ok(store) => break store,
            Err(err) => assert!(sync_fails_one_in > 0, "seed {seed}: {err:?}"),
        }
    };
    let (there, halves) = present(&store);
    if !disk.state().skips_log_syncs {
        assert_eq!(halves, [] as [&str; 0], "SEED={seed}");
        assert_eq!(store.verify().faults, [], "SEED={seed}");
        sealer::tests::rolls::check_current(&store, DAY_S);
    }
    found.acknowledged = acknowledged.len() as u64;
    found.lost = acknowledged.iter().filter(|id| !there.contains(id)).count() as u64;
    found.cut_off = next - there.len() as u64 - found.lost;
    store.close().await;
    found
}

async fn power_off(disk: &Disk) {
    while !disk.is_dead() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

async fn run_all(seeds: std::ops::Range<u64>, urgency: Urgency, one_in: u64) -> Found {
    let mut all = Found::default();
    for seed in seeds {
        let found = run(seed, urgency, one_in).await;
        if urgency == Urgency::Commit {
            assert_eq!(found.lost, 0, "SEED={seed}: {found:?}");
        }
        all.acknowledged += found.acknowledged;
        all.lost += found.lost;
        all.cut_off += found.cut_off;
        all.cuts += found.cuts;
        all.seals += found.seals;
        all.rewrites += found.rewrites;
        all.appended += found.appended;
        all.rolls += found.rolls;
    }
    all
}

/// How many seeds: `PULSE_TEST_LONG=1` runs 10,000 for each 200.
fn seeds(usual: u64) -> u64 {
    let long = std::env::var_os("PULSE_TEST_LONG").is_some_and(|value| value == "1");
    if long { usual * 50 } else { usual }
}

/// `PULSE_TEST_SEED` begins elsewhere.
fn first_seed() -> u64 {
    let seed = std::env::var("PULSE_TEST_SEED").ok();
    seed.and_then(|seed| seed.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn an_acknowledged_batch_survives_every_power_cut_whole() {
    let found = run_all(first_seed()..first_seed() + seeds(200), Urgency::Commit, 0).await;
    assert!(found.cuts > 200 && found.acknowledged > 1_000, "{found:?}");
    assert!(found.cut_off > 0, "the cuts lost nothing: {found:?}");
    assert!(found.seals > 10 && found.rewrites > 5, "{found:?}");
    assert!(found.appended > 500 && found.rolls > 5, "{found:?}");
    assert!(SECTORS_LOST.load(Ordering::Relaxed) > 1_000);
}

#[tokio::test]
async fn a_batch_survives_failing_syncs_and_power_cuts() {
    let first = 1_000_000 + first_seed();
    let found = run_all(first..first + seeds(40), Urgency::Commit, 12).await;
    assert!(found.cuts > 40 && found.acknowledged > 200, "{found:?}");
    assert!(found.appended > 50, "{found:?}");
    assert!(SYNCS_FAILED.load(Ordering::Relaxed) > 30);
}

/// The control: answers that go out before the commit are lost by the same cuts.
#[tokio::test]
async fn answers_before_the_commit_would_be_lost() {
    let found = run_all(0..10, Urgency::RideAlong, 0).await;
    assert!(found.lost > 0, "{found:?}");
}

/// The control: without the sync of the appended log the same cuts lose what was
/// acknowledged.
#[tokio::test]
async fn without_the_sync_of_the_log_answers_would_be_lost() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk = Disk::new(seed, 0);
        disk.skip_log_syncs();
        lost += run_on(disk, seed, Urgency::Commit).await.lost;
    }
    assert!(lost > 0);
}
