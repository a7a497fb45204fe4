//! The rules that there were: what a start knows of those without alerts.
//!
//! One row in the table `rule_group` under the name of no group, written when the rules
//! change. It is no part of the groups' own rows, because those are written with each
//! evaluation: the numbers of a hundred rules would be most of what such a write costs.

use bytes::Bytes;

use super::spec::{GroupSpec, RuleSpec, rule_id};
use crate::model::alert::rule_group_key;
use crate::store::{self, StateOp, Store, Table};

/// What a row begins with: the version of its form.
const VERSION: u8 = 1;

/// Bytes of a rule in the row.
const RULE_BYTES: usize = 16;

/// A rule in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    /// Its number.
    pub(super) id: u64,
    /// What it shares with the rules of its group that differ in the expression only.
    pub(super) kin: u64,
}

/// See [`Listed::kin`].
pub(super) fn kin(group: &GroupSpec, rule: &RuleSpec) -> u64 {
    rule_id(&group.file, &group.name, rule, "", 0)
}

/// All rules of these groups, in order.
pub(super) fn list<'a>(groups: impl IntoIterator<Item = &'a GroupSpec>) -> Vec<Listed> {
    let mut listed = Vec::new();
    for group in groups {
        listed.extend(group.rules.iter().map(|rule| Listed {
            id: rule.id,
            kin: kin(group, rule),
        }));
    }
    listed
}

/// The rules that there were last; none in the directory of an older version.
///
/// # Errors
/// When the row cannot be read from the disk.
pub(super) fn read(store: &Store) -> Result<Vec<Listed>, store::Error> {
    let row = store.get(Table::RuleGroup, &key())?;
    Ok(row.map_or_else(Vec::new, |row| decode(&row)))
}

/// The change that writes down which rules there are, if others are on disk.
///
/// # Errors
/// When the row cannot be read from the disk.
pub(super) fn put(store: &Store, listed: &[Listed]) -> Result<Option<StateOp>, store::Error> {
    if read(store)? == listed {
        return Ok(None);
    }
    Ok(Some(StateOp::Put {
        table: Table::RuleGroup,
        key: Bytes::from(key()),
        value: Bytes::from(encode(listed)),
    }))
}

fn key() -> Vec<u8> {
    rule_group_key("", "")
}

fn encode(listed: &[Listed]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + RULE_BYTES * listed.len());
    row.push(VERSION);
    for rule in listed {
        row.extend_from_slice(&rule.id.to_le_bytes());
        row.extend_from_slice(&rule.kin.to_le_bytes());
    }
    row
}

/// A row of another form says nothing.
fn decode(row: &[u8]) -> Vec<Listed> {
    let Some((&VERSION, rest)) = row.split_first() else {
        return Vec::new();
    };
    let (numbers, _) = rest.as_chunks::<8>();
    let pairs = numbers.chunks_exact(2);
    let listed = pairs.map(|pair| Listed {
        id: u64::from_le_bytes(pair[0]),
        kin: u64::from_le_bytes(pair[1]),
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::alert::RuleGroupRow;

    proptest! {
        #[test]
        fn a_row_says_what_was_listed_and_is_no_row_of_a_group(
            numbers in prop::collection::vec((any::<u64>(), any::<u64>()), 0..40),
        ) {
            let listed = numbers.into_iter().map(|(id, kin)| Listed { id, kin });
            let listed: Vec<Listed> = listed.collect();
            let row = encode(&listed);
            prop_assert_eq!(decode(&row), listed);
            prop_assert_eq!(RuleGroupRow::decode(&row), None);
        }

        #[test]
        fn any_bytes_are_read(row in prop::collection::vec(any::<u8>(), 0..80)) {
            decode(&row);
        }
    }
}
