//! `/api/v1/format_query` and `/api/v1/parse_query`: the language without data.

use axum::extract::State;
use axum::response::Response;

use super::json::{self, Object};
use super::params::Params;
use crate::promql;
use crate::promql::ast::{
    Aggregate, At, Binary, Bounds, Call, Card, Expr, ExprKind, Matching, Matrix, Selector,
    Subquery, Type,
};
use crate::promql::length::Length;
use crate::promql::signature::Optional;
use crate::web::Context;
use crate::web::error::ApiError;

/// The query in canonical form, on several lines when it is long.
pub async fn format_query(
    State(context): State<Context>,
    params: Params,
) -> Result<Response, ApiError> {
    let expr = parsed(&context, &params)?;
    Ok(json::respond(json::success(&[], &[], |out| {
        json::html_safe_string(out, &expr.pretty());
    })))
}

/// The query as a tree, in the form in which Prometheus' own pages take it.
pub async fn parse_query(
    State(context): State<Context>,
    params: Params,
) -> Result<Response, ApiError> {
    let expr = parsed(&context, &params)?;
    Ok(json::respond(json::success(&[], &[], |out| {
        node(out, &expr);
    })))
}

fn parsed(context: &Context, params: &Params) -> Result<Expr, ApiError> {
    promql::parse_with(params.get("query"), context.engine.options.features)
        .map_err(|err| ApiError::parse("query", &err))
}

/// One node with all below it. As deep as the tree, whose height is bounded.
fn node(out: &mut Vec<u8>, expr: &Expr) {
    let mut object = Object::new(out);
    match &expr.kind {
        ExprKind::Number(number) => {
            object.text("type", "numberLiteral");
            object.text("val", &json::go_float(number.value));
        }
        ExprKind::String(text) => {
            object.text("type", "stringLiteral").text("val", text);
        }
        ExprKind::Selector(selector) => {
            object.text("type", "vectorSelector");
            write_selector(&mut object, selector);
        }
        ExprKind::Matrix(matrix) => write_matrix(&mut object, matrix),
        ExprKind::Subquery(subquery) => write_subquery(&mut object, subquery),
        ExprKind::Call(call) => write_call(&mut object, call),
        ExprKind::Aggregate(aggregate) => write_aggregate(&mut object, aggregate),
        ExprKind::Binary(binary) => write_binary(&mut object, binary),
        ExprKind::Unary(unary) => {
            object.text("type", "unaryExpr");
            object.text("op", if unary.negative { "-" } else { "+" });
            node(object.field("expr"), &unary.expr);
        }
        ExprKind::Paren(inner) => {
            object.text("type", "parenExpr");
            node(object.field("expr"), inner);
        }
    }
    object.end();
}

fn write_selector(object: &mut Object<'_>, selector: &Selector) {
    object.text("name", &selector.name);
    length(object, "offset", &selector.offset);
    json::array(object.field("matchers"), &selector.matchers, |out, m| {
        Object::new(out)
            .text("name", &m.name)
            .text("value", &m.value)
            .text("type", m.op.as_str())
            .end();
    });
    at(object, selector.at);
    object.boolean("anchored", selector.bounds == Bounds::Anchored);
    object.boolean("smoothed", selector.bounds == Bounds::Smoothed);
}

fn write_matrix(object: &mut Object<'_>, matrix: &Matrix) {
    object.text("type", "matrixSelector");
    length(object, "range", &matrix.range);
    write_selector(object, &matrix.selector);
}

fn write_subquery(object: &mut Object<'_>, subquery: &Subquery) {
    object.text("type", "subquery");
    node(object.field("expr"), &subquery.expr);
    length(object, "range", &subquery.range);
    length(object, "offset", &subquery.offset);
    length(
        object,
        "step",
        subquery.step.as_ref().unwrap_or(&Length::default()),
    );
    at(object, subquery.at);
}

fn write_call(object: &mut Object<'_>, call: &Call) {
    object.text("type", "call");
    let function = call.function;
    let mut described = Object::new(object.field("func"));
    described.text("name", function.name);
    json::array(
        described.field("argTypes"),
        function.args,
        |out, kind: &Type| {
            json::string(out, kind.api_name());
        },
    );
    let variadic = match function.optional {
        Optional::No => 0,
        Optional::Last => 1,
        Optional::Repeat => -1,
    };
    described.integer("variadic", variadic);
    described.text("returnType", function.returns.api_name());
    described.end();
    json::array(object.field("args"), &call.args, node);
}

fn write_aggregate(object: &mut Object<'_>, aggregate: &Aggregate) {
    object.text("type", "aggregation");
    object.text("op", aggregate.op.as_str());
    node(object.field("expr"), &aggregate.expr);
    match &aggregate.param {
        Some(param) => node(object.field("param"), param),
        None => json::raw(object.field("param"), "null"),
    }
    texts(object, "grouping", &aggregate.labels);
    object.boolean("without", aggregate.without);
}

fn write_binary(object: &mut Object<'_>, binary: &Binary) {
    object.text("type", "binaryExpr");
    object.text("op", binary.op.as_str());
    node(object.field("lhs"), &binary.lhs);
    node(object.field("rhs"), &binary.rhs);
    let vectors = [&binary.lhs, &binary.rhs].map(|side| side.value_type() == Type::Vector);
    if vectors == [true, true] {
        write_matching(object, &binary.matching);
    } else {
        json::raw(object.field("matching"), "null");
    }
    object.boolean("bool", binary.returns_bool);
}

fn write_matching(object: &mut Object<'_>, matching: &Matching) {
    let card = match matching.card {
        Card::OneToOne => "one-to-one",
        Card::ManyToOne => "many-to-one",
        Card::OneToMany => "one-to-many",
        Card::ManyToMany => "many-to-many",
    };
    let mut object = Object::new(object.field("matching"));
    object.text("card", card);
    texts(&mut object, "labels", &matching.labels);
    object.boolean("on", matching.on);
    texts(&mut object, "include", &matching.include);
    let mut fill = Object::new(object.field("fillValues"));
    for (name, v) in [("lhs", matching.fill.left), ("rhs", matching.fill.right)] {
        match v {
            Some(v) => drop(fill.text(name, &json::go_float(v))),
            None => json::raw(fill.field(name), "null"),
        }
    }
    fill.end();
    object.end();
}

/// Milliseconds, with the text beside them when it was an expression.
fn length(object: &mut Object<'_>, name: &str, length: &Length) {
    object.integer(name, length.ms);
    if let Some(expr) = &length.expr {
        object.text(&format!("{name}Expr"), &expr.to_string());
    }
}

fn at(object: &mut Object<'_>, at: Option<At>) {
    let edge = match at {
        Some(At::Start) => Some("start"),
        Some(At::End) => Some("end"),
        _ => None,
    };
    match at {
        Some(At::Time(t)) => drop(object.integer("timestamp", t.as_ms())),
        _ => json::raw(object.field("timestamp"), "null"),
    }
    match edge {
        Some(edge) => drop(object.text("startOrEnd", edge)),
        None => json::raw(object.field("startOrEnd"), "null"),
    }
}

fn texts(object: &mut Object<'_>, name: &str, texts: &[String]) {
    json::array(object.field(name), texts, |out, text| {
        json::html_safe_string(out, text);
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(query: &str, want: &Value) {
        let mut out = Vec::new();
        node(&mut out, &promql::parse(query).unwrap());
        let got: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(got, *want, "{query}");
    }

    fn selector(name: &str) -> Value {
        json!({
            "type": "vectorSelector", "name": name, "offset": 0,
            "matchers": [{"name": "__name__", "value": name, "type": "="}],
            "timestamp": null, "startOrEnd": null, "anchored": false, "smoothed": false,
        })
    }

    #[test]
    fn every_node_has_prometheus_form() {
        check("a", &selector("a"));
        check("1.5", &json!({"type": "numberLiteral", "val": "1.5"}));
        check("\"x\"", &json!({"type": "stringLiteral", "val": "x"}));
        check("(a)", &json!({"type": "parenExpr", "expr": selector("a")}));
        check(
            "-a",
            &json!({"type": "unaryExpr", "op": "-", "expr": selector("a")}),
        );
        check(
            "topk without(x) (2, a)",
            &json!({
                "type": "aggregation", "op": "topk", "expr": selector("a"),
                "param": {"type": "numberLiteral", "val": "2"},
                "grouping": ["x"], "without": true,
            }),
        );
        check(
            "a / on(x) group_left(y) b",
            &json!({
                "type": "binaryExpr", "op": "/", "lhs": selector("a"), "rhs": selector("b"),
                "matching": {"card": "many-to-one", "labels": ["x"], "on": true, "include": ["y"],
                    "fillValues": {"lhs": null, "rhs": null}},
                "bool": false,
            }),
        );
        check(
            "1 > bool 2",
            &json!({
                "type": "binaryExpr", "op": ">", "matching": null, "bool": true,
                "lhs": {"type": "numberLiteral", "val": "1"},
                "rhs": {"type": "numberLiteral", "val": "2"},
            }),
        );
    }

    #[test]
    fn windows_have_their_lengths_in_milliseconds() {
        let mut matrix = selector("a");
        matrix["type"] = json!("matrixSelector");
        matrix["range"] = json!(300_000);
        matrix["offset"] = json!(60_000);
        matrix["startOrEnd"] = json!("end");
        let rate = json!({
            "type": "call",
            "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
            "args": [matrix],
        });
        check("rate(a[5m] @ end() offset 1m)", &rate);
        let mut of_step = json!({
            "type": "subquery", "expr": selector("a"), "range": 0, "rangeExpr": "step() * 2",
            "offset": 0, "step": 30_000, "timestamp": 1_500, "startOrEnd": null,
        });
        check("a[step() * 2:30s] @ 1.5", &of_step);
        of_step["step"] = json!(0);
        check("a[step() * 2:] @ 1.5", &of_step);
    }
}
