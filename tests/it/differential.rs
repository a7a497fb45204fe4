//! The same samples and queries to our engine and to a real Prometheus.
//!
//! Prometheus gets the samples as blocks made from an OpenMetrics file, our
//! engine from memory. Every query of `differential/queries.txt` runs as a
//! range query with two steps and as an instant query at several times; values
//! agree to 1e-9, special values and timestamps exactly. The reference is
//! Prometheus 2.42, so the file also lists the queries that a newer language
//! answers differently, each under its cause; such a query must really differ,
//! or it belongs to the others.
//!
//! Samples and evaluation times lie off whole seconds, each by another fraction:
//! windows are open on the left since 3.0, which only shows when a sample or a
//! subquery's step lies exactly on their start.

mod data;
mod prometheus;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pulse::model::Timestamp;
use pulse::promql::{Engine, Output, Value, parse};

use crate::programs::same;
use crate::promql_scripts::memory::Memory;
use prometheus::{Answer, Prometheus, Series};

/// Fewer would mean that the file was not read to its end.
const QUERIES_MIN: usize = 500;
/// The reference is older than our language, but not by more than this.
const DIFFERENT_MAX: usize = 40;

/// When a query is evaluated, in seconds after [`ORIGIN_MS`].
#[derive(Clone, Copy, Debug)]
enum When {
    At(i64),
    Range { start: i64, end: i64, step: i64 },
}

/// Half a second after the start of the data.
const ORIGIN_MS: i64 = data::START * 1000 + 500;

const TIMES: [When; 6] = [
    When::At(-1_000),
    When::At(307),
    When::At(3_607),
    When::At(7_207),
    When::Range {
        start: -53,
        end: 8_000,
        step: 37,
    },
    When::Range {
        start: 7,
        end: 7_300,
        step: 600,
    },
];

#[test]
fn queries_agree_with_prometheus() {
    let memory = data::memory();
    let Some(prometheus) = Prometheus::start(&data::open_metrics(&memory)) else {
        return;
    };
    let mut queries = 0;
    let mut different = 0;
    let mut failures = Vec::new();
    let mut cause = None;
    for line in include_str!("differential/queries.txt").lines() {
        if let Some(heading) = line.strip_prefix("== ") {
            cause = heading.strip_prefix("differs: ");
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        queries += 1;
        let differences: Vec<String> = TIMES
            .iter()
            .filter_map(|when| difference(&prometheus, &memory, line, *when))
            .collect();
        match cause {
            None => failures.extend(differences),
            Some(cause) => {
                different += 1;
                if differences.is_empty() {
                    failures.push(format!("{line}: no longer differs ({cause})"));
                }
            }
        }
    }
    let count = failures.len();
    failures.truncate(60);
    assert!(failures.is_empty(), "{count}:\n{}", failures.join("\n"));
    assert!(queries - different >= QUERIES_MIN, "only {queries} queries");
    assert!(different <= DIFFERENT_MAX, "{different} differ");
}

/// What differs, if anything.
fn difference(prometheus: &Prometheus, memory: &Memory, query: &str, when: When) -> Option<String> {
    let theirs = prometheus.query(query, when);
    let ours = ours(memory, query, when);
    let problem = match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => disagreement(theirs, ours)?,
        (Err(_), Err(_)) => return None,
        (Ok(_), Err(ours)) => format!("we fail: {ours}"),
        (Err(theirs), Ok(_)) => format!("they fail: {theirs}"),
    };
    Some(format!("{query} {when:?}: {problem}"))
}

fn ours(memory: &Memory, query: &str, when: When) -> Result<Answer, String> {
    let expr = parse(query).map_err(|err| err.to_string())?;
    let engine = Engine::default();
    let cancel = Arc::new(AtomicBool::new(false));
    let t = |seconds: i64| Timestamp::from_ms(ORIGIN_MS + seconds * 1000);
    let output = match when {
        When::At(at) => engine.instant(memory, &expr, t(at), &cancel),
        When::Range { start, end, step } => {
            let step = Duration::from_secs(step.unsigned_abs());
            engine.range(memory, &expr, t(start), t(end), step, &cancel)
        }
    };
    output.map(answer).map_err(|err| err.to_string())
}

fn answer(output: Output) -> Answer {
    let named = |labels: &pulse::model::Labels| -> BTreeMap<String, String> {
        labels
            .iter()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect()
    };
    match output.value {
        Value::Scalar { t, v } => Answer::of(vec![(BTreeMap::new(), vec![(t.as_ms(), v)])]),
        Value::String { v, .. } => Answer::text(v),
        Value::Vector { t, samples } => Answer::of(
            samples
                .iter()
                .map(|s| (named(&s.labels), vec![(t.as_ms(), s.v)]))
                .collect(),
        ),
        Value::Matrix(series) => Answer::of(
            series
                .iter()
                .map(|s| {
                    let points = s.samples.iter().map(|p| (p.t.as_ms(), p.v)).collect();
                    (named(&s.labels), points)
                })
                .collect(),
        ),
    }
}

fn disagreement(theirs: Answer, ours: Answer) -> Option<String> {
    if theirs.text != ours.text {
        return Some(format!("text {:?}, ours {:?}", theirs.text, ours.text));
    }
    let (theirs, ours) = (by_labels(theirs.series), by_labels(ours.series));
    let (their_labels, our_labels): (Vec<_>, Vec<_>) =
        (theirs.keys().collect(), ours.keys().collect());
    if their_labels != our_labels {
        return Some(format!("series {their_labels:?}, ours {our_labels:?}"));
    }
    theirs.iter().find_map(|(labels, theirs)| {
        let ours = &ours[labels];
        let times = |points: &[(i64, f64)]| points.iter().map(|p| p.0).collect::<Vec<_>>();
        if times(theirs) != times(ours) {
            return Some(format!("times of {labels:?}: {theirs:?}, ours {ours:?}"));
        }
        let mut pairs = theirs.iter().zip(ours);
        let pair = pairs.find(|(a, b)| !same(a.1, b.1))?;
        Some(format!("{labels:?}: {:?}, ours {:?}", pair.0, pair.1))
    })
}

fn by_labels(series: Vec<Series>) -> BTreeMap<BTreeMap<String, String>, Vec<(i64, f64)>> {
    series.into_iter().collect()
}
