//! An expression on several lines: what is longer than a line is split at its
//! operators and arguments, as Prometheus' `format_query` does.

use std::fmt::Write;

use super::ast::{Aggregate, Binary, Call, Expr, ExprKind};
use super::printer::INFINITY;

/// What fits on a line, in bytes; indentation does not count.
const LINE_MAX: usize = 100;

impl Expr {
    /// The canonical text, broken into lines where it is long.
    ///
    /// Every level of the tree is printed once more to see whether it fits, so
    /// the cost is the length of the text times the height of the tree.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.write_pretty(0, &mut out);
        out
    }

    fn write_pretty(&self, level: usize, out: &mut String) {
        let text = self.to_string();
        if text.len() <= LINE_MAX {
            indent(level, out);
            out.push_str(&text);
            return;
        }
        match &self.kind {
            ExprKind::Aggregate(aggregate) => pretty_aggregate(aggregate, level, out),
            ExprKind::Binary(binary) => pretty_binary(binary, level, out),
            ExprKind::Call(call) => pretty_call(call, level, out),
            ExprKind::Paren(inner) => {
                indent(level, out);
                out.push_str("(\n");
                inner.write_pretty(level + 1, out);
                out.push('\n');
                indent(level, out);
                out.push(')');
            }
            ExprKind::Unary(unary) => {
                let mut inner = String::new();
                unary.expr.write_pretty(level, &mut inner);
                indent(level, out);
                out.push(if unary.negative { '-' } else { '+' });
                out.push_str(inner.trim());
            }
            ExprKind::Subquery(subquery) => {
                subquery.expr.write_pretty(level, out);
                // What follows the inner expression.
                out.push_str(&text[subquery.expr.to_string().len()..]);
            }
            ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Selector(_)
            | ExprKind::Matrix(_) => {
                indent(level, out);
                out.push_str(&text);
            }
        }
    }
}

fn pretty_aggregate(aggregate: &Aggregate, level: usize, out: &mut String) {
    indent(level, out);
    write!(out, "{}(", aggregate.head()).expect("writing to a String works");
    out.push('\n');
    if let Some(param) = &aggregate.param {
        param.write_pretty(level + 1, out);
        out.push_str(",\n");
    }
    aggregate.expr.write_pretty(level + 1, out);
    out.push('\n');
    indent(level, out);
    out.push(')');
}

fn pretty_binary(binary: &Binary, level: usize, out: &mut String) {
    if binary.raises_infinity() {
        indent(level + 1, out);
        out.push_str(INFINITY);
    } else {
        binary.lhs.write_pretty(level + 1, out);
    }
    out.push('\n');
    indent(level, out);
    write!(out, "{}", binary.operator()).expect("writing to a String works");
    out.push('\n');
    binary.rhs.write_pretty(level + 1, out);
}

fn pretty_call(call: &Call, level: usize, out: &mut String) {
    indent(level, out);
    out.push_str(call.function.name);
    out.push_str("(\n");
    for (i, arg) in call.args.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ",\n" });
        arg.write_pretty(level + 1, out);
    }
    out.push('\n');
    indent(level, out);
    out.push(')');
}

fn indent(level: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", level));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::promql::parse;

    fn check(text: &str, want: &str) {
        assert_eq!(parse(text).unwrap().pretty(), want);
    }

    #[test]
    fn short_queries_stay_on_one_line() {
        check("sum by(a)(rate(x[5m]))", "sum by (a) (rate(x[5m]))");
        check("a+b", "a + b");
    }

    #[test]
    fn long_queries_are_split_at_operators_and_arguments() {
        let selector = |c: &str| format!("{}{{job=\"x\"}}", c.repeat(45));
        let (a, b) = (selector("a"), selector("b"));
        check(
            &format!("{a} / on(x) {b}"),
            &format!("  {a}\n/ on (x)\n  {b}"),
        );
        check(
            &format!("topk(3, {a} > bool {b})"),
            &format!("topk(\n  3,\n    {a}\n  > bool\n    {b}\n)"),
        );
        check(
            &format!("sum by (z) (({a} + {b}))"),
            &format!("sum by (z) (\n  (\n      {a}\n    +\n      {b}\n  )\n)"),
        );
        check(
            &format!("label_replace({a} or {b}, \"x\", \"$1\", \"y\", \"z\")"),
            &format!(
                "label_replace(\n    {a}\n  or\n    {b},\n  \"x\",\n  \"$1\",\n  \"y\",\n  \"z\"\n)"
            ),
        );
        check(
            &format!("rate(sum({a} + {b})[5m:1m])"),
            &format!("rate(\n  sum(\n      {a}\n    +\n      {b}\n  )[5m:1m]\n)"),
        );
        check(
            &format!("-({a} + {b})"),
            &format!("-(\n    {a}\n  +\n    {b}\n)"),
        );
    }

    proptest! {
        /// Line breaks change nothing.
        #[test]
        fn the_pretty_text_parses_to_the_same(parts in prop::collection::vec(
            prop::sample::select(vec!["rate(foo_bar_baz_total{job=\"a\"}[5m])", "(up)", "-up", "1"]), 1..9,
        )) {
            let text = format!("sum by (a) (abs({}))", parts.join(" + on (x) group_left (y) "));
            if let Ok(expr) = parse(&text) {
                prop_assert_eq!(parse(&expr.pretty()), Ok(expr));
            }
        }
    }
}
