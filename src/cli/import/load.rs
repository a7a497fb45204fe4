//! The second pass: the samples into the store, a day at a time.
//!
//! A day is walked once, or, when it has more samples than may be in memory, once
//! for as many hours as fit; then it is sealed. So a window becomes one generation,
//! whatever order the text has, and only an hour larger than that becomes several.

use std::time::Duration;

use anyhow::{Context as _, bail};

use super::read::Taken;
use super::spill::{HOURS, Record, Spill};
use super::{Progress, time};
use crate::store::{
    Committed, Item, Pending, Refusal, Row, SeriesId, SeriesKey, Store, Table, WriteBatch,
};

/// Samples in memory that are not sealed.
const UNSEALED_MAX: u64 = 4_000_000;

/// Samples that are handed over together.
const BATCH: usize = 50_000;

/// Days that are rewritten together.
const DAYS_TOGETHER: usize = 16;

/// How long the store may take nothing.
const ROOM_WAIT: Duration = Duration::from_secs(60);

/// What the store says when it refuses samples, in the order of [`Refusal::ALL`].
pub(super) const REFUSALS: [&str; Refusal::ALL.len()] = [
    "another value is stored at the same time, the first one stays",
    "older than the retention",
    "in the future",
    "more series than [limits] series_max or series_per_tenant_max",
    "new series while memory or disk are nearly full",
    "more new series than [limits] new_series_per_hour or new_series_per_tenant_per_hour",
    "more or longer labels than [limits] allows",
    "the store takes no samples",
    "series that left the store meanwhile",
];

/// What became of the samples.
#[derive(Default)]
pub(super) struct Outcome {
    /// New ones.
    pub(super) added: u64,
    /// Those that were there with the same value.
    pub(super) duplicates: u64,
    /// Those that were refused, in the order of [`Refusal::ALL`].
    pub(super) refusals: [u64; Refusal::ALL.len()],
}

impl Outcome {
    /// All that were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refusals.iter().sum()
    }
}

/// Stores all that was set aside; it is sealed when this ends.
///
/// # Errors
/// When the store fails or takes nothing for a minute; says from which day on
/// nothing is stored for sure.
pub(super) async fn load(store: &Store, taken: &Taken, spill: Spill) -> anyhow::Result<Outcome> {
    let mut loader = Loader {
        store,
        taken,
        ids: vec![None; taken.series.len()],
        outcome: Outcome::default(),
        unsealed: 0,
        waiting: None,
    };
    // What retention removes leaves before series are looked up.
    store.seal_now().await?;
    let mut progress = Progress::new();
    let days = spill.days();
    for (at, (day, hours)) in days.iter().enumerate() {
        let begun = time(day * 86_400_000);
        let until =
            || format!("what is older than {begun} is stored, and perhaps some that is not");
        loader.day(&spill, *day, hours).await.with_context(until)?;
        if (at + 1) % DAYS_TOGETHER == 0 {
            store.compact_now().await.with_context(until)?;
        }
        progress.tell(|| format!("stored up to {begun}, {} of {} days", at + 1, days.len()));
    }
    loader.describe().await?;
    store.compact_now().await?;
    Ok(loader.outcome)
}

/// Samples on their way, and the writer's answer to come.
struct Sent {
    records: Vec<Record>,
    pending: Pending,
}

struct Loader<'a> {
    store: &'a Store,
    taken: &'a Taken,
    /// By place in the list of series.
    ids: Vec<Option<SeriesId>>,
    outcome: Outcome,
    unsealed: u64,
    /// The batch before.
    waiting: Option<Sent>,
}

impl Loader<'_> {
    async fn day(&mut self, spill: &Spill, day: i64, hours: &[u64; HOURS]) -> anyhow::Result<()> {
        for part in parts(hours) {
            let mut batch = Vec::with_capacity(BATCH);
            for record in spill.walk(day) {
                let record = record.context("cannot read what was set aside")?;
                let hour = record.t_ms.rem_euclid(86_400_000) / 3_600_000;
                if !part.contains(&usize::try_from(hour).expect("below 24")) {
                    continue;
                }
                batch.push(record);
                if batch.len() == BATCH {
                    let next = Vec::with_capacity(BATCH);
                    self.send(std::mem::replace(&mut batch, next)).await?;
                    if self.unsealed >= 2 * UNSEALED_MAX {
                        self.seal().await?;
                    }
                }
            }
            self.send(batch).await?;
            self.seal().await?;
        }
        Ok(())
    }

    async fn seal(&mut self) -> anyhow::Result<()> {
        self.take_answer().await?;
        self.unsealed = 0;
        Ok(self.store.seal_now().await?)
    }

    /// Hands samples over while those before are being committed.
    async fn send(&mut self, records: Vec<Record>) -> anyhow::Result<()> {
        self.unsealed += records.len() as u64;
        let pending = self.submit(&records).await?;
        self.take_answer().await?;
        self.waiting = Some(Sent { records, pending });
        Ok(())
    }

    fn key_of(&self, series: u32) -> SeriesKey {
        match self.ids[series as usize] {
            Some(id) => SeriesKey::Id(id),
            None => SeriesKey::Labels(self.taken.series[series as usize].clone()),
        }
    }

    async fn submit(&self, records: &[Record]) -> anyhow::Result<Pending> {
        let mut batch = WriteBatch::default();
        let rows = records.iter().map(|record| Row {
            series: self.key_of(record.series),
            t: crate::model::Timestamp::from_ms(record.t_ms),
            v: record.v,
        });
        batch.push(rows, Item::default());
        match tokio::time::timeout(ROOM_WAIT, self.store.submit(batch)).await {
            Ok(pending) => Ok(pending?),
            Err(_) => bail!(
                "the store takes nothing: {}",
                self.store.hardship().unwrap_or("it is busy")
            ),
        }
    }

    async fn take_answer(&mut self) -> anyhow::Result<()> {
        let Some(Sent { records, pending }) = self.waiting.take() else {
            return Ok(());
        };
        let committed = pending.committed().await?;
        self.count(&committed);
        let gone = committed.refused.iter();
        let gone = gone.filter(|row| row.why == Refusal::UnknownSeries);
        let gone: Vec<Record> = gone.map(|row| records[row.row]).collect();
        if !gone.is_empty() {
            self.send_again(gone).await?;
        }
        for record in records {
            let series = record.series as usize;
            if self.ids[series].is_none() {
                self.ids[series] = self.store.resolve(&self.taken.series[series]);
            }
        }
        Ok(())
    }

    /// An idle series left the store after it was looked up: its labels make it anew.
    async fn send_again(&mut self, gone: Vec<Record>) -> anyhow::Result<()> {
        for record in &gone {
            self.ids[record.series as usize] = None;
        }
        self.outcome.refusals[Refusal::UnknownSeries as usize] -= gone.len() as u64;
        let committed = self.submit(&gone).await?.committed().await?;
        self.count(&committed);
        Ok(())
    }

    fn count(&mut self, committed: &Committed) {
        for outcome in &committed.outcomes {
            self.outcome.added += u64::from(outcome.added);
            self.outcome.duplicates += u64::from(outcome.duplicates);
            for (all, more) in self.outcome.refusals.iter_mut().zip(outcome.refusals) {
                *all += u64::from(more);
            }
        }
    }

    /// Stores what the text says of metrics that nothing is known of.
    async fn describe(&mut self) -> anyhow::Result<()> {
        let mut ops = Vec::new();
        for (metric, metadata) in &self.taken.metadata {
            if self
                .store
                .get(Table::Metadata, metric.as_bytes())?
                .is_none()
            {
                ops.push(metadata.put(metric));
            }
        }
        if !ops.is_empty() {
            self.store.write(WriteBatch::of_state(ops)).await?;
        }
        Ok(())
    }
}

/// The hours of a day in runs that fit in memory.
fn parts(hours: &[u64; HOURS]) -> Vec<std::ops::Range<usize>> {
    let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
    let mut samples = 0;
    for (hour, count) in hours.iter().enumerate().filter(|(_, count)| **count > 0) {
        match parts.last_mut() {
            Some(part) if samples + count <= UNSEALED_MAX => part.end = hour + 1,
            _ => {
                parts.push(hour..hour + 1);
                samples = 0;
            }
        }
        samples += count;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_taken_together_as_far_as_they_fit() {
        let check = |filled: &[(usize, u64)], want: &[(usize, usize)]| {
            let mut hours = [0; HOURS];
            for (hour, count) in filled {
                hours[*hour] = *count;
            }
            let parts = parts(&hours).into_iter();
            let parts: Vec<_> = parts.map(|part| (part.start, part.end)).collect();
            assert_eq!(parts, want);
        };
        let half = UNSEALED_MAX / 2;
        check(&[], &[]);
        check(&[(0, 1), (23, 1)], &[(0, 24)]);
        check(&[(0, half), (1, half), (2, 1)], &[(0, 2), (2, 3)]);
        check(&[(3, half), (9, half + 1), (10, 1)], &[(3, 4), (9, 11)]);
        check(&[(5, 10 * half), (6, 1)], &[(5, 6), (6, 7)]);
    }
}
