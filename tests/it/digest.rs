//! One summary in an hour instead of a message for every change.

use pulse::alerting::Hold;
use pulse::model::Labels;
use pulse::rules::AlertState;

use crate::rules::{Machine, Process, START_MS, body, group};

const HOUR: u64 = 3_600;

fn config(digest: &str) -> String {
    format!(
        "[rules]\nfiles = [\"*.yml\"]\n[alerting.route]\nreceiver = \"ops\"\ngroup_by = []\n\
         group_wait = \"0s\"\ngroup_interval = \"1s\"\nrepeat_interval = \"1d\"\n{digest}\n\
         [[alerting.receivers]]\nname = \"ops\"\n\
         webhook_configs = [{{ url = \"http://127.0.0.1:9/\", send_resolved = true }}]\n"
    )
}

fn machine(digest: &str) -> Machine {
    let rules = "  - {alert: Hot, expr: 'temp > 30'}\n";
    Machine::new(&group(rules)).with_config(&config(digest))
}

/// Ten minutes in which `a` fires once and ends, and `b` fires as it is told.
async fn ten_minutes(p: &Process, b: f64) -> Vec<String> {
    ten_minutes_with(p, 40.0, b).await
}

/// The same, with the value of `a` in the fourth minute.
async fn ten_minutes_with(p: &Process, a: f64, b: f64) -> Vec<String> {
    let mut told = Vec::new();
    for minute in 0..10 {
        let a = if minute == 3 { a } else { 20.0 };
        p.feed("temp", &[("room", "a")], a).await;
        p.feed("temp", &[("room", "b")], b).await;
        p.step(60).await;
        for delivery in p.deliver().await {
            let mut text = format!("{}:", (p.now() - START_MS) / 1_000);
            for alert in body(&delivery)["alerts"].as_array().unwrap() {
                let part = |part: &serde_json::Value| part.as_str().unwrap_or("1").to_owned();
                let room = part(&alert["labels"]["room"]);
                let (status, fired) = (
                    part(&alert["status"]),
                    part(&alert["annotations"]["times_fired"]),
                );
                text += &format!(" {room} {status} {fired}");
            }
            told.push(text);
        }
    }
    told
}

/// The start lies 14 minutes after a full hour.
const FIRST: i64 = START_MS / 1_000 % 3_600;

#[tokio::test]
async fn a_digest_tells_once_an_hour_of_all_that_came_and_went() {
    let first = HOUR - u64::try_from(FIRST).unwrap();
    let machine = machine("digest_interval = \"1h\"");
    let mut p = machine.boot().await;
    let mut told = Vec::new();
    for round in 0..18 {
        told.extend(ten_minutes(&p, if round < 10 { 40.0 } else { 20.0 }).await);
        if round == 8 {
            // What ended half an hour ago is still told after this.
            p.kill().await;
            p = machine.boot().await;
        }
    }
    assert_eq!(p.alerts(), [] as [AlertState; 0]);
    let hours = [first, first + HOUR, first + 2 * HOUR];
    assert_eq!(told.len(), 3, "{told:?}");
    for (text, hour) in told.iter().zip(hours) {
        // At the first look in the hour.
        let at: u64 = text.split(':').next().unwrap().parse().unwrap();
        assert!((hour..hour + 60).contains(&at), "{text}: {hour}");
    }
    let words: Vec<&str> = told.iter().map(|t| t.split_once(": ").unwrap().1).collect();
    let times = |text: &str| text.split(' ').nth(2).unwrap().parse::<u32>().unwrap();
    assert!(words[0].starts_with("a resolved") && words[0].ends_with("b firing 1"));
    assert!((4..=5).contains(&times(words[0])), "{words:?}");
    // The restart and the hour: six times in six rounds of ten minutes.
    assert!(words[1].ends_with("b resolved 1"), "{words:?}");
    assert_eq!(times(words[1]), 6);
    assert_eq!(words[2], "a resolved 6");
}

/// Those of the messages that speak of `a`, without their times.
fn of_a(told: Vec<String>) -> Vec<String> {
    let words = told.into_iter().filter_map(|text| {
        let (_, words) = text.split_once(": ")?;
        let a = words.split_once("a ")?.1;
        Some(a.split(' ').take(2).collect::<Vec<_>>().join(" "))
    });
    words.collect()
}

#[tokio::test]
async fn what_flaps_is_told_once_an_hour_until_it_is_calm() {
    let machine = machine("flap_limit = 3");
    let mut p = machine.boot().await;
    let hot = Labels::from_pairs([("alertname", "Hot"), ("room", "a")]).fingerprint();
    let mut told = Vec::new();
    // From 14 minutes past one hour to 4 past the next but one.
    for round in 0..11 {
        told.extend(of_a(ten_minutes(&p, 40.0).await));
        if round == 3 {
            let story = p.explain(hot).await;
            assert_eq!(story.fired_in_a_day, 4);
            assert_eq!(story.routes[0].holds, [Hold::Flapping { times: 4 }]);
        }
        if round == 8 {
            p.kill().await;
            p = machine.boot().await;
        }
    }
    let mut want = ["firing 1", "resolved 1"].repeat(3);
    // At the full hours.
    want.extend(["resolved 5", "resolved 6"]);
    assert_eq!(told, want);
    assert_eq!(p.explain(hot).await.fired_in_a_day, 11);
    for _ in 0..7 {
        let told = of_a(ten_minutes_with(&p, 20.0, 40.0).await);
        assert_eq!(told, [] as [&str; 0], "it is calm");
    }
    let told = of_a(ten_minutes(&p, 40.0).await);
    assert_eq!(told, ["firing 1", "resolved 1"]);
}

#[tokio::test]
async fn control_without_a_digest_every_change_is_a_message() {
    let machine = machine("");
    let p = machine.boot().await;
    let mut told = 0;
    for _ in 0..6 {
        told += ten_minutes(&p, 40.0).await.len();
    }
    assert_eq!(told, 13);
}
