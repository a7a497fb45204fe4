//! Asking the process that has a data directory.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::in_runtime;
use crate::app::Control;

/// The longest error or report that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long the process may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a verification may take: a slow card with a year of data.
const VERIFY_MAX: Duration = Duration::from_secs(6 * 3_600);

/// Asks for a backup and writes it to `out` as it comes.
pub(super) fn backup(dir: &Path, plan: Vec<u8>, out: &mut impl Write) -> anyhow::Result<()> {
    in_runtime(async {
        let mut answer = ask(dir, "backup", plan, SILENCE_MAX).await?.into_body();
        loop {
            let frame = tokio::time::timeout(SILENCE_MAX, answer.frame()).await;
            match frame.context("the process sends nothing any more")? {
                None => return Ok(()),
                Some(frame) => {
                    let frame = frame.context("the process ended the backup")?;
                    if let Ok(data) = frame.into_data() {
                        out.write_all(&data).context("cannot write the backup")?;
                    }
                }
            }
        }
    })
}

/// Asks for a verification; gives the report's JSON.
pub(super) fn verify(dir: &Path) -> anyhow::Result<Bytes> {
    in_runtime(async {
        let answer = ask(dir, "verify", Vec::new(), VERIFY_MAX).await?;
        collected(answer).await
    })
}

/// Asks for the cardinality; gives its JSON.
pub(super) fn tsdb(dir: &Path, limit: u32) -> anyhow::Result<Bytes> {
    in_runtime(async {
        let answer = ask(dir, "tsdb", limit.to_string().into_bytes(), SILENCE_MAX).await?;
        collected(answer).await
    })
}

async fn ask(
    dir: &Path,
    what: &str,
    body: Vec<u8>,
    patience: Duration,
) -> anyhow::Result<Response<Incoming>> {
    let control = Control::read(dir)?;
    let request = Request::post(format!("{}/api/v1/local/{what}", control.url))
        .header(AUTHORIZATION, format!("Bearer {}", control.token))
        .body(Full::new(Bytes::from(body)))?;
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let answer = tokio::time::timeout(patience, client.request(request)).await;
    let answer = answer
        .context("no answer in time")?
        .with_context(|| format!("cannot ask {}", control.url))?;
    if answer.status() == StatusCode::OK {
        return Ok(answer);
    }
    let status = answer.status();
    let text = collected(answer).await?;
    bail!(
        "{} answers {status}: {}",
        control.url,
        String::from_utf8_lossy(&text).trim()
    );
}

async fn collected(answer: Response<Incoming>) -> anyhow::Result<Bytes> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(|err| anyhow::anyhow!(err))?;
    Ok(body.to_bytes())
}
