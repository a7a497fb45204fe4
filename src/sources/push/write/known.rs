//! Series by the bytes in which a sender writes them.
//!
//! A sender writes the labels of a series in the same bytes each time, so a hash
//! of these bytes leads to the series at once: no label is looked at, no set is
//! made.
//!
//! 96 bits of a hash with a secret of this process stand for the bytes. Nobody
//! who does not know the secret can make two sets of bytes meet, and by chance
//! a million sets do with a probability of 6e-18.

use ahash::RandomState;
use hashbrown::HashTable;
use ring::rand::{SecureRandom as _, SystemRandom};
use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::store::SeriesId;

/// Entries that the table holds; with more it is emptied and learns anew.
const ENTRIES_MAX: usize = 1 << 20;

/// The least secret that the hash takes is 136 bytes.
const SECRET_BYTES: usize = 192;

/// What stands for the bytes of a series, sent by somebody who may write so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    hash: u64,
    check: u32,
}

/// A key and its series, without the room that a [`Key`] would leave open.
#[derive(Debug)]
struct Entry {
    hash: u64,
    check: u32,
    id: SeriesId,
}

impl Entry {
    fn new(key: Key, id: SeriesId) -> Entry {
        Entry {
            hash: key.hash,
            check: key.check,
            id,
        }
    }

    #[inline]
    fn is_of(&self, key: Key) -> bool {
        self.hash == key.hash && self.check == key.check
    }
}

/// The table. Bounded: about 25 bytes a series.
///
/// Entries stand in the order in which they were learned, which is the order in
/// which a sender writes its series, again and again. So the series behind the
/// last one is tried first: that is a look at the next 16 bytes instead of two at
/// random places.
#[derive(Debug, Default)]
pub(super) struct Known {
    entries: Vec<Entry>,
    places: HashTable<u32>,
}

/// Where in the table a body goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor(usize);

/// Makes keys. Made once for a process.
pub(super) struct Keys {
    secret: Box<[u8; SECRET_BYTES]>,
    scopes: RandomState,
}

/// What a request's keys have in common: for whom it may write, and in which form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scope(u64);

impl Keys {
    /// With a secret of its own.
    pub(super) fn new() -> Keys {
        let mut secret = Box::new([0; SECRET_BYTES]);
        SystemRandom::new()
            .fill(&mut secret[..])
            .expect("FATAL: the system has no random bytes");
        Keys {
            secret,
            scopes: RandomState::new(),
        }
    }

    /// The scope of requests that are alike in `what`.
    pub(super) fn scope(&self, what: impl std::hash::Hash) -> Scope {
        Scope(self.scopes.hash_one(what))
    }

    /// The key of a series' bytes.
    #[inline]
    pub(super) fn key(&self, scope: Scope, bytes: &[u8]) -> Key {
        let hash = xxh3_128_with_secret(bytes, &self.secret[..]).to_le_bytes();
        let (low, high) = hash.split_at(8);
        let low = u64::from_le_bytes(low.try_into().expect("8 of 16 bytes"));
        let high = u32::from_le_bytes(high[..4].try_into().expect("4 of 8 bytes"));
        Key {
            hash: low ^ scope.0,
            check: high,
        }
    }
}

impl Known {
    /// The series of a key.
    #[inline]
    pub(super) fn get(&self, key: Key, cursor: &mut Cursor) -> Option<SeriesId> {
        let next = self.entries.get(cursor.0);
        if next.is_none_or(|entry| !entry.is_of(key)) {
            cursor.0 = self.place_of(key)?;
        }
        let id = self.entries[cursor.0].id;
        cursor.0 += 1;
        Some(id)
    }

    fn place_of(&self, key: Key) -> Option<usize> {
        let is_it = |at: &u32| self.entries[*at as usize].is_of(key);
        self.places.find(key.hash, is_it).map(|at| *at as usize)
    }

    /// Keeps series; what was known under their keys is replaced.
    pub(super) fn learn(&mut self, series: &[(Key, SeriesId)]) {
        if self.entries.len() + series.len() > ENTRIES_MAX {
            *self = Known::default();
        }
        for (key, id) in series {
            if let Some(at) = self.place_of(*key) {
                self.entries[at].id = *id;
                continue;
            }
            let at = u32::try_from(self.entries.len()).expect("it is bounded");
            self.entries.push(Entry::new(*key, *id));
            let hash_of = |at: &u32| self.entries[*at as usize].hash;
            self.places.insert_unique(key.hash, at, hash_of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lead_to_their_series_in_their_scope_only() {
        let keys = Keys::new();
        let mut known = Known::default();
        let (a, b) = (keys.scope("a"), keys.scope("b"));
        let of = |n: u32| n.to_le_bytes().repeat(40);
        let series: Vec<_> = (0..1_000)
            .map(|n| (keys.key(a, &of(n)), SeriesId(n)))
            .collect();
        known.learn(&series);
        let mut cursor = Cursor::default();
        let mut get = |key| known.get(key, &mut cursor);
        // In their order, and in another one.
        for n in (0..1_000).chain((0..1_000).map(|n| n * 7 % 1_000)) {
            assert_eq!(get(keys.key(a, &of(n))), Some(SeriesId(n)));
            assert_eq!(get(keys.key(b, &of(n))), None);
        }
        known.learn(&[(keys.key(a, &of(7)), SeriesId(9_999))]);
        let found = known.get(keys.key(a, &of(7)), &mut Cursor::default());
        assert_eq!(found, Some(SeriesId(9_999)));
        assert_eq!(known.entries.len(), 1_000);
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn secrets_differ() {
        let key = |keys: &Keys| keys.key(Scope(0), b"the same bytes");
        assert_ne!(key(&Keys::new()), key(&Keys::new()));
    }

    #[test]
    fn it_is_emptied_before_it_grows_without_end() {
        let mut known = Known::default();
        let chunk = |from: u64| -> Vec<_> {
            let key = |n: u64| Key {
                hash: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                check: 0,
            };
            (from..from + (1 << 18))
                .map(|n| (key(n), SeriesId(0)))
                .collect()
        };
        for i in 0..5 {
            known.learn(&chunk(i << 18));
            assert!(known.entries.len() <= ENTRIES_MAX);
        }
        assert_eq!(known.entries.len(), 1 << 18);
    }
}
