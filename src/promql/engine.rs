//! Evaluates expressions.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::ast::Expr;
use super::queryable::{QueryError, Queryable};
use super::value::Output;
use crate::model::Timestamp;

/// Limits and defaults of the engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far back an instant selector looks.
    pub lookback: Duration,
    /// The step of a subquery that names none.
    pub subquery_step: Duration,
    /// Samples that one query may hold.
    pub samples_max: usize,
    /// Series that one selector may select.
    pub series_max: usize,
}

/// The evaluator. Cheap to clone; holds no state between queries.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Limits and defaults.
    pub options: Options,
}

/// Why a query gave no value.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The query makes no sense on this data, in Prometheus' words.
    #[error("{0}")]
    Execution(String),
    /// Reading failed, a limit was passed, or the query was cancelled.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Engine {
    /// The value at one time.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn instant(
        &self,
        _data: &dyn Queryable,
        _expr: &Expr,
        _t: Timestamp,
        _cancel: &Arc<AtomicBool>,
    ) -> Result<Output, EvalError> {
        Err(EvalError::Execution("not built yet".to_owned()))
    }

    /// The values at `start`, `start + step`, ... up to `end`, as a matrix.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn range(
        &self,
        _data: &dyn Queryable,
        _expr: &Expr,
        _start: Timestamp,
        _end: Timestamp,
        _step: Duration,
        _cancel: &Arc<AtomicBool>,
    ) -> Result<Output, EvalError> {
        Err(EvalError::Execution("not built yet".to_owned()))
    }
}
