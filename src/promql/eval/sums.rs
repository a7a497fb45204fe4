//! Sums and means of a group's rows, all steps side by side.

use super::super::grid::{Grid, absent, is_absent};
use super::super::math::{Kahan, Mean};

/// One compensated sum for each step.
pub(super) struct Sums {
    sums: Vec<f64>,
    lost: Vec<f64>,
    counts: Vec<f64>,
}

impl Sums {
    /// Sums of nothing at so many steps.
    pub(super) fn new(steps: usize) -> Sums {
        Sums {
            sums: vec![0.0; steps],
            lost: vec![0.0; steps],
            counts: vec![0.0; steps],
        }
    }

    /// Sums the rows up, in their order.
    pub(super) fn of(&mut self, grid: &Grid, rows: &[usize]) {
        for numbers in [&mut self.sums, &mut self.lost, &mut self.counts] {
            numbers.fill(0.0);
        }
        for row in rows {
            self.add(grid.rows()[*row].first, grid.cells(*row));
        }
    }

    /// Adds a row's values from step `first` on. There is no branch in here: a missing
    /// value adds zero, which changes no sum that began with one.
    fn add(&mut self, first: usize, cells: &[f64]) {
        let steps = first..first + cells.len();
        let sums = self.sums[steps.clone()].iter_mut();
        let lost = self.lost[steps.clone()].iter_mut();
        let counts = self.counts[steps].iter_mut();
        for (((sum, lost), count), v) in sums.zip(lost).zip(counts).zip(cells) {
            let missing = is_absent(*v);
            let mut total = Kahan {
                sum: *sum,
                lost: *lost,
            };
            total.add(if missing { 0.0 } else { *v });
            (*sum, *lost) = (total.sum, total.lost);
            *count += if missing { 0.0 } else { 1.0 };
        }
    }

    /// The sums.
    pub(super) fn sums(&self) -> impl Iterator<Item = f64> {
        let all = self.sums.iter().zip(&self.lost).zip(&self.counts);
        all.map(|((sum, lost), count)| match count {
            0.0 => absent(),
            _ => sum + lost,
        })
    }

    /// The means. Where the sum is no number, or too large for one, the mean may still
    /// be: that is found out value by value.
    pub(super) fn means(&self, grid: &Grid, rows: &[usize]) -> impl Iterator<Item = f64> {
        let all = self.sums.iter().zip(&self.lost).zip(&self.counts);
        all.enumerate()
            .map(move |(step, ((sum, lost), count))| match count {
                0.0 => absent(),
                _ if sum.is_finite() => sum / count + lost / count,
                _ => mean_at(grid, rows, step),
            })
    }
}

fn mean_at(grid: &Grid, rows: &[usize], step: usize) -> f64 {
    let mut mean = Mean::default();
    let values = rows.iter().map(|row| grid.value(*row, step));
    values.filter(|v| !is_absent(*v)).for_each(|v| mean.add(v));
    mean.value()
}
