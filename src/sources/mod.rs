//! Every way in; a source is one async function.
//!
//! Owns one task for each connection, and the board that shows their state.
//!
//! It must never acknowledge before ingest's verdict, or wait without polling
//! its broker.

pub mod status;

pub use status::{Board, SourceState, SourceView, Status};
