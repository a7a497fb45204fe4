//! The functions that Prometheus gives to the templates of rule files.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::RegexBuilder;

use super::functions::{Answer, Body, Context, Function, Param, escape_query, plain, text};
use super::number::format_float;
use super::time;
use super::value::{List, Map, Struct, Value};
use crate::model::{Labels, Timestamp, duration};

/// What stands before every template of a rule, so that `$labels` and `$value` exist.
pub const PREFIX: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                          {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// A template's compiled patterns may not take more memory than this.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// The data of a rule's template.
pub fn data(
    labels: &Labels,
    external_labels: &BTreeMap<String, String>,
    external_url: &str,
    value: f64,
) -> Value {
    let external = external_labels.iter();
    let external = external.map(|(name, value)| (name.as_str(), value.as_str()));
    Value::Struct(Arc::new(Struct {
        type_name: "struct { Labels map[string]string; ExternalLabels map[string]string; \
                    ExternalURL string; Value float64 }",
        fields: vec![
            ("Labels", Value::texts(labels.iter())),
            ("ExternalLabels", Value::texts(external)),
            ("ExternalURL", Value::str(external_url)),
            ("Value", Value::Float(value)),
        ],
    }))
}

const STR: &[Param] = &[Param::Str];
const ANY: &[Param] = &[Param::Any];

const fn function(
    name: &'static str,
    params: &'static [Param],
    body: fn(&mut Context<'_, '_>, &[Value]) -> Answer,
) -> Function {
    plain(name, params, false, body)
}

// Those that Alertmanager gives too.
pub(super) const RE_REPLACE_ALL: Function = function(
    "reReplaceAll",
    &[Param::Str, Param::Str, Param::Str],
    |c, a| {
        let (pattern, by, from) = (regex(text(&a[0]))?, text(&a[1]), text(&a[2]));
        let groups = by.bytes().filter(|byte| *byte == b'$').count();
        let mut out = String::new();
        let mut copied = 0;
        c.budget.spend_bytes(from.len())?;
        for found in pattern.captures_iter(from) {
            let whole = found.get(0).expect("the match itself");
            // The most that it can come to, before anything is made of it.
            let most = groups.saturating_mul(whole.len()).saturating_add(by.len());
            c.budget.spend_bytes(most)?;
            out.push_str(&from[copied..whole.start()]);
            found.expand(by, &mut out);
            copied = whole.end();
        }
        out.push_str(&from[copied..]);
        Ok(Value::str(out.as_str()))
    },
);
pub(super) const SAFE_HTML: Function = function("safeHtml", STR, |_, a| Ok(a[0].clone()));
pub(super) const MATCH: Function = function("match", &[Param::Str, Param::Str], |_, a| {
    Ok(Value::Bool(regex(text(&a[0]))?.is_match(text(&a[1]))))
});
pub(super) const TITLE: Function =
    function("title", STR, |_, a| Ok(Value::str(title(text(&a[0])))));
pub(super) const TO_UPPER: Function = function("toUpper", STR, |_, a| {
    Ok(Value::str(text(&a[0]).to_uppercase()))
});
pub(super) const TO_LOWER: Function = function("toLower", STR, |_, a| {
    Ok(Value::str(text(&a[0]).to_lowercase()))
});
pub(super) const HUMANIZE_DURATION: Function = function("humanizeDuration", ANY, |_, a| {
    humanized(a, humanize_duration)
});

/// All of them.
pub static FUNCTIONS: &[Function] = &[
    function("query", STR, |c, a| {
        let samples = (c.env.query)(text(&a[0]))?;
        for (labels, _) in &samples {
            c.budget.spend_bytes(labels.as_encoded().len())?;
        }
        Ok(Value::query_result(&samples))
    }),
    function("first", &[Param::QueryResult], |_, a| {
        items(&a[0])
            .first()
            .cloned()
            .ok_or_else(|| "first() called on vector with no elements".to_owned())
    }),
    function("label", &[Param::Str, Param::Sample], |_, a| {
        Ok(label(&a[1], text(&a[0])))
    }),
    function("value", &[Param::Sample], |_, a| match &a[0] {
        Value::Struct(sample) => Ok(sample.field("Value").cloned().unwrap_or(Value::Nil)),
        _ => Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
    }),
    function("strvalue", &[Param::Sample], |_, a| {
        Ok(label(&a[0], "__value__"))
    }),
    Function {
        name: "args",
        params: &[],
        variadic: true,
        body: Body::Call(|_, a| {
            let entries = a.iter().enumerate();
            Ok(Value::Map(Arc::new(Map {
                zero: Value::Nil,
                entries: entries
                    .map(|(i, value)| (format!("arg{i}"), value.clone()))
                    .collect(),
                is_kv: false,
            })))
        }),
    },
    RE_REPLACE_ALL,
    SAFE_HTML,
    MATCH,
    TITLE,
    TO_UPPER,
    TO_LOWER,
    function("graphLink", STR, |_, a| {
        Ok(Value::str(link(text(&a[0]), 0)))
    }),
    function("tableLink", STR, |_, a| {
        Ok(Value::str(link(text(&a[0]), 1)))
    }),
    function("sortByLabel", &[Param::Str, Param::QueryResult], |_, a| {
        let mut sorted = items(&a[1]).to_vec();
        let name = text(&a[0]);
        sorted.sort_by(|x, y| text(&label(x, name)).cmp(text(&label(y, name))));
        Ok(Value::List(Arc::new(List {
            type_name: super::value::QUERY_RESULT,
            items: sorted,
        })))
    }),
    function("stripPort", STR, |_, a| {
        let whole = text(&a[0]);
        Ok(Value::str(
            split_host_port(whole).map_or(whole, |(host, _)| host),
        ))
    }),
    function("stripDomain", STR, |_, a| {
        Ok(Value::str(strip_domain(text(&a[0]))))
    }),
    function("humanize", ANY, |_, a| humanized(a, humanize)),
    function("humanize1024", ANY, |_, a| humanized(a, humanize1024)),
    HUMANIZE_DURATION,
    function("humanizePercentage", ANY, |_, a| {
        humanized(a, |v| format!("{}%", g4(v * 100.0)))
    }),
    function("humanizeTimestamp", ANY, |_, a| {
        let v = to_float(&a[0])?;
        if !v.is_finite() {
            return Ok(Value::str(g4(v)));
        }
        Ok(Value::str(time::to_string(to_time(v)?)))
    }),
    function("toTime", ANY, |_, a| {
        Ok(Value::Time(to_time(to_float(&a[0])?)?))
    }),
    function("toDuration", ANY, |_, a| {
        Ok(Value::Duration(nanos(to_float(&a[0])?)))
    }),
    function("now", &[], |c, _| Ok(Value::Float(c.env.now.as_secs_f64()))),
    function("parseDuration", STR, |_, a| parse_duration(text(&a[0]))),
    function("pathPrefix", &[], |c, _| {
        Ok(Value::str(path_of(c.env.external_url)))
    }),
    function("externalURL", &[], |c, _| {
        Ok(Value::str(c.env.external_url))
    }),
    function("urlQueryEscape", STR, |c, a| {
        let out = escape_query(text(&a[0]));
        c.budget.spend_bytes(out.len())?;
        Ok(Value::str(out))
    }),
];

fn items(value: &Value) -> &[Value] {
    match value {
        Value::List(list) => &list.items,
        _ => &[],
    }
}

/// A label of a sample.
fn label(sample: &Value, name: &str) -> Value {
    let labels = match sample {
        Value::Struct(sample) => sample.field("Labels"),
        _ => None,
    };
    match labels {
        Some(Value::Map(labels)) => labels.lookup(name).clone(),
        _ => Value::str(""),
    }
}

pub(super) fn regex(pattern: &str) -> Result<regex::Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|_| format!("error parsing regexp: {pattern:?}"))
}

/// As Go's `strings.Title`: the first letter of each word in upper case.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = match c {
            '_' => true,
            c if c.is_ascii() => c.is_ascii_alphanumeric(),
            c => c.is_alphanumeric() || !c.is_whitespace(),
        };
    }
    out
}

/// The path of a link to an expression on the graph page; tab 0 is the graph, 1 the table.
pub fn link(expression: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", escape_query(expression))
}

/// As Go's `net.SplitHostPort`; `None` when there is no port or the form is wrong.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return (!inner.contains(['[', ']'])).then_some((inner, port));
    }
    (!host.contains([':', '[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

fn strip_domain(text: &str) -> String {
    let (host, port) = split_host_port(text).unwrap_or((text, ""));
    if host.parse::<core::net::IpAddr>().is_ok() {
        return text.to_owned();
    }
    let short = host.split('.').next().unwrap_or(host);
    match port {
        "" => short.to_owned(),
        port if short.contains(':') => format!("[{short}]:{port}"),
        port => format!("{short}:{port}"),
    }
}

fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    rest[..end].find('/').map_or("", |at| &rest[at..end])
}

/// What the humanizing functions take: numbers, and texts that are numbers.
fn to_float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(v) => Ok(*v),
        Value::Int(i) => Ok(*i as f64),
        Value::Str(text) => parse_float(text),
        Value::Duration(nanos) => Ok(*nanos as f64 / 1e9),
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

/// As Go's `strconv.ParseFloat`.
fn parse_float(text: &str) -> Result<f64, String> {
    let failed = |why: &str| format!("strconv.ParseFloat: parsing {text:?}: {why}");
    let v: f64 = text.parse().map_err(|_| failed("invalid syntax"))?;
    let digits = text.bytes().any(|b| b.is_ascii_digit());
    if v.is_infinite() && digits {
        return Err(failed("value out of range"));
    }
    Ok(v)
}

pub(super) fn humanized(args: &[Value], form: fn(f64) -> String) -> Answer {
    Ok(Value::str(form(to_float(&args[0])?)))
}

fn g4(v: f64) -> String {
    format_float(v, 'g', Some(4))
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

fn humanize(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return g4(v);
    }
    if v.abs() >= 1.0 {
        let (v, prefix) = scaled_down(v, 1000.0, &LARGE);
        return format!("{}{prefix}", g4(v));
    }
    let (v, prefix) = scaled_up(v);
    format!("{}{prefix}", g4(v))
}

fn humanize1024(v: f64) -> String {
    if v.abs() <= 1.0 || !v.is_finite() {
        return g4(v);
    }
    let (v, prefix) = scaled_down(v, 1024.0, &LARGE);
    let i = if prefix.is_empty() { "" } else { "i" };
    format!("{}{prefix}{i}", g4(v))
}

pub(super) fn humanize_duration(v: f64) -> String {
    if !v.is_finite() {
        return g4(v);
    }
    if v == 0.0 {
        return format!("{}s", g4(v));
    }
    if v.abs() < 1.0 {
        let (v, prefix) = scaled_up(v);
        return format!("{}{prefix}s", g4(v));
    }
    let sign = if v < 0.0 { "-" } else { "" };
    let v = v.abs();
    let total = nanos_free_seconds(v);
    let (days, hours) = (total / 86_400, total / 3_600 % 24);
    let (minutes, seconds) = (total / 60 % 60, total % 60);
    if days != 0 {
        return format!("{sign}{days}d {hours}h {minutes}m {seconds}s");
    }
    if hours != 0 {
        return format!("{sign}{hours}h {minutes}m {seconds}s");
    }
    if minutes != 0 {
        return format!("{sign}{minutes}m {seconds}s");
    }
    format!("{sign}{}s", g4(v))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "float to int casts saturate, and the fraction is not wanted"
)]
fn nanos_free_seconds(v: f64) -> i64 {
    v as i64
}

fn scaled_down(mut v: f64, base: f64, prefixes: &[&'static str]) -> (f64, &'static str) {
    let mut prefix = "";
    for next in prefixes {
        if v.abs() < base {
            break;
        }
        prefix = next;
        v /= base;
    }
    (v, prefix)
}

fn scaled_up(mut v: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for next in SMALL {
        if v.abs() >= 1.0 {
            break;
        }
        prefix = next;
        v *= 1000.0;
    }
    (v, prefix)
}

/// A time from seconds, by way of whole nanoseconds and then milliseconds, as Prometheus.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked before the cast"
)]
fn to_time(seconds: f64) -> Result<Timestamp, String> {
    if !seconds.is_finite() {
        return Err("value is NaN or Inf".to_owned());
    }
    let nanos = seconds * 1e9;
    if nanos.abs() > i64::MAX as f64 {
        let shown = format_float(seconds, 'g', None);
        return Err(format!(
            "{shown} cannot be represented as a nanoseconds timestamp since it overflows int64"
        ));
    }
    Ok(Timestamp::from_ms(nanos as i64 / 1_000_000))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "float to int casts saturate, which is what is wanted"
)]
fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

fn parse_duration(text: &str) -> Answer {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let ms =
        duration::parse_ms(rest).map_err(|_| format!("not a valid duration string: {text:?}"))?;
    Ok(Value::Float(sign * (ms as f64 / 1_000.0)))
}
