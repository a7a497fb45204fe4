//! Pages of other origins that may read the query API, when the operator names them.
//!
//! Off by default: a browser then shows no answer of ours to another page. Where an
//! origin is allowed, it may ask what a dashboard asks, by GET or POST; paths that
//! change something, and our own pages, stay closed to it.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN,
    VARY,
};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Front;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What other origins may ask, by the first part of the path after `/api/v1/`.
const READABLE: [&str; 18] = [
    "alertmanagers",
    "alerts",
    "features",
    "format_query",
    "label",
    "labels",
    "metadata",
    "notifications",
    "parse_query",
    "query",
    "query_exemplars",
    "query_range",
    "rules",
    "scrape_pools",
    "series",
    "status",
    "targets",
    "why_empty",
];

/// Answers the question of a browser whether it may ask, and tells it that it may
/// read the answer. Such a request then passes as one without an origin.
pub(super) async fn share(
    State(front): State<Front>,
    mut request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let is_question = request.method() == Method::OPTIONS;
    if is_question && origin.is_none() && request.uri().path().starts_with("/api/v1/") {
        // As Prometheus. Nobody's data is in the answer.
        return StatusCode::NO_CONTENT.into_response();
    }
    let Some(origin) = origin.filter(|origin| may_read(&front, &request, origin)) else {
        return next.run(request).await;
    };
    let headers = request.headers_mut();
    let asks_first = is_question && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks_first {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let headers = request.headers_mut();
        headers.remove(ORIGIN);
        headers.remove(SEC_FETCH_SITE);
        next.run(request).await
    };
    let text = HeaderValue::from_static;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        text("Accept, Authorization, Content-Type, Origin"),
    );
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, text("GET, POST, OPTIONS"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, text("Date"));
    headers.append(VARY, text("Origin"));
    response
}

fn may_read(front: &Front, request: &Request, origin: &HeaderValue) -> bool {
    let path = request.uri().path().strip_prefix("/api/v1/");
    let first = path.and_then(|path| path.split('/').next());
    let readable = first.is_some_and(|first| READABLE.contains(&first));
    readable
        && origin
            .to_str()
            .is_ok_and(|origin| front.access().shares_with(origin))
}
