//! `/federate`: the last sample of chosen series, as a Prometheus scrapes them: text,
//! or protobuf for those who prefer it, which alone has native histograms.

use std::borrow::Cow;
use std::fmt::Write as _;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};

use super::params::Params;
use super::remote_read::{external_labels, with_external};
use crate::codec::exposition::Number;
use crate::codec::families::{self, Accepted, Exposed};
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, Matcher, Timestamp, is_stale_nan};
use crate::promql::queryable::SelectHints;
use crate::promql::{Gaps, Queryable as _};
use crate::web::Context;
use crate::web::context::Cancel;
use crate::web::error::ApiError;

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
    let accepted = Accepted::of(accept.unwrap_or_default());
    let reading = context.clone();
    let run = context.lists.run(timeout, move |cancel| {
        let mut latest = Vec::new();
        for matchers in &selectors {
            read(&reading, matchers, cancel, &mut latest)?;
        }
        let latest = sorted(latest);
        Ok::<_, ApiError>(if accepted.protobuf {
            encoded(&latest, &external, accepted.utf8)
        } else {
            written(&latest, &external, accepted.utf8).into_bytes()
        })
    });
    let headers = [
        (header::CONTENT_TYPE, accepted.content_type()),
        (header::VARY, "accept".to_owned()),
    ];
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
fn encoded(latest: &[Latest], external: &Labels, utf8: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(latest.len() * 96);
    let key = |(labels, sample): &Latest| (labels.value(METRIC_NAME).to_owned(), sample.kind());
    for metrics in latest.chunk_by(|a, b| key(a) == key(b)) {
        let (name, kind) = key(&metrics[0]);
        let mut family = families::family(&spelled(&name, true, utf8), kind);
        for (labels, sample) in metrics {
            let labels = with_external(labels, external);
            let mut pairs: Vec<(Cow<'_, str>, &str)> = labels
                .iter()
                .filter(|(name, _)| *name != METRIC_NAME)
                .map(|(name, value)| (spelled(name, false, utf8), value))
                .collect();
            if labels.value("instance").is_empty() {
                pairs.push(("instance".into(), ""));
            }
            let pairs = pairs.iter().map(|(name, value)| (&**name, *value));
            families::push(&mut family, pairs, sample);
        }
        families::finish(&family, &mut out);
    }
    out
}

/// The families of all series as text; histograms are left out.
fn written(latest: &[Latest], external: &Labels, utf8: bool) -> String {
    let mut out = String::with_capacity(latest.len() * 96);
    let mut family = None;
    for (labels, sample) in latest {
        let Exposed::Untyped(sample) = sample else {
            continue;
        };
        let metric = labels.value(METRIC_NAME);
        let name = spelled(metric, true, utf8);
        let is_plain = is_legacy(&name, true);
        if family != Some(metric) {
            out.push_str("# TYPE ");
            write_name(&mut out, &name, is_plain);
            out.push_str(" untyped\n");
            family = Some(metric);
        }
        let labels = with_external(labels, external);
        if is_plain {
            out.push_str(&name);
            out.push('{');
        } else {
            out.push('{');
            write_name(&mut out, &name, false);
            out.push(',');
        }
        write_labels(&mut out, &labels, utf8);
        writeln!(out, " {} {}", Number(sample.v), sample.t.as_ms())
            .expect("writing to a String works");
    }
    out
}

/// All labels but the name. A series without an instance says so: else the reader
/// would give it our own.
fn write_labels(out: &mut String, labels: &Labels, utf8: bool) {
    for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
        let name = spelled(name, false, utf8);
        write_name(out, &name, is_legacy(&name, false));
        write!(out, "=\"{}\",", Value(value)).expect("writing to a String works");
    }
    if labels.value("instance").is_empty() {
        out.push_str("instance=\"\"");
    } else if out.ends_with(',') {
        out.pop();
    }
    out.push('}');
}

/// A name, in quotes if it has other characters than those of old.
fn write_name(out: &mut String, name: &str, is_plain: bool) {
    if is_plain {
        out.push_str(name);
    } else {
        write!(out, "\"{}\"", Value(name)).expect("writing to a String works");
    }
}

/// A name as the reader takes it: with `_` for what a name of old may not hold, if it
/// knows only such.
fn spelled(name: &str, colons: bool, utf8: bool) -> Cow<'_, str> {
    if utf8 || is_legacy(name, colons) {
        return Cow::Borrowed(name);
    }
    let chars = name.chars().enumerate();
    chars
        .map(|(i, c)| if fits(i, c, colons) { c } else { '_' })
        .collect()
}

fn is_legacy(name: &str, colons: bool) -> bool {
    name.chars().enumerate().all(|(i, c)| fits(i, c, colons))
}

/// Whether a name of old may have the character at this place.
fn fits(i: usize, c: char, colons: bool) -> bool {
    let letter = c == '_' || c.is_ascii_alphabetic() || c == ':' && colons;
    letter || i > 0 && c.is_ascii_digit()
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
        let text = written(&latest, &Labels::empty(), false);
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
            written(&latest, &Labels::empty(), false),
            "# TYPE __rpm untyped\n\
             __rpm{instance=\"\"} 0.5 1500\n\
             # TYPE a:b untyped\n\
             a:b{instance=\"i\"} 1e30 1500\n\
             a:b{x_y=\"q\\\"\\\\\\n\",instance=\"\"} -Inf 1500\n"
        );
        assert!(written(&latest, &external, false).contains("a:b{instance=\"i\",site=\"s\"} "));
        // Names as they are, for those who take them.
        assert_eq!(
            written(&latest, &Labels::empty(), true),
            "# TYPE \"1.rpm\" untyped\n\
             {\"1.rpm\",instance=\"\"} 0.5 1500\n\
             # TYPE a:b untyped\n\
             a:b{instance=\"i\"} 1e30 1500\n\
             a:b{\"x.y\"=\"q\\\"\\\\\\n\",instance=\"\"} -Inf 1500\n"
        );
    }
}
