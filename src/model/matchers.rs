//! Matchers in Alertmanager's text form: `severity="page"`, `team=~"a|b"`.
//!
//! The form of routes, inhibition rules, silences and of the `filter` parameter.
//! It differs from a PromQL selector: quotes may be left out, and a backslash
//! before any other character than `n`, `"` and `\` stands for itself. What is none in
//! this form is tried in the newer one, see [`super::matchers_utf8`].

use std::cmp::Ordering;
use std::fmt;

use super::matcher::InvalidRegex;
use super::{MatchOp, Matcher, matchers_utf8};

/// A text that is no matcher.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MatcherError {
    /// Not of the form `name OP value`.
    #[error("bad matcher format: {0}")]
    Format(String),
    /// A quote that is not closed, or one that was not opened.
    #[error("matcher value contains unescaped double quote: {0}")]
    Quote(String),
    /// The pattern does not compile, with the reason.
    #[error("{0}")]
    Regex(String),
}

/// Why a pattern does not compile, in the words of Alertmanager, which looks at it with
/// the anchors around it.
pub fn anchored_reason(err: &InvalidRegex) -> String {
    match super::re2::translate(&format!("^(?:{})$", err.pattern)) {
        Err(reason) => format!("error parsing regexp: {reason}"),
        Ok(_) => err.to_string(),
    }
}

/// Parses one matcher.
///
/// # Errors
/// In Alertmanager's words.
pub fn parse_one(text: &str) -> Result<Matcher, MatcherError> {
    classic(text).or_else(|err| match matchers_utf8::parse(text) {
        Ok(mut one) if one.len() == 1 && !text.trim_start().starts_with('{') => Ok(one.remove(0)),
        _ => Err(err),
    })
}

fn classic(text: &str) -> Result<Matcher, MatcherError> {
    let format = || MatcherError::Format(text.to_owned());
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .ok_or_else(format)?;
    let (name, rest) = trimmed.split_at(end);
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return Err(format());
    }
    let (op, raw) = operator(rest.trim_start()).ok_or_else(format)?;
    let value = unescaped(raw.trim())?;
    Matcher::new(name, op, &value).map_err(|err| MatcherError::Regex(anchored_reason(&err)))
}

/// The operator that a text begins with, and what is behind it.
pub(super) fn operator(text: &str) -> Option<(MatchOp, &str)> {
    let signs = [
        ("=~", MatchOp::Regex),
        ("!~", MatchOp::NotRegex),
        ("!=", MatchOp::NotEqual),
        ("=", MatchOp::Equal),
    ];
    let mut signs = signs.into_iter();
    signs.find_map(|(sign, op)| Some((op, text.strip_prefix(sign)?)))
}

/// Parses a list: matchers separated by commas, in braces or not.
///
/// # Errors
/// As [`parse_one`].
pub fn parse(text: &str) -> Result<Vec<Matcher>, MatcherError> {
    let inner = text.trim();
    let inner = inner.strip_prefix('{').unwrap_or(inner);
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let all: Result<Vec<Matcher>, _> = split(inner).into_iter().map(classic).collect();
    all.or_else(|err| matchers_utf8::parse(text).map_err(|_| err))
}

/// Alertmanager's order: by name, then by value, then by operator.
pub fn order(a: &Matcher, b: &Matcher) -> Ordering {
    let rank = |op: MatchOp| match op {
        MatchOp::Equal => 0,
        MatchOp::NotEqual => 1,
        MatchOp::Regex => 2,
        MatchOp::NotRegex => 3,
    };
    (&a.name, &a.value, rank(a.op)).cmp(&(&b.name, &b.value, rank(b.op)))
}

/// Matchers as Alertmanager prints a list of them: `{a="b",c=~"d"}`.
pub struct Braced<'a>(pub &'a [Matcher]);

impl fmt::Display for Braced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, matcher) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{matcher}")?;
        }
        f.write_str("}")
    }
}

/// The parts between commas that are not inside quotes; a last empty one is left out.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

fn unescaped(raw: &str) -> Result<String, MatcherError> {
    let quote = || MatcherError::Quote(raw.to_owned());
    let opened = raw.strip_prefix('"');
    let body = opened.unwrap_or(raw);
    let mut open = opened.is_some();
    let mut value = String::with_capacity(body.len());
    let mut chars = body.char_indices().peekable();
    while let Some((_, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => value.push('\\'),
            },
            '"' if open && chars.peek().is_none() => open = false,
            '"' => return Err(quote()),
            c => value.push(c),
        }
    }
    if open { Err(quote()) } else { Ok(value) }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a list, in whichever form, and compares what is printed.
    pub(in crate::model) fn check(text: &str, want: &str) {
        let got = match parse(text) {
            Ok(matchers) => Braced(&matchers).to_string(),
            Err(err) => err.to_string(),
        };
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn lists_are_taken_with_and_without_braces_and_quotes() {
        check("a=b", r#"{a="b"}"#);
        check(r#"{foo="bar", b=~"c|d"}"#, r#"{foo="bar",b=~"c|d"}"#);
        check(r#"a!="x,y", b!~z,"#, r#"{a!="x,y",b!~"z"}"#);
        check(r#"a="q\"uo\\te""#, r#"{a="q\"uo\\te"}"#);
        check(r"a=x\ty", r#"{a="x\\ty"}"#);
        check("a=", r#"{a=""}"#);
        check("", "{}");
        check("{}", "{}");
    }

    #[test]
    fn what_is_none_is_refused_in_alertmanagers_words() {
        check("a", "bad matcher format: a");
        check("=b", "bad matcher format: =b");
        check("1a", "bad matcher format: 1a");
        check(
            r#"a="b"#,
            r#"matcher value contains unescaped double quote: "b"#,
        );
        check(
            r#"a=b"c"#,
            r#"matcher value contains unescaped double quote: b"c"#,
        );
        check("a=~(", "error parsing regexp: missing closing ): `^(?:()$`");
        check("a=~[x", "error parsing regexp: missing closing ]: `[x)$`");
        // One alone has no braces.
        for (text, is_one) in [("a=b", true), ("\"a b\"=c", true), ("{a=b}", false)] {
            assert_eq!(parse_one(text).is_ok(), is_one, "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_matchers_are_read_back(name in "[a-z_]{1,6}", value in ".{0,12}") {
            let matcher = Matcher::new(&name, MatchOp::NotEqual, &value).unwrap();
            let again = parse_one(&matcher.to_string()).unwrap();
            prop_assert_eq!(again, matcher);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            drop(parse(&text));
        }
    }
}
