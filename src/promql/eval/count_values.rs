//! `count_values`: how many elements have each value.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::super::grid::{Grid, Row, absent, is_absent};
use super::aggregate::Grouping;
use super::{EvalError, Result};
use crate::model::{Labels, LabelsBuilder};

/// How often each value occurs at each step, with the value as a label.
pub(super) fn count_values(grid: &Grid, grouping: &Grouping<'_>, label: &str) -> Result<Grid> {
    if label.is_empty() {
        return Err(EvalError::execution(format!(
            "invalid label name \"{label}\""
        )));
    }
    // A label that the grouping removes does not come back.
    let removed = grouping.without && !grouping.keeps(label);
    let steps = grid.rows().iter().map(Row::end).max().unwrap_or(0);
    let mut counts = Counts {
        steps,
        index: HashMap::new(),
        groups: Vec::new(),
    };
    for (i, row) in grid.rows().iter().enumerate() {
        let mut labels: LabelsBuilder = grouping.labels(row).to_builder();
        for (step, h) in row.histograms() {
            if !removed {
                labels.set(label, &h.to_string());
            }
            let at = counts.group(labels.build());
            counts.add(at, *step);
        }
        // Neighbouring values are often the same.
        let mut last: Option<(u64, usize)> = None;
        for (step, v) in row.steps().zip(grid.cells(i)) {
            if is_absent(*v) {
                continue;
            }
            let at = match last {
                Some((bits, at)) if bits == v.to_bits() => at,
                _ => {
                    if !removed {
                        labels.set(label, &value_text(*v));
                    }
                    counts.group(labels.build())
                }
            };
            last = Some((v.to_bits(), at));
            counts.add(at, step);
        }
    }
    let mut groups = counts.groups;
    groups.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut result = Grid::default();
    for (labels, counts) in groups {
        result.push(Cow::Owned(labels), 0, |cells| cells.extend(counts));
    }
    Ok(result)
}

/// How often each label set was seen at each step.
struct Counts {
    steps: usize,
    index: HashMap<Labels, usize>,
    groups: Vec<(Labels, Vec<f64>)>,
}

impl Counts {
    fn group(&mut self, labels: Labels) -> usize {
        let (groups, steps) = (&mut self.groups, self.steps);
        *self.index.entry(labels).or_insert_with_key(|labels| {
            groups.push((labels.clone(), vec![absent(); steps]));
            groups.len() - 1
        })
    }

    fn add(&mut self, group: usize, step: usize) {
        let slot = &mut self.groups[group].1[step];
        *slot = if is_absent(*slot) { 1.0 } else { *slot + 1.0 };
    }
}

/// Go's shortest form without an exponent.
fn value_text(v: f64) -> String {
    if v.is_infinite() {
        let sign = if v > 0.0 { "+" } else { "-" };
        return format!("{sign}Inf");
    }
    v.to_string()
}
