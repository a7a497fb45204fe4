//! The HTTP API: Prometheus' own paths, in its exact JSON, and what watches the process.
//!
//! Owns nothing; an answer is written into one buffer from what the parts show, large
//! ones on the blocking pool behind the query permits.
//!
//! It must never build a tree of a large result, or name files and causes to a client.

pub mod admin;
pub mod backtest;
pub mod explain;
pub mod features;
pub mod federate;
pub mod json;
pub mod lifecycle;
pub mod metrics;
pub mod params;
pub mod parse;
pub mod query;
pub mod remote_read;
pub mod rules;
pub mod series;
pub mod status;
pub mod targets;
pub mod v2;
pub mod why;
