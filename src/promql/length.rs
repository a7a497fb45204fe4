//! Lengths of time in a query: how wide a window is, how far an offset goes.
//!
//! Most are constants. An expression of constants is computed by the parser and
//! kept only to be printed; one with `step()` or `range()` waits for the query
//! that it is part of. Computed in seconds as floats, cut off to milliseconds.

use std::fmt;

use super::ast::{BinaryOp, Number};
use super::math;

/// A length of time.
#[derive(Clone, Default, Debug)]
pub struct Length {
    /// Its milliseconds, unless they depend on the query.
    pub ms: i64,
    /// How it was written, when as more than a number.
    pub expr: Option<Box<LengthExpr>>,
}

impl Length {
    /// A length that was written as a number or duration.
    pub fn constant(ms: i64) -> Length {
        Length { ms, expr: None }
    }

    /// Whether it depends on the query.
    pub fn depends_on_query(&self) -> bool {
        self.expr
            .as_ref()
            .is_some_and(|expr| expr.depends_on_query())
    }

    /// Whether it was left out.
    pub fn is_none(&self) -> bool {
        self.ms == 0 && self.expr.is_none()
    }
}

/// By what was written.
impl PartialEq for Length {
    fn eq(&self, other: &Length) -> bool {
        match (&self.expr, &other.expr) {
            (None, None) => self.ms == other.ms,
            (a, b) => a == b,
        }
    }
}

/// What a length is computed from.
#[derive(Clone, PartialEq, Debug)]
pub enum LengthExpr {
    /// Seconds.
    Number(Number),
    /// `step()`: the distance of the query's steps; nothing for an instant query.
    Step,
    /// `range()`: from the query's first to its last step.
    Range,
    /// `-a`, or `+a`.
    Signed {
        /// Whether the sign is a minus.
        negative: bool,
        /// What is signed.
        inner: Box<LengthExpr>,
    },
    /// `a + b`
    Binary {
        /// An arithmetic operator.
        op: BinaryOp,
        /// The left side.
        lhs: Box<LengthExpr>,
        /// The right side.
        rhs: Box<LengthExpr>,
    },
    /// `min_of(a, b)` or `max_of(a, b)`
    Pick {
        /// As it was written.
        name: PickName,
        /// The first.
        lhs: Box<LengthExpr>,
        /// The second.
        rhs: Box<LengthExpr>,
    },
    /// `(a)`
    Paren(Box<LengthExpr>),
}

/// The functions that choose one of two lengths; the short names came first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum PickName {
    Min,
    Max,
    MinOf,
    MaxOf,
}

impl PickName {
    /// The function with this name, in any case.
    pub(super) fn named(name: &str) -> Option<PickName> {
        let all = [
            PickName::Min,
            PickName::Max,
            PickName::MinOf,
            PickName::MaxOf,
        ];
        all.into_iter()
            .find(|pick| pick.as_str().eq_ignore_ascii_case(name))
    }

    fn as_str(self) -> &'static str {
        match self {
            PickName::Min => "min",
            PickName::Max => "max",
            PickName::MinOf => "min_of",
            PickName::MaxOf => "max_of",
        }
    }
}

/// What the query says, in seconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct QueryLengths {
    /// The distance of steps; 0 for an instant query.
    pub step: f64,
    /// From the first to the last step.
    pub range: f64,
}

impl LengthExpr {
    /// Whether it needs the query to be computed.
    pub fn depends_on_query(&self) -> bool {
        match self {
            LengthExpr::Number(_) => false,
            LengthExpr::Step | LengthExpr::Range => true,
            LengthExpr::Signed { inner, .. } | LengthExpr::Paren(inner) => inner.depends_on_query(),
            LengthExpr::Binary { lhs, rhs, .. } | LengthExpr::Pick { lhs, rhs, .. } => {
                lhs.depends_on_query() || rhs.depends_on_query()
            }
        }
    }

    /// Its milliseconds.
    ///
    /// # Errors
    /// On a division by zero, and when the length does not fit.
    pub fn ms(&self, query: QueryLengths) -> Result<i64, String> {
        let seconds = self.seconds(query)?;
        let ms = seconds * 1000.0;
        // As Prometheus: the length in nanoseconds must fit into 64 bits.
        if !(ms * 1e6).is_finite() || (ms * 1e6).abs() >= i64::MAX as f64 {
            return Err("duration is out of range".to_owned());
        }
        Ok(crate::model::Timestamp::from_secs_f64(ms.trunc() / 1000.0).as_ms())
    }

    fn seconds(&self, query: QueryLengths) -> Result<f64, String> {
        Ok(match self {
            LengthExpr::Number(number) => number.value,
            LengthExpr::Step => query.step,
            LengthExpr::Range => query.range,
            LengthExpr::Signed { negative, inner } => {
                let inner = inner.seconds(query)?;
                if *negative { -inner } else { inner }
            }
            LengthExpr::Paren(inner) => inner.seconds(query)?,
            LengthExpr::Pick { name, lhs, rhs } => {
                let (a, b) = (lhs.seconds(query)?, rhs.seconds(query)?);
                match name {
                    PickName::Min | PickName::MinOf => math::min(a, b),
                    PickName::Max | PickName::MaxOf => math::max(a, b),
                }
            }
            LengthExpr::Binary { op, lhs, rhs } => {
                let (a, b) = (lhs.seconds(query)?, rhs.seconds(query)?);
                match op {
                    BinaryOp::Div if b == 0.0 => return Err("division by zero".to_owned()),
                    BinaryOp::Mod if b == 0.0 => return Err("modulo by zero".to_owned()),
                    op => math::arithmetic(*op, a, b),
                }
            }
        })
    }
}

impl fmt::Display for LengthExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LengthExpr::Number(number) => number.fmt(f),
            LengthExpr::Step => f.write_str("step()"),
            LengthExpr::Range => f.write_str("range()"),
            LengthExpr::Signed { negative, inner } => {
                write!(f, "{}{inner}", if *negative { "-" } else { "+" })
            }
            LengthExpr::Binary { op, lhs, rhs } => write!(f, "{lhs} {} {rhs}", op.as_str()),
            LengthExpr::Pick { name, lhs, rhs } => write!(f, "{}({lhs}, {rhs})", name.as_str()),
            LengthExpr::Paren(inner) => write!(f, "({inner})"),
        }
    }
}
