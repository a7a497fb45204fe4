//! Rules that stand elsewhere after a reload or a restart: nobody is told of it.

use pulse::model::is_stale_nan;
use pulse::rules::AlertState;

use crate::rules::{Machine, Process, body};

/// A file with one group of that name.
fn text(group: &str, rules: &str) -> String {
    format!("groups:\n- name: {group}\n  interval: 10s\n  rules:\n{rules}")
}

const HOT: &str = "  - {alert: Hot, expr: 'temp > 30', for: 20s, labels: {sev: page}}\n";

/// What was told, in order: status and start.
async fn told(p: &Process) -> Vec<(String, String)> {
    let deliveries = p.deliver().await;
    let bodies = deliveries.iter().map(body);
    let alerts = bodies.flat_map(|b| b["alerts"].as_array().unwrap().clone());
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    alerts
        .map(|a| (text(&a["status"]), text(&a["startsAt"])))
        .collect()
}

async fn steps(p: &Process, count: usize, v: f64) {
    for _ in 0..count {
        p.feed("temp", &[("device", "d1")], v).await;
        p.step(10).await;
    }
}

/// How the rules get to know what the files say.
#[derive(Clone, Copy, PartialEq, Debug)]
enum By {
    Reload,
    /// Killed right after, before an evaluation.
    ReloadAndKill,
    /// The files changed while nobody ran.
    Start,
}

const ALL: [By; 3] = [By::Reload, By::ReloadAndKill, By::Start];

async fn taken_over(p: Process, machine: &Machine, by: By, change: impl FnOnce()) -> Process {
    if by == By::Start {
        p.kill().await;
        change();
        return machine.boot().await;
    }
    change();
    p.reload(machine).await;
    if by == By::Reload {
        return p;
    }
    p.kill().await;
    machine.boot().await
}

/// An alert over a change of the files: it fires on as if nothing were.
async fn check_goes_on(before: &str, file: &str, after: &str) {
    for by in ALL {
        let machine = Machine::new(before);
        let p = machine.boot().await;
        steps(&p, 4, 50.0).await;
        let first = told(&p).await;
        assert_eq!(first.len(), 1);
        let p = taken_over(p, &machine, by, || {
            machine.remove_file("rules.yml");
            machine.write_file(file, after);
        })
        .await;
        assert_eq!(p.alerts(), [AlertState::Firing], "{by:?}");
        p.stand_still(2).await;
        steps(&p, 3, 50.0).await;
        assert_eq!(told(&p).await, [], "{by:?}");
        assert_eq!(p.alerts(), [AlertState::Firing], "{by:?}");
        steps(&p, 3, 0.0).await;
        let start = first[0].1.clone();
        assert_eq!(told(&p).await, [("resolved".to_owned(), start)], "{by:?}");
        let fired = p.changes("Hot").iter().filter(|c| c.to == "firing").count();
        assert_eq!(fired, 1, "{by:?}");
    }
}

#[tokio::test]
async fn a_renamed_group_goes_on_and_tells_nobody() {
    check_goes_on(&text("g", HOT), "rules.yml", &text("renamed", HOT)).await;
}

#[tokio::test]
async fn a_rule_in_another_file_goes_on_and_tells_nobody() {
    let other = "  - {record: r, expr: temp}\n";
    let both = format!("{other}{HOT}");
    check_goes_on(&text("g", HOT), "other.yml", &text("h", &both)).await;
}

#[tokio::test]
async fn a_rule_that_has_another_threshold_goes_on_and_again_after_a_second_change() {
    let changed = |to: &str| text("g", &HOT.replace("> 30", to));
    check_goes_on(&text("g", HOT), "rules.yml", &changed("> 40")).await;
    for by in ALL {
        let machine = Machine::new(&text("g", HOT));
        let mut p = machine.boot().await;
        steps(&p, 4, 50.0).await;
        assert_eq!(told(&p).await.len(), 1);
        for to in ["> 40", "> 45"] {
            let write = || machine.write_file("rules.yml", &changed(to));
            p = taken_over(p, &machine, by, write).await;
            assert_eq!(p.alerts(), [AlertState::Firing], "{by:?} {to}");
            p.stand_still(2).await;
            steps(&p, 3, 50.0).await;
            assert_eq!(told(&p).await, [], "{by:?} {to}");
        }
    }
}

#[tokio::test]
async fn nobody_takes_the_alerts_of_a_rule_of_another_file_that_changed() {
    let idle = text("g", &HOT.replace("> 30", "> 90"));
    for by in ALL {
        // It was there before, without alerts, or comes with the change.
        for is_old in [true, false] {
            let machine = Machine::new(&text("g", HOT));
            let write_idle = || machine.write_file("a.yml", &idle);
            if is_old {
                write_idle();
            }
            let p = machine.boot().await;
            steps(&p, 4, 50.0).await;
            assert_eq!(told(&p).await.len(), 1);
            let p = taken_over(p, &machine, by, || {
                write_idle();
                machine.write_file("rules.yml", &text("g", &HOT.replace("> 30", "> 40")));
            })
            .await;
            p.stand_still(2).await;
            steps(&p, 3, 50.0).await;
            assert_eq!(told(&p).await, [], "{by:?} {is_old}");
            assert_eq!(p.alerts(), [AlertState::Firing], "{by:?} {is_old}");
        }
    }
}

#[tokio::test]
async fn a_pending_alert_waits_on_where_its_rule_stands_now() {
    let slow = HOT.replace("20s", "60s");
    for by in ALL {
        let machine = Machine::new(&text("g", &slow));
        let p = machine.boot().await;
        steps(&p, 5, 50.0).await;
        assert_eq!(p.alerts(), [AlertState::Pending]);
        let p = taken_over(p, &machine, by, || {
            machine.write_file("rules.yml", &text("renamed", &slow));
        })
        .await;
        assert_eq!(p.alerts(), [AlertState::Pending], "{by:?}");
        // A restart does not count for `for`; slots of the other group lie elsewhere.
        let count = if by == By::Reload { 3 } else { 4 };
        steps(&p, count, 50.0).await;
        assert_eq!(p.alerts(), [AlertState::Firing], "{by:?}");
    }
}

#[tokio::test]
async fn keep_firing_for_goes_on_where_the_rule_stands_now() {
    let kept = HOT.replace("for: 20s", "keep_firing_for: 60s");
    for by in ALL {
        let machine = Machine::new(&text("g", &kept));
        let p = machine.boot().await;
        steps(&p, 2, 50.0).await;
        steps(&p, 3, 0.0).await;
        let p = taken_over(p, &machine, by, || {
            machine.write_file("rules.yml", &text("renamed", &kept));
        })
        .await;
        steps(&p, 3, 0.0).await;
        assert_eq!(p.alerts(), [AlertState::Firing], "{by:?}");
        steps(&p, 2, 0.0).await;
        assert_eq!(p.alerts(), [], "{by:?}");
    }
}

#[tokio::test]
async fn a_rule_that_is_gone_resolves_at_once_and_another_one_begins_anew() {
    for after in [
        "",
        &HOT.replace("page", "mail"),
        &HOT.replace("Hot", "Hotter"),
        &HOT.replace("> 30", "> 40"),
    ] {
        for by in ALL {
            let machine = Machine::new(&text("g", HOT));
            let p = machine.boot().await;
            steps(&p, 4, 50.0).await;
            told(&p).await;
            let p = taken_over(p, &machine, by, || {
                machine.write_file("rules.yml", &text("renamed", after));
            })
            .await;
            p.stand_still(2).await;
            let told = told(&p).await;
            assert_eq!(told.len(), 1, "{by:?} {after}");
            assert_eq!(told[0].0, "resolved", "{by:?} {after}");
        }
    }
}

#[tokio::test]
async fn the_series_of_a_rule_that_moved_have_no_gap() {
    let both = format!("  - {{record: r, expr: temp}}\n{HOT}");
    // Controls: series end where the rule is gone.
    for (after, ended) in [(both.as_str(), 0), ("  - {record: x, expr: temp}\n", 1)] {
        let machine = Machine::new(&text("g", &both));
        let p = machine.boot().await;
        steps(&p, 4, 50.0).await;
        machine.write_file("rules.yml", &text("renamed", after));
        p.reload(&machine).await;
        steps(&p, 2, 50.0).await;
        for name in ["r", "ALERTS_FOR_STATE"] {
            let series = p.series(name);
            assert_eq!(series.len(), 1);
            let samples = series.values().flatten();
            let stale = samples.filter(|s| is_stale_nan(s.v)).count();
            assert_eq!(stale, ended, "{name} with {after}");
        }
    }
}

#[tokio::test]
async fn of_equal_rules_each_takes_the_alerts_of_one() {
    let slow = HOT.replace("20s", "10m");
    let two = format!("{HOT}{slow}");
    for by in ALL {
        let machine = Machine::new(&text("g", &two));
        let p = machine.boot().await;
        steps(&p, 4, 50.0).await;
        told(&p).await;
        let p = taken_over(p, &machine, by, || {
            machine.write_file("rules.yml", &text("renamed", &two));
        })
        .await;
        let both = [AlertState::Firing, AlertState::Pending];
        assert_eq!(p.alerts(), both, "{by:?}");
        steps(&p, 2, 50.0).await;
        assert_eq!(p.alerts(), both, "{by:?}");
        assert_eq!(told(&p).await, [], "{by:?}");
    }
}

/// Two rules of one name with the same labels: only the first one finds something.
fn pair() -> (String, String) {
    let higher = HOT.replace("> 30", "> 60");
    (format!("{HOT}{higher}"), format!("{higher}{HOT}"))
}

#[tokio::test]
async fn equal_rules_that_change_places_keep_each_its_own_alerts() {
    let (both, turned) = pair();
    check_goes_on(&text("g", &both), "rules.yml", &text("g", &turned)).await;
    check_goes_on(&text("g", &both), "other.yml", &text("h", &turned)).await;
}

#[tokio::test]
async fn equal_rules_that_all_have_other_thresholds_keep_their_alerts_in_order() {
    let (both, _) = pair();
    let changed = both.replace("> 30", "> 31").replace("> 60", "> 61");
    check_goes_on(&text("g", &both), "rules.yml", &text("g", &changed)).await;
}

#[tokio::test]
async fn a_rule_without_alerts_takes_none_of_an_equal_one_that_changed() {
    let idle = HOT.replace("temp > 30", "temp > 90");
    let changed = HOT.replace("> 30", "> 31");
    let (before, after) = (format!("{idle}{HOT}"), format!("{idle}{changed}"));
    check_goes_on(&text("g", &before), "rules.yml", &text("g", &after)).await;
    // The idle one falls below its threshold at once: had it taken the alert, it would end.
    let swapped = format!("{changed}{idle}");
    check_goes_on(&text("g", &before), "rules.yml", &text("g", &swapped)).await;
}
