//! The YAML texts that are no configuration: rule files and their tests.
//!
//! Read as a configuration is: after a mistake of form the reading goes on without the
//! field, so that all are found.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

pub use super::document::second_document;
use super::document::{Document, YamlMistake};
use super::places;

/// What could be read of a text.
#[derive(Debug)]
pub struct Yaml<T> {
    /// Without the fields that are no such type's; the default when nothing could be read.
    pub value: T,
    /// The mistakes of form, in the order of the text.
    pub mistakes: Vec<YamlMistake>,
    /// Where the tables begin that lack a field because of them, in bytes.
    pub damaged: HashSet<usize>,
}

/// Reads a text. The cost of a mistake is that of reading the text once more.
pub fn read<T: DeserializeOwned + Default>(text: &str) -> Yaml<T> {
    let (mut mistakes, mut damaged) = (Vec::new(), HashSet::new());
    let value = match Document::yaml(text) {
        Ok(mut document) => document.read_on(&mut |document, way, err| {
            let (at, name) = match document.field(&way) {
                Some(field) => (field.at, field.shown),
                None => (document.begin(), String::new()),
            };
            let (line, column) = places::position(text, at);
            mistakes.push(YamlMistake {
                line,
                column,
                message: named(&name, &err.message),
            });
            damaged.extend(document.table_of(&way));
        }),
        Err(mistake) => {
            mistakes.push(mistake);
            T::default()
        }
    };
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    Yaml {
        value,
        mistakes,
        damaged,
    }
}

/// The mistake with the name of its field, unless it names it itself.
fn named(path: &str, message: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or_default();
    match name.is_empty() || message.contains(" field `") {
        true => message.to_owned(),
        false => format!("{name}: {message}"),
    }
}
