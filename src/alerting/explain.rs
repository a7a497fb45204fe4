//! Why somebody was told of an alert, or was not: the answer to the question at three
//! in the morning.
//!
//! The answer is worked out anew from what the next flush would see: the alert's row,
//! the routes, what holds it back now, what each receiver was last told, what waits in
//! the outbox, and the attempts on record. For an alert that has ended, the notes of
//! past flushes say what was decided while it lasted.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::alerts::{Alert, ROWS_MAX};
use super::flaps::Flaps;
use super::group::{Group, as_ms};
use super::history::{self, HistoryQuery, What};
use super::hour::Hour;
use super::note::{FlushNote, hex};
use super::pending::Pending;
use super::reason::{Facts, Phase, Reason};
use super::route::Route;
use super::settings::Settings;
use super::told::{self, Told};
use super::verdict::Hold;
use crate::config::receivers::Integration;
use crate::delivery::{self, History};
use crate::model::alert::{AlertPhase, AlertRow};
use crate::model::{Labels, Timestamp};
use crate::store::{self, Store, Table};

/// Entries of the history that are looked at for one alert.
const ENTRIES_MAX: usize = 200;

const DAY_MS: i64 = 86_400_000;

/// Events of one destination that are looked through for the attempts.
const EVENTS_MAX: usize = 5_000;

/// What is made of an alert.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The labels that receivers see.
    pub labels: Labels,
    /// Expanded; none when the alert is known from the history only.
    pub annotations: BTreeMap<String, String>,
    /// Where it stands.
    pub phase: Phase,
    /// Since when it is pending or fires, or did.
    pub since: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The row of our own rule; none for an alert that was posted.
    pub own: Option<AlertRow>,
    /// How often it began to fire in the last day: many times is flapping.
    pub fired_in_a_day: usize,
    /// The routes it takes, in their order.
    pub routes: Vec<RouteStory>,
}

/// An alert on one of its routes.
#[derive(Clone, Debug)]
pub struct RouteStory {
    /// The conditions on the way, the root's first.
    pub path: Vec<String>,
    /// Who is told.
    pub receiver: String,
    /// As Alertmanager names the group.
    pub group_key: String,
    /// What the group's alerts share.
    pub group_labels: Labels,
    /// How many alerts it has; 0 when there is no such group now.
    pub members: usize,
    /// When it is looked at next.
    pub next_flush: Option<Timestamp>,
    /// All that holds the alert back at this moment.
    pub holds: Vec<Hold>,
    /// One for each way in which the receiver is told.
    pub integrations: Vec<IntegrationStory>,
}

/// What one integration knows of an alert.
#[derive(Clone, Debug)]
pub struct IntegrationStory {
    /// Its name: that of the destination.
    pub name: String,
    /// What kind it is.
    pub kind: &'static str,
    /// The one reason that counts.
    pub reason: Reason,
    /// The same in a sentence.
    pub because: String,
    /// When it was last told of the group.
    pub told_at: Option<Timestamp>,
    /// From when on it would be told again of the same.
    pub repeat_at: Option<Timestamp>,
    /// The notification that speaks of the alert, with its latest attempts.
    pub event: Option<History>,
    /// The idempotency key of that notification.
    pub event_id: Option<String>,
}

impl Explanation {
    /// The reason that counts for the alert as a whole: of the first integration that
    /// was not told, else of the first.
    pub fn reason(&self) -> (Reason, &str) {
        let all = self.routes.iter().flat_map(|route| &route.integrations);
        let untold = all.clone().find(|story| !story.reason.is_told());
        match untold.or_else(|| all.clone().next()) {
            Some(story) => (story.reason, &story.because),
            None => (
                Reason::NobodyListens,
                "no receiver is configured for it, so nobody is told",
            ),
        }
    }
}

/// The alert that is asked for.
pub(super) struct Subject {
    fingerprint: u64,
    labels: Labels,
    annotations: BTreeMap<String, String>,
    phase: Phase,
    since: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    own: Option<AlertRow>,
    fired_in_a_day: usize,
    /// What flushes said of it, newest first.
    notes: Vec<(Timestamp, FlushNote)>,
}

impl Subject {
    /// Looks for it among the alerts of our rules, those that were posted, and in the
    /// history. `fingerprint` may be that with or without the external labels.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn find(
        store: &Store,
        settings: &Settings,
        fingerprint: u64,
        now: Timestamp,
    ) -> Result<Option<Subject>, store::Error> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut found: Option<Subject> = None;
        for (_, row) in store.scan(Table::Alert, all, ROWS_MAX)? {
            let Ok(row) = AlertRow::decode(&row) else {
                continue;
            };
            let labels = settings.outside.labels_of(&row.labels);
            let of_rule = [row.labels.fingerprint(), labels.fingerprint()];
            // Of several rules that say it, one that says that it fires.
            let is_better = found
                .as_ref()
                .is_none_or(|found| found.phase != Phase::Firing);
            if of_rule.contains(&fingerprint) && is_better {
                found = Some(Subject::own(labels, row));
            }
        }
        if found.is_none() {
            let mut posted = store.scan(Table::PostedAlert, all, ROWS_MAX)?.into_iter();
            let alert = posted.find_map(|(_, row)| {
                Alert::decode(&row).filter(|a| a.labels.fingerprint() == fingerprint)
            });
            found = alert.map(|alert| Subject::posted(alert, now));
        }
        let known = found.as_ref().map_or(fingerprint, |s| s.fingerprint);
        let query = HistoryQuery {
            fingerprint: Some(known),
            ..HistoryQuery::latest(ENTRIES_MAX)
        };
        let mut notes = Vec::new();
        let day_ago = now.minus_ms(DAY_MS);
        let fired = Flaps::of_one(store, &settings.outside, day_ago, known)?;
        for entry in history::page(store, &settings.outside, &query)?.entries {
            match entry.what {
                What::Flush { note, .. } => notes.push((entry.at, note)),
                What::Change { row, .. } => {
                    if found.is_some() {
                        continue;
                    }
                    let labels = Labels::from_pairs(&row.labels);
                    let labels = settings.outside.labels_of(&labels);
                    found = Some(Subject::gone(labels, entry.at));
                }
            }
        }
        Ok(found.map(|subject| Subject {
            notes,
            fired_in_a_day: fired,
            ..subject
        }))
    }

    fn of(labels: Labels, phase: Phase) -> Subject {
        Subject {
            fingerprint: labels.fingerprint(),
            labels,
            annotations: BTreeMap::new(),
            phase,
            since: None,
            ended_at: None,
            own: None,
            fired_in_a_day: 0,
            notes: Vec::new(),
        }
    }

    fn own(labels: Labels, row: AlertRow) -> Subject {
        let (phase, since) = match row.phase {
            AlertPhase::Pending => (Phase::Pending, Some(row.active_at)),
            AlertPhase::Firing => (Phase::Firing, row.fired_at),
            AlertPhase::Resolved => (Phase::Ended, row.fired_at),
        };
        Subject {
            annotations: row.annotations.clone(),
            since,
            ended_at: row.resolved_at,
            own: Some(row),
            ..Subject::of(labels, phase)
        }
    }

    fn posted(alert: Alert, now: Timestamp) -> Subject {
        let fires = alert.fires_at(now);
        let phase = if fires { Phase::Firing } else { Phase::Ended };
        Subject {
            annotations: alert.annotations,
            since: Some(alert.starts_at),
            ended_at: alert.ends_at.filter(|_| !fires),
            ..Subject::of(alert.labels, phase)
        }
    }

    fn gone(labels: Labels, at: Timestamp) -> Subject {
        Subject {
            ended_at: Some(at),
            ..Subject::of(labels, Phase::Ended)
        }
    }

    /// The answer when there are no routes at all.
    pub(super) fn untold(self) -> Explanation {
        Explanation {
            labels: self.labels,
            annotations: self.annotations,
            phase: self.phase,
            since: self.since,
            ended_at: self.ended_at,
            own: self.own,
            fired_in_a_day: self.fired_in_a_day,
            routes: Vec::new(),
        }
    }

    /// The newest note of an integration about a group.
    fn note(&self, integration: &str, group_key: &str) -> Option<&(Timestamp, FlushNote)> {
        let is_it =
            |note: &FlushNote| note.integration == integration && note.group_key == group_key;
        self.notes.iter().find(|(_, note)| is_it(note))
    }
}

/// Works the answer out.
pub(super) struct Teller<'a> {
    pub(super) store: &'a Store,
    /// By group id.
    pub(super) groups: &'a BTreeMap<String, Group>,
    /// By integration.
    pub(super) pending: &'a mut HashMap<String, Pending>,
    pub(super) hour: &'a Hour<'a>,
}

impl Teller<'_> {
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn tell(&mut self, subject: Subject) -> Result<Explanation, store::Error> {
        let tree = self.hour.tree;
        let mut routes = Vec::new();
        for at in tree.matching(&subject.labels) {
            let route = &tree.routes[at];
            let labels = route.group_labels(&subject.labels);
            let group_id = route.group_id(&labels);
            let group = self.groups.get(&group_id);
            let mut story = RouteStory {
                path: tree.path(at),
                receiver: route.receiver.clone(),
                group_key: route.group_key(&labels),
                group_labels: labels,
                members: group.map_or(0, |group| group.members.len()),
                next_flush: group.map(|group| group.next_flush),
                holds: self
                    .hour
                    .holds(route, &subject.labels, subject.own.is_some()),
                integrations: Vec::new(),
            };
            for integration in tree.integrations(&route.receiver) {
                let told = self.integration(&subject, route, &group_id, &story, integration)?;
                story.integrations.push(told);
            }
            routes.push(story);
        }
        Ok(Explanation {
            routes,
            ..subject.untold()
        })
    }

    fn integration(
        &mut self,
        subject: &Subject,
        route: &Route,
        group_id: &str,
        story: &RouteStory,
        integration: &Integration,
    ) -> Result<IntegrationStory, store::Error> {
        let name = integration.name.as_str();
        let prefix = told::prefix(name, group_id);
        let pending = self.pending.entry(name.to_owned());
        let pending = pending.or_insert_with(|| Pending::new(name));
        let unsent = pending.get(self.store, &prefix)?;
        let delivered = told::delivered(self.store, &prefix)?;
        let note = subject.note(name, &story.group_key);
        let of_note = note.and_then(|(_, note)| note.event_id.clone());
        let event_id = match &unsent {
            Some(unsent) if speaks_of(&unsent.told, subject.fingerprint) => {
                Some(unsent.event_id.clone())
            }
            _ => of_note,
        };
        let event = match (&event_id, note) {
            (Some(id), Some((at, _))) => {
                let events = delivery::history_since(self.store, name, *at, EVENTS_MAX)?;
                events.into_iter().find(|event| event.event_id == *id)
            }
            _ => None,
        };
        let group = self.groups.get(group_id);
        let facts = Facts {
            fingerprint: subject.fingerprint,
            phase: subject.phase,
            holds: &story.holds,
            has_flushed: group.is_some_and(|group| group.has_flushed),
            is_member: group.is_some_and(|g| g.members.contains_key(&subject.labels)),
            next_flush: story.next_flush,
            repeat_ms: as_ms(route.repeat_interval),
            send_resolved: integration.send_resolved,
            unsent: unsent.as_ref().map(|unsent| &unsent.told),
            delivered: delivered.as_ref(),
            note: note.map(|(_, note)| note),
            event: event.as_ref(),
        };
        let (reason, because) = facts.reason();
        let told_at = delivered.as_ref().map(Told::known_since);
        let repeats = reason == Reason::KnownAlready;
        Ok(IntegrationStory {
            name: name.to_owned(),
            kind: integration.kind,
            reason,
            because,
            told_at,
            repeat_at: told_at
                .filter(|_| repeats)
                .map(|at| at.plus_ms(facts.repeat_ms)),
            event,
            event_id,
        })
    }
}

fn speaks_of(told: &Told, fingerprint: u64) -> bool {
    told.firing.contains(&fingerprint) || told.resolved.contains(&fingerprint)
}

/// Whether a note names the alert among those that were held back.
pub(super) fn held_in(note: &FlushNote, fingerprint: u64) -> Option<&Hold> {
    note.held.get(&hex(fingerprint))
}
