//! The HTTP server and Prometheus' API over a real store and a real socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use pulse::config::{self, Config};
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, Labels, Timestamp};
use pulse::promql::Engine;
use pulse::sources::Board;
use pulse::sources::metadata::Metadata;
use pulse::store::{Item, Row, SeriesKey, Store, WriteBatch};
use pulse::tasks::Tasks;
use pulse::telemetry::Metrics;
use pulse::telemetry::metrics::ServiceName;
use pulse::web::context::{Context, Gate, Parts};
use pulse::web::{self, Front, Listeners, ReloadRequest, Web};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The manual clock's time: 2023-11-14T22:13:20Z.
const NOW: i64 = 1_700_000_000_000;
const DEADLINE: Duration = Duration::from_secs(120);

struct Server {
    _dir: tempfile::TempDir,
    store: Store,
    metrics: Arc<Metrics>,
    address: SocketAddr,
    web: Web,
    tasks: Tasks,
    stop: CancellationToken,
    ready: watch::Sender<bool>,
    config: watch::Sender<Arc<Config>>,
    reloads: mpsc::Receiver<ReloadRequest>,
    context: Context,
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Server {
    /// A server that listens, but has no store yet as far as clients can tell.
    async fn listening(text: &str) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::Manual(ManualClock::new(Timestamp::from_ms(NOW)));
        let metrics = Metrics::new();
        let options = pulse::store::Options {
            dir: dir.path().to_owned(),
            store: config::Store::default(),
            limits: config::Limits::default(),
            tenants: Vec::new(),
        };
        let store = Store::open(options, clock.clone(), Arc::clone(&metrics)).unwrap();
        let config = Config::parse(text, "test.toml").unwrap();
        let (config, in_force) = watch::channel(Arc::new(config));
        let (ready, is_ready) = watch::channel(false);
        let tasks = Tasks::new(metrics.task_restarts.clone());
        let stop = CancellationToken::new();
        let listeners = Listeners::bind(&["127.0.0.1:0".parse().unwrap()])
            .await
            .unwrap();
        let address = listeners.addresses()[0];
        let front = Front::new(Arc::clone(&metrics), in_force.clone(), is_ready.clone());
        let web = web::serve(front, listeners, &tasks, &stop);
        let (reload, reloads) = mpsc::channel(1);
        let alerting = pulse::alerting::start(
            &in_force.borrow(),
            store.clone(),
            Arc::clone(&metrics),
            clock.clone(),
            &tasks,
            stop.clone(),
        )
        .unwrap();
        let delivery = pulse::delivery::start(
            &in_force.borrow(),
            store.clone(),
            Arc::clone(&metrics),
            clock.clone(),
            tasks.clone(),
            stop.clone(),
        )
        .unwrap();
        let context = Context::new(Parts {
            store: store.clone(),
            engine: Engine::default(),
            gate: Gate::new(2).shown_in(Arc::clone(&metrics)),
            lists: Gate::new(2),
            clock,
            metrics: Arc::clone(&metrics),
            board: Board::default(),
            groups: Arc::new(Arc::default),
            alerting,
            delivery,
            local: pulse::web::Local::new("secret".into()),
            reloads: reload,
            config: in_force,
            ready: is_ready,
            started: Timestamp::from_ms(NOW),
        });
        Server {
            _dir: dir,
            store,
            metrics,
            address,
            web,
            tasks,
            stop,
            ready,
            config,
            reloads,
            context,
        }
    }

    /// A server with samples: `m{a="x"}` 1, 2, 3 and `m{a="y"}` 10 in the last minutes.
    async fn ready(text: &str) -> Server {
        let server = Server::listening(text).await;
        let rows = [
            ("x", 120, 1.0),
            ("x", 60, 2.0),
            ("x", 0, 3.0),
            ("y", 0, 10.0),
        ];
        let rows = rows.map(|(a, ago_secs, v)| Row {
            series: SeriesKey::Labels(Labels::from_pairs([("__name__", "m"), ("a", a)])),
            t: Timestamp::from_ms(NOW - ago_secs * 1000),
            v,
        });
        let mut batch = WriteBatch::default();
        batch.push(rows, Item::default());
        server.store.write(batch).await.unwrap();
        server.web.open(server.context.clone(), Router::new());
        server.ready.send_replace(true);
        server
    }

    async fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "", b"").await
    }

    async fn post(&self, path: &str, form: &str) -> Reply {
        let head = "content-type: application/x-www-form-urlencoded\r\n";
        self.request("POST", path, head, form.as_bytes()).await
    }

    async fn request(&self, method: &str, path: &str, head: &str, body: &[u8]) -> Reply {
        let (address, length) = (self.address, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             content-length: {length}\r\n{head}\r\n"
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses a body may close before it has read all of it.
        let _ = stream.write_all(body).await;
        read_reply(&mut stream).await
    }

    async fn check(&self, path: &str, status: u16, want: &str) {
        let reply = self.get(path).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (status, want),
            "{path}"
        );
    }

    async fn close(self) {
        self.stop.cancel();
        self.tasks.join().await;
        drop(self.config);
        self.store.close().await;
    }
}

async fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes))
        .await
        .expect("an answer in time")
        .unwrap();
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let at = at.expect("a whole head");
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let body = bytes.split_off(at + 4);
    Reply {
        status: head[9..12].parse().unwrap(),
        body: match head.contains("transfer-encoding: chunked") {
            true => dechunked(&body),
            false => String::from_utf8_lossy(&body).into_owned(),
        },
        head,
    }
}

fn dechunked(mut body: &[u8]) -> String {
    let mut out = Vec::new();
    while let Some(at) = body.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&body[..at]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        out.extend_from_slice(&body[at + 2..at + 2 + size]);
        body = &body[(at + 4 + size).min(body.len())..];
    }
    String::from_utf8(out).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_answer_in_prometheus_exact_json() {
    let server = Server::ready("").await;
    server
        .check(
            "/api/v1/query?query=m&time=1700000000",
            200,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"m","a":"x"},"value":[1700000000,"3"]},{"metric":{"__name__":"m","a":"y"},"value":[1700000000,"10"]}]}}"#,
        )
        .await;
    // Without a time: now. A POST form asks the same.
    let without_time = server.get("/api/v1/query?query=sum(m)").await;
    assert_eq!(
        without_time.body,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000,"13"]}]}}"#
    );
    let posted = server.post("/api/v1/query", "query=sum%28m%29").await;
    assert_eq!(posted.body, without_time.body);
    assert!(posted.head.contains("content-type: application/json"));
    server
        .check(
            "/api/v1/query?query=1%2F0&time=2023-11-14T22:13:20.5Z",
            200,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1700000000.500,"+Inf"]}}"#,
        )
        .await;
    server
        .check(
            "/api/v1/query?query=m%5B70s%5D&time=1700000000",
            200,
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"m","a":"x"},"values":[[1699999940,"2"],[1700000000,"3"]]},{"metric":{"__name__":"m","a":"y"},"values":[[1700000000,"10"]]}]}}"#,
        )
        .await;
    server
        .check(
            "/api/v1/query_range?query=m%7Ba%3D%22x%22%7D&start=1699999880&end=1700000000&step=1m",
            200,
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"m","a":"x"},"values":[[1699999880,"1"],[1699999940,"2"],[1700000000,"3"]]}]}}"#,
        )
        .await;
    server
        .check(
            "/api/v1/query?query=m&limit=1",
            200,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"m","a":"x"},"value":[1700000000,"3"]}]},"warnings":["results truncated due to limit"]}"#,
        )
        .await;
    // A shorter look-back than the sample's age.
    let body = server
        .get("/api/v1/query?query=m&time=1700000100&lookback_delta=1m")
        .await
        .body;
    assert!(body.ends_with(r#""result":[]}}"#), "{body}");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_prometheus_words_and_statuses() {
    let server = Server::ready("").await;
    for (path, status, kind, message) in [
        (
            "query?query=m&time=x",
            400,
            "bad_data",
            r#"invalid parameter \"time\": Invalid time value for 'time': cannot parse \"x\" to a valid timestamp"#,
        ),
        (
            "query?query=m&timeout=x",
            400,
            "bad_data",
            r#"invalid parameter \"timeout\": cannot parse \"x\" to a valid duration"#,
        ),
        (
            "query_range?query=m&start=0&end=11001&step=1",
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        (
            "query_range?query=m&start=1&end=0&step=1",
            400,
            "bad_data",
            r#"invalid parameter \"end\": end timestamp must not be before start time"#,
        ),
        (
            "query_range?query=m&start=0&end=1&step=0",
            400,
            "bad_data",
            r#"invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
        ),
        (
            "query_range?query=m&end=1&step=1",
            400,
            "bad_data",
            r#"invalid parameter \"start\": cannot parse \"\" to a valid timestamp"#,
        ),
        ("series", 400, "bad_data", "no match[] parameter provided"),
        (
            "rules?type=x",
            400,
            "bad_data",
            r#"invalid parameter \"type\": not supported value \"x\""#,
        ),
        (
            "query?query=m&timeout=-5s",
            400,
            "bad_data",
            r#"invalid parameter \"timeout\": cannot parse \"-5s\" to a valid duration"#,
        ),
        (
            "query?query=1&timeout=-1",
            503,
            "timeout",
            "query timed out in expression evaluation",
        ),
        (
            "query_range?query=%22a%22&start=0&end=10&step=1",
            400,
            "bad_data",
            r#"invalid expression type \"string\" for range query, must be Scalar or instant Vector"#,
        ),
        (
            "query_range?query=m%5B5m%5D&start=0&end=10&step=1",
            400,
            "bad_data",
            r#"invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"#,
        ),
        (
            "targets?state=x",
            400,
            "bad_data",
            r#"invalid parameter \"state\": not supported value \"x\", must be active, dropped or any"#,
        ),
        (
            "query?query=count_over_time(vector(1)%5B100d:1s%5D)&timeout=1ms",
            503,
            "timeout",
            "query timed out in expression evaluation",
        ),
    ] {
        let want =
            format!("{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":\"{message}\"}}");
        server
            .check(&format!("/api/v1/{path}"), status, &want)
            .await;
    }
    // The place and the words of a parse error are the parser's.
    for path in [
        "query?query=sum(",
        "series?match[]=%7B",
        "labels?match[]=sum(m)",
    ] {
        let reply = server.get(&format!("/api/v1/{path}")).await;
        assert_eq!(reply.status, 400, "{path}");
        assert!(reply.body.contains("parse error: "), "{}", reply.body);
        assert!(reply.body.contains("\"errorType\":\"bad_data\""));
    }
    let edge = "/api/v1/query_range?query=m&start=0&end=11000&step=1";
    assert_eq!(
        server.get(edge).await.status,
        200,
        "11,001 points are allowed"
    );
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_ran_out_of_time_gives_its_permit_back() {
    let server = Server::ready("").await;
    let slow = "/api/v1/query?query=count_over_time(vector(1)%5B500d:1s%5D)&timeout=5ms";
    for _ in 0..4 {
        assert_eq!(server.get(slow).await.status, 503);
    }
    let free = server
        .metrics
        .service
        .pool_free
        .with_label_values(&[ServiceName::UiApi.as_str()]);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while {
        assert_eq!(server.get("/api/v1/query?query=m").await.status, 200);
        free.get() < 1
    } {
        assert!(tokio::time::Instant::now() < deadline, "permits are lost");
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn series_labels_and_values_are_listed() {
    let server = Server::ready("").await;
    server
        .check(
            "/api/v1/series?match[]=m",
            200,
            r#"{"status":"success","data":[{"__name__":"m","a":"x"},{"__name__":"m","a":"y"}]}"#,
        )
        .await;
    server
        .check(
            "/api/v1/series?match[]=m&limit=1",
            200,
            r#"{"status":"success","data":[{"__name__":"m","a":"x"}],"warnings":["results truncated due to limit"]}"#,
        )
        .await;
    let names = r#"{"status":"success","data":["__name__","a"]}"#;
    server.check("/api/v1/labels", 200, names).await;
    server
        .check(
            "/api/v1/label/a/values?match[]=%7Ba%3D~%22y%7Cz%22%7D",
            200,
            r#"{"status":"success","data":["y"]}"#,
        )
        .await;
    let none = r#"{"status":"success","data":[]}"#;
    server.check("/api/v1/label/nope/values", 200, none).await;
    server
        .check("/api/v1/series?match[]=other", 200, none)
        .await;
    server
        .check("/api/v1/query_exemplars?query=m", 200, none)
        .await;
    server
        .check(
            "/api/v1/alerts",
            200,
            r#"{"status":"success","data":{"alerts":[]}}"#,
        )
        .await;
    server
        .check(
            "/api/v1/rules",
            200,
            r#"{"status":"success","data":{"groups":[]}}"#,
        )
        .await;
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_path_answers_json() {
    let server = Server::ready("").await;
    for path in [
        "status/buildinfo",
        "status/runtimeinfo",
        "status/flags",
        "status/config",
        "status/tsdb",
        "status/walreplay",
        "metadata",
        "targets",
        "alertmanagers",
    ] {
        let reply = server.get(&format!("/api/v1/{path}")).await;
        assert_eq!(reply.status, 200, "{path}");
        let value: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(value["status"], "success", "{path}");
        assert!(value["data"].is_object(), "{path}");
    }
    let tsdb = server.get("/api/v1/status/tsdb").await.body;
    let tsdb: serde_json::Value = serde_json::from_str(&tsdb).unwrap();
    assert_eq!(tsdb["data"]["headStats"]["numSeries"], 2);
    assert_eq!(tsdb["data"]["seriesCountByMetricName"][0]["name"], "m");
    assert_eq!(tsdb["data"]["seriesCountByMetricName"][0]["value"], 2);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_what_the_sources_learned() {
    let server = Server::ready("").await;
    let ops = ["m", "n"].map(|metric| {
        let metadata = Metadata {
            kind: "gauge".to_owned(),
            help: format!("Help of {metric}."),
            unit: String::new(),
        };
        metadata.put(metric)
    });
    let batch = WriteBatch::of_state(ops.into());
    server.store.write(batch).await.unwrap();
    let m = r#""m":[{"type":"gauge","help":"Help of m.","unit":""}]"#;
    let n = r#""n":[{"type":"gauge","help":"Help of n.","unit":""}]"#;
    let all = format!(r#"{{"status":"success","data":{{{m},{n}}}}}"#);
    server.check("/api/v1/metadata", 200, &all).await;
    let one = format!(r#"{{"status":"success","data":{{{m}}}}}"#);
    server.check("/api/v1/metadata?metric=m", 200, &one).await;
    server.check("/api/v1/metadata?limit=1", 200, &one).await;
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn until_ready_only_the_early_paths_answer() {
    let server = Server::listening("").await;
    let statuses = async |server: &Server| {
        let mut statuses = Vec::new();
        for path in [
            "/-/healthy",
            "/metrics",
            "/-/ready",
            "/api/v1/query?query=1",
        ] {
            statuses.push(server.get(path).await.status);
        }
        statuses
    };
    assert_eq!(statuses(&server).await, [200, 200, 503, 503]);
    server.web.open(server.context.clone(), Router::new());
    assert_eq!(statuses(&server).await, [200, 200, 503, 503]);
    server.ready.send_replace(true);
    assert_eq!(statuses(&server).await, [200, 200, 200, 200]);
    server.ready.send_replace(false);
    assert_eq!(statuses(&server).await, [200, 200, 503, 503]);
    server.close().await;
}

/// A POST to `/-/reload` that does not borrow the server.
async fn ask_for_reload(address: SocketAddr) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /-/reload HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    read_reply(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_answers_with_its_outcome() {
    let mut server = Server::ready("").await;
    for (outcome, status, body) in [
        (Ok(()), 200, ""),
        (
            Err("c.toml:3:1: no".to_owned()),
            500,
            "failed to reload config: c.toml:3:1: no\n",
        ),
    ] {
        let asked = ask_for_reload(server.address);
        let answered = async {
            let answer = server.reloads.recv().await.unwrap();
            answer.send(outcome).unwrap();
        };
        let (reply, ()) = tokio::join!(asked, answered);
        assert_eq!((reply.status, reply.body.as_str()), (status, body));
    }
    assert_eq!(server.get("/-/reload").await.status, 405);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_under_way_end_and_takes_no_new_ones() {
    let mut server = Server::ready("").await;
    let (address, stop) = (server.address, server.stop.clone());
    let answered = async {
        let answer = server.reloads.recv().await.unwrap();
        stop.cancel();
        answer.send(Ok(())).unwrap();
    };
    let (reply, ()) = tokio::join!(ask_for_reload(address), answered);
    assert_eq!(reply.status, 200);
    tokio::time::timeout(DEADLINE, server.tasks.join())
        .await
        .expect("all connections have ended");
    assert!(TcpStream::connect(address).await.is_err());
    server.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_heads_and_bodies_are_refused() {
    let server = Server::ready("[server]\nbody_max = \"64KiB\"").await;
    let form = format!("query={}", "x".repeat(100_000));
    let reply = server.post("/api/v1/query", &form).await;
    assert_eq!(reply.status, 413, "{}", reply.body);
    // An endless head is cut off; the answer may be lost with the connection.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut sent = 0;
    let _ = stream.write_all(b"GET /health HTTP/1.1\r\n").await;
    while sent < (8 << 20) {
        match stream
            .write_all(b"x-long: 0123456789abcdef0123456789abcdef\r\n")
            .await
        {
            Ok(()) => sent += 42,
            Err(_) => break,
        }
    }
    assert!(sent < (8 << 20), "8 MiB of head were taken");
    let metrics = server.get("/metrics").await.body;
    let counted = r#"http_requests_total{handler="/api/v1/query",method="POST",status="413"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limit_wait_for_their_turn() {
    let server = Server::ready("[server]\nconnections_max = 1").await;
    // A request whose body has not come holds the only slot.
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /api/v1/query HTTP/1.1\r\nhost: localhost\r\n\
        content-type: application/x-www-form-urlencoded\r\ncontent-length: 9\r\n\r\n";
    busy.write_all(head.as_bytes()).await.unwrap();
    let post = &["POST", "/api/v1/query"];
    let under_way = server.metrics.http.in_progress.with_label_values(post);
    let open = &server.metrics.http.connections;
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while open.get() < 1 || under_way.get() < 1 {
        assert!(tokio::time::Instant::now() < deadline, "never accepted");
        tokio::task::yield_now().await;
    }
    let mut waiting = Box::pin(server.get("/health"));
    let early = tokio::time::timeout(Duration::from_millis(100), waiting.as_mut()).await;
    assert!(early.is_err(), "answered above the limit");
    drop(busy);
    assert_eq!(waiting.await.status, 200);
    // One that only waits makes room at once.
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(server.get("/health").await.status, 200);
    let mut byte = [0; 1];
    let read = tokio::time::timeout(DEADLINE, idle.read(&mut byte)).await;
    assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
    let sessions = &server.metrics.ingest.relay;
    assert!(sessions.sessions_created.get() >= 1);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_follows_a_reloaded_configuration() {
    let server = Server::ready("").await;
    assert_eq!(server.get("/metrics").await.status, 200);
    let guarded = Config::parse("[auth]\ntoken = \"s3cret\"", "test.toml").unwrap();
    server.config.send_replace(Arc::new(guarded));
    assert_eq!(server.get("/metrics").await.status, 401);
    let bearer = "authorization: Bearer s3cret\r\n";
    let reply = server.request("GET", "/metrics", bearer, b"").await;
    assert_eq!(reply.status, 200);
    // Another site's page can neither read nor send.
    let foreign = "origin: http://evil.example\r\n";
    let reply = server.request("POST", "/-/reload", foreign, b"").await;
    assert_eq!(reply.status, 403);
    server.close().await;
}

/// A proxy may hand on the origin of the page that a browser shows. What is only read
/// changes nothing, and the page of another site sees no answer either way.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_by_post_is_a_read_whoever_asks() {
    let server = Server::ready("").await;
    let foreign = "origin: http://console.example\r\n\
                   content-type: Application/X-WWW-Form-Urlencoded; charset=utf-8\r\n";
    for (path, form) in [
        ("query", "query=m"),
        ("labels", ""),
        ("series", "match[]=m"),
        ("why_empty", "query=x"),
    ] {
        let path = format!("/api/v1/{path}");
        let reply = server
            .request("POST", &path, foreign, form.as_bytes())
            .await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        assert!(
            !reply.head.to_lowercase().contains("access-control"),
            "{}",
            reply.head
        );
    }
    let reply = server
        .request("POST", "/api/v2/silences", foreign, b"{}")
        .await;
    assert_eq!(reply.status, 403);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_escape_is_not_read_as_something_else() {
    let server = Server::ready("").await;
    for asked in ["m%4", "m%zz", "%22%FF%22"] {
        let want = "error parsing form values";
        let reply = server.get(&format!("/api/v1/query?query={asked}")).await;
        assert_eq!(reply.status, 400, "{asked}: {}", reply.body);
        assert!(reply.body.contains(want), "{}", reply.body);
        let form = format!("query={asked}");
        let kind = "content-type: application/x-www-form-urlencoded\r\n";
        let reply = server
            .request("POST", "/api/v1/query", kind, form.as_bytes())
            .await;
        assert_eq!(reply.status, 400, "{asked}: {}", reply.body);
    }
    server.close().await;
}

/// Grafana asks for labels while its panels are evaluated, and a Prometheus federates.
#[tokio::test(flavor = "multi_thread")]
async fn slow_queries_hold_up_no_lists() {
    let server = Server::ready("").await;
    let free = &server.metrics.service.pool_free;
    let free = free.with_label_values(&[ServiceName::UiApi.as_str()]);
    let busy = (0..free.get()).map(|_| {
        let gate = &server.context.gate;
        gate.run(DEADLINE, |cancel| {
            while !cancel.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        })
    });
    let lists = async {
        while free.get() > 0 {
            tokio::task::yield_now().await;
        }
        for path in ["labels", "series?match[]=m", "metadata", "label/a/values"] {
            let reply = server.get(&format!("/api/v1/{path}")).await;
            assert_eq!(reply.status, 200, "{path}");
        }
        assert_eq!(server.get("/federate?match[]=m").await.status, 200);
        let query = "/api/v1/query?query=sum(rate(m[5m]))&timeout=5ms";
        assert_eq!(server.get(query).await.status, 503, "all permits are taken");
    };
    tokio::select! {
        () = lists => {}
        _ = futures_util::future::join_all(busy) => panic!("the lists waited for the queries"),
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_may_hold_bytes_that_stand_for_themselves() {
    let server = Server::ready("").await;
    let reply = server
        .get("/api/v1/query?query=m{a=\"x\",b!=\"é^`|\"}>2")
        .await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.body.contains(r#""a":"x""#), "{}", reply.body);
    assert!(!reply.body.contains(r#""a":"y""#), "{}", reply.body);
    // What is meant to be encoded is not decoded twice.
    let reply = server.get("/api/v1/query?query=\"%2522\"").await;
    assert!(reply.body.contains(r#""%22"]"#), "{}", reply.body);
    // Two requests of one connection, the first with a body that looks like a request.
    let form = "query=\"GET / HTTP/1.1\"";
    let text = format!(
        "POST /api/v1/query HTTP/1.1\r\nhost: {0}\r\ncontent-length: {1}\r\n\
         content-type: application/x-www-form-urlencoded\r\n\r\n{form}\
         GET /api/v1/query?query=\"<>\" HTTP/1.1\r\nhost: {0}\r\nconnection: close\r\n\r\n",
        server.address,
        form.len()
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut both = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut both))
        .await
        .expect("two answers in time")
        .unwrap();
    for part in [r#""GET / HTTP/1.1"]"#, r#""\u003c\u003e"]"#] {
        assert!(both.contains(part), "{both}");
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_without_an_origin_are_answered_and_a_failed_reload_is_told() {
    let server = Server::ready("").await;
    let reply = server.request("OPTIONS", "/api/v1/query", "", b"").await;
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    let none = r#"{"status":"success","data":[]}"#;
    server.check("/api/v1/notifications", 200, none).await;
    assert_eq!(server.get("/api/v1/notifications/live").await.status, 204);
    let error = "a.yml:3:1: no such field\nb.yml:5:2: <no> expression";
    let error = Some(error.to_owned());
    server.metrics.reload.tried(error, 1_600_000_000.0);
    let told = r#"{"status":"success","data":[{"text":"Configuration reload has failed.","date":"2020-09-13T12:26:40.000Z","active":true}]}"#;
    server.check("/api/v1/notifications", 200, told).await;
    let metrics = server.get("/metrics").await.body;
    for whose in ["pulse", "prometheus", "alertmanager"] {
        let line = format!("\n{whose}_config_last_reload_successful 0\n");
        assert!(metrics.contains(&line), "{line}");
    }
    let told = [
        ("/", "a.yml:3:1: no such field (and 1 more)"),
        ("/status", "Sun 13 Sep 2020, 12:26:40 UTC"),
        (
            "/status",
            "a.yml:3:1: no such field\nb.yml:5:2: &#60;no&#62; expression",
        ),
    ];
    for (path, part) in told {
        let page = server.get(path).await.body;
        assert!(page.contains(part), "{path}: {page}");
    }
    server.metrics.reload.tried(None, 1_600_000_010.0);
    for (path, part) in told {
        let page = server.get(path).await.body;
        assert!(!page.contains(part), "{path}: {page}");
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_the_query_makes_empty_is_the_askers_mistake() {
    let server = Server::ready("").await;
    let want = r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": duration must be greater than 0"}"#;
    let path = "/api/v1/query?query=rate(m[range()])";
    server.check(path, 400, want).await;
    server.close().await;
}
