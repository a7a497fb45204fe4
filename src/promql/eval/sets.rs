//! The set operators, and how rows of two vectors find each other.

use super::super::ast::Matching;
use super::super::grid::{Grid, Groups, Row, Steps, absent, write_pair};
use super::Result;

/// Rows of the left side at the steps where the right side has a match, or has none.
pub(super) fn filter(
    matching: &Matching,
    mut lhs: Grid,
    rhs: &Grid,
    steps: Steps,
    keep: bool,
) -> Grid {
    let presence = Presence::of(matching, rhs, steps);
    let mut found = presence.finder();
    let matches: Vec<Option<usize>> = lhs.rows().iter().map(&mut found).collect();
    let kept = |row: usize, step: usize| {
        let there = matches[row].is_some_and(|at| presence.steps[at][step]);
        there == keep
    };
    lhs.map_histograms(&mut |row, step, h| kept(row, step).then(|| h.clone()));
    lhs.map_rows(|row, step, v| if kept(row, step) { v } else { absent() });
    lhs
}

/// All rows of the left side, and those of the right at the steps where the left has no match.
pub(super) fn union(matching: &Matching, lhs: &Grid, rhs: &Grid, steps: Steps) -> Result<Grid> {
    let rest = filter(matching, rhs.clone(), lhs, steps, false);
    let mut result = lhs.clone();
    result.append(&rest);
    Ok(result.join_same()?)
}

/// At which steps each match group of a side has a value.
struct Presence<'a> {
    matching: &'a Matching,
    index: std::cell::RefCell<Groups>,
    steps: Vec<Vec<bool>>,
}

impl<'a> Presence<'a> {
    fn of(matching: &'a Matching, grid: &Grid, steps: Steps) -> Presence<'a> {
        let mut index = Groups::new();
        let mut presence: Vec<Vec<bool>> = Vec::new();
        for (i, row) in grid.rows().iter().enumerate() {
            let at = index.assign(|key| write_signature(matching, row, key));
            if at == presence.len() {
                presence.push(vec![false; steps.count]);
            }
            for step in grid.present(i) {
                presence[at][step] = true;
            }
        }
        Presence {
            matching,
            index: index.into(),
            steps: presence,
        }
    }

    /// Finds the group of a row of the other side.
    fn finder(&self) -> impl FnMut(&Row) -> Option<usize> {
        |row| {
            self.index
                .borrow_mut()
                .find(|key| write_signature(self.matching, row, key))
        }
    }
}

pub(super) fn write_signature(matching: &Matching, row: &Row, key: &mut String) {
    if matching.on {
        for name in &matching.labels {
            write_pair(key, "", row.value(name));
        }
    } else {
        for (name, value) in row.pairs().filter(|(name, _)| matching.compares(name)) {
            write_pair(key, name, value);
        }
    }
}
