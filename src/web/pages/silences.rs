//! `/alerts/silences`: what people do not want to hear of, and the end of a silence.

use askama::Template;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::tz::TimeZone;

use super::error::refuse;
use super::frame::{Frame, respond};
use super::request::{Request, parse};
use super::time::{moment, span};
use crate::alerting::{AlertStatus, Silence, SilenceError, SilenceState, sort_silences};
use crate::model::Timestamp;
use crate::web::context::Context;
use crate::web::form::{self, Guard};

/// Silences on one page.
const ROWS_MAX: usize = 500;

#[derive(Template)]
#[template(path = "silences.html")]
struct SilencesPage {
    frame: Frame,
    summary: String,
    choices: Vec<(&'static str, String, bool)>,
    rows: Vec<SilenceRow>,
    left_out: usize,
}

struct SilenceRow {
    id: String,
    class: &'static str,
    state: &'static str,
    is_over: bool,
    is_new: bool,
    matchers: Vec<String>,
    when: String,
    left: String,
    by: String,
    comment: String,
    tenant: String,
    holds: usize,
}

pub(super) async fn page(State(context): State<Context>, request: Request) -> Response {
    let (silences, alerts) = match everything(&context).await {
        Ok(found) => found,
        Err(()) => return unreadable(&context, &request),
    };
    let (now, zone) = (context.clock.now(), request.zone());
    let wanted = request.get("state").unwrap_or("");
    let count = |state| silences.iter().filter(|s| s.state(now) == state).count();
    let (active, pending) = (count(SilenceState::Active), count(SilenceState::Pending));
    let mut shown = silences.clone();
    shown.retain(|silence| match wanted {
        "active" | "pending" | "expired" => silence.state(now).as_str() == wanted,
        _ => true,
    });
    sort_silences(&mut shown, now);
    let made = request.get("made").unwrap_or("");
    let rows = shown.iter().take(ROWS_MAX);
    let rows = rows.map(|s| SilenceRow {
        is_new: s.id == made,
        ..row(s, &alerts, now, &zone)
    });
    let mut frame = Frame::new(&context, &request, "Silences", "/alerts");
    frame.crumb = Some(("Alerts", "/alerts"));
    let choices = [
        ("All", ""),
        ("Active", "active"),
        ("Pending", "pending"),
        ("Expired", "expired"),
    ];
    let page = SilencesPage {
        summary: format!("{active} active · {pending} pending"),
        choices: choices
            .map(|(name, state)| {
                (
                    name,
                    request.with(&[("state", state), ("made", "")]),
                    state == wanted,
                )
            })
            .into(),
        rows: rows.collect(),
        left_out: shown.len().saturating_sub(ROWS_MAX),
        frame,
    };
    respond(&request, StatusCode::OK, &page)
}

/// All silences and all firing alerts.
async fn everything(context: &Context) -> Result<(Vec<Silence>, Vec<AlertStatus>), ()> {
    let read = async {
        let silences = context.alerting.silences().await?;
        Ok::<_, crate::store::Error>((silences, context.alerting.picture().await?.alerts))
    };
    read.await
        .map_err(|err| tracing::error!(error = %err, "request failed"))
}

pub(super) fn unreadable(context: &Context, request: &Request) -> Response {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    refuse(
        context,
        request,
        status,
        "The store cannot be read or written.",
    )
}

fn row(silence: &Silence, alerts: &[AlertStatus], now: Timestamp, zone: &TimeZone) -> SilenceRow {
    let state = silence.state(now);
    let (class, word, left) = match state {
        SilenceState::Active => (
            "ok",
            "Active",
            format!("{} left", span(silence.ends_at.ms_since(now))),
        ),
        SilenceState::Pending => (
            "warn",
            "Pending",
            format!("begins in {}", span(silence.starts_at.ms_since(now))),
        ),
        SilenceState::Expired => (
            "unknown",
            "Expired",
            format!("{} ago", span(now.ms_since(silence.ends_at))),
        ),
    };
    let concerned = alerts.iter().filter(|a| silence.concerns(&a.alert.labels));
    SilenceRow {
        id: silence.id.clone(),
        class,
        state: word,
        is_over: state == SilenceState::Expired,
        is_new: false,
        matchers: silence.matchers.iter().map(ToString::to_string).collect(),
        when: format!(
            "{} to {}",
            moment(silence.starts_at, zone),
            moment(silence.ends_at, zone)
        ),
        left,
        by: silence.created_by.clone(),
        comment: silence.comment.clone(),
        tenant: silence.tenant.clone(),
        holds: concerned.count(),
    }
}

#[derive(Template)]
#[template(path = "silence_end.html")]
struct EndPage {
    frame: Frame,
    row: SilenceRow,
    token: String,
    mistake: String,
}

/// Asks whether a silence shall end.
pub(super) async fn end_page(
    State(context): State<Context>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    ask(&context, &request, &id, String::new()).await
}

/// Ends it.
pub(super) async fn end(
    State(context): State<Context>,
    Path(id): Path<String>,
    request: Request,
    body: Bytes,
) -> Response {
    let pairs = parse(&String::from_utf8_lossy(&body));
    let token = pairs.iter().find(|(name, _)| name == form::FIELD);
    if !token.is_some_and(|(_, given)| form::is_ours(&context, &request, given)) {
        let text = "This page was too old. Nothing was changed; try again.";
        return ask(&context, &request, &id, text.to_owned()).await;
    }
    match context.alerting.expire_silence("", &id).await {
        Ok(()) => Redirect::to("/alerts/silences").into_response(),
        Err(SilenceError::Store(err)) => {
            tracing::error!(error = %err, "request failed");
            unreadable(&context, &request)
        }
        Err(err) => refuse(&context, &request, StatusCode::NOT_FOUND, &err.to_string()),
    }
}

async fn ask(context: &Context, request: &Request, id: &str, mistake: String) -> Response {
    let Ok((silences, alerts)) = everything(context).await else {
        return unreadable(context, request);
    };
    let Some(silence) = silences.iter().find(|silence| silence.id == id) else {
        let text = "There is no such silence, or it ended more than five days ago.";
        return refuse(context, request, StatusCode::NOT_FOUND, text);
    };
    let mut frame = Frame::new(context, request, "End this silence?", "/alerts");
    frame.crumb = Some(("Silences", "/alerts/silences"));
    let guard = Guard::new(context, request);
    let status = if mistake.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::FORBIDDEN
    };
    let page = EndPage {
        row: row(silence, &alerts, context.clock.now(), &request.zone()),
        token: guard.token.clone(),
        mistake,
        frame,
    };
    guard.dress(respond(request, status, &page))
}
