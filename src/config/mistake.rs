//! What can be wrong with a field, and how it is told: one line for each mistake,
//! `FILE:LINE:COLUMN: [TABLE] FIELD: what is wrong, what was expected`.
//!
//! Whoever checks a value only names its field by its path, as in
//! `source.mqtt[1].qos`; where that stands is looked up when it is told.

use std::fmt;

/// Tables that stand below another one, so that two names make their head.
const KINDS_OF: [&str; 3] = ["source.", "destination.", "ingest."];

/// Fields that are tables again: the text goes on with a field of theirs.
const TABLES_BELOW: [&str; 3] = ["tls", "http_config", "tls_config"];

/// A mistake in one field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The field's path; empty for a mistake in another file.
    pub(super) path: String,
    pub(super) message: String,
}

impl Mistake {
    /// A mistake of the field with this path: names separated by `.`, members of an
    /// array by `[INDEX]`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Mistake {
        Mistake {
            path: path.into(),
            message: message.into(),
        }
    }

    /// A mistake within a table, from an error whose text begins with the field, as in
    /// `qos: 3, expected 0 or 1` or `tls: ca_file: cannot read ca.pem`. An error that
    /// begins otherwise is one of the whole table.
    pub fn within(table: &str, error: &anyhow::Error) -> Mistake {
        let mut path = table.to_owned();
        let text = format!("{error:#}");
        let mut rest = text.as_str();
        while let Some((field, after)) = split_field(rest) {
            path = joined(&path, field);
            rest = after;
            if !TABLES_BELOW.contains(&field) {
                break;
            }
        }
        Mistake::new(path, rest)
    }

    /// A mistake in a file that the configuration names; the text says where.
    pub fn elsewhere(text: impl Into<String>) -> Mistake {
        Mistake::new("", text)
    }

    /// The name of the table at the top of the file that it is in.
    pub(super) fn top(&self) -> &str {
        let end = self.path.find(['.', '[']);
        &self.path[..end.unwrap_or(self.path.len())]
    }
}

/// Without its place: for those who have no file.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&told(&self.path, &self.message))
    }
}

impl std::error::Error for Mistake {}

/// The path of something within something.
pub(super) fn joined(path: &str, name: &str) -> String {
    match path.is_empty() {
        true => name.to_owned(),
        false => format!("{path}.{name}"),
    }
}

/// `[TABLE] FIELD: message`
pub(super) fn told(path: &str, message: &str) -> String {
    if path.is_empty() {
        return message.to_owned();
    }
    let head = KINDS_OF.iter().find(|kind| path.starts_with(**kind));
    let head = head.map_or(0, |kind| kind.len());
    match path[head..].find('.') {
        Some(dot) => {
            let (table, field) = (&path[..head + dot], &path[head + dot + 1..]);
            format!("[{table}] {field}: {message}")
        }
        None => format!("[{path}]: {message}"),
    }
}

/// `FIELD: rest` and `FIELD = rest`, where the field may be a path.
fn split_field(text: &str) -> Option<(&str, &str)> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.[]".contains(c);
    let end = text.find(|c: char| !legal(c))?;
    let rest = &text[end..];
    let rest = rest.strip_prefix(": ").or(rest.strip_prefix(" = "))?;
    text.starts_with(|c: char| c.is_ascii_lowercase())
        .then_some((&text[..end], rest))
}

/// All mistakes of a configuration, each with its place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mistakes(pub(super) Vec<Told>);

/// One mistake with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Told {
    /// `FILE:LINE:COLUMN: ...`
    pub(super) line: String,
    /// The line of the file with a mark below it.
    pub(super) picture: Option<String>,
}

impl Mistakes {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line for each.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|told| told.line.as_str())
    }

    /// For a terminal: below each line the place itself.
    pub fn with_pictures(&self) -> String {
        let mut text = String::new();
        for told in &self.0 {
            text.push_str(&told.line);
            text.push('\n');
            text.push_str(told.picture.as_deref().unwrap_or_default());
        }
        text.trim_end().to_owned()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.lines().collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_set_apart_from_the_field() {
        for (path, want) in [
            ("query.timeout", "[query] timeout: x"),
            (
                "source.mqtt[1].tls.ca_file",
                "[source.mqtt[1]] tls.ca_file: x",
            ),
            ("source.mqtt[0]", "[source.mqtt[0]]: x"),
            ("route[2].topic", "[route[2]] topic: x"),
            (
                "alerting.route.routes[0].receiver",
                "[alerting] route.routes[0].receiver: x",
            ),
            ("serve", "[serve]: x"),
            ("", "x"),
        ] {
            assert_eq!(Mistake::new(path, "x").to_string(), want);
        }
    }

    #[test]
    fn an_error_of_a_table_begins_with_its_field() {
        for (text, path, message) in [
            ("qos: 3, expected 0", "t[0].qos", "3, expected 0"),
            (
                "tls: ca_file: cannot read x: y",
                "t[0].tls.ca_file",
                "cannot read x: y",
            ),
            ("labels.site = \"{\": no", "t[0].labels.site", "\"{\": no"),
            (
                "username, token: one of them",
                "t[0]",
                "username, token: one of them",
            ),
            ("No such file: x", "t[0]", "No such file: x"),
        ] {
            let err = anyhow::anyhow!(text);
            assert_eq!(Mistake::within("t[0]", &err), Mistake::new(path, message));
        }
    }
}
