//! A real Prometheus above us, and its tools beside us.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::broker::{free_port, program, say};
use crate::programs::Prometheus;
use crate::server::{Http, Server, eventually};

/// The names that the documents or node_exporter fix, about which the lint complains.
const LINT_ACCEPTED: [&str; 12] = [
    "node_",
    "process_",
    "go_",
    "buffer_",
    "messages_",
    "sessions_",
    "db_",
    "pending_writes",
    "http_requests_in",
    "edge_relay",
    "dlq_",
    "onboarding_",
];

/// The job that the README prints for an upstream, with our port.
pub(crate) fn readme_job(port: u16) -> String {
    let readme = include_str!("../../README.md");
    let (_, after) = readme
        .split_once("```yaml\n# upstream prometheus.yml\n")
        .unwrap();
    let (job, _) = after.split_once("```").unwrap();
    assert!(
        job.contains("127.0.0.1:8080"),
        "the README names the default address"
    );
    job.replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"))
}

#[tokio::test]
async fn a_real_prometheus_scrapes_us_by_the_readmes_job() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n{}",
        readme_job(server.port)
    );
    let Some(prometheus) = Prometheus::start(&config) else {
        return;
    };
    let http = Http::new();
    let targets = prometheus.url("/api/v1/targets");
    eventually("every target is up", || async {
        let request = hyper::Request::get(&targets)
            .body(Default::default())
            .unwrap();
        let answer = http
            .try_send(request)
            .await
            .filter(|a| a.status == 200)?
            .json();
        let active = answer["data"]["activeTargets"].as_array()?.clone();
        let up = !active.is_empty() && active.iter().all(|target| target["health"] == "up");
        up.then_some(())
    })
    .await;
    let query = prometheus.url("/api/v1/query?query=pulse_build_info");
    eventually("our series are stored upstream", || async {
        let answer = http.get(&query).await;
        let answer = (answer.status == 200).then(|| answer.json())?;
        (answer["data"]["result"].as_array()?.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn promtool_accepts_our_metrics() {
    let Some(promtool) = program("promtool") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let metrics = server.get("/metrics").await;
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&metrics.body)
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let remarks =
        String::from_utf8(output.stderr).unwrap() + std::str::from_utf8(&output.stdout).unwrap();
    // 0: fine; 3: remarks of the lint, of which only fixed names may have any.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{remarks}");
    for line in remarks.lines().filter(|l| !l.is_empty()) {
        let accepted = LINT_ACCEPTED.iter().any(|prefix| line.starts_with(prefix));
        assert!(accepted, "promtool: {line}");
    }
}

#[tokio::test]
async fn promtool_queries_work_against_us() {
    let Some(promtool) = program("promtool") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let url = server.url("");
    let run = |args: &[&str]| {
        let output = Command::new(&promtool).args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    };
    let instant = eventually("our own metrics are stored", || async {
        Some(run(&["query", "instant", &url, "pulse_build_info"])).filter(|text| !text.is_empty())
    })
    .await;
    assert!(instant.contains("job=\"pulse\""), "{instant}");
    let range = run(&["query", "range", "--step=15s", &url, "up{job=\"pulse\"}"]);
    assert!(range.contains("up{"), "{range}");
    let series = run(&["query", "series", "--match=up", &url]);
    assert!(series.contains("job=\"node\""), "{series}");
    let labels = run(&["query", "labels", &url, "job"]);
    assert_eq!(
        labels.split_whitespace().collect::<Vec<_>>(),
        ["node", "pulse"]
    );
    say("promtool query instant, range, series and labels answered");
}
