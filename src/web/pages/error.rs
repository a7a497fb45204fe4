//! Pages that say why there is no page.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::frame::{Frame, respond};
use super::request::Request;
use crate::web::context::Context;

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    code: u16,
    detail: String,
}

/// Any path that no route knows.
pub(super) async fn fallback(State(context): State<Context>, request: Request) -> Response {
    if request.path.starts_with("/api/") || request.path.starts_with("/-/") {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    }
    let detail = format!("There is no page at {}.", request.path);
    refuse(&context, &request, StatusCode::NOT_FOUND, &detail)
}

/// A page for an error, in the frame of all pages.
pub(super) fn refuse(
    context: &Context,
    request: &Request,
    status: StatusCode,
    detail: &str,
) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let page = ErrorPage {
        frame: Frame::new(context, request, title, ""),
        code: status.as_u16(),
        detail: detail.to_owned(),
    };
    respond(request, status, &page)
}
