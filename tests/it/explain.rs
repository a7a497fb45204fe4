//! Why somebody was told of an alert or was not, and what became of alerts.
//!
//! Nothing sends here: a test says itself when a receiver took a notification.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use pulse::alerting::{
    self, Alerting, Explanation, HistoryQuery, Phase, PostedAlert, Reason, Silence, What,
};
use pulse::config::Config;
use pulse::model::alert::{AlertPhase, AlertRow, alert_key};
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, Labels, Matcher, Timestamp};
use pulse::store::state::decode_delivery;
use pulse::store::{self, StateOp, Store, Table, WriteBatch};
use pulse::tasks::Tasks;
use pulse::telemetry::Metrics;
use tokio_util::sync::CancellationToken;

const START: Timestamp = Timestamp::from_ms(1_700_000_040_000);

const CONFIG: &str = r#"
[alerting]
route = { receiver = "ops", group_wait = "30s", group_interval = "5m", repeat_interval = "4h", group_by = ["alertname"], routes = [
    { matchers = ['case="muted"'], mute_time_intervals = ["always"] },
    { matchers = ['case="inactive"'], active_time_intervals = ["long_ago"] },
    { matchers = ['case="firing_only"'], receiver = "firing_only" },
    { matchers = ['case="unheard"'], receiver = "nobody" },
] }
receivers = [
    { name = "ops", webhook_configs = [{ url = "http://127.0.0.1:9/" }] },
    { name = "firing_only", webhook_configs = [{ url = "http://127.0.0.1:9/", send_resolved = false }] },
    { name = "nobody" },
]
inhibit_rules = [
    { source_matchers = ["alertname=LinkDown"], target_matchers = ["alertname=Inhibited"], equal = ["site"] },
]
time_intervals = [
    { name = "always", time_intervals = [{ times = [{ start_time = "00:00", end_time = "24:00" }] }] },
    { name = "long_ago", time_intervals = [{ years = ["1999"] }] },
]
"#;

struct World {
    clock: ManualClock,
    store: Store,
    alerting: Alerting,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::parse(CONFIG, "config.toml").unwrap();
        let metrics = Metrics::new();
        let clock = ManualClock::new(START);
        let options = store::Options {
            dir: dir.path().to_owned(),
            store: config.store.clone(),
            limits: config.limits.clone(),
            tenants: Vec::new(),
        };
        let own = Clock::Manual(clock.clone());
        let store = Store::open(options, own.clone(), Arc::clone(&metrics)).unwrap();
        let tasks = Tasks::new(metrics.task_restarts.clone());
        let stop = CancellationToken::new();
        let alerting = alerting::start(&config, store.clone(), metrics, own, &tasks, stop);
        World {
            clock,
            store,
            alerting: alerting.unwrap(),
            _dir: dir,
        }
    }

    async fn post(&self, alert: &Labels, ends: Option<i64>) {
        let now = self.now();
        let posted = PostedAlert {
            labels: alert.clone(),
            annotations: BTreeMap::new(),
            generator_url: String::new(),
            starts_at: Some(now),
            ends_at: Some(now.plus_ms(ends.unwrap_or(86_400_000))),
        };
        self.alerting.post(vec![posted]).await.unwrap();
        self.alerting.tick().await;
    }

    /// Ends an alert that was posted before.
    async fn end(&self, alert: &Labels) {
        self.clock.advance(Duration::from_millis(1));
        self.post(alert, Some(0)).await;
    }

    async fn silence(&self, alertname: &str) -> String {
        let silence = Silence {
            id: String::new(),
            tenant: String::new(),
            matchers: vec![Matcher::equal("alertname", alertname)],
            starts_at: self.now(),
            ends_at: self.now().plus_ms(86_400_000),
            updated_at: self.now(),
            created_by: "me".to_owned(),
            comment: "works".to_owned(),
        };
        self.alerting.set_silence(silence).await.unwrap()
    }

    /// An alert of our own rules that waits for its `for`.
    async fn pend(&self, alert: &Labels) {
        let row = AlertRow {
            file: "r.yml".to_owned(),
            group: "g".to_owned(),
            rule: alert.value("alertname").to_owned(),
            query: "up == 0".to_owned(),
            labels: alert.clone(),
            annotations: BTreeMap::new(),
            phase: AlertPhase::Pending,
            value: 0.0,
            active_at: self.now(),
            fired_at: None,
            resolved_at: None,
            keep_firing_since: None,
            written_at: self.now(),
        };
        let put = StateOp::Put {
            table: Table::Alert,
            key: alert_key(7, alert).into(),
            value: row.encode().into(),
        };
        self.store
            .write(WriteBatch::of_state(vec![put]))
            .await
            .unwrap();
    }

    async fn step(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
        self.alerting.tick().await;
    }

    /// Every receiver takes everything.
    async fn deliver(&self) {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut ops = Vec::new();
        for (key, row) in self.store.scan(Table::Outbox, all, 100).unwrap() {
            let delivery = decode_delivery(&row).unwrap();
            ops.push(StateOp::Delete {
                table: Table::Outbox,
                key,
            });
            ops.extend(delivery.on_success.iter().map(|row| StateOp::Put {
                table: Table::from_name(&row.table).unwrap(),
                key: row.key.clone().into(),
                value: row.value_at(self.now()).unwrap().into(),
            }));
        }
        self.store.write(WriteBatch::of_state(ops)).await.unwrap();
    }

    fn now(&self) -> Timestamp {
        Clock::Manual(self.clock.clone()).now()
    }

    async fn explain(&self, alert: &Labels) -> Explanation {
        let told = self.alerting.explain(alert.fingerprint()).await.unwrap();
        told.unwrap_or_else(|| panic!("nothing is known of {alert}"))
    }

    /// Asserts the reason, and that the sentence names what it has to.
    async fn check(&self, alert: &Labels, want: Reason, words: &str) {
        let told = self.explain(alert).await;
        let (reason, because) = told.reason();
        assert_eq!(reason, want, "{alert}: {because}");
        assert!(because.contains(words), "{alert}: {because}");
    }
}

fn alert(name: &str) -> Labels {
    Labels::from_pairs([("alertname", name), ("site", "a")])
}

fn of_case(case: &str) -> Labels {
    let mut labels = alert(case).to_builder();
    labels.set("case", case);
    labels.build()
}

#[tokio::test]
async fn a22_explain_names_the_right_reason_for_each_suppressed_case() {
    let world = World::new();
    let (known, late) = (alert("Known"), {
        let mut labels = alert("Known").to_builder();
        labels.set("device", "second");
        labels.build()
    });
    world.post(&known, None).await;
    world.step(30).await;
    world.deliver().await;

    let (pending, silenced, inhibited) = (alert("Pending"), alert("Silenced"), alert("Inhibited"));
    let (muted, inactive, fresh) = (of_case("muted"), of_case("inactive"), alert("Fresh"));
    world.pend(&pending).await;
    let silence = world.silence("Silenced").await;
    let source = alert("LinkDown");
    for alert in [&silenced, &inhibited, &source, &muted, &inactive, &late] {
        world.post(alert, None).await;
    }
    world.step(40).await;
    world.post(&fresh, None).await;
    world.step(0).await;

    let by = alerting::hex(source.fingerprint());
    world.check(&pending, Reason::Pending, "`for`").await;
    world.check(&silenced, Reason::Silenced, &silence).await;
    world.check(&inhibited, Reason::Inhibited, &by).await;
    world.check(&muted, Reason::Muted, "always").await;
    world
        .check(&inactive, Reason::OutsideActiveTime, "long_ago")
        .await;
    let wait = world.now().plus_ms(30_000).to_string();
    world.check(&fresh, Reason::GroupWait, &wait).await;
    let told = START.plus_ms(30_000);
    let look = told.plus_ms(300_000).to_string();
    world.check(&late, Reason::GroupInterval, &look).await;
    let again = told.plus_ms(4 * 3_600_000).to_string();
    world.check(&known, Reason::KnownAlready, &again).await;

    // The control: what holds nothing back is told, and says so.
    world.check(&source, Reason::Waiting, "outbox").await;
    world.deliver().await;
    world.check(&source, Reason::KnownAlready, "was told").await;
    let story = world.explain(&source).await;
    assert_eq!(story.phase, Phase::Firing);
    let route = &story.routes[0];
    assert_eq!(route.path, ["{}"]);
    assert_eq!(route.group_key, "{}:{alertname=\"LinkDown\"}");
    assert_eq!(story.routes[0].integrations[0].told_at, Some(world.now()));
    let path = world.explain(&muted).await.routes[0].path.clone();
    assert_eq!(path, ["{}", "{case=\"muted\"}"]);
}

#[tokio::test]
async fn a22_explain_remembers_what_was_decided_for_alerts_that_ended() {
    let world = World::new();
    let (short, told, silent) = (alert("Short"), alert("Told"), alert("Silent"));
    let (unwanted, unheard) = (of_case("firing_only"), of_case("unheard"));
    world.silence("Silent").await;
    world.post(&short, None).await;
    world.end(&short).await;
    for alert in [&told, &silent, &unwanted, &unheard] {
        world.post(alert, None).await;
    }
    world.step(31).await;
    world.deliver().await;
    world.check(&unheard, Reason::NobodyListens, "nobody").await;
    for alert in [&told, &silent, &unwanted] {
        world.end(alert).await;
    }
    world.step(0).await;
    world.check(&told, Reason::GroupInterval, "its group").await;
    world.step(301).await;
    world.check(&told, Reason::Waiting, "outbox").await;
    world.deliver().await;
    // Their groups are gone but that of the one that fires: the notes are there.
    assert_eq!(world.alerting.groups().len(), 1);
    world.check(&told, Reason::Told, "has ended").await;
    world.check(&short, Reason::EndedUntold, "before").await;
    world.check(&silent, Reason::Silenced, "ended while").await;
    world
        .check(&unwanted, Reason::ResolvedUnwanted, "send_resolved")
        .await;
}

#[tokio::test]
async fn what_did_not_leave_in_time_is_taken_back_when_it_is_to_be_said_no_more() {
    let world = World::new();
    let waiting = |world: &World| {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let rows = world.store.scan(Table::Outbox, all, 100).unwrap();
        let bodies = rows
            .iter()
            .map(|(_, row)| decode_delivery(row).unwrap().body);
        bodies.collect::<Vec<_>>()
    };
    let (unwanted, silent) = (of_case("firing_only"), alert("Silent"));
    world.post(&unwanted, None).await;
    world.post(&silent, None).await;
    world.step(31).await;
    assert_eq!(waiting(&world).len(), 2);
    world.check(&silent, Reason::Waiting, "outbox").await;
    world.end(&unwanted).await;
    let id = world.silence("Silent").await;
    world.step(301).await;
    assert_eq!(waiting(&world).len(), 0, "it is not true any more");
    world.check(&unwanted, Reason::EndedUntold, "before").await;
    world.check(&silent, Reason::Silenced, "silenced").await;
    assert_eq!(
        world.explain(&silent).await.routes[0].integrations[0].told_at,
        None
    );

    // Nobody was told, so it is news when the silence ends.
    world.alerting.expire_silence("", &id).await.unwrap();
    world.step(301).await;
    assert_eq!(waiting(&world).len(), 1);
    world.deliver().await;
    // A repetition is taken back too; that it was told before stays so.
    world.step(4 * 3_600 + 300).await;
    assert_eq!(waiting(&world).len(), 1);
    world.silence("Silent").await;
    world.step(301).await;
    assert_eq!(waiting(&world).len(), 0);
    let told = world.explain(&silent).await;
    assert!(told.routes[0].integrations[0].told_at.is_some());
}

#[tokio::test]
async fn of_a_message_that_is_taken_back_the_rest_is_still_told() {
    let world = World::new();
    let member = |n: &str| Labels::from_pairs([("alertname", "Disk"), ("n", n)]);
    let (ended, silent) = (member("1"), member("2"));
    world.post(&ended, None).await;
    world.post(&silent, None).await;
    world.step(31).await;
    world.end(&ended).await;
    world.step(301).await;
    let silence = Silence {
        id: String::new(),
        tenant: String::new(),
        matchers: vec![Matcher::equal("n", "2")],
        starts_at: world.now(),
        ends_at: world.now().plus_ms(86_400_000),
        updated_at: world.now(),
        created_by: "me".to_owned(),
        comment: "works".to_owned(),
    };
    world.alerting.set_silence(silence).await.unwrap();
    world.step(301).await;
    let all = (Bound::Unbounded, Bound::Unbounded);
    let rows = world.store.scan(Table::Outbox, all, 100).unwrap();
    assert_eq!(rows.len(), 1);
    let body = decode_delivery(&rows[0].1).unwrap().body;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["status"], "resolved");
    assert_eq!(body["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(body["alerts"][0]["labels"]["n"], "1");
}

#[tokio::test]
async fn the_history_tells_what_happened_newest_first_and_page_by_page() {
    let world = World::new();
    let (one, two) = (alert("One"), alert("Two"));
    world.post(&one, None).await;
    world.step(30).await;
    world.post(&two, None).await;
    world.step(30).await;
    let all = world.alerting.history(HistoryQuery::latest(10)).await;
    let all = all.unwrap();
    let group_of = |what: &What| match what {
        What::Flush { note, .. } => note.group_labels["alertname"].clone(),
        What::Change { row, .. } => row.rule.clone(),
    };
    let names: Vec<String> = all.entries.iter().map(|e| group_of(&e.what)).collect();
    assert_eq!(names, ["Two", "One"]);
    assert_eq!(all.next, None);
    let first = world.alerting.history(HistoryQuery::latest(1)).await;
    let first = first.unwrap();
    assert_eq!(first.entries, all.entries[..1]);
    let rest = HistoryQuery {
        before: first.next,
        ..HistoryQuery::latest(10)
    };
    let rest = world.alerting.history(rest).await.unwrap();
    assert_eq!(rest.entries, all.entries[1..]);
    for (fingerprint, matcher) in [(Some(one.fingerprint()), None), (None, Some("One"))] {
        let query = HistoryQuery {
            fingerprint,
            matchers: matcher
                .map(|name| Matcher::equal("alertname", name))
                .into_iter()
                .collect(),
            ..HistoryQuery::latest(10)
        };
        let own = world.alerting.history(query).await.unwrap();
        assert_eq!(own.entries, all.entries[1..]);
    }
}

#[tokio::test]
async fn a_message_that_was_withdrawn_is_not_to_be_sent_any_more() {
    let world = World::new();
    let one = alert("One");
    world.post(&one, None).await;
    world.step(30).await;
    let told = async || {
        let page = world.alerting.history(HistoryQuery::latest(10)).await;
        let entries = page.unwrap().entries.into_iter();
        let waits = entries.filter_map(|entry| match entry.what {
            What::Flush {
                note, is_waiting, ..
            } => note.event_id.map(|_| is_waiting),
            What::Change { .. } => None,
        });
        waits.collect::<Vec<bool>>()
    };
    assert_eq!(told().await, [true]);
    world.silence("One").await;
    world.step(301).await;
    let all = (Bound::Unbounded, Bound::Unbounded);
    let rows = world.store.scan(Table::Outbox, all, 100).unwrap();
    assert_eq!(rows.len(), 0, "the control: nothing is to be sent");
    assert_eq!(told().await, [false]);
}
