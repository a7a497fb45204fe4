//! Our alerts at a real Alertmanager, and who tells people while it answers.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::alertmanager::Alertmanager;
use crate::broker::free_port;
use crate::receivers::Sink;
use crate::server::{Http, Server, eventually};

const URL: &str = "http://am.example:9093";

fn configure(dir: &Path, sink: u16, alertmanager: u16, handover: bool) {
    fs::write(
        dir.join("rules.yml"),
        "groups:\n- name: g\n  interval: 1s\n  rules:\n  \
         - {alert: Hot, expr: 'temp > 30', labels: {team: a}, annotations: {summary: 'it is {{ $value }}'}}\n",
    )
    .unwrap();
    let config = format!(
        "[global]\nexternal_url = \"http://box:8080\"\nexternal_labels = {{ site = \"one\" }}\n\
         [rules]\nrule_files = [\"rules.yml\"]\nresend_delay = \"1s\"\n\
         [alerting]\nhandover = {handover}\n\
         route = {{ receiver = \"own\", group_by = [\"alertname\"], group_wait = \"0s\", group_interval = \"1s\" }}\n\
         receivers = [{{ name = \"own\", webhook_configs = [{{ url = \"http://127.0.0.1:{sink}/own\" }}] }}]\n\
         [[alerting.alertmanagers]]\nstatic_configs = [{{ targets = [\"127.0.0.1:{alertmanager}\"] }}]\ntimeout = \"2s\"\n"
    );
    fs::write(dir.join("pulse.toml"), config).unwrap();
}

fn tree(sink: u16) -> String {
    format!(
        "route:\n  receiver: theirs\n  group_by: [alertname]\n  group_wait: 0s\n  group_interval: 1s\n\
         receivers:\n- name: theirs\n  webhook_configs:\n  - url: http://127.0.0.1:{sink}/theirs\n"
    )
}

async fn push(server: &Server, temp: u32) {
    let url = server.url("/api/v1/ingest/acme?device=d1");
    let body = format!(r#"{{"temp":{temp}}}"#);
    let answer = server.http.post(&url, "application/json", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn theirs(real: &Alertmanager) -> Vec<Value> {
    let answer = Http::new().get(&real.url("/api/v2/alerts")).await;
    answer.json().as_array().unwrap().clone()
}

/// The statuses that were told to a path, in order.
fn told(sink: &Sink, path: &str) -> Vec<String> {
    let status = |body: &str| {
        let body: Value = serde_json::from_str(body).unwrap();
        body["status"].as_str().unwrap().to_owned()
    };
    sink.to(path).iter().map(|got| status(&got.body)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_reach_a_real_alertmanager_as_those_of_a_prometheus() {
    let (sink, sink_port) = Sink::start().await;
    let Some(real) = Alertmanager::start(&tree(sink_port), URL).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), sink_port, real.port, false);
    let server = Server::start(dir.path(), free_port()).await;
    let shown = server.get("/api/v1/alertmanagers").await.json();
    let url = format!("http://127.0.0.1:{}/api/v2/alerts", real.port);
    assert_eq!(shown["data"]["activeAlertmanagers"][0]["url"], url.as_str());
    assert_eq!(shown["data"]["droppedAlertmanagers"], serde_json::json!([]));
    push(&server, 40).await;
    let alert = eventually("it is there", || async { theirs(&real).await.pop() }).await;
    let wanted = serde_json::json!({
        "alertname": "Hot", "device_id": "d1", "site": "one", "team": "a", "tenant_id": "acme",
    });
    assert_eq!(alert["labels"], wanted);
    assert_eq!(alert["annotations"]["summary"], "it is 40");
    let generator = alert["generatorURL"].as_str().unwrap();
    assert!(
        generator.starts_with("http://box:8080/graph?g0.expr=temp"),
        "{generator}"
    );
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let first = (time(&alert["updatedAt"]), time(&alert["endsAt"]));
    let ahead = first.1.as_second() - first.0.as_second();
    assert!(
        (2..=5).contains(&ahead),
        "four resend_delays ahead: {alert}"
    );
    eventually("it is sent again", || async {
        let alert = theirs(&real).await.pop()?;
        (time(&alert["updatedAt"]) > first.0).then_some(())
    })
    .await;
    eventually("both tell of it", || async {
        let both = [told(&sink, "/own"), told(&sink, "/theirs")];
        (both == [["firing"], ["firing"]]).then_some(())
    })
    .await;
    push(&server, 20).await;
    eventually("both tell of its end", || async {
        let both = [told(&sink, "/own"), told(&sink, "/theirs")];
        (both == [["firing", "resolved"], ["firing", "resolved"]]).then_some(())
    })
    .await;
    let metrics = server.get("/metrics").await;
    let sent = format!("prometheus_notifications_sent_total{{alertmanager=\"{url}\"}}");
    assert!(metrics.text().contains(&sent), "{sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_alertmanager_answers_people_hear_of_it_there_only() {
    let (sink, sink_port) = Sink::start().await;
    let Some(real) = Alertmanager::start(&tree(sink_port), URL).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), sink_port, real.port, true);
    let server = Server::start(dir.path(), free_port()).await;
    let sent = |server: &Server| {
        let metrics = server.http.clone();
        let url = server.url("/metrics");
        async move { metrics.get(&url).await.text().to_owned() }
    };
    eventually("it answered an empty list", || async {
        let text = sent(&server).await;
        text.contains("prometheus_notifications_sent_total{")
            .then_some(())
    })
    .await;
    push(&server, 40).await;
    eventually("the other one tells of it", || async {
        (told(&sink, "/theirs") == ["firing"]).then_some(())
    })
    .await;
    let held = eventually("the group was looked at", || async {
        let groups = server.get("/api/v2/alerts").await.json();
        groups.as_array()?.first().cloned()
    })
    .await;
    assert_eq!(held["labels"]["alertname"], "Hot");
    assert_eq!(told(&sink, "/own"), Vec::<String>::new());
    // It goes away: we tell, though late rather than twice.
    drop(real);
    eventually("we tell of it ourselves", || async {
        (told(&sink, "/own") == ["firing"]).then_some(())
    })
    .await;
    push(&server, 20).await;
    eventually("and of its end", || async {
        (told(&sink, "/own") == ["firing", "resolved"]).then_some(())
    })
    .await;
    assert_eq!(told(&sink, "/theirs"), ["firing"]);
}
