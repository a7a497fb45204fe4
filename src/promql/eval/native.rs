//! Native histograms in operators and in the functions of single values.

use std::sync::Arc;

use super::super::annotations::Annotations;
use super::super::ast::{Binary, BinaryOp, Span};
use super::super::grid::{Element, Grid, Scalar, Steps, absent};
use super::super::math;
use crate::model::Histogram;
use crate::model::histogram::{Keep, ResetHint};

/// A number from each histogram; the numbers of the grid are left out.
pub(super) fn each(grid: &Grid, steps: Steps, of: fn(&Histogram) -> f64) -> Grid {
    let mut result = Grid::default();
    for row in grid.rows() {
        let mut elements = vec![Element::Absent; steps.count];
        for (step, h) in row.histograms() {
            elements[*step] = Element::Float(of(h));
        }
        result.push_elements_like(row, elements);
    }
    result
}

/// Puts zeros in the place of histograms, for functions that only ask whether
/// there is a value.
pub(super) fn to_floats(grid: Grid, steps: Steps) -> Grid {
    if !grid.has_histograms() {
        return grid;
    }
    let mut result = Grid::default();
    for (i, row) in grid.rows().iter().enumerate() {
        let mut elements = grid.elements(i, steps.count);
        for (step, _) in row.histograms() {
            elements[*step] = Element::Float(0.0);
        }
        result.push_elements_like(row, elements);
    }
    result
}

/// Multiplies every histogram.
pub(super) fn scale(grid: &mut Grid, factor: f64) {
    grid.map_histograms(&mut |_, _, h| {
        let mut h = Histogram::clone(h);
        h.scale(factor);
        Some(Arc::new(h))
    });
}

/// Combines the histograms of a vector with a scalar on either side.
pub(super) fn with_scalar(
    operation: &Operation<'_>,
    grid: &mut Grid,
    scalar: &Scalar,
    scalar_first: bool,
    notes: &mut Annotations,
) {
    grid.map_histograms(&mut |_, step, h| {
        let (h, v) = (Element::Histogram(h.clone()), scalar.at(step));
        let v = Element::Float(v);
        let (a, b) = if scalar_first { (v, h) } else { (h, v) };
        match operation.combine(&a, &b, notes) {
            Element::Histogram(h) => Some(h),
            // Nothing else comes of a histogram and a number.
            Element::Float(_) | Element::Absent => None,
        }
    });
}

/// Leaves out the numbers of a vector, which an operator for histograms does not take.
pub(super) fn without_floats(operation: &Operation<'_>, grid: &mut Grid, notes: &mut Annotations) {
    grid.map_steps(|_, v| {
        operation.refuse(&Element::Float(v), &Element::Float(v), notes);
        absent()
    });
}

/// A binary operation and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) binary: &'a Binary,
    pub(super) place: Span,
}

impl Operation<'_> {
    /// The value of two operands of any kind, in the order of the operator.
    pub(super) fn combine(&self, a: &Element, b: &Element, notes: &mut Annotations) -> Element {
        let op = self.binary.op;
        match (a, b) {
            (Element::Absent, _) | (_, Element::Absent) => Element::Absent,
            (Element::Float(x), Element::Float(y)) if op.is_comparison() => {
                self.compared(math::compare(op, *x, *y), a)
            }
            (Element::Float(_), Element::Float(_)) if op.is_trim() => self.refuse(a, b, notes),
            (Element::Float(a), Element::Float(b)) => Element::of(math::arithmetic(op, *a, *b)),
            (Element::Histogram(x), Element::Histogram(y)) => match op {
                BinaryOp::Add | BinaryOp::Sub => self.added(x, y, notes),
                BinaryOp::Equal => self.compared(x.same_value(y), a),
                BinaryOp::NotEqual => self.compared(!x.same_value(y), a),
                _ => self.refuse(a, b, notes),
            },
            (Element::Histogram(h), Element::Float(v)) if op == BinaryOp::Div => {
                let mut h = Histogram::clone(h);
                h.divide(*v);
                Element::Histogram(h.into())
            }
            (Element::Histogram(h), Element::Float(v))
            | (Element::Float(v), Element::Histogram(h))
                if op == BinaryOp::Mul =>
            {
                let mut h = Histogram::clone(h);
                h.scale(*v);
                Element::Histogram(h.into())
            }
            (Element::Histogram(h), Element::Float(v)) if op.is_trim() => {
                let upper = op == BinaryOp::TrimUpper;
                let keep = if upper { Keep::Below } else { Keep::Above };
                Element::Histogram(h.trimmed(*v, keep).into())
            }
            _ => self.refuse(a, b, notes),
        }
    }

    fn compared(&self, holds: bool, left: &Element) -> Element {
        if self.binary.returns_bool {
            Element::Float(f64::from(u8::from(holds)))
        } else if holds {
            left.clone()
        } else {
            Element::Absent
        }
    }

    fn added(&self, a: &Histogram, b: &Histogram, notes: &mut Annotations) -> Element {
        let mut result = a.clone();
        let subtracts = self.binary.op == BinaryOp::Sub;
        let (merged, name) = if subtracts {
            (result.sub(b), "subtraction")
        } else {
            (result.add(b), "addition")
        };
        let Ok(merged) = merged else {
            notes.incompatible_buckets(self.binary.op.as_str(), self.place);
            return Element::Absent;
        };
        notes.merged(merged, name, self.place);
        if subtracts {
            result.hint = ResetHint::Gauge;
        }
        Element::Histogram(result.into())
    }

    fn refuse(&self, a: &Element, b: &Element, notes: &mut Annotations) -> Element {
        let op = self.binary.op.as_str();
        notes.incompatible_types(kind(a), op, kind(b), self.place);
        Element::Absent
    }
}

fn kind(element: &Element) -> &'static str {
    match element {
        Element::Histogram(_) => "histogram",
        Element::Float(_) | Element::Absent => "float",
    }
}
