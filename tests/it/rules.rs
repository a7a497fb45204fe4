//! Rules and notifications on a real store, driven by a manual clock.
//!
//! Nothing sends here: what is in the outbox is what would be sent, and a test
//! says itself when a receiver took it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pulse::alerting::{self, Alerting, Plan, Plans};
use pulse::config::Config;
use pulse::model::clock::ManualClock;
use pulse::model::history::{self, Transition};
use pulse::model::{Clock, Delivery, Labels, Matcher, Sample, Timestamp, is_stale_nan};
use pulse::promql::{Queryable, SelectHints};
use pulse::rules::{self, AlertState, Rules};
use pulse::store::state::decode_delivery;
use pulse::store::{self, Item, Row, SeriesKey, StateOp, Store, Table, WriteBatch};
use pulse::tasks::Tasks;
use pulse::telemetry::Metrics;
use tokio_util::sync::CancellationToken;

/// A time on a minute, in 2023.
pub(crate) const START_MS: i64 = 1_700_000_040_000;

/// A box that survives its processes: a data directory, a clock and a configuration.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    pub(crate) clock: ManualClock,
    config: Config,
    /// Whether the clock is followed only as far as it can be trusted.
    pub(crate) is_guarded: bool,
}

/// An alert of a rule changed its state.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) at: i64,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// What runs until it is ended.
pub(crate) struct Process {
    store: Store,
    metrics: Arc<Metrics>,
    clock: ManualClock,
    own: Clock,
    rules: Rules,
    alerting: Alerting,
}

impl Machine {
    /// With rules in the file `rules.yml` and one receiver `ops` that waits for nothing.
    pub(crate) fn new(rules: &str) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let text = "[alerting]\nreceiver = \"ops\"\ngroup_wait = \"0s\"\ngroup_interval = \"1s\"\n\
                    [rules]\nfiles = [\"*.yml\"]\n\
                    [global]\nexternal_url = \"http://box:8080\"\n\
                    [[destination.webhook]]\nname = \"ops\"\nurl = \"http://127.0.0.1:9/\"\n";
        let mut config = Config::parse(text, "config.toml").unwrap();
        config.base_dir = dir.path().to_owned();
        let machine = Machine {
            dir,
            clock: ManualClock::new(Timestamp::from_ms(START_MS)),
            config,
            is_guarded: false,
        };
        machine.write_rules(rules);
        machine
    }

    /// The same box with another configuration.
    pub(crate) fn with_config(mut self, text: &str) -> Machine {
        self.config = Config::parse(text, "config.toml").unwrap();
        self.config.base_dir = self.dir.path().to_owned();
        self
    }

    fn write_rules(&self, text: &str) {
        self.write_file("rules.yml", text);
    }

    pub(crate) fn write_file(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Without an error when it is not there.
    pub(crate) fn remove_file(&self, name: &str) {
        drop(std::fs::remove_file(self.dir.path().join(name)));
    }

    /// The rules of all files.
    pub(crate) fn load(&self) -> rules::Loaded {
        rules::load(&self.config).unwrap()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) async fn boot(&self) -> Process {
        let metrics = Metrics::new();
        let mut clock = Clock::Manual(self.clock.clone());
        if self.is_guarded {
            let build = Timestamp::from_ms(START_MS).minus_ms(86_400_000);
            clock = clock.guarded(build, false);
        }
        let own = clock.clone();
        let options = store::Options {
            dir: self.data(),
            store: self.config.store.clone(),
            limits: self.config.limits.clone(),
            tenants: Vec::new(),
        };
        let store = Store::open(options, clock.clone(), Arc::clone(&metrics)).unwrap();
        let tasks = Tasks::new(metrics.task_restarts.clone());
        let stop = CancellationToken::new();
        let parts = (store.clone(), Arc::clone(&metrics), clock.clone());
        let alerting = alerting::start(
            &self.config,
            parts.0,
            parts.1,
            parts.2,
            &tasks,
            stop.clone(),
        );
        let loaded = self.load();
        let parts = (store.clone(), Arc::clone(&metrics), clock);
        let rules = rules::start(loaded, parts.0, parts.1, parts.2, tasks, stop).await;
        Process {
            store,
            metrics,
            clock: self.clock.clone(),
            own,
            rules,
            alerting: alerting.unwrap(),
        }
    }
}

impl Process {
    /// Ends without a word to rules and notifications: the store is all that stays.
    pub(crate) async fn kill(self) {
        let Process {
            store,
            rules,
            alerting,
            ..
        } = self;
        drop((rules, alerting));
        store.close().await;
    }

    /// Stores a sample now.
    pub(crate) async fn feed(&self, name: &str, labels: &[(&str, &str)], v: f64) {
        let mut pairs = vec![("__name__", name)];
        pairs.extend(labels);
        let row = Row {
            series: SeriesKey::Labels(Labels::from_pairs(pairs)),
            t: Timestamp::from_ms(self.now()),
            v,
        };
        let mut batch = WriteBatch::default();
        batch.push([row], Item::default());
        self.store.write(batch).await.unwrap();
    }

    /// Stores samples of many series now, in one commit.
    pub(crate) async fn feed_all(&self, series: &[(Vec<(&str, &str)>, f64)]) {
        let t = Timestamp::from_ms(self.now());
        let rows = series.iter().map(|(pairs, v)| Row {
            series: SeriesKey::Labels(Labels::from_pairs(pairs.iter().copied())),
            t,
            v: *v,
        });
        let mut batch = WriteBatch::default();
        batch.push(rows, Item::default());
        self.store.write(batch).await.unwrap();
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Takes over what the rule files say now.
    pub(crate) async fn reload(&self, machine: &Machine) {
        self.rules.reload(machine.load()).await;
    }

    /// What became of the alerts of that name, in the order of time.
    pub(crate) fn changes(&self, alert: &str) -> Vec<Change> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let rows = self.store.scan(Table::AlertHistory, all, 10_000).unwrap();
        // Rows with a longer key say what notifications became of it.
        let rows = rows.iter().filter(|(key, _)| key.len() == 21);
        let change = |(key, row): &(bytes::Bytes, bytes::Bytes)| {
            let row: Transition = serde_json::from_slice(row).unwrap();
            let (at, _) = history::parse_key(key).unwrap();
            (row.rule == alert).then(|| Change {
                at: at.as_ms(),
                from: row.from,
                to: row.to,
            })
        };
        rows.filter_map(change).collect()
    }

    /// The transitions on record.
    pub(crate) fn history(&self) -> Vec<(i64, String, String)> {
        transitions(&self.store)
    }

    /// The value of a counter without labels.
    pub(crate) fn counter(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.unwrap().get_metric()[0].get_counter().get_value()
    }

    pub(crate) async fn write(&self, batch: WriteBatch) {
        self.store.write(batch).await.unwrap();
    }

    /// What is stored, to be asked.
    pub(crate) fn queryable(&self) -> &Store {
        &self.store
    }

    pub(crate) fn now(&self) -> i64 {
        self.own.now().as_ms()
    }

    /// Takes an alert in that somebody sent, and tells what is to be told.
    pub(crate) async fn post(&self, labels: &Labels, starts_at: Timestamp, ends_at: Timestamp) {
        let posted = pulse::alerting::PostedAlert {
            labels: labels.clone(),
            annotations: std::collections::BTreeMap::new(),
            generator_url: String::new(),
            starts_at: Some(starts_at),
            ends_at: Some(ends_at),
        };
        self.alerting.post(vec![posted]).await.unwrap();
        self.alerting.tick().await;
    }

    /// Lets time pass, evaluates what is due, and tells what is to be told.
    pub(crate) async fn step(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
        self.rules.tick().await;
        self.alerting.tick().await;
    }

    /// Since when the alerts fire that the API shows.
    pub(crate) async fn firing(&self) -> Vec<Timestamp> {
        let alerts = self.alerting.picture().await.unwrap().alerts;
        alerts.iter().map(|status| status.alert.starts_at).collect()
    }

    /// What became of the alert with this fingerprint.
    pub(crate) async fn explain(&self, fingerprint: u64) -> alerting::Explanation {
        self.alerting.explain(fingerprint).await.unwrap().unwrap()
    }

    /// Lets time pass in which no rule is evaluated.
    pub(crate) async fn stand_still(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
        self.alerting.tick().await;
    }

    /// The states of all alerts.
    pub(crate) fn alerts(&self) -> Vec<AlertState> {
        let mut states = Vec::new();
        for group in self.rules.view().iter() {
            for rule in &group.rules {
                if let rules::RuleKind::Alerting { alerts, .. } = &rule.kind {
                    states.extend(alerts.iter().map(|alert| alert.state));
                }
            }
        }
        states
    }

    fn last_error(&self) -> Option<String> {
        self.rules.view()[0].rules[0].last_error.clone()
    }

    fn outbox(&self) -> Vec<Delivery> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let rows = self.store.scan(Table::Outbox, all, 100).unwrap();
        rows.iter()
            .map(|(_, row)| decode_delivery(row).unwrap())
            .collect()
    }

    /// The receiver takes everything; gives what it took.
    pub(crate) async fn deliver(&self) -> Vec<Delivery> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut ops = Vec::new();
        let mut taken = Vec::new();
        for (key, row) in self.store.scan(Table::Outbox, all, 100).unwrap() {
            let delivery = decode_delivery(&row).unwrap();
            ops.push(StateOp::Delete {
                table: Table::Outbox,
                key,
            });
            for row in &delivery.on_success {
                ops.push(StateOp::Put {
                    table: Table::from_name(&row.table).unwrap(),
                    key: row.key.clone().into(),
                    value: row.value.clone().unwrap().into(),
                });
            }
            taken.push(delivery);
        }
        self.store.write(WriteBatch::of_state(ops)).await.unwrap();
        taken
    }

    pub(crate) fn series(&self, name: &str) -> BTreeMap<String, Vec<Sample>> {
        let end = Timestamp::from_ms(self.now());
        let matchers = [Matcher::equal("__name__", name)];
        let found = self
            .store
            .select(Timestamp::MIN, end, &matchers, &SelectHints::default());
        let pairs = found.unwrap().into_iter();
        pairs.map(|s| (s.labels.to_string(), s.samples)).collect()
    }
}

pub(crate) fn body(delivery: &Delivery) -> serde_json::Value {
    serde_json::from_slice(&delivery.body).unwrap()
}

fn statuses(deliveries: &[Delivery]) -> Vec<String> {
    let status = |d: &Delivery| body(d)["status"].as_str().unwrap().to_owned();
    deliveries.iter().map(status).collect()
}

pub(crate) fn group(rules: &str) -> String {
    format!("groups:\n- name: g\n  interval: 10s\n  rules:\n{rules}")
}

const HOT: &str = "  - {alert: Hot, expr: 'temp > 30', for: 20s}\n";

#[tokio::test]
async fn r3_30_buffer_full_becomes_pending_firing_and_resolved() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rules/document3.yml");
    let machine = Machine::new(&std::fs::read_to_string(rules).unwrap());
    let p = machine.boot().await;
    let mut firing_after = None;
    for second in (0..=180).step_by(15) {
        p.feed("buffer_capacity", &[("user_id", "u1")], 100.0).await;
        p.feed("buffer_size", &[("user_id", "u1")], 96.0).await;
        p.step(15).await;
        match p.alerts()[..] {
            [AlertState::Pending] => assert!(p.outbox().is_empty()),
            [AlertState::Firing] if firing_after.is_none() => firing_after = Some(second),
            [AlertState::Firing] => {}
            ref other => panic!("{other:?}"),
        }
    }
    // Active since the first evaluation, so firing in the one 120 s after it.
    assert_eq!(firing_after, Some(120));
    let told = p.deliver().await;
    assert_eq!(statuses(&told), ["firing"]);
    let message = body(&told[0]);
    assert_eq!(message["groupKey"], "{}:{alertname=\"BufferFull\"}");
    let alert = &message["alerts"][0];
    assert_eq!(alert["annotations"]["summary"], "Buffer nearly full for u1");
    assert_eq!(alert["labels"]["user_id"], "u1");
    assert_eq!(
        alert["generatorURL"],
        "http://box:8080/graph?g0.expr=buffer_size+%2F+buffer_capacity+%3E+0.95&g0.tab=1"
    );
    p.feed("buffer_size", &[("user_id", "u1")], 10.0).await;
    p.step(15).await;
    assert!(p.alerts().is_empty());
    let told = p.deliver().await;
    assert_eq!(statuses(&told), ["resolved"]);
    // Told exactly once.
    for _ in 0..80 {
        p.step(15).await;
    }
    assert!(p.outbox().is_empty());
}

#[tokio::test]
async fn a08_a16_a_kill_in_the_middle_keeps_state_and_ids() {
    let machine = Machine::new(&group(HOT));
    let p = machine.boot().await;
    p.feed("temp", &[], 40.0).await;
    p.step(10).await;
    assert_eq!(p.alerts(), [AlertState::Pending]);
    p.kill().await;

    let p = machine.boot().await;
    // Shown before its first evaluation.
    assert_eq!(p.alerts(), [AlertState::Pending]);
    // The time between the last evaluation and this one does not count.
    for _ in 0..2 {
        p.step(10).await;
        assert_eq!(p.alerts(), [AlertState::Pending]);
    }
    // Killed after the evaluation and before anything is in the outbox.
    machine.clock.advance(Duration::from_secs(10));
    p.rules.tick().await;
    assert_eq!(p.alerts(), [AlertState::Firing]);
    assert!(p.outbox().is_empty());
    p.kill().await;

    let p = machine.boot().await;
    p.alerting.tick().await;
    let first = p.outbox();
    assert_eq!(statuses(&first), ["firing"]);
    p.kill().await;

    // Killed again before delivery: the same id and body, and nothing more.
    let p = machine.boot().await;
    for _ in 0..3 {
        p.step(10).await;
    }
    assert_eq!(p.alerts(), [AlertState::Firing]);
    assert_eq!(p.outbox(), first);
    p.deliver().await;
    p.step(10).await;
    p.kill().await;

    // Delivered before the kill: not told again. Then it resolves.
    let p = machine.boot().await;
    p.feed("temp", &[], 20.0).await;
    p.step(10).await;
    assert!(p.outbox().is_empty());
    p.step(10).await;
    let second = p.outbox();
    assert_eq!(statuses(&second), ["resolved"]);
    assert_ne!(second[0].event_id, first[0].event_id);
    p.kill().await;

    let p = machine.boot().await;
    for _ in 0..5 {
        p.step(10).await;
    }
    assert_eq!(p.deliver().await, second);
    for _ in 0..200 {
        p.step(10).await;
    }
    assert!(p.outbox().is_empty());
}

#[tokio::test]
async fn a17_a_receiver_that_was_away_hears_once_how_things_stand() {
    let rules = group("  - {alert: Hot, expr: 'temp > 30'}\n");
    let machine = Machine::new(&rules.replace("10s", "3s"));
    let p = machine.boot().await;
    // Ten minutes with 200 changes of one alert, beside one that stays.
    for round in 0..200 {
        let v = if round % 2 == 0 { 40.0 } else { 20.0 };
        p.feed("temp", &[("room", "a")], v).await;
        p.feed("temp", &[("room", "b")], 40.0).await;
        p.step(3).await;
        assert_eq!(p.outbox().len(), 1, "round {round}");
    }
    let told = p.deliver().await;
    let alerts = body(&told[0])["alerts"].as_array().unwrap().clone();
    let of = |alert: &serde_json::Value| {
        let room = alert["labels"]["room"].as_str().unwrap().to_owned();
        (room, alert["status"].as_str().unwrap().to_owned())
    };
    let want = [("a", "resolved"), ("b", "firing")].map(|(r, s)| (r.to_owned(), s.to_owned()));
    assert_eq!(alerts.iter().map(of).collect::<Vec<_>>(), want);
}

/// The files of a store that nobody has open.
fn copy_dir(from: &Path, to: &Path) {
    drop(std::fs::remove_dir_all(to));
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Tells of an alert and is killed; `committed` says whether the flush was durable
/// when it left. Gives the ids that the receiver got, the restart included.
async fn ids_around_a_kill(committed: bool) -> Vec<String> {
    let machine = Machine::new(&group("  - {alert: Hot, expr: 'temp > 30'}\n"));
    let p = machine.boot().await;
    p.feed("temp", &[], 40.0).await;
    machine.clock.advance(Duration::from_secs(10));
    p.rules.tick().await;
    p.kill().await;
    let before = machine.dir.path().join("before");
    copy_dir(&machine.data(), &before);

    let p = machine.boot().await;
    p.alerting.tick().await;
    let mut ids: Vec<String> = p.outbox().iter().map(|d| d.event_id.clone()).collect();
    assert_eq!(ids.len(), 1, "it left");
    p.kill().await;
    if !committed {
        copy_dir(&before, &machine.data());
    }
    let p = machine.boot().await;
    p.step(10).await;
    ids.extend(p.deliver().await.iter().map(|d| d.event_id.clone()));
    ids.sort();
    ids.dedup();
    ids
}

#[tokio::test]
async fn a16_telling_before_the_commit_would_give_a_second_id() {
    assert_eq!(ids_around_a_kill(true).await.len(), 1);
    assert_eq!(
        ids_around_a_kill(false).await.len(),
        2,
        "the control is found out"
    );
}

#[tokio::test]
async fn what_ended_while_the_receiver_was_away_is_told_whatever_came_later() {
    let machine = Machine::new(&group("  - {alert: Hot, expr: 'temp > 30'}\n"));
    let p = machine.boot().await;
    let feed = async |rooms: [f64; 3]| {
        for (room, v) in ["a", "b", "c"].iter().zip(rooms) {
            p.feed("temp", &[("room", room)], v).await;
        }
        p.step(10).await;
    };
    feed([40.0, 40.0, 20.0]).await;
    assert_eq!(statuses(&p.deliver().await), ["firing"]);
    // From now on nobody is there: b ends, then c begins.
    feed([40.0, 20.0, 20.0]).await;
    feed([40.0, 20.0, 40.0]).await;
    let told = p.deliver().await;
    assert_eq!(told.len(), 1);
    let alerts = body(&told[0])["alerts"].as_array().unwrap().clone();
    let of = |a: &serde_json::Value| format!("{} {}", a["labels"]["room"], a["status"]);
    let got: Vec<String> = alerts.iter().map(of).collect();
    assert_eq!(
        got,
        [r#""a" "firing""#, r#""b" "resolved""#, r#""c" "firing""#]
    );
}

#[tokio::test]
async fn a_second_alert_of_a_group_waits_for_the_interval_and_repeats_come_in_time() {
    let mut machine = Machine::new(&group("  - {alert: Hot, expr: 'temp > 30'}\n"));
    machine.config.alerting.group_interval = pulse::config::Span::secs(60);
    machine.config.alerting.repeat_interval = pulse::config::Span::secs(600);
    let p = machine.boot().await;
    let feed = async |rooms: &[&str]| {
        for room in rooms {
            p.feed("temp", &[("room", room)], 40.0).await;
        }
        p.step(10).await;
        p.deliver().await.len()
    };
    assert_eq!(feed(&["a"]).await, 1);
    let mut told_after = Vec::new();
    for round in 1..=90 {
        if feed(&["a", "b"]).await > 0 {
            told_after.push(round * 10);
        }
    }
    // b at the next flush; both again with the tenth flush after it.
    assert_eq!(told_after, [60, 660]);
}

#[tokio::test]
async fn an_end_is_told_also_where_repeats_are_due_at_every_flush() {
    let mut machine = Machine::new(&group("  - {alert: Hot, expr: 'temp > 30'}\n"));
    machine.config.alerting.group_interval = pulse::config::Span::secs(60);
    machine.config.alerting.repeat_interval = pulse::config::Span::secs(1);
    let p = machine.boot().await;
    let mut told = Vec::new();
    for round in 0..40 {
        p.feed("temp", &[], if round < 20 { 40.0 } else { 20.0 })
            .await;
        p.step(10).await;
        told.extend(statuses(&p.deliver().await));
    }
    assert_eq!(told, ["firing", "firing", "firing", "firing", "resolved"]);
}

#[tokio::test]
async fn a05_a_failing_query_leaves_alerts_as_they_are() {
    // Two series with b match one side each, so the query fails at run time.
    let rule = "  - {alert: Hot, expr: 'temp * on () bias > 30'}\n";
    let machine = Machine::new(&group(rule));
    let p = machine.boot().await;
    p.feed("temp", &[], 40.0).await;
    p.feed("bias", &[("b", "1")], 1.0).await;
    p.step(10).await;
    assert_eq!(p.alerts(), [AlertState::Firing]);
    p.feed("bias", &[("b", "2")], 1.0).await;
    p.step(10).await;
    assert!(
        p.last_error().unwrap().contains("many-to-many"),
        "{:?}",
        p.last_error()
    );
    assert_eq!(p.alerts(), [AlertState::Firing]);
    assert!(
        !p.series("ALERTS")
            .values()
            .flatten()
            .any(|s| is_stale_nan(s.v))
    );
    let label = format!("{};g", machine.dir.path().join("rules.yml").display());
    let failures = p.metrics.rules.failures.with_label_values(&[&label]);
    assert_eq!(failures.get(), 1);
    assert_eq!(statuses(&p.deliver().await), ["firing"]);
}

#[tokio::test]
async fn a05_two_results_with_the_same_labels_fail_the_rule() {
    let machine = Machine::new(&group(
        "  - {alert: Hot, expr: '{__name__=~\"temp|heat\"} > 30'}\n",
    ));
    let p = machine.boot().await;
    p.feed("temp", &[], 40.0).await;
    p.feed("heat", &[], 40.0).await;
    p.step(10).await;
    assert!(p.alerts().is_empty());
    let want = "vector contains metrics with the same labelset after applying alert labels";
    assert_eq!(p.last_error().as_deref(), Some(want));
}

#[tokio::test]
async fn a07_alerts_become_series_and_end_with_markers() {
    let machine = Machine::new(&group(HOT));
    let p = machine.boot().await;
    p.feed("temp", &[], 40.0).await;
    for _ in 0..3 {
        p.step(10).await;
    }
    p.feed("temp", &[], 20.0).await;
    p.step(10).await;
    p.step(10).await;
    let alerts = p.series("ALERTS");
    let shape = |samples: &[Sample]| -> String {
        let letter = |s: &Sample| if is_stale_nan(s.v) { 'x' } else { '1' };
        samples.iter().map(letter).collect()
    };
    let pending = &alerts["ALERTS{alertname=\"Hot\", alertstate=\"pending\"}"];
    let firing = &alerts["ALERTS{alertname=\"Hot\", alertstate=\"firing\"}"];
    assert_eq!(
        (shape(pending).as_str(), shape(firing).as_str()),
        ("11x", "1x")
    );
    let for_state = &p.series("ALERTS_FOR_STATE")["ALERTS_FOR_STATE{alertname=\"Hot\"}"];
    let since = pending[0].t.as_ms().div_euclid(1_000) as f64;
    let values: Vec<f64> = for_state[..3].iter().map(|s| s.v).collect();
    assert_eq!(values, [since; 3]);
    assert!(is_stale_nan(for_state[3].v) && for_state.len() == 4);
}

#[tokio::test]
async fn later_rules_see_what_earlier_ones_recorded_at_the_same_time() {
    let machine = Machine::new(&group(
        "  - {record: 'temp:max', expr: max(temp), labels: {unit: C}}\n\
         \x20 - {alert: Hot, expr: 'temp:max{unit=\"C\"} > 30', labels: {level: '{{ $value }}'}}\n",
    ));
    let p = machine.boot().await;
    p.feed("temp", &[("room", "a")], 40.5).await;
    p.step(10).await;
    assert_eq!(p.alerts(), [AlertState::Firing]);
    let name = "ALERTS{alertname=\"Hot\", alertstate=\"firing\", level=\"40.5\", unit=\"C\"}";
    let alerts = p.series("ALERTS");
    assert!(alerts.contains_key(name), "{alerts:?}");
    let recorded = p.series("temp:max");
    assert_eq!(recorded["temp:max{unit=\"C\"}"][0].v, 40.5);
    assert_eq!(recorded["temp:max{unit=\"C\"}"][0].t, alerts[name][0].t);
}

#[tokio::test]
async fn a_series_that_moves_from_one_rule_to_another_does_not_end() {
    let machine = Machine::new(&group(
        "  - {alert: Off, expr: 'temp > 30'}\n\
         \x20 - {alert: Off, expr: 'temp < 10'}\n",
    ));
    let p = machine.boot().await;
    for v in [40.0, 5.0, 40.0] {
        p.feed("temp", &[], v).await;
        p.step(10).await;
    }
    let alerts = p.series("ALERTS");
    let samples = &alerts["ALERTS{alertname=\"Off\", alertstate=\"firing\"}"];
    assert_eq!(samples.iter().map(|s| s.v).collect::<Vec<_>>(), [1.0; 3]);
}

#[tokio::test]
async fn a04_a_templated_label_that_changes_makes_another_alert() {
    let rule = "  - {alert: Hot, expr: 'temp > 30', labels: {v: '{{ $value }}'}}\n";
    let machine = Machine::new(&group(rule));
    let p = machine.boot().await;
    for v in [40.0, 41.0] {
        p.feed("temp", &[], v).await;
        p.step(10).await;
        assert_eq!(p.alerts(), [AlertState::Firing]);
    }
    let message = body(&p.deliver().await[0]);
    let alerts = message["alerts"].as_array().unwrap();
    let of = |a: &serde_json::Value| format!("{} {}", a["labels"]["v"], a["status"]);
    let got: Vec<String> = alerts.iter().map(of).collect();
    assert_eq!(got, ["\"40\" \"resolved\"", "\"41\" \"firing\""]);
}

#[tokio::test]
async fn a09_a_reload_keeps_the_state_of_rules_that_stay_and_resolves_the_others() {
    let cold = "  - {alert: Cold, expr: 'temp < 50'}\n";
    let machine = Machine::new(&group(&format!("{HOT}{cold}")));
    let p = machine.boot().await;
    p.feed("temp", &[], 40.0).await;
    p.step(10).await;
    assert_eq!(p.alerts(), [AlertState::Pending, AlertState::Firing]);
    assert_eq!(statuses(&p.deliver().await), ["firing"]);

    let another = "  - {record: one, expr: '1'}\n";
    machine.write_rules(&group(&format!("{another}{HOT}")));
    p.reload(&machine).await;
    assert_eq!(p.alerts(), [AlertState::Pending]);
    p.step(10).await;
    p.step(10).await;
    // Pending since the first evaluation, not since the reload.
    assert_eq!(p.alerts(), [AlertState::Firing]);
    let told = p.deliver().await;
    let mut got = statuses(&told);
    got.sort();
    assert_eq!(got, ["firing", "resolved"]);
    let alerts = p.series("ALERTS");
    let cold = &alerts["ALERTS{alertname=\"Cold\", alertstate=\"firing\"}"];
    assert!(is_stale_nan(cold.last().unwrap().v));

    machine.write_rules("groups: []\n");
    p.reload(&machine).await;
    p.step(10).await;
    assert_eq!(statuses(&p.deliver().await), ["resolved"]);
    let hot = &p.series("ALERTS")["ALERTS{alertname=\"Hot\", alertstate=\"firing\"}"].clone();
    assert!(is_stale_nan(hot.last().unwrap().v));
}

#[tokio::test]
async fn external_labels_are_added_when_it_leaves_the_process() {
    let mut machine = Machine::new(&group("  - {alert: Hot, expr: 'temp > 30'}\n"));
    let external = [("site", "north"), ("room", "none")];
    machine.config.global.external_labels =
        external.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let p = machine.boot().await;
    p.feed("temp", &[("room", "a")], 40.0).await;
    p.step(10).await;
    let alert = &body(&p.deliver().await[0])["alerts"][0];
    assert_eq!(alert["labels"]["site"], "north");
    assert_eq!(alert["labels"]["room"], "a");
    let name = "ALERTS{alertname=\"Hot\", alertstate=\"firing\", room=\"a\"}";
    assert!(p.series("ALERTS").contains_key(name));
}

#[tokio::test]
async fn resolved_is_not_told_when_nobody_wants_to_know() {
    let mut machine = Machine::new(&group("  - {alert: Hot, expr: 'temp > 30'}\n"));
    machine.config.alerting.send_resolved = false;
    let p = machine.boot().await;
    p.feed("temp", &[], 40.0).await;
    p.step(10).await;
    assert_eq!(statuses(&p.deliver().await), ["firing"]);
    for v in [20.0, 20.0] {
        p.feed("temp", &[], v).await;
        p.step(10).await;
    }
    assert!(p.deliver().await.is_empty());
    // Firing again is news.
    p.feed("temp", &[], 40.0).await;
    p.step(10).await;
    assert_eq!(statuses(&p.deliver().await), ["firing"]);
}

#[tokio::test]
async fn a01_a_slot_is_evaluated_once_and_slots_keep_their_distance() {
    let machine = Machine::new(&group("  - {record: one, expr: '1'}\n"));
    let p = machine.boot().await;
    for _ in 0..30 {
        p.step(3).await;
    }
    let samples = p.series("one").remove("one").unwrap();
    let times: Vec<i64> = samples.iter().map(|s| s.t.as_ms()).collect();
    assert!((9..=10).contains(&times.len()), "{times:?}");
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] == 10_000),
        "{times:?}"
    );
    assert!(samples.iter().all(|s| s.v == 1.0));
}

/// What a rule file may get wrong, and what it may not.
const RULES: [&str; 44] = [
    "alert: A\n    expr: up",
    "alert: A\n    expr: up\n    for: 5m\n    keep_firing_for: 1h",
    "record: a:b\n    expr: sum(up)",
    "record: a\n    expr: up\n    labels: {x: 1, y: true, z: 1.5, w: }",
    "alert: A\n    expr: up\n    labels: {x: '{{ $value }}'}",
    "alert: A\n    expr: up\n    labels: {x: '{{ $valu }}'}",
    "alert: A\n    expr: up\n    annotations: {x: '{{ .Nope.Deep }}'}",
    "alert: A\n    expr: up\n    annotations: {x: '{{ end }}'}",
    "alert: A\n    expr: up\n    annotations: {x-y: z}",
    "alert: A\n    expr: up\n    annotations: {x: [1]}",
    "alert: A\n    expr: up\n    annotations: {x: {y: z}}",
    "alert: A\n    expr: up\n    labels: {alertname: b}",
    "alert: A\n    expr: up\n    labels: {a.b: c}",
    "alert: A\n    expr: up\n    labels: {__name__: c}",
    "alert: A\n    expr: up\n    labels: []",
    "alert: A\n    expr: up\n    labels:",
    "alert: A\n    expr: up\n    for:",
    "alert: A\n    expr: up\n    for: 0",
    "alert: A\n    expr: up\n    for: 5",
    "alert: A\n    expr: up\n    for: 1h30m",
    "alert: A\n    expr: up\n    for: -5m",
    "alert: A\n    expr: up\n    for: 1.5m",
    "alert: A\n    expr: up\n    for: [5m]",
    "alert: A\n    expr: up ==",
    "alert: A\n    expr: nofunc(up)",
    "alert: A\n    expr: rate(up)",
    "alert: A\n    expr: up[5m]",
    "alert: A\n    expr: \"'text'\"",
    "alert: A\n    expr: 1",
    "alert: A\n    expr: ''",
    "alert: A\n    expr:",
    "alert: A",
    "alert: ''\n    expr: up",
    "alert: 5\n    expr: up",
    "alert: A b-c\n    expr: up",
    "expr: up",
    "record: a-b\n    expr: up",
    "record: 1a\n    expr: up",
    "record: a\n    expr: up\n    for: 5m",
    "record: a\n    expr: up\n    annotations: {x: y}",
    "record: a\n    alert: A\n    expr: up",
    "alert: A\n    expr: up\n    expr: up",
    "alert: A\n    expr: up\n    Expr: up",
    "alert: A\n    expr: up\n    unknown: 1",
];

/// Files that differ outside of a rule.
const FILES: [&str; 19] = [
    "",
    "# nothing\n",
    "{}\n",
    "groups:\n",
    "groups: []\n",
    "groups: {}\n",
    "groups: text\n",
    "other: 1\n",
    "- a\n",
    "groups:\n- name: g\n",
    "groups:\n- name: ''\n",
    "groups:\n- interval: 1m\n",
    "groups:\n- name: g\n- name: g\n",
    "groups:\n- name: g\n  interval: 5x\n",
    "groups:\n- name: g\n  limit: 5\n",
    "groups:\n- name: g\n  limit: many\n",
    "groups:\n- name: g\n  rule: []\n",
    "groups:\n- name: g\n  rules: {}\n",
    "groups:\n\t- name: g\n",
];

#[test]
fn a11_rule_files_are_refused_where_promtool_refuses_them() {
    let Some(promtool) = crate::broker::program("promtool") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.yml");
    let of_rule = |rule: &&str| format!("groups:\n- name: g\n  rules:\n  - {rule}\n");
    let files = FILES.iter().map(|&file| file.to_owned());
    let defaults = rules::file::Defaults::every(Duration::from_secs(60));
    let mut differing = Vec::new();
    let mut refused = 0;
    for text in RULES.iter().map(of_rule).chain(files) {
        std::fs::write(&path, &text).unwrap();
        let theirs = std::process::Command::new(&promtool)
            .args(["check", "rules"])
            .arg(&path)
            .output()
            .unwrap();
        let ours = rules::file::parse("r.yml", &text, defaults);
        refused += usize::from(!theirs.status.success());
        if theirs.status.success() != ours.is_ok() {
            let said = String::from_utf8_lossy(&theirs.stderr).into_owned();
            differing.push((text, ours.err(), said));
        }
    }
    assert!(differing.is_empty(), "{differing:#?}");
    // Both kinds are there, so promtool really looked.
    assert!(
        refused > 30 && RULES.len() + FILES.len() - refused > 15,
        "{refused}"
    );
}

/// The transitions that the live engine wrote down: milliseconds, labels, phase.
fn transitions(store: &Store) -> Vec<(i64, String, String)> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let rows = store.scan(Table::AlertHistory, all, 10_000).unwrap();
    let transition = |(key, row): &(bytes::Bytes, bytes::Bytes)| {
        let ms = u64::from_be_bytes(key[1..9].try_into().unwrap()) ^ (1 << 63);
        let row: serde_json::Value = serde_json::from_slice(row).unwrap();
        let to = row["to"].as_str().unwrap().to_owned();
        (ms.cast_signed(), row["labels"].to_string(), to)
    };
    // Rows with a longer key say what notifications became of it.
    let rows = rows.iter().filter(|(key, _)| key.len() == 21);
    let mut rows: Vec<_> = rows.map(transition).collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn a21_a_backtest_does_what_the_live_engine_did_on_the_same_data() {
    let text = group(
        "  - {record: 'temp:max', expr: 'max by (room) (temp)'}\n\
         \x20 - {alert: Hot, expr: 'temp:max > 30', for: 20s, labels: {v: 'l{{ $value }}'}}\n\
         \x20 - {alert: Warm, expr: 'temp > 20', keep_firing_for: 30s}\n\
         \x20 - {alert: Seen, expr: 'ALERTS{alertname=\"Warm\",alertstate=\"firing\"}', for: 10s}\n",
    );
    let machine = Machine::new(&text);
    let p = machine.boot().await;
    let start = Timestamp::from_ms(p.now());
    let mut dice = 7_u64;
    for _ in 0..120 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let v = ((dice >> 33) % 5) as f64 * 10.0;
        p.feed(
            "temp",
            &[("room", if dice >> 63 == 0 { "a" } else { "b" })],
            v,
        )
        .await;
        p.step(10).await;
    }
    let end = Timestamp::from_ms(p.now());
    let loaded = rules::load(&machine.config).unwrap();
    let mut plans = Plans::of(&Config::default());
    plans.all[0] = Plan {
        group_by: vec!["alertname".to_owned()],
        group_wait: Duration::ZERO,
        group_interval: Duration::from_secs(60),
        repeat_interval: Duration::from_secs(3_600),
        send_resolved: true,
        is_told: true,
    };
    let store = p.store.clone();
    let settings = Arc::clone(&loaded.settings);
    let run = move || {
        let span = (start, end);
        rules::backtest::run(
            &store,
            loaded.groups,
            &settings,
            &plans,
            span,
            &Arc::default(),
        )
    };
    let report = tokio::task::spawn_blocking(run).await.unwrap().unwrap();

    let live = transitions(&p.store);
    let of = |phase: &str| -> Vec<(i64, String)> {
        let rows = live.iter().filter(|(_, _, to)| to == phase);
        rows.map(|(ms, labels, _)| (*ms, labels.clone())).collect()
    };
    let intervals = || report.rules.iter().flat_map(|rule| &rule.intervals);
    let shown = |labels: &Labels| {
        let map: BTreeMap<&str, &str> = labels.iter().collect();
        serde_json::to_string(&map).unwrap()
    };
    let mut fired: Vec<_> = intervals()
        .map(|i| (i.fired_at.as_ms(), shown(&i.labels)))
        .collect();
    let mut resolved: Vec<_> = intervals()
        .filter_map(|i| Some((i.resolved_at?.as_ms(), shown(&i.labels))))
        .collect();
    fired.sort();
    resolved.sort();
    assert!(
        fired.len() > 20 && resolved.len() > 20,
        "{} {}",
        fired.len(),
        resolved.len()
    );
    assert_eq!(fired, of("firing"));
    assert_eq!(resolved, of("resolved"));
    let forgotten: u64 = report.rules.iter().map(|rule| rule.pending_only).sum();
    let counted: u64 = report.rules.iter().map(|rule| rule.fired).sum();
    assert_eq!(counted, fired.len() as u64);
    // At the end some may still be pending.
    assert!(forgotten >= of("inactive").len() as u64);
    assert_eq!(report.failures, 0);
    assert!(!report.notifications.is_empty());
    // Nothing was written.
    assert_eq!(transitions(&p.store), live);
}

#[tokio::test]
async fn a_backtest_is_not_fed_with_what_the_old_rules_recorded() {
    let machine = Machine::new(&group("  - {record: 'r', expr: 'temp'}\n"));
    let p = machine.boot().await;
    let start = Timestamp::from_ms(p.now());
    for _ in 0..10 {
        p.feed("temp", &[], 40.0).await;
        p.step(10).await;
    }
    let end = Timestamp::from_ms(p.now());
    machine.write_rules(&group(
        "  - {record: 'r', expr: 'temp - 20'}\n  - {alert: Hot, expr: 'r > 30'}\n",
    ));
    let loaded = rules::load(&machine.config).unwrap();
    let mut plans = Plans::of(&Config::default());
    plans.all[0] = Plan {
        group_by: Vec::new(),
        group_wait: Duration::ZERO,
        group_interval: Duration::from_secs(60),
        repeat_interval: Duration::from_secs(3_600),
        send_resolved: true,
        is_told: true,
    };
    let run = |groups, end| {
        let span = (start, end);
        rules::backtest::run(
            &p.store,
            groups,
            &loaded.settings,
            &plans,
            span,
            &Arc::default(),
        )
    };
    let report = run(loaded.groups.clone(), end).unwrap();
    assert_eq!((report.rules[1].fired, report.notifications.len()), (0, 0));
    assert!(report.evaluations >= 18);
    let years = end.plus_ms(10 * 365 * 86_400_000);
    assert!(run(loaded.groups.clone(), years).is_err());
}
