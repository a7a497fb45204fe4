//! The YAML texts that are no configuration: rule files and their tests.
//!
//! Read as a configuration is: after a mistake of form the reading goes on without the
//! field, so that all are found.

use serde::de::DeserializeOwned;

use super::document::{Document, YamlMistake};
use super::places;

/// Mistakes of form that are named at once.
const MISTAKES_MAX: usize = 50;

/// What could be read of a text.
#[derive(Debug)]
pub struct Yaml<T> {
    /// Without the fields that are no such type's; the default when nothing could be read.
    pub value: T,
    /// The mistakes of form, in the order of the text.
    pub mistakes: Vec<YamlMistake>,
    /// Where the fields begin that were left out because of them, in bytes.
    pub left_out: Vec<usize>,
}

/// Reads a text. The cost of a mistake is that of reading the text once more.
pub fn read<T: DeserializeOwned + Default>(text: &str) -> Yaml<T> {
    let mut found = Yaml {
        value: T::default(),
        mistakes: Vec::new(),
        left_out: Vec::new(),
    };
    let mut document = match Document::yaml(text) {
        Ok(document) => document,
        Err(mistake) => {
            found.mistakes.push(mistake);
            return found;
        }
    };
    while found.mistakes.len() < MISTAKES_MAX {
        let err = match document.read() {
            Ok(value) => {
                found.value = value;
                break;
            }
            Err(err) => err,
        };
        let way = err.way();
        let (at, name) = match document.field(&way) {
            Some(field) => (field.at, field.shown),
            None => (document.begin(), String::new()),
        };
        let (line, column) = places::position(text, at);
        found.mistakes.push(YamlMistake {
            line,
            column,
            message: named(&name, &err.message),
        });
        found.left_out.push(at);
        if !document.leave_out(&way) {
            break;
        }
    }
    found
        .mistakes
        .sort_by_key(|mistake| (mistake.line, mistake.column));
    found
}

/// The mistake with the name of its field, unless it names it itself.
fn named(path: &str, message: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or_default();
    match name.is_empty() || message.contains(" field `") {
        true => message.to_owned(),
        false => format!("{name}: {message}"),
    }
}
