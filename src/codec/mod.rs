//! The field's formats on the wire, beside the brokers' own: text expositions,
//! OpenMetrics and remote_write, remote_read.
//!
//! Owns no task and no table: every function turns values into text or bytes, or
//! back.
//!
//! It must never do I/O, read the time, or know where the values come from.

mod chunk;
pub mod exposition;
pub mod families;
pub mod histogram;
pub mod openmetrics;
pub(crate) mod protobuf;
pub mod remote_read;
pub mod remote_write;
pub mod streamed;
pub mod text;
