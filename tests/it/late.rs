//! Data that comes late: rules are run again over its time, and nobody is paged.

use std::time::Duration;

use pulse::model::{Labels, Timestamp};
use pulse::rules::AlertState;
use pulse::store::{Item, Row, SeriesKey, WriteBatch};

use crate::rules::{Machine, Process, START_MS, group};

const RULES: &str = "  - {record: 'room:temp', expr: 'avg by (room) (temp)'}\n\
                     \x20 - {record: 'all:temp', expr: 'sum(room:temp)'}\n\
                     \x20 - {alert: Hot, expr: 'room:temp > 30', for: 30s}\n";

/// Samples of a room for some minutes of the past, ten seconds apart.
async fn feed_late(p: &Process, room: &str, minutes: std::ops::Range<i64>, v: f64) {
    let labels = Labels::from_pairs([("__name__", "temp"), ("room", room)]);
    let rows = (minutes.start * 6..minutes.end * 6).map(|tick| Row {
        series: SeriesKey::Labels(labels.clone()),
        t: Timestamp::from_ms(START_MS + tick * 10_000),
        v,
    });
    let mut batch = WriteBatch::default();
    batch.push(rows, Item::default());
    p.write(batch).await;
}

fn count(p: &Process, name: &str, room: &str) -> usize {
    let series = p.series(name);
    let found = series.iter().filter(|(labels, _)| labels.contains(room));
    let samples = found.flat_map(|(_, samples)| samples);
    samples.filter(|s| !pulse::model::is_stale_nan(s.v)).count()
}

#[tokio::test]
async fn late_data_fills_what_was_recorded_and_leaves_an_entry_instead_of_a_page() {
    let machine = Machine::new(&group(RULES));
    let p = machine.boot().await;
    for _ in 0..180 {
        p.feed("temp", &[("room", "near")], 20.0).await;
        p.step(10).await;
        p.rules().look_at_late_data().await;
    }
    let near = count(&p, "room:temp", "near");
    p.rules().look_at_late_data().await;
    assert_eq!(
        p.counter("pulse_rules_late_evaluations_total"),
        0.0,
        "nothing was late"
    );
    assert_eq!(count(&p, "room:temp", "far"), 0);

    // Ten minutes of a room that was cut off, hot for five of them.
    feed_late(&p, "far", 10..15, 20.0).await;
    feed_late(&p, "far", 15..20, 40.0).await;
    p.rules().look_at_late_data().await;
    // Each of its slots, and what the lookback of five minutes adds behind them.
    let far = count(&p, "room:temp", "far");
    assert!((88..=91).contains(&far), "{far}");
    assert_eq!(count(&p, "room:temp", "near"), near);
    // The sum was recorded without it: that stays, and is counted.
    let sums = p.series("all:temp").into_values().next().unwrap();
    assert!(sums.iter().all(|s| s.v == 20.0));
    assert!(p.counter("pulse_rules_late_differing_total") >= 88.0);

    // The alert is history; nobody is told, and nothing fires now.
    let entries = p.history();
    let late: Vec<_> = entries
        .iter()
        .filter(|(_, _, to)| to == "retroactive")
        .collect();
    assert_eq!(late.len(), 1, "{entries:?}");
    let fired = (late[0].0 - START_MS) / 1_000;
    assert!((930..=945).contains(&fired), "{fired}");
    assert!(late[0].1.contains("far"));
    p.step(10).await;
    assert!(p.deliver().await.is_empty());
    assert_eq!(p.alerts(), [] as [AlertState; 0]);

    // Found again, it is the same entry, and what is filled stays as it is.
    feed_late(&p, "far", 9..10, 20.0).await;
    p.rules().look_at_late_data().await;
    let again = p.history();
    let late = again.iter().filter(|(_, _, to)| to == "retroactive");
    assert_eq!(late.count(), 1);
    assert!(count(&p, "room:temp", "far") > far);
}

#[tokio::test]
async fn data_of_long_ago_is_left_out_and_counted() {
    let machine = Machine::new(&group(RULES));
    let p = machine.boot().await;
    machine.clock.advance(Duration::from_secs(7 * 3_600));
    feed_late(&p, "far", 0..10, 40.0).await;
    p.rules().look_at_late_data().await;
    assert_eq!(p.counter("pulse_rules_late_cut_total"), 1.0);
    assert_eq!(count(&p, "room:temp", "far"), 0);
    assert!(p.history().is_empty());
}
