//! Logs and our own metrics.
//!
//! Owns the registry of instruments and the tracing subscriber.
//!
//! It must never reach into another part: parts are handed the instruments and
//! write to them.

pub mod logging;
pub mod metrics;

pub use metrics::Metrics;
