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
use crate::store::{self, Store, Table};

/// Rows that are read at once: bounded, because a body may be large.
const PAGE: usize = 16;

/// The unsent notifications of one destination.
pub(super) struct Pending {
    destination: String,
    /// The first key that was not read.
    unread: Vec<u8>,
    /// The newest row of a group, by what the keys of its `notify_state` rows start with.
    rows: HashMap<Vec<u8>, (Bytes, Told)>,
}

impl Pending {
    /// Reads nothing yet.
    pub(super) fn new(destination: &str) -> Pending {
        Pending {
            destination: destination.to_owned(),
            unread: outbox_key(destination, 0),
            rows: HashMap::new(),
        }
    }

    /// The row of the group, if it is still there: its key and what it says.
    ///
    /// # Errors
    /// When the outbox cannot be read.
    pub(super) fn get(
        &mut self,
        store: &Store,
        prefix: &[u8],
    ) -> Result<Option<(Bytes, Told)>, store::Error> {
        self.read_on(store)?;
        let Some((key, told)) = self.rows.get(prefix) else {
            return Ok(None);
        };
        if store.get(Table::Outbox, key)?.is_some() {
            return Ok(Some((key.clone(), told.clone())));
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
            if is_last {
                return Ok(());
            }
        }
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
