//! A real Prometheus that sends us what it scrapes.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::broker::{free_port, program};
use crate::programs::{Prometheus, near};
use crate::server::{Http, Server, eventually};

/// Scrapes that are compared.
const SCRAPES: u64 = 6;

/// Scrapes before that: a sender leaves out what it scraped while it started, and
/// the first results look back.
const LEAD: u64 = 7;

/// What both must answer alike. `odd` is not there in every second scrape, so
/// that its staleness markers decide the answer. No range is a whole number of
/// seconds: Prometheus 2 takes a sample at its very beginning in, Prometheus 3 and
/// we do not.
const QUERIES: [&str; 9] = [
    "up",
    "steady_total",
    "odd",
    "rate(steady_total[3s100ms])",
    "count_over_time(odd[3s100ms])",
    "special",
    "histogram_quantile(0.9, latency_seconds_bucket)",
    "count by (__name__) ({job=\"self\"})",
    "sum(prometheus_tsdb_head_series{job=\"self\"})",
];

/// A target that counts its scrapes. It has no -0: the sender leaves out what equals 0.
fn target() -> (u16, std::sync::Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let rounds = std::sync::Arc::new(AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&rounds);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4_096];
            if !matches!(stream.read(&mut request), Ok(1..)) {
                continue;
            }
            let n = counted.fetch_add(1, Ordering::Relaxed) + 1;
            let text = exposition(n);
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
            let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    (port, rounds)
}

fn exposition(n: u64) -> String {
    let odd = if n % 2 == 1 { "odd 1\n" } else { "" };
    format!(
        "# HELP steady_total Scrapes.\n# TYPE steady_total counter\nsteady_total {n}\n{odd}\
         special{{which=\"inf\"}} -Inf\nspecial{{which=\"nan\"}} NaN\nspecial{{which=\"tiny\"}} 5e-324\n\
         special{{which=\"q\\\"\\\\\\n\u{e9}\"}} {}\n\
         latency_seconds_bucket{{le=\"0.1\"}} {n}\nlatency_seconds_bucket{{le=\"+Inf\"}} {}\n",
        n as f64 / 3.0,
        n * 2,
    )
}

/// The result of a range query, sorted by labels.
async fn range(http: &Http, url: &str, expr: &str, start: f64, end: f64) -> Vec<Value> {
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("query", expr)
        .append_pair("start", &start.to_string())
        .append_pair("end", &end.to_string())
        .append_pair("step", "0.25")
        .finish();
    let answer = http.get(&format!("{url}?{query}")).await.json();
    let mut result = answer["data"]["result"]
        .as_array()
        .unwrap_or_else(|| panic!("{expr}: {answer}"))
        .clone();
    result.sort_by_key(|series| series["metric"].to_string());
    result
}

#[tokio::test]
async fn what_a_real_prometheus_sends_answers_as_it_does() {
    if program("prometheus").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let (target, rounds) = target();
    let own = free_port();
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         remote_write:\n  - url: {}\n    queue_config: {{max_shards: 1, batch_send_deadline: 100ms}}\n    \
         metadata_config: {{send_interval: 1s}}\n\
         scrape_configs:\n  - job_name: target\n    static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n\
         {{}}",
        server.url("/api/v1/write"),
    );
    let job =
        format!("  - job_name: self\n    static_configs: [{{targets: ['127.0.0.1:{own}']}}]\n");
    let prometheus = Prometheus::start_at(&config.replace("{}", &job), own);
    let prometheus = prometheus.expect("it is installed");
    eventually("enough is scraped", || async {
        (rounds.load(Ordering::Relaxed) > SCRAPES + LEAD).then_some(())
    })
    .await;
    let http = Http::new();
    let newest = prometheus.url("/api/v1/query?query=max(timestamp(up))");
    let newest = eventually("something is scraped", || async {
        let answer = http.get(&newest).await.json();
        let value = &answer["data"]["result"][0]["value"][1];
        value.as_str()?.parse::<f64>().ok()
    })
    .await;
    // Samples are sent in their order, so when one of each target is newer, all
    // older ones are here.
    let expr = format!("count(timestamp(up{{job=~\"target|self\"}}) > {newest})");
    eventually("all of it arrived", || async {
        server.value(&expr).await.filter(|n| *n == 2.0)
    })
    .await;
    let (start, end) = (newest - SCRAPES as f64, newest);
    let mut points = 0;
    for expr in QUERIES {
        let expr = expr.replace("up", "up{job=~\"target|self\"}");
        let ours = range(&http, &server.url("/api/v1/query_range"), &expr, start, end).await;
        let theirs = prometheus.url("/api/v1/query_range");
        let theirs = range(&http, &theirs, &expr, start, end).await;
        assert!(
            near(&json!(ours), &json!(theirs)),
            "{expr}: {ours:?}\ntheirs {theirs:?}"
        );
        let values = ours.iter().map(|s| s["values"].as_array().unwrap().len());
        points += values.sum::<usize>();
    }
    assert!(points > 200, "only {points} points were compared");
    let metadata = server.get("/api/v1/metadata?metric=steady_total").await;
    let metadata = &metadata.json()["data"]["steady_total"][0];
    assert_eq!(
        (&metadata["type"], &metadata["help"]),
        (&"counter".into(), &"Scrapes.".into())
    );
    let refused = "sum(pulse_push_rejected_total{reason!=\"exemplar\"})";
    assert_eq!(server.value(refused).await, Some(0.0));
}
