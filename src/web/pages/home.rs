//! `/`: the verdict first, then the figures, the pipeline and the way in.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::ask::{self, Figure};
use super::dashboards::{Listed, listed};
use super::frame::{Frame, respond};
use super::request::Request;
use super::targets::{self, SourceRow};
use super::time::span;
use crate::chart::plot::sparkline;
use crate::chart::scale::XScale;
use crate::chart::units::Formatted;
use crate::chart::{Color, Format};
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

struct Tile {
    title: &'static str,
    state: &'static str,
    value: Formatted,
    pill_state: &'static str,
    pill: String,
    note: String,
    spark: String,
    url: &'static str,
}

struct Stage {
    name: &'static str,
    state: &'static str,
    value: Formatted,
    note: String,
    url: &'static str,
}

struct Step {
    done: bool,
    title: &'static str,
    command: String,
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
    issues.extend(clock_issue(context));
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
    for group in (context.groups)() {
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

fn tiles(figures: &[Figure], now: Timestamp) -> Vec<Tile> {
    let tile = |title,
                place: usize,
                unit: &str,
                decimals: Option<usize>,
                limits: Option<(f64, f64)>,
                note: &str,
                url| {
        tile(
            title,
            &figures[place],
            unit,
            decimals,
            limits,
            note,
            url,
            now,
        )
    };
    vec![
        tile(
            "Ingest rate",
            INGEST,
            "mps",
            None,
            None,
            "last minute",
            "/d/tenant-overview",
        ),
        tile(
            "Rejected",
            REJECTED,
            "percentunit",
            Some(2),
            Some((0.01, 0.05)),
            "",
            "/d/tenant-overview",
        ),
        tile(
            "Commit latency p99",
            COMMIT,
            "s",
            None,
            Some((0.25, 1.0)),
            "",
            "/d/infrastructure",
        ),
        tile(
            "Dead letters",
            DEAD,
            "short",
            None,
            Some((1.0, 1000.0)),
            "",
            "/d/infrastructure",
        ),
        tile(
            "Processor",
            CPU,
            "percentunit",
            Some(1),
            Some((0.8, 0.95)),
            "",
            "/d/host",
        ),
        tile(
            "Fullest disk",
            DISK,
            "percentunit",
            Some(1),
            Some((0.8, 0.92)),
            "",
            "/d/host",
        ),
    ]
}

#[expect(clippy::too_many_arguments, reason = "one row of the table above")]
fn tile(
    title: &'static str,
    figure: &Figure,
    unit: &str,
    decimals: Option<usize>,
    limits: Option<(f64, f64)>,
    note: &str,
    url: &'static str,
    now: Timestamp,
) -> Tile {
    let format = Format {
        decimals,
        ..Format::of(unit)
    };
    let shown = |v: f64| format.format(v);
    let state = match (limits, figure.now) {
        (Some((_, crit)), Some(v)) if v >= crit => "crit",
        (Some((warn, _)), Some(v)) if v >= warn => "warn",
        (Some(_), Some(_)) => "ok",
        _ => "",
    };
    let bound = |v: f64| format.axis_labels(&[v]).pop().unwrap_or_default();
    let pill = limits
        .filter(|_| figure.now.is_some())
        .map(|(warn, crit)| match state {
            "crit" => format!("above {}", bound(crit)),
            "warn" => format!("above {}", bound(warn)),
            _ if unit == "short" => "none".to_owned(),
            _ => format!("below {}", bound(warn)),
        });
    let color = match state {
        "crit" => Color::Crit,
        "warn" => Color::Warn,
        _ => Color::Slot(0),
    };
    let x = XScale {
        start: now.minus_ms(SPAN_MS).floor_to(STEP_MS),
        end: now.floor_to(STEP_MS),
    };
    Tile {
        title,
        value: figure.now.map_or_else(
            || Formatted {
                text: "–".to_owned(),
                suffix: String::new(),
            },
            shown,
        ),
        pill: pill.unwrap_or_default(),
        pill_state: state,
        note: if figure.now.is_none() {
            "no data yet".to_owned()
        } else {
            note.to_owned()
        },
        spark: sparkline(&figure.past, &color, &x, STEP_MS * 2),
        state: if state == "ok" { "" } else { state },
        url,
    }
}

fn stages(context: &Context, figures: &[Figure]) -> Vec<Stage> {
    let sources = context.board.list();
    let up = sources
        .iter()
        .filter(|s| s.state == SourceState::Up)
        .count();
    let value = |place: usize, unit: &str| {
        let now = figures[place].now;
        now.map_or_else(
            || Formatted {
                text: "–".to_owned(),
                suffix: String::new(),
            },
            |v| Format::of(unit).format(v),
        )
    };
    let count = |place: usize| {
        figures[place]
            .now
            .map(|v| Format::of("locale").format(v).to_string())
    };
    let alerts = alert_counts(context);
    let failing = figures[FAILING].now.is_some_and(|v| v > 0.0);
    vec![
        Stage {
            name: "Sources",
            state: if up == sources.len() { "ok" } else { "crit" },
            value: Formatted {
                text: up.to_string(),
                suffix: format!("of {} up", sources.len()),
            },
            note: kinds(&sources),
            url: "/targets",
        },
        Stage {
            name: "Ingest",
            state: "ok",
            value: value(INGEST, "mps"),
            note: count(QUEUED).map_or_else(String::new, |n| format!("{n} waiting")),
            url: "/d/tenant-overview",
        },
        Stage {
            name: "Store",
            state: if failing { "crit" } else { "ok" },
            value: Formatted {
                text: Format::of("short")
                    .format(context.store.stats().series as f64)
                    .to_string(),
                suffix: "series".to_owned(),
            },
            note: format!(
                "{} commits/s, p99 {}",
                value(COMMITS, "none"),
                value(COMMIT, "s")
            ),
            url: "/d/host",
        },
        Stage {
            name: "Rules",
            state: if alerts.1 > 0 { "crit" } else { "ok" },
            value: Formatted {
                text: alerts.0.to_string(),
                suffix: "rules".to_owned(),
            },
            note: format!(
                "{} firing, {} evaluations/s",
                alerts.1,
                value(RULES, "none")
            ),
            url: "/alerts",
        },
        Stage {
            name: "Delivery",
            state: if figures[DEAD].now.is_some_and(|v| v > 0.0) {
                "warn"
            } else {
                "ok"
            },
            value: value(DELIVERY, "ops"),
            note: count(OUTBOX).map_or_else(String::new, |n| format!("{n} in the outbox")),
            url: "/d/infrastructure",
        },
    ]
}

/// How many rules there are and how many alerts fire.
fn alert_counts(context: &Context) -> (usize, usize) {
    let groups = (context.groups)();
    let rules = groups.iter().flat_map(|group| &group.rules);
    let firing = rules.clone().map(|rule| match &rule.kind {
        RuleKind::Alerting { alerts, .. } => alerts
            .iter()
            .filter(|a| a.state == AlertState::Firing)
            .count(),
        RuleKind::Recording => 0,
    });
    (rules.clone().count(), firing.sum())
}

fn kinds(sources: &[crate::sources::status::SourceView]) -> String {
    let mut kinds: Vec<&str> = sources.iter().map(|source| source.kind).collect();
    kinds.dedup();
    kinds.join(", ")
}

/// Steps that are made in the configuration: title and what to write.
const CONFIGURATION: [(&str, &str); 3] = [
    (
        "Subscribe to an MQTT broker",
        "# config.toml\n[[source.mqtt]]\nname = \"plant\"\nurl = \"mqtt://127.0.0.1:1883\"\ntopics = [\"tenants/+/devices/+/telemetry\"]",
    ),
    (
        "Read a NATS JetStream stream",
        "# config.toml\n[[source.nats]]\nname = \"cloud\"\nurl = \"nats://127.0.0.1:4222\"\nstream = \"TELEMETRY\"",
    ),
    (
        "Load Prometheus rule files",
        "# config.toml\n[rules]\nfiles = [\"rules/*.yml\"]",
    ),
];

/// The way in, with commands that work where the browser is.
fn steps(context: &Context, request: &Request) -> Vec<Step> {
    let config = context.config();
    let listen = config.server.listen.first();
    let url = match request.host() {
        Some(host) => format!("http://{host}"),
        None => listen.map_or_else(String::new, |addr| format!("http://{addr}")),
    };
    let sources = context.board.list();
    let received = |kind: &str| sources.iter().any(|s| s.kind == kind && s.messages > 0);
    vec![
        Step {
            done: received("http"),
            title: "Push a measurement by HTTP",
            command: format!(
                "curl -X POST {url}/api/v1/ingest/default \\\n  -H 'content-type: application/json' \\\n  -d '{{\"device_id\": \"sensor-1\", \"temperature\": 21.5}}'"
            ),
        },
        Step {
            done: received("mqtt"),
            title: CONFIGURATION[0].0,
            command: CONFIGURATION[0].1.to_owned(),
        },
        Step {
            done: received("nats"),
            title: CONFIGURATION[1].0,
            command: CONFIGURATION[1].1.to_owned(),
        },
        Step {
            done: !(context.groups)().is_empty(),
            title: CONFIGURATION[2].0,
            command: CONFIGURATION[2].1.to_owned(),
        },
        Step {
            done: false,
            title: "Let Grafana or Prometheus read it",
            command: format!(
                "# Grafana: a Prometheus data source with this URL\n{url}\n# Prometheus: a scrape target\n{url}/metrics"
            ),
        },
    ]
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn the_configuration_to_copy_is_valid() {
        for (title, text) in super::CONFIGURATION {
            let config = Config::parse(text, title).unwrap();
            assert!(crate::sources::mistakes(&config).is_empty());
        }
    }
}
