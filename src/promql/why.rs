//! Why a query gave nothing: the first place where elements got lost.
//!
//! A query that selects nothing is told from one whose operator found no matches;
//! of the latter, both sides' labels are shown as the operator compares them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::ast::{Binary, Expr, ExprKind, Matching, Span};
use super::engine::{Engine, EvalError};
use super::queryable::Queryable;
use super::value::Value;
use crate::model::{Labels, Timestamp};

/// So many label sets of a side are shown.
const SHOWN_MAX: usize = 20;

/// What made a vector empty.
#[derive(Clone, PartialEq, Debug)]
pub enum WhyEmpty {
    /// It is not empty, or no vector.
    NotEmpty,
    /// This selects no sample at that time.
    NoSamples {
        /// The selector or range.
        text: String,
        /// Where it stands.
        span: Span,
    },
    /// Both sides have elements, but none of one has a partner on the other, or
    /// none passed the comparison.
    NoMatch {
        /// The operator with its modifiers.
        operator: String,
        /// Where the operation stands.
        span: Span,
        /// The left side.
        left: Side,
        /// The right side.
        right: Side,
        /// Labels that both sides have with different values, or only one side has:
        /// candidates for `ignoring`.
        differ: Vec<String>,
    },
    /// Something in here filtered all elements, or gives none for other reasons.
    Filtered {
        /// The expression.
        text: String,
        /// Where it stands.
        span: Span,
    },
}

/// The elements of one side of an operator.
#[derive(Clone, PartialEq, Debug)]
pub struct Side {
    /// How many there are.
    pub elements: usize,
    /// The labels that are compared, each set once, not more than a few.
    pub compared: Vec<Labels>,
}

impl Engine {
    /// Says why a query is empty at a time: goes down to the first part that is
    /// empty though its own parts are not. Costs one query for each level.
    ///
    /// # Errors
    /// As [`Engine::instant`].
    pub fn why_empty(
        &self,
        data: &dyn Queryable,
        expr: &Expr,
        t: Timestamp,
        cancel: &Arc<AtomicBool>,
    ) -> Result<WhyEmpty, EvalError> {
        let ask = Ask {
            engine: self,
            data,
            t,
            cancel,
        };
        if ask.labels(expr)?.is_none_or(|labels| !labels.is_empty()) {
            return Ok(WhyEmpty::NotEmpty);
        }
        ask.explain(expr)
    }
}

struct Ask<'a> {
    engine: &'a Engine,
    data: &'a dyn Queryable,
    t: Timestamp,
    cancel: &'a Arc<AtomicBool>,
}

impl Ask<'_> {
    /// The label sets of a vector or range; `None` for what is neither.
    fn labels(&self, expr: &Expr) -> Result<Option<Vec<Labels>>, EvalError> {
        let output = self.engine.instant(self.data, expr, self.t, self.cancel)?;
        Ok(match output.value {
            Value::Vector { samples, .. } => {
                Some(samples.into_iter().map(|sample| sample.labels).collect())
            }
            Value::Matrix(series) => Some(series.into_iter().map(|one| one.labels).collect()),
            Value::Scalar { .. } | Value::String { .. } => None,
        })
    }

    /// The expression is known to be empty.
    fn explain(&self, expr: &Expr) -> Result<WhyEmpty, EvalError> {
        let (text, span) = (expr.to_string(), expr.span);
        match &expr.kind {
            ExprKind::Paren(inner) => return self.explain(inner),
            ExprKind::Unary(unary) => return self.explain(&unary.expr),
            ExprKind::Selector(_) | ExprKind::Matrix(_) => {
                return Ok(WhyEmpty::NoSamples { text, span });
            }
            ExprKind::Binary(binary) => return self.explain_binary(binary, span, text),
            _ => {}
        }
        for part in parts(expr) {
            if self.labels(part)?.is_some_and(|labels| labels.is_empty()) {
                return self.explain(part);
            }
        }
        Ok(WhyEmpty::Filtered { text, span })
    }

    fn explain_binary(
        &self,
        binary: &Binary,
        span: Span,
        text: String,
    ) -> Result<WhyEmpty, EvalError> {
        let mut sides = Vec::new();
        for side in [&binary.lhs, &binary.rhs] {
            match self.labels(side)? {
                Some(labels) if labels.is_empty() => return self.explain(side),
                Some(labels) => sides.push(labels),
                None => {}
            }
        }
        let [left, right] = sides.as_slice() else {
            return Ok(WhyEmpty::Filtered { text, span });
        };
        Ok(WhyEmpty::NoMatch {
            operator: binary.operator().to_string(),
            span,
            left: side(left, &binary.matching),
            right: side(right, &binary.matching),
            differ: differ(left, right, &binary.matching),
        })
    }
}

/// What a function or aggregation is made of.
fn parts(expr: &Expr) -> Vec<&Expr> {
    match &expr.kind {
        ExprKind::Call(call) => call.args.iter().collect(),
        ExprKind::Aggregate(aggregate) => vec![&aggregate.expr],
        ExprKind::Subquery(subquery) => vec![&subquery.expr],
        _ => Vec::new(),
    }
}

fn side(labels: &[Labels], matching: &Matching) -> Side {
    let mut compared = BTreeSet::new();
    for labels in labels {
        let kept = labels.iter().filter(|(name, _)| matching.compares(name));
        compared.insert(Labels::from_sorted(kept));
    }
    Side {
        elements: labels.len(),
        compared: compared.into_iter().take(SHOWN_MAX).collect(),
    }
}

/// The compared labels that have no value in common on both sides.
fn differ(left: &[Labels], right: &[Labels], matching: &Matching) -> Vec<String> {
    let values = |side: &[Labels], name: &str| -> BTreeSet<String> {
        let mut values = BTreeSet::new();
        values.extend(side.iter().map(|l| l.value(name).to_owned()));
        values
    };
    let both = left.iter().chain(right);
    let mut names = BTreeSet::new();
    names.extend(both.flat_map(|l| l.iter().map(|(name, _)| name)));
    names
        .into_iter()
        .filter(|name| matching.compares(name))
        .filter(|name| values(left, name).is_disjoint(&values(right, name)))
        .map(str::to_owned)
        .collect()
}
