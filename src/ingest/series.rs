//! From a topic and a path to a series, by one look-up for a known message.
//!
//! Devices send the same fields in the same order again and again. So a topic
//! (with the values of payload labels, which are part of the identity) leads to
//! its fields in the order of the last message, and a message of that form needs
//! no label set and no hash but that of its topic.
//!
//! Bounded in two generations: when the current one is full the previous one is
//! dropped, and what is still in use moves over at its next message. A flood of
//! invented devices thus costs the known ones a rebuild now and then, and no
//! memory.

use hashbrown::{HashMap, HashSet};

use super::decode::{Reading, Refused};
use super::map::Map;
use super::topic::DEVICE_LABEL;
use crate::config::Limits;
use crate::model::labels::METRIC_NAME;
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Labels, LabelsBuilder, TenantId};
use crate::store::{SeriesId, SeriesKey, is_own_label};
use crate::telemetry::metrics::Reason;

/// Fields in each generation, about 100 bytes each.
const FIELDS_MAX: usize = 100_000;

/// Above this many fields a look-up that misses its turn uses a map.
const SCAN_MAX: usize = 16;

/// Known topics and their series.
#[derive(Default)]
pub(super) struct Cache {
    current: HashMap<String, Known, ahash::RandomState>,
    previous: HashMap<String, Known, ahash::RandomState>,
    fields: usize,
    key: String,
}

/// A topic whose messages were seen before.
pub(super) struct Known {
    /// The device that the topic or the labels name, and its key in the registry.
    pub(super) device: Option<(Box<str>, u64)>,
    /// The routes that take the topic, by their place in the plan.
    pub(super) routes: Box<[usize]>,
    /// All labels but the name.
    base: Labels,
    fields: Vec<Field>,
    by_path: HashMap<Box<str>, usize, ahash::RandomState>,
    by_hash: HashSet<u64, ahash::RandomState>,
    /// Whether two fields lead to one series.
    pub(super) has_twins: bool,
    message: u32,
}

struct Field {
    path: Box<str>,
    labels_hash: u64,
    slot: SeriesKey,
    /// The last message that had it.
    seen: u32,
}

/// A message as the cache needs to see it.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Its map.
    pub(super) map: &'a Map,
    /// Its topic.
    pub(super) topic: &'a str,
    /// Its tenant.
    pub(super) tenant: &'a TenantId,
    /// Bounds on labels.
    pub(super) limits: &'a Limits,
}

/// The series of one value.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Found {
    /// For the row.
    pub(super) key: SeriesKey,
    /// The hash of its labels.
    pub(super) hash: u64,
}

impl Cache {
    /// The series of each value of a message, in its order, appended to `out`.
    /// `routes` is asked for a topic that is new, `resolve` for the id of a series
    /// that the store may have by now. What is known about the topic is
    /// [`Cache::last`] afterwards.
    ///
    /// # Errors
    /// Reason `parse` when its labels are more or longer than `[limits]` allows.
    pub(super) fn find(
        &mut self,
        source: &Source<'_>,
        reading: &Reading,
        routes: impl FnOnce() -> Box<[usize]>,
        resolve: impl Fn(&Labels) -> Option<SeriesId>,
        out: &mut Vec<Found>,
    ) -> Result<(), Refused> {
        if self.fields >= FIELDS_MAX {
            self.previous = std::mem::take(&mut self.current);
            self.fields = 0;
        }
        write_key(&mut self.key, source, reading);
        let known = match self.current.get_mut(self.key.as_str()) {
            Some(known) => known,
            None => {
                let known = match self.previous.remove(self.key.as_str()) {
                    Some(known) => known,
                    None => Known::new(source, reading, routes())?,
                };
                self.fields += known.fields.len() + 1;
                self.current
                    .entry(self.key.clone())
                    .insert(known)
                    .into_mut()
            }
        };
        let before = known.fields.len();
        let found = known.find(source, reading, resolve, out);
        self.fields += known.fields.len().saturating_sub(before);
        found
    }

    /// What is known about the topic of the last [`Cache::find`] that went well.
    pub(super) fn last(&self) -> &Known {
        &self.current[self.key.as_str()]
    }

    /// Forgets a message's topic: one of its series has left the store.
    pub(super) fn forget(&mut self, source: &Source<'_>, reading: &Reading) {
        write_key(&mut self.key, source, reading);
        self.current.remove(self.key.as_str());
        self.previous.remove(self.key.as_str());
    }

    /// Forgets everything: the maps or the routes have changed.
    pub(super) fn clear(&mut self) {
        *self = Cache::default();
    }
}

/// The topic, then what else is part of the identity, each behind its length.
/// A topic has no NUL that could be taken for the end: its labels are plain names
/// and MQTT forbids it, and even then both belong to the same tenant.
fn write_key(key: &mut String, source: &Source<'_>, reading: &Reading) {
    key.clear();
    key.push_str(source.tenant.as_str());
    key.push('\0');
    key.push_str(source.topic);
    for value in reading.labels() {
        key.push('\0');
        key.push_str(&value.len().to_string());
        key.push(':');
        key.push_str(value);
    }
}

impl Known {
    fn new(source: &Source<'_>, reading: &Reading, routes: Box<[usize]>) -> Result<Known, Refused> {
        let base = base_labels(source, reading);
        check_labels(&base, source.limits)?;
        let device = base.get(DEVICE_LABEL).map(|device| {
            let key = super::registry::device_key(source.tenant, device);
            (Box::from(device), key)
        });
        Ok(Known {
            device,
            routes,
            base,
            fields: Vec::new(),
            by_path: HashMap::default(),
            by_hash: HashSet::default(),
            has_twins: false,
            message: 0,
        })
    }

    fn find(
        &mut self,
        source: &Source<'_>,
        reading: &Reading,
        resolve: impl Fn(&Labels) -> Option<SeriesId>,
        out: &mut Vec<Found>,
    ) -> Result<(), Refused> {
        let message = self.next_message(source.limits.samples_per_message_max);
        for (turn, (path, _)) in reading.values().enumerate() {
            let at = match self.position(turn, path) {
                Some(at) => at,
                None => self.add(source, path)?,
            };
            let field = &mut self.fields[at];
            // The same path again: two values for one series, as of two paths.
            self.has_twins |= field.seen == message;
            field.seen = message;
            if let SeriesKey::Labels(labels) = &field.slot
                && let Some(id) = resolve(labels)
            {
                field.slot = SeriesKey::Id(id);
            }
            out.push(Found {
                key: field.slot.clone(),
                hash: field.labels_hash,
            });
        }
        Ok(())
    }

    /// A number that no field has seen. Also the place where a topic whose fields
    /// change all the time starts anew.
    fn next_message(&mut self, fields_max: usize) -> u32 {
        if self.message == u32::MAX || self.fields.len() > 2 * fields_max {
            self.fields = Vec::new();
            self.by_path = HashMap::default();
            self.by_hash = HashSet::default();
            self.has_twins = false;
            self.message = 0;
        }
        self.message += 1;
        self.message
    }

    fn position(&self, turn: usize, path: &str) -> Option<usize> {
        if self.fields.get(turn).is_some_and(|f| *f.path == *path) {
            return Some(turn);
        }
        if self.fields.len() > SCAN_MAX {
            return self.by_path.get(path).copied();
        }
        self.fields.iter().position(|field| *field.path == *path)
    }

    fn add(&mut self, source: &Source<'_>, path: &str) -> Result<usize, Refused> {
        let mut values = Vec::new();
        source.map.topic.capture(source.topic, &mut values);
        let mut name = String::new();
        source.map.metric_name(path, &values, &mut name);
        check_value(METRIC_NAME, &name, source.limits)?;
        if is_own_label(METRIC_NAME, &name) {
            let detail = format!("{name} is a name of our own");
            return Err(Refused::new(Reason::Parse, detail));
        }
        let labels = self.base.to_builder().set(METRIC_NAME, &name).build();
        let labels_hash = labels.hash64();
        self.has_twins |= self.leads_to(labels_hash);
        self.fields.push(Field {
            path: Box::from(path),
            labels_hash,
            slot: SeriesKey::Labels(labels),
            seen: 0,
        });
        self.index();
        Ok(self.fields.len() - 1)
    }

    /// Whether a field leads to the series already.
    fn leads_to(&self, hash: u64) -> bool {
        if self.fields.len() > SCAN_MAX {
            return self.by_hash.contains(&hash);
        }
        self.fields.iter().any(|field| field.labels_hash == hash)
    }

    /// Keeps the maps up to date once there are too many fields to look through.
    fn index(&mut self) {
        if self.fields.len() <= SCAN_MAX {
            return;
        }
        for at in self.by_path.len()..self.fields.len() {
            let field = &self.fields[at];
            self.by_path.insert(field.path.clone(), at);
            self.by_hash.insert(field.labels_hash);
        }
    }
}

fn base_labels(source: &Source<'_>, reading: &Reading) -> Labels {
    let map = source.map;
    let mut builder = LabelsBuilder::default();
    builder.set(TENANT_LABEL, source.tenant.as_str());
    let mut values = Vec::new();
    map.topic.capture(source.topic, &mut values);
    for (name, value) in map.topic.labels().iter().zip(&values) {
        builder.set(name, value);
    }
    for (name, value) in &map.literals {
        builder.set(name, value);
    }
    for ((name, _), value) in map.payload_labels.iter().zip(reading.labels()) {
        builder.set(name, value);
    }
    builder.build()
}

fn check_labels(base: &Labels, limits: &Limits) -> Result<(), Refused> {
    let count = base.len() + 1;
    if count > limits.labels_max {
        let detail = format!("{count} labels, the limit is {}", limits.labels_max);
        return Err(Refused::new(Reason::Parse, detail));
    }
    base.iter().try_for_each(|(name, value)| {
        if name.len() > limits.label_name_bytes_max {
            let detail = format!("a label name of {} bytes", name.len());
            return Err(Refused::new(Reason::Parse, detail));
        }
        check_value(name, value, limits)
    })
}

fn check_value(name: &str, value: &str, limits: &Limits) -> Result<(), Refused> {
    let max = limits.label_value_bytes_max;
    if value.len() <= max {
        return Ok(());
    }
    let detail = format!("label {name} of {} bytes, the limit is {max}", value.len());
    Err(Refused::new(Reason::Parse, detail))
}

#[cfg(test)]
mod tests;
