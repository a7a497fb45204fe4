//! Placing, freezing, dropping and reading of one series' samples.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A series with blocks of its own.
struct One {
    series: HeadSeries,
    blocks: Blocks,
}

impl One {
    fn new(sealed_max: i64) -> One {
        One {
            series: HeadSeries::new(sealed_max),
            blocks: Blocks::default(),
        }
    }
}

fn place(one: &mut One, t: i64, v: f64, part: PartId) -> Placed {
    let freezer = &mut Freezer::default();
    let sample = Sample::new(t, v);
    one.series
        .place(&mut one.blocks, sample, part, freezer, || None)
}

fn all(one: &One) -> Vec<Sample> {
    let mut out = Vec::new();
    one.series.read(&one.blocks, i64::MIN, i64::MAX, &mut out);
    out
}

fn sealed(id: PartId, max_t: i64) -> Part {
    Part {
        id,
        window: 0,
        first_seq: 1,
        last_seq: 1,
        samples: 1,
        min_t: 0,
        max_t,
    }
}

#[test]
fn the_first_value_of_a_time_is_kept() {
    let mut series = One::new(i64::MIN);
    assert_eq!(place(&mut series, 10, 1.0, 1), Placed::Newest);
    assert_eq!(place(&mut series, 10, 1.0, 1), Placed::Duplicate);
    assert_eq!(place(&mut series, 10, 2.0, 1), Placed::Conflict);
    assert_eq!(place(&mut series, 5, 3.0, 1), Placed::Between);
    assert_eq!(place(&mut series, 5, 3.0, 1), Placed::Duplicate);
    assert_eq!(place(&mut series, 5, -3.0, 1), Placed::Conflict);
    assert_eq!(all(&series), [Sample::new(5, 3.0), Sample::new(10, 1.0)]);
}

#[test]
fn zero_and_minus_zero_conflict_and_nan_repeats() {
    let mut series = One::new(i64::MIN);
    place(&mut series, 1, 0.0, 1);
    assert_eq!(place(&mut series, 1, -0.0, 1), Placed::Conflict);
    place(&mut series, 2, f64::NAN, 1);
    assert_eq!(place(&mut series, 2, f64::NAN, 1), Placed::Duplicate);
}

#[test]
fn sealed_times_are_asked_for_only_where_they_may_be() {
    let mut one = One::new(100);
    let sealed = |want: Option<f64>| move || want;
    let mut at = |t, v, found| {
        let freezer = &mut Freezer::default();
        let sample = Sample::new(t, v);
        one.series
            .place(&mut one.blocks, sample, 1, freezer, sealed(found))
    };
    assert_eq!(at(100, 1.0, Some(1.0)), Placed::Duplicate);
    assert_eq!(at(100, 2.0, Some(1.0)), Placed::Conflict);
    assert_eq!(at(50, 1.0, None), Placed::Newest);
    // Above the sealed ones nobody looks.
    assert_eq!(at(101, 1.0, Some(5.0)), Placed::Newest);
}

#[test]
fn dropping_a_part_leaves_the_others() {
    let mut series = One::new(i64::MIN);
    for t in 0..300_i64 {
        place(&mut series, t * 10, 0.5, if t < 200 { 1 } else { 2 });
    }
    place(&mut series, 15, 9.0, 1);
    place(&mut series, 2_995, 9.0, 2);
    place(&mut series, 2_985, 9.0, 2);
    let mut first = Vec::new();
    series.series.read_part(&series.blocks, 1, &mut first);
    assert_eq!(first.len(), 201);
    assert!(first.is_sorted_by_key(|s| s.t));
    let One { series: s, blocks } = &mut series;
    assert_eq!(s.parts(blocks), [1, 2]);
    s.drop_parts(blocks, &[sealed(1, 1_990), sealed(7, 9_999)]);
    assert_eq!(s.parts(blocks), [2]);
    assert_eq!(s.sealed_max, 1_990);
    assert_eq!(all(&series).len(), 102);
    let One { series: s, blocks } = &mut series;
    s.drop_parts(blocks, &[sealed(2, 2_995)]);
    assert!(s.is_empty());
    assert_eq!(blocks.bytes(), 0);
    assert_eq!(s.max_t(), 2_995);
}

proptest! {
    #[test]
    fn reads_give_what_a_sorted_map_gives(
        samples in prop::collection::vec((0_i64..2_000, prop_oneof![any::<u64>(), 0_u64..3]), 0..600),
        range in (0_i64..2_000, 0_i64..2_000),
    ) {
        let mut series = One::new(i64::MIN);
        let mut model: BTreeMap<i64, u64> = BTreeMap::new();
        for (t, bits) in samples {
            let placed = place(&mut series, t, f64::from_bits(bits), u32::try_from(t / 700).unwrap());
            match model.get(&t) {
                Some(old) if *old == bits => prop_assert_eq!(placed, Placed::Duplicate),
                Some(_) => prop_assert_eq!(placed, Placed::Conflict),
                None => {
                    prop_assert!(matches!(placed, Placed::Newest | Placed::Between));
                    model.insert(t, bits);
                }
            }
        }
        let mut got = Vec::new();
        series.series.read(&series.blocks, range.0, range.1, &mut got);
        let got: Vec<_> = got.iter().map(|s| (s.t.as_ms(), s.v.to_bits())).collect();
        let want: Vec<_> = model
            .iter()
            .filter(|(t, _)| (range.0..=range.1).contains(*t))
            .map(|(t, bits)| (*t, *bits))
            .collect();
        prop_assert_eq!(got.is_empty() || series.series.overlaps(&series.blocks, range.0, range.1), true);
        prop_assert_eq!(got, want);
    }
}

#[test]
fn what_never_changes_is_only_counted() {
    let mut series = One::new(i64::MIN);
    let mut want = Vec::new();
    for i in 0..50_i64 {
        place(&mut series, i * 15_000, 3.5, 1);
        want.push(Sample::new(i * 15_000, 3.5));
        assert_eq!(all(&series), want);
    }
    assert_eq!(series.blocks.bytes(), 64);
    assert_eq!(size_of::<HeadSeries>(), 80);
    assert_eq!(place(&mut series, 49 * 15_000, 3.5, 1), Placed::Duplicate);
    assert_eq!(place(&mut series, 30_000, 4.0, 1), Placed::Conflict);
    place(&mut series, 50 * 15_000, 4.5, 1);
    place(&mut series, 51 * 15_000, 4.5, 1);
    place(&mut series, 51 * 15_000 + 1, 4.5, 1);
    want.extend([750_000, 765_000, 765_001].map(|t| Sample::new(t, 4.5)));
    assert_eq!(all(&series), want);
}
