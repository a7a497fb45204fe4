//! Where the fields of a text stand: their paths with line and column, for TOML and
//! for YAML. Made only when there is a mistake to tell.

use std::fmt;

use serde::{Deserialize, de};
use serde_saphyr::Spanned as YamlSpanned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::mistake::joined;

/// A field and where it stands, both counted from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Its path as the configuration knows it: what was left out does not count.
    pub(super) path: String,
    /// Its path as it was written.
    pub(super) shown: String,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Fields that may be written under another name.
const ALIASES: [(&str, &str); 1] = [("rules.rule_files", "rules.files")];

/// The place of a field, or else of what it would be in. Gives the path to show too.
pub(super) fn find<'p>(places: &'p [Place], path: &str) -> Option<(&'p Place, String)> {
    let is_written = |name: &str| places.iter().any(|place| place.path == name);
    let alias = ALIASES.iter().find_map(|(name, other)| {
        let rest = path.strip_prefix(name)?;
        is_written(other).then(|| format!("{other}{rest}"))
    });
    let path = alias.as_deref().unwrap_or(path);
    let mut known = path;
    loop {
        if let Some(place) = places.iter().find(|place| place.path == known) {
            return Some((place, format!("{}{}", place.shown, &path[known.len()..])));
        }
        known = &known[..known.rfind(['.', '['])?];
    }
}

/// The line and the column of a byte, both counted from 1.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let at = at.min(text.len());
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[start..].chars().count() + 1)
}

/// A field of a TOML text, with the bytes by which an error may name it.
pub(super) struct Node {
    path: String,
    pub(super) shown: String,
    /// Tells it from all others: where its name begins, of an array's member its value.
    pub(super) id: usize,
    key: Option<std::ops::Range<usize>>,
    value: std::ops::Range<usize>,
}

/// All fields of a TOML text but those that were left out.
pub(super) fn nodes(root: &DeTable<'_>, left_out: &[usize]) -> Vec<Node> {
    let mut walk = Walk {
        left_out,
        nodes: Vec::new(),
    };
    walk.table(root, "", "");
    walk.nodes
}

/// The field that an error at these bytes is about.
pub(super) fn named<'n>(nodes: &'n [Node], at: &std::ops::Range<usize>) -> Option<&'n Node> {
    let by_key = nodes.iter().find(|node| node.key.as_ref() == Some(at));
    // The head of a table in an array is the head of the array too.
    by_key.or_else(|| nodes.iter().rfind(|node| node.value == *at))
}

/// The places of these fields.
pub(super) fn places(text: &str, nodes: &[Node]) -> Vec<Place> {
    let place = |node: &Node| {
        let (line, column) = position(text, node.id);
        Place {
            path: node.path.clone(),
            shown: node.shown.clone(),
            line,
            column,
        }
    };
    nodes.iter().map(place).collect()
}

struct Walk<'a> {
    left_out: &'a [usize],
    nodes: Vec<Node>,
}

impl Walk<'_> {
    fn table(&mut self, table: &DeTable<'_>, path: &str, shown: &str) {
        for (key, value) in table {
            if self.left_out.contains(&key.span().start) {
                continue;
            }
            self.nodes.push(Node {
                path: joined(path, key.get_ref()),
                shown: joined(shown, key.get_ref()),
                id: key.span().start,
                key: Some(key.span()),
                value: value.span(),
            });
            self.below(value);
        }
    }

    fn below(&mut self, value: &Spanned<DeValue<'_>>) {
        let last = self.nodes.last().expect("the value's own node was added");
        let (path, shown) = (last.path.clone(), last.shown.clone());
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, &path, &shown),
            DeValue::Array(members) => {
                let mut index = 0;
                for (written, member) in members.iter().enumerate() {
                    if self.left_out.contains(&member.span().start) {
                        continue;
                    }
                    self.nodes.push(Node {
                        path: format!("{path}[{index}]"),
                        shown: format!("{shown}[{written}]"),
                        id: member.span().start,
                        key: None,
                        value: member.span(),
                    });
                    self.below(member);
                    index += 1;
                }
            }
            _ => {}
        }
    }
}

/// Takes a field out of a table.
pub(super) fn leave_out(table: &mut DeTable<'_>, id: usize) {
    let key = table.keys().find(|key| key.span().start == id).cloned();
    if let Some(key) = key {
        table.remove(&**key.get_ref());
        return;
    }
    for (_, value) in table.iter_mut() {
        leave_out_below(value, id);
    }
}

fn leave_out_below(value: &mut Spanned<DeValue<'_>>, id: usize) {
    match value.get_mut() {
        DeValue::Table(table) => leave_out(table, id),
        DeValue::Array(members) => {
            if members.iter().any(|member| member.span().start == id) {
                let all = std::mem::replace(members, DeArray::new()).into_iter();
                for member in all.filter(|member| member.span().start != id) {
                    members.push(member);
                }
            }
            for member in members.iter_mut() {
                leave_out_below(member, id);
            }
        }
        _ => {}
    }
}

/// The places of a YAML text, none when it is not one.
pub(super) fn of_yaml(text: &str) -> Vec<Place> {
    let mut places = Vec::new();
    if let Ok(root) = serde_saphyr::from_str::<YamlNode>(text) {
        root.places("", &mut places);
    }
    places
}

/// Any YAML, of which only the names and the places are kept.
#[derive(Default)]
struct YamlNode(Vec<(Option<YamlSpanned<String>>, YamlSpanned<YamlNode>)>);

impl YamlNode {
    fn places(&self, path: &str, places: &mut Vec<Place>) {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let (path, at) = match key {
                Some(key) => (joined(path, &key.value), key.referenced),
                None => (format!("{path}[{index}]"), value.referenced),
            };
            let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            places.push(Place {
                path: path.clone(),
                shown: path.clone(),
                line: count(at.line()),
                column: count(at.column()),
            });
            value.value.places(&path, places);
        }
    }
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<YamlNode, D::Error> {
        from.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> de::Visitor<'de> for YamlVisitor {
    type Value = YamlNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<YamlNode, E> {
        Ok(YamlNode::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<YamlNode, E> {
        Ok(YamlNode::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<YamlNode, E> {
        Ok(YamlNode::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<YamlNode, E> {
        Ok(YamlNode::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<YamlNode, E> {
        Ok(YamlNode::default())
    }

    fn visit_unit<E>(self) -> Result<YamlNode, E> {
        Ok(YamlNode::default())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut members: A) -> Result<YamlNode, A::Error> {
        let mut node = YamlNode::default();
        while let Some(member) = members.next_element()? {
            node.0.push((None, member));
        }
        Ok(node)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut fields: A) -> Result<YamlNode, A::Error> {
        let mut node = YamlNode::default();
        while let Some(key) = fields.next_key()? {
            node.0.push((Some(key), fields.next_value()?));
        }
        Ok(node)
    }
}
