//! What our session at the broker is subscribed to, kept in [`Table::Cursor`].
//!
//! Subscribing again makes a broker send all retained messages again, so a
//! resumed session subscribes only to filters that it does not have yet, and
//! drops those that the configuration does not have any more.
//!
//! Key: `mqtt:NAME`. Value: JSON.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::options::Options;
use crate::store::{self, StateOp, Store, Table};

/// The subscriptions of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Subscription {
    host: String,
    port: u16,
    client_id: String,
    qos: u8,
    filters: BTreeSet<String>,
}

/// What to tell the broker.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Changes {
    /// Filters to subscribe to.
    pub(super) add: Vec<String>,
    /// Filters to unsubscribe from.
    pub(super) remove: Vec<String>,
}

impl Subscription {
    /// What the configuration asks for.
    pub(super) fn wanted(options: &Options) -> Subscription {
        Subscription {
            host: options.host.clone(),
            port: options.port,
            client_id: options.client_id.clone(),
            qos: options.qos,
            filters: options.topics.iter().cloned().collect(),
        }
    }

    /// What was stored last; `None` when nothing was, or it cannot be read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn stored(
        source: &str,
        store: &Store,
    ) -> Result<Option<Subscription>, store::Error> {
        let row = store.get(Table::Cursor, source.as_bytes())?;
        Ok(row.and_then(|row| serde_json::from_slice(&row).ok()))
    }

    /// The row to store when the broker has agreed.
    pub(super) fn row(&self, source: &str) -> StateOp {
        StateOp::Put {
            table: Table::Cursor,
            key: Bytes::copy_from_slice(source.as_bytes()),
            value: serde_json::to_vec(self).expect("it is plain data").into(),
        }
    }

    /// How to come from `stored` to this, when the broker still has the session or not.
    pub(super) fn changes(&self, stored: Option<&Subscription>, session_present: bool) -> Changes {
        let same_session = |s: &&Subscription| {
            session_present
                && (&s.host, s.port, &s.client_id) == (&self.host, self.port, &self.client_id)
        };
        let Some(stored) = stored.filter(same_session) else {
            return Changes {
                add: self.filters.iter().cloned().collect(),
                remove: Vec::new(),
            };
        };
        let has = |filter: &&String| stored.qos == self.qos && stored.filters.contains(*filter);
        Changes {
            add: self.filters.iter().filter(|f| !has(f)).cloned().collect(),
            remove: stored.filters.difference(&self.filters).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(qos: u8, filters: &[&str]) -> Subscription {
        Subscription {
            host: "h".into(),
            port: 1883,
            client_id: "c".into(),
            qos,
            filters: filters.iter().map(|f| (*f).to_owned()).collect(),
        }
    }

    fn check(stored: Option<&Subscription>, session_present: bool, add: &[&str], remove: &[&str]) {
        let changes = subscription(1, &["a", "b"]).changes(stored, session_present);
        assert_eq!(
            (&changes.add[..], &changes.remove[..]),
            (
                &add.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>()[..],
                &remove.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>()[..],
            )
        );
    }

    #[test]
    fn only_what_the_session_does_not_have_is_subscribed() {
        check(None, true, &["a", "b"], &[]);
        check(Some(&subscription(1, &["a", "b"])), true, &[], &[]);
        check(Some(&subscription(1, &["a", "c"])), true, &["b"], &["c"]);
        check(Some(&subscription(0, &["a", "b"])), true, &["a", "b"], &[]);
        check(Some(&subscription(1, &["a", "b"])), false, &["a", "b"], &[]);
        let mut elsewhere = subscription(1, &["a", "b"]);
        elsewhere.client_id = "d".into();
        check(Some(&elsewhere), true, &["a", "b"], &[]);
    }
}
