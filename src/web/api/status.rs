//! `/api/v1/status/...` and `/api/v1/metadata`: what this process is.

use std::collections::BTreeMap;
use std::ops::Bound;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::json::{self, Object};
use super::params::Params;
use crate::model::Timestamp;
use crate::model::duration;
use crate::promql;
use crate::sources::metadata::Metadata;
use crate::store::{Cardinality, Store, Table};
use crate::web::error::ApiError;
use crate::web::{Context, Front};

/// What the operator should know at once, in Prometheus' words. A failed reload is the
/// one thing that this server can be told of while it answers: while it starts or
/// stops, every path says so with a 503.
pub async fn notifications(State(context): State<Context>) -> Response {
    let failed = context.metrics.reload.failure();
    let failed = failed.map(|failed| Timestamp::from_secs_f64(failed.seconds).to_rfc3339());
    json::respond(json::success(&[], &[], |out| {
        json::array(out, failed, |out, date| {
            Object::new(out)
                .text("text", "Configuration reload has failed.")
                .text("date", &date)
                .boolean("active", true)
                .end();
        });
    }))
}

/// The same as a stream of events, which is not served: the status tells a browser not
/// to ask again.
pub async fn live_notifications() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// How long those lists are, as in Prometheus.
const CARDINALITY_ENTRIES: usize = 10;

/// The Prometheus whose API this is. Grafana asks for the version to know what it may ask
/// for: by our own it would take us for a Prometheus of 2013.
const COMPATIBLE: &str = "3.14.0";

/// Version and build.
pub async fn buildinfo() -> Response {
    json::respond(json::success(&[], &[], |out| {
        Object::new(out)
            .text("version", COMPATIBLE)
            .text("revision", concat!("pulse-", env!("CARGO_PKG_VERSION")))
            .text("branch", "")
            .text("buildUser", "")
            .text("buildDate", "")
            .text("goVersion", "")
            .end();
    }))
}

/// Start time, working folder, the last reload, retention. A task of ours stands for a
/// goroutine.
pub async fn runtimeinfo(State(context): State<Context>) -> Response {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let folder = std::env::current_dir().unwrap_or_default();
    let reload = &context.metrics.reload;
    let read = Timestamp::from_secs_f64(reload.success_seconds());
    let host = rustix::system::uname();
    let tasks = tokio::runtime::Handle::current().metrics();
    let retention = duration::format(context.config().store.retention.get());
    json::respond(json::success(&[], &[], |out| {
        Object::new(out)
            .text("startTime", &context.started.to_rfc3339())
            .text("CWD", &folder.display().to_string())
            .text("hostname", &host.nodename().to_string_lossy())
            .text("serverTime", &context.clock.now().to_rfc3339())
            .boolean("reloadConfigSuccess", reload.succeeded())
            .text("lastConfigTime", &read.to_rfc3339())
            .integer(
                "corruptionCount",
                context.metrics.store.checksum_failures.get(),
            )
            .integer("goroutineCount", tasks.num_alive_tasks() as i128)
            .integer("GOMAXPROCS", i64::try_from(cpus).unwrap_or(i64::MAX))
            .text("GOGC", "")
            .text("GODEBUG", "")
            .text("storageRetention", &retention)
            .end();
    }))
}

/// Whether the machine's clock is trusted, and its last jumps: annotations for
/// dashboards. Ours; Prometheus has no such path.
pub async fn clock(State(context): State<Context>) -> Response {
    let clock = &context.clock;
    let (count, jumps) = clock.jumps();
    let seconds = |ms: i64| ms as f64 / 1e3;
    json::respond(json::success(&[], &[], |out| {
        let mut data = Object::new(out);
        data.text("state", state_name(clock.is_trusted()))
            .text("now", &clock.now().to_rfc3339())
            .text("wall", &clock.wall().to_rfc3339())
            .text("earliest", &clock.earliest().to_rfc3339())
            .integer("jumpCount", i64::try_from(count).unwrap_or(i64::MAX));
        json::array(data.field("jumps"), jumps.iter(), |out, jump| {
            Object::new(out)
                .text("at", &jump.at.to_rfc3339())
                .text("wall", &jump.wall.to_rfc3339())
                .number("jumpedSeconds", seconds(jump.by_ms))
                .number("followedSeconds", seconds(jump.followed_ms))
                .text("state", state_name(jump.is_trusted))
                .end();
        });
        data.end();
    }))
}

fn state_name(is_trusted: bool) -> &'static str {
    if is_trusted { "trusted" } else { "untrusted" }
}

/// The settings that stand on Prometheus' command line, under its names.
pub async fn flags(State(context): State<Context>) -> Response {
    let config = context.config();
    let listen: Vec<String> = config
        .server
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    let features: Vec<&str> = config.query.features.iter().map(|f| f.as_str()).collect();
    let span = |span: crate::config::Span| duration::format(span.get());
    let flags = BTreeMap::from([
        ("enable-feature", features.join(",")),
        ("log.level", config.server.log_level.clone()),
        ("query.lookback-delta", span(config.query.lookback_delta)),
        (
            "query.max-concurrency",
            config.query.concurrency.to_string(),
        ),
        ("query.max-samples", config.query.samples_max.to_string()),
        ("query.timeout", span(config.query.timeout)),
        (
            "storage.tsdb.path",
            config.server.data_dir.display().to_string(),
        ),
        ("storage.tsdb.retention.time", span(config.store.retention)),
        (
            "web.enable-admin-api",
            config.server.enable_admin_api.to_string(),
        ),
        ("web.external-url", config.global.external_url.clone()),
        ("web.listen-address", listen.join(",")),
        (
            "web.max-connections",
            config.server.connections_max.to_string(),
        ),
    ]);
    json::respond(json::success(&[], &[], |out| {
        let mut data = Object::new(out);
        for (name, value) in &flags {
            data.text(name, value);
        }
        data.end();
    }))
}

/// The configuration in force, without secrets. The field's name is Prometheus'; the
/// text is ours.
pub async fn config(State(context): State<Context>) -> Response {
    let text = context.config().shown();
    json::respond(json::success(&[], &[], |out| {
        Object::new(out).text("yaml", &text).end();
    }))
}

/// How far the start has read the log: its first and last transaction, and the one
/// that was read last.
pub async fn walreplay(State(front): State<Front>) -> Response {
    let at = &front.metrics().store.replay_at;
    json::respond(json::success(&[], &[], |out| {
        let mut data = Object::new(out);
        data.integer("min", at.first.get());
        data.integer("max", at.last.get());
        data.integer("current", at.current.get());
        data.end();
    }))
}

/// The store in numbers, and which names and labels have most series.
pub async fn tsdb(State(context): State<Context>, params: Params) -> Result<Response, ApiError> {
    let entries = match params.get("limit") {
        "" => CARDINALITY_ENTRIES,
        text => text
            .parse()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| ApiError::bad_data("limit must be a positive number"))?,
    };
    let store = context.store.clone();
    let timeout = context.config().query.timeout.get();
    let run = context.lists.run(timeout, move |_| {
        let stats = store.stats();
        let cardinality = store.cardinality(entries)?;
        Ok::<_, ApiError>(json::success(&[], &[], |out| {
            let mut data = Object::new(out);
            Object::new(data.field("headStats"))
                .integer("numSeries", stats.series)
                .integer("numLabelPairs", cardinality.pairs)
                .integer("chunkCount", 0)
                .integer("minTime", stats.min_time.map_or(0, Timestamp::as_ms))
                .integer("maxTime", stats.max_time.map_or(0, Timestamp::as_ms))
                .end();
            write_counts(&cardinality, &mut data);
            data.end();
        }))
    });
    run.await?.map(json::respond)
}

/// Prometheus' four lists, and two of our own.
fn write_counts(found: &Cardinality, data: &mut Object<'_>) {
    for (name, counts) in [
        ("seriesCountByMetricName", &found.by_metric),
        ("labelValueCountByLabelName", &found.values_by_label),
        ("memoryInBytesByLabelName", &found.bytes_by_label),
        ("seriesCountByLabelValuePair", &found.by_pair),
        ("seriesCountByTenant", &found.by_tenant),
        ("newSeriesCountByMetricName", &found.new_by_metric),
    ] {
        json::array(data.field(name), counts, |out, (name, count)| {
            Object::new(out)
                .text("name", name)
                .integer("value", *count)
                .end();
        });
    }
}

/// Type, help and unit of metrics, as the sources learned them.
pub async fn metadata(
    State(context): State<Context>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.entries("limit")?;
    // Here 0 is no limit, as a negative number.
    let each = match params.entries("limit_per_metric")? {
        0 => usize::MAX,
        each => each,
    };
    let wanted = params.get("metric").to_owned();
    let store = context.store.clone();
    let timeout = context.config().query.timeout.get();
    let run = context.lists.run(timeout, move |_| {
        let known = known_metadata(&store, &wanted, limit)?;
        Ok::<_, ApiError>(json::success(&[], &[], |out| {
            let mut data = Object::new(out);
            for (metric, metadata) in known {
                // One is known of each.
                json::array(
                    data.field(&metric),
                    [metadata].into_iter().take(each),
                    |out, metadata| {
                        Object::new(out)
                            .text("type", &metadata.kind)
                            .text("help", &metadata.help)
                            .text("unit", &metadata.unit)
                            .end();
                    },
                );
            }
            data.end();
        }))
    });
    run.await?.map(json::respond)
}

/// What is known of one metric, or of all when `wanted` is empty; at most `limit`.
pub(super) fn known_metadata(
    store: &Store,
    wanted: &str,
    limit: usize,
) -> Result<Vec<(String, Metadata)>, ApiError> {
    let metric = Bound::Included(wanted.as_bytes());
    let range = match wanted {
        "" => (Bound::Unbounded, Bound::Unbounded),
        _ => (metric, metric),
    };
    let rows = store.scan(Table::Metadata, range, limit)?;
    let known = rows.iter();
    Ok(known
        .filter_map(|(metric, row)| Metadata::decode(metric, row))
        .collect())
}

/// Exemplars are not stored; Grafana asks all the same, and hears of its mistakes.
pub async fn exemplars(
    State(context): State<Context>,
    params: Params,
) -> Result<Response, ApiError> {
    let start = params.time("start")?.unwrap_or(Timestamp::MIN);
    let end = params.time("end")?.unwrap_or(Timestamp::MAX);
    if end < start {
        let message = "end timestamp must not be before start timestamp";
        return Err(ApiError::bad_data(message));
    }
    promql::parse_with(params.get("query"), context.engine.options.features)
        .map_err(|err| ApiError::bad_data(err.to_string()))?;
    Ok(json::respond(json::success(&[], &[], |out| {
        json::raw(out, "[]");
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written_under_the_names_of_prometheus() {
        let found = Cardinality {
            by_metric: vec![("a".to_owned(), 2)],
            ..Cardinality::default()
        };
        let mut out = Vec::new();
        let mut data = Object::new(&mut out);
        write_counts(&found, &mut data);
        data.end();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["seriesCountByMetricName"][0]["name"], "a");
        assert_eq!(value["seriesCountByMetricName"][0]["value"], 2);
        assert!(value["labelValueCountByLabelName"].as_array().is_some());
    }
}
