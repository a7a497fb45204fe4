//! Bad input stops nothing: it is counted, kept where it was a message, and the
//! next good one arrives.

use std::fs;
use std::time::Instant;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, MqttOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::broker::{Broker, free_port};
use crate::server::{Server, eventually};

/// The count of one reason for one tenant on `/metrics`.
async fn rejected(server: &Server, tenant: &str, reason: &str) -> f64 {
    let wanted =
        format!("pulse_ingest_rejected_total{{reason=\"{reason}\",tenant_id=\"{tenant}\"}} ");
    let metrics = server.get("/metrics").await;
    let line = metrics
        .text()
        .lines()
        .find_map(|l| l.strip_prefix(&wanted).map(str::to_owned));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_mqtt_payloads_are_counted_and_the_next_message_arrives() {
    let Some(mosquitto) = Broker::mosquitto("message_size_limit 0") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "[[source.mqtt]]\nname = \"plant\"\nurl = \"mqtt://127.0.0.1:{}\"\ntopics = [\"tenants/#\"]\n",
        mosquitto.port
    );
    fs::write(dir.path().join("pulse.toml"), config).unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    eventually("the source is up", || async {
        let page = server.get("/metrics").await;
        page.text()
            .lines()
            .any(|l| l.starts_with("pulse_source_up{") && l.contains("plant") && l.ends_with(" 1"))
            .then_some(())
    })
    .await;

    let mut options = MqttOptions::new("hostile", "127.0.0.1", mosquitto.port);
    options.set_max_packet_size(Some(64 << 20));
    options.set_outgoing_inflight_upper_limit(100);
    let (client, mut events) = AsyncClient::new(options, 100);
    let polling = tokio::spawn(async move { while events.poll().await.is_ok() {} });
    let topic = "tenants/acme/devices/d1/telemetry";
    let brackets = "[".repeat(100_000);
    let payloads: Vec<(&str, Vec<u8>)> = vec![
        (topic, vec![b'x'; 20 << 20]),
        (topic, b"{\"v\": \xff\xfe}".to_vec()),
        (topic, brackets.into_bytes()),
        (topic, b"{\"v\":1e999}".to_vec()),
        (topic, b"{\"v\":".to_vec()),
        (topic, b"".to_vec()),
        ("tenants/a b/devices/d1/telemetry", b"{\"v\":1}".to_vec()),
        (
            "tenants/acme/devices/<script>/telemetry",
            b"{\"v\":1}".to_vec(),
        ),
        (topic, b"{\"ts\":4102444800000,\"v\":1}".to_vec()),
        (topic, b"{\"tenant_id\":\"other\",\"v\":1}".to_vec()),
    ];
    for (topic, payload) in payloads {
        client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .await
            .unwrap();
    }
    client
        .publish(topic, QoS::AtLeastOnce, false, "{\"v\":42}")
        .await
        .unwrap();
    eventually(
        "the good message arrives after all the bad ones",
        || async {
            (server.value("v{tenant_id=\"acme\",device_id=\"d1\"}").await == Some(42.0))
                .then_some(())
        },
    )
    .await;
    // A sample is seen before its commit, a refusal is counted after it.
    eventually("refusals are counted by reason", || async {
        let [parse, encoding, timestamp, tenant] = [
            rejected(&server, "acme", "parse").await,
            rejected(&server, "acme", "encoding").await,
            rejected(&server, "acme", "timestamp").await,
            rejected(&server, "acme", "tenant").await,
        ];
        let enough = parse >= 3.0 && parse + encoding >= 5.0 && timestamp >= 1.0 && tenant >= 1.0;
        enough.then_some(())
    })
    .await;
    eventually("refused messages are dead letters", || async {
        let metrics = server.get("/metrics").await;
        let kept = metrics.text().lines().any(|line| {
            line.starts_with("pulse_delivery_dlq_depth{tenant_id=\"acme\"}")
                && !line.ends_with(" 0")
        });
        kept.then_some(())
    })
    .await;
    polling.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_http_requests_get_their_answers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let ingest = server.url("/api/v1/ingest/acme?device=d1");
    let big = server
        .http
        .post(&ingest, "application/json", vec![b'x'; 20 << 20])
        .await;
    assert_eq!(big.status, 413);
    assert!(rejected(&server, "acme", "size").await >= 1.0);
    let deep = server
        .http
        .post(&ingest, "application/json", "[".repeat(100_000))
        .await;
    assert_eq!(deep.status, 400, "{}", deep.text());
    let good = server
        .http
        .post(&ingest, "application/json", "{\"v\":7}")
        .await;
    assert_eq!(good.status, 200, "{}", good.text());
    assert_eq!(server.value("v{tenant_id=\"acme\"}").await, Some(7.0));

    let query = server.get("/api/v1/query?query=sum(rate(v%5B5m%5D)").await;
    assert_eq!(query.status, 400);
    let body = query.json();
    assert_eq!(body["errorType"], "bad_data");
    assert!(body["error"].as_str().unwrap().contains("1:"), "{body}");
    let foreign = hyper::Request::get(server.url("/")).header("host", "evil.example");
    let foreign = server
        .http
        .try_send(foreign.body(Default::default()).unwrap())
        .await
        .unwrap();
    assert!(
        foreign.status == 403 || foreign.status == 421,
        "{}",
        foreign.status
    );
}

/// Opens connections that each send a part of a request's head and no more.
async fn drip(port: u16, connections: usize, after: &str) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head = format!("{after}GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ");
        // One that had to make room is gone already.
        let _ = stream.write_all(head.as_bytes()).await;
        open.push(stream);
    }
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_requests_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("pulse.toml"),
        "[server]\nconnections_max = 64\n",
    )
    .unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let whole = "GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    // Heads that never end, at once and as the second request of a connection.
    for after in ["", whole] {
        let attackers = drip(server.port, 600, after).await;
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(server.get("/-/healthy").await.status, 200);
        }
        let seconds = begun.elapsed().as_secs_f64();
        // Each of the 600 would otherwise hold its slot for 10 s.
        assert!(seconds < 5.0, "20 requests took {seconds} s");
        drop(attackers);
    }
    let metrics = server.get("/metrics").await;
    let closed = "pulse_ui_connections_closed_for_room_total ";
    let count = metrics.text().lines().find_map(|l| l.strip_prefix(closed));
    assert!(count.unwrap().parse::<f64>().unwrap() >= 500.0, "{count:?}");
}
