//! Alerts as they are stored: written by the rule engine, read by alerting.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Labels, Timestamp, label_map};

/// Where a stored alert stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertPhase {
    /// The expression gives it, but not yet for long enough.
    Pending,
    /// It has for long enough, or it is kept firing.
    Firing,
    /// It was firing and is not any more; kept for a while so that people are told.
    Resolved,
}

impl AlertPhase {
    /// As history and logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertPhase::Pending => "pending",
            AlertPhase::Firing => "firing",
            AlertPhase::Resolved => "resolved",
        }
    }
}

/// A row of the table `alert`: the truth about one alert of one rule.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AlertRow {
    /// The file of the rule's group.
    pub file: String,
    /// The rule's group.
    pub group: String,
    /// The rule's name.
    pub rule: String,
    /// The rule's expression in its printed form: where the alert comes from.
    pub query: String,
    /// The identity: the series' labels, the rule's labels and `alertname`.
    #[serde(with = "label_map")]
    pub labels: Labels,
    /// Expanded.
    pub annotations: BTreeMap<String, String>,
    /// Where it stands.
    pub phase: AlertPhase,
    /// The last value of the expression at the time of writing.
    #[serde(with = "float_text")]
    pub value: f64,
    /// Since when the expression gives it.
    pub active_at: Timestamp,
    /// Since when it fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired_at: Option<Timestamp>,
    /// When it stopped firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
    /// Since when it is only kept firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_firing_since: Option<Timestamp>,
    /// The evaluation that wrote the row.
    pub written_at: Timestamp,
}

/// A row that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read a row of alert")]
pub struct AlertRowError(#[from] serde_json::Error);

impl AlertRow {
    /// The row's value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an alert is plain data")
    }

    /// Reads a row.
    ///
    /// # Errors
    /// When the row is damaged.
    pub fn decode(row: &[u8]) -> Result<AlertRow, AlertRowError> {
        Ok(serde_json::from_slice(row)?)
    }
}

/// The key of an alert's row. The first byte ends the tenant's name, which is
/// empty: these are the operator's rules.
pub fn alert_key(rule_id: u64, labels: &Labels) -> Vec<u8> {
    let mut key = alert_rule_prefix(rule_id);
    key.extend_from_slice(&labels.fingerprint().to_be_bytes());
    key
}

/// What the keys of one rule's alerts start with.
pub fn alert_rule_prefix(rule_id: u64) -> Vec<u8> {
    let mut key = vec![0];
    key.extend_from_slice(&rule_id.to_be_bytes());
    key
}

/// The rule in a key made by [`alert_key`].
pub fn alert_key_rule(key: &[u8]) -> Option<u64> {
    let bytes = key.get(1..9)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// A row of the table `rule_group`: when a group ran last, and what it said then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleGroupRow {
    /// The last evaluation.
    pub last_eval: Timestamp,
    /// A hash of the group's definition.
    pub definition: u64,
}

impl RuleGroupRow {
    /// The row's value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a group row is plain data")
    }

    /// Reads a row; `None` when it is damaged.
    pub fn decode(row: &[u8]) -> Option<RuleGroupRow> {
        serde_json::from_slice(row).ok()
    }
}

/// The key of a group's row: tenant (the operator's name is empty), file, name.
pub fn rule_group_key(file: &str, group: &str) -> Vec<u8> {
    let mut key = vec![0];
    key.extend_from_slice(file.as_bytes());
    key.push(0);
    key.extend_from_slice(group.as_bytes());
    key
}

/// A float as text, because JSON has neither NaN nor infinities.
mod float_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde calls it with a reference"
    )]
    pub(super) fn serialize<S: Serializer>(v: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(v)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64) -> AlertRow {
        AlertRow {
            file: "r.yml".to_owned(),
            group: "g".to_owned(),
            rule: "BufferFull".to_owned(),
            query: "a > 1".to_owned(),
            labels: Labels::from_pairs([("alertname", "BufferFull"), ("x", "ü\"")]),
            annotations: BTreeMap::from([("summary".to_owned(), "full".to_owned())]),
            phase: AlertPhase::Firing,
            value,
            active_at: Timestamp::from_ms(1),
            fired_at: Some(Timestamp::from_ms(2)),
            resolved_at: None,
            keep_firing_since: None,
            written_at: Timestamp::from_ms(2),
        }
    }

    #[test]
    fn rows_come_back_whatever_the_value() {
        for value in [0.1, -0.0, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            let row = row(value);
            assert_eq!(AlertRow::decode(&row.encode()).unwrap(), row);
        }
        let nan = AlertRow::decode(&row(f64::NAN).encode()).unwrap();
        assert!(nan.value.is_nan());
    }

    #[test]
    fn a_key_names_its_rule() {
        let key = alert_key(7, &row(0.0).labels);
        assert_eq!(alert_key_rule(&key), Some(7));
        assert!(key.starts_with(&alert_rule_prefix(7)));
    }
}
