//! Dashboards: Grafana's files, drawn natively.
//!
//! Owns the shipped files, which are compiled in. A file is read tolerantly:
//! what we know is used, what we do not know is named on the page.
//!
//! It must never run a file's text as markup, or ask another host.

pub mod data;
pub mod field;
pub mod interpolate;
mod json;
mod legacy;
pub mod library;
pub mod model;
pub mod plot;
pub mod reduce;
pub mod resolve;
pub mod table;
pub mod timerange;
pub mod variables;
pub mod view;
pub mod words;
