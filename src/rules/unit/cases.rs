//! The tests of a file with all their texts read: series, values and expressions.
//!
//! promtool finds a text that is none when it gets there, and says neither file nor
//! line. Here all are told before anything runs.

use std::collections::HashSet;
use std::sync::Arc;

use super::file::{AlertTest, ExpSample, ExprTest, InputSeries, Span, TestFile, TestGroup};
use super::notation;
use super::report::Point;
use super::series::{self, Value};
use crate::config::yaml::Yaml;
use crate::config::{Placed, position};
use crate::model::Labels;
use crate::promql;

/// A test, ready to run.
pub(super) struct Case {
    pub(super) name: String,
    /// Between two values of a series; zero is the evaluation interval.
    pub(super) interval: Span,
    pub(super) external_labels: std::collections::BTreeMap<String, String>,
    pub(super) external_url: String,
    /// Values at the interval, from 0 on; `None` is a gap.
    pub(super) input: Vec<(Labels, Vec<Option<Value>>)>,
    pub(super) alerts: Vec<AlertTest>,
    pub(super) exprs: Vec<ExprCase>,
}

/// What an expression gives at a time.
pub(super) struct ExprCase {
    pub(super) text: String,
    pub(super) expr: promql::Expr,
    pub(super) at: Span,
    /// By labels.
    pub(super) want: Vec<Point>,
}

/// Reads the texts of a file, whose tests are taken; `file` is its name.
///
/// # Errors
/// With every mistake of form and every text that is none, in the order of the file.
pub(super) fn read(
    file: &str,
    text: &str,
    read: &mut Yaml<TestFile>,
) -> Result<Vec<Case>, Vec<String>> {
    let mut found = Mistakes {
        file,
        text,
        damaged: std::mem::take(&mut read.damaged),
        told: Vec::new(),
    };
    for mistake in &read.mistakes {
        found.tell_at((mistake.line, mistake.column), &mistake.message);
    }
    let tests = std::mem::take(&mut read.value.tests);
    let cases = tests.into_iter().map(|test| found.case(test));
    let cases = cases.collect();
    if found.told.is_empty() {
        return Ok(cases);
    }
    found.told.sort_by_key(|(at, _)| *at);
    Err(found.told.into_iter().map(|(_, line)| line).collect())
}

struct Mistakes<'a> {
    file: &'a str,
    text: &'a str,
    /// Where the tables stand of which a field could not be read: that one is missing may
    /// only follow from that.
    damaged: HashSet<usize>,
    /// With their lines and columns.
    told: Vec<((usize, usize), String)>,
}

impl Mistakes<'_> {
    fn tell(&mut self, at: usize, message: &str) {
        self.tell_at(position(self.text, at), message);
    }

    fn tell_at(&mut self, (line, column): (usize, usize), message: &str) {
        let text = format!("{}:{line}:{column}: {message}", self.file);
        self.told.push(((line, column), text));
    }

    /// What a text stands for, if it is one.
    fn take<T>(&mut self, at: usize, field: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.tell(at, &format!("{field}: {why}")))
            .ok()
    }

    fn case(&mut self, test: TestGroup) -> Case {
        let input = test.input_series.into_iter();
        let input = input.filter_map(|series| self.series(series)).collect();
        let alerts = test.alert_rule_test.into_iter();
        let alerts = alerts.filter_map(|test| self.alert(test)).collect();
        let exprs = test.promql_expr_test.into_iter();
        let exprs = exprs.filter_map(|test| self.expr(test)).collect();
        Case {
            name: test.name,
            interval: test.interval,
            external_labels: test.external_labels,
            external_url: test.external_url,
            input,
            alerts,
            exprs,
        }
    }

    fn series(&mut self, input: Placed<InputSeries>) -> Option<(Labels, Vec<Option<Value>>)> {
        let (at, input) = (input.at, input.value);
        let labels = match input.series.filter(|text| !text.value.is_empty()) {
            Some(text) => self.take(text.at, "series", series::labels(&text.value)),
            None if self.damaged.contains(&at) => None,
            None => {
                self.tell(at, "series is missing, expected one such as up{job=\"a\"}");
                None
            }
        };
        let (at, values) = unplaced(input.values, at);
        let values = self.take(at, "values", series::values(&values));
        labels.zip(values)
    }

    fn alert(&mut self, test: Placed<AlertTest>) -> Option<AlertTest> {
        if test.value.alertname.is_empty() {
            if self.damaged.contains(&test.at) {
                return None;
            }
            let text = "alertname is missing in an item of alert_rule_test";
            self.tell(test.at, text);
            return None;
        }
        Some(test.value)
    }

    fn expr(&mut self, test: Placed<ExprTest>) -> Option<ExprCase> {
        let (place, test) = (test.at, test.value);
        let (at, text) = unplaced(test.expr, place);
        let expr = match text.is_empty() && self.damaged.contains(&place) {
            true => None,
            false => {
                let expr = promql::parse(&text);
                let expr = expr.map_err(|err| format!("could not parse expression: {err}"));
                self.take(at, "expr", expr)
            }
        };
        let want = test.exp_samples.into_iter();
        let want = want.filter_map(|sample| self.sample(place, sample));
        let mut want: Vec<Point> = want.collect();
        want.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Some(ExprCase {
            expr: expr?,
            text,
            at: test.eval_time,
            want,
        })
    }

    fn sample(&mut self, place: usize, sample: ExpSample) -> Option<Point> {
        let (at, labels) = unplaced(sample.labels, place);
        let labels = self.take(at, "labels", series::labels(&labels));
        let (at, text) = unplaced(sample.histogram, place);
        let (v, histogram) = if text.is_empty() {
            (sample.value, None)
        } else {
            let read = notation::histogram(&text);
            let read = read.ok_or_else(|| series::no_histogram(&text));
            let read = self.take(at, "histogram", read)?;
            (0.0, Some(Arc::new(read)))
        };
        Some(Point {
            labels: labels?,
            v,
            histogram,
        })
    }
}

/// A text with its place; one that is left out stands at `place` and is empty.
fn unplaced(text: Option<Placed<String>>, place: usize) -> (usize, String) {
    text.map_or((place, String::new()), |text| (text.at, text.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    #[test]
    fn every_text_that_is_none_is_told_with_its_line_and_what_was_expected() {
        let text = r#"tests:
- interval: 1m
  input_series:
  - series: 'up{job=~"a"}'
    values: '1 2 x'
  - values: '1+x3'
  - {series: 'up{', values: '{{schema:x}}'}
  - {series: good, values: '1x3'}
  alert_rule_test:
  - eval_time: 5m
  promql_expr_test:
  - eval_time: 5m
    expr: |
      sum(
    exp_samples:
    - labels: 'up{job!="a"}'
    - {labels: '{}', histogram: '{{x:1}}'}
  - eval_time: 1m
- input_series:
  - {series: up, values: 1x9999999}
"#;
        let mut read_ = yaml::read::<TestFile>(text);
        assert!(read_.mistakes.is_empty());
        let told = read("t.yml", text, &mut read_).err().unwrap();
        let value = "expected a number, _, stale, 1+2x3 or {{..}}";
        let want = [
            r#"4:13: series: "up{job=~\"a\"}" selects series, expected one label set"#.to_owned(),
            format!(r#"5:13: values: not a value of a series: "x", {value}"#),
            "6:5: series is missing, expected one such as up{job=\"a\"}".to_owned(),
            format!(r#"6:13: values: not a value of a series: "1+x3", {value}"#),
            "7:14: series: 1:4: parse error: unexpected end of input inside braces".to_owned(),
            r#"7:29: values: not a histogram: "{{schema:x}}", expected one such as {{schema:0 count:3 sum:5 buckets:[1 2]}}"#.to_owned(),
            "10:5: alertname is missing in an item of alert_rule_test".to_owned(),
            "14:7: expr: could not parse expression: 2:1: parse error: unclosed left parenthesis".to_owned(),
            r#"16:15: labels: "up{job!=\"a\"}" selects series, expected one label set"#.to_owned(),
            r#"17:33: histogram: not a histogram: "{{x:1}}", expected one such as {{schema:0 count:3 sum:5 buckets:[1 2]}}"#.to_owned(),
            "18:5: expr: could not parse expression: 1:1: parse error: no expression found in input".to_owned(),
            "20:26: values: series has more than a million values".to_owned(),
        ];
        let want = want.map(|line| format!("t.yml:{line}"));
        assert_eq!(told, want, "{told:#?}");
    }

    #[test]
    fn mistakes_of_form_hide_no_others_and_bring_none_with_them() {
        let text = r#"evaluation_interval: soon
tests:
- interval: 1x
  input_series:
  - {series: [up], values: '1 2 x'}
  - {series: 'up{', values: 3, colour: red}
  alert_rule_test:
  - {eval_time: 5m, alertname: [A]}
  - {eval_time: later}
  promql_expr_test:
  - {expr: [up], eval_time: 5m}
  - {expr: 'sum(', eval_time: 5 m}
"#;
        let told = read("t.yml", text, &mut yaml::read(text)).err().unwrap();
        let places = |told: &String| told.split(' ').next().unwrap().to_owned();
        let places: Vec<String> = told.iter().map(places).collect();
        let want = [
            "1:1", "3:3", "5:6", "5:28", "6:14", "6:32", "8:21", "9:6", "11:6", "12:12", "12:20",
        ];
        let want = want.map(|place| format!("t.yml:{place}:"));
        assert_eq!(places, want, "{told:#?}");
    }
}
