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

/// Each notification of an outage of one of two links, by the names of its alerts. The
/// link says that it is down, or only its devices say nothing any more.
async fn link_outage(says_so: bool) -> Vec<Vec<String>> {
    let machine = Machine::new(PACK);
    let process = machine.boot().await;
    let names: Vec<String> = (0..DEVICES).map(|n| format!("relay-{n}")).collect();
    let mut told = Vec::new();
    for minute in 0..60 {
        let is_dead = (35..55).contains(&minute);
        let mut rows = vec![(
            vec![("__name__", "pulse_source_up"), ("source", "plant")],
            1.0,
        )];
        // A will or a birth message comes once.
        if says_so && matches!(minute, 0 | 35 | 55) {
            let up = f64::from(u8::from(!is_dead));
            let labels = vec![
                ("__name__", "link_up"),
                ("tenant_id", "acme"),
                ("link", "gw-1"),
            ];
            rows.push((labels, up));
        }
        for (n, name) in names.iter().enumerate() {
            let link = if n % 5 == 0 { "gw-2" } else { "gw-1" };
            if link == "gw-2" || !is_dead {
                let labels = vec![
                    ("__name__", "temperature"),
                    ("tenant_id", "acme"),
                    ("link", link),
                    ("device_id", name.as_str()),
                ];
                rows.push((labels, 20.0));
            }
        }
        process.feed_all(&rows).await;
        process.step(60).await;
        for delivery in process.deliver().await {
            let body: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
            let alerts = body["alerts"].as_array().unwrap().iter();
            let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
            let name = |a: &serde_json::Value| {
                let labels = &a["labels"];
                let parts = [&labels["alertname"], &labels["link"], &a["status"]];
                parts.map(text).join(" ")
            };
            told.push(alerts.map(name).collect());
        }
    }
    process.kill().await;
    told
}

#[tokio::test]
async fn a20_a_dead_link_that_says_so_or_does_not_is_one_alert_for_400_devices() {
    let told = link_outage(true).await;
    assert_eq!(told, [["LinkDown gw-1 firing"], ["LinkDown gw-1 resolved"]]);
    let told = link_outage(false).await;
    assert_eq!(
        told,
        [["LinkSilent gw-1 firing"], ["LinkSilent gw-1 resolved"]]
    );
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
