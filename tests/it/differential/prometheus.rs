//! A real Prometheus on a free port, with blocks made by promtool.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::{ORIGIN_MS, When};

/// How long it may take to become ready.
const READY: Duration = Duration::from_secs(60);

/// Labels and points of a series.
pub(super) type Series = (BTreeMap<String, String>, Vec<(i64, f64)>);

/// What a query gave.
#[derive(Default, Debug)]
pub(super) struct Answer {
    pub(super) series: Vec<Series>,
    pub(super) text: Option<String>,
}

impl Answer {
    pub(super) fn of(series: Vec<Series>) -> Answer {
        Answer { series, text: None }
    }

    pub(super) fn text(text: String) -> Answer {
        Answer {
            series: Vec::new(),
            text: Some(text),
        }
    }
}

/// The running process; ends with the value.
pub(super) struct Prometheus {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Prometheus {
    /// Starts it with these samples. `None`, with a line on standard error, when
    /// the programs are not there; a failure when the full set of tests is wanted.
    pub(super) fn start(open_metrics: &str) -> Option<Prometheus> {
        if !installed("promtool") || !installed("prometheus") {
            let full = std::env::var_os("PULSE_TEST_FULL").is_some_and(|v| v == "1");
            assert!(!full, "prometheus and promtool are not installed");
            skip("SKIPPED queries_agree_with_prometheus: prometheus or promtool is missing\n");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        make_blocks(dir.path(), open_metrics);
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, "global: {}\n").unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--storage.tsdb.retention.time=100y", "--log.level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Prometheus {
            process,
            port,
            _dir: dir,
        };
        prometheus.wait_until_ready();
        Some(prometheus)
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + READY;
        while self
            .get("/-/ready")
            .is_none_or(|body| !body.contains("Ready"))
        {
            assert!(Instant::now() < deadline, "prometheus is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The answer, or Prometheus' error text.
    pub(super) fn query(&self, query: &str, when: When) -> Result<Answer, String> {
        let query = encode(query);
        let at = |seconds: i64| (ORIGIN_MS + seconds * 1000) as f64 / 1000.0;
        let path = match when {
            When::At(t) => format!("/api/v1/query?query={query}&time={}", at(t)),
            When::Range { start, end, step } => format!(
                "/api/v1/query_range?query={query}&start={}&end={}&step={step}",
                at(start),
                at(end)
            ),
        };
        let body = self.get(&path).expect("prometheus answers");
        let json: Json = serde_json::from_str(&body).unwrap_or_else(|err| panic!("{err}: {body}"));
        if json["status"] != "success" {
            return Err(json["error"].to_string());
        }
        Ok(answer(&json["data"]))
    }

    /// The body of an answer, whatever its status; HTTP/1.0 keeps it in one piece.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(READY)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let (_, body) = response.split_once("\r\n\r\n")?;
        Some(body.to_owned())
    }
}

fn installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

fn skip(line: &str) {
    // The harness catches the print macros; a skip must be seen.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

fn make_blocks(dir: &Path, open_metrics: &str) {
    let file = dir.join("samples.om");
    std::fs::write(&file, open_metrics).unwrap();
    let output = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &dir.join("data")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn answer(data: &Json) -> Answer {
    let result = &data["result"];
    let series = || result.as_array().expect("a list").iter();
    match data["resultType"].as_str() {
        Some("scalar") => Answer::of(vec![(BTreeMap::new(), vec![point(result)])]),
        Some("string") => Answer::text(result[1].as_str().expect("a text").to_owned()),
        Some("vector") => Answer::of(
            series()
                .map(|s| (labels(&s["metric"]), vec![point(&s["value"])]))
                .collect(),
        ),
        Some("matrix") => Answer::of(
            series()
                .map(|s| {
                    let values = s["values"].as_array().expect("points").iter();
                    (labels(&s["metric"]), values.map(point).collect())
                })
                .collect(),
        ),
        other => panic!("unknown result {other:?}"),
    }
}

fn labels(metric: &Json) -> BTreeMap<String, String> {
    let pairs = metric.as_object().expect("labels").iter();
    pairs
        .map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned()))
        .collect()
}

fn point(pair: &Json) -> (i64, f64) {
    let seconds = pair[0].as_f64().expect("a time");
    let value = pair[1].as_str().expect("a value");
    let t = pulse::model::Timestamp::from_secs_f64(seconds);
    (t.as_ms(), value.parse().expect("a float"))
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
