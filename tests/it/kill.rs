//! SIGKILL under load: what a broker was told is stored is stored, exactly once.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};

use crate::backup::assert_verified;
use crate::broker::{Broker, free_port, say};
use crate::ledger::Ledger;
use crate::server::{Server, eventually};

/// Messages in the short form; the long form takes more.
pub(crate) fn messages() -> u64 {
    if std::env::var_os("PULSE_TEST_LONG").is_some() {
        200_000
    } else {
        20_000
    }
}

/// Every kill comes this long after the restart before it.
const KILL_EVERY: Duration = Duration::from_millis(700);

/// At least so many kills have to hit.
const KILLS_MIN: u32 = 5;

pub(crate) fn ledger(tenant: &'static str) -> Ledger {
    let now = pulse::model::Clock::System.now().as_ms();
    Ledger {
        tenant,
        base_ms: u64::try_from(now).unwrap() - 600_000,
        ids: 0..messages(),
    }
}

/// Kills and restarts the server until `done` says that the publisher has finished
/// and enough kills have happened; gives the number of kills.
pub(crate) async fn kill_until(
    server: &mut Server,
    dir: &Path,
    mut done: impl FnMut() -> bool,
) -> u32 {
    let mut kills = 0;
    while kills < KILLS_MIN || !done() {
        tokio::time::sleep(KILL_EVERY).await;
        server.kill();
        kills += 1;
        *server = Server::start(dir, server.port).await;
        assert!(kills < 200, "the publisher never finishes");
    }
    kills
}

pub(crate) async fn check(server: &mut Server, dir: &Path, ledger: &Ledger) {
    let start = Instant::now();
    is_stored(server, ledger).await;
    let settle = start.elapsed();
    // Once more from what is on disk. What was shown before its commit ended was not
    // acknowledged either and comes again; what was acknowledged does not.
    server.kill();
    assert_verified(&dir.join("data"));
    *server = Server::start(dir, server.port).await;
    is_stored(server, ledger).await;
    say(&format!("settled in {settle:?}"));
}

async fn is_stored(server: &Server, ledger: &Ledger) {
    eventually("every message is stored", || async {
        ledger.is_complete(server).await.then_some(())
    })
    .await;
    assert_eq!(ledger.faults(server).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mqtt_message_is_lost_or_doubled_by_sigkill() {
    let Some(mosquitto) = Broker::mosquitto("") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "[[source.mqtt]]\nname = \"plant\"\nurl = \"mqtt://127.0.0.1:{}\"\n",
        mosquitto.port
    );
    fs::write(dir.path().join("pulse.toml"), config).unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    source_is_up(&server).await;

    let ledger = ledger("mqtt");
    let publisher = tokio::spawn(publish_mqtt(mosquitto.port, ledger.clone()));
    let kills = kill_until(&mut server, dir.path(), || publisher.is_finished()).await;
    publisher.await.unwrap();
    say(&format!("{kills} kills during {} messages", messages()));
    check(&mut server, dir.path(), &ledger).await;
}

/// Publishes with QoS 1 at a bounded rate and waits for every acknowledgement.
async fn publish_mqtt(port: u16, ledger: Ledger) {
    let mut options = MqttOptions::new("publisher", "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_outgoing_inflight_upper_limit(1000);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, mut events) = AsyncClient::new(options, 1000);
    let wanted = ledger.ids.end - ledger.ids.start;
    let sender = tokio::spawn(async move {
        for id in ledger.ids.clone() {
            let (topic, payload) = (ledger.topic(id), ledger.payload(id));
            client
                .publish(topic, QoS::AtLeastOnce, false, payload)
                .await
                .unwrap();
            if id % 100 == 99 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        client
    });
    let mut acked = 0;
    while acked < wanted {
        if let Event::Incoming(Incoming::PubAck(_)) = events.poll().await.unwrap() {
            acked += 1;
        }
    }
    drop(sender.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_jetstream_message_is_lost_or_doubled_by_sigkill() {
    let Some(nats) = Broker::nats("") else { return };
    let dir = tempfile::tempdir().unwrap();
    let client = async_nats::connect(format!("nats://127.0.0.1:{}", nats.port))
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream
        .create_stream(async_nats::jetstream::stream::Config {
            name: "TELEMETRY".to_owned(),
            subjects: vec!["tenants.>".to_owned()],
            ..Default::default()
        })
        .await
        .unwrap();
    let config = format!(
        "[[source.nats]]\nname = \"fleet\"\nurl = \"nats://127.0.0.1:{}\"\n\
         stream = \"TELEMETRY\"\nack_wait = \"2s\"\n",
        nats.port
    );
    fs::write(dir.path().join("pulse.toml"), config).unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    source_is_up(&server).await;

    let ledger = ledger("nats");
    let publisher = tokio::spawn(publish_nats(jetstream, ledger.clone()));
    let kills = kill_until(&mut server, dir.path(), || publisher.is_finished()).await;
    publisher.await.unwrap();
    say(&format!("{kills} kills during {} messages", messages()));
    check(&mut server, dir.path(), &ledger).await;

    let stream = &stream;
    eventually("nothing is pending", || async move {
        let consumer: async_nats::jetstream::consumer::PullConsumer =
            stream.get_consumer("pulse-fleet").await.ok()?;
        let info = consumer.get_info().await.ok()?;
        (info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
    })
    .await;
}

async fn publish_nats(jetstream: async_nats::jetstream::Context, ledger: Ledger) {
    let mut waiting = Vec::new();
    for id in ledger.ids.clone() {
        let subject = ledger.topic(id).replace('/', ".");
        let ack = jetstream
            .publish(subject, ledger.payload(id).into())
            .await
            .unwrap();
        waiting.push(ack);
        if waiting.len() == 100 {
            for ack in waiting.drain(..) {
                ack.await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for ack in waiting {
        ack.await.unwrap();
    }
}

/// Waits until the one configured source is connected and subscribed.
async fn source_is_up(server: &Server) {
    eventually("the source is up", || async {
        let metrics = server.get("/metrics").await;
        let up = metrics.text().lines().any(|line| {
            line.starts_with("pulse_source_up{")
                && line.ends_with(" 1")
                && !line.contains("kind=\"self\"")
        });
        up.then_some(())
    })
    .await;
}
