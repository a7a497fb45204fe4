//! What `/api/v2` says to requests that make no sense: the words of the real
//! Alertmanager 0.25, byte for byte.

use crate::alertmanager::both;
use crate::server::Http;

const TREE: &str = "route: {receiver: a, group_wait: 1h}\nreceivers: [{name: a}]\n";

/// Asked of both.
const PATHS: &[&str] = &[
    "/api/v2/alerts?filter=a%3Db",
    "/api/v2/alerts?filter=%7Ba%3Db%7D",
    "/api/v2/alerts?filter=%7Ba%3D%22b%22%7D",
    "/api/v2/alerts?filter=a",
    "/api/v2/alerts?filter=",
    "/api/v2/alerts?filter=a%3D%22",
    "/api/v2/alerts?filter=a%3D~%22%5B%22",
    "/api/v2/alerts?filter=a%3D~%28",
    "/api/v2/alerts?filter=a%21~x%28b",
    "/api/v2/alerts?receiver=%28",
    "/api/v2/alerts/groups?receiver=%5Ba",
    "/api/v2/silences?filter=%28",
    "/api/v2/foo",
    "/api/v2/silence/xx",
    "/api/v2/silence/6b5a6b5a-6b5a-4b5a-8b5a-6b5a6b5a6b5a",
];

const TIMES: &str = r#""startsAt":"2050-01-01T00:00:00Z","endsAt":"2050-01-01T01:00:00Z""#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_in_the_words_of_alertmanager() {
    let Some((theirs, ours, _dir)) = both(TREE).await else {
        return;
    };
    let http = Http::new();
    for path in PATHS {
        let (a, b) = (
            http.get(&ours.url(path)).await,
            http.get(&theirs.url(path)).await,
        );
        assert_eq!((a.status, a.text()), (b.status, b.text()), "{path}");
    }
    let matcher = r#"{"name":"a","value":"[","isRegex":true}"#;
    let silence = format!(r#"{{"matchers":[{matcher}],{TIMES},"createdBy":"me","comment":""}}"#);
    for (path, body) in [
        ("/api/v2/silences", silence.as_bytes()),
        ("/api/v2/alerts", b"[{\"labels\":{\"a b\":\"c\"}}]"),
    ] {
        let post = |url| http.post(url, "application/json", body.to_vec());
        let (ours, theirs) = (ours.url(path), theirs.url(path));
        let (a, b) = (post(&ours).await, post(&theirs).await);
        assert_eq!((a.status, a.text()), (b.status, b.text()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_utf8_are_replaced_one_by_one() {
    let Some((theirs, ours, _dir)) = both(TREE).await else {
        return;
    };
    let http = Http::new();
    let body = b"[{\"labels\":{\"alertname\":\"A\",\"x\":\"\xff\xfe\xc3(\xe2\x82(\"}}]";
    let mut seen = Vec::new();
    for url in [ours.url("/api/v2/alerts"), theirs.url("/api/v2/alerts")] {
        let answer = http.post(&url, "application/json", body.to_vec()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let alert = http.get(&url).await.json()[0].clone();
        seen.push((alert["labels"].clone(), alert["fingerprint"].clone()));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0["x"], "\u{fffd}\u{fffd}\u{fffd}(\u{fffd}\u{fffd}(");
}
