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

use super::group::as_ms;
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

    /// Whether something fires that was not known to, or `known` is due again.
    fn is_new_or_old(&self, known: &Told, rhythm: Rhythm) -> bool {
        !self.firing.is_subset(&known.firing) || rhythm.is_due(known, self.at)
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

/// How often a group is told again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    /// What still holds is told again after this time.
    pub(super) repeat: Duration,
    /// The group is looked at this often.
    pub(super) flush: Duration,
}

impl Rhythm {
    /// Whether what was told is told again by a flush at this time.
    ///
    /// A repeat interval passes from flush to flush, so that one of N flush intervals
    /// repeats with the Nth flush. Alertmanager counts from when the receiver had taken
    /// the message, a moment after its flush, and so repeats mostly one flush late. Who
    /// got it late is told again at the flush that is nearest to the interval, never after
    /// less than half of it.
    fn is_due(self, known: &Told, at: Timestamp) -> bool {
        let slack = as_ms(self.flush.min(self.repeat)) / 2;
        let repeat = as_ms(self.repeat);
        at.ms_since(known.at) >= repeat && at.ms_since(known.known_since()) >= repeat - slack
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
    rhythm: Rhythm,
) -> bool {
    let nothing = Told::default();
    let known = last.unwrap_or(&nothing);
    if now.firing.is_empty() {
        return !known.firing.is_empty();
    }
    let any_ended = send_resolved && !now.resolved.is_subset(&known.resolved);
    any_ended || now.is_new_or_old(known, rhythm)
}

/// As [`is_news`], of what is told once in a while: also of what came and went since,
/// any number of times.
pub(super) fn is_digest_news(
    last: Option<&Told>,
    now: &Told,
    send_resolved: bool,
    rhythm: Rhythm,
) -> bool {
    let nothing = Told::default();
    let any_ended = send_resolved && !now.resolved.is_empty();
    let is_firing = !now.firing.is_empty();
    any_ended || (is_firing && now.is_new_or_old(last.unwrap_or(&nothing), rhythm))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateRow;

    const HOURLY: Rhythm = Rhythm {
        repeat: Duration::from_secs(3_600),
        flush: Duration::from_secs(300),
    };

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
        let got = is_news(last.as_ref(), &now, send_resolved, HOURLY);
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
            told(3_599, &[1], &[]),
            true,
            false,
        );
        check(Some(told(0, &[1], &[])), told(3_600, &[1], &[]), true, true);
    }

    #[test]
    fn a_digest_tells_whatever_ended_since() {
        let check = |last: Option<Told>, now: Told, send_resolved: bool, want: bool| {
            let got = is_digest_news(last.as_ref(), &now, send_resolved, HOURLY);
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
    fn a_repeat_comes_with_the_flush_that_is_nearest_to_its_interval() {
        let sent = StateRow {
            table: String::new(),
            key: Vec::new(),
            value: Some(told(0, &[1], &[]).encode()),
        };
        let late = |ms| Told::decode(&sent.value_at(Timestamp::from_ms(ms)).unwrap()).unwrap();
        let last = late(29_000);
        assert_eq!(
            last.at,
            Timestamp::from_ms(0),
            "what is newest is as before"
        );
        assert_eq!(last.known_since(), Timestamp::from_ms(29_000));
        for (sent_ms, flush_secs, want) in [
            (12, 3_300, false),
            (12, 3_600, true),
            (29_000, 3_300, false),
            (29_000, 3_600, true),
            (149_000, 3_600, true),
            (151_000, 3_600, false),
            (151_000, 3_900, true),
            (1_800_000, 5_100, false),
            (1_800_000, 5_400, true),
        ] {
            check(Some(late(sent_ms)), told(flush_secs, &[1], &[]), true, want);
        }
        // The flushes are further apart than the repeats.
        let often = Rhythm {
            repeat: Duration::from_secs(60),
            ..HOURLY
        };
        for (sent_ms, want) in [(12, true), (269_000, true), (271_000, false)] {
            let at = Timestamp::from_ms(300_000);
            assert_eq!(often.is_due(&late(sent_ms), at), want, "{sent_ms}");
        }
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
