//! `/status`: build, process, storage, and the configuration in force.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::{Frame, respond};
use super::request::Request;
use super::time::span;
use crate::chart::Format;
use crate::model::Timestamp;
use crate::web::api::v2::config::shown as tree;
use crate::web::context::Context;
use crate::web::dashboard::timerange::civil;

type Facts = Vec<(&'static str, String)>;

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    frame: Frame,
    refused: Option<Refused>,
    cards: Vec<(&'static str, Facts)>,
    config: String,
    tree: Option<String>,
}

/// A changed configuration that was not taken over.
struct Refused {
    at: String,
    error: String,
}

pub(super) async fn page(State(context): State<Context>, request: Request) -> Response {
    let config = context.config();
    let page = StatusPage {
        frame: Frame::new(&context, &request, "Status", "/status")
            .with_refresh(&request, 15, false),
        refused: refused(&context, &request),
        cards: vec![
            ("Process", process(&context, &request)),
            ("Storage", storage(&context, &request)),
            ("Clock", clock(&context, &request)),
            ("Parts", parts(&context)),
        ],
        config: config.shown(),
        tree: config.notification_tree().map(|_| tree(&config)),
    };
    respond(&request, StatusCode::OK, &page)
}

fn refused(context: &Context, request: &Request) -> Option<Refused> {
    let failure = context.metrics.reload.failure()?;
    Some(Refused {
        at: moment(Timestamp::from_secs_f64(failure.seconds), request),
        error: failure.error,
    })
}

fn process(context: &Context, request: &Request) -> Facts {
    let now = context.clock.now();
    let ready = *context.ready.borrow();
    vec![
        ("Version", env!("CARGO_PKG_VERSION").to_owned()),
        (
            "Built for",
            format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
        ),
        ("Process id", std::process::id().to_string()),
        ("Started", moment(context.started, request)),
        ("Up for", span(now.ms_since(context.started))),
        ("Time now", moment(now, request)),
        ("Ready", if ready { "yes" } else { "no" }.to_owned()),
    ]
}

fn storage(context: &Context, request: &Request) -> Facts {
    let stats = context.store.stats();
    let config = context.config();
    let count = |n: u64| Format::of("locale").format(n as f64).to_string();
    let time = |t: Option<Timestamp>| t.map_or("–".to_owned(), |t| moment(t, request));
    vec![
        ("Folder", config.server.data_dir.display().to_string()),
        ("Series", count(stats.series)),
        ("Samples in memory", count(stats.head_samples)),
        (
            "On disk",
            Format::of("bytes")
                .format(stats.disk_bytes as f64)
                .to_string(),
        ),
        (
            "Room",
            context.store.hardship().unwrap_or("enough").to_owned(),
        ),
        (
            "Writes a day",
            Format::of("bytes")
                .format(stats.written_per_day as f64)
                .to_string(),
        ),
        ("Oldest sample", time(stats.min_time)),
        ("Newest sample", time(stats.max_time)),
        (
            "Kept for",
            crate::model::duration::format(config.store.retention.get()),
        ),
    ]
}

/// Jumps that are listed, the last one first.
const JUMPS_SHOWN: usize = 5;

fn clock(context: &Context, request: &Request) -> Facts {
    let clock = &context.clock;
    let (count, jumps) = clock.jumps();
    let state = match clock.is_trusted() {
        true => "trusted",
        false => "not trusted: stamps and rules go on from the last stored time",
    };
    let mut facts = vec![
        ("State", state.to_owned()),
        ("The machine says", moment(clock.wall(), request)),
        ("Jumps since the start", count.to_string()),
    ];
    let unproven = clock.now().ms_since(clock.earliest());
    if unproven > 0 {
        let text = format!("{}: nothing expires by it yet", span(unproven));
        facts.push(("Unconfirmed step", text));
    }
    facts.extend(jumps.iter().rev().take(JUMPS_SHOWN).map(|jump| {
        let sign = if jump.by_ms < 0 { "-" } else { "+" };
        let how = if jump.is_trusted {
            "trusted"
        } else {
            "not trusted"
        };
        let by = i64::try_from(jump.by_ms.unsigned_abs()).unwrap_or(i64::MAX);
        let text = format!("{}: {sign}{}, {how}", moment(jump.at, request), span(by));
        ("Jump", text)
    }));
    facts
}

fn parts(context: &Context) -> Facts {
    let groups = (context.groups)();
    let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
    vec![
        ("Sources", context.board.list().len().to_string()),
        ("Rule groups", groups.len().to_string()),
        ("Rules", rules.to_string()),
    ]
}

fn moment(t: Timestamp, request: &Request) -> String {
    civil(t, &request.zone(), "%a %-d %b %Y, %H:%M:%S %Z").unwrap_or_default()
}
