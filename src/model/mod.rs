//! The words of the field as types: labels, matchers, samples, time, tenants, deliveries.
//!
//! Owns no task and no table; everything here is plain data with its rules of
//! validity, so that every other module can depend on it.
//!
//! It must never do I/O, log, or read the time (only [`clock`] does).

pub mod alert;
pub mod clock;
pub mod delivery;
pub mod duration;
pub mod go_float;
pub mod histogram;
pub mod history;
pub mod label_map;
pub mod labels;
pub mod matcher;
pub mod matchers;
mod matchers_utf8;
pub mod re2;
pub mod sample;
pub mod tenant;
pub mod timestamp;
mod whole;

pub use clock::Clock;
pub use delivery::{DeadLetter, Delivery, DeliveryKind, StateRow};
pub use histogram::{Histogram, HistogramSample};
pub use labels::{Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher};
pub use sample::{Sample, is_stale_nan, stale_nan};
pub use tenant::TenantId;
pub use timestamp::Timestamp;
pub use whole::whole;
