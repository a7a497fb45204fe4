//! `/-/healthy`, `/-/ready`, `/-/reload`: for whoever runs the process.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};

use crate::web::Context;

/// How long a reload may take before the client is told to look into the log.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks the process to reload; the answer is the error's text.
pub type ReloadRequest = oneshot::Sender<Result<(), String>>;

/// Where handlers ask for a reload.
pub type Reloads = mpsc::Sender<ReloadRequest>;

/// The process answers.
pub async fn healthy() -> &'static str {
    "Pulse is Healthy.\n"
}

/// Every part runs; before that the request does not come this far.
pub async fn ready() -> &'static str {
    "Pulse is Ready.\n"
}

/// Reads the configuration again, all or nothing.
pub async fn reload(State(context): State<Context>) -> Response {
    let (answer, asked) = oneshot::channel();
    if context.reloads.try_send(answer).is_err() {
        let text = "a reload is under way\n";
        return (StatusCode::CONFLICT, text).into_response();
    }
    match tokio::time::timeout(RELOAD_TIMEOUT, asked).await {
        Ok(Ok(Ok(()))) => StatusCode::OK.into_response(),
        Ok(Ok(Err(err))) => failed(&err),
        Ok(Err(_)) => failed("the process is stopping"),
        Err(_) => failed("no answer within 30s"),
    }
}

fn failed(err: &str) -> Response {
    let text = format!("failed to reload config: {err}\n");
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}
