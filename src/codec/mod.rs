//! The field's formats on the wire, beside the brokers' own: text expositions.
//!
//! Owns no task and no table: every function turns values into text or bytes.
//!
//! It must never do I/O, read the time, or know where the values come from.

pub mod exposition;
