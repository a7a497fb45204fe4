//! A value that knows where it stands in the text.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, IntoDeserializer as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::reader::{Error, Reader};

/// The name under which a place is asked for: no type is called so.
pub(super) const PLACED: &str = "\0placed";

/// A value with its place. It can be read from a document alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed<T> {
    /// The first byte of the place where it is used.
    pub at: usize,
    /// What stands there.
    pub value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Placed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Placed<T>, D::Error> {
        from.deserialize_newtype_struct(PLACED, PlacedVisitor(PhantomData))
    }
}

struct PlacedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for PlacedVisitor<T> {
    type Value = Placed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a document")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Placed<T>, A::Error> {
        let missing = || de::Error::custom("a value without its place");
        let at = pair.next_element()?.ok_or_else(missing)?;
        let value = pair.next_element()?.ok_or_else(missing)?;
        Ok(Placed { at, value })
    }
}

/// A node as the pair of its place and its value.
pub(super) struct Placing<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) is_placed: bool,
}

impl<'a> SeqAccess<'a> for Placing<'a> {
    type Error = Error;

    fn next_element_seed<S: de::DeserializeSeed<'a>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let read = match std::mem::replace(&mut self.is_placed, true) {
            false => seed.deserialize(self.reader.node.at.into_deserializer()),
            true => seed.deserialize(self.reader),
        };
        read.map(Some)
    }
}
