//! One flipped bit anywhere in a data directory: never a wrong value, and never a gap
//! that nobody tells of.
//!
//! A directory is made once, closed cleanly, so that redb has no reason to look at its
//! own checksums. Then one bit of one file is flipped at a time, in each page of each
//! file, and the directory is opened and read: samples, roll-ups and state. Either the
//! start or the query says that something is wrong, or everything is what it was, or
//! what is missing was counted. Whatever is wrong, `pulse verify` finds as well. Many
//! bits do nothing: a file holds room that is not in use.
//!
//! Most flips are looked at by a read-only start, which changes nothing. Some are by a
//! usual one, on a copy, that goes on writing.

use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::power_cut::{Random, memory_dir};
use super::tests::{T0, batch, labels, manual, options, row};
use super::*;
use crate::config::Span;
use crate::model::{Labels, Sample};
use crate::promql::{Engine, Queryable as _, SelectHints, Value, parse};

const DAY: i64 = 86_400_000;

/// Bits that are flipped in each file. The long mode flips one in each page at least, in
/// several ways.
const FLIPS: usize = 40;

const PAGE: usize = 4_096;

/// Commits in the logs; one of three has a row of state, and goes to redb.
const COMMITS: i64 = 40;

/// A file that cannot be written is tried again for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// A series' labels or a state row's key, and what it has: times and the bits of values.
pub(super) type Whole = Vec<(String, Vec<(i64, u64)>)>;

fn is_long() -> bool {
    std::env::var_os("PULSE_TEST_LONG").is_some_and(|value| value == "1")
}

pub(super) fn open(dir: &Path, read_only: bool) -> Result<(Store, Arc<Metrics>), Error> {
    let metrics = Metrics::new();
    let mut options = options(dir);
    options.store.read_only = read_only;
    options.store.rollup_5m_retention = Span::secs(180 * 86_400);
    options.store.rollup_1h_retention = Span::secs(730 * 86_400);
    let clock = manual(T0 + 60_000).0;
    let store = Store::open(options, clock, Arc::clone(&metrics))?;
    Ok((store, metrics))
}

fn name(series: i64) -> String {
    format!("m{}", series / 10)
}

fn device(series: i64) -> String {
    format!("d{}", series % 10)
}

/// A day in its long columns with its roll-ups, hours of another one, and both logs.
async fn filled() -> tempfile::TempDir {
    let dir = memory_dir();
    fill(dir.path()).await.close().await;
    dir
}

/// What [`filled`] has, in use.
pub(super) async fn fill(dir: &Path) -> Store {
    let (store, _) = open(dir, false).unwrap();
    for day in (0..2).rev() {
        let value = |series: i64, i: i64| ((i * i * 7 + series * 31) % 101) as f64 / 7.0;
        let rows = (0..30).flat_map(|series| {
            let t = T0 - day * DAY - DAY / 4;
            (0..150).map(move |i| {
                let (name, device) = (name(series), device(series));
                row(&name, &device, t + i * 15_000, value(series, i))
            })
        });
        store.write(batch(rows)).await.unwrap();
        match day {
            1 => store.compact_now().await.unwrap(),
            _ => store.seal_now().await.unwrap(),
        }
    }
    for i in 0..COMMITS {
        let series = 0..30;
        let rows = series.map(|n| row(&name(n), &device(n), T0 + i * 1_000, i as f64 / 3.0));
        let mut batch = WriteBatch::default();
        let mut item = Item::default();
        if i % 3 == 0 {
            item.on_new.push(StateOp::Put {
                table: Table::Kv,
                key: format!("key {i}").into(),
                value: vec![b'v'; 200].into(),
            });
        }
        batch.push(rows, item);
        store.write(batch).await.unwrap();
    }
    store
}

fn points(samples: &[Sample]) -> Vec<(i64, u64)> {
    let point = |s: &Sample| (s.t.as_ms(), s.v.to_bits());
    samples.iter().map(point).collect()
}

/// Everything that a store answers, or the first error.
pub(super) fn read(store: &Store) -> Result<Whole, Box<dyn std::error::Error>> {
    let hints = SelectHints::default();
    let found = store.select(Timestamp::MIN, Timestamp::MAX, &[], &hints)?;
    let series = found.iter();
    let mut whole: Whole = series
        .map(|s| (s.labels.to_string(), points(&s.samples)))
        .collect();
    for (range, step) in [("5m", 300), ("1h", 3_600)] {
        let all = format!("last_over_time({{__name__=~\"m.\"}}[{range}])");
        whole.extend(rolled(store, &all, step)?);
        for function in ["min", "max", "count"] {
            let query = format!("{function}_over_time(m0[{range}])");
            whole.extend(rolled(store, &query, step)?);
        }
    }
    let rows = store.scan(Table::Kv, (Bound::Unbounded, Bound::Unbounded), usize::MAX)?;
    for (key, value) in rows.into_iter().filter(|(key, _)| key != "clock") {
        let value = i64::try_from(xxh3_64(&value) >> 1)?;
        whole.push((String::from_utf8_lossy(&key).into_owned(), vec![(value, 0)]));
    }
    Ok(whole)
}

/// A query over the day that has roll-ups.
fn rolled(store: &Store, query: &str, step: u64) -> Result<Whole, Box<dyn std::error::Error>> {
    let midnight = T0 - T0.rem_euclid(DAY);
    let (from, to) = (midnight - DAY, midnight - 3_600_000);
    let (from, to) = (Timestamp::from_ms(from), Timestamp::from_ms(to));
    let cancel = Arc::new(AtomicBool::new(false));
    let expr = parse(query)?;
    // A new engine each time: it keeps no answers.
    let engine = Engine::default();
    let step = Duration::from_secs(step);
    let output = engine.range(store, &expr, from, to, step, &cancel)?;
    if output.is_incomplete {
        return Err(output.warnings.join(", ").into());
    }
    let Value::Matrix(series) = output.value else {
        panic!("{query}: no matrix");
    };
    let of = |labels: &Labels| format!("{query} of {labels}");
    let series = series.iter();
    Ok(series
        .map(|s| (of(&s.labels), points(&s.samples)))
        .collect())
}

pub(super) fn copy(from: &Path) -> tempfile::TempDir {
    let to = memory_dir();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    to
}

/// What a flipped bit came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// Nothing reads it.
    Unseen,
    /// The start or the query says so.
    Told,
    /// Something is missing, and it is counted.
    Gap,
    /// The last commits are missing: as far as anybody can tell, the record of one was
    /// never finished and so never acknowledged.
    LastCommit,
    /// What must never be.
    Wrong(String),
}

use Came::{Gap, LastCommit, Told, Unseen, Wrong};

/// What these answers are beside those of the whole directory.
pub(super) fn compare(found: &Whole, whole: &Whole, metrics: &Metrics) -> Came {
    if found == whole {
        return Unseen;
    }
    for (what, points) in found {
        let Some((_, known)) = whole.iter().find(|(known, _)| known == what) else {
            return Wrong(format!("nobody wrote {what}"));
        };
        let is_known = |point: &&(i64, u64)| known.binary_search(point).is_ok();
        if let Some(point) = points.iter().find(|point| !is_known(point)) {
            return Wrong(format!("{what} has {point:?}"));
        }
    }
    let store = &metrics.store;
    if store.checksum_failures.get() > 0 || store.quarantined.get() > 0 {
        return Gap;
    }
    if without_last(found) == without_last(whole) {
        return LastCommit;
    }
    Wrong("a gap that nobody tells of".to_owned())
}

/// All but the samples of the last commit.
fn without_last(all: &Whole) -> Whole {
    let last = T0 + (COMMITS - 1) * 1_000;
    let mut all = all.clone();
    for (_, points) in &mut all {
        points.retain(|(t, _)| *t != last);
    }
    all
}

/// Opens a directory and reads it.
fn look(dir: &Path, whole: &Whole) -> Came {
    match open(dir, true) {
        Ok((store, metrics)) => match read(&store) {
            Ok(found) => compare(&found, whole, &metrics),
            Err(_) => Told,
        },
        Err(_) => Told,
    }
}

/// Opens a copy of a directory, goes on writing there, and reads it.
async fn go_on(dir: &Path, whole: &Whole) -> Came {
    let dir = copy(dir);
    let Ok((store, metrics)) = open(dir.path(), false) else {
        return Told;
    };
    let fresh = row("fresh", "d1", T0 + 50_000, 7.0);
    // What it wrote itself must be there, and nothing else with it.
    let written = tokio::time::timeout(PATIENCE, store.write(batch([fresh]))).await;
    let taken = written.is_ok_and(|taken| taken.is_ok());
    // A damaged day may refuse.
    let _ = tokio::time::timeout(PATIENCE, store.compact_now()).await;
    let found = read(&store);
    store.close().await;
    let Ok(mut found) = found else {
        return Told;
    };
    let of_fresh = labels("fresh", "d1").to_string();
    let own: Vec<_> = found
        .extract_if(.., |(what, _)| *what == of_fresh)
        .collect();
    if taken && own != [(of_fresh, vec![(T0 + 50_000, 7.0_f64.to_bits())])] {
        return Wrong(format!("a new series has {own:?}"));
    }
    compare(&found, whole, &metrics)
}

/// Whether `pulse verify` finds nothing.
fn passes_verify(dir: &Path) -> bool {
    verify::verify_offline(dir).is_ok_and(|checked| checked.fault_count == 0)
}

/// Places that are not zero: one in each page of a file, or in some, and as many in the
/// pages of values that it has, if it has such.
fn places(path: &Path, bytes: &[u8], random: &mut Random) -> Vec<usize> {
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut any = |of: &[usize]| of[usize::try_from(random.below(of.len() as u64)).unwrap()];
    let pages = used.chunk_by(|a, b| a / PAGE == b / PAGE);
    let mut places: Vec<usize> = pages.map(&mut any).collect();
    while !is_long() && places.len() > FLIPS / 2 {
        places.swap_remove(any(&(0..places.len()).collect::<Vec<_>>()));
    }
    let name = path.file_name().unwrap().to_str().unwrap();
    let values = match sealed::Kind::parse(name) {
        Some(_) => verify::tests::pages_of(path),
        None => Vec::new(),
    };
    let of_values = values.iter().flat_map(|page| {
        let start = position(bytes, page).unwrap();
        start..start + page.len()
    });
    let of_values: Vec<usize> = of_values.collect();
    let others = if of_values.is_empty() {
        &used
    } else {
        &of_values
    };
    for _ in 0..FLIPS / 2 {
        places.push(any(others));
    }
    places
}

/// What the flips of a file came to.
#[derive(Default, Debug)]
struct Swept {
    flips: u64,
    errors: u64,
    gaps: u64,
    wrong: Vec<String>,
}

/// Flips bits of a file, one at a time.
async fn sweep(base: &Path, name: &str, whole: &Whole, rounds: u64) -> Swept {
    let path = base.join(name);
    let bytes = fs::read(&path).unwrap();
    let mut swept = Swept::default();
    for round in 0..rounds {
        let mut random = Random::new(7 + round);
        fs::write(&path, &bytes).unwrap();
        for (n, place) in places(&path, &bytes, &mut random).into_iter().enumerate() {
            let bit: u8 = 1 << random.below(8);
            let mut flipped = bytes.clone();
            flipped[place] ^= bit;
            fs::write(&path, &flipped).unwrap();
            swept.flips += 1;
            let came = match n % 5 {
                0 => go_on(base, whole).await,
                _ => look(base, whole),
            };
            let what = format!("{name}: bit {bit:#x} of byte {place} of round {round}");
            match came {
                Unseen | LastCommit => continue,
                Wrong(why) => {
                    swept.wrong.push(format!("{what}: {why}"));
                    continue;
                }
                Told => swept.errors += 1,
                Gap => swept.gaps += 1,
            }
            if passes_verify(base) {
                swept.wrong.push(format!("{what}: verify finds nothing"));
            }
        }
    }
    fs::write(&path, bytes).unwrap();
    swept
}

fn whole_of(dir: &Path) -> Whole {
    let (store, _) = open(dir, true).unwrap();
    read(&store).unwrap()
}

#[tokio::test]
async fn a_flipped_bit_gives_no_wrong_answer_and_no_silent_gap() {
    let base = filled().await;
    let whole = whole_of(base.path());
    assert_eq!(look(base.path(), &whole), Unseen);
    assert!(passes_verify(base.path()));
    // 30 series, their last values, what three functions make of ten, both in two ways.
    assert!(whole.len() > 30 * 3 + 10 * 6, "{}", whole.len());
    let log = super::appended::current_of(base.path());
    let log = log.file_name().unwrap().to_str().unwrap();
    let files = [
        "day-20231113.redb",
        "l0-20231114.redb",
        "roll5m-20231113.redb",
        "roll1h-20231113.redb",
        log,
        "hot.redb",
        "FORMAT",
    ];
    let rounds = if is_long() { 20 } else { 1 };
    let mut all = Vec::new();
    for name in files {
        all.push((name, sweep(base.path(), name, &whole, rounds).await));
    }
    let wrong: Vec<_> = all.iter().flat_map(|(_, swept)| &swept.wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // One wrong bit of a page is set right there.
    let is_mended = |name: &str, swept: &Swept| name == "hot.redb" && swept.errors == 0;
    let is_told = |swept: &Swept| swept.errors + swept.gaps > swept.flips / 20;
    let right = |(name, swept): &(&str, Swept)| is_mended(name, swept) || is_told(swept);
    assert!(all.iter().all(right), "{all:#?}");
    assert_eq!(whole_of(base.path()), whole);
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|some| some == wanted)
}

/// The control: with a checksum that matches again, a flipped bit is a wrong value,
/// and the test above would see it.
#[tokio::test]
async fn without_checksums_a_flipped_bit_would_be_a_wrong_value() {
    let base = filled().await;
    let whole = whole_of(base.path());
    let path: PathBuf = base.path().join("day-20231113.redb");
    let bytes = fs::read(&path).unwrap();
    let page = verify::tests::pages_of(&path).remove(0);
    let start = position(&bytes, &page).unwrap();
    let content = page.len() - 8;
    let mut wrong = 0;
    for place in (content / 2..content).step_by(content / 20) {
        let mut flipped = page.clone();
        flipped[place] ^= 1;
        let hash = xxh3_64(&flipped[..content]).to_le_bytes();
        flipped[content..].copy_from_slice(&hash);
        let mut file = bytes.clone();
        file[start..start + page.len()].copy_from_slice(&flipped);
        fs::write(&path, file).unwrap();
        wrong += u64::from(matches!(look(base.path(), &whole), Wrong(_)));
    }
    assert!(wrong > 0, "no flip changed a value");
}

/// The control of the catalog: a changed text is another label where the rows of the
/// series agree with it, and only there.
#[tokio::test]
async fn without_its_hash_a_flipped_bit_of_a_text_would_be_a_wrong_label() {
    for rehash in [false, true] {
        let base = filled().await;
        let whole = whole_of(base.path());
        let db = redb::Database::open(base.path().join(tables::HOT_FILE)).unwrap();
        let txn = db.begin_write().unwrap();
        {
            let mut texts = txn.open_table(tables::SYMBOLS).unwrap();
            let of_d3 = {
                let mut all = redb::ReadableTable::iter(&texts).unwrap();
                let d3 = all.find(|row| row.as_ref().unwrap().1.value() == "d3");
                d3.unwrap().unwrap().0.value()
            };
            texts.insert(of_d3, "d;").unwrap();
        }
        txn.commit().unwrap();
        if rehash {
            catalog::tests::rehash(&db);
        }
        drop(db);
        let came = look(base.path(), &whole);
        match rehash {
            true => assert!(matches!(came, Wrong(_)), "{came:?}"),
            false => assert_eq!(came, Gap),
        }
    }
}

/// The last series' row stands under another key: a new series must not get its number,
/// under which its samples are in the log.
#[tokio::test]
async fn a_number_whose_series_is_lost_is_not_given_again() {
    let base = filled().await;
    let whole = whole_of(base.path());
    let db = redb::Database::open(base.path().join(tables::HOT_FILE)).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let mut series = txn.open_table(tables::SERIES).unwrap();
        let row = {
            let (_, row) = series.pop_last().unwrap().unwrap();
            row.value().to_vec()
        };
        series.insert(0, row.as_slice()).unwrap();
    }
    txn.commit().unwrap();
    drop(db);
    assert_eq!(go_on(base.path(), &whole).await, Gap);
    assert!(!passes_verify(base.path()));
}
