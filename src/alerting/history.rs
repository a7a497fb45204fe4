//! What became of alerts, newest first: state changes, flushes, and the attempts to
//! deliver what they made.

use std::collections::HashSet;
use std::ops::Bound;

use bytes::Bytes;

use super::alerts::Outside;
use super::note::{FlushNote, hex};
use crate::delivery::{self, History};
use crate::model::history::{self, Transition};
use crate::model::{Labels, Matcher, Timestamp};
use crate::store::{self, Store, Table};

/// Rows that are read at once.
const PAGE: usize = 512;

/// Rows that one question looks at; a rarer thing is found by asking on.
const ROWS_MAX: usize = 50_000;

/// Events of one destination that are looked through for the attempts.
const EVENTS_MAX: usize = 5_000;

/// What part of the history is wanted.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Not before.
    pub from: Timestamp,
    /// Not after.
    pub to: Timestamp,
    /// Only what concerns this alert.
    pub fingerprint: Option<u64>,
    /// Only alerts, and groups, with such labels.
    pub matchers: Vec<Matcher>,
    /// At most so many entries.
    pub limit: usize,
    /// Only what is older than the entry with this mark.
    pub before: Option<String>,
}

impl HistoryQuery {
    /// Everything that is kept, of all alerts.
    pub fn latest(limit: usize) -> HistoryQuery {
        HistoryQuery {
            from: Timestamp::MIN,
            to: Timestamp::MAX,
            fingerprint: None,
            matchers: Vec::new(),
            limit,
            before: None,
        }
    }
}

/// A part of the history.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HistoryPage {
    /// Newest first.
    pub entries: Vec<Entry>,
    /// What to give as `before` for the next part; `None` at the end.
    pub next: Option<String>,
}

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// An alert changed its state.
    Change {
        /// The row.
        row: Transition,
        /// The fingerprint under which it is told.
        fingerprint: u64,
    },
    /// A group was looked at, and it was decided whether somebody is told.
    Flush {
        /// What was decided.
        note: FlushNote,
        /// The attempts to deliver it, when there were any.
        attempts: Option<History>,
        /// Whether it is still to be sent. What is not, and has no end, was withdrawn:
        /// a newer one took its place, or it was not true any more.
        is_waiting: bool,
    },
}

/// Reads the wanted part.
pub(super) fn page(
    store: &Store,
    outside: &Outside,
    query: &HistoryQuery,
) -> Result<HistoryPage, store::Error> {
    let mut page = HistoryPage::default();
    let from = history::prefix(query.from);
    let mut end = match query.before.as_deref().map(unhexed) {
        Some(Some(key)) => key,
        _ => history::prefix(Timestamp::from_ms(query.to.as_ms().saturating_add(1))),
    };
    let mut seen = 0;
    loop {
        let range = (Bound::Included(&from[..]), Bound::Excluded(&end[..]));
        let rows = store.scan_back(Table::AlertHistory, range, PAGE)?;
        let is_last = rows.len() < PAGE;
        for (key, row) in rows {
            seen += 1;
            let entry = read(&key, &row, outside);
            end = key.to_vec();
            if let Some(entry) = entry.filter(|entry| is_wanted(entry, query)) {
                page.entries.push(entry);
            }
            if page.entries.len() >= query.limit || seen >= ROWS_MAX {
                page.next = Some(hexed(&end));
                add_attempts(store, &mut page.entries)?;
                return Ok(page);
            }
        }
        if is_last {
            add_attempts(store, &mut page.entries)?;
            return Ok(page);
        }
    }
}

/// State changes since a time, newest first, as far as is looked.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn transitions(
    store: &Store,
    since: Timestamp,
) -> Result<Vec<(Timestamp, Transition)>, store::Error> {
    let from = history::prefix(since);
    let range = (Bound::Included(&from[..]), Bound::Unbounded);
    let rows = store.scan_back(Table::AlertHistory, range, ROWS_MAX)?;
    let transition = |(key, row): (Bytes, Bytes)| match history::parse_key(&key)? {
        (at, None) => Some((at, serde_json::from_slice(&row).ok()?)),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(transition).collect())
}

/// A row; `None` for one that is damaged or of a kind that is not known.
fn read(key: &Bytes, row: &[u8], outside: &Outside) -> Option<Entry> {
    let (at, kind) = history::parse_key(key)?;
    let what = match kind {
        None => {
            let row: Transition = serde_json::from_slice(row).ok()?;
            let labels = Labels::from_pairs(&row.labels);
            let fingerprint = outside.labels_of(&labels).fingerprint();
            What::Change { row, fingerprint }
        }
        Some(history::FLUSH) => What::Flush {
            note: serde_json::from_slice(row).ok()?,
            attempts: None,
            is_waiting: false,
        },
        Some(_) => return None,
    };
    Some(Entry { at, what })
}

fn is_wanted(entry: &Entry, query: &HistoryQuery) -> bool {
    let fulfils = |value: &dyn Fn(&str) -> String| {
        let mut matchers = query.matchers.iter();
        matchers.all(|m| m.matches(&value(&m.name)))
    };
    match &entry.what {
        What::Change { row, fingerprint } => {
            let value = |name: &str| row.labels.get(name).cloned().unwrap_or_default();
            query.fingerprint.is_none_or(|f| f == *fingerprint) && fulfils(&value)
        }
        What::Flush { note, .. } => {
            let value = |name: &str| note.group_labels.get(name).cloned().unwrap_or_default();
            query.fingerprint.is_none_or(|f| note.names(&hex(f))) && fulfils(&value)
        }
    }
}

/// What is known of the messages of one integration.
struct Messages {
    integration: String,
    /// Those that are to be sent; `None` when they are too many to look at.
    waiting: Option<HashSet<String>>,
    events: Vec<History>,
}

impl Messages {
    /// What left the outbox after the first look has its end in the second.
    fn read(store: &Store, integration: &str, oldest: Timestamp) -> Result<Messages, store::Error> {
        Ok(Messages {
            integration: integration.to_owned(),
            waiting: delivery::waiting(store, integration)?,
            events: delivery::history_since(store, integration, oldest, EVENTS_MAX)?,
        })
    }
}

/// Finds what became of the notifications among the entries.
fn add_attempts(store: &Store, entries: &mut [Entry]) -> Result<(), store::Error> {
    let mut known: Vec<Messages> = Vec::new();
    let oldest = entries.last().map_or(Timestamp::MAX, |entry| entry.at);
    for entry in entries {
        let What::Flush {
            note,
            attempts,
            is_waiting,
        } = &mut entry.what
        else {
            continue;
        };
        let Some(event_id) = &note.event_id else {
            continue;
        };
        let is_theirs = |of: &Messages| of.integration == note.integration;
        if !known.iter().any(is_theirs) {
            known.push(Messages::read(store, &note.integration, oldest)?);
        }
        let of = known.iter().find(|of| is_theirs(of));
        let of = of.expect("it is there or was just added");
        let mut events = of.events.iter();
        *attempts = events.find(|e| e.event_id == *event_id).cloned();
        let has_ended = attempts.as_ref().is_some_and(|event| event.end.is_some());
        let waits = of.waiting.as_ref().is_none_or(|all| all.contains(event_id));
        *is_waiting = waits && !has_ended;
    }
    Ok(())
}

fn hexed(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key in a mark; `None` when it is none.
fn unhexed(mark: &str) -> Option<Vec<u8>> {
    let digits = mark.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let key: Option<Vec<u8>> = digits.map(byte).collect();
    key.filter(|key| history::parse_key(key).is_some())
}
