//! Every way in; a source is one async function.
//!
//! Owns one task for each connection, and the board that shows their state.
//!
//! It must never acknowledge before ingest's verdict, or wait without polling
//! its broker.

mod address;
mod backoff;
mod handover;
pub mod host;
pub mod internal;
mod link;
pub mod metadata;
pub mod mqtt;
pub mod nats;
pub mod push;
mod stamps;
mod start;
pub mod status;
mod tls;

pub use start::{Context, Plan, Sources, mistakes};
pub use status::{Board, SourceState, SourceView, Status};
