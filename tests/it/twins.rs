//! The same alert from several rule files: it is one alert to whoever is told of it.
//!
//! It fires while one of them says so. What the rules did is taken from the history of
//! their state changes, which knows each file for itself, and compared with what people
//! were told.

use std::collections::BTreeSet;

use proptest::prelude::*;
use pulse::model::Delivery;
use pulse::rules;
use serde_json::Value;

use crate::rules::{Change, Machine, Process, body};

/// The interval of the groups, and of all steps.
const STEP_SECS: u64 = 60;

/// How long a resolved alert's row is kept.
const KEPT_MS: i64 = 15 * 60_000;

const FILES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The samples of a file's rule say that it fires, or not.
    Say(usize, bool),
    /// A file is there, with its group under one of two names.
    Write(usize, bool),
    /// A file is gone.
    Drop(usize),
    /// The files are taken over.
    Reload,
    /// Time passes, in so many steps.
    Step(u64),
    /// After a whole step, or after the evaluation and before anything is told.
    Kill { before_told: bool },
    /// As a kill, and the process stays away.
    Away(u64),
}

/// One of `files` says the alert; which of the samples says so is the file's name.
fn text(file: usize, other_name: bool) -> String {
    let src = FILES[file];
    let name = if other_name { "h" } else { "g" };
    let hold = if src == "c" { "1m" } else { "0s" };
    format!(
        "groups:\n- name: {name}\n  interval: 1m\n  rules:\n  \
         - {{alert: Twin, expr: 'max(temp{{src=\"{src}\"}}) > 0', for: {hold}}}\n"
    )
}

struct Run {
    machine: Machine,
    process: Option<Process>,
    says: [bool; 3],
    /// When a message was made, and what it said.
    told: Vec<(i64, Value)>,
    /// When notifications were made, if there was something to tell.
    looks: Vec<i64>,
}

impl Run {
    async fn new() -> Run {
        let machine = Machine::new("groups: []\n");
        for file in [0, 1] {
            machine.write_file(&format!("{}.yml", FILES[file]), &text(file, false));
        }
        let process = Some(machine.boot().await);
        Run {
            machine,
            process,
            says: [true, true, false],
            told: Vec::new(),
            looks: Vec::new(),
        }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    async fn feed(&self) {
        let value = |says: bool| if says { 1.0 } else { 0.0 };
        let all: Vec<_> = FILES.iter().zip(self.says).collect();
        let all: Vec<_> = all
            .iter()
            .map(|(src, says)| (vec![("__name__", "temp"), ("src", **src)], value(*says)))
            .collect();
        self.process().feed_all(&all).await;
    }

    async fn step(&mut self) {
        self.feed().await;
        self.process().step(STEP_SECS).await;
        self.looks.push(self.process().now());
        self.take().await;
    }

    async fn take(&mut self) {
        let taken = self.process().deliver().await;
        let made = |d: &Delivery| (d.created_at.as_ms(), body(d));
        self.told.extend(taken.iter().map(made));
    }

    async fn boot(&mut self) {
        self.process.take().unwrap().kill().await;
        self.process = Some(self.machine.boot().await);
    }

    async fn reload(&self) {
        self.process().reload(&self.machine).await;
    }

    async fn act(&mut self, op: Op) {
        match op {
            Op::Say(file, says) => self.says[file] = says,
            Op::Write(file, other) => {
                let name = format!("{}.yml", FILES[file]);
                self.machine.write_file(&name, &text(file, other));
            }
            Op::Drop(file) => self.machine.remove_file(&format!("{}.yml", FILES[file])),
            Op::Reload => self.reload().await,
            Op::Step(steps) => {
                for _ in 0..steps {
                    self.step().await;
                }
            }
            Op::Kill { before_told } => {
                self.feed().await;
                let clock = &self.machine.clock;
                clock.advance(std::time::Duration::from_secs(STEP_SECS));
                self.process().rules().tick().await;
                if !before_told {
                    self.process().stand_still(0).await;
                    self.looks.push(self.process().now());
                }
                self.boot().await;
            }
            Op::Away(secs) => {
                self.process.take().unwrap().kill().await;
                let clock = &self.machine.clock;
                clock.advance(std::time::Duration::from_secs(secs));
                self.process = Some(self.machine.boot().await);
            }
        }
    }

    /// Everything ends, and is told.
    async fn end(&mut self) {
        self.says = [false; 3];
        for _ in 0..4 {
            self.step().await;
        }
    }

    /// Compares what was told with what the rules did.
    fn check(&self) {
        let changes = self.process().changes("Twin");
        let episodes = episodes(&changes);
        let mut fires = false;
        // Nobody may have heard that it fired: an unsent message gives way to a newer one.
        let mut ended_once = BTreeSet::new();
        for (at, message) in &self.told {
            let [alert] = message["alerts"].as_array().unwrap().as_slice() else {
                panic!("{message:#}");
            };
            let (start, end) = (time(&alert["startsAt"]), time(&alert["endsAt"]));
            let before = episodes.iter().rev().filter(|e| e.0 <= *at);
            let context = || format!("at {at}: {alert:#}\n{episodes:?}\n{changes:#?}");
            if alert["status"] == "firing" {
                let (last, _) = before
                    .clone()
                    .next()
                    .unwrap_or_else(|| panic!("{}", context()));
                assert_eq!(start, *last, "the start moved {}", context());
                fires = true;
                continue;
            }
            assert!(ended_once.insert(start), "resolved twice {}", context());
            fires = false;
            assert!(end > start, "{}", context());
            let told = before.clone().find(|e| e.0 == start);
            let ended = told.and_then(|(_, end)| *end);
            let ended = ended.unwrap_or_else(|| panic!("it has not ended {}", context()));
            let since = |change: &&Change| change.at > ended && change.at <= *at;
            let is_known = at - ended <= KEPT_MS && changes.iter().find(since).is_none();
            assert!(end >= ended && end <= *at, "{}", context());
            assert!(!is_known || end == ended, "{}", context());
        }
        assert!(!fires, "its end was never told\n{changes:#?}");
        // What ends before anybody looks is not told.
        let is_in = |at: &i64| {
            let fires = |e: &&(i64, Option<i64>)| e.0 <= *at && e.1.is_none_or(|end| end > *at);
            episodes.iter().any(|e| fires(&e))
        };
        let was_seen = self.looks.iter().any(is_in);
        assert!(!self.told.is_empty() || !was_seen, "{episodes:?}");
    }
}

fn time(value: &Value) -> i64 {
    let at: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
    at.as_millisecond()
}

/// Start and end of each time that at least one of the rules fired. A rule that moved
/// goes on with another name, so they are counted.
fn episodes(changes: &[Change]) -> Vec<(i64, Option<i64>)> {
    let ends = |change: &&Change| change.from == "firing";
    let fires = changes.iter().filter(|change| change.to == "firing");
    let mut turns: Vec<(i64, i64)> = fires.map(|change| (change.at, 1)).collect();
    turns.extend(changes.iter().filter(ends).map(|change| (change.at, -1)));
    // Of two at one time the one that begins comes first.
    turns.sort_unstable_by_key(|(at, by)| (*at, -by));
    let mut episodes: Vec<(i64, Option<i64>)> = Vec::new();
    let mut firing = 0;
    for (at, by) in turns {
        firing += by;
        match episodes.last_mut() {
            Some(last) if firing == 0 => last.1 = Some(at),
            Some(last) if last.1 == Some(at) => last.1 = None,
            _ if firing == 1 && by == 1 => episodes.push((at, None)),
            _ => {}
        }
    }
    episodes
}

async fn check(ops: &[Op]) {
    let mut run = Run::new().await;
    for op in ops {
        run.act(*op).await;
    }
    run.end().await;
    run.check();
}

#[tokio::test]
async fn the_end_of_a_removed_twin_is_not_that_of_the_one_that_is_left() {
    for dropped in 0..2 {
        check(&[
            Op::Step(3),
            Op::Drop(dropped),
            Op::Reload,
            Op::Step(1),
            Op::Kill { before_told: false },
            Op::Step(3),
        ])
        .await;
    }
}

#[tokio::test]
async fn a_start_is_known_when_nothing_is_left_of_who_began() {
    for (first, second) in [(0, 1), (1, 0)] {
        check(&[
            Op::Say(second, false),
            Op::Step(5),
            Op::Say(second, true),
            Op::Step(2),
            Op::Drop(first),
            Op::Reload,
            // Longer than rows of resolved alerts are kept.
            Op::Step(18),
            Op::Kill { before_told: true },
            Op::Step(2),
        ])
        .await;
    }
}

#[tokio::test]
async fn the_api_knows_the_start_that_people_were_told() {
    let mut run = Run::new().await;
    run.act(Op::Say(1, false)).await;
    run.act(Op::Step(3)).await;
    let starts_at = run.process().firing().await;
    assert_eq!(starts_at.len(), 1);
    for op in [
        Op::Say(1, true),
        Op::Step(2),
        Op::Drop(0),
        Op::Reload,
        Op::Step(18),
    ] {
        run.act(op).await;
        assert_eq!(run.process().firing().await, starts_at, "{op:?}");
    }
}

#[tokio::test]
async fn one_of_two_that_ends_tells_nobody_of_an_end() {
    for first in 0..2 {
        let mut run = Run::new().await;
        run.act(Op::Step(2)).await;
        run.act(Op::Say(first, false)).await;
        run.act(Op::Step(20)).await;
        assert_eq!(run.told.len(), 1, "{:#?}", run.told);
        run.end().await;
        assert_eq!(run.told.len(), 2, "{:#?}", run.told);
        run.check();
    }
}

#[tokio::test]
async fn what_ends_before_anybody_looks_is_not_told() {
    check(&[
        Op::Drop(0),
        Op::Kill { before_told: true },
        Op::Drop(1),
        Op::Reload,
    ])
    .await;
}

/// What a group that is left still records has not ended.
#[tokio::test]
async fn a_removed_twin_does_not_end_the_series_of_the_one_that_is_left() {
    let record = |name: &str| {
        format!(
            "groups:\n- name: {name}\n  interval: 1m\n  rules:\n  - {{record: r, expr: temp}}\n"
        )
    };
    let machine = Machine::new(
        "groups:\n- name: z\n  interval: 10s\n  rules:\n  - {alert: Twin, expr: 'r > 0'}\n",
    );
    for name in ["a", "b"] {
        machine.write_file(&format!("{name}.yml"), &record("g"));
    }
    let p = machine.boot().await;
    p.feed("temp", &[], 1.0).await;
    for _ in 0..7 {
        p.step(10).await;
    }
    assert_eq!(p.alerts().len(), 1);
    machine.remove_file("b.yml");
    p.reload(&machine).await;
    p.step(10).await;
    assert_eq!(p.alerts().len(), 1, "the series ended");
    // The control: with the last of them it ends.
    machine.remove_file("a.yml");
    p.reload(&machine).await;
    p.step(10).await;
    assert_eq!(p.alerts().len(), 0);
}

/// A rule file may be named twice: it is read once.
#[tokio::test]
async fn a_file_that_is_named_twice_is_one_file() {
    let machine = Machine::new(&text(0, false)).with_config(
        "[alerting]\nreceiver = \"ops\"\ngroup_wait = \"0s\"\n\
         [rules]\nfiles = [\"rules.yml\", \"*.yml\", \"./rules.yml\"]\n\
         [[destination.webhook]]\nname = \"ops\"\nurl = \"http://127.0.0.1:9/\"\n",
    );
    let loaded = machine.load();
    assert_eq!(loaded.groups.len(), 1);
    let p = machine.boot().await;
    p.feed("temp", &[("src", "a")], 1.0).await;
    p.step(60).await;
    assert_eq!(p.alerts(), [rules::AlertState::Firing]);
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..3_usize, any::<bool>()).prop_map(|(file, says)| Op::Say(file, says)),
        2 => (0..3_usize, any::<bool>()).prop_map(|(file, other)| Op::Write(file, other)),
        2 => (0..3_usize).prop_map(Op::Drop),
        4 => Just(Op::Reload),
        8 => (1..4_u64).prop_map(Op::Step),
        1 => Just(Op::Step(18)),
        3 => any::<bool>().prop_map(|before_told| Op::Kill { before_told }),
        1 => prop_oneof![Just(70_u64), Just(1_200)].prop_map(Op::Away),
    ]
}

fn cases() -> u32 {
    if std::env::var_os("PULSE_TEST_LONG").is_some() {
        400
    } else {
        24
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_becomes_of_twins_one_alert_is_told(ops in prop::collection::vec(op(), 4..24)) {
        tokio::runtime::Runtime::new().unwrap().block_on(check(&ops));
    }
}
