//! Queries for pages: several at once, bounded, within a time.

use std::time::Duration;

use futures_util::StreamExt;

use crate::model::{Sample, Timestamp};
use crate::promql::{self, Value};
use crate::web::context::{Context, GateError};
use crate::web::dashboard::data::{Answer, Job};

/// Queries of one page that run at once.
const AT_ONCE: usize = 4;

/// Asks panels in order, a few at a time, until `budget` is over. What is not
/// answered by then is `None`, and its queries are cancelled.
pub(crate) async fn panels(
    context: &Context,
    jobs: Vec<Job>,
    budget: Duration,
) -> Vec<Option<Answer>> {
    let mut answers: Vec<Option<Answer>> = Vec::new();
    answers.resize_with(jobs.len(), || None);
    let work = jobs.into_iter().enumerate().map(|(i, job)| {
        let (store, engine) = (context.store.clone(), context.engine.clone());
        async move {
            let asked = context
                .gate
                .run(budget, move |cancel| job.run(&store, &engine, cancel));
            (i, asked.await)
        }
    });
    let mut running = futures_util::stream::iter(work).buffer_unordered(AT_ONCE);
    let deadline = tokio::time::Instant::now() + budget;
    while let Ok(Some((i, answer))) = tokio::time::timeout_at(deadline, running.next()).await {
        answers[i] = match answer {
            Ok(answer) => Some(answer),
            Err(GateError::TimedOut | GateError::Busy) => None,
            Err(err @ GateError::Failed) => Some(Answer {
                faults: vec![crate::web::dashboard::data::Fault {
                    message: err.to_string(),
                    query: String::new(),
                }],
                ..Answer::default()
            }),
        };
    }
    answers
}

/// A number now and its way there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figure {
    /// The value now; `None` without data.
    pub(crate) now: Option<f64>,
    /// The last stretch of time.
    pub(crate) past: Vec<Sample>,
}

/// Asks for single numbers: each now, and over the last `span_ms` in `step_ms`.
pub(crate) async fn figures(
    context: &Context,
    queries: &'static [&'static str],
    now: Timestamp,
    span_ms: i64,
    step_ms: i64,
) -> Vec<Figure> {
    let (store, engine) = (context.store.clone(), context.engine.clone());
    let asked = context
        .gate
        .run(Duration::from_millis(1500), move |cancel| {
            let (start, end) = (
                now.minus_ms(span_ms).floor_to(step_ms),
                now.floor_to(step_ms),
            );
            let step = Duration::from_millis(step_ms.unsigned_abs());
            let one = |query: &&str| {
                let expr = promql::parse(query).ok()?;
                let instant = engine.instant(&store, &expr, now, cancel).ok()?;
                let past = engine.range(&store, &expr, start, end, step, cancel).ok()?;
                Some(Figure {
                    now: first(instant.value),
                    past: match past.value {
                        Value::Matrix(series) => series
                            .into_iter()
                            .next()
                            .map(|s| s.samples)
                            .unwrap_or_default(),
                        _ => Vec::new(),
                    },
                })
            };
            queries
                .iter()
                .map(|query| one(query).unwrap_or_default())
                .collect()
        });
    let answers: Vec<Figure> = asked.await.unwrap_or_default();
    if answers.is_empty() {
        return vec![Figure::default(); queries.len()];
    }
    answers
}

fn first(value: Value) -> Option<f64> {
    match value {
        Value::Scalar { v, .. } => Some(v),
        Value::Vector { samples, .. } => samples
            .first()
            .filter(|sample| sample.histogram.is_none())
            .map(|sample| sample.v),
        _ => None,
    }
    .filter(|v| !v.is_nan())
}
