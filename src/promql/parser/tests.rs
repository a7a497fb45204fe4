//! What parses, how it prints, and what is said about the rest.

use proptest::prelude::*;

use super::*;

/// Parses, prints, and parses the print again.
fn check(text: &str, printed: &str) {
    let expr = parse(text).unwrap_or_else(|err| panic!("{text}: {err}"));
    assert_eq!(expr.to_string(), printed, "{text}");
    assert_eq!(parse(printed).as_ref(), Ok(&expr), "{printed}");
}

fn same(text: &str) {
    check(text, text);
}

fn fails(text: &str, place: &str, message: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.message, message, "{text}");
    assert_eq!(format!("{}:{}", error.line, error.column), place, "{text}");
    assert!(text.get(error.span.clone()).is_some(), "{text}: {error:?}");
}

#[test]
fn numbers_and_strings() {
    same("1");
    same("-1");
    same("+Inf");
    same("NaN");
    check("iNf", "+Inf");
    check("1_000", "1000");
    check("0x1F", "31");
    check("0755", "493");
    check("1e6", "1e+06");
    check(".5", "0.5");
    check("--1", "1");
    check("1h30m", "1h30m");
    check("-90s", "-1m30s");
    check("'a\"b'", "\"a\\\"b\"");
    check("`a\\n`", "\"a\\\\n\"");
    check("# comment\n 1 # more", "1");
}

#[test]
fn selectors() {
    same("foo");
    same("foo:bar:sum");
    check("foo{}", "foo");
    check("foo { b = 'x', a != \"y\" , }", "foo{a!=\"y\",b=\"x\"}");
    same("{__name__=\"foo\"}");
    same("{a=~\"x.+\"}");
    check("{\"foo\"}", "foo");
    same("{\"foo.bar\",x=\"y\"}");
    same("{\"rate.of\\\"quote\",\"x.y\"=~\"z\"}");
    same("{\"on\"}");
    same("{\"inf\"}");
    same("foo offset 5m");
    same("foo offset -5m");
    check("foo OFFSET 1h30m", "foo offset 1h30m");
    check("foo offset 90", "foo offset 1m30s");
    same("foo @ 12.345");
    same("foo @ -1.000");
    same("foo @ start()");
    check("foo offset 5m @ end()", "foo @ end() offset 5m");
    check("foo @ 1m40s", "foo @ 100.000");
    same("foo[5m]");
    check("foo[300]", "foo[5m]");
    same("foo[5m] @ 1.000 offset 1d");
    same("foo[1h:5m]");
    same("foo[1h:]");
    same("(foo + bar)[1h:] offset 1m");
    same("rate(foo[5m])[1h:1m] @ start()");
    same("avg_over_time(foo[5m:1m] @ 1.000)[10m:2m]");
}

#[test]
fn keywords_are_names_where_prometheus_allows() {
    for name in [
        "sum", "by", "without", "offset", "and", "or", "unless", "start", "end", "topk", "rate",
    ] {
        same(name);
        same(&format!("{name}{{a=\"b\"}}"));
    }
    same("{bool=\"x\",by=\"y\",inf=\"z\",on=\"w\"}");
    same("sum by (on, bool, group_left, sum, and) (foo)");
    check(
        "sum by (\"inf\", 'a.b') (foo)",
        "sum by (\"inf\", \"a.b\") (foo)",
    );
    same("sum + sum(sum)");
    for name in ["on", "ignoring", "bool", "group_left", "atan2"] {
        assert!(parse(name).is_err(), "{name}");
    }
}

#[test]
fn operators_have_their_precedence() {
    let grouped = |text: &str, want: &str| {
        let mut out = String::new();
        group(&parse(text).unwrap(), &mut out);
        assert_eq!(out, want, "{text}");
    };
    grouped("a + b * c", "(a + (b * c))");
    grouped("a * b + c", "((a * b) + c)");
    grouped("a - b - c", "((a - b) - c)");
    grouped("a ^ b ^ c", "(a ^ (b ^ c))");
    grouped("-a ^ b", "-(a ^ b)");
    grouped("-a * b", "(-a * b)");
    grouped("a ^ -b ^ c * d", "((a ^ -(b ^ c)) * d)");
    grouped("a == b + c", "(a == (b + c))");
    grouped("a or b and c unless d", "(a or ((b and c) unless d))");
    grouped("a atan2 b % c", "((a atan2 b) % c)");
    grouped("a > b > c and d", "(((a > b) > c) and d)");
}

/// The expression with all groups shown.
fn group(expr: &Expr, out: &mut String) {
    match &expr.kind {
        ExprKind::Binary(binary) => {
            out.push('(');
            group(&binary.lhs, out);
            out.push_str(&format!(" {} ", binary.op.as_str()));
            group(&binary.rhs, out);
            out.push(')');
        }
        ExprKind::Unary(unary) => {
            out.push(if unary.negative { '-' } else { '+' });
            group(&unary.expr, out);
        }
        _ => out.push_str(&expr.to_string()),
    }
}

/// Its sign would be that of the power: fuzzing found it.
#[test]
fn a_power_of_infinity_prints_without_a_sign() {
    check("inf ^ (m)", "Inf ^ (m)");
    check("-inf ^ m", "-Inf ^ m");
    check("a ^ +inf ^ b", "a ^ +Inf ^ b");
    check("a ^ inf ^ b * inf", "a ^ Inf ^ b * +Inf");
    let long = format!("Inf ^ sum({})", ["abcdefghij"; 12].join(" + "));
    let expr = parse(&long).unwrap();
    assert_eq!(parse(&expr.pretty()), Ok(expr));
}

#[test]
fn operators_and_aggregations_print_canonically() {
    same("a + on (x, y) b");
    same("a / ignoring (x) group_left (y) b");
    check("a*on()group_right b", "a * on () group_right () b");
    check("a * ignoring() b", "a * b");
    check(
        "a * ignoring() group_left() b",
        "a * ignoring () group_left () b",
    );
    same("a >= bool 1");
    same("1 == bool 2");
    check("a AND on(x) b", "a and on (x) b");
    check("sum(foo) by (a,b,)", "sum by (a, b) (foo)");
    check("sum without() (foo)", "sum without () (foo)");
    check("sum by () (foo)", "sum(foo)");
    check("TOPK(3, foo) without (x)", "topk without (x) (3, foo)");
    same("count_values(\"v\", foo)");
    same("quantile by (x) (0.9, rate(foo[1m]))");
    same("-foo + -(bar)");
    same("label_replace(foo, \"a\", \"$1\", \"b\", \"(.*)\")");
    same("time() - hour()");
    same("round(foo, 0.1)");
}

#[test]
fn spans_point_into_the_text() {
    let text = "sum(\n  rate(foo[5m])) + bär";
    let error = parse(text).unwrap_err();
    assert_eq!((error.line, error.column), (2, 21));
    let expr = parse("1 + sum(rate(foo[5m] offset 1m)) by (x)").unwrap();
    let ExprKind::Binary(binary) = &expr.kind else {
        panic!("not binary");
    };
    assert_eq!(binary.rhs.span.range(), 4..39);
    let ExprKind::Aggregate(aggregate) = &binary.rhs.kind else {
        panic!("not an aggregation");
    };
    assert_eq!(aggregate.expr.span.range(), 8..31);
    assert_eq!(aggregate.expr.span.column, 9);
}

#[test]
fn syntax_errors_are_prometheus() {
    fails("", "1:1", "no expression found in input");
    fails("# only a comment", "1:17", "no expression found in input");
    fails("1+", "1:3", "unexpected end of input");
    fails("*1", "1:1", "unexpected <op:*>");
    fails("(1))", "1:4", "unexpected right parenthesis ')'");
    fails("((1)", "1:5", "unclosed left parenthesis");
    fails("()", "1:2", "unexpected \")\"");
    fails("foo bar", "1:5", "unexpected identifier \"bar\"");
    fails("1 !~ 1", "1:3", "unexpected character after '!': '~'");
    fails("1 =~ 1", "1:3", "unexpected character after '=': '~'");
    fails("2.5.", "1:4", "unexpected character: '.'");
    fails("100..4", "1:5", "unexpected number \".4\"");
    fails("0deadbeef", "1:1", "bad number or duration syntax: \"0de\"");
    fails("{", "1:2", "unexpected end of input inside braces");
    fails("}", "1:1", "unexpected character: '}'");
    fails(
        "foo{a>\"b\"}",
        "1:6",
        "unexpected character inside braces: '>'",
    );
    fails("foo{1}", "1:5", "unexpected character inside braces: '1'");
    fails(
        "foo{gibberish}",
        "1:14",
        "unexpected \"}\" in label matching, expected label matching operator",
    );
    fails(
        "foo{a=b}",
        "1:7",
        "unexpected identifier \"b\" in label matching, expected string",
    );
    fails(
        "foo{__name__=\"bar\"}",
        "1:1",
        "metric name must not be set twice: \"foo\" or \"bar\"",
    );
    fails(
        "{\"foo\",\"bar\"}",
        "1:8",
        "metric name must not be set twice: \"foo\" or \"bar\"",
    );
    fails("\"abc", "1:1", "unterminated quoted string");
    fails("`abc", "1:1", "unterminated raw string");
    fails("foo[5m", "1:7", "unclosed left bracket");
    fails(
        "foo[5m] offset",
        "1:15",
        "unexpected end of input in offset, expected number or duration",
    );
    fails(
        "foo[1y1m1d]",
        "1:5",
        "not a valid duration string: \"1y1m1d\"",
    );
    fails("foo[0m]", "1:5", "duration must be greater than 0");
    fails("foo[5m:0]", "1:8", "duration must be greater than 0");
    fails(
        "foo[5m] offset 1m [5m]",
        "1:1",
        "ranges only allowed for vector selectors",
    );
    fails(
        "foo offset 1m[5m]",
        "1:1",
        "no offset modifiers allowed before range",
    );
    fails("foo @ 1 [5m]", "1:1", "no @ modifiers allowed before range");
    fails(
        "foo offset 1m offset 2m",
        "1:1",
        "offset may not be set multiple times",
    );
    fails(
        "foo @ 1 @ 2",
        "1:1",
        "@ <timestamp> may not be set multiple times",
    );
    fails(
        "foo @ 1e300",
        "1:7",
        &format!("timestamp out of bounds for @ modifier: {:.6}", 1e300),
    );
    fails(
        "(foo + bar)[5m]",
        "1:1",
        "ranges only allowed for vector selectors",
    );
    fails(
        "rate(foo[5m]) offset 1m",
        "1:1",
        "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    );
    fails("nope(1)", "1:1", "unknown function with name \"nope\"");
    fails(
        "floor(foo,)",
        "1:10",
        "trailing commas not allowed in function call args",
    );
    fails(
        "sum by (1) (foo)",
        "1:9",
        "unexpected number \"1\" in grouping opts, expected label",
    );
    fails(
        "sum()",
        "1:1",
        "no arguments for aggregate expression provided",
    );
    fails(
        "topk(foo)",
        "1:1",
        "wrong number of arguments for aggregate expression provided, expected 2, got 1",
    );
}

#[test]
fn type_errors_are_prometheus() {
    fails(
        "rate(foo)",
        "1:6",
        "expected type range vector in call to function \"rate\", got instant vector",
    );
    fails(
        "sum(foo[5m])",
        "1:5",
        "expected type instant vector in aggregation expression, got range vector",
    );
    fails(
        "topk(foo, bar)",
        "1:6",
        "expected type scalar in aggregation parameter, got instant vector",
    );
    fails(
        "floor()",
        "1:1",
        "expected 1 argument(s) in call to \"floor\", got 0",
    );
    fails(
        "hour(a, b)",
        "1:1",
        "expected at most 1 argument(s) in call to \"hour\", got 2",
    );
    fails(
        "label_join(a, \"b\")",
        "1:1",
        "expected at least 3 argument(s) in call to \"label_join\", got 2",
    );
    fails(
        "1 == 1",
        "1:1",
        "comparisons between scalars must use BOOL modifier",
    );
    fails(
        "a + bool b",
        "1:1",
        "bool modifier can only be used on comparison operators",
    );
    fails(
        "1 and 1",
        "1:1",
        "set operator \"and\" not allowed in binary scalar expression",
    );
    fails(
        "a or on (x) group_left (y) b",
        "1:1",
        "no grouping allowed for \"or\" operation",
    );
    fails(
        "1 + on (x) a",
        "1:1",
        "vector matching only allowed between instant vectors",
    );
    fails(
        "a + on (x) group_left (x) b",
        "1:1",
        "label \"x\" must not occur in ON and GROUP clause at once",
    );
    fails(
        "a + b[5m]",
        "1:5",
        "binary expression must contain only scalar and instant vector types",
    );
    fails(
        "-\"text\"",
        "1:1",
        "unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
    );
    fails(
        "{}",
        "1:1",
        "vector selector must contain at least one non-empty matcher",
    );
    fails(
        "{a=\"\"}",
        "1:1",
        "vector selector must contain at least one non-empty matcher",
    );
    fails(
        "{a=~\".*\"}[5m]",
        "1:1",
        "vector selector must contain at least one non-empty matcher",
    );
    fails(
        "1[5m:1m]",
        "1:1",
        "subquery is only allowed on instant vector, got scalar instead",
    );
    // A syntax error anywhere comes first.
    fails("rate(foo) +", "1:12", "unexpected end of input");
}

#[test]
fn lengths_are_computed_and_print_canonically() {
    same("foo[5m + 1m]");
    same("foo[5m * 2:1m + step()] offset (1h / 2)");
    check("foo[ (5m) ]", "foo[5m]");
    check("foo[60*30]", "foo[60 * 30]");
    check("foo[1800]", "foo[30m]");
    check("foo offset (100 + 2)", "foo offset (100 + 2)");
    check("foo offset 100 + 2", "foo offset 1m40s + 2");
    check("foo offset -2 ^ 2", "foo offset -2s ^ 2");
    check("foo offset -STEP()*2", "foo offset -step() * 2");
    check("foo[MAX(step(), 5s)]", "foo[max(step(), 5s)]");
    check("foo[Min_Of(1m,range())]", "foo[min_of(1m, range())]");
    fails("foo[5m-5m]", "1:5", "duration must be greater than 0");
    fails("foo[1m/0]", "1:5", "division by zero");
    fails("foo[1m % 0]", "1:5", "modulo by zero");
    fails("foo offset (1m/(1-1))", "1:12", "division by zero");
    fails("foo[1e300 * 10]", "1:5", "duration is out of range");
    fails(
        "foo[5m > 1m]",
        "1:8",
        "unexpected <op:>> in subquery or range selector, expected \":\" or \"]\"",
    );
    fails(
        "foo[time()]",
        "1:5",
        "unexpected identifier \"time\" in subquery or range selector, expected number or duration",
    );
    let ms = |text: &str| match parse(text).unwrap().kind {
        ExprKind::Matrix(matrix) => matrix.range.ms,
        _ => panic!("no range in {text}"),
    };
    assert_eq!(ms("a[29s+1s]"), 30_000);
    assert_eq!(ms("a[24m+((1.5*2m)+2m)]"), 29 * 60_000);
    assert_eq!(ms("a[30m1s-30m1s % 1m]"), 30 * 60_000);
    assert_eq!(ms("a[-5m+35m]"), 30 * 60_000);
    assert_eq!(ms("a[0.0019]"), 2);
    assert_eq!(ms("a[0.0019*1]"), 1);
}

#[test]
fn modifiers_of_windows_and_matches() {
    same("rate(foo[5m] anchored)");
    same("rate(foo[5m] smoothed @ 5.000 offset 1m)");
    check(
        "rate(foo[5m] offset 1m SMOOTHED)",
        "rate(foo[5m] smoothed offset 1m)",
    );
    same("foo smoothed");
    same("anchored + smoothed");
    same("a + fill (0) b");
    same("a + on (x) group_left () fill_left (-1) fill_right (+Inf) b");
    check("a + fill_left(1) fill_right(1) b", "a + fill (1) b");
    check("fill + FILL(0) fill_left", "fill + fill (0) fill_left");
    fails(
        "foo anchored",
        "1:1",
        "anchored modifier can only be used with range vector selectors",
    );
    fails(
        "deriv(foo[3m] smoothed)",
        "1:7",
        "smoothed modifier can only be used with: delta, increase, rate - not with deriv",
    );
    fails(
        "max_over_time((foo[3m] anchored))",
        "1:15",
        "anchored modifier can only be used with: changes, delta, increase, rate, resets - not with max_over_time",
    );
    fails(
        "foo[5m:] anchored",
        "1:1",
        "anchored modifier is not supported for subqueries",
    );
    fails(
        "a and fill(0) b",
        "1:1",
        "filling in missing series not allowed for set operators",
    );
    fails(
        "a + fill(0) 1",
        "1:1",
        "filling in missing series only allowed between instant vectors",
    );
    fails(
        "a + fill(x) b",
        "1:10",
        "unexpected identifier \"x\" in fill, expected number",
    );
}

#[test]
fn what_is_switched_off_says_so() {
    use crate::promql::{Features, parse_with};
    let off = |text: &str, message: &str| {
        let error = parse_with(text, Features::of(&[])).unwrap_err();
        assert_eq!(error.message, message, "{text}");
        assert!(parse(text).is_ok(), "{text}");
    };
    off("info(a)", "function \"info\" is not enabled");
    off(
        "limitk(1, a)",
        "limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
    );
    off(
        "rate(a[1m] smoothed)",
        "smoothed modifier is experimental and not enabled",
    );
    off(
        "a + fill(1) b",
        "binop fill modifiers are experimental and not enabled",
    );
}

#[test]
fn hostile_texts_fail_without_deep_recursion() {
    let cases = [
        "(".repeat(100_000),
        "-".repeat(100_000) + "a",
        "sum(".repeat(50_000) + "a" + &")".repeat(50_000),
        "a^".repeat(50_000) + "a",
        "a+".repeat(10_000) + "a",
        "a".to_owned() + &"[5m:]".repeat(10_000),
        "a{".repeat(100_000),
        "1 +".repeat(1 << 19),
        "a[".to_owned() + &"(".repeat(100_000),
        "a[1".to_owned() + &"+1".repeat(50_000) + "]",
        "a[1".to_owned() + &"^1".repeat(50_000) + "]",
        "a[".to_owned() + &"(".repeat(90) + "1" + &("+1".repeat(400) + ")").repeat(90) + "]",
        "a offset ".to_owned() + &"-".repeat(100_000),
        "\"".to_owned() + &"\\".repeat(100_000),
    ];
    for text in cases {
        assert!(parse(&text).is_err(), "{}", &text[..20]);
    }
}

#[test]
fn the_highest_tree_can_be_used_on_a_small_stack() {
    let chain = "a + ".repeat(HEIGHT_MAX - 1) + "a";
    let nested = "abs(".repeat(NESTING_MAX - 1) + "a" + &")".repeat(NESTING_MAX - 1);
    for text in [chain, nested] {
        let expr = parse(&text).unwrap();
        assert_eq!(expr.to_string(), text);
        assert_eq!(expr.clone(), expr);
        assert!(!format!("{expr:?}").is_empty());
    }
}

/// Query texts of every form, well typed or not.
fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["foo", "bar:baz", "sum", "by", "{\"a.b\"}", "start"]);
    let matcher = (
        prop::sample::select(vec!["a", "on", "\"x.y\"", "inf"]),
        prop::sample::select(vec!["=", "!=", "=~", "!~"]),
        "[a-z\\\\.üß\n\"]{0,4}",
    )
        .prop_map(|(name, op, value)| format!("{name}{op}{}", GoQuoted(&value)));
    let matchers =
        prop::collection::vec(matcher, 1..3).prop_map(|m| format!("{{foo=\"x\",{}}}", m.join(",")));
    let number = prop_oneof![
        any::<f64>().prop_map(|v| format!("{v:e}").replace("e0", "")),
        Just("1h30m".to_owned()),
        Just("0x1F".to_owned()),
        Just("NaN".to_owned()),
    ];
    let leaf = prop_oneof![name.prop_map(str::to_owned), matchers, number];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let binary = (
            inner.clone(),
            prop::sample::select(vec![
                "+",
                "-",
                "*",
                "/",
                "%",
                "^",
                "atan2",
                "==",
                "> bool",
                "and",
                "or",
                "unless on(a)",
                "/ ignoring(b) group_left(c)",
                "* on() group_right",
                "!= bool ignoring()",
                "+ fill(0)",
                "* on(a) group_left fill_left(-1.5) fill_right(NaN)",
                "> bool fill_right(Inf)",
            ]),
            inner.clone(),
        )
            .prop_map(|(a, op, b)| format!("{a} {op} {b}"));
        let wrap = (
            inner.clone(),
            prop::sample::select(vec![
                ("(", ")"),
                ("-", ""),
                ("+", ""),
                ("sum by (a, \"b.c\") (", ")"),
                ("sum(", ") without ()"),
                ("topk(2, ", ")"),
                ("abs(", ")"),
                ("rate(", "[5m:1m])"),
                ("", "[300]"),
                ("", "[1h:] offset -5m"),
                ("", " offset 1h5s"),
                ("", "[5m + 2 * -(1m ^ 2) % 7]"),
                ("", "[step() + 1:max_of(range(), 1m) / 2]"),
                ("", "[5m] anchored"),
                ("", "[(5m)] smoothed offset -(step() * 2)"),
                ("", " smoothed"),
                ("", " offset min(step(), 1s)"),
                ("", " @ 1.5"),
                ("", " @ end()"),
                ("count_values(\"v\", ", ") by (x)"),
                ("label_join(", ", \"a\", `b`, 'c')"),
            ]),
        )
            .prop_map(|(inner, (before, after))| format!("{before}{inner}{after}"));
        prop_oneof![binary, wrap]
    })
}

proptest! {
    #[test]
    fn printing_and_parsing_gives_the_same(text in query()) {
        if let Ok(expr) = parse(&text) {
            let printed = expr.to_string();
            prop_assert_eq!(parse(&printed), Ok(expr), "{}", printed);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn arbitrary_tokens_never_panic(
        parts in prop::collection::vec(prop::sample::select(vec![
            "foo", "sum", "by", "(", ")", "{", "}", "[", "]", ":", ",", "+", "-", "^", "=", "=~", "!",
            "\"x\"", "'", "`", "5m", "1.5", "0x", "@", "offset", "start()", "bool", "on", "group_left",
            "#", "\n", " ", "\\", "é", "rate", "topk", "_", "1e", "and", "==",
        ]), 0..24)
    ) {
        if let Err(error) = parse(&parts.concat()) {
            prop_assert!(parts.concat().get(error.span).is_some());
        }
    }
}
