//! A payload to values, a time and label values, without building a tree.
//!
//! JSON: an object, flat or nested. Numbers and booleans (0 and 1) are values,
//! named by their path; strings, nulls and whole arrays are skipped. The time
//! stands at the map's path, else in `ts`, `time` or `timestamp` at the top,
//! the first of these that is there; these three are never values. Nor are
//! `tenant_id` and `device_id` at the top: the topic says whose the message is,
//! and a `tenant_id` that says otherwise refuses it. What a label is made of is
//! not a value either.
//!
//! JSON leaves open what two equal keys mean, and every reader picks another
//! one. Two values for one field are refused here rather than one of them
//! silently dropped; the series cache finds them, as it sees every path.
//!
//! Depth is counted while walking, in skipped arrays too, and is far below
//! serde_json's own limit of 128: hostile nesting is an error, never a deep
//! stack. Paths, values and depth are bounded, so a payload costs memory in
//! proportion to its own size. NaN and infinity are not JSON, and 1e999 is
//! refused as out of range, not stored as infinity.
//!
//! Measured by `benches/ingest.rs`.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer as _, MapAccess, SeqAccess, Visitor};

use super::map::{Map, NUMBER_FIELD};
use super::time::{self, Written};
use super::topic::DEVICE_LABEL;
use crate::config::{Limits, PayloadFormat};
use crate::model::Timestamp;
use crate::model::tenant::TENANT_LABEL;
use crate::telemetry::metrics::Reason;

/// The deepest `limits.depth_max` that serde_json's own limit leaves room for.
pub const DEPTH_MAX: usize = 120;

/// Memory that a reading keeps for the next one, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Why a message is refused.
#[derive(Clone, PartialEq, Debug)]
pub struct Refused {
    /// For the counter and the dead letter.
    pub reason: Reason,
    /// In words, for the dead letter.
    pub detail: String,
}

impl Refused {
    /// A refusal in words.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Refused {
        Refused {
            reason,
            detail: detail.into(),
        }
    }
}

/// What a payload says. Kept and filled again, so that most messages allocate nothing.
#[derive(Debug, Default)]
pub struct Reading {
    paths: String,
    values: Vec<(usize, f64)>,
    labels: Vec<String>,
    time: Option<Timestamp>,
    path: String,
}

impl Reading {
    /// The values in the payload's order, each with its path.
    pub fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        let mut start = 0;
        self.values.iter().map(move |&(end, value)| {
            let path = &self.paths[start..end];
            start = end;
            (path, value)
        })
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The payload's own time.
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// The values of the map's payload labels, in its order; empty when not there.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    fn clear(&mut self, labels: usize) {
        if self.paths.capacity() > KEPT_BYTES_MAX {
            self.paths = String::new();
            self.values = Vec::new();
        }
        self.paths.clear();
        self.values.clear();
        self.path.clear();
        self.time = None;
        self.labels.resize(labels, String::new());
        self.labels.iter_mut().for_each(String::clear);
    }

    fn push(&mut self, value: f64) {
        self.paths.push_str(&self.path);
        self.values.push((self.paths.len(), value));
    }
}

/// Reads a payload of `tenant` into `out`, which is emptied first.
///
/// # Errors
/// When it is not what the map expects or has no value.
pub fn decode(
    map: &Map,
    limits: &Limits,
    tenant: &str,
    payload: &[u8],
    out: &mut Reading,
) -> Result<(), Refused> {
    out.clear(map.payload_labels.len());
    let text = std::str::from_utf8(payload)
        .map_err(|err| Refused::new(Reason::Encoding, err.to_string()))?;
    match map.format {
        PayloadFormat::Number => number(text, out),
        PayloadFormat::State => state(text, out),
        PayloadFormat::Json => json(map, limits, tenant, text, out),
    }
}

fn number(text: &str, out: &mut Reading) -> Result<(), Refused> {
    match text.trim().parse::<f64>() {
        Ok(value) if value.is_finite() => {
            out.path.push_str(NUMBER_FIELD);
            out.push(value);
            Ok(())
        }
        _ => Err(Refused::new(Reason::Parse, "not a finite number")),
    }
}

/// What wills and birth messages say of a device or a gateway: as Sparkplug, Homie,
/// Tasmota and Zigbee2MQTT write it.
fn state(text: &str, out: &mut Reading) -> Result<(), Refused> {
    let value = match serde_json::from_str(text.trim()) {
        Ok(serde_json::Value::Object(fields)) => {
            let names = ["state", "status", "online", "connected"];
            names
                .iter()
                .find_map(|name| fields.get(*name))
                .and_then(is_there)
        }
        Ok(value) => is_there(&value),
        Err(_) => is_there(&serde_json::Value::String(text.to_owned())),
    };
    let value = value.ok_or_else(|| {
        let text = "not a state, expected online, offline or their like";
        Refused::new(Reason::Parse, text)
    })?;
    out.path.push_str(NUMBER_FIELD);
    out.push(value);
    Ok(())
}

fn is_there(value: &serde_json::Value) -> Option<f64> {
    let word = match value {
        serde_json::Value::Bool(value) => return Some(f64::from(u8::from(*value))),
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::String(text) => text.trim().to_ascii_lowercase(),
        _ => return None,
    };
    match word.as_str() {
        "online" | "up" | "on" | "connected" | "ready" | "alive" | "birth" | "true" | "1" => {
            Some(1.0)
        }
        "offline" | "down" | "off" | "disconnected" | "lost" | "dead" | "death" | "false" | "0" => {
            Some(0.0)
        }
        _ => None,
    }
}

fn json(
    map: &Map,
    limits: &Limits,
    tenant: &str,
    text: &str,
    out: &mut Reading,
) -> Result<(), Refused> {
    let mut walk = Walk {
        map,
        limits,
        tenant,
        out,
        depth: 0,
        time: None,
        fault: None,
    };
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = parser
        .deserialize_map(Node(&mut walk))
        .and_then(|()| parser.end());
    if let Err(err) = parsed {
        let parse = || Refused::new(Reason::Parse, err.to_string());
        return Err(walk.fault.take().unwrap_or_else(parse));
    }
    walk.finish()
}

/// A scalar of the payload.
#[derive(Clone, Copy)]
enum Leaf<'a> {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
}

struct Walk<'a> {
    map: &'a Map,
    limits: &'a Limits,
    tenant: &'a str,
    out: &'a mut Reading,
    depth: usize,
    /// The rank of the name that the time was found under (lower is better), and the time.
    time: Option<(usize, Option<Timestamp>)>,
    fault: Option<Refused>,
}

impl Walk<'_> {
    fn finish(self) -> Result<(), Refused> {
        match self.time {
            Some((_, None)) => {
                return Err(Refused::new(Reason::Timestamp, "the time cannot be read"));
            }
            Some((_, time)) => self.out.time = time,
            None => {}
        }
        if self.out.is_empty() {
            return Err(Refused::new(Reason::Parse, "no values in the payload"));
        }
        Ok(())
    }

    /// Ends the walk. The parser's own error is only the messenger.
    fn stop<E: de::Error>(&mut self, reason: Reason, detail: impl Into<String>) -> E {
        self.fault = Some(Refused::new(reason, detail));
        E::custom("refused")
    }

    fn enter<E: de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > self.limits.depth_max {
            let detail = format!("nested deeper than {} levels", self.limits.depth_max);
            return Err(self.stop(Reason::Parse, detail));
        }
        Ok(())
    }

    fn key<E: de::Error>(&mut self, key: &str) -> Result<(), E> {
        if !self.out.path.is_empty() {
            self.out.path.push('.');
        }
        self.out.path.push_str(key);
        if self.out.path.len() > self.limits.label_value_bytes_max {
            let detail = format!(
                "a field's path is longer than {} bytes",
                self.limits.label_value_bytes_max
            );
            return Err(self.stop(Reason::Parse, detail));
        }
        Ok(())
    }

    fn leaf<E: de::Error>(&mut self, leaf: Leaf<'_>) -> Result<(), E> {
        if let Some(rank) = self.time_rank() {
            return self.set_time(rank, leaf);
        }
        if self.depth == 1 && self.out.path == TENANT_LABEL {
            return self.check_tenant(leaf);
        }
        if self.set_label(leaf) || (self.depth == 1 && self.out.path == DEVICE_LABEL) {
            return Ok(());
        }
        let value = match leaf {
            Leaf::Int(n) => n as f64,
            Leaf::Float(x) => x,
            Leaf::Bool(b) => f64::from(u8::from(b)),
            Leaf::Text(_) => return Ok(()),
        };
        if !self.map.takes(&self.out.path) {
            return Ok(());
        }
        if self.out.len() == self.limits.samples_per_message_max {
            let detail = format!("more than {} values", self.limits.samples_per_message_max);
            return Err(self.stop(Reason::SampleLimit, detail));
        }
        self.out.push(value);
        Ok(())
    }

    /// Whether the current path is that of the time.
    fn time_rank(&self) -> Option<usize> {
        match &self.map.time {
            Some(path) => (*path == self.out.path).then_some(0),
            None if self.depth != 1 => None,
            None => match self.out.path.as_str() {
                "ts" => Some(0),
                "time" => Some(1),
                "timestamp" => Some(2),
                _ => None,
            },
        }
    }

    fn set_time<E: de::Error>(&mut self, rank: usize, leaf: Leaf<'_>) -> Result<(), E> {
        let time = match leaf {
            Leaf::Int(n) => time::parse(Written::Int(n), self.map.time_format),
            Leaf::Float(x) => time::parse(Written::Float(x), self.map.time_format),
            Leaf::Text(text) => time::parse(Written::Text(text), self.map.time_format),
            Leaf::Bool(_) => None,
        };
        match self.time {
            Some((before, _)) if before == rank => {
                Err(self.stop(Reason::Parse, "two times in the payload"))
            }
            Some((before, _)) if before < rank => Ok(()),
            _ => {
                self.time = Some((rank, time));
                Ok(())
            }
        }
    }

    fn check_tenant<E: de::Error>(&mut self, leaf: Leaf<'_>) -> Result<(), E> {
        let says_the_same = match leaf {
            Leaf::Text(text) => text == self.tenant,
            other => other.to_string() == self.tenant,
        };
        if says_the_same {
            return Ok(());
        }
        Err(self.stop(Reason::Tenant, "the payload names another tenant"))
    }

    /// Keeps the leaf if a label is made of it.
    fn set_label(&mut self, leaf: Leaf<'_>) -> bool {
        let mut is_label = false;
        for (at, (_, path)) in self.map.payload_labels.iter().enumerate() {
            if *path == self.out.path {
                is_label = true;
                self.out.labels[at] = leaf.to_string();
            }
        }
        is_label
    }
}

impl fmt::Display for Leaf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leaf::Int(n) => n.fmt(f),
            Leaf::Float(x) => x.fmt(f),
            Leaf::Bool(b) => b.fmt(f),
            Leaf::Text(text) => text.fmt(f),
        }
    }
}

/// Visits one value at the current path.
struct Node<'w, 'a>(&'w mut Walk<'a>);

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.0.leaf(Leaf::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.0.leaf(Leaf::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.0.leaf(Leaf::Int(value)),
            Err(_) => self.0.leaf(Leaf::Float(value as f64)),
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.0.leaf(Leaf::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.0.leaf(Leaf::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Skip(self.0).visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let walk = self.0;
        walk.enter()?;
        let base = walk.out.path.len();
        while map.next_key_seed(Key(walk))?.is_some() {
            map.next_value_seed(Node(walk))?;
            walk.out.path.truncate(base);
        }
        walk.depth -= 1;
        Ok(())
    }
}

/// Appends a key to the current path.
struct Key<'w, 'a>(&'w mut Walk<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        self.0.key(key)
    }
}

/// Passes over a value and counts only its depth.
struct Skip<'w, 'a>(&'w mut Walk<'a>);

impl<'de> DeserializeSeed<'de> for Skip<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let walk = self.0;
        walk.enter()?;
        while seq.next_element_seed(Skip(walk))?.is_some() {}
        walk.depth -= 1;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let walk = self.0;
        walk.enter()?;
        while map.next_key::<de::IgnoredAny>()?.is_some() {
            map.next_value_seed(Skip(walk))?;
        }
        walk.depth -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
