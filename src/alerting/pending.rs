//! Notifications that are in the outbox and not delivered yet.
//!
//! The writer numbers outbox rows, so their keys are found by reading on from
//! where the last look ended. Each row is read once.

use std::collections::HashMap;
use std::ops::Bound;

use bytes::Bytes;

use super::told::Told;
use crate::model::DeliveryKind;
use crate::store::state::{decode_delivery, outbox_key};
use crate::store::{self, StateOp, Store, Table};

/// Rows that are read at once: bounded, because a body may be large.
const PAGE: usize = 16;

/// Above so many rows, those that were sent are looked for.
const TIDY_ABOVE: usize = 1_024;

/// The unsent notifications of one destination.
pub(super) struct Pending {
    destination: String,
    /// The first key that was not read.
    unread: Vec<u8>,
    /// The newest row of a group, by what the keys of its `notify_state` rows start with.
    rows: HashMap<Vec<u8>, (Bytes, Told)>,
    /// How many may come together before those that were sent are looked for.
    tidy_above: usize,
}

/// A notification that waits.
pub(super) struct Unsent {
    pub(super) key: Bytes,
    pub(super) event_id: String,
    pub(super) told: Told,
    pub(super) body: Vec<u8>,
}

impl Unsent {
    /// The change that takes it back.
    pub(super) fn delete(self) -> StateOp {
        StateOp::Delete {
            table: Table::Outbox,
            key: self.key,
        }
    }
}

impl Pending {
    /// Reads nothing yet.
    pub(super) fn new(destination: &str) -> Pending {
        Pending {
            destination: destination.to_owned(),
            unread: outbox_key(destination, 0),
            rows: HashMap::new(),
            tidy_above: TIDY_ABOVE,
        }
    }

    /// The group's notification, if it is still there.
    ///
    /// # Errors
    /// When the outbox cannot be read.
    pub(super) fn get(
        &mut self,
        store: &Store,
        prefix: &[u8],
    ) -> Result<Option<Unsent>, store::Error> {
        self.read_on(store)?;
        let Some((key, told)) = self.rows.get(prefix) else {
            return Ok(None);
        };
        if let Some(row) = store.get(Table::Outbox, key)?
            && let Ok(delivery) = decode_delivery(&row)
        {
            return Ok(Some(Unsent {
                key: key.clone(),
                event_id: delivery.event_id,
                told: told.clone(),
                body: delivery.body,
            }));
        }
        self.rows.remove(prefix);
        Ok(None)
    }

    fn read_on(&mut self, store: &Store) -> Result<(), store::Error> {
        let end = outbox_key(&self.destination, u64::MAX);
        loop {
            let range = (
                Bound::Included(self.unread.as_slice()),
                Bound::Included(end.as_slice()),
            );
            let page = store.scan(Table::Outbox, range, PAGE)?;
            let is_last = page.len() < PAGE;
            for (key, row) in page {
                self.unread = key.to_vec();
                // The smallest key behind this one.
                self.unread.push(0);
                self.take(key, &row);
            }
            if self.rows.len() > self.tidy_above {
                self.tidy(store)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Forgets the rows that are gone: their groups may never ask again. Twice as
    /// many as are left may come before the next time, so a row is looked up about
    /// once more.
    fn tidy(&mut self, store: &Store) -> Result<(), store::Error> {
        let mut gone = Vec::new();
        for (prefix, (key, _)) in &self.rows {
            if store.get(Table::Outbox, key)?.is_none() {
                gone.push(prefix.clone());
            }
        }
        for prefix in gone {
            self.rows.remove(&prefix);
        }
        self.tidy_above = TIDY_ABOVE.max(2 * self.rows.len());
        Ok(())
    }

    fn take(&mut self, key: Bytes, row: &[u8]) {
        let Ok(delivery) = decode_delivery(row) else {
            return;
        };
        if delivery.kind != DeliveryKind::Notification {
            return;
        }
        let of_state = |row: &&crate::model::StateRow| row.table == Table::NotifyState.name();
        let Some(state) = delivery.on_success.iter().find(of_state) else {
            return;
        };
        let told = state.value.as_deref().and_then(Told::decode);
        // The flush's time is the end of the key.
        let prefix = state.key.len().checked_sub(8).map(|end| &state.key[..end]);
        if let (Some(told), Some(prefix)) = (told, prefix) {
            self.rows.insert(prefix.to_vec(), (key, told));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::told;
    use crate::model::clock::ManualClock;
    use crate::model::{Clock, Delivery, StateRow, TenantId, Timestamp};
    use crate::store::{Options, WriteBatch};
    use crate::telemetry::Metrics;

    const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    fn open(dir: &std::path::Path) -> Store {
        let config = crate::config::Config::default();
        let options = Options {
            dir: dir.to_owned(),
            store: config.store,
            limits: config.limits,
            tenants: Vec::new(),
        };
        let clock = Clock::Manual(ManualClock::new(NOW));
        Store::open(options, clock, Metrics::new()).unwrap()
    }

    fn notification(group: usize) -> StateOp {
        let told = Told {
            at: NOW,
            expires: NOW,
            ..Told::default()
        };
        let row = StateRow {
            table: Table::NotifyState.name().to_owned(),
            key: told::key("hook", &group.to_string(), NOW),
            value: Some(told.encode()),
        };
        StateOp::Enqueue(Box::new(Delivery {
            kind: DeliveryKind::Notification,
            event_id: format!("e{group}"),
            destination: "hook".to_owned(),
            tenant_id: TenantId::new("default").unwrap(),
            route: "r".to_owned(),
            created_at: NOW,
            attempts: 0,
            next_at: NOW,
            flush_interval_ms: None,
            content_type: "application/json".to_owned(),
            on_success: vec![row],
            body: b"{}".to_vec(),
        }))
    }

    fn outbox(store: &Store) -> Vec<Bytes> {
        let rows = store.scan(
            Table::Outbox,
            (Bound::Unbounded, Bound::Unbounded),
            usize::MAX,
        );
        rows.unwrap().into_iter().map(|(key, _)| key).collect()
    }

    #[tokio::test]
    async fn groups_that_never_ask_again_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut pending = Pending::new("hook");
        for round in 0..6 {
            let groups = round * TIDY_ABOVE..(round + 1) * TIDY_ABOVE;
            let ops = groups.map(notification).collect();
            store.write(WriteBatch::of_state(ops)).await.unwrap();
            pending.get(&store, b"none").unwrap();
            assert!(pending.rows.len() <= 3 * TIDY_ABOVE);
            // All but the newest are delivered.
            let mut sent = outbox(&store);
            sent.pop();
            let delete = |key| StateOp::Delete {
                table: Table::Outbox,
                key,
            };
            let ops = sent.into_iter().map(delete).collect();
            store.write(WriteBatch::of_state(ops)).await.unwrap();
        }
        // What waits is still known.
        let newest = told::prefix("hook", &(6 * TIDY_ABOVE - 1).to_string());
        assert!(pending.get(&store, &newest).unwrap().is_some());
        store.close().await;
    }
}
