//! What a read may take, and what it need not give.

use super::super::file::Generation;

/// What a read may take.
#[derive(Clone, Copy, Debug)]
pub struct Room<'a> {
    /// So many samples are given at most.
    pub samples_max: usize,
    /// Whether only the newest sample of each series is wanted; older ones may come too.
    pub newest_only: bool,
    /// Whether only pages that are kept in memory may be read.
    pub at_hand: bool,
    /// Spans of time, ascending: generations that span one of them are alone in it, and
    /// their samples may get any times in it that ascend.
    pub any_times: &'a [(i64, i64)],
}

impl Room<'_> {
    /// For so many samples, wherever they are.
    pub const fn of(samples_max: usize) -> Room<'static> {
        Room {
            samples_max,
            newest_only: false,
            at_hand: false,
            any_times: &[],
        }
    }

    /// Whether samples of a generation that are not before the range need no times of
    /// their own.
    pub(super) fn takes_any_times(&self, generation: &Generation, end: i64) -> bool {
        let span = (generation.min_time, generation.max_time);
        span.1 <= end && self.any_times.binary_search(&span).is_ok()
    }
}
