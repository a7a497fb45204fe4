//! The pages: HTML that works without scripts.
//!
//! Owns no state; a page is made from the request and what the parts show.
//! Templates mirror these files: `home.rs` renders `home.html`.
//!
//! It must never put a value into markup unescaped.

mod alerts;
mod ask;
mod dashboard;
mod dashboards;
mod error;
mod frame;
mod graph;
mod home;
mod request;
mod status;
mod targets;
mod time;

use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router};

use super::assets;
use super::context::Context;
use super::dashboard::library::Library;

/// Every route of the pages and of what they load, with the shipped dashboards.
pub fn routes() -> Router<Context> {
    routes_with(Library::shipped())
}

/// The same with these dashboards.
pub fn routes_with(library: Library) -> Router<Context> {
    Router::new()
        .route("/", get(home::page))
        .route("/dashboards", get(dashboards::page))
        .route("/d/{uid}", get(dashboard::page))
        .route("/d/{uid}/{slug}", get(dashboard::page_with_slug))
        .route("/d/{uid}/panels/{panel}", get(dashboard::panel))
        .route("/alerts", get(alerts::page))
        .route("/targets", get(targets::page))
        .route("/graph", get(graph::page))
        .route("/graph/values.json", get(graph::values))
        .route("/explore", get(graph::page))
        .route("/status", get(status::page))
        .route("/assets/{name}", get(assets::serve))
        .fallback(error::fallback)
        .layer(Extension(Arc::new(library)))
}
