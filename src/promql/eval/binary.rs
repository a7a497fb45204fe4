//! Binary operators.
//!
//! Rows of two vectors are matched once, by their labels; the steps of matched
//! rows are then combined as columns. Only where a group has several rows on
//! a side can a step break the rules of matching, and only there are the
//! steps looked at one by one.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::super::annotations::Annotations;
use super::super::ast::{Binary, BinaryOp, Card, ExprKind, Span};
use super::super::grid::{Element, Grid, Groups, Row, Scalar, Steps, absent, is_absent};
use super::super::math;
use super::native::{self, Operation};
use super::sets::{filter, union, write_signature};
use super::{Computed, EvalError, Evaluator, Result};
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;

impl Evaluator<'_> {
    /// Evaluates a chain of operators, which leans to the left, in a loop: its
    /// length must not cost stack.
    pub(super) fn binary(
        &mut self,
        binary: &Binary,
        place: Span,
        steps: Steps,
    ) -> Result<Computed> {
        let before = self.held;
        let mut chain = vec![binary];
        let mut first = &binary.lhs;
        while let ExprKind::Binary(inner) = &first.kind {
            chain.push(inner);
            first = &inner.lhs;
        }
        let mut lhs = self.eval(first, steps)?;
        for binary in chain.into_iter().rev() {
            let rhs = self.eval(&binary.rhs, steps)?;
            // All of a chain begin at the same place.
            lhs = self.operate(&Operation { binary, place }, lhs, rhs, steps)?;
            self.held = before;
            self.hold(lhs.size())?;
        }
        Ok(lhs)
    }

    fn operate(
        &mut self,
        operation: &Operation<'_>,
        lhs: Computed,
        rhs: Computed,
        steps: Steps,
    ) -> Result<Computed> {
        let binary = operation.binary;
        let op = binary.op;
        let notes = &mut self.annotations;
        let grid = match (lhs, rhs) {
            (Computed::Scalar(_), Computed::Scalar(_)) if op.is_trim() => {
                let message = format!(
                    "operator {:?} not allowed for Scalar operations",
                    op.as_str()
                );
                return Err(EvalError::execution(message));
            }
            (Computed::Scalar(a), Computed::Scalar(b)) => {
                return Ok(Computed::Scalar(scalars(op, &a, &b, steps)));
            }
            (Computed::Grid(mut grid), Computed::Scalar(scalar)) => {
                native::with_scalar(operation, &mut grid, &scalar, false, notes);
                if op.is_trim() {
                    native::without_floats(operation, &mut grid, notes);
                }
                self.with_scalar(binary, grid, |step, v| (v, scalar.at(step)))?
            }
            (Computed::Scalar(scalar), Computed::Grid(mut grid)) => {
                native::with_scalar(operation, &mut grid, &scalar, true, notes);
                if op.is_trim() {
                    native::without_floats(operation, &mut grid, notes);
                }
                self.with_scalar(binary, grid, |step, v| (scalar.at(step), v))?
            }
            (Computed::Grid(lhs), Computed::Grid(rhs)) => match op {
                BinaryOp::And => filter(&binary.matching, lhs, &rhs, steps, true),
                BinaryOp::Unless => filter(&binary.matching, lhs, &rhs, steps, false),
                BinaryOp::Or => union(&binary.matching, &lhs, &rhs, steps)?,
                _ => self.vectors(operation, &lhs, &rhs, steps)?,
            },
            _ => return Err(EvalError::execution("operand of a wrong type")),
        };
        Ok(Computed::Grid(grid))
    }

    fn vectors(
        &mut self,
        operation: &Operation<'_>,
        lhs: &Grid,
        rhs: &Grid,
        steps: Steps,
    ) -> Result<Grid> {
        let binary = operation.binary;
        let swapped = binary.matching.card == Card::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let join = Join {
            binary,
            many,
            one,
            swapped,
            operation,
        };
        let mixed = binary.op.is_trim() || many.has_histograms() || one.has_histograms();
        let (groups, one_groups) = join.groups();
        join.check_one(&groups, &one_groups)?;
        let mut result = Grid::default();
        for group in groups {
            self.check_cancel()?;
            join.check_many(&group)?;
            for m in &group.many {
                for o in &group.one {
                    if mixed {
                        join.pair_mixed((*m, *o), steps, &mut result, &mut self.annotations);
                    } else {
                        join.pair(*m, *o, &mut result);
                    }
                }
            }
        }
        if !binary.matching.fill.is_none() {
            join.fill_in(steps, &mut result, &mut self.annotations);
        }
        result
            .join_same()
            .map_err(|_| EvalError::execution(NOT_UNIQUE))
    }
}

const NOT_UNIQUE: &str = "multiple matches for labels: grouping labels must ensure unique matches";

fn scalars(op: BinaryOp, a: &Scalar, b: &Scalar, steps: Steps) -> Scalar {
    let apply = |a: f64, b: f64| {
        if op.is_comparison() {
            f64::from(u8::from(math::compare(op, a, b)))
        } else {
            math::arithmetic(op, a, b)
        }
    };
    match (a, b) {
        (Scalar::Same(a), Scalar::Same(b)) => Scalar::Same(apply(*a, *b)),
        _ => Scalar::Each((0..steps.count).map(|i| apply(a.at(i), b.at(i))).collect()),
    }
}

impl Evaluator<'_> {
    /// A vector and a scalar; `sides` puts them in the order of the operator. A
    /// comparison that holds gives the vector's value.
    fn with_scalar(
        &self,
        binary: &Binary,
        mut grid: Grid,
        sides: impl Fn(usize, f64) -> (f64, f64),
    ) -> Result<Grid> {
        let op = binary.op;
        if op.is_trim() {
            return Ok(grid);
        }
        if !op.is_comparison() {
            grid.map_steps(|step, v| {
                let (a, b) = sides(step, v);
                math::arithmetic(op, a, b)
            });
            return self.drop_names(grid);
        }
        grid.map_steps(|step, v| {
            let (a, b) = sides(step, v);
            let holds = math::compare(op, a, b);
            if binary.returns_bool {
                f64::from(u8::from(holds))
            } else if holds {
                v
            } else {
                absent()
            }
        });
        if binary.returns_bool {
            return self.drop_names(grid);
        }
        Ok(grid)
    }
}

/// Two vectors whose rows are brought together.
struct Join<'a> {
    binary: &'a Binary,
    /// The side of which many rows may belong to one of the other.
    many: &'a Grid,
    one: &'a Grid,
    /// Whether the many side is the right one.
    swapped: bool,
    /// The same operation, for values that may be histograms.
    operation: &'a Operation<'a>,
}

/// Rows of both sides that match each other.
struct MatchGroup {
    many: Vec<usize>,
    one: Vec<usize>,
}

impl Join<'_> {
    /// The groups that have rows of both sides, and the groups of the one side.
    fn groups(&self) -> (Vec<MatchGroup>, Vec<Vec<usize>>) {
        let matching = &self.binary.matching;
        let mut index = Groups::new();
        let mut one: Vec<Vec<usize>> = Vec::new();
        for (i, row) in self.one.rows().iter().enumerate() {
            let at = index.assign(|key| write_signature(matching, row, key));
            if at == one.len() {
                one.push(Vec::new());
            }
            one[at].push(i);
        }
        let mut many: Vec<Vec<usize>> = vec![Vec::new(); one.len()];
        let mut order = Vec::new();
        for (i, row) in self.many.rows().iter().enumerate() {
            let Some(at) = index.find(|key| write_signature(matching, row, key)) else {
                continue;
            };
            if many[at].is_empty() {
                order.push(at);
            }
            many[at].push(i);
        }
        let groups = order.into_iter().map(|at| MatchGroup {
            many: std::mem::take(&mut many[at]),
            one: one[at].clone(),
        });
        (groups.collect(), one)
    }

    /// At no step may two rows of the one side match the same, whether or not
    /// there is anything on the other side that they match.
    fn check_one(&self, _groups: &[MatchGroup], one: &[Vec<usize>]) -> Result<()> {
        for rows in one.iter().filter(|rows| rows.len() > 1) {
            let clash = clash(self.one, rows, |step| self.many_has_any(step));
            if let Some((a, b)) = clash {
                return Err(self.duplicate(a, b));
            }
        }
        Ok(())
    }

    /// Prometheus looks at no side of a step when the other is empty.
    fn many_has_any(&self, step: usize) -> bool {
        (0..self.many.rows().len()).any(|row| self.many.is_present(row, step))
    }

    /// One to one: at no step may two rows of the many side match.
    fn check_many(&self, group: &MatchGroup) -> Result<()> {
        if self.binary.matching.card != Card::OneToOne || group.many.len() < 2 {
            return Ok(());
        }
        let matched = |step| {
            let mut ones = group.one.iter();
            ones.any(|row| self.one.is_present(*row, step))
        };
        match clash(self.many, &group.many, matched) {
            Some(_) => Err(EvalError::execution(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
            )),
            None => Ok(()),
        }
    }

    fn duplicate(&self, a: usize, b: usize) -> EvalError {
        let side = if self.swapped { "left" } else { "right" };
        let (a, b) = (&self.one.rows()[a], &self.one.rows()[b]);
        let group = self.group_labels(a);
        EvalError::execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            Braced(&group),
            Braced(&b.labels()),
            Braced(&a.labels()),
        ))
    }

    /// Combines a row of each side at the steps that both have.
    fn pair(&self, m: usize, o: usize, result: &mut Grid) {
        let (many, one) = (&self.many.rows()[m], &self.one.rows()[o]);
        let start = many.first.max(one.first);
        let end = many.steps().end.min(one.steps().end);
        if start >= end {
            return;
        }
        let values = self.many.cells(m)[start - many.first..end - many.first].iter();
        let values = values.zip(&self.one.cells(o)[start - one.first..]);
        let labels = self.labels(many.labels(), |name| one.value(name));
        result.push(Cow::Owned(labels), start, |cells| {
            cells.extend(values.map(|(m, o)| self.combine(*m, *o)));
        });
    }

    /// The same for rows that may hold histograms.
    fn pair_mixed(
        &self,
        (m, o): (usize, usize),
        steps: Steps,
        result: &mut Grid,
        notes: &mut Annotations,
    ) {
        let combined = (0..steps.count).map(|step| {
            let (m, o) = (self.many.element(m, step), self.one.element(o, step));
            self.combine_mixed(&m, &o, notes)
        });
        let combined = combined.collect();
        let one = &self.one.rows()[o];
        let many = self.many.rows()[m].labels();
        result.push_elements(&self.labels(many, |name| one.value(name)), combined);
    }

    fn combine_mixed(&self, many: &Element, one: &Element, notes: &mut Annotations) -> Element {
        let (a, b) = if self.swapped {
            (one, many)
        } else {
            (many, one)
        };
        self.operation.combine(a, b, notes)
    }

    /// Adds rows of either side at the steps where the other side has no match,
    /// combined with the value that stands for it.
    fn fill_in(&self, steps: Steps, result: &mut Grid, notes: &mut Annotations) {
        let matching = &self.binary.matching;
        let op = self.binary.op;
        let (for_many, for_one) = if self.swapped {
            (matching.fill.right, matching.fill.left)
        } else {
            (matching.fill.left, matching.fill.right)
        };
        if let Some(fill) = for_one {
            let alone = filter(matching, self.many.clone(), self.one, steps, false);
            for (i, row) in alone.rows().iter().enumerate() {
                let group = self.group_labels(row);
                let labels = self.labels(row.labels(), |name| group.value(name));
                if op.is_trim() || !row.histograms().is_empty() {
                    let all = alone.elements(i, row.end()).into_iter();
                    let fill = Element::Float(fill);
                    let all = all.map(|v| self.combine_mixed(&v, &fill, notes));
                    result.push_elements(&labels, all.collect());
                    continue;
                }
                result.push(Cow::Owned(labels), row.first, |cells| {
                    cells.extend(alone.cells(i).iter().map(|v| self.combine(*v, fill)));
                });
            }
        }
        if let Some(fill) = for_many {
            let alone = filter(matching, self.one.clone(), self.many, steps, false);
            for (i, row) in alone.rows().iter().enumerate() {
                let labels = self.labels(self.group_labels(row), |name| row.value(name));
                if op.is_trim() || !row.histograms().is_empty() {
                    let all = alone.elements(i, row.end()).into_iter();
                    let fill = Element::Float(fill);
                    let all = all.map(|v| self.combine_mixed(&fill, &v, notes));
                    result.push_elements(&labels, all.collect());
                    continue;
                }
                result.push(Cow::Owned(labels), row.first, |cells| {
                    cells.extend(alone.cells(i).iter().map(|v| self.combine(fill, *v)));
                });
            }
        }
    }

    /// The labels by which a row is matched.
    fn group_labels(&self, row: &Row) -> Labels {
        let matching = &self.binary.matching;
        Labels::from_sorted(row.pairs().filter(|(name, _)| matching.compares(name)))
    }

    fn combine(&self, many: f64, one: f64) -> f64 {
        if is_absent(many) || is_absent(one) {
            return absent();
        }
        let op = self.binary.op;
        let (a, b) = if self.swapped {
            (one, many)
        } else {
            (many, one)
        };
        if !op.is_comparison() {
            return math::arithmetic(op, a, b);
        }
        let holds = math::compare(op, a, b);
        if self.binary.returns_bool {
            f64::from(u8::from(holds))
        } else if holds {
            a
        } else {
            absent()
        }
    }

    /// The labels of the result of a pair.
    fn labels<'o>(&self, many: Labels, one: impl Fn(&str) -> &'o str) -> Labels {
        let matching = &self.binary.matching;
        let op = self.binary.op;
        let drops_name = op.drops_name() || self.binary.returns_bool;
        let mut labels = many.to_builder();
        labels.retain(|name, _| {
            let listed = matching.labels.iter().any(|label| label == name);
            let kept = matching.card != Card::OneToOne || listed == matching.on;
            kept && !(drops_name && name == METRIC_NAME)
        });
        for name in &matching.include {
            labels.set(name, one(name));
        }
        labels.build()
    }
}

/// Two rows that have values at one step for which `counts` holds.
fn clash(grid: &Grid, rows: &[usize], counts: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    let mut holder: HashMap<usize, usize> = HashMap::new();
    for row in rows {
        for step in grid.present(*row) {
            if let Some(first) = holder.insert(step, *row)
                && counts(step)
            {
                return Some((first, *row));
            }
        }
    }
    None
}

/// All labels in braces, the name among them, as in Prometheus' matching errors.
struct Braced<'a>(&'a Labels);

impl std::fmt::Display for Braced<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={}", crate::model::labels::Quoted(value))?;
        }
        f.write_str("}")
    }
}
