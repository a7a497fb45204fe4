//! One message to the rows and state changes of one item.
//!
//! An item is judged as one by the writer: what a repeated message must not
//! cause again (its routes, its device's registration) stands in `on_new`. Rows
//! that the writer refused for now are written again as a further item, which
//! carries `on_new` only while no row of the message was new: so a message is
//! routed once, and only if it added something. A message that comes again after
//! a crash between two of its items may be routed twice, under one event id.

use std::collections::HashMap;
use std::ops::Range;

use super::decode::{Reading, Refused, decode};
use super::map::Map;
use super::plan::{Active, Plan};
use super::registry::{Registry, Sight};
use super::route::Event;
use super::series::{Cache, Found, Source};
use super::stamps::Stamps;
use super::validate::{Lot, Moment, check_time};
use super::{Hand, Message};
use crate::model::Timestamp;
use crate::store::{Item, Row, StateOp, Store, WriteBatch};
use crate::telemetry::metrics::Reason;

/// A value of a message that has no place yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rest {
    /// Which value of the message.
    pub(super) value: usize,
    /// Where it looks for room from now on, when it has our stamp.
    pub(super) start: Timestamp,
    /// Whether it was tried in the millisecond before, which another value holds.
    pub(super) moved: bool,
}

/// How a message is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pass<'a> {
    /// All of it.
    First,
    /// What the writer has refused so far.
    Rest {
        /// These values, in the order of the message.
        values: &'a [Rest],
        /// Whether a series has left the store, so that they are looked up anew.
        afresh: bool,
        /// Whether a row of the message was new: what is done once, is done.
        added: bool,
    },
}

impl<'a> Pass<'a> {
    fn values(self) -> Option<&'a [Rest]> {
        match self {
            Pass::First => None,
            Pass::Rest { values, .. } => Some(values),
        }
    }
}

/// What was added to the batch for a message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Encoded {
    /// Its item.
    pub(super) item: usize,
    /// Its rows.
    pub(super) rows: Range<usize>,
    /// Whether its samples have our stamp rather than a time of their own.
    pub(super) stamped: bool,
    /// Rows whose series another value of the message has: they stay at its time.
    pub(super) twins: Vec<usize>,
    /// The key of the device that the item registers.
    pub(super) registers: Option<u64>,
    /// Whether the device was left out, as its tenant has as many as it may.
    pub(super) unregistered: bool,
}

/// Turns messages into rows. Keeps what it learned about topics and devices.
pub(super) struct Encoder {
    /// The known devices.
    pub(super) registry: Registry,
    store: Store,
    cache: Cache,
    stamps: Stamps,
    reading: Reading,
    found: Vec<Found>,
}

impl Encoder {
    /// Knows the registered devices and nothing else.
    pub(super) fn new(store: Store, registry: Registry) -> Encoder {
        Encoder {
            registry,
            store,
            cache: Cache::default(),
            stamps: Stamps::default(),
            reading: Reading::default(),
            found: Vec::new(),
        }
    }

    /// Forgets topics: the maps or the routes have changed.
    pub(super) fn forget_topics(&mut self) {
        self.cache.clear();
    }

    /// Adds a message, or what is left of it, to the batch.
    ///
    /// # Errors
    /// When it is refused; the batch is as before.
    pub(super) fn encode(
        &mut self,
        active: &Active,
        (lot, message): (&Lot, &Message),
        at: &Moment,
        pass: Pass<'_>,
        batch: &mut WriteBatch,
    ) -> Result<Encoded, Refused> {
        let (plan, now) = (&active.plan, at.now);
        let map = &plan.maps[lot
            .map
            .expect("BUG: a message that no map takes was let through")];
        let source = Source {
            map,
            topic: &message.topic,
            tenant: &lot.tenant_id,
            limits: &plan.limits,
        };
        let tenant = lot.tenant_id.as_str();
        decode(
            map,
            &plan.limits,
            tenant,
            &message.payload,
            &mut self.reading,
        )?;
        let stamped = self.reading.time().is_none();
        let time = self.reading.time().unwrap_or(message.stamp);
        check_time(plan, time, at)?;
        if matches!(pass, Pass::First) {
            self.check_rate(plan, lot, now)?;
        }
        if matches!(pass, Pass::Rest { afresh: true, .. }) {
            self.cache.forget(&source, &self.reading);
        }
        self.find(active, &source)?;
        let rows_before = batch.rows.len();
        let twins = match self.push_rows(pass.values(), (stamped, time), batch) {
            Ok(twins) => twins,
            Err(refused) => {
                batch.rows.truncate(rows_before);
                return Err(refused);
            }
        };
        let mut encoded = Encoded {
            item: batch.items.len(),
            rows: rows_before..batch.rows.len(),
            stamped,
            twins,
            ..Encoded::default()
        };
        let mut item = Item {
            rows: u32::try_from(encoded.rows.len()).expect("limited by samples_per_message_max"),
            ..Item::default()
        };
        if !matches!(pass, Pass::Rest { added: true, .. }) {
            self.register(active, lot, now, &mut encoded, &mut item);
            self.route(active, (&source, message), time, now, &mut item);
        }
        if stamped && pass == Pass::First {
            item.always.clone_from(&message.state);
        }
        batch.items.push(item);
        Ok(encoded)
    }

    /// Whether the samples of a message are within the rates of `[limits]`.
    fn check_rate(&self, plan: &Plan, lot: &Lot, now: Timestamp) -> Result<(), Refused> {
        let count = u32::try_from(self.reading.values().count()).unwrap_or(u32::MAX);
        let rate_all = plan.limits.samples_per_second_all;
        let passed = lot.tenant.passes_samples(count, rate_all, now);
        passed.map_err(|over| Refused::new(Reason::Quota, over.as_str()))
    }

    /// Adds the row of a device that is new or behind.
    fn register(
        &mut self,
        active: &Active,
        lot: &Lot,
        now: Timestamp,
        encoded: &mut Encoded,
        item: &mut Item,
    ) {
        let Some((device, key)) = &self.cache.last().device else {
            return;
        };
        let max = active.plan.limits.devices_per_tenant_max;
        match self
            .registry
            .sight(&lot.tenant_id, (device, *key), max, now)
        {
            Sight::Known => {}
            Sight::Full => encoded.unregistered = true,
            Sight::Behind(op) => item.on_new.push(op),
            Sight::New(op) => {
                item.on_new.push(op);
                encoded.registers = Some(*key);
            }
        }
    }

    /// Adds the outbox rows of a message.
    fn route(
        &self,
        active: &Active,
        (source, message): (&Source<'_>, &Message),
        time: Timestamp,
        now: Timestamp,
        item: &mut Item,
    ) {
        let known = self.cache.last();
        let event = Event {
            tenant: source.tenant,
            device: known.device.as_ref().map(|(device, _)| &**device),
            topic: source.topic,
            time,
            payload: &message.payload,
        };
        for &at in &known.routes {
            let route = &active.plan.routes[at];
            let has = |metric: &str| has_metric(source.map, source.topic, &self.reading, metric);
            if route.metric.as_deref().is_none_or(has) {
                let delivery = Box::new(route.delivery(&event, now));
                item.on_new.push(StateOp::Enqueue(delivery));
            }
        }
    }

    /// Finds the series of the reading's values.
    fn find(&mut self, active: &Active, source: &Source<'_>) -> Result<(), Refused> {
        let routes = || {
            let routes = active.plan.routes.iter().enumerate();
            let taking = routes.filter(|(_, r)| r.takes(source.tenant.as_str(), source.topic));
            taking.map(|(at, _)| at).collect()
        };
        self.found.clear();
        let resolve = |labels: &_| self.store.resolve(labels);
        self.cache
            .find(source, &self.reading, routes, resolve, &mut self.found)
    }

    /// Adds the rows of the message, or of what is left of it. Gives those that have the
    /// time of a former value of the message, whose series they share: the writer keeps
    /// the first, as it does where the message says the time.
    fn push_rows(
        &mut self,
        rest: Option<&[Rest]>,
        (stamped, time): (bool, Timestamp),
        batch: &mut WriteBatch,
    ) -> Result<Vec<usize>, Refused> {
        // The times of the message's series; hardly any message has two values for one.
        let has_twins = stamped && self.cache.last().has_twins;
        let mut firsts = has_twins.then(HashMap::<u64, Timestamp>::new);
        let mut twins = Vec::new();
        // All before any is placed: a place that one value has left may hold another.
        for rest in rest.into_iter().flatten().filter(|rest| rest.moved) {
            let left = rest.start.plus_ms(-1);
            self.stamps.vacate(self.found[rest.value].hash, left);
        }
        let mut rest = rest.map(|values| values.iter().peekable());
        let values = self.found.iter().zip(self.reading.values());
        for (at, (found, (_, v))) in values.enumerate() {
            let start = match &mut rest {
                None => time,
                Some(values) => match values.next_if(|rest| rest.value == at) {
                    None => continue,
                    Some(rest) => rest.start,
                },
            };
            let first = firsts.as_ref().and_then(|firsts| firsts.get(&found.hash));
            let t = match first {
                Some(first) => {
                    twins.push(batch.rows.len());
                    *first
                }
                None if stamped => self.stamps.place(found.hash, start, v).ok_or_else(|| {
                    Refused::new(Reason::Conflict, "too many values in one millisecond")
                })?,
                None => time,
            };
            if let Some(firsts) = &mut firsts {
                firsts.entry(found.hash).or_insert(t);
            }
            let series = found.key.clone();
            batch.rows.push(Row { series, t, v });
        }
        Ok(twins)
    }
}

fn has_metric(map: &Map, topic: &str, reading: &Reading, metric: &str) -> bool {
    let mut values = Vec::new();
    map.topic.capture(topic, &mut values);
    let mut name = String::new();
    reading.values().any(|(path, _)| {
        name.clear();
        map.metric_name(path, &values, &mut name);
        name == metric
    })
}

/// What a hand's messages hold in memory while their batch is under way is
/// bounded by their lane; this bounds what one transaction carries.
pub(super) fn is_full(batch: &WriteBatch, letters: usize) -> bool {
    const ROWS_MAX: usize = 16_384;
    const ITEMS_MAX: usize = 4_096;
    const LETTER_BYTES_MAX: usize = 1 << 20;
    batch.rows.len() >= ROWS_MAX || batch.items.len() >= ITEMS_MAX || letters >= LETTER_BYTES_MAX
}

/// Pairs the messages of a hand with what admission said.
pub(super) fn pairs(hand: &mut Hand) -> impl Iterator<Item = (usize, (Lot, Message))> {
    let messages = std::mem::take(&mut hand.messages);
    std::mem::take(&mut hand.lots)
        .into_iter()
        .zip(messages)
        .enumerate()
}
