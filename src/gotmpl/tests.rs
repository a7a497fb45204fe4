//! The engine against what promtool 2.42 printed for the same templates.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::prometheus::{self, FUNCTIONS, PREFIX};
use super::{Env, Limits, Template};
use crate::model::{Labels, Timestamp};

const VALUE: f64 = 1_234_567.891;

/// The series `m` of the test file that promtool ran.
fn series() -> Vec<(Labels, f64)> {
    [
        ("a", "h:9100", VALUE),
        ("b", "h2:9100", 2.0),
        ("c", "h3:9100", 0.5),
    ]
    .into_iter()
    .map(|(job, instance, v)| {
        let labels = [("__name__", "m"), ("instance", instance), ("job", job)];
        (Labels::from_pairs(labels), v)
    })
    .collect()
}

/// The few queries that the templates run, answered by hand.
fn query(text: &str) -> Result<Vec<(Labels, f64)>, String> {
    match text {
        "m" => Ok(series()),
        "m{job=\"b\"}" => Ok(series()[1..2].to_vec()),
        "nothing" => Ok(Vec::new()),
        text if text.starts_with("label_replace(") => {
            Ok(vec![(Labels::from_pairs([("__value__", "sv")]), 1.0)])
        }
        _ => Err("1:3: parse error: unexpected end of input inside braces".to_owned()),
    }
}

fn expand(text: &str, limits: Limits) -> Result<String, String> {
    let whole = format!("{PREFIX}{text}");
    let template =
        Template::parse("__alert_X", &whole, FUNCTIONS).map_err(|err| err.to_string())?;
    let labels = series()[0].0.clone();
    let external = BTreeMap::from([("foo".to_owned(), "bar".to_owned())]);
    let data = prometheus::data(&labels, &external, "http://ext/pre", VALUE);
    let env = Env {
        query: &query,
        external_url: "http://ext/pre",
        now: Timestamp::from_ms(60_000),
        limits,
    };
    template.execute(&data, &env).map_err(|err| err.to_string())
}

#[derive(Deserialize)]
struct Case {
    t: String,
    want: Option<String>,
    parse_error: Option<String>,
}

fn check(case: &Case) -> Result<(), String> {
    let got = expand(&case.t, Limits::default());
    let got = match (&case.parse_error, got) {
        (Some(_), Ok(got)) => return Err(format!("{:?}: parsed, gave {got:?}", case.t)),
        (Some(want), Err(got)) => {
            return if *want == got {
                Ok(())
            } else {
                Err(format!("{:?}:\n  want {want}\n  got  {got}", case.t))
            };
        }
        (None, Ok(got)) => got,
        (None, Err(err)) => {
            format!("<error expanding template: error executing template __alert_X: {err}>")
        }
    };
    let want = case.want.as_deref().unwrap_or_default();
    if want == got {
        Ok(())
    } else {
        Err(format!("{:?}:\n  want {want}\n  got  {got}", case.t))
    }
}

/// Templates whose text differs, with the reason.
const KNOWN: [(&str, &str); 4] = [
    (
        "{{ match \"(\" \"a\" }}",
        "another regex compiler words its errors",
    ),
    ("{{ len nil }}", "worded otherwise since Go 1.21"),
    ("{{ externalURL }}", "a nil pointer in promtool only"),
    ("{{ pathPrefix }}", "a nil pointer in promtool only"),
];

#[test]
fn a10_expands_as_promtool_does() {
    let text = include_str!("../../tests/data/gotmpl/promtool-2.42.json");
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    assert!(cases.len() > 190);
    let is_known = |case: &&Case| KNOWN.iter().any(|(t, _)| *t == case.t);
    let others = cases.iter().filter(|case| !is_known(case));
    let wrong: Vec<String> = others.filter_map(|case| check(case).err()).collect();
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

proptest! {
    #[test]
    fn never_panics_on_any_text(text in "\\PC{0,80}") {
        drop(expand(&text, Limits::default()));
    }

    #[test]
    fn never_panics_on_template_like_text(
        words in proptest::collection::vec(
            prop_oneof![
                Just("{{"), Just("}}"), Just("{{-"), Just(" -}}"), Just("if"), Just("else"),
                Just("end"), Just("range"), Just("with"), Just("define"), Just("template"),
                Just("$x"), Just(":="), Just("|"), Just("("), Just(")"), Just(".Labels"), Just("."),
                Just("printf"), Just("\"%s%d%*v%[2]x\""), Just("1.5"), Just("-3"), Just("humanize"),
                Just("query"), Just("first"), Just("eq"), Just("and"), Just("nil"), Just(","),
                Just("$"), Just("$value"), Just("\"t\""), Just("index"), Just("toTime"), Just(".Format"),
            ],
            0..30,
        )
    ) {
        drop(expand(&words.join(" "), Limits::default()));
    }
}

fn check_bounded(text: &str, want: &str) {
    let err = expand(text, Limits::default()).unwrap_err();
    assert!(err.contains(want), "{text}: {err}");
}

#[test]
fn a23_bombs_end_with_an_error() {
    let deep = "exceeded maximum template depth (120)";
    check_bounded(
        "{{define \"x\"}}{{template \"x\"}}{{end}}{{template \"x\"}}",
        deep,
    );
    let steps = "template takes too many steps";
    check_bounded("{{range 9000000000}}{{end}}", steps);
    check_bounded("{{range 9000}}{{range 9000}}{{end}}{{end}}", steps);
    let bytes = "template makes too much text";
    check_bounded("{{range 90}}{{printf \"%99999d\" 1}}{{end}}", bytes);
    check_bounded("{{range 9000}}{{$x := printf \"%9999d\" 1}}{{end}}", bytes);
    let doubling = "{{$x := \"0123456789\"}}{{range 40}}{{$x = print $x $x}}{{end}}";
    check_bounded(doubling, bytes);
    let pieces = "{{$b := printf \"%099999d\" 1}}{{reReplaceAll \"\" $b $b}}";
    check_bounded(pieces, bytes);
    let groups =
        "{{$b := printf \"%099999d\" 1}}{{reReplaceAll \"0+1\" \"$0$0$0$0$0$0$0$0$0$0$0\" $b}}";
    check_bounded(groups, bytes);
    let parens = format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000));
    check_bounded(&parens, "nested too deep");
    let blocks = format!("{}{}", "{{if 1}}".repeat(10_000), "{{end}}".repeat(10_000));
    check_bounded(&blocks, "nested too deep");
    let chained = format!("{{{{if 0}}}}{}{{{{end}}}}", "{{else if 0}}".repeat(10_000));
    check_bounded(&chained, "nested too deep");
}
