//! The alerts that there are: those of our rules and those that others sent us.
//!
//! Both are rows on disk, and the disk is read anew for each look: a row that is
//! there was committed. An alert of a rule fires until the rule engine writes that
//! it ended; one that was sent to us fires until its end, which its sender moves on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gotmpl::prometheus::link;
use crate::model::alert::{AlertPhase, AlertRow};
use crate::model::{Labels, Timestamp, label_map};

/// Rows of each table that are looked at.
pub(super) const ROWS_MAX: usize = 1_000_000;

/// An alert as its receivers see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Alert {
    /// The identity, with the external labels.
    #[serde(with = "label_map")]
    pub labels: Labels,
    /// Expanded.
    pub annotations: BTreeMap<String, String>,
    /// Where it comes from.
    #[serde(default)]
    pub generator_url: String,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it ends or ended; `None` while nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// When we last heard of it.
    #[serde(default)]
    pub updated_at: Timestamp,
    /// Whether its end was made up by us, because its sender named none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timeout: bool,
    /// Whether one of our rules says so.
    #[serde(skip)]
    pub is_own: bool,
}

impl Alert {
    /// Whether it fires at this time.
    pub fn fires_at(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| end > now)
    }

    /// Reads a row; `None` when it is damaged.
    pub(super) fn decode(row: &[u8]) -> Option<Alert> {
        serde_json::from_slice(row).ok()
    }

    /// The row's value.
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an alert is plain data")
    }
}

/// What is added to the alerts of our own rules when they leave the process.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Outside {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) url: String,
}

impl Outside {
    /// What leaves the process of an alert that fires or fired; `None` before that.
    pub(super) fn alert(&self, row: AlertRow) -> Option<Alert> {
        let ends_at = match row.phase {
            AlertPhase::Pending => return None,
            AlertPhase::Firing => None,
            AlertPhase::Resolved => Some(row.resolved_at.unwrap_or(row.written_at)),
        };
        Some(Alert {
            labels: self.labels_of(&row.labels),
            annotations: row.annotations,
            generator_url: format!("{}{}", self.url, link(&row.query, 1)),
            starts_at: row.fired_at?,
            ends_at,
            updated_at: row.written_at,
            timeout: false,
            is_own: true,
        })
    }

    /// The labels that leave the process: the alert's own win.
    pub(super) fn labels_of(&self, labels: &Labels) -> Labels {
        if self.labels.is_empty() {
            return labels.clone();
        }
        let mut builder = labels.to_builder();
        for (name, value) in &self.labels {
            if labels.get(name).is_none() {
                builder.set(name, value);
            }
        }
        builder.build()
    }
}
