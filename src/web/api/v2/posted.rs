//! `POST /api/v2/alerts`: read and checked as Alertmanager does it.
//!
//! It reads JSON as Go does: `null` is what is left out, wherever it stands, names of
//! fields may be in any case, and of two that are equal the later one holds. In two
//! things this is stricter: half a surrogate is refused, and so is `null` for an alert,
//! at which Alertmanager hangs up.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::answer::{Error, parsed};
use super::date_time;
use super::request_uri;
use super::scope::Scope;
use crate::alerting::PostedAlert;
use crate::config::routing::is_label_name;
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Labels, Timestamp};
use crate::web::Context;

/// Takes alerts in: the good ones are durable before the answer, also when it is an
/// error about the others.
pub async fn post(
    State(context): State<Context>,
    scope: Scope,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let given = read(parsed("alerts", &headers, &body)?)?;
    for (at, alert) in given.iter().enumerate() {
        alert.validate(at)?;
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for alert in given {
        let alert = alert.posted(&scope);
        match flaw(&alert, context.alerting.posted_times(&alert)) {
            None => good.push(alert),
            Some(reason) => bad.push(reason),
        }
    }
    context.metrics.rules.count_received(good.len(), bad.len());
    context.alerting.post(good).await?;
    if bad.is_empty() {
        Ok(StatusCode::OK)
    } else {
        Err(Error::Bad(bad.join("; ")))
    }
}

/// An alert as it was sent.
struct Given {
    labels: Option<BTreeMap<String, String>>,
    annotations: BTreeMap<String, String>,
    starts_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
    generator_url: String,
}

/// Reads the list of alerts.
///
/// # Errors
/// With the first value that is of another type than its field.
fn read(body: Value) -> Result<Vec<Given>, Error> {
    let alerts = match body {
        Value::Null => Vec::new(),
        Value::Array(alerts) => alerts,
        other => return Err(unparsed(expected("the body", &other, "a list"))),
    };
    let alerts = alerts.into_iter().enumerate();
    let given = alerts.map(|(at, alert)| {
        Given::read(alert).map_err(|why| unparsed(format!("of alert {at} {why}")))
    });
    given.collect()
}

fn unparsed(why: String) -> Error {
    Error::Unparsed("alerts", why)
}

impl Given {
    fn read(alert: Value) -> Result<Given, String> {
        let mut fields = match alert {
            Value::Object(fields) => fields,
            other => return Err(expected("the whole", &other, "an object")),
        };
        Ok(Given {
            labels: texts(&mut fields, "labels")?,
            annotations: texts(&mut fields, "annotations")?.unwrap_or_default(),
            starts_at: time(&mut fields, "startsAt")?,
            ends_at: time(&mut fields, "endsAt")?,
            generator_url: text("generatorURL", take(&mut fields, "generatorURL"))?,
        })
    }

    /// What the description of the API demands.
    fn validate(&self, at: usize) -> Result<(), Error> {
        let url = &self.generator_url;
        if !url.is_empty() && !request_uri::is_valid(url) {
            let text = format!("{at}.generatorURL in body must be of type uri: {url:?}");
            return Err(Error::Invalid(601, text));
        }
        match self.labels {
            Some(_) => Ok(()),
            None => Err(Error::Invalid(
                602,
                format!("{at}.labels in body is required"),
            )),
        }
    }

    fn posted(self, scope: &Scope) -> PostedAlert {
        let mut labels = self.labels.unwrap_or_default();
        labels.retain(|_, value| !value.is_empty());
        if let Some(tenant) = scope.matcher() {
            labels.insert(TENANT_LABEL.to_owned(), tenant.value);
        }
        PostedAlert {
            labels: Labels::from_pairs(&labels),
            annotations: self.annotations,
            generator_url: self.generator_url,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
        }
    }
}

/// Why an alert makes no sense, in Alertmanager's words.
fn flaw(alert: &PostedAlert, (start, end): (Timestamp, Timestamp)) -> Option<String> {
    let mut labels = alert.labels.iter().map(|(name, _)| name);
    let mut annotations = alert.annotations.keys();
    if end < start {
        Some("start time must be before end time".to_owned())
    } else if let Some(name) = labels.find(|name| !is_label_name(name)) {
        Some(format!("invalid label set: invalid name {name:?}"))
    } else if alert.labels.is_empty() {
        Some("at least one label pair required".to_owned())
    } else {
        let name = annotations.find(|name| !is_label_name(name))?;
        Some(format!("invalid annotations: invalid name {name:?}"))
    }
}

/// Takes a field out; one of another case stands for it. `null` is none.
fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let found = fields.remove(name).or_else(|| {
        let other = fields.keys().find(|key| key.eq_ignore_ascii_case(name))?;
        let other = other.clone();
        fields.remove(&other)
    });
    found.filter(|value| !value.is_null())
}

fn texts(
    fields: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<BTreeMap<String, String>>, String> {
    let fields = match take(fields, name) {
        None => return Ok(None),
        Some(Value::Object(fields)) => fields,
        Some(other) => return Err(expected(name, &other, "an object of texts")),
    };
    let mut texts = BTreeMap::new();
    for (key, value) in fields {
        texts.insert(
            key,
            text(name, Some(value).filter(|value| !value.is_null()))?,
        );
    }
    Ok(Some(texts))
}

fn text(name: &str, value: Option<Value>) -> Result<String, String> {
    match value {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(expected(name, &other, "a text")),
    }
}

fn time(fields: &mut Map<String, Value>, name: &str) -> Result<Option<Timestamp>, String> {
    date_time::read(&text(name, take(fields, name))?)
}

fn expected(what: &str, got: &Value, wanted: &str) -> String {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("{what} is {got}, expected {wanted}")
}
