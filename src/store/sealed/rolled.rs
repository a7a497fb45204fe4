//! Roll-ups: what the samples of each bucket of time come to, and their files.
//!
//! A bucket is 5 minutes or an hour long, leaves its start out and ends at a multiple
//! of its length since the epoch: what a window of PromQL sees at such a time. Five
//! tracks say what a bucket comes to. `Last` has its last sample as it is and, when
//! the series ended after that, the staleness marker; the others have the smallest
//! and the largest value, the sum and the count of its samples, at the time of the
//! last one. So a track is a series with fewer samples, every one at a time at which
//! there was one, and two entries of one bucket (a day's first sample at midnight
//! belongs to the bucket before it) do no harm.
//!
//! A file of roll-ups has the tables and pages of a day's file. The tracks of a series
//! stand one after the other; the part of an entry's key says to which it belongs. All
//! but `Last` have the same times, and those of `Last` differ by markers only, so that
//! most series need one timestamp column, and share it with their group. A track is
//! never split, as parts are numbered one after the other.

use std::path::Path;

use super::file::{Backends, Covered, Error, Generation, SealedFile, covered_span};
use super::page::EntryKey;
use super::read::Room;
use super::seal::{Layout, Seal};
use super::tables;
use crate::model::{Labels, Sample, is_stale_nan};
use crate::promql::math::Kahan;
use crate::promql::queryable::Fold;

/// The end of the bucket that a time is in: the first multiple that is not before it.
pub fn bucket_end(t: i64, bucket_ms: i64) -> i64 {
    t.saturating_add((-t.rem_euclid(bucket_ms)).rem_euclid(bucket_ms))
}

/// What the buckets of a series come to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rolls([Vec<Sample>; 5]);

/// One series' roll-ups of one day.
#[derive(Clone, PartialEq, Debug)]
pub struct RolledSeries {
    /// The series.
    pub ref_id: u32,
    /// The symbol of its metric name; pages are sorted by it.
    pub metric_sym: u32,
    /// Series with one group probably share their timestamps; only a hint.
    pub group: u32,
    /// Its tracks.
    pub rolls: Rolls,
}

impl RolledSeries {
    /// The key of the first entry with this part.
    pub(super) fn key(&self, part: u16) -> EntryKey {
        EntryKey {
            metric_sym: self.metric_sym,
            ref_id: self.ref_id,
            part,
        }
    }
}

/// The samples of one bucket.
#[derive(Default)]
struct Bucket {
    last: Option<Sample>,
    min: f64,
    max: f64,
    sum: Kahan,
    count: f64,
}

impl Bucket {
    /// Takes what stands for some samples, the last of them at this time.
    fn add(&mut self, last: Sample, min: f64, max: f64, sum: f64, count: f64) {
        if self.last.is_none() || min < self.min || self.min.is_nan() {
            self.min = min;
        }
        if self.last.is_none() || max > self.max || self.max.is_nan() {
            self.max = max;
        }
        self.last = Some(last);
        self.sum.add(sum);
        self.count += count;
    }
}

impl Rolls {
    /// Of samples, which must ascend by time.
    pub fn of(samples: &[Sample], bucket_ms: i64) -> Rolls {
        let mut rolls = Rolls::default();
        rolls.add_last(samples, bucket_ms);
        for bucket in buckets(samples, bucket_ms) {
            let mut all = Bucket::default();
            let fresh = bucket.iter().filter(|s| !is_stale_nan(s.v));
            fresh.for_each(|s| all.add(*s, s.v, s.v, s.v, 1.0));
            rolls.push(&all);
        }
        rolls
    }

    /// The same of longer buckets, each of several of these.
    #[must_use]
    pub fn coarser(&self, bucket_ms: i64) -> Rolls {
        let [last, min, max, sum, count] = &self.0;
        let mut rolls = Rolls::default();
        rolls.add_last(last, bucket_ms);
        let mut at = 0;
        for bucket in buckets(min, bucket_ms) {
            let mut all = Bucket::default();
            for s in bucket {
                all.add(*s, s.v, max[at].v, sum[at].v, count[at].v);
                at += 1;
            }
            rolls.push(&all);
        }
        rolls
    }

    /// The last sample of each bucket, and a marker behind it.
    fn add_last(&mut self, samples: &[Sample], bucket_ms: i64) {
        for bucket in buckets(samples, bucket_ms) {
            let fresh = bucket.iter().rposition(|s| !is_stale_nan(s.v));
            self.0[0].extend(fresh.map(|at| bucket[at]));
            if fresh != Some(bucket.len() - 1) {
                self.0[0].extend(bucket.last());
            }
        }
    }

    fn push(&mut self, bucket: &Bucket) {
        let Some(Sample { t, .. }) = bucket.last else {
            return;
        };
        let sum = shortened(bucket.sum.value());
        let values = [bucket.min, bucket.max, sum, bucket.count];
        for (track, v) in self.0[1..].iter_mut().zip(values) {
            track.push(Sample { t, v });
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0[0].is_empty()
    }

    /// Takes out what lies before a time.
    pub fn drop_before(&mut self, ms: i64) {
        for track in &mut self.0 {
            track.retain(|s| s.t.as_ms() >= ms);
        }
    }

    /// One track.
    pub fn track(&self, fold: Fold) -> &[Sample] {
        &self.0[fold as usize]
    }

    /// The tracks with the part of each; of markers alone, only the first.
    pub(super) fn tracks(&self) -> impl Iterator<Item = (u16, &[Sample])> {
        let tracks = Fold::ALL.into_iter().zip(&self.0);
        tracks.map(|(fold, samples)| (fold as u16, samples.as_slice()))
    }
}

/// The runs of samples that are in one bucket.
fn buckets(samples: &[Sample], bucket_ms: i64) -> impl Iterator<Item = &[Sample]> {
    let mut rest = samples;
    std::iter::from_fn(move || {
        let end = bucket_end(rest.first()?.t.as_ms(), bucket_ms);
        let count = rest.iter().position(|s| s.t.as_ms() > end);
        let (bucket, later) = rest.split_at(count.unwrap_or(rest.len()));
        rest = later;
        Some(bucket)
    })
}

/// A sum with 15 digits. The sum of values with few decimals has as few, but for its
/// last bits; without those it takes a third of the room.
fn shortened(sum: f64) -> f64 {
    if !sum.is_finite() || sum.fract() == 0.0 {
        return sum;
    }
    format!("{sum:.14e}").parse().unwrap_or(sum)
}

impl SealedFile {
    /// Makes a file of roll-ups, complete and closed, from `series`, which must ascend
    /// by (`metric_sym`, `ref_id`). `rewritten` says what they were made of. An
    /// unfinished file of that name is replaced.
    ///
    /// # Errors
    /// When the disk is full or fails, and the first error of `series`.
    pub fn write_rolls<E: From<Error>>(
        path: &Path,
        (cache_bytes, backends): (usize, &Backends),
        (store, start_s): (u64, u32),
        rewritten: &[Covered],
        series: &mut dyn Iterator<Item = Result<RolledSeries, E>>,
        labels_of: &mut dyn FnMut(u32) -> Labels,
    ) -> Result<Generation, E> {
        let file = SealedFile::make_anew(path, cache_bytes, backends, tables::FORMAT_ROLL)?;
        file.sign(store)?;
        let seal = Seal::begin(&file, start_s, 0, Layout::ROLLS)?;
        let seqs = covered_span(rewritten);
        let generation = seal.write_rolled(seqs, rewritten, series, labels_of)?;
        file.complete(backends)?;
        Ok(generation)
    }

    /// As [`SealedFile::read`], of one track of a file of roll-ups.
    ///
    /// # Errors
    /// As [`SealedFile::read`].
    pub fn read_track(
        &self,
        fold: Fold,
        targets: &[(u32, u32)],
        range: (i64, i64),
        room: Room<'_>,
        out: &mut [Vec<Sample>],
    ) -> Result<(), Error> {
        let part = fold as u16;
        self.read_parts(part..=part, targets, range, room, out)
    }

    /// All tracks of some series of a file of roll-ups.
    ///
    /// # Errors
    /// As [`SealedFile::read`].
    pub fn read_rolls(&self, targets: &[(u32, u32)]) -> Result<Vec<Rolls>, Error> {
        let mut all = vec![Rolls::default(); targets.len()];
        for fold in Fold::ALL {
            let mut track = vec![Vec::new(); targets.len()];
            let always = (i64::MIN, i64::MAX);
            self.read_track(fold, targets, always, Room::of(usize::MAX), &mut track)?;
            for (rolls, samples) in all.iter_mut().zip(track) {
                rolls.0[fold as usize] = samples;
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::stale_nan;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_ends_at_a_multiple_and_leaves_its_start_out() {
        for (t, end) in [
            (0, 0),
            (1, 300),
            (300, 300),
            (301, 600),
            (-1, 0),
            (-300, -300),
        ] {
            assert_eq!(bucket_end(t, 300), end, "{t}");
        }
        assert_eq!(bucket_end(i64::MAX, 300_000), i64::MAX);
        assert!(bucket_end(i64::MIN, 300_000) < i64::MIN + 300_000);
        assert_eq!(bucket_end(77, 1), 77);
    }

    fn samples(all: &[(i64, f64)]) -> Vec<Sample> {
        all.iter().map(|(t, v)| Sample::new(*t, *v)).collect()
    }

    fn pairs(samples: &[Sample]) -> Vec<(i64, u64)> {
        let pair = |s: &Sample| (s.t.as_ms(), s.v.to_bits());
        samples.iter().map(pair).collect()
    }

    #[test]
    fn a_bucket_keeps_its_last_sample_and_the_marker_behind_it() {
        let stale = stale_nan();
        let all = samples(&[
            (1, 5.0),
            (2, stale),
            (3, 2.0),
            (4, f64::NAN),
            (11, 7.0),
            (12, stale),
            (13, stale),
            (21, stale),
            (40, 3.0),
            (41, 4.0),
        ]);
        let rolls = Rolls::of(&all, 10);
        let last = samples(&[
            (4, f64::NAN),
            (11, 7.0),
            (13, stale),
            (21, stale),
            (40, 3.0),
            (41, 4.0),
        ]);
        assert_eq!(pairs(rolls.track(Fold::Last)), pairs(&last));
        let of = |fold| {
            let track: &[Sample] = rolls.track(fold);
            track.iter().map(|s| (s.t.as_ms(), s.v)).collect::<Vec<_>>()
        };
        assert_eq!(of(Fold::Min), [(4, 2.0), (11, 7.0), (40, 3.0), (41, 4.0)]);
        assert_eq!(of(Fold::Max), [(4, 5.0), (11, 7.0), (40, 3.0), (41, 4.0)]);
        assert_eq!(of(Fold::Count), [(4, 3.0), (11, 1.0), (40, 1.0), (41, 1.0)]);
        assert!(
            of(Fold::Sum)[0].1.is_nan() && of(Fold::Sum)[1..] == [(11, 7.0), (40, 3.0), (41, 4.0)]
        );
    }

    #[test]
    fn a_sum_of_decimals_is_a_decimal() {
        let tenths = (1..=20)
            .map(|i| Sample::new(i, 0.1 + i as f64))
            .collect::<Vec<_>>();
        assert_eq!(Rolls::of(&tenths, 100).track(Fold::Sum)[0].v, 212.0);
        assert_eq!(shortened(0.1 + 0.2), 0.3);
        assert_eq!(shortened(1e300), 1e300);
        let exact = 9_007_199_254_740_991.0;
        assert_eq!(shortened(exact), exact, "whole numbers keep every digit");
        assert_eq!(shortened(f64::INFINITY), f64::INFINITY);
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => (-1_000i32..1_000).prop_map(|n| f64::from(n) / 8.0),
            1 => Just(stale_nan()),
            1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e16]),
        ]
    }

    proptest! {
        #[test]
        fn hours_of_buckets_are_hours_of_samples(
            values in prop::collection::vec((value(), 1i64..20), 0..200),
        ) {
            let mut t = -300;
            let all: Vec<Sample> = values.into_iter().map(|(v, gap)| {
                t += gap;
                Sample::new(t, v)
            }).collect();
            let (fine, coarse) = (Rolls::of(&all, 10), Rolls::of(&all, 120));
            let again = fine.coarser(120);
            for fold in [Fold::Last, Fold::Min, Fold::Max, Fold::Count] {
                let same = |s: &Sample| (s.t, s.v.is_nan(), if s.v.is_nan() { 0.0 } else { s.v });
                let of = |rolls: &Rolls| rolls.track(fold).iter().map(same).collect::<Vec<_>>();
                prop_assert_eq!(of(&again), of(&coarse), "{:?}", fold);
            }
            prop_assert_eq!(pairs(fine.coarser(10).track(Fold::Last)), pairs(fine.track(Fold::Last)));
            for track in fine.0 {
                prop_assert!(track.is_sorted_by(|a, b| a.t < b.t));
            }
        }
    }
}
