//! pulse: a single-binary time-series monitor.
//!
//! # The map
//!
//! ```text
//!  brokers, targets, pushes
//!          |
//!       sources --> ingest --> store <-- promql <-- rules --> alerting
//!                                |          ^                    |
//!                                |         web (pages, API)      |
//!                                v                               |
//!                             outbox <-- notifications ----------+
//!                                |
//!                            delivery --> webhooks
//! ```
//!
//! # Invariants
//!
//! - The samples, the outbox rows, the dead letters and the state changes of one
//!   batch go into one transaction with one `CommitSeq`. An acknowledgement, a
//!   2xx, a delivery or a notification means: that transaction is durable.
//! - Nothing is dropped silently: it is counted with a reason, and kept as a
//!   dead letter where it was a message.
//! - Every queue has a bound and every wait a deadline. The writer waits for nobody.
//! - Imports point down only, in the order of the module list below, last to first.

pub mod model;

pub mod config;

pub mod tasks;

pub mod telemetry;

pub mod codec;

pub mod gotmpl;

pub mod chart;

pub mod promql;

pub mod store;

pub mod ingest;

pub mod delivery;

pub mod alerting;

pub mod rules;

pub mod sources;

pub mod web;

pub mod app;

pub mod cli;
