//! Rules on a box whose clock is wrong or jumps, driven by a manual clock.
//!
//! An alert that has waited for two of the five minutes of its `for` fires after
//! three more minutes have passed, whatever the clock says meanwhile. The controls
//! show the same with a clock that believes everything.

use pulse::model::{Labels, Timestamp};
use pulse::rules::AlertState;
use pulse::store::{Item, Row, SeriesKey, WriteBatch};

use crate::rules::{Machine, Process, START_MS, group};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

const RULES: &str = "  - {record: hot, expr: temperature > 70}\n\
                     \x20 - {alert: Hot, expr: temperature > 70, for: 5m}\n";

/// Lets a minute pass with a hot device; gives whether the alert fires.
async fn minute(process: &Process) -> bool {
    process
        .feed("temperature", &[("device_id", "d")], 80.0)
        .await;
    process.step(60).await;
    process.alerts() == [AlertState::Firing]
}

/// What the clock does after two minutes of the `for`.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It says something else.
    Jump(i64),
    /// It says something else, and a time server confirms it.
    Confirmed(i64),
    /// The box starts anew with a clock that says this.
    Boot(i64),
}

/// The minutes that pass after the event until the alert fires.
async fn minutes_until_firing(event: Event, is_guarded: bool) -> Option<u32> {
    let mut machine = Machine::new(&group(RULES));
    machine.is_guarded = is_guarded;
    let mut process = machine.boot().await;
    for _ in 0..3 {
        assert!(!minute(&process).await);
    }
    match event {
        Event::Jump(by) => machine.clock.set(Timestamp::from_ms(process.now() + by)),
        Event::Confirmed(by) => {
            machine.clock.set_synchronised(true);
            machine.clock.set(Timestamp::from_ms(process.now() + by));
        }
        Event::Boot(to) => {
            process.kill().await;
            machine.clock.set(Timestamp::from_ms(to));
            process = machine.boot().await;
        }
    }
    let mut fires = None;
    for minute_ in 1..=20 {
        if minute(&process).await && fires.is_none() {
            fires = Some(minute_);
        }
    }
    // Rules go on, and what they record is stored.
    let recorded = process.series("hot").into_values().flatten().count();
    assert!(
        recorded >= 20 || !is_guarded,
        "{event:?}: {recorded} recorded"
    );
    process.kill().await;
    fires
}

#[tokio::test]
async fn a19_an_alert_waits_for_time_that_passed_not_for_what_the_clock_says() {
    for event in [
        Event::Jump(0),
        Event::Jump(75 * YEAR),
        Event::Jump(HOUR),
        Event::Jump(-HOUR),
        Event::Jump(-START_MS),
        Event::Jump(-6 * HOUR),
        Event::Jump(6 * HOUR),
        Event::Jump(60 * DAY),
        Event::Jump(-HOUR / 2),
        Event::Confirmed(-6 * HOUR),
        Event::Confirmed(3 * YEAR),
        Event::Boot(0),
        Event::Boot(START_MS + 75 * YEAR),
    ] {
        let minutes = minutes_until_firing(event, true).await;
        // After a restart the first evaluation may come up to a minute late.
        assert!(matches!(minutes, Some(3 | 4)), "{event:?}: {minutes:?}");
    }
}

#[tokio::test]
async fn control_with_a_clock_that_is_always_believed_alerts_fire_at_the_wrong_time() {
    let forward = minutes_until_firing(Event::Jump(6 * HOUR), false).await;
    assert_eq!(forward, Some(1));
    let back = minutes_until_firing(Event::Jump(-6 * HOUR), false).await;
    assert_eq!(back, None);
}

/// A hot device whose own clock is right.
async fn feed_at(process: &Process, ms: i64) {
    let pairs = [("__name__", "temperature"), ("device_id", "d")];
    let row = Row {
        series: SeriesKey::Labels(Labels::from_pairs(pairs)),
        t: Timestamp::from_ms(ms),
        v: 80.0,
    };
    let mut batch = WriteBatch::default();
    batch.push([row], Item::default());
    process.write(batch).await;
}

/// What a clock does that is two hours ahead for three seconds, seven times.
#[derive(Debug, PartialEq)]
struct Harm {
    /// Minutes of the hour after it in which the alert did not fire.
    silent: usize,
    /// Changes of the alert beside its beginning.
    changes: usize,
    /// Whether minutes are missing in what a rule records.
    has_gaps: bool,
}

async fn harm_of_a_clock_that_is_ahead_for_seconds(is_guarded: bool, is_killed: bool) -> Harm {
    let rules = "  - {record: hot, expr: temperature > 70}\n\
                 \x20 - {alert: Hot, expr: temperature > 70}\n";
    let mut machine = Machine::new(&group(rules));
    machine.is_guarded = is_guarded;
    let mut process = machine.boot().await;
    let mut right = START_MS;
    let mut silent = 0;
    for minute in 0..70 {
        feed_at(&process, right).await;
        process.step(60).await;
        right += 60_000;
        silent += usize::from(process.alerts() != [AlertState::Firing]);
        if minute >= 3 && minute % 10 == 3 {
            machine.clock.set(Timestamp::from_ms(right + 2 * HOUR));
            process.step(3).await;
            right += 3_000;
            feed_at(&process, right).await;
            if is_killed {
                process.kill().await;
                machine.clock.set(Timestamp::from_ms(right));
                process = machine.boot().await;
            }
            machine.clock.set(Timestamp::from_ms(right));
        }
    }
    let recorded = process.series("hot").into_values().flatten();
    let times: Vec<i64> = recorded.map(|sample| sample.t.as_ms()).collect();
    let harm = Harm {
        silent,
        changes: process.changes("Hot").len() - 1,
        has_gaps: times.windows(2).any(|two| two[1] - two[0] > 75_000),
    };
    process.kill().await;
    harm
}

#[tokio::test]
async fn a_clock_that_is_ahead_for_seconds_stops_no_alert_and_no_rule() {
    let none = Harm {
        silent: 0,
        changes: 0,
        has_gaps: false,
    };
    for is_killed in [false, true] {
        let harm = harm_of_a_clock_that_is_ahead_for_seconds(true, is_killed).await;
        assert_eq!(harm, none, "killed: {is_killed}");
    }
}

#[tokio::test]
async fn control_a_clock_that_is_ahead_for_seconds_and_always_believed_resolves_alerts() {
    let harm = harm_of_a_clock_that_is_ahead_for_seconds(false, false).await;
    assert!(harm.changes > 0, "{harm:?}");
}

/// Whether an alert that was posted with four minutes to go fires two minutes later,
/// when the clock has been stepped forward by an hour meanwhile; and six minutes later.
async fn fires_after_a_step(is_guarded: bool) -> [bool; 2] {
    let mut machine = Machine::new(&group("  - {record: hot, expr: vector(1)}\n"));
    machine.is_guarded = is_guarded;
    let process = machine.boot().await;
    process.step(60).await;
    let labels = Labels::from_pairs([("alertname", "Posted")]);
    let now = Timestamp::from_ms(process.now());
    process.post(&labels, now, now.plus_ms(4 * 60_000)).await;
    process.step(60).await;
    assert_eq!(process.deliver().await.len(), 1);
    machine.clock.set_synchronised(true);
    machine.clock.set(Timestamp::from_ms(process.now() + HOUR));
    let mut fires = [false; 2];
    for (at, minutes) in [1, 4].into_iter().enumerate() {
        process.step(minutes * 60).await;
        fires[at] = process.deliver().await.is_empty() && fires[..at].iter().all(|f| *f);
    }
    process.kill().await;
    fires
}

#[tokio::test]
async fn a_step_of_the_clock_ends_no_alert_that_others_sent() {
    // It ends when its four minutes are over.
    assert_eq!(fires_after_a_step(true).await, [true, false]);
}

#[tokio::test]
async fn control_with_a_clock_that_is_always_believed_a_step_ends_what_others_sent() {
    assert_eq!(fires_after_a_step(false).await, [false, false]);
}
