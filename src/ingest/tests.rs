//! Messages through the whole of ingest into a real store.

use std::ops::Bound;
use std::time::Duration;

use super::registry::row_key;
use super::*;
use crate::model::clock::ManualClock;
use crate::model::{DeadLetter, Delivery, Matcher};
use crate::promql::{Queryable as _, SelectHints};
use crate::store::{Options, Table, state};

const NOW: i64 = 1_700_000_000_000;
const TOPIC: &str = "tenants/acme/devices/d1/telemetry";

pub(super) fn message(topic: &str, payload: &str) -> Message {
    Message {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        stamp: Timestamp::from_ms(NOW),
        delivered: 1,
        tenant: None,
        state: Vec::new(),
    }
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        source: "mqtt:test".into(),
        kind: "mqtt",
        historical: false,
    })
}

/// A hand as it lies in a lane.
pub(super) fn plain_hand(messages: Vec<Message>, room: Room) -> Hand {
    let metrics = Metrics::new();
    let plan = Plan::compile(&Config::default()).unwrap();
    Hand {
        origin: origin(),
        messages,
        reply: Reply(Answer::Verdicts(oneshot::channel().0)),
        lots: Vec::new(),
        active: Arc::new(plan.activate(&metrics.ingest)),
        room,
    }
}

struct Desk {
    ingest: Ingest,
    store: Store,
    metrics: Arc<Metrics>,
    clock: ManualClock,
    tasks: Tasks,
    stop: CancellationToken,
}

fn parse(text: &str) -> Config {
    Config::parse(text, "c.toml").unwrap()
}

impl Desk {
    fn open(dir: &std::path::Path, text: &str) -> Desk {
        let config = parse(text);
        let metrics = Metrics::new();
        let clock = ManualClock::new(Timestamp::from_ms(NOW + 1_000));
        let options = Options {
            dir: dir.to_owned(),
            store: config.store.clone(),
            limits: config.limits.clone(),
            tenants: config.tenant.clone(),
        };
        let shared = Clock::Manual(clock.clone());
        let store = Store::open(options, shared.clone(), Arc::clone(&metrics)).unwrap();
        let tasks = Tasks::new(metrics.task_restarts.clone());
        let stop = CancellationToken::new();
        let ingest = start(
            &config,
            store.clone(),
            Arc::clone(&metrics),
            shared,
            &tasks,
            stop.clone(),
        )
        .unwrap();
        Desk {
            ingest,
            store,
            metrics,
            clock,
            tasks,
            stop,
        }
    }

    async fn close(self) {
        self.stop.cancel();
        self.tasks.join().await;
        self.store.close().await;
    }

    async fn send(&self, messages: Vec<Message>) -> Vec<Verdict> {
        let verdicts = self.ingest.submit(&origin(), messages).await.unwrap();
        tokio::time::timeout(Duration::from_secs(120), verdicts)
            .await
            .expect("a verdict within two minutes")
            .expect("an answer")
    }

    async fn send_one(&self, topic: &str, payload: &str) -> Verdict {
        self.send(vec![message(topic, payload)]).await[0]
    }

    /// Everything stored, as `series time=value ...`.
    fn stored(&self) -> Vec<String> {
        let all = [Matcher::equal("tenant_id", "acme")];
        let (from, to) = (
            Timestamp::from_ms(NOW - 3_600_000),
            Timestamp::from_ms(NOW + 3_600_000),
        );
        let series = self
            .store
            .select(from, to, &all, &SelectHints::default())
            .unwrap();
        series
            .iter()
            .map(|series| {
                let samples = series.samples.iter();
                let samples = samples.map(|s| format!(" {}={}", s.t.as_ms() - NOW, s.v));
                let name = series.labels.metric_name();
                let device = series.labels.value("device_id");
                format!("{name}/{device}{}", samples.collect::<String>())
            })
            .collect()
    }

    fn rows(&self, table: Table) -> Vec<(Bytes, Bytes)> {
        self.store
            .scan(table, (Bound::Unbounded, Bound::Unbounded), 100_000)
            .unwrap()
    }

    fn dead(&self) -> Vec<DeadLetter> {
        let rows = self.rows(Table::Dead);
        let letters = rows
            .iter()
            .map(|(_, row)| state::decode_dead_letter(row).unwrap());
        letters.collect()
    }

    fn outbox(&self) -> Vec<Delivery> {
        let rows = self.rows(Table::Outbox);
        rows.iter()
            .map(|(_, row)| state::decode_delivery(row).unwrap())
            .collect()
    }

    fn results(&self) -> [u64; 4] {
        ["accepted", "rejected", "duplicate", "throttled"].map(|result| {
            let messages = &self.metrics.ingest.messages;
            messages.with_label_values(&["acme", result]).get()
        })
    }

    fn rejected(&self, reason: &str) -> u64 {
        let rejected = &self.metrics.ingest.rejected;
        rejected.with_label_values(&["acme", reason]).get()
    }

    /// The value of a family's child with these label values.
    fn value(&self, family: &str, labels: &[&str]) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|f| f.name() == family).expect(family);
        let has = |m: &&prometheus::proto::Metric| {
            let values: Vec<&str> = m.get_label().iter().map(|l| l.value()).collect();
            labels.iter().all(|l| values.contains(l))
        };
        let metric = family.get_metric().iter().find(has).expect("a child");
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }
}

macro_rules! desk {
    ($dir:ident, $desk:ident, $text:expr) => {
        let $dir = tempfile::tempdir().unwrap();
        let $desk = Desk::open($dir.path(), $text);
    };
}

mod conflicts;
mod limits;
mod routing;

#[tokio::test]
async fn a_message_is_stored_once_however_often_it_comes() {
    desk!(_dir, desk, "");
    let payload = r#"{"ts":1700000000000,"temperature":21.5,"humidity":40}"#;
    assert_eq!(desk.send_one(TOPIC, payload).await, Verdict::Committed);
    let want = ["humidity/d1 0=40", "temperature/d1 0=21.5"];
    assert_eq!(desk.stored(), want);
    let again = vec![message(TOPIC, payload), message(TOPIC, payload)];
    assert_eq!(desk.send(again).await, [Verdict::Committed; 2]);
    assert_eq!(desk.stored(), want);
    assert_eq!(desk.results(), [1, 0, 2, 0]);
    assert_eq!(desk.value("pulse_ingest_samples_total", &["acme"]), 2.0);
    assert!(desk.dead().is_empty());
    desk.close().await;
}

#[tokio::test]
async fn hostile_messages_are_kept_as_dead_letters_and_stop_nothing() {
    desk!(_dir, desk, "");
    let deep = format!("{{\"v\":{}", "[".repeat(100_000));
    let large = format!("{{\"v\":1,\"s\":\"{}\"}}", "x".repeat(20 << 20));
    let cases = [
        (TOPIC, deep.as_str(), "parse"),
        (TOPIC, large.as_str(), "size"),
        (TOPIC, "{\"v\":1e999}", "parse"),
        (TOPIC, "{\"v\":1,\"v\":2}", "conflict"),
        (TOPIC, "", "parse"),
        (TOPIC, "\0", "parse"),
        (TOPIC, "{\"v\":1,\"tenant_id\":\"other\"}", "tenant"),
        (TOPIC, "{\"ts\":1,\"v\":1}", "timestamp"),
        (TOPIC, "{\"ts\":1e300,\"v\":1}", "timestamp"),
        (TOPIC, "{\"ts\":\"x\",\"v\":1}", "timestamp"),
        ("tenants/acme/devices/a\"b/telemetry", "{\"v\":1}", "topic"),
    ];
    for (n, (topic, payload, reason)) in cases.iter().enumerate() {
        assert_eq!(
            desk.send_one(topic, payload).await,
            Verdict::Rejected(reason)
        );
        let dead = desk.dead();
        assert_eq!(dead.len(), n + 1);
        let letter = &dead[n];
        assert_eq!(
            (letter.reason.as_str(), letter.tenant_id.as_str()),
            (*reason, "acme")
        );
        assert_eq!(letter.payload_bytes, payload.len() as u64);
        assert_eq!(
            (letter.source.as_str(), letter.topic.as_str()),
            ("mqtt:test", *topic)
        );
        let good = format!("{{\"v\":{n}}}");
        let other = format!("tenants/acme/devices/g{n}/telemetry");
        assert_eq!(desk.send_one(&other, &good).await, Verdict::Committed);
    }
    let mut bad_bytes = message(TOPIC, "");
    bad_bytes.payload = Bytes::from_static(b"{\"\xff\":1}");
    assert_eq!(
        desk.send(vec![bad_bytes]).await,
        [Verdict::Rejected("encoding")]
    );
    assert_eq!(desk.rejected("parse"), 4);
    assert_eq!(desk.results(), [11, 12, 0, 0]);
    assert_eq!(
        desk.value("messages_failed_total", &["telemetry", "parse"]),
        4.0
    );
    assert_eq!(desk.value("pulse_delivery_dlq_total", &["acme"]), 12.0);
    desk.close().await;
}

#[tokio::test]
async fn a_stamp_is_made_stable_in_its_own_commit() {
    desk!(_dir, desk, "");
    let put = |key: &'static [u8]| crate::store::StateOp::Put {
        table: Table::Inflight,
        key: Bytes::from_static(key),
        value: Bytes::from_static(b"x"),
    };
    let with = |payload: &str, key| Message {
        state: vec![put(key)],
        ..message(TOPIC, payload)
    };
    let sent = vec![
        with("{\"v\":1}", b"a"),
        with("{\"ts\":1700000000000,\"w\":1}", b"b"),
    ];
    desk.send(sent).await;
    let keys: Vec<Bytes> = desk
        .rows(Table::Inflight)
        .into_iter()
        .map(|(k, _)| k)
        .collect();
    assert_eq!(keys, ["a"]);
    desk.close().await;
}

#[tokio::test]
async fn known_series_go_on_when_there_may_be_no_new_ones() {
    desk!(_dir, desk, "[limits]\nseries_per_tenant_max = 2\n");
    let at = |device: usize, ts: i64| {
        let topic = format!("tenants/acme/devices/d{device}/telemetry");
        message(&topic, &format!("{{\"ts\":{},\"v\":1}}", NOW + ts))
    };
    let first = desk.send((0..2).map(|d| at(d, 0)).collect()).await;
    assert_eq!(first, [Verdict::Committed; 2]);
    let flood = desk.send((2..500).map(|d| at(d, 0)).collect()).await;
    assert!(
        flood
            .iter()
            .all(|v| *v == Verdict::Rejected("series_limit"))
    );
    let known = desk.send((0..2).map(|d| at(d, 10)).collect()).await;
    assert_eq!(known, [Verdict::Committed; 2]);
    assert_eq!(desk.rejected("series_limit"), 498);
    assert_eq!(desk.dead().len(), 498);
    // Refused devices are not registered either.
    assert_eq!(desk.rows(Table::Device).len(), 2);
    desk.close().await;
}

#[tokio::test]
async fn over_the_rate_is_throttled_without_a_dead_letter() {
    desk!(
        _dir,
        desk,
        "[limits]\nmessages_per_second = 2\nmessages_burst = 2\n"
    );
    let send = |ts: i64| {
        (0..3).map(move |i| message(TOPIC, &format!("{{\"ts\":{},\"v\":1}}", NOW + ts + i)))
    };
    let quota = Verdict::Rejected("quota");
    let verdicts = desk.send(send(0).collect()).await;
    assert_eq!(verdicts, [Verdict::Committed, Verdict::Committed, quota]);
    desk.clock.advance(Duration::from_millis(500));
    let verdicts = desk.send(send(10).collect()).await;
    assert_eq!(verdicts, [Verdict::Committed, quota, quota]);
    assert_eq!(desk.results(), [3, 0, 0, 3]);
    assert_eq!(desk.rejected("quota"), 3);
    assert!(desk.dead().is_empty());
    desk.close().await;
}

const ROUTED: &str = "[[destination.webhook]]\nname = \"hook\"\nurl = \"http://127.0.0.1:9/\"\n\
    [[route]]\nname = \"all\"\ntenant = \"acme\"\ndestination = \"hook\"\n\
    [[route]]\nname = \"hot\"\nmetric = \"temperature\"\ndestination = \"hook\"\n";

#[tokio::test]
async fn a_message_is_routed_once_in_the_commit_that_stores_it() {
    desk!(dir, desk, ROUTED);
    let payload = r#"{"ts":1700000000000,"temperature":21.5}"#;
    desk.send_one(TOPIC, payload).await;
    let sent = desk.outbox();
    let routes: Vec<&str> = sent.iter().map(|d| d.route.as_str()).collect();
    assert_eq!(routes, ["all", "hot"]);
    let body: serde_json::Value = serde_json::from_slice(&sent[0].body).unwrap();
    assert_eq!(body["payload"]["temperature"], 21.5);
    assert_eq!(body["device_id"], "d1");
    desk.send(vec![message(TOPIC, payload); 3]).await;
    desk.send_one(TOPIC, "{\"ts\":1700000000001,\"x\":1}").await;
    desk.send_one("tenants/other/devices/d1/telemetry", "{\"v\":1}")
        .await;
    desk.send_one(TOPIC, "{").await;
    assert_eq!(desk.outbox().len(), 3);
    desk.close().await;
    let desk = Desk::open(dir.path(), ROUTED);
    desk.send_one(TOPIC, payload).await;
    assert_eq!(desk.outbox().len(), 3);
    desk.close().await;
}

#[tokio::test]
async fn a_device_is_registered_with_its_first_sample() {
    desk!(dir, desk, "[limits]\ndevices_per_tenant_max = 1\n");
    desk.send_one(TOPIC, "{").await;
    assert!(desk.rows(Table::Device).is_empty());
    desk.send(vec![
        message(TOPIC, "{\"v\":1}"),
        message(TOPIC, "{\"v\":2}"),
    ])
    .await;
    let rows = desk.rows(Table::Device);
    assert_eq!(rows[0].0, row_key("acme", "d1"));
    assert_eq!(
        desk.value("onboarding_tasks_submitted_total", &["acme"]),
        1.0
    );
    let created = ["acme", "success_created"];
    assert_eq!(
        desk.value("onboarding_tasks_processed_total", &created),
        1.0
    );
    assert_eq!(desk.value("onboarding_queue_length", &[]), 0.0);
    // One above the limit is taken and not registered.
    let second = "tenants/acme/devices/d2/telemetry";
    assert_eq!(desk.send_one(second, "{\"v\":1}").await, Verdict::Committed);
    assert_eq!(desk.rows(Table::Device).len(), 1);
    assert_eq!(
        desk.value("pulse_ingest_unregistered_total", &["acme"]),
        1.0
    );
    desk.close().await;
    let desk = Desk::open(dir.path(), "");
    desk.send_one(TOPIC, "{\"v\":3}").await;
    assert_eq!(
        desk.value("onboarding_tasks_submitted_total", &["acme"]),
        0.0
    );
    desk.close().await;
}

#[tokio::test]
async fn a_full_buffer_answers_retry_and_is_visible() {
    desk!(_dir, desk, "[limits]\nbuffer_per_tenant = 2\n");
    let sent = (0..3).map(|i| message(TOPIC, &format!("{{\"ts\":{},\"v\":1}}", NOW + i)));
    let verdicts = desk.send(sent.collect()).await;
    assert_eq!(
        verdicts,
        [Verdict::Committed, Verdict::Committed, Verdict::Retry]
    );
    assert_eq!(
        (desk.results(), desk.rejected("overload")),
        ([2, 0, 0, 0], 1)
    );
    assert!(desk.dead().is_empty());
    assert_eq!(desk.value("buffer_capacity", &["acme"]), 2.0);
    assert_eq!(desk.value("buffer_size", &["acme"]), 0.0);
    desk.close().await;
}

#[tokio::test]
async fn a_reload_is_all_or_nothing() {
    desk!(_dir, desk, "");
    let send = |payload: &'static str| desk.send_one("s/d9", payload);
    assert_eq!(send("{\"v\":1}").await, Verdict::Rejected("topic"));
    let map = "[[ingest.map]]\ntopic = \"s/{device_id}\"\nlabels = { tenant_id = \"acme\" }\n";
    let bad = format!("{map}metric_name = \"{{nope}}\"\n");
    assert!(desk.ingest.reload(&parse(&bad)).is_err());
    assert_eq!(send("{\"v\":1}").await, Verdict::Rejected("topic"));
    desk.ingest.reload(&parse(map)).unwrap();
    assert_eq!(send("{\"v\":1}").await, Verdict::Committed);
    assert_eq!(desk.stored(), ["v/d9 0=1"]);
    let renamed = format!("{map}metric_name = \"x_{{field}}\"\n");
    desk.ingest.reload(&parse(&renamed)).unwrap();
    assert_eq!(send("{\"v\":1}").await, Verdict::Committed);
    assert_eq!(desk.stored(), ["v/d9 0=1", "x_v/d9 0=1"]);
    desk.close().await;
}

#[tokio::test]
async fn a_stop_answers_what_is_queued_and_takes_nothing_more() {
    desk!(dir, desk, "");
    let mut answers = Vec::new();
    for n in 0..100 {
        let topic = format!("tenants/acme/devices/d{n}/telemetry");
        let sent = vec![message(&topic, "{\"v\":1}"); 20];
        answers.push(desk.ingest.submit(&origin(), sent).await.unwrap());
    }
    desk.stop.cancel();
    for answer in answers {
        assert_eq!(answer.await.unwrap(), [Verdict::Committed; 20]);
    }
    desk.tasks.join().await;
    assert!(
        desk.ingest
            .submit(&origin(), vec![message(TOPIC, "{}")])
            .await
            .is_err()
    );
    desk.close().await;
    let desk = Desk::open(dir.path(), "");
    assert_eq!(desk.stored().len(), 100);
    desk.close().await;
}

#[tokio::test]
async fn a_store_that_has_ended_gives_messages_back() {
    desk!(_dir, desk, "");
    desk.store.close().await;
    assert_eq!(desk.send_one(TOPIC, "{\"v\":1}").await, Verdict::Retry);
    assert_eq!(desk.results(), [0; 4]);
    assert_eq!(desk.rejected("storage"), 1);
    let failed = ["acme", "error_db"];
    assert_eq!(desk.value("onboarding_tasks_processed_total", &failed), 1.0);
    desk.close().await;
}

#[tokio::test]
async fn large_hands_are_split_into_batches_and_judged_in_order() {
    desk!(_dir, desk, "");
    let sent: Vec<Message> = (0..12_000)
        .map(|i| match i % 3 {
            0 => message(TOPIC, &format!("{{\"ts\":{},\"v\":{i}}}", NOW - i)),
            1 => message(TOPIC, "{"),
            _ => message("nowhere", "{\"v\":1}"),
        })
        .collect();
    let verdicts = desk.send(sent).await;
    let want = [
        Verdict::Committed,
        Verdict::Rejected("parse"),
        Verdict::Rejected("topic"),
    ];
    for (i, verdict) in verdicts.iter().enumerate() {
        assert_eq!(*verdict, want[i % 3], "message {i}");
    }
    assert_eq!(verdicts.len(), 12_000);
    desk.close().await;
}

/// `r0_04`: every family of ingest carries `tenant_id`, but the gauge that the
/// requirement writes without labels.
#[tokio::test]
async fn r0_04_every_family_has_the_tenant() {
    desk!(_dir, desk, "[[tenant]]\nid = \"configured\"\n");
    let families = desk.metrics.gather();
    let ours: Vec<_> = families
        .iter()
        .filter(|f| f.name().starts_with("pulse_ingest_"))
        .collect();
    assert!(ours.len() >= 5);
    for family in ours
        .iter()
        .filter(|f| f.name() != "pulse_ingest_nats_pending")
    {
        for tenant in ["default", "configured", "_unknown"] {
            let has = family.get_metric().iter().any(|m| {
                m.get_label()
                    .iter()
                    .any(|l| l.name() == "tenant_id" && l.value() == tenant)
            });
            assert!(has, "{} has no child for {tenant}", family.name());
        }
    }
    // The views show zeros before the first message.
    assert_eq!(
        desk.value("messages_received_total", &["telemetry", "default"]),
        0.0
    );
    assert_eq!(
        desk.value("messages_failed_total", &["telemetry", "parse"]),
        0.0
    );
    assert_eq!(desk.value("buffer_capacity", &["configured"]), 65_600.0);
    assert_eq!(
        desk.value("onboarding_tasks_submitted_total", &["configured"]),
        0.0
    );
    desk.close().await;
}

#[tokio::test]
async fn a_tenants_token_is_found_and_others_are_not() {
    desk!(
        _dir,
        desk,
        "[[tenant]]\nid = \"a\"\ntoken = \"s3cret\"\n[[tenant]]\nid = \"b\"\n"
    );
    let a = TenantId::new("a").unwrap();
    assert_eq!(desk.ingest.tenant_of_token("s3cret"), Some(a.clone()));
    for other in ["", "s3cre", "s3cret ", "x"] {
        assert_eq!(desk.ingest.tenant_of_token(other), None, "{other:?}");
    }
    assert!(desk.ingest.has_token(&a));
    assert!(!desk.ingest.has_token(&TenantId::new("b").unwrap()));
    desk.close().await;
}
