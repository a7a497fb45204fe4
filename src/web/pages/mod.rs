//! The pages: HTML that works without scripts.
//!
//! Owns no state; a page is made from the request and what the parts show.
//!
//! It must never put a value into markup unescaped.

use axum::Router;
use axum::routing::get;

use super::assets;
use super::context::Context;

/// Every route of the pages and of what they load.
pub fn routes() -> Router<Context> {
    Router::new().route("/assets/{name}", get(assets::serve))
}
