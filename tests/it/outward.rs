//! Notifications through real brokers, the dead man's switch, and bodies of one's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt as _;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
use serde_json::Value;

use crate::alertmanager::{URL, alert, at, configure};
use crate::broker::{Broker, free_port};
use crate::receivers;
use crate::rules::{Machine, group};
use crate::server::{Http, Server, eventually};
use crate::sink::{SECRET, Sink};

fn tree(receivers: &str) -> String {
    format!(
        "route:\n  receiver: all\n  group_by: ['...']\n  group_wait: 0s\n  group_interval: 1s\n\
         receivers:\n- name: all\n{receivers}"
    )
}

async fn post(server: &Server, labels: &[(&str, &str)], end: &str) {
    let body = serde_json::json!([alert(labels, &at(-60), end)]).to_string();
    let answer = Http::new().post_owned(server.url("/api/v2/alerts"), body);
    assert_eq!(answer.await.status, 200);
}

/// A message of a broker: topic, payload, id.
type Got = Arc<Mutex<Vec<(String, String, String)>>>;

/// Subscribes to everything.
async fn mqtt_subscriber(port: u16) -> Got {
    let mut options = MqttOptions::new("watcher", "127.0.0.1", port);
    options.set_outgoing_inflight_upper_limit(10);
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    let got = Got::default();
    let shared = Arc::clone(&got);
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let _client = client;
        let mut ready = Some(ready);
        while let Ok(event) = events.poll().await {
            match event {
                Event::Incoming(Incoming::SubAck(_)) => {
                    ready.take().unwrap().send(()).unwrap();
                }
                Event::Incoming(Incoming::Publish(publish)) => {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    let properties = publish.properties.clone().unwrap_or_default();
                    let id = properties.user_properties.first().cloned();
                    shared.lock().unwrap().push((
                        text(&publish.topic),
                        text(&publish.payload),
                        id.unwrap_or_default().1,
                    ));
                }
                _ => {}
            }
        }
    });
    is_ready.await.unwrap();
    got
}

const HOSTILE: &str = "a/b.#+ *>$x";
const HOSTILE_WORD: &str = "a%2Fb%2E%23%2B%20%2A%3E%24x";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_mqtt_topic_has_the_levels_that_its_template_gives_it() {
    let Some(mut broker) = Broker::mosquitto("") else {
        return;
    };
    let got = mqtt_subscriber(broker.port).await;
    let dir = tempfile::tempdir().unwrap();
    let port = broker.port;
    let receivers = format!(
        "  mqtt_configs:\n  - url: mqtt://127.0.0.1:{port}\n    \
         topic: 'alerts/{{{{ .CommonLabels.site }}}}/{{{{ .CommonLabels.none }}}}/{{{{ .Status }}}}'\n\
         \x20 - url: mqtt://127.0.0.1:{port}\n    topic: own\n    \
         payload: '{{\"site\":{{{{ .CommonLabels.site | toJson }}}}}}'\n"
    );
    configure(dir.path(), &tree(&receivers));
    let server = Server::start(dir.path(), free_port()).await;
    let labels = [("alertname", "Hot"), ("site", HOSTILE)];
    post(&server, &labels, &at(3_600)).await;
    eventually("both messages are there", || async {
        (got.lock().unwrap().len() == 2).then_some(())
    })
    .await;
    let mut messages = got.lock().unwrap().clone();
    messages.sort();
    assert_eq!(messages[0].0, format!("alerts/{HOSTILE_WORD}/%/firing"));
    let body: Value = serde_json::from_str(&messages[0].1).unwrap();
    assert_eq!(
        (&body["version"], &body["status"]),
        (&"4".into(), &"firing".into())
    );
    assert_eq!(body["commonLabels"]["site"], HOSTILE);
    assert!(messages[0].2.starts_with("ntf_"), "{messages:?}");
    let own: Value = serde_json::from_str(&messages[1].1).unwrap();
    assert_eq!(own["site"], HOSTILE);

    // The broker is away when it ends: it hears of it when it is back.
    broker.kill();
    got.lock().unwrap().clear();
    post(&server, &labels, &at(0)).await;
    eventually("it was tried", || async {
        let metrics = server.get("/metrics").await;
        let tried = |line: &str| {
            line.starts_with("pulse_delivery_total{destination_type=\"mqtt\",result=\"retry\"")
                && !line.ends_with(" 0")
        };
        metrics.text().lines().any(tried).then_some(())
    })
    .await;
    broker.start();
    let got = mqtt_subscriber(broker.port).await;
    eventually("it is told", || async {
        let got = got.lock().unwrap();
        got.iter()
            .any(|(topic, _, _)| topic.ends_with("/resolved"))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_stream_holds_each_notification_once() {
    let Some(broker) = Broker::nats("") else {
        return;
    };
    let client = async_nats::connect(format!("127.0.0.1:{}", broker.port))
        .await
        .unwrap();
    let stream = jetstream::stream::Config {
        name: "ALERTS".to_owned(),
        subjects: vec!["alerts.>".to_owned()],
        ..jetstream::stream::Config::default()
    };
    let stream = jetstream::new(client.clone())
        .create_stream(stream)
        .await
        .unwrap();
    let mut plain = client.subscribe("plain.>").await.unwrap();
    client.flush().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("nats://127.0.0.1:{}", broker.port);
    let receivers = format!(
        "  nats_configs:\n  - url: {url}\n    jetstream: true\n    \
         subject: 'alerts.{{{{ .CommonLabels.site }}}}'\n\
         \x20 - url: {url}\n    subject: 'plain.{{{{ .CommonLabels.site }}}}'\n    payload: '{{{{ .Status }}}}'\n"
    );
    configure(dir.path(), &tree(&receivers));
    let server = Server::start(dir.path(), free_port()).await;
    post(
        &server,
        &[("alertname", "Hot"), ("site", HOSTILE)],
        &at(3_600),
    )
    .await;
    let message = tokio::time::timeout(Duration::from_secs(30), plain.next()).await;
    let message = message.unwrap().unwrap();
    assert_eq!(message.subject.as_str(), format!("plain.{HOSTILE_WORD}"));
    assert_eq!(message.payload.as_ref(), b"firing");
    let id = message
        .headers
        .unwrap()
        .get("Nats-Msg-Id")
        .unwrap()
        .to_string();
    assert!(id.starts_with("ntf_"), "{id}");
    let stored = eventually("it is stored", || async {
        stream.get_raw_message(1).await.ok()
    })
    .await;
    assert_eq!(stored.subject.as_str(), format!("alerts.{HOSTILE_WORD}"));
    let body: Value = serde_json::from_slice(&stored.payload).unwrap();
    assert_eq!(body["commonLabels"]["site"], HOSTILE);
    // The same again is kept out by its id.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(
        "Nats-Msg-Id",
        stored.headers.get("Nats-Msg-Id").unwrap().as_str(),
    );
    let context = jetstream::new(client);
    let again =
        context.publish_with_headers(stored.subject.to_string(), headers, stored.payload.clone());
    assert!(again.await.unwrap().await.unwrap().duplicate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_with_a_body_of_its_own_is_signed_and_stays_valid_json() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let sink = Sink::start(port).await;
    let receivers = format!(
        "  webhook_configs:\n  - url: http://127.0.0.1:{port}/hook\n    secret: {SECRET}\n    \
         body: '{{\"who\":{{{{ .CommonLabels.site | toJson }}}},\"all\":{{{{ .Alerts | toJson }}}}}}'\n"
    );
    configure(dir.path(), &tree(&receivers));
    let server = Server::start(dir.path(), free_port()).await;
    let evil = "\"},\"admin\":true,\"x\":{\"</script>\n";
    post(&server, &[("alertname", "Hot"), ("site", evil)], &at(3_600)).await;
    eventually("it is there, and its signature holds", || async {
        (sink.deliveries().len() == 1).then_some(())
    })
    .await;
    let body: Value = serde_json::from_str(&sink.deliveries()[0].body).unwrap();
    assert_eq!(body["who"], evil);
    assert_eq!(body["admin"], Value::Null);
    assert_eq!(body["all"][0]["labels"]["alertname"], "Hot");
    assert_eq!(body["all"][0]["endsAt"], "0001-01-01T00:00:00Z");
}

fn watchdog(dir: &Path, receivers: &str) {
    fs::write(
        dir.join("rules.yml"),
        "groups:\n- name: self\n  interval: 1s\n  rules:\n  - {alert: Watchdog, expr: vector(1)}\n",
    )
    .unwrap();
    fs::write(dir.join("alertmanager.yml"), tree(receivers)).unwrap();
    let config = format!(
        "[global]\nexternal_url = \"{URL}\"\n[rules]\nrule_files = [\"rules.yml\"]\n\
         [alerting]\nconfig_file = \"alertmanager.yml\"\n"
    );
    fs::write(dir.join("pulse.toml"), config).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_goes_on_while_all_is_well_and_after_a_kill() {
    let Some(broker) = Broker::mosquitto("") else {
        return;
    };
    let beats = mqtt_subscriber(broker.port).await;
    let dir = tempfile::tempdir().unwrap();
    let (sink, port) = receivers::Sink::start().await;
    let receivers = format!(
        "  heartbeat_configs:\n  - url: http://127.0.0.1:{port}/beat\n    interval: 1s\n\
         \x20 - interval: 1s\n    mqtt: {{url: 'mqtt://127.0.0.1:{}', topic: beat}}\n\
         \x20 webhook_configs:\n  - url: http://127.0.0.1:{port}/told\n",
        broker.port
    );
    watchdog(dir.path(), &receivers);
    let mut server = Server::start(dir.path(), free_port()).await;
    eventually("it beats on both ways", || async {
        let by_mqtt = beats.lock().unwrap().len();
        (sink.to("/beat").len() >= 4 && by_mqtt >= 4).then_some(())
    })
    .await;
    // Others in the same receiver are told once.
    assert_eq!(sink.to("/told").len(), 1);
    server.kill();
    let before = beats.lock().unwrap().len();
    let server = Server::start(dir.path(), server.port).await;
    eventually("it beats again", || async {
        (beats.lock().unwrap().len() > before + 1).then_some(())
    })
    .await;
    drop(server);
    let beats = beats.lock().unwrap();
    let ids: BTreeSet<&str> = beats.iter().map(|(_, _, id)| id.as_str()).collect();
    // A kill may repeat the last one before it, with its id.
    assert!(
        ids.len() + 1 >= beats.len(),
        "each beat is an event of its own: {beats:?}"
    );
    let body: Value = serde_json::from_str(&beats[0].1).unwrap();
    assert_eq!(body["commonLabels"]["alertname"], "Watchdog");
}

#[tokio::test]
async fn a_heartbeat_ends_when_its_rules_stand_still() {
    let config = "[alerting]\nroute = { receiver = \"alive\", group_wait = \"0s\", group_interval = \"10s\" }\n\
                  receivers = [{ name = \"alive\", heartbeat_configs = [{ url = \"http://127.0.0.1:9/\", interval = \"1m\" }] }]\n\
                  [rules]\nfiles = [\"*.yml\"]\n";
    let rules = group("  - {alert: Watchdog, expr: 'vector(1)'}\n");
    let machine = Machine::new(&rules).with_config(config);
    let process = machine.boot().await;
    let mut beats = 0;
    for _ in 0..60 {
        process.step(10).await;
        beats += process.deliver().await.len();
    }
    assert!((9..=11).contains(&beats), "{beats} in ten minutes");
    let mut last = 0;
    for minute in 1..=10 {
        process.stand_still(60).await;
        if !process.deliver().await.is_empty() {
            last = minute;
        }
    }
    assert!(
        (1..=3).contains(&last),
        "the last was told {last} minutes after the last evaluation"
    );
    // The rules are evaluated again.
    process.step(60).await;
    process.deliver().await;
    process.step(60).await;
    assert!(!process.deliver().await.is_empty());
    process.kill().await;
}
