//! Silences: what people do not want to hear of for a while. On disk before they count.
//!
//! Keys: tenant (the operator's name is empty), `0x00`, id. A tenant's silence
//! concerns only alerts that carry its `tenant_id`.

use std::ops::Bound;

use bytes::Bytes;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use super::alerts::ROWS_MAX;
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Labels, MatchOp, Matcher, Timestamp};
use crate::store::{self, StateOp, Store, Table};

/// How long a silence that ended is shown.
const KEEP_MS: i64 = 5 * 86_400_000;

/// Where a silence stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SilenceState {
    /// It holds.
    Active,
    /// It will.
    Pending,
    /// It did.
    Expired,
}

impl SilenceState {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            SilenceState::Active => "active",
            SilenceState::Pending => "pending",
            SilenceState::Expired => "expired",
        }
    }
}

/// A silence.
#[derive(Clone, PartialEq, Debug)]
pub struct Silence {
    /// A UUID.
    pub id: String,
    /// Whose it is; empty: the operator's.
    pub tenant: String,
    /// An alert that fulfils all is silenced.
    pub matchers: Vec<Matcher>,
    /// The first moment.
    pub starts_at: Timestamp,
    /// The first moment after it.
    pub ends_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// Why.
    pub comment: String,
}

/// Why a silence cannot be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum SilenceError {
    /// There is none of that id.
    #[error("silence not found")]
    NotFound,
    /// It makes no sense.
    #[error("silence invalid: {0}")]
    Invalid(&'static str),
    /// The disk.
    #[error("cannot store the silence")]
    Store(#[from] store::Error),
}

impl Silence {
    /// Where it stands.
    pub fn state(&self, now: Timestamp) -> SilenceState {
        if now < self.starts_at {
            SilenceState::Pending
        } else if now < self.ends_at {
            SilenceState::Active
        } else {
            SilenceState::Expired
        }
    }

    /// Whether it concerns an alert with these labels.
    pub fn concerns(&self, labels: &Labels) -> bool {
        let is_theirs = self.tenant.is_empty() || labels.value(TENANT_LABEL) == self.tenant;
        is_theirs && self.matchers.iter().all(|m| m.matches_labels(labels))
    }

    /// Checks it as Alertmanager does.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    fn check(&self) -> Result<(), SilenceError> {
        if self.matchers.is_empty() {
            return Err(SilenceError::Invalid("at least one matcher required"));
        }
        // A negative matcher counts as one that asks for something, whatever it leaves out.
        let is_empty =
            |m: &Matcher| matches!(m.op, MatchOp::Equal | MatchOp::Regex) && m.matches("");
        if self.matchers.iter().all(is_empty) {
            let text = "at least one matcher must not match the empty string";
            return Err(SilenceError::Invalid(text));
        }
        Ok(())
    }

    fn key(&self) -> Bytes {
        Bytes::from([self.tenant.as_bytes(), &[0], self.id.as_bytes()].concat())
    }

    pub(super) fn put(&self) -> StateOp {
        let matcher = |m: &Matcher| MatcherRow {
            name: m.name.clone(),
            op: m.op.as_str().to_owned(),
            value: m.value.clone(),
        };
        let row = Row {
            id: self.id.clone(),
            tenant: self.tenant.clone(),
            matchers: self.matchers.iter().map(matcher).collect(),
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            updated_at: self.updated_at,
            created_by: self.created_by.clone(),
            comment: self.comment.clone(),
        };
        StateOp::Put {
            table: Table::Silence,
            key: self.key(),
            value: serde_json::to_vec(&row)
                .expect("a silence is plain data")
                .into(),
        }
    }
}

/// What [`set`] and [`expire`] want written, and the id that counts from then on.
pub(super) struct Change {
    pub(super) ops: Vec<StateOp>,
    pub(super) id: String,
}

/// Makes a silence, or changes the one whose id it carries. As in Alertmanager, a
/// change that would rewrite the past ends the old one and makes a new one.
///
/// # Errors
/// When it is invalid or the id is unknown.
pub(super) fn set(
    all: &[Silence],
    mut silence: Silence,
    now: Timestamp,
) -> Result<Change, SilenceError> {
    silence.check()?;
    silence.updated_at = now;
    let mut ops = Vec::new();
    if !silence.id.is_empty() {
        let old = find(all, &silence.tenant, &silence.id).ok_or(SilenceError::NotFound)?;
        silence.tenant.clone_from(&old.tenant);
        if can_update(old, &silence, now) {
            return Ok(Change {
                ops: vec![silence.put()],
                id: silence.id,
            });
        }
        if old.state(now) != SilenceState::Expired {
            ops.push(ended(old, now).put());
        }
    }
    silence.id = new_id();
    silence.starts_at = silence.starts_at.max(now);
    ops.push(silence.put());
    Ok(Change {
        ops,
        id: silence.id,
    })
}

/// Ends a silence; one that has ended stays as it is.
///
/// # Errors
/// When the id is unknown.
pub(super) fn expire(
    all: &[Silence],
    tenant: &str,
    id: &str,
    now: Timestamp,
) -> Result<Change, SilenceError> {
    let old = find(all, tenant, id).ok_or(SilenceError::NotFound)?;
    let ops = match old.state(now) {
        SilenceState::Expired => Vec::new(),
        _ => vec![ended(old, now).put()],
    };
    Ok(Change {
        ops,
        id: id.to_owned(),
    })
}

fn find<'a>(all: &'a [Silence], tenant: &str, id: &str) -> Option<&'a Silence> {
    let mut theirs = all
        .iter()
        .filter(|s| tenant.is_empty() || s.tenant == tenant);
    theirs.find(|silence| silence.id == id)
}

fn ended(silence: &Silence, now: Timestamp) -> Silence {
    Silence {
        starts_at: silence.starts_at.min(now),
        ends_at: now,
        updated_at: now,
        ..silence.clone()
    }
}

fn can_update(old: &Silence, new: &Silence, now: Timestamp) -> bool {
    let same_second =
        |a: Timestamp, b: Timestamp| a.as_ms().div_euclid(1_000) == b.as_ms().div_euclid(1_000);
    old.matchers == new.matchers
        && match old.state(now) {
            SilenceState::Active => same_second(old.starts_at, new.starts_at) && new.ends_at >= now,
            SilenceState::Pending => new.starts_at >= now,
            SilenceState::Expired => false,
        }
}

/// A random UUID (version 4).
fn new_id() -> String {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random bytes");
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// All silences on disk.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn read(store: &Store) -> Result<Vec<Silence>, store::Error> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let rows = store.scan(Table::Silence, all, ROWS_MAX)?;
    let silences = rows.iter().filter_map(|(_, row)| {
        let silence = decode(row);
        if silence.is_none() {
            tracing::error!("a silence cannot be read");
        }
        silence
    });
    Ok(silences.collect())
}

/// The ids of the silences that hold for an alert, sorted.
pub(super) fn silencing(all: &[Silence], labels: &Labels, now: Timestamp) -> Vec<String> {
    let active = |s: &&Silence| s.state(now) == SilenceState::Active && s.concerns(labels);
    let mut ids: Vec<String> = all.iter().filter(active).map(|s| s.id.clone()).collect();
    ids.sort_unstable();
    ids
}

/// The changes that remove silences which ended long ago.
pub(super) fn forgotten(all: &[Silence], now: Timestamp) -> Vec<StateOp> {
    let old = |s: &&Silence| now.ms_since(s.ends_at) > KEEP_MS;
    let delete = |s: &Silence| StateOp::Delete {
        table: Table::Silence,
        key: s.key(),
    };
    all.iter().filter(old).map(delete).collect()
}

#[derive(Serialize, Deserialize)]
struct Row {
    id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    tenant: String,
    matchers: Vec<MatcherRow>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    updated_at: Timestamp,
    created_by: String,
    comment: String,
}

#[derive(Serialize, Deserialize)]
struct MatcherRow {
    name: String,
    op: String,
    value: String,
}

fn decode(row: &[u8]) -> Option<Silence> {
    let row: Row = serde_json::from_slice(row).ok()?;
    let matcher = |m: &MatcherRow| {
        let ops = [
            MatchOp::Equal,
            MatchOp::NotEqual,
            MatchOp::Regex,
            MatchOp::NotRegex,
        ];
        let op = ops.into_iter().find(|op| op.as_str() == m.op)?;
        Matcher::new(&m.name, op, &m.value).ok()
    };
    Some(Silence {
        matchers: row.matchers.iter().map(matcher).collect::<Option<_>>()?,
        id: row.id,
        tenant: row.tenant,
        starts_at: row.starts_at,
        ends_at: row.ends_at,
        updated_at: row.updated_at,
        created_by: row.created_by,
        comment: row.comment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    fn silence(id: &str, start: i64, end: i64) -> Silence {
        Silence {
            id: id.to_owned(),
            tenant: String::new(),
            matchers: vec![Matcher::equal("a", "1")],
            starts_at: NOW.plus_ms(start),
            ends_at: NOW.plus_ms(end),
            updated_at: NOW,
            created_by: "me".to_owned(),
            comment: "why".to_owned(),
        }
    }

    /// The silences after a change, by state.
    fn states(all: &[Silence], change: &Change) -> Vec<(bool, &'static str)> {
        let mut after = all.to_vec();
        for op in &change.ops {
            let StateOp::Put { value, .. } = op else {
                panic!("only rows are written");
            };
            let new = decode(value).unwrap();
            after.retain(|old| old.id != new.id);
            after.push(new);
        }
        let shown = |s: &Silence| (s.id == change.id, s.state(NOW).as_str());
        after.iter().map(shown).collect()
    }

    #[test]
    fn a_new_one_begins_now_at_the_earliest_and_gets_an_id() {
        let change = set(&[], silence("", -5_000, 60_000), NOW).unwrap();
        let StateOp::Put { value, .. } = &change.ops[0] else {
            panic!("a row is written");
        };
        let written = decode(value).unwrap();
        assert_eq!(written.starts_at, NOW);
        assert_eq!(written.id.len(), 36);
        assert_eq!(written.id.as_bytes()[14], b'4');
    }

    #[test]
    fn a_change_of_the_end_keeps_the_id_and_one_of_the_matchers_does_not() {
        let old = [silence("x", -5_000, 60_000)];
        let longer = set(&old, silence("x", -5_000, 90_000), NOW).unwrap();
        assert_eq!(states(&old, &longer), [(true, "active")]);
        let mut other = silence("x", -5_000, 60_000);
        other.matchers = vec![Matcher::equal("a", "2")];
        let replaced = set(&old, other, NOW).unwrap();
        assert_eq!(
            states(&old, &replaced),
            [(false, "expired"), (true, "active")]
        );
        let ended = [silence("x", -5_000, -1)];
        let again = set(&ended, silence("x", -5_000, 60_000), NOW).unwrap();
        assert_eq!(
            states(&ended, &again),
            [(false, "expired"), (true, "active")]
        );
        let unknown = set(&old, silence("y", 0, 1), NOW);
        assert!(matches!(unknown, Err(SilenceError::NotFound)));
    }

    #[test]
    fn one_that_ended_can_be_ended_again_and_stays_as_it_is() {
        let old = [silence("x", -5_000, 60_000), silence("y", 5_000, 60_000)];
        let change = expire(&old, "", "x", NOW).unwrap();
        assert_eq!(
            states(&old, &change),
            [(false, "pending"), (true, "expired")]
        );
        assert!(expire(&old, "", "y", NOW).is_ok());
        let ended = [silence("x", -5_000, -1)];
        assert!(expire(&ended, "", "x", NOW).unwrap().ops.is_empty());
        assert!(matches!(
            expire(&old, "", "z", NOW),
            Err(SilenceError::NotFound)
        ));
    }

    #[test]
    fn a_silence_that_would_silence_everything_is_refused() {
        let mut all = silence("", 0, 1);
        all.matchers = vec![Matcher::new("a", MatchOp::Regex, ".*").unwrap()];
        assert!(matches!(set(&[], all, NOW), Err(SilenceError::Invalid(_))));
    }

    /// What amtool 0.25 says of each beside the real Alertmanager.
    #[test]
    fn only_equal_and_regex_matchers_are_asked_for_more_than_the_empty_string() {
        use MatchOp::{Equal, NotEqual, NotRegex, Regex};
        let check = |matchers: &[(MatchOp, &str)], taken: bool| {
            let mut one = silence("", 0, 60_000);
            let matcher = |(op, value): &(MatchOp, &str)| Matcher::new("a", *op, value).unwrap();
            one.matchers = matchers.iter().map(matcher).collect();
            assert_eq!(set(&[], one, NOW).is_ok(), taken, "{matchers:?}");
        };
        for (op, value, taken) in [
            (NotEqual, "critical", true),
            (NotEqual, "", true),
            (NotRegex, "prod.*", true),
            (NotRegex, ".*", true),
            (NotRegex, ".+", true),
            (Equal, "", false),
            (Equal, "x", true),
            (Regex, ".*", false),
            (Regex, ".+", true),
            (Regex, "x|", false),
        ] {
            check(&[(op, value)], taken);
        }
        check(&[(NotEqual, "critical"), (Regex, ".*")], true);
        check(&[(Equal, ""), (NotRegex, "x")], true);
        check(&[(Equal, ""), (Regex, ".*")], false);
    }

    #[test]
    fn a24_a_tenants_silence_concerns_only_its_own_alerts() {
        let mut silence = silence("x", 0, 60_000);
        silence.tenant = "acme".to_owned();
        let ours = Labels::from_pairs([("a", "1"), (TENANT_LABEL, "acme")]);
        let others = Labels::from_pairs([("a", "1"), (TENANT_LABEL, "other")]);
        assert!(silence.concerns(&ours) && !silence.concerns(&others));
        let all = [silence];
        assert!(matches!(
            expire(&all, "other", "x", NOW),
            Err(SilenceError::NotFound)
        ));
        assert!(expire(&all, "acme", "x", NOW).is_ok());
        assert!(expire(&all, "", "x", NOW).is_ok(), "the operator may");
    }
}
