//! Ends that were kept answer as the columns do.

use roaring::RoaringBitmap;

use super::*;
use crate::store::deleted::Tombstone;
use crate::store::sealed::ends::Wanted;
use crate::store::sealed::kept;
use crate::store::sealed::page::EntryKey;

type Model = BTreeMap<u32, BTreeMap<i64, u64>>;

/// Asks for the last minutes of all series, as rules do, and compares with the model.
fn check(file: &SealedFile, model: &Model, (start, end): (i64, i64), newest_only: bool) {
    let targets: Vec<_> = model.keys().map(|ref_id| (1, *ref_id)).collect();
    let room = Room {
        newest_only,
        ..Room::of(usize::MAX)
    };
    let mut out = vec![Vec::new(); targets.len()];
    file.read(&targets, start, end, room, &mut out).unwrap();
    for (found, model) in out.iter().zip(model.values()) {
        let found: Vec<_> = found.iter().map(|s| (s.t.as_ms(), s.v.to_bits())).collect();
        let wanted: Vec<_> = model.range(start..=end).map(|(t, v)| (*t, *v)).collect();
        match newest_only {
            // Of each generation one.
            true => assert_eq!(found.last(), wanted.last(), "{start} to {end}"),
            false => assert_eq!(found, wanted, "{start} to {end}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ends_answer_as_their_columns(
        seals in prop::collection::vec(
            prop::collection::btree_map(
                0_u32..4,
                prop::collection::btree_map(0_i64..3_600_000, any::<u64>(), 1..150),
                1..4,
            ),
            1..3,
        ),
        asked in prop::collection::vec(
            (0_i64..3_700_000, 0_i64..700_000, any::<bool>()),
            1..20,
        ),
        deleted in prop::option::of((0_i64..3_600_000, 0_i64..3_600_000)),
        bytes_max in prop_oneof![Just(4_000_usize), Just(1 << 20)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let tombstones = Tombstones::default();
        let pages = Arc::new(Pages::new(bytes_max));
        let file = open(&dir.path().join("f")).keeping(&pages).hiding(tombstones.clone(), 1);
        let mut model = Model::new();
        for series in &seals {
            let sealed = series.iter().map(|(ref_id, samples)| SealedSeries {
                ref_id: *ref_id,
                metric_sym: 1,
                group: 0,
                samples: samples.iter().map(|(t, v)| Sample::new(WINDOW_MS + t, f64::from_bits(*v))).collect(),
            });
            write(&file, sealed.collect()).unwrap();
            for (ref_id, samples) in series {
                let all = model.entry(*ref_id).or_default();
                for (t, v) in samples {
                    all.entry(WINDOW_MS + t).or_insert(*v);
                }
            }
        }
        for (at, (end, back, newest_only)) in asked.iter().enumerate() {
            if let Some((start, end)) = deleted && at == asked.len() / 2 {
                let (start, end) = (WINDOW_MS + start.min(end), WINDOW_MS + start.max(end));
                tombstones.replace(vec![Tombstone {
                    id: 1,
                    before: 100,
                    start,
                    end,
                    series: RoaringBitmap::from([0, 2]),
                }]);
                for ref_id in [0, 2] {
                    if let Some(samples) = model.get_mut(&ref_id) {
                        samples.retain(|t, _| !(start..=end).contains(t));
                    }
                }
            }
            let end = WINDOW_MS + end;
            check(&file, &model, (end - back, end), *newest_only);
        }
    }
}

#[test]
fn the_end_of_a_column_is_decoded_once() {
    let dir = tempfile::tempdir().unwrap();
    let pages = Arc::new(Pages::new(1 << 20));
    let file = open(&dir.path().join("f")).keeping(&pages);
    write(&file, hour(3)).unwrap();
    let place = |ref_id: u32| kept::Place {
        file: file.kept.1,
        window: WINDOW_S,
        generation: 0,
        first: EntryKey {
            metric_sym: ref_id,
            ref_id,
            part: 0,
        },
    };
    let end = WINDOW_MS + 3_600_000;
    let wanted = |from, newest_only| Wanted {
        range: (from, end),
        newest_only,
    };
    let kept = |ref_id, wanted| {
        let mut found = Vec::new();
        let is_kept = pages.ends.read(place(ref_id), wanted, &mut found);
        is_kept.then_some(found.len())
    };
    let asked = end - 300_000;
    assert_eq!(kept(0, wanted(asked, false)), None);
    read_all(&file, &[(0, 0)], asked, end).unwrap();
    assert_eq!(kept(0, wanted(asked, false)), Some(20));
    assert_eq!(kept(0, wanted(asked + 150_000, false)), Some(10));
    assert_eq!(kept(0, wanted(asked - 1, true)), Some(1));
    assert_eq!(kept(0, wanted(asked - 1, false)), None, "it begins later");
    assert_eq!(kept(1, wanted(asked, false)), None, "nobody asked");
    read_all(&file, &[(1, 1)], end - 3_600_000, end).unwrap();
    assert_eq!(kept(1, wanted(asked, false)), None, "too long to keep");
}
