//! The values that a template works with, typed as Go types them.
//!
//! Whole floats stay floats and integers stay integers: `gt $value 1` is an
//! error in Prometheus, and `printf "%d" 1.0` prints its complaint.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Labels, Timestamp};

/// A value. Cloning is cheap.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing: Go's nil, or what a missing argument evaluates to.
    Nil,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `float64`
    Float(f64),
    /// `string`
    Str(Arc<str>),
    /// A slice.
    List(Arc<List>),
    /// A map with text keys.
    Map(Arc<Map>),
    /// A struct, or a pointer to one.
    Struct(Arc<Struct>),
    /// `*time.Time`, always in UTC.
    Time(Timestamp),
    /// `*time.Duration`, in nanoseconds.
    Duration(i64),
}

/// The elements of a slice with its type's name.
#[derive(Debug)]
pub struct List {
    /// As `%T` prints it.
    pub type_name: &'static str,
    /// In order.
    pub items: Vec<Value>,
}

/// A map with text keys, in key order.
#[derive(Debug)]
pub struct Map {
    /// What a missing key gives: `""` in a map of texts, nothing in a map of anything.
    pub zero: Value,
    /// The entries.
    pub entries: BTreeMap<String, Value>,
    /// Whether it has the methods of Alertmanager's label sets.
    pub is_kv: bool,
}

/// A struct's fields in the order of their declaration.
#[derive(Debug)]
pub struct Struct {
    /// As `%T` prints it.
    pub type_name: &'static str,
    /// The fields.
    pub fields: Vec<(&'static str, Value)>,
}

/// The type of a query's result.
pub const QUERY_RESULT: &str = "template.queryResult";

/// The type of a notification's alerts.
pub const ALERTS: &str = "template.Alerts";

/// The type of a label set's pairs.
pub const PAIRS: &str = "template.Pairs";

/// The type of a list of texts.
pub const STRINGS: &str = "[]string";

/// The type of an element of a query's result.
pub const SAMPLE: &str = "*template.sample";

impl Value {
    /// A text.
    pub fn str(text: impl Into<Arc<str>>) -> Value {
        Value::Str(text.into())
    }

    /// A map of texts, such as `$labels`.
    pub fn texts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
        Value::map(&mut pairs.into_iter(), false)
    }

    /// A label set of Alertmanager's, with methods such as `.SortedPairs`.
    pub fn kv<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
        Value::map(&mut pairs.into_iter(), true)
    }

    fn map(pairs: &mut dyn Iterator<Item = (&str, &str)>, is_kv: bool) -> Value {
        let mut entries = BTreeMap::new();
        for (name, value) in pairs {
            entries.insert(name.to_owned(), Value::str(value));
        }
        Value::Map(Arc::new(Map {
            zero: Value::str(""),
            entries,
            is_kv,
        }))
    }

    /// A list of this type.
    pub fn list(type_name: &'static str, items: Vec<Value>) -> Value {
        Value::List(Arc::new(List { type_name, items }))
    }

    /// A query's result.
    pub fn query_result(samples: &[(Labels, f64)]) -> Value {
        let sample = |(labels, v): &(Labels, f64)| {
            Value::Struct(Arc::new(Struct {
                type_name: SAMPLE,
                fields: vec![
                    ("Labels", Value::texts(labels.iter())),
                    ("Value", Value::Float(*v)),
                ],
            }))
        };
        Value::List(Arc::new(List {
            type_name: QUERY_RESULT,
            items: samples.iter().map(sample).collect(),
        }))
    }

    /// The type's name, as `%T` prints it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "<nil>",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Str(_) => "string",
            Value::List(list) => list.type_name,
            Value::Map(map) if map.is_kv => "template.KV",
            Value::Map(map) if matches!(map.zero, Value::Str(_)) => "map[string]string",
            Value::Map(_) => "map[string]interface {}",
            Value::Struct(object) => object.type_name,
            Value::Time(_) => "*time.Time",
            Value::Duration(_) => "*time.Duration",
        }
    }

    /// Whether `if` takes the value for true: not zero, not empty, not nothing.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            // NaN is not zero, so it is true.
            Value::Float(f) => *f != 0.0,
            Value::Str(s) => !s.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Map(map) => !map.entries.is_empty(),
            Value::Struct(_) | Value::Time(_) | Value::Duration(_) => true,
        }
    }
}

impl Struct {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let field = self.fields.iter().find(|(n, _)| *n == name);
        field.map(|(_, value)| value)
    }
}

impl Map {
    /// The value of a key, or what stands for a missing one.
    pub fn lookup(&self, key: &str) -> &Value {
        self.entries.get(key).unwrap_or(&self.zero)
    }
}
