//! A real Prometheus with a configuration of the test's, as a child process.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::broker::{PATIENCE, free_port, program};
use crate::server::{Http, eventually};

/// A child that is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A real Prometheus with a configuration of the test's.
pub(crate) struct Prometheus {
    pub(crate) port: u16,
    _process: Running,
    _dir: TempDir,
}

impl Prometheus {
    pub(crate) fn start(config: &str) -> Option<Prometheus> {
        Prometheus::start_at(config, free_port())
    }

    /// As [`Prometheus::start`], on a port that its configuration names.
    pub(crate) fn start_at(config: &str, port: u16) -> Option<Prometheus> {
        Prometheus::start_with(config, port, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(config: &str, port: u16, more: &[&str]) -> Option<Prometheus> {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        Prometheus::start_in(dir, &data, config, port, more)
    }

    /// One that takes remote_write, native histograms too, and has taken this message.
    pub(crate) async fn start_with_written(message: &[u8]) -> Option<Prometheus> {
        let more = [
            "--enable-feature=native-histograms",
            "--web.enable-remote-write-receiver",
        ];
        let prometheus = Prometheus::start_with("global: {}", free_port(), &more)?;
        let write = prometheus.url("/api/v1/write");
        eventually("it took the message", || async {
            let request = hyper::Request::post(&write)
                .header("content-type", "application/x-protobuf")
                .header("content-encoding", "snappy")
                .header("x-prometheus-remote-write-version", "0.1.0")
                .body(http_body_util::Full::from(message.to_vec()))
                .unwrap();
            let answer = Http::new().try_send(request).await?;
            (answer.status < 300).then_some(())
        })
        .await;
        Some(prometheus)
    }

    /// One without targets on a data directory that is there.
    pub(crate) fn start_on(data: &Path) -> Option<Prometheus> {
        let dir = tempfile::tempdir().unwrap();
        Prometheus::start_in(dir, data, "", free_port(), &[])
    }

    fn start_in(
        dir: TempDir,
        data: &Path,
        config: &str,
        port: u16,
        more: &[&str],
    ) -> Option<Prometheus> {
        let program = program("prometheus")?;
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command
            .args(args)
            .args(more)
            .stdout(Stdio::null())
            .stderr(log);
        let process = Running(command.spawn().unwrap());
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "nothing listens on {port}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Prometheus {
            port,
            _process: process,
            _dir: dir,
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// Whether two servers answered alike: numbers in texts, which are values, to 1e-9,
/// everything else exactly. The last digits depend on the order of the arithmetic.
pub(crate) fn near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|b| near(v, b)))
        }
        (Value::String(x), Value::String(y)) => match (x.parse(), y.parse()) {
            (Ok(a), Ok(b)) => same(a, b),
            _ => x == y,
        },
        (a, b) => a == b,
    }
}

/// Equal to 1e-9 of the greater; special values only themselves.
pub(crate) fn same(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() < 1e-9 * a.abs().max(b.abs())
}

#[test]
fn special_values_are_near_to_themselves_only() {
    let inf = f64::INFINITY;
    assert!(same(f64::NAN, f64::NAN) && same(inf, inf) && same(1.0, 1.0 + 1e-12));
    let others = [
        (inf, 5.0),
        (inf, -inf),
        (f64::NAN, inf),
        (0.0, 1e-300),
        (1.0, 1.0 + 1e-8),
    ];
    assert!(others.iter().all(|(a, b)| !same(*a, *b) && !same(*b, *a)));
}
