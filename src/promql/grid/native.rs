//! The histograms of a grid: a few steps of a row whose value is no number.
//!
//! Everything here is for rows that have histograms, which most queries never see,
//! so it is written step by step rather than column by column.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Grid, Row, SameLabels, absent, is_absent};
use crate::model::{Histogram, Labels};

/// A value at one step.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::promql) enum Element {
    /// None.
    Absent,
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

impl Element {
    /// A number, which may be a missing one.
    pub(in crate::promql) fn of(v: f64) -> Element {
        if is_absent(v) {
            Element::Absent
        } else {
            Element::Float(v)
        }
    }

    fn is_absent(&self) -> bool {
        *self == Element::Absent
    }
}

/// What becomes of the histogram of a row at a step.
pub(in crate::promql) type Change<'a> =
    dyn FnMut(usize, usize, &Arc<Histogram>) -> Option<Arc<Histogram>> + 'a;

/// Steps and their histograms, ascending; nothing for a row without.
pub(super) type Column = Option<Arc<[(usize, Arc<Histogram>)]>>;

impl Row {
    /// Whether a step has a histogram for its value.
    pub(super) fn has_histograms(&self) -> bool {
        self.native.is_some()
    }

    /// The steps that have one, ascending.
    pub(in crate::promql) fn histograms(&self) -> &[(usize, Arc<Histogram>)] {
        self.native.as_deref().unwrap_or_default()
    }

    /// The step after the last value of any kind.
    pub(in crate::promql) fn end(&self) -> usize {
        let native = self.histograms().last().map_or(0, |(step, _)| step + 1);
        self.steps().end.max(native)
    }

    fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        let all = self.histograms();
        let at = all.binary_search_by_key(&step, |(step, _)| *step).ok()?;
        Some(&all[at].1)
    }
}

impl Grid {
    /// Whether any value is a histogram.
    pub(in crate::promql) fn has_histograms(&self) -> bool {
        self.rows.iter().any(Row::has_histograms)
    }

    /// A row's value at a step.
    pub(in crate::promql) fn element(&self, row: usize, step: usize) -> Element {
        match self.rows[row].histogram(step) {
            Some(h) => Element::Histogram(h.clone()),
            None => Element::of(self.value(row, step)),
        }
    }

    /// A row's values at the first `count` steps.
    pub(in crate::promql) fn elements(&self, row: usize, count: usize) -> Vec<Element> {
        (0..count).map(|step| self.element(row, step)).collect()
    }

    /// Whether a row has a value of any kind at a step.
    pub(in crate::promql) fn is_present(&self, row: usize, step: usize) -> bool {
        !is_absent(self.value(row, step)) || self.rows[row].histogram(step).is_some()
    }

    /// The steps at which a row has a value of any kind, numbers first.
    pub(in crate::promql) fn present(&self, row: usize) -> impl Iterator<Item = usize> {
        let floats = self.rows[row].steps().zip(self.cells(row));
        let floats = floats.filter(|(_, v)| !is_absent(**v));
        let native = self.rows[row].histograms().iter();
        floats
            .map(|(step, _)| step)
            .chain(native.map(|(step, _)| *step))
    }

    /// Adds a series with these values from the first step on. A series without a
    /// value is not added; whether it was is the result.
    pub(in crate::promql) fn push_elements(
        &mut self,
        labels: &Labels,
        elements: Vec<Element>,
    ) -> bool {
        let mut native = Vec::new();
        let mut floats = Vec::with_capacity(elements.len());
        for (step, element) in elements.into_iter().enumerate() {
            floats.push(match element {
                Element::Float(v) => v,
                Element::Absent => absent(),
                Element::Histogram(h) => {
                    self.native_size += h.size();
                    native.push((step, h));
                    absent()
                }
            });
        }
        let added = self.push(Cow::Borrowed(labels), 0, |cells| cells.extend(floats));
        if native.is_empty() {
            return added;
        }
        if !added {
            self.rows.push(Row {
                labels: labels.clone(),
                nameless: false,
                pending: false,
                first: 0,
                block: 0,
                start: 0,
                len: 0,
                native: None,
            });
        }
        self.rows.last_mut().expect("just added").native = Some(native.into());
        true
    }

    /// Adds a copy of a row of another grid with other values.
    pub(in crate::promql) fn push_elements_like(&mut self, row: &Row, elements: Vec<Element>) {
        self.push_elements_relabelled(row, &row.labels, elements);
    }

    /// Adds a series with other labels whose name counts as little as a row's.
    pub(in crate::promql) fn push_elements_relabelled(
        &mut self,
        row: &Row,
        labels: &Labels,
        elements: Vec<Element>,
    ) {
        if self.push_elements(labels, elements) {
            let new = self.rows.last_mut().expect("just added");
            (new.nameless, new.pending) = (row.nameless, row.pending);
        }
    }

    /// Adds a series that stands for several rows, as [`Grid::push_for`] does.
    pub(in crate::promql) fn push_elements_for(
        &mut self,
        pending: bool,
        labels: &Labels,
        elements: Vec<Element>,
    ) {
        if self.push_elements(labels, elements) {
            self.rows.last_mut().expect("just added").pending = pending;
        }
    }

    /// The numbers alone.
    pub(in crate::promql) fn without_histograms(mut self) -> Grid {
        if self.has_histograms() {
            self.rows.iter_mut().for_each(|row| row.native = None);
            self.drop_empty();
        }
        self
    }

    /// Gives every histogram another value, or none. Rows without any value are left
    /// where they are, so that their numbers still hold.
    pub(in crate::promql) fn map_histograms(&mut self, f: &mut Change<'_>) {
        for (number, row) in self.rows.iter_mut().enumerate() {
            let Some(column) = &row.native else { continue };
            let mapped: Vec<_> = column
                .iter()
                .filter_map(|(step, h)| Some((*step, f(number, *step, h)?)))
                .collect();
            row.native = (!mapped.is_empty()).then(|| mapped.into());
        }
    }

    /// Joins rows into one with these labels.
    pub(super) fn join_elements(
        &self,
        members: &[usize],
        labels: Labels,
        joined: &mut Grid,
    ) -> Result<(), SameLabels> {
        let end = members.iter().map(|i| self.rows[*i].end()).max();
        let mut all = vec![Element::Absent; end.unwrap_or(0)];
        for i in members {
            for step in self.present(*i) {
                if !all[step].is_absent() {
                    return Err(SameLabels);
                }
                all[step] = self.element(*i, step);
            }
        }
        let pending = members.iter().any(|i| self.rows[*i].pending);
        joined.push_elements_for(pending, &labels, all);
        Ok(())
    }
}
