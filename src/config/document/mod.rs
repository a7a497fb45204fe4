//! The text of a configuration as a tree of values with their places, from TOML or YAML.
//!
//! Owns nothing. Both formats become the same tree and are read by the same
//! deserializer, so that a mistake has its place and its words in either, and the many
//! types of the configuration are compiled once instead of once for each format.
//!
//! It must never know what the fields mean.

mod from_toml;
mod from_yaml;
mod placed;
mod reader;
#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::de::DeserializeOwned;

use super::mistake::joined;
use reader::Reader;

pub use from_yaml::YamlMistake;
pub use placed::Placed;
pub(super) use reader::Error;

/// Mistakes of form that are named at once.
pub(super) const MISTAKES_MAX: usize = 50;

/// A text as a tree.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Document<'t> {
    root: Node,
    rules: Rules<'t>,
}

/// The line at which a second document of a YAML text begins.
pub fn second_document(text: &str) -> Option<usize> {
    from_yaml::first_document(text).1
}

/// Whose rules hold for values without quotes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Rules<'t> {
    /// The type stands in the text: a number is no text.
    Toml,
    /// The type that is asked for counts, as in Go's yaml package: a number without
    /// quotes may be the text of this source, and nothing is an empty text or list.
    Yaml(&'t str),
}

/// A value.
#[derive(Clone, PartialEq, Debug)]
struct Node {
    /// The first byte of the place where it is used.
    at: usize,
    /// The bytes of the text in which it is written: elsewhere when an alias brought it.
    written: Range<usize>,
    value: Value,
    /// Reading goes on as if it were not there.
    left_out: bool,
}

/// What a node holds.
#[derive(Clone, PartialEq, Debug)]
enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// A date or a time of TOML, for which no field asks.
    Date,
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

/// A field's name and the first byte of it.
#[derive(Clone, PartialEq, Debug)]
struct Key {
    at: usize,
    name: String,
}

/// The way to a field: of each table or list on it the number of the member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Way(Vec<usize>);

/// A field of the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Field {
    /// Its path as it is read: what was left out does not count.
    pub(super) path: String,
    /// Its path as it was written.
    pub(super) shown: String,
    /// The first byte of its name, or of a list's member.
    pub(super) at: usize,
}

impl<'t> Document<'t> {
    /// The tree of a TOML text, and the mistakes of one that is none.
    pub(super) fn toml(text: &'t str) -> (Document<'t>, Vec<toml::de::Error>) {
        let (root, errors) = from_toml::parse(text);
        let rules = Rules::Toml;
        (Document { root, rules }, errors)
    }

    /// The tree of a YAML text.
    ///
    /// # Errors
    /// With the place when it is no YAML, has a field twice, or its aliases make too much.
    pub(super) fn yaml(text: &'t str) -> Result<Document<'t>, YamlMistake> {
        let root = from_yaml::parse(text)?;
        let rules = Rules::Yaml(text);
        Ok(Document { root, rules })
    }

    /// Reads all that was not left out.
    ///
    /// # Errors
    /// With the first field that cannot be what the type wants.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(Reader {
            node: &self.root,
            rules: self.rules,
        })
    }

    /// Reads all that can be read. Each mistake is shown to `note` with its way, and the
    /// reading goes on without the field; the cost is that of reading once more. The
    /// default when nothing can be read, or after more mistakes than are named at once.
    pub(super) fn read_on<T: DeserializeOwned + Default>(
        &mut self,
        note: &mut dyn FnMut(&Document<'t>, Way, &Error),
    ) -> T {
        for _ in 0..=MISTAKES_MAX {
            let err = match self.read() {
                Ok(read) => return read,
                Err(err) => err,
            };
            let way = err.way();
            note(self, way.clone(), &err);
            if !self.leave_out(&way) {
                break;
            }
        }
        T::default()
    }

    /// Leaves a field out; `false` for the whole text.
    pub(super) fn leave_out(&mut self, way: &Way) -> bool {
        let mut node = &mut self.root;
        for &member in &way.0 {
            node = match &mut node.value {
                Value::List(members) => &mut members[member],
                Value::Table(fields) => &mut fields[member].1,
                _ => return false,
            };
        }
        node.left_out = true;
        !way.0.is_empty()
    }

    /// A field by its way; `None` for the whole text.
    pub(super) fn field(&self, way: &Way) -> Option<Field> {
        let mut node = &self.root;
        let mut found: Option<Field> = None;
        for &member in &way.0 {
            let (path, shown) = match &found {
                Some(field) => (field.path.as_str(), field.shown.as_str()),
                None => ("", ""),
            };
            let (field, below) = node.members(path, shown).nth(member)?;
            (found, node) = (Some(field), below);
        }
        found
    }

    /// The first byte of the whole.
    pub(super) fn begin(&self) -> usize {
        self.root.at
    }

    /// The first byte of the table that lacks the field at the end of the way; `None` for
    /// a member of a list.
    pub(super) fn table_of(&self, way: &Way) -> Option<usize> {
        let mut node = &self.root;
        let mut table = None;
        for &member in &way.0 {
            (table, node) = match &node.value {
                Value::List(members) => (None, &members[member]),
                Value::Table(fields) => (Some(node.at), &fields[member].1),
                _ => return None,
            };
        }
        table
    }

    /// All fields that were not left out.
    pub(super) fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        self.root.below("", "", &mut fields);
        fields
    }
}

impl Node {
    fn new(at: usize, written: Range<usize>, value: Value) -> Node {
        Node {
            at,
            written,
            value,
            left_out: false,
        }
    }

    fn below(&self, path: &str, shown: &str, fields: &mut Vec<Field>) {
        for (field, node) in self.members(path, shown).filter(|(_, node)| !node.left_out) {
            fields.push(field.clone());
            node.below(&field.path, &field.shown, fields);
        }
    }

    /// What is in it, with what was left out.
    fn members<'n, 'p>(
        &'n self,
        path: &'p str,
        shown: &'p str,
    ) -> impl Iterator<Item = (Field, &'n Node)> {
        let (fields, members) = match &self.value {
            Value::Table(fields) => (fields.as_slice(), &[][..]),
            Value::List(members) => (&[][..], members.as_slice()),
            _ => (&[][..], &[][..]),
        };
        let fields = fields.iter().map(move |(key, node)| {
            let field = Field {
                path: joined(path, &key.name),
                shown: joined(shown, &key.name),
                at: key.at,
            };
            (field, node)
        });
        let mut index = 0;
        let members = members.iter().enumerate().map(move |(written, node)| {
            let field = Field {
                path: format!("{path}[{index}]"),
                shown: format!("{shown}[{written}]"),
                at: node.at,
            };
            index += usize::from(!node.left_out);
            (field, node)
        });
        fields.chain(members)
    }
}
