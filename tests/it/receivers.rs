//! Every kind of receiver against a local sink; those that the real Alertmanager 0.25
//! has too, beside it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use serde_json::Value;

use crate::alertmanager::{Alertmanager, URL, alert, at};
use crate::broker::free_port;
use crate::server::{Http, Server, eventually};

/// A request as a receiver got it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Got {
    pub(crate) path: String,
    authorization: String,
    key: String,
    pub(crate) body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.body))
    }
}

/// Takes anything anywhere.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<Got>>>);

impl Sink {
    pub(crate) async fn start() -> (Sink, u16) {
        let sink = Sink::default();
        let take = async |State(sink): State<Sink>, uri: Uri, headers: HeaderMap, body: String| {
            let header = |name: &str| {
                let value = headers.get(name).and_then(|v| v.to_str().ok());
                value.unwrap_or_default().to_owned()
            };
            let path = uri.path_and_query().unwrap().to_string();
            sink.0.lock().unwrap().push(Got {
                path,
                authorization: header("authorization"),
                key: header("x-gotify-key"),
                body,
            });
            // What the real Alertmanager needs of Telegram.
            r#"{"ok":true,"result":{"message_id":1,"date":1,"chat":{"id":1,"type":"private"}}}"#
        };
        let router = Router::new().fallback(take).with_state(sink.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (sink, port)
    }

    /// The requests to a path.
    pub(crate) fn to(&self, path: &str) -> Vec<Got> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|got| got.path == path).cloned().collect()
    }

    /// The requests by what their paths begin with.
    fn by_kind(&self) -> BTreeMap<String, Got> {
        let all = self.0.lock().unwrap();
        let kind = |got: &Got| {
            let first = got.path.trim_start_matches('/');
            first.split(['/', '?']).next().unwrap().to_owned()
        };
        all.iter().map(|got| (kind(got), got.clone())).collect()
    }
}

/// The kinds that both have.
fn shared(port: u16) -> String {
    let base = format!("http://127.0.0.1:{port}");
    format!(
        "  slack_configs:\n  - api_url: {base}/slack\n    channel: '#ops'\n    send_resolved: true\n    \
         fields: [{{title: 'Job', value: '{{{{ .CommonLabels.job }}}}'}}]\n    \
         actions: [{{type: button, text: Run, url: 'http://x/', name: gone}}, \
         {{type: button, text: Ack, name: ack, confirm: {{text: sure, ok_text: yes}}}}]\n\
         \x20 pagerduty_configs:\n  - url: {base}/pagerduty\n    routing_key: key-of-pd\n    \
         images: [{{src: s, alt: '{{{{ .Status }}}}'}}, {{alt: none}}]\n    links: [{{href: h, text: t}}]\n\
         \x20 opsgenie_configs:\n  - api_url: {base}/opsgenie/\n    api_key: key-of-og\n    tags: 'a, b'\n    priority: P2\n    \
         responders: [{{name: 'a,b', type: teams}}, {{username: u, type: User}}, {{id: '{{{{ .CommonLabels.none }}}}', type: '{{{{ .CommonLabels.none }}}}'}}]\n\
         \x20 discord_configs:\n  - webhook_url: {base}/discord\n\
         \x20 victorops_configs:\n  - api_url: {base}/victorops/\n    api_key: key-of-vo\n    routing_key: my team\n    \
         custom_fields: {{at: '{{{{ .CommonLabels.job }}}}'}}\n\
         \x20 webex_configs:\n  - api_url: {base}/webex\n    room_id: r\n    http_config: {{authorization: {{credentials: key-of-wx}}}}\n\
         \x20 telegram_configs:\n  - api_url: {base}/telegram\n    bot_token: 12:ab\n    chat_id: -42\n"
    )
}

fn tree(receivers: &str) -> String {
    format!(
        "route:\n  receiver: all\n  group_by: [alertname, job]\n  group_wait: 1s\n  group_interval: 1s\n\
         receivers:\n- name: all\n{receivers}"
    )
}

fn alerts(ended: bool) -> String {
    let end = if ended { at(0) } else { at(3_600) };
    let one = |instance| {
        let labels = [
            ("alertname", "Hot"),
            ("instance", instance),
            ("job", "x"),
            ("severity", "page"),
        ];
        alert(&labels, &STARTED, &end)
    };
    serde_json::to_string(&[one("a<b"), one("c")]).unwrap()
}

static STARTED: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| at(0));

async fn post(url: String, body: String) {
    let answer = Http::new().post_owned(url, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_chats_and_pagers_get_what_the_real_alertmanager_sends() {
    let [(theirs, their_port), (ours, our_port)] = [Sink::start().await, Sink::start().await];
    let Some(real) = Alertmanager::start(&tree(&shared(their_port)), URL).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    crate::alertmanager::configure(dir.path(), &tree(&shared(our_port)));
    let server = Server::start(dir.path(), free_port()).await;
    for ended in [false, true] {
        let body = alerts(ended);
        post(real.url("/api/v2/alerts"), body.clone()).await;
        post(server.url("/api/v2/alerts"), body).await;
        eventually("both told all seven", || async {
            let wanted = if ended { "resolve" } else { "trigger" };
            let done = |sink: &Sink| {
                let by_kind = sink.by_kind();
                let pagerduty = by_kind.get("pagerduty").map(Got::json);
                by_kind.len() == 7
                    && pagerduty.is_some_and(|event| event["event_action"] == wanted)
                    && ended == by_kind["opsgenie"].path.contains("/close")
                    && ended == by_kind["slack"].body.contains("RESOLVED")
                    && ended == by_kind["discord"].body.contains("RESOLVED")
                    && ended == by_kind["victorops"].body.contains("RECOVERY")
                    && ended == by_kind["webex"].body.contains("Alerts Resolved")
                    && ended == by_kind["telegram"].body.contains("Alerts Resolved")
            };
            (done(&theirs) && done(&ours)).then_some(())
        })
        .await;
        let (theirs, ours) = (theirs.by_kind(), ours.by_kind());
        for (kind, theirs) in &theirs {
            let ours = &ours[kind];
            assert_eq!(theirs.path, ours.path);
            assert_eq!(theirs.authorization, ours.authorization, "{kind}");
            let mut forms = [theirs.json(), ours.json()];
            if kind == "telegram" {
                // Theirs sends numbers and flags as texts; the service takes both.
                let text = |value: &mut Value| match value {
                    Value::String(_) => {}
                    other => *other = Value::String(other.to_string()),
                };
                for form in &mut forms {
                    form.as_object_mut().unwrap().values_mut().for_each(text);
                }
            }
            assert_eq!(forms[0], forms[1], "{kind}, ended: {ended}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_kind_reaches_its_service_in_its_own_form() {
    let (sink, port) = Sink::start().await;
    let base = format!("http://127.0.0.1:{port}");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), "from-a-file\n").unwrap();
    fs::write(
        dir.path().join("own.tmpl"),
        "{{ define \"own.title\" }}{{ .CommonLabels.alertname }} x{{ len .Alerts }}{{ end }}",
    )
    .unwrap();
    let receivers = format!(
        "  telegram_configs:\n  - api_url: {base}/telegram\n    bot_token: 12:ab\n    chat_id: -42\n    parse_mode: HTML\n\
         \x20 msteams_configs:\n  - webhook_url: {base}/msteams/secret\n\
         \x20 msteamsv2_configs:\n  - webhook_url: {base}/workflow\n\
         \x20 rocketchat_configs:\n  - api_url: {base}/rocketchat/\n    token: t-rocket\n    token_id: user\n    channel: '#ops'\n    \
         fields: [{{title: Job, value: '{{{{ .CommonLabels.job }}}}', short: true}}]\n    actions: [{{text: Go, url: 'http://x/'}}]\n\
         \x20 mattermost_configs:\n  - webhook_url: {base}/mattermost\n    channel: town\n\
         \x20 pushover_configs:\n  - api_url: {base}/pushover\n    user_key: u\n    token_file: token\n\
         \x20 ntfy_configs:\n  - url: {base}/ntfy\n    topic: box\n    token: t-ntfy\n    title: '{{{{ template \"own.title\" . }}}}'\n\
         \x20 gotify_configs:\n  - url: {base}/gotify\n    token: t-gotify\ntemplates: ['*.tmpl']\n"
    );
    crate::alertmanager::configure(dir.path(), &tree(&receivers));
    let server = Server::start(dir.path(), free_port()).await;
    post(server.url("/api/v2/alerts"), alerts(false)).await;
    eventually("all are told", || async {
        (sink.by_kind().len() == 8).then_some(())
    })
    .await;
    let got = sink.by_kind();
    let telegram = &got["telegram"];
    assert_eq!(telegram.path, "/telegram/bot12:ab/sendMessage");
    assert_eq!(telegram.json()["chat_id"], -42);
    assert!(
        telegram.json()["text"]
            .as_str()
            .unwrap()
            .contains("instance = a&lt;b")
    );
    assert_eq!(got["msteams"].json()["themeColor"], "8C1A1A");
    let card = &got["workflow"].json()["attachments"][0]["content"];
    assert_eq!(card["body"][0]["color"], "Attention");
    assert!(
        card["body"][1]["text"]
            .as_str()
            .unwrap()
            .contains("  - instance = a<b")
    );
    let rocket = &got["rocketchat"];
    assert_eq!(rocket.path, "/rocketchat/api/v1/chat.postMessage");
    let title = "[FIRING:2] Hot x (page)";
    let link = "http://am.example:9093/#/alerts?receiver=all";
    assert_eq!(
        rocket.json(),
        serde_json::json!({"channel": "#ops", "attachments": [{
            "title": title,
            "title_link": link,
            "color": "red",
            "fields": [{"title": "Job", "value": "x", "short": true}],
            "actions": [{
                "type": "button", "text": "Go", "url": "http://x/",
                "is_webview": false, "msg_in_chat_window": false,
            }],
        }]})
    );
    assert_eq!(got["mattermost"].json()["channel"], "town");
    let form: BTreeMap<String, String> = form_urlencoded::parse(got["pushover"].body.as_bytes())
        .into_owned()
        .collect();
    assert_eq!(form["token"], "from-a-file");
    assert_eq!(
        (form["priority"].as_str(), form["retry"].as_str()),
        ("2", "60")
    );
    assert!(
        form["title"].starts_with("[FIRING:2] Hot x (page)"),
        "{form:?}"
    );
    let ntfy = &got["ntfy"];
    assert_eq!(ntfy.authorization, "Bearer t-ntfy");
    assert_eq!(ntfy.json()["title"], "Hot x2");
    assert_eq!(got["gotify"].key, "t-gotify");
    assert_eq!(got["gotify"].path, "/gotify/message");
    // What is secret is shown nowhere.
    for path in [
        "/targets",
        "/api/v2/status",
        "/metrics",
        "/api/v1/status/config",
    ] {
        let text = server.get(path).await.text().to_owned();
        for secret in [
            "12:ab",
            "msteams/secret",
            "from-a-file",
            "t-ntfy",
            "t-gotify",
        ] {
            assert!(!text.contains(secret), "{path} shows {secret}");
        }
    }
    let log = fs::read_to_string(dir.path().join("pulse.log")).unwrap();
    assert!(!log.contains("12:ab") && !log.contains("t-gotify"), "{log}");
}
