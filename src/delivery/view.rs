//! What pages see of the destinations.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::model::Timestamp;
use crate::store::state::{decode_delivery, outbox_key, outbox_prefix};
use crate::store::{self, Store, Table};

/// Rows of the outbox that are read at once: bounded, because a body may be large.
const PAGE: usize = 16;
/// Rows that are looked through for those that wait.
const WAITING_MAX: usize = 2_000;

/// What a destination is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "until")]
pub enum DestinationState {
    /// It gets what there is for it.
    Working,
    /// It keeps failing: nothing is sent until then. Of telemetry one probe goes out.
    BreakerOpen(Timestamp),
    /// It answered 410: nothing is sent until a reload; the rows stay.
    Disabled,
}

/// One destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DestinationView {
    /// The configured name.
    pub name: String,
    /// `webhook`, `slack`, ...
    pub kind: &'static str,
    /// Where it leads, without the query.
    pub url: String,
    /// Whether the order is kept.
    pub ordered: bool,
    /// What it is doing.
    pub state: DestinationState,
    /// Rows of the outbox, telemetry and notifications together.
    pub backlog: u64,
    /// How many of them are notifications.
    pub notifications: u64,
    /// Attempts under way.
    pub in_flight: usize,
    /// Events delivered since the start.
    pub delivered: u64,
    /// Attempts failed since the start.
    pub failed: u64,
    /// Events given up since the start.
    pub dead: u64,
    /// When the last event was delivered.
    pub last_success: Option<Timestamp>,
    /// When the last attempt failed.
    pub last_failure: Option<Timestamp>,
    /// Why.
    pub last_error: Option<String>,
    /// When the next attempt is due; `None` with nothing to send.
    pub next_attempt: Option<Timestamp>,
}

/// The events that are to be sent to a destination; `None` when there are more than are
/// looked at.
///
/// # Errors
/// When the store cannot be read.
pub fn waiting(store: &Store, destination: &str) -> Result<Option<HashSet<String>>, store::Error> {
    let from = outbox_prefix(destination);
    let mut end = outbox_key(destination, u64::MAX);
    let mut found = HashSet::new();
    while found.len() < WAITING_MAX {
        let range = (Bound::Included(&from[..]), Bound::Excluded(&end[..]));
        let page = store.scan_back(Table::Outbox, range, PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(Some(found));
        };
        end = last.to_vec();
        let rows = page.iter().filter_map(|(_, row)| decode_delivery(row).ok());
        found.extend(rows.map(|delivery| delivery.event_id));
    }
    Ok(None)
}

/// The view that a worker keeps up to date.
#[derive(Clone)]
pub(super) struct Shown(Arc<Mutex<DestinationView>>);

impl Shown {
    pub(super) fn new(name: &str, kind: &'static str, url: String, ordered: bool) -> Shown {
        Shown(Arc::new(Mutex::new(DestinationView {
            name: name.to_owned(),
            kind,
            url,
            ordered,
            state: DestinationState::Working,
            backlog: 0,
            notifications: 0,
            in_flight: 0,
            delivered: 0,
            failed: 0,
            dead: 0,
            last_success: None,
            last_failure: None,
            last_error: None,
            next_attempt: None,
        })))
    }

    /// The view, for a moment; a panic elsewhere leaves it readable.
    pub(super) fn lock(&self) -> MutexGuard<'_, DestinationView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
