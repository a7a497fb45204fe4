//! The sorting functions. They order an instant query's answer; over a range
//! every answer is sorted by labels.

use std::cmp::Ordering;

use super::super::ast::{Expr, Span};
use super::super::grid::{Grid, Row, Steps};
use super::{Evaluator, Result};

impl Evaluator<'_> {
    /// By value, NaN last in both directions. Names stay. Ties are in label order.
    pub(super) fn sort(
        &mut self,
        arg: &Expr,
        descending: bool,
        span: Span,
        steps: Steps,
    ) -> Result<Grid> {
        let mut grid = self.floats(arg, steps)?;
        if self.step.is_some() {
            self.annotations.sort_in_range(span);
            return Ok(grid);
        }
        order_by(&mut grid, |grid, a, b| {
            let values = (grid.value(a, 0), grid.value(b, 0));
            let by_value = nan_last(values.0, values.1, descending);
            by_value.then_with(|| by_labels(&grid.rows()[a], &grid.rows()[b]))
        });
        Ok(grid)
    }

    /// By the values of labels in natural order, then by all labels.
    pub(super) fn sort_by_label(
        &mut self,
        args: &[Expr],
        descending: bool,
        span: Span,
        steps: Steps,
    ) -> Result<Grid> {
        let mut grid = self.vector(&args[0], steps)?;
        let mut names = Vec::with_capacity(args.len() - 1);
        for arg in &args[1..] {
            names.push(self.text(arg, steps)?);
        }
        if self.step.is_some() {
            self.annotations.sort_in_range(span);
            return Ok(grid);
        }
        order_by(&mut grid, |grid, a, b| {
            let (a, b) = (&grid.rows()[a], &grid.rows()[b]);
            let order = names
                .iter()
                .map(|name| natural(a.value(name), b.value(name)))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| by_labels(a, b));
            if descending { order.reverse() } else { order }
        });
        Ok(grid)
    }
}

/// Sorts the rows of a grid.
fn order_by(grid: &mut Grid, compare: impl Fn(&Grid, usize, usize) -> Ordering) {
    let mut order: Vec<usize> = (0..grid.rows().len()).collect();
    order.sort_by(|a, b| compare(grid, *a, *b));
    grid.reorder(&order);
}

/// By value; NaN is last whatever the direction.
pub(super) fn nan_last(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => {
            let order = a.partial_cmp(&b).expect("neither is NaN");
            if descending { order.reverse() } else { order }
        }
        (a, b) => a.cmp(&b),
    }
}

fn by_labels(a: &Row, b: &Row) -> Ordering {
    a.pairs().cmp(b.pairs())
}

/// Digits compare as numbers, everything else as text: `cpu2` before `cpu10`.
fn natural(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let (text_a, digits_a, rest_a) = chunk(a);
        let (text_b, digits_b, rest_b) = chunk(b);
        let order = text_a
            .cmp(text_b)
            .then_with(|| by_number(digits_a, digits_b));
        if order.is_ne() || a.is_empty() || b.is_empty() {
            return order.then_with(|| a.cmp(b));
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// What comes before the first digits, those digits, and the rest.
fn chunk(text: &str) -> (&str, &str, &str) {
    let digits = text
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(text.len());
    let (before, rest) = text.split_at(digits);
    let after = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(after);
    (before, digits, rest)
}

fn by_number(a: &str, b: &str) -> Ordering {
    let (short_a, short_b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    short_a
        .len()
        .cmp(&short_b.len())
        .then_with(|| short_a.cmp(short_b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_sort_as_numbers() {
        let mut values = ["cpu10", "cpu02", "cpu", "a1b10", "a1b9"];
        values.sort_by(|a, b| natural(a, b));
        assert_eq!(values, ["a1b9", "a1b10", "cpu", "cpu02", "cpu10"]);
    }
}
