//! From what time on samples have changed since a version: what makes it safe to
//! keep the answers of queries.
//!
//! Every batch that adds samples notes the earliest of them. Only the marks that
//! are still the earliest since their version are kept: versions and times both
//! rise. A mark within a second of the one before joins it, and when there are too
//! many the oldest two become one; both make an answer older than it is, never
//! newer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MARKS_MAX: usize = 4_096;
/// Times this close count as one.
const JOIN_MS: i64 = 1_000;

/// The changes since the start of the process.
#[derive(Debug, Default)]
pub(super) struct Changed(Mutex<Marks>);

#[derive(Debug, Default)]
struct Marks {
    version: u64,
    /// A version, and the earliest time that changed in it or later.
    marks: VecDeque<(u64, i64)>,
}

impl Changed {
    /// The number of the last change.
    pub(super) fn version(&self) -> u64 {
        self.lock().version
    }

    /// No sample earlier than this came or went after `version`.
    pub(super) fn since(&self, version: u64) -> i64 {
        let marks = self.lock();
        let after = marks.marks.partition_point(|(v, _)| *v <= version);
        marks.marks.get(after).map_or(i64::MAX, |(_, t)| *t)
    }

    /// Samples from `t` on came. To be called once readers see them.
    pub(super) fn note(&self, t: i64) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        let marks = &mut state.marks;
        while marks.back().is_some_and(|(_, other)| *other >= t) {
            marks.pop_back();
        }
        match marks.back_mut() {
            Some((last, at)) if t.saturating_sub(*at) < JOIN_MS => *last = version,
            _ => marks.push_back((version, t)),
        }
        if marks.len() > MARKS_MAX {
            let oldest = marks.pop_front().expect("there are many");
            marks[0].1 = oldest.1;
        }
    }

    /// Anything may have changed: samples went.
    pub(super) fn note_all(&self) {
        self.note(i64::MIN);
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_answer_is_never_taken_for_newer_than_it_is(
            times in prop::collection::vec(-20_000..20_000i64, 0..6_000),
            version in 0..6_000u64,
        ) {
            let changed = Changed::default();
            times.iter().for_each(|t| changed.note(*t));
            prop_assert_eq!(changed.version(), times.len() as u64);
            let later = times.iter().skip(usize::try_from(version).unwrap());
            let earliest = later.min().copied().unwrap_or(i64::MAX);
            let said = changed.since(version);
            prop_assert!(said <= earliest);
            if times.len() < MARKS_MAX {
                prop_assert!(earliest == i64::MAX || earliest - said < JOIN_MS);
            }
        }
    }

    #[test]
    fn the_oldest_marks_become_one() {
        let changed = Changed::default();
        let marks = i64::try_from(MARKS_MAX).unwrap() + 10;
        (0..marks).for_each(|i| changed.note(i * JOIN_MS));
        assert_eq!(changed.since(0), 0);
        assert_eq!(changed.since(changed.version() - 1), (marks - 1) * JOIN_MS);
        assert_eq!(changed.since(changed.version()), i64::MAX);
        changed.note_all();
        assert_eq!(changed.since(changed.version() - 1), i64::MIN);
    }
}
