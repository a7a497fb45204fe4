//! Why an alert was told or not: what a flush found, for people and for `explain`.

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Why an alert is held back from everybody in its group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Hold {
    /// Another alert makes it quiet.
    Inhibited {
        /// The other's fingerprint.
        by: String,
    },
    /// A mute time interval of the route holds.
    Muted {
        /// Which.
        interval: String,
    },
    /// None of the route's active time intervals holds.
    OutsideActiveTime {
        /// Those that would do.
        intervals: Vec<String>,
    },
    /// Silences hold.
    Silenced {
        /// Their ids.
        by: Vec<String>,
    },
    /// Another Alertmanager tells people.
    HandedOver,
    /// It begins and ends all the time: it is told once an hour.
    Flapping {
        /// How often it began to fire in the last hour.
        times: usize,
    },
}

/// What a flush decided for one integration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// When.
    pub at: Timestamp,
    /// What.
    pub decision: Decision,
    /// The event that was made, if one was.
    pub event_id: Option<String>,
}

/// What there was to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Something new: a notification was put into the outbox.
    Notified,
    /// The receiver knows, and the repeat interval has not passed.
    KnownAlready,
    /// It ended before anybody was told that it fired.
    EndedUntold,
    /// All that is new is that something ended, which the receiver does not want to hear.
    ResolvedUnwanted,
    /// All alerts of the group are held back.
    AllHeld,
    /// It is a dead man's switch, and the alerts' rules have not run for too long.
    RulesStalled,
}
