//! The web: pages, dashboards and the HTTP API behind the one listener.
//!
//! Owns no table and no task of its own; a query runs on the blocking pool
//! behind the permits of [`context::Gate`], a page is rendered from what the
//! other parts show of themselves.
//!
//! It must never write samples, hold a read across an await, or send a browser
//! to another host: everything a page needs is compiled in.

pub mod api;
pub mod assets;
mod auth;
pub mod context;
mod cors;
mod crowd;
pub mod dashboard;
pub mod error;
pub(crate) mod form;
mod front;
mod listener;
mod middleware;
pub mod pages;
mod patience;
mod router;
mod target;

pub use api::admin::Local;
pub use api::lifecycle::{ReloadRequest, Reloads};
pub use auth::mistakes;
pub use context::Context;
pub use front::{Front, Web, serve};
pub use listener::Listeners;
