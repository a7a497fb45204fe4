//! Sums and means of a group's rows, all steps side by side.

use super::super::grid::{Grid, absent, is_absent};
use super::super::math::Mean;

/// So many steps are added to at once.
const SIDE: usize = 4;

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
        let (sums, sums_rest) = self.sums[steps.clone()].as_chunks_mut::<SIDE>();
        let (lost, lost_rest) = self.lost[steps.clone()].as_chunks_mut::<SIDE>();
        let (counts, counts_rest) = self.counts[steps].as_chunks_mut::<SIDE>();
        let (cells, cells_rest) = cells.as_chunks::<SIDE>();
        for (((sum, lost), count), v) in sums.iter_mut().zip(lost).zip(counts).zip(cells) {
            let mut all = [Step::default(); SIDE];
            for i in 0..SIDE {
                all[i] = Step::of(sum[i], lost[i], count[i]).with(v[i]);
            }
            for i in 0..SIDE {
                (sum[i], lost[i], count[i]) = (all[i].sum, all[i].lost, all[i].count);
            }
        }
        let sums = sums_rest.iter_mut().zip(lost_rest);
        for (((sum, lost), count), v) in sums.zip(counts_rest).zip(cells_rest) {
            let step = Step::of(*sum, *lost, *count).with(*v);
            (*sum, *lost, *count) = (step.sum, step.lost, step.count);
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

/// A step's sum.
#[derive(Clone, Copy, Default)]
struct Step {
    sum: f64,
    lost: f64,
    count: f64,
}

impl Step {
    #[inline(always)]
    fn of(sum: f64, lost: f64, count: f64) -> Step {
        Step { sum, lost, count }
    }

    /// With one more value. As [`super::super::math::Kahan::add`], but what is chosen
    /// there is masked here, which the processor does for several at a time.
    #[inline(always)]
    fn with(self, v: f64) -> Step {
        let present = mask(!is_absent(v));
        let v = f64::from_bits(v.to_bits() & present);
        let sum = self.sum + v;
        let grown = sum - self.sum;
        let error = (self.sum - (sum - grown)) + (v - grown);
        let lost = (self.lost + error).to_bits() & mask(!sum.is_infinite());
        Step {
            sum,
            lost: f64::from_bits(lost),
            count: self.count + f64::from_bits(1_f64.to_bits() & present),
        }
    }
}

/// All bits or none.
#[inline(always)]
fn mask(all: bool) -> u64 {
    u64::from(all).wrapping_neg()
}

fn mean_at(grid: &Grid, rows: &[usize], step: usize) -> f64 {
    let mut mean = Mean::default();
    let values = rows.iter().map(|row| grid.value(*row, step));
    values.filter(|v| !is_absent(*v)).for_each(|v| mean.add(v));
    mean.value()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::math::Kahan;
    use super::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => -1e3..1e3_f64,
            2 => any::<u64>().prop_map(f64::from_bits),
            1 => prop::sample::select(vec![absent(), f64::NAN, f64::INFINITY, f64::MAX, -f64::MAX]),
        ]
    }

    proptest! {
        #[test]
        fn steps_side_by_side_are_summed_as_each_alone(
            rows in prop::collection::vec(prop::collection::vec(value(), 11), 0..9),
        ) {
            let mut sums = Sums::new(12);
            let mut alone = vec![(Kahan::default(), 0.0); 12];
            for row in &rows {
                sums.add(1, row);
                for ((sum, count), v) in alone[1..].iter_mut().zip(row) {
                    let v = if is_absent(*v) { None } else { Some(*v) };
                    sum.add(v.unwrap_or(0.0));
                    *count += f64::from(u8::from(v.is_some()));
                }
            }
            for (i, (sum, count)) in alone.into_iter().enumerate() {
                let bits = |v: f64| if v.is_nan() { u64::MAX } else { v.to_bits() };
                prop_assert_eq!(bits(sums.sums[i]), bits(sum.sum));
                prop_assert_eq!(bits(sums.lost[i]), bits(sum.lost));
                prop_assert_eq!(sums.counts[i], count);
            }
        }
    }
}
