//! Beside the real Alertmanager 0.25: the same tree, the same alerts, the same
//! answers and the same messages; with the real amtool and a real Prometheus.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::routing::post;
use serde_json::Value;

use crate::broker::{free_port, program};
use crate::programs::Prometheus;
use crate::server::{Answer, Http, Server, eventually};

/// Takes webhook messages under `/RECEIVER` and keeps them in order.
#[derive(Clone, Default)]
struct Hooks(Arc<Mutex<Vec<(String, String)>>>);

impl Hooks {
    async fn start() -> (Hooks, u16) {
        let hooks = Hooks::default();
        let take =
            async |State(hooks): State<Hooks>, UrlPath(name): UrlPath<String>, body: String| {
                hooks.0.lock().unwrap().push((name, body));
            };
        let router = Router::new()
            .route("/{name}", post(take))
            .with_state(hooks.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (hooks, port)
    }

    /// What a receiver got, oldest first.
    fn of(&self, name: &str) -> Vec<Value> {
        let all = self.0.lock().unwrap();
        let theirs = all.iter().filter(|(n, _)| n == name);
        theirs
            .map(|(_, body)| serde_json::from_str(body).unwrap())
            .collect()
    }

    /// The newest bodies, byte for byte, by receiver and group.
    fn latest(&self) -> BTreeMap<String, String> {
        let all = self.0.lock().unwrap();
        let entry = |(name, body): &(String, String)| {
            let message: Value = serde_json::from_str(body).unwrap();
            (format!("{name} {}", message["groupKey"]), body.clone())
        };
        all.iter().map(entry).collect()
    }
}

/// The real one.
pub(crate) struct Alertmanager {
    child: Child,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
}

impl Alertmanager {
    pub(crate) async fn start(config: &str, url: &str) -> Option<Alertmanager> {
        let program = program("prometheus-alertmanager")?;
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = dir.path().join("am.yml");
        fs::write(&file, config).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .arg(format!("--web.external-url={url}"))
            .arg("--web.route-prefix=/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Alertmanager { child, port, dir };
        let url = started.url("/-/ready");
        eventually("the real Alertmanager is ready", || async {
            let request = hyper::Request::get(&url).body(http_body_util::Full::default());
            let answer = Http::new().try_send(request.unwrap()).await;
            answer.filter(|a| a.status == 200).map(drop)
        })
        .await;
        Some(started)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Writes another configuration, which the next reload reads.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.dir.path().join("am.yml"), config).unwrap();
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) const URL: &str = "http://am.example:9093";

/// The tree of all these tests; `port` is where its receivers are.
fn tree(port: u16) -> String {
    let receiver = |name: &str, more: &str| {
        format!(
            "- name: {name}\n  webhook_configs:\n  - url: http://127.0.0.1:{port}/{name}\n{more}"
        )
    };
    format!(
        "global:\n  resolve_timeout: 5m\n\
         route:\n  receiver: root\n  group_by: [alertname]\n  group_wait: 1s\n  \
         group_interval: 1s\n  repeat_interval: 1h\n  routes:\n  \
         - matchers: ['team=\"a\"']\n    receiver: a\n    continue: true\n    routes:\n    \
         - match_re: {{severity: 'page|crit'}}\n      receiver: pager\n      group_by: ['...']\n  \
         - match: {{team: a}}\n    receiver: audit\n    group_by: [team]\n  \
         - matchers: [team=quiet]\n    receiver: quiet\n    mute_time_intervals: [always]\n  \
         - matchers: [team=cut]\n    receiver: cut\n    group_by: [team]\n\
         inhibit_rules:\n- source_matchers: [alertname=LinkDown]\n  \
         target_matchers: [alertname=DeviceSilent]\n  equal: [gateway]\n\
         time_intervals:\n- name: always\n  time_intervals:\n  - years: ['2000:2999']\n\
         receivers:\n{}{}{}{}{}{}",
        receiver("root", ""),
        receiver("a", ""),
        receiver("pager", ""),
        receiver("audit", "    send_resolved: false\n"),
        receiver("quiet", ""),
        receiver("cut", "    max_alerts: 2\n"),
    )
}

/// Both, each with its own receivers.
struct Pair {
    theirs: Alertmanager,
    ours: Server,
    their_hooks: Hooks,
    our_hooks: Hooks,
    http: Http,
    _dir: tempfile::TempDir,
}

impl Pair {
    async fn start() -> Option<Pair> {
        let (their_hooks, their_port) = Hooks::start().await;
        let (our_hooks, our_port) = Hooks::start().await;
        let theirs = Alertmanager::start(&tree(their_port), URL).await?;
        let dir = tempfile::tempdir().unwrap();
        configure(dir.path(), &tree(our_port));
        let ours = Server::start(dir.path(), free_port()).await;
        Some(Pair {
            theirs,
            ours,
            their_hooks,
            our_hooks,
            http: Http::new(),
            _dir: dir,
        })
    }

    async fn post(&self, path: &str, body: &str) -> [Answer; 2] {
        let urls = [self.theirs.url(path), self.ours.url(path)];
        let [theirs, ours] = urls.map(|url| self.http.clone().post_owned(url, body.to_owned()));
        [theirs.await, ours.await]
    }

    async fn get(&self, path: &str) -> [Answer; 2] {
        [
            self.http.get(&self.theirs.url(path)).await,
            self.http.get(&self.ours.url(path)).await,
        ]
    }

    /// Waits until both sent the same number of messages to the same groups and more
    /// than before, and compares them byte by byte.
    async fn same_messages(&self, what: &str, wanted: usize) {
        eventually(what, || async {
            let counts =
                [&self.their_hooks, &self.our_hooks].map(|hooks| hooks.0.lock().unwrap().len());
            (counts == [wanted; 2]).then_some(())
        })
        .await;
        let [theirs, ours] = [&self.their_hooks, &self.our_hooks].map(Hooks::latest);
        assert_eq!(theirs, ours, "{what}");
    }
}

/// The real one and ours with one tree, and the directory of ours.
pub(crate) async fn both(tree: &str) -> Option<(Alertmanager, Server, tempfile::TempDir)> {
    let theirs = Alertmanager::start(tree, URL).await?;
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), tree);
    let ours = Server::start(dir.path(), free_port()).await;
    Some((theirs, ours, dir))
}

pub(crate) fn configure(dir: &Path, tree: &str) {
    fs::write(dir.join("alertmanager.yml"), tree).unwrap();
    let config = format!(
        "[global]\nexternal_url = \"{URL}\"\n[alerting]\nconfig_file = \"alertmanager.yml\"\n"
    );
    fs::write(dir.join("pulse.toml"), config).unwrap();
}

/// RFC 3339, some seconds from now.
pub(crate) fn at(secs: i64) -> String {
    let now = pulse::model::Clock::System.now();
    now.plus_ms(secs * 1_000).to_rfc3339()
}

pub(crate) fn alert(labels: &[(&str, &str)], starts_at: &str, ends_at: &str) -> Value {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    serde_json::json!({
        "labels": labels,
        "annotations": {"summary": format!("it is {} & <more>", labels["alertname"])},
        "startsAt": starts_at,
        "endsAt": ends_at,
        "generatorURL": "http://prometheus.example/graph?g0.expr=up",
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_the_same_alerts_give_the_same_messages_as_the_real_alertmanager() {
    let Some(pair) = Pair::start().await else {
        return;
    };
    // Young alerts: the real one tells of old ones at once, whatever else comes with them.
    let (start, end) = (at(1), at(3_600));
    let one = |name, more: &[(&str, &str)]| {
        let labels: Vec<(&str, &str)> = [("alertname", name)].iter().chain(more).copied().collect();
        alert(&labels, &start, &end)
    };
    let alerts = [
        one("Hot", &[("instance", "b"), ("job", "x")]),
        one("Hot", &[("instance", "a"), ("job", "x")]),
        one("Hot", &[("job", "w"), ("z", "q\"uo\\te")]),
        one(
            "Cold",
            &[("team", "a"), ("severity", "page"), ("host", "ü")],
        ),
        one("Cold", &[("team", "a"), ("severity", "info")]),
        one("LinkDown", &[("gateway", "g1")]),
        one("DeviceSilent", &[("gateway", "g1"), ("device", "d1")]),
        one("DeviceSilent", &[("gateway", "g2"), ("device", "d2")]),
        one("Any", &[("team", "quiet")]),
        one("Cut1", &[("team", "cut")]),
        one("Cut2", &[("team", "cut")]),
        one("Cut3", &[("team", "cut")]),
    ];
    // The real one looks at sources and targets in two tasks, so the source goes first.
    let source = one("LinkDown", &[("gateway", "g1")]);
    let body = serde_json::to_string(&[source]).unwrap();
    pair.post("/api/v2/alerts", &body).await;
    pair.same_messages("the source", 1).await;
    let body = serde_json::to_string(&alerts).unwrap();
    for answer in pair.post("/api/v2/alerts", &body).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // Hot, LinkDown, DeviceSilent g2; a, pager; audit once; cut.
    pair.same_messages("first messages", 7).await;
    let cut = &pair.our_hooks.of("cut")[0];
    assert_eq!(cut["truncatedAlerts"], 1);
    assert!(pair.our_hooks.of("quiet").is_empty());

    let ended = [
        alert(
            &[("alertname", "Hot"), ("instance", "a"), ("job", "x")],
            &start,
            &at(0),
        ),
        alert(
            &[("alertname", "Cold"), ("severity", "info"), ("team", "a")],
            &start,
            &at(0),
        ),
        alert(
            &[("alertname", "LinkDown"), ("gateway", "g1")],
            &start,
            &at(0),
        ),
    ];
    let body = serde_json::to_string(&ended).unwrap();
    pair.post("/api/v2/alerts", &body).await;
    // Hot without a, a's group and LinkDown resolved, DeviceSilent g1 joins g2; audit
    // does not want to know.
    pair.same_messages("messages after some ended", 11).await;
    let silent = pair.our_hooks.of("root");
    let silent = silent
        .iter()
        .rev()
        .find(|m| m["groupLabels"]["alertname"] == "DeviceSilent");
    assert_eq!(silent.unwrap()["alerts"].as_array().unwrap().len(), 2);
}

/// An answer without what depends on the moment: times, ids.
fn timeless(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            for name in ["updatedAt", "id", "silenceID", "uptime"] {
                object.remove(name);
            }
            for value in object.values_mut() {
                *value = timeless(value.take());
            }
            if let Some(by) = object.get_mut("silencedBy") {
                *by = by.as_array().map_or(0, Vec::len).into();
            }
        }
        Value::Array(items) => {
            for item in items.iter_mut() {
                *item = timeless(item.take());
            }
        }
        _ => {}
    }
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_the_api_answers_as_the_real_alertmanager() {
    let Some(pair) = Pair::start().await else {
        return;
    };
    let (start, end) = (at(-60), at(3_600));
    let alerts = [
        alert(&[("alertname", "Hot"), ("team", "a")], &start, &end),
        alert(
            &[("alertname", "Cold"), ("empty", ""), ("team", "b")],
            &start,
            &end,
        ),
        alert(
            &[("alertname", "LinkDown"), ("gateway", "g1")],
            &start,
            &end,
        ),
        alert(
            &[("alertname", "DeviceSilent"), ("gateway", "g1")],
            &start,
            &end,
        ),
        alert(&[("alertname", "Gone")], &start, &at(-1)),
    ];
    let matcher = |name: &str, value: &str, regex: bool| serde_json::json!({"name": name, "value": value, "isRegex": regex});
    let silence = |matchers: Vec<Value>, starts: &str, ends: &str| {
        serde_json::json!({
            "matchers": matchers, "startsAt": starts, "endsAt": ends,
            "createdBy": "me", "comment": "quiet <now>",
        })
        .to_string()
    };
    let a = || vec![matcher("team", "a", false)];
    let unknown = silence(a(), &start, &end).replacen(
        '{',
        "{\"id\":\"11111111-1111-4111-8111-111111111111\",",
        1,
    );
    let posts = [
        ("/api/v2/alerts", serde_json::to_string(&alerts).unwrap()),
        ("/api/v2/alerts", "[]".to_owned()),
        ("/api/v2/alerts", "[{\"labels\":{}}]".to_owned()),
        ("/api/v2/alerts", "[{\"annotations\":{}}]".to_owned()),
        (
            "/api/v2/alerts",
            "[{\"labels\":{\"a-b\":\"1\"}}]".to_owned(),
        ),
        (
            "/api/v2/alerts",
            serde_json::to_string(&[alert(&[("alertname", "x")], &end, &start)]).unwrap(),
        ),
        ("/api/v2/silences", silence(a(), &start, &end)),
        (
            "/api/v2/silences",
            silence(vec![matcher("alertname", "C.*", true)], &at(600), &at(900)),
        ),
        ("/api/v2/silences", silence(vec![], &start, &end)),
        (
            "/api/v2/silences",
            silence(vec![matcher("x", ".*", true)], &start, &end),
        ),
        (
            "/api/v2/silences",
            silence(vec![matcher("a-b", "x", false)], &start, &end),
        ),
        ("/api/v2/silences", silence(a(), &end, &start)),
        ("/api/v2/silences", silence(a(), &start, &at(-10))),
        ("/api/v2/silences", unknown),
        ("/api/v2/silences", "{\"matchers\":[]}".to_owned()),
    ];
    for (path, body) in &posts {
        let [theirs, ours] = pair.post(path, body).await;
        assert_eq!(theirs.status, ours.status, "{body}: {}", ours.text());
        if !theirs.body.is_empty() && theirs.status != 200 {
            assert_eq!(theirs.json(), ours.json(), "{body}");
        }
    }
    for path in [
        "/api/v2/alerts",
        "/api/v2/alerts?active=false",
        "/api/v2/alerts?silenced=false&inhibited=false",
        "/api/v2/alerts?active=maybe",
        "/api/v2/alerts?filter=team%3Da",
        "/api/v2/alerts?filter=team%3D~%22a%7Cb%22&filter=alertname!%3DHot",
        "/api/v2/alerts?filter=gateway%3D",
        "/api/v2/alerts?filter=bad",
        "/api/v2/alerts?receiver=a",
        "/api/v2/alerts?receiver=ro.*",
        "/api/v2/alerts/groups",
        "/api/v2/alerts/groups?silenced=false",
        "/api/v2/alerts/groups?receiver=audit",
        "/api/v2/receivers",
        "/api/v2/silences",
        "/api/v2/silences?filter=team%3Da",
        "/api/v2/silences?filter=alertname%3D~C.*",
        "/api/v2/silences?filter=bad",
        "/api/v2/silence/abc",
        "/api/v2/silence/11111111-1111-4111-8111-111111111111",
    ] {
        let [theirs, ours] = pair.get(path).await;
        assert_eq!(theirs.status, ours.status, "{path}: {}", ours.text());
        if theirs.status == 404 {
            assert_eq!(theirs.body, ours.body, "{path}");
            continue;
        }
        let mut values = [theirs.json(), ours.json()].map(timeless);
        if path.contains("silences") {
            // The start of an active one is the moment of its POST.
            for value in &mut values {
                for one in value.as_array_mut().into_iter().flatten() {
                    one.as_object_mut().unwrap().remove("startsAt");
                }
            }
        }
        let [theirs, ours] = values;
        assert_eq!(theirs, ours, "{path}");
    }
}

fn amtool(url: &str, args: &[&str]) -> Option<(bool, String)> {
    let output = Command::new(program("amtool")?)
        .arg(format!("--alertmanager.url={url}"))
        .args(args)
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8(text).unwrap()))
}

/// Ids and times stand for themselves.
fn masked(text: &str) -> String {
    let uuid = regex::Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
    let time = regex::Regex::new("[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+( UTC|Z)?").unwrap();
    let text = uuid.replace_all(text, "UUID");
    time.replace_all(&text, "TIME").into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a15_amtool_says_the_same_of_both() {
    let Some(pair) = Pair::start().await else {
        return;
    };
    let urls = [pair.theirs.url(""), pair.ours.url("")];
    let commands: [&[&str]; 22] = [
        &[
            "alert",
            "add",
            "Hot",
            "team=a",
            "severity=page",
            "--annotation=summary=very hot",
        ],
        &[
            "alert",
            "add",
            "Cold",
            "team=b",
            "--generator-url=http://p/",
        ],
        &["alert", "add", "LinkDown", "gateway=g1"],
        &["alert", "add", "DeviceSilent", "gateway=g1"],
        &["alert", "query"],
        &["alert", "query", "team=a"],
        &["alert", "query", "-o", "extended"],
        &["alert", "query", "--inhibited"],
        &["alert", "query", "-o", "simple", "alertname=~C.*"],
        &["silence", "add", "team=a", "--comment=why", "--author=me"],
        &[
            "silence",
            "add",
            "alertname=~C.*",
            "team!=x",
            "--comment=c",
            "--author=me",
            "--duration=2h",
        ],
        &["silence", "add", "x=~.*", "--comment=c", "--author=me"],
        &["silence", "query"],
        &["silence", "query", "team=a"],
        &["silence", "query", "-q"],
        &["alert", "query", "--silenced"],
        &["config", "routes", "show"],
        &["config", "routes", "test", "team=a", "severity=page"],
        &["config", "routes", "test", "--verify.receivers=root", "x=y"],
        &["config", "routes", "test", "--tree", "team=quiet"],
        &["silence", "expire", "11111111-1111-4111-8111-111111111111"],
        &["alert", "query", "bad matcher"],
    ];
    for command in commands {
        let Some(theirs) = amtool(&urls[0], command) else {
            return;
        };
        let ours = amtool(&urls[1], command).unwrap();
        assert_eq!(theirs.0, ours.0, "{command:?}: {}", ours.1);
        if command[1] == "expire" {
            // Theirs is the status 500, a fault that ours does not have.
            continue;
        }
        assert_eq!(masked(&theirs.1), masked(&ours.1), "{command:?}");
    }
    // Ids differ, so the commands that take one differ too.
    for url in &urls {
        let (_, ids) = amtool(url, &["silence", "query", "-q", "team=a"]).unwrap();
        let id = ids.trim().to_owned();
        assert_eq!(id.len(), 36, "{ids}");
        let update = ["silence", "update", "--comment=other", "--duration=3h", &id];
        assert!(amtool(url, &update).unwrap().0);
        let (_, shown) = amtool(url, &["silence", "query", "-o", "json"]).unwrap();
        assert!(shown.contains("\"comment\":\"other\""), "{shown}");
        let (_, ids) = amtool(url, &["silence", "query", "-q"]).unwrap();
        let ids: Vec<&str> = ids.lines().collect();
        let expire: Vec<&str> = ["silence", "expire"].into_iter().chain(ids).collect();
        for _ in 0..2 {
            let (is_good, said) = amtool(url, &expire).unwrap();
            assert!(is_good, "{said}");
        }
        assert_eq!(amtool(url, &["silence", "query", "-q"]).unwrap().1, "");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("silences.json");
        fs::write(&file, shown).unwrap();
        let import = ["silence", "import", file.to_str().unwrap()];
        assert!(amtool(url, &import).unwrap().0);
    }
    let count = |answer: &Answer| answer.json().as_array().unwrap().len();
    let [theirs, ours] = pair.get("/api/v2/silences").await;
    assert_eq!(count(&theirs), count(&ours));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_uses_us_as_its_alertmanager() {
    let (hooks, port) = Hooks::start().await;
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &tree(port));
    let ours = Server::start(dir.path(), free_port()).await;
    let rules = dir.path().join("rules.yml");
    let rule = |expr: &str| {
        let text = format!(
            "groups:\n- name: g\n  interval: 1s\n  rules:\n  - alert: Always\n    expr: {expr}\n    for: 8s\n    \
             labels: {{team: cut}}\n    annotations: {{summary: 'it is {{{{ $value }}}}'}}\n"
        );
        fs::write(&rules, text).unwrap();
    };
    // A Prometheus knows no Alertmanager in its first 5 s, and repeats after a minute.
    rule("vector(7)");
    let config = format!(
        "global: {{evaluation_interval: 1s, external_labels: {{site: north}}}}\n\
         rule_files: [{}]\nalerting:\n  alertmanagers:\n  - static_configs:\n    \
         - targets: ['127.0.0.1:{}']\n",
        rules.display(),
        ours.port
    );
    let Some(prometheus) = Prometheus::start(&config) else {
        return;
    };
    eventually("the alert of the Prometheus is told", || async {
        (!hooks.of("cut").is_empty()).then_some(())
    })
    .await;
    let message = &hooks.of("cut")[0];
    assert_eq!(message["status"], "firing");
    assert_eq!(message["commonLabels"]["site"], "north");
    assert_eq!(message["commonAnnotations"]["summary"], "it is 7");
    rule("vector(7) > 8");
    let reload = Http::new()
        .post(&prometheus.url("/-/reload"), "text/plain", "")
        .await;
    // Without the lifecycle API a signal would be needed: then the end comes by itself.
    if reload.status == 200 {
        eventually("its end is told", || async {
            let last = hooks.of("cut").pop();
            last.filter(|m| m["status"] == "resolved").map(drop)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a24_a_tenant_sees_and_silences_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[auth]\ntoken = \"op\"\n\
        [[tenant]]\nid = \"acme\"\ntoken = \"a\"\n[[tenant]]\nid = \"other\"\ntoken = \"b\"\n";
    fs::write(dir.path().join("pulse.toml"), config).unwrap();
    let server = Server::spawn(dir.path(), free_port());
    let send = async |token: &str, method: hyper::Method, path: &str, body: &str| {
        let request = hyper::Request::builder()
            .method(method)
            .uri(server.url(path))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(http_body_util::Full::from(body.to_owned()))
            .unwrap();
        server.http.try_send(request).await
    };
    let (get, post) = (hyper::Method::GET, hyper::Method::POST);
    eventually("it is ready", || async {
        let answer = send("op", hyper::Method::GET, "/-/ready", "").await;
        answer.filter(|a| a.status == 200).map(drop)
    })
    .await;
    let send = async |token: &str, method: &hyper::Method, path: &str, body: &str| {
        send(token, method.clone(), path, body).await.unwrap()
    };
    let body = r#"[{"labels":{"alertname":"Hot"}}]"#;
    for token in ["a", "b", "op"] {
        assert_eq!(send(token, &post, "/api/v2/alerts", body).await.status, 200);
    }
    let names = async |token: &str| {
        let answer = send(token, &get, "/api/v2/alerts", "").await.json();
        let of = |alert: &Value| {
            let by = alert["status"]["silencedBy"].as_array().unwrap().len();
            (
                alert["labels"]["tenant_id"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned(),
                by,
            )
        };
        let mut all: Vec<(String, usize)> = answer.as_array().unwrap().iter().map(of).collect();
        all.sort();
        all
    };
    let pair = |name: &str, by: usize| (name.to_owned(), by);
    assert_eq!(names("a").await, [pair("acme", 0)]);
    let silence = format!(
        r#"{{"matchers":[{{"name":"alertname","value":"Hot","isRegex":false}}],"startsAt":"{}","endsAt":"{}","createdBy":"m","comment":"c"}}"#,
        at(0),
        at(600)
    );
    let made = send("a", &post, "/api/v2/silences", &silence).await.json();
    let id = made["silenceID"].as_str().unwrap().to_owned();
    assert_eq!(
        names("op").await,
        [pair("", 0), pair("acme", 1), pair("other", 0)]
    );
    assert_eq!(send("b", &get, "/api/v2/silences", "").await.text(), "[]");
    let one = format!("/api/v2/silence/{id}");
    assert_eq!(send("b", &get, &one, "").await.status, 404);
    assert_eq!(
        send("b", &hyper::Method::DELETE, &one, "").await.status,
        404
    );
    assert_eq!(
        send("a", &hyper::Method::DELETE, &one, "").await.status,
        200
    );
    assert_eq!(send("wrong", &get, "/api/v2/alerts", "").await.status, 401);
    assert_eq!(send("a", &get, "/api/v1/rules", "").await.status, 401);
}
