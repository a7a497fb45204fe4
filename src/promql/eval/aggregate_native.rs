//! Aggregations of groups that have native histograms.

use std::sync::Arc;

use super::super::annotations::Annotations;
use super::super::ast::{AggregateOp, Span};
use super::super::grid::{Element, Grid, Steps};
use super::super::math::{Kahan, Mean};
use super::super::window;
use super::aggregate::Group;
use super::{Evaluator, Result};
use crate::model::Histogram;
use crate::model::labels::METRIC_NAME;

impl Evaluator<'_> {
    /// Sums, means and counts of groups that may have histograms. Numbers and
    /// histograms have no sum, nor have buckets of different kinds.
    pub(super) fn fold_mixed(
        &mut self,
        op: AggregateOp,
        (grid, groups, steps): (&Grid, &[Group], Steps),
        place: Span,
    ) -> Result<Grid> {
        let mut result = Grid::default();
        for group in groups {
            self.check_cancel()?;
            let fold = |step| {
                let members = group.rows.iter().map(|row| grid.element(*row, step));
                let members = members.filter(|v| *v != Element::Absent);
                fold_elements(op, members.collect(), place, &mut self.annotations)
            };
            let values: Vec<Folded> = (0..steps.count).map(fold).collect();
            if values.iter().any(|v| matches!(v, Folded::Incompatible)) {
                // Prometheus names the first of the group.
                let name = grid.rows()[group.rows[0]].value(METRIC_NAME);
                self.annotations.mixed_schemas(name, place);
            }
            let values = values.into_iter().map(|v| match v {
                Folded::Value(element) => element,
                Folded::Incompatible => Element::Absent,
            });
            let pending = group.pending(grid).any(|pending| pending);
            result.push_elements_for(pending, &group.labels, values.collect());
        }
        Ok(result)
    }
}

/// Whether an aggregation makes anything of histograms.
pub(super) fn takes_histograms(op: AggregateOp) -> bool {
    use AggregateOp as A;
    matches!(
        op,
        A::Sum | A::Avg | A::Count | A::Group | A::Limitk | A::LimitRatio
    )
}

/// What became of the elements of a group at a step.
enum Folded {
    Value(Element),
    /// Their buckets cannot be brought together.
    Incompatible,
}

fn fold_elements(
    op: AggregateOp,
    members: Vec<Element>,
    place: Span,
    notes: &mut Annotations,
) -> Folded {
    let native: Vec<&Arc<Histogram>> = members
        .iter()
        .filter_map(|v| match v {
            Element::Histogram(h) => Some(h),
            Element::Float(_) | Element::Absent => None,
        })
        .collect();
    let count = members.len() as f64;
    Folded::Value(match op {
        _ if members.is_empty() => Element::Absent,
        AggregateOp::Count => Element::Float(count),
        AggregateOp::Group => Element::Float(1.0),
        _ if native.is_empty() => {
            let mut sum = Kahan::default();
            let mut mean = Mean::default();
            for v in &members {
                if let Element::Float(v) = v {
                    sum.add(*v);
                    mean.add(*v);
                }
            }
            let avg = op == AggregateOp::Avg;
            Element::Float(if avg { mean.value() } else { sum.value() })
        }
        _ if native.len() < members.len() => {
            notes.mixed_aggregation(place);
            Element::Absent
        }
        _ => match window::total(native.iter().copied(), notes, place) {
            Some(mut sum) => {
                if op == AggregateOp::Avg {
                    sum.divide(count);
                }
                Element::Histogram(sum.into())
            }
            None => return Folded::Incompatible,
        },
    })
}
