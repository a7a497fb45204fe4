//! Patterns on which RE2 and Rust's engine disagree when left alone.

use proptest::prelude::*;

use super::translate;
use crate::model::matcher::anchored;

fn check(pattern: &str, yes: &[&str], no: &[&str]) {
    let regex = anchored(pattern).unwrap_or_else(|err| panic!("{pattern}: {err}"));
    for text in yes {
        assert!(regex.is_match(text), "{pattern} matches {text:?}");
    }
    for text in no {
        assert!(!regex.is_match(text), "{pattern} does not match {text:?}");
    }
}

fn refused(pattern: &str, want: &str) {
    assert_eq!(translate(pattern).unwrap_err(), want, "{pattern}");
}

#[test]
fn perl_classes_are_ascii() {
    check(r"\d+", &["123"], &["١٢٣", "a"]);
    check(r"\w+", &["aZ_9"], &["ä", "a-b"]);
    check(r"\s", &[" ", "\t", "\n"], &["\u{a0}", "\u{b}"]);
    check(r"\D\W\S", &["ä-x"], &["1-x", "aax", "a- "]);
    check(r"[\d\W]+", &["1-2"], &["a"]);
    check(r"a\bb|a\b-|ä\B\.", &["a-", "ä."], &["ab"]);
}

#[test]
fn set_operators_are_plain_characters_in_a_class() {
    check("[a&&b]+", &["a&b"], &["c"]);
    check("[+--c]+", &["+", ",", "-", "c"], &["a"]);
    refused("[a--c]", "invalid character class range: `a--`");
    check("[a~~b]+", &["~"], &["c"]);
    check("a[[]", &["a["], &["a"]);
    check("[[a]+", &["[a"], &["b"]);
    check("[]a]+", &["]a"], &["b"]);
    check("[^]a]+", &["b"], &["]"]);
    check(r"[\d-z]+", &["1-z"], &["y"]);
    check("[a-]+", &["a-"], &["b"]);
    check("[-a]+", &["a-"], &["b"]);
    check("[[:alpha:]-]+", &["a-"], &["1"]);
    check("[[:^alpha:]]", &["1"], &["a"]);
    check(r"[\]\[\\^]+", &["[]\\^"], &["a"]);
    check(r"[\x41-\x{43}\101]+", &["ABC"], &["D"]);
}

#[test]
fn braces_that_begin_no_repetition_are_braces() {
    check("a{", &["a{"], &["a"]);
    check("a{,3}", &["a{,3}"], &["aa"]);
    check("a{x}", &["a{x}"], &["a"]);
    check("a{01}", &["a{01}"], &["a"]);
    check("a}", &["a}"], &["a"]);
    check("{}", &["{}"], &[""]);
    check("a{2}", &["aa"], &["a", "aaa"]);
    check("a{2,}", &["aaa"], &["a"]);
    check("a{1,2}?b", &["ab", "aab"], &["aaab"]);
}

#[test]
fn quoted_parts_are_plain() {
    check(r"\Qa.b*\E+", &["a.b**"], &["axb", "a.b"]);
    check(r"x\Q[", &["x["], &["x"]);
    check(r"\Q\E", &[""], &["a"]);
}

#[test]
fn flags_hold_until_their_group_ends() {
    check("(?i)ab", &["AB"], &["x"]);
    check("((?i)a)b", &["Ab"], &["AB"]);
    check("(?i:a)b", &["Ab"], &["AB"]);
    check("(?-s).", &["a"], &["\n"]);
    check("(?s-i:.)", &["\n"], &[]);
    check("(?ii)a", &["A"], &[]);
    check("(?)a", &["a"], &["A"]);
    check("a*(?i)*B", &["aab", "b"], &["Ab"]);
    check("a(?i)*B", &["aab", "b"], &["Ab"]);
    check("(?U)a+", &["aaa"], &[""]);
    check("(?P<x>a)(?<y>b)", &["ab"], &["a"]);
}

#[test]
fn anchors_and_escapes() {
    check(r"\Aab\z", &["ab"], &["abc"]);
    check(r"^a$|^b$", &["a", "b"], &["ab"]);
    check(r"a^b|a\.\-\_\/", &["a.-_/"], &["ab"]);
    check(r"\a\f\n\r\t\v", &["\x07\x0C\n\r\t\x0B"], &[]);
    check(r"\pL\p{Greek}\P{Greek}\p{^Greek}", &["aαbc"], &["aaαα"]);
    check("a b#c", &["a b#c"], &["abc"]);
    check(r"\012\0", &["\n\0"], &[]);
    check("^*", &[""], &["a"]);
}

#[test]
fn what_re2_refuses_is_refused_in_its_words() {
    refused("a**", "invalid nested repetition operator: `**`");
    refused("a+?*", "invalid nested repetition operator: `+?*`");
    refused("a{2}{3}", "invalid nested repetition operator: `{2}{3}`");
    refused("*", "missing argument to repetition operator: `*`");
    refused("a|+", "missing argument to repetition operator: `+`");
    refused("(?i)*", "missing argument to repetition operator: `*`");
    refused("a{1001}", "invalid repeat count: `{1001}`");
    refused("a{2,1}", "invalid repeat count: `{2,1}`");
    refused("(a{500}){3}", "invalid repeat count: `{3}`");
    refused("(?x)a", "invalid or unsupported Perl syntax: `(?x`");
    refused("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
    refused("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`");
    refused("(?P<>a)", "invalid named capture: `(?P<>`");
    refused("(?P<a>b)(?P<a>c)", "duplicate capture group name: `a`");
    refused("(", "missing closing ): `(`");
    refused("a)(b", "unexpected ): `a)(b`");
    refused("[a", "missing closing ]: `[a`");
    refused("[z-a]", "invalid character class range: `z-a`");
    refused("[[:foo:]]", "invalid character class range: `[:foo:]`");
    refused(r"[a-\d]", r"invalid escape sequence: `\d`");
    refused(r"\C", r"invalid escape sequence: `\C`");
    refused(r"\Z", r"invalid escape sequence: `\Z`");
    refused(r"\1", r"invalid escape sequence: `\1`");
    refused(r"\8", r"invalid escape sequence: `\8`");
    refused(r"\x{110000}", r"invalid escape sequence: `\x{110000}`");
    refused(r"\pX", r"invalid character class range: `\pX`");
    refused("a\\", "trailing backslash at end of expression: ``");
}

#[test]
fn hostile_patterns_are_answered_at_once() {
    let began = std::time::Instant::now();
    for pattern in [
        "(".repeat(250_000),
        format!("{}a{}", "(?:".repeat(60_000), ")*".repeat(60_000)),
        "a*(?i)*".repeat(30_000),
        "[".repeat(250_000),
        "a{1000}".repeat(30_000),
        "[[:".repeat(80_000),
        "a{1".repeat(80_000) + "(",
    ] {
        assert!(anchored(&pattern).is_err());
    }
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

/// Pieces of patterns, so that most of what they make is nearly valid.
fn pattern() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a",
        "ä",
        "(",
        ")",
        "(?:",
        "(?i)",
        "(?P<n>",
        "[",
        "]",
        "[^",
        "-",
        "&&",
        "*",
        "+",
        "?",
        "{2}",
        "{",
        "{,",
        "}",
        "|",
        ".",
        "^",
        "$",
        "\\",
        "\\d",
        "\\Q",
        "\\E",
        "\\b",
        "\\B",
        "[[:alpha:]]",
        "\\pL",
        "\\x41",
        "z",
        "9",
        ",",
    ]);
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What is let through compiles: no error of the engine behind reaches a user.
    #[test]
    fn what_is_translated_compiles(pattern in pattern()) {
        if let Ok(translated) = translate(&pattern) {
            let compiled = regex::Regex::new(&translated);
            prop_assert!(compiled.is_ok(), "{pattern} -> {translated}: {compiled:?}");
        }
    }

    #[test]
    fn any_text_is_answered(pattern in any::<String>()) {
        let _ = translate(&pattern);
    }

    #[test]
    fn a_quoted_text_matches_itself_only(text in "[^\\\\]{0,12}", other in any::<String>()) {
        let regex = anchored(&format!("\\Q{text}\\E")).unwrap();
        prop_assert!(regex.is_match(&text));
        prop_assert_eq!(regex.is_match(&other), text == other);
    }
}
