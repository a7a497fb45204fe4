//! From a group that is due to outbox rows: what is held back, what is news, and what
//! has to be written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::alerts::{Alert, ROWS_MAX};
use super::group::{self, Group, as_ms};
use super::hour::Hour;
use super::note::{self, FlushNote};
use super::payload::{self, About};
use super::pending::{Pending, Unsent};
use super::route::Route;
use super::told::{self, Told};
use super::verdict::{Decision, Hold, Verdict};
use crate::config::receivers::Integration;
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Delivery, DeliveryKind, StateRow, TenantId, Timestamp};
use crate::store::{self, StateOp, Store, Table};

/// An evaluation is fresh for this time, however often a dead man's switch is told:
/// two of the usual longest intervals, and what their commit may take.
const FRESH: Duration = Duration::from_secs(150);
const TICK: Duration = Duration::from_millis(1);

/// A group's flush, to be written in one transaction.
pub(super) struct Flush {
    /// The group as it is afterwards; none for what belongs to no group.
    pub(super) group: Option<Group>,
    pub(super) ops: Vec<StateOp>,
    /// The kinds of the integrations that are told; with any, the commit is waited for.
    pub(super) told: Vec<&'static str>,
}

impl Flush {
    /// Changes that belong to no group.
    pub(super) fn housekeeping(ops: Vec<StateOp>) -> Vec<Flush> {
        if ops.is_empty() {
            return Vec::new();
        }
        vec![Flush {
            group: None,
            ops,
            told: Vec::new(),
        }]
    }
}

/// Makes flushes.
pub(super) struct Flusher<'a> {
    pub(super) store: &'a Store,
    pub(super) pending: &'a mut HashMap<String, Pending>,
    pub(super) hour: &'a Hour<'a>,
}

impl Flusher<'_> {
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn flush(&mut self, mut group: Group) -> Result<Flush, store::Error> {
        let hour = self.hour;
        let (now, route) = (hour.now, &hour.tree.routes[group.route]);
        let mut holds: BTreeMap<u64, Hold> = group
            .members
            .values()
            .filter_map(|m| Some((m.labels.fingerprint(), hour.hold(route, m)?)))
            .collect();
        group.tell_flapping(&mut holds, now);
        let holds_before = std::mem::replace(&mut group.holds, holds);
        let mut ops = Vec::new();
        let mut told = Vec::new();
        let mut verdicts = BTreeMap::new();
        for integration in hour.tree.integrations(&route.receiver) {
            let one = self.one(route, &group, integration, &mut ops)?;
            if one.verdict.decision == Decision::Notified {
                told.push(integration.kind);
            }
            // That a heartbeat beats is no news.
            let is_news = note::is_notable(one.verdict.decision) || group.holds != holds_before;
            if is_news && integration.every.is_none() {
                let content = one.content.as_ref();
                let (receiver, name) = (&route.receiver, &integration.name);
                let note = FlushNote::of(&group, receiver, name, &one.verdict, content);
                ops.push(note.put(&group.id, now));
            }
            match one.last {
                Some(last) => group.told.insert(integration.name.clone(), last),
                None => group.told.remove(&integration.name),
            };
            verdicts.insert(integration.name.clone(), one.verdict);
        }
        let has_left = group.let_go(now);
        let is_noted = |v: &Verdict| v.decision == Decision::ResolvedUnwanted;
        let is_changed = verdicts.values().any(is_noted) || has_left;
        group.verdicts = verdicts;
        group.has_flushed = true;
        let next = route.next_flush(now);
        group.next_flush = group.flaps_at.map_or(next, |at| at.min(next));
        group.fired.clear();
        if !told.is_empty() || is_changed {
            ops.push(group.put());
        }
        Ok(Flush {
            group: Some(group),
            ops,
            told,
        })
    }

    /// What has to be done for one integration.
    fn one(
        &mut self,
        route: &Route,
        group: &Group,
        integration: &Integration,
        ops: &mut Vec<StateOp>,
    ) -> Result<One, store::Error> {
        let now = self.hour.now;
        let prefix = told::prefix(&integration.name, &group.id);
        let name = integration.name.clone();
        let pending = self.pending.entry(name);
        let pending = pending.or_insert_with(|| Pending::new(&integration.name));
        let unsent = pending.get(self.store, &prefix)?;
        let (delivered, outdated) = self.delivered(&prefix)?;
        ops.extend(outdated);
        let last = [unsent.as_ref().map(|unsent| unsent.told.clone()), delivered];
        let last = last.into_iter().flatten().max_by_key(|told| told.at);
        let shown: Vec<&Alert> = group
            .members
            .values()
            .filter(|alert| self.passes(group, alert, integration, last.as_ref()))
            .collect();
        let verdict = |decision| Verdict {
            at: now,
            decision,
            event_id: None,
        };
        if shown.is_empty() {
            return Ok(One::quiet(last, verdict(Decision::AllHeld), None));
        }
        if integration
            .every
            .is_some_and(|every| self.store.is_failing() || self.is_stale(&shown, every))
        {
            return Ok(One::quiet(last, verdict(Decision::RulesStalled), None));
        }
        // The latest is found by its time: also after the clock was set back.
        let at = last
            .as_ref()
            .map_or(now, |told| now.max(told.at.plus_ms(1)));
        let content = group::content(&shown, route, now, at);
        let resolved_wanted = integration.send_resolved;
        // Each flush is due when the interval has passed, not after it.
        let repeat = integration
            .every
            .map_or(route.repeat_interval, |every| every.saturating_sub(TICK));
        let is_news = match group.is_digest(route) {
            false => told::is_news(last.as_ref(), &content, resolved_wanted, repeat),
            true => {
                let since = last.as_ref().map_or(Timestamp::MIN, |told| told.at);
                let begins = |alert: &&Alert| alert.fires_at(now) && alert.starts_at > since;
                shown.iter().any(begins)
                    || told::is_digest_news(last.as_ref(), &content, resolved_wanted, repeat)
            }
        };
        if !is_news {
            let decision = match &last {
                None => Decision::EndedUntold,
                Some(_) => Decision::KnownAlready,
            };
            return Ok(One::quiet(last, verdict(decision), Some(content)));
        }
        let told = Telling {
            route,
            group,
            integration,
            hour: self.hour,
        };
        if !resolved_wanted && content.firing.is_empty() {
            ops.push(told.note(&content));
            return Ok(One::quiet(
                Some(content.clone()),
                verdict(Decision::ResolvedUnwanted),
                Some(content),
            ));
        }
        let (delivery, content) = told.tell(shown, content, unsent, ops);
        let event_id = Some(delivery.event_id.clone());
        ops.push(StateOp::Enqueue(Box::new(delivery)));
        Ok(One {
            last: Some(content.clone()),
            content: Some(content),
            verdict: Verdict {
                event_id,
                ..verdict(Decision::Notified)
            },
        })
    }

    /// Whether an integration may hear of an alert. With `resolve_through_silence`, and
    /// when another Alertmanager took over meanwhile, whoever was told that it fires is
    /// told that it ended. A dead man's switch hears of us whoever else tells people.
    fn passes(
        &self,
        group: &Group,
        alert: &Alert,
        integration: &Integration,
        last: Option<&Told>,
    ) -> bool {
        let fingerprint = alert.labels.fingerprint();
        let ends_what_was_told = || {
            !alert.fires_at(self.hour.now)
                && last.is_some_and(|told| told.firing.contains(&fingerprint))
        };
        match group.holds.get(&fingerprint) {
            None => true,
            Some(Hold::Silenced { .. }) => {
                self.hour.settings.resolve_through_silence && ends_what_was_told()
            }
            Some(Hold::HandedOver) => integration.every.is_some() || ends_what_was_told(),
            Some(Hold::Flapping { .. }) => integration.every.is_some(),
            Some(_) => false,
        }
    }

    /// Whether nobody has said for a while that these alerts still fire.
    fn is_stale(&self, shown: &[&Alert], every: Duration) -> bool {
        let age_max = as_ms((every * 2).max(FRESH));
        let oldest = shown.iter().map(|alert| alert.updated_at).min();
        oldest.is_some_and(|at| self.hour.now.ms_since(at) > age_max)
    }

    /// What was delivered last, and the removal of what was delivered before.
    fn delivered(&self, prefix: &[u8]) -> Result<(Option<Told>, Vec<StateOp>), store::Error> {
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
        let now = self.hour.now;
        Ok((last.filter(|told| told.expires >= now), ops))
    }
}

/// What a flush found for one integration.
struct One {
    last: Option<Told>,
    verdict: Verdict,
    /// What there was to tell.
    content: Option<Told>,
}

impl One {
    fn quiet(last: Option<Told>, verdict: Verdict, content: Option<Told>) -> One {
        One {
            last,
            verdict,
            content,
        }
    }
}

/// A group's news on its way to one integration.
struct Telling<'a> {
    route: &'a Route,
    group: &'a Group,
    integration: &'a Integration,
    hour: &'a Hour<'a>,
}

impl Telling<'_> {
    fn key(&self, content: &Told) -> Vec<u8> {
        told::key(&self.integration.name, &self.group.id, content.at)
    }

    /// Notes what the receiver does not want to hear.
    fn note(&self, content: &Told) -> StateOp {
        StateOp::Put {
            table: Table::NotifyState,
            key: Bytes::from(self.key(content)),
            value: Bytes::from(content.encode()),
        }
    }

    /// The outbox row, and what it says. It replaces one that still waits, and tells
    /// of everything that ended and that only the replaced one would have told.
    fn tell(
        &self,
        shown: Vec<&Alert>,
        mut content: Told,
        unsent: Option<Unsent>,
        ops: &mut Vec<StateOp>,
    ) -> (Delivery, Told) {
        let now = self.hour.now;
        let known: BTreeSet<u64> = shown.iter().map(|a| a.labels.fingerprint()).collect();
        let mut carried = unsent
            .as_ref()
            .map_or_else(Vec::new, |unsent| payload::resolved_in(&unsent.body));
        carried.retain(|alert| !known.contains(&alert.labels.fingerprint()));
        if let Some(unsent) = unsent {
            ops.push(StateOp::Delete {
                table: Table::Outbox,
                key: unsent.key,
            });
        }
        let fingerprints = carried.iter().map(|alert| alert.labels.fingerprint());
        content.resolved.extend(fingerprints);
        let counted = match self.group.is_digest(self.route) {
            true => self.group.counted(&shown),
            false => Vec::new(),
        };
        let mut members: Vec<&Alert> = match counted.is_empty() {
            true => shown,
            false => counted.iter().collect(),
        };
        members.extend(&carried);
        members.retain(|alert| self.integration.send_resolved || alert.fires_at(now));
        let about = About {
            receiver: &self.route.receiver,
            group_key: &self.group.key,
            group_labels: &self.group.labels,
            members,
            external_url: &self.hour.settings.outside.url,
            alerts_max: self.integration.alerts_max,
            now,
        };
        let delivery = Delivery {
            kind: DeliveryKind::Notification,
            event_id: event_id(&self.integration.name, &self.group.id, &content),
            destination: self.integration.name.clone(),
            tenant_id: tenant_of(&about.members),
            route: self.group.key.clone(),
            created_at: now,
            attempts: 0,
            next_at: now,
            content_type: "application/json".to_owned(),
            on_success: vec![StateRow {
                table: Table::NotifyState.name().to_owned(),
                key: self.key(&content),
                value: Some(content.encode()),
            }],
            body: payload::body(&about),
        };
        (delivery, content)
    }
}

/// The same for the same fact: a flush that was not committed has no number, one
/// that was keeps it over all attempts.
fn event_id(integration: &str, group_id: &str, content: &Told) -> String {
    let mut hash = Xxh3::new();
    for text in [integration, group_id] {
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
fn tenant_of(members: &[&Alert]) -> TenantId {
    let mut names = members.iter().map(|m| m.labels.value(TENANT_LABEL));
    let first = names.next().unwrap_or_default();
    if names.any(|name| name != first) {
        return TenantId::default_tenant();
    }
    TenantId::new(first).unwrap_or_else(|_| TenantId::default_tenant())
}
