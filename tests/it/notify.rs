//! From a sample to a signed notification, through a SIGKILL.

use std::fs;
use std::path::Path;

use crate::broker::free_port;
use crate::server::{Server, eventually};
use crate::sink::{SECRET, Sink};

/// `BufferFull` of document 3 with `for: 0s`.
const RULES: &str = "groups:
- name: ingestion_alerts
  interval: 1s
  rules:
  - alert: BufferFull
    expr: buffer_size / buffer_capacity > 0.95
    for: 0s
    annotations:
      summary: \"Buffer nearly full for {{ $labels.device_id }}\"
";

fn configure(dir: &Path, sink_port: u16) {
    fs::write(dir.join("rules.yml"), RULES).unwrap();
    let config = format!(
        "[rules]\nfiles = [\"rules.yml\"]\n\
         [alerting]\nreceiver = \"ops\"\ngroup_wait = \"0s\"\ngroup_interval = \"1s\"\n\
         [[destination.webhook]]\nname = \"ops\"\nsecret = \"{SECRET}\"\n\
         url = \"http://127.0.0.1:{sink_port}/hook\"\n"
    );
    fs::write(dir.join("pulse.toml"), config).unwrap();
}

async fn push(server: &Server, size: u32) {
    let url = server.url("/api/v1/ingest/acme?device=relay-1");
    let body = format!(r#"{{"buffer_size":{size},"buffer_capacity":100}}"#);
    let answer = server.http.post(&url, "application/json", body).await;
    assert!(
        (200..300).contains(&answer.status),
        "{} {}",
        answer.status,
        answer.text()
    );
}

async fn alert_state(server: &Server) -> Option<String> {
    let answer = server.get("/api/v1/alerts").await.json();
    let alerts = answer["data"]["alerts"].as_array()?.clone();
    let own = alerts
        .iter()
        .find(|alert| alert["labels"]["device_id"] == "relay-1")?;
    own["state"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_firing_and_delivery_gives_two_ids_each_received() {
    let dir = tempfile::tempdir().unwrap();
    let sink_port = free_port();
    configure(dir.path(), sink_port);
    let mut server = Server::start(dir.path(), free_port()).await;
    push(&server, 99).await;
    eventually("the alert fires", || async {
        (alert_state(&server).await.as_deref() == Some("firing")).then_some(())
    })
    .await;
    eventually("its notification waits for the receiver, which is down", || async {
        let waiting = "pulse_queue_depth{queue_name=\"pending_notification_jobs\",service=\"delivery_worker\"} 1";
        server.get("/metrics").await.text().lines().any(|line| line == waiting).then_some(())
    })
    .await;
    server.kill();

    let sink = Sink::start(sink_port).await;
    server = Server::start(dir.path(), server.port).await;
    eventually("the firing notification arrives", || async {
        (sink.deliveries().len() == 1).then_some(())
    })
    .await;
    eventually("it still fires", || async {
        (alert_state(&server).await.as_deref() == Some("firing")).then_some(())
    })
    .await;
    push(&server, 1).await;
    eventually("the resolved notification arrives", || async {
        (sink.deliveries().len() == 2).then_some(())
    })
    .await;
    // A clean stop gives everything that is still under way the time to arrive.
    assert_eq!(server.terminate().await, Some(0));

    let deliveries = sink.deliveries();
    assert_eq!(deliveries.len(), 2, "{deliveries:#?}");
    let bodies: Vec<serde_json::Value> = deliveries
        .iter()
        .map(|d| serde_json::from_str(&d.body).unwrap())
        .collect();
    for (body, status) in bodies.iter().zip(["firing", "resolved"]) {
        assert_eq!(body["version"], "4");
        assert_eq!(body["status"], status);
        assert_eq!(body["receiver"], "ops");
        let alert = &body["alerts"][0];
        assert_eq!(alert["labels"]["alertname"], "BufferFull");
        assert_eq!(
            alert["annotations"]["summary"],
            "Buffer nearly full for relay-1"
        );
        assert_eq!(alert["status"], status);
    }
    assert_eq!(bodies[0]["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_delivers_what_is_stored_once_and_signed() {
    let dir = tempfile::tempdir().unwrap();
    let sink_port = free_port();
    let sink = Sink::start(sink_port).await;
    let config = format!(
        "[[destination.webhook]]\nname = \"erp\"\nsecret = \"{SECRET}\"\n\
         url = \"http://127.0.0.1:{sink_port}/hook\"\n\
         [[route]]\nname = \"acme-erp\"\ntenant = \"acme\"\ndestination = \"erp\"\n"
    );
    fs::write(dir.path().join("pulse.toml"), config).unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let now = pulse::model::Clock::System.now().as_ms();
    let push = |tenant: &str, value: u32| {
        let url = server.url(&format!("/api/v1/ingest/{tenant}?device=d1"));
        let body = format!(
            r#"{{"ts":{},"temperature":{value}}}"#,
            now + i64::from(value)
        );
        server.http.clone().post_owned(url, body)
    };
    assert_eq!(push("acme", 20).await.status, 200);
    assert_eq!(
        push("acme", 20).await.status,
        200,
        "a repeat is accepted and has no effect"
    );
    assert_eq!(push("other", 21).await.status, 200, "nobody's route");
    assert_eq!(push("acme", 22).await.status, 200);
    eventually("both messages arrive", || async {
        (sink.deliveries().len() >= 2).then_some(())
    })
    .await;
    assert_eq!(sink.deliveries().len(), 2, "{:#?}", sink.deliveries());
    let first: serde_json::Value = serde_json::from_str(&sink.deliveries()[0].body).unwrap();
    assert_eq!(first["tenant_id"], "acme");
    assert_eq!(first["device_id"], "d1");
    assert_eq!(first["payload"]["temperature"], 20);
    let counted = server
        .get("/metrics")
        .await
        .text()
        .lines()
        .any(|l| l.starts_with("pulse_delivery_total{destination_type=\"webhook\",result=\"success\",tenant_id=\"acme\"} 2"));
    assert!(counted);
}
