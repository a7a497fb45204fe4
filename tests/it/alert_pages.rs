//! The pages of alerts and silences, used as a browser without scripts uses them.

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;

use crate::broker::free_port;
use crate::server::{Answer, Server, eventually};

const CONFIG: &str = "[alerting]\nroute = { receiver = \"ops\", group_wait = \"0s\" }\n\
                      receivers = [{ name = \"ops\", webhook_configs = [{ url = \"http://127.0.0.1:9/\" }] }]\n";

const ALERTS: &str = r#"[{"labels":{"alertname":"LinkDown","site":"north\"<b>"}},
                         {"labels":{"alertname":"LinkDown","site":"south"}}]"#;

struct Browser {
    server: Server,
    cookie: String,
    _dir: tempfile::TempDir,
}

impl Browser {
    async fn new() -> Browser {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pulse.toml"), CONFIG).unwrap();
        let server = Server::start(dir.path(), free_port()).await;
        let url = server.url("/api/v2/alerts");
        let answer = server.http.post(&url, "application/json", ALERTS).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Browser {
            server,
            cookie: String::new(),
            _dir: dir,
        }
    }

    async fn send(&mut self, path: &str, form: Option<&[(&str, &str)]>, origin: &str) -> Answer {
        let url = self.server.url(path);
        let request = match form {
            None => Request::get(url),
            Some(_) => Request::post(url)
                .header("content-type", "application/x-www-form-urlencoded")
                .header("origin", origin),
        };
        let body = form.map_or(String::new(), |pairs| {
            form_urlencoded::Serializer::new(String::new())
                .extend_pairs(pairs)
                .finish()
        });
        let request = request.header("cookie", &self.cookie);
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let answer = self.server.http.try_send(request).await.unwrap();
        if let Some(cookie) = answer.headers.get("set-cookie") {
            let text = cookie.to_str().unwrap();
            assert!(
                text.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
                "{text}"
            );
            self.cookie = text.split(';').next().unwrap().to_owned();
        }
        answer
    }

    async fn get(&mut self, path: &str) -> String {
        let answer = self.send(path, None, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text().to_owned()
    }

    async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        let origin = format!("http://127.0.0.1:{}", self.server.port);
        self.send(path, Some(form), &origin).await
    }

    async fn silences(&self) -> serde_json::Value {
        self.server.get("/api/v2/silences").await.json()
    }
}

/// The value of a hidden or other field.
fn field(html: &str, name: &str) -> String {
    let at = html.split(&format!("name=\"{name}\" value=\"")).nth(1);
    let value = at.unwrap_or_else(|| panic!("no {name} in {html}"));
    value.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn alerts_that_others_sent_are_on_the_page_of_alerts() {
    let mut browser = Browser::new().await;
    let page = browser.get("/alerts").await;
    for words in ["Of others", "2 of others", "site=\"south\"", "&#60;b&#62;"] {
        assert!(page.contains(words), "{words} not in {page}");
    }
    assert!(!page.contains("north\"<b>"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silence_is_previewed_made_changed_and_ended_without_scripts() {
    let mut browser = Browser::new().await;
    let page = browser.get("/alerts/silences").await;
    assert!(page.contains("No silences"));
    let page = browser.get("/alerts/silences/new").await;
    let token = field(&page, "token");
    let mut form = vec![
        ("token", token.as_str()),
        ("matchers", "alertname=\"LinkDown\"\r\nsite=\"south\""),
        ("ends", "2h"),
        ("by", "ana"),
        ("comment", "<i>works</i>"),
        ("do", "preview"),
    ];
    let shown = browser.post("/alerts/silences", &form).await;
    assert_eq!(shown.status, 200);
    assert!(
        shown.text().contains("1 alert that fires now."),
        "{}",
        shown.text()
    );
    assert!(
        shown.text().contains("&#60;i&#62;works"),
        "{}",
        shown.text()
    );
    assert_eq!(browser.silences().await.as_array().unwrap().len(), 0);

    form[5].1 = "save";
    let made = browser.post("/alerts/silences", &form).await;
    assert_eq!(made.status, 303, "{}", made.text());
    let silence = browser.silences().await[0].clone();
    assert_eq!(silence["createdBy"], "ana");
    assert_eq!(silence["matchers"].as_array().unwrap().len(), 2);
    let id = silence["id"].as_str().unwrap().to_owned();
    let list = browser
        .get(made.headers["location"].to_str().unwrap())
        .await;
    assert!(list.contains("class=\"marked\"") && list.contains("site=&#34;south&#34;"));

    // Another end keeps the silence; other matchers end it and make a new one.
    let edit = browser.get(&format!("/alerts/silences/{id}/edit")).await;
    let (starts, token) = (field(&edit, "starts"), field(&edit, "token"));
    let mut form = vec![
        ("token", token.as_str()),
        ("id", &id),
        ("matchers", "alertname=\"LinkDown\"\nsite=\"south\""),
        ("starts", &starts),
        ("ends", "5h"),
        ("by", "ana"),
        ("comment", "longer"),
        ("do", "save"),
    ];
    assert_eq!(browser.post("/alerts/silences", &form).await.status, 303);
    let all = browser.silences().await;
    assert_eq!(all.as_array().unwrap().len(), 1);
    assert_eq!(
        (&all[0]["id"], &all[0]["comment"]),
        (&silence["id"], &"longer".into())
    );
    form[2].1 = "alertname=\"LinkDown\"";
    assert_eq!(browser.post("/alerts/silences", &form).await.status, 303);
    let all = browser.silences().await;
    let states: Vec<&str> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["status"]["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["active", "expired"]);
    assert_eq!(all[1]["id"], silence["id"]);

    let path = format!("/alerts/silences/{}/expire", all[0]["id"].as_str().unwrap());
    let ask = browser.get(&path).await;
    assert!(ask.contains("End it now"));
    let token = field(&ask, "token");
    assert_eq!(browser.post(&path, &[("token", &token)]).await.status, 303);
    let all = browser.silences().await;
    assert!(
        all.as_array()
            .unwrap()
            .iter()
            .all(|s| s["status"]["state"] == "expired")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_not_ours_changes_nothing() {
    let mut browser = Browser::new().await;
    let page = browser.get("/alerts/silences/new").await;
    let token = field(&page, "token");
    let form = |token| {
        [
            ("token", token),
            ("matchers", "alertname=\"LinkDown\""),
            ("ends", "2h"),
            ("by", "eve"),
            ("comment", "kept text"),
            ("do", "save"),
        ]
    };
    // Without the token, with one that was made up, and with another browser's.
    let made_up = "0".repeat(64);
    for wrong in ["", made_up.as_str()] {
        let answer = browser.post("/alerts/silences", &form(wrong)).await;
        assert_eq!(answer.status, 422);
        assert!(answer.text().contains("too old") && answer.text().contains("kept text"));
    }
    let own = std::mem::replace(
        &mut browser.cookie,
        format!("pulse_form={}", "a".repeat(32)),
    );
    let answer = browser.post("/alerts/silences", &form(&token)).await;
    assert_eq!(answer.status, 422);
    // From another site, although all else is right.
    browser.cookie = own;
    let answer = browser
        .send(
            "/alerts/silences",
            Some(&form(&token)),
            "http://evil.example",
        )
        .await;
    assert_eq!(answer.status, 403);
    assert_eq!(browser.silences().await.as_array().unwrap().len(), 0);
    // What was typed wrong is said, and stays.
    let mut bad = form(&token);
    bad[1].1 = "alertname=~\"(\"";
    let answer = browser.post("/alerts/silences", &bad).await;
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("kept text"));
    // The control: the same form as it should be.
    let answer = browser.post("/alerts/silences", &form(&token)).await;
    assert_eq!(answer.status, 303);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_an_alert_says_why_and_shows_every_attempt() {
    let mut browser = Browser::new().await;
    let alerts = browser
        .server
        .get("/api/v2/alerts?filter=site=~%22north.*%22")
        .await;
    let fingerprint = alerts.json()[0]["fingerprint"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/alerts/{fingerprint}/explain");
    // Nobody listens on port 9: the attempts fail, and are on record.
    let story = eventually("an attempt is on record", || async {
        let story = browser.server.get(&path).await.json()["data"].clone();
        (story["reason"] == "failing").then_some(story)
    })
    .await;
    let integration = &story["routes"][0]["integrations"][0];
    assert_eq!(story["state"], "firing");
    assert_eq!(story["routes"][0]["path"][0], "{}");
    let attempt = &integration["delivery"]["latest"][0];
    assert_eq!(attempt["outcome"], "failed");
    assert!(attempt["error"].as_str().unwrap().len() > 3, "{attempt}");
    let key = integration["idempotencyKey"].as_str().unwrap();
    assert!(key.starts_with("ntf_"));
    let page = browser.get(&format!("/alerts/{fingerprint}")).await;
    for want in [
        "is in the outbox",
        key,
        "north&#34;&#60;b&#62;",
        "Silence</a>",
    ] {
        assert!(page.contains(want), "{want}: {page}");
    }
    let page = browser.get("/alerts/history").await;
    assert!(
        page.contains(key) && page.contains("delivery fails"),
        "{page}"
    );
    let path = format!("/api/v1/alerts/history?fingerprint={fingerprint}");
    let entries = browser.server.get(&path).await.json()["data"]["entries"].clone();
    assert_eq!(entries[0]["kind"], "flush");
    assert_eq!(entries[0]["waits"], true);
    assert_eq!(entries[0]["decision"], "notified");
    assert_eq!(entries[0]["idempotencyKey"], key);
    assert_eq!(entries[0]["delivery"]["idempotencyKey"], key);
    for (path, status) in [
        ("/api/v1/alerts/xyz/explain", 400),
        ("/api/v1/alerts/0000000000000001/explain", 404),
        ("/api/v1/alerts/history?filter=a~b", 400),
        ("/alerts/0000000000000001", 404),
    ] {
        assert_eq!(browser.server.get(path).await.status, status, "{path}");
    }
}
