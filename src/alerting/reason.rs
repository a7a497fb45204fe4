//! The one reason that counts, from the facts about an alert and one integration: pure.

use super::explain::held_in;
use super::note::FlushNote;
use super::told::Told;
use super::verdict::{Decision, Hold};
use crate::delivery::{End, History};
use crate::model::Timestamp;

/// Where an alert stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It has not lasted for long enough.
    Pending,
    /// It fires.
    Firing,
    /// It fired, or was pending, and does not any more.
    Ended,
}

impl Phase {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Firing => "firing",
            Phase::Ended => "ended",
        }
    }
}

/// Why an integration was told of an alert, or was not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// It has not lasted for as long as its rule's `for`.
    Pending,
    /// No receiver is configured for it.
    NobodyListens,
    /// Another alert makes it quiet.
    Inhibited,
    /// A mute time interval of the route holds.
    Muted,
    /// None of the route's active time intervals holds.
    OutsideActiveTime,
    /// A silence holds.
    Silenced,
    /// Another Alertmanager tells people.
    HandedOver,
    /// It begins and ends all the time: it is told once an hour.
    Flapping,
    /// Its group collects alerts before the first notification.
    GroupWait,
    /// Its group was just told of, and is looked at again later.
    GroupInterval,
    /// The notification is in the outbox, and was not tried yet.
    Waiting,
    /// The notification is in the outbox, and the receiver did not take it so far.
    Failing,
    /// The notification was given up: it is among the dead letters.
    GivenUp,
    /// The receiver knows that it fires, and the repeat interval has not passed.
    KnownAlready,
    /// The receiver knows that it has ended.
    Told,
    /// It ended before anybody was told that it fired.
    EndedUntold,
    /// It ended, which the receiver does not want to hear.
    ResolvedUnwanted,
    /// Nothing is on record any more.
    Forgotten,
}

impl Reason {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Pending => "pending",
            Reason::NobodyListens => "nobody_listens",
            Reason::Inhibited => "inhibited",
            Reason::Muted => "muted",
            Reason::OutsideActiveTime => "outside_active_time",
            Reason::Silenced => "silenced",
            Reason::HandedOver => "handed_over",
            Reason::Flapping => "flapping",
            Reason::GroupWait => "group_wait",
            Reason::GroupInterval => "group_interval",
            Reason::Waiting => "waiting",
            Reason::Failing => "failing",
            Reason::GivenUp => "given_up",
            Reason::KnownAlready => "known_already",
            Reason::Told => "told",
            Reason::EndedUntold => "ended_untold",
            Reason::ResolvedUnwanted => "resolved_unwanted",
            Reason::Forgotten => "forgotten",
        }
    }

    /// Whether the receiver knows how the alert stands.
    pub fn is_told(self) -> bool {
        matches!(self, Reason::KnownAlready | Reason::Told)
    }

    fn of(hold: &Hold) -> Reason {
        match hold {
            Hold::Inhibited { .. } => Reason::Inhibited,
            Hold::Muted { .. } => Reason::Muted,
            Hold::OutsideActiveTime { .. } => Reason::OutsideActiveTime,
            Hold::Silenced { .. } => Reason::Silenced,
            Hold::HandedOver => Reason::HandedOver,
            Hold::Flapping { .. } => Reason::Flapping,
        }
    }
}

/// What is known of an alert and one integration.
pub(super) struct Facts<'a> {
    pub(super) fingerprint: u64,
    pub(super) phase: Phase,
    pub(super) holds: &'a [Hold],
    pub(super) has_flushed: bool,
    /// Whether its group still has it.
    pub(super) is_member: bool,
    pub(super) next_flush: Option<Timestamp>,
    pub(super) repeat_ms: i64,
    pub(super) send_resolved: bool,
    /// What waits in the outbox.
    pub(super) unsent: Option<&'a Told>,
    /// What was delivered last.
    pub(super) delivered: Option<&'a Told>,
    /// What the last flush that spoke of the alert decided.
    pub(super) note: Option<&'a FlushNote>,
    /// The attempts to deliver what it made.
    pub(super) event: Option<&'a History>,
}

impl Facts<'_> {
    /// The reason, and the same in a sentence.
    pub(super) fn reason(&self) -> (Reason, String) {
        match self.phase {
            Phase::Pending => {
                let text = "it has not lasted for as long as the rule's `for` demands";
                (Reason::Pending, text.to_owned())
            }
            Phase::Firing => self.firing(),
            Phase::Ended => self.ended(),
        }
    }

    fn firing(&self) -> (Reason, String) {
        if let Some(hold) = self.holds.first() {
            return (Reason::of(hold), held(hold));
        }
        let fires_in = |told: &&Told| told.firing.contains(&self.fingerprint);
        if let Some(unsent) = self.unsent.filter(fires_in) {
            return self.in_outbox(unsent);
        }
        if let Some(told) = self.delivered.filter(fires_in) {
            let at = told.known_since();
            let again = at.plus_ms(self.repeat_ms);
            let text = format!("the receiver was told at {at} and is told again after {again}");
            return (Reason::KnownAlready, text);
        }
        if self.event.is_some_and(|e| e.end == Some(End::Dead)) {
            return self.given_up();
        }
        let when = at(self.next_flush);
        if self.has_flushed {
            let text = format!("its group is looked at again {when}, as group_interval demands");
            return (Reason::GroupInterval, text);
        }
        let text =
            format!("its group collects alerts and is told of {when}, as group_wait demands");
        (Reason::GroupWait, text)
    }

    fn ended(&self) -> (Reason, String) {
        let ended_in = |told: &&Told| told.resolved.contains(&self.fingerprint);
        if let Some(unsent) = self.unsent.filter(ended_in) {
            return self.in_outbox(unsent);
        }
        if self.is_member {
            return self.not_looked_at();
        }
        if self.delivered.is_some_and(|told| ended_in(&told)) && self.send_resolved {
            let text = "the receiver knows that it has ended";
            return (Reason::Told, text.to_owned());
        }
        if self.event.is_some_and(|e| e.end == Some(End::Dead)) {
            return self.given_up();
        }
        let Some(note) = self.note else {
            let text = "it ended, and no flush on record speaks of it";
            return (Reason::Forgotten, text.to_owned());
        };
        if let Some(hold) = held_in(note, self.fingerprint) {
            return (
                Reason::of(hold),
                format!("it ended while it was held back: {}", held(hold)),
            );
        }
        let (reason, text) = match note.decision {
            Decision::EndedUntold => (
                Reason::EndedUntold,
                "it ended before anybody was told that it fired, so there was nothing to tell",
            ),
            Decision::ResolvedUnwanted => (
                Reason::ResolvedUnwanted,
                "it ended, and send_resolved is off for this receiver",
            ),
            Decision::Notified if !self.send_resolved => (
                Reason::ResolvedUnwanted,
                "it ended, and send_resolved is off for this receiver",
            ),
            _ => (Reason::Told, "the receiver knows that it has ended"),
        };
        (reason, text.to_owned())
    }

    /// It ended, and its group was not looked at since.
    fn not_looked_at(&self) -> (Reason, String) {
        if let Some(hold) = self.holds.first() {
            return (Reason::of(hold), held(hold));
        }
        let when = at(self.next_flush);
        let text = format!("it ended, and its group is looked at {when}");
        let reason = if self.has_flushed {
            Reason::GroupInterval
        } else {
            Reason::GroupWait
        };
        (reason, text)
    }

    fn in_outbox(&self, unsent: &Told) -> (Reason, String) {
        match self.event {
            Some(event) if event.count > 0 => {
                let last = event.attempts.last();
                let error = last.and_then(|attempt| attempt.error.as_deref());
                let text = format!(
                    "the notification of {} is in the outbox; {} attempts failed, the last one with: {}",
                    unsent.at,
                    event.count,
                    error.unwrap_or("no answer")
                );
                (Reason::Failing, text)
            }
            _ => {
                let text = format!(
                    "the notification of {} is in the outbox and was not tried yet",
                    unsent.at
                );
                (Reason::Waiting, text)
            }
        }
    }

    fn given_up(&self) -> (Reason, String) {
        let text = "the notification was given up and is among the dead letters";
        (Reason::GivenUp, text.to_owned())
    }
}

fn at(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "soon".to_owned(), |at| format!("at {at}"))
}

/// What holds an alert back, in words.
fn held(hold: &Hold) -> String {
    match hold {
        Hold::Inhibited { by } => format!("the alert {by} fires and inhibits it"),
        Hold::Muted { interval } => format!("the mute time interval {interval} holds"),
        Hold::OutsideActiveTime { intervals } => {
            format!(
                "none of the active time intervals holds: {}",
                intervals.join(", ")
            )
        }
        Hold::Silenced { by } => format!("silenced by {}", by.join(", ")),
        Hold::HandedOver => "another Alertmanager answers and tells people".to_owned(),
        Hold::Flapping { times } => {
            format!("it began to fire {times} times in an hour and is told of at the full hour")
        }
    }
}
