//! `/targets`: every source and what it is doing.

use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::frame::{Frame, respond};
use super::request::Request;
use super::time::{ago, span};
use crate::chart::Format;
use crate::delivery::DestinationState;
use crate::model::Timestamp;
use crate::sources::status::{SourceState, SourceView};
use crate::web::context::Context;

#[derive(Template)]
#[template(path = "targets.html")]
struct TargetsPage {
    frame: Frame,
    summary: String,
    sources: Vec<SourceRow>,
    destinations: Vec<DestinationRow>,
}

/// Where deliveries go, in a list.
struct DestinationRow {
    class: &'static str,
    state: String,
    name: String,
    kind: &'static str,
    url: String,
    error: String,
    backlog: String,
    delivered: String,
    dead: String,
    last: String,
}

/// A source in a list.
pub(super) struct SourceRow {
    pub(super) class: &'static str,
    pub(super) state: &'static str,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) url: String,
    pub(super) error: String,
    pub(super) guarantee: &'static str,
    pub(super) messages: String,
    pub(super) last: String,
    pub(super) since: String,
    pub(super) connects: u64,
}

pub(super) async fn page(State(context): State<Context>, request: Request) -> Response {
    let now = context.clock.now();
    let sources = context.board.list();
    if request.get("format") == Some("json") {
        return Json(sources).into_response();
    }
    let up = sources
        .iter()
        .filter(|s| s.state == SourceState::Up)
        .count();
    let summary = format!("{up} of {} up", sources.len());
    let page = TargetsPage {
        frame: Frame::new(&context, &request, "Targets", "/targets")
            .with_refresh(&request, 5, false),
        summary,
        sources: rows(&context, now),
        destinations: destinations(&context, now),
    };
    respond(&request, StatusCode::OK, &page)
}

/// All sources; what is down comes first.
pub(super) fn rows(context: &Context, now: Timestamp) -> Vec<SourceRow> {
    let mut sources = context.board.list();
    sources.sort_by_key(|source| match source.state {
        SourceState::Down(_) => 0,
        SourceState::Connecting => 1,
        SourceState::Up => 2,
    });
    sources.into_iter().map(|source| row(source, now)).collect()
}

fn row(source: SourceView, now: Timestamp) -> SourceRow {
    let (class, state, error) = match source.state {
        SourceState::Up => ("ok", "up", String::new()),
        SourceState::Connecting => ("unknown", "connecting", String::new()),
        SourceState::Down(error) => ("crit", "down", error),
    };
    SourceRow {
        class,
        state,
        error,
        name: source.name,
        kind: source.kind,
        url: source.url,
        guarantee: source.guarantee,
        messages: Format::of("locale")
            .format(source.messages as f64)
            .to_string(),
        last: ago(source.last_message, now),
        since: span(now.ms_since(source.since)),
        connects: source.connects,
    }
}

fn destinations(context: &Context, now: Timestamp) -> Vec<DestinationRow> {
    let count = |n: u64| Format::of("locale").format(n as f64).to_string();
    let views = context.delivery.view().into_iter();
    views
        .map(|view| {
            let (class, state) = match view.state {
                DestinationState::Working => ("ok", "working".to_owned()),
                DestinationState::BreakerOpen(until) => {
                    ("crit", format!("next try in {}", span(until.ms_since(now))))
                }
                DestinationState::Disabled => ("warn", "disabled by its receiver".to_owned()),
            };
            DestinationRow {
                class,
                state,
                error: view.last_error.unwrap_or_default(),
                name: view.name,
                kind: view.kind,
                url: view.url,
                backlog: count(view.backlog),
                delivered: count(view.delivered),
                dead: count(view.dead),
                last: ago(view.last_success, now),
            }
        })
        .collect()
}
