//! The integration tests, linked once.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod broker;
mod delivery;
mod differential;
mod mqtt;
mod nats;
mod promql_scripts;
mod requirements;
mod rules;
mod tidy;
