//! `/federate`: the last sample of chosen series, as text that a Prometheus scrapes.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::params::Params;
use super::remote_read::{external_labels, with_external};
use crate::codec::exposition::Number;
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, Matcher, Sample, is_stale_nan};
use crate::promql::Queryable as _;
use crate::promql::queryable::SelectHints;
use crate::web::Context;
use crate::web::context::Cancel;
use crate::web::error::ApiError;

/// Names are written with the characters that every reader of the format takes.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Every series that any `match[]` selects, once, with its latest sample within the
/// lookback. A series that has ended is left out.
pub async fn federate(
    State(context): State<Context>,
    params: Params,
) -> Result<Response, ApiError> {
    let selectors = params.selectors()?;
    let external = external_labels(&context);
    let timeout = context.config().query.timeout.get();
    let reading = context.clone();
    let run = context.gate.run(timeout, move |cancel| {
        let mut latest = Vec::new();
        for matchers in &selectors {
            read(&reading, matchers, cancel, &mut latest)?;
        }
        let by_name = |l: &Labels| l.value(METRIC_NAME).to_owned();
        latest.sort_by_cached_key(|(labels, _)| (by_name(labels), labels.clone()));
        latest.dedup_by(|(a, _), (b, _)| a == b);
        Ok::<_, ApiError>(written(&latest, &external))
    });
    let headers = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    run.await?.map(|text| (headers, text).into_response())
}

fn read(
    context: &Context,
    matchers: &[Matcher],
    cancel: &Cancel,
    latest: &mut Vec<(Labels, Sample)>,
) -> Result<(), ApiError> {
    let now = context.clock.now();
    let options = &context.engine.options;
    let lookback = i64::try_from(options.lookback.as_millis()).unwrap_or(i64::MAX);
    let hints = SelectHints {
        series_max: options.series_max,
        samples_max: options.samples_max,
        newest_only: true,
        cancel: cancel.clone(),
    };
    context.store.for_each(
        now.plus_ms(1 - lookback),
        now,
        matchers,
        &hints,
        &mut [&mut |labels, samples| {
            let last = samples.last().filter(|s| !is_stale_nan(s.v));
            latest.extend(last.map(|sample| (labels.clone(), *sample)));
            Ok(())
        }],
    )?;
    Ok(())
}

fn written(latest: &[(Labels, Sample)], external: &Labels) -> String {
    let mut out = String::with_capacity(latest.len() * 96);
    let mut family = None;
    for (labels, sample) in latest {
        let name = labels.value(METRIC_NAME);
        if name.is_empty() {
            continue;
        }
        if family != Some(name) {
            out.push_str("# TYPE ");
            escaped(&mut out, name, true);
            out.push_str(" untyped\n");
            family = Some(name);
        }
        escaped(&mut out, name, true);
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
        escaped(out, name, false);
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
fn escaped(out: &mut String, name: &str, colons: bool) {
    for (i, c) in name.chars().enumerate() {
        let letter = c == '_' || c.is_ascii_alphabetic() || c == ':' && colons;
        let fits = letter || i > 0 && c.is_ascii_digit();
        out.push(if fits { c } else { '_' });
    }
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
    use super::*;

    #[test]
    fn families_names_and_values_are_written_for_every_reader() {
        let series = |pairs: &[(&str, &str)], v| {
            let labels = Labels::from_pairs(pairs.iter().copied());
            (labels, Sample::new(1_500, v))
        };
        let latest = [
            series(&[("__name__", "a:b"), ("instance", "i")], 1e30),
            series(
                &[("__name__", "a:b"), ("x.y", "q\"\\\n")],
                f64::NEG_INFINITY,
            ),
            series(&[("__name__", "1.rpm")], 0.5),
            series(&[("nameless", "1")], 0.5),
        ];
        let external = Labels::from_pairs([("site", "s"), ("instance", "own")]);
        assert_eq!(
            written(&latest, &Labels::empty()),
            "# TYPE a:b untyped\n\
             a:b{instance=\"i\"} 1e30 1500\n\
             a:b{x_y=\"q\\\"\\\\\\n\",instance=\"\"} -Inf 1500\n\
             # TYPE __rpm untyped\n\
             __rpm{instance=\"\"} 0.5 1500\n"
        );
        assert!(written(&latest, &external).contains("a:b{instance=\"i\",site=\"s\"} "));
    }
}
