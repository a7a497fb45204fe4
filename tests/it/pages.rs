//! The pages over a real store and engine, asked as a browser asks.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use pulse::config::Config;
use pulse::model::clock::ManualClock;
use pulse::model::{Clock, Labels, Timestamp};
use pulse::promql::{Engine, engine};
use pulse::rules::{AlertState, AlertView, GroupView, RuleKind, RuleView};
use pulse::sources::status::Board;
use pulse::store::{Item, Options, Row, SeriesKey, Store, Urgency, WriteBatch};
use pulse::tasks::Tasks;
use pulse::telemetry::Metrics;
use pulse::web::Context;
use pulse::web::context::{Gate, Parts};
use pulse::web::dashboard::library::Library;
use pulse::web::pages;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What no page may ever say as markup.
const HOSTILE: &str = "<script>alert(1)</script>\"'&";
/// 2026-11-20T13:30:00Z
const NOW: Timestamp = Timestamp::from_ms(1_795_181_400_000);

/// Pages over made-up data, at a standing clock.
struct World {
    router: axum::Router,
    store: Store,
    _dir: TempDir,
}

impl World {
    async fn new(library: Library) -> World {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default();
        let metrics = Metrics::new();
        let clock = Clock::Manual(ManualClock::new(NOW));
        let options = Options {
            dir: dir.path().to_owned(),
            store: config.store.clone(),
            limits: config.limits.clone(),
            tenants: Vec::new(),
        };
        let store = Store::open(options, clock.clone(), Arc::clone(&metrics)).unwrap();
        let board = Board::default();
        board
            .add(HOSTILE, "mqtt", "mqtt://h", "at least once", NOW)
            .down(HOSTILE, NOW);
        let alerting = pulse::alerting::start(
            &config,
            store.clone(),
            Arc::clone(&metrics),
            clock.clone(),
            &Tasks::new(metrics.task_restarts.clone()),
            CancellationToken::new(),
        )
        .unwrap();
        let delivery = pulse::delivery::start(
            &config,
            store.clone(),
            Arc::clone(&metrics),
            clock.clone(),
            Tasks::new(metrics.task_restarts.clone()),
            CancellationToken::new(),
        )
        .unwrap();
        let context = Context::new(Parts {
            store: store.clone(),
            engine: Engine {
                options: engine::Options {
                    lookback: Duration::from_secs(300),
                    subquery_step: Duration::from_secs(60),
                    samples_max: 10_000_000,
                    series_max: 10_000,
                    ..engine::Options::default()
                },
                ..Engine::default()
            },
            gate: Gate::new(4),
            lists: Gate::new(4),
            clock,
            metrics,
            board,
            groups: Arc::new(|| Arc::new(groups())),
            alerting,
            delivery,
            local: pulse::web::Local::new("secret".into()),
            reloads: mpsc::channel(1).0,
            config: watch::channel(Arc::new(config)).1,
            ready: watch::channel(true).1,
            started: NOW.minus_ms(60_000),
        });
        World {
            router: pages::routes_with(library).with_state(context),
            store,
            _dir: dir,
        }
    }

    /// The shipped dashboards over half an hour of pulse's own series.
    async fn with_data() -> World {
        let world = World::new(Library::shipped()).await;
        world.fill(&own_series()).await;
        world
    }

    /// Writes counters that grow by their number with each of 120 steps of 15 s.
    async fn fill(&self, series: &[(String, f64)]) {
        for step in 0..=120_i64 {
            let rows = series.iter().map(|(text, growth)| Row {
                series: SeriesKey::Labels(labels(text)),
                t: NOW.minus_ms((120 - step) * 15_000),
                v: growth * step as f64,
            });
            let mut batch = WriteBatch {
                urgency: Urgency::RideAlong,
                ..WriteBatch::default()
            };
            batch.push(rows, Item::default());
            self.store.write(batch).await.unwrap();
        }
    }

    async fn get(&self, path: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        self.send(request).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        (parts.status, parts.headers, text)
    }

    async fn page(&self, path: &str) -> String {
        let (status, _, html) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        html
    }

    /// The markup of the panel with this title on a dashboard.
    async fn panel(&self, uid: &str, title: &str) -> String {
        let html = self
            .page(&format!("/d/{uid}?from=now-30m&to=now&all=1&tz=utc"))
            .await;
        let panels = html
            .split("<section")
            .map(|part| part.split("</section>").next().unwrap());
        let heading = format!(">{title}</h2>");
        let found = panels.into_iter().find(|panel| panel.contains(&heading));
        let panel = found
            .unwrap_or_else(|| panic!("no panel {title:?} on {uid}"))
            .to_owned();
        assert!(!panel.contains("data-error"), "{panel}");
        assert!(!panel.contains("data-unsupported"), "{panel}");
        panel
    }

    /// Checks that a panel draws `lines` lines.
    async fn draws(&self, uid: &str, title: &str, lines: usize) {
        let panel = self.panel(uid, title).await;
        assert_eq!(
            panel.matches("class=\"l\"").count(),
            lines,
            "{title}: {panel}"
        );
    }
}

/// `name{a="b"}` with plain values.
fn labels(text: &str) -> Labels {
    let (name, rest) = text.split_once('{').unwrap();
    let pairs = rest
        .trim_end_matches('}')
        .split(',')
        .filter_map(|pair| pair.split_once('='));
    Labels::from_pairs([("__name__", name)].into_iter().chain(pairs))
}

fn own_series() -> Vec<(String, f64)> {
    let mut series: Vec<(String, f64)> = Vec::new();
    let mut add = |text: &str, growth: f64| series.push((text.to_owned(), growth));
    for (tenant, rate) in [("acme", 150.0), ("borealis", 30.0), (HOSTILE, 15.0)] {
        let own = format!("job=pulse,tenant_id={tenant}");
        add(
            &format!("pulse_ingest_messages_total{{{own},result=accepted}}"),
            rate,
        );
        add(
            &format!("pulse_ingest_messages_total{{{own},result=rejected}}"),
            rate / 10.0,
        );
        add(
            &format!("pulse_ingest_rejected_total{{{own},reason=parse}}"),
            rate / 10.0,
        );
        add(&format!("pulse_ingest_samples_total{{{own}}}"), rate);
        add(&format!("pulse_delivery_dlq_depth{{{own}}}"), 1.0);
        for (result, share) in [("success", 0.75), ("failed", 0.25)] {
            let delivery = format!("{own},destination_type=webhook,result={result}");
            add(&format!("pulse_delivery_total{{{delivery}}}"), rate * share);
        }
    }
    for (le, share) in [("0.01", 0.5), ("0.1", 0.96), ("+Inf", 1.0)] {
        add(
            &format!("pulse_ingest_batch_write_seconds_bucket{{job=pulse,tenant_id=acme,le={le}}}"),
            100.0 * share,
        );
        add(
            &format!("pulse_delivery_seconds_bucket{{job=pulse,destination_type=webhook,le={le}}}"),
            100.0 * share,
        );
    }
    add(
        "pulse_nats_consumer_pending{job=pulse,stream=S,consumer=live}",
        1.0,
    );
    add(
        "pulse_nats_consumer_pending{job=pulse,stream=S,consumer=old}",
        2.0,
    );
    add(
        "pulse_queue_depth{job=pulse,service=ingest,queue_name=ingest_batch}",
        1.0,
    );
    for service in ["ingest", "ui_api"] {
        add(
            &format!("pulse_db_pool_size{{job=pulse,service={service}}}"),
            0.1,
        );
        add(
            &format!("pulse_db_pool_free{{job=pulse,service={service}}}"),
            0.05,
        );
        add(
            &format!("pulse_db_pool_max{{job=pulse,service={service}}}"),
            0.1,
        );
    }
    series
}

fn emqx_series() -> Vec<(String, f64)> {
    let names = [
        "emqx_connections_count",
        "emqx_messages_received",
        "emqx_messages_sent",
        "emqx_messages_publish",
        "emqx_client_connect",
        "emqx_client_auth_anonymous",
    ];
    let mut series: Vec<(String, f64)> = names
        .map(|name| (format!("{name}{{job=emqx,instance=a}}"), 30.0))
        .into();
    series.push((
        "emqx_listener_current_connections{job=emqx,listener_id=tcp:default}".to_owned(),
        3.0,
    ));
    series
}

fn groups() -> Vec<GroupView> {
    let alert = AlertView {
        labels: Labels::from_pairs([("alertname", "A"), ("route", HOSTILE)]),
        annotations: [("summary".to_owned(), HOSTILE.to_owned())].into(),
        state: AlertState::Firing,
        active_at: NOW.minus_ms(60_000),
        keep_firing_since: None,
        value: 0.5,
    };
    vec![GroupView {
        name: "g".to_owned(),
        file: HOSTILE.to_owned(),
        interval_secs: 15.0,
        limit: 0,
        rules: vec![RuleView {
            name: "A".to_owned(),
            query: "up == 0".to_owned(),
            labels: [].into(),
            kind: RuleKind::Alerting {
                for_secs: 60.0,
                keep_firing_secs: 0.0,
                annotations: [].into(),
                alerts: vec![alert],
            },
            healthy: Some(false),
            last_error: Some(HOSTILE.to_owned()),
            evaluation_secs: 0.001,
            last_evaluation: Some(NOW),
        }],
        evaluation_secs: 0.001,
        last_evaluation: Some(NOW),
    }]
}

const PAGES: [&str; 12] = [
    "/",
    "/dashboards",
    "/d/tenant-overview",
    "/d/infrastructure?all=1",
    "/d/host",
    "/d/tenant-overview?viewPanel=6&view=table&kiosk",
    "/alerts",
    "/targets",
    "/graph",
    "/graph?g0.expr=pulse_delivery_dlq_depth&g0.tab=1",
    "/graph?g0.expr=sum(pulse_delivery_dlq_depth)&g1.expr=rate(",
    "/status",
];

#[tokio::test]
async fn the_address_of_rules_leads_to_them() {
    let world = World::with_data().await;
    let (status, headers, _) = world.get("/rules").await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(headers["location"], "/alerts#rules");
    let html = world.page("/alerts").await;
    assert_eq!(html.matches("id=\"rules\"").count(), 1);
}

#[tokio::test]
async fn every_page_answers_and_holds_no_inline_script_or_style() {
    let world = World::with_data().await;
    for path in PAGES {
        let (status, headers, html) = world.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{path}"
        );
        for script in html.split("<script").skip(1) {
            assert!(
                script.starts_with(" src=\"/assets/pulse-"),
                "{path}: {script:.60}"
            );
        }
        assert!(!html.contains("<style"), "{path}");
        assert!(
            !html.contains(" onclick=") && !html.contains("javascript:"),
            "{path}"
        );
        assert!(
            !html.contains("http://") || path == "/" || path == "/status",
            "{path} names another host"
        );
        assert!(html.contains("<a class=\"skip\""), "{path}");
    }
}

#[tokio::test]
async fn hostile_texts_are_words_on_every_page() {
    let mut library = Library::shipped();
    let file = serde_json::json!({
        "uid": "evil", "title": HOSTILE, "description": HOSTILE, "tags": [HOSTILE],
        "templating": {"list": [{"name": "v", "label": HOSTILE, "type": "custom", "query": HOSTILE}]},
        "panels": [
            {"id": HOSTILE, "type": "timeseries", "title": HOSTILE, "description": HOSTILE,
             "targets": [{"expr": "pulse_delivery_dlq_depth", "legendFormat": "{{tenant_id}}"}],
             "fieldConfig": {"defaults": {"unit": HOSTILE, "color": {"mode": "fixed", "fixedColor": HOSTILE}}}},
            {"id": 2, "type": "text", "options": {"mode": "html", "content": HOSTILE}},
            {"id": 3, "type": HOSTILE, "targets": [{"expr": HOSTILE}]},
            {"id": 4, "type": "stat", "targets": [{"expr": HOSTILE}]},
            {"id": 5, "type": "table", "targets": [{"expr": "pulse_delivery_dlq_depth"}]},
            {"id": 6, "type": "bargauge", "targets": [{"expr": "pulse_delivery_dlq_depth"}]},
            {"id": 7, "type": "row", "title": HOSTILE, "options": {"requires": HOSTILE}}
        ]
    });
    library.add("evil", &file.to_string());
    library.add(HOSTILE, "{");
    let world = World::new(library).await;
    world.fill(&own_series()).await;
    let hostile = pulse::web::dashboard::interpolate::percent_encode(HOSTILE);
    let mut paths: Vec<String> = PAGES.map(str::to_owned).into();
    paths.push("/d/evil?all=1".to_owned());
    paths.push(format!(
        "/d/evil?var-v={hostile}&from={hostile}&theme={hostile}&{hostile}={hostile}"
    ));
    paths.push(format!("/graph?g0.expr={hostile}"));
    paths.push(format!("/d/{hostile}"));
    for path in paths {
        let (_, _, html) = world.get(&path).await;
        assert!(!html.contains("<script>alert"), "{path}");
        assert!(!html.contains("\"'&\""), "{path}");
    }
    let (_, _, html) = world.get("/d/evil?all=1").await;
    assert!(html.contains("&#60;script&#62;") || html.contains("&lt;script&gt;"));
}

#[tokio::test]
async fn panels_say_what_they_are() {
    let mut library = Library::default();
    let file = r#"{"uid": "x", "panels": [
        {"id": 11, "type": "stat", "title": "bad", "targets": [{"expr": "sum(", "refId": "A"}]},
        {"id": 12, "type": "geomap", "targets": [{"expr": "up"}]},
        {"id": 13, "type": "stat", "datasource": {"type": "mysql", "uid": "y"}},
        {"id": 14, "type": "timeseries", "title": "none", "targets": [{"expr": "nothing_here"}]}]}"#;
    library.add("x", file);
    library.add("broken", "[1]");
    let world = World::new(library).await;
    let html = world.page("/d/x").await;
    for mark in [
        "data-panel-id=\"11\"",
        "data-error=\"1:",
        "data-unsupported=\"geomap\"",
        "data-unsupported=\"datasource:mysql\"",
        "id=\"panel-3\" data-panel-id=\"14\"",
        "No series match in this time range.",
    ] {
        assert!(html.contains(mark), "{mark} not in {html}");
    }
    assert!(
        world
            .page("/dashboards")
            .await
            .contains("data-import-error=")
    );
}

#[tokio::test]
async fn explore_says_why_there_is_nothing() {
    let world = World::with_data().await;
    let ask = |query: &str| {
        let query = pulse::web::dashboard::interpolate::percent_encode(query);
        format!("/graph?g0.expr={query}")
    };
    let html = world.page(&ask("sum(nothing_here) + 1")).await;
    assert!(html.contains("<code>nothing_here</code> selects nothing"));
    let sum = "sum(pulse_delivery_dlq_depth)";
    let query = format!("{sum} / on (a) label_replace({sum}, \"a\", \"x\", \"\", \"\")");
    let html = world.page(&ask(&query)).await;
    for mark in [
        "<code>/ on (a)</code> finds no two that belong together.",
        "on both sides: a.",
        "Left: 1",
        "<pre class=\"codebox\">{}</pre>",
        "Right: 1",
    ] {
        assert!(html.contains(mark), "{mark} not in {html}");
    }
    assert!(!world.page(&ask(sum)).await.contains("belong together"));
}

#[tokio::test]
async fn a_panel_comes_alone_with_its_exact_values_and_its_tag() {
    let world = World::with_data().await;
    let path = "/d/tenant-overview/panels/6?from=now-30m&to=now";
    let (status, headers, html) = world.get(path).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        html.starts_with("<section") && html.matches("<section").count() == 1,
        "{html:.200}"
    );
    let tag = headers["etag"].clone();
    let again = Request::get(path)
        .header("if-none-match", tag)
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.send(again).await.0, StatusCode::NOT_MODIFIED);

    let json = world
        .page("/d/tenant-overview/panels/6.json?from=now-30m&to=now")
        .await;
    let values: serde_json::Value = serde_json::from_str(&json).unwrap();
    let acme = values["series"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["name"] == "acme")
        .unwrap();
    // 150 accepted and 15 rejected in each 15 s.
    let last = acme["v"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .as_f64()
        .unwrap();
    assert!((last - 11.0).abs() < 1e-9, "{last}");
    assert_eq!(
        acme["f"].as_array().unwrap().last().unwrap(),
        "11\u{a0}msg/s"
    );

    let several = world
        .page("/d/tenant-overview/panels/panels?panels=0,6,7")
        .await;
    assert_eq!(several.matches("<section").count(), 3);
    assert_eq!(
        world.get("/d/tenant-overview/panels/999").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn variables_choose_what_is_drawn() {
    let world = World::with_data().await;
    let html = world
        .page("/d/tenant-overview?from=now-30m&var-tenant=acme")
        .await;
    let panel = html
        .split("<section")
        .find(|part| part.contains("Message throughput by tenant</h2>"))
        .unwrap();
    assert_eq!(panel.matches("class=\"l\"").count(), 1);
    assert!(html.contains("name=\"var-tenant\" value=\"acme\" checked"));
}

#[tokio::test]
async fn what_is_not_there_says_so_in_the_frame_of_all_pages() {
    let world = World::with_data().await;
    for path in ["/nope", "/d/nope"] {
        let (status, _, html) = world.get(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(html.contains("<nav class=\"nav\""), "{path}");
    }
}

#[tokio::test]
async fn the_theme_comes_from_the_query_and_stays_in_a_cookie() {
    let world = World::with_data().await;
    let (_, headers, html) = world.get("/alerts?theme=dark").await;
    assert!(html.contains("<html lang=\"en\" data-theme=\"dark\""));
    assert!(
        headers["set-cookie"]
            .to_str()
            .unwrap()
            .starts_with("theme=dark;")
    );
    let request = Request::get("/alerts")
        .header("cookie", "a=b; theme=light")
        .body(Body::empty())
        .unwrap();
    assert!(world.send(request).await.2.contains("data-theme=\"light\""));
}

#[tokio::test]
async fn home_gives_the_verdict_first() {
    let world = World::with_data().await;
    let html = world.page("/").await;
    let verdict = html.find("things need you").unwrap();
    assert!(verdict < html.find("Ingest rate").unwrap());
    assert!(html.contains("is firing"));
    assert!(html.contains("is down"));
}

#[test]
fn the_shipped_files_import_into_a_grafana() {
    for uid in ["tenant-overview", "infrastructure", "host"] {
        let library = Library::shipped();
        let file: serde_json::Value =
            serde_json::from_str(&library.get(uid).unwrap().source).unwrap();
        assert_eq!(file["uid"], uid);
        assert!(file["schemaVersion"].as_i64().unwrap() >= 36);
        let panels = file["panels"].as_array().unwrap();
        let mut ids: Vec<i64> = panels.iter().map(|p| p["id"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), panels.len(), "{uid}: ids are unique");
        for panel in panels.iter().filter(|p| p["type"] != "row") {
            let title = &panel["title"];
            assert!(
                panel["description"].as_str().is_some_and(|d| d.len() > 10),
                "{title}"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let expr = panel["targets"][0]["expr"].as_str().unwrap();
            assert!(
                ["$job", "$instance"].iter().any(|v| expr.contains(v)),
                "{title}: {expr}"
            );
            let right =
                panel["gridPos"]["x"].as_i64().unwrap() + panel["gridPos"]["w"].as_i64().unwrap();
            assert!(right <= 24, "{title}");
        }
    }
}

// The panels of document 0.

#[tokio::test]
async fn r0_14_message_throughput_by_tenant() {
    World::with_data()
        .await
        .draws("tenant-overview", "Message throughput by tenant", 3)
        .await;
}

#[tokio::test]
async fn r0_15_rejection_rate_by_tenant() {
    World::with_data()
        .await
        .draws("tenant-overview", "Rejection rate by tenant", 3)
        .await;
}

#[tokio::test]
async fn r0_16_top_10_tenants_by_volume() {
    let panel = World::with_data()
        .await
        .panel("tenant-overview", "Top 10 tenants by volume")
        .await;
    let (acme, borealis) = (
        panel.find(">acme<").unwrap(),
        panel.find(">borealis<").unwrap(),
    );
    assert!(acme < borealis && panel.contains("--v:100.0%"), "{panel}");
}

#[tokio::test]
async fn r0_17_webhook_delivery_success_by_tenant() {
    let world = World::with_data().await;
    world
        .draws("tenant-overview", "Webhook delivery success by tenant", 3)
        .await;
    let panel = world
        .panel("tenant-overview", "Webhook delivery success by tenant")
        .await;
    assert!(panel.contains("75\u{a0}%"), "{panel}");
}

#[tokio::test]
async fn r0_18_nats_consumer_lag_by_consumer() {
    let panel = World::with_data()
        .await
        .panel("infrastructure", "NATS consumer lag")
        .await;
    assert!(
        panel.contains("S/live") && panel.contains("S/old"),
        "{panel}"
    );
}

#[tokio::test]
async fn r0_21_ingest_batch_write_latency() {
    World::with_data()
        .await
        .draws("infrastructure", "Ingest batch write latency", 3)
        .await;
}

#[tokio::test]
async fn r0_22_db_pool_active_against_max() {
    World::with_data()
        .await
        .draws("infrastructure", "DB pool utilisation", 3)
        .await;
}

#[tokio::test]
async fn r0_23_route_delivery_latency() {
    World::with_data()
        .await
        .draws("infrastructure", "Route delivery latency", 3)
        .await;
}

#[tokio::test]
async fn r0_24_dlq_depth() {
    World::with_data()
        .await
        .draws("infrastructure", "DLQ depth", 3)
        .await;
}

#[tokio::test]
async fn emqx_is_folded_until_there_is_a_source() {
    let html = World::with_data().await.page("/d/infrastructure").await;
    let row = html.split("<details class=\"rowbox\"").nth(1).unwrap();
    assert!(row.starts_with(" data-row><summary>"), "{row:.80}");
    assert!(row.contains("no source configured"));
    let world = emqx_world().await;
    assert!(
        !world
            .page("/d/infrastructure")
            .await
            .contains("no source configured")
    );
}

async fn emqx_world() -> World {
    let world = World::with_data().await;
    world.fill(&emqx_series()).await;
    world
}

#[tokio::test]
async fn r0_19_emqx_connections_in_total_and_by_listener() {
    emqx_world()
        .await
        .draws("infrastructure", "EMQX connections", 2)
        .await;
}

#[tokio::test]
async fn r0_20_emqx_publish_rate() {
    emqx_world()
        .await
        .draws("infrastructure", "EMQX publish rate", 1)
        .await;
}

/// A number panel of the EMQX row shows this value.
async fn emqx_number(title: &str, value: &str) {
    let panel = emqx_world().await.panel("infrastructure", title).await;
    assert!(panel.contains(&format!(">{value}<")), "{title}: {panel}");
}

#[tokio::test]
async fn r0_25_emqx_connections_count() {
    emqx_number("Connections", "3.60").await;
}

#[tokio::test]
async fn r0_26_emqx_messages_received() {
    emqx_number("Received", "2").await;
}

#[tokio::test]
async fn r0_27_emqx_messages_sent() {
    emqx_number("Sent", "2").await;
}

#[tokio::test]
async fn r0_28_emqx_messages_publish() {
    emqx_number("Messages published", "2").await;
}

#[tokio::test]
async fn r0_29_emqx_client_connect() {
    emqx_number("Connect events", "2").await;
}

#[tokio::test]
async fn r0_30_emqx_anonymous_authentications_are_flagged() {
    let panel = emqx_world()
        .await
        .panel("infrastructure", "Anonymous authentications")
        .await;
    assert!(panel.contains("flag-crit"), "{panel}");
}
