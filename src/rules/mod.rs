//! Rule files, groups, recording rules and the alert state machine.
//!
//! Owns one task for each group, one for upkeep, and the tables `rule_group`, `alert`
//! and `alert_history`. An evaluation of a group is one transaction: its samples, the
//! alerts that changed, and their transitions. While the disk refuses transactions they
//! go on in memory, and no alert ends for want of samples that cannot come in, or that
//! are damaged.
//!
//! It must never send a notification itself (alerting reads the alert rows), make up
//! for evaluations that were missed, or let a failed query change an alert.

mod alert;
pub mod backtest;
pub mod file;
mod group;
mod late;
mod load;
mod manager;
mod memory;
mod merge;
mod moved;
mod notices;
mod overlay;
mod own;
pub mod packs;
mod raw;
mod restore;
mod roster;
mod rows;
mod run;
mod seat;
pub mod spec;
#[cfg(test)]
mod tests;
mod turn;
pub mod unit;
mod upkeep;
pub mod view;

pub use file::duplicates;
pub use load::{Loaded, Settings, check, defaults, load, settings};
pub use manager::{Rules, start};
pub use view::{AlertState, AlertView, GroupView, RuleKind, RuleView};
