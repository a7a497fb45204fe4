//! Variables with their values: the queries behind them, one after the other,
//! because one may name another. Runs on the blocking pool.

use super::interpolate::{Place, Scope};
use super::timerange::{Range, Steps};
use super::variables::{Choice, Kind, Resolved, Variable};
use crate::model::labels::METRIC_NAME;
use crate::model::{MatchOp, Matcher};
use crate::promql::{self, Engine, Value};
use crate::store::Store;
use crate::web::context::Cancel;

/// More values than this are not offered.
const VALUES_MAX: usize = 1000;

/// Where variables get their values from.
pub struct Source<'a> {
    /// Series and labels.
    pub store: &'a Store,
    /// For `query_result`.
    pub engine: &'a Engine,
    /// Set when nobody waits any more.
    pub cancel: &'a Cancel,
    /// The page's range.
    pub range: &'a Range,
    /// The steps that built-in variables stand for.
    pub steps: Steps,
}

/// Resolves all variables in order. `asked` gives what the URL says about one.
pub fn resolve(
    variables: &[Variable],
    source: &Source<'_>,
    asked: impl Fn(&str) -> Option<Vec<String>>,
) -> Vec<Resolved> {
    let mut done: Vec<Resolved> = Vec::with_capacity(variables.len());
    for variable in variables {
        let options = match &variable.kind {
            Kind::Query(query) => {
                let scope = Scope {
                    variables: &done,
                    range: source.range,
                    steps: source.steps,
                };
                let query = scope.expand(query, Place::Query);
                variable.arrange(values(&query, source))
            }
            Kind::DataSource => vec![Choice {
                text: "pulse".to_owned(),
                value: "pulse".to_owned(),
            }],
            _ => variable.options.clone(),
        };
        let asked = asked(&variable.name);
        done.push(variable.resolve(options, asked.as_deref()));
    }
    done
}

/// The values of `label_values(..)`, `label_names()`, `metrics(..)`, `query_result(..)`.
fn values(query: &str, source: &Source<'_>) -> Vec<String> {
    let query = query.trim();
    let Some((function, arguments)) = query.strip_suffix(')').and_then(|q| q.split_once('('))
    else {
        return Vec::new();
    };
    match function.trim() {
        "label_values" => match arguments.rsplit_once(',') {
            Some((selector, label)) if !label.contains(['}', '"']) => {
                label_values(label.trim(), Some(selector.trim()), source)
            }
            _ => label_values(arguments.trim(), None, source),
        },
        "label_names" => source
            .store
            .label_names(&[], source.range.from, source.range.to, VALUES_MAX)
            .unwrap_or_default(),
        "metrics" => {
            let pattern = format!(".*(?:{}).*", arguments.trim());
            let matcher = Matcher::new(METRIC_NAME, MatchOp::Regex, &pattern);
            let selectors: Vec<Vec<Matcher>> = matcher.into_iter().map(|m| vec![m]).collect();
            of_label(METRIC_NAME, &selectors, source)
        }
        "query_result" => query_result(arguments, source),
        _ => Vec::new(),
    }
}

fn label_values(label: &str, selector: Option<&str>, source: &Source<'_>) -> Vec<String> {
    let label = label.trim_matches('"');
    match selector.map(promql::parser::parse_selector) {
        None => of_label(label, &[], source),
        Some(Ok(selector)) => of_label(label, &[selector.matchers], source),
        Some(Err(_)) => Vec::new(),
    }
}

fn of_label(label: &str, selectors: &[Vec<Matcher>], source: &Source<'_>) -> Vec<String> {
    let (from, to) = (source.range.from, source.range.to);
    let values = source
        .store
        .label_values(label, selectors, from, to, VALUES_MAX);
    values.unwrap_or_default()
}

/// Each element as Grafana writes it: `name{a="b"} value time`.
fn query_result(query: &str, source: &Source<'_>) -> Vec<String> {
    let Ok(expr) = promql::parse(query) else {
        return Vec::new();
    };
    let t = source.range.to;
    match source.engine.instant(source.store, &expr, t, source.cancel) {
        Ok(output) => match output.value {
            Value::Vector { samples, .. } => samples
                .into_iter()
                .take(VALUES_MAX)
                .map(|s| format!("{} {} {}", s.labels, s.v, t.as_ms()))
                .collect(),
            Value::Scalar { v, .. } => vec![v.to_string()],
            _ => Vec::new(),
        },
        Err(_) => Vec::new(),
    }
}
