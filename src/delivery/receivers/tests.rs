//! What receivers send, where no real Alertmanager can be asked.

use serde_json::{Value, json};

use super::*;
use crate::config::{Alertmanager, Config};
use crate::delivery::message::Message;
use crate::model::Timestamp;

/// The requests of a receiver's kinds for a notification of one alert.
fn calls(kinds: &str, status: &str) -> Vec<Call> {
    let text = format!("route: {{receiver: a}}\nreceivers:\n- name: a\n{kinds}");
    let tree = Alertmanager::parse(&text, "am.yml").unwrap();
    let (templates, wrong) = Templates::load(&tree, &Config::default());
    assert!(wrong.is_empty());
    let mut reader = Reader::new(&tree);
    let mut setup = Setup {
        reader: &mut reader,
        templates: &templates,
    };
    let labels = json!({"alertname": "Hot"});
    let body = json!({
        "receiver": "a", "status": status, "externalURL": "http://p", "groupKey": "{}:{}",
        "groupLabels": labels, "commonLabels": labels, "commonAnnotations": {},
        "alerts": [{
            "status": status, "labels": labels, "annotations": {}, "generatorURL": "",
            "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
            "fingerprint": "00",
        }],
    });
    let message = Message::parse(body.to_string().as_bytes()).unwrap();
    let notice = Notice::new(message, "event", Timestamp::from_ms(0));
    let made = all(&tree.receivers[0], &mut setup).into_iter();
    made.map(|(_, made)| made.unwrap().1.call(&notice).unwrap())
        .collect()
}

fn body(call: &Call) -> Value {
    serde_json::from_slice(&call.body).unwrap()
}

#[test]
fn a_service_key_makes_pagerdutys_older_events() {
    let kinds = "  pagerduty_configs: [{service_key: k, url: 'http://else/', details: {a: b}}]\n";
    for (status, action) in [("firing", "trigger"), ("resolved", "resolve")] {
        let call = &calls(kinds, status)[0];
        assert_eq!(call.uri.host(), Some("events.pagerduty.com"));
        let event = body(call);
        assert_eq!(event["service_key"], "k");
        assert_eq!(event["event_type"], action);
        assert_eq!(event["incident_key"].as_str().unwrap().len(), 64);
        assert_eq!(event["details"]["a"], "b");
        let client = event.get("client").and_then(Value::as_str);
        assert_eq!(client, (status == "firing").then_some("Alertmanager"));
        assert!(event.get("routing_key").is_none());
    }
}

#[test]
fn victorops_takes_three_kinds_of_messages_and_knows_the_end() {
    for (asked, status, want) in [
        ("INFO", "firing", "INFO"),
        ("WARNING", "firing", "WARNING"),
        ("ACKNOWLEDGEMENT", "firing", "CRITICAL"),
        ("INFO", "resolved", "RECOVERY"),
    ] {
        let kinds = format!(
            "  victorops_configs: [{{api_key: k, routing_key: 'a b/c', message_type: {asked}}}]\n"
        );
        let call = &calls(&kinds, status)[0];
        assert_eq!(body(call)["message_type"], want);
        assert!(
            call.uri.path().ends_with("/alert/k/a%20b%2Fc"),
            "{}",
            call.uri
        );
    }
}

#[test]
fn webex_gets_no_more_bytes_than_it_takes() {
    let kinds = format!(
        "  webex_configs: [{{room_id: r, message: '{}', http_config: {{authorization: {{credentials: c}}}}}}]\n",
        "é".repeat(4_000)
    );
    let text = body(&calls(&kinds, "firing")[0])["markdown"].clone();
    let text = text.as_str().unwrap();
    assert!(text.len() <= 7_439 && text.len() > 7_430, "{}", text.len());
    assert!(text.ends_with("é…"));
}

#[test]
fn configured_headers_and_an_own_place_in_the_chat_are_sent() {
    let kinds = "  discord_configs:\n  - webhook_url: http://d/\n    content: hi\n    username: u\n    \
        http_config: {http_headers: {X-One: {values: [a], secrets: [b]}}}\n  \
        pushover_configs: [{user_key: u, token: t, ttl: 90s, monospace: true}]\n";
    let calls = calls(kinds, "firing");
    let values = calls[0].headers.get_all("x-one").iter();
    let values: Vec<&str> = values.map(|value| value.to_str().unwrap()).collect();
    assert_eq!(values, ["a", "b"]);
    let message = body(&calls[0]);
    assert_eq!(
        (&message["content"], &message["username"]),
        (&"hi".into(), &"u".into())
    );
    assert!(message.get("avatar_url").is_none());
    let form = String::from_utf8_lossy(&calls[1].body);
    assert!(form.contains("&ttl=90&monospace=1"), "{form}");
}
