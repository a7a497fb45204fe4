//! The newer form of Alertmanager's matchers, in which names may be of any characters:
//! `"service.name"="x"`, `größe=~"[0-9]+"`.
//!
//! Names and values without quotes are of everything but spaces and the signs of the
//! language; in quotes `\n`, `\t`, `\"` and `\\` are escapes. As in Alertmanager's
//! default mode, a text is read in this form only when the older one refuses it.

use super::Matcher;
use super::matchers::{MatcherError, operator};
use crate::model::matcher::is_sign;

/// Parses a list of matchers, in braces or not.
///
/// # Errors
/// When it is none.
pub(super) fn parse(text: &str) -> Result<Vec<Matcher>, MatcherError> {
    let mut rest = text.trim();
    if let Some(inner) = rest.strip_prefix('{') {
        let inner = inner.strip_suffix('}');
        rest = inner.ok_or_else(|| MatcherError::Format(text.to_owned()))?;
    }
    let mut all = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(all);
        }
        let (matcher, behind) = one(rest)?;
        all.push(matcher);
        rest = behind.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(behind) => behind,
            None if rest.is_empty() => rest,
            None => return Err(MatcherError::Format(text.to_owned())),
        };
    }
}

/// The first matcher of a text, and what is behind it.
fn one(text: &str) -> Result<(Matcher, &str), MatcherError> {
    let format = || MatcherError::Format(text.to_owned());
    let (name, rest) = word(text).ok_or_else(format)?;
    let (op, rest) = operator(rest.trim_start()).ok_or_else(format)?;
    let (value, rest) = word(rest.trim_start()).ok_or_else(format)?;
    let matcher = Matcher::new(&name, op, &value).map_err(|_| MatcherError::Regex(value))?;
    Ok((matcher, rest))
}

/// A name or a value, and what is behind it. Without quotes it is not empty.
fn word(text: &str) -> Option<(String, &str)> {
    if let Some(inside) = text.strip_prefix('"') {
        return quoted(inside);
    }
    let end = text.find(is_sign).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

/// What stands before the closing quote, and what is behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                plain @ ('"' | '\\') => plain,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::matchers::tests::check;

    #[test]
    fn names_may_be_of_any_characters() {
        check("service.name=x", r#"{service.name="x"}"#);
        check(
            r#"{"a b"="c", größe=~"[0-9]+",}"#,
            r#"{"a b"="c",größe=~"[0-9]+"}"#,
        );
        check(r#""a\"b\\\n"!=x"#, r#"{"a\"b\\\n"!="x"}"#);
        // The older form comes first: there this is a value.
        check("a=b=c", r#"{a="b=c"}"#);
    }

    #[test]
    fn what_neither_form_knows_is_refused_in_the_words_of_the_older() {
        for text in [
            "a-b",
            "a-b=",
            "{a-b=c",
            "a-b=c d=e",
            r#""a=b"#,
            r#""\q"=b"#,
            "a-b=c=d",
        ] {
            check(
                text,
                &format!("bad matcher format: {}", text.trim_start_matches('{')),
            );
        }
    }
}
