//! The embedded time-series store: the only place that knows redb.
//!
//! Owns every file of the data directory, the writer thread (the only one with
//! write transactions on `hot.redb`) and the sealer thread (its own files).
//!
//! It must never acknowledge before the transaction is durable, wait for
//! another part of the process, or let a redb type out.

pub mod batch;
pub mod sealed;
pub mod state;

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

pub use batch::{
    CommitSeq, Committed, Item, ItemOutcome, Refusal, Row, SeriesId, SeriesKey, StateOp, Urgency,
    WriteBatch,
};
pub use state::Table;

use crate::config;
use crate::model::{Clock, Labels, Matcher, Timestamp};
use crate::promql::{QueryError, Queryable, SelectHints, Series};
use crate::telemetry::Metrics;

/// What the store needs to know to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made when missing.
    pub dir: PathBuf,
    /// `[store]`
    pub store: config::Store,
    /// `[limits]`
    pub limits: config::Limits,
    /// Differing series limits of single tenants.
    pub tenants: Vec<config::Tenant>,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the directory.
    #[error("data directory {dir} is in use by process {pid}")]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The holder.
        pid: String,
    },
    /// The store is stopping or stopped.
    #[error("the store is closed")]
    Closed,
    /// The disk refused the transaction; it is kept and tried again.
    #[error("cannot commit")]
    Commit(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A handle to the open store. Cloning gives another handle.
#[derive(Clone)]
pub struct Store {}

/// Figures for pages and `/api/v1/status/tsdb`.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Series in the index.
    pub series: u64,
    /// Samples in the open window, in memory.
    pub head_samples: u64,
    /// The earliest stored time.
    pub min_time: Option<Timestamp>,
    /// The latest stored time.
    pub max_time: Option<Timestamp>,
    /// Bytes on disk, as allocated.
    pub disk_bytes: u64,
}

#[expect(clippy::todo, unused_variables, reason = "skeleton")]
impl Store {
    /// Opens the directory, replays the log and starts the writer and the sealer.
    /// Blocking; call it off the runtime's workers.
    ///
    /// # Errors
    /// When the directory is held by another process or cannot be read.
    pub fn open(options: Options, clock: Clock, metrics: Arc<Metrics>) -> Result<Store, Error> {
        todo!()
    }

    /// Hands a batch to the writer and waits as its urgency says. Waits for room
    /// in the queue first. Cancel-safe until the batch is handed over; after
    /// that it is written in any case.
    ///
    /// # Errors
    /// [`Error::Closed`] when the store stops.
    pub async fn write(&self, batch: WriteBatch) -> Result<Committed, Error> {
        todo!()
    }

    /// The id of a series that is in the index.
    pub fn resolve(&self, labels: &Labels) -> Option<SeriesId> {
        todo!()
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
        todo!()
    }

    /// The label names of those series; of all series when `selectors` is empty.
    pub fn label_names(
        &self,
        selectors: &[Vec<Matcher>],
        start: Timestamp,
        end: Timestamp,
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        todo!()
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
        todo!()
    }

    /// One row of a state table.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        todo!()
    }

    /// Rows of a state table in key order, at most `limit`.
    pub fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        todo!()
    }

    /// Turns to a new number after each commit that changed `table`.
    pub fn changes(&self, table: Table) -> watch::Receiver<u64> {
        todo!()
    }

    /// Figures for pages.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Ends when the writer has ended, expectedly or not.
    pub async fn closed(&self) {
        todo!()
    }

    /// Commits what there is and ends the threads. Further writes are refused.
    pub async fn close(&self) {
        todo!()
    }
}

impl Queryable for Store {
    fn select(
        &self,
        _start: Timestamp,
        _end: Timestamp,
        _matchers: &[Matcher],
        _hints: &SelectHints,
    ) -> Result<Vec<Series>, QueryError> {
        Ok(Vec::new())
    }
}
