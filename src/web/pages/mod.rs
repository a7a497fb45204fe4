//! The pages: HTML that works without scripts.
//!
//! Owns no state; a page is made from the request and what the parts show.
//! Templates mirror these files: `home.rs` renders `home.html`.
//!
//! It must never put a value into markup unescaped.

mod alert;
mod alert_history;
mod alerts;
mod ask;
mod dashboard;
mod dashboards;
mod error;
mod frame;
mod graph;
mod home;
mod request;
mod silence_form;
mod silences;
mod status;
mod targets;
mod time;
mod why;

use std::sync::Arc;

use axum::middleware::Next;
use axum::response::Redirect;
use axum::routing::get;
use axum::{Extension, Router};
use tokio::sync::watch;

pub(crate) use request::Request;

use super::assets;
use super::context::Context;
use super::dashboard::library::{Library, Shelf};
use crate::config::Config;

/// Every route of the pages and of what they load, with the shipped dashboards and
/// those of the folder that the configuration in force names.
pub fn routes(config: watch::Receiver<Arc<Config>>) -> Router<Context> {
    let shelf = Arc::new(Shelf::new(config));
    let bring = move |mut request: axum::extract::Request, next: Next| {
        let shelf = Arc::clone(&shelf);
        async move {
            request.extensions_mut().insert(shelf.library().await);
            next.run(request).await
        }
    };
    bare_routes().layer(axum::middleware::from_fn(bring))
}

/// The same with these dashboards.
pub fn routes_with(library: Library) -> Router<Context> {
    bare_routes().layer(Extension(Arc::new(library)))
}

fn bare_routes() -> Router<Context> {
    Router::new()
        .route("/", get(home::page))
        .route("/dashboards", get(dashboards::page))
        .route("/d/{uid}", get(dashboard::page))
        .route("/d/{uid}/{slug}", get(dashboard::page_with_slug))
        .route("/d/{uid}/panels/{panel}", get(dashboard::panel))
        .route("/alerts", get(alerts::page))
        // Prometheus' address of them: they stand below the alerts.
        .route("/rules", get(|| async { Redirect::to("/alerts#rules") }))
        .route("/alerts/history", get(alert_history::page))
        .route("/alerts/{fingerprint}", get(alert::page))
        .route(
            "/alerts/silences",
            get(silences::page).post(silence_form::save),
        )
        .route("/alerts/silences/new", get(silence_form::new))
        .route("/alerts/silences/{id}/edit", get(silence_form::edit))
        .route(
            "/alerts/silences/{id}/expire",
            get(silences::end_page).post(silences::end),
        )
        .route("/targets", get(targets::page))
        .route("/graph", get(graph::page))
        .route("/graph/values.json", get(graph::values))
        .route("/explore", get(graph::page))
        .route("/status", get(status::page))
        .route("/assets/{name}", get(assets::serve))
        .fallback(error::fallback)
}
