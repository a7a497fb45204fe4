//! Webhook delivery against a scripted receiver: what it does wrong, and what must hold.

use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use pulse::config::{self, Config};
use pulse::delivery::{self, DestinationState, End};
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, DeadLetter, Delivery, DeliveryKind, StateRow, TenantId, Timestamp};
use pulse::store::state::{decode_dead_letter, decode_delivery};
use pulse::store::{StateOp, Store, Table, WriteBatch};
use pulse::tasks::Tasks;
use pulse::telemetry::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(120);
const NOW: i64 = 1_700_000_000_000;

/// A request as the receiver got it.
#[derive(Clone, Debug)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }

    fn id(&self) -> &str {
        self.header("webhook-id")
    }
}

/// What the receiver does with a request.
#[derive(Clone)]
enum Answer {
    /// This status and more header lines.
    Status(u16, &'static str),
    /// Nothing, with the connection open.
    Hang,
    /// One byte of the head after the other, without an end.
    Drip,
    /// The connection ends without a byte.
    Cut,
    /// A success with so many bytes of header.
    LargeHead(usize),
    /// A success with so many bytes of body.
    LargeBody(usize),
}

type Script = dyn Fn(usize, &Seen) -> Answer + Send + Sync;

/// A receiver that follows a script by the number of the request.
struct Sink {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Sink {
    async fn start(
        tasks: &Tasks,
        script: impl Fn(usize, &Seen) -> Answer + Send + Sync + 'static,
    ) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let (spawner, log) = (tasks.clone(), Arc::clone(&seen));
        tasks.spawn_once(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                spawner.spawn_once(async move {
                    // An end of the connection is part of the game.
                    let _ = serve(stream, &script, &log).await;
                });
            }
        });
        Sink { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &Arc<Script>,
    log: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    loop {
        let seen = read_request(&mut stream).await?;
        let answer = {
            let mut log = log.lock().unwrap();
            log.push(seen.clone());
            script(log.len() - 1, &seen)
        };
        match answer {
            Answer::Status(status, more) => {
                let body = format!("answer {status}");
                let length = body.len();
                let text =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{more}\r\n{body}");
                stream.write_all(text.as_bytes()).await?;
            }
            Answer::Hang => std::future::pending().await,
            Answer::Drip => loop {
                stream.write_all(b"H").await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            },
            Answer::Cut => return Ok(()),
            Answer::LargeHead(bytes) => {
                let text = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(bytes));
                stream.write_all(text.as_bytes()).await?;
            }
            Answer::LargeBody(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&vec![b'z'; bytes]).await?;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> std::io::Result<Seen> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut seen = Seen {
        head: String::from_utf8(bytes[..head_end].to_vec()).unwrap(),
        body: bytes[head_end..].to_vec(),
    };
    let length: usize = seen.header("content-length").parse().unwrap_or(0);
    while seen.body.len() < length {
        if stream.read_buf(&mut seen.body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(seen)
}

/// A store with deliveries that run on it.
struct Rig {
    dir: tempfile::TempDir,
    store: Store,
    clock: ManualClock,
    metrics: Arc<Metrics>,
    config: Config,
    /// Those of the receivers, which outlive a restart.
    sinks: Tasks,
}

struct Running {
    delivery: delivery::Delivery,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::from_ms(NOW));
        let metrics = Metrics::new();
        let options = pulse::store::Options {
            dir: dir.path().to_owned(),
            store: config::Store::default(),
            limits: config::Limits::default(),
            tenants: Vec::new(),
        };
        let store =
            Store::open(options, Clock::Manual(clock.clone()), Arc::clone(&metrics)).unwrap();
        let sinks = Tasks::new(metrics.task_restarts.clone());
        Rig {
            dir,
            store,
            clock,
            metrics,
            config: Config::default(),
            sinks,
        }
    }

    async fn sink(&self, script: impl Fn(usize, &Seen) -> Answer + Send + Sync + 'static) -> Sink {
        Sink::start(&self.sinks, script).await
    }

    /// Adds a destination that leads to the sink.
    fn lead(&mut self, name: &str, sink: &Sink, more: &str) {
        let address = sink.address;
        let text = format!(
            "[[destination.webhook]]\nname = \"{name}\"\nurl = \"http://{address}/{name}\"\n{more}"
        );
        let config = Config::parse(&text, "test.toml").unwrap();
        let webhook = &mut self.config.destination.webhook;
        webhook.extend(config.destination.webhook);
    }

    fn run(&self) -> Running {
        let tasks = Tasks::new(self.metrics.task_restarts.clone());
        let stop = CancellationToken::new();
        let delivery = delivery::start(
            &self.config,
            self.store.clone(),
            Arc::clone(&self.metrics),
            Clock::Manual(self.clock.clone()),
            tasks.clone(),
            stop.clone(),
        )
        .unwrap();
        Running {
            delivery,
            tasks,
            stop,
        }
    }

    async fn enqueue(&self, delivery: Delivery) {
        let ops = vec![StateOp::Enqueue(Box::new(delivery))];
        self.store.write(WriteBatch::of_state(ops)).await.unwrap();
    }

    fn outbox(&self) -> Vec<Delivery> {
        self.rows(Table::Outbox)
            .iter()
            .map(|(_, row)| decode_delivery(row).unwrap())
            .collect()
    }

    fn dead(&self) -> Vec<DeadLetter> {
        self.rows(Table::Dead)
            .iter()
            .map(|(_, row)| decode_dead_letter(row).unwrap())
            .collect()
    }

    fn rows(&self, table: Table) -> Vec<(bytes::Bytes, bytes::Bytes)> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        self.store.scan(table, all, 10_000).unwrap()
    }

    /// Waits for a state, moving the clock on while it waits, so that rows fall due.
    async fn until(&self, what: &str, step: Duration, mut reached: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !reached() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "never came: {what}; outbox {:?}",
                self.outbox()
            );
            self.clock.advance(step);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn results(&self, result: &str) -> u64 {
        let labels = &["default", "webhook", result];
        self.metrics.delivery.total.with_label_values(labels).get()
    }

    async fn close(self) {
        self.store.close().await;
        self.dir.close().unwrap();
    }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.tasks.join().await;
    }

    fn view(&self) -> delivery::DestinationView {
        self.delivery.view().remove(0)
    }
}

fn event(destination: &str, id: &str) -> Delivery {
    Delivery {
        kind: DeliveryKind::Telemetry,
        event_id: id.to_owned(),
        destination: destination.to_owned(),
        tenant_id: TenantId::default_tenant(),
        route: "route".to_owned(),
        created_at: Timestamp::from_ms(NOW),
        attempts: 0,
        next_at: Timestamp::from_ms(NOW),
        flush_interval_ms: None,
        content_type: "application/json".to_owned(),
        on_success: Vec::new(),
        body: format!("{{\"event\":\"{id}\"}}").into_bytes(),
    }
}

fn notification(destination: &str, id: &str) -> Delivery {
    Delivery {
        kind: DeliveryKind::Notification,
        ..event(destination, id)
    }
}

const STILL: Duration = Duration::ZERO;
const FAST: Duration = Duration::from_millis(20);

/// Checks a signature with nothing of ours: HMAC-SHA256 over `id.timestamp.body`.
fn is_signed(seen: &Seen, key: &[u8]) -> bool {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let (id, timestamp) = (seen.id(), seen.header("webhook-timestamp"));
    let mut message = format!("{id}.{timestamp}.").into_bytes();
    message.extend_from_slice(&seen.body);
    seen.header("webhook-signature").split(' ').any(|one| {
        let signature = one.strip_prefix("v1,").unwrap();
        let signature = base64::engine::general_purpose::STANDARD
            .decode(signature)
            .unwrap();
        ring::hmac::verify(&key, &message, &signature).is_ok()
    })
}

#[tokio::test]
async fn a_failed_delivery_is_sent_again_with_the_same_id_and_body_and_signed() {
    let mut rig = Rig::new();
    let sink = rig
        .sink(|n, _| Answer::Status(if n < 2 { 500 } else { 204 }, ""))
        .await;
    rig.lead(
        "hook",
        &sink,
        "secret = \"whsec_bmV3LWtleQ==\"\nsecret_old = \"old key\"\nbearer_token = \"tok\"\n\
         headers = { X-Site = \"a\" }",
    );
    let running = rig.run();
    rig.enqueue(event("hook", "e1")).await;
    rig.until("the delivery", FAST, || rig.outbox().is_empty())
        .await;

    let seen = sink.seen();
    assert_eq!(seen.len(), 3);
    for one in &seen {
        assert!(one.head.starts_with("POST /hook HTTP/1.1\r\n"));
        assert_eq!(one.id(), "e1");
        assert_eq!(one.body, b"{\"event\":\"e1\"}");
        assert_eq!(one.header("content-type"), "application/json");
        assert_eq!(one.header("authorization"), "Bearer tok");
        assert_eq!(one.header("x-site"), "a");
        assert!(is_signed(one, b"new-key") && is_signed(one, b"old key"));
        assert!(!is_signed(one, b"other"));
    }
    // The timestamp is that of the attempt.
    let stamps: Vec<i64> = seen
        .iter()
        .map(|one| one.header("webhook-timestamp").parse().unwrap())
        .collect();
    assert!(
        stamps[1] - stamps[0] >= 4 && stamps[2] - stamps[1] >= 24,
        "{stamps:?}"
    );

    assert_eq!((rig.results("retry"), rig.results("success")), (2, 1));
    let history = running.delivery.history("hook", 10).unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].end, Some(End::Delivered));
    let statuses: Vec<_> = history[0].attempts.iter().map(|a| a.status).collect();
    assert_eq!(statuses, [Some(500), Some(500), Some(204)]);
    assert_eq!(history[0].attempts[0].answer, "answer 500");
    assert_eq!(running.view().last_error.as_deref(), Some("status 500"));
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn retry_after_is_followed_up_to_twice_the_step() {
    for (asked, want_ms) in [("1", 5_000), ("7", 7_000), ("3600", 10_000)] {
        let mut rig = Rig::new();
        let more: &'static str = format!("retry-after: {asked}\r\n").leak();
        let sink = rig.sink(move |_, _| Answer::Status(429, more)).await;
        rig.lead("hook", &sink, "");
        let running = rig.run();
        rig.enqueue(event("hook", "e1")).await;
        rig.until("the first attempt", STILL, || rig.outbox()[0].attempts == 1)
            .await;
        let wait = rig.outbox()[0].next_at.as_ms() - NOW;
        assert_eq!(wait, want_ms, "asked for {asked} s");
        running.stop().await;
        rig.close().await;
    }
}

#[tokio::test]
async fn whatever_a_receiver_does_wrong_the_event_arrives_in_the_end() {
    let mut rig = Rig::new();
    let wrong = [
        Answer::Hang,
        Answer::Drip,
        Answer::Cut,
        Answer::Status(302, "location: /hook\r\n"),
        Answer::LargeHead(100_000),
        Answer::Status(404, ""),
        Answer::Status(600, ""),
    ];
    let tries = wrong.len();
    let sink = rig
        .sink(move |n, _| wrong.get(n).cloned().unwrap_or(Answer::Status(200, "")))
        .await;
    let waits = vec!["\"1s\""; tries].join(",");
    rig.lead(
        "hook",
        &sink,
        &format!("timeout = \"150ms\"\nretry = [{waits}]"),
    );
    let running = rig.run();
    rig.enqueue(event("hook", "e1")).await;
    // The breaker opens on the way; its probe is in real time, so a reload closes it.
    let mut reloads = 0;
    rig.until("the delivery", FAST, || {
        if matches!(running.view().state, DestinationState::BreakerOpen(_)) {
            let mut config = rig.config.clone();
            reloads += 1;
            config.destination.webhook[0].headers =
                [("x-reload".to_owned(), reloads.to_string())].into();
            running.delivery.reload(&config).unwrap();
        }
        rig.outbox().is_empty()
    })
    .await;
    assert!(reloads > 0, "the breaker never opened");
    let seen = sink.seen();
    assert_eq!(
        seen.len(),
        tries + 1,
        "a redirect was followed or a try lost"
    );
    assert!(seen.iter().all(|one| one.id() == "e1"));
    let history = running.delivery.history("hook", 1).unwrap().remove(0);
    let errors: Vec<String> = history
        .attempts
        .iter()
        .map(|attempt| attempt.error.clone().unwrap_or_default())
        .collect();
    assert!(errors[0].contains("no answer within 150 ms"), "{errors:?}");
    assert!(errors[1].contains("no answer within 150 ms"), "{errors:?}");
    assert!(
        errors[3].contains("redirects are not followed"),
        "{errors:?}"
    );
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn a_huge_answer_is_a_success_of_which_little_is_kept() {
    let mut rig = Rig::new();
    let sink = rig.sink(|_, _| Answer::LargeBody(8 << 20)).await;
    rig.lead("hook", &sink, "");
    let running = rig.run();
    rig.enqueue(event("hook", "e1")).await;
    rig.until("the delivery", STILL, || rig.outbox().is_empty())
        .await;
    let history = running.delivery.history("hook", 1).unwrap().remove(0);
    assert_eq!(history.attempts[0].answer.len(), 1024);
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn after_410_nothing_is_sent_until_a_reload_and_nothing_is_lost() {
    let mut rig = Rig::new();
    let sink = rig
        .sink(|n, _| Answer::Status(if n == 0 { 410 } else { 200 }, ""))
        .await;
    rig.lead("hook", &sink, "");
    let running = rig.run();
    rig.enqueue(event("hook", "e1")).await;
    rig.until("the end", STILL, || {
        running.view().state == DestinationState::Disabled
    })
    .await;
    rig.enqueue(event("hook", "e2")).await;
    rig.until("the backlog", FAST, || running.view().backlog == 2)
        .await;
    assert_eq!(sink.count(), 1);
    assert_eq!(rig.results("failed"), 1);
    let disabled = &rig.metrics.delivery.disabled;
    assert_eq!(disabled.with_label_values(&["hook"]).get(), 1);

    running.delivery.reload(&rig.config).unwrap();
    rig.until("both deliveries", FAST, || rig.outbox().is_empty())
        .await;
    let ids: Vec<String> = sink.seen().iter().map(|s| s.id().to_owned()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.contains(&"e2".to_owned()));
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn the_last_failure_makes_a_dead_letter() {
    let mut rig = Rig::new();
    let sink = rig.sink(|_, _| Answer::Status(503, "")).await;
    rig.lead("hook", &sink, "retry = [\"1s\", \"1s\"]");
    let running = rig.run();
    let body = vec![b'x'; 100_000];
    rig.enqueue(Delivery {
        body: body.clone(),
        ..event("hook", "e1")
    })
    .await;
    rig.until("the dead letter", FAST, || !rig.dead().is_empty())
        .await;
    assert_eq!(sink.count(), 3);
    assert!(rig.outbox().is_empty());
    let letter = rig.dead().remove(0);
    assert_eq!(letter.source, "hook");
    assert_eq!(letter.topic, "route");
    assert_eq!(letter.reason, "exhausted");
    assert_eq!(letter.detail, "status 503");
    assert_eq!(letter.attempts, 3);
    assert_eq!(letter.payload_bytes, 100_000);
    assert_eq!(letter.payload, body[..64 * 1024]);
    rig.until("the metrics", STILL, || {
        let delivery = &rig.metrics.delivery;
        let tenant = &["default"];
        delivery.dlq.with_label_values(tenant).get() == 1
            && delivery.dlq_depth.with_label_values(tenant).get() == 1
    })
    .await;
    assert_eq!((rig.results("retry"), rig.results("dlq")), (2, 1));
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn an_ordered_destination_waits_for_its_head() {
    let mut rig = Rig::new();
    let sink = rig
        .sink(|n, _| Answer::Status(if n < 3 { 500 } else { 200 }, ""))
        .await;
    rig.lead("hook", &sink, "ordered = true");
    let running = rig.run();
    for n in 0..40 {
        rig.enqueue(event("hook", &format!("e{n}"))).await;
    }
    rig.until("all deliveries", Duration::from_millis(200), || {
        rig.outbox().is_empty()
    })
    .await;
    let ids: Vec<String> = sink.seen().iter().map(|s| s.id().to_owned()).collect();
    let wanted: Vec<String> = [0, 0, 0]
        .into_iter()
        .chain(0..40)
        .map(|n| format!("e{n}"))
        .collect();
    assert_eq!(ids, wanted);
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn a_restart_delivers_the_rest() {
    let mut rig = Rig::new();
    let sink = rig
        .sink(|n, _| Answer::Status(if n < 3 { 500 } else { 200 }, ""))
        .await;
    rig.lead("hook", &sink, "concurrency = 1");
    let running = rig.run();
    for n in 0..200 {
        rig.enqueue(event("hook", &format!("e{n:03}"))).await;
    }
    rig.until("a failure", STILL, || sink.count() >= 3).await;
    running.stop().await;
    let left = rig.outbox();
    assert!(!left.is_empty());

    let again = rig.run();
    rig.until("the rest", FAST, || rig.outbox().is_empty())
        .await;
    let mut ids: Vec<String> = sink.seen().iter().map(|s| s.id().to_owned()).collect();
    // Three failed, each of which came again; no success was repeated.
    assert_eq!(ids.len(), 203);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    rig.until("the empty view", STILL, || again.view().backlog == 0)
        .await;
    again.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn an_open_breaker_uses_up_no_attempts() {
    let mut rig = Rig::new();
    let sink = rig.sink(|_, _| Answer::Status(500, "")).await;
    rig.lead("hook", &sink, "concurrency = 1");
    let running = rig.run();
    for n in 0..20 {
        rig.enqueue(event("hook", &format!("e{n}"))).await;
    }
    rig.until("the breaker", STILL, || {
        matches!(running.view().state, DestinationState::BreakerOpen(_))
    })
    .await;
    rig.until("the record of the attempts", STILL, || {
        rig.outbox().iter().filter(|row| row.attempts == 1).count() == 5
    })
    .await;
    assert_eq!(sink.count(), 5);
    let untouched = rig.outbox().iter().filter(|row| row.attempts == 0).count();
    assert_eq!(untouched, 15);
    let open = &rig.metrics.delivery.breaker_open;
    assert_eq!(open.with_label_values(&["hook"]).get(), 1);
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn a_breaker_that_holds_nothing_up_is_not_shown() {
    let mut rig = Rig::new();
    let sink = rig.sink(|_, _| Answer::Status(500, "")).await;
    rig.lead("hook", &sink, "concurrency = 1");
    let running = rig.run();
    for n in 0..5 {
        rig.enqueue(notification("hook", &format!("n{n}"))).await;
    }
    let is_open = || matches!(running.view().state, DestinationState::BreakerOpen(_));
    let open = rig.metrics.delivery.breaker_open.clone();
    let gauge = || open.with_label_values(&["hook"]).get();
    rig.until("the breaker", STILL, || is_open() && gauge() == 1)
        .await;
    let all = (Bound::Unbounded, Bound::Unbounded);
    let rows = rig.store.scan(Table::Outbox, all, 100).unwrap();
    let withdrawn = rows.into_iter().map(|(key, _)| StateOp::Delete {
        table: Table::Outbox,
        key,
    });
    let batch = WriteBatch::of_state(withdrawn.collect());
    rig.store.write(batch).await.unwrap();
    rig.until("an empty queue", FAST, || running.view().backlog == 0)
        .await;
    rig.until("nothing that is held up", STILL, || {
        !is_open() && gauge() == 0
    })
    .await;
    let tried = sink.count();
    // The next one is the probe.
    rig.enqueue(notification("hook", "n9")).await;
    rig.until("a probe", FAST, || sink.count() > tried && gauge() == 1)
        .await;
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn a_breaker_stays_open_over_a_restart_until_a_probe_succeeds() {
    let mut rig = Rig::new();
    let clock = rig.clock.clone();
    let sink = rig
        .sink(move |n, _| {
            // What is on record knows that the attempts were not made at once.
            clock.advance(Duration::from_secs(1));
            Answer::Status(if n < 6 { 500 } else { 200 }, "")
        })
        .await;
    rig.lead("hook", &sink, "concurrency = 1");
    let is_open = |running: &Running| {
        let state = running.view().state;
        matches!(state, DestinationState::BreakerOpen(_))
    };
    let running = rig.run();
    for n in 0..20 {
        rig.enqueue(event("hook", &format!("e{n}"))).await;
    }
    rig.until("the breaker", STILL, || is_open(&running)).await;
    running.stop().await;
    assert_eq!(sink.count(), 5);

    rig.metrics = Metrics::new();
    let again = rig.run();
    rig.until("a probe that fails", STILL, || {
        sink.count() == 6 && is_open(&again)
    })
    .await;
    let open = rig.metrics.delivery.breaker_open.clone();
    assert_eq!(open.with_label_values(&["hook"]).get(), 1);
    again.stop().await;
    assert_eq!(sink.count(), 6, "one probe is enough");

    let last = rig.run();
    rig.until("everything that was due", STILL, || sink.count() >= 20)
        .await;
    rig.until("a closed breaker", STILL, || {
        open.with_label_values(&["hook"]).get() == 0
    })
    .await;
    last.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_nobody_else() {
    let mut rig = Rig::new();
    let hanging = rig.sink(|_, _| Answer::Hang).await;
    let good = rig.sink(|_, _| Answer::Status(200, "")).await;
    rig.lead("hanging", &hanging, "");
    rig.lead("good", &good, "");
    let running = rig.run();
    for n in 0..100 {
        rig.enqueue(event("hanging", &format!("h{n}"))).await;
        rig.enqueue(event("good", &format!("g{n}"))).await;
    }
    rig.until("the good deliveries", STILL, || good.count() == 100)
        .await;
    assert_eq!(hanging.count(), 4, "one for each slot");
    // Attempts under way do not hold up the stop for long.
    let began = tokio::time::Instant::now();
    running.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    rig.close().await;
}

#[tokio::test]
async fn a_notification_leaves_its_mark_when_it_has_arrived() {
    let mut rig = Rig::new();
    let sink = rig
        .sink(|n, _| Answer::Status(if n == 0 { 500 } else { 200 }, ""))
        .await;
    rig.lead("hook", &sink, "");
    let running = rig.run();
    rig.enqueue(Delivery {
        on_success: vec![StateRow {
            table: "notify_state".to_owned(),
            key: b"group".to_vec(),
            value: Some(b"told".to_vec()),
        }],
        ..notification("hook", "n1")
    })
    .await;
    rig.until("the first attempt", STILL, || sink.count() == 1)
        .await;
    assert!(rig.rows(Table::NotifyState).is_empty());
    let queue = |name| {
        let service = pulse::telemetry::metrics::ServiceName::DeliveryWorker;
        rig.metrics.service.queue(service, name).get()
    };
    assert_eq!(queue("pending_notification_jobs"), 1);
    assert_eq!(queue("pending_jobs"), 0);
    rig.until("the delivery", FAST, || rig.outbox().is_empty())
        .await;
    let told = rig.rows(Table::NotifyState);
    assert_eq!(told.len(), 1);
    assert_eq!(&told[0].0[..], b"group");
    let value = String::from_utf8(told[0].1.to_vec()).unwrap();
    let sent_at = value.strip_prefix("told ").unwrap().parse::<i64>().unwrap();
    assert!(sent_at > NOW, "the time of the send and not of the flush");
    rig.until("the empty queue", STILL, || {
        queue("pending_notification_jobs") == 0
    })
    .await;
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn a_notification_is_sent_again_with_its_body() {
    for more in ["", "ordered = true"] {
        let mut rig = Rig::new();
        let sink = rig
            .sink(|n, _| Answer::Status(if n < 2 { 500 } else { 200 }, ""))
            .await;
        rig.lead("hook", &sink, more);
        let running = rig.run();
        rig.enqueue(notification("hook", "n1")).await;
        rig.until("the delivery", FAST, || rig.outbox().is_empty())
            .await;
        let seen = sink.seen();
        let bodies: Vec<&[u8]> = seen.iter().map(|one| &one.body[..]).collect();
        assert_eq!(bodies, [br#"{"event":"n1"}"#; 3], "{more}");
        running.stop().await;
        rig.close().await;
    }
}

#[tokio::test]
async fn a_replaced_notification_is_not_sent_again() {
    let mut rig = Rig::new();
    let sink = rig
        .sink(|_, seen| Answer::Status(if seen.id() == "old" { 500 } else { 200 }, ""))
        .await;
    rig.lead("hook", &sink, "");
    let running = rig.run();
    rig.enqueue(notification("hook", "old")).await;
    rig.until("the first attempt", STILL, || {
        running.view().last_failure.is_some()
    })
    .await;
    // As alerting does with a newer flush: one transaction.
    let (key, _) = rig.rows(Table::Outbox).remove(0);
    let table = Table::Outbox;
    let ops = vec![
        StateOp::Delete { table, key },
        StateOp::Enqueue(Box::new(notification("hook", "new"))),
    ];
    rig.store.write(WriteBatch::of_state(ops)).await.unwrap();
    rig.until("the newer one", FAST, || rig.outbox().is_empty())
        .await;
    rig.until("the end of the old one", FAST, || {
        running.view().backlog == 0
    })
    .await;
    let ids: Vec<String> = sink.seen().iter().map(|s| s.id().to_owned()).collect();
    assert_eq!(ids, ["old", "new"]);
    assert!(rig.dead().is_empty());
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn a_refused_notification_stays_until_it_is_too_old() {
    let mut rig = Rig::new();
    let sink = rig.sink(|_, _| Answer::Status(400, "")).await;
    rig.lead("hook", &sink, "notification_max_age = \"12m\"");
    let running = rig.run();
    rig.enqueue(notification("hook", "n1")).await;
    let attempts = || {
        let history = running.delivery.history("hook", 1).unwrap();
        history.first().map_or(0, |event| event.attempts.len())
    };
    for tried in 1..=3 {
        rig.until("a refused attempt", STILL, || attempts() == tried)
            .await;
        // To when the next flush is over and no further, however slow the machine is.
        let flushes = i64::try_from(tried).unwrap() * 300_000;
        rig.clock.set(Timestamp::from_ms(NOW + flushes + 1_000));
    }
    rig.until("the dead letter", STILL, || !rig.dead().is_empty())
        .await;
    assert_eq!(rig.dead()[0].reason, "expired");
    let history = running.delivery.history("hook", 1).unwrap().remove(0);
    assert_eq!(history.end, Some(End::Dead));
    let after: Vec<i64> = history
        .attempts
        .iter()
        .map(|a| a.at.ms_since(Timestamp::from_ms(NOW)))
        .collect();
    assert_eq!(after, [0, 301_000, 601_000, 901_000]);
    running.stop().await;
    rig.close().await;
}

#[tokio::test]
async fn a_jump_of_the_clock_back_holds_up_nothing() {
    let mut rig = Rig::new();
    let sink = rig
        .sink(|n, _| Answer::Status(if n == 0 { 500 } else { 200 }, ""))
        .await;
    rig.lead("hook", &sink, "");
    let running = rig.run();
    rig.enqueue(event("hook", "e1")).await;
    rig.until("the first attempt", STILL, || {
        rig.outbox().first().is_some_and(|row| row.attempts == 1)
    })
    .await;
    rig.clock.set(Timestamp::from_ms(NOW - 3_600_000));
    rig.until("the delivery", FAST, || rig.outbox().is_empty())
        .await;
    // The step is 5 s, twice of which is the most that a row waits after a jump; the clock runs
    // on while a slow machine delivers, so that the bound here is far above and far below the hour.
    let late = Clock::Manual(rig.clock.clone()).now().as_ms() - (NOW - 3_600_000);
    assert!(late < 600_000, "{late} ms after the jump");
    running.stop().await;
    rig.close().await;
}
