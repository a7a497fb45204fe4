//! From alert rows to outbox rows: what one pass finds and what it has to write.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::group::{Group, Member, Row, as_ms, row_key};
use super::payload::{self, About};
use super::pending::Pending;
use super::route::Route;
use super::told::{self, Told};
use crate::config::Config;
use crate::model::alert::{AlertPhase, AlertRow};
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Delivery, DeliveryKind, Labels, StateRow, TenantId, Timestamp};
use crate::store::{self, StateOp, Store, Table};

/// Rows of each table that are looked at.
const ROWS_MAX: usize = 1_000_000;

/// How often expired rows of `notify_state` are cleared away.
const SWEEP_INTERVAL_MS: i64 = 3_600_000;

/// The groups in memory, and what is needed to tell of them. Calls are blocking:
/// they read the store.
pub(super) struct Dispatcher {
    store: Store,
    settings: Settings,
    /// By group key.
    groups: BTreeMap<String, Group>,
    pending: Pending,
    is_loaded: bool,
    next_sweep: Timestamp,
}

/// What the configuration says.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Settings {
    route: Option<Route>,
    external_labels: BTreeMap<String, String>,
    external_url: String,
}

impl Settings {
    /// Takes what is needed.
    pub(super) fn from_config(config: &Config) -> Settings {
        Settings {
            route: Route::root(config),
            external_labels: config.global.external_labels.clone(),
            external_url: config.external_url(),
        }
    }
}

/// A group's flush, to be written in one transaction.
pub(super) struct Flush {
    /// The group as it is afterwards.
    group: Group,
    pub(super) ops: Vec<StateOp>,
    /// Whether a notification goes out, so that the transaction is waited for.
    pub(super) is_news: bool,
}

impl Dispatcher {
    pub(super) fn new(store: Store, settings: Settings) -> Dispatcher {
        let receiver = settings.route.as_ref().map(|route| route.receiver.as_str());
        Dispatcher {
            pending: Pending::new(receiver.unwrap_or_default()),
            store,
            settings,
            groups: BTreeMap::new(),
            is_loaded: false,
            next_sweep: Timestamp::MIN,
        }
    }

    /// Takes over another configuration; gives the changes that this makes.
    pub(super) fn reconfigure(&mut self, settings: Settings, now: Timestamp) -> Vec<StateOp> {
        if settings == self.settings {
            return Vec::new();
        }
        let groups = std::mem::take(&mut self.groups);
        let is_loaded = self.is_loaded;
        *self = Dispatcher::new(self.store.clone(), settings);
        self.is_loaded = is_loaded;
        let mut ops = Vec::new();
        for (key, group) in groups {
            let timing = (group.next_flush, group.has_flushed);
            let members = group.members.into_values().collect();
            ops.extend(self.regroup(&key, members, timing, now));
        }
        ops
    }

    /// Looks at all alerts and gives the flushes that are due.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn due(&mut self, now: Timestamp) -> Result<Vec<Flush>, store::Error> {
        let mut flushes = Vec::new();
        if !self.is_loaded {
            flushes.extend(self.load(now)?);
            self.is_loaded = true;
        }
        if now >= self.next_sweep {
            flushes.extend(self.sweep(now)?);
            self.next_sweep = now.plus_ms(SWEEP_INTERVAL_MS);
        }
        let Some(route) = self.settings.route.clone() else {
            return Ok(flushes);
        };
        self.sync(&route, now)?;
        self.notice_clock(&route, now);
        let due = self.groups.values().filter(|group| group.next_flush <= now);
        for group in due.cloned().collect::<Vec<_>>() {
            flushes.push(self.flush(&route, group, now)?);
        }
        Ok(flushes)
    }

    /// A clock that was set back must not silence a group until it catches up.
    fn notice_clock(&mut self, route: &Route, now: Timestamp) {
        let longest = as_ms(route.group_interval.max(route.group_wait));
        for group in self.groups.values_mut() {
            group.next_flush = group.next_flush.min(now.plus_ms(longest));
        }
        self.next_sweep = self.next_sweep.min(now.plus_ms(SWEEP_INTERVAL_MS));
    }

    /// Takes over what was written.
    pub(super) fn committed(&mut self, flush: Flush) {
        let group = flush.group;
        if group.members.is_empty() {
            self.groups.remove(&group.key);
        } else {
            self.groups.insert(group.key.clone(), group);
        }
    }

    /// When the next group is due.
    pub(super) fn next_flush(&self) -> Option<Timestamp> {
        self.groups.values().map(|group| group.next_flush).min()
    }

    /// How many alerts fire, and how many the receiver was not told of as they are.
    pub(super) fn counts(&self) -> (usize, usize) {
        let groups = self.groups.values();
        groups.fold((0, 0), |(firing, untold), group| {
            (firing + group.firing(), untold + group.untold())
        })
    }

    /// The groups of the process before.
    fn load(&mut self, now: Timestamp) -> Result<Vec<Flush>, store::Error> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut ops = Vec::new();
        for (key, row) in self.store.scan(Table::AggGroup, all, ROWS_MAX)? {
            let group_key = String::from_utf8_lossy(key.get(1..).unwrap_or_default());
            let Some(row) = Row::decode(&row) else {
                tracing::error!(group = %group_key, "a notification group is lost");
                continue;
            };
            let timing = (row.next_flush, row.has_flushed);
            let members = row.into_members().collect();
            ops.extend(self.regroup(&group_key, members, timing, now));
        }
        Ok(housekeeping(ops))
    }

    /// Puts the members of a group into the groups that they belong to now.
    fn regroup(
        &mut self,
        key: &str,
        members: Vec<Member>,
        (next_flush, has_flushed): (Timestamp, bool),
        now: Timestamp,
    ) -> Option<StateOp> {
        let mut is_same = false;
        if let Some(route) = self.settings.route.clone() {
            for member in members {
                let group = self.group_of(&route, &member.labels, now);
                if group.key == key {
                    is_same = true;
                    group.has_flushed = has_flushed;
                    group.next_flush = next_flush;
                }
                group.members.insert(member.labels.clone(), member);
            }
        }
        (!is_same).then(|| StateOp::Delete {
            table: Table::AggGroup,
            key: Bytes::from(row_key(key)),
        })
    }

    /// Rows of `notify_state` that say nothing any more.
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
        Ok(housekeeping(old.map(delete).collect()))
    }

    fn group_of(&mut self, route: &Route, labels: &Labels, now: Timestamp) -> &mut Group {
        let labels = route.group_labels(labels);
        let key = route.group_key(&labels);
        self.groups
            .entry(key)
            .or_insert_with(|| Group::new(route, labels, now))
    }

    /// Brings the groups up to date with the alert rows.
    fn sync(&mut self, route: &Route, now: Timestamp) -> Result<(), store::Error> {
        let mut ended: HashMap<Labels, Timestamp> = HashMap::new();
        let mut firing: HashMap<Labels, Timestamp> = HashMap::new();
        let all = (Bound::Unbounded, Bound::Unbounded);
        for (_, row) in self.store.scan(Table::Alert, all, ROWS_MAX)? {
            let Ok(row) = AlertRow::decode(&row) else {
                tracing::error!("an alert row cannot be read");
                continue;
            };
            let labels = self.with_external(&row.labels);
            match (row.phase, row.fired_at) {
                (AlertPhase::Firing, Some(starts_at)) => {
                    firing.insert(labels.clone(), starts_at);
                    let member = Member {
                        labels,
                        annotations: row.annotations,
                        query: row.query,
                        starts_at,
                        ends_at: None,
                    };
                    let group = self.group_of(route, &member.labels, now);
                    group.insert(member, route, now);
                }
                (AlertPhase::Resolved, _) => {
                    ended.insert(labels, row.resolved_at.unwrap_or(now));
                }
                _ => {}
            }
        }
        for member in self
            .groups
            .values_mut()
            .flat_map(|g| g.members.values_mut())
        {
            if member.ends_at.is_none() && !firing.contains_key(&member.labels) {
                // Gone altogether: it resolved and was forgotten, or it is pending anew.
                let at = ended.get(&member.labels).copied().unwrap_or(now);
                member.ends_at = Some(at.max(member.starts_at));
            }
        }
        Ok(())
    }

    /// The labels that leave the process: the alert's own win.
    fn with_external(&self, labels: &Labels) -> Labels {
        if self.settings.external_labels.is_empty() {
            return labels.clone();
        }
        let mut builder = labels.to_builder();
        for (name, value) in &self.settings.external_labels {
            if labels.get(name).is_none() {
                builder.set(name, value);
            }
        }
        builder.build()
    }

    fn flush(
        &mut self,
        route: &Route,
        mut group: Group,
        now: Timestamp,
    ) -> Result<Flush, store::Error> {
        let prefix = told::prefix(&route.receiver, &group.key);
        let unsent = self.pending.get(&self.store, &prefix)?;
        let (delivered, mut ops) = self.delivered(&prefix, now)?;
        let last = [unsent.as_ref().map(|(_, told)| told.clone()), delivered];
        let last = last.into_iter().flatten().max_by_key(|told| told.at);
        // The latest is found by its time: also after the clock was set back.
        let at = last
            .as_ref()
            .map_or(now, |told| now.max(told.at.plus_ms(1)));
        let content = group.content(at, route);
        let repeat = route.repeat_interval;
        let is_news = told::is_news(last.as_ref(), &content, route.send_resolved, repeat);
        if is_news {
            let told = self.tell(route, &group, &content, now);
            if matches!(told, StateOp::Enqueue(_)) {
                // Whoever is told late is told how it stands.
                ops.extend(unsent.map(|(key, _)| StateOp::Delete {
                    table: Table::Outbox,
                    key,
                }));
            }
            ops.push(told);
        }
        let before = group.members.len();
        group.members.retain(|_, member| member.ends_at.is_none());
        group.has_flushed = true;
        group.next_flush = now.plus_ms(as_ms(route.group_interval));
        group.told = if is_news { Some(content) } else { last };
        if is_news || group.members.len() < before {
            ops.push(group.put());
        }
        Ok(Flush {
            group,
            ops,
            is_news,
        })
    }

    /// What was delivered last, and the removal of what was delivered before.
    fn delivered(
        &self,
        prefix: &[u8],
        now: Timestamp,
    ) -> Result<(Option<Told>, Vec<StateOp>), store::Error> {
        let mut end = prefix.to_vec();
        end.extend_from_slice(&[0xff; 9]);
        let range = (Bound::Included(prefix), Bound::Excluded(end.as_slice()));
        let mut rows = self.store.scan(Table::NotifyState, range, ROWS_MAX)?;
        let last = rows.pop().and_then(|(_, row)| Told::decode(&row));
        let delete = |(key, _)| StateOp::Delete {
            table: Table::NotifyState,
            key,
        };
        let ops = rows.into_iter().map(delete).collect();
        Ok((last.filter(|told| told.expires >= now), ops))
    }

    /// The change that tells the receiver; one that only notes what it knows when it
    /// does not want to hear of it.
    fn tell(&self, route: &Route, group: &Group, content: &Told, now: Timestamp) -> StateOp {
        let key = told::key(&route.receiver, &group.key, content.at);
        if !route.send_resolved && content.firing.is_empty() {
            return StateOp::Put {
                table: Table::NotifyState,
                key: Bytes::from(key),
                value: Bytes::from(content.encode()),
            };
        }
        let members = group.members.values();
        let shown = members.filter(|m| route.send_resolved || m.ends_at.is_none());
        let about = About {
            receiver: &route.receiver,
            group_key: &group.key,
            group_labels: &group.labels,
            members: shown.collect(),
            external_url: &self.settings.external_url,
            alerts_max: route.alerts_max,
        };
        StateOp::Enqueue(Box::new(Delivery {
            kind: DeliveryKind::Notification,
            event_id: event_id(&route.receiver, &group.key, content),
            destination: route.receiver.clone(),
            tenant_id: tenant_of(&about.members),
            route: group.key.clone(),
            created_at: now,
            attempts: 0,
            next_at: now,
            content_type: "application/json".to_owned(),
            on_success: vec![StateRow {
                table: Table::NotifyState.name().to_owned(),
                key,
                value: Some(content.encode()),
            }],
            body: payload::body(&about),
        }))
    }
}

/// Changes that belong to no group.
fn housekeeping(ops: Vec<StateOp>) -> Vec<Flush> {
    let nobody = Group {
        key: String::new(),
        labels: Labels::empty(),
        members: BTreeMap::new(),
        next_flush: Timestamp::MAX,
        has_flushed: true,
        told: None,
    };
    let flush = |ops| Flush {
        group: nobody,
        ops,
        is_news: false,
    };
    if ops.is_empty() {
        Vec::new()
    } else {
        vec![flush(ops)]
    }
}

/// The same for the same fact: a flush that was not committed has no number, one
/// that was keeps it over all attempts.
fn event_id(receiver: &str, group_key: &str, content: &Told) -> String {
    let mut hash = Xxh3::new();
    for text in [receiver, group_key] {
        hash.update(&text.len().to_le_bytes());
        hash.update(text.as_bytes());
    }
    for set in [&content.firing, &content.resolved] {
        hash.update(&set.len().to_le_bytes());
        for fingerprint in set {
            hash.update(&fingerprint.to_le_bytes());
        }
    }
    hash.update(&content.at.as_ms().to_le_bytes());
    format!("ntf_{:032x}", hash.digest128())
}

/// The tenant that all alerts name, or the default one.
fn tenant_of(members: &[&Member]) -> TenantId {
    let mut names = members.iter().map(|m| m.labels.value(TENANT_LABEL));
    let first = names.next().unwrap_or_default();
    if names.any(|name| name != first) {
        return TenantId::default_tenant();
    }
    TenantId::new(first).unwrap_or_else(|_| TenantId::default_tenant())
}
