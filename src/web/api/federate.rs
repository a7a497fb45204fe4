//! `/federate`: the last sample of chosen series, as a Prometheus scrapes them: text,
//! or protobuf for those who prefer it, which alone has native histograms.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};

use super::params::Params;
use super::remote_read::{external_labels, with_external};
use crate::codec::exposition::Number;
use crate::codec::families::{self, Exposed};
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, Matcher, Timestamp, is_stale_nan};
use crate::promql::queryable::SelectHints;
use crate::promql::{Gaps, Queryable as _};
use crate::web::Context;
use crate::web::context::Cancel;
use crate::web::error::ApiError;

/// Names are written with the characters that every reader of the format takes.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// A series with its latest sample.
type Latest = (Labels, Exposed);

/// Every series that any `match[]` selects, once, with its latest sample within the
/// lookback. A series that has ended is left out. As by Prometheus, what cannot be read
/// does not keep back the rest: a day of which a file was set aside still has its newest
/// samples in memory.
pub async fn federate(
    State(context): State<Context>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let selectors = params.selectors()?;
    let external = external_labels(&context);
    let timeout = context.config().query.timeout.get();
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let protobuf = families::is_preferred(accept.unwrap_or_default());
    let reading = context.clone();
    let run = context.gate.run(timeout, move |cancel| {
        let mut latest = Vec::new();
        for matchers in &selectors {
            read(&reading, matchers, cancel, &mut latest)?;
        }
        let latest = sorted(latest);
        Ok::<_, ApiError>(if protobuf {
            encoded(&latest, &external)
        } else {
            written(&latest, &external).into_bytes()
        })
    });
    let kind = if protobuf {
        families::CONTENT_TYPE
    } else {
        CONTENT_TYPE
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::VARY, "accept")];
    run.await?.map(|body| (headers, body).into_response())
}

fn read(
    context: &Context,
    matchers: &[Matcher],
    cancel: &Cancel,
    latest: &mut Vec<Latest>,
) -> Result<(), ApiError> {
    let now = context.clock.now();
    let options = &context.engine.options;
    let lookback = i64::try_from(options.lookback.as_millis()).unwrap_or(i64::MAX);
    let from = now.plus_ms(1 - lookback);
    let gaps = Gaps::default();
    let hints = SelectHints {
        reduce: None,
        any_times: false,
        at_hand: false,
        gaps: Some(gaps.clone()),
        series_max: options.series_max,
        samples_max: options.samples_max,
        newest_only: true,
        cancel: cancel.clone(),
    };
    let store = &context.store;
    for series in store.histograms(from, now, matchers, &hints)? {
        let last = series.samples.into_iter().next_back();
        latest.extend(last.map(|sample| (series.labels, Exposed::Histogram(sample))));
    }
    store.for_each(
        from,
        now,
        matchers,
        &hints,
        &mut [&mut |labels, samples| {
            let last = samples.last().copied().map(Exposed::Untyped);
            latest.extend(last.map(|sample| (labels.clone(), sample)));
            Ok(())
        }],
    )?;
    for gap in gaps.all() {
        tracing::debug!(gap, "federated without it");
    }
    Ok(())
}

/// Sorted by name and labels, each series once with what is newest; the end of a series
/// of histograms is a number.
fn sorted(mut latest: Vec<Latest>) -> Vec<Latest> {
    let by_name = |l: &Labels| l.value(METRIC_NAME).to_owned();
    latest.sort_by_cached_key(|(labels, sample)| (by_name(labels), labels.clone(), time(sample)));
    latest.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            std::mem::swap(next, kept);
        }
        same
    });
    latest.retain(|(labels, sample)| {
        let told = match sample {
            Exposed::Untyped(sample) => !is_stale_nan(sample.v),
            Exposed::Histogram(sample) => !sample.h.is_custom(),
        };
        told && !labels.value(METRIC_NAME).is_empty()
    });
    latest
}

fn time(sample: &Exposed) -> Timestamp {
    match sample {
        Exposed::Untyped(sample) => sample.t,
        Exposed::Histogram(sample) => sample.t,
    }
}

/// The families of all series as protobuf.
fn encoded(latest: &[Latest], external: &Labels) -> Vec<u8> {
    let mut out = Vec::with_capacity(latest.len() * 96);
    let key = |(labels, sample): &Latest| (labels.value(METRIC_NAME).to_owned(), sample.kind());
    for metrics in latest.chunk_by(|a, b| key(a) == key(b)) {
        let (name, kind) = key(&metrics[0]);
        let mut family = families::family(&legacy(&name, true), kind);
        for (labels, sample) in metrics {
            let labels = with_external(labels, external);
            let mut pairs: Vec<(String, &str)> = labels
                .iter()
                .filter(|(name, _)| *name != METRIC_NAME)
                .map(|(name, value)| (legacy(name, false), value))
                .collect();
            if labels.value("instance").is_empty() {
                pairs.push(("instance".to_owned(), ""));
            }
            let pairs = pairs.iter().map(|(name, value)| (name.as_str(), *value));
            families::push(&mut family, pairs, sample);
        }
        families::finish(&family, &mut out);
    }
    out
}

/// The families of all series as text; histograms are left out.
fn written(latest: &[Latest], external: &Labels) -> String {
    let mut out = String::with_capacity(latest.len() * 96);
    let mut family = None;
    for (labels, sample) in latest {
        let Exposed::Untyped(sample) = sample else {
            continue;
        };
        let name = labels.value(METRIC_NAME);
        if family != Some(name) {
            writeln!(out, "# TYPE {} untyped", legacy(name, true))
                .expect("writing to a String works");
            family = Some(name);
        }
        out.push_str(&legacy(name, true));
        write_labels(&mut out, &with_external(labels, external));
        writeln!(out, " {} {}", Number(sample.v), sample.t.as_ms())
            .expect("writing to a String works");
    }
    out
}

/// All labels but the name. A series without an instance says so: else the reader
/// would give it our own.
fn write_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
        out.push_str(&legacy(name, false));
        write!(out, "=\"{}\",", Value(value)).expect("writing to a String works");
    }
    if labels.value("instance").is_empty() {
        out.push_str("instance=\"\"");
    } else if out.ends_with(',') {
        out.pop();
    }
    out.push('}');
}

/// A name with `_` for what a name of old may not hold.
fn legacy(name: &str, colons: bool) -> String {
    let fits = |i: usize, c: char| {
        let letter = c == '_' || c.is_ascii_alphabetic() || c == ':' && colons;
        letter || i > 0 && c.is_ascii_digit()
    };
    let chars = name.chars().enumerate();
    chars
        .map(|(i, c)| if fits(i, c) { c } else { '_' })
        .collect()
}

/// A label's value with the escapes of the text format.
struct Value<'a>(&'a str);

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::histogram::ResetHint;
    use crate::model::{Histogram, HistogramSample, Sample, stale_nan};

    #[test]
    fn each_series_comes_once_with_what_is_newest() {
        let labels = |name| Labels::from_pairs([("__name__", name)]);
        let float = |t, v| Exposed::Untyped(Sample::new(t, v));
        let native = |t, schema| {
            let h = Histogram {
                schema,
                hint: ResetHint::Gauge,
                ..Histogram::default()
            };
            let t = Timestamp::from_ms(t);
            Exposed::Histogram(HistogramSample { t, h: Arc::new(h) })
        };
        let latest = sorted(vec![
            (labels("goes_on"), native(9, 0)),
            (labels("goes_on"), float(5, stale_nan())),
            (labels("ended"), native(5, 0)),
            (labels("ended"), float(9, stale_nan())),
            (labels("custom"), native(5, crate::model::histogram::CUSTOM)),
            (labels("number"), float(1, 2.0)),
            (labels("number"), float(1, 2.0)),
        ]);
        let want = [
            (labels("goes_on"), native(9, 0)),
            (labels("number"), float(1, 2.0)),
        ];
        assert_eq!(latest, want);
        assert_eq!(latest[0].1.kind(), 5);
        let text = written(&latest, &Labels::empty());
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn families_names_and_values_are_written_for_every_reader() {
        let series = |pairs: &[(&str, &str)], v| {
            let labels = Labels::from_pairs(pairs.iter().copied());
            (labels, Exposed::Untyped(Sample::new(1_500, v)))
        };
        let latest = sorted(vec![
            series(&[("__name__", "a:b"), ("instance", "i")], 1e30),
            series(
                &[("__name__", "a:b"), ("x.y", "q\"\\\n")],
                f64::NEG_INFINITY,
            ),
            series(&[("__name__", "1.rpm")], 0.5),
            series(&[("nameless", "1")], 0.5),
        ]);
        let external = Labels::from_pairs([("site", "s"), ("instance", "own")]);
        assert_eq!(
            written(&latest, &Labels::empty()),
            "# TYPE __rpm untyped\n\
             __rpm{instance=\"\"} 0.5 1500\n\
             # TYPE a:b untyped\n\
             a:b{instance=\"i\"} 1e30 1500\n\
             a:b{x_y=\"q\\\"\\\\\\n\",instance=\"\"} -Inf 1500\n"
        );
        assert!(written(&latest, &external).contains("a:b{instance=\"i\",site=\"s\"} "));
    }
}
