//! Every route of the product.

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get, post};
use tower_http::compression::CompressionLayer;

use super::api::{
    admin, backtest, explain, features, federate, lifecycle, metrics, parse, query, remote_read,
    rules, series, status, targets, v2, why,
};
use super::{Context, Front, cors, middleware, pages};

/// Answered before the process is ready: what tells how far it is.
const EARLY: [&str; 4] = [
    "/-/healthy",
    "/health",
    "/metrics",
    "/api/v1/status/walreplay",
];

/// Answered without a token: they tell no more than that somebody is there.
const PUBLIC: [&str; 3] = ["/-/healthy", "/-/ready", "/health"];

/// Where a tenant's own token is checked by the handlers: devices and senders push
/// here, and tenants see and silence their alerts.
const OF_TENANTS: [&str; 4] = [
    "/api/v1/ingest",
    "/api/v1/write",
    "/api/v1/import/prometheus",
    "/api/v2",
];

/// Reads of the query API whose parameters may come as a form.
const READ_BY_POST: [&str; 8] = [
    "/api/v1/format_query",
    "/api/v1/labels",
    "/api/v1/parse_query",
    "/api/v1/query",
    "/api/v1/query_exemplars",
    "/api/v1/query_range",
    "/api/v1/series",
    "/api/v1/why_empty",
];

/// What the command line on this machine asks for, with a secret of its own.
const LOCAL: &str = "/api/v1/local/";

/// Whether a path is answered before the process is ready.
pub(super) fn is_early(path: &str) -> bool {
    EARLY.contains(&path)
}

/// Whether a path is answered without a token.
pub(super) fn is_public(path: &str) -> bool {
    PUBLIC.contains(&path)
}

/// Whether the handler of a path checks credentials itself.
pub(super) fn has_own_credentials(path: &str) -> bool {
    let below = |route: &&str| path.strip_prefix(*route);
    let rest = OF_TENANTS.iter().find_map(below);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) || path.starts_with(LOCAL)
}

/// Whether a path is asked for by POST only because the parameters are long.
pub(super) fn is_read_by_post(path: &str) -> bool {
    READ_BY_POST.contains(&path)
}

/// The routes while the store is opened and replayed.
pub(super) fn early(front: Front) -> Router {
    let routes = Router::new()
        .route("/-/healthy", get(lifecycle::healthy))
        .route("/health", get(lifecycle::healthy))
        .route("/metrics", get(metrics::all))
        .route("/api/v1/status/walreplay", get(status::walreplay))
        .with_state(front.clone());
    surrounded(routes, front)
}

/// All routes. `push` are those of the sources that take requests.
pub(super) fn full(front: Front, context: Context, push: Router) -> Router {
    let state = AppState {
        front: front.clone(),
        context: context.clone(),
    };
    let routes = Router::new()
        .route("/-/healthy", get(lifecycle::healthy))
        .route("/-/ready", get(lifecycle::ready))
        .route("/-/reload", post(lifecycle::reload).put(lifecycle::reload))
        .route("/health", get(lifecycle::healthy))
        .route("/metrics", get(metrics::all))
        .route("/federate", get(federate::federate))
        .route("/metrics-custom", get(metrics::custom))
        .nest("/api/v1", api())
        .merge(alertmanager())
        .with_state(state)
        .merge(pages::routes(context.config.clone()).with_state(context))
        .merge(push);
    surrounded(routes, front)
}

/// Prometheus' API.
fn api() -> Router<AppState> {
    Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route(
            "/format_query",
            get(parse::format_query).post(parse::format_query),
        )
        .route(
            "/parse_query",
            get(parse::parse_query).post(parse::parse_query),
        )
        .route("/features", get(features::features))
        .route("/why_empty", get(why::why_empty).post(why::why_empty))
        .route("/read", post(remote_read::read))
        .route(
            "/query_exemplars",
            get(status::exemplars).post(status::exemplars),
        )
        .route("/series", get(series::series).post(series::series))
        .route("/labels", get(series::names).post(series::names))
        .route("/label/{name}/values", get(series::values))
        .route("/metadata", get(status::metadata))
        .route("/rules", get(rules::rules))
        .route("/rules/backtest", post(backtest::backtest))
        .route("/alerts", get(rules::alerts))
        .route("/alerts/history", get(explain::history))
        .route("/alerts/{fingerprint}/explain", get(explain::explain))
        .route("/alertmanagers", get(rules::alertmanagers))
        .route("/targets", get(targets::targets))
        .route("/targets/metadata", get(targets::metadata))
        .route("/scrape_pools", get(targets::scrape_pools))
        .route("/notifications", get(status::notifications))
        .route("/notifications/live", get(status::live_notifications))
        .route("/status/buildinfo", get(status::buildinfo))
        .route("/status/runtimeinfo", get(status::runtimeinfo))
        .route("/status/flags", get(status::flags))
        .route("/status/config", get(status::config))
        .route("/status/clock", get(status::clock))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/walreplay", get(status::walreplay))
        .nest("/admin/tsdb", admin_tsdb())
        .route("/local/backup", post(admin::backup))
        .route("/local/verify", post(admin::verify))
        .route("/local/tsdb", post(admin::tsdb))
}

/// Alertmanager's API, each path also with a slash behind it.
fn alertmanager() -> Router<AppState> {
    let alerts = get(v2::alerts::list).post(v2::posted::post);
    let silences = get(v2::silences::list).post(v2::silences::post);
    let silence = get(v2::silences::get).delete(v2::silences::delete);
    let mut routes = Router::new()
        .route("/api/v2", any(v2::unknown_path))
        .route("/api/v2/{*rest}", any(v2::unknown_path));
    for (path, handler) in [
        ("alerts", alerts),
        ("alerts/groups", get(v2::alerts::groups)),
        ("receivers", get(v2::alerts::receivers)),
        ("silences", silences),
        ("silence/{id}", silence),
        ("status", get(v2::status::status)),
    ] {
        for end in ["", "/"] {
            routes = routes.route(&format!("/api/v2/{path}{end}"), handler.clone());
        }
    }
    routes
}

/// What Prometheus lets its operator do, with POST or PUT.
fn admin_tsdb() -> Router<AppState> {
    Router::new()
        .route(
            "/delete_series",
            post(admin::delete_series).put(admin::delete_series),
        )
        .route(
            "/clean_tombstones",
            post(admin::clean_tombstones).put(admin::clean_tombstones),
        )
        .route("/snapshot", post(admin::snapshot).put(admin::snapshot))
        .route("/compact", post(admin::compact).put(admin::compact))
}

/// What every request passes, from the last line inwards: it is counted, gets its
/// headers, is compressed, is admitted.
fn surrounded(routes: Router, front: Front) -> Router {
    let body_max = front.config().server.body_max.as_usize();
    routes
        .layer(DefaultBodyLimit::max(body_max))
        .layer(from_fn_with_state(front.clone(), middleware::admit))
        .layer(from_fn_with_state(front.clone(), cors::share))
        .layer(CompressionLayer::new().gzip(true))
        .layer(from_fn(middleware::protect))
        .layer(from_fn_with_state(front, middleware::count))
}

/// What handlers take their state from.
#[derive(Clone)]
pub(super) struct AppState {
    front: Front,
    context: Context,
}

impl FromRef<AppState> for Front {
    fn from_ref(state: &AppState) -> Front {
        state.front.clone()
    }
}

impl FromRef<AppState> for Context {
    fn from_ref(state: &AppState) -> Context {
        state.context.clone()
    }
}
