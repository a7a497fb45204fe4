//! Routes and inhibition rules, in the words of an `alertmanager.yml`.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Deserializer, de};

use super::Span;
use crate::model::matchers;
use crate::model::{MatchOp, Matcher};

/// Stands in `group_by` for all labels.
pub const ALL_LABELS: &str = "...";

/// Matchers written as `name OP "value"`, sorted as Alertmanager sorts them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Matchers(pub Vec<Matcher>);

/// One text with matchers: a mistake in it has its own place.
struct Line(Vec<Matcher>);

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Line, D::Error> {
        let line = matchers::parse(&String::deserialize(from)?);
        line.map(Line).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Matchers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Matchers, D::Error> {
        let lines = Vec::<Line>::deserialize(from)?;
        let mut all: Vec<Matcher> = lines.into_iter().flat_map(|line| line.0).collect();
        all.sort_unstable_by(matchers::order);
        Ok(Matchers(all))
    }
}

/// The old form of matchers that compare with a pattern: label to pattern.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Patterns(Vec<Matcher>);

impl Patterns {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The old form of matchers that compare for equality: label to value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Equals(Vec<Matcher>);

impl Equals {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Equals {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Equals, D::Error> {
        let pairs = BTreeMap::<String, String>::deserialize(from)?;
        let matcher = |(name, value): (&String, &String)| {
            label_name(name)?;
            Ok(Matcher::equal(name, value))
        };
        let all = pairs.iter().map(matcher).collect::<Result<_, _>>()?;
        Ok(Equals(all))
    }
}

/// The old forms take no other names than the old ones.
fn label_name<E: de::Error>(name: &str) -> Result<(), E> {
    match is_label_name(name) {
        true => Ok(()),
        false => Err(E::custom(format!("invalid label name {name:?}"))),
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Patterns, D::Error> {
        let pairs = BTreeMap::<String, String>::deserialize(from)?;
        let matcher = |(name, pattern): (&String, &String)| {
            label_name(name)?;
            // As Alertmanager keeps and shows it.
            let anchored = format!("^(?:{pattern})$");
            Matcher::new(name, MatchOp::Regex, &anchored).map_err(de::Error::custom)
        };
        let all = pairs.iter().map(matcher).collect::<Result<_, _>>()?;
        Ok(Patterns(all))
    }
}

/// The labels by which alerts are put together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupBy(pub Vec<String>);

impl<'de> Deserialize<'de> for GroupBy {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<GroupBy, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        let mut seen = HashSet::new();
        for name in &names {
            // Names of any characters, as since Alertmanager 0.27.
            if name.is_empty() {
                let text = format!("invalid label name {name:?} in group_by list");
                return Err(de::Error::custom(text));
            }
            if !seen.insert(name) {
                let text = format!("duplicated label {name:?} in group_by");
                return Err(de::Error::custom(text));
            }
        }
        if names.len() > 1 && names.iter().any(|name| name == ALL_LABELS) {
            let text = "cannot have wildcard group_by (`...`) and other labels at the same time";
            return Err(de::Error::custom(text));
        }
        Ok(GroupBy(names))
    }
}

fn not_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(from)?;
    Ok(name.filter(|name| !name.is_empty()))
}

/// Whether a text can name a label.
pub fn is_label_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty() && name.bytes().all(legal) && !name.as_bytes()[0].is_ascii_digit()
}

/// A node of the routing tree; what it leaves out it takes from its parent.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteNode {
    /// Who is told; an empty name is none.
    #[serde(deserialize_with = "not_empty")]
    pub receiver: Option<String>,
    /// Alerts with equal values of these labels share one notification; `...` is all.
    pub group_by: GroupBy,
    /// Labels that must have these values (the old form of `matchers`).
    #[serde(rename = "match")]
    pub equals: Equals,
    /// Labels that must match these patterns (the old form of `matchers`).
    pub match_re: Patterns,
    /// What an alert must fulfil.
    pub matchers: Matchers,
    /// Whether the next sibling is asked too.
    #[serde(rename = "continue")]
    pub goes_on: bool,
    /// How long a new group waits for more alerts.
    pub group_wait: Option<Span>,
    /// How long a group waits before it tells of changes.
    pub group_interval: Option<Span>,
    /// How long until an unchanged group is told again.
    pub repeat_interval: Option<Span>,
    /// Ours: people are told once in this time, at its multiples since 1970, of all that
    /// fired or ended meanwhile; the two times of groups do not count then.
    pub digest_interval: Option<Span>,
    /// Ours: what begins to fire more often than this within an hour is told once an hour
    /// only, at the full hour, until it does so no more. 0 is no limit.
    pub flap_limit: Option<usize>,
    /// Nobody is told while one of these holds.
    pub mute_time_intervals: Vec<String>,
    /// With any of these, nobody is told but while one of them holds.
    pub active_time_intervals: Vec<String>,
    /// Children, the first that matches counts.
    pub routes: Vec<RouteNode>,
}

impl RouteNode {
    /// All conditions in all three forms, sorted.
    pub fn conditions(&self) -> Vec<Matcher> {
        conditions(&self.equals, &self.match_re, &self.matchers)
    }

    /// This node and all below it.
    pub fn all(&self) -> Vec<&RouteNode> {
        let mut all = vec![self];
        let mut at = 0;
        while let Some(node) = all.get(at).copied() {
            all.extend(&node.routes);
            at += 1;
        }
        all
    }
}

/// While a source alert fires, target alerts with the same values of `equal` are quiet.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InhibitRule {
    /// What people call it.
    pub name: String,
    /// The old form of `source_matchers`.
    pub source_match: Equals,
    /// The old form of `source_matchers`.
    pub source_match_re: Patterns,
    /// What makes others quiet.
    pub source_matchers: Matchers,
    /// The old form of `target_matchers`.
    pub target_match: Equals,
    /// The old form of `target_matchers`.
    pub target_match_re: Patterns,
    /// What becomes quiet.
    pub target_matchers: Matchers,
    /// Labels whose values both must share; a missing one is the empty text.
    pub equal: Vec<String>,
}

impl InhibitRule {
    /// All conditions on the source.
    pub fn source(&self) -> Vec<Matcher> {
        conditions(
            &self.source_match,
            &self.source_match_re,
            &self.source_matchers,
        )
    }

    /// All conditions on the target.
    pub fn target(&self) -> Vec<Matcher> {
        conditions(
            &self.target_match,
            &self.target_match_re,
            &self.target_matchers,
        )
    }
}

fn conditions(equals: &Equals, patterns: &Patterns, matchers: &Matchers) -> Vec<Matcher> {
    let mut all = equals.0.clone();
    all.extend(patterns.0.iter().cloned());
    all.extend(matchers.0.iter().cloned());
    all.sort_unstable_by(matchers::order);
    all
}
