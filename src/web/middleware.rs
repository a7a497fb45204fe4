//! What happens to every request around its handler: access, counting, headers.

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use prometheus::IntGauge;
use tokio::time::Instant;

use super::Front;
use super::auth::Refusal;
use super::router;
use crate::telemetry::Metrics;

/// The handler of requests that matched no route.
const NO_HANDLER: &str = "none";

/// Nothing is loaded from or sent to anywhere else; styles of single elements are
/// how charts place their labels.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'self'; base-uri 'none'";

const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Counts the request under its route's template.
pub(super) async fn count(State(front): State<Front>, request: Request, next: Next) -> Response {
    let method = method_label(request.method());
    let handler = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(NO_HANDLER.to_owned(), |path| path.as_str().to_owned());
    let metrics = front.metrics();
    let _under_way = UnderWay::new(metrics, method, &handler);
    let began = Instant::now();
    let response = next.run(request).await;
    let http = &metrics.http;
    http.seconds
        .with_label_values(&[method, &handler])
        .observe(began.elapsed().as_secs_f64());
    http.requests
        .with_label_values(&[method, &handler, response.status().as_str()])
        .inc();
    response
}

/// Refuses who may not ask, and everybody before the process is ready.
pub(super) async fn admit(State(front): State<Front>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let refused = |reason, response: Response| {
        let refused = &front.metrics().http.refused;
        refused.with_label_values(&[reason]).inc();
        response
    };
    if !front.is_ready() && !router::is_early(path) {
        return refused("not_ready", not_ready());
    }
    let own_credentials = router::is_public(path) || router::has_own_credentials(path);
    // What is read by POST changes nothing, whoever's page asks for it.
    let method = match router::is_read_by_post(path) {
        true => &Method::GET,
        false => request.method(),
    };
    let verdict = front
        .access()
        .judge(method, request.headers(), own_credentials);
    match verdict {
        Ok(()) => next.run(request).await,
        Err(Refusal::Host) => refused("host", misnamed()),
        Err(Refusal::Origin) => refused("origin", from_elsewhere()),
        Err(Refusal::Auth) => refused("auth", unauthorized()),
    }
}

/// Adds the headers that keep a browser safe, where a handler has not set its own.
pub(super) async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in SECURITY_HEADERS {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The answer to everything while the process starts or stops.
pub(super) fn not_ready() -> Response {
    let headers = [(header::RETRY_AFTER, "1")];
    (
        StatusCode::SERVICE_UNAVAILABLE,
        headers,
        "Service Unavailable\n",
    )
        .into_response()
}

fn misnamed() -> Response {
    let text = "This host name is not known here. Use an IP address or localhost, \
                or add the name to allowed_hosts in [server].\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

fn from_elsewhere() -> Response {
    (
        StatusCode::FORBIDDEN,
        "Requests of other sites are refused.\n",
    )
        .into_response()
}

fn unauthorized() -> Response {
    let headers = [(header::WWW_AUTHENTICATE, "Basic realm=\"pulse\"")];
    (
        StatusCode::UNAUTHORIZED,
        headers,
        Body::from("A token is needed.\n"),
    )
        .into_response()
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// Counts a request as under way, also when its client goes away.
struct UnderWay([IntGauge; 2]);

impl UnderWay {
    fn new(metrics: &Metrics, method: &str, handler: &str) -> UnderWay {
        let gauges = [&metrics.http.in_progress, &metrics.http.inprogress]
            .map(|gauges| gauges.with_label_values(&[method, handler]));
        gauges.iter().for_each(IntGauge::inc);
        UnderWay(gauges)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.iter().for_each(IntGauge::dec);
    }
}
