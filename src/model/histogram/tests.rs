//! The arithmetic of histograms, with the steps of every expectation beside it.

use super::bounds::bound;
use super::*;

fn buckets(first: i32, counts: &[f64]) -> Vec<Bucket> {
    let bucket = |(index, count): (i32, &f64)| Bucket {
        index,
        count: *count,
    };
    let all = (first..).zip(counts).map(bucket);
    all.filter(|b| b.count != 0.0).collect()
}

fn exponential(schema: i8, sum: f64, positive: &[f64]) -> Histogram {
    Histogram {
        schema,
        sum,
        count: positive.iter().sum(),
        positive: buckets(0, positive),
        ..Histogram::default()
    }
}

fn custom(bounds: &[f64], sum: f64, counts: &[f64]) -> Histogram {
    Histogram {
        schema: CUSTOM,
        sum,
        count: counts.iter().sum(),
        positive: buckets(0, counts),
        bounds: bounds.into(),
        ..Histogram::default()
    }
}

/// Four below zero, two around it, three above.
fn both_sides() -> Histogram {
    Histogram {
        zero_threshold: 0.001,
        zero_count: 2.0,
        count: 9.0,
        sum: -1.5,
        positive: buckets(0, &[1.0, 0.0, 2.0]),
        negative: buckets(0, &[3.0, 1.0]),
        ..Histogram::default()
    }
}

#[test]
fn bounds_are_those_of_prometheus() {
    // The table of schema 3 as Prometheus has it, and powers of two beside it.
    for (part, want) in [
        (0, 0.5),
        (1, 0.545_253_866_332_628_8),
        (2, 0.594_603_557_501_360_5),
        (3, 0.648_419_777_325_504_8),
        (4, 0.707_106_781_186_547_5),
        (5, 0.771_105_412_703_970_4),
        (6, 0.840_896_415_253_714_4),
        (7, 0.917_004_043_204_671_1),
    ] {
        close(bound(3, part - 8), want);
    }
    assert_eq!(bound(0, 0), 1.0);
    assert_eq!(bound(0, 10), 1024.0);
    assert_eq!(bound(-4, 1), 65536.0);
    assert_eq!(bound(-4, -1), 1.0 / 65536.0);
    assert_eq!(bound(0, 1024), f64::MAX);
    assert_eq!(bound(2, 4096), f64::MAX);
    assert_eq!(bound(0, 1025), f64::INFINITY);
    assert_eq!(bound(0, -1074), f64::from_bits(1));
    assert_eq!(bound(-4, i64::from(i32::MAX)), f64::INFINITY);
}

#[test]
fn the_text_is_that_of_prometheus() {
    assert_eq!(
        both_sides().to_string(),
        "{count:9, sum:-1.5, [-2,-1):1, [-1,-0.5):3, [-0.001,0.001]:2, (0.5,1]:1, (2,4]:2}"
    );
    assert_eq!(
        custom(&[5.0, 10.0], 5.0, &[1.0, 2.0, 1.0]).to_string(),
        "{count:4, sum:5, [-Inf,5]:1, (5,10]:2, (10,+Inf]:1}"
    );
    assert_eq!(Histogram::default().to_string(), "{count:0, sum:0}");
}

#[test]
fn the_rules_of_the_json_form_say_which_bounds_are_open() {
    let rules: Vec<u8> = both_sides().ranges().iter().map(Range::rule).collect();
    assert_eq!(rules, [1, 1, 3, 0, 0]);
}

#[test]
fn adding_brings_resolutions_together() {
    // Schema 1 has two buckets where schema 0 has one: 0 stays, 1 and 2 become 1.
    let mut a = exponential(0, 5.0, &[1.0, 2.0, 1.0]);
    let fine = exponential(1, 7.0, &[1.0, 2.0, 3.0]);
    assert_eq!(a.add(&fine), Ok(Merged::default()));
    assert_eq!(
        a.to_string(),
        "{count:10, sum:12, (0.5,1]:2, (1,2]:7, (2,4]:1}"
    );
    a.sub(&fine).unwrap();
    a.sub(&exponential(0, 5.0, &[1.0, 2.0, 1.0])).unwrap();
    assert_eq!(a.to_string(), "{count:0, sum:0}");
}

#[test]
fn reducing_goes_down_to_negative_schemas_and_indexes() {
    let mut h = Histogram {
        schema: 2,
        positive: buckets(-4, &[1.0, 1.0, 1.0, 1.0, 1.0]),
        ..Histogram::default()
    };
    // Indexes -4 to 0 at schema 2 are -1 and 0 at schema 0: (0.25,0.5] and (0.5,1].
    h.reduce_to(0);
    assert_eq!(h.to_string(), "{count:0, sum:0, (0.25,0.5]:1, (0.5,1]:4}");
    h.reduce_to(-2);
    assert_eq!(h.to_string(), "{count:0, sum:0, (0.0625,1]:5}");
}

#[test]
fn a_wider_zero_bucket_swallows_whole_buckets() {
    let mut narrow = both_sides();
    let wide = Histogram {
        zero_threshold: 0.75,
        zero_count: 1.0,
        count: 1.0,
        ..Histogram::default()
    };
    // 0.75 lies within (0.5,1] and [-1,-0.5), so zero reaches to 1: 2 + 1 + 3, and 1.
    narrow.add(&wide).unwrap();
    assert_eq!(
        narrow.to_string(),
        "{count:10, sum:-1.5, [-2,-1):1, [-1,1]:7, (2,4]:2}"
    );
}

#[test]
fn custom_bounds_meet_where_both_have_them() {
    let mut a = custom(&[2.0, 5.0, 10.0], 1.0, &[1.0, 2.0, 3.0, 4.0]);
    let b = custom(&[5.0, 7.0], 1.0, &[10.0, 20.0, 30.0]);
    let merged = a.add(&b).unwrap();
    assert!(merged.reconciled && !merged.collision);
    // Up to 5: 1 + 2 + 10; above: 3 + 4 + 20 + 30.
    assert_eq!(a.to_string(), "{count:70, sum:2, [-Inf,5]:13, (5,+Inf]:57}");
    let exponential = exponential(0, 1.0, &[1.0]);
    assert_eq!(a.add(&exponential), Err(Incompatible));
}

#[test]
fn hints_that_exclude_each_other_are_told() {
    use ResetHint::{Gauge, NotReset, Reset, Unknown};
    for (a, b, want, collision) in [
        (Reset, NotReset, Unknown, true),
        (NotReset, NotReset, NotReset, false),
        (NotReset, Gauge, Gauge, false),
        (Unknown, Reset, Unknown, false),
        (Gauge, Unknown, Gauge, false),
    ] {
        let mut h = Histogram {
            hint: a,
            ..Histogram::default()
        };
        assert_eq!(h.merge_hint(b), collision, "{a:?} {b:?}");
        assert_eq!(h.hint, want, "{a:?} {b:?}");
    }
}

#[test]
fn scaling_by_a_negative_number_makes_a_gauge() {
    let mut h = both_sides();
    h.scale(2.0);
    assert_eq!((h.count, h.hint), (18.0, ResetHint::Unknown));
    h.scale(-0.5);
    assert_eq!((h.count, h.hint), (-9.0, ResetHint::Gauge));
    h.divide(0.0);
    assert_eq!(h.to_string(), "{count:-Inf, sum:+Inf, [-0.001,0.001]:-Inf}");
}

#[test]
fn a_reset_is_any_count_that_fell() {
    let before = exponential(0, 4.0, &[1.0, 2.0, 1.0]);
    let check = |now: &Histogram, want: bool| {
        assert_eq!(now.is_reset_after(&before), want, "{now}");
    };
    check(&exponential(0, 4.0, &[1.0, 2.0, 1.0]), false);
    check(&exponential(0, 4.0, &[1.0, 1.0, 3.0]), true);
    check(&exponential(0, 4.0, &[0.0, 4.0, 4.0]), true);
    check(&exponential(1, 4.0, &[9.0, 9.0, 9.0]), true);
    // Half the resolution: indexes 0, 1, 2 become 0, 1, 1.
    check(&exponential(-1, 4.0, &[1.0, 3.0]), false);
    let hinted = Histogram {
        hint: ResetHint::Reset,
        ..before.clone()
    };
    check(&hinted, true);
    let wider_zero = Histogram {
        zero_threshold: 1.0,
        zero_count: 1.0,
        ..exponential(0, 4.0, &[0.0, 2.0, 1.0])
    };
    let wider_zero = Histogram {
        count: 4.0,
        ..wider_zero
    };
    check(&wider_zero, false);
    let cutting = Histogram {
        zero_threshold: 0.75,
        ..wider_zero
    };
    check(&cutting, true);
}

#[test]
fn a_reset_is_seen_through_other_custom_bounds() {
    let before = custom(&[2.0, 4.0, 6.0], 55.0, &[1.0, 2.0, 5.0, 7.0]);
    let fell = custom(&[2.0, 3.0, 4.0, 6.0], 56.0, &[1.0, 0.0, 1.0, 5.0, 8.0]);
    let grew = custom(&[2.0, 3.0, 4.0, 6.0], 56.0, &[1.0, 1.0, 1.0, 5.0, 8.0]);
    assert!(fell.is_reset_after(&before));
    assert!(!grew.is_reset_after(&before));
}

fn close(got: f64, want: f64) {
    let same = got == want || got.is_nan() && want.is_nan();
    let near = (got - want).abs() <= 1e-12 * want.abs();
    assert!(same || near, "{got}, not {want}");
}

#[test]
fn quantiles_are_logarithmic_between_exponential_bounds() {
    // 1 in (0.5,1], 2 in (1,2], 1 in (2,4].
    let h = exponential(0, 5.0, &[1.0, 2.0, 1.0]);
    // Rank 2 from the top is half of (1,2]: 2^0.5.
    close(h.quantile(0.5).value, 2.0_f64.sqrt());
    // Rank 0.5 is half of (0.5,1]: 2^-0.5.
    close(h.quantile(0.125).value, 0.5_f64.sqrt());
    close(h.quantile(0.0).value, 0.5);
    close(h.quantile(1.0).value, 4.0);
    close(h.quantile(-0.1).value, f64::NEG_INFINITY);
    close(h.quantile(1.1).value, f64::INFINITY);
    close(Histogram::default().quantile(0.5).value, f64::NAN);
    let below = Histogram {
        negative: h.positive.clone(),
        positive: Vec::new(),
        ..h
    };
    // The mirror image: 0.875 from below is 0.125 from zero.
    close(below.quantile(0.875).value, -(0.5_f64.sqrt()));
}

#[test]
fn quantiles_are_linear_around_zero_and_between_custom_bounds() {
    let h = Histogram {
        zero_threshold: 0.5,
        zero_count: 4.0,
        count: 8.0,
        positive: buckets(0, &[4.0]),
        ..Histogram::default()
    };
    // Nothing is below zero, so the zero bucket is 0 to 0.5: rank 2 is its middle.
    close(h.quantile(0.25).value, 0.25);
    let h = custom(&[5.0, 10.0], 5.0, &[1.0, 2.0, 1.0]);
    close(h.quantile(0.5).value, 7.5);
    close(h.quantile(0.125).value, 2.5);
    close(h.quantile(0.9).value, 10.0);
    close(
        custom(&[-1.0, 2.0], 5.0, &[1.0, 0.0]).quantile(0.2).value,
        -1.0,
    );
}

#[test]
fn observations_of_nan_are_above_all() {
    let nan = Histogram {
        count: 15.0,
        ..exponential(0, f64::NAN, &[12.0])
    };
    assert!(nan.quantile(0.81).among_nan && nan.quantile(0.81).value.is_nan());
    assert!(nan.quantile(0.8).skewed);
    close(nan.quantile(0.4).value, 0.5_f64.sqrt());
    close(nan.fraction(f64::NEG_INFINITY, f64::INFINITY), 0.8);
}

#[test]
fn fractions_are_the_inverse_of_quantiles() {
    let h = exponential(0, 5.0, &[1.0, 2.0, 1.0]);
    close(h.fraction(1.0, 2.0), 0.5);
    close(h.fraction(0.5_f64.sqrt(), 2.0_f64.sqrt()), 0.375);
    close(h.fraction(f64::NEG_INFINITY, 100.0), 1.0);
    close(h.fraction(2.0, 1.0), 0.0);
    close(h.fraction(f64::NAN, 1.0), f64::NAN);
    let h = custom(&[5.0, 10.0], 5.0, &[1.0, 2.0, 1.0]);
    close(h.fraction(5.0, 10.0), 0.5);
    close(h.fraction(0.0, 7.5), 0.5);
    // Nobody knows how the last bucket goes on.
    close(h.fraction(10.0, 1e9), 0.0);
}

#[test]
fn the_spread_is_that_of_the_middles() {
    // Middles sqrt(0.5), sqrt(2) twice, sqrt(8); the mean is 1.25.
    let h = exponential(0, 5.0, &[1.0, 2.0, 1.0]);
    let square = |v: f64| (v - 1.25) * (v - 1.25);
    let (low, mid, high) = (0.5_f64.sqrt(), 2.0_f64.sqrt(), 8.0_f64.sqrt());
    close(
        h.variance(),
        (square(low) + 2.0 * square(mid) + square(high)) / 4.0,
    );
    close(h.mean(), 1.25);
    // (0 to 10]: middle 5, mean 4: variance 1.
    close(custom(&[0.0, 10.0], 8.0, &[0.0, 2.0]).variance(), 1.0);
}
