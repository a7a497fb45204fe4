//! The alerts at one moment: what all who speak of them say together.
//!
//! Several may say the same alert: rules of the same name and labels in two files, and
//! whoever posts it. It fires while one of them says so, since the first of those whose
//! times join up, and it ends when the last of them ends. Alertmanager lets the word of
//! the one that spoke last count, so there an alert flaps when one of two ends.

use std::collections::HashMap;
use std::ops::Bound;

use super::alerts::{Alert, Outside, ROWS_MAX};
use crate::model::alert::{AlertRow, RuleGroupRow, rule_group_key};
use crate::model::{Labels, Timestamp};
use crate::store::{self, Store, Table};

/// Posted alerts that are read at once.
const PAGE: usize = 1_024;

/// The alerts at one moment.
#[derive(Default)]
pub(super) struct Current {
    pub(super) firing: HashMap<Labels, Firing>,
    /// What those said of it that say now that it ended.
    ended: HashMap<Labels, Vec<Alert>>,
}

/// An alert that fires.
pub(super) struct Firing {
    /// As all together say it.
    pub(super) alert: Alert,
    /// The first start of those who say now that it fires: the alert's own start is
    /// earlier when it rests on one who ended meanwhile.
    pub(super) since: Timestamp,
}

impl Current {
    /// Reads all alerts.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn read(
        store: &Store,
        outside: &Outside,
        now: Timestamp,
    ) -> Result<Current, store::Error> {
        let mut current = Current::own_rows(store, outside, now)?;
        // After our own, whose word counts more.
        current.take_posted(store, now)?;
        current.join();
        Ok(current)
    }

    /// Alerts that were sent to us, page by page: they never change their keys, so none is
    /// missed between two pages.
    fn take_posted(&mut self, store: &Store, now: Timestamp) -> Result<(), store::Error> {
        let mut from = Bound::Unbounded;
        loop {
            let range = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
            let page = store.scan(Table::PostedAlert, range, PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            from = Bound::Excluded(last.to_vec());
            for (_, row) in page {
                match Alert::decode(&row) {
                    Some(alert) => self.take(alert, now),
                    None => tracing::error!("a posted alert cannot be read"),
                }
            }
        }
    }

    /// What our own rules say: what fires, and what ended lately.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn own(
        store: &Store,
        outside: &Outside,
        now: Timestamp,
    ) -> Result<Vec<Alert>, store::Error> {
        let mut current = Current::own_rows(store, outside, now)?;
        current.join();
        let Current { firing, mut ended } = current;
        ended.retain(|labels, _| !firing.contains_key(labels));
        let ended = ended.into_values().filter_map(|said| {
            let last = said.iter().max_by_key(|alert| alert.ends_at)?;
            let starts_at = joined(last.starts_at, &said);
            let last = last.clone();
            Some(Alert { starts_at, ..last })
        });
        let firing = firing.into_values().map(|firing| firing.alert);
        Ok(firing.chain(ended).collect())
    }

    fn own_rows(store: &Store, outside: &Outside, now: Timestamp) -> Result<Current, store::Error> {
        let mut current = Current::default();
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut evaluated = HashMap::new();
        for (key, row) in store.scan(Table::RuleGroup, all, ROWS_MAX)? {
            let last_eval = RuleGroupRow::decode(&row).map(|row| row.last_eval);
            evaluated.extend(last_eval.map(|at| (key, at)));
        }
        for (_, row) in store.scan(Table::Alert, all, ROWS_MAX)? {
            let Ok(mut row) = AlertRow::decode(&row) else {
                tracing::error!("an alert row cannot be read");
                continue;
            };
            // Every evaluation says anew that it fires; the row tells the first.
            let group = rule_group_key(&row.file, &row.group);
            let last_eval = evaluated.get(group.as_slice()).copied();
            row.written_at = row.written_at.max(last_eval.unwrap_or(row.written_at));
            if let Some(alert) = outside.alert(row) {
                current.take(alert, now);
            }
        }
        Ok(current)
    }

    /// When a member of a group that does not fire any more ended.
    pub(super) fn end_of(&self, member: &Alert, now: Timestamp) -> Timestamp {
        let ended = self.ended.get(&member.labels).into_iter().flatten();
        // One of our rules that ended while the alert went on is not the one that counts.
        let counts = |alert: &&Alert| !alert.is_own || alert.ends_at >= Some(member.updated_at);
        let last = ended.filter(counts).filter_map(|alert| alert.ends_at).max();
        // It resolved and was forgotten, or it is pending anew.
        let at = last.unwrap_or(now);
        // Never in the future, whatever start its sender made up.
        at.max(member.starts_at).min(now)
    }

    fn take(&mut self, alert: Alert, now: Timestamp) {
        if !alert.fires_at(now) {
            self.ended
                .entry(alert.labels.clone())
                .or_default()
                .push(alert);
            return;
        }
        let since = alert.starts_at;
        match self.firing.get_mut(&alert.labels) {
            Some(known) => known.hear(alert),
            None => {
                self.firing
                    .insert(alert.labels.clone(), Firing { alert, since });
            }
        }
    }

    /// Lets those who ended meanwhile count for the start.
    fn join(&mut self) {
        for (labels, said) in &self.ended {
            if let Some(firing) = self.firing.get_mut(labels) {
                firing.alert.starts_at = joined(firing.alert.starts_at, said);
            }
        }
    }
}

impl Firing {
    /// Another one says it too. Our own texts stay, of two rules those of the one that
    /// has fired longer.
    fn hear(&mut self, other: Alert) {
        let known = &mut self.alert;
        self.since = self.since.min(other.starts_at);
        let updated_at = known.updated_at.max(other.updated_at);
        let is_longer = other.starts_at < known.starts_at;
        if is_longer && known.is_own == other.is_own {
            *known = other;
        }
        known.starts_at = self.since;
        known.updated_at = updated_at;
    }
}

/// The first start of times that join up with one another and with `start`.
fn joined(mut start: Timestamp, said: &[Alert]) -> Timestamp {
    loop {
        let touching = said.iter().filter(|alert| alert.ends_at >= Some(start));
        match touching.map(|alert| alert.starts_at).min() {
            Some(earlier) if earlier < start => start = earlier,
            _ => return start,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000);

    fn alert(start: i64, end: Option<i64>) -> Alert {
        Alert {
            labels: Labels::from_pairs([("alertname", "A")]),
            annotations: BTreeMap::from([("start".to_owned(), start.to_string())]),
            generator_url: String::new(),
            starts_at: Timestamp::from_ms(start),
            ends_at: end.map(Timestamp::from_ms),
            updated_at: Timestamp::from_ms(end.unwrap_or(900_000)),
            timeout: false,
            is_own: true,
        }
    }

    /// Start and end of each who says it; start, and whose text.
    fn check(said: &[(i64, Option<i64>)], want: Option<(i64, &str)>) {
        // In whatever order they are read.
        for turned in [false, true] {
            let mut said = said.to_vec();
            if turned {
                said.reverse();
            }
            let mut current = Current::default();
            for (start, end) in &said {
                current.take(alert(*start, *end), NOW);
            }
            current.join();
            let got = current.firing.into_values().next().map(|f| f.alert);
            let got = got.as_ref();
            let got = got.map(|a| (a.starts_at.as_ms(), a.annotations["start"].as_str()));
            assert_eq!(got, want, "{said:?}");
        }
    }

    #[test]
    fn an_alert_fires_since_the_first_of_those_whose_times_join_up() {
        check(&[(5, None)], Some((5, "5")));
        check(&[(5, None), (9, None)], Some((5, "5")));
        check(&[(5, Some(10)), (9, None)], Some((5, "9")));
        check(&[(5, Some(9)), (9, None)], Some((5, "9")));
        check(&[(5, Some(8)), (9, None)], Some((9, "9")));
        check(&[(1, Some(5)), (5, Some(10)), (9, None)], Some((1, "9")));
        check(&[(1, Some(5)), (5, Some(10))], None);
    }

    #[test]
    fn an_alert_ends_when_the_last_who_said_it_ends() {
        let ended = |said: &[(i64, i64)], updated_at: i64| {
            let mut current = Current::default();
            for (start, end) in said {
                current.take(alert(*start, Some(*end)), NOW);
            }
            let member = Alert {
                updated_at: Timestamp::from_ms(updated_at),
                ..alert(5, None)
            };
            current.end_of(&member, NOW).as_ms()
        };
        assert_eq!(ended(&[(5, 70), (9, 80)], 60), 80);
        assert_eq!(ended(&[(9, 80), (5, 70)], 60), 80);
        // Of another one, which ended while this went on: nobody knows the end.
        assert_eq!(ended(&[(1, 20)], 60), NOW.as_ms());
    }
}
