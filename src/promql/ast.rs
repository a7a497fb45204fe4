//! The parsed query. Replaced by the full tree.

/// An expression.
#[derive(Clone, PartialEq, Debug)]
pub struct Expr {}
