//! Reading by chunks, and what may be left out of a reading.

use std::sync::Mutex;

use super::*;
use crate::model::Clock;
use crate::promql::Queryable as _;
use crate::store::Store;
use crate::store::tests::{T0, batch, manual, options, row};
use crate::telemetry::Metrics;

/// So long a range that a chunk has four series.
const LONG_MS: i64 = 40 * 86_400_000;

#[test]
fn a_chunk_of_short_series_does_not_make_the_next_one_hold_all() {
    let fits = chunk_series(4, 768, 2);
    assert_eq!(fits, *CHUNK_SERIES.end());
    assert_eq!(next_size(15, fits), 30);
    assert_eq!(next_size(30, chunk_series(5_760, 768, 2)), 11);
}

async fn store_of(dir: &std::path::Path, clock: Clock, series: u32) -> Store {
    let store = Store::open(options(dir), clock, Metrics::new()).unwrap();
    let rows = (0..series).map(|i| row("a", &format!("d{i:02}"), T0, f64::from(i)));
    store.write(batch(rows)).await.unwrap();
    store
}

fn visit(
    store: &Store,
    hints: &SelectHints,
    take: impl Fn(f64) -> Result<(), QueryError> + Sync,
) -> Result<(), QueryError> {
    let (start, end) = (Timestamp::from_ms(T0 - LONG_MS), Timestamp::from_ms(T0 + 1));
    let mut one = |_: &Labels, samples: &[Sample]| take(samples[0].v);
    let mut other = one;
    store.for_each(start, end, &[], hints, &mut [&mut one, &mut other])
}

#[tokio::test]
async fn chunks_read_on_other_threads_lose_nothing_and_stop_at_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_of(dir.path(), manual(T0 + 1_000).0, 41).await;
    let mut hints = SelectHints::default();
    let seen = Mutex::new(Vec::new());
    visit(&store, &hints, |v| {
        seen.lock().unwrap().push(v);
        Ok(())
    })
    .unwrap();
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable_by(f64::total_cmp);
    assert_eq!(seen, (0..41).map(f64::from).collect::<Vec<_>>());

    let count = AtomicUsize::new(0);
    let stopped = visit(&store, &hints, |_| {
        if count.fetch_add(1, Ordering::Relaxed) < 5 {
            Ok(())
        } else {
            Err(QueryError::TooManySamples)
        }
    });
    assert!(matches!(stopped, Err(QueryError::TooManySamples)));
    // Each thread ends at its first error.
    assert!((6..=7).contains(&count.into_inner()));

    hints.series_max = 40;
    let many = visit(&store, &hints, |_| Ok(()));
    assert!(matches!(many, Err(QueryError::TooManySeries(40))));

    hints.cancel.store(true, Ordering::Relaxed);
    let cancelled = visit(&store, &hints, |_| Ok(()));
    assert!(matches!(cancelled, Err(QueryError::Cancelled)));
    store.close().await;
}

/// The values of all series, with any times.
fn values(store: &Store, from: i64, to: i64, any_times: bool) -> Vec<Vec<u64>> {
    let hints = SelectHints {
        any_times,
        ..SelectHints::default()
    };
    let mut all = Vec::new();
    let mut take = |labels: &Labels, samples: &[Sample]| {
        assert!(samples.windows(2).all(|pair| pair[0].t < pair[1].t));
        let inside = |s: &Sample| (from..=to).contains(&s.t.as_ms());
        assert!(samples.iter().all(inside));
        let bits = samples.iter().map(|s| s.v.to_bits()).collect();
        all.push((labels.clone(), bits));
        Ok(())
    };
    let (from, to) = (Timestamp::from_ms(from), Timestamp::from_ms(to));
    store
        .for_each(from, to, &[], &hints, &mut [&mut take])
        .unwrap();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.into_iter().map(|(_, bits)| bits).collect()
}

#[tokio::test]
async fn values_are_the_same_with_any_times_late_samples_included() {
    const HOUR: i64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path()), manual(T0).0, Metrics::new()).unwrap();
    let rows = |from: i64, n: i64, step: i64| {
        let devices = (0..3).map(|d| format!("d{d}"));
        let all = devices.flat_map(move |d| {
            (0..n).map(move |i| row("a", &d, from + i * step, (from / 7 + i * i) as f64))
        });
        batch(all.collect::<Vec<_>>())
    };
    let check = |what: &str, from: i64, to: i64| {
        let want = values(&store, from, to, false);
        assert_eq!(want.len(), 4);
        assert_eq!(values(&store, from, to, true), want, "{what}");
    };
    let day = T0 - 12 * HOUR;
    store.write(rows(day, 2_000, 15_000)).await.unwrap();
    // One that is not in the first hour from its start.
    let begin = day + HOUR / 2 + 1;
    let other = (0..600).map(|i| row("b", "d0", begin + i * 9_000, (i * i) as f64));
    let other = batch(other.collect::<Vec<_>>());
    store.write(other).await.unwrap();
    store.seal_now().await.unwrap();
    store
        .write(rows(day + 9 * HOUR, 100, 15_000))
        .await
        .unwrap();
    let half = day + HOUR / 2;
    for (from, to) in [
        (day - 1, T0),
        (half, T0),
        (half + 2, T0),
        (day, day + 2 * HOUR),
    ] {
        check("sealed, and behind it in memory", from, to);
    }
    // Some of these are there already, the others lie between those that are.
    store.write(rows(day + 5 * HOUR, 300, 5_000)).await.unwrap();
    check("late in memory", day - 1, T0);
    store.seal_now().await.unwrap();
    check("late in a generation of its own", day - 1, T0);
    store.close().await;
}
