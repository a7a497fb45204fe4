//! Deleted samples: what is hidden until its file is rewritten without it.
//!
//! A deletion first seals everything in memory. What it deletes is then exactly in
//! generations up to some transaction, and a tombstone says: series, time range, up
//! to which transaction. Sealed samples that fall under it are left out by every
//! read, the rewrite of a day included, and so are gone from the file that it
//! writes. Samples that come later, also for the same times, are others.
//!
//! Row of the table `deleted`: key u64 (BE), value `version u8 | before u64 | start
//! i64 | end i64 (LE) | series, a roaring bitmap`.

use std::sync::{Arc, PoisonError, RwLock};

use roaring::RoaringBitmap;

use super::sealed::bucket_end;
use crate::model::Sample;

const VERSION: u8 = 1;

/// How many tombstones there may be: every read of an old file looks at them.
pub(super) const TOMBSTONES_MAX: usize = 1_000;

/// Some samples that are to be seen no more.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Tombstone {
    /// The key of its row.
    pub(super) id: u64,
    /// Samples of generations up to this transaction.
    pub(super) before: u64,
    /// The first time in ms.
    pub(super) start: i64,
    /// The last time in ms.
    pub(super) end: i64,
    /// Of these series.
    pub(super) series: RoaringBitmap,
}

impl Tombstone {
    /// The row's key.
    pub(super) fn key(&self) -> [u8; 8] {
        self.id.to_be_bytes()
    }

    /// The row's value.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION];
        row.extend_from_slice(&self.before.to_le_bytes());
        row.extend_from_slice(&self.start.to_le_bytes());
        row.extend_from_slice(&self.end.to_le_bytes());
        self.series
            .serialize_into(&mut row)
            .expect("a vector takes all bytes");
        row
    }

    /// Reads a row; `None` when it is of no known form.
    pub(super) fn decode(key: &[u8], row: &[u8]) -> Option<Tombstone> {
        let id = u64::from_be_bytes(key.try_into().ok()?);
        let (&VERSION, rest) = row.split_first()? else {
            return None;
        };
        let (before, rest) = rest.split_first_chunk::<8>()?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (end, rest) = rest.split_first_chunk::<8>()?;
        Some(Tombstone {
            id,
            before: u64::from_le_bytes(*before),
            start: i64::from_le_bytes(*start),
            end: i64::from_le_bytes(*end),
            series: RoaringBitmap::deserialize_from(rest).ok()?,
        })
    }

    /// Whether samples of a generation can fall under it: one whose last transaction
    /// is this, and whose times are these.
    pub(super) fn reaches(&self, last_seq: u64, min_time: i64, max_time: i64) -> bool {
        self.reaches_buckets(last_seq, (min_time, max_time), 1)
    }

    /// The same of buckets of this length, of which one that it touches falls under
    /// it whole.
    pub(super) fn reaches_buckets(
        &self,
        last_seq: u64,
        (min_time, max_time): (i64, i64),
        bucket_ms: i64,
    ) -> bool {
        let (start, end) = self.times(bucket_ms);
        last_seq <= self.before && start <= max_time && end >= min_time
    }

    /// From the beginning of the first bucket that it touches to the end of the last.
    fn times(&self, bucket_ms: i64) -> (i64, i64) {
        let end_of = |t: i64| bucket_end(t, bucket_ms);
        (
            end_of(self.start).saturating_sub(bucket_ms - 1),
            end_of(self.end),
        )
    }

    /// Whether it hides everything of its series in such a generation.
    pub(super) fn covers(&self, last_seq: u64, min_time: i64, max_time: i64) -> bool {
        last_seq <= self.before && self.start <= min_time && self.end >= max_time
    }
}

/// The tombstones in force, shared by all who read. Cloning gives another handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Tombstones(Arc<RwLock<Arc<[Tombstone]>>>);

impl Tombstones {
    /// As they stand.
    pub(super) fn all(&self) -> Arc<[Tombstone]> {
        let all = self.0.read();
        Arc::clone(&all.unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts these in the place of all.
    pub(super) fn replace(&self, all: Vec<Tombstone>) {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *place = all.into();
    }
}

/// The tombstones that reach into one generation.
#[derive(Clone, Debug, Default)]
pub(super) struct Hidden(Vec<(i64, i64, Arc<[Tombstone]>, usize)>);

impl Hidden {
    /// Of these, those that reach it: its last transaction, its first and last time and
    /// the length of its buckets (1 when it holds samples).
    pub(super) fn of(
        all: &Arc<[Tombstone]>,
        last_seq: u64,
        times: (i64, i64),
        bucket_ms: i64,
    ) -> Hidden {
        let reaching = all.iter().enumerate();
        let reaching = reaching.filter(|(_, t)| t.reaches_buckets(last_seq, times, bucket_ms));
        let kept = reaching.map(|(at, t)| {
            let (start, end) = t.times(bucket_ms);
            (start, end, Arc::clone(all), at)
        });
        Hidden(kept.collect())
    }

    /// Whether nothing is hidden.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the hidden samples of a series out.
    pub(super) fn trim(&self, series: u32, samples: &mut Vec<Sample>) {
        for (start, end, all, at) in &self.0 {
            if all[*at].series.contains(series) {
                samples.retain(|s| !(*start..=*end).contains(&s.t.as_ms()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tombstone(before: u64, start: i64, end: i64, series: &[u32]) -> Tombstone {
        Tombstone {
            id: 7,
            before,
            start,
            end,
            series: series.iter().copied().collect(),
        }
    }

    #[test]
    fn a_row_comes_back_and_a_newer_one_does_not() {
        let one = tombstone(9, i64::MIN, 5, &[1, 70_000, u32::MAX]);
        let mut row = one.encode();
        assert_eq!(Tombstone::decode(&one.key(), &row), Some(one.clone()));
        row[0] = 2;
        assert_eq!(Tombstone::decode(&one.key(), &row), None);
    }

    #[test]
    fn only_the_series_the_range_and_what_was_there_are_hidden() {
        let all: Arc<[Tombstone]> = vec![tombstone(10, 20, 30, &[5])].into();
        let times = |hidden: &Hidden, series| {
            let mut samples: Vec<_> = [10, 20, 30, 31].map(|t| Sample::new(t, 1.0)).into();
            hidden.trim(series, &mut samples);
            samples.iter().map(|s| s.t.as_ms()).collect::<Vec<_>>()
        };
        let hidden = Hidden::of(&all, 10, (0, 100), 1);
        assert_eq!(times(&hidden, 5), [10, 31]);
        assert_eq!(times(&hidden, 6), [10, 20, 30, 31]);
        assert_eq!(
            times(&Hidden::of(&all, 11, (0, 100), 1), 5),
            [10, 20, 30, 31]
        );
        assert_eq!(
            times(&Hidden::of(&all, 10, (31, 100), 1), 5),
            [10, 20, 30, 31]
        );
        assert!(all[0].covers(3, 20, 30) && !all[0].covers(3, 19, 30));
    }

    #[test]
    fn a_bucket_of_which_something_is_deleted_is_hidden_whole() {
        let all: Arc<[Tombstone]> = vec![tombstone(10, 20, 30, &[5])].into();
        // Buckets end at 16, 24, 32, 40 and leave their start out.
        let hidden = Hidden::of(&all, 10, (0, 100), 8);
        let mut rolled: Vec<_> = [16, 17, 24, 32, 33].map(|t| Sample::new(t, 1.0)).into();
        hidden.trim(5, &mut rolled);
        assert_eq!(
            rolled.iter().map(|s| s.t.as_ms()).collect::<Vec<_>>(),
            [16, 33]
        );
        assert!(Hidden::of(&all, 10, (33, 100), 8).is_empty());
        let whole = tombstone(10, i64::MIN, i64::MAX, &[5]);
        assert!(whole.reaches_buckets(10, (-5, 5), 300_000));
    }

    proptest! {
        #[test]
        fn arbitrary_rows_never_panic(row in prop::collection::vec(any::<u8>(), 0..80)) {
            drop(Tombstone::decode(&[0; 8], &row));
            let mut right = vec![VERSION];
            right.extend_from_slice(&row);
            drop(Tombstone::decode(&[0; 8], &right));
        }
    }
}
