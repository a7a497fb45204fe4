//! The real binary as a child process, and an HTTP client to talk to it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::broker::PATIENCE;

/// Polls `probe` until it gives something; fails with `what` after [`PATIENCE`].
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    probe: impl FnMut() -> F,
) -> T {
    eventually_within(PATIENCE, what, probe).await
}

/// As [`eventually`], with a deadline of its own.
pub(crate) async fn eventually_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < patience, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.text()))
    }
}

/// An HTTP client with a new connection for each request: a server that refused a
/// body closes its connection.
#[derive(Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    pub(crate) fn new() -> Http {
        Http(
            Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
        )
    }

    /// Sends a request; `None` when nobody answers.
    pub(crate) async fn try_send(&self, request: Request<Full<Bytes>>) -> Option<Answer> {
        let answer = self.0.request(request).await.ok()?;
        let (head, body) = answer.into_parts();
        Some(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.ok()?.to_bytes(),
        })
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        let request = Request::get(url).body(Full::default()).unwrap();
        self.try_send(request)
            .await
            .unwrap_or_else(|| panic!("no answer from {url}"))
    }

    /// As [`Http::post`] of JSON, owning its arguments.
    pub(crate) async fn post_owned(self, url: String, body: String) -> Answer {
        self.post(&url, "application/json", body).await
    }

    pub(crate) async fn post(
        &self,
        url: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header("content-type", content_type)
            .body(Full::new(body.into()))
            .unwrap();
        self.try_send(request)
            .await
            .unwrap_or_else(|| panic!("no answer from {url}"))
    }
}

/// A running pulse. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    pub(crate) http: Http,
}

impl Server {
    /// Starts the binary on `dir/data` with `dir/pulse.toml` if it is there, and
    /// waits until it is ready.
    pub(crate) async fn start(dir: &Path, port: u16) -> Server {
        let server = Server::spawn(dir, port);
        server.ready().await;
        server
    }

    /// Starts the binary without waiting.
    pub(crate) fn spawn(dir: &Path, port: u16) -> Server {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join("pulse.log"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pulse"));
        command
            .arg("run")
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"));
        command.arg("--data-dir").arg(dir.join("data"));
        if dir.join("pulse.toml").exists() {
            command.arg("--config").arg(dir.join("pulse.toml"));
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Server {
            child,
            port,
            http: Http::new(),
        }
    }

    /// Waits until `/-/ready` says yes.
    pub(crate) async fn ready(&self) {
        let url = self.url("/-/ready");
        eventually("pulse is ready", || async {
            let request = Request::get(&url).body(Full::default()).unwrap();
            self.http
                .try_send(request)
                .await
                .filter(|a| a.status == 200)
        })
        .await;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.http.get(&self.url(path)).await
    }

    /// The result of an instant query.
    pub(crate) async fn query(&self, expr: &str) -> serde_json::Value {
        let body: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", expr)
            .finish();
        let url = self.url("/api/v1/query");
        let answer = self
            .http
            .post(&url, "application/x-www-form-urlencoded", body)
            .await;
        assert_eq!(answer.status, 200, "{expr}: {}", answer.text());
        answer.json()["data"]["result"].clone()
    }

    /// The one value of an instant query, if it has exactly one.
    pub(crate) async fn value(&self, expr: &str) -> Option<f64> {
        let result = self.query(expr).await;
        let elements = result.as_array()?;
        let [element] = elements.as_slice() else {
            return None;
        };
        element["value"][1].as_str()?.parse().ok()
    }

    /// SIGKILL, and wait until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The child's number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the child.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, and the exit code once it has ended.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.wait().await
    }

    /// Waits for the end of the process and gives its exit code.
    pub(crate) async fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "pulse does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
