//! One number for a series: the last, the mean, the largest.

use crate::model::Sample;

/// The calculation by Grafana's name; the last value for names we do not know.
pub fn reduce(samples: &[Sample], calc: &str) -> Option<f64> {
    let numbers = || samples.iter().map(|s| s.v).filter(|v| !v.is_nan());
    let count = numbers().count();
    match calc {
        "min" => numbers().reduce(f64::min),
        "max" => numbers().reduce(f64::max),
        "mean" | "avg" => (count > 0).then(|| numbers().sum::<f64>() / count as f64),
        "sum" | "total" => (count > 0).then(|| numbers().sum()),
        "count" => Some(count as f64),
        "first" => samples.first().map(|s| s.v),
        "firstNotNull" => numbers().next(),
        "range" => Some(numbers().reduce(f64::max)? - numbers().reduce(f64::min)?),
        "delta" | "diff" => Some(numbers().next_back()? - numbers().next()?),
        "p50" | "median" => quantile(samples, 0.5),
        "p90" => quantile(samples, 0.9),
        "p95" => quantile(samples, 0.95),
        "p99" => quantile(samples, 0.99),
        _ => numbers().next_back(),
    }
}

fn quantile(samples: &[Sample], q: f64) -> Option<f64> {
    let mut values: Vec<f64> = samples
        .iter()
        .map(|s| s.v)
        .filter(|v| !v.is_nan())
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    let rank = q * (values.len().checked_sub(1)? as f64);
    let below = values
        .iter()
        .enumerate()
        .take_while(|(i, _)| *i as f64 <= rank)
        .last()?;
    let above = values.get(below.0 + 1).unwrap_or(below.1);
    Some(below.1 + (above - below.1) * rank.fract())
}

/// How a legend's column is called.
pub fn calc_name(calc: &str) -> &str {
    match calc {
        "lastNotNull" => "last",
        "firstNotNull" => "first",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn calculations_leave_out_what_is_no_number() {
        let values = [1.0, f64::NAN, 3.0, 2.0, f64::NAN];
        let samples: Vec<Sample> = values
            .map(|v| Sample {
                t: Timestamp::from_ms(0),
                v,
            })
            .to_vec();
        for (calc, want) in [
            ("min", 1.0),
            ("max", 3.0),
            ("mean", 2.0),
            ("sum", 6.0),
            ("lastNotNull", 2.0),
            ("range", 2.0),
            ("p50", 2.0),
            ("p95", 2.9),
            ("count", 3.0),
        ] {
            assert!(
                (reduce(&samples, calc).unwrap() - want).abs() < 1e-9,
                "{calc}"
            );
        }
        assert_eq!(reduce(&[], "mean"), None);
        assert_eq!(reduce(&[], "p95"), None);
    }
}
