//! What a Prometheus or Grafana asks besides plain queries: the language without data,
//! statistics, federation, remote_read. With a real Prometheus where one takes part.

use serde_json::{Value, json};

use crate::broker::free_port;
use crate::programs::Prometheus;
use crate::server::{Http, Server, eventually};

/// A server with `temperature` 21.5 and `humidity` 40 of device `d1` of tenant `acme`.
async fn with_device_series(dir: &std::path::Path) -> Server {
    let server = Server::start(dir, free_port()).await;
    let url = server.url("/api/v1/ingest/acme?device=d1");
    let body = r#"{"temperature": 21.5, "humidity": 40}"#;
    let answer = Http::new().post(&url, "application/json", body).await;
    assert!(answer.status < 300, "{answer:?}");
    assert_eq!(server.value("temperature").await, Some(21.5));
    server
}

async fn data(server: &Server, path: &str) -> Value {
    let answer = server.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let mut json = answer.json();
    assert_eq!(json["status"], "success", "{path}");
    json["data"].take()
}

/// The only value of an instant query to another server, when it has one.
async fn value_at(prometheus: &Prometheus, query: &str) -> Option<f64> {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let url = prometheus.url(&format!("/api/v1/query?query={query}"));
    let answer = Http::new().get(&url).await;
    let json = (answer.status == 200).then(|| answer.json())?;
    let value = &json["data"]["result"].as_array()?.first()?["value"][1];
    value.as_str()?.parse().ok()
}

#[tokio::test]
async fn a_damaged_file_of_today_stops_no_federation() {
    let dir = tempfile::tempdir().unwrap();
    with_device_series(dir.path()).await.terminate().await;
    let date = std::process::Command::new("date")
        .args(["-u", "+%Y%m%d"])
        .output();
    let date = String::from_utf8(date.unwrap().stdout).unwrap();
    let name = format!("day-{}.redb", date.trim());
    std::fs::write(dir.path().join("data").join(&name), [7; 20_000]).unwrap();
    let server = with_device_series(dir.path()).await;
    // What is not in memory may have been in that file.
    let query = server.get("/api/v1/query?query=pressure").await;
    assert!(query.text().contains(&name), "control: {}", query.text());
    let asked = "/federate?match[]=pressure&match[]=temperature";
    let answer = server.get(asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("temperature{"), "{}", answer.text());
}

#[tokio::test]
async fn a_real_prometheus_federates_device_series_by_the_readmes_job() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_device_series(dir.path()).await;
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n{}",
        crate::upstream::readme_job(server.port)
    );
    let Some(prometheus) = Prometheus::start(&config) else {
        return;
    };
    let query = r#"temperature{tenant_id="acme",device_id="d1"}"#;
    eventually("the device's series is upstream", || async {
        (value_at(&prometheus, query).await? == 21.5).then_some(())
    })
    .await;
    // Its own labels only, and the time of our sample.
    let own = value_at(&prometheus, r#"count(humidity{instance=""})"#).await;
    assert_eq!(own, Some(1.0));
    let theirs = value_at(&prometheus, "timestamp(temperature)").await;
    assert_eq!(theirs, server.value("timestamp(temperature)").await);
}

#[tokio::test]
async fn a_real_prometheus_reads_from_us() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_device_series(dir.path()).await;
    let readme = include_str!("../../README.md");
    let (_, after) = readme
        .split_once("# upstream prometheus.yml, reading from us\n")
        .unwrap();
    let (config, _) = after.split_once("```").unwrap();
    let config = config.replace("127.0.0.1:8080", &format!("127.0.0.1:{}", server.port));
    let Some(prometheus) = Prometheus::start(&config) else {
        return;
    };
    for query in [
        r#"temperature{tenant_id="acme"}"#,
        r#"sum({device_id=~"d[0-9]",__name__=~"temp.*|hum.*"})"#,
        r#"count_over_time(temperature{device_id!="d2"}[10m])"#,
        "max(timestamp(temperature))",
        r#"absent(temperature{tenant_id!~"a.*"})"#,
    ] {
        eventually(query, || async {
            let theirs = value_at(&prometheus, query).await?;
            (Some(theirs) == server.value(query).await).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_language_answers_without_data() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let formatted = data(&server, "/api/v1/format_query?query=sum(foo)by(a)/2").await;
    assert_eq!(formatted, "sum by (a) (foo) / 2");
    let tree = data(&server, "/api/v1/parse_query?query=foo%5B5m%5D").await;
    assert_eq!(
        (&tree["type"], &tree["range"]),
        (&json!("matrixSelector"), &json!(300_000))
    );
    let bad = server.get("/api/v1/format_query?query=sum(").await;
    assert_eq!(bad.status, 400);
    assert_eq!(bad.json()["errorType"], "bad_data");
    let features = data(&server, "/api/v1/features").await;
    assert_eq!(features["promql"]["delayed_name_removal"], false);
    assert_eq!(features["promql"]["anchored"], true);
    assert_eq!(features["api"]["remote_write_receiver"], true);
    assert_eq!(features["rules"]["query_offset"], true);
    assert_eq!(features["service_discovery_providers"]["dns"], true);
    assert_eq!(features["templating_functions"]["humanize"], true);
    assert_eq!(features["promql_functions"]["rate"], true);
    assert_eq!(features["promql_operators"]["atan2"], true);
}

#[tokio::test]
async fn statistics_come_when_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_device_series(dir.path()).await;
    let plain = data(&server, "/api/v1/query?query=temperature").await;
    assert_eq!(plain.get("stats"), None);
    let with = data(&server, "/api/v1/query?query=temperature&stats=all").await;
    let stats = &with["stats"];
    assert_eq!(stats["samples"]["totalQueryableSamples"], 1, "{stats}");
    let steps = &stats["samples"]["totalQueryableSamplesPerStep"];
    assert_eq!(steps.as_array().unwrap().len(), 1, "{stats}");
    assert_eq!(steps[0][1], 1, "{stats}");
    let short = data(&server, "/api/v1/query?query=temperature&stats=1").await;
    let short = &short["stats"]["samples"];
    assert_eq!(short.get("totalQueryableSamplesPerStep"), None);
    assert_eq!(short["totalQueryableSamples"], 1);
    assert_eq!(stats["samples"]["peakSamples"], 1, "{stats}");
    let timings = &stats["timings"];
    let seconds = |name: &str| timings[name].as_f64().unwrap();
    assert!(
        seconds("execTotalTime") >= seconds("evalTotalTime"),
        "{timings}"
    );
    assert!(seconds("evalTotalTime") > 0.0, "{timings}");
}

#[tokio::test]
async fn the_state_of_the_process_is_true() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pulse.toml");
    std::fs::write(&file, "[server]\n").unwrap();
    let mut server = with_device_series(dir.path()).await;
    let first = data(&server, "/api/v1/status/walreplay").await;
    assert_eq!(first["current"], first["max"]);
    let info = data(&server, "/api/v1/status/runtimeinfo").await;
    assert_eq!(info["reloadConfigSuccess"], true);
    assert!(info["goroutineCount"].as_i64().unwrap() > 0, "{info}");
    assert_eq!(info["corruptionCount"], 0);
    let read = info["lastConfigTime"].as_str().unwrap().to_owned();
    assert!(
        read.as_str() >= info["startTime"].as_str().unwrap(),
        "{info}"
    );
    // A reload that fails is told, and the time is that of the last that did not.
    std::fs::write(&file, "[nonsense]\n").unwrap();
    let url = server.url("/-/reload");
    assert_eq!(Http::new().post(&url, "text/plain", "").await.status, 500);
    let info = data(&server, "/api/v1/status/runtimeinfo").await;
    assert_eq!(info["reloadConfigSuccess"], false);
    assert_eq!(info["lastConfigTime"], read.as_str());
    std::fs::write(&file, "[server]\n").unwrap();
    server.kill();
    let server = Server::start(dir.path(), free_port()).await;
    let replayed = data(&server, "/api/v1/status/walreplay").await;
    let at = |name: &str| replayed[name].as_i64().unwrap();
    assert!(at("max") > first["max"].as_i64().unwrap(), "{replayed}");
    assert!(at("max") >= at("min"), "{replayed}");
    assert_eq!(at("current"), at("max"));
}

#[tokio::test]
async fn federation_takes_only_what_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_device_series(dir.path()).await;
    let of = |query: &str| server.url(&format!("/federate?{query}"));
    let text = |url: String| async move {
        let answer = Http::new().get(&url).await;
        assert_eq!(answer.status, 200);
        answer.text().to_owned()
    };
    assert_eq!(text(of("")).await, "");
    let twice = text(of("match[]=temperature&match[]=%7Bdevice_id%3D%22d1%22%7D")).await;
    let lines: Vec<&str> = twice.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(lines.len(), 2, "{twice}");
    assert!(
        lines[0].starts_with("humidity{device_id=\"d1\",tenant_id=\"acme\",instance=\"\"} 40 ")
    );
    assert!(lines[1].starts_with("temperature{"));
    let bad = Http::new().get(&of("match[]=%7B")).await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn damaged_remote_reads_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let url = server.url("/api/v1/read");
    for body in [&b""[..], b"\xff\xff\xff\xff\xff", b"\x02\x04\x0a\x09"] {
        let answer = Http::new()
            .post(&url, "application/x-protobuf", body.to_vec())
            .await;
        assert_eq!(answer.status, 400, "{body:?}: {answer:?}");
    }
}

#[tokio::test]
async fn pools_and_metadata_of_targets_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let pools = data(&server, "/api/v1/scrape_pools").await;
    let pools = pools["scrapePools"].as_array().unwrap();
    assert!(pools.contains(&json!("http")), "{pools:?}");
    let elsewhere = "/api/v1/targets/metadata?match_target=%7Bjob%3D%22x%22%7D";
    assert_eq!(data(&server, elsewhere).await, json!([]));
    assert!(data(&server, "/api/v1/targets/metadata").await.is_array());
    let bad = server
        .get("/api/v1/targets/metadata?match_target=%7B")
        .await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn an_empty_answer_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_device_series(dir.path()).await;
    let why = |query: &str| {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        format!("/api/v1/why_empty?query={query}")
    };
    let fine = data(&server, &why("temperature")).await;
    assert_eq!(fine["reason"], "not_empty");
    let missing = data(&server, &why("sum(rate(temprature[5m])) * 2")).await;
    assert_eq!(missing["reason"], "no_samples");
    assert_eq!(missing["expr"], "temprature[5m]");
    assert_eq!(
        (&missing["start"], &missing["end"]),
        (&json!(9), &json!(23))
    );
    let filtered = data(&server, &why("humidity > 50")).await;
    assert_eq!(
        (&filtered["reason"], &filtered["expr"]),
        (&json!("filtered"), &json!("humidity > 50"))
    );
    let query = "temperature / on(device_id, x) label_replace(humidity, \"x\", \"1\", \"\", \"\")";
    let unmatched = data(&server, &why(query)).await;
    assert_eq!(unmatched["reason"], "no_match");
    assert_eq!(unmatched["operator"], "/ on (device_id, x)");
    assert_eq!(unmatched["differ"], json!(["x"]));
    assert_eq!(
        unmatched["left"],
        json!({"elements": 1, "compared": [{"device_id": "d1"}]})
    );
    assert_eq!(
        unmatched["right"]["compared"],
        json!([{"device_id": "d1", "x": "1"}])
    );
}

#[tokio::test]
async fn pages_of_other_origins_read_what_is_shared_with_them() {
    use hyper::Request;
    let dir = tempfile::tempdir().unwrap();
    let config = "[server]\ncors_origin = \"https://(a|b)[.]example\"\n";
    std::fs::write(dir.path().join("pulse.toml"), config).unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let send = |method: &str, path: &str, origin: &str, asks: bool| {
        let mut request = Request::builder()
            .method(method)
            .uri(server.url(path))
            .header("origin", origin)
            .header("content-type", "application/x-www-form-urlencoded");
        if asks {
            request = request.header("access-control-request-method", "POST");
        }
        let request = request.body("query=1".into()).unwrap();
        let http = Http::new();
        async move {
            let answer = http.try_send(request).await.unwrap();
            let allowed = answer.headers.get("access-control-allow-origin");
            let allowed = allowed.map(|v| v.to_str().unwrap().to_owned());
            (answer.status, allowed)
        }
    };
    let a = Some("https://a.example".to_owned());
    let (query, origin) = ("/api/v1/query", "https://a.example");
    assert_eq!(send("OPTIONS", query, origin, true).await, (204, a.clone()));
    assert_eq!(send("POST", query, origin, false).await, (200, a.clone()));
    assert_eq!(
        send("GET", "/api/v1/query?query=1", origin, false).await,
        (200, a)
    );
    // The browser shows no answer to another origin, and what changes something stays
    // closed to all.
    assert_eq!(
        send("POST", query, "https://c.example", false).await,
        (200, None)
    );
    assert_eq!(send("POST", "/-/reload", origin, false).await, (403, None));
    assert_eq!(send("POST", "/api/v1/write", origin, false).await.1, None);
}
