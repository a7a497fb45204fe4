//! Foreign programs from Debian packages, started on free loopback ports and
//! stopped by their handle.
//!
//! A missing program is a skip that says so on standard error; with
//! `PULSE_TEST_FULL=1` it is a failure.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::server::{PATIENCE, free_port};

/// Where a program is; `None` after saying that its test is skipped.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    let found = folders
        .iter()
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("PULSE_TEST_FULL").is_none(),
            "{name} is not installed, and PULSE_TEST_FULL allows no skip"
        );
        report(&format!("SKIPPED: {name} is not installed"));
    }
    found
}

/// Says something past the capture of the test harness.
pub(crate) fn report(text: &str) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test").to_owned();
    let line = format!("{test}: {text}\n");
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// A child that is killed when it is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts a program with its output in `log`.
    pub(crate) fn start(program: &Path, args: &[&str], log: &Path) -> Running {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap())
    }

    /// SIGKILL, and wait until it is gone.
    pub(crate) fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Blocks until something listens on the port.
pub(crate) fn wait_for_port(port: u16) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < PATIENCE, "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A mosquitto that keeps every queued message in memory.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    _process: Running,
    _dir: TempDir,
}

impl Mosquitto {
    /// Starts one with `extra` lines of configuration.
    pub(crate) fn start(extra: &str) -> Option<Mosquitto> {
        let program = program("mosquitto")?;
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
             max_queued_messages 0\nset_tcp_nodelay true\n{extra}\n"
        );
        let file = dir.path().join("mosquitto.conf");
        fs::write(&file, config).unwrap();
        let args = ["-c", file.to_str().unwrap()];
        let process = Running::start(&program, &args, &dir.path().join("log"));
        wait_for_port(port);
        Some(Mosquitto {
            port,
            _process: process,
            _dir: dir,
        })
    }
}

/// A nats-server with JetStream on files.
pub(crate) struct Nats {
    pub(crate) port: u16,
    _process: Running,
    _dir: TempDir,
}

impl Nats {
    pub(crate) fn start() -> Option<Nats> {
        let program = program("nats-server")?;
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let (port_text, store) = (port.to_string(), dir.path().join("js"));
        let args = [
            "-a",
            "127.0.0.1",
            "-p",
            &port_text,
            "-js",
            "-sd",
            store.to_str().unwrap(),
        ];
        let process = Running::start(&program, &args, &dir.path().join("log"));
        wait_for_port(port);
        Some(Nats {
            port,
            _process: process,
            _dir: dir,
        })
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
        let program = program("prometheus")?;
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let process = Running::start(&program, &args, &dir.path().join("log"));
        wait_for_port(port);
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
