//! Native histograms from a sender to a query: stored before the answer, kept over
//! a kill, and computed with as a real Prometheus does that got the same.

use std::sync::Arc;

use pulse::codec::histogram;
use pulse::model::histogram::{Bucket, CUSTOM, ResetHint};
use pulse::model::{Histogram, HistogramSample, Timestamp};
use serde_json::{Value, json};

use crate::broker::free_port;
use crate::programs::{Prometheus, near};
use crate::server::{Http, Server, eventually};

const MINUTE: i64 = 60_000;

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}

/// A field of bytes.
fn put(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap());
    out.extend_from_slice(bytes);
}

/// A remote_write body with one series.
fn body(metric: &str, samples: &[HistogramSample]) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, value) in [("__name__", metric), ("job", "a")] {
        let mut label = Vec::new();
        put(&mut label, 1, name.as_bytes());
        put(&mut label, 2, value.as_bytes());
        put(&mut series, 1, &label);
    }
    for sample in samples {
        let mut message = Vec::new();
        histogram::write(&mut message, sample);
        put(&mut series, 4, &message);
    }
    let mut message = Vec::new();
    put(&mut message, 1, &series);
    snap::raw::Encoder::new().compress_vec(&message).unwrap()
}

fn buckets(counts: &[f64]) -> Vec<Bucket> {
    let all = (0..).zip(counts);
    all.map(|(index, count)| Bucket {
        index,
        count: *count,
    })
    .collect()
}

/// A counter of 100, 110, 130, ... observations, a sample every 30 s, the last at `end`.
fn counter(end: i64) -> Vec<HistogramSample> {
    let sample = |i: i64| {
        let more = f64::from(i32::try_from(i * (i + 1) * 5).unwrap());
        let h = Histogram {
            hint: ResetHint::NotReset,
            zero_threshold: 0.001,
            zero_count: 10.0,
            count: 100.0 + more,
            sum: 130.0 + 2.0 * more,
            positive: buckets(&[20.0, 40.0 + more, 20.0]),
            negative: buckets(&[10.0]),
            ..Histogram::default()
        };
        HistogramSample {
            t: Timestamp::from_ms(end - (4 - i) * MINUTE / 2),
            h: Arc::new(h),
        }
    };
    (0..5).map(sample).collect()
}

async fn send(server: &Server, metric: &str, samples: &[HistogramSample]) {
    let url = server.url("/api/v1/write");
    let body = body(metric, samples);
    let answer = Http::new().post(&url, "application/x-protobuf", body).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
}

/// The elements of an instant query to anybody.
async fn asked(base: &str, query: &str, t: i64) -> Option<Value> {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let url = format!("{base}/api/v1/query?query={query}&time={}", t / 1000);
    let answer = Http::new().get(&url).await;
    let json = (answer.status == 200).then(|| answer.json())?;
    Some(json["data"]["result"].clone())
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    let end = now() / 1000 * 1000;
    let custom = Histogram {
        schema: CUSTOM,
        count: 4.0,
        sum: 30.5,
        positive: buckets(&[1.0, 2.0, 1.0]),
        bounds: [5.0, 10.0].into(),
        ..Histogram::default()
    };
    let custom = HistogramSample {
        t: Timestamp::from_ms(end),
        h: Arc::new(custom),
    };
    send(&server, "h", &counter(end)).await;
    send(&server, "c", &[custom]).await;
    server.kill();
    let server = Server::start(dir.path(), free_port()).await;
    let base = server.url("");
    let ask = |query: &'static str| {
        let base = base.clone();
        async move { asked(&base, query, end).await.unwrap() }
    };
    assert_eq!(
        ask("c").await[0]["histogram"][1],
        json!({"count": "4", "sum": "30.5", "buckets": [
            [3, "-Inf", "5", "1"], [0, "5", "10", "2"], [0, "10", "+Inf", "1"],
        ]})
    );
    assert_eq!(
        ask("h").await[0]["histogram"][1],
        json!({"count": "200", "sum": "330", "buckets": [
            [1, "-1", "-0.5", "10"], [3, "-0.001", "0.001", "10"],
            [0, "0.5", "1", "20"], [0, "1", "2", "140"], [0, "2", "4", "20"],
        ]})
    );
    let path = format!(
        "/api/v1/query_range?query=h&start={}&end={}&step=60",
        (end - MINUTE) / 1000,
        end / 1000
    );
    let range = server.get(&path).await.json();
    let series = &range["data"]["result"][0];
    assert_eq!(series.get("values"), None, "{range}");
    let counts: Vec<_> = series["histograms"].as_array().unwrap().iter().collect();
    assert_eq!(counts.len(), 2, "{range}");
    assert_eq!(counts[0][1]["count"], "130");
    // The parts that the store makes of it are nobody's business.
    let names = server
        .get("/api/v1/label/__name__/values")
        .await
        .text()
        .to_owned();
    assert!(
        names.contains("\"h\"") && !names.contains("native"),
        "{names}"
    );
    let labels = server.get("/api/v1/labels").await.text().to_owned();
    assert!(!labels.contains("native"), "{labels}");
    let series = server
        .get("/api/v1/series?match[]=%7Bjob%3D%22a%22%7D")
        .await;
    assert_eq!(series.json()["data"].as_array().unwrap().len(), 2);
}

/// Its release is older than the logarithmic quantiles and the cap at zero, so only
/// what both do the same is asked: whole buckets, and counters far from zero.
#[tokio::test]
async fn a_real_prometheus_computes_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let end = now() / 1000 * 1000;
    send(&server, "h", &counter(end)).await;
    let sent = body("h", &counter(end));
    let Some(prometheus) = Prometheus::start_with_written(&sent).await else {
        return;
    };
    for query in [
        "h",
        "h + h",
        "h offset 45s",
        "sum(h)",
        "sum by (job) (increase(h[70s]))",
        "rate(h[110s])",
        "histogram_count(h)",
        "histogram_sum(rate(h[110s]))",
        "histogram_quantile(0.2, h)",
        "histogram_quantile(0.9, h)",
        "histogram_fraction(1, 2, h)",
        "count(h)",
    ] {
        let theirs = asked(&prometheus.url(""), query, end + 1_000).await;
        let ours = asked(&server.url(""), query, end + 1_000).await.unwrap();
        let theirs = theirs.unwrap_or_else(|| panic!("{query}"));
        assert!(
            theirs.as_array().is_some_and(|all| !all.is_empty()),
            "{query}"
        );
        assert!(near(&theirs, &ours), "{query}: {theirs}\nours {ours}");
    }
}

/// `/federate` gives them to a Prometheus that takes protobuf.
#[tokio::test]
async fn a_real_prometheus_federates_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let end = now() / 1000 * 1000;
    send(&server, "h", &counter(end)).await;
    let federate = server.url("/federate?match[]=h");
    let text = Http::new().get(&federate).await;
    assert_eq!((text.status, text.text()), (200, ""), "text has none");
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n\
         - job_name: pulse\n  honor_labels: true\n  metrics_path: /federate\n\
         \x20 params: {{\"match[]\": ['{{job=\"a\"}}']}}\n\
         \x20 static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
        server.port
    );
    let more = ["--enable-feature=native-histograms"];
    let Some(prometheus) = Prometheus::start_with(&config, free_port(), &more) else {
        return;
    };
    let ours = asked(&server.url(""), "h", end).await.unwrap();
    assert_eq!(ours.as_array().unwrap().len(), 1, "{ours}");
    eventually("the histogram is upstream", || async {
        let theirs = asked(&prometheus.url(""), "h", end).await?;
        near(&theirs, &ours).then_some(())
    })
    .await;
}
