//! Round trips of every form, special values, hostile bytes.

use proptest::prelude::*;

use super::*;
use crate::model::stale_nan;

const EFFORTS: [Effort; 3] = [Effort::Cheap, Effort::Fast, Effort::Best];

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Encodes with every effort and reads back all of it and some parts; the sizes.
fn check(values: &[f64]) -> [usize; 3] {
    let mut encoder = Encoder::default();
    EFFORTS.map(|effort| {
        let mut column = vec![0xaa];
        encoder.encode(values, effort, &mut column);
        let column = &column[1..];
        let n = values.len();
        for range in [0..n, n / 3..n, n / 4..n / 2, 0..0] {
            let mut back = vec![1.0];
            decode_range(column, n, range.clone(), &mut back).unwrap();
            assert_eq!(bits(&back[1..]), bits(&values[range]), "{effort:?}");
        }
        column.len()
    })
}

fn tag(values: &[f64], effort: Effort) -> u8 {
    let mut column = Vec::new();
    Encoder::default().encode(values, effort, &mut column);
    column[0]
}

/// A generator without a dependency: xorshift, as numbers in 0..1.
fn noise(n: usize) -> Vec<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn a_constant_costs_a_few_bytes() {
    assert_eq!(check(&[1.0; 240]), [3; 3]);
    assert_eq!(check(&[21.5; 240]), [4; 3]);
    assert_eq!(check(&[1.0 / 3.0; 240]), [10; 3]);
    assert_eq!(check(&[stale_nan(); 3]), [10; 3]);
    check(&[]);
}

#[test]
fn special_values_among_decimals_are_exceptions() {
    let mut values: Vec<f64> = (0..240).map(|i| f64::from(i % 50) / 10.0).collect();
    let plain = check(&values);
    values[0] = stale_nan();
    values[7] = -0.0;
    values[100] = f64::INFINITY;
    values[239] = f64::from_bits(0xfff8_dead_beef_0001);
    let special = check(&values);
    assert!(special[0] <= plain[0] + 4 * 12, "{plain:?} {special:?}");
}

#[test]
fn only_special_values_survive() {
    check(&[
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.0,
        stale_nan(),
    ]);
    check(&[stale_nan(), 1.0]);
    check(&[f64::MAX, f64::MIN, f64::MIN_POSITIVE, f64::from_bits(1)]);
}

#[test]
fn shapes_of_real_series_find_their_form() {
    let noise = noise(240);
    let counter: Vec<f64> = noise
        .iter()
        .scan(1e6, |sum, x| {
            *sum += 1_500.0 + (x * 16.0).floor();
            Some(*sum)
        })
        .collect();
    assert_eq!(tag(&counter, Effort::Fast), ints::STEPS);
    assert!(check(&counter)[0] <= 240 * 4 / 8 + 20);
    let gauge: Vec<f64> = noise.iter().map(|x| (x * 1_000.0).round() / 10.0).collect();
    assert_eq!(tag(&gauge, Effort::Fast), ints::VALUES);
    assert!(check(&gauge)[0] <= 240 * 10 / 8 + 20);
    assert_eq!(tag(&noise, Effort::Cheap), XOR);
    let smooth: Vec<f64> = (0..240).map(|i| (f64::from(i) / 40.0).sin()).collect();
    assert_eq!(tag(&smooth, Effort::Fast), PCO_F64);
    check(&smooth);
}

#[test]
fn a_long_column_is_read_page_by_page() {
    let noise = noise(5_760);
    let walk: Vec<f64> = noise
        .iter()
        .scan(40.0, |at, x| {
            *at += (x - 0.5) / 7.0;
            Some(*at)
        })
        .collect();
    assert_eq!(tag(&walk, Effort::Best), PCO_F64_PAGES);
    check(&walk);
    let rounded: Vec<f64> = walk.iter().map(|v| (v * 10.0).round() / 10.0).collect();
    assert_eq!(tag(&rounded, Effort::Best), ints::CODED);
    check(&rounded);
    let mut holes = walk;
    holes[0] = stale_nan();
    holes[481] = f64::from_bits(0x7ff8_0000_0000_0bad);
    holes[5_759] = f64::NEG_INFINITY;
    check(&holes);
}

#[test]
fn a_counter_reset_costs_a_few_bytes() {
    let counter: Vec<f64> = (0..240).map(|i| 1e9 + f64::from(i) * 512.0).collect();
    assert!(check(&counter)[0] <= 12);
    let reset: Vec<f64> = counter
        .iter()
        .enumerate()
        .map(|(i, v)| if i < 120 { *v } else { *v - counter[120] })
        .collect();
    assert!(check(&reset)[0] <= 40, "{}", check(&reset)[0]);
}

#[test]
fn best_is_never_larger_than_fast_and_fast_never_larger_than_cheap() {
    for values in [noise(300), noise(50)] {
        let [cheap, fast, best] = check(&values);
        assert!(best <= fast && fast <= cheap);
    }
}

#[test]
fn counts_out_of_bounds_are_refused() {
    let mut column = Vec::new();
    Encoder::default().encode(&[1.0; 10], Effort::Cheap, &mut column);
    assert!(decode(&column, VALUES_MAX + 1, &mut Vec::new()).is_err());
    assert!(decode_range(&column, 10, 5..11, &mut Vec::new()).is_err());
}

#[test]
fn an_unknown_tag_or_exponent_is_refused() {
    assert!(decode(&[32, 0, 0], 1, &mut Vec::new()).is_err());
    assert!(decode(&[0, 13, 0], 1, &mut Vec::new()).is_err());
}

/// Mostly decimals of few digits, as sensors send them, with all that can go wrong.
fn realistic() -> impl Strategy<Value = Vec<f64>> {
    let digits = prop::sample::select(vec![1.0, 10.0, 100.0, 1e3, 1e6]);
    let value = prop_oneof![
        20 => (-100_000i64..100_000).prop_map(|i| i as f64),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(stale_nan()),
    ];
    (digits, prop::collection::vec(value, 0..400), any::<bool>()).prop_map(|(d, v, sum)| {
        let scaled = v.into_iter().map(|x| x / d);
        if sum {
            scaled
                .scan(0.0, |s, x| (*s += x.abs(), Some(*s)).1)
                .collect()
        } else {
            scaled.collect()
        }
    })
}

proptest! {
    #[test]
    fn any_bits_come_back(bits in prop::collection::vec(any::<u64>(), 0..300)) {
        check(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
    }

    #[test]
    fn realistic_series_come_back(values in realistic()) {
        check(&values);
    }

    #[test]
    fn arbitrary_bytes_never_panic_nor_grow(
        tag in prop::sample::select(vec![0u8, 1, 2, 3, 4, 9, 20, 21, 22, 23, 40]),
        exponent in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..300),
        n in 0usize..1_000,
    ) {
        let mut bytes = vec![tag, exponent];
        bytes.extend(body);
        let mut out = Vec::new();
        match decode(&bytes, n, &mut out) {
            Ok(()) => prop_assert_eq!(out.len(), n),
            Err(_) => prop_assert!(out.is_empty() && out.capacity() <= n.max(4)),
        }
    }

    #[test]
    fn damaged_columns_never_panic(
        values in realistic(),
        effort in prop::sample::select(EFFORTS.to_vec()),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut column = Vec::new();
        Encoder::default().encode(&values, effort, &mut column);
        if !column.is_empty() {
            let at = at.index(column.len());
            column[at] ^= 1 << bit;
            let _ = decode(&column, values.len(), &mut Vec::new());
        }
    }
}
