//! `/metrics` of a process that has just started: every promised family is there
//! with its type and labels, before anything happened.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::free_port;
use crate::server::{Server, eventually};

/// A family as `/metrics` shows it.
#[derive(Default, Debug)]
struct Family {
    kind: String,
    label_sets: BTreeSet<BTreeSet<String>>,
    samples: Vec<(BTreeMap<String, String>, String)>,
    les: BTreeSet<String>,
}

/// Reads the text format, folding the series of histograms into their family.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut found: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let family = found.entry(name.to_owned()).or_default();
            assert!(family.kind.is_empty(), "{name} is declared twice");
            family.kind = kind.to_owned();
        } else if !line.starts_with('#') && !line.is_empty() {
            add_sample(&mut found, line);
        }
    }
    found
}

fn add_sample(found: &mut BTreeMap<String, Family>, line: &str) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, parse_labels(rest.trim_end_matches('}'))),
        None => (series, BTreeMap::new()),
    };
    let base = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .filter(|base| found.get(*base).is_some_and(|f| f.kind == "histogram"))
        .unwrap_or(name);
    let family = found
        .get_mut(base)
        .unwrap_or_else(|| panic!("{line} has no TYPE"));
    family.les.extend(labels.get("le").cloned());
    let names = labels.keys().filter(|n| *n != "le").cloned().collect();
    family.label_sets.insert(names);
    family.samples.push((labels, value.to_owned()));
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let end = after.find('"').unwrap();
        labels.insert(
            name.trim_start_matches(',').to_owned(),
            after[..end].to_owned(),
        );
        rest = &after[end + 1..];
    }
    labels
}

/// Requirement, family, type, labels.
const PROMISED: &[(&str, &str, &str, &[&str])] = &[
    (
        "[0.01]",
        "pulse_ingest_messages_total",
        "counter",
        &["result", "tenant_id"],
    ),
    (
        "[0.02]",
        "pulse_ingest_batch_write_seconds",
        "histogram",
        &["tenant_id"],
    ),
    ("[0.03]", "pulse_ingest_nats_pending", "gauge", &[]),
    (
        "[0.05]",
        "pulse_delivery_total",
        "counter",
        &["destination_type", "result", "tenant_id"],
    ),
    (
        "[0.06]",
        "pulse_delivery_seconds",
        "histogram",
        &["destination_type"],
    ),
    (
        "[0.07]",
        "pulse_delivery_dlq_total",
        "counter",
        &["tenant_id"],
    ),
    (
        "[0.24]",
        "pulse_delivery_dlq_depth",
        "gauge",
        &["tenant_id"],
    ),
    (
        "[1.26]",
        "onboarding_tasks_submitted_total",
        "counter",
        &["company_id"],
    ),
    (
        "[1.27]",
        "onboarding_tasks_processed_total",
        "counter",
        &["company_id", "status"],
    ),
    (
        "[1.28]",
        "onboarding_processing_duration_seconds",
        "histogram",
        &["company_id"],
    ),
    ("[1.29]", "onboarding_queue_length", "gauge", &[]),
    (
        "[3.05]",
        "messages_received_total",
        "counter",
        &["message_type", "user_id"],
    ),
    (
        "[3.06]",
        "messages_processed_total",
        "counter",
        &["message_type"],
    ),
    (
        "[3.07]",
        "messages_failed_total",
        "counter",
        &["error_type", "message_type"],
    ),
    ("[3.10]", "active_sessions", "gauge", &[]),
    ("[3.11]", "sessions_created_total", "counter", &[]),
    ("[3.12]", "sessions_ended_total", "counter", &[]),
    ("[3.13]", "db_writes_total", "counter", &["table"]),
    (
        "[3.14]",
        "db_write_duration_seconds",
        "histogram",
        &["table"],
    ),
    ("[3.15]", "db_batch_size", "histogram", &["table"]),
    ("[3.16]", "pending_writes", "gauge", &["table"]),
    (
        "[3.17]",
        "http_requests_total",
        "counter",
        &["handler", "method", "status"],
    ),
    (
        "[3.18]",
        "http_request_duration_seconds",
        "histogram",
        &["handler", "method"],
    ),
    (
        "[3.19]",
        "http_requests_in_progress",
        "gauge",
        &["handler", "method"],
    ),
    (
        "[3.19]",
        "http_requests_inprogress",
        "gauge",
        &["handler", "method"],
    ),
    ("[0.22]", "pulse_db_pool_max", "gauge", &["service"]),
    ("[3.03]", "edge_relay_connections", "gauge", &[]),
    ("[3.04]", "consumer_connections", "gauge", &[]),
    ("[3.08]", "buffer_size", "gauge", &["user_id"]),
    ("[3.09]", "buffer_capacity", "gauge", &["user_id"]),
    (
        "[4.01]",
        "pulse_queue_depth",
        "gauge",
        &["queue_name", "service"],
    ),
    (
        "[4.02]",
        "pulse_processing_duration_seconds",
        "histogram",
        &["operation", "service"],
    ),
    ("[4.03]", "pulse_db_pool_size", "gauge", &["service"]),
    ("[4.04]", "pulse_db_pool_free", "gauge", &["service"]),
    (
        "[4.05]",
        "evaluator_rules_evaluated_total",
        "counter",
        &["tenant_id"],
    ),
    (
        "[4.05]",
        "evaluator_alerts_created_total",
        "counter",
        &["tenant_id"],
    ),
    (
        "[4.05]",
        "evaluator_evaluation_errors_total",
        "counter",
        &["tenant_id"],
    ),
];

async fn started() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    (dir, server)
}

#[tokio::test]
async fn every_promised_family_is_there_before_first_use() {
    let (_dir, server) = started().await;
    let answer = server.get("/metrics").await;
    let families = families(answer.text());
    for (requirement, name, kind, labels) in PROMISED {
        let family = families
            .get(*name)
            .unwrap_or_else(|| panic!("{requirement} {name} is missing"));
        assert_eq!(family.kind, *kind, "{requirement} {name}");
        let wanted: BTreeSet<String> = labels.iter().map(|l| (*l).to_owned()).collect();
        assert_eq!(
            family.label_sets,
            BTreeSet::from([wanted]),
            "{requirement} {name}"
        );
    }
}

#[tokio::test]
async fn r0_04_every_ingest_family_has_the_tenant() {
    let (_dir, server) = started().await;
    let answer = server.get("/metrics").await;
    for (name, family) in families(answer.text()) {
        if name.starts_with("pulse_ingest_") && family.kind != "gauge" {
            let all = family
                .label_sets
                .iter()
                .all(|set| set.contains("tenant_id"));
            assert!(all, "{name}: {:?}", family.label_sets);
        }
    }
}

/// Each scrape is a session of its own: the client opens a connection for each.
#[tokio::test]
async fn r3_10_sessions_are_counted() {
    let (_dir, server) = started().await;
    let value = |text: &str, name: &str| -> f64 {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    server.get("/").await;
    eventually(
        "ended sessions are counted, the open one is active",
        || async {
            let text = server.get("/metrics").await.text().to_owned();
            let [created, ended, active] = [
                "sessions_created_total ",
                "sessions_ended_total ",
                "active_sessions ",
            ]
            .map(|name| value(&text, name));
            (created >= 3.0 && ended >= 2.0 && active >= 1.0 && created == ended + active)
                .then_some(())
        },
    )
    .await;
}

#[tokio::test]
async fn buckets_are_the_documents() {
    let (_dir, server) = started().await;
    let answer = server.get("/metrics").await;
    let families = families(answer.text());
    let check = |name: &str, wanted: &[f64]| {
        let mut got: Vec<f64> = families[name]
            .les
            .iter()
            .map(|le| le.parse().unwrap())
            .collect();
        got.sort_by(f64::total_cmp);
        let wanted: Vec<f64> = wanted.iter().copied().chain([f64::INFINITY]).collect();
        assert_eq!(got, wanted, "{name}");
    };
    let minutes = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
    check("pulse_processing_duration_seconds", &minutes);
    let python = [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];
    check("pulse_ingest_batch_write_seconds", &python);
    check("pulse_delivery_seconds", &python);
}

/// The children that document 4 names: `[4.06]` to `[4.23]`, and its own checks.
#[tokio::test]
async fn document_4_verification_steps_hold() {
    let (_dir, server) = started().await;
    let answer = server.get("/metrics").await;
    let text = answer.text().to_owned();
    let families = families(&text);
    let has = |name: &str, labels: &[(&str, &str)]| {
        let family = &families[name];
        let found = family.samples.iter().any(|(have, _)| {
            labels
                .iter()
                .all(|(n, v)| have.get(*n).is_some_and(|value| value == v))
        });
        assert!(found, "{name} {labels:?}");
    };
    let cycles = [
        ("[4.06] [4.25]", "evaluator", "evaluation_cycle"),
        ("[4.11] [4.27]", "dispatcher", "dispatch_cycle"),
        ("[4.15]", "delivery_worker", "delivery_attempt"),
        ("[4.19]", "ops_worker", "retention"),
    ];
    for (_, service, operation) in cycles {
        let labels = [("service", service), ("operation", operation)];
        has("pulse_processing_duration_seconds", &labels);
    }
    let queues = [
        ("[4.07]", "evaluator", "devices_to_evaluate"),
        ("[4.12]", "dispatcher", "pending_alerts"),
        ("[4.16]", "delivery_worker", "pending_jobs"),
        ("[4.17]", "delivery_worker", "pending_notification_jobs"),
    ];
    for (_, service, queue) in queues {
        has(
            "pulse_queue_depth",
            &[("service", service), ("queue_name", queue)],
        );
    }
    let pools = [
        ("[4.08]", "evaluator"),
        ("[4.13]", "dispatcher"),
        ("[4.18]", "delivery_worker"),
        ("[4.21]", "ops_worker"),
        ("[4.23] [4.24]", "ui_api"),
    ];
    for (_, service) in pools {
        has("pulse_db_pool_size", &[("service", service)]);
        has("pulse_db_pool_free", &[("service", service)]);
    }
    // [4.26]: zero is visible before the first delivery.
    let pending = "pulse_queue_depth{queue_name=\"pending_jobs\",service=\"delivery_worker\"} 0";
    assert!(text.lines().any(|line| line == pending));
}

/// Queries of document 3, as they stand there: `[3.25]` and `[3.26]`.
#[tokio::test]
async fn r3_25_queries_over_buffers_and_connections_have_values() {
    let (_dir, server) = started().await;
    for expr in [
        "buffer_size / buffer_capacity * 100",
        "edge_relay_connections + consumer_connections",
    ] {
        let result = eventually("own metrics are stored", || async {
            let result = server.query(expr).await;
            result
                .as_array()
                .is_some_and(|r| !r.is_empty())
                .then_some(result)
        })
        .await;
        assert_eq!(result[0]["value"][1], "0", "{expr}: {result}");
    }
}

#[tokio::test]
async fn r4_28_every_service_can_be_queried() {
    let (_dir, server) = started().await;
    let expr = "count by (service) (pulse_processing_duration_seconds_count{job=\"pulse\"})";
    let services: BTreeSet<String> = eventually("own metrics are stored", || async {
        let result = server.query(expr).await;
        let elements = result.as_array().unwrap();
        let names = elements
            .iter()
            .map(|e| e["metric"]["service"].as_str().unwrap().to_owned());
        Some(names.collect::<BTreeSet<_>>()).filter(|found| !found.is_empty())
    })
    .await;
    for service in [
        "evaluator",
        "dispatcher",
        "delivery_worker",
        "ops_worker",
        "ui_api",
    ] {
        assert!(services.contains(service), "{service} not in {services:?}");
    }
}

/// One listener answers for all services: `[1.01]`, `[3.01]`, `[4.10]`, `[4.14]`, `[4.22]`.
#[tokio::test]
async fn r4_09_r4_10_one_process_answers_metrics_and_health() {
    let (_dir, server) = started().await;
    for path in [
        "/metrics",
        "/health",
        "/-/healthy",
        "/-/ready",
        "/metrics-custom",
    ] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn openmetrics_is_given_to_those_who_ask() {
    let (_dir, server) = started().await;
    let url = server.url("/metrics");
    let ask = |accept: &'static str| {
        let request = hyper::Request::get(&url).header("accept", accept);
        server
            .http
            .try_send(request.body(Default::default()).unwrap())
    };
    let open = ask("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        .await
        .unwrap();
    assert!(
        open.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(open.text().ends_with("# EOF\n"));
    let plain = ask("text/plain").await.unwrap();
    assert!(
        plain.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
}
