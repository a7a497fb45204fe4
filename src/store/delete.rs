//! Deleting series and taking what was deleted out of the files.

use std::ops::Bound;

use roaring::RoaringBitmap;
use tokio::sync::oneshot;

use super::deleted::{TOMBSTONES_MAX, Tombstone};
use super::disk::io_error;
use super::native;
use super::sealer::Command;
use super::{Error, StateOp, Store, Table, WriteBatch, rows};
use crate::model::{Matcher, Timestamp};

impl Store {
    /// Deletes the samples in `start..=end` of the series that fulfil one of the
    /// selectors, as far as they are stored when this is called. They are seen no
    /// more when it returns, and leave the disk when their day is rewritten. Seals
    /// what is in memory first. Gives the number of series.
    ///
    /// # Errors
    /// When something cannot be sealed, there are too many deletions that were not
    /// cleaned, or the store stops.
    pub async fn delete_series(
        &self,
        selectors: &[Vec<Matcher>],
        start: Timestamp,
        end: Timestamp,
    ) -> Result<u64, Error> {
        let _turn = self.shared.deleting.lock().await;
        let series = self.matching(selectors);
        if series.is_empty() {
            return Ok(0);
        }
        let mut all = self.shared.days.tombstones().all().to_vec();
        if all.len() >= TOMBSTONES_MAX {
            let text = format!("{TOMBSTONES_MAX} deletions wait for clean_tombstones");
            return Err(io_error("delete in", &self.shared.dir, text));
        }
        self.seal_now().await?;
        let tombstone = Tombstone {
            id: all.last().map_or(0, |last| last.id) + 1,
            before: self.shared.days.last_seq(),
            start: start.as_ms(),
            end: end.as_ms(),
            series,
        };
        let row = StateOp::Put {
            table: Table::Deleted,
            key: tombstone.key().to_vec().into(),
            value: tombstone.encode().into(),
        };
        self.write(WriteBatch::of_state(vec![row])).await?;
        let count = tombstone.series.len();
        all.push(tombstone);
        self.shared.days.tombstones().replace(all);
        // Answers that were kept may show what is gone.
        self.shared.changed.note_all();
        Ok(count)
    }

    fn matching(&self, selectors: &[Vec<Matcher>]) -> RoaringBitmap {
        let index = self.shared.index();
        let sets = selectors.iter().map(|matchers| {
            index.matching(matchers) | index.matching(&native::part_matchers(matchers))
        });
        sets.fold(RoaringBitmap::new(), |all, set| all | set)
    }

    /// Rewrites every day that has deleted samples without them. Series that have
    /// nothing left leave the index.
    ///
    /// # Errors
    /// When a file cannot be rewritten, or a backup reads the files.
    pub async fn clean_tombstones(&self) -> Result<(), Error> {
        let _turn = self.shared.deleting.lock().await;
        let all = self.shared.days.tombstones().all();
        if all.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.commands
            .try_send(Command::Clean(reply))
            .map_err(|_| self.refusal())?;
        answer.await.map_err(|_| Error::Closed)??;
        let remove = |tombstone: &Tombstone| StateOp::Delete {
            table: Table::Deleted,
            key: tombstone.key().to_vec().into(),
        };
        let ops = all.iter().map(remove).collect();
        self.write(WriteBatch::of_state(ops)).await?;
        self.shared.days.tombstones().replace(Vec::new());
        Ok(())
    }

    /// How many deletions wait to be cleaned.
    pub fn tombstones(&self) -> usize {
        self.shared.days.tombstones().all().len()
    }
}

/// Reads the tombstones at start. One that cannot be read stops the start: without
/// it deleted samples would come back.
pub(super) fn load(store: &super::shared::Shared) -> Result<(), Error> {
    let range = (Bound::Unbounded, Bound::Unbounded);
    let before = store.metrics.store.checksum_failures.get();
    let rows = rows::scan(store, Table::Deleted, range, usize::MAX, false)?;
    let all: Option<Vec<_>> = rows
        .iter()
        .map(|(key, row)| Tombstone::decode(key, row))
        .collect();
    let whole = store.metrics.store.checksum_failures.get() == before;
    match all.filter(|_| whole) {
        Some(all) => {
            store.days.tombstones().replace(all);
            Ok(())
        }
        None => Err(io_error(
            "read",
            store.hot.path(),
            "a deletion is damaged or was written by a newer pulse",
        )),
    }
}

impl super::days::Days {
    /// The last transaction of which something is sealed.
    pub(super) fn last_seq(&self) -> u64 {
        let days = self.all_kinds();
        let ends = days.iter().flat_map(|day| {
            let generations = day.generations();
            let ends: Vec<_> = generations.iter().map(|g| g.commit_seqs.end().0).collect();
            ends
        });
        ends.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
