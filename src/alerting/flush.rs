//! From a group that is due to outbox rows: what is held back, what is news, and what
//! has to be written.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use super::alerts::{Alert, ROWS_MAX};
use super::group::{self, Group, as_ms};
use super::hour::Hour;
use super::note::{self, FlushNote};
use super::payload;
use super::pending::{Pending, Unsent};
use super::route::Route;
use super::telling::{Telling, fingerprints};
use super::told::{self, Rhythm, Told};
use super::verdict::{Decision, Hold, Verdict};
use crate::config::receivers::Integration;
use crate::model::Timestamp;
use crate::store::{self, StateOp, Store, Table};

/// An evaluation is fresh for this time, however often a dead man's switch is told:
/// two of the usual longest intervals, and what their commit may take.
const FRESH: Duration = Duration::from_secs(150);

/// A group's flush, to be written in one transaction.
pub(super) struct Flush {
    /// The group as it is afterwards; none for what belongs to no group.
    pub(super) group: Option<Group>,
    pub(super) ops: Vec<StateOp>,
    /// The kinds of the integrations that are told.
    pub(super) told: Vec<&'static str>,
}

impl Flush {
    /// Whether the commit is waited for: somebody is told, or a message is taken back.
    pub(super) fn is_urgent(&self) -> bool {
        let takes_back =
            |op: &StateOp| matches!(op, StateOp::Delete { table, .. } if *table == Table::Outbox);
        !self.told.is_empty() || self.ops.iter().any(takes_back)
    }

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
        let mut holds = BTreeMap::new();
        for member in group.members.values() {
            if let Some(hold) = hour.hold(route, member) {
                holds.insert(member.labels.fingerprint(), hold);
            }
        }
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
        let (mut delivered, outdated) = self.delivered(&prefix)?;
        ops.extend(outdated);
        if (integration.every.is_some() || group.is_digest(route))
            && let Some(told) = &mut delivered
        {
            // These keep to their hours, however long the last one took to arrive.
            told.sent_at = None;
        }
        let passes = |hold: Option<&Hold>, alert: &Alert| {
            self.passes(hold, alert, integration, delivered.as_ref())
        };
        let hold_of = |alert: &Alert| group.holds.get(&alert.labels.fingerprint());
        let members = group.members.values();
        let shown: Vec<&Alert> = members.filter(|a| passes(hold_of(a), a)).collect();
        let before = unsent.as_ref().map(|unsent| unsent.told.clone());
        let mut carried = unsent
            .as_ref()
            .map_or_else(Vec::new, |unsent| payload::resolved_in(&unsent.body));
        carried.retain(|alert| match self.hour.hold(route, alert) {
            // Its hour had come when the message was made.
            Some(Hold::Flapping { .. }) => true,
            hold => passes(hold.as_ref(), alert),
        });
        let newest = [&before, &delivered].into_iter().flatten();
        let newest_at = newest.map(|told| told.at).max();
        let is_sayable = |told: &Told| self.is_sayable(told, group, &shown, integration);
        let is_withdrawn = before.as_ref().is_some_and(|told| !is_sayable(told));
        let (last, unsent) = match is_withdrawn {
            // Nobody was told by what does not leave.
            true => {
                ops.extend(unsent.map(Unsent::delete));
                (delivered, None)
            }
            false => {
                let told = [before, delivered].into_iter().flatten();
                (told.max_by_key(|told| told.at), unsent)
            }
        };
        let ends_carried = is_withdrawn && integration.send_resolved && !carried.is_empty();
        let verdict = |decision| Verdict {
            at: now,
            decision,
            event_id: None,
        };
        if shown.is_empty() && !ends_carried {
            return Ok(One::quiet(last, verdict(Decision::AllHeld), None));
        }
        if integration
            .every
            .is_some_and(|every| self.store.is_failing() || self.is_stale(&shown, every))
        {
            return Ok(One::quiet(last, verdict(Decision::RulesStalled), None));
        }
        // The latest is found by its time: also after the clock was set back.
        let at = newest_at.map_or(now, |at| now.max(at.plus_ms(1)));
        let content = group::content(&shown, route, now, at);
        let resolved_wanted = integration.send_resolved;
        let rhythm = Rhythm {
            repeat: integration.every.unwrap_or(route.repeat_interval),
            flush: route.group_interval,
        };
        let is_news = match group.is_digest(route) {
            _ if ends_carried => true,
            false => told::is_news(last.as_ref(), &content, resolved_wanted, rhythm),
            true => {
                let since = last.as_ref().map_or(Timestamp::MIN, |told| told.at);
                let begins = |alert: &&Alert| alert.fires_at(now) && alert.starts_at > since;
                shown.iter().any(begins)
                    || told::is_digest_news(last.as_ref(), &content, resolved_wanted, rhythm)
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
        ops.extend(unsent.map(Unsent::delete));
        let (delivery, content) = told.tell(shown, content, carried);
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
        hold: Option<&Hold>,
        alert: &Alert,
        integration: &Integration,
        delivered: Option<&Told>,
    ) -> bool {
        let ends_what_was_told = || {
            let fingerprint = alert.labels.fingerprint();
            !alert.fires_at(self.hour.now)
                && delivered.is_some_and(|told| told.firing.contains(&fingerprint))
        };
        match hold {
            None => true,
            Some(Hold::Silenced { .. }) => {
                self.hour.settings.resolve_through_silence && ends_what_was_told()
            }
            Some(Hold::HandedOver) => integration.every.is_some() || ends_what_was_told(),
            Some(Hold::Flapping { .. }) => integration.every.is_some(),
            Some(_) => false,
        }
    }

    /// Whether a message that waits may leave: not when it says that something fires of
    /// which nobody is to hear now, or of whose end nobody is told. Where the end is told,
    /// the message of it replaces the other one. What flaps was to be told an hour ago.
    fn is_sayable(
        &self,
        unsent: &Told,
        group: &Group,
        shown: &[&Alert],
        integration: &Integration,
    ) -> bool {
        let is_told = |alert: &&&Alert| integration.send_resolved || alert.fires_at(self.hour.now);
        let sayable = shown.iter().filter(is_told);
        let sayable = fingerprints(&mut sayable.copied());
        let flaps = |one: &u64| matches!(group.holds.get(one), Some(Hold::Flapping { .. }));
        unsent
            .firing
            .iter()
            .all(|one| sayable.contains(one) || flaps(one))
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
