//! YAML to the tree.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, de};
use serde_saphyr::{Location, Spanned};

use super::{Key, Node, Value};

/// Tabs in indentations that are looked at: each costs reading the text once more.
const TABS_MAX: usize = 20;

/// A mistake in a YAML text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct YamlMistake {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// The tree of a text's first document: as by Go's decoder nobody reads what is behind it.
pub(super) fn parse(text: &str) -> Result<Node, YamlMistake> {
    let text = first_document(text).0;
    serde_saphyr::from_str(text).map_err(|err| {
        let said = mistake(&err);
        bad_layout(text, &said).unwrap_or(said)
    })
}

/// What the parser says, without its picture of the place, the place a second time, and
/// its advice to who calls it.
fn mistake(err: &serde_saphyr::Error) -> YamlMistake {
    let (line, column) = err.location().map_or((1, 1), |at| (at.line(), at.column()));
    let whole = err.without_snippet().to_string();
    let first = whole.lines().next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    let end = [", set DuplicateKeyPolicy", " at line "].map(|advice| message.find(advice));
    let end = end.into_iter().flatten().min().unwrap_or(message.len());
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    YamlMistake {
        line: count(line),
        column: count(column),
        message: message[..end].to_owned(),
    }
}

/// The first document, and the line at which another one begins. The marks stand at the
/// beginning of a line, where no text of several lines can have them.
pub(super) fn first_document(text: &str) -> (&str, Option<usize>) {
    let mark = |line: &str, mark: &str| {
        let rest = line.strip_prefix(mark)?;
        let is_mark = rest.is_empty() || rest.starts_with([' ', '\t']);
        is_mark.then_some(has_content(rest))
    };
    let (mut at, mut has_begun) = (0, false);
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let bare = line.trim_end();
        let begins = mark(bare, "---");
        if has_begun && (begins.is_some() || mark(bare, "...").is_some()) {
            let is_followed = text[at..].lines().any(|line| {
                let is_mark = [mark(line.trim_end(), "---"), mark(line.trim_end(), "...")];
                match is_mark.into_iter().flatten().next() {
                    Some(has_content) => has_content,
                    None => has_content(line),
                }
            });
            return (&text[..at], is_followed.then_some(number));
        }
        has_begun |= begins.is_some() || has_content(bare);
        at += line.len();
    }
    (text, None)
}

/// Whether a line says something: no comment, no directive.
fn has_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with(['#', '%'])
}

/// What the parser's message does not help to find: the first tab in an indentation up to
/// a little behind the place at which it gave up. A tab may also stand in a text of
/// several lines, where it does no harm.
fn bad_layout(text: &str, said: &YamlMistake) -> Option<YamlMistake> {
    let mut tried = 0;
    for (line, number) in text.lines().zip(1..=said.line + 1) {
        let indent = line.len() - line.trim_start().len();
        let tab = line[..indent].find('\t').filter(|_| indent < line.len());
        if let Some(tab) = tab.filter(|_| tried < TABS_MAX) {
            tried += 1;
            if !is_to_blame(text, number, said) {
                continue;
            }
            return Some(YamlMistake {
                line: number,
                column: tab + 1,
                message: "a tab in the indentation, expected spaces".to_owned(),
            });
        }
    }
    None
}

/// Whether something else is said without the tabs that a line begins with.
fn is_to_blame(text: &str, number: usize, said: &YamlMistake) -> bool {
    let lines = text.lines().zip(1..).map(|(line, at)| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        match at == number {
            true => indent.replace('\t', " ") + rest,
            false => line.to_owned(),
        }
    });
    let lines: Vec<String> = lines.collect();
    let read = serde_saphyr::from_str::<Node>(&lines.join("\n"));
    read.map_or_else(|err| mistake(&err) != *said, |_| true)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Node, D::Error> {
        let spanned = Spanned::<Value>::deserialize(from)?;
        let at = bytes(spanned.referenced).start;
        Ok(Node::new(at, bytes(spanned.defined), spanned.value))
    }
}

/// The bytes of a place.
fn bytes(at: Location) -> Range<usize> {
    let count = |n: Option<u64>| usize::try_from(n.unwrap_or(0)).unwrap_or(usize::MAX);
    let start = count(at.span().byte_offset());
    start..start.saturating_add(count(at.span().byte_len()))
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
        from.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> de::Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        // A larger one is none that a number field takes; as a text it is what is written.
        Ok(i64::try_from(number).map_or(Value::Float(number as f64), Value::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_element()? {
            list.push(member);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut table = Vec::new();
        while let Some(key) = fields.next_key::<Spanned<String>>()? {
            let at = bytes(key.referenced).start;
            let name = key.value;
            table.push((Key { at, name }, fields.next_value()?));
        }
        Ok(Value::Table(table))
    }
}
