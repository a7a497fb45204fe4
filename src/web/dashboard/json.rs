//! Tolerant reading of dashboard files: a path, a wished type, nothing else.

use serde_json::Value;

/// The value at a path like `custom.stacking.mode`; `None` where a part is missing or null.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = value;
    for key in path.split('.') {
        value = value.get(key)?;
    }
    (!value.is_null()).then_some(value)
}

/// A text; numbers and switches are taken as text too.
pub(super) fn text(value: &Value, path: &str) -> Option<String> {
    match at(value, path)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A text that says something.
pub(super) fn words(value: &Value, path: &str) -> Option<String> {
    text(value, path).filter(|text| !text.trim().is_empty())
}

/// A number; texts that are numbers are taken too.
pub(super) fn number(value: &Value, path: &str) -> Option<f64> {
    match at(value, path)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

/// A count or place; what is negative or too large is left out.
pub(super) fn count(value: &Value, path: &str) -> Option<usize> {
    number(value, path)
        .filter(|number| (0.0..100_000.0).contains(number))
        .map(whole)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the caller has checked the range"
)]
fn whole(number: f64) -> usize {
    number.round() as usize
}

/// A switch; false when it is not there.
pub(super) fn flag(value: &Value, path: &str) -> bool {
    matches!(at(value, path), Some(Value::Bool(true)))
}

/// A list; empty when it is not there or something else.
pub(super) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
