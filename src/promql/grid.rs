//! What the evaluator computes with: series as rows, steps as columns.
//!
//! A query is evaluated for all its steps at once, node by node; an instant
//! query has one step. A vector is a [`Grid`]: the rows' values lie one after
//! the other in a buffer, one for each thread that made some, so a function of
//! floats is one pass over it and a node costs few allocations, not one for each
//! series. A row covers the steps from its first to its last value only, so that
//! short-lived series cost what they hold. Inside, a missing value is the staleness
//! marker, which no computation gives and no selector lets through as a value.
//!
//! Rows are independent of each other: a grid can be made in parts on several
//! cores and joined. Native histograms are a second, sparse column of a row
//! (step and shared histogram, the float at that step missing, see [`native`]), so
//! that the float paths stay as they are: what takes floats only takes them off
//! first, what takes both has a second, slower path for grids that have any.

mod groups;
mod native;
mod order;
mod steps;

pub(super) use groups::{Groups, write_pair};
pub(super) use native::Element;
pub(super) use steps::{Scalar, Steps};

use std::borrow::Cow;

use hashbrown::HashMap;

use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, is_stale_nan, stale_nan};
use native::Column;

/// A missing value.
#[inline]
pub(super) fn absent() -> f64 {
    stale_nan()
}

/// Whether a value is missing.
#[inline]
pub(super) fn is_absent(v: f64) -> bool {
    is_stale_nan(v)
}

/// One series of a [`Grid`].
#[derive(Clone, Debug)]
pub(super) struct Row {
    labels: Labels,
    /// Whether the metric's name no longer counts; removing it for real is
    /// put off, because most rows are grouped away before anybody looks.
    nameless: bool,
    /// Whether the name goes at the end of the query, and is still seen till then.
    pending: bool,
    /// The step of the first value.
    pub(super) first: usize,
    /// The buffer that has the row's values, and where they begin in it.
    block: usize,
    start: usize,
    /// How many steps the row covers.
    pub(super) len: usize,
    /// The steps whose value is a native histogram.
    native: Column,
}

impl Row {
    /// The labels as they are seen.
    pub(super) fn labels(&self) -> Labels {
        if self.nameless {
            self.labels.without(METRIC_NAME)
        } else {
            self.labels.clone()
        }
    }

    /// The labels with the name, even if it no longer counts.
    pub(super) fn full_labels(&self) -> &Labels {
        &self.labels
    }

    /// The pairs as they are seen, in name order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels
            .iter()
            .filter(|(name, _)| !(self.nameless && *name == METRIC_NAME))
    }

    /// The value of a label as it is seen, or the empty text.
    #[inline]
    pub(super) fn value(&self, name: &str) -> &str {
        if self.nameless && name == METRIC_NAME {
            ""
        } else {
            self.labels.value(name)
        }
    }

    /// Whether the name goes at the end of the query.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    /// Says that the name was set and stays.
    pub(super) fn keep_name(&mut self) {
        self.pending = false;
    }

    /// All steps from the first to the last value.
    #[inline]
    pub(super) fn steps(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.len
    }
}

/// Series over steps.
#[derive(Clone, Default, Debug)]
pub(super) struct Grid {
    rows: Vec<Row>,
    /// The buffers; the last one grows.
    blocks: Vec<Vec<f64>>,
    /// How many numbers its histograms hold.
    native_size: usize,
}

/// Two series of one vector have the same labels.
pub(super) struct SameLabels;

impl Grid {
    /// The series in their present order.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// How many values are held, missing ones between others included.
    pub(super) fn size(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum::<usize>() + self.native_size
    }

    /// The values of a row, from its first step on.
    #[inline]
    pub(super) fn cells(&self, row: usize) -> &[f64] {
        let row = &self.rows[row];
        &self.blocks[row.block][row.start..row.start + row.len]
    }

    /// A row's value at a step, possibly a missing one.
    #[inline]
    pub(super) fn value(&self, row: usize, step: usize) -> f64 {
        let row = &self.rows[row];
        match step.checked_sub(row.first) {
            Some(at) if at < row.len => self.blocks[row.block][row.start + at],
            _ => absent(),
        }
    }

    /// The buffer that grows, and its number.
    fn last_block(&mut self) -> (usize, &mut Vec<f64>) {
        if self.blocks.is_empty() {
            self.blocks.push(Vec::new());
        }
        let last = self.blocks.len() - 1;
        (last, &mut self.blocks[last])
    }

    /// Puts the series in label order.
    pub(super) fn sort_by_labels(&mut self) {
        let order = order::of(&self.rows);
        self.reorder(&order);
    }

    /// Adds a series whose values, from step `first` on, are appended by `fill`.
    /// A series without a value is not added; whether it was is the result.
    pub(super) fn push(
        &mut self,
        labels: Cow<'_, Labels>,
        first: usize,
        fill: impl FnOnce(&mut Vec<f64>),
    ) -> bool {
        let (block, cells) = self.last_block();
        let start = cells.len();
        fill(cells);
        let added = &cells[start..];
        let Some(leading) = added.iter().position(|v| !is_absent(*v)) else {
            cells.truncate(start);
            return false;
        };
        let trailing = added
            .iter()
            .rev()
            .position(|v| !is_absent(*v))
            .expect("there is a value");
        let len = added.len() - leading - trailing;
        if leading > 0 {
            cells.copy_within(start + leading..start + leading + len, start);
        }
        cells.truncate(start + len);
        self.rows.push(Row {
            labels: labels.into_owned(),
            nameless: false,
            pending: false,
            first: first + leading,
            block,
            start,
            len,
            native: Column::default(),
        });
        true
    }

    /// Adds a copy of a row of another grid with other values.
    pub(super) fn push_like(
        &mut self,
        row: &Row,
        first: usize,
        fill: impl FnOnce(&mut Vec<f64>),
    ) -> bool {
        self.push_relabelled(row, Cow::Borrowed(&row.labels), first, fill)
    }

    /// Adds a series with other labels whose name counts as little as a row's.
    pub(super) fn push_relabelled(
        &mut self,
        row: &Row,
        labels: Cow<'_, Labels>,
        first: usize,
        fill: impl FnOnce(&mut Vec<f64>),
    ) -> bool {
        let added = self.push(labels, first, fill);
        if added {
            let new = self.rows.last_mut().expect("just added");
            (new.nameless, new.pending) = (row.nameless, row.pending);
        }
        added
    }

    /// Adds a series that stands for several rows: its name goes at the end of the
    /// query when that of any of them does.
    pub(super) fn push_for(
        &mut self,
        members: impl IntoIterator<Item = bool>,
        labels: Cow<'_, Labels>,
        first: usize,
        fill: impl FnOnce(&mut Vec<f64>),
    ) {
        if self.push(labels, first, fill) {
            let pending = members.into_iter().any(|pending| pending);
            self.rows.last_mut().expect("just added").pending = pending;
        }
    }

    /// Lets all names go at the end of the query.
    pub(super) fn drop_names_later(&mut self) {
        self.rows.iter_mut().for_each(|row| row.pending = true);
    }

    /// Takes off the names that were to go at the end. Rows that become equal are
    /// joined; they may not have values at the same step.
    pub(super) fn finish(mut self) -> Result<Grid, SameLabels> {
        if self.rows.iter().all(|row| !row.pending) {
            return Ok(self);
        }
        for row in &mut self.rows {
            row.nameless |= row.pending;
        }
        self.join_same()
    }

    /// The rows of several grids, which keep their places.
    pub(super) fn join(parts: impl IntoIterator<Item = Grid>) -> Grid {
        let mut parts = parts.into_iter();
        let mut joined = parts.next().unwrap_or_default();
        for part in parts {
            let first = joined.blocks.len();
            joined.blocks.extend(part.blocks);
            joined.native_size += part.native_size;
            joined.rows.extend(part.rows.into_iter().map(|row| Row {
                block: row.block + first,
                ..row
            }));
        }
        joined
    }

    /// Adds all rows of another grid.
    pub(super) fn append(&mut self, other: &Grid) {
        for (i, row) in other.rows.iter().enumerate() {
            if row.has_histograms() {
                self.push_elements_like(row, other.elements(i, row.end()));
                continue;
            }
            self.push_like(row, row.first, |cells| {
                cells.extend_from_slice(other.cells(i));
            });
        }
    }

    /// Applies a function to every value.
    pub(super) fn map(&mut self, f: impl Fn(f64) -> f64) {
        for v in self.blocks.iter_mut().flatten() {
            if !is_absent(*v) {
                *v = f(*v);
            }
        }
    }

    /// Applies a function of the step and the value to every value. Rows that
    /// lose all their values are removed.
    pub(super) fn map_steps(&mut self, mut f: impl FnMut(usize, f64) -> f64) {
        self.map_rows(|_, step, v| f(step, v));
    }

    /// The same with the number of the row.
    pub(super) fn map_rows(&mut self, f: impl FnMut(usize, usize, f64) -> f64) {
        self.map_in_place(f);
        self.drop_empty();
    }

    /// The same, but rows that lose all their values stay where they are.
    pub(super) fn map_in_place(&mut self, mut f: impl FnMut(usize, usize, f64) -> f64) {
        for (number, row) in self.rows.iter().enumerate() {
            let cells = &mut self.blocks[row.block][row.start..row.start + row.len];
            for (i, v) in cells.iter_mut().enumerate() {
                if !is_absent(*v) {
                    *v = f(number, row.first + i, *v);
                }
            }
        }
    }

    /// Removes rows that have lost all their values.
    fn drop_empty(&mut self) {
        let blocks = &self.blocks;
        self.rows.retain(|row| {
            let mut cells = blocks[row.block][row.start..row.start + row.len].iter();
            cells.any(|v| !is_absent(*v)) || row.has_histograms()
        });
    }

    /// Gives the rows another order, each one a place.
    pub(super) fn reorder(&mut self, order: &[usize]) {
        let mut rows: Vec<_> = self.rows.drain(..).map(Some).collect();
        let row = |at: &usize| rows[*at].take().expect("BUG: a row has two places");
        self.rows.extend(order.iter().map(row));
    }

    /// A grid of one step as one of many steps with the same values.
    pub(super) fn repeat(self, count: usize) -> Grid {
        if count == 1 {
            return self;
        }
        let mut repeated = Grid::default();
        for (i, row) in self.rows.iter().enumerate() {
            if row.has_histograms() {
                repeated.push_elements_like(row, vec![self.element(i, 0); count]);
                continue;
            }
            let v = self.value(i, 0);
            repeated.push_like(row, 0, |cells| cells.resize(cells.len() + count, v));
        }
        repeated
    }

    /// Gives every row new labels.
    pub(super) fn relabel(&mut self, mut f: impl FnMut(&mut Row) -> Labels) {
        for row in &mut self.rows {
            row.labels = f(row);
            row.nameless = false;
        }
    }

    /// Takes the metric's name off every row. Rows that become equal are an
    /// error when they have values at the same step, else they are joined.
    pub(super) fn drop_names(mut self) -> Result<Grid, SameLabels> {
        if self.hide_names() {
            self.join_same()
        } else {
            Ok(self)
        }
    }

    /// The same, but rows that become equal are always an error.
    pub(super) fn drop_names_strict(mut self) -> Result<Grid, SameLabels> {
        if self.hide_names() {
            self.assert_distinct()?;
        }
        Ok(self)
    }

    /// Hides all names; says whether rows may have become equal. They cannot
    /// when all had the same name.
    fn hide_names(&mut self) -> bool {
        let mut names = self.rows.iter().map(|row| row.value(METRIC_NAME));
        let first = names.next();
        let differ = names.any(|name| Some(name) != first);
        self.rows.iter_mut().for_each(|row| row.nameless = true);
        differ
    }

    /// Fails when two rows have the same labels.
    pub(super) fn assert_distinct(&self) -> Result<(), SameLabels> {
        let mut seen = hashbrown::HashSet::with_capacity(self.rows.len());
        let distinct = self.rows.iter().all(|row| seen.insert(row.labels()));
        if distinct { Ok(()) } else { Err(SameLabels) }
    }

    /// Joins rows with the same labels; fails when two of them have a value at the same step.
    pub(super) fn join_same(self) -> Result<Grid, SameLabels> {
        let mut groups: HashMap<Labels, Vec<usize>> = HashMap::with_capacity(self.rows.len());
        let mut order = Vec::with_capacity(self.rows.len());
        for (i, row) in self.rows.iter().enumerate() {
            let labels = row.labels();
            let members = groups.entry(labels.clone()).or_insert_with(|| {
                order.push(labels);
                Vec::new()
            });
            members.push(i);
        }
        if order.len() == self.rows.len() {
            return Ok(self);
        }
        let mut joined = Grid::default();
        for labels in order {
            let members = &groups[&labels];
            if members.iter().any(|i| self.rows[*i].has_histograms()) {
                self.join_elements(members, labels, &mut joined)?;
                continue;
            }
            let (first, values) = self.join_rows(members)?;
            let pending = members.iter().map(|i| self.rows[*i].pending);
            joined.push_for(pending, Cow::Owned(labels), first, |cells| {
                cells.extend(values);
            });
        }
        Ok(joined)
    }

    /// The values of several rows in one, from the first step of any.
    fn join_rows(&self, members: &[usize]) -> Result<(usize, Vec<f64>), SameLabels> {
        let rows = || members.iter().map(|i| &self.rows[*i]);
        let first = rows().map(|row| row.first).min().unwrap_or(0);
        let end = rows().map(|row| row.steps().end).max().unwrap_or(0);
        let mut values = vec![absent(); end - first];
        for i in members {
            let row = &self.rows[*i];
            for (slot, v) in values[row.first - first..].iter_mut().zip(self.cells(*i)) {
                if is_absent(*v) {
                    continue;
                }
                if !is_absent(*slot) {
                    return Err(SameLabels);
                }
                *slot = *v;
            }
        }
        Ok((first, values))
    }
}
