//! `/api/v1/why_empty`: what made an instant query empty. Not in Prometheus.

use axum::extract::State;
use axum::response::Response;

use super::json::{self, Object};
use super::params::Params;
use crate::promql::ast::Span;
use crate::promql::{self, Side, WhyEmpty};
use crate::web::Context;
use crate::web::error::ApiError;

/// The first place in the query where elements got lost; `reason` is one of
/// `not_empty`, `no_samples`, `no_match`, `filtered`.
pub async fn why_empty(
    State(context): State<Context>,
    params: Params,
) -> Result<Response, ApiError> {
    let t = params.time("time")?.unwrap_or_else(|| context.clock.now());
    let engine = context.engine.clone();
    let expr = promql::parse_with(params.get("query"), engine.options.features)
        .map_err(|err| ApiError::parse("query", &err))?;
    let store = context.store.clone();
    let timeout = context.config().query.timeout.get();
    let run = context.gate.run(timeout, move |cancel| {
        let why = engine.why_empty(&store, &expr, t, cancel)?;
        Ok::<_, ApiError>(json::success(&[], &[], |out| written(out, &why)))
    });
    run.await?.map(json::respond)
}

fn written(out: &mut Vec<u8>, why: &WhyEmpty) {
    let mut object = Object::new(out);
    match why {
        WhyEmpty::NotEmpty => drop(object.text("reason", "not_empty")),
        WhyEmpty::NoSamples { text, span } => {
            object.text("reason", "no_samples").text("expr", text);
            place(&mut object, *span);
        }
        WhyEmpty::Filtered { text, span } => {
            object.text("reason", "filtered").text("expr", text);
            place(&mut object, *span);
        }
        WhyEmpty::NoMatch {
            operator,
            span,
            left,
            right,
            differ,
        } => {
            object.text("reason", "no_match").text("operator", operator);
            place(&mut object, *span);
            side(object.field("left"), left);
            side(object.field("right"), right);
            json::array(object.field("differ"), differ, |out, name| {
                json::html_safe_string(out, name);
            });
        }
    }
    object.end();
}

fn place(object: &mut Object<'_>, span: Span) {
    object.integer("start", span.start).integer("end", span.end);
}

fn side(out: &mut Vec<u8>, side: &Side) {
    let mut object = Object::new(out);
    object.integer(
        "elements",
        i128::try_from(side.elements).unwrap_or(i128::MAX),
    );
    json::array(object.field("compared"), &side.compared, json::labels);
    object.end();
}
