//! `/`: the verdict first, then the figures, the pipeline and the way in.

mod figures;
mod steps;

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use self::figures::{Stage, Tile, stages, tiles};
use self::steps::{Step, steps};
use super::ask::{self, Figure};
use super::dashboards::{Listed, listed};
use super::frame::{Frame, respond};
use super::request::Request;
use super::targets::{self, SourceRow};
use super::time::span;
use crate::chart::Format;
use crate::delivery::DestinationState;
use crate::model::Timestamp;
use crate::rules::{AlertState, RuleKind};
use crate::sources::status::SourceState;
use crate::web::context::Context;
use crate::web::dashboard::library::Library;

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage {
    frame: Frame,
    verdict: Verdict,
    issues: Vec<Issue>,
    tiles: Vec<Tile>,
    stages: Vec<Stage>,
    steps: Vec<Step>,
    done: usize,
    dashboards: Vec<Listed>,
    sources: Vec<SourceRow>,
}

struct Verdict {
    state: &'static str,
    title: String,
    text: String,
}

/// Something that is wrong: what, since when, what to do.
struct Issue {
    state: &'static str,
    subject: String,
    text: String,
    age: String,
    action: &'static str,
    url: String,
}

const SPAN_MS: i64 = 3_600_000;
const STEP_MS: i64 = 30_000;

/// All figures of the page, in one turn on the blocking pool. The constants
/// below are their places.
const QUERIES: [&str; 12] = [
    r#"sum(rate(pulse_ingest_messages_total{job="pulse"}[1m]))"#,
    r#"sum(rate(pulse_ingest_messages_total{job="pulse",result="rejected"}[5m])) / (sum(rate(pulse_ingest_messages_total{job="pulse"}[5m])) > 0)"#,
    r#"histogram_quantile(0.99, sum by (le) (rate(pulse_store_commit_seconds_bucket{job="pulse"}[5m])))"#,
    r#"sum(pulse_delivery_dlq_depth{job="pulse"})"#,
    r#"1 - avg(rate(node_cpu_seconds_total{job="node",mode="idle"}[1m]))"#,
    r#"max(1 - node_filesystem_avail_bytes{job="node"} / (node_filesystem_size_bytes{job="node"} > 0))"#,
    r#"sum(rate(pulse_store_commits_total{job="pulse"}[1m]))"#,
    r#"sum(rate(evaluator_rules_evaluated_total{job="pulse"}[1m]))"#,
    r#"sum(rate(pulse_delivery_total{job="pulse"}[1m]))"#,
    r#"sum(pulse_queue_depth{job="pulse",service="ingest"})"#,
    r#"sum(pulse_queue_depth{job="pulse",service="delivery_worker"})"#,
    r#"max(pulse_store_failing{job="pulse"})"#,
];
const INGEST: usize = 0;
const REJECTED: usize = 1;
const COMMIT: usize = 2;
const DEAD: usize = 3;
const CPU: usize = 4;
const DISK: usize = 5;
const COMMITS: usize = 6;
const RULES: usize = 7;
const DELIVERY: usize = 8;
const QUEUED: usize = 9;
const OUTBOX: usize = 10;
const FAILING: usize = 11;

pub(super) async fn page(
    State(context): State<Context>,
    Extension(library): Extension<Arc<Library>>,
    request: Request,
) -> Response {
    let now = context.clock.now();
    let figures = ask::figures(&context, &QUERIES, now, SPAN_MS, STEP_MS).await;
    let issues = issues(&context, &figures, now);
    let steps = steps(&context, &request);
    let page = HomePage {
        frame: Frame::new(&context, &request, "Home", "/").with_refresh(&request, 5, false),
        verdict: verdict(&context, &issues, now),
        tiles: tiles(&figures, now),
        stages: stages(&context, &figures),
        done: steps.iter().filter(|step| step.done).count(),
        steps,
        dashboards: listed(&library),
        sources: targets::rows(&context, now),
        issues,
    };
    respond(&request, StatusCode::OK, &page)
}

fn verdict(context: &Context, issues: &[Issue], now: Timestamp) -> Verdict {
    let up = span(now.ms_since(context.started));
    let sources = context.board.list();
    let running = sources
        .iter()
        .filter(|s| s.state == SourceState::Up)
        .count();
    let rules: usize = (context.groups)()
        .iter()
        .map(|group| group.rules.len())
        .sum();
    let text = format!(
        "{running} of {} sources up · {rules} rules · running for {up}",
        sources.len()
    );
    let (state, title) = match issues {
        [] => ("ok", "All good".to_owned()),
        [one] => (one.state, "One thing needs you".to_owned()),
        many => {
            let crit = many.iter().any(|issue| issue.state == "crit");
            (
                if crit { "crit" } else { "warn" },
                format!("{} things need you", many.len()),
            )
        }
    };
    Verdict { state, title, text }
}

/// What is wrong, the worst first.
fn issues(context: &Context, figures: &[Figure], now: Timestamp) -> Vec<Issue> {
    let mut issues = store_issues(figures);
    issues.extend(reload_issue(context, now));
    issues.extend(clock_issue(context));
    issues.extend(room_issue(context));
    issues.extend(alert_issues(context, now));
    for source in context.board.list() {
        if let SourceState::Down(error) = source.state {
            issues.push(Issue {
                state: "crit",
                subject: source.name,
                text: format!("is down: {error}"),
                age: span(now.ms_since(source.since)),
                action: "Open targets",
                url: "/targets".to_owned(),
            });
        }
    }
    for destination in context.delivery.view() {
        if let DestinationState::BreakerOpen(_) = destination.state {
            let error = destination.last_error.unwrap_or_default();
            issues.push(Issue {
                state: "crit",
                subject: destination.name,
                text: format!("takes no deliveries: {error}"),
                age: span(destination.last_success.map_or(0, |t| now.ms_since(t))),
                action: "Open targets",
                url: "/targets".to_owned(),
            });
        }
    }
    if let Some(dead) = figures[DEAD].now.filter(|dead| *dead > 0.0) {
        issues.push(Issue {
            state: "warn",
            subject: Format::of("locale").format(dead).to_string(),
            text:
                "dead letters are kept: messages that were refused, deliveries that were given up"
                    .to_owned(),
            age: String::new(),
            action: "Look",
            url: "/d/tenant-overview".to_owned(),
        });
    }
    issues.sort_by_key(|issue| issue.state != "crit");
    issues
}

fn room_issue(context: &Context) -> Option<Issue> {
    context.store.hardship().map(|what| Issue {
        state: "crit",
        subject: "Disk or memory".to_owned(),
        text: format!("run short: {what}"),
        age: String::new(),
        action: "Open status",
        url: "/status".to_owned(),
    })
}

fn reload_issue(context: &Context, now: Timestamp) -> Option<Issue> {
    let failure = context.metrics.reload.failure()?;
    let mut lines = failure.error.lines();
    let first = lines.next().unwrap_or_default();
    let more = match lines.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(Issue {
        state: "warn",
        subject: "The changed configuration".to_owned(),
        text: format!("was refused, the old one stays in force: {first}{more}"),
        age: span(now.ms_since(Timestamp::from_secs_f64(failure.seconds))),
        action: "Open status",
        url: "/status".to_owned(),
    })
}

fn clock_issue(context: &Context) -> Option<Issue> {
    let clock = &context.clock;
    (!clock.is_trusted()).then(|| Issue {
        state: "warn",
        subject: "The machine's clock".to_owned(),
        text: format!(
            "says {} and is not trusted; stamps and rules go on from the last stored time",
            clock.wall().to_rfc3339()
        ),
        age: String::new(),
        action: "Open status",
        url: "/status".to_owned(),
    })
}

fn store_issues(figures: &[Figure]) -> Vec<Issue> {
    let mut issues = Vec::new();
    if figures[FAILING].now.is_some_and(|failing| failing > 0.0) {
        issues.push(Issue {
            state: "crit",
            subject: "The store".to_owned(),
            text: "cannot write to its disk; nothing is acknowledged until it can".to_owned(),
            age: String::new(),
            action: "Open status",
            url: "/status".to_owned(),
        });
    }
    if let Some(used) = figures[DISK].now.filter(|used| *used > 0.92) {
        issues.push(Issue {
            state: if used > 0.97 { "crit" } else { "warn" },
            subject: "A disk".to_owned(),
            text: format!("is {} full", Format::of("percentunit").format(used)),
            age: String::new(),
            action: "Open host",
            url: "/d/host".to_owned(),
        });
    }
    issues
}

fn alert_issues(context: &Context, now: Timestamp) -> Vec<Issue> {
    let mut issues = Vec::new();
    for group in (context.groups)().iter() {
        for rule in &group.rules {
            if rule.healthy == Some(false) {
                issues.push(Issue {
                    state: "warn",
                    subject: rule.name.clone(),
                    text: format!(
                        "cannot be evaluated: {}",
                        rule.last_error.as_deref().unwrap_or("unknown error")
                    ),
                    age: String::new(),
                    action: "Open rule",
                    url: "/alerts".to_owned(),
                });
            }
            let RuleKind::Alerting { alerts, .. } = &rule.kind else {
                continue;
            };
            let firing: Vec<_> = alerts
                .iter()
                .filter(|a| a.state == AlertState::Firing)
                .collect();
            if let Some(first) = firing.iter().min_by_key(|alert| alert.active_at) {
                let words = ["summary", "message", "description"];
                let said = words.iter().find_map(|word| first.annotations.get(*word));
                let more = if firing.len() > 1 {
                    format!(" ({} alerts)", firing.len())
                } else {
                    String::new()
                };
                issues.push(Issue {
                    state: "crit",
                    subject: rule.name.clone(),
                    text: format!(
                        "is firing{more}{}{}",
                        if said.is_some() { ": " } else { "" },
                        said.map_or("", String::as_str)
                    ),
                    age: span(now.ms_since(first.active_at)),
                    action: "Open alert",
                    url: "/alerts".to_owned(),
                });
            }
        }
    }
    issues.truncate(10);
    issues
}
