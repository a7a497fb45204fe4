//! Alerts that others send us: committed before they are acknowledged.
//!
//! Keys: tenant (the operator's name is empty), `0x00`, fingerprint (u64 BE). How a
//! repeated alert and a stored one become one is Alertmanager's way, so that any
//! number of Prometheis may send the same alert.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Inner;
use super::alerts::{Alert, ROWS_MAX};
use crate::model::{Labels, Timestamp};
use crate::store::{self, StateOp, Store, Table, WriteBatch};

/// How long an alert that ended is kept, for groups that still have to tell of it.
const KEEP_MS: i64 = 15 * 60_000;

/// An alert as it was sent.
#[derive(Clone, PartialEq, Debug)]
pub struct PostedAlert {
    /// The identity.
    pub labels: Labels,
    /// What it says.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Where it comes from.
    pub generator_url: String,
    /// Since when it fires, if its sender says.
    pub starts_at: Option<Timestamp>,
    /// When it ends, if its sender says.
    pub ends_at: Option<Timestamp>,
}

impl PostedAlert {
    /// Start and end, made up where its sender left them out.
    pub(super) fn times(&self, now: Timestamp, resolve_timeout_ms: i64) -> (Timestamp, Timestamp) {
        let starts_at = self.starts_at.or(self.ends_at).unwrap_or(now);
        let ends_at = self.ends_at.unwrap_or(now.plus_ms(resolve_timeout_ms));
        (starts_at, ends_at)
    }

    fn completed(self, now: Timestamp, resolve_timeout_ms: i64) -> Alert {
        let (starts_at, ends_at) = self.times(now, resolve_timeout_ms);
        Alert {
            labels: self.labels,
            annotations: self.annotations,
            generator_url: self.generator_url,
            starts_at,
            ends_at: Some(ends_at),
            updated_at: now,
            timeout: self.ends_at.is_none(),
            is_own: false,
        }
    }
}

/// The changes that take alerts in.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn changes(
    store: &Store,
    alerts: Vec<PostedAlert>,
    now: Timestamp,
    resolve_timeout_ms: i64,
) -> Result<Vec<StateOp>, store::Error> {
    // One that is named twice goes on with itself.
    let mut taken: HashMap<Vec<u8>, Alert> = HashMap::with_capacity(alerts.len());
    for alert in alerts {
        let new = alert.completed(now, resolve_timeout_ms);
        let key = key(&new.labels);
        let old = match taken.remove(&key) {
            Some(old) => Some(old),
            None => {
                let row = store.get(Table::PostedAlert, &key)?;
                row.and_then(|row| Alert::decode(&row))
            }
        };
        let alert = match old {
            Some(old) if overlap(&old, &new) => merged(old, new),
            _ => new,
        };
        taken.insert(key, alert);
    }
    let put = |(key, alert): (Vec<u8>, Alert)| StateOp::Put {
        table: Table::PostedAlert,
        key: Bytes::from(key),
        value: alert.encode().into(),
    };
    Ok(taken.into_iter().map(put).collect())
}

impl Inner {
    /// A step of the clock is no time that passed: alerts that came before it fire on for
    /// as long as they would have without it.
    ///
    /// # Errors
    /// When the store cannot be read or written; then the next call tries again.
    pub(super) async fn follow_clock(&self) -> Result<(), store::Error> {
        let stepped = self.clock.stepped_ms();
        let by = stepped - self.stepped_ms.load(Ordering::Relaxed);
        if by == 0 {
            return Ok(());
        }
        let _one_at_a_time = self.changing.lock().await;
        let now = self.clock.now();
        let ops = self.blocking(move |store| shifted(store, by, now)).await?;
        if !ops.is_empty() {
            let batch = WriteBatch::of_state(ops).even_unsaved();
            self.store.write(batch).await?;
        }
        self.stepped_ms.store(stepped, Ordering::Relaxed);
        Ok(())
    }
}

/// The changes that move the ends of alerts which fired before a step of the clock.
fn shifted(store: &Store, by_ms: i64, now: Timestamp) -> Result<Vec<StateOp>, store::Error> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut ops = Vec::new();
    for (key, row) in store.scan(Table::PostedAlert, all, ROWS_MAX)? {
        let alert = Alert::decode(&row);
        if let Some(alert) = alert.and_then(|alert| moved(alert, by_ms, now)) {
            ops.push(StateOp::Put {
                table: Table::PostedAlert,
                key,
                value: alert.encode().into(),
            });
        }
    }
    Ok(ops)
}

/// An alert as it is after a step of the clock, if that concerns it. What came after the
/// step has its time by the new clock.
fn moved(alert: Alert, by_ms: i64, now: Timestamp) -> Option<Alert> {
    let before = now.minus_ms(by_ms);
    let came_before = match by_ms > 0 {
        true => alert.updated_at <= before,
        false => alert.updated_at > now,
    };
    let ends_at = alert.ends_at.filter(|end| *end > before && came_before)?;
    Some(Alert {
        ends_at: Some(ends_at.plus_ms(by_ms)),
        updated_at: alert.updated_at.plus_ms(by_ms),
        ..alert
    })
}

fn key(labels: &Labels) -> Vec<u8> {
    let mut key = vec![0];
    key.extend_from_slice(&labels.fingerprint().to_be_bytes());
    key
}

/// Whether the new one goes on with the old one, rather than being another time.
fn overlap(old: &Alert, new: &Alert) -> bool {
    let end = |alert: &Alert| alert.ends_at.unwrap_or(Timestamp::MAX);
    (end(new) > old.starts_at && end(new) < end(old))
        || (new.starts_at > old.starts_at && new.starts_at < end(old))
}

/// As Alertmanager: the earlier start; the later end, but a made-up one never moves
/// an end that somebody named.
fn merged(old: Alert, new: Alert) -> Alert {
    let starts_at = old.starts_at.min(new.starts_at);
    let now = new.updated_at;
    let ends_at = if new.fires_at(now) {
        match (old.ends_at, new.ends_at) {
            (Some(a), Some(b)) if a > b && !old.timeout => Some(a),
            _ => new.ends_at,
        }
    } else if old.fires_at(now) {
        new.ends_at
    } else {
        old.ends_at.max(new.ends_at)
    };
    Alert {
        starts_at,
        ends_at,
        ..new
    }
}

/// The changes that remove alerts which ended a while ago.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn forgotten(store: &Store, now: Timestamp) -> Result<Vec<StateOp>, store::Error> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let rows = store.scan(Table::PostedAlert, all, ROWS_MAX)?;
    let is_old = |row: &[u8]| {
        let alert = Alert::decode(row);
        alert.is_none_or(|a| a.ends_at.is_some_and(|end| now.ms_since(end) > KEEP_MS))
    };
    let old = rows.into_iter().filter(|(_, row)| is_old(row));
    let delete = |(key, _)| StateOp::Delete {
        table: Table::PostedAlert,
        key,
    };
    Ok(old.map(delete).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    fn alert(start: i64, end: i64, timeout: bool) -> Alert {
        Alert {
            labels: Labels::from_pairs([("a", "1")]),
            annotations: BTreeMap::new(),
            generator_url: String::new(),
            starts_at: NOW.plus_ms(start),
            ends_at: Some(NOW.plus_ms(end)),
            updated_at: NOW,
            timeout,
            is_own: false,
        }
    }

    fn check(old: Alert, new: Alert, want: Option<(i64, i64)>) {
        let got = overlap(&old, &new).then(|| {
            let merged = merged(old, new);
            let end = merged.ends_at.unwrap();
            (merged.starts_at.ms_since(NOW), end.ms_since(NOW))
        });
        assert_eq!(got, want);
    }

    #[test]
    fn a_repeated_alert_keeps_its_first_start_and_its_last_end() {
        check(
            alert(-60, 240, false),
            alert(-30, 300, false),
            Some((-60, 300)),
        );
        check(
            alert(-60, 240, false),
            alert(-60, 200, false),
            Some((-60, 240)),
        );
        check(
            alert(-60, 240, true),
            alert(-60, 200, false),
            Some((-60, 200)),
        );
        // It ended.
        check(
            alert(-60, 240, false),
            alert(-60, -1, false),
            Some((-60, -1)),
        );
        // Another time: nothing of the old one stays.
        check(alert(-60, -30, false), alert(-10, 300, false), None);
    }

    #[test]
    fn a_step_of_the_clock_moves_the_ends_of_what_fired_before_it() {
        const HOUR: i64 = 3_600_000;
        let posted = |at: i64, end: i64| Alert {
            updated_at: NOW.plus_ms(at),
            ..alert(at, end, false)
        };
        let end_after = |by_ms, at, end| {
            let moved = moved(posted(at, end), by_ms, NOW)?;
            Some(moved.ends_at.unwrap().ms_since(NOW))
        };
        // It came a minute before the step of an hour, for four minutes.
        let minute = 60_000;
        let before = -HOUR - minute;
        assert_eq!(
            end_after(HOUR, before, 4 * minute + before),
            Some(3 * minute)
        );
        // It had ended; it came after the step.
        assert_eq!(end_after(HOUR, before, -HOUR - 1), None);
        assert_eq!(end_after(HOUR, -5, 4 * minute), None);
        // The clock was set back.
        let before = HOUR - minute;
        assert_eq!(
            end_after(-HOUR, before, 4 * minute + before),
            Some(3 * minute)
        );
        assert_eq!(end_after(-HOUR, -5, 4 * minute), None);
    }

    #[test]
    fn times_that_were_left_out_are_made_up() {
        let posted = |starts_at, ends_at| PostedAlert {
            labels: Labels::empty(),
            annotations: BTreeMap::new(),
            generator_url: String::new(),
            starts_at,
            ends_at,
        };
        let made = posted(None, None).completed(NOW, 300_000);
        assert_eq!((made.starts_at, made.timeout), (NOW, true));
        assert_eq!(made.ends_at, Some(NOW.plus_ms(300_000)));
        let ended = posted(None, Some(NOW.plus_ms(-5))).completed(NOW, 300_000);
        assert_eq!(ended.starts_at, NOW.plus_ms(-5));
        assert!(!ended.fires_at(NOW) && !ended.timeout);
    }
}
