//! Every part of the language has a script that says what it gives.

use std::collections::BTreeSet;

use pulse::promql::ast::{AggregateOp, BinaryOp, Expr, ExprKind};
use pulse::promql::{parse, signature};

/// Functions of which no value can be expected.
const GIVES_NOTHING: [&str; 1] = ["start_timestamp"];

#[test]
fn every_function_and_operator_has_an_eval_with_a_value() {
    let (mut with_value, mut any) = (BTreeSet::new(), BTreeSet::new());
    for (_, script) in super::scripts() {
        for (query, has_value) in script.queries() {
            let Ok(expr) = parse(query) else { continue };
            names(&expr, &mut any);
            if has_value {
                names(&expr, &mut with_value);
            }
        }
    }
    let functions = signature::functions().iter().map(|f| f.name);
    let aggregations = AggregateOp::ALL.iter().map(|op| op.as_str());
    let operators = BinaryOp::ALL.iter().map(|op| op.as_str());
    let all: Vec<&str> = functions.chain(aggregations).chain(operators).collect();
    assert!(all.len() > 110, "the tables are read");
    let missing: Vec<&&str> = all
        .iter()
        .filter(|name| !with_value.contains(**name))
        .filter(|name| !(GIVES_NOTHING.contains(*name) && any.contains(**name)))
        .collect();
    assert!(missing.is_empty(), "no eval with a value: {missing:?}");
}

/// The names of everything that an expression is made of.
fn names(expr: &Expr, found: &mut BTreeSet<&'static str>) {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Selector(_) | ExprKind::Matrix(_) => {}
        ExprKind::Subquery(subquery) => names(&subquery.expr, found),
        ExprKind::Call(call) => {
            found.insert(call.function.name);
            call.args.iter().for_each(|arg| names(arg, found));
        }
        ExprKind::Aggregate(aggregate) => {
            found.insert(aggregate.op.as_str());
            names(&aggregate.expr, found);
            aggregate.param.iter().for_each(|param| names(param, found));
        }
        ExprKind::Binary(binary) => {
            found.insert(binary.op.as_str());
            names(&binary.lhs, found);
            names(&binary.rhs, found);
        }
        ExprKind::Unary(unary) => names(&unary.expr, found),
        ExprKind::Paren(inner) => names(inner, found),
    }
}
