//! `/api/v2`: Alertmanager's own API, so that amtool and other Prometheis can use us.
//!
//! Owns nothing. Answers are those of Alertmanager 0.25, field by field, but that the
//! deletion of an unknown silence is answered 404 instead of 500. Whoever asks with
//! a tenant's token sees, sends and silences only alerts that carry its `tenant_id`.
//!
//! It must never answer a POST before what it carried is durable.

pub mod alerts;
mod answer;
pub(in crate::web) mod config;
mod date_time;
pub mod posted;
mod request_uri;
pub mod scope;
pub mod silences;
pub mod status;

pub use answer::unknown_path;
