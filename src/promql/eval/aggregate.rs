//! Aggregations: rows into groups, and of each of these a row, or some of its rows.

use super::super::ast::{Aggregate, AggregateOp, Span};
use super::super::grid::{Element, Grid, Groups, Row, Scalar, Steps, absent, write_pair};
use super::super::math;
use super::aggregate_native::takes_histograms;
use super::count_values::count_values;
use super::fold::Folding;
use super::sort::nan_last;
use super::{EvalError, Evaluator, Result};
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;

/// The labels by which rows are grouped.
pub(super) struct Grouping<'a> {
    pub(super) without: bool,
    labels: &'a [String],
}

/// Rows that are aggregated together.
pub(super) struct Group {
    pub(super) labels: Labels,
    pub(super) rows: Vec<usize>,
}

impl Group {
    /// Which of its rows lose their names at the end of the query.
    pub(super) fn pending<'g>(&'g self, grid: &'g Grid) -> impl Iterator<Item = bool> + 'g {
        self.rows.iter().map(|row| grid.rows()[*row].is_pending())
    }
}

impl Evaluator<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, steps: Steps) -> Result<Grid> {
        let op = aggregate.op;
        let span = aggregate.param.as_ref().map(|p| p.span).unwrap_or_default();
        let grouping = Grouping {
            without: aggregate.without,
            labels: &aggregate.labels,
        };
        if let (AggregateOp::CountValues, Some(param)) = (op, &aggregate.param) {
            let label = self.text(param, steps)?;
            let grid = self.vector(&aggregate.expr, steps)?;
            return count_values(&grid, &grouping, &label);
        }
        let param = match &aggregate.param {
            Some(param) => self.scalar(param, steps)?,
            None => Scalar::Same(0.0),
        };
        let mut grid = self.vector(&aggregate.expr, steps)?;
        let native = grid.has_histograms();
        if native && !takes_histograms(op) {
            let place = aggregate.expr.span;
            self.annotations.ignored_in_aggregation(op.as_str(), place);
            grid = grid.without_histograms();
        }
        let groups = grouping.groups(&grid);
        let folding = Folding {
            grid: &grid,
            steps,
            threads: self.options.threads,
            cancel: self.cancel,
        };
        match op {
            AggregateOp::Sum | AggregateOp::Avg | AggregateOp::Count | AggregateOp::Group
                if native =>
            {
                self.fold_mixed(op, (&grid, &groups, steps), aggregate.expr.span)
            }
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
                let counts = counts(&param)?;
                self.select(op, &grid, &groups, steps, &counts)
            }
            AggregateOp::LimitRatio => self.limit_ratio(&grid, &param, span),
            AggregateOp::Quantile => {
                for q in param.values() {
                    self.annotations.quantile(*q, span);
                }
                let quantile = |step, values: &mut Vec<f64>| math::quantile(param.at(step), values);
                folding.per_step(&groups, &quantile)
            }
            _ => folding.fold(op, &groups),
        }
    }

    /// `topk`, `bottomk`, `limitk`: some elements of each group and step, as they are.
    fn select(
        &mut self,
        op: AggregateOp,
        grid: &Grid,
        groups: &[Group],
        steps: Steps,
        counts: &Counts,
    ) -> Result<Grid> {
        let mut kept = vec![Vec::new(); grid.rows().len()];
        let mut order = Vec::new();
        let mut candidates: Vec<(f64, usize)> = Vec::new();
        for group in groups {
            self.check_cancel()?;
            for step in 0..steps.count {
                let count = counts.at(step).min(group.rows.len());
                if count == 0 {
                    continue;
                }
                candidates.clear();
                let all = group.rows.iter().filter(|row| grid.is_present(**row, step));
                candidates.extend(all.map(|row| (grid.value(*row, step), *row)));
                if op != AggregateOp::Limitk {
                    best_first(&mut candidates, count, op == AggregateOp::Topk);
                }
                candidates.truncate(count);
                for (_, row) in &candidates {
                    kept[*row].push(step);
                }
                if steps.count == 1 {
                    order.extend(candidates.iter().map(|(_, row)| *row));
                }
            }
        }
        if steps.count > 1 {
            order = (0..grid.rows().len()).collect();
        }
        Ok(keep_steps(grid, &order, &kept))
    }

    /// A fixed share of the elements, chosen by their labels; a negative ratio
    /// gives those that the positive complement leaves out.
    fn limit_ratio(&mut self, grid: &Grid, ratio: &Scalar, span: Span) -> Result<Grid> {
        for v in ratio.values() {
            if v.is_nan() {
                return Err(EvalError::execution("Ratio value is NaN"));
            }
            let used = v.clamp(-1.0, 1.0);
            if used != *v {
                self.annotations.ratio(*v, used, span);
            }
        }
        let mut result = grid.clone();
        let hashes: Vec<f64> = grid
            .rows()
            .iter()
            .map(|row| row.labels().fingerprint() as f64 / u64::MAX as f64)
            .collect();
        let chosen = |row: usize, step: usize| {
            let ratio = ratio.at(step).clamp(-1.0, 1.0);
            if ratio >= 0.0 {
                hashes[row] < ratio
            } else {
                hashes[row] >= 1.0 + ratio
            }
        };
        result.map_histograms(&mut |row, step, h| chosen(row, step).then(|| h.clone()));
        result.map_rows(|row, step, v| if chosen(row, step) { v } else { absent() });
        Ok(result)
    }
}

impl Grouping<'_> {
    /// The groups in label order.
    fn groups(&self, grid: &Grid) -> Vec<Group> {
        let mut index = Groups::new();
        let mut groups: Vec<Group> = Vec::new();
        for (i, row) in grid.rows().iter().enumerate() {
            let at = index.assign(|key| self.write_key(row, key));
            if at == groups.len() {
                groups.push(Group {
                    labels: self.labels(row),
                    rows: Vec::new(),
                });
            }
            groups[at].rows.push(i);
        }
        groups.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        groups
    }

    fn write_key(&self, row: &Row, key: &mut String) {
        if self.without {
            for (name, value) in row.pairs().filter(|(name, _)| self.keeps(name)) {
                write_pair(key, name, value);
            }
        } else {
            for name in self.labels {
                write_pair(key, "", row.value(name));
            }
        }
    }

    pub(super) fn labels(&self, row: &Row) -> Labels {
        Labels::from_sorted(row.pairs().filter(|(name, _)| self.keeps(name)))
    }

    pub(super) fn keeps(&self, name: &str) -> bool {
        let listed = self.labels.iter().any(|label| label == name);
        if self.without {
            !listed && name != METRIC_NAME
        } else {
            listed
        }
    }
}

/// How many elements are kept at each step.
struct Counts(Vec<usize>);

impl Counts {
    fn at(&self, step: usize) -> usize {
        self.0[step.min(self.0.len() - 1)]
    }
}

/// The parameter of `topk` and its like; it must be a number that fits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "negative counts were lifted to zero, and the cast saturates"
)]
fn counts(param: &Scalar) -> Result<Counts> {
    for v in param.values() {
        let problem = if v.is_nan() {
            "Parameter value is NaN".to_owned()
        } else if *v >= i64::MAX as f64 {
            format!("Scalar value {v} overflows int64")
        } else if *v <= i64::MIN as f64 {
            format!("Scalar value {v} underflows int64")
        } else {
            continue;
        };
        return Err(EvalError::execution(problem));
    }
    let count = |v: &f64| v.max(0.0) as usize;
    Ok(Counts(param.values().iter().map(count).collect()))
}

/// Puts the `count` best candidates first and in order; NaN is the worst.
fn best_first(candidates: &mut [(f64, usize)], count: usize, descending: bool) {
    let compare = |a: &(f64, usize), b: &(f64, usize)| {
        nan_last(a.0, b.0, descending).then_with(|| a.1.cmp(&b.1))
    };
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count - 1, compare);
        candidates[..count].sort_unstable_by(compare);
    } else {
        candidates.sort_unstable_by(compare);
    }
}

/// The rows in `order`, each with its values at the kept steps only.
fn keep_steps(grid: &Grid, order: &[usize], kept: &[Vec<usize>]) -> Grid {
    let mut result = Grid::default();
    for row in order {
        let (Some(first), Some(last)) = (kept[*row].first(), kept[*row].last()) else {
            continue;
        };
        if !grid.rows()[*row].histograms().is_empty() {
            let mut elements = vec![Element::Absent; last + 1];
            for step in &kept[*row] {
                elements[*step] = grid.element(*row, *step);
            }
            result.push_elements_like(&grid.rows()[*row], elements);
            continue;
        }
        result.push_like(&grid.rows()[*row], *first, |cells| {
            let start = cells.len();
            cells.resize(start + last - first + 1, absent());
            for step in &kept[*row] {
                cells[start + step - first] = grid.value(*row, *step);
            }
        });
    }
    result
}
