//! What can be read from a store: series, samples, rows of the state tables.

use std::ops::Bound;

use bytes::Bytes;
use tokio::sync::watch;

use super::batch::SeriesId;
use super::state::Table;
use super::{Error, Store, rows, select};
use crate::model::{Labels, Matcher, Timestamp};
use crate::promql::queryable::{Reduce, Reduced, Take};
use crate::promql::{HistogramSeries, QueryError, Queryable, SelectHints, Series};

impl Store {
    /// The id of a series that is in the index. It stays valid at least for the
    /// retention after the series' last sample.
    pub fn resolve(&self, labels: &Labels) -> Option<SeriesId> {
        self.shared.index().lookup(labels).map(SeriesId)
    }

    /// The label sets of series that fulfil one of the selectors (each a list of
    /// matchers) and have samples in `start..=end`, sorted, at most `limit`.
    pub fn series(
        &self,
        selectors: &[Vec<Matcher>],
        start: Timestamp,
        end: Timestamp,
        limit: usize,
    ) -> Result<Vec<Labels>, QueryError> {
        select::series(&self.shared, selectors, start, end, limit)
    }

    /// The label names of those series; of all series when `selectors` is empty.
    pub fn label_names(
        &self,
        selectors: &[Vec<Matcher>],
        start: Timestamp,
        end: Timestamp,
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        select::label_names(&self.shared, selectors, start, end, limit)
    }

    /// The values of `name` in those series; of all series when `selectors` is empty.
    pub fn label_values(
        &self,
        name: &str,
        selectors: &[Vec<Matcher>],
        start: Timestamp,
        end: Timestamp,
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        select::label_values(&self.shared, name, selectors, start, end, limit)
    }

    /// One row of a state table.
    ///
    /// # Errors
    /// When it cannot be read or does not match its checksum.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        rows::get(&self.shared, table, key)
    }

    /// Rows of a state table in key order, at most `limit`. A row that does not
    /// match its checksum is left out and counted.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        rows::scan(&self.shared, table, range, limit, false)
    }

    /// As [`Store::scan`], the last row of the range first.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn scan_back(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        rows::scan(&self.shared, table, range, limit, true)
    }

    /// How many rows a state table has.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn count(&self, table: Table) -> Result<usize, Error> {
        rows::count(&self.shared, table)
    }

    /// Turns to a new number after each commit that changed `table`.
    pub fn changes(&self, table: Table) -> watch::Receiver<u64> {
        self.shared.changes(table).subscribe()
    }
}

impl Queryable for Store {
    fn select(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<Series>, QueryError> {
        select::select(&self.shared, start, end, matchers, hints)
    }

    fn histograms(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Vec<HistogramSeries>, QueryError> {
        select::histograms(&self.shared, (start, end), matchers, hints)
    }

    fn reduced(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        reduce: Reduce,
    ) -> Option<Reduced> {
        select::reduced(&self.shared, (start, end), matchers, reduce)
    }

    fn version(&self) -> Option<u64> {
        Some(self.shared.changed.version())
    }

    fn changed_since(&self, version: u64) -> Timestamp {
        Timestamp::from_ms(self.shared.changed.since(version))
    }

    fn for_each(
        &self,
        start: Timestamp,
        end: Timestamp,
        matchers: &[Matcher],
        hints: &SelectHints,
        takers: &mut [&mut Take<'_>],
    ) -> Result<(), QueryError> {
        select::for_each(&self.shared, (start, end), matchers, hints, takers)
    }
}
