//! Requests to the push routes over a real ingest and a real store.

use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::desk::NOW;
use super::*;
use crate::sources::Board;
use crate::store::Store;
use crate::telemetry::Metrics;

const BODY_MAX: usize = 200_000;

struct Desk {
    _dir: tempfile::TempDir,
    router: Router,
    board: Board,
    metrics: Arc<Metrics>,
    store: Store,
}

fn desk(text: &str, operator_token: Option<&str>) -> Desk {
    let parts = desk::Parts::new(text, operator_token);
    let router = router(PushState {
        ingest: parts.ingest,
        clock: Clock::Manual(parts.clock),
        status: parts.status,
        operator_token: parts.operator_token,
        body_bytes_max: BODY_MAX,
        is_read_only: false,
    });
    Desk {
        _dir: parts.dir,
        router,
        board: parts.board,
        metrics: parts.metrics,
        store: parts.store,
    }
}

impl Desk {
    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> (u16, Value) {
        let request = Request::post(format!("/api/v1/ingest/{path}"));
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn post_as(&self, path: &str, authorization: &str) -> u16 {
        let request = Request::post(format!("/api/v1/ingest/{path}?device=d"));
        let request = request.header("authorization", authorization);
        self.send(request.body(Body::from("{\"v\":1}")).unwrap())
            .await
            .0
    }

    fn rejected(&self, reason: &str) -> u64 {
        let rejected = &self.metrics.ingest.rejected;
        rejected.with_label_values(&["acme", reason]).get()
    }
}

fn report(accepted: usize, duplicates: usize, rejected: Value) -> Value {
    json!({ "accepted": accepted, "duplicates": duplicates, "rejected": rejected })
}

#[tokio::test]
async fn objects_and_arrays_are_stored_before_the_answer() {
    let desk = desk("", None);
    let one = r#"{"ts":1700000000000,"v":1}"#;
    assert_eq!(
        desk.post("acme?device=d1", one).await,
        (200, report(1, 0, json!([])))
    );
    assert_eq!(desk.store.stats().series, 1);
    assert_eq!(
        desk.post("acme?device=d1", one).await,
        (200, report(0, 1, json!([])))
    );
    let many = r#" [{"device_id":"d1","ts":1700000000000,"v":1}, {"device_id":2,"v":5},
        {"v":5}, {"device_id":"a/b","v":1}, 7]"#;
    let answer = desk.post("acme", many).await;
    let number = answer.1["rejected"][2]["error"].as_str().unwrap();
    assert!(number.contains("object"), "{number}");
    let rejected = json!([
        { "index": 2, "reason": "topic", "error": NO_DEVICE },
        { "index": 3, "reason": "topic", "error": NO_DEVICE },
        { "index": 4, "reason": "parse", "error": number },
    ]);
    assert_eq!(answer, (200, report(1, 1, rejected)));
    assert_eq!(desk.store.stats().series, 2);
    let view = &desk.board.list()[0];
    assert_eq!((view.messages, view.connects), (7, 1));
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let desk = desk("[limits]\npayload_max = \"1KiB\"\n", None);
    let check = async |path: &str, body: &str, status: u16, reason: &str| {
        let (got, answer) = desk.post(path, body.to_owned()).await;
        let first = &answer["rejected"][0]["reason"];
        let said = if first.is_null() {
            &answer["reason"]
        } else {
            first
        };
        let shown = &body[..body.len().min(60)];
        assert_eq!(
            (got, said.as_str()),
            (status, Some(reason)),
            "{path} {shown}: {answer}"
        );
        let text = match &answer["rejected"][0]["error"] {
            Value::Null => &answer["error"],
            text => text,
        };
        assert!(!text.as_str().unwrap().is_empty(), "{path} {shown}");
    };
    let deep = "[".repeat(100_000);
    let deep_inside = format!(
        "[{{\"device_id\":\"d\",\"v\":{}}}]",
        "[".repeat(500) + &"]".repeat(500)
    );
    let large = format!("{{\"v\":1,\"s\":\"{}\"}}", "x".repeat(2_000));
    check("acme?device=d", "{", 400, "parse").await;
    check("acme?device=d", "", 400, "parse").await;
    check("acme?device=d", "[]", 400, "parse").await;
    check("acme", "[1,", 400, "parse").await;
    check("acme?device=d", &deep, 413, "size").await;
    check("acme", &deep_inside, 400, "parse").await;
    check("acme", "{\"v\":1}", 400, "topic").await;
    check("a%20b?device=d", "{\"v\":1}", 400, "topic").await;
    check("acme?device=d", &large, 413, "size").await;
    check("acme?device=d", &"x".repeat(BODY_MAX + 1), 413, "size").await;
    check("acme?device=d", "{\"ts\":1,\"v\":1}", 422, "timestamp").await;
    check(
        "acme?device=d",
        "{\"tenant_id\":\"other\",\"v\":1}",
        403,
        "tenant",
    )
    .await;
    let many = format!("[{}1]", "1,".repeat(MESSAGES_MAX));
    check("acme", &many, 413, "sample_limit").await;
    assert_eq!(desk.rejected("size"), 3);
    assert_eq!(desk.post("acme?device=d", "{\"v\":1}").await.0, 200);
}

#[tokio::test]
async fn a_body_that_is_one_large_array_of_brackets_is_refused() {
    let desk = desk("", None);
    let deep = "[".repeat(100_000);
    assert_eq!(desk.post("acme?device=d", deep).await.0, 400);
    let inside = format!("[{}{}]", "[".repeat(90_000), "]".repeat(90_000));
    assert_eq!(desk.post("acme?device=d", inside).await.0, 400);
    assert_eq!(desk.rejected("parse"), 2);
}

#[tokio::test]
async fn a_tenants_token_is_for_that_tenant_only() {
    let config = "[[tenant]]\nid = \"acme\"\ntoken = \"t0ken\"\n[[tenant]]\nid = \"free\"\n";
    let open = desk(config, None);
    assert_eq!(open.post_as("acme", "Bearer t0ken").await, 200);
    assert_eq!(open.post_as("acme", "bearer t0ken").await, 200);
    assert_eq!(open.post_as("acme", "Basic eDp0MGtlbg==").await, 200);
    assert_eq!(open.post_as("acme", "Bearer wrong").await, 401);
    assert_eq!(open.post_as("acme", "Basic ???").await, 401);
    assert_eq!(open.post("acme?device=d", "{\"v\":1}").await.0, 401);
    assert_eq!(open.post_as("free", "Bearer t0ken").await, 403);
    assert_eq!(open.rejected("tenant"), 1);
    assert_eq!(open.post("free?device=d", "{\"v\":1}").await.0, 200);
    let closed = desk(config, Some("master"));
    assert_eq!(closed.post("free?device=d", "{\"v\":1}").await.0, 401);
    assert_eq!(closed.post_as("free", "Bearer master").await, 200);
    assert_eq!(closed.post_as("acme", "Bearer master").await, 200);
    assert_eq!(closed.post_as("acme", "Bearer t0ken").await, 200);
    assert_eq!(closed.post_as("free", "Bearer t0ken").await, 403);
}

#[tokio::test]
async fn over_the_rate_is_429_and_a_full_buffer_503() {
    let limited = desk(
        "[limits]\nmessages_per_second = 1\nmessages_burst = 1\n",
        None,
    );
    assert_eq!(limited.post("acme?device=d", "{\"v\":1}").await.0, 200);
    let (status, answer) = limited.post("acme?device=d", "{\"v\":1}").await;
    assert_eq!(status, 429);
    assert!(!answer["rejected"][0]["error"].as_str().unwrap().is_empty());
    let full = desk("[limits]\nbuffer_per_tenant = 1\n", None);
    let two = r#"[{"device_id":"a","v":1},{"device_id":"b","v":1}]"#;
    let request = Request::post("/api/v1/ingest/acme")
        .body(Body::from(two))
        .unwrap();
    let answer = full.router.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
}

#[tokio::test]
async fn a_closed_store_is_503() {
    let desk = desk("", None);
    desk.store.close().await;
    let (status, answer) = desk.post("acme?device=d", "{\"v\":1}").await;
    assert_eq!((status, answer["reason"].as_str()), (503, Some("storage")));
}

/// A gzip file of uncompressed blocks.
fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut blocks = data.chunks(65_535).peekable();
    while let Some(block) = blocks.next() {
        let len = u16::try_from(block.len()).unwrap();
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(block);
    }
    let crc = data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    });
    out.extend((!crc).to_le_bytes());
    out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    out
}

#[tokio::test]
async fn gzip_is_unpacked_up_to_the_limit() {
    let desk = desk("", None);
    let post = async |body: Vec<u8>, encoding: &str| {
        let request = Request::post("/api/v1/ingest/acme?device=d");
        let request = request.header("content-encoding", encoding);
        desk.send(request.body(Body::from(body)).unwrap()).await.0
    };
    assert_eq!(post(gzip(b"{\"v\":1}"), "gzip").await, 200);
    assert_eq!(post(gzip(&vec![b' '; BODY_MAX + 1]), "gzip").await, 413);
    assert_eq!(post(b"{\"v\":1}".to_vec(), "gzip").await, 400);
    assert_eq!(post(b"{\"v\":1}".to_vec(), "br").await, 415);
    assert_eq!((desk.rejected("size"), desk.rejected("encoding")), (1, 1));
}

#[tokio::test]
async fn reserved_names_may_not_push() {
    let desk = desk("", None);
    for name in ["__overflow__", "__unknown__", "__"] {
        let (status, said) = desk.post(&format!("{name}?device=d"), "{\"v\":1}").await;
        assert_eq!(status, 400, "{said}");
        let error = said["error"].as_str().unwrap();
        assert!(error.contains("must not begin with __"), "{error}");
    }
    assert_eq!(desk.store.stats().series, 0);
}

#[tokio::test]
async fn a_message_that_is_refused_in_part_says_what_is_stored() {
    let desk = desk("", None);
    let first = format!("{{\"ts\":{NOW},\"v\":1}}");
    assert_eq!(desk.post("acme?device=d", first).await.0, 200);
    let other = format!("{{\"ts\":{NOW},\"v\":2,\"w\":3,\"x\":4}}");
    let (status, answer) = desk.post("acme?device=d", other).await;
    let conflict = "another value is stored at the same time; the first one is kept";
    let want = json!({
        "accepted": 0, "duplicates": 0, "partial": 1,
        "rejected": [{"index": 0, "reason": "conflict", "error": conflict, "stored": 2}],
    });
    assert_eq!((status, answer), (422, want));
    // Again: now nothing of it is new.
    let again = format!("{{\"ts\":{NOW},\"v\":2,\"w\":3}}");
    let (status, answer) = desk.post("acme?device=d", again).await;
    let rejected = json!([{"index": 0, "reason": "conflict", "error": conflict}]);
    assert_eq!((status, answer), (422, report(0, 0, rejected)));
}
