//! PromQL: text to AST to values.
//!
//! Owns nothing. [`Queryable`] is the only seam: `store` implements it, and the
//! script tests implement it on series written in a text file.
//!
//! It must never do I/O, read a clock or know tokio; a caller that wants to stop
//! a query sets the flag that it passed in.

mod annotations;
pub mod ast;
mod cache;
mod date;
pub mod engine;
mod eval;
pub mod features;
mod grid;
mod histogram;
pub mod length;
mod lexer;
mod literal;
pub(crate) mod math;
pub mod parser;
mod pretty;
mod printer;
pub mod queryable;
pub mod signature;
pub mod value;
mod why;
mod window;

pub use ast::Expr;
pub use cache::RangeCache;
pub use engine::{Engine, EvalError, Options};
pub use features::Features;
pub use parser::{MATCHES_ALL, ParseError, parse, parse_selector, parse_with};
pub use queryable::{Gaps, HistogramSeries, QueryError, Queryable, SelectHints, Series};
pub use value::{Output, RangeSeries, Value, VectorSample};
pub use why::{Side, WhyEmpty};
