//! The series notation of promtool's test files: `metric{a="b"}` and
//! `1 2+3x4 _ _x5 stale`.

use super::notation;
use crate::model::{Histogram, Labels, MatchOp, stale_nan};
use crate::promql::parse_selector;

/// Values that one series may have.
const VALUES_MAX: usize = 1_000_000;

/// A label set from its text, such as `up{job="a"}` or `{}`.
///
/// # Errors
/// When the text is not a label set.
pub(super) fn labels(text: &str) -> Result<Labels, String> {
    let text = text.trim();
    if text == "{}" || text.is_empty() {
        return Ok(Labels::empty());
    }
    let selector = parse_selector(text).map_err(|err| err.to_string())?;
    if selector.matchers.iter().any(|m| m.op != MatchOp::Equal) {
        return Err(format!("{text:?} selects series, expected one label set"));
    }
    Ok(Labels::from_pairs(
        selector.matchers.iter().map(|m| (&m.name, &m.value)),
    ))
}

/// A value of a series.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    /// A number, or a staleness marker.
    Float(f64),
    /// A native histogram.
    Native(Histogram),
}

/// The values of a series; `None` is a gap.
///
/// # Errors
/// When an item is not of the notation, and above a million values.
pub(super) fn values(text: &str) -> Result<Vec<Option<Value>>, String> {
    let mut values = Vec::new();
    for item in notation::items(text) {
        if item.starts_with("{{") {
            let all = notation::repeated(item);
            let all = all.ok_or_else(|| no_histogram(item))?;
            values.extend(all.into_iter().map(|h| Some(Value::Native(h))));
            continue;
        }
        let (first, change, count) = parts(item).ok_or_else(|| {
            let forms = "a number, _, stale, 1+2x3 or {{..}}";
            format!("not a value of a series: {item:?}, expected {forms}")
        })?;
        if values.len() + count >= VALUES_MAX {
            return Err("series has more than a million values".to_owned());
        }
        match first {
            // A gap of n is n long; a value with n repetitions is n + 1 values.
            None => values.extend(std::iter::repeat_n(None, count.max(1))),
            Some(first) => {
                let mut v = first;
                values.push(Some(Value::Float(v)));
                for _ in 0..count {
                    // Added up step by step, as Prometheus does: rounding shows.
                    v += change;
                    values.push(Some(Value::Float(v)));
                }
            }
        }
    }
    Ok(values)
}

/// What to say of a text that is no histogram.
pub(super) fn no_histogram(text: &str) -> String {
    let form = "{{schema:0 count:3 sum:5 buckets:[1 2]}}";
    format!("not a histogram: {text:?}, expected one such as {form}")
}

/// First value, change and repetitions: `5`, `_`, `_x3`, `5x3`, `5+2x3`, `5-2x3`, `stale`.
fn parts(item: &str) -> Option<(Option<f64>, f64, usize)> {
    match item {
        "stale" => return Some((Some(stale_nan()), 0.0, 0)),
        "_" => return Some((None, 0.0, 0)),
        _ => {}
    }
    if let Some(v) = number(item) {
        return Some((Some(v), 0.0, 0));
    }
    let (start, count) = item.rsplit_once('x')?;
    let count = count.parse().ok()?;
    if start == "_" {
        return Some((None, 0.0, count));
    }
    if let Some(v) = number(start) {
        return Some((Some(v), 0.0, count));
    }
    // The sign of an exponent is not the one that parts value and change.
    let signs = start
        .char_indices()
        .skip(1)
        .filter(|(_, c)| "+-".contains(*c));
    for (at, _) in signs {
        let (first, change) = start.split_at(at);
        if let (Some(first), Some(change)) = (number(first), number(change)) {
            return Some((Some(first), change, count));
        }
    }
    None
}

/// A number with its sign. Never hexadecimal: `0x2` is a zero and two more.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(text: &str) -> Vec<Option<f64>> {
        let values = values(text).unwrap().into_iter();
        let float = |value| match value {
            Value::Float(v) => v,
            Value::Native(h) => panic!("{h:?}"),
        };
        values.map(|value| value.map(float)).collect()
    }

    fn check(text: &str, want: &[Option<f64>]) {
        assert_eq!(floats(text), want, "{text}");
    }

    #[test]
    fn the_notation_is_promtools() {
        check("1 2", &[Some(1.0), Some(2.0)]);
        check("1+2x3", &[Some(1.0), Some(3.0), Some(5.0), Some(7.0)]);
        check("1-2x1", &[Some(1.0), Some(-1.0)]);
        check("-1e-1-1x1", &[Some(-0.1), Some(-1.1)]);
        check(
            "5x2 _ 1",
            &[Some(5.0), Some(5.0), Some(5.0), None, Some(1.0)],
        );
        check("_x2", &[None, None]);
        check("0x2", &[Some(0.0); 3]);
        assert!(floats("NaN")[0].unwrap().is_nan());
        assert!(crate::model::is_stale_nan(floats("stale")[0].unwrap()));
        for bad in [
            "a",
            "1+x3",
            "1x",
            "x3",
            "1+1x99999999999",
            "1x9999999",
            "{{a:1}}",
        ] {
            assert!(values(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_set_is_no_selector() {
        let got = labels("up{job=\"a\"}").unwrap();
        assert_eq!(got, Labels::from_pairs([("__name__", "up"), ("job", "a")]));
        assert!(labels("{}").unwrap().is_empty());
        assert!(labels("up{job=~\"a\"}").is_err());
        assert!(labels("up{").is_err());
    }
}
