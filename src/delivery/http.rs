//! One attempt by HTTP/1.1, and what came of it: the sender that all kinds share.
//!
//! Connections are kept and used again, at most four idle ones. The time-out covers
//! everything from the name lookup to the end of the answer, so a receiver that drips
//! bytes holds a slot no longer than one that is silent. The status line decides:
//! once a 2xx is in, the rest of the answer only adds text for people.

use std::error::Error as _;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use super::address::{Names, Policy};
use super::connector::Connector;
use super::proxy::{Proxy, is_https};
use super::redirect::Hop;
use super::retry::Hint;
use super::tls::{self, Pems};
use crate::model::Timestamp;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_CONNECTIONS_MAX: usize = 4;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
const ANSWER_BODY_BYTES_MAX: usize = 64 * 1024;
/// Requests of one attempt, as in Go: the last of them may not lead elsewhere.
const REQUESTS_MAX: usize = 10;
/// How much of an answer is kept for people, in bytes.
pub(super) const ANSWER_KEPT_BYTES: usize = 1024;

/// What came of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The receiver has it: 2xx.
    Delivered,
    /// The receiver wants no more, ever: 410.
    Gone,
    /// Anything else.
    Failed(Hint),
}

/// An attempt's end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) status: Option<u16>,
    /// Why it failed, in words.
    pub(super) error: Option<String>,
    /// The beginning of the answer.
    pub(super) answer: String,
    /// Whether the receiver is in trouble, rather than displeased with this one message.
    pub(super) receiver_failed: bool,
    /// Whether there was nothing to send: a template failed.
    pub(super) unmade: bool,
}

/// What is to be sent.
pub(super) struct Call {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// How a destination is reached.
#[derive(Clone)]
pub(super) struct Way {
    /// `None` for `http://`.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) policy: Policy,
    /// Whether redirects are followed, and then how a server is trusted to which one of
    /// `http://` leads.
    pub(super) redirects: Option<Arc<Pems>>,
    /// By which name the server is known, when not by that in its address.
    pub(super) server_name: Option<ServerName<'static>>,
}

/// Sends to one destination.
#[derive(Clone)]
pub(super) struct Client {
    timeout: Duration,
    way: Way,
    http: Connections,
    /// For `https://` when only a redirect leads there.
    https: OnceLock<Connections>,
}

type Connections = legacy::Client<HttpsConnector<Connector>, Full<Bytes>>;

impl Client {
    /// Opens nothing yet. `timeout` is for one attempt, connection included.
    pub(super) fn new(way: &Way, timeout: Duration) -> Client {
        let tls = way.tls.as_deref().cloned().unwrap_or_else(no_tls);
        Client {
            timeout,
            way: way.clone(),
            http: Client::connections(way, tls, timeout),
            https: OnceLock::new(),
        }
    }

    fn connections(way: &Way, tls: ClientConfig, timeout: Duration) -> Connections {
        let connector = Connector {
            policy: way.policy,
            proxy: way.proxy.clone(),
            timeout: CONNECT_TIMEOUT.min(timeout),
            names: Names::default(),
        };
        let mut builder = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http();
        if let Some(name) = &way.server_name {
            let name = FixedServerNameResolver::new(name.clone());
            builder = builder.with_server_name_resolver(name);
        }
        let connector = builder.enable_http1().wrap_connector(connector);
        legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(ANSWER_HEAD_BYTES_MAX)
            .build(connector)
    }

    /// The connections for a place.
    fn to(&self, uri: &Uri) -> Result<&Connections, String> {
        if self.way.tls.is_some() || !is_https(uri) {
            return Ok(&self.http);
        }
        if let Some(https) = self.https.get() {
            return Ok(https);
        }
        let pems = self.way.redirects.as_deref();
        let tls = tls::client(pems.unwrap_or(&Pems::default()));
        let tls = tls.map_err(|err| format!("{err:#}"))?;
        let made = Client::connections(&self.way, tls, self.timeout);
        Ok(self.https.get_or_init(|| made))
    }

    /// Makes one attempt with a POST, `now` by the wall clock.
    pub(super) async fn send(&self, call: Result<Call, String>, now: Timestamp) -> Outcome {
        let hop = match call {
            Ok(call) => call.into_hop(),
            Err(error) => return Outcome::unmade("request", &error),
        };
        let deadline = Instant::now() + self.timeout;
        let response = match self.followed(hop, deadline).await {
            Ok(response) => response,
            Err(outcome) => return outcome,
        };
        let (head, body) = response.into_parts();
        let mut kept = Vec::new();
        // Cut off in time, in length or by the receiver: what there is will do.
        let _ = timeout_at(deadline, read_beginning(body, &mut kept)).await;
        Outcome {
            answer: String::from_utf8_lossy(&kept).into_owned(),
            ..judged(head.status, &head.headers, now)
        }
    }

    /// The answer of the place that a request leads to in the end.
    async fn followed(&self, mut hop: Hop, deadline: Instant) -> Result<Answer, Outcome> {
        for _ in 0..REQUESTS_MAX {
            let response = self.asked(&hop, deadline).await?;
            let goes_on = self.way.redirects.is_some()
                && hop
                    .turn(response.status(), response.headers())
                    .map_err(Outcome::failed)?;
            if !goes_on {
                return Ok(response);
            }
        }
        let error = format!("stopped after {REQUESTS_MAX} redirects");
        Err(Outcome::failed(error))
    }

    async fn asked(&self, hop: &Hop, deadline: Instant) -> Result<Answer, Outcome> {
        let mut request = Request::new(Full::new(hop.body.clone()));
        *request.method_mut() = hop.method.clone();
        *request.uri_mut() = hop.uri.clone();
        *request.headers_mut() = hop.headers.clone();
        if let Some(proxy) = &self.way.proxy {
            proxy.authorize(&hop.uri, request.headers_mut());
        }
        let connections = self.to(&hop.uri).map_err(Outcome::failed)?;
        // Boxed: the client's future is large and lies in a set of many.
        let response = Box::pin(timeout_at(deadline, connections.request(request))).await;
        match response {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(err)) => Err(Outcome::failed(described(&err))),
            Err(_) => {
                let ms = self.timeout.as_millis();
                Err(Outcome::failed(format!("no answer within {ms} ms")))
            }
        }
    }
}

type Answer = hyper::Response<hyper::body::Incoming>;

impl Call {
    fn into_hop(self) -> Hop {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, user_agent());
        headers.extend(self.headers);
        Hop {
            method: Method::POST,
            uri: self.uri,
            headers,
            body: Bytes::from(self.body),
        }
    }
}

impl Outcome {
    /// Nothing was sent, because what was to be sent could not be made.
    pub(super) fn unmade(what: &str, error: &str) -> Outcome {
        Outcome {
            unmade: true,
            ..Outcome::refused(format!("cannot make the {what}: {error}"))
        }
    }

    /// Nothing was sent, because of this one message.
    pub(super) fn refused(error: String) -> Outcome {
        Outcome {
            verdict: Verdict::Failed(Hint {
                refused: true,
                retry_after: None,
            }),
            receiver_failed: false,
            ..Outcome::failed(error)
        }
    }

    /// The receiver could not be reached.
    pub(super) fn failed(error: String) -> Outcome {
        Outcome {
            verdict: Verdict::Failed(Hint::default()),
            status: None,
            error: Some(error),
            answer: String::new(),
            receiver_failed: true,
            unmade: false,
        }
    }
}

fn user_agent() -> HeaderValue {
    HeaderValue::from_static(concat!("pulse/", env!("CARGO_PKG_VERSION")))
}

/// For `http://` only: trusts nobody.
fn no_tls() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// What a status means. A redirect that is not followed is a failure: of telemetry, because
/// the place that is configured has to take it, and where the operator wants none.
fn judged(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Outcome {
    let code = status.as_u16();
    let retried = matches!(code, 408 | 425 | 429);
    let verdict = match code {
        200..=299 => Verdict::Delivered,
        410 => Verdict::Gone,
        _ => Verdict::Failed(Hint {
            refused: status.is_client_error() && !retried,
            retry_after: retry_after(headers, now),
        }),
    };
    let error = match verdict {
        Verdict::Delivered => None,
        _ if status.is_redirection() => Some(format!("status {code}: redirects are not followed")),
        _ => Some(format!("status {code}")),
    };
    // Wrong credentials and wrong paths concern every message; 400 or 422 only this one.
    let about_all = retried || matches!(code, 401 | 403 | 404 | 405 | 407 | 410);
    Outcome {
        receiver_failed: !status.is_success() && (!status.is_client_error() || about_all),
        verdict,
        status: Some(code),
        error,
        answer: String::new(),
        unmade: false,
    }
}

/// `Retry-After` as a number of seconds or as an HTTP date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(secs) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(secs)));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    let ms = Timestamp::from_ms(date.as_millisecond()).ms_since(now);
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

/// Keeps the beginning of an answer. Reads at most 64 KiB, so that a connection with
/// a short answer can be used again and one with a long answer is closed.
async fn read_beginning(mut body: hyper::body::Incoming, kept: &mut Vec<u8>) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let room = ANSWER_KEPT_BYTES.saturating_sub(kept.len()).min(data.len());
        kept.extend_from_slice(&data[..room]);
        read += data.len();
        if read > ANSWER_BODY_BYTES_MAX {
            break;
        }
    }
}

/// The chain of causes, without repeating what a cause already says.
fn described(err: &legacy::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        let more = match err.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => {
                "connection refused".to_owned()
            }
            _ => err.to_string(),
        };
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = err.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(784_111_777_000);

    fn outcome(status: u16) -> Outcome {
        judged(
            StatusCode::from_u16(status).unwrap(),
            &HeaderMap::new(),
            NOW,
        )
    }

    #[test]
    fn only_2xx_is_success_and_410_is_the_end() {
        for status in [200, 202, 204, 299] {
            assert_eq!(outcome(status).verdict, Verdict::Delivered, "{status}");
        }
        for status in [300, 301, 302, 307, 400, 404, 408, 422, 425, 429, 500, 503] {
            let verdict = outcome(status).verdict;
            assert!(matches!(verdict, Verdict::Failed(_)), "{status}");
        }
        assert_eq!(outcome(410).verdict, Verdict::Gone);
    }

    #[test]
    fn a_refused_message_does_not_speak_against_the_receiver() {
        for (status, receiver_failed) in [
            (200, false),
            (301, true),
            (400, false),
            (401, true),
            (404, true),
            (413, false),
            (422, false),
            (429, true),
            (500, true),
        ] {
            assert_eq!(outcome(status).receiver_failed, receiver_failed, "{status}");
        }
    }

    #[test]
    fn retry_after_takes_seconds_and_dates() {
        let check = |text: &str, want: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            let secs = retry_after(&headers, NOW).map(|wait| wait.as_secs());
            assert_eq!(secs, want, "{text}");
        };
        check("120", Some(120));
        check("0", Some(0));
        // NOW is Sun, 06 Nov 1994 08:49:37 GMT.
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:49:00 GMT", Some(0));
        check("soon", None);
        check("-5", None);
    }
}
