//! How many samples each step looks at, for those who ask for statistics.
//!
//! As Prometheus counts: a sample that several steps look at counts at each of them,
//! an instant selector's once, a window's all. What a subquery evaluates inside is
//! not counted, its own window is. A histogram counts as its numbers do.

use std::sync::{Mutex, PoisonError};

use super::super::grid::{Element, Grid, Steps};
use super::super::window::Windows;
use crate::model::{HistogramSample, Sample};

/// The counts of one query; nothing is counted when nobody asked.
#[derive(Default, Debug)]
pub(super) struct Tally(Option<Mutex<Vec<u64>>>);

impl Tally {
    /// Counts for so many steps.
    pub(super) fn of(steps: usize) -> Tally {
        Tally(Some(Mutex::new(vec![0; steps])))
    }

    /// The counts of all steps; none when nothing was counted.
    pub(super) fn finished(self) -> Vec<u64> {
        let counts = self.0.map(Mutex::into_inner);
        let counts = counts.map(|counts| counts.unwrap_or_else(PoisonError::into_inner));
        counts.unwrap_or_default()
    }

    /// Counts what an instant selector found.
    pub(super) fn found(&self, grid: &Grid, steps: Steps) {
        self.add(|counts| {
            for row in 0..grid.rows().len() {
                for (step, count) in counts.iter_mut().enumerate().take(steps.count) {
                    *count += match grid.element(row, step) {
                        Element::Absent => 0,
                        Element::Float(_) => 1,
                        Element::Histogram(h) => h.size() as u64,
                    };
                }
            }
        });
    }

    /// Counts what the windows of one series hold. A single window may stand for all steps.
    pub(super) fn windows(
        &self,
        windows: &Windows,
        samples: &[Sample],
        native: &[HistogramSample],
    ) {
        self.add(|counts| {
            let mut one = 0;
            for (step, count) in counts.iter_mut().enumerate() {
                if step < windows.steps.count {
                    one = held(windows, step, samples, native);
                }
                *count += one;
            }
        });
    }

    fn add(&self, count: impl FnOnce(&mut Vec<u64>)) {
        if let Some(counts) = &self.0 {
            count(&mut counts.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn held(windows: &Windows, step: usize, samples: &[Sample], native: &[HistogramSample]) -> u64 {
    let end = windows.end(step);
    let start = end.saturating_sub(windows.range_ms);
    let until = |ms: i64| samples.partition_point(|s| s.t.as_ms() <= ms);
    let floats = until(end) - until(start);
    let inside = |s: &&HistogramSample| s.t.as_ms() > start && s.t.as_ms() <= end;
    let native: usize = native.iter().filter(inside).map(|s| s.h.size()).sum();
    (floats + native) as u64
}
