//! The web: pages, dashboards and the HTTP API behind the one listener.
//!
//! Owns no table and no task of its own; a query runs on the blocking pool
//! behind the permits of [`context::Gate`], a page is rendered from what the
//! other parts show of themselves.
//!
//! It must never write samples, hold a read across an await, or send a browser
//! to another host: everything a page needs is compiled in.

pub mod assets;
pub mod context;
pub mod dashboard;
pub mod pages;

pub use context::Context;
