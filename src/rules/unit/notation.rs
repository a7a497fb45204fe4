//! The notation of native histograms, as in Prometheus' own query tests and in
//! promtool's unit tests: `{{schema:0 sum:5 count:4 buckets:[1 2 1]}}`.

use std::fmt::Write as _;

use crate::model::Histogram;
use crate::model::histogram::{Bucket, ResetHint};

/// Histograms that one item may stand for.
const REPEATS_MAX: usize = 100_000;

/// Reads what stands between the double braces; `None` when it is no histogram.
pub fn histogram(text: &str) -> Option<Histogram> {
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
pub fn repeated(item: &str) -> Option<Vec<Histogram>> {
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
    if count >= REPEATS_MAX {
        return None;
    }
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
pub fn items(text: &str) -> Vec<&str> {
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
pub fn same(want: &Histogram, got: &Histogram) -> bool {
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

/// A histogram in the notation, as promtool prints it.
pub fn text(h: &Histogram) -> String {
    let mut out = format!("{{{{schema:{} count:{} sum:{}", h.schema, h.count, h.sum);
    let mut put = |name: &str, value: String| {
        write!(out, " {name}:{value}").expect("a text takes everything");
    };
    if h.hint != ResetHint::Unknown {
        let hint = match h.hint {
            ResetHint::Reset => "reset",
            ResetHint::NotReset => "not_reset",
            _ => "gauge",
        };
        put("counter_reset_hint", hint.to_owned());
    }
    if h.zero_count != 0.0 {
        put("z_bucket", h.zero_count.to_string());
    }
    if h.zero_threshold != 0.0 {
        put("z_bucket_w", h.zero_threshold.to_string());
    }
    if !h.bounds.is_empty() {
        put("custom_values", list(&h.bounds));
    }
    for (offset, name, buckets) in [
        ("offset", "buckets", &h.positive),
        ("n_offset", "n_buckets", &h.negative),
    ] {
        let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else {
            continue;
        };
        if first.index != 0 {
            put(offset, first.index.to_string());
        }
        let count = |index| {
            let at = buckets.binary_search_by_key(&index, |b| b.index);
            at.map_or(0.0, |at| buckets[at].count)
        };
        let counts: Vec<f64> = (first.index..=last.index).map(count).collect();
        put(name, list(&counts));
    }
    out + "}}"
}

fn list(numbers: &[f64]) -> String {
    let texts: Vec<String> = numbers.iter().map(f64::to_string).collect();
    format!("[{}]", texts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        for text_ in [
            "{{schema:0 count:0 sum:0}}",
            "{{schema:3 count:7 sum:-2.5 counter_reset_hint:gauge z_bucket:1 z_bucket_w:0.001 \
             offset:-2 buckets:[1 0 2] n_buckets:[3]}}",
            "{{schema:-53 count:3 sum:4 custom_values:[0.5 1] buckets:[1 2]}}",
        ] {
            let h = histogram(text_).unwrap();
            assert_eq!(text(&h), text_);
            assert!(same(&h, &histogram(&text(&h)).unwrap()));
        }
        assert!(histogram("{{count:x}}").is_none());
        assert!(repeated("{{count:1}}x9999999999").is_none());
    }

    #[test]
    fn repetitions_add_up_and_items_end_at_white_space_outside_of_braces() {
        let items_ = items("{{count:1 sum:2}}+{{count:1}}x2 _ {{count:4}}");
        assert_eq!(items_.len(), 3);
        let counts: Vec<f64> = repeated(items_[0])
            .unwrap()
            .iter()
            .map(|h| h.count)
            .collect();
        assert_eq!(counts, [1.0, 2.0, 3.0]);
    }
}
