//! The NATS source against a real nats-server.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer, stream};
use pulse::ingest::Verdict;

use crate::broker::{Bed, Broker, Proxy, certificates, eventually, payloads};

/// A JetStream source called `t` on stream `S`.
fn source(port: u16, extra: &str) -> String {
    format!(
        "[[source.nats]]\nname = \"t\"\nurl = \"nats://127.0.0.1:{port}\"\nstream = \"S\"\n\
         consumer = \"c\"\nsubjects = [\"a.>\"]\nack_wait = \"1s\"\n{extra}\n"
    )
}

/// The server's side: its stream and what it knows of our consumer.
struct Stream(jetstream::Context);

impl Stream {
    async fn new(port: u16) -> Stream {
        let client = async_nats::connect(format!("127.0.0.1:{}", port))
            .await
            .unwrap();
        let context = jetstream::new(client);
        let stream = Stream(context);
        stream.create().await;
        stream
    }

    async fn create(&self) {
        let config = stream::Config {
            name: "S".into(),
            subjects: vec!["a.>".into()],
            ..stream::Config::default()
        };
        self.0.get_or_create_stream(config).await.unwrap();
    }

    async fn publish(&self, payloads: impl IntoIterator<Item = String>) {
        let mut open = Vec::new();
        for payload in payloads {
            open.push(self.0.publish("a.b", payload.into()).await.unwrap());
            if open.len() >= 500 {
                for ack in open.drain(..) {
                    ack.await.unwrap();
                }
            }
        }
        for ack in open {
            ack.await.unwrap();
        }
    }

    async fn info(&self) -> consumer::Info {
        let stream = self.0.get_stream("S").await.unwrap();
        stream.consumer_info("c").await.unwrap()
    }

    /// Waits until the server has neither unsent nor unacknowledged messages for us.
    async fn settled(&self) {
        let start = Instant::now();
        loop {
            let info = self.info().await;
            if (info.num_pending, info.num_ack_pending) == (0, 0) {
                return;
            }
            assert!(start.elapsed() < crate::broker::PATIENCE, "{info:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| n.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_handed_over_and_acknowledged_once() {
    let Some(broker) = Broker::nats("") else {
        return;
    };
    let stream = Stream::new(broker.port).await;
    let bed = Bed::new();
    let mut run =
        bed.run(&source(broker.port, "ack_wait = \"10s\"").replace("ack_wait = \"1s\"\n", ""));
    run.up().await;
    let (messages, ()) = tokio::join!(run.take(20_000), stream.publish(numbers(20_000)));
    assert!(payloads(&messages).into_iter().eq(numbers(20_000)));
    assert_eq!((&messages[0].topic[..], messages[0].delivered), ("a/b", 1));
    let stamps: HashSet<_> = messages.iter().map(|m| m.stamp).collect();
    assert_eq!(
        stamps.len(),
        20_000,
        "messages of one subject have different stamps"
    );
    stream.settled().await;
    run.end().await;
    assert_eq!(bed.metric("pulse_nats_redelivered_total", &[]), 0.0);
    assert_eq!(bed.metric("pulse_ingest_nats_pending", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again_with_the_same_stamps() {
    let Some(broker) = Broker::nats("") else {
        return;
    };
    let stream = Stream::new(broker.port).await;
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, ""));
    run.up().await;
    stream.publish(numbers(200)).await;
    let (unanswered, before) = run.hold(200).await;
    run.commit(&before).await;
    drop(unanswered);
    run.abandon().await;
    let mut again = bed.run(&source(broker.port, ""));
    let after = again.take(200).await;
    let by_payload = |of: &[pulse::ingest::Message]| {
        let mut of: Vec<_> = of.iter().map(|m| (m.payload.clone(), m.stamp)).collect();
        of.sort();
        of
    };
    assert_eq!(by_payload(&before), by_payload(&after));
    assert!(after.iter().all(|message| message.delivered > 1));
    stream.settled().await;
    // Behind the ack floor the rows go.
    let rows = || {
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let rows = bed
            .store
            .scan(pulse::store::Table::Inflight, all, 1_000)
            .unwrap();
        rows.iter()
            .all(|(key, _)| key[..].starts_with(b"nats:t\0t"))
            .then_some(())
    };
    eventually("rows of settled messages are gone", rows).await;
    again.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_comes_again_and_a_refusal_does_not() {
    let Some(broker) = Broker::nats("") else {
        return;
    };
    let stream = Stream::new(broker.port).await;
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, ""));
    run.up().await;
    stream
        .publish(["retry".into(), "refuse".into(), "store".into()])
        .await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let hand = run.hand().await;
        let verdict = |message: &pulse::ingest::Message| match &message.payload[..] {
            b"retry" if message.delivered == 1 => Verdict::Retry,
            b"refuse" => Verdict::Rejected("parse"),
            _ => Verdict::Committed,
        };
        let verdicts = hand.messages.iter().map(verdict).collect();
        seen.extend(
            hand.messages
                .iter()
                .map(|m| (payloads(std::slice::from_ref(m)).remove(0), m.delivered)),
        );
        hand.reply.send(verdicts).unwrap();
    }
    assert_eq!(seen[3], ("retry".to_owned(), 2));
    stream.settled().await;
    assert_eq!(stream.info().await.num_redelivered, 0);
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_messages_are_under_way_than_max_ack_pending() {
    let Some(broker) = Broker::nats("") else {
        return;
    };
    let stream = Stream::new(broker.port).await;
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, "max_ack_pending = 4"));
    run.up().await;
    stream.publish(numbers(7)).await;
    let mut held = Vec::new();
    let mut count = 0;
    while count < 4 {
        let hand = run.hand().await;
        count += hand.messages.len();
        held.push(hand);
    }
    let info = stream.info().await;
    assert_eq!((count, info.num_ack_pending, info.num_pending), (4, 4, 3));
    for hand in held {
        let verdicts = vec![Verdict::Committed; hand.messages.len()];
        hand.reply.send(verdicts).unwrap();
    }
    assert_eq!(run.take(3).await.len(), 3);
    stream.settled().await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_in_progress_is_not_delivered_again() {
    let Some(broker) = Broker::nats("") else {
        return;
    };
    let stream = Stream::new(broker.port).await;
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, ""));
    run.up().await;
    stream.publish(["slow".to_owned()]).await;
    let hand = run.hand().await;
    // Three times ack_wait, measured by the server's own clock.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(stream.info().await.num_redelivered, 0);
    hand.reply.send(vec![Verdict::Committed]).unwrap();
    stream.settled().await;
    assert_eq!(bed.metric("pulse_nats_redelivered_total", &[]), 0.0);
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_is_shown_until_it_is_there() {
    let Some(broker) = Broker::nats("") else {
        return;
    };
    let bed = Bed::new();
    let run = bed.run(&source(broker.port, ""));
    run.down("cannot use stream \"S\"").await;
    let stream = Stream::new(broker.port).await;
    run.up().await;
    let lagging = || {
        bed.metric(
            "pulse_nats_consumer_pending",
            &[("stream", "S"), ("consumer", "c")],
        )
    };
    assert_eq!(lagging(), 0.0);
    // Somebody deletes the consumer: it is made again.
    stream
        .0
        .delete_consumer_from_stream("c", "S")
        .await
        .unwrap();
    eventually("connected again", || {
        (run.view().connects >= 2).then_some(())
    })
    .await;
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_over_kills_of_the_server() {
    let Some(mut broker) = Broker::nats("") else {
        return;
    };
    let stream = Stream::new(broker.port).await;
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, ""));
    run.up().await;
    let mut missing: HashSet<String> = numbers(3_000).collect();
    for round in 0..3 {
        let part = numbers(3_000).skip(round * 1_000).take(1_000);
        stream.publish(part).await;
        let hand = run.hand().await;
        broker.kill();
        for payload in payloads(&hand.messages) {
            missing.remove(&payload);
        }
        let verdicts = vec![Verdict::Committed; hand.messages.len()];
        drop(hand.reply.send(verdicts));
        run.down("connection").await;
        broker.start();
        run.up().await;
        let connected = || async {
            let state = stream.0.client().connection_state();
            (state == async_nats::connection::State::Connected).then_some(())
        };
        while connected().await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    while !missing.is_empty() {
        for payload in payloads(&run.take(1).await) {
            missing.remove(&payload);
        }
    }
    // What was answered while the server was away comes again after ack_wait.
    let start = Instant::now();
    loop {
        let info = stream.info().await;
        if (info.num_pending, info.num_ack_pending) == (0, 0) {
            break;
        }
        assert!(start.elapsed() < crate::broker::PATIENCE, "{info:?}");
        while let Ok(hand) = run.hands.try_recv() {
            let verdicts = vec![Verdict::Committed; hand.messages.len()];
            drop(hand.reply.send(verdicts));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_is_noticed_and_replaced() {
    let Some(broker) = Broker::nats("") else {
        return;
    };
    let stream = Stream::new(broker.port).await;
    let bed = Bed::new();
    let proxy = Proxy::start(broker.port, &bed).await;
    let mut run = bed.run(&source(proxy.port, ""));
    run.up().await;
    proxy.set_dead(true);
    let since = Instant::now();
    run.down("").await;
    assert!(
        since.elapsed() <= Duration::from_secs(40),
        "{:?}",
        since.elapsed()
    );
    proxy.set_dead(false);
    run.up().await;
    stream.publish(["alive".to_owned()]).await;
    assert_eq!(payloads(&run.take(1).await), ["alive"]);
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_subscription_takes_what_is_published_while_it_lasts() {
    let Some(broker) = Broker::nats("") else {
        return;
    };
    let client = async_nats::connect(format!("127.0.0.1:{}", broker.port))
        .await
        .unwrap();
    client.publish("a.b", "before".into()).await.unwrap();
    client.flush().await.unwrap();
    let bed = Bed::new();
    let mut run = bed.run(&source(broker.port, "mode = \"core\""));
    run.up().await;
    assert_eq!(run.view().guarantee, "at most once");
    let published = async {
        loop {
            client.publish("a.b.c", "during".into()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let messages = tokio::select! {
        () = published => unreachable!("it never ends"),
        messages = run.take(3) => messages,
    };
    assert!(
        messages
            .iter()
            .all(|m| &m.payload[..] == b"during" && m.topic == "a/b/c")
    );
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_used_and_a_refusal_is_shown() {
    let token = "authorization { token: right }";
    let user = "authorization { user: u, password: right }";
    for (server, right, wrong) in [
        (token, "token = \"right\"", "token = \"wrong\""),
        (
            user,
            "username = \"u\"\npassword = \"right\"",
            "username = \"u\"\npassword = \"wrong\"",
        ),
    ] {
        let Some(broker) = Broker::nats(server) else {
            return;
        };
        let bed = Bed::new();
        let run = bed.run(&source(broker.port, &format!("mode = \"core\"\n{wrong}")));
        run.down("authorization violation").await;
        let config = source(broker.port, &format!("mode = \"core\"\n{right}"));
        let config = pulse::config::Config::parse(&config, "c.toml").unwrap();
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
            "tls {{ cert_file: {:?}, key_file: {:?} }}",
            at("server.pem"),
            at("server.key")
        );
        let Some(broker) = Broker::nats_in(dir, &extra) else {
            return;
        };
        let bed = Bed::new();
        let fields = format!("mode = \"core\"\ntls.ca_file = \"{ca}\"");
        let config = source(broker.port, &fields).replace("nats://", "tls://");
        let run = bed.run(&config);
        if works {
            run.up().await;
        } else {
            run.down("certificate not valid for name").await;
        }
        run.end().await;
    }
}
