//! When the value coders of the log start anew.
//!
//! A value is written as the difference from the one before it in its series, so behind
//! a damaged record values are unknown until the coders start anew. They do so
//!
//! - with every record, while records are small: each takes a page of the disk anyway,
//!   and whole values fit in;
//! - else after [`LEANING_MAX`] of them, and so many values for each series: where a
//!   record has few of the series, that are more records.
//!
//! So a flipped bit costs the values of one such run at most, and one record of a quiet
//! store; in return one value in thirty-two is written whole. Bytes written a sample where
//! 107,000 series take turns: 2.09 without a bound, 4.3 with sixteen records, 2.77 with
//! sixteen values of each series, 2.46 with thirty-two.

use std::time::Instant;

use super::{LEANING_MAX, RESET_AFTER, Writer};

/// A record that leans on others is small up to here: with whole values it would still
/// be about a page.
const SMALL_BYTES: usize = 1_000;

/// A record that leans on none is small as long as it fits in a page.
const PAGE_BYTES: usize = 4_000;

/// After so many small records in a row the next one is expected to be small too.
const SMALL_IN_A_ROW: u32 = 3;

/// How the last records lean on each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaning {
    /// Records with rows since the coders started anew.
    records: u32,
    /// Their rows.
    rows: usize,
    /// The small ones among the last, without one that was not between them.
    small: u32,
}

impl Default for Leaning {
    /// That of a start: the first small record is enough.
    fn default() -> Leaning {
        Leaning {
            records: 0,
            rows: 0,
            small: SMALL_IN_A_ROW - 1,
        }
    }
}

impl Leaning {
    /// Counts a record of so many bytes and rows; says whether the next one starts anew.
    fn count(&mut self, bytes: usize, rows: usize, series: usize) -> bool {
        self.records += 1;
        self.rows += rows;
        let is_small = bytes <= [SMALL_BYTES, PAGE_BYTES][usize::from(self.records == 1)];
        self.small = if is_small { self.small + 1 } else { 0 };
        let is_long = self.records >= LEANING_MAX;
        is_long && self.rows >= series * LEANING_MAX as usize || self.small >= SMALL_IN_A_ROW
    }

    fn start_anew(&mut self) {
        (self.records, self.rows) = (0, 0);
    }
}

impl Writer {
    /// Makes the next record one that the log can be cut at.
    pub(super) fn start_anew(&mut self) {
        self.last_reset = Instant::now();
        self.start_coders_anew();
        if self.resets.back() != Some(&self.seq) {
            self.resets.push_back(self.seq);
        }
    }

    /// After a record with so many rows: makes the next one lean on none before it, if
    /// enough do. Not every such record is remembered as a place to cut at.
    pub(super) fn bound_leaning(&mut self, rows: usize) {
        let bytes = self.record.len();
        let is_due = rows > 0 && self.leaning.count(bytes, rows, self.shared.index().len());
        if self.last_reset.elapsed() >= RESET_AFTER {
            self.start_anew();
        } else if is_due {
            self.start_coders_anew();
        }
    }

    fn start_coders_anew(&mut self) {
        self.leaning.start_anew();
        self.intake.start_anew();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these records are followed by one that starts anew.
    fn check(bytes: &[usize], want: &[usize]) {
        let mut leaning = Leaning::default();
        let mut resets = Vec::new();
        for (at, bytes) in bytes.iter().enumerate() {
            if leaning.count(*bytes, 10, 10) {
                leaning.start_anew();
                resets.push(at);
            }
        }
        assert_eq!(resets, want, "{bytes:?}");
    }

    #[test]
    fn small_records_lean_on_none_and_others_on_few() {
        check(&[100; 6], &[0, 1, 2, 3, 4, 5]);
        check(&[50_000, 100, 100, 100, 100], &[3, 4]);
        // Whole values take more, up to a page.
        check(&[900, 3_900, 3_900, 4_100, 900, 900, 900], &[0, 1, 2, 6]);
        check(&[50_000; 80], &[31, 63]);
        // Small ones between large ones: those would pay for it.
        check(&[100, 50_000].repeat(32), &[0, 32]);
        // Only a third of the series in each.
        let mut leaning = Leaning::default();
        let due = (1..100).find(|_| leaning.count(50_000, 10, 30));
        assert_eq!(due, Some(96));
    }
}
