//! What scripts cannot say: limits, cancellation, and that nothing panics.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use proptest::prelude::*;
use pulse::model::histogram::{Bucket, CUSTOM};
use pulse::model::{Histogram, HistogramSample, Sample, Timestamp, stale_nan};
use pulse::promql::{
    Engine, EvalError, HistogramSeries, Options, QueryError, Series, Value, parse,
};

use super::memory::{Memory, labels};

fn series(metric: &str, values: impl IntoIterator<Item = f64>) -> Series {
    let sample = |(i, v)| Sample::new(i as i64 * 15_000, v);
    Series {
        labels: labels(metric).expect("a valid label set"),
        samples: values.into_iter().enumerate().map(sample).collect(),
    }
}

fn small() -> Memory {
    let mut memory = Memory::default();
    memory.add(series("foo{a=\"1\"}", (0..40).map(f64::from)));
    memory.add(series(
        "foo{a=\"2\",b=\"x\"}",
        (0..40).map(|i| f64::from(i % 7)),
    ));
    memory.add(series(
        "bar{a=\"1\"}",
        [1.0, f64::NAN, f64::INFINITY, stale_nan(), -1e300, 0.0],
    ));
    memory.add(series("bar{a=\"2\",b=\"y\"}", [-0.0; 30]));
    for (le, count) in [("0.1", 1.0), ("1", 5.0), ("+Inf", 7.0), ("bad", 1.0)] {
        memory.add(series(
            &format!("h_bucket{{le=\"{le}\"}}"),
            (0..40).map(|i| f64::from(i) * count),
        ));
    }
    let h = |i: i64, custom: bool| HistogramSample {
        t: Timestamp::from_ms(i * 15_000),
        h: Arc::new(Histogram {
            schema: if custom { CUSTOM } else { (i % 3) as i8 },
            count: (i % 9) as f64,
            sum: if i == 7 { f64::NAN } else { i as f64 },
            zero_threshold: if custom { 0.0 } else { 0.01 * (i % 2) as f64 },
            positive: vec![Bucket {
                index: (i % 4) as i32,
                count: (i % 9) as f64 + 1.0,
            }],
            bounds: if custom {
                [i as f64, 50.0].into()
            } else {
                [].into()
            },
            ..Histogram::default()
        }),
    };
    let native = |metric: &str, samples: Vec<HistogramSample>| HistogramSeries {
        labels: labels(metric).expect("a valid label set"),
        samples,
    };
    memory.add_histograms(native("n{a=\"1\"}", (0..40).map(|i| h(i, false)).collect()));
    memory.add_histograms(native("n{a=\"2\"}", (0..40).map(|i| h(i, true)).collect()));
    // Kinds that take turns, and histograms beside numbers.
    memory.add_histograms(native(
        "n{a=\"3\"}",
        (0..40).map(|i| h(i, i % 7 == 3)).collect(),
    ));
    memory.add_histograms(native(
        "bar{a=\"1\"}",
        (4..30).map(|i| h(i, false)).collect(),
    ));
    memory
}

fn never() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

fn range(
    engine: &Engine,
    query: &str,
    cancelled: bool,
) -> Result<pulse::promql::Output, EvalError> {
    engine.range(
        &small(),
        &parse(query).expect("a valid query"),
        Timestamp::from_ms(0),
        Timestamp::from_ms(600_000),
        Duration::from_secs(15),
        &Arc::new(AtomicBool::new(cancelled)),
    )
}

#[test]
fn a_cancelled_query_ends() {
    let result = range(&Engine::default(), "sum(rate(foo[5m]))", true);
    assert!(matches!(
        result,
        Err(EvalError::Query(QueryError::Cancelled))
    ));
}

#[test]
fn the_sample_limit_holds_for_every_kind_of_node() {
    let mut engine = Engine::default();
    engine.options.samples_max = 100;
    for query in [
        "foo + foo",
        "{a=~\".+\"}",
        "count_over_time(foo[5m:1s])",
        "sum(rate({a=~\".+\"}[1m])) + scalar(foo) + scalar(foo) + scalar(foo)",
        "vector(time()) + foo",
        "foo[100y:1ms]",
    ] {
        let result = if query.contains("100y") {
            let expr = parse(query).unwrap();
            engine.instant(&small(), &expr, Timestamp::from_ms(0), &never())
        } else {
            range(&engine, query, false)
        };
        let limited = matches!(result, Err(EvalError::Query(QueryError::TooManySamples)));
        assert!(limited, "{query}: {result:?}");
    }
}

#[test]
fn the_series_limit_holds() {
    let engine = Engine {
        options: Options {
            series_max: 3,
            ..Options::default()
        },
        ..Engine::default()
    };
    let result = range(&engine, "{a=~\".*\",__name__=~\".+\"}", false);
    assert!(matches!(
        result,
        Err(EvalError::Query(QueryError::TooManySeries(3)))
    ));
}

#[test]
fn texts_and_range_vectors_have_no_value_over_time() {
    for (query, kind) in [("\"x\"", "string"), ("foo[5m]", "range vector")] {
        let error = range(&Engine::default(), query, false)
            .unwrap_err()
            .to_string();
        let want = format!(
            "invalid expression type \"{kind}\" for range query, must be Scalar or instant Vector"
        );
        assert_eq!(error, want);
    }
}

#[test]
fn an_instant_range_vector_is_the_raw_samples() {
    let expr = parse("bar{a=\"1\"}[1m]").unwrap();
    let output = Engine::default()
        .instant(&small(), &expr, Timestamp::from_ms(60_000), &never())
        .unwrap();
    let Value::Matrix(series) = output.value else {
        panic!("no matrix: {output:?}");
    };
    // (0, 60 s] without the marker at 45 s.
    let times: Vec<i64> = series[0].samples.iter().map(|s| s.t.as_ms()).collect();
    assert_eq!(times, [15_000, 30_000, 60_000]);
}

#[test]
fn the_highest_tree_evaluates_on_a_small_stack() {
    let height = pulse::promql::parser::HEIGHT_MAX;
    let query = "foo + ".repeat(height - 1) + "foo";
    assert!(range(&Engine::default(), &query, false).is_ok());
    let nesting = pulse::promql::parser::NESTING_MAX;
    let deep = "abs(".repeat(nesting - 1) + "foo" + &")".repeat(nesting - 1);
    assert!(range(&Engine::default(), &deep, false).is_ok());
}

/// Expressions over the series of [`small`].
fn query() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "foo",
            "bar",
            "{a=~\".+\"}",
            "h_bucket",
            "n",
            "n",
            "n{a=\"1\"}",
            "none",
            "foo offset 1m",
            "bar @ 60",
            "time()",
            "foo @ end() offset -1m",
            "1",
            "-1.5",
            "NaN",
            "Inf",
            "1e300",
            "pi()",
            "vector(1)",
        ])
        .prop_map(str::to_owned),
        any::<f64>().prop_map(|v| format!("{v:e}").replace("e0", "")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let ops = vec![
            "+",
            "-",
            "*",
            "/",
            "%",
            "^",
            "atan2",
            "== bool",
            "!=",
            ">",
            "<= bool",
            "and",
            "or",
            "unless on(a)",
            "/ on(a) group_left(b)",
            "* ignoring(b) group_right",
            "- ignoring(b)",
            "> on() group_left",
        ];
        let binary = (inner.clone(), prop::sample::select(ops), inner.clone())
            .prop_map(|(a, op, b)| format!("({a} {op} {b})"));
        let wrap = (inner.clone(), prop::sample::select(wrappers()), inner).prop_map(
            |(inner, wrapper, other)| wrapper.replacen('X', &inner, 1).replacen('Y', &other, 1),
        );
        prop_oneof![binary, wrap]
    })
}

/// Every function and aggregation around `X` and `Y`.
fn wrappers() -> Vec<String> {
    use pulse::promql::ast::Type;
    let mut wrappers: Vec<String> = pulse::promql::signature::functions()
        .iter()
        .map(|function| {
            let args: Vec<&str> = function
                .args
                .iter()
                .map(|arg| match arg {
                    Type::Scalar => "scalar(Y)",
                    Type::Vector => "X",
                    Type::Matrix => "X[3m:20s]",
                    Type::String => "\"a\"",
                })
                .collect();
            format!("{}({})", function.name, args.join(", "))
        })
        .collect();
    for op in pulse::promql::ast::AggregateOp::ALL {
        let param = match op.param_type() {
            Some(Type::String) => "\"v\", ",
            Some(_) => "scalar(Y), ",
            None => "",
        };
        wrappers.push(format!("{} by (a) ({param}X)", op.as_str()));
        wrappers.push(format!("{} without (a) ({param}X)", op.as_str()));
    }
    wrappers.extend(
        [
            "-X",
            "rate(foo[1m]) + X",
            "rate(n[2m]) + X",
            "delta({a=~\".\"}[90s])",
            "n * Y",
            "scalar(X)",
            "X[2m:7s] offset 1m",
            "topk(1, X)",
        ]
        .map(str::to_owned),
    );
    wrappers
}

proptest! {
    /// Also: an instant query agrees with the step of a range query at the same time.
    #[test]
    fn no_expression_panics(query in query(), at in -60i64..700) {
        let Ok(expr) = parse(&query) else { return Ok(()) };
        let engine = Engine::default();
        let memory = small();
        let t = Timestamp::from_ms(at * 1000);
        let instant = engine.instant(&memory, &expr, t, &never());
        let step = Duration::from_secs(15);
        let several = engine.range(&memory, &expr, t, t.plus_ms(90_000), step, &never());
        let one = engine.range(&memory, &expr, t, t, step, &never());
        // Overlapping windows add in another order, which may change the last bit.
        let may_differ = ["end()", "sum_over_time", "avg_over_time"]
            .iter()
            .any(|part| query.contains(part));
        // An instant query has no step, and the two ranges are not the same.
        if ["step()", "range()"].iter().any(|part| query.contains(part)) {
            return Ok(());
        }
        if let (Ok(instant), Ok(one)) = (instant, one) {
            prop_assert_eq!(elements(instant.value), elements(one.value.clone()), "{}", query);
            if let Ok(several) = several && !may_differ {
                let first = |value| -> Vec<_> {
                    let mut all = elements(value);
                    all.retain(|(_, sample_t, _)| *sample_t == t.as_ms());
                    all
                };
                prop_assert_eq!(first(several.value), first(one.value), "{}", query);
            }
        }
    }

    #[test]
    fn arbitrary_text_that_parses_never_panics(text in "[a-z0-9(){}\\[\\]:+*/<>=!~@\" ]{0,30}") {
        if let Ok(expr) = parse(&text) {
            let _ = Engine::default().instant(&small(), &expr, Timestamp::from_ms(60_000), &never());
        }
    }
}

/// Labels, times and bits, sorted, whatever the kind of value.
fn elements(value: Value) -> Vec<(String, i64, u64)> {
    let bits = |v: f64| {
        if v.is_nan() {
            f64::NAN.to_bits()
        } else {
            v.to_bits()
        }
    };
    let mut all: Vec<(String, i64, u64)> = match value {
        Value::Scalar { t, v } => vec![("{}".to_owned(), t.as_ms(), bits(v))],
        Value::String { .. } => Vec::new(),
        Value::Vector { t, samples } => samples
            .into_iter()
            .map(|s| {
                let native = s.histogram.map(|h| h.to_string());
                (named(&s.labels, native.as_deref()), t.as_ms(), bits(s.v))
            })
            .collect(),
        Value::Matrix(series) => series
            .into_iter()
            .flat_map(|s| {
                let name = s.labels.to_string();
                let native = s.histograms.into_iter();
                let native = native.map(move |p| {
                    let text = p.h.to_string();
                    (named(&s.labels, Some(&text)), p.t.as_ms(), bits(0.0))
                });
                let samples = s.samples.into_iter();
                samples
                    .map(move |p| (name.clone(), p.t.as_ms(), bits(p.v)))
                    .chain(native)
            })
            .collect(),
    };
    all.sort();
    all
}

/// Two series with a sample every 15 s; counted by hand as Prometheus counts.
#[test]
fn each_step_counts_the_samples_that_it_looks_at() {
    let mut memory = Memory::default();
    for a in ["1", "2"] {
        memory.add(series(&format!("foo{{a=\"{a}\"}}"), (0..40).map(f64::from)));
    }
    let mut engine = Engine::default();
    engine.options.step_stats = true;
    let cancel = Arc::new(AtomicBool::new(false));
    let (start, step) = (Timestamp::from_ms(60_000), Duration::from_secs(60));
    for (query, want) in [
        ("foo", [2, 2, 2]),
        ("-foo + foo", [4, 4, 4]),
        ("foo offset 2m", [0, 2, 2]),
        ("foo @ 60", [2, 2, 2]),
        // (15 s, 1 m], (1 m 15 s, 2 m], ...: 3 samples each.
        ("rate(foo[45s])", [6, 6, 6]),
        ("rate(foo{a=\"1\"}[5m])", [5, 9, 13]),
        ("sum(rate(foo[45s] @ 60))", [6, 6, 6]),
        // The window of the subquery has four steps, whatever is read for them.
        ("max_over_time(foo[1m:15s])", [8, 8, 8]),
        ("max_over_time(rate(foo[45s])[1m:15s])", [8, 8, 8]),
        ("time()", [0, 0, 0]),
    ] {
        let expr = parse(query).unwrap();
        let end = start.plus_ms(120_000);
        let output = engine.range(&memory, &expr, start, end, step, &cancel);
        assert_eq!(output.unwrap().step_samples, want, "{query}");
        let output = engine.instant(&memory, &expr, start, &cancel).unwrap();
        assert_eq!(output.step_samples, want[..1], "{query}");
    }
    for (query, want) in [("foo[1m]", 8), ("foo[1m:30s]", 4)] {
        let output = engine.instant(&memory, &parse(query).unwrap(), start, &cancel);
        assert_eq!(output.unwrap().step_samples, [want], "{query}");
    }
}

fn named(labels: &pulse::model::Labels, histogram: Option<&str>) -> String {
    format!("{labels}{}", histogram.unwrap_or_default())
}
