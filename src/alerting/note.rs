//! What a flush decided, as rows of `alert_history`.
//!
//! A row is written when there was something to tell, and when what is held back
//! changed; a flush that only finds that everybody knows leaves none.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::group::Group;
use super::told::Told;
use super::verdict::{Decision, Hold, Verdict};
use crate::model::Timestamp;
use crate::model::history;
use crate::store::{StateOp, Table};

/// Alerts that a row names in each of its lists.
const ALERTS_MAX: usize = 500;

/// What a flush decided for one integration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlushNote {
    /// As Alertmanager names the group.
    pub group_key: String,
    /// What its alerts share.
    pub group_labels: BTreeMap<String, String>,
    /// Who is told.
    pub receiver: String,
    /// By which of its integrations.
    pub integration: String,
    /// What was decided.
    pub decision: Decision,
    /// The notification that was made, if one was: its idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Fingerprints of the alerts that fired, at most 500.
    pub firing: Vec<String>,
    /// Of those that had ended.
    pub resolved: Vec<String>,
    /// Of those that were held back, with the reason.
    pub held: BTreeMap<String, Hold>,
}

impl FlushNote {
    /// A note of one integration's part in the flush of a group.
    pub(super) fn of(
        group: &Group,
        receiver: &str,
        integration: &str,
        verdict: &Verdict,
        content: Option<&Told>,
    ) -> FlushNote {
        let texts = |all: Option<&std::collections::BTreeSet<u64>>| {
            let all = all.into_iter().flatten().take(ALERTS_MAX);
            all.map(|fingerprint| hex(*fingerprint)).collect()
        };
        let held = group.holds.iter().take(ALERTS_MAX);
        FlushNote {
            group_key: group.key.clone(),
            group_labels: group.labels.to_map(),
            receiver: receiver.to_owned(),
            integration: integration.to_owned(),
            decision: verdict.decision,
            event_id: verdict.event_id.clone(),
            firing: texts(content.map(|told| &told.firing)),
            resolved: texts(content.map(|told| &told.resolved)),
            held: held.map(|(f, hold)| (hex(*f), hold.clone())).collect(),
        }
    }

    /// Whether it speaks of the alert with this fingerprint.
    pub fn names(&self, fingerprint: &str) -> bool {
        let is_it = |text: &String| text == fingerprint;
        self.firing.iter().any(is_it)
            || self.resolved.iter().any(is_it)
            || self.held.contains_key(fingerprint)
    }

    /// The change that writes the row.
    pub(super) fn put(&self, group_id: &str, at: Timestamp) -> StateOp {
        let mut writer = Xxh3::new();
        writer.update(self.integration.as_bytes());
        writer.update(&[0]);
        writer.update(group_id.as_bytes());
        let key = history::key_of(history::FLUSH, at, writer.digest());
        let value = serde_json::to_vec(self).expect("a note is plain data");
        StateOp::Put {
            table: Table::AlertHistory,
            key: Bytes::from(key),
            value: Bytes::from(value),
        }
    }
}

/// Whether a decision goes on record although nothing else changed.
pub(super) fn is_notable(decision: Decision) -> bool {
    match decision {
        Decision::Notified | Decision::EndedUntold | Decision::ResolvedUnwanted => true,
        Decision::KnownAlready | Decision::AllHeld | Decision::RulesStalled => false,
    }
}

/// A fingerprint as Alertmanager writes it.
pub fn hex(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}
