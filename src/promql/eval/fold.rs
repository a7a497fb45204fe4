//! Groups of rows into a row each.
//!
//! A group's sums need one accumulator for each step, whatever the number of its rows,
//! and the accumulators are used again for the next group. When there are many values,
//! each thread that the query may use takes some of the groups.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::ast::AggregateOp;
use super::super::grid::{Grid, Steps, absent, is_absent};
use super::super::queryable::QueryError;
use super::Result;
use super::aggregate::Group;
use super::sums::Sums;

/// A thread more is not worth its start for fewer values.
const THREAD_VALUES_MIN: usize = 128 << 10;

/// What is aggregated, and by how many threads.
pub(super) struct Folding<'a> {
    pub(super) grid: &'a Grid,
    pub(super) steps: Steps,
    pub(super) threads: usize,
    pub(super) cancel: &'a AtomicBool,
}

impl Folding<'_> {
    /// The operators that need one accumulator for each step.
    pub(super) fn fold(&self, op: AggregateOp, groups: &[Group]) -> Result<Grid> {
        self.in_parts(groups, &|groups| match op {
            AggregateOp::Sum | AggregateOp::Avg => self.sums(op, groups),
            AggregateOp::Min => self.extremes(groups, |min, v| min > v),
            AggregateOp::Max => self.extremes(groups, |max, v| max < v),
            AggregateOp::Count => self.accumulate(groups, 0.0, |n, _| *n += 1.0, |n| *n),
            AggregateOp::Group => self.accumulate(groups, (), |(), _| {}, |()| 1.0),
            AggregateOp::Stdvar => self.spreads(groups, Spread::variance),
            AggregateOp::Stddev => self.spreads(groups, |spread| spread.variance().sqrt()),
            _ => unreachable!("BUG: {op:?} is no fold"),
        })
    }

    /// The operators that need all values of a step at once: `f` gets those of each.
    pub(super) fn per_step(
        &self,
        groups: &[Group],
        f: &(dyn Fn(usize, &mut Vec<f64>) -> f64 + Sync),
    ) -> Result<Grid> {
        self.in_parts(groups, &|groups| {
            let mut values = Vec::new();
            self.each(groups, |group, cells| {
                for step in 0..self.steps.count {
                    values.clear();
                    let all = group.rows.iter().map(|row| self.grid.value(*row, step));
                    values.extend(all.filter(|v| !is_absent(*v)));
                    cells.push(match values.is_empty() {
                        true => absent(),
                        false => f(step, &mut values),
                    });
                }
            })
        })
    }

    /// Has threads work on neighbouring groups, and joins what they make of them.
    fn in_parts(
        &self,
        groups: &[Group],
        work: &(dyn Fn(&[Group]) -> Result<Grid> + Sync),
    ) -> Result<Grid> {
        let parts = split(groups, self.grid.size() / THREAD_VALUES_MIN, self.threads);
        let Some((first, others)) = parts.split_first() else {
            return Ok(Grid::default());
        };
        std::thread::scope(|scope| {
            let others = others.iter().map(|part| scope.spawn(move || work(part)));
            let others: Vec<_> = others.collect();
            let mut done = vec![work(first)?];
            for other in others {
                let other = other.join();
                done.push(other.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(Grid::join(done))
        })
    }

    /// Makes a row of each group, whose values `fill` appends.
    fn each(&self, groups: &[Group], mut fill: impl FnMut(&Group, &mut Vec<f64>)) -> Result<Grid> {
        let mut result = Grid::default();
        for group in groups {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(QueryError::Cancelled.into());
            }
            let (pending, labels) = (group.pending(self.grid), Cow::Borrowed(&group.labels));
            result.push_for(pending, labels, 0, |cells| fill(group, cells));
        }
        Ok(result)
    }

    fn sums(&self, op: AggregateOp, groups: &[Group]) -> Result<Grid> {
        let mut sums = Sums::new(self.steps.count);
        self.each(groups, |group, cells| {
            sums.of(self.grid, &group.rows);
            match op {
                AggregateOp::Sum => cells.extend(sums.sums()),
                _ => cells.extend(sums.means(self.grid, &group.rows)),
            }
        })
    }

    /// Of each step the value that is better than all others; any is better than NaN.
    fn extremes(&self, groups: &[Group], is_worse: impl Fn(f64, f64) -> bool) -> Result<Grid> {
        let add = |best: &mut f64, v| {
            if is_worse(*best, v) || best.is_nan() {
                *best = v;
            }
        };
        self.accumulate(groups, f64::NAN, add, |best| *best)
    }

    fn spreads(&self, groups: &[Group], finish: impl Fn(&Spread) -> f64) -> Result<Grid> {
        self.accumulate(groups, Spread::default(), Spread::add, finish)
    }

    /// Adds every value of a group to its step's accumulator.
    fn accumulate<A: Clone>(
        &self,
        groups: &[Group],
        empty: A,
        add: impl Fn(&mut A, f64),
        finish: impl Fn(&A) -> f64,
    ) -> Result<Grid> {
        let mut accumulators = vec![empty.clone(); self.steps.count];
        let mut seen = vec![false; self.steps.count];
        self.each(groups, |group, cells| {
            accumulators.fill(empty.clone());
            seen.fill(false);
            for row in &group.rows {
                let steps = self.grid.rows()[*row].steps();
                let slots = accumulators[steps.clone()].iter_mut().zip(&mut seen[steps]);
                for ((slot, seen), v) in slots.zip(self.grid.cells(*row)) {
                    if !is_absent(*v) {
                        add(slot, *v);
                        *seen = true;
                    }
                }
            }
            let values = accumulators.iter().zip(&seen);
            cells.extend(values.map(|(a, seen)| if *seen { finish(a) } else { absent() }));
        })
    }
}

/// Neighbours with about equally many rows, in at most so many parts; none is empty.
fn split(groups: &[Group], wanted: usize, most: usize) -> Vec<&[Group]> {
    let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    let each = rows.div_ceil(wanted.min(most).max(1));
    let (mut parts, mut rest) = (Vec::new(), groups);
    while !rest.is_empty() {
        let mut held = 0;
        let fits = |group: &&Group| {
            let fits = held < each;
            held += group.rows.len();
            fits
        };
        let count = rest.iter().take_while(fits).count();
        let (part, others) = rest.split_at(count);
        parts.push(part);
        rest = others;
    }
    parts
}

/// Welford's variance without compensation, as Prometheus aggregates it.
#[derive(Clone, Copy, Default)]
struct Spread {
    count: f64,
    mean: f64,
    sum: f64,
}

impl Spread {
    fn add(&mut self, v: f64) {
        self.count += 1.0;
        let delta = v - self.mean;
        self.mean += delta / self.count;
        self.sum += delta * (v - self.mean);
    }

    fn variance(&self) -> f64 {
        self.sum / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    #[test]
    fn what_threads_make_of_groups_is_what_one_makes() {
        let (rows, steps) = (60, 5_000);
        let mut grid = Grid::default();
        let mut groups: Vec<Group> = Vec::new();
        for row in 0..rows {
            let labels = Labels::from_pairs([("row", format!("{row:02}"))]);
            let value = |i: usize| match (i * 7 + row) % 11 {
                0 => absent(),
                rest => rest as f64 / 3.0 - row as f64,
            };
            grid.push(Cow::Borrowed(&labels), 0, |cells| {
                cells.extend((0..steps).map(value))
            });
            if row % 9 == 0 {
                let rows = Vec::new();
                groups.push(Group { labels, rows });
            }
            groups
                .last_mut()
                .expect("the first row made one")
                .rows
                .push(row);
        }
        assert!(grid.size() > 2 * THREAD_VALUES_MIN);
        let (start, step, cancel) = (0, 1, AtomicBool::new(false));
        let folded = |threads, op| {
            let folding = Folding {
                grid: &grid,
                steps: Steps {
                    start,
                    step,
                    count: steps,
                },
                threads,
                cancel: &cancel,
            };
            let folded = match op {
                Some(op) => folding.fold(op, &groups),
                None => folding.per_step(&groups, &|step, values| values[step % values.len()]),
            };
            let folded = folded.ok()?;
            let rows = 0..folded.rows().len();
            let bits = |row| folded.cells(row).iter().map(|v| v.to_bits()).collect();
            let rows = rows.map(|row| (folded.rows()[row].labels(), bits(row)));
            Some(rows.collect())
        };
        type Folded = Vec<(Labels, Vec<u64>)>;
        use AggregateOp as Op;
        for op in [Op::Sum, Op::Avg, Op::Max, Op::Count, Op::Stddev]
            .map(Some)
            .into_iter()
            .chain([None])
        {
            let alone: Option<Folded> = folded(1, op);
            assert_eq!(alone.as_ref().map(Vec::len), Some(groups.len()));
            assert!(folded(4, op) == alone, "{op:?}");
        }
        cancel.store(true, Ordering::Relaxed);
        assert_eq!(folded(4, Some(Op::Sum)), None, "cancelled");
    }

    #[test]
    fn parts_have_about_equally_many_rows() {
        let check = |sizes: &[usize], threads, want: &[usize]| {
            let group = |size: &usize| Group {
                labels: Labels::empty(),
                rows: vec![0; *size],
            };
            let groups: Vec<Group> = sizes.iter().map(group).collect();
            let parts = split(&groups, 9, threads);
            let found: Vec<usize> = parts.iter().map(|part| part.len()).collect();
            assert_eq!(found, want, "{sizes:?} by {threads}");
        };
        check(&[], 2, &[]);
        check(&[7], 4, &[1]);
        check(&[3, 3, 3, 3], 1, &[4]);
        check(&[3, 3, 3, 3], 2, &[2, 2]);
        check(&[100, 1, 1], 2, &[1, 2]);
        check(&[1, 1, 100], 2, &[3]);
    }
}
