//! How often alerts began to fire: those that do so all the time are told in a digest.
//!
//! The beginnings of our own rules' alerts are on record in the history and known after
//! a restart; those of posted alerts are counted anew.

use std::collections::{BTreeSet, HashMap};

use super::alerts::Outside;
use super::history;
use crate::model::alert::AlertPhase;
use crate::model::{Labels, Timestamp};
use crate::store::{self, Store};

/// Beginnings within this time count, and what flaps is told at its multiples since 1970.
pub(super) const WINDOW_MS: i64 = 3_600_000;

/// Beginnings of the last hour, by fingerprint.
#[derive(Default)]
pub(super) struct Flaps(HashMap<u64, BTreeSet<Timestamp>>);

impl Flaps {
    /// What is on record.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn load(
        store: &Store,
        outside: &Outside,
        now: Timestamp,
    ) -> Result<Flaps, store::Error> {
        Flaps::since(store, outside, now.minus_ms(WINDOW_MS), |_| true)
    }

    /// How often an alert of our rules began to fire since a time, as far as the history
    /// is looked at. Rules of two files that say the same alert count both.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn of_one(
        store: &Store,
        outside: &Outside,
        since: Timestamp,
        fingerprint: u64,
    ) -> Result<usize, store::Error> {
        let flaps = Flaps::since(store, outside, since, |one| one == fingerprint)?;
        Ok(flaps.0.get(&fingerprint).map_or(0, BTreeSet::len))
    }

    fn since(
        store: &Store,
        outside: &Outside,
        since: Timestamp,
        is_wanted: impl Fn(u64) -> bool,
    ) -> Result<Flaps, store::Error> {
        let mut flaps = Flaps::default();
        for (at, row) in history::transitions(store, since)? {
            if row.to == AlertPhase::Firing.as_str() {
                let labels = outside.labels_of(&Labels::from_pairs(&row.labels));
                if is_wanted(labels.fingerprint()) {
                    flaps.0.entry(labels.fingerprint()).or_default().insert(at);
                }
            }
        }
        Ok(flaps)
    }

    /// Notes since when an alert fires.
    pub(super) fn note(&mut self, fingerprint: u64, starts_at: Timestamp, now: Timestamp) {
        if now.ms_since(starts_at) <= WINDOW_MS {
            self.0.entry(fingerprint).or_default().insert(starts_at);
        }
    }

    /// How often the alert began to fire in the last hour.
    pub(super) fn count(&self, fingerprint: u64, now: Timestamp) -> usize {
        let starts = self.0.get(&fingerprint);
        starts.map_or(0, |starts| starts.range(now.minus_ms(WINDOW_MS)..).count())
    }

    /// Forgets what is older.
    pub(super) fn forget(&mut self, now: Timestamp) {
        let oldest = now.minus_ms(WINDOW_MS);
        self.0.retain(|_, starts| {
            starts.retain(|at| *at >= oldest);
            !starts.is_empty()
        });
    }
}

/// The next full hour.
pub(super) fn next_digest(now: Timestamp) -> Timestamp {
    now.floor_to(WINDOW_MS).plus_ms(WINDOW_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_beginning_counts_once_and_for_an_hour() {
        let at = |secs: i64| Timestamp::from_ms(secs * 1_000);
        let mut flaps = Flaps::default();
        for starts_at in [10, 20, 20, 30] {
            flaps.note(1, at(starts_at), at(40));
        }
        flaps.note(2, at(0), at(3_601));
        assert_eq!(flaps.count(1, at(40)), 3);
        assert_eq!(flaps.count(1, at(3_620)), 2);
        assert_eq!(flaps.count(2, at(3_601)), 0, "it began long ago");
        flaps.forget(at(3_620));
        assert_eq!(flaps.count(1, at(40)), 2);
        flaps.forget(at(9_999));
        assert!(flaps.0.is_empty());
        assert_eq!(next_digest(at(3_599)), at(3_600));
        assert_eq!(next_digest(at(3_600)), at(7_200));
    }
}
