//! A panel's queries and what they gave. Runs on the blocking pool.

use std::time::Duration;

use super::interpolate::{Place, Scope};
use super::model::{Kind, Panel, Target};
use super::timerange::{Range, Steps, duration_ms, steps};
use super::variables::Resolved;
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, Sample, Timestamp};
use crate::promql::{self, Engine, Output, Queryable, Value};
use crate::web::context::Cancel;

/// One series of a panel.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame {
    /// As the legend calls it.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The query it comes from.
    pub ref_id: String,
    /// In time order; one sample when only a moment was asked for.
    pub samples: Vec<Sample>,
}

/// A query that gave no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Why.
    pub message: String,
    /// The query as it was asked.
    pub query: String,
}

/// What a panel's queries gave.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    /// In the order of the queries, sorted by labels within each.
    pub frames: Vec<Frame>,
    /// Queries that failed.
    pub faults: Vec<Fault>,
    /// What the engine had to say.
    pub warnings: Vec<String>,
}

/// A panel ready to be asked: all variables are put in.
#[derive(Clone, Debug)]
pub struct Job {
    /// The panel's range, on the grid of its step.
    pub range: Range,
    /// Its steps.
    pub steps: Steps,
    queries: Vec<Query>,
}

#[derive(Clone, Debug)]
struct Query {
    target: Target,
    expr: String,
    instant: bool,
    step_ms: i64,
}

impl Job {
    /// Prepares a panel's queries for a page's range. Series are expected every `scrape_ms`.
    pub fn new(
        panel: &Panel,
        variables: &[Resolved],
        page: &Range,
        scrape_ms: i64,
        zone: &jiff::tz::TimeZone,
    ) -> Job {
        let range = own_range(panel, page, zone);
        let points = panel
            .points_max
            .unwrap_or(panel.grid.w * 40)
            .clamp(20, 1000);
        let least = panel.interval.as_deref().and_then(duration_ms);
        let base = steps(
            range.span_ms(),
            points,
            least.unwrap_or(scrape_ms),
            scrape_ms,
            1,
        );
        let queries = panel
            .targets
            .iter()
            .map(|target| {
                let least = duration_ms(&target.interval).or(least).unwrap_or(scrape_ms);
                let factor = target.interval_factor;
                let steps = steps(range.span_ms(), points, least, scrape_ms, factor);
                let scope = Scope {
                    variables,
                    range: &range,
                    steps,
                };
                Query {
                    expr: scope.expand(&target.expr, Place::Query),
                    instant: target.instant || matches!(panel.kind, Kind::Table | Kind::BarGauge),
                    step_ms: steps.step_ms,
                    target: target.clone(),
                }
            })
            .collect();
        Job {
            range,
            steps: base,
            queries,
        }
    }

    /// The left edge of a picture: on the grid, so that a refresh within one step
    /// gives the same picture again.
    pub fn start(&self) -> Timestamp {
        self.range.from.floor_to(self.steps.step_ms)
    }

    /// The right edge of a picture.
    pub fn end(&self) -> Timestamp {
        self.range.to.floor_to(self.steps.step_ms)
    }

    /// The queries as they are asked.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        self.queries.iter().map(|query| query.expr.as_str())
    }

    /// Asks. A query that fails leaves the others alone.
    pub fn run(&self, data: &dyn Queryable, engine: &Engine, cancel: &Cancel) -> Answer {
        let mut answer = Answer::default();
        for query in &self.queries {
            match self.ask(query, data, engine, cancel) {
                Ok(output) => {
                    answer.warnings.extend(output.warnings);
                    answer.frames.extend(frames(output.value, query));
                }
                Err(message) => answer.faults.push(Fault {
                    message,
                    query: query.expr.clone(),
                }),
            }
        }
        answer
    }

    fn ask(
        &self,
        query: &Query,
        data: &dyn Queryable,
        engine: &Engine,
        cancel: &Cancel,
    ) -> Result<Output, String> {
        let expr = promql::parse(&query.expr).map_err(|err| err.to_string())?;
        let output = if query.instant {
            engine.instant(data, &expr, self.range.to, cancel)
        } else {
            // Whole steps, so that a refresh gives the same points again.
            let step = query.step_ms;
            let (start, end) = (self.range.from.floor_to(step), self.range.to.floor_to(step));
            let step = Duration::from_millis(step.unsigned_abs());
            engine.range(data, &expr, start, end, step, cancel)
        };
        output.map_err(|err| err.to_string())
    }
}

fn own_range(panel: &Panel, page: &Range, zone: &jiff::tz::TimeZone) -> Range {
    match &panel.time_from {
        Some(past) => Range::resolve(&format!("now-{past}"), "now", page.to, zone),
        None => page.clone(),
    }
}

fn frames(value: Value, query: &Query) -> Vec<Frame> {
    let one = |labels: Labels, t: Timestamp, v: f64| (labels, vec![Sample { t, v }]);
    let series: Vec<(Labels, Vec<Sample>)> = match value {
        Value::Scalar { t, v } => vec![one(Labels::empty(), t, v)],
        Value::String { .. } => Vec::new(),
        Value::Vector { t, samples } => samples
            .into_iter()
            .filter(|sample| sample.histogram.is_none())
            .map(|sample| one(sample.labels, t, sample.v))
            .collect(),
        Value::Matrix(series) => series.into_iter().map(|s| (s.labels, s.samples)).collect(),
    };
    let differing = differing_labels(series.iter().map(|(labels, _)| labels));
    series
        .into_iter()
        .map(|(labels, samples)| Frame {
            name: frame_name(&query.target.legend, &labels, &differing, &query.expr),
            labels,
            ref_id: query.target.ref_id.clone(),
            samples,
        })
        .collect()
}

/// The labels that are not the same in all series.
fn differing_labels<'a>(all: impl Iterator<Item = &'a Labels> + Clone) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = all.clone();
    let Some(first) = rest.next() else {
        return names;
    };
    for labels in rest {
        for (name, value) in labels.iter().chain(first.iter()) {
            let same = first.value(name) == labels.value(name) && first.value(name) == value;
            if !same && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    names.sort_unstable();
    names
}

/// A legend's words: a template, `__auto`, or the whole series.
fn frame_name(legend: &str, labels: &Labels, differing: &[String], expr: &str) -> String {
    let whole = || {
        if labels.is_empty() {
            expr.to_owned()
        } else {
            labels.to_string()
        }
    };
    match legend {
        "" => whole(),
        "__auto" => match differing {
            [] => whole(),
            [one] => labels.value(one).to_owned(),
            many => {
                Labels::from_pairs(many.iter().map(|n| (n.as_str(), labels.value(n)))).to_string()
            }
        },
        template => fill(template, labels),
    }
}

/// Puts labels into `{{name}}`; `{{__name__}}` too.
fn fill(template: &str, labels: &Labels) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        let Some(end) = rest[start..].find("}}") else {
            break;
        };
        out.push_str(&rest[..start]);
        let name = rest[start + 2..start + end].trim();
        let name = if name == "__name__" {
            METRIC_NAME
        } else {
            name
        };
        out.push_str(labels.value(name));
        rest = &rest[start + end + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legends_name_what_differs() {
        let a = Labels::from_pairs([("__name__", "up"), ("job", "a"), ("dc", "x")]);
        let b = Labels::from_pairs([("__name__", "up"), ("job", "b"), ("dc", "x")]);
        let differing = differing_labels([&a, &b].into_iter());
        assert_eq!(differing, ["job"]);
        let name = |legend: &str| frame_name(legend, &a, &differing, "expr");
        assert_eq!(name("__auto"), "a");
        assert_eq!(name(""), "up{dc=\"x\", job=\"a\"}");
        assert_eq!(name("{{job}}@{{ dc }} {{nope}}{{"), "a@x {{");
        assert_eq!(
            frame_name("__auto", &Labels::empty(), &[], "sum(up)"),
            "sum(up)"
        );
    }
}
