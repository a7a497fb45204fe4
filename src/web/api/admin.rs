//! `/api/v1/admin/...` and `/api/v1/local/...`: for whoever keeps the data.
//!
//! The first are Prometheus' own and off unless `[server] enable_admin_api` is set.
//! The second are for the command line on the same machine: the secret in the data
//! directory's `CONTROL` file opens them, and nothing else does.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use subtle::ConstantTimeEq as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::json::{self, Object};
use super::params::Params;
use crate::model::Timestamp;
use crate::store::backup::Plan;
use crate::web::Context;
use crate::web::error::ApiError;

/// Pieces of a backup that may wait for a slow client.
const PIECES_MAX: usize = 4;

/// A piece is sent at this length.
const PIECE_BYTES: usize = 256 << 10;

/// What the command line may do, and one at a time.
pub struct Local {
    token: Arc<str>,
    turn: Arc<Semaphore>,
}

impl Local {
    /// Lets in who knows this secret.
    pub fn new(token: Arc<str>) -> Local {
        Local {
            token,
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// What only this process and who may read its data directory know.
    pub(in crate::web) fn secret(&self) -> &[u8] {
        self.token.as_bytes()
    }

    fn admit(&self, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, ApiError> {
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok());
        let given = given.and_then(|text| text.strip_prefix("Bearer "));
        let is_right =
            given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(self.token.as_bytes())));
        if !is_right {
            return Err(ApiError::unauthorized(
                "the secret of the data directory is needed",
            ));
        }
        self.turn()
    }

    fn turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.turn)
            .try_acquire_owned()
            .map_err(|_| ApiError::unavailable("another backup or verification is under way"))
    }
}

/// A backup as it is read. The body is a [`Plan`], or empty for everything.
pub async fn backup(
    State(context): State<Context>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let turn = context.local.admit(&headers)?;
    let plan = if body.is_empty() {
        Plan::default()
    } else {
        serde_json::from_slice(&body).map_err(|err| ApiError::bad_data(err.to_string()))?
    };
    let (pieces, arriving) = mpsc::channel(PIECES_MAX);
    let store = context.store.clone();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let begun = std::time::Instant::now();
        let pipe = io::BufWriter::with_capacity(PIECE_BYTES, Pipe(pieces));
        match store.backup(&plan, pipe) {
            Ok(done) => tracing::info!(
                commit_seq = done.commit_seq,
                bytes = done.bytes,
                duration_ms = begun.elapsed().as_millis(),
                "backup written"
            ),
            Err(err) => tracing::error!(error = %err, "backup failed"),
        }
    });
    let stream = futures_util::stream::unfold(arriving, |mut arriving| async move {
        let piece: Bytes = arriving.recv().await?;
        Some((Ok::<_, io::Error>(piece), arriving))
    });
    let headers = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((StatusCode::OK, headers, Body::from_stream(stream)).into_response())
}

/// Hands pieces over to a response. A client that takes none for a minute is cut
/// off by the listener, which ends the wait here.
struct Pipe(mpsc::Sender<Bytes>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Bytes::copy_from_slice(bytes))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Walks every checksum and says what is wrong.
pub async fn verify(
    State(context): State<Context>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let turn = context.local.admit(&headers)?;
    let store = context.store.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        store.verify()
    });
    let checked = checked
        .await
        .map_err(|_| ApiError::unavailable("the verification failed inside"))?;
    let body = serde_json::to_vec(&checked).expect("plain data is JSON");
    Ok(json::respond(body))
}

/// Which names, labels and tenants have most series. The body is the number of
/// entries of each list.
pub async fn tsdb(
    State(context): State<Context>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, ApiError> {
    let turn = context.local.admit(&headers)?;
    let max = body
        .parse()
        .map_err(|_| ApiError::bad_data("expected a number"))?;
    let store = context.store.clone();
    let found = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        store.cardinality(max)
    });
    let found = found
        .await
        .map_err(|_| ApiError::unavailable("the analysis failed inside"))??;
    let body = serde_json::to_vec(&found).expect("plain data is JSON");
    Ok(json::respond(body))
}

/// The admin API is off unless the configuration says otherwise.
fn enabled(context: &Context) -> Result<OwnedSemaphorePermit, ApiError> {
    if context.config().server.enable_admin_api {
        context.local.turn()
    } else {
        Err(ApiError::unavailable("admin APIs disabled"))
    }
}

/// Deletes the samples of matching series in a time range.
pub async fn delete_series(
    State(context): State<Context>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let _turn = enabled(&context)?;
    let selectors = params.selectors()?;
    if selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let start = params.time("start")?.unwrap_or(Timestamp::MIN);
    let end = params.time("end")?.unwrap_or(Timestamp::MAX);
    let series = context.store.delete_series(&selectors, start, end).await?;
    tracing::info!(
        series,
        start_ms = start.as_ms(),
        end_ms = end.as_ms(),
        "series deleted"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Takes deleted samples out of the files.
pub async fn clean_tombstones(State(context): State<Context>) -> Result<StatusCode, ApiError> {
    let _turn = enabled(&context)?;
    context.store.clean_tombstones().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rewrites every day that has sealed hours into its long columns, the open one too.
pub async fn compact(State(context): State<Context>) -> Result<StatusCode, ApiError> {
    let _turn = enabled(&context)?;
    context.store.compact_now().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a copy of the data directory below `snapshots` in it.
pub async fn snapshot(
    State(context): State<Context>,
    params: Params,
) -> Result<Response, ApiError> {
    let turn = enabled(&context)?;
    let skip_head = match params.get("skip_head") {
        "" => false,
        text => parse_bool(text).ok_or_else(|| {
            let message = format!("unable to parse boolean {text:?}");
            ApiError::parameter("skip_head", message)
        })?,
    };
    let store = context.store.clone();
    let made = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        store.snapshot(skip_head)
    });
    let name = made
        .await
        .map_err(|_| ApiError::unavailable("the snapshot failed inside"))??;
    tracing::info!(name, "snapshot made");
    Ok(json::respond(json::success(&[], &[], |out| {
        Object::new(out).text("name", &name).end();
    })))
}

/// What Go takes for a boolean.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
