//! `/api/v1/query` and `/api/v1/query_range`.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use tokio::time::Instant;

use super::json::{self, Object};
use super::params::{Params, positive};
use crate::model::{Sample, Timestamp};
use crate::promql::{
    self, Engine, EvalError, Expr, Output, QueryError, RangeSeries, Value, VectorSample,
};
use crate::store::Store;
use crate::web::Context;
use crate::web::context::{Cancel, GateError};
use crate::web::error::ApiError;

/// Steps of one range query above the first, as in Prometheus: enough for a week of
/// minutes, and for every pixel of a wide screen.
const STEPS_MAX: i64 = 11_000;

/// So many samples are read, and values held, by a query that is evaluated at once.
const AT_HAND_SAMPLES_MAX: usize = 32 << 10;
/// And its text has at most so many bytes.
const AT_HAND_TEXT_MAX: usize = 1_000;

/// What both kinds of query have in common.
struct Asked {
    expr: Expr,
    engine: Engine,
    timeout: Duration,
    limit: usize,
    /// Whether it is too long a text to be evaluated at once.
    is_long: bool,
    /// Whether the answer tells what it took, and for each step.
    stats: Detail,
    began: Instant,
    parsed: Duration,
}

/// How much an answer tells of what it took, by the parameter `stats`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Nothing,
    Total,
    Steps,
}

/// What a query took.
struct Stats {
    /// The times of the steps in milliseconds, if each is to be told: the first, and
    /// the distance.
    steps: Option<(i64, i64)>,
    /// Reading the query's text.
    parsed: Duration,
    /// From the request until the query had a permit.
    queued: Duration,
    /// The evaluation itself.
    evaluated: Duration,
}

/// The value of an expression at one time.
pub async fn instant(State(context): State<Context>, params: Params) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let t = params.time("time")?.unwrap_or_else(|| context.clock.now());
    let asked = Asked::new(&context, &params, limit)?;
    answer(&context, asked, When::At(t)).await
}

/// The values of an expression at regular steps.
pub async fn range(State(context): State<Context>, params: Params) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    if end < start {
        return Err(ApiError::parameter(
            "end",
            "end timestamp must not be before start time",
        ));
    }
    let step = step(&params)?;
    let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
    if end.ms_since(start) / step_ms > STEPS_MAX {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)",
        ));
    }
    let asked = Asked::new(&context, &params, limit)?;
    answer(&context, asked, When::Over(start, end, step)).await
}

/// The times of the evaluation.
#[derive(Clone, Copy)]
enum When {
    At(Timestamp),
    Over(Timestamp, Timestamp, Duration),
}

/// Evaluates on this thread what takes a fraction of a millisecond, which is half of
/// what the way to the blocking pool and back takes; all else goes there.
async fn answer(context: &Context, asked: Asked, when: When) -> Result<Response, ApiError> {
    if let Some(answer) = asked.at_hand(context, when) {
        return answer.map(json::respond);
    }
    let (store, timeout) = (context.store.clone(), asked.timeout);
    let run = context.gate.run(timeout, move |cancel| {
        asked.run(&asked.engine, &store, when, cancel)
    });
    Ok(json::respond(run.await??))
}

impl Asked {
    fn new(context: &Context, params: &Params, limit: usize) -> Result<Asked, ApiError> {
        let began = Instant::now();
        let mut timeout = context.config().query.timeout.get();
        let wanted = params
            .duration_ms("timeout")
            .map_err(|err| ApiError::parameter("timeout", err))?;
        if let Some(ms) = wanted {
            timeout = positive(ms).ok_or(GateError::TimedOut)?.min(timeout);
        }
        let mut engine = context.engine.clone();
        let expr = promql::parse_with(params.get("query"), engine.options.features)
            .map_err(|err| ApiError::parse("query", &err))?;
        let lookback = params.duration_ms("lookback_delta").map_err(|err| {
            ApiError::bad_data(format!("error parsing lookback delta duration: {err}"))
        })?;
        let stats = match params.get("stats") {
            "" => Detail::Nothing,
            "all" => Detail::Steps,
            _ => Detail::Total,
        };
        engine.options.step_stats = stats != Detail::Nothing;
        if let Some(lookback) = lookback.and_then(positive) {
            engine.options.lookback = lookback;
        }
        Ok(Asked {
            expr,
            engine,
            timeout,
            limit,
            is_long: params.get("query").len() > AT_HAND_TEXT_MAX,
            stats,
            parsed: began.elapsed(),
            began,
        })
    }

    /// The answer, if the query is short, and all that it reads is little and in memory.
    fn at_hand(&self, context: &Context, when: When) -> Option<Result<Vec<u8>, ApiError>> {
        if self.is_long {
            return None;
        }
        let mut engine = self.engine.clone();
        let options = &mut engine.options;
        (options.at_hand, options.threads) = (true, 1);
        options.samples_max = options.samples_max.min(AT_HAND_SAMPLES_MAX);
        let gate = &context.gate;
        let answer = gate.run_here(|cancel| self.run(&engine, &context.store, when, cancel))?;
        match answer {
            Err(EvalError::Query(err)) if !matches!(err, QueryError::Store(_)) => None,
            answer => Some(answer.map_err(ApiError::from)),
        }
    }

    fn run(
        &self,
        engine: &Engine,
        store: &Store,
        when: When,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, EvalError> {
        let (expr, started) = (&self.expr, Instant::now());
        let (output, steps) = match when {
            When::At(t) => (engine.instant(store, expr, t, cancel)?, (t, Duration::ZERO)),
            When::Over(start, end, step) => (
                engine.range(store, expr, start, end, step, cancel)?,
                (start, step),
            ),
        };
        let stats = self.stats(started, steps);
        Ok(encoded(output, self.limit, stats))
    }

    /// What the query took that is done now, if anybody wants to know.
    fn stats(&self, started: Instant, (start, step): (Timestamp, Duration)) -> Option<Stats> {
        let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
        (self.stats != Detail::Nothing).then(|| Stats {
            steps: (self.stats == Detail::Steps).then_some((start.as_ms(), step)),
            parsed: self.parsed,
            queued: started.duration_since(self.began),
            evaluated: started.elapsed(),
        })
    }
}

fn step(params: &Params) -> Result<Duration, ApiError> {
    let step = match params.duration_ms("step") {
        Ok(Some(ms)) => ms,
        Ok(None) => {
            let message = "cannot parse \"\" to a valid duration";
            return Err(ApiError::parameter("step", message));
        }
        Err(err) => return Err(ApiError::parameter("step", err)),
    };
    positive(step).ok_or_else(|| {
        ApiError::parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. \
             Try a positive integer",
        )
    })
}

/// The whole answer.
fn encoded(mut output: Output, limit: usize, stats: Option<Stats>) -> Vec<u8> {
    if truncated(&mut output.value, limit) {
        let text = "results truncated due to limit";
        output.warnings.push(text.to_owned());
    }
    json::success(&output.warnings, &output.infos, |out| {
        let mut data = Object::new(out);
        match &output.value {
            Value::Scalar { t, v } => {
                data.text("resultType", "scalar");
                json::point(data.field("result"), Sample { t: *t, v: *v });
            }
            Value::String { t, v } => {
                data.text("resultType", "string");
                let out = data.field("result");
                out.push(b'[');
                json::time(out, *t);
                out.push(b',');
                json::html_safe_string(out, v);
                out.push(b']');
            }
            Value::Vector { t, samples } => {
                data.text("resultType", "vector");
                json::array(data.field("result"), samples, |out, sample| {
                    element(out, *t, sample);
                });
            }
            Value::Matrix(series) => {
                data.text("resultType", "matrix");
                json::array(data.field("result"), series, one_series);
            }
        }
        if let Some(stats) = stats {
            write_stats(data.field("stats"), &output, &stats);
        }
        data.end();
    })
}

/// Statistics under Prometheus' names. A sample counts at every step that looks at it.
/// Series are found while they are evaluated and sorted as they come, so that
/// preparing is reading the query, and sorting takes no time of its own.
fn write_stats(out: &mut Vec<u8>, output: &Output, stats: &Stats) {
    let mut object = Object::new(out);
    let mut timings = Object::new(object.field("timings"));
    let (queued, evaluated) = (stats.queued.as_secs_f64(), stats.evaluated.as_secs_f64());
    for (name, seconds) in [
        ("evalTotalTime", evaluated),
        ("resultSortTime", 0.0),
        ("queryPreparationTime", stats.parsed.as_secs_f64()),
        ("innerEvalTime", evaluated),
        ("execQueueTime", queued),
        ("execTotalTime", queued + evaluated),
    ] {
        timings.number(name, seconds);
    }
    timings.end();
    let mut samples = Object::new(object.field("samples"));
    let counts = &output.step_samples;
    if let Some((start, step)) = stats.steps {
        let times = (0..).map(|i| start.saturating_add(step.saturating_mul(i)));
        let steps = times.zip(counts);
        json::array(
            samples.field("totalQueryableSamplesPerStep"),
            steps,
            |out, (t, count)| {
                out.push(b'[');
                json::time(out, Timestamp::from_ms(t));
                json::raw(out, &format!(",{count}]"));
            },
        );
    }
    samples
        .integer("totalQueryableSamples", counts.iter().sum::<u64>())
        .integer(
            "peakSamples",
            i128::try_from(output.samples_peak).unwrap_or(i128::MAX),
        )
        .end();
    object.end();
}

fn truncated(value: &mut Value, limit: usize) -> bool {
    match value {
        Value::Vector { samples, .. } if samples.len() > limit => samples.truncate(limit),
        Value::Matrix(series) if series.len() > limit => series.truncate(limit),
        _ => return false,
    }
    true
}

fn element(out: &mut Vec<u8>, t: Timestamp, sample: &VectorSample) {
    json::raw(out, "{\"metric\":");
    json::labels(out, &sample.labels);
    match &sample.histogram {
        Some(h) => {
            json::raw(out, ",\"histogram\":");
            json::histogram_point(out, t, h);
        }
        None => {
            json::raw(out, ",\"value\":");
            json::point(out, Sample { t, v: sample.v });
        }
    }
    out.push(b'}');
}

fn one_series(out: &mut Vec<u8>, series: &RangeSeries) {
    json::raw(out, "{\"metric\":");
    json::labels(out, &series.labels);
    if !series.samples.is_empty() || series.histograms.is_empty() {
        json::raw(out, ",\"values\":");
        json::points(out, &series.samples);
    }
    if !series.histograms.is_empty() {
        json::raw(out, ",\"histograms\":");
        json::array(out, &series.histograms, |out, sample| {
            json::histogram_point(out, sample.t, &sample.h);
        });
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::histogram::Bucket;
    use crate::model::{Histogram, HistogramSample, Labels};

    fn check(value: Value, limit: usize, want: &str) {
        let output = Output {
            value,
            warnings: Vec::new(),
            infos: Vec::new(),
            is_incomplete: false,
            samples_read: 0,
            step_samples: Vec::new(),
            samples_peak: 0,
        };
        let text = String::from_utf8(encoded(output, limit, None)).unwrap();
        assert_eq!(text, want);
    }

    const T: Timestamp = Timestamp::from_ms(1_435_781_451_781);

    #[test]
    fn every_kind_of_value_has_prometheus_form() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a\"b")]);
        check(
            Value::Scalar { t: T, v: 0.5 },
            9,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"0.5"]}}"#,
        );
        check(
            Value::String {
                t: T,
                v: "<x>".to_owned(),
            },
            9,
            r#"{"status":"success","data":{"resultType":"string","result":[1435781451.781,"\u003cx\u003e"]}}"#,
        );
        check(
            Value::Vector {
                t: T,
                samples: vec![VectorSample {
                    labels: labels.clone(),
                    v: f64::INFINITY,
                    histogram: None,
                }],
            },
            9,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a\"b"},"value":[1435781451.781,"+Inf"]}]}}"#,
        );
        check(
            Value::Matrix(vec![RangeSeries {
                labels,
                samples: vec![Sample::new(1_000, 1.0), Sample::new(2_500, f64::NAN)],
                histograms: Vec::new(),
            }]),
            9,
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"a\"b"},"values":[[1,"1"],[2.500,"NaN"]]}]}}"#,
        );
        check(
            Value::Matrix(Vec::new()),
            9,
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
        );
    }

    #[test]
    fn native_histograms_have_prometheus_form() {
        let bucket = |index, count| Bucket { index, count };
        let h = Histogram {
            zero_threshold: 0.25,
            zero_count: 1.0,
            count: 7.0,
            sum: -0.5,
            positive: vec![bucket(0, 1.5), bucket(2, 1.5)],
            negative: vec![bucket(1, 3.0)],
            ..Histogram::default()
        };
        let h = std::sync::Arc::new(h);
        let text = r#"{"count":"7","sum":"-0.5","buckets":[[1,"-2","-1","3"],[3,"-0.25","0.25","1"],[0,"0.5","1","1.5"],[0,"2","4","1.5"]]}"#;
        let labels = Labels::from_pairs([("a", "b")]);
        check(
            Value::Vector {
                t: T,
                samples: vec![VectorSample {
                    labels: labels.clone(),
                    v: 0.0,
                    histogram: Some(h.clone()),
                }],
            },
            9,
            &format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"a":"b"}},"histogram":[1435781451.781,{text}]}}]}}}}"#
            ),
        );
        let series = |samples| RangeSeries {
            labels: labels.clone(),
            samples,
            histograms: vec![HistogramSample {
                t: Timestamp::from_ms(2_000),
                h: h.clone(),
            }],
        };
        check(
            Value::Matrix(vec![
                series(Vec::new()),
                series(vec![Sample::new(1_000, 1.0)]),
            ]),
            9,
            &format!(
                r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{"a":"b"}},"histograms":[[2,{text}]]}},{{"metric":{{"a":"b"}},"values":[[1,"1"]],"histograms":[[2,{text}]]}}]}}}}"#
            ),
        );
    }

    #[test]
    fn a_limit_cuts_and_says_so() {
        let one = |name: &str| VectorSample {
            labels: Labels::from_pairs([("a", name)]),
            v: 1.0,
            histogram: None,
        };
        let samples = vec![one("x"), one("y")];
        check(
            Value::Vector {
                t: Timestamp::from_ms(0),
                samples,
            },
            1,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"x"},"value":[0,"1"]}]},"warnings":["results truncated due to limit"]}"#,
        );
    }
}
