//! Rules in a running pulse beside the same rules in a running Prometheus.
//!
//! The rules need no data: they look at the clock. Both processes evaluate them
//! every second; what their APIs say is compared when both have come to the same
//! states. Times are left out, and everything else is equal.

use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;

use crate::broker::{free_port, program};
use crate::server::{Http, Server, eventually};

/// Until both have started, in seconds.
const LEAD: u64 = 12;

/// What is killed at the end of the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// `MOMENT` stands for the moment at which things change.
const RULES: &str = r#"
groups:
- name: first
  interval: 1s
  limit: 10
  rules:
  - {record: 'a:b', expr: 'vector(3)', labels: {unit: C}}
  - alert: Always
    expr: '{__name__="a:b"} > 2'
    labels: {severity: page, of: '{{ $labels.unit }}'}
    annotations: {summary: 'it is <{{ $value | humanize }}> & more', graph: '{{ graphLink "up" }}'}
  - {alert: Never, expr: 'vector(1) > 2', for: 1h30m}
  - {alert: Later, expr: 'vector(7) and on() (vector(time()) > MOMENT)', for: 5s, annotations: {v: '{{ $value }}'}}
  - {alert: Ends, expr: 'vector(90) and on() (vector(time()) < MOMENT)', keep_firing_for: 5s}
- name: second
  interval: 1s
  rules:
  - alert: Twice
    expr: 'label_replace(vector(1), "a", "1", "", "") or label_replace(vector(1), "a", "2", "", "")'
    labels: {a: x}
  - alert: Many
    expr: 'vector(1) / on() (label_replace(vector(1), "a", "1", "", "") or vector(1))'
  - {record: twice, expr: 'label_replace(vector(1), "a", "1", "", "") or vector(1)', labels: {a: x}}
  - alert: BadTemplate
    expr: vector(1)
    annotations: {summary: '{{ $value | toUpper }}'}
"#;

/// Everything but times.
fn timeless(mut json: Json) -> Json {
    match &mut json {
        Json::Object(map) => {
            for (name, value) in map.iter_mut() {
                let is_time = matches!(
                    name.as_str(),
                    "evaluationTime" | "lastEvaluation" | "activeAt" | "keepFiringSince"
                );
                *value = match is_time {
                    true => Json::from("T"),
                    false => timeless(value.take()),
                };
            }
        }
        Json::Array(items) => {
            for item in items.iter_mut() {
                *item = timeless(item.take());
            }
            // The alerts of a rule stand in the order of a map in Prometheus.
            if items.iter().any(|item| item.get("activeAt").is_some()) {
                items.sort_by_key(ToString::to_string);
            }
        }
        _ => {}
    }
    json
}

/// The states of Later and Ends, once every rule was evaluated.
fn states(rules: &Json) -> Option<(String, String)> {
    let groups = rules["data"]["groups"].as_array()?;
    let all: Vec<&Json> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .collect();
    if all.is_empty() || all.iter().any(|rule| rule["health"] == "unknown") {
        return None;
    }
    let state = |name: &str| {
        let rule = all.iter().find(|rule| rule["name"] == name)?;
        let is_kept = rule["alerts"][0]["keepFiringSince"].is_string();
        let state = rule["state"].as_str()?;
        Some(format!("{state}{}", if is_kept { " kept" } else { "" }))
    };
    Some((state("Later")?, state("Ends")?))
}

#[tokio::test]
async fn a13_rules_and_alerts_are_the_json_of_prometheus_at_every_checkpoint() {
    let Some(prometheus) = program("prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let rules = dir.path().join("rules.yml");
    std::fs::write(&rules, RULES.replace("MOMENT", &(now + LEAD).to_string())).unwrap();
    let path = rules.display();
    let toml = format!(
        "[global]\nexternal_labels = {{ site = \"n\" }}\n[rules]\nrule_files = [\"{path}\"]\n"
    );
    std::fs::write(dir.path().join("pulse.toml"), toml).unwrap();
    let yaml = format!("global: {{external_labels: {{site: n}}}}\nrule_files: ['{path}']\n");
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, yaml).unwrap();
    let port = free_port();
    let _theirs = Killed(
        Command::new(prometheus)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--log.level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let server = Server::start(dir.path(), free_port()).await;
    let http = Http::new();
    let theirs = |path: &str| format!("http://127.0.0.1:{port}{path}");
    for want in [
        ("inactive", "firing"),
        ("pending", "firing kept"),
        ("firing", "inactive"),
    ] {
        let want = Some((want.0.to_owned(), want.1.to_owned()));
        eventually(&format!("both are at {want:?}"), || async {
            let url = theirs("/api/v1/rules");
            let request = hyper::Request::get(&url).body(http_body_util::Full::default());
            let answer = http.try_send(request.unwrap()).await?;
            if answer.status != 200 {
                return None;
            }
            let got = (
                states(&answer.json()),
                states(&server.get("/api/v1/rules").await.json()),
            );
            (got == (want.clone(), want.clone())).then_some(())
        })
        .await;
        for path in [
            "/api/v1/rules",
            "/api/v1/alerts",
            "/api/v1/rules?type=alert",
            "/api/v1/rules?type=record",
        ] {
            let expected = timeless(http.get(&theirs(path)).await.json());
            let got = timeless(server.get(path).await.json());
            assert_eq!(got, expected, "{path} at {want:?}");
        }
    }
    // A wrong parameter is refused in the same words.
    let path = "/api/v1/rules?type=x";
    let (expected, got) = (http.get(&theirs(path)).await, server.get(path).await);
    assert_eq!((got.status, got.json()), (expected.status, expected.json()));
}
