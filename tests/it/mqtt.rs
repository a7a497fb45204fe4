//! The MQTT source against a real mosquitto.

use std::collections::HashSet;
use std::time::Duration;

use pulse::ingest::Verdict;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

use crate::broker::{Bed, Broker, PATIENCE, Proxy, certificates, eventually, payloads};

const PROTOCOLS: [&str; 2] = ["5", "3.1.1"];

/// A source called `t` with a client id of its own.
fn source(port: u16, extra: &str) -> String {
    format!(
        "[[source.mqtt]]\nname = \"t\"\nurl = \"mqtt://127.0.0.1:{port}\"\n\
         client_id = \"under-test\"\ntopics = [\"a/#\"]\n{extra}\n"
    )
}

/// Another client, to publish and to look at a session.
struct Client {
    client: AsyncClient,
    events: EventLoop,
}

impl Client {
    fn new(port: u16, id: &str) -> Client {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_clean_session(id == "publisher");
        options.set_manual_acks(true);
        options.set_inflight(1_000);
        options.set_max_packet_size(1 << 26, 1 << 26);
        let (client, mut events) = AsyncClient::new(options, 70_000);
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        Client { client, events }
    }

    /// The next packet from the broker; errors are reconnects.
    async fn packet(&mut self) -> Packet {
        let next = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(packet)) => return packet,
                    Ok(Event::Outgoing(_)) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, next)
            .await
            .expect("a packet in time")
    }

    /// The next message.
    async fn message(&mut self) -> rumqttc::Publish {
        loop {
            if let Packet::Publish(publish) = self.packet().await {
                return publish;
            }
        }
    }

    /// Publishes with QoS 1 and waits until the broker has all.
    async fn publish(&mut self, topic: &str, payloads: impl IntoIterator<Item = String>) {
        let mut open = 0_usize;
        for payload in payloads {
            self.client
                .try_publish(topic, QoS::AtLeastOnce, false, payload)
                .unwrap();
            open += 1;
        }
        while open > 0 {
            if matches!(self.packet().await, Packet::PubAck(_)) {
                open -= 1;
            }
        }
    }

    async fn publish_retained(&mut self, count: usize) {
        for n in 0..count {
            self.client
                .try_publish(format!("a/{n}"), QoS::AtLeastOnce, true, n.to_string())
                .unwrap();
        }
        let mut open = count;
        while open > 0 {
            if matches!(self.packet().await, Packet::PubAck(_)) {
                open -= 1;
            }
        }
    }
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| n.to_string())
}

/// What the broker still holds for the session of the source: everything before the sentinel.
async fn left_in_session(port: u16) -> Vec<String> {
    Client::new(port, "publisher")
        .publish("a/x", ["sentinel".to_owned()])
        .await;
    let mut session = Client::new(port, "under-test");
    let mut left = Vec::new();
    loop {
        let payload = session.message().await.payload;
        match std::str::from_utf8(&payload).unwrap() {
            "sentinel" => return left,
            other => left.push(other.to_owned()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_handed_over_and_acknowledged_once() {
    for protocol in PROTOCOLS {
        let Some(broker) = Broker::mosquitto("max_inflight_messages 0") else {
            return;
        };
        let bed = Bed::new();
        let mut run = bed.run(&source(broker.port, &format!("protocol = \"{protocol}\"")));
        run.up().await;
        let mut publisher = Client::new(broker.port, "publisher");
        let (messages, ()) =
            tokio::join!(run.take(20_000), publisher.publish("a/b", numbers(20_000)));
        assert!(payloads(&messages).into_iter().eq(numbers(20_000)));
        assert_eq!(messages[0].topic, "a/b");
        run.end().await;
        assert_eq!(left_in_session(broker.port).await.len(), 0);
        assert_eq!(bed.metric("pulse_mqtt_redelivered_total", &[]), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again() {
    let Some(broker) = Broker::mosquitto("") else {
        return;
    };
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, ""));
    run.up().await;
    let mut publisher = Client::new(broker.port, "publisher");
    publisher.publish("a/b", numbers(100)).await;
    drop(run.hold(100).await);
    run.abandon().await;
    let mut again = bed.run(&source(broker.port, ""));
    let messages = again.take(100).await;
    assert_eq!(payloads(&messages), numbers(100).collect::<Vec<_>>());
    assert!(messages.iter().all(|message| message.delivered == 2));
    again.end().await;
    assert_eq!(left_in_session(broker.port).await.len(), 0);
}

/// The broker loses its sessions, uses packet id 1 again for B, and only then
/// the verdict on A arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_ack_does_not_delete_a_message_of_the_next_session() {
    let Some(mut broker) = Broker::mosquitto("persistence false") else {
        return;
    };
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, ""));
    run.up().await;
    Client::new(broker.port, "publisher")
        .publish("a/b", ["A".to_owned()])
        .await;
    let late = run.hand().await;
    broker.kill();
    broker.start();
    eventually("second connection", || {
        (run.view().connects == 2).then_some(())
    })
    .await;
    Client::new(broker.port, "publisher")
        .publish("a/b", ["B".to_owned()])
        .await;
    let lost_if_acked = run.hand().await;
    assert_eq!(payloads(&lost_if_acked.messages), ["B"]);
    late.reply.send(vec![Verdict::Committed]).unwrap();
    let stale = || (bed.metric("pulse_mqtt_stale_acks_total", &[]) == 1.0).then_some(());
    eventually("the late acknowledgement is withheld", stale).await;
    drop(lost_if_acked);
    run.abandon().await;
    assert_eq!(left_in_session(broker.port).await, ["B"]);
}

/// The control: the same with a client that acknowledges whatever it is told to.
#[tokio::test(flavor = "multi_thread")]
async fn control_without_a_guard_the_late_ack_loses_a_message() {
    let Some(mut broker) = Broker::mosquitto("persistence false") else {
        return;
    };
    let mut naive = Client::new(broker.port, "under-test");
    naive.client.try_subscribe("a/#", QoS::AtLeastOnce).unwrap();
    while !matches!(naive.packet().await, Packet::SubAck(_)) {}
    Client::new(broker.port, "publisher")
        .publish("a/b", ["A".to_owned()])
        .await;
    let late = naive.message().await;
    broker.kill();
    broker.start();
    while !matches!(naive.packet().await, Packet::ConnAck(_)) {}
    naive.client.try_subscribe("a/#", QoS::AtLeastOnce).unwrap();
    while !matches!(naive.packet().await, Packet::SubAck(_)) {}
    Client::new(broker.port, "publisher")
        .publish("a/b", ["B".to_owned()])
        .await;
    let lost = naive.message().await;
    assert_eq!((&lost.payload[..], lost.pkid), (&b"B"[..], late.pkid));
    naive.client.try_ack(&late).unwrap();
    naive
        .client
        .try_subscribe("other", QoS::AtLeastOnce)
        .unwrap();
    while !matches!(naive.packet().await, Packet::SubAck(_)) {}
    drop(naive);
    assert_eq!(left_in_session(broker.port).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_do_not_come_again_on_resume() {
    for protocol in PROTOCOLS {
        let Some(broker) = Broker::mosquitto("max_inflight_messages 0") else {
            return;
        };
        let mut publisher = Client::new(broker.port, "publisher");
        publisher.publish_retained(500).await;
        let bed = Bed::new();
        let fields = format!("protocol = \"{protocol}\"");
        let mut run = bed.run(&source(broker.port, &fields));
        assert_eq!(run.take(500).await.len(), 500);
        run.end().await;

        let mut run = bed.run(&source(broker.port, &fields));
        run.up().await;
        publisher.publish("a/b", ["live".to_owned()]).await;
        assert_eq!(payloads(&run.take(1).await), ["live"]);
        run.end().await;

        // A changed filter set: only what is new is subscribed to.
        let more = source(broker.port, &fields).replace("[\"a/#\"]", "[\"a/#\", \"b\"]");
        let mut run = bed.run(&more);
        run.up().await;
        publisher.publish("b", ["more".to_owned()]).await;
        assert_eq!(payloads(&run.take(1).await), ["more"]);
        run.end().await;

        // And what went is dropped.
        let mut run = bed.run(&source(broker.port, &fields));
        run.up().await;
        // The broker may still be at it when the source is up.
        let mut tries = 0;
        loop {
            publisher.publish("b", ["gone".to_owned()]).await;
            publisher.publish("a/b", ["last".to_owned()]).await;
            if payloads(&run.take(1).await) == ["last"] {
                break;
            }
            assert_eq!(payloads(&run.take(1).await), ["last"]);
            tries += 1;
            assert!(tries < 100, "the dropped filter still delivers");
        }
        run.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_above_the_maximum_is_skipped_and_the_next_one_arrives() {
    for protocol in PROTOCOLS {
        let Some(broker) = Broker::mosquitto("") else {
            return;
        };
        let bed = Bed::new();
        let fields = format!("protocol = \"{protocol}\"\npacket_max = \"64KiB\"");
        let mut run = bed.run(&source(broker.port, &fields));
        run.up().await;
        let mut publisher = Client::new(broker.port, "publisher");
        let large = "x".repeat(20 << 20);
        publisher.publish("a/b", [large, "next".to_owned()]).await;
        assert_eq!(payloads(&run.take(1).await), ["next"]);
        let skipped = bed.metric("pulse_mqtt_dropped_total", &[("reason", "size")]);
        // A 5 broker does not even send it.
        assert_eq!(skipped, if protocol == "5" { 0.0 } else { 1.0 });
        run.end().await;
        assert_eq!(bed.metric("pulse_mqtt_reconnects_total", &[]), 0.0);
        assert_eq!(left_in_session(broker.port).await.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_that_somebody_else_uses_is_named() {
    let Some(broker) = Broker::mosquitto("") else {
        return;
    };
    let bed = Bed::new();
    let run = bed.run(&source(broker.port, ""));
    run.up().await;
    // A rival that comes back at once, as most clients do.
    let mut rival = Client::new(broker.port, "under-test");
    let fight = async {
        loop {
            rival.packet().await;
        }
    };
    let reason = tokio::select! {
        () = fight => unreachable!("it never ends"),
        reason = run.down("client id \"under-test\" is in use elsewhere") => reason,
    };
    assert!(reason.contains("connection"), "{reason}");
    // The rival goes, and nothing has to be done.
    drop(rival);
    run.up().await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_over_restarts_of_the_broker() {
    let extra = "persistence true\nautosave_interval 1\nautosave_on_changes true\n\
                 max_inflight_messages 0";
    let Some(mut broker) = Broker::mosquitto(extra) else {
        return;
    };
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, ""));
    run.up().await;
    let mut missing: HashSet<String> = numbers(6_000).collect();
    for round in 0..3 {
        let mut publisher = Client::new(broker.port, "publisher");
        let part = numbers(6_000).skip(round * 2_000).take(2_000);
        publisher.publish("a/b", part).await;
        let hand = run.hand().await;
        broker.end();
        let verdicts = vec![Verdict::Committed; hand.messages.len()];
        for payload in payloads(&hand.messages) {
            missing.remove(&payload);
        }
        drop(hand.reply.send(verdicts));
        broker.start();
        run.up().await;
    }
    while !missing.is_empty() {
        for payload in payloads(&run.take(1).await) {
            missing.remove(&payload);
        }
    }
    run.end().await;
    assert_eq!(left_in_session(broker.port).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_is_noticed_and_replaced() {
    let Some(broker) = Broker::mosquitto("") else {
        return;
    };
    let bed = Bed::new();
    let proxy = Proxy::start(broker.port, &bed).await;
    let mut run = bed.run(&source(proxy.port, "keep_alive = \"2s\""));
    run.up().await;
    proxy.set_dead(true);
    let since = std::time::Instant::now();
    run.down("no sign of life").await;
    assert!(
        since.elapsed() <= Duration::from_secs(20),
        "{:?}",
        since.elapsed()
    );
    proxy.set_dead(false);
    run.up().await;
    let mut publisher = Client::new(broker.port, "publisher");
    publisher.publish("a/b", ["alive".to_owned()]).await;
    assert_eq!(payloads(&run.take(1).await), ["alive"]);
    run.end().await;
}

/// Killed between commit and acknowledgement: the redelivery has the old stamp.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_time_keeps_its_stamp_over_a_kill() {
    for committed in [true, false] {
        let Some(broker) = Broker::mosquitto("") else {
            return;
        };
        let bed = Bed::new();
        let mut run = bed.run(&source(broker.port, ""));
        run.up().await;
        let mut publisher = Client::new(broker.port, "publisher");
        publisher.publish("a/b", numbers(50)).await;
        let (unanswered, before) = run.hold(50).await;
        if committed {
            run.commit(&before).await;
        }
        drop(unanswered);
        run.abandon().await;
        let last = before.iter().map(|m| m.stamp).max().unwrap();
        while pulse::model::Clock::System.now() <= last {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut again = bed.run(&source(broker.port, ""));
        let after = again.take(50).await;
        again.end().await;
        let stamps = |of: &[pulse::ingest::Message]| of.iter().map(|m| m.stamp).collect::<Vec<_>>();
        let unique: HashSet<_> = stamps(&before).into_iter().collect();
        assert_eq!(
            unique.len(),
            50,
            "a burst of one topic has different stamps"
        );
        // The control: without the rows the stamps are new, which is what would store twice.
        assert_eq!(stamps(&before) == stamps(&after), committed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_without_acknowledgements_is_dropped_not_kept() {
    let Some(broker) = Broker::mosquitto("") else {
        return;
    };
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, "packet_max = \"4MiB\""));
    run.up().await;
    let mut publisher = Client::new(broker.port, "publisher");
    for _ in 0..40 {
        let payload = vec![b'x'; 1 << 20];
        publisher
            .client
            .try_publish("a/b", QoS::AtMostOnce, false, payload)
            .unwrap();
    }
    publisher.publish("a/b", ["kept".to_owned()]).await;
    let counted = || {
        let dropped = bed.metric("pulse_mqtt_dropped_total", &[("reason", "overload")]);
        let held = bed.metric("pulse_mqtt_unacked", &[]);
        (dropped + held == 41.0).then_some(dropped)
    };
    let dropped = eventually("all are held or dropped", counted).await;
    assert!(dropped >= 15.0, "{dropped}");
    assert!(bed.metric("pulse_mqtt_queue_bytes", &[]) <= f64::from(26 << 20));
    let mut last = String::new();
    while last != "kept" {
        last = payloads(&run.take(1).await).pop().unwrap();
    }
    assert_eq!(bed.metric("pulse_mqtt_reconnects_total", &[]), 0.0);
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_shown_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    // user:right, as mosquitto_passwd writes it.
    let Some(tool) = crate::broker::program("mosquitto_passwd") else {
        return;
    };
    let file = dir.path().join("passwords");
    let made = std::process::Command::new(tool)
        .args(["-b", "-c", file.to_str().unwrap(), "user", "right"])
        .status()
        .unwrap();
    assert!(made.success());
    let extra = format!(
        "allow_anonymous false\npassword_file {}\nuser root",
        file.display()
    );
    let Some(broker) = Broker::mosquitto_in(dir, &extra) else {
        return;
    };
    for protocol in PROTOCOLS {
        let login = |password: &str| {
            let fields = format!(
                "protocol = \"{protocol}\"\nusername = \"user\"\npassword = \"{password}\""
            );
            source(broker.port, &fields)
        };
        let bed = Bed::new();
        let run = bed.run(&login("wrong"));
        run.down("not authorized").await;
        let config = pulse::config::Config::parse(&login("right"), "c.toml").unwrap();
        run.sources.reload(&config).unwrap();
        run.up().await;
        run.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_its_ca_and_checks_the_host_name() {
    for (name, works) in [("IP:127.0.0.1", true), ("DNS:elsewhere.example", false)] {
        let dir = tempfile::tempdir().unwrap();
        if certificates(dir.path(), name).is_none() {
            return;
        }
        let at = |file: &str| dir.path().join(file).display().to_string();
        let ca = at("ca.pem");
        let extra = format!(
            "cafile {ca}\ncertfile {}\nkeyfile {}\nuser root",
            at("server.pem"),
            at("server.key")
        );
        let Some(broker) = Broker::mosquitto_in(dir, &extra) else {
            return;
        };
        let bed = Bed::new();
        let config =
            source(broker.port, &format!("tls.ca_file = \"{ca}\"")).replace("mqtt://", "mqtts://");
        let run = bed.run(&config);
        if works {
            run.up().await;
        } else {
            run.down("certificate not valid for name").await;
        }
        run.end().await;
    }
}

/// The broker asks for a certificate of ours, and gets one or does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_to_a_broker_that_asks() {
    let dir = tempfile::tempdir().unwrap();
    if certificates(dir.path(), "IP:127.0.0.1").is_none() {
        return;
    }
    let at = |file: &str| dir.path().join(file).display().to_string();
    let (ca, cert, key) = (at("ca.pem"), at("server.pem"), at("server.key"));
    let extra =
        format!("cafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\nuser root");
    let Some(broker) = Broker::mosquitto_in(dir, &extra) else {
        return;
    };
    let config = |own: &str| {
        let fields = format!("tls.ca_file = \"{ca}\"\n{own}");
        source(broker.port, &fields).replace("mqtt://", "mqtts://")
    };
    let bed = Bed::new();
    let run = bed.run(&config(""));
    run.down("connect").await;
    let with = config(&format!(
        "tls.cert_file = \"{cert}\"\ntls.key_file = \"{key}\""
    ));
    let with = pulse::config::Config::parse(&with, "c.toml").unwrap();
    run.sources.reload(&with).unwrap();
    run.up().await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_touches_only_what_has_changed() {
    let Some(broker) = Broker::mosquitto("") else {
        return;
    };
    let named = |name: &str, topic: &str| {
        source(broker.port, "")
            .replace("\"t\"", &format!("{name:?}"))
            .replace("\"under-test\"", &format!("{name:?}"))
            .replace("a/#", topic)
    };
    let parse = |text: &str| pulse::config::Config::parse(text, "c.toml").unwrap();
    let bed = Bed::new();
    let run = bed.run(
        &[
            named("same", "a"),
            named("changes", "b"),
            named("goes", "c"),
        ]
        .concat(),
    );
    let connects = |name: &str| {
        let views = bed.views();
        let view = views.into_iter().find(|view| view.name == name);
        view.filter(|view| view.state == pulse::sources::SourceState::Up)
            .map(|view| view.connects)
    };
    let up = |names: &[&str]| {
        names
            .iter()
            .all(|name| connects(name).is_some())
            .then_some(())
    };
    eventually("all are up", || up(&["same", "changes", "goes"])).await;
    let reloaded = [
        named("same", "a"),
        named("changes", "d"),
        named("comes", "e"),
    ]
    .concat();
    run.sources.reload(&parse(&reloaded)).unwrap();
    assert_eq!(bed.views().len(), 3);
    eventually("all are up again", || up(&["same", "changes", "comes"])).await;
    assert_eq!(connects("same"), Some(1));
    // The old one ended before the new one used its client id.
    let lost = ["same", "changes", "comes"]
        .map(|name| bed.metric("pulse_mqtt_reconnects_total", &[("source", name)]));
    assert_eq!(lost, [0.0; 3]);
    // A mistake changes nothing.
    let wrong = reloaded.replace("[\"d\"]", "[\"#/d\"]");
    assert!(run.sources.reload(&parse(&wrong)).is_err());
    assert!(up(&["same", "changes", "comes"]).is_some());
    run.end().await;
}
