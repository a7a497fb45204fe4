//! `/metrics` and `/metrics-custom`: our own instruments for a scraper.
//!
//! What the process knows of itself and its host, never device data: that is at the
//! query API. The form follows `Accept`: OpenMetrics when it is asked for, else
//! Prometheus' text.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus::proto::MetricFamily;

use crate::codec::exposition::Format;
use crate::config::Config;
use crate::telemetry::metrics::HOST_PREFIX;
use crate::web::Front;

/// Families of the view `relay`: the documented names of an edge relay.
const RELAY_FAMILIES: [&str; 14] = [
    "active_sessions",
    "buffer_capacity",
    "buffer_size",
    "consumer_connections",
    "db_batch_size",
    "db_write_duration_seconds",
    "db_writes_total",
    "edge_relay_connections",
    "messages_failed_total",
    "messages_processed_total",
    "messages_received_total",
    "pending_writes",
    "sessions_created_total",
    "sessions_ended_total",
];

/// All families of the views that are on.
pub async fn all(State(front): State<Front>, headers: HeaderMap) -> Response {
    let config = front.config();
    let mut families = gathered(&front).await;
    families.retain(|family| is_shown(&config, family.name()));
    exposed(&families, &headers)
}

/// The application's families alone: neither the process, the host nor HTTP.
pub async fn custom(State(front): State<Front>, headers: HeaderMap) -> Response {
    let mut families = gathered(&front).await;
    families.retain(|family| view(family.name()) == Some("relay"));
    exposed(&families, &headers)
}

/// All families; some are read from `/proc`, so not on the runtime's workers.
async fn gathered(front: &Front) -> Vec<MetricFamily> {
    let front = front.clone();
    tokio::task::spawn_blocking(move || front.metrics().gather())
        .await
        .expect("gathering does not panic, and nobody cancels it")
}

fn is_shown(config: &Config, family: &str) -> bool {
    view(family).is_none_or(|view| config.has_view(view))
}

/// The optional view that a family belongs to; the core belongs to none.
fn view(family: &str) -> Option<&'static str> {
    if family.starts_with("http_request") {
        Some("http")
    } else if family.starts_with(HOST_PREFIX) {
        Some("node")
    } else if RELAY_FAMILIES.contains(&family) {
        Some("relay")
    } else {
        None
    }
}

/// The families in the form that the scraper prefers.
fn exposed(families: &[MetricFamily], headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let format = Format::for_accept(accept.unwrap_or(""));
    let media_type = format.content_type();
    ([(header::CONTENT_TYPE, media_type)], format.write(families)).into_response()
}
