//! `$name`, `${name:format}` and `[[name]]` in queries, titles and legends.

use std::fmt::Write as _;

use super::timerange::{Range, Steps, duration_text};
use super::variables::Resolved;

/// What may stand in a text: variables and the built-in times.
pub struct Scope<'a> {
    /// The dashboard's variables.
    pub variables: &'a [Resolved],
    /// The range of the panel.
    pub range: &'a Range,
    /// The steps of the query.
    pub steps: Steps,
}

/// Where the text stands decides how values are written when no format says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Inside of PromQL: several values become `(a|b)`, escaped.
    Query,
    /// Words for people: `a + b`.
    Words,
}

impl Scope<'_> {
    /// Puts values in. What is not known stays as it is.
    pub fn expand(&self, text: &str, place: Place) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['$', '[']) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            match reference(rest).and_then(|found| Some((found.len, self.value(&found, place)?))) {
                Some((len, value)) => {
                    out.push_str(&value);
                    rest = &rest[len..];
                }
                None => {
                    out.push_str(&rest[..1]);
                    rest = &rest[1..];
                }
            }
        }
        out.push_str(rest);
        out
    }

    fn value(&self, found: &Reference<'_>, place: Place) -> Option<String> {
        if let Some(built_in) = self.built_in(found.name) {
            return Some(built_in);
        }
        let resolved = self
            .variables
            .iter()
            .find(|r| r.variable.name == found.name)?;
        if resolved.all
            && let Some(all) = &resolved.variable.all_value
        {
            return Some(all.clone());
        }
        let members = resolved.members();
        Some(match (found.format, place) {
            (Some(format), _) => formatted(&members, format, resolved),
            (None, Place::Words) => resolved.summary(),
            (None, Place::Query) => for_query(&members, resolved),
        })
    }

    fn built_in(&self, name: &str) -> Option<String> {
        let span_ms = self.range.span_ms();
        Some(match name {
            "__interval" => duration_text(self.steps.interval_ms),
            "__interval_ms" => self.steps.interval_ms.to_string(),
            "__rate_interval" => duration_text(self.steps.rate_interval_ms),
            "__rate_interval_ms" => self.steps.rate_interval_ms.to_string(),
            "__range" => format!("{}s", ((span_ms + 999) / 1000)),
            "__range_s" => ((span_ms + 999) / 1000).to_string(),
            "__range_ms" => span_ms.to_string(),
            "__from" => self.range.from.as_ms().to_string(),
            "__to" => self.range.to.as_ms().to_string(),
            "__all" => ".*".to_owned(),
            "timeFilter" | "__timeFilter" => String::new(),
            _ => {
                let auto = name.strip_prefix("__auto_interval_")?;
                self.variables.iter().find(|r| r.variable.name == auto)?;
                duration_text(self.steps.interval_ms)
            }
        })
    }
}

struct Reference<'a> {
    name: &'a str,
    format: Option<&'a str>,
    len: usize,
}

/// The reference that `text` starts with.
fn reference(text: &str) -> Option<Reference<'_>> {
    let closed = |open: &str, close: &str| {
        let inner = text.strip_prefix(open)?;
        let end = inner.find(close)?;
        let (name, format) = match inner[..end].split_once(':') {
            Some((name, format)) => (name, Some(format)),
            None => (&inner[..end], None),
        };
        Some(Reference {
            name,
            format,
            len: open.len() + end + close.len(),
        })
    };
    if text.starts_with("${") {
        return closed("${", "}");
    }
    if text.starts_with("[[") {
        return closed("[[", "]]");
    }
    let name = text.strip_prefix('$')?;
    let len = name
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
        .count();
    (len > 0).then(|| Reference {
        name: &name[..len],
        format: None,
        len: len + 1,
    })
}

/// As Grafana's Prometheus source: escaped for a pattern where several values
/// are possible, else only for the quotes.
fn for_query(members: &[&str], resolved: &Resolved) -> String {
    let variable = &resolved.variable;
    if !variable.multi && !variable.include_all {
        let value = members.first().copied().unwrap_or_default();
        return value.replace('\\', "\\\\").replace('"', "\\\"");
    }
    let escaped: Vec<String> = members.iter().map(|m| escape_regex(m, "\\\\")).collect();
    match escaped.as_slice() {
        [one] => one.clone(),
        // Nothing is there yet, so nothing may be ruled out.
        [] if resolved.all => ".*".to_owned(),
        many => format!("({})", many.join("|")),
    }
}

/// Puts `mark` before every character that means something in a pattern.
fn escape_regex(text: &str, mark: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str(&mark.repeat(2)),
            '"' => out.push_str("\\\""),
            '^' | '$' | '*' | '{' | '}' | '[' | ']' | '+' | '?' | '.' | '(' | ')' | '|' => {
                out.push_str(mark);
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

fn formatted(members: &[&str], format: &str, resolved: &Resolved) -> String {
    let quoted = |quote: char| {
        let quoted: Vec<String> = members
            .iter()
            .map(|m| format!("{quote}{}{quote}", m.replace(quote, &format!("\\{quote}"))))
            .collect();
        quoted.join(",")
    };
    match format {
        "pipe" => members.join("|"),
        "csv" | "raw" => members.join(","),
        "regex" => {
            let escaped: Vec<String> = members.iter().map(|m| escape_regex(m, "\\")).collect();
            match escaped.as_slice() {
                [one] => one.clone(),
                many => format!("({})", many.join("|")),
            }
        }
        "glob" if members.len() > 1 => format!("{{{}}}", members.join(",")),
        "singlequote" => quoted('\''),
        "doublequote" => quoted('"'),
        "json" => serde_json::to_string(members).unwrap_or_default(),
        "text" => resolved.summary(),
        "queryparam" => members
            .iter()
            .map(|m| format!("var-{}={}", resolved.variable.name, percent_encode(m)))
            .collect::<Vec<_>>()
            .join("&"),
        "percentencode" => percent_encode(&members.join(",")),
        _ => members.join(","),
    }
}

/// Percent-encodes everything but letters, digits and `-_.~`.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::variables::Variable;
    use super::*;
    use crate::model::Timestamp;
    use serde_json::json;

    fn resolved(multi: bool, all: bool, values: &[&str]) -> Resolved {
        let json = json!({"name": "x", "type": "custom", "query": "a.b,c", "multi": multi, "includeAll": all});
        let variable = Variable::parse(&json).unwrap();
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        variable.resolve(variable.options.clone(), Some(&values))
    }

    fn check(variable: Resolved, text: &str, want: &str) {
        let range = Range {
            from_text: String::new(),
            to_text: String::new(),
            from: Timestamp::from_ms(0),
            to: Timestamp::from_ms(3_600_000),
        };
        let scope = Scope {
            variables: &[variable],
            range: &range,
            steps: super::super::timerange::steps(3_600_000, 480, 15_000, 15_000, 1),
        };
        assert_eq!(scope.expand(text, Place::Query), want, "{text}");
    }

    #[test]
    fn one_value_is_itself_and_several_are_a_pattern() {
        check(
            resolved(false, false, &["a\"b"]),
            "x=\"$x\"",
            "x=\"a\\\"b\"",
        );
        check(resolved(true, false, &["a.b"]), "$x", "a\\\\.b");
        check(resolved(true, false, &["a.b", "c"]), "$x", "(a\\\\.b|c)");
        check(resolved(true, true, &["$__all"]), "${x}", "(a\\\\.b|c)");
        check(resolved(true, true, &["$__all"]), "[[x:csv]]", "a.b,c");
        check(
            resolved(true, false, &["a.b", "c"]),
            "${x:regex} ${x:pipe} ${x:json}",
            "(a\\.b|c) a.b|c [\"a.b\",\"c\"]",
        );
        check(
            resolved(true, false, &["a b"]),
            "${x:queryparam}",
            "var-x=a%20b",
        );
    }

    #[test]
    fn times_are_built_in_and_the_unknown_stays() {
        check(
            resolved(false, false, &["a"]),
            "rate(m[$__rate_interval]) $__interval $__range $y ${ $",
            "rate(m[1m]) 15s 3600s $y ${ $",
        );
        check(
            resolved(false, false, &["a"]),
            "a[5m] [[nope]] é$é",
            "a[5m] [[nope]] é$é",
        );
    }
}
