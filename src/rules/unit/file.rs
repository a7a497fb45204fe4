//! A promtool unit-test file as it is written.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::config::Placed;
use crate::model::duration;

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    #[serde(default)]
    pub(super) rule_files: Vec<String>,
    #[serde(default)]
    pub(super) evaluation_interval: Span,
    #[serde(default)]
    pub(super) group_eval_order: Vec<Placed<String>>,
    /// A newer promtool's switch for comparing with a tolerance.
    #[serde(default)]
    pub(super) fuzzy_compare: bool,
    #[serde(default)]
    pub(super) tests: Vec<TestGroup>,
}

/// Series, and what is expected of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestGroup {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) interval: Span,
    #[serde(default)]
    pub(super) input_series: Vec<Placed<InputSeries>>,
    #[serde(default)]
    pub(super) alert_rule_test: Vec<Placed<AlertTest>>,
    #[serde(default)]
    pub(super) promql_expr_test: Vec<Placed<ExprTest>>,
    #[serde(default)]
    pub(super) external_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) external_url: String,
}

/// One series in the notation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputSeries {
    #[serde(default)]
    pub(super) series: Option<Placed<String>>,
    #[serde(default)]
    pub(super) values: Option<Placed<String>>,
}

/// Which alerts of one name fire at a time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertTest {
    #[serde(default)]
    pub(super) eval_time: Span,
    #[serde(default)]
    pub(super) alertname: String,
    #[serde(default)]
    pub(super) exp_alerts: Vec<ExpAlert>,
}

/// An alert that fires.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpAlert {
    #[serde(default)]
    pub(super) exp_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) exp_annotations: BTreeMap<String, String>,
}

/// What an expression gives at a time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExprTest {
    #[serde(default)]
    pub(super) expr: Option<Placed<String>>,
    #[serde(default)]
    pub(super) eval_time: Span,
    #[serde(default)]
    pub(super) exp_samples: Vec<ExpSample>,
}

/// An element of a result.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpSample {
    #[serde(default)]
    pub(super) labels: Option<Placed<String>>,
    #[serde(default)]
    pub(super) value: f64,
    /// In the notation, instead of a value.
    #[serde(default)]
    pub(super) histogram: Option<Placed<String>>,
}

/// A duration; none at all is zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    /// In milliseconds.
    pub(super) fn ms(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        let text = String::deserialize(from)?;
        duration::parse(&text).map(Span).map_err(de::Error::custom)
    }
}

/// As Prometheus prints it: `1h30m`, `0s`; years, weeks and days only when nothing is left over.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_millis();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, ms, exact) in [
            ("y", 31_536_000_000, true),
            ("w", 604_800_000, true),
            ("d", 86_400_000, true),
            ("h", 3_600_000, false),
            ("m", 60_000, false),
            ("s", 1_000, false),
            ("ms", 1, false),
        ] {
            if exact && !left.is_multiple_of(ms) {
                continue;
            }
            if left / ms > 0 {
                write!(f, "{}{unit}", left / ms)?;
                left %= ms;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_prometheus_prints_them() {
        for (ms, want) in [
            (0, "0s"),
            (90_000, "1m30s"),
            (86_400_000, "1d"),
            (90_000_000, "25h"),
            (5_400_500, "1h30m500ms"),
        ] {
            assert_eq!(Span(Duration::from_millis(ms)).to_string(), want);
        }
    }
}
