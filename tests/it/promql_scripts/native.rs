//! The notation of native histograms, as in Prometheus' own query tests:
//! `{{schema:0 sum:5 count:4 buckets:[1 2 1]}}`.

use pulse::model::Histogram;
use pulse::model::histogram::{Bucket, ResetHint};

/// Reads what stands between the double braces.
pub(super) fn histogram(text: &str) -> Option<Histogram> {
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    let mut h = Histogram::default();
    let (mut offset, mut n_offset) = (0, 0);
    let (mut positive, mut negative) = (Vec::new(), Vec::new());
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':')?;
        let (value, after) = if let Some(list) = after.strip_prefix('[') {
            list.split_once(']')?
        } else {
            after.split_once(' ').unwrap_or((after, ""))
        };
        match key {
            "schema" => h.schema = value.parse().ok()?,
            "sum" => h.sum = value.parse().ok()?,
            "count" => h.count = value.parse().ok()?,
            "z_bucket" => h.zero_count = value.parse().ok()?,
            "z_bucket_w" => h.zero_threshold = value.parse().ok()?,
            "offset" => offset = value.parse().ok()?,
            "n_offset" => n_offset = value.parse().ok()?,
            "buckets" => positive = numbers(value)?,
            "n_buckets" => negative = numbers(value)?,
            "custom_values" => h.bounds = numbers(value)?.into(),
            "counter_reset_hint" => {
                h.hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => return None,
                }
            }
            _ => return None,
        }
        rest = after.trim_start();
    }
    h.positive = buckets(offset, &positive);
    h.negative = buckets(n_offset, &negative);
    Some(h)
}

fn numbers(list: &str) -> Option<Vec<f64>> {
    list.split_whitespace().map(|v| v.parse().ok()).collect()
}

fn buckets(first: i32, counts: &[f64]) -> Vec<Bucket> {
    let all = (first..).zip(counts);
    let all = all.map(|(index, count)| Bucket {
        index,
        count: *count,
    });
    all.filter(|bucket| bucket.count != 0.0).collect()
}

/// `{{..}}`, `{{..}}x3` (four times), `{{..}}+{{..}}x3`, `{{..}}-{{..}}x3`.
pub(super) fn repeated(item: &str) -> Option<Vec<Histogram>> {
    let end = item.find("}}")? + 2;
    let mut h = histogram(&item[..end])?;
    let rest = &item[end..];
    let (step, count) = match rest.rsplit_once('x') {
        Some((step, count)) => (step, count.parse::<usize>().ok()?),
        None => (rest, 0),
    };
    let step = match step.split_at_checked(1) {
        Some((sign @ ("+" | "-"), step)) => {
            let mut step = histogram(step)?;
            if sign == "-" {
                let hint = step.hint;
                step.scale(-1.0);
                step.hint = hint;
            }
            Some(step)
        }
        Some(_) => return None,
        None => None,
    };
    let mut all = vec![h.clone()];
    for _ in 0..count {
        if let Some(step) = &step {
            h.add(step).ok()?;
        }
        all.push(h.clone());
    }
    Some(all)
}

/// Splits at white space outside of braces.
pub(super) fn items(text: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match (start, c.is_whitespace() && depth == 0) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                items.push(&text[from..at]);
                start = None;
            }
            _ => {}
        }
    }
    items.extend(start.map(|from| &text[from..]));
    items
}

/// Equal but for rounding; a hint counts when the expectation has one.
pub(super) fn same(want: &Histogram, got: &Histogram) -> bool {
    let near = |a: f64, b: f64| {
        a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
    };
    let buckets = |a: &[Bucket], b: &[Bucket]| {
        let both = a.iter().zip(b);
        a.len() == b.len() && { both }.all(|(a, b)| a.index == b.index && near(a.count, b.count))
    };
    want.schema == got.schema
        && (want.hint == ResetHint::Unknown || want.hint == got.hint)
        && near(want.count, got.count)
        && near(want.sum, got.sum)
        && near(want.zero_count, got.zero_count)
        && near(want.zero_threshold, got.zero_threshold)
        && buckets(&want.positive, &got.positive)
        && buckets(&want.negative, &got.negative)
        && want.bounds == got.bounds
}
