//! What a receiver was last told about a group, and whether it has to be told again.
//!
//! A row of `notify_state` is written by the delivery's success, one for each
//! flush: two deliveries of one group may end in either order, and the newer
//! flush counts. What waits in the outbox counts as told, because it will be.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::model::Timestamp;
use crate::store::{self, Store, Table};

/// Fingerprints of the alerts in a notification.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    /// When the group was flushed.
    pub(super) at: Timestamp,
    /// When the receiver took it: the end of the row, which the delivery writes.
    #[serde(skip)]
    pub(super) sent_at: Option<Timestamp>,
    pub(super) firing: BTreeSet<u64>,
    pub(super) resolved: BTreeSet<u64>,
    /// After this time the row says nothing any more.
    pub(super) expires: Timestamp,
}

impl Told {
    /// The row's value.
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a notify state is plain data")
    }

    /// Whether something fires that was not known to, or `known` was told too long ago.
    fn is_new_or_old(&self, known: &Told, repeat_interval: Duration) -> bool {
        let repeat = i64::try_from(repeat_interval.as_millis()).unwrap_or(i64::MAX);
        !self.firing.is_subset(&known.firing) || self.at.ms_since(known.known_since()) > repeat
    }

    /// Reads a row; `None` when it is damaged.
    pub(super) fn decode(row: &[u8]) -> Option<Told> {
        let mut texts = serde_json::Deserializer::from_slice(row);
        let mut told = Told::deserialize(&mut texts).ok()?;
        told.sent_at = i64::deserialize(&mut texts).ok().map(Timestamp::from_ms);
        Some(told)
    }

    /// Since when the receiver knows; what waits in the outbox counts from its flush on.
    pub(super) fn known_since(&self) -> Timestamp {
        self.sent_at.unwrap_or(self.at)
    }
}

/// What the keys of one group's rows start with: tenant, receiver, group.
pub(super) fn prefix(receiver: &str, group_key: &str) -> Vec<u8> {
    let mut key = vec![0];
    key.extend_from_slice(receiver.as_bytes());
    key.push(0);
    key.extend_from_slice(&xxh3_128(group_key.as_bytes()).to_be_bytes());
    key
}

/// The key of one flush's row; later flushes sort behind.
pub(super) fn key(receiver: &str, group_key: &str, at: Timestamp) -> Vec<u8> {
    let mut key = prefix(receiver, group_key);
    let ordered = at.as_ms().cast_unsigned() ^ (1 << 63);
    key.extend_from_slice(&ordered.to_be_bytes());
    key
}

/// What was delivered last, of the flushes whose keys start with `prefix`.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn delivered(store: &Store, prefix: &[u8]) -> Result<Option<Told>, store::Error> {
    let mut end = prefix.to_vec();
    end.extend_from_slice(&[0xff; 9]);
    let range = (Bound::Included(prefix), Bound::Excluded(end.as_slice()));
    let rows = store.scan_back(Table::NotifyState, range, 1)?;
    Ok(rows.first().and_then(|(_, row)| Told::decode(row)))
}

/// Whether the receiver has to be told, as Alertmanager decides: something fires
/// that it was not told of, everything resolved, something resolved (if it wants to
/// know), or it was told too long ago.
pub(super) fn is_news(
    last: Option<&Told>,
    now: &Told,
    send_resolved: bool,
    repeat_interval: Duration,
) -> bool {
    let nothing = Told::default();
    let known = last.unwrap_or(&nothing);
    if now.firing.is_empty() {
        return !known.firing.is_empty();
    }
    let any_ended = send_resolved && !now.resolved.is_subset(&known.resolved);
    any_ended || now.is_new_or_old(known, repeat_interval)
}

/// As [`is_news`], of what is told once in a while: also of what came and went since,
/// any number of times.
pub(super) fn is_digest_news(
    last: Option<&Told>,
    now: &Told,
    send_resolved: bool,
    repeat_interval: Duration,
) -> bool {
    let nothing = Told::default();
    let any_ended = send_resolved && !now.resolved.is_empty();
    let is_firing = !now.firing.is_empty();
    any_ended || (is_firing && now.is_new_or_old(last.unwrap_or(&nothing), repeat_interval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateRow;

    fn told(secs: i64, firing: &[u64], resolved: &[u64]) -> Told {
        Told {
            at: Timestamp::from_ms(secs * 1_000),
            sent_at: None,
            firing: firing.iter().copied().collect(),
            resolved: resolved.iter().copied().collect(),
            expires: Timestamp::MAX,
        }
    }

    fn check(last: Option<Told>, now: Told, send_resolved: bool, want: bool) {
        let hour = Duration::from_secs(3_600);
        let got = is_news(last.as_ref(), &now, send_resolved, hour);
        assert_eq!(got, want, "{last:?} then {now:?}");
    }

    #[test]
    fn decides_as_alertmanager() {
        check(None, told(0, &[1], &[]), true, true);
        check(None, told(0, &[], &[1]), true, false);
        check(Some(told(0, &[1], &[])), told(9, &[1], &[]), true, false);
        check(Some(told(0, &[1], &[])), told(9, &[1, 2], &[]), true, true);
        check(Some(told(0, &[1, 2], &[])), told(9, &[1], &[]), true, false);
        check(Some(told(0, &[1, 2], &[])), told(9, &[1], &[2]), true, true);
        check(
            Some(told(0, &[1, 2], &[])),
            told(9, &[1], &[2]),
            false,
            false,
        );
        check(Some(told(0, &[1], &[])), told(9, &[], &[1]), false, true);
        check(Some(told(0, &[], &[1])), told(9, &[], &[2]), true, false);
        check(
            Some(told(0, &[1], &[])),
            told(3_600, &[1], &[]),
            true,
            false,
        );
        check(Some(told(0, &[1], &[])), told(3_601, &[1], &[]), true, true);
    }

    #[test]
    fn a_digest_tells_whatever_ended_since() {
        let check = |last: Option<Told>, now: Told, send_resolved: bool, want: bool| {
            let hour = Duration::from_secs(3_600);
            let got = is_digest_news(last.as_ref(), &now, send_resolved, hour);
            assert_eq!(got, want, "{last:?} then {now:?}");
        };
        check(None, told(0, &[], &[]), true, false);
        check(None, told(0, &[1], &[]), true, true);
        check(None, told(0, &[], &[1]), true, true);
        check(None, told(0, &[], &[1]), false, false);
        check(Some(told(0, &[1], &[])), told(9, &[1], &[]), true, false);
        // It ended, began and ended again.
        check(Some(told(0, &[], &[1])), told(9, &[], &[1]), true, true);
        check(Some(told(0, &[1], &[])), told(3_601, &[1], &[]), true, true);
        check(Some(told(0, &[], &[])), told(3_601, &[], &[]), true, false);
    }

    #[test]
    fn the_repeat_interval_counts_from_the_send_and_not_from_the_flush() {
        let sent = StateRow {
            table: String::new(),
            key: Vec::new(),
            value: Some(told(0, &[1], &[]).encode()),
        };
        let row = sent.value_at(Timestamp::from_ms(29_000)).unwrap();
        let last = Told::decode(&row).unwrap();
        assert_eq!(
            last.at,
            Timestamp::from_ms(0),
            "what is newest is as before"
        );
        assert_eq!(last.known_since(), Timestamp::from_ms(29_000));
        check(Some(last.clone()), told(3_629, &[1], &[]), true, false);
        check(Some(last), told(3_630, &[1], &[]), true, true);
        // A row of an older version, and what waits.
        let flushed = Told::decode(&told(7, &[1], &[]).encode()).unwrap();
        assert_eq!(flushed.known_since(), Timestamp::from_ms(7_000));
    }

    #[test]
    fn later_flushes_sort_behind_and_groups_do_not_mix() {
        let at = Timestamp::from_ms;
        assert!(key("a", "g", at(-1)) < key("a", "g", at(0)));
        assert!(key("a", "g", at(0)) < key("a", "g", at(1)));
        assert!(!key("a", "h", at(0)).starts_with(&prefix("a", "g")));
    }
}
