//! What may be read in the place of samples, and what a function makes of it.
//!
//! A store may have roll-ups: the last sample, the extremes, the sum and the count of
//! each bucket of time. A function asks for one of them. What it gets is either as good
//! as samples, because all windows begin and end where buckets do, or all that is left
//! of samples that are gone; then the answer says so. Functions that need every sample,
//! rates for one, get the last of each bucket in the latter case only, as if the target
//! had been asked less often.

use std::collections::HashMap;
use std::time::Duration;

use super::super::ast::{Bounds, Selector};
use super::super::grid::{Grid, Steps, absent, is_absent};
use super::super::queryable::{Fold, Reduce, Reduced};
use super::super::window::{WindowFunction, Windows};
use super::read::Wanted;
use super::select::WindowCall;
use super::{Evaluator, Result};
use crate::model::{Labels, Timestamp, duration};

/// All these times are multiples of it; 0: of any number.
pub(super) fn grid_of_looks(looks: Steps) -> i64 {
    if looks.count > 1 {
        common(looks.start, looks.step)
    } else {
        // The newest samples are at hand.
        1
    }
}

fn grid_of_windows(windows: &Windows) -> i64 {
    if windows.bounds != Bounds::Inside {
        return 1;
    }
    let ends = common(windows.end(0), windows.range_ms);
    if windows.fixed.is_none() && windows.steps.count > 1 {
        common(ends, windows.steps.step)
    } else {
        ends
    }
}

/// The largest number of which both are multiples.
fn common(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.saturating_abs(), b.saturating_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What a function needs of a bucket, and the function of several of these that gives
/// the same. `None`: it needs every sample.
fn of_buckets(function: WindowFunction) -> Option<(Fold, WindowFunction)> {
    Some(match function {
        WindowFunction::Last | WindowFunction::Present | WindowFunction::TsOfLast => {
            (Fold::Last, function)
        }
        WindowFunction::Min => (Fold::Min, function),
        WindowFunction::Max => (Fold::Max, function),
        WindowFunction::Sum => (Fold::Sum, function),
        WindowFunction::Count => (Fold::Count, WindowFunction::Sum),
        _ => return None,
    })
}

impl Evaluator<'_> {
    /// Has something else read than samples, if the store has it. Gives where samples
    /// are gone, and notes it.
    pub(super) fn reduce(&mut self, wanted: &mut Wanted<'_>, fold: Fold, grid_ms: i64) -> Reduced {
        let (from, to) = wanted.range;
        let (from, to) = (Timestamp::from_ms(from), Timestamp::from_ms(to));
        let reduce = Reduce { fold, grid_ms };
        let Some(reduced) = self.data.reduced(from, to, wanted.matchers, reduce) else {
            return Reduced::default();
        };
        wanted.reduce = Some(reduce);
        for coarse in &reduced.coarse {
            let length = u64::try_from(coarse.bucket_ms).unwrap_or_default();
            let bucket = duration::format(Duration::from_millis(length));
            let until = Timestamp::from_ms(coarse.until_ms);
            self.annotations.rolled_up(until, &bucket);
        }
        reduced
    }

    /// The same for the windows of a function; gives the function of what is read.
    pub(super) fn reduce_windows(
        &mut self,
        wanted: &mut Wanted<'_>,
        function: WindowFunction,
        windows: &Windows,
    ) -> WindowFunction {
        if windows.bounds == Bounds::Inside
            && let Some((fold, of_buckets)) = of_buckets(function)
        {
            self.reduce(wanted, fold, grid_of_windows(windows));
            if wanted.reduce.is_some() {
                return of_buckets;
            }
        }
        self.reduce(wanted, Fold::Last, 1);
        function
    }

    /// The mean where samples are gone: the sum through the count.
    pub(super) fn rolled_mean(
        &mut self,
        selector: &Selector,
        call: &WindowCall<'_>,
        windows: &Windows,
    ) -> Result<Option<Grid>> {
        if windows.bounds != Bounds::Inside {
            return Ok(None);
        }
        let mut wanted = Wanted::all(selector, windows);
        self.reduce(&mut wanted, Fold::Sum, grid_of_windows(windows));
        if wanted.reduce.is_none() {
            return Ok(None);
        }
        let function = WindowFunction::Sum;
        let sum = &WindowCall { function, ..*call };
        let mut sums = self.windows_of(&wanted, sum, windows)?;
        wanted.reduce = wanted.reduce.map(|reduce| Reduce {
            fold: Fold::Count,
            ..reduce
        });
        let counts = self.windows_of(&wanted, sum, windows)?;
        let rows = counts.rows().iter().enumerate();
        let rows: HashMap<Labels, usize> = rows.map(|(i, row)| (row.labels(), i)).collect();
        let same: Vec<_> = sums
            .rows()
            .iter()
            .map(|row| rows.get(&row.labels()))
            .collect();
        let count_at = |row: usize, step| same[row].map_or_else(absent, |i| counts.value(*i, step));
        sums.map_rows(|row, step, sum| match count_at(row, step) {
            count if is_absent(count) => count,
            count => sum / count,
        });
        Ok(Some(sums))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_grid_in_common() {
        for (a, b, want) in [
            (600, 300, 300),
            (0, 300, 300),
            (-900, 600, 300),
            (7, 300, 1),
            (0, 0, 0),
        ] {
            assert_eq!(common(a, b), want, "{a} {b}");
        }
        let looks = |start, step, count| grid_of_looks(Steps { start, step, count });
        assert_eq!(looks(3_600_000, 300_000, 5), 300_000);
        assert_eq!(looks(3_600_001, 300_000, 5), 1);
        assert_eq!(looks(3_600_000, 300_000, 1), 1, "one look reads one sample");
    }
}
