//! `/alerts/history`: what became of alerts, with each attempt to tell of it.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::tz::TimeZone;

use super::error::refuse;
use super::frame::{Frame, respond};
use super::request::Request;
use super::time::moment;
use crate::alerting::{Decision, Entry, FlushNote, HistoryQuery, What, hex};
use crate::delivery::{End, History};
use crate::model::matchers;
use crate::web::api::explain::parse_fingerprint;
use crate::web::context::Context;

/// Entries on one page.
const ENTRIES: usize = 100;

#[derive(Template)]
#[template(path = "alert_history.html")]
struct HistoryPage {
    frame: Frame,
    filter: String,
    fingerprint: String,
    mistake: String,
    rows: Vec<HistoryRow>,
    older: String,
}

/// One entry.
pub(super) struct HistoryRow {
    pub(super) class: &'static str,
    pub(super) what: String,
    pub(super) at: String,
    pub(super) subject: String,
    pub(super) url: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) detail: String,
    pub(super) key: String,
    pub(super) attempts: Vec<String>,
}

pub(super) async fn page(State(context): State<Context>, request: Request) -> Response {
    let filter = request.get("filter").unwrap_or_default().to_owned();
    let fingerprint = request.get("fingerprint").unwrap_or_default().to_owned();
    let (matchers, mistake) = match matchers::parse(&filter) {
        Ok(matchers) => (matchers, String::new()),
        Err(err) => (Vec::new(), err.to_string()),
    };
    let query = HistoryQuery {
        fingerprint: parse_fingerprint(&fingerprint),
        matchers,
        before: request.get("before").map(str::to_owned),
        ..HistoryQuery::latest(ENTRIES)
    };
    let found = match context.alerting.history(query).await {
        Ok(found) => found,
        Err(err) => {
            tracing::error!(error = %err, "request failed");
            let (status, text) = (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The store cannot be read.",
            );
            return refuse(&context, &request, status, text);
        }
    };
    let mut frame = Frame::new(&context, &request, "History", "/alerts");
    frame.crumb = Some(("Alerts", "/alerts"));
    let next = found.next.as_deref();
    let page = HistoryPage {
        frame,
        filter,
        fingerprint,
        mistake,
        rows: rows(&found.entries, &request.zone()),
        older: next.map_or(String::new(), |mark| request.with(&[("before", mark)])),
    };
    respond(&request, StatusCode::OK, &page)
}

/// The entries for a table.
pub(super) fn rows(entries: &[Entry], zone: &TimeZone) -> Vec<HistoryRow> {
    entries.iter().map(|entry| row(entry, zone)).collect()
}

fn row(entry: &Entry, zone: &TimeZone) -> HistoryRow {
    let at = moment(entry.at, zone);
    match &entry.what {
        What::Change { row, fingerprint } => HistoryRow {
            class: match row.to.as_str() {
                "firing" => "crit",
                "pending" => "warn",
                "resolved" => "ok",
                _ => "unknown",
            },
            what: row.to.clone(),
            at,
            subject: row.rule.clone(),
            url: format!("/alerts/{}", hex(*fingerprint)),
            labels: shown(&row.labels),
            detail: format!(
                "was {}, because {}; value {}",
                row.from, row.reason, row.value
            ),
            key: String::new(),
            attempts: Vec::new(),
        },
        What::Flush {
            note,
            attempts,
            is_waiting,
        } => HistoryRow {
            at,
            ..flush_row(note, attempts.as_ref(), *is_waiting, zone)
        },
    }
}

fn shown(labels: &std::collections::BTreeMap<String, String>) -> Vec<(String, String)> {
    let others = labels.iter().filter(|(name, _)| *name != "alertname");
    others.map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn flush_row(
    note: &FlushNote,
    event: Option<&History>,
    is_waiting: bool,
    zone: &TimeZone,
) -> HistoryRow {
    let counts = format!(
        "{} firing, {} resolved, {} held back",
        note.firing.len(),
        note.resolved.len(),
        note.held.len()
    );
    let (class, what) = match (note.decision, event.and_then(|event| event.end)) {
        (Decision::Notified, Some(End::Delivered)) => ("ok", "delivered"),
        (Decision::Notified, Some(End::Dead)) => ("crit", "given up"),
        (Decision::Notified, None) if !is_waiting => ("unknown", "withdrawn"),
        (Decision::Notified, None) if event.is_some() => ("warn", "delivery fails"),
        (Decision::Notified, None) => ("info", "to be sent"),
        (Decision::KnownAlready, _) => ("unknown", "nothing new"),
        (Decision::EndedUntold, _) => ("unknown", "ended untold"),
        (Decision::ResolvedUnwanted, _) => ("unknown", "end not wanted"),
        (Decision::RulesStalled, _) => ("crit", "rules stand still"),
        (Decision::AllHeld, _) => ("warn", "held back"),
    };
    let attempts = event.into_iter().flat_map(|event| &event.attempts);
    let attempt = |attempt: &crate::delivery::Attempt| {
        let end = attempt.error.as_deref().unwrap_or("delivered");
        format!(
            "{} · {} ms · {end}",
            moment(attempt.at, zone),
            attempt.duration_ms
        )
    };
    HistoryRow {
        class,
        what: what.to_owned(),
        at: String::new(),
        subject: format!("to {}", note.integration),
        url: String::new(),
        labels: note.group_labels.clone().into_iter().collect(),
        detail: counts,
        key: note.event_id.clone().unwrap_or_default(),
        attempts: attempts.map(attempt).collect(),
    }
}
