//! The tree to the types of the configuration.

use std::fmt;
use std::iter::Enumerate;

use serde::de::value::StrDeserializer;
use serde::de::{self, Expected, IntoDeserializer as _, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::placed::{PLACED, Placing};
use super::{Key, Node, Rules, Value, Way};

/// A field that cannot be what its type wants.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::config) struct Error {
    /// The way to the field, its own place first: of each table or list the number of
    /// the member.
    way: Vec<usize>,
    /// What is wrong and what was expected.
    pub(in crate::config) message: String,
}

impl Error {
    /// With the member of the next list or table around it.
    fn within(mut self, member: usize) -> Error {
        self.way.push(member);
        self
    }

    /// The way to the field from the root.
    pub(in crate::config) fn way(&self) -> Way {
        Way(self.way.iter().rev().copied().collect())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        let message = message.to_string();
        let way = Vec::new();
        Error { way, message }
    }
}

/// Reads a node as the type that is asked for. Each kind of type gets only the code
/// that it can use.
#[derive(Clone, Copy)]
pub(in crate::config) struct Reader<'a> {
    pub(in crate::config) node: &'a Node,
    pub(in crate::config) rules: Rules<'a>,
}

impl<'a> Reader<'a> {
    /// The text that stands there, if it may be taken for one.
    fn text(self) -> Option<&'a str> {
        match (&self.node.value, self.rules) {
            (Value::Text(text), _) => Some(text),
            (Value::Null, Rules::Yaml(_)) => Some(""),
            (Value::Bool(_) | Value::Integer(_) | Value::Float(_), Rules::Yaml(source)) => {
                source.get(self.node.written.clone())
            }
            _ => None,
        }
    }

    fn list(self) -> Option<List<'a>> {
        let members: &[Node] = match (&self.node.value, self.rules) {
            (Value::List(members), _) => members,
            (Value::Null, Rules::Yaml(_)) => &[],
            _ => return None,
        };
        Some(List {
            rest: members.iter().enumerate(),
            rules: self.rules,
        })
    }

    fn table(self) -> Option<Table<'a>> {
        let fields: &[(Key, Node)] = match (&self.node.value, self.rules) {
            (Value::Table(fields), _) => fields,
            (Value::Null, Rules::Yaml(_)) => &[],
            _ => return None,
        };
        Some(Table {
            rest: fields.iter().enumerate(),
            value: None,
            rules: self.rules,
        })
    }

    /// The mistake that something else stands there.
    fn no(self, expected: &dyn Expected) -> Error {
        let found = match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(flag) => Unexpected::Bool(*flag),
            Value::Integer(number) => Unexpected::Signed(*number),
            Value::Float(number) => Unexpected::Float(*number),
            Value::Text(text) => Unexpected::Str(text),
            Value::Date => Unexpected::Other("date"),
            Value::List(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        };
        <Error as de::Error>::invalid_type(found, expected)
    }
}

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Error;

    /// For types that take several forms, of which one is a text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Some(text) = self.text() {
            return visitor.visit_borrowed_str(text);
        }
        match &self.node.value {
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Null | Value::Date | Value::Text(_) => Err(self.no(&visitor)),
            Value::List(_) => match self.list() {
                Some(list) => visitor.visit_seq(list),
                None => Err(self.no(&visitor)),
            },
            Value::Table(_) => match self.table() {
                Some(table) => visitor.visit_map(table),
                None => Err(self.no(&visitor)),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Bool(flag) => visitor.visit_bool(flag),
            _ => Err(self.no(&visitor)),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Integer(number) => visitor.visit_i64(number),
            _ => Err(self.no(&visitor)),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            _ => Err(self.no(&visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text() {
            Some(text) => visitor.visit_borrowed_str(text),
            None => Err(self.no(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match name {
            PLACED => visitor.visit_seq(Placing {
                reader: self,
                is_placed: false,
            }),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.list() {
            Some(list) => visitor.visit_seq(list),
            None => Err(self.no(&visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.table() {
            Some(table) => visitor.visit_map(table),
            None => Err(self.no(&visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    /// Only names without content: the configuration has no others.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.text() {
            Some(name) => visitor.visit_enum(name.into_deserializer()),
            None => Err(self.no(&visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    /// Costs nothing, however much stands there.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    forward_to_deserialize_any! { i128 u128 bytes byte_buf unit unit_struct }
}

struct List<'a> {
    rest: Enumerate<std::slice::Iter<'a, Node>>,
    rules: Rules<'a>,
}

impl<'a> de::SeqAccess<'a> for List<'a> {
    type Error = Error;

    fn next_element_seed<S: de::DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some((at, node)) = self.rest.find(|(_, node)| !node.left_out) else {
            return Ok(None);
        };
        let rules = self.rules;
        let read = seed.deserialize(Reader { node, rules });
        read.map(Some).map_err(|err| err.within(at))
    }
}

struct Table<'a> {
    rest: Enumerate<std::slice::Iter<'a, (Key, Node)>>,
    value: Option<(usize, &'a Node)>,
    rules: Rules<'a>,
}

impl<'a> de::MapAccess<'a> for Table<'a> {
    type Error = Error;

    fn next_key_seed<S: de::DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some((at, (key, node))) = self.rest.find(|(_, (_, node))| !node.left_out) else {
            return Ok(None);
        };
        self.value = Some((at, node));
        let name: StrDeserializer<'a, Error> = key.name.as_str().into_deserializer();
        seed.deserialize(name)
            .map(Some)
            .map_err(|err| err.within(at))
    }

    fn next_value_seed<S: de::DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (at, node) = self.value.take().expect("a field's name is read first");
        let rules = self.rules;
        seed.deserialize(Reader { node, rules })
            .map_err(|err| err.within(at))
    }
}
