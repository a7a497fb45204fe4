//! Rows of the table `alert_history`: what became of alerts, in the order of time.
//!
//! Keys: tenant (the operator's name is empty), `0x00`, time (sorts like the number),
//! 8 bytes of the writer, number within the writer's commit (u32 BE). Transitions end
//! there; other rows have one more byte that says what they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What the last byte of a longer key says.
pub const FLUSH: u8 = b'f';

/// An alert that changed its state, or a recording rule that was run again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Transition {
    /// The file of the rule's group.
    pub file: String,
    /// The rule's group.
    pub group: String,
    /// The rule's name.
    pub rule: String,
    /// The alert's identity.
    pub labels: BTreeMap<String, String>,
    /// The state before.
    pub from: String,
    /// The state after.
    pub to: String,
    /// Why.
    pub reason: String,
    /// The expression's value then, as text, because JSON has neither NaN nor infinities.
    pub value: String,
}

impl Transition {
    /// The row's value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a transition is plain data")
    }
}

/// What the keys of rows at `at` start with.
pub fn prefix(at: Timestamp) -> Vec<u8> {
    let mut key = vec![0];
    // Sorts like the number, negative ones included.
    let ordered = at.as_ms().cast_unsigned() ^ (1 << 63);
    key.extend_from_slice(&ordered.to_be_bytes());
    key
}

/// The key of a transition. `seq` tells those of one evaluation of a rule apart.
pub fn transition_key(at: Timestamp, rule_id: u64, seq: u32) -> Vec<u8> {
    let mut key = prefix(at);
    key.extend_from_slice(&rule_id.to_be_bytes());
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// The key of another row.
pub fn key_of(kind: u8, at: Timestamp, writer: u64) -> Vec<u8> {
    let mut key = transition_key(at, writer, 0);
    key.push(kind);
    key
}

/// The time in a key, and what the row is; `None` is a transition.
pub fn parse_key(key: &[u8]) -> Option<(Timestamp, Option<u8>)> {
    let ordered = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    let at = Timestamp::from_ms((ordered ^ (1 << 63)).cast_signed());
    Some((at, key.get(21).copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_time_and_say_what_they_are() {
        let at = Timestamp::from_ms;
        assert!(transition_key(at(-1), 9, 9) < transition_key(at(0), 0, 0));
        assert!(key_of(FLUSH, at(0), 7) < prefix(at(1)));
        for ms in [i64::MIN, -1, 0, 1_700_000_000_000] {
            let plain = transition_key(at(ms), 7, 1);
            assert_eq!(parse_key(&plain), Some((at(ms), None)));
            let flush = key_of(FLUSH, at(ms), 7);
            assert_eq!(parse_key(&flush), Some((at(ms), Some(FLUSH))));
        }
        assert_eq!(parse_key(b"short"), None);
    }
}
