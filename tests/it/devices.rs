//! Devices that fall silent, with the rules that come with the program.

use crate::rules::{Machine, Process};

const PACK: &str = include_str!("../../assets/rules/devices.yml");

const DEVICES: usize = 500;

/// What goes on in a minute.
#[derive(Clone, Copy)]
struct Minute {
    link_is_up: bool,
    devices_speak: bool,
}

async fn pass(process: &Process, minute: Minute) {
    let mut rows = Vec::new();
    let names: Vec<String> = (0..DEVICES).map(|n| format!("relay-{n}")).collect();
    let up = f64::from(u8::from(minute.link_is_up));
    rows.push((
        vec![("__name__", "pulse_source_up"), ("source", "plant")],
        up,
    ));
    for name in names.iter().filter(|_| minute.devices_speak) {
        let labels = vec![
            ("__name__", "temperature"),
            ("tenant_id", "acme"),
            ("device_id", name.as_str()),
        ];
        rows.push((labels, 20.0));
    }
    process.feed_all(&rows).await;
    process.step(60).await;
}

/// Each notification of an outage of twenty minutes: the names of its alerts.
async fn outage(rules: &str, link_is_up: bool) -> Vec<Vec<String>> {
    let machine = Machine::new(rules);
    let process = machine.boot().await;
    let good = Minute {
        link_is_up: true,
        devices_speak: true,
    };
    for _ in 0..35 {
        pass(&process, good).await;
    }
    assert!(process.deliver().await.is_empty(), "all is well so far");
    let bad = Minute {
        link_is_up,
        devices_speak: false,
    };
    let mut told = Vec::new();
    for _ in 0..20 {
        pass(&process, bad).await;
        for delivery in process.deliver().await {
            let body: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
            let alerts = body["alerts"].as_array().unwrap().iter();
            let name = |alert: &serde_json::Value| alert["labels"]["alertname"].to_string();
            told.push(alerts.map(name).collect());
        }
    }
    process.kill().await;
    told
}

#[tokio::test]
async fn a20_500_devices_silent_behind_one_dead_link_are_one_notification() {
    assert_eq!(outage(PACK, false).await, [["\"LinkDown\""]]);
    // A gateway that dies behind a link that stays is one notification too.
    let told = outage(PACK, true).await;
    assert_eq!(told, [["\"DevicesSilentTogether\""]]);
}

#[tokio::test]
async fn control_without_the_suppression_each_silent_device_is_an_alert() {
    let kept = PACK
        .lines()
        .filter(|line| !line.trim_start().starts_with("unless"));
    let without: Vec<&str> = kept.collect();
    assert!(without.len() < PACK.lines().count());
    let told = outage(&without.join("\n"), false).await;
    let devices = told
        .iter()
        .flatten()
        .filter(|name| *name == "\"DeviceSilent\"");
    assert!(devices.count() >= DEVICES, "{} notifications", told.len());
}
