//! Seals and reads against a model, a full disk, missing pages and flipped bits.

mod day;
mod ends;
mod fixture;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableTable as _};

use super::*;
use crate::model::stale_nan;
use crate::store::sealed::Room;
use crate::store::sealed::tables::SYM;

const CACHE: usize = 1 << 18;
const WINDOW_S: u32 = 1_767_225_600;
const WINDOW_MS: i64 = WINDOW_S as i64 * 1_000;

/// Bytes written so far, and after how many of them the disk fails.
#[derive(Debug, Default)]
struct Disk {
    written: AtomicU64,
    fails_after: Option<u64>,
}

#[derive(Debug)]
struct TestBackend {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl Disk {
    fn check(&self, bytes: u64) -> io::Result<()> {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match self.fails_after {
            Some(limit) if written > limit => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for TestBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.check(0)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.check(0)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.check(data.len() as u64)?;
        self.file.write(offset, data)
    }
}

fn backends(disk: &Arc<Disk>) -> Backends {
    let disk = Arc::clone(disk);
    Arc::new(move |path| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Box::new(TestBackend {
            file: FileBackend::new(file).map_err(io::Error::other)?,
            disk: Arc::clone(&disk),
        }))
    })
}

fn open(path: &Path) -> SealedFile {
    open_on(path, CACHE, &Arc::default())
}

/// Opens the file; makes it when there is none.
fn open_on(path: &Path, cache_bytes: usize, disk: &Arc<Disk>) -> SealedFile {
    let open = if path.exists() {
        SealedFile::open
    } else {
        SealedFile::create
    };
    open(path, cache_bytes, &backends(disk)).unwrap()
}

fn open_frozen(path: &Path) -> Result<SealedFile, Error> {
    SealedFile::open_frozen(path, CACHE, &backends(&Arc::default()))
}

fn labels_of(ref_id: u32) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("metric_{}", ref_id % 10)),
        ("device_id", format!("device-{ref_id}")),
        ("tenant_id", "acme".to_owned()),
    ])
}

fn samples(times: impl IntoIterator<Item = i64>, seed: u32) -> Vec<Sample> {
    let value = |i: usize| {
        let mixed = (u32::try_from(i).unwrap() ^ (seed << 12)).wrapping_mul(0x9e37_79b1);
        f64::from((mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca6b) >> 22) / 10.0
    };
    times
        .into_iter()
        .enumerate()
        .map(|(i, ms)| Sample::new(WINDOW_MS + ms, value(i)))
        .collect()
}

/// 240 samples at 15 s, some series with fewer, in the order of their keys.
fn hour(series: u32) -> Vec<SealedSeries> {
    let mut all: Vec<SealedSeries> = (0..series)
        .map(|ref_id| {
            let from = if ref_id % 11 == 3 { 100 } else { 0 };
            SealedSeries {
                ref_id,
                metric_sym: ref_id % 10,
                group: ref_id / 100,
                samples: samples((from..240).map(|i| i * 15_000), ref_id),
            }
        })
        .collect();
    all.sort_by_key(|s| (s.metric_sym, s.ref_id));
    all
}

fn write(file: &SealedFile, series: Vec<SealedSeries>) -> Result<Generation, Error> {
    file.write_generation(WINDOW_S, CommitSeq(5)..=CommitSeq(9), series, labels_of)
}

fn read_all(
    file: &SealedFile,
    targets: &[(u32, u32)],
    start: i64,
    end: i64,
) -> Result<Vec<Vec<Sample>>, Error> {
    let mut out = vec![Vec::new(); targets.len()];
    file.read(targets, start, end, Room::of(usize::MAX), &mut out)?;
    Ok(out)
}

fn read_one(file: &SealedFile, target: (u32, u32)) -> Result<Vec<Sample>, Error> {
    Ok(read_all(file, &[target], i64::MIN, i64::MAX)?.remove(0))
}

#[test]
fn what_was_sealed_is_read_back_also_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let series = hour(600);
    let file = open(&path);
    let generation = write(&file, series.clone()).unwrap();
    assert_eq!(generation.commit_seqs, CommitSeq(5)..=CommitSeq(9));
    assert_eq!(generation.min_time, WINDOW_MS);
    assert_eq!(generation.max_time, WINDOW_MS + 239 * 15_000);
    let targets: Vec<_> = series.iter().map(|s| (s.metric_sym, s.ref_id)).collect();
    let wanted: Vec<_> = series.iter().map(|s| s.samples.clone()).collect();
    assert_eq!(
        read_all(&file, &targets, i64::MIN, i64::MAX).unwrap(),
        wanted
    );
    file.verify().unwrap();
    drop(file);
    for file in [open(&path), {
        drop(open(&path));
        open_frozen(&path).unwrap()
    }] {
        assert_eq!(
            file.generations().as_ref(),
            std::slice::from_ref(&generation)
        );
        for (s, wanted) in series.iter().zip(&wanted).step_by(37) {
            assert_eq!(read_one(&file, (s.metric_sym, s.ref_id)).unwrap(), *wanted);
        }
        assert_eq!(file.series_ids().unwrap(), (0..600).collect::<Vec<_>>());
        for (ref_id, metric_sym, labels) in file.series().unwrap() {
            assert_eq!((metric_sym, labels), (ref_id % 10, labels_of(ref_id)));
        }
        drop(file);
    }
}

#[test]
fn a_range_cuts_exactly_and_unknown_series_are_empty() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("f"));
    write(&file, hour(200)).unwrap();
    let (start, end) = (WINDOW_MS + 15_000, WINDOW_MS + 45_000);
    let targets = [(0, 0), (0, 7), (3, 3), (3, 4), (99, 1)];
    let out = read_all(&file, &targets, start, end).unwrap();
    let lengths: Vec<_> = out.iter().map(Vec::len).collect();
    assert_eq!(lengths, [3, 0, 0, 0, 0], "series 3 starts later");
    assert_eq!(out[0][0].t.as_ms(), start);
    assert_eq!(out[0][2].t.as_ms(), end);
    let outside = read_all(&file, &targets, end + 1, end + 14_999).unwrap();
    assert!(outside.iter().all(Vec::is_empty));
}

#[test]
fn a_later_generation_adds_and_the_first_value_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("f"));
    let one = |ref_id, pairs: &[(i64, f64)]| SealedSeries {
        ref_id,
        metric_sym: 1,
        group: 0,
        samples: pairs
            .iter()
            .map(|(ms, v)| Sample::new(WINDOW_MS + ms, *v))
            .collect(),
    };
    write(&file, vec![one(1, &[(10, 1.0), (30, 3.0), (50, 5.0)])]).unwrap();
    let late = vec![
        one(1, &[(0, 0.0), (30, 99.0), (40, 4.0)]),
        one(2, &[(1, 7.0)]),
    ];
    let second = write(&file, late).unwrap();
    assert_eq!(second.generation, 1);
    let wanted = one(1, &[(0, 0.0), (10, 1.0), (30, 3.0), (40, 4.0), (50, 5.0)]);
    assert_eq!(read_one(&file, (1, 1)).unwrap(), wanted.samples);
    assert_eq!(read_one(&file, (1, 2)).unwrap().len(), 1);
    assert_eq!(file.samples(), 7);
    file.verify().unwrap();
}

#[test]
fn long_and_incompressible_series_are_split() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("f"));
    let mut state = 1u64;
    let mut noise = |i: i64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        Sample::new(WINDOW_MS + i, f64::from_bits(state))
    };
    let series: Vec<_> = (0..3)
        .map(|ref_id| SealedSeries {
            ref_id,
            metric_sym: 5,
            group: 1,
            samples: (0..20_000).map(&mut noise).collect(),
        })
        .collect();
    let generation = write(&file, series.clone()).unwrap();
    assert!(generation.pages > 20);
    for s in &series {
        assert_eq!(read_one(&file, (5, s.ref_id)).unwrap(), s.samples);
        let part = read_all(
            &file,
            &[(5, s.ref_id)],
            WINDOW_MS + 5_500,
            WINDOW_MS + 9_999,
        );
        assert_eq!(part.unwrap()[0], s.samples[5_500..10_000]);
    }
    file.verify().unwrap();
}

#[test]
fn more_samples_than_allowed_are_not_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir.path().join("f"));
    write(&file, hour(20)).unwrap();
    let mut out = vec![Vec::new(); 2];
    let targets = [(0, 0), (0, 10)];
    let read =
        |max, out: &mut [Vec<Sample>]| file.read(&targets, i64::MIN, i64::MAX, Room::of(max), out);
    assert!(matches!(
        read(479, &mut out),
        Err(Error::TooManySamples { limit: 479 })
    ));
    read(480, &mut [Vec::new(), Vec::new()]).unwrap();
}

#[test]
fn a_seal_that_the_disk_refuses_leaves_nothing_visible_and_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (hour(100), hour(700));
    let mut marked = 0;
    for fails_after in (80_000..240_000).step_by(40_000) {
        let path = dir.path().join(format!("{fails_after}"));
        write(&open(&path), first.clone()).unwrap();
        let disk = Arc::new(Disk {
            fails_after: Some(fails_after),
            ..Disk::default()
        });
        let file = SealedFile::open(&path, CACHE, &backends(&disk)).unwrap();
        let err = write(&file, second.clone()).unwrap_err();
        assert!(matches!(err, Error::Io { .. }), "{err}");
        assert_eq!(file.generations().len(), 1);
        drop(file);
        let file = open(&path);
        assert_eq!(file.generations().len(), 1);
        assert_eq!(read_one(&file, (0, 10)).unwrap(), first[1].samples);
        file.verify().unwrap();
        let pages = || {
            let pages = file.begin_read().unwrap().open_table(PAGE).unwrap();
            pages.iter().unwrap().count() as u64
        };
        let whole = || file.generations().iter().map(|g| g.pages).sum::<u64>();
        marked += u32::from(pages() > whole());
        let generation = write(&file, second.clone()).unwrap();
        assert_eq!(generation.generation, 1);
        assert_eq!(
            pages(),
            whole(),
            "the pages of the unfinished seal are gone"
        );
        file.verify().unwrap();
    }
    assert!(
        marked >= 2,
        "control: seals were cut after their first commit"
    );
}

/// Deletes a row behind the file's back.
fn remove_page(path: &Path, nth: usize) -> tables::PageKey {
    let db = Database::open(path).unwrap();
    let write = db.begin_write().unwrap();
    let key = {
        let mut pages = write.open_table(PAGE).unwrap();
        let key = pages.iter().unwrap().nth(nth).unwrap().unwrap().0.value();
        pages.remove(key).unwrap();
        key
    };
    write.commit().unwrap();
    key
}

#[test]
fn a_missing_page_is_an_error_for_the_reads_that_need_it() {
    let series = hour(500);
    let targets: Vec<_> = series.iter().map(|s| (s.metric_sym, s.ref_id)).collect();
    for nth in [0, 1, 5, usize::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pages = write(&open(&path), series.clone()).unwrap().pages;
        let nth = nth.min(usize::try_from(pages).unwrap() - 1);
        let key = remove_page(&path, nth);
        let file = open(&path);
        let damaged = |result: Result<(), Error>| matches!(result, Err(Error::Damaged { .. }));
        assert!(damaged(file.verify()));
        assert!(damaged(
            read_all(&file, &targets, i64::MIN, i64::MAX).map(drop)
        ));
        assert!(damaged(read_one(&file, (key.2, key.3)).map(drop)));
        let mut failed = 0;
        for s in &series {
            match read_one(&file, (s.metric_sym, s.ref_id)) {
                Ok(samples) => assert_eq!(samples, s.samples, "never less, silently"),
                Err(_) => failed += 1,
            }
        }
        assert!(failed > 10 && failed < series.len(), "{failed} of all");
    }
}

#[test]
fn flipped_bits_never_change_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let series = hour(60);
    write(&open(&path), series.clone()).unwrap();
    let targets: Vec<_> = series.iter().map(|s| (s.metric_sym, s.ref_id)).collect();
    let wanted: Vec<_> = series.iter().map(|s| s.samples.clone()).collect();
    let len = std::fs::metadata(&path).unwrap().len();
    let mut noticed = 0;
    let mut state = 7u64;
    for _ in 0..200 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (at, bit) = ((state >> 20) % len, state % 8);
        let flip = |file: &File| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << bit;
            file.write_all_at(&byte, at).unwrap();
        };
        let raw = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        flip(&raw);
        let answer = std::panic::catch_unwind(|| {
            let file = open_frozen(&path).ok()?;
            read_all(&file, &targets, i64::MIN, i64::MAX).ok()
        });
        match answer {
            Ok(Some(found)) => assert!(found == wanted, "byte {at}, bit {bit}"),
            _ => noticed += 1,
        }
        flip(&raw);
    }
    assert!(noticed > 20, "control: {noticed} of 200 hit something");
}

/// A copy of the file while it is open is what a crash leaves.
#[test]
fn a_crash_between_seals_needs_no_walk_through_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("f"), dir.path().join("copy"));
    let file = open(&path);
    write(&file, hour(300)).unwrap();
    let needs_repair = || {
        std::fs::copy(&path, &copy).unwrap();
        let opened = Builder::new()
            .set_repair_callback(redb::RepairSession::abort)
            .open(&copy);
        opened.is_err()
    };
    assert!(!needs_repair());
    let crashed = open(&copy);
    assert_eq!(crashed.generations(), file.generations());
    crashed.verify().unwrap();
    drop(crashed);
    // Control: a commit without the allocator's state needs the walk.
    let write = file.begin_write().unwrap();
    write
        .open_table(SYM)
        .unwrap()
        .insert(9, [].as_slice())
        .unwrap();
    write.commit().unwrap();
    assert!(needs_repair());
}

#[test]
fn a_file_opened_read_only_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write(&open(&path), hour(10)).unwrap();
    let file = open_frozen(&path).unwrap();
    let refused = write(&file, hour(1));
    assert!(matches!(
        refused,
        Err(Error::Io {
            action: "write",
            ..
        })
    ));
}

#[test]
fn a_seal_writes_little_more_than_its_pages() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let file = open_on(&dir.path().join("f"), 8 * CACHE, &disk);
    let series = hour(2_000);
    let seal = || {
        let before = disk.written.load(Ordering::Relaxed);
        let pages = write(&file, series.clone()).unwrap().pages;
        let written = disk.written.load(Ordering::Relaxed) - before;
        written as f64 / (pages * super::super::page::PAGE_MAX as u64) as f64
    };
    let (first, second) = (seal(), seal());
    assert!(first < 1.5, "{first}: pages, series and texts");
    assert!(second < 1.15, "{second}: pages only");
}

#[test]
fn another_format_is_refused_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    drop(open(&path));
    write_format(&path, 7);
    let err = SealedFile::open(&path, CACHE, &backends(&Arc::default())).err();
    assert!(matches!(err, Some(Error::Format { found: 7, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any sequence of seals reads as a map in which the first value stays.
    #[test]
    fn seals_read_as_their_model(
        seals in prop::collection::vec(
            (0u32..3, prop::collection::btree_map(
                (0u32..4, 0u32..6),
                prop::collection::btree_map(0i64..3_600_000, any::<u64>(), 1..40),
                1..12,
            )),
            1..6,
        ),
        range in (0i64..10_800_000, 0i64..10_800_000),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir.path().join("f"));
        let mut seals = seals;
        seals.sort_by_key(|(window, _)| *window);
        let mut model: BTreeMap<(u32, u32), BTreeMap<i64, u64>> = BTreeMap::new();
        for (window, series) in &seals {
            let start = i64::from(*window) * 3_600_000;
            let sealed = series.iter().map(|((metric_sym, ref_id), samples)| SealedSeries {
                ref_id: *ref_id + 10 * metric_sym,
                metric_sym: *metric_sym,
                group: 0,
                samples: samples
                    .iter()
                    .map(|(t, v)| Sample::new(start + t, f64::from_bits(*v)))
                    .collect(),
            });
            let seqs = CommitSeq(0)..=CommitSeq(0);
            file.write_generation(*window * 3_600, seqs, sealed, labels_of).unwrap();
            for ((metric_sym, ref_id), samples) in series {
                let all = model.entry((*metric_sym, *ref_id + 10 * metric_sym)).or_default();
                for (t, v) in samples {
                    all.entry(start + t).or_insert(*v);
                }
            }
        }
        file.verify().unwrap();
        let range = range.0.min(range.1)..=range.0.max(range.1);
        let targets: Vec<_> = model.keys().copied().collect();
        let found = read_all(&file, &targets, *range.start(), *range.end()).unwrap();
        for (samples, wanted) in found.iter().zip(model.values()) {
            let found: Vec<_> = samples.iter().map(|s| (s.t.as_ms(), s.v.to_bits())).collect();
            let wanted: Vec<_> = wanted.range(range.clone()).map(|(t, v)| (*t, *v)).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
