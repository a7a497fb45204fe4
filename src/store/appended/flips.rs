//! One flipped bit in each record of a log: what it costs, and that it is told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{frame, numbers, path_of, tests};
use crate::model::{Sample, Timestamp};
use crate::promql::{Gaps, Queryable as _, SelectHints};
use crate::store::bit_flip::copy;
use crate::store::power_cut::{Random, memory_dir};
use crate::store::tests::{T0, batch, manual, options, row, samples};
use crate::store::writer::LEANING_MAX;
use crate::store::{Store, verify};
use crate::telemetry::Metrics;

fn open(dir: &Path, read_only: bool) -> (Store, Arc<Metrics>) {
    let metrics = Metrics::new();
    let mut options = options(dir);
    options.store.read_only = read_only;
    let clock = manual(T0 + 3_600_000).0;
    let store = Store::open(options, clock, Arc::clone(&metrics));
    (store.unwrap(), metrics)
}

/// No series is steady, and none is a straight line.
fn value(commit: i64, series: i64) -> f64 {
    ((commit * commit * 7919 + series * 31 + commit * series) % 10_007) as f64 / 7.0
}

/// A directory with so many commits of so many series, and its log.
async fn filled(commits: i64, series: i64) -> (tempfile::TempDir, PathBuf) {
    let dir = memory_dir();
    let (store, _) = open(dir.path(), false);
    for i in 0..commits {
        let t = T0 + i * 1_000;
        let rows = (0..series).map(|n| row("m", &format!("d{n}"), t, value(i, n)));
        store.write(batch(rows)).await.unwrap();
    }
    store.close().await;
    assert_eq!(numbers(dir.path()).unwrap(), [0]);
    let path = path_of(dir.path(), 0);
    (dir, path)
}

/// The commits of which something is missing. Everything else is as it was written.
fn missing(store: &Store, commits: i64, series: i64) -> BTreeSet<i64> {
    let found = samples(store, &[]);
    let mut missing = BTreeSet::new();
    for n in 0..series {
        let name = format!("\"d{n}\"");
        let of = found.iter().find(|(labels, _)| labels.contains(&name));
        let mut there: Vec<&Sample> = of.iter().flat_map(|(_, all)| all).collect();
        for i in 0..commits {
            let t = T0 + i * 1_000;
            let at = there.iter().position(|sample| sample.t.as_ms() == t);
            match at.map(|at| there.remove(at).v) {
                Some(v) => assert_eq!(v.to_bits(), value(i, n).to_bits(), "{n} at {i}"),
                None => drop(missing.insert(i)),
            }
        }
        assert!(there.is_empty(), "nobody wrote {there:?}");
    }
    missing
}

/// Where the frames of a log begin, and how long they are.
fn frames(bytes: &[u8], owner: frame::Owner) -> Vec<(usize, usize)> {
    let life = frame::life(bytes, owner).unwrap();
    let (mut at, mut after, mut frames) = (0, 0, Vec::new());
    while let Some(seen) = frame::next(bytes, (owner, life), after, at) {
        at = frame::behind(&seen);
        let frame::Seen::Record { seq, at, body, .. } = seen else {
            panic!("a damaged one");
        };
        if body.is_empty() {
            continue;
        }
        after = seq;
        frames.push((at, body.end - at));
    }
    frames
}

/// Flips so many bits of each frame, one at a time. Gives the most commits that one cost.
async fn sweep(commits: i64, series: i64, flips: u64) -> usize {
    let (dir, path) = filled(commits, series).await;
    let whole = std::fs::read(&path).unwrap();
    let frames = frames(&whole, tests::owner_of(dir.path()));
    assert_eq!(
        frames.len() as i64,
        commits - 1,
        "the first one brings series"
    );
    let mut random = Random::new(3);
    let mut most = 0;
    for (n, (begin, len)) in frames.iter().enumerate() {
        for flip in 0..flips {
            // One of its head, the others anywhere.
            let below = if flip == 0 { 40 } else { *len };
            let at = begin + usize::try_from(random.below(below as u64)).unwrap();
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << random.below(8);
            std::fs::write(&path, &bytes).unwrap();
            let faults = verify::verify_offline(dir.path()).unwrap().fault_count;
            // A usual start, which keeps what it found, is on a copy.
            let copy = (flip == 1).then(|| copy(dir.path()));
            let place = copy.as_ref().map_or(dir.path(), |copy| copy.path());
            let (store, metrics) = open(place, copy.is_none());
            let missing = missing(&store, commits, series);
            let (start, end) = (Timestamp::MIN, Timestamp::MAX);
            let gaps = Gaps::default();
            let hints = SelectHints {
                gaps: Some(gaps.clone()),
                ..SelectHints::default()
            };
            store.select(start, end, &[], &hints).unwrap();
            let warnings = gaps.all();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings.iter().all(|w| w.contains("hot-00.log")));
            // Not of a time that has nothing to do with it.
            let gaps = Gaps::default();
            let hints = SelectHints {
                gaps: Some(gaps.clone()),
                ..SelectHints::default()
            };
            let before = Timestamp::from_ms(T0 - 1);
            store.select(start, before, &[], &hints).unwrap();
            assert_eq!(gaps.all(), [] as [&str; 0]);
            store.close().await;
            drop(store);
            assert!(missing.contains(&(n as i64 + 1)), "byte {at} has no use");
            let is_told = metrics.store.checksum_failures.get() > 0;
            assert_eq!((is_told, faults > 0), (true, true), "byte {at}");
            most = most.max(missing.len());
            if flip == 1 {
                assert_eq!(metrics.store.quarantined.get(), 1);
                let kept = std::fs::read_dir(place.join("quarantine/salvaged")).unwrap();
                let kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
                assert_eq!(std::fs::read(&kept[0]).unwrap(), bytes);
            }
        }
    }
    most
}

#[tokio::test]
async fn a_flipped_bit_costs_one_small_record() {
    assert_eq!(sweep(100, 1, 3).await, 1);
}

#[tokio::test]
async fn a_flipped_bit_costs_a_few_large_records() {
    let most = sweep(2 * i64::from(LEANING_MAX) + 2, 500, 2).await;
    assert_eq!(most, LEANING_MAX as usize);
}
