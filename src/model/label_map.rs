//! Labels as a JSON object: for `#[serde(with = "label_map")]`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

use super::Labels;

/// Writes an object, in name order.
///
/// # Errors
/// Those of the writer.
pub fn serialize<S: Serializer>(labels: &Labels, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(labels.iter())
}

/// Reads an object in any order; of equal names the last one wins.
///
/// # Errors
/// When it is no object of texts.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Labels, D::Error> {
    from.deserialize_map(Pairs)
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut texts: Vec<(Text<'de>, Text<'de>)> = Vec::new();
        while let Some(pair) = map.next_entry()? {
            texts.push(pair);
        }
        let pairs = || texts.iter().map(|(n, v)| (&*n.0, &*v.0));
        // As they were written: nothing has to be sorted.
        let is_sorted = pairs().is_sorted_by(|a, b| a.0 < b.0);
        Ok(
            match is_sorted && pairs().all(|(_, value)| !value.is_empty()) {
                true => Labels::from_sorted(pairs()),
                false => Labels::from_pairs(pairs()),
            },
        )
    }
}

/// A text that is not copied where it stands in what is read as it is.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text<'de>, D::Error> {
        from.deserialize_str(Borrow)
    }
}

struct Borrow;

impl<'de> Visitor<'de> for Borrow {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Labels, serde_json::Error> {
        deserialize(&mut serde_json::Deserializer::from_str(text))
    }

    proptest! {
        #[test]
        fn labels_come_back(pairs in prop::collection::vec(("[a-e]{1,2}", ".{0,3}"), 0..6)) {
            let labels = Labels::from_pairs(pairs);
            let mut text = Vec::new();
            serialize(&labels, &mut serde_json::Serializer::new(&mut text)).unwrap();
            prop_assert_eq!(read(std::str::from_utf8(&text).unwrap()).unwrap(), labels);
        }
    }

    #[test]
    fn other_orders_and_empty_values_are_read_too() {
        let want = Labels::from_pairs([("a", "1"), ("b", "2")]);
        for text in [
            r#"{"a":"1","b":"2"}"#,
            r#"{"b":"2","a":"1"}"#,
            r#"{"a":"0","b":"2","a":"1"}"#,
            r#"{"a":"1","b":"2","c":""}"#,
            r#"{"\u0061":"\u0031","b":"2"}"#,
        ] {
            assert_eq!(read(text).unwrap(), want, "{text}");
        }
        for text in ["[]", r#"{"a":1}"#, "null", ""] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
