//! What the writer does for rules and notifications while the disk refuses.
//!
//! For the first seconds everybody waits: most refusals end by themselves, or with the
//! reserve. Then the volatile batches of the refused transaction are answered, and those
//! that come are taken into [`super::super::unsaved`]; all other jobs are set aside, in
//! their order, until the transaction is on disk.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::batch::{CommitSeq, Committed, ItemOutcome, Refusal, RefusedRow, WriteBatch};
use super::super::transaction::{Change, Changes};
use super::super::{StateOp, Table, rows};
use super::{Job, Write, Writer};

/// How long a volatile batch waits for the disk.
const PATIENCE: Duration = if cfg!(test) {
    Duration::from_millis(50)
} else {
    Duration::from_secs(5)
};

impl Writer {
    /// After some patience: answers what may be answered, and takes what comes.
    pub(super) fn go_on_in_memory(&mut self, refused_since: Instant) {
        if refused_since.elapsed() < PATIENCE {
            return;
        }
        self.show_unsaved();
        while let Ok(job) = self.jobs.try_recv() {
            match job {
                Job::Write(write) if write.batch.volatile && self.shared.unsaved.has_room() => {
                    self.take_unsaved(*write);
                }
                job => self.aside.push_back(job),
            }
        }
        let rows = self.shared.unsaved.rows();
        if rows > 0 && !std::mem::replace(&mut self.is_in_memory, true) {
            tracing::error!(rows, "alerts and notifications go on in memory only");
        }
    }

    /// Shows the volatile changes of the refused transaction, and answers for them.
    fn show_unsaved(&mut self) {
        let mut touched = [false; Table::ALL.len()];
        for (table, key, change) in std::mem::take(&mut self.volatile) {
            if let Some(value) = self.value_of(table, &key, change) {
                self.shared.unsaved.show(table, key, value);
                touched[table as usize] = true;
            }
        }
        self.tell_unsaved(touched);
        for waiting in self.waiting.extract_if(.., |waiting| waiting.is_volatile) {
            // A caller that went away wants no answer.
            drop(waiting.reply.send(waiting.committed));
        }
    }

    /// Takes a batch for the transaction after the refused one, without its samples.
    fn take_unsaved(&mut self, write: Write) {
        let Write {
            batch, reply, load, ..
        } = write;
        let committed = without_samples(&batch, self.seq + 1);
        let mut touched = [false; Table::ALL.len()];
        for op in batch.items.into_iter().flat_map(|item| item.always) {
            let (table, key, change) = self.change_of(op);
            let Some(value) = self.value_of(table, &key, change) else {
                continue;
            };
            if self.shared.unsaved.push(table, key, value) {
                touched[table as usize] = true;
            } else {
                self.shared.metrics.store.unsaved_dropped.inc();
            }
        }
        load.leave(&self.shared.metrics.store);
        self.tell_unsaved(touched);
        drop(reply.send(committed));
    }

    /// The transaction that was refused is on disk: what was taken meanwhile is the
    /// next one.
    pub(super) fn take_up_unsaved(&mut self) {
        self.changes = Changes::default();
        self.volatile.clear();
        for (table, (key, value)) in self.shared.unsaved.committed() {
            let change = value.map_or(Change::Delete, Change::Put);
            self.changes.push(table, key, change);
        }
        if !self.changes.is_empty() {
            self.due_within(Duration::ZERO);
        } else if std::mem::take(&mut self.is_in_memory) {
            tracing::warn!("alerts and notifications are on disk again");
        }
        self.count_unsaved();
    }

    /// The row after a change; `None` when there is nothing to change.
    fn value_of(&self, table: Table, key: &Bytes, change: Change) -> Option<Option<Bytes>> {
        match change {
            Change::Put(value) => Some(Some(value)),
            Change::Delete => Some(None),
            Change::Replace(value) => {
                let old = rows::get(&self.shared, table, key);
                old.is_ok_and(|old| old.is_some()).then_some(Some(value))
            }
        }
    }

    fn tell_unsaved(&self, touched: [bool; Table::ALL.len()]) {
        let touched = Table::ALL.into_iter().zip(touched);
        for (table, _) in touched.filter(|(_, is_touched)| *is_touched) {
            self.shared.changes(table).send_replace(self.seq);
        }
        self.count_unsaved();
    }

    fn count_unsaved(&self) {
        let rows = i64::try_from(self.shared.unsaved.rows()).unwrap_or(i64::MAX);
        self.shared.metrics.store.unsaved_rows.set(rows);
    }

    /// The change that an operation is; numbers new rows.
    pub(super) fn change_of(&mut self, op: StateOp) -> (Table, Bytes, Change) {
        use super::super::state;
        match op {
            StateOp::Put { table, key, value } => (table, key, Change::Put(value)),
            StateOp::Replace { table, key, value } => (table, key, Change::Replace(value)),
            StateOp::Delete { table, key } => (table, key, Change::Delete),
            StateOp::Enqueue(delivery) => {
                let key = state::outbox_key(&delivery.destination, self.next_sequence());
                let row = state::encode_delivery(&delivery);
                (Table::Outbox, key.into(), Change::Put(row.into()))
            }
            StateOp::Bury(letter) => {
                let key = self.next_sequence().to_be_bytes().to_vec();
                let row = state::encode_dead_letter(&letter);
                (Table::Dead, key.into(), Change::Put(row.into()))
            }
        }
    }
}

/// The answer to a batch whose samples are left out.
fn without_samples(batch: &WriteBatch, seq: u64) -> Committed {
    let why = Refusal::Overload;
    let outcome = |rows: u32| {
        let mut outcome = ItemOutcome {
            refused: rows,
            refusal: (rows > 0).then_some(why),
            ..ItemOutcome::default()
        };
        outcome.refusals[why as usize] = rows;
        outcome
    };
    let rows = batch.rows.iter().enumerate();
    Committed {
        seq: CommitSeq(seq),
        outcomes: batch.items.iter().map(|item| outcome(item.rows)).collect(),
        refused: rows
            .map(|(row, one)| RefusedRow { row, t: one.t, why })
            .collect(),
    }
}
