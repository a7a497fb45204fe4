//! Alerts that wait for their `for` over a restart, beside the same in a Prometheus.
//!
//! Both evaluate every second, are stopped at one moment and started again at another.
//! How far the start of the alert moves is what is compared: Prometheus moves it by the
//! time that it was down. What it and we wrote last may be a second old; after a kill
//! ours may be ten seconds older, because evaluations without a transition are made
//! durable with the next commit, ten seconds later at most.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{free_port, program};
use crate::server::{Http, Server, eventually};

const RULES: &str = "groups:
- name: g
  interval: 1s
  rules:
  - {alert: Waits, expr: vector(1), for: 45s}
";

/// How long both run before they are stopped, and are down.
const BEFORE: Duration = Duration::from_secs(14);
const DOWN: Duration = Duration::from_secs(8);

/// Two clocks that tick once a second, each read twice, and a slow machine.
const TOLERANCE_MS: i64 = 3_000;

/// What a kill may cost us of what was not committed.
const RIDE_ALONG_MS: i64 = 10_000;

struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(program: &Path, dir: &Path, port: u16) -> Prometheus {
        let child = Command::new(program)
            .arg(format!(
                "--config.file={}",
                dir.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--rules.alert.for-grace-period=1s", "--log.level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Prometheus { child, port }
    }

    fn end(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The alert's state and its start in milliseconds.
async fn alert(http: &Http, port: u16) -> Option<(String, i64)> {
    let url = format!("http://127.0.0.1:{port}/api/v1/alerts");
    let request = hyper::Request::get(&url).body(http_body_util::Full::default());
    let answer = http.try_send(request.unwrap()).await?;
    if answer.status != 200 {
        return None;
    }
    let alert = answer.json()["data"]["alerts"][0].clone();
    let since: jiff::Timestamp = alert["activeAt"].as_str()?.parse().ok()?;
    Some((alert["state"].as_str()?.to_owned(), since.as_millisecond()))
}

async fn until(what: &str, begun: Instant, span: Duration) {
    eventually(what, || async { (begun.elapsed() >= span).then_some(()) }).await;
}

/// How far the start moved: ours, theirs. `None` without a Prometheus.
async fn moved(signal: Signal) -> Option<(i64, i64)> {
    let program = program("prometheus")?;
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.yml");
    std::fs::write(&rules, RULES).unwrap();
    let toml = format!(
        "[rules]\nrule_files = [\"{}\"]\nfor_grace_period = \"1s\"\n",
        rules.display()
    );
    std::fs::write(dir.path().join("pulse.toml"), toml).unwrap();
    let yaml = format!("rule_files: ['{}']\n", rules.display());
    std::fs::write(dir.path().join("prometheus.yml"), yaml).unwrap();
    let (http, theirs_port, ours_port) = (Http::new(), free_port(), free_port());
    let mut theirs = Prometheus::start(program.as_ref(), dir.path(), theirs_port);
    let mut ours = Server::start(dir.path(), ours_port).await;
    let pending = |port: u16| {
        let http = &http;
        async move {
            let (state, since) = alert(http, port).await?;
            assert_eq!(state, "pending");
            Some(since)
        }
    };
    let first_ours = eventually("ours is pending", || pending(ours_port)).await;
    let first_theirs = eventually("theirs is pending", || pending(theirs_port)).await;
    until("both have run for a while", Instant::now(), BEFORE).await;
    theirs.end(signal);
    if signal == Signal::KILL {
        ours.kill();
    } else {
        ours.terminate().await;
    }
    until("both were down for a while", Instant::now(), DOWN).await;
    let theirs = Prometheus::start(program.as_ref(), dir.path(), theirs.port);
    let ours = Server::start(dir.path(), ours.port).await;
    let fires = |port: u16| {
        let http = &http;
        async move {
            let (state, since) = alert(http, port).await?;
            (state == "firing").then_some(since)
        }
    };
    let begun = Instant::now();
    until("the wait is nearly over", begun, Duration::from_secs(20)).await;
    let last_ours = eventually("ours fires", || fires(ours.port)).await;
    let last_theirs = eventually("theirs fires", || fires(theirs.port)).await;
    Some((last_ours - first_ours, last_theirs - first_theirs))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a08_a_for_that_was_stopped_goes_on_as_in_the_real_prometheus() {
    if let Some((ours, theirs)) = moved(Signal::TERM).await {
        let down = i64::try_from(DOWN.as_millis()).unwrap();
        assert!(theirs >= down, "theirs moved by {theirs} ms");
        assert!(
            (ours - theirs).abs() <= TOLERANCE_MS,
            "{ours} and {theirs} ms"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a08_a_for_that_was_killed_goes_on_as_in_the_real_prometheus() {
    if let Some((ours, theirs)) = moved(Signal::KILL).await {
        let down = i64::try_from(DOWN.as_millis()).unwrap();
        assert!(theirs >= down, "theirs moved by {theirs} ms");
        let later = ours - theirs;
        assert!(
            (-TOLERANCE_MS..=RIDE_ALONG_MS + TOLERANCE_MS).contains(&later),
            "{ours} and {theirs} ms"
        );
    }
}
