//! `/alerts`: what fires and what may, then all rules with their health.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::tz::TimeZone;

use super::frame::{Frame, respond};
use super::request::Request;
use super::time::{ago, span, took};
use crate::alerting::{AlertStatus, Picture, hex};
use crate::chart::Format;
use crate::model::Timestamp;
use crate::model::labels::METRIC_NAME;
use crate::rules::{AlertState, AlertView, GroupView, RuleKind, RuleView};
use crate::web::context::Context;
use crate::web::dashboard::interpolate::percent_encode;
use crate::web::dashboard::timerange::civil;

#[derive(Template)]
#[template(path = "alerts.html")]
struct AlertsPage {
    frame: Frame,
    summary: String,
    /// State rows that the disk refuses.
    unsaved: usize,
    rules: usize,
    active: Vec<ActiveRow>,
    /// Those that others sent us.
    posted: Vec<ActiveRow>,
    groups: Vec<GroupRow>,
}

struct ActiveRow {
    state: &'static str,
    state_class: &'static str,
    name: String,
    summary: String,
    labels: Vec<(String, String)>,
    value: String,
    url: String,
    page: String,
    age: String,
    since: String,
}

struct GroupRow {
    name: String,
    file: String,
    interval: String,
    last: String,
    took: String,
    rules: Vec<RuleRow>,
}

struct RuleRow {
    class: &'static str,
    state: String,
    name: String,
    query: String,
    url: String,
    error: String,
    wait: String,
    took: String,
}

pub(super) async fn page(State(context): State<Context>, request: Request) -> Response {
    let now = context.clock.now();
    let groups = (context.groups)();
    let zone = request.zone();
    let mut found: Vec<(&RuleView, &AlertView)> = groups
        .iter()
        .flat_map(|group| &group.rules)
        .flat_map(|rule| alerts_of(rule).iter().map(move |alert| (rule, alert)))
        .filter(|(_, alert)| alert.state != AlertState::Inactive)
        .collect();
    found.sort_by_key(|(_, alert)| (std::cmp::Reverse(alert.state), alert.active_at));
    let firing = found
        .iter()
        .filter(|(_, alert)| alert.state == AlertState::Firing)
        .count();
    let active: Vec<ActiveRow> = found
        .iter()
        .take(500)
        .map(|(rule, alert)| ActiveRow {
            since: civil(alert.active_at, &zone, "%-d %b %Y %H:%M:%S %Z").unwrap_or_default(),
            ..active_row(rule, alert, now)
        })
        .collect();
    let posted = match context.alerting.picture().await {
        Ok(picture) => posted_rows(&picture, &zone, now),
        Err(err) => {
            tracing::error!(error = %err, "cannot read the alerts of others");
            Vec::new()
        }
    };
    let of_others = match posted.len() {
        0 => String::new(),
        n => format!(" · {n} of others"),
    };
    let page = AlertsPage {
        frame: Frame::new(&context, &request, "Alerts", "/alerts").with_refresh(&request, 5, false),
        summary: format!(
            "{firing} firing · {} pending{of_others}",
            found.len() - firing
        ),
        posted,
        unsaved: context.store.unsaved_rows(),
        rules: groups.iter().map(|group| group.rules.len()).sum(),
        active,
        groups: groups.iter().map(|group| group_row(group, now)).collect(),
    };
    respond(&request, StatusCode::OK, &page)
}

fn alerts_of(rule: &RuleView) -> &[AlertView] {
    match &rule.kind {
        RuleKind::Alerting { alerts, .. } => alerts,
        RuleKind::Recording => &[],
    }
}

fn active_row(rule: &RuleView, alert: &AlertView, now: Timestamp) -> ActiveRow {
    let labels = alert
        .labels
        .iter()
        .filter(|(n, _)| *n != "alertname" && *n != METRIC_NAME);
    ActiveRow {
        state: if alert.state == AlertState::Firing {
            "Firing"
        } else {
            "Pending"
        },
        state_class: if alert.state == AlertState::Firing {
            "crit"
        } else {
            "warn"
        },
        name: rule.name.clone(),
        summary: summary(&alert.annotations),
        labels: labels.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        value: Format::of("short").format(alert.value).to_string(),
        url: graph_url(&rule.query),
        page: format!("/alerts/{}", hex(alert.labels.fingerprint())),
        age: span(now.ms_since(alert.active_at)),
        since: String::new(),
    }
}

/// Alerts that other Prometheis sent us, at most 500, those that began first in front.
fn posted_rows(picture: &Picture, zone: &TimeZone, now: Timestamp) -> Vec<ActiveRow> {
    let all = picture.alerts.iter().filter(|status| !status.alert.is_own);
    let mut posted: Vec<&AlertStatus> = all.collect();
    posted.sort_by_key(|status| status.alert.starts_at);
    let row = |status: &&AlertStatus| {
        let alert = &status.alert;
        let labels = alert.labels.iter().filter(|(name, _)| *name != "alertname");
        let (state, state_class) = match status.is_suppressed() {
            true => ("Suppressed", "warn"),
            false => ("Firing", "crit"),
        };
        ActiveRow {
            state,
            state_class,
            name: alert.labels.value("alertname").to_owned(),
            summary: summary(&alert.annotations),
            labels: labels.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            value: String::new(),
            url: String::new(),
            page: format!("/alerts/{}", hex(alert.labels.fingerprint())),
            age: span(now.ms_since(alert.starts_at)),
            since: civil(alert.starts_at, zone, "%-d %b %Y %H:%M:%S %Z").unwrap_or_default(),
        }
    };
    posted.iter().take(500).map(row).collect()
}

/// The annotation that says most.
fn summary(annotations: &BTreeMap<String, String>) -> String {
    let words = ["summary", "message", "description"];
    let found = words.iter().find_map(|word| annotations.get(*word));
    found.cloned().unwrap_or_default()
}

fn group_row(group: &GroupView, now: Timestamp) -> GroupRow {
    GroupRow {
        name: group.name.clone(),
        file: group.file.clone(),
        interval: took(group.interval_secs),
        last: match group.last_evaluation {
            Some(_) => format!("evaluated {}", ago(group.last_evaluation, now)),
            None => "not evaluated yet".to_owned(),
        },
        took: took(group.evaluation_secs),
        rules: group.rules.iter().map(rule_row).collect(),
    }
}

fn rule_row(rule: &RuleView) -> RuleRow {
    let alerts = alerts_of(rule);
    let count = |state| alerts.iter().filter(|alert| alert.state == state).count();
    let (firing, pending) = (count(AlertState::Firing), count(AlertState::Pending));
    let recording = rule.kind == RuleKind::Recording;
    let (class, state) = match rule.healthy {
        Some(false) => ("crit", "error".to_owned()),
        _ if firing > 0 => ("crit", format!("{firing} firing")),
        _ if pending > 0 => ("warn", format!("{pending} pending")),
        None => ("unknown", "waiting".to_owned()),
        Some(true) if recording => ("info", "recording".to_owned()),
        Some(true) => ("ok", "inactive".to_owned()),
    };
    RuleRow {
        class,
        state,
        name: rule.name.clone(),
        url: graph_url(&rule.query),
        query: rule.query.clone(),
        error: rule.last_error.clone().unwrap_or_default(),
        wait: match &rule.kind {
            RuleKind::Alerting { for_secs, .. } => took(*for_secs),
            RuleKind::Recording => String::new(),
        },
        took: took(rule.evaluation_secs),
    }
}

/// The page that shows a query's result.
pub(super) fn graph_url(query: &str) -> String {
    format!("/graph?g0.expr={}&g0.tab=0", percent_encode(query))
}
