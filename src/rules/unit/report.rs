//! What a test expected and what it got, in promtool's form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::cases::ExprCase;
use super::file::AlertTest;
use super::notation;
use crate::model::labels::Quoted;
use crate::model::{Histogram, Labels};

/// How far two values may be apart with `fuzzy_compare`, relative to the larger.
const TOLERANCE: f64 = 1e-13;

/// A firing alert.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Fired {
    /// With `alertname`.
    pub(super) labels: BTreeMap<String, String>,
    /// Expanded.
    pub(super) annotations: BTreeMap<String, String>,
}

/// An element of a result.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) labels: Labels,
    pub(super) v: f64,
    pub(super) histogram: Option<Arc<Histogram>>,
}

impl Point {
    /// Whether labels and value are the same; NaN never is.
    pub(super) fn equals(&self, other: &Point, fuzzy: bool) -> bool {
        let (a, b) = (self.v, other.v);
        let near = fuzzy && (a - b).abs() <= TOLERANCE * a.abs().max(b.abs());
        // Of histograms promtool compares the texts.
        let text = |point: &Point| point.histogram.as_deref().map(notation::text);
        self.labels == other.labels && (a == b || near) && text(self) == text(other)
    }
}

/// Alerts that are not as expected.
pub(super) fn alerts(group: &str, test: &AlertTest, want: &[Fired], got: &[Fired]) -> String {
    let name = match group {
        "" => String::new(),
        group => format!("    name: {group},\n"),
    };
    let indent = " ".repeat(12);
    let (want, got) = (
        indented(&list(want), &indent),
        indented(&list(got), &indent),
    );
    let (alertname, at) = (&test.alertname, test.eval_time);
    format!(
        "{name}    alertname: {alertname}, time: {at}, \n        exp:{want}, \n        got:{got}"
    )
}

/// A result that is not as expected.
pub(super) fn samples(test: &ExprCase, got: &[Point]) -> String {
    let (expr, at) = (quoted(&test.text), test.at);
    let (want, got) = (points(&test.want), points(got));
    format!("    expr: {expr}, time: {at},\n        exp: {want}\n        got: {got}")
}

/// A text as Go's `%q` prints it.
pub(super) fn quoted(text: &str) -> String {
    Quoted(text).to_string()
}

/// Milliseconds as Go prints a duration: `1m0s`, `1h2m3.5s`.
pub(super) fn go_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let seconds = (ms % 60_000) as f64 / 1e3;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn points(points: &[Point]) -> String {
    if points.is_empty() {
        return "nil".to_owned();
    }
    let one = |point: &Point| {
        let labels = point.labels.iter();
        let value = match &point.histogram {
            Some(h) => notation::text(h),
            None => go_exponent(point.v),
        };
        format!("{} {value}", braces(labels))
    };
    points.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// As Go's `strconv.FormatFloat(v, 'E', -1, 64)`.
fn go_exponent(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{v:E}");
    let (digits, exponent) = text.split_once('E').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}E{sign}{exponent:0>2}")
}

fn list(alerts: &[Fired]) -> String {
    if alerts.is_empty() {
        return "[]".to_owned();
    }
    let mut out = "[".to_owned();
    for (at, alert) in alerts.iter().enumerate() {
        let pairs = |map: &BTreeMap<String, String>| {
            braces(map.iter().map(|(n, v)| (n.as_str(), v.as_str())))
        };
        let (labels, annotations) = (pairs(&alert.labels), pairs(&alert.annotations));
        let text = format!("\nLabels:{labels}\nAnnotations:{annotations}");
        let comma = if at == 0 { "" } else { "," };
        write!(out, "{comma}\n{at}:{}", indented(&text, "  ")).expect("a text takes everything");
    }
    out.push_str("\n]");
    out
}

fn braces<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> = pairs.map(|(n, v)| format!("{n}={}", Quoted(v))).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// Indents every line but the first.
fn indented(text: &str, indent: &str) -> String {
    text.replace('\n', &format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_print_as_in_go() {
        for (v, want) in [
            (0.0, "0E+00"),
            (15.0, "1.5E+01"),
            (1e-7, "1E-07"),
            (f64::NEG_INFINITY, "-Inf"),
            (1.5e300, "1.5E+300"),
        ] {
            assert_eq!(go_exponent(v), want);
        }
        for (ms, want) in [
            (0, "0s"),
            (60_000, "1m0s"),
            (500, "500ms"),
            (3_723_500, "1h2m3.5s"),
        ] {
            assert_eq!(go_duration(ms), want);
        }
    }
}
