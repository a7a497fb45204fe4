//! Why a query on Explore gave nothing, in words and with both sides' labels.

use std::time::Duration;

use askama::Template;

use crate::model::Timestamp;
use crate::promql::{self, Side, WhyEmpty};
use crate::web::context::Context;

#[derive(Template)]
#[template(path = "_why.html")]
struct View {
    text: String,
    before: &'static str,
    after: String,
    sides: Vec<SideView>,
}

/// One side of an operator.
struct SideView {
    name: &'static str,
    elements: usize,
    /// The labels that are compared, a line for each set.
    compared: String,
    left_out: usize,
}

/// What made the query empty at a time, as markup; nothing when it has a value then, or
/// cannot be asked within `budget`.
pub(super) async fn explained(
    context: &Context,
    expr: &str,
    t: Timestamp,
    budget: Duration,
) -> String {
    let engine = context.engine.clone();
    let Ok(expr) = promql::parse_with(expr, engine.options.features) else {
        return String::new();
    };
    let store = context.store.clone();
    let run = context.gate.run(budget, move |cancel| {
        engine.why_empty(&store, &expr, t, cancel)
    });
    let Ok(Ok(why)) = run.await else {
        return String::new();
    };
    let view = View::new(why);
    view.and_then(|view| view.render().ok()).unwrap_or_default()
}

impl View {
    fn new(why: WhyEmpty) -> Option<View> {
        let view = |text, before, after: &str| View {
            text,
            before,
            after: after.to_owned(),
            sides: Vec::new(),
        };
        Some(match why {
            WhyEmpty::NotEmpty => return None,
            WhyEmpty::NoSamples { text, .. } => {
                let after = "selects nothing. Its names and label values may be misspelt, or there \
                             is no sample that is young enough.";
                view(text, "Empty at the end of the range:", after)
            }
            WhyEmpty::Filtered { text, .. } => {
                let after = "has something to work on, and leaves nothing of it.";
                view(text, "Empty at the end of the range:", after)
            }
            WhyEmpty::NoMatch {
                operator,
                left,
                right,
                differ,
                ..
            } => View {
                before: "Both sides have elements, but",
                after: no_match(&left, &right, &differ),
                text: operator,
                sides: vec![SideView::new("Left", left), SideView::new("Right", right)],
            },
        })
    }
}

fn no_match(left: &Side, right: &Side, differ: &[String]) -> String {
    let same = |labels| right.compared.contains(labels);
    if left.compared.iter().any(same) {
        return "holds for none of those that belong together.".to_owned();
    }
    let hint = match differ {
        [] => String::new(),
        all => format!(
            " Candidates for ignoring(...), because no value of theirs is on both sides: {}.",
            all.join(", ")
        ),
    };
    format!("finds no two that belong together.{hint}")
}

impl SideView {
    fn new(name: &'static str, side: Side) -> SideView {
        let lines: Vec<String> = side.compared.iter().map(ToString::to_string).collect();
        SideView {
            name,
            elements: side.elements,
            left_out: side.elements.saturating_sub(lines.len()),
            compared: lines.join("\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn side(values: &[&str]) -> Side {
        let labels = values.iter().map(|v| Labels::from_pairs([("a", *v)]));
        Side {
            elements: values.len(),
            compared: labels.collect(),
        }
    }

    #[test]
    fn an_operator_without_a_match_is_told_from_one_that_filters() {
        let said = |left: &[&str], right: &[&str], differ: &[&str]| {
            let differ: Vec<String> = differ.iter().map(|d| (*d).to_owned()).collect();
            no_match(&side(left), &side(right), &differ)
        };
        assert!(said(&["1"], &["1", "2"], &[]).starts_with("holds for none"));
        assert!(said(&["1"], &["2"], &["a"]).contains("no value of theirs is on both sides: a."));
        assert!(said(&["1"], &["2"], &[]).ends_with("belong together."));
    }

    #[test]
    fn hostile_labels_stay_text() {
        let view = View::new(WhyEmpty::NoMatch {
            operator: "/ on (a)".to_owned(),
            span: crate::promql::ast::Span::default(),
            left: side(&["<script>"]),
            right: side(&["2"]),
            differ: vec!["<b>".to_owned()],
        });
        let markup = view.unwrap().render().unwrap();
        assert!(
            !markup.contains("<script>") && !markup.contains("<b>,"),
            "{markup}"
        );
        assert!(markup.contains("script"), "{markup}");
    }
}
