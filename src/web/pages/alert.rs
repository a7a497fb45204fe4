//! `/alerts/{fingerprint}`: one alert, why somebody was told of it or not, its history.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::tz::TimeZone;

use super::alert_history::{HistoryRow, rows};
use super::alerts::graph_url;
use super::error::refuse;
use super::frame::{Frame, respond};
use super::request::Request;
use super::time::{moment, span};
use crate::alerting::{
    Explanation, HistoryQuery, IntegrationStory, Phase, Reason, RouteStory, hex,
};
use crate::model::labels::Quoted;
use crate::model::{Labels, Timestamp};
use crate::web::api::explain::{hold_secs, parse_fingerprint};
use crate::web::context::Context;
use crate::web::dashboard::interpolate::percent_encode;

/// Entries of the history that are shown.
const ENTRIES: usize = 50;

#[derive(Template)]
#[template(path = "alert.html")]
struct AlertPage {
    frame: Frame,
    class: &'static str,
    state: &'static str,
    reason: &'static str,
    because: String,
    facts: Vec<(&'static str, String)>,
    query_url: String,
    query: String,
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
    routes: Vec<RouteView>,
    history: Vec<HistoryRow>,
    silence_url: String,
    explain_url: String,
    history_url: String,
}

struct RouteView {
    path: Vec<String>,
    receiver: String,
    group: String,
    looks: String,
    integrations: Vec<IntegrationView>,
}

struct IntegrationView {
    class: &'static str,
    reason: &'static str,
    because: String,
    name: String,
    kind: &'static str,
    told: String,
    key: String,
    attempts: Vec<String>,
}

pub(super) async fn page(
    State(context): State<Context>,
    Path(fingerprint): Path<String>,
    request: Request,
) -> Response {
    let missing = |status, text: &str| refuse(&context, &request, status, text);
    let Some(wanted) = parse_fingerprint(&fingerprint) else {
        return missing(
            StatusCode::NOT_FOUND,
            "That is not the fingerprint of an alert.",
        );
    };
    let query = HistoryQuery {
        fingerprint: Some(wanted),
        ..HistoryQuery::latest(ENTRIES)
    };
    let found = context.alerting.explain(wanted).await;
    let history = context.alerting.history(query).await;
    let (story, history) = match (found, history) {
        (Ok(Some(story)), Ok(history)) => (story, history),
        (Ok(None), _) => {
            let text =
                "Nothing is known of that alert: it never was one, or its history has expired.";
            return missing(StatusCode::NOT_FOUND, text);
        }
        (Err(err), _) | (_, Err(err)) => {
            tracing::error!(error = %err, "request failed");
            return missing(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The store cannot be read.",
            );
        }
    };
    let (now, zone) = (context.clock.now(), request.zone());
    let page = AlertPage {
        history: rows(&history.entries, &zone),
        ..view(&context, &request, &story, now, &zone)
    };
    respond(&request, StatusCode::OK, &page)
}

fn view(
    context: &Context,
    request: &Request,
    story: &Explanation,
    now: Timestamp,
    zone: &TimeZone,
) -> AlertPage {
    let name = match story.labels.value("alertname") {
        "" => "Alert",
        name => name,
    };
    let mut frame = Frame::new(context, request, name, "/alerts").with_refresh(request, 5, false);
    frame.crumb = Some(("Alerts", "/alerts"));
    let (class, state) = match story.phase {
        Phase::Pending => ("warn", "Pending"),
        Phase::Firing => ("crit", "Firing"),
        Phase::Ended => ("ok", "Ended"),
    };
    let query = story.own.as_ref().map(|own| own.query.clone());
    let fingerprint = hex(story.labels.fingerprint());
    AlertPage {
        frame,
        class,
        state,
        reason: words(story.reason().0),
        because: sentence(story.reason().1),
        facts: facts(context, story, now, zone),
        query_url: query.as_deref().map(graph_url).unwrap_or_default(),
        query: query.unwrap_or_default(),
        labels: pairs(&story.labels),
        annotations: story.annotations.clone().into_iter().collect(),
        routes: story.routes.iter().map(|r| route_view(r, zone)).collect(),
        history: Vec::new(),
        silence_url: silence_url(&story.labels),
        explain_url: format!("/api/v1/alerts/{fingerprint}/explain"),
        history_url: format!("/alerts/history?fingerprint={fingerprint}"),
    }
}

fn facts(
    context: &Context,
    story: &Explanation,
    now: Timestamp,
    zone: &TimeZone,
) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let ago = |at: Timestamp| format!("{} ({} ago)", moment(at, zone), span(now.ms_since(at)));
    if let Some(at) = story.since {
        let word = match story.phase {
            Phase::Pending => "Pending since",
            Phase::Firing | Phase::Ended => "Fires since",
        };
        facts.push((word, ago(at)));
    }
    if let Some(at) = story.ended_at {
        facts.push(("Ended", ago(at)));
    }
    if let Some(own) = &story.own {
        if let Some(secs) = hold_secs(context, story) {
            let so_far = now.ms_since(own.active_at).max(0) as f64 / 1_000.0;
            let text = match story.phase {
                Phase::Pending => format!("{:.0} s of {secs:.0} s", so_far.min(secs)),
                _ => format!("{secs:.0} s"),
            };
            facts.push(("For", text));
        }
        facts.push(("Value", own.value.to_string()));
        facts.push((
            "Rule",
            format!("{} in {} of {}", own.rule, own.group, own.file),
        ));
    } else {
        facts.push(("Comes from", "another sender, by the API".to_owned()));
    }
    if story.fired_in_a_day > 1 {
        let text = format!("began to fire {} times in a day", story.fired_in_a_day);
        facts.push(("Flaps", text));
    }
    facts.push(("Fingerprint", hex(story.labels.fingerprint())));
    facts
}

fn pairs(labels: &Labels) -> Vec<(String, String)> {
    let pairs = labels.iter();
    pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// The form of a silence that concerns just this alert.
fn silence_url(labels: &Labels) -> String {
    let lines: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={}", Quoted(value)))
        .collect();
    let matchers = percent_encode(&lines.join("\n"));
    format!("/alerts/silences/new?matchers={matchers}")
}

fn route_view(route: &RouteStory, zone: &TimeZone) -> RouteView {
    let looks = match route.next_flush {
        Some(at) => format!(
            "{} alerts, looked at next at {}",
            route.members,
            moment(at, zone)
        ),
        None => "no such group at the moment".to_owned(),
    };
    RouteView {
        path: route.path.clone(),
        receiver: route.receiver.clone(),
        group: route.group_key.clone(),
        looks,
        integrations: route
            .integrations
            .iter()
            .map(|story| integration_view(story, zone))
            .collect(),
    }
}

fn integration_view(story: &IntegrationStory, zone: &TimeZone) -> IntegrationView {
    let attempts = story.event.iter().flat_map(|event| &event.attempts);
    IntegrationView {
        class: class_of(story.reason),
        reason: words(story.reason),
        because: sentence(&story.because),
        name: story.name.clone(),
        kind: story.kind,
        told: story.told_at.map(|at| moment(at, zone)).unwrap_or_default(),
        key: story.event_id.clone().unwrap_or_default(),
        attempts: attempts
            .rev()
            .take(5)
            .map(|attempt| {
                let end = attempt.error.as_deref().unwrap_or("delivered");
                format!(
                    "{} · {} ms · {end}",
                    moment(attempt.at, zone),
                    attempt.duration_ms
                )
            })
            .collect(),
    }
}

fn class_of(reason: Reason) -> &'static str {
    match reason {
        Reason::Told | Reason::KnownAlready => "ok",
        Reason::Failing | Reason::GivenUp | Reason::NobodyListens => "crit",
        Reason::Inhibited
        | Reason::Muted
        | Reason::OutsideActiveTime
        | Reason::Silenced
        | Reason::Flapping => "warn",
        _ => "info",
    }
}

/// A reason in one or two words.
fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::Pending => "Pending",
        Reason::NobodyListens => "Nobody listens",
        Reason::Inhibited => "Inhibited",
        Reason::Muted => "Muted",
        Reason::OutsideActiveTime => "Outside active time",
        Reason::Silenced => "Silenced",
        Reason::HandedOver => "Handed over",
        Reason::Flapping => "Flaps",
        Reason::GroupWait => "Group waits",
        Reason::GroupInterval => "Next look",
        Reason::Waiting => "In the outbox",
        Reason::Failing => "Delivery fails",
        Reason::GivenUp => "Given up",
        Reason::KnownAlready | Reason::Told => "Told",
        Reason::EndedUntold => "Ended untold",
        Reason::ResolvedUnwanted => "End not wanted",
        Reason::Forgotten => "Not on record",
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => String::new(),
    }
}
