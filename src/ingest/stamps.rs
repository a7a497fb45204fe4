//! Times of samples whose payload has none.
//!
//! Such a sample gets its message's stamp, which is stable over redelivery but
//! not unique: two values of one series may come in the same millisecond. The
//! later one moves on by a millisecond until its place is free or holds the very
//! same value. A redelivered message walks the same way and ends at its own
//! sample, so it is a duplicate and not a phantom. Two messages with the same
//! value in the same millisecond become one sample.
//!
//! Two values of one message never move apart: the second has the time of the first,
//! so that the message ends as one that says its time, with a conflict.
//!
//! What is remembered here only saves commits. A collision with what was stored
//! before the memory began is found by the writer as a conflict; the message then
//! tries the place behind it ([`Stamps::vacate`]). What the writer has there is
//! not known here, so nobody else is kept from trying it.
//!
//! One case is left: two messages of one series and millisecond, of which only
//! the later one was stored before a restart and which then come back in one
//! batch. The later one moves on although its place holds it, and is stored
//! twice, a millisecond apart. Brokers that redeliver in order never do that.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::model::Timestamp;

/// Places remembered in each of the two generations, about 40 bytes each.
const PLACES_MAX: usize = 32_768;

/// How far a sample moves before it counts as a conflict, in milliseconds.
pub(super) const MOVE_MAX_MS: i64 = 1_000;

/// A series (by the hash of its labels) and a time.
type Place = (u64, i64);

/// The places taken by recent samples with our own stamps, each with the bits of
/// its value.
#[derive(Default)]
pub(super) struct Stamps {
    current: HashMap<Place, u64, ahash::RandomState>,
    previous: HashMap<Place, u64, ahash::RandomState>,
}

impl Stamps {
    /// Finds the place of a value: the first at or after `stamp` that is free or
    /// holds the same value. `None` when there is none within [`MOVE_MAX_MS`].
    pub(super) fn place(&mut self, series: u64, stamp: Timestamp, value: f64) -> Option<Timestamp> {
        let wanted = value.to_bits();
        self.rotate();
        for ms in stamp.as_ms()..=stamp.as_ms().saturating_add(MOVE_MAX_MS) {
            let place = (series, ms);
            if let Some(holder) = self.previous.get(&place) {
                self.current.entry(place).or_insert(*holder);
            }
            match self.current.entry(place) {
                Entry::Vacant(free) => free.insert(wanted),
                Entry::Occupied(taken) if *taken.get() != wanted => continue,
                Entry::Occupied(same) => same.into_mut(),
            };
            return Some(Timestamp::from_ms(ms));
        }
        None
    }

    /// Takes back that the place holds the value that was tried there.
    pub(super) fn vacate(&mut self, series: u64, t: Timestamp) {
        self.current.remove(&(series, t.as_ms()));
        self.previous.remove(&(series, t.as_ms()));
    }

    fn rotate(&mut self) {
        if self.current.len() >= PLACES_MAX {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::from_ms(1_000);

    fn place(stamps: &mut Stamps, series: u64, value: f64) -> Option<i64> {
        stamps.place(series, T, value).map(Timestamp::as_ms)
    }

    #[test]
    fn another_value_moves_on_and_the_same_value_stays() {
        let mut stamps = Stamps::default();
        assert_eq!(place(&mut stamps, 1, 5.0), Some(1_000));
        assert_eq!(place(&mut stamps, 1, 6.0), Some(1_001));
        assert_eq!(place(&mut stamps, 1, 7.0), Some(1_002));
        // Redelivery, in any order.
        assert_eq!(place(&mut stamps, 1, 6.0), Some(1_001));
        assert_eq!(place(&mut stamps, 1, 5.0), Some(1_000));
        assert_eq!(place(&mut stamps, 2, 6.0), Some(1_000));
    }

    #[test]
    fn a_place_that_is_vacated_can_be_tried_by_another() {
        let mut stamps = Stamps::default();
        assert_eq!(place(&mut stamps, 1, 5.0), Some(1_000));
        stamps.vacate(1, T);
        assert_eq!(place(&mut stamps, 1, 6.0), Some(1_000));
    }

    #[test]
    fn the_walk_and_the_memory_are_bounded() {
        let mut stamps = Stamps::default();
        let placed = (0..2_000)
            .filter_map(|i| place(&mut stamps, 1, f64::from(i)))
            .count();
        assert_eq!(placed, 1_001);
        for series in 0..200_000 {
            place(&mut stamps, series, 0.0);
        }
        assert!(stamps.current.len() + stamps.previous.len() <= 2 * PLACES_MAX + 1);
        // Nobody overflows at the end of time.
        assert_eq!(stamps.place(1, Timestamp::MAX, 1.0), Some(Timestamp::MAX));
    }
}
