//! Pushes over a real ingest and a real store.

use axum::http::Request;
use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::super::desk::{self, NOW};
use super::*;
use crate::codec::protobuf::write;
use crate::model::clock::ManualClock;
use crate::model::{Labels, Matcher, Sample, Timestamp, is_stale_nan, stale_nan};
use crate::promql::{Queryable as _, SelectHints};

mod limits;
mod native;

const BODY_MAX: usize = 300_000;

struct Desk {
    _dir: tempfile::TempDir,
    router: Router,
    metrics: Arc<Metrics>,
    store: Store,
    clock: ManualClock,
}

fn desk(text: &str, operator_token: Option<&str>) -> Desk {
    let parts = desk::Parts::new(text, operator_token);
    let router = router(Parts {
        store: parts.store.clone(),
        ingest: parts.ingest,
        clock: Clock::Manual(parts.clock.clone()),
        status: parts.status,
        operator_token: parts.operator_token,
        body_bytes_max: BODY_MAX,
        metrics: Arc::clone(&parts.metrics),
    });
    Desk {
        _dir: parts.dir,
        router,
        metrics: parts.metrics,
        store: parts.store,
        clock: parts.clock,
    }
}

/// A series of a test: its labels as `a=b c=d`, its samples.
type Told<'a> = (&'a str, &'a [(i64, f64)]);

fn message(told: &[Told<'_>]) -> Vec<u8> {
    let mut message = Vec::new();
    for (labels, samples) in told {
        let mut series = Vec::new();
        for pair in labels.split(' ').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap();
            let mut label = Vec::new();
            write::bytes(&mut label, 1, name.as_bytes());
            write::bytes(&mut label, 2, value.as_bytes());
            write::bytes(&mut series, 1, &label);
        }
        for (t, v) in *samples {
            let mut sample = Vec::new();
            write::double(&mut sample, 1, *v);
            write::int(&mut sample, 2, *t);
            write::bytes(&mut series, 2, &sample);
        }
        write::bytes(&mut message, 1, &series);
    }
    message
}

fn block(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

impl Desk {
    async fn send(&self, request: Request<Body>) -> (u16, String) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        if matches!(status, 429 | 503) {
            assert_eq!(answer.headers()["retry-after"], "1");
        }
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String) {
        let mut request = Request::post(path).header("content-length", body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    async fn write(&self, told: &[Told<'_>]) -> (u16, String) {
        self.post("/api/v1/write", &[], block(&message(told))).await
    }

    async fn text(&self, text: &str) -> (u16, String) {
        self.post("/api/v1/import/prometheus", &[], text.into())
            .await
    }

    /// Everything stored, as `labels: t=v ...` without the time's beginning.
    fn stored(&self) -> Vec<String> {
        let matcher = Matcher::new("__name__", crate::model::MatchOp::NotEqual, "").unwrap();
        let (start, end) = (Timestamp::from_ms(0), Timestamp::from_ms(NOW * 2));
        let series = self
            .store
            .select(start, end, &[matcher], &SelectHints::default())
            .unwrap();
        let sample = |s: &Sample| match is_stale_nan(s.v) {
            true => format!("{}=stale", s.t.as_ms() - NOW),
            false => format!("{}={}", s.t.as_ms() - NOW, s.v),
        };
        let line = |labels: &Labels, samples: &[Sample]| {
            let samples: Vec<_> = samples.iter().map(sample).collect();
            format!("{labels}: {}", samples.join(" "))
        };
        let mut lines: Vec<_> = series
            .iter()
            .map(|series| line(&series.labels, &series.samples))
            .collect();
        lines.sort();
        lines
    }

    fn rejected(&self, reason: PushReason) -> u64 {
        let meter = self.metrics.push.of(Protocol::RemoteWrite);
        meter.rejected(reason).get()
    }
}

fn refused(reasons: &str) -> (u16, String) {
    let text = format!("some samples were refused ({reasons}), all others are stored\n");
    (400, text)
}

fn ok() -> (u16, String) {
    (204, String::new())
}

#[tokio::test]
async fn samples_are_stored_in_any_order_and_once() {
    let desk = desk("", None);
    let told: &[Told<'_>] = &[
        ("__name__=up job=a", &[(NOW, 1.0), (NOW - 5_000, 2.0)]),
        ("job=b __name__=up empty=", &[(NOW, stale_nan())]),
    ];
    assert_eq!(desk.write(told).await, ok());
    let want = ["up{job=\"a\"}: -5000=2 0=1", "up{job=\"b\"}: 0=stale"];
    assert_eq!(desk.stored(), want);
    // Again, when the series are found by their labels, and then by their bytes.
    for round in 1..4_u64 {
        assert_eq!(desk.write(told).await, ok());
        let meter = desk.metrics.push.of(Protocol::RemoteWrite);
        assert_eq!(
            (meter.accepted.get(), meter.duplicates.get()),
            (3, 3 * round)
        );
    }
    assert_eq!(desk.stored(), want);
    assert_eq!(desk.write(&[]).await, ok());
}

#[tokio::test]
async fn what_is_refused_is_counted_and_the_rest_is_stored() {
    let desk = desk(
        "[limits]\nlabels_max = 4\nlabel_value_bytes_max = 10\n",
        None,
    );
    assert_eq!(desk.write(&[("__name__=a", &[(NOW, 1.0)])]).await, ok());
    let day = 86_400_000;
    let answer = desk
        .write(&[
            ("__name__=a", &[(NOW, 2.0), (NOW + 1, 2.0)]),
            ("__name__=b", &[(NOW + 300_001, 1.0), (NOW + 300_000, 1.0)]),
            (
                "__name__=b",
                &[
                    (NOW - 8 * day, 1.0),
                    (-1, 1.0),
                    (i64::MIN, 1.0),
                    (i64::MAX, 1.0),
                ],
            ),
            ("no=name", &[(NOW, 1.0)]),
            ("__name__=", &[(NOW, 1.0)]),
            ("__name__=c x=1 x=1", &[(NOW, 1.0)]),
            ("__name__=c =1", &[(NOW, 1.0)]),
            ("__name__=c x=12345678901", &[(NOW, 1.0)]),
            ("__name__=c a=1 b=1 c=1 d=1", &[(NOW, 1.0)]),
            ("__name__=d a=1 b=1 c=1 d=", &[(NOW, 1.0)]),
        ])
        .await;
    assert_eq!(answer, refused("6 labels, 5 timestamp, 1 conflict"));
    let want = [
        "a: 0=1 1=2",
        "b: 300000=1",
        "d{a=\"1\", b=\"1\", c=\"1\"}: 0=1",
    ];
    assert_eq!(desk.stored(), want);
    assert_eq!(desk.rejected(PushReason::Labels), 6);
    assert_eq!(desk.rejected(PushReason::Timestamp), 5);
    assert_eq!(desk.rejected(PushReason::Conflict), 1);
}

#[tokio::test]
async fn the_series_limit_refuses_new_series_only() {
    let desk = desk("[limits]\nseries_max = 2\n", None);
    let rows: &[(i64, f64)] = &[(NOW, 1.0)];
    assert_eq!(
        desk.write(&[("__name__=a", rows), ("__name__=b", rows)])
            .await,
        ok()
    );
    let more: &[(i64, f64)] = &[(NOW + 1, 1.0)];
    let answer = desk
        .write(&[("__name__=c", more), ("__name__=a", more)])
        .await;
    assert_eq!(answer, refused("1 series_limit"));
    assert_eq!(desk.stored(), ["a: 0=1 1=1", "b: 0=1"]);
}

#[tokio::test]
async fn hostile_bodies_store_nothing_and_are_never_asked_for_again() {
    let desk = desk("", None);
    let good = message(&[("__name__=a", &[(NOW, 1.0)])]);
    let send = |body: Vec<u8>| desk.post("/api/v1/write", &[], body);
    assert_eq!(
        send(b"hello".to_vec()).await,
        (400, "not a snappy block\n".into())
    );
    assert_eq!(send(good.clone()).await.0, 400);
    let mut cut = good.clone();
    cut.pop();
    let answer = (400, "bad protobuf: a field that is cut short\n".into());
    assert_eq!(send(block(&cut)).await, answer);
    // A good series in front of a bad one is not stored either.
    let mut late = good.clone();
    late.extend_from_slice(&[0x0a, 0x05, 0x12]);
    assert_eq!(send(block(&late)).await.0, 400);
    let mut not_utf8 = message(&[("__name__=b", &[(NOW, 1.0)])]);
    let at = not_utf8.iter().position(|b| *b == b'b').unwrap();
    not_utf8[at] = 0xff;
    assert_eq!(send(block(&not_utf8)).await.0, 400);
    // Larger unpacked than the limit, and larger as it came.
    let bomb = block(&vec![0; BODY_MAX + 1]);
    assert!(bomb.len() < BODY_MAX / 10);
    assert_eq!(send(bomb).await.0, 413);
    assert_eq!(send(vec![0; BODY_MAX + 1]).await.0, 413);
    assert!(desk.stored().is_empty());
}

#[tokio::test]
async fn other_forms_are_refused_as_such() {
    let desk = desk("", None);
    let body = block(&message(&[("__name__=a", &[(NOW, 1.0)])]));
    let with = |headers: Vec<(&'static str, &'static str)>| {
        let (desk, body) = (&desk, body.clone());
        async move { desk.post("/api/v1/write", &headers, body).await.0 }
    };
    assert_eq!(
        with(vec![(
            "content-type",
            "application/x-protobuf;proto=io.prometheus.write.v2.Request"
        )])
        .await,
        415
    );
    assert_eq!(with(vec![("content-type", "application/json")]).await, 415);
    assert_eq!(with(vec![("content-encoding", "zstd")]).await, 415);
    assert!(desk.stored().is_empty());
    assert_eq!(
        with(vec![
            (
                "content-type",
                "application/x-protobuf;proto=prometheus.WriteRequest"
            ),
            ("content-encoding", "snappy")
        ])
        .await,
        204
    );
}

#[tokio::test]
async fn the_tenant_comes_from_path_header_or_token_and_is_kept_to() {
    let config =
        "[[tenant]]\nid = \"acme\"\ntoken = \"t\"\n[[tenant]]\nid = \"off\"\nenabled = false\n";
    let rows: &[(i64, f64)] = &[(NOW, 1.0)];
    let bare = || block(&message(&[("__name__=a", rows)]));
    let said = || block(&message(&[("__name__=b tenant_id=acme", rows)]));
    let desk = desk(config, Some("o"));
    let operator = ("authorization", "Bearer o");
    let own = ("authorization", "Basic eDp0");
    let post = |path: &'static str, headers: Vec<(&'static str, &'static str)>, body| {
        let desk = &desk;
        async move { desk.post(path, &headers, body).await }
    };
    assert_eq!(post("/api/v1/write", vec![], bare()).await.0, 401);
    assert_eq!(
        post("/api/v1/write", vec![("authorization", "Bearer x")], bare())
            .await
            .0,
        401
    );
    assert_eq!(post("/api/v1/write", vec![operator], bare()).await, ok());
    assert_eq!(post("/api/v1/write", vec![operator], said()).await, ok());
    assert_eq!(
        post("/api/v1/write/beta", vec![operator], bare()).await,
        ok()
    );
    assert_eq!(
        post("/api/v1/write/beta", vec![operator], said()).await,
        refused("1 tenant")
    );
    assert_eq!(
        post(
            "/api/v1/write",
            vec![operator, ("x-scope-orgid", "gamma")],
            bare()
        )
        .await,
        ok()
    );
    assert_eq!(
        post(
            "/api/v1/write/beta",
            vec![operator, ("x-scope-orgid", "gamma")],
            bare()
        )
        .await
        .0,
        400
    );
    assert_eq!(
        post("/api/v1/write/a%20b", vec![operator], bare()).await.0,
        400
    );
    assert_eq!(post("/api/v1/write", vec![own], bare()).await, ok());
    assert_eq!(post("/api/v1/write/acme", vec![own], said()).await, ok());
    assert_eq!(post("/api/v1/write/beta", vec![own], bare()).await.0, 403);
    assert_eq!(
        post("/api/v1/write/off", vec![operator], bare()).await.0,
        403
    );
    let want = [
        "a: 0=1",
        "a{tenant_id=\"acme\"}: 0=1",
        "a{tenant_id=\"beta\"}: 0=1",
        "a{tenant_id=\"gamma\"}: 0=1",
        "b{tenant_id=\"acme\"}: 0=1",
    ];
    assert_eq!(desk.stored(), want);
}

#[tokio::test]
async fn without_an_operators_token_a_tenant_with_one_is_still_its_own() {
    let desk = desk("[[tenant]]\nid = \"acme\"\ntoken = \"t\"\n", None);
    let rows: &[(i64, f64)] = &[(NOW, 1.0)];
    let bare = block(&message(&[("__name__=a", rows)]));
    assert_eq!(
        desk.post("/api/v1/write/acme", &[], bare.clone()).await.0,
        401
    );
    assert_eq!(desk.post("/api/v1/write/beta", &[], bare).await, ok());
    // Neither at first nor when the series is known by then.
    let own = block(&message(&[("__name__=a tenant_id=acme", rows)]));
    let token = [("authorization", "Bearer t")];
    for _ in 0..2 {
        let answer = desk.post("/api/v1/write", &[], own.clone()).await;
        assert_eq!(answer, refused("1 tenant"));
        assert_eq!(desk.post("/api/v1/write", &token, own.clone()).await, ok());
    }
}

#[tokio::test]
async fn a_tenant_over_its_rate_is_told_to_wait() {
    let desk = desk(
        "[limits]\nmessages_per_second = 1\nmessages_burst = 2\n",
        None,
    );
    let body = block(&message(&[("__name__=a", &[(NOW, 1.0)])]));
    for want in [204, 204, 429] {
        assert_eq!(
            desk.post("/api/v1/write/acme", &[], body.clone()).await.0,
            want
        );
    }
    assert_eq!(desk.post("/api/v1/write", &[], body).await.0, 204);
}

#[tokio::test]
async fn a_closed_store_asks_for_a_repetition() {
    let desk = desk("", None);
    desk.store.close().await;
    let answer = desk.write(&[("__name__=a", &[(NOW, 1.0)])]).await;
    assert_eq!(answer, (503, "the process stops\n".into()));
}

#[tokio::test]
async fn a_series_that_has_left_is_made_again() {
    let desk = desk("[store]\nretention = \"1d\"\nmax_late = \"1d\"\n", None);
    let told = |t| {
        message(&[
            ("__name__=a x=y", &[(t, 1.0)][..]),
            ("__name__=b", &[(t, 1.0)][..]),
        ])
    };
    for _ in 0..2 {
        assert_eq!(
            desk.post("/api/v1/write", &[], block(&told(NOW))).await,
            ok()
        );
    }
    let id = |desk: &Desk| desk.store.resolve(&Labels::from_pairs([("__name__", "b")]));
    let first = id(&desk).unwrap();
    desk.store.seal_now().await.unwrap();
    let later = NOW + 4 * 86_400_000;
    desk.clock.set(Timestamp::from_ms(later));
    desk.store.seal_now().await.unwrap();
    assert_eq!(id(&desk), None, "retention took it");
    assert_eq!(
        desk.post("/api/v1/write", &[], block(&told(later))).await,
        ok()
    );
    assert!(id(&desk).unwrap() > first);
    assert_eq!(desk.stored().len(), 2);
}

#[tokio::test]
async fn text_is_stored_whole_or_refused_with_the_line() {
    let desk = desk("", None);
    let text = "# TYPE a gauge\n# HELP a What it is.\na{x=\"1\"} 5\na 6 1699999999000\n";
    assert_eq!(desk.text(text).await, ok());
    assert_eq!(desk.text(text).await, ok());
    let want = ["a: -1000=6", "a{x=\"1\"}: 0=5"];
    assert_eq!(desk.stored(), want);
    let row = desk.store.get(Table::Metadata, b"a").unwrap().unwrap();
    let (_, metadata) = Metadata::decode(b"a", &row).unwrap();
    assert_eq!((&*metadata.kind, &*metadata.help), ("gauge", "What it is."));
    let answer = desk.text("b 1\nc{x=} 1\n").await;
    let what = "line 2: expected a text in quotes, found \"}\"\n";
    assert_eq!(answer, (400, what.into()));
    let answer = desk.text("a 1 5\n").await;
    assert_eq!(answer, refused("1 timestamp"));
    assert_eq!(desk.text("\u{1}").await.0, 400);
    assert_eq!(desk.stored(), want);
    let meter = desk.metrics.push.of(Protocol::Text);
    assert_eq!((meter.accepted.get(), meter.duplicates.get()), (2, 2));
}

#[test]
fn failures_say_how_long_to_wait() {
    let answer = Failure::again("x").into_response();
    assert_eq!(answer.headers()["retry-after"], "1");
}
