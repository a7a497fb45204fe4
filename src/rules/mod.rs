//! Rule files, groups, recording rules and the alert state machine.
//!
//! Owns one task for each group, and the tables `rule_group`, `alert` and `alert_history`.
//!
//! It must never send a notification itself: alerting reads the alert rows.

pub mod view;

pub use view::{AlertState, AlertView, GroupView, RuleKind, RuleView};
