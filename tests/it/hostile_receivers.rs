//! Receivers and rule files that do everything wrong: nobody else notices.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::alertmanager::{alert, at, configure};
use crate::broker::free_port;
use crate::receivers::Sink;
use crate::server::{Server, eventually};

/// Between an alert and the last of its receivers that behaves.
const PROMPT: Duration = Duration::from_secs(5);

/// What a receiver does with a connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Says nothing and stays.
    Hangs,
    /// Sends a byte of the head now and then.
    Drips,
    /// Answers something that is no HTTP.
    Garbage,
    /// Sends the client to the receiver that behaves.
    Redirects(u16),
    /// Closes at once.
    Closes,
}

async fn behave(manner: Manner) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4_096];
                let read = async |stream: &mut tokio::net::TcpStream, request: &mut [u8]| {
                    drop(stream.read(request).await);
                };
                let answer: &[u8] = match manner {
                    Manner::Closes => return,
                    Manner::Hangs => {
                        while stream.read(&mut request).await.is_ok_and(|n| n > 0) {}
                        std::future::pending().await
                    }
                    Manner::Drips => {
                        while stream.write_all(b"H").await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(200)).await;
                        }
                        return;
                    }
                    Manner::Garbage => b"\x00\xff\xfe no http \r\n\r\n",
                    Manner::Redirects(port) => {
                        read(&mut stream, &mut request).await;
                        let head = format!(
                            "HTTP/1.1 307 Elsewhere\r\nlocation: http://127.0.0.1:{port}/stolen\r\n\
                             content-length: 0\r\n\r\n"
                        );
                        drop(stream.write_all(head.as_bytes()).await);
                        return;
                    }
                };
                read(&mut stream, &mut request).await;
                drop(stream.write_all(answer).await);
            });
        }
    });
    port
}

/// Texts of fields that must not get anywhere, with the words of their errors.
const BOMBS: [(&str, &str); 4] = [
    ("recursion", "{{ template \"again\" . }}"),
    ("width", "{{ range 90 }}{{ printf \"%99999d\" 1 }}{{ end }}"),
    ("range", "{{ range 9000000000 }}{{ end }}"),
    (
        "doubling",
        "{{ $x := \"0123456789\" }}{{ range 40 }}{{ $x = print $x $x }}{{ end }}{{ $x }}",
    ),
];

const WORDS: [&str; 4] = [
    "exceeded maximum template depth",
    "too much text",
    "too many steps",
    "too much text",
];

fn tree(good: u16, others: &[(&str, u16)]) -> String {
    let mut text = "route:\n  receiver: good\n  group_by: [alertname]\n  group_wait: 0s\n  \
                    group_interval: 1s\n  routes:\n"
        .to_owned();
    let names = others.iter().map(|(name, _)| *name);
    for name in names.chain(BOMBS.map(|(name, _)| name)).chain(["good"]) {
        text += &format!("  - {{receiver: {name}, continue: true}}\n");
    }
    text += "templates: [bombs.tmpl]\nreceivers:\n";
    let base = format!("http://127.0.0.1:{good}");
    text += &format!("- name: good\n  webhook_configs: [{{url: '{base}/good'}}]\n");
    for (name, port) in others {
        let url = format!("http://127.0.0.1:{port}/hook");
        let http = "{follow_redirects: false}";
        text += &format!(
            "- name: {name}\n  webhook_configs: [{{url: '{url}', http_config: {http}}}]\n"
        );
    }
    for (name, bomb) in BOMBS {
        text += &format!(
            "- name: {name}\n  slack_configs: [{{api_url: '{base}/{name}', channel: x, text: '{bomb}'}}]\n"
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a23_bombs_in_receivers_and_receivers_that_misbehave_delay_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (sink, good) = Sink::start().await;
    let manners = [
        ("hangs", Manner::Hangs),
        ("drips", Manner::Drips),
        ("garbage", Manner::Garbage),
        ("redirects", Manner::Redirects(good)),
        ("closes", Manner::Closes),
    ];
    let mut others = Vec::new();
    for (name, manner) in manners {
        others.push((name, behave(manner).await));
    }
    let again = "{{ define \"again\" }}{{ template \"again\" . }}{{ end }}";
    fs::write(dir.path().join("bombs.tmpl"), again).unwrap();
    configure(dir.path(), &tree(good, &others));
    let server = Server::start(dir.path(), free_port()).await;
    for round in 0..10 {
        let name = format!("Alert{round}");
        let body = alert(&[("alertname", &name)], &at(0), &at(3_600));
        let post = Instant::now();
        let url = server.url("/api/v2/alerts");
        let answer = server.http.clone().post_owned(url, format!("[{body}]"));
        assert_eq!(answer.await.status, 200);
        eventually("the receiver that behaves is told", || async {
            let told = sink.to("/good");
            told.iter()
                .any(|got| got.body.contains(&name))
                .then_some(())
        })
        .await;
        assert!(post.elapsed() < PROMPT, "{name}: {:?}", post.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Every bomb was tried, ended soon, and says why.
    let labels: Value = alert(&[("alertname", "Alert0")], &at(0), &at(0));
    let alerts = server.get("/api/v2/alerts").await.json();
    let is_it = |one: &&Value| one["labels"] == labels["labels"];
    let alert = alerts.as_array().unwrap().iter().find(is_it).unwrap();
    let path = format!(
        "/api/v1/alerts/{}/explain",
        alert["fingerprint"].as_str().unwrap()
    );
    for words in WORDS.iter().chain(&["status 307: redirects"]) {
        eventually(words, || async {
            let story = server.get(&path).await;
            story.text().contains(words).then_some(())
        })
        .await;
    }
    // They are counted and in the log: once a minute for each, however many there were.
    let log = fs::read_to_string(dir.path().join("pulse.log")).unwrap();
    for ((name, _), words) in BOMBS.iter().zip(WORDS) {
        let is_told = |line: &&str| line.contains("notification failed") && line.contains(words);
        let told = log.lines().filter(is_told);
        let told = told.filter(|line| line.contains(name)).count();
        assert!((1..=2).contains(&told), "{name}: {told} in\n{log}");
    }
    let metrics = server.get("/metrics").await;
    let unmade = "pulse_delivery_unmade_total{destination_type=\"slack\"} ";
    let count = metrics.text().lines().find_map(|l| l.strip_prefix(unmade));
    assert!(count.unwrap().parse::<u32>().unwrap() >= 40, "{count:?}");
    for path in ["/stolen", "/recursion", "/width", "/range", "/doubling"] {
        assert!(sink.to(path).is_empty(), "{path} was reached");
    }
}

async fn reload(server: &Server) -> crate::server::Answer {
    let url = server.url("/-/reload");
    server.http.post(&url, "text/plain", "").await
}

#[tokio::test]
async fn a_rule_file_with_any_mistake_is_refused_as_a_whole_and_the_old_rules_stay() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let good = "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {alert: Old, expr: vector(1)}\n";
    file("pulse.toml", "[rules]\nrule_files = [\"*.yml\"]\n");
    file("a.yml", good);
    let server = Server::start(dir.path(), free_port()).await;
    let since = eventually("it fires", || async {
        let alerts = server.get("/api/v1/alerts").await.json();
        alerts["data"]["alerts"][0]["activeAt"]
            .as_str()
            .map(str::to_owned)
    })
    .await;
    let in_b =
        "groups:\n- name: h\n  rules:\n  - {alert: New, expr: vector(2)}\n  - alert: Bad\n    ";
    for (rest, place, reason) in [
        ("expr: rate(x)\n", "b.yml:6:11", "range vector"),
        ("expr: up ==\n", "b.yml:6:", "unexpected end of input"),
        ("expr: up\n    fro: 5m\n", "b.yml:7:5", "fro"),
        ("expr: up\n    for: 5 m\n", "b.yml:7:10", "duration"),
        (
            "expr: up\n    annotations: {a: '{{ .X'}\n",
            "b.yml:7:22",
            "unclosed action",
        ),
        ("expr: up\n    labels: {'': x}\n", "b.yml:7:", "label"),
        ("expr: [up\n", "b.yml:6:11", "unclosed bracket"),
    ] {
        file("b.yml", &format!("{in_b}{rest}"));
        let answer = reload(&server).await;
        assert_eq!(answer.status, 500, "{rest}");
        let text = answer.text();
        assert!(
            text.contains(place) && text.contains(reason),
            "{rest}: {text}"
        );
    }
    // A mistake in each of two files: both are told, with what is wrong.
    file("a.yml", &good.replace("vector(1)", "vector("));
    let answer = reload(&server).await;
    let both = ["a.yml:5:", "b.yml:6:"].map(|place| answer.text().contains(place));
    assert_eq!(both, [true, true], "{}", answer.text());
    let rules = server.get("/api/v1/rules").await.json();
    let groups = rules["data"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1);
    let alert = &groups[0]["rules"][0]["alerts"][0];
    assert_eq!(
        (&alert["state"], &alert["activeAt"]),
        (&"firing".into(), &since.into())
    );
}
