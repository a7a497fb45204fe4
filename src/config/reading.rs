//! The text of a `config.toml` to a [`Config`]: every mistake of form at once.
//!
//! After a mistake the reading goes on without the field, so that all are found.

use std::sync::Arc;

use serde::Deserialize as _;
use toml::de::DeTable;

use super::Config;
use super::mistake::{Mistakes, Told, joined, told};
use super::origin::{Origin, Written, starts_with};
use super::places::{self, Node};

/// Mistakes of form that are named at once.
const MISTAKES_MAX: usize = 50;

/// Reads a file's text. Its mistakes of form come with it, in its origin.
///
/// # Errors
/// With the mistakes of a text that is no TOML, or that could not be read on.
pub(super) fn read(name: &str, text: &str) -> Result<Config, Mistakes> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut origin = Origin {
        file: Written {
            name: name.to_owned(),
            text: text.to_owned(),
        },
        ..Origin::default()
    };
    if !errors.is_empty() {
        origin.told = syntax(&origin.file, &errors);
        return Err(origin.tell(Vec::new()));
    }
    let span = root.span();
    let mut root = root.into_inner();
    loop {
        let whole = toml::Spanned::new(span.clone(), root.clone());
        let err = match Config::deserialize(toml::Deserializer::from(whole)) {
            Ok(mut config) => {
                config.origin = Arc::new(origin);
                return Ok(config);
            }
            Err(err) => err,
        };
        let left_out: Vec<usize> = origin.left_out.iter().map(|(at, _)| *at).collect();
        let whole = DeTable::parse_recoverable(text).0;
        let written = places::nodes(whole.get_ref(), &left_out);
        let node = err.span().and_then(|span| places::named(&written, &span));
        origin.note(node, &err);
        match node {
            Some(node) if left_out.len() < MISTAKES_MAX => {
                places::leave_out(&mut root, node.id);
                origin.left_out.push((node.id, node.shown.clone()));
            }
            _ => return Err(origin.tell(Vec::new())),
        }
    }
}

impl Origin {
    /// Tells what is wrong with a field, unless it follows from what was left out.
    fn note(&mut self, node: Option<&Node>, err: &toml::de::Error) {
        let Some(node) = node else {
            let start = err.span().map_or(0, |span| span.start);
            self.told_at(start, err.message());
            return;
        };
        let missing = err.message().strip_prefix("missing field `");
        let missing = missing.and_then(|rest| rest.split('`').next());
        let follows = self.left_out.iter().any(|(_, gone)| match missing {
            Some(field) => *gone == joined(&node.shown, field),
            // What is left of it is not what was written.
            None => starts_with(gone, &node.shown),
        });
        if !follows {
            self.told_at(node.id, &told(&node.shown, err.message()));
        }
    }

    fn told_at(&mut self, at: usize, message: &str) {
        let place = places::position(&self.file.text, at);
        self.told.push((place.0, self.file.told_at(place, message)));
    }
}

/// The first mistake of each line. Behind one in an array all is taken for its
/// members, so nothing more is told.
fn syntax(file: &Written, errors: &[toml::de::Error]) -> Vec<(usize, Told)> {
    let mut errors: Vec<_> = errors
        .iter()
        .map(|err| (err.span().unwrap_or_default().start, err))
        .collect();
    errors.sort_by_key(|(at, _)| *at);
    let mut told = Vec::new();
    let mut last = 0;
    for (at, err) in errors {
        let place = places::position(&file.text, at);
        if place.0 > last && told.len() < MISTAKES_MAX {
            let rest = file.text.get(at..).and_then(|rest| rest.lines().next());
            let is_missing = rest.unwrap_or_default().trim().is_empty()
                && err.message().starts_with("string values");
            let message = match is_missing {
                true => "a value is missing, expected one behind the =",
                false => err.message(),
            };
            told.push((place.0, file.told_at(place, message)));
        }
        last = place.0;
        if err.message().contains("array") {
            break;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference configuration with every option and every example in force.
    fn everything() -> String {
        let bare = |line: &str| {
            let rest = line.strip_prefix('#').unwrap_or(line);
            let example = rest.strip_prefix("| ").or(rest.strip_prefix(": "));
            let is_option = key(rest).is_some();
            match example {
                Some(example) => example.to_owned(),
                None if is_option || !line.starts_with('#') => rest.to_owned(),
                None => line.to_owned(),
            }
        };
        let lines: Vec<String> = include_str!("../../config.toml")
            .lines()
            .map(bare)
            .collect();
        lines.join("\n")
    }

    /// The name in `name = value`.
    fn key(line: &str) -> Option<&str> {
        let (name, _) = line.split_once(" = ")?;
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        name.chars().all(legal).then_some(name)
    }

    /// The numbers of the lines with mistakes of form, and what was said.
    fn told(text: &str) -> (Vec<usize>, String) {
        let mistakes = match read("c.toml", text) {
            Ok(config) => config.origin.tell(Vec::new()),
            Err(mistakes) => mistakes,
        };
        let number = |line: &str| line.split(':').nth(1).unwrap().parse().unwrap();
        let numbers = mistakes
            .lines()
            .filter(|line| !line.contains("missing field"));
        (numbers.map(number).collect(), mistakes.to_string())
    }

    #[test]
    fn a_wrong_field_anywhere_in_the_reference_is_told_at_its_line() {
        let text = everything();
        assert!(told(&text).0.is_empty(), "{}", told(&text).1);
        let mut tried = 0;
        for (at, line) in text.lines().enumerate() {
            let Some(name) = key(line) else { continue };
            let wrong = [
                line.replacen(name, &format!("{name}x"), 1),
                format!("{name} = {{ wrong = {{ type = 1 }} }}"),
                format!("{name} = [[1979-05-27]]"),
            ];
            // A value that goes on in the next line cannot be replaced by one line.
            let is_whole = toml::from_str::<toml::Table>(line).is_ok();
            let count = if is_whole { wrong.len() } else { 1 };
            for wrong in &wrong[..count] {
                let mut lines: Vec<&str> = text.lines().collect();
                lines[at] = wrong;
                let (numbers, said) = told(&lines.join("\n"));
                assert_eq!(numbers, [at + 1], "{wrong}\n{said}");
                assert!(said.contains(name), "{wrong}\n{said}");
                tried += 1;
            }
        }
        assert!(tried > 350, "{tried}");
    }

    #[test]
    fn every_wrong_line_of_the_reference_is_told_at_once_up_to_the_bound() {
        let text = everything();
        let wrong: Vec<String> = text
            .lines()
            .map(|line| match key(line) {
                Some(name) => line.replacen(name, &format!("{name}_x"), 1),
                None => line.to_owned(),
            })
            .collect();
        let (numbers, said) = told(&wrong.join("\n"));
        assert!(numbers.len() >= MISTAKES_MAX - 10, "{said}");
        assert!(numbers.is_sorted_by(|a, b| a < b), "{said}");
    }

    #[test]
    fn mistakes_of_syntax_are_told_once_for_each_line() {
        for (text, want) in [
            (
                "a = \nb = yes\nc == 1\n",
                &["1:5: a value is missing", "2:5:", "3:4:"][..],
            ),
            ("[server\nlisten = 1\n", &["1:8: unclosed table"]),
            ("a = [1,\n2\nb = 3\n[c]\nd = 1\n", &["3:1: missing comma"]),
            ("x = \"a\nb = 1\n", &["1:7:"]),
            ("a = 1\na = 2\n", &["2:1: duplicate key"]),
            ("a = \"\0\"\n", &["1:6: invalid basic string"]),
            (
                "\u{feff}[server]\r\nlog_levl = 1\r\n",
                &["2:1: [server] log_levl"],
            ),
        ] {
            let said = told(text).1;
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(lines.len(), want.len(), "{text:?}\n{said}");
            for (line, want) in lines.iter().zip(want) {
                assert!(
                    line.starts_with(&format!("c.toml:{want}")),
                    "{text:?}\n{said}"
                );
            }
        }
    }
}
