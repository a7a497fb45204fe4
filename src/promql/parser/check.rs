//! Types and arguments: what a well-formed text may still get wrong.
//!
//! In Prometheus' order and words, because people search for them.

use super::super::ast::{
    Aggregate, Binary, Bounds, Call, Card, Expr, ExprKind, Selector, Span, Type,
};
use super::super::literal::GoQuoted;
use super::super::signature::{Kind, Optional};
use super::super::window::WindowFunction as W;
use super::{Parsed, error};

/// Checks a whole expression and gives its type.
pub(super) fn check(expr: &Expr) -> Parsed<Type> {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Selector(selector) => check_selector(selector, expr.span)?,
        ExprKind::Matrix(matrix) => check_selector(&matrix.selector, expr.span)?,
        ExprKind::Subquery(subquery) => {
            let got = check(&subquery.expr)?;
            if got != Type::Vector {
                let message = format!(
                    "subquery is only allowed on instant vector, got {} instead",
                    got.api_name()
                );
                return Err(error(expr.span, message));
            }
        }
        ExprKind::Call(call) => check_call(call, expr.span)?,
        ExprKind::Aggregate(aggregate) => check_aggregate(aggregate)?,
        ExprKind::Binary(binary) => check_binary(binary, expr.span)?,
        ExprKind::Unary(unary) => {
            let got = check(&unary.expr)?;
            if !matches!(got, Type::Scalar | Type::Vector) {
                let message = format!(
                    "unary expression only allowed on expressions of type scalar or instant vector, got {}",
                    GoQuoted(got.as_str())
                );
                return Err(error(expr.span, message));
            }
        }
        ExprKind::Paren(inner) => {
            check(inner)?;
        }
    }
    Ok(expr.value_type())
}

/// What is said of a selector that selects everything.
pub const MATCHES_ALL: &str = "vector selector must contain at least one non-empty matcher";

fn check_selector(selector: &Selector, span: Span) -> Parsed<()> {
    if selector.matchers.iter().all(|m| m.matches("")) {
        return Err(error(span, MATCHES_ALL.to_owned()));
    }
    Ok(())
}

fn check_call(call: &Call, span: Span) -> Parsed<()> {
    let function = call.function;
    let most = function.args.len();
    let (least, most) = match function.optional {
        Optional::No => (most, Some(most)),
        Optional::Last => (most - 1, Some(most)),
        Optional::Repeat => (most - 1, None),
    };
    let got = call.args.len();
    let wanted = if got < least {
        Some(("at least ", least))
    } else {
        most.filter(|most| got > *most)
            .map(|most| ("at most ", most))
    };
    if let Some((bound, count)) = wanted {
        let bound = if function.optional == Optional::No {
            ""
        } else {
            bound
        };
        let message = format!(
            "expected {bound}{count} argument(s) in call to \"{}\", got {got}",
            function.name
        );
        return Err(error(span, message));
    }
    if let Kind::HistogramQuantiles = function.kind
        && got > least + QUANTILES_MAX
    {
        let most = least + QUANTILES_MAX;
        let message = format!(
            "expected at most {most} argument(s) in call to \"{}\", got {got}",
            function.name
        );
        return Err(error(span, message));
    }
    for (i, arg) in call.args.iter().enumerate() {
        if let (Kind::Info, 1) = (function.kind, i) {
            check_info_selector(arg)?;
            continue;
        }
        check_bounds(call, arg)?;
        let want = function.args[i.min(function.args.len() - 1)];
        expect(arg, want, || {
            format!("call to function \"{}\"", function.name)
        })?;
    }
    Ok(())
}

/// Quantiles of one call of `histogram_quantiles`.
const QUANTILES_MAX: usize = 10;

/// The second argument of `info` is written as a selector but is none: it may
/// consist of matchers only, whether or not they match the empty text.
fn check_info_selector(arg: &Expr) -> Parsed<()> {
    let message = match &arg.kind {
        ExprKind::Selector(selector) if !selector.is_bare() => {
            "info: the second argument must not have modifiers"
        }
        ExprKind::Selector(selector) if selector.name.is_empty() => return Ok(()),
        _ => "expected label selectors only",
    };
    Err(error(arg.span, message.to_owned()))
}

/// `anchored` and `smoothed` mean something to some functions only.
fn check_bounds(call: &Call, arg: &Expr) -> Parsed<()> {
    let ExprKind::Matrix(matrix) = &arg.without_parens().kind else {
        return Ok(());
    };
    let bounds = matrix.selector.bounds;
    let (fits, names) = match (bounds, call.function.kind) {
        (Bounds::Inside, _) => return Ok(()),
        (Bounds::Anchored, kind) => (
            matches!(
                kind,
                Kind::Window(W::Changes | W::Delta | W::Increase | W::Rate | W::Resets)
            ),
            "changes, delta, increase, rate, resets",
        ),
        (Bounds::Smoothed, kind) => (
            matches!(kind, Kind::Window(W::Delta | W::Increase | W::Rate)),
            "delta, increase, rate",
        ),
    };
    if fits {
        return Ok(());
    }
    let message = format!(
        "{} modifier can only be used with: {names} - not with {}",
        bounds.as_str(),
        call.function.name
    );
    Err(error(arg.span, message))
}

fn check_aggregate(aggregate: &Aggregate) -> Parsed<()> {
    expect(&aggregate.expr, Type::Vector, || {
        "aggregation expression".to_owned()
    })?;
    if let (Some(want), Some(param)) = (aggregate.op.param_type(), &aggregate.param) {
        expect(param, want, || "aggregation parameter".to_owned())?;
    }
    Ok(())
}

fn check_binary(binary: &Binary, span: Span) -> Parsed<()> {
    let left = check(&binary.lhs)?;
    let right = check(&binary.rhs)?;
    let op = binary.op;
    let matching = &binary.matching;
    let fail = |message: String| Err(error(span, message));
    if binary.returns_bool && !op.is_comparison() {
        return fail("bool modifier can only be used on comparison operators".to_owned());
    }
    if op.is_comparison() && !binary.returns_bool && binary.value_type == Type::Scalar {
        return fail("comparisons between scalars must use BOOL modifier".to_owned());
    }
    let both = matching
        .labels
        .iter()
        .find(|label| matching.on && matching.include.contains(label));
    if let Some(label) = both {
        return fail(format!(
            "label {} must not occur in ON and GROUP clause at once",
            GoQuoted(label)
        ));
    }
    for (side, got) in [(&binary.lhs, left), (&binary.rhs, right)] {
        if !matches!(got, Type::Scalar | Type::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return Err(error(side.span, message.to_owned()));
        }
    }
    if (left, right) != (Type::Vector, Type::Vector) {
        if !matching.labels.is_empty() {
            return fail("vector matching only allowed between instant vectors".to_owned());
        }
        if !matching.fill.is_none() {
            return fail(
                "filling in missing series only allowed between instant vectors".to_owned(),
            );
        }
        if op.is_set() {
            return fail(format!(
                "set operator {} not allowed in binary scalar expression",
                GoQuoted(op.as_str())
            ));
        }
    } else if op.is_set() && !matching.fill.is_none() {
        return fail("filling in missing series not allowed for set operators".to_owned());
    } else if op.is_set() && matching.card != Card::ManyToMany {
        return fail(format!(
            "no grouping allowed for {} operation",
            GoQuoted(op.as_str())
        ));
    }
    Ok(())
}

/// The expression must be right in itself and of the wanted type.
fn expect(expr: &Expr, want: Type, context: impl Fn() -> String) -> Parsed<()> {
    let got = check(expr)?;
    if got != want {
        let message = format!(
            "expected type {} in {}, got {}",
            want.as_str(),
            context(),
            got.as_str()
        );
        return Err(error(expr.span, message));
    }
    Ok(())
}
