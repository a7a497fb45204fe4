//! SIGKILL around accepted alerts: none is lost, none is told twice under two ids.
//!
//! Each round kills at another moment: right after the answer, once the notification
//! waits or has left, and once the receiver has it but its success may not be on
//! record. The control, which tells before it commits, is
//! `rules::a16_telling_before_the_commit_would_give_a_second_id`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::alertmanager::at;
use crate::broker::{PATIENCE, free_port};
use crate::server::{Server, eventually, eventually_within};
use crate::sink::{SECRET, Sink};

/// Rounds of each kind: 5 in CI, 60 in the long mode.
fn rounds() -> usize {
    if std::env::var_os("PULSE_TEST_LONG").is_some() {
        60
    } else {
        5
    }
}

fn configure(dir: &Path, sink_port: u16) {
    let config = format!(
        "[alerting]\nreceiver = \"ops\"\ngroup_wait = \"0s\"\ngroup_interval = \"1s\"\n\
         [[destination.webhook]]\nname = \"ops\"\nsecret = \"{SECRET}\"\n\
         url = \"http://127.0.0.1:{sink_port}/hook\"\n"
    );
    fs::write(dir.join("pulse.toml"), config).unwrap();
}

fn body(name: &str, ends_at: &str) -> String {
    serde_json::json!([{"labels": {"alertname": name}, "endsAt": ends_at}]).to_string()
}

/// The distinct ids under which each alert was told, by name and status.
fn told(sink: &Sink) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut told: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for delivery in sink.deliveries() {
        let message: Value = serde_json::from_str(&delivery.body).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let key = (
            text(&message["groupLabels"]["alertname"]),
            text(&message["status"]),
        );
        told.entry(key).or_default().insert(delivery.id);
    }
    told
}

async fn post(server: &Server, body: &str) {
    let url = server.url("/api/v2/alerts");
    let answer = server.http.clone().post_owned(url, body.to_owned()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Whether a notification waits, or one was handed over since the start.
async fn has_flushed(server: &Server) -> bool {
    let metrics = server.get("/metrics").await;
    let line = metrics
        .text()
        .lines()
        .find(|line| line.starts_with("alertmanager_notifications_total{integration=\"webhook\"}"));
    line.is_some_and(|line| !line.ends_with(" 0"))
}

/// Posts, then kills at the round's moment and starts again.
async fn round(
    dir: &Path,
    mut server: Server,
    sink: Option<&Sink>,
    at: usize,
    body: &str,
) -> Server {
    let before = sink.map_or(0, |sink| sink.attempts().len());
    post(&server, body).await;
    match (at % 3, sink) {
        (0, _) => {}
        (2, Some(sink)) => {
            eventually("the receiver has it", || async {
                (sink.attempts().len() > before).then_some(())
            })
            .await;
        }
        _ => {
            eventually("it was handed over", || async {
                has_flushed(&server).await.then_some(())
            })
            .await;
        }
    }
    server.kill();
    Server::start(dir, server.port).await
}

/// Every alert fires and ends, with a kill after each; all that was accepted is told.
async fn check(repost: bool, receiver_is_down: bool) {
    let dir = tempfile::tempdir().unwrap();
    let sink_port = free_port();
    configure(dir.path(), sink_port);
    let mut sink = if receiver_is_down {
        None
    } else {
        Some(Sink::start(sink_port).await)
    };
    let mut server = Server::start(dir.path(), free_port()).await;
    let names: Vec<String> = (0..rounds()).map(|i| format!("Alert{i}")).collect();
    let end = at(3_600);
    let begun = Instant::now();
    for (i, name) in names.iter().enumerate() {
        server = round(dir.path(), server, sink.as_ref(), i, &body(name, &end)).await;
        if repost {
            post(&server, &body(name, &end)).await;
        }
    }
    if sink.is_none() {
        sink = Some(Sink::start(sink_port).await);
    }
    let sink = sink.unwrap();
    let all = |status: &'static str| {
        let (sink, names) = (&sink, &names);
        move || async move {
            let told = told(sink);
            let has = |name: &String| told.contains_key(&(name.clone(), status.to_owned()));
            names.iter().all(has).then_some(())
        }
    };
    // A receiver that was away so long is tried again after up to three quarters of it.
    let patience = PATIENCE + begun.elapsed();
    eventually_within(patience, "every alert is told", all("firing")).await;
    let ended = at(0);
    for (i, name) in names.iter().enumerate() {
        server = round(dir.path(), server, Some(&sink), i, &body(name, &ended)).await;
        if repost {
            post(&server, &body(name, &ended)).await;
        }
    }
    eventually("every end is told", all("resolved")).await;
    assert_eq!(server.terminate().await, Some(0));
    let told = told(&sink);
    let twice: Vec<_> = told.iter().filter(|(_, ids)| ids.len() != 1).collect();
    assert!(twice.is_empty(), "told under several ids: {twice:#?}");
    assert_eq!(
        told.len(),
        2 * names.len(),
        "told of something else: {told:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_kills_lose_no_accepted_alert_and_give_no_second_id() {
    check(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_kills_while_the_receiver_is_down_lose_nothing() {
    check(false, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_kills_with_senders_that_repeat_themselves_tell_once() {
    check(true, false).await;
}
