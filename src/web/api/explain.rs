//! `/api/v1/alerts/{fingerprint}/explain` and `/api/v1/alerts/history`: why somebody was
//! told of an alert or was not, and what became of alerts.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::json;
use super::params::Params;
use crate::alerting::{
    Entry, Explanation, HistoryPage, HistoryQuery, IntegrationStory, RouteStory, What, hex,
};
use crate::delivery::History;
use crate::model::{Timestamp, matchers};
use crate::rules::{RuleKind, RuleView};
use crate::web::Context;
use crate::web::error::ApiError;

/// Entries of one answer, unless another `limit` is given.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// Tells what became of an alert, and why.
pub async fn explain(
    State(context): State<Context>,
    Path(fingerprint): Path<String>,
) -> Result<Response, ApiError> {
    let wanted = parse_fingerprint(&fingerprint).ok_or_else(|| {
        let message = "expected 16 hexadecimal digits";
        ApiError::parameter("fingerprint", message)
    })?;
    let story = context.alerting.explain(wanted).await?;
    let story = story.ok_or_else(|| {
        ApiError::not_found(format!("nothing is known of the alert {fingerprint}"))
    })?;
    let for_secs = hold_secs(&context, &story);
    Ok(respond(&story_json(&story, for_secs)))
}

/// The history of all alerts, or of the one with `fingerprint`, or of those that fulfil
/// each `filter`; from `start` to `end`, at most `limit` entries, older than `before`.
pub async fn history(State(context): State<Context>, params: Params) -> Result<Response, ApiError> {
    let page = context.alerting.history(history_query(&params)?).await?;
    Ok(respond(&page_json(&page)))
}

fn respond(value: &Value) -> Response {
    let text = value.to_string();
    json::respond(json::success(&[], &[], |out| json::raw(out, &text)))
}

/// A fingerprint in a path or query.
pub fn parse_fingerprint(text: &str) -> Option<u64> {
    let is_one = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_one.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// The `for` of the rule that raised the alert.
pub fn hold_secs(context: &Context, story: &Explanation) -> Option<f64> {
    let own = story.own.as_ref()?;
    let groups = (context.groups)();
    let group = groups
        .iter()
        .find(|g| g.file == own.file && g.name == own.group)?;
    let hold = |rule: &RuleView| match &rule.kind {
        RuleKind::Alerting { for_secs, .. } if rule.name == own.rule => Some(*for_secs),
        _ => None,
    };
    group.rules.iter().find_map(hold)
}

fn history_query(params: &Params) -> Result<HistoryQuery, ApiError> {
    let fingerprint =
        match params.get("fingerprint") {
            "" => None,
            text => Some(parse_fingerprint(text).ok_or_else(|| {
                ApiError::parameter("fingerprint", "expected 16 hexadecimal digits")
            })?),
        };
    let filters = params
        .all("filter")
        .map(|text| matchers::parse_one(text).map_err(|err| ApiError::parameter("filter", err)));
    let limit = match params.limit()? {
        usize::MAX => LIMIT,
        limit => limit.min(LIMIT_MAX),
    };
    let before = params.get("before");
    Ok(HistoryQuery {
        from: params.time("start")?.unwrap_or(Timestamp::MIN),
        to: params.time("end")?.unwrap_or(Timestamp::MAX),
        fingerprint,
        matchers: filters.collect::<Result<_, _>>()?,
        limit,
        before: (!before.is_empty()).then(|| before.to_owned()),
    })
}

fn time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::String(at.to_rfc3339()))
}

fn story_json(story: &Explanation, for_secs: Option<f64>) -> Value {
    let (reason, because) = story.reason();
    let rule = story.own.as_ref().map(|own| {
        json!({
            "file": own.file, "group": own.group, "name": own.rule, "query": own.query,
            "value": own.value.to_string(), "activeAt": own.active_at.to_rfc3339(),
            "for": for_secs, "keepFiringSince": time(own.keep_firing_since),
        })
    });
    let labels: Vec<(&str, &str)> = story.labels.iter().collect();
    json!({
        "fingerprint": hex(story.labels.fingerprint()),
        "labels": map(labels),
        "annotations": story.annotations,
        "state": story.phase.as_str(),
        "since": time(story.since),
        "endedAt": time(story.ended_at),
        "reason": reason.as_str(),
        "because": because,
        "firedInADay": story.fired_in_a_day,
        "rule": rule,
        "routes": story.routes.iter().map(route_json).collect::<Vec<_>>(),
    })
}

fn map(pairs: Vec<(&str, &str)>) -> Value {
    let mut map = serde_json::Map::new();
    map.extend(pairs.into_iter().map(|(n, v)| (n.to_owned(), v.into())));
    map.into()
}

fn route_json(route: &RouteStory) -> Value {
    json!({
        "path": route.path,
        "receiver": route.receiver,
        "groupKey": route.group_key,
        "groupLabels": map(route.group_labels.iter().collect()),
        "groupAlerts": route.members,
        "nextFlush": time(route.next_flush),
        "holds": route.holds,
        "integrations": route.integrations.iter().map(integration_json).collect::<Vec<_>>(),
    })
}

fn integration_json(story: &IntegrationStory) -> Value {
    json!({
        "name": story.name,
        "kind": story.kind,
        "reason": story.reason.as_str(),
        "because": story.because,
        "toldAt": time(story.told_at),
        "repeatAt": time(story.repeat_at),
        "idempotencyKey": story.event_id,
        "delivery": story.event.as_ref().map(attempts_json),
    })
}

fn attempts_json(event: &History) -> Value {
    let attempts = event.attempts.iter().map(|attempt| {
        json!({
            "at": attempt.at.to_rfc3339(), "durationMs": attempt.duration_ms,
            "outcome": if attempt.error.is_none() { "delivered" } else { "failed" },
            "status": attempt.status, "error": attempt.error,
        })
    });
    json!({
        "idempotencyKey": event.event_id,
        "madeAt": event.created_at.to_rfc3339(),
        "attempts": event.count,
        "end": event.end,
        "latest": attempts.collect::<Vec<_>>(),
    })
}

fn page_json(page: &HistoryPage) -> Value {
    json!({
        "entries": page.entries.iter().map(entry_json).collect::<Vec<_>>(),
        "next": page.next,
    })
}

fn entry_json(entry: &Entry) -> Value {
    let at = entry.at.to_rfc3339();
    match &entry.what {
        What::Change { row, fingerprint } => json!({
            "at": at, "kind": "state", "fingerprint": hex(*fingerprint),
            "file": row.file, "group": row.group, "rule": row.rule, "labels": row.labels,
            "from": row.from, "to": row.to, "reason": row.reason, "value": row.value,
        }),
        What::Flush {
            note,
            attempts,
            is_waiting,
        } => json!({
            "at": at, "kind": "flush",
            "groupKey": note.group_key, "groupLabels": note.group_labels,
            "receiver": note.receiver, "integration": note.integration,
            "decision": note.decision, "idempotencyKey": note.event_id,
            "firing": note.firing, "resolved": note.resolved, "held": note.held,
            "delivery": attempts.as_ref().map(attempts_json), "waits": is_waiting,
        }),
    }
}
