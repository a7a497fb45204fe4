//! The text of a `config.toml` or an `alertmanager.yml` to its type: every mistake of
//! form at once.
//!
//! After a mistake the reading goes on without the field, so that all are found.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::Config;
use super::document::{Document, Error, Field, MISTAKES_MAX};
use super::mistake::{Mistakes, Told, joined};
use super::origin::{LeftOut, Origin, Written, starts_with};
use super::places;

/// Reads a `config.toml`. Its mistakes of form come with it, in its origin.
///
/// # Errors
/// With the mistakes of a text that is no TOML.
pub(super) fn read(name: &str, text: &str) -> Result<Config, Mistakes> {
    let mut origin = Origin {
        file: Written::new(name, text),
        ..Origin::default()
    };
    let (document, errors) = Document::toml(text);
    if !errors.is_empty() {
        origin.file.told = syntax(&origin.file, &errors);
        return Err(origin.tell(Vec::new()));
    }
    let mut config: Config = fields(&mut origin.file, document);
    config.origin = Arc::new(origin);
    Ok(config)
}

/// Reads what a document holds; the mistakes of form are noted with what was written.
/// A text of which nothing can be read gives the defaults.
pub(super) fn fields<T: DeserializeOwned + Default>(
    written: &mut Written,
    mut document: Document<'_>,
) -> T {
    document.read_on(&mut |document, way, err| {
        let field = document.field(&way);
        written.note(field.as_ref(), err);
        let shown = field.map(|field| field.shown).unwrap_or_default();
        written.left_out.push(LeftOut { way, shown });
    })
}

impl Written {
    /// Tells what is wrong with a field, unless it follows from what was left out.
    fn note(&mut self, field: Option<&Field>, err: &Error) {
        let (shown, at) = field.map_or(("", 0), |field| (&field.shown, field.at));
        let missing = err.message.strip_prefix("missing field `");
        let missing = missing.and_then(|rest| rest.split('`').next());
        let follows = self.left_out.iter().any(|gone| match missing {
            Some(name) => gone.shown == joined(shown, name),
            // What is left of it is not what was written.
            None => field.is_some() && starts_with(&gone.shown, shown),
        });
        if !follows {
            let place = places::position(&self.text, at);
            let told = self.told_at(place, &self.named(shown, &err.message));
            self.told.push((place.0, told));
        }
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
pub(super) mod tests {
    use super::*;

    /// The reference configuration with every option and every example in force.
    pub(in crate::config) fn everything() -> String {
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
