//! The groups in memory, and which of them are due.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::alerts::ROWS_MAX;
use super::current::Current;
use super::explain::{Explanation, Subject, Teller};
use super::flaps::Flaps;
use super::flush::{Flush, Flusher};
use super::group::{Group, Row, as_ms, row_key};
use super::hour::Hour;
use super::pending::Pending;
use super::posted;
use super::route::{Route, Tree};
use super::settings::Settings;
use super::silence::{self, Silence};
use super::told::{self, Told};
use super::verdict::Hold;
use crate::model::{Labels, Timestamp};
use crate::store::{self, StateOp, Store, Table};

/// How often rows that say nothing any more are cleared away.
const SWEEP_INTERVAL_MS: i64 = 600_000;

/// The groups in memory, and what is needed to tell of them. Calls are blocking:
/// they read the store.
pub(super) struct Dispatcher {
    store: Store,
    settings: Arc<Settings>,
    /// By group id.
    groups: BTreeMap<String, Group>,
    /// By integration.
    pending: HashMap<String, Pending>,
    /// Where the alerts of the last look belong: matching is the costly part.
    places: HashMap<Labels, Arc<[Place]>>,
    silences: Vec<Silence>,
    flaps: Flaps,
    is_loaded: bool,
    next_sweep: Timestamp,
}

/// A group that an alert belongs to.
struct Place {
    route: usize,
    group_id: String,
}

impl Dispatcher {
    pub(super) fn new(store: Store, settings: Arc<Settings>) -> Dispatcher {
        Dispatcher {
            store,
            settings,
            groups: BTreeMap::new(),
            pending: HashMap::new(),
            places: HashMap::new(),
            silences: Vec::new(),
            flaps: Flaps::default(),
            is_loaded: false,
            next_sweep: Timestamp::MIN,
        }
    }

    /// Takes over another configuration; gives the changes that this makes.
    pub(super) fn reconfigure(&mut self, settings: &Arc<Settings>, now: Timestamp) -> Vec<StateOp> {
        if *settings == self.settings {
            return Vec::new();
        }
        let groups = std::mem::take(&mut self.groups);
        let is_loaded = self.is_loaded;
        let flaps = std::mem::take(&mut self.flaps);
        *self = Dispatcher::new(self.store.clone(), Arc::clone(settings));
        self.is_loaded = is_loaded;
        self.flaps = flaps;
        let mut ops = Vec::new();
        for (id, group) in groups {
            let row = Row {
                next_flush: group.next_flush,
                has_flushed: group.has_flushed,
                members: group.members.into_values().collect(),
                fired: group.fired,
            };
            ops.extend(self.regroup(&id, row, now));
        }
        ops
    }

    /// Looks at all alerts and gives the flushes that are due. `handed_over`: another
    /// Alertmanager tells people of our rules' alerts.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn due(
        &mut self,
        now: Timestamp,
        handed_over: bool,
    ) -> Result<Vec<Flush>, store::Error> {
        let mut flushes = Vec::new();
        if !self.is_loaded {
            flushes.extend(self.load(now)?);
            self.flaps = Flaps::load(&self.store, &self.settings.outside, now)?;
            self.is_loaded = true;
        }
        self.silences = silence::read(&self.store)?;
        if now >= self.next_sweep {
            self.flaps.forget(now);
            flushes.extend(self.sweep(now)?);
            self.next_sweep = now.plus_ms(SWEEP_INTERVAL_MS);
        }
        let settings = Arc::clone(&self.settings);
        let Some(tree) = &settings.tree else {
            return Ok(flushes);
        };
        let current = Current::read(&self.store, &settings.outside, now)?;
        self.sync(tree, &current, now);
        self.notice_clock(tree, now);
        flushes.extend(Flush::housekeeping(self.unsaved(tree)));
        if !handed_over {
            self.take_back(now);
        }
        let due = self.groups.values().filter(|group| group.next_flush <= now);
        let due: Vec<Group> = due.cloned().collect();
        if due.is_empty() {
            return Ok(flushes);
        }
        let flaps = &self.flaps;
        let hour = Hour::new(
            &settings,
            tree,
            &self.silences,
            &current,
            now,
            handed_over,
            flaps,
        );
        let mut flusher = Flusher {
            store: &self.store,
            pending: &mut self.pending,
            hour: &hour,
        };
        for group in due {
            flushes.push(flusher.flush(group)?);
        }
        Ok(flushes)
    }

    /// The rows of groups that know what is found nowhere else, and have changed.
    fn unsaved(&mut self, tree: &Tree) -> Vec<StateOp> {
        let mut ops = Vec::new();
        for group in self.groups.values_mut() {
            let is_digest = tree.routes[group.route].digest.is_some();
            if is_digest || !group.carried.is_empty() {
                let mark = group.mark(is_digest);
                if std::mem::replace(&mut group.saved, mark) != mark {
                    ops.push(group.put());
                }
            }
        }
        ops
    }

    /// A clock that was set back must not silence a group until it catches up.
    fn notice_clock(&mut self, tree: &Tree, now: Timestamp) {
        for group in self.groups.values_mut() {
            let route = &tree.routes[group.route];
            let longest = as_ms(route.longest_wait());
            group.next_flush = group.next_flush.min(now.plus_ms(longest));
        }
        self.next_sweep = self.next_sweep.min(now.plus_ms(SWEEP_INTERVAL_MS));
    }

    /// What another Alertmanager would have told is told now.
    fn take_back(&mut self, now: Timestamp) {
        for group in self.groups.values_mut() {
            if group.holds.values().any(|hold| *hold == Hold::HandedOver) {
                group.next_flush = group.next_flush.min(now);
            }
        }
    }

    /// Takes over what was written.
    pub(super) fn committed(&mut self, flush: Flush) {
        let Some(group) = flush.group else { return };
        if group.members.is_empty() {
            self.groups.remove(&group.id);
        } else {
            self.groups.insert(group.id.clone(), group);
        }
    }

    /// When the next group is due.
    pub(super) fn next_flush(&self) -> Option<Timestamp> {
        self.groups.values().map(|group| group.next_flush).min()
    }

    /// What became of the alert with this fingerprint, and why; `None` when nothing is
    /// known of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn explain(
        &mut self,
        fingerprint: u64,
        now: Timestamp,
        handed_over: bool,
    ) -> Result<Option<Explanation>, store::Error> {
        let settings = Arc::clone(&self.settings);
        let current = Current::read(&self.store, &settings.outside, now)?;
        let Some(subject) = Subject::find(&self.store, &settings, fingerprint, now)? else {
            return Ok(None);
        };
        let Some(tree) = &settings.tree else {
            return Ok(Some(subject.untold()));
        };
        let silences = silence::read(&self.store)?;
        let flaps = &self.flaps;
        let hour = Hour::new(
            &settings,
            tree,
            &silences,
            &current,
            now,
            handed_over,
            flaps,
        );
        let mut teller = Teller {
            store: &self.store,
            groups: &self.groups,
            pending: &mut self.pending,
            hour: &hour,
        };
        teller.tell(subject).map(Some)
    }

    /// All groups as they stand.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// The configuration that the groups follow.
    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The silences of the last look.
    pub(super) fn silences(&self) -> &[Silence] {
        &self.silences
    }

    /// The groups of the process before.
    fn load(&mut self, now: Timestamp) -> Result<Vec<Flush>, store::Error> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut ops = Vec::new();
        for (key, row) in self.store.scan(Table::AggGroup, all, ROWS_MAX)? {
            let group_id = String::from_utf8_lossy(key.get(1..).unwrap_or_default());
            let Some(row) = Row::decode(&row) else {
                tracing::error!(group = %group_id, "a notification group is lost");
                continue;
            };
            ops.extend(self.regroup(&group_id, row, now));
        }
        Ok(Flush::housekeeping(ops))
    }

    /// Puts the members of a group into the groups that they belong to now.
    fn regroup(&mut self, id: &str, row: Row, now: Timestamp) -> Option<StateOp> {
        let settings = Arc::clone(&self.settings);
        let mut is_same = false;
        if let Some(tree) = &settings.tree {
            for alert in row.members {
                for at in tree.matching(&alert.labels) {
                    let group = self.group_of(at, &tree.routes[at], &alert.labels, now);
                    if group.id == id {
                        is_same = true;
                        group.has_flushed = row.has_flushed;
                        group.next_flush = row.next_flush;
                        group.fired.clone_from(&row.fired);
                    }
                    group.members.insert(alert.labels.clone(), alert.clone());
                }
            }
            if is_same && let Some(group) = self.groups.get_mut(id) {
                // Who is new hears as of a new group; the others are told nothing twice.
                if is_news_to_somebody(&self.store, tree, group) {
                    let first = tree.routes[group.route].first_flush(now);
                    group.has_flushed = false;
                    group.next_flush = group.next_flush.min(first);
                }
            }
        }
        (!is_same).then(|| StateOp::Delete {
            table: Table::AggGroup,
            key: Bytes::from(row_key(id)),
        })
    }

    /// Rows that say nothing any more.
    fn sweep(&self, now: Timestamp) -> Result<Vec<Flush>, store::Error> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let rows = self.store.scan(Table::NotifyState, all, ROWS_MAX)?;
        let old = rows.into_iter().filter(|(_, row)| {
            let told = Told::decode(row);
            told.is_none_or(|told| told.expires < now)
        });
        let delete = |(key, _)| StateOp::Delete {
            table: Table::NotifyState,
            key,
        };
        let mut ops: Vec<StateOp> = old.map(delete).collect();
        ops.extend(silence::forgotten(&self.silences, now));
        ops.extend(posted::forgotten(&self.store, now)?);
        Ok(Flush::housekeeping(ops))
    }

    fn group_of(
        &mut self,
        at: usize,
        route: &Route,
        labels: &Labels,
        now: Timestamp,
    ) -> &mut Group {
        let labels = route.group_labels(labels);
        let id = route.group_id(&labels);
        self.groups
            .entry(id)
            .or_insert_with(|| Group::new(at, route, labels, now))
    }

    /// Brings the groups up to date with the alerts.
    fn sync(&mut self, tree: &Tree, current: &Current, now: Timestamp) {
        let mut before = std::mem::take(&mut self.places);
        for (labels, firing) in &current.firing {
            let places = before
                .remove(labels)
                .unwrap_or_else(|| places(tree, labels));
            for place in places.iter() {
                let route = &tree.routes[place.route];
                if !self.groups.contains_key(&place.group_id) {
                    self.group_of(place.route, route, labels, now);
                }
                let group = self.groups.get_mut(&place.group_id);
                let group = group.expect("it is there or was just made");
                let starts_at = group.insert(firing, route, now);
                self.flaps.note(labels.fingerprint(), starts_at, now);
            }
            self.places.insert(labels.clone(), places);
        }
        let groups = self.groups.values_mut();
        for member in groups.flat_map(|g| g.members.values_mut()) {
            if member.fires_at(now) && !current.firing.contains_key(&member.labels) {
                member.ends_at = Some(current.end_of(member, now));
            }
        }
    }
}

/// Whether a receiver of a group was never told of it, as one that a new configuration
/// added or renamed.
fn is_news_to_somebody(store: &Store, tree: &Tree, group: &Group) -> bool {
    let receiver = &tree.routes[group.route].receiver;
    let mut integrations = tree.integrations(receiver).iter();
    integrations.any(|integration| {
        let told = told::delivered(store, &told::prefix(&integration.name, &group.id));
        matches!(told, Ok(None))
    })
}

fn places(tree: &Tree, labels: &Labels) -> Arc<[Place]> {
    let matching = tree.matching(labels).into_iter();
    let place = |at: usize| {
        let route = &tree.routes[at];
        Place {
            route: at,
            group_id: route.group_id(&route.group_labels(labels)),
        }
    };
    matching.map(place).collect()
}
