//! PromQL: text to AST to values.
//!
//! Owns nothing. [`Queryable`] is the only seam: `store` implements it, and the
//! script tests implement it on series written in a text file.
//!
//! It must never do I/O, read a clock or know tokio; a caller that wants to stop
//! a query sets the cancel flag of [`engine::Context`].

pub mod ast;
pub mod engine;
pub mod parser;
pub mod queryable;
pub mod value;

pub use ast::Expr;
pub use engine::{Engine, EvalError};
pub use parser::{ParseError, parse};
pub use queryable::{QueryError, Queryable, SelectHints, Series};
pub use value::{Output, RangeSeries, Value, VectorSample};
