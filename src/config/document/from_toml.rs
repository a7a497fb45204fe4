//! TOML to the tree.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Key, Node, Value};

/// The tree of a text, and the mistakes of one that is no TOML.
pub(super) fn parse(text: &str) -> (Node, Vec<toml::de::Error>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let at = root.span();
    (Node::new(at.start, at, table(root.get_ref())), errors)
}

fn table(table: &DeTable<'_>) -> Value {
    let field = |(key, value): (&Spanned<_>, _)| {
        let name = String::from(std::borrow::Cow::clone(key.get_ref()));
        let at = key.span().start;
        (Key { at, name }, node(value))
    };
    Value::Table(table.iter().map(field).collect())
}

fn node(value: &Spanned<DeValue<'_>>) -> Node {
    let read = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => {
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                // Told with the range by whoever asks for a whole number.
                Err(_) => Value::Float(number.as_str().parse().unwrap_or(f64::INFINITY)),
            }
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(members) => Value::List(members.iter().map(node).collect()),
        DeValue::Table(fields) => table(fields),
    };
    let at = value.span();
    Node::new(at.start, at, read)
}
