//! Rows into the head and into the open log record.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLockWriteGuard};

use super::batch::{ItemOutcome, Refusal, RefusedRow, Row, SeriesKey, StateOp, WriteBatch};
use super::blocks::Blocks;
use super::churn::{Churn, Values, check_labels};
use super::head::{Shard, place_of};
use super::index::{Added, Index};
use super::parts::{Parts, window_of};
use super::pressure::{Cause, Level};
use super::series::{Freezer, HeadSeries, Placed};
use super::shared::Shared;
use super::{Table, wal};
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Labels, Sample};
use crate::telemetry::metrics;

/// Rows by table that were handed over and are not durable yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    rows: usize,
    ops: [usize; Table::ALL.len()],
    /// About how many bytes they take in memory.
    pub(super) bytes: usize,
}

impl Load {
    /// Counts a batch.
    pub(super) fn of(batch: &WriteBatch) -> Load {
        let mut load = Load {
            rows: batch.rows.len(),
            ..Load::default()
        };
        load.bytes = batch.rows.iter().map(row_bytes).sum();
        for item in &batch.items {
            load.bytes += size_of_val(item);
            for op in item.on_new.iter().chain(&item.always) {
                let (table, bytes) = op_size(op);
                load.ops[table as usize] += 1;
                load.bytes += size_of_val(op) + bytes;
            }
        }
        load
    }

    /// Adds another one.
    pub(super) fn add(&mut self, other: &Load) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        for (mine, more) in self.ops.iter_mut().zip(other.ops) {
            *mine += more;
        }
    }

    /// Shows the rows as pending.
    pub(super) fn enter(&self, metrics: &metrics::Store) {
        self.show(metrics, 1);
    }

    /// They are pending no more.
    pub(super) fn leave(&self, metrics: &metrics::Store) {
        self.show(metrics, -1);
    }

    fn show(&self, metrics: &metrics::Store, sign: i64) {
        let ops = Table::ALL.iter().map(|t| (t.name(), self.ops[*t as usize]));
        for (table, rows) in ops.chain([("samples", self.rows)]) {
            if rows > 0 {
                let rows = i64::try_from(rows).unwrap_or(i64::MAX);
                metrics
                    .pending_writes
                    .with_label_values(&[table])
                    .add(sign * rows);
            }
        }
    }
}

fn row_bytes(row: &Row) -> usize {
    let labels = match &row.series {
        SeriesKey::Id(_) => 0,
        SeriesKey::Labels(labels) => labels.as_encoded().len(),
    };
    size_of::<Row>() + labels
}

fn op_size(op: &StateOp) -> (Table, usize) {
    match op {
        StateOp::Put { table, key, value } | StateOp::Replace { table, key, value } => {
            (*table, key.len() + value.len())
        }
        StateOp::Delete { table, key } => (*table, key.len()),
        StateOp::Enqueue(delivery) => (Table::Outbox, 512 + delivery.body.len()),
        StateOp::Bury(letter) => (Table::Dead, 512 + letter.payload.len()),
    }
}

/// The samples' side of the writer.
pub(super) struct Intake {
    shared: Arc<Shared>,
    log: wal::Builder,
    freezer: Freezer,
    /// Series that the open transaction adds to the catalog.
    added: Vec<Added>,
    /// Whether the builder's rows are in the record already (a retry).
    finished: bool,
    log_rows: usize,
    counts: Counts,
    limits: Limits,
    churn: Churn,
    values: Values,
}

/// What the rows of the open transaction came to.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    duplicates: u64,
    /// In the order of [`Refusal::ALL`].
    refused: [u64; Refusal::ALL.len()],
}

/// How many series there may be.
#[derive(Debug)]
struct Limits {
    all: usize,
    tenant: usize,
    of_tenant: std::collections::HashMap<String, usize>,
}

impl Limits {
    fn of(&self, labels: &Labels) -> usize {
        let tenant = labels.get(TENANT_LABEL);
        let own = tenant.and_then(|tenant| self.of_tenant.get(tenant));
        own.copied().unwrap_or(self.tenant)
    }
}

impl Intake {
    pub(super) fn new(shared: Arc<Shared>, log: wal::Builder) -> Intake {
        let limits = &shared.options.limits;
        let own = shared.options.tenants.iter();
        let limits = Limits {
            all: limits.series_max,
            tenant: limits.series_per_tenant_max,
            of_tenant: own
                .filter_map(|t| Some((t.id.to_string(), t.series_max?)))
                .collect(),
        };
        Intake {
            shared,
            log,
            freezer: Freezer::default(),
            added: Vec::new(),
            finished: false,
            log_rows: 0,
            counts: Counts::default(),
            limits,
            churn: Churn::default(),
            values: Values::default(),
        }
    }

    /// Takes the rows of all items in, as part of transaction `seq`. Says what
    /// became of each item, and which rows were refused.
    pub(super) fn take(
        &mut self,
        batch: &WriteBatch,
        seq: u64,
    ) -> (Vec<ItemOutcome>, Vec<RefusedRow>) {
        let shared = Arc::clone(&self.shared);
        let level = shared.pressure.level();
        let mut pass = Pass {
            shared: &shared,
            parts: &mut shared.parts(),
            shard: None,
            accepted_ms: shared.accepted_ms(),
            sheds: batch.sheds && level >= Level::Withhold,
            takes_series: level < Level::NoSeries,
            is_own: batch.is_own,
            seq,
            added: 0,
            earliest: i64::MAX,
            fresh: 0,
            refused: Vec::new(),
        };
        let mut rows = batch.rows.iter().enumerate();
        let outcomes = batch
            .items
            .iter()
            .map(|item| self.take_item(&mut pass, rows.by_ref().take(item.rows as usize)))
            .collect();
        shared.head.add_samples(pass.added);
        if pass.added > 0 {
            shared.changed.note(pass.earliest);
        }
        if shared.head.samples() > shared.head_samples_max.load(Ordering::Relaxed) {
            let store = &shared.metrics.store;
            shared.pressure.set(Cause::Head, Level::Withhold, store);
        }
        (outcomes, pass.refused)
    }

    fn take_item<'a>(
        &mut self,
        pass: &mut Pass<'_>,
        rows: impl Iterator<Item = (usize, &'a Row)>,
    ) -> ItemOutcome {
        let mut outcome = ItemOutcome::default();
        for (at, row) in rows {
            let why = match self.take_row(pass, row) {
                Ok(Placed::Newest | Placed::Between) => {
                    outcome.added += 1;
                    continue;
                }
                Ok(Placed::Duplicate) => {
                    self.counts.duplicates += 1;
                    outcome.duplicates += 1;
                    continue;
                }
                Ok(Placed::Conflict) => Refusal::Conflict,
                Err(refusal) => refusal,
            };
            self.refuse(&mut outcome, why);
            let t = row.t;
            pass.refused.push(RefusedRow { row: at, t, why });
        }
        outcome
    }

    fn refuse(&mut self, outcome: &mut ItemOutcome, refusal: Refusal) {
        outcome.refused += 1;
        outcome.refusal.get_or_insert(refusal);
        outcome.refusals[refusal as usize] += 1;
        self.counts.refused[refusal as usize] += 1;
    }

    fn take_row(&mut self, pass: &mut Pass<'_>, row: &Row) -> Result<Placed, Refusal> {
        let t = row.t.as_ms();
        if pass.sheds {
            return Err(Refusal::Overload);
        }
        if t < *pass.accepted_ms.start() {
            return Err(Refusal::TooOld);
        }
        if t > *pass.accepted_ms.end() {
            return Err(Refusal::TooNew);
        }
        let window = window_of(t).ok_or(Refusal::TooOld)?;
        let id = match &row.series {
            SeriesKey::Id(id) => id.0,
            SeriesKey::Labels(labels) => self.series_of(pass, labels)?,
        };
        let part = pass.parts.id_of(window, pass.seq);
        let shared = pass.shared;
        self.freezer.stagger = id;
        let (series, blocks) = pass.series(id)?;
        let sample = Sample::new(t, row.v);
        let placed = series.place(blocks, sample, part, &mut self.freezer, || {
            sealed_value(shared, id, t)
        });
        if matches!(placed, Placed::Newest | Placed::Between) {
            let alone = placed == Placed::Between;
            self.log.push(id, t, row.v, alone, &mut series.log);
            pass.parts.count_in(window, t, pass.seq);
            pass.added += 1;
            pass.earliest = pass.earliest.min(t);
        }
        Ok(placed)
    }

    fn series_of(&mut self, pass: &mut Pass<'_>, labels: &Labels) -> Result<u32, Refusal> {
        let shared = pass.shared;
        let index = shared.index();
        if let Some(id) = index.lookup(labels) {
            return Ok(id);
        }
        if !pass.takes_series {
            return Err(Refusal::NoRoom);
        }
        check_labels(labels, &shared.options.limits)?;
        let max = shared.options.limits.label_values_max;
        let capped = self.values.cap(labels, max, &index);
        let labels = match &capped {
            None => labels,
            Some(capped) => {
                if let Some(id) = index.lookup(capped) {
                    return Ok(id);
                }
                capped
            }
        };
        if index.len() >= self.limits.all || index.tenant_series(labels) >= self.limits.of(labels) {
            return Err(Refusal::SeriesLimit);
        }
        let now_s = shared.clock.now().as_ms() / 1_000;
        let first_seen_s = u64::try_from(now_s).unwrap_or(0);
        if !pass.is_own {
            let tenant = labels.get(TENANT_LABEL).unwrap_or_default();
            let found = |since| new_since(shared, &index, since);
            let limits = &shared.options.limits;
            self.churn.admit(tenant, limits, first_seen_s, &found)?;
        }
        if capped.is_some() {
            shared.metrics.store.label_values_capped.inc();
        }
        drop(index);
        // Readers may hold the index while they wait for a shard.
        pass.shard = None;
        let added = self.shared.index_mut().add(labels, first_seen_s);
        let id = added.series;
        pass.fresh = id;
        self.added.push(added);
        Ok(id)
    }

    /// Series have left the store.
    pub(super) fn forgot(&mut self) {
        self.values.forget();
    }

    /// Makes the open record start all value coders anew. Only while it is empty.
    pub(super) fn start_anew(&mut self) {
        self.log.start_anew();
    }

    /// Bytes of the open record and the new series.
    pub(super) fn log_bytes(&self) -> usize {
        self.log.len() + self.added.len() * 64
    }

    /// Whether the open transaction has no samples and no new series.
    pub(super) fn is_idle(&self) -> bool {
        self.log.is_empty() && self.added.is_empty() && !self.finished
    }

    /// Writes the record to `out`. Asked again after a failed commit, it leaves
    /// `out` as it is.
    pub(super) fn finish(&mut self, sequence: u64, out: &mut Vec<u8>) {
        if !self.finished {
            self.log_rows = usize::try_from(self.log.count()).unwrap_or(usize::MAX);
            self.log.finish(sequence, out);
            self.finished = true;
        }
    }

    /// The series that the open transaction adds.
    pub(super) fn added(&self) -> &[Added] {
        &self.added
    }

    /// The rows of the finished record.
    pub(super) fn log_rows(&self) -> usize {
        self.log_rows
    }

    /// Begins the next transaction.
    pub(super) fn clear(&mut self) {
        // A burst of new series leaves no room behind that nobody needs again.
        self.added = Vec::new();
        self.finished = false;
        self.log_rows = 0;
    }

    /// Adds the counts of the transaction to the metrics.
    pub(super) fn observe(&mut self) {
        let store = &self.shared.metrics.store;
        let counts = std::mem::take(&mut self.counts);
        store.duplicates.inc_by(counts.duplicates);
        let refused = metrics::STORE_REFUSALS.iter().zip(counts.refused);
        for (reason, count) in refused.filter(|(_, count)| *count > 0) {
            store.refused.with_label_values(&[reason]).inc_by(count);
        }
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        store.head_samples.set(gauge(self.shared.head.samples()));
        store.series.set(gauge(self.shared.index().len() as u64));
    }
}

/// What the sealed files have at a time. A file that cannot be read has nothing:
/// queries say so, and the row is taken rather than lost.
fn sealed_value(shared: &Shared, series: u32, t: i64) -> Option<f64> {
    let metric = shared.index().metric_symbol(series);
    match shared.days.lookup(metric, series, t) {
        Ok(found) => found,
        Err(err) => {
            shared.metrics.store.checksum_failures.inc();
            tracing::error!(error = %err, "cannot look for a repeated sample");
            None
        }
    }
}

/// One walk over a batch's rows: what it holds on to meanwhile.
struct Pass<'a> {
    shared: &'a Shared,
    parts: &'a mut Parts,
    /// The shard of the row before; neighbours mostly share it.
    shard: Option<(usize, RwLockWriteGuard<'a, Shard>)>,
    accepted_ms: RangeInclusive<i64>,
    /// Whether all rows are left out.
    sheds: bool,
    takes_series: bool,
    /// See [`WriteBatch::is_own`].
    is_own: bool,
    seq: u64,
    added: u64,
    /// The time of the earliest row that was added.
    earliest: i64,
    /// The series that the current row made: nothing of it is sealed.
    fresh: u32,
    refused: Vec<RefusedRow>,
}

impl Pass<'_> {
    /// The series in memory, put there when it was not.
    fn series(&mut self, id: u32) -> Result<(&mut HeadSeries, &mut Blocks), Refusal> {
        let (at, local) = place_of(id);
        if self.shard.as_ref().is_none_or(|(held, _)| *held != at) {
            // Let go before taking: nobody holds two shards.
            self.shard = None;
            self.shard = Some((at, self.shared.head.write(at)));
        }
        let (_, shard) = self.shard.as_mut().expect("it was just taken");
        if !shard.contains(local) && !self.shared.index().contains(id) {
            return Err(Refusal::UnknownSeries);
        }
        let sealed_max = if id == self.fresh {
            i64::MIN
        } else {
            self.shared.sealed_max_t.load(Ordering::Relaxed)
        };
        Ok(shard.get_or_insert_with(local, || HeadSeries::new(sealed_max)))
    }
}

/// The tenants of the series that the catalog has as new since a second, but not of
/// our own and the host's.
fn new_since(shared: &Shared, index: &Index, since_s: u64) -> Vec<String> {
    let new = match shared.first_seen_since(since_s) {
        Ok(new) => new.into_iter(),
        Err(err) => {
            tracing::warn!(error = %err, "cannot count the new series of this hour");
            return Vec::new();
        }
    };
    let tenant_of = |id| {
        let labels = index.labels(id)?;
        let tenant = labels.get(TENANT_LABEL);
        let is_own = tenant.is_none() && matches!(labels.get("job"), Some("pulse" | "node"));
        (!is_own).then(|| tenant.unwrap_or_default().to_owned())
    };
    new.filter_map(tenant_of).collect()
}
