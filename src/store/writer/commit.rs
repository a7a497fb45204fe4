//! The commit: one redb transaction, or one record behind the last one of the
//! appended log, tried until the disk takes it; then the answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::caught::caught;
use super::super::disk::{causes, io_error};
use super::super::hot;
use super::super::index::Removed;
use super::super::ledger::Ledger;
use super::super::pressure::{Cause, Level};
use super::super::sealed::frozen::Held;
use super::super::sealer::room::shed_one;
use super::super::space::is_full;
use super::super::tables::{self, Meta, has_commit};
use super::super::transaction::{self, Bounds, Change, Evicted};
use super::super::{Error, Table};
use super::Writer;
use crate::telemetry::metrics::ServiceName;

/// The waits between attempts at a disk that refuses.
const RETRY_MIN: Duration = if cfg!(test) {
    Duration::from_millis(1)
} else {
    Duration::from_secs(1)
};
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A full disk may have room again at any moment.
const RETRY_FULL: Duration = Duration::from_secs(1);

/// Sealed records that one transaction deletes: it has to read them.
const CUT_BYTES: usize = 4 << 20;

/// The wait until the next transaction deletes more, when nothing else happens.
const CUT_PAUSE: Duration = Duration::from_millis(50);

/// How soon a waiting writer sees that the store closes.
const RETRY_POLL: Duration = if cfg!(test) {
    Duration::from_millis(1)
} else {
    Duration::from_millis(20)
};

/// Above this size redb keeps what makes opening after a crash quick.
const QUICK_REPAIR_BYTES: u64 = 64 << 20;

impl Writer {
    /// Commits the open record and answers; says whether to go on.
    pub(super) fn commit(&mut self) -> bool {
        self.due = None;
        if self.is_idle() {
            return true;
        }
        if let Some((key, row)) = self.keeper.due(&self.shared.clock) {
            self.changes.push(Table::Kv, key, Change::Put(row));
        }
        let planned = self.intake.log_bytes() + self.changes.bytes();
        let shared = &self.shared;
        let store = &shared.metrics.store;
        shared.space.look(planned as u64, &shared.pressure, store);
        let begun = Instant::now();
        let mut wait = RETRY_MIN;
        let way = self.way();
        let evicted = loop {
            let tried = match way {
                Way::Append => self.try_append(),
                Way::Transact => self.transact(),
            };
            match tried {
                Ok(evicted) => break evicted,
                Err(err) => {
                    if !self.ride_out(&err, way, wait, begun) {
                        return false;
                    }
                    let max = if is_full(&err) { RETRY_FULL } else { RETRY_MAX };
                    wait = (wait * 2).min(max);
                    if way == Way::Transact && self.is_committed() {
                        self.count_again();
                        self.log_grew(self.record.len() as u64 + self.shared.log.turned());
                        break Evicted::default();
                    }
                }
            }
        };
        self.committed(begun.elapsed(), &evicted);
        true
    }

    /// Where the open record goes. It stays so until it is there: a record that was
    /// written half to one log must not be behind in the other.
    fn way(&mut self) -> Way {
        let removes = self.wal_first <= self.wal_sealed || !self.removed.series.is_empty();
        let cuts = removes && !self.shared.days.is_pinned();
        self.is_for_log = false;
        let is_recorded = !self.shared.days.has_records();
        if cuts || !is_recorded || !self.changes.is_empty() || !self.intake.added().is_empty() {
            return Way::Transact;
        }
        self.intake.finish(self.sequence, &mut self.record);
        match self.shared.log.takes(self.record.len()) {
            true => Way::Append,
            false => {
                self.is_for_log = true;
                Way::Transact
            }
        }
    }

    fn try_append(&mut self) -> Result<Evicted, redb::Error> {
        let grown = self.shared.log.append(self.seq, &self.record)?;
        self.log_grew(grown);
        self.shared.metrics.store.log_commits.inc();
        Ok(Evicted::default())
    }

    fn log_grew(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.shared.metrics.store.wal_bytes.add(bytes);
    }

    fn transact(&mut self) -> Result<Evicted, redb::Error> {
        let db = self.shared.hot.writable().map_err(to_redb)?;
        guarded(&db, || self.try_commit(&db)).inspect_err(|_| self.shared.ledger().take_back())
    }

    /// At a clean stop: what the log has is known, so that what is missing of it later
    /// is not taken for a write that was cut short.
    pub(super) fn note_end(&self) -> Result<(), redb::Error> {
        let end = self.shared.log.end();
        if end == 0 {
            return Ok(());
        }
        let db = self.shared.hot.writable().map_err(to_redb)?;
        guarded(&db, || {
            let txn = transaction::begin(&db, false)?;
            tables::put_end(&txn, end)?;
            Ok(txn.commit()?)
        })
    }

    fn try_commit(&mut self, db: &Held) -> Result<Evicted, redb::Error> {
        let long = std::fs::metadata(self.shared.hot.path())
            .is_ok_and(|meta| meta.len() > QUICK_REPAIR_BYTES);
        let txn = transaction::begin(db, long)?;
        let limits = &self.shared.options.limits;
        let bounds = Bounds {
            outbox_bytes: limits.outbox_max.get(),
            dead_bytes: limits.dead_letters_max.get(),
        };
        let mut sequence = self.sequence;
        let applied = {
            let mut ledger = self.shared.ledger();
            let applied =
                transaction::put_state(&txn, &self.changes, bounds, &mut ledger, &mut sequence);
            if applied.is_err() {
                ledger.take_back();
            }
            applied
        };
        let records = self.shared.days.records();
        let done = applied.and_then(|evicted| {
            self.intake.finish(sequence, &mut self.record);
            transaction::put_record(&txn, self.seq, &self.record)?;
            transaction::put_catalog(&txn, self.intake.added())?;
            for (name, row) in &records {
                tables::put_finished(&txn, name, *row)?;
            }
            let cut = self.cut_log(&txn, sequence)?;
            let sealed = if cut.catalog { self.wal_sealed } else { 0 };
            let wants = self.is_for_log.then_some(self.record.len());
            if let Some(log) = self.shared.log.turn(self.seq, sealed, wants) {
                tables::put_log(&txn, log)?;
            }
            txn.commit()?;
            Ok((evicted, cut))
        });
        let mut ledger = self.shared.ledger();
        match done {
            Ok((evicted, cut)) => {
                ledger.keep();
                self.sequence = sequence;
                drop(ledger);
                self.shared.days.recorded(records);
                self.log_grew(self.shared.log.turned());
                self.wal_first = cut.next;
                let mut bytes = cut.bytes;
                if cut.catalog {
                    self.removed = Removed::default();
                    let appended = self.shared.log.cut(self.wal_sealed);
                    bytes += i64::try_from(appended).unwrap_or(i64::MAX);
                }
                self.shared.metrics.store.wal_bytes.sub(bytes);
                self.log_grew(self.record.len() as u64);
                Ok(evicted)
            }
            Err(err) => {
                ledger.take_back();
                Err(err)
            }
        }
    }

    /// Deletes sealed records, a bounded number of them, and removed series.
    fn cut_log(&self, txn: &redb::WriteTransaction, sequence: u64) -> Result<Cut, redb::Error> {
        let mut cut = Cut {
            next: self.wal_first,
            bytes: 0,
            catalog: false,
        };
        let removes = !self.removed.series.is_empty();
        let has_records = cut.next <= self.wal_sealed;
        if !(has_records || removes) || self.shared.days.is_pinned() {
            return Ok(cut);
        }
        cut.catalog = true;
        let (last_ref, last_symbol) = self.shared.index().last();
        let meta = Meta {
            version: tables::VERSION,
            wal_sealed_seq: self.wal_sealed,
            sequence,
            last_ref: last_ref.into(),
            last_symbol: last_symbol.into(),
            ..Meta::default()
        };
        meta.write(txn)?;
        tables::put_kept(txn, self.wal_sealed)?;
        transaction::delete_catalog(txn, &self.removed)?;
        if has_records {
            let to = self.wal_sealed;
            let (next, bytes) = transaction::delete_records(txn, cut.next, to, CUT_BYTES)?;
            cut.next = next;
            cut.bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        }
        Ok(cut)
    }

    /// After a refused transaction: waits, and opens the database again. Says
    /// whether to try again; not when the store is closing.
    fn ride_out(
        &mut self,
        err: &redb::Error,
        way: Way,
        wait: Duration,
        refused_since: Instant,
    ) -> bool {
        let metrics = &self.shared.metrics.store;
        metrics.commit_failures.inc();
        metrics.failing.set(1);
        tracing::error!(commit_seq = self.seq, error = %err, "cannot commit, trying again");
        if is_full(err) {
            self.make_room();
        }
        let reopened = match way {
            Way::Append => {
                let log = self.shared.log.reopen();
                log.map_err(|err| io_error("open", &self.shared.dir, err))
            }
            // At once: what redb refused to write it refuses to read as well.
            Way::Transact => self.shared.hot.reopen().map(drop),
        };
        if let Err(err) = reopened {
            tracing::error!(error = %causes(&err), "cannot open the store again");
            if hot::is_damaged(&err) {
                // No try helps, and the next start reads what can be read.
                tracing::error!("hot.redb is damaged on the disk: pulse ends, to be started again");
                return false;
            }
            // It may be too full to be opened.
            if is_full(&err) {
                self.make_room();
            }
        }
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.shared.is_closing() {
                return false;
            }
            self.go_on_in_memory(refused_since);
            std::thread::sleep(RETRY_POLL);
        }
        true
    }

    /// On a full disk: takes no more, and gives up what goes first.
    fn make_room(&self) {
        let pressure = &self.shared.pressure;
        pressure.set(Cause::Disk, Level::Withhold, &self.shared.metrics.store);
        self.shared.log.trim();
        let has_room = self.shared.space.release_reserve();
        // The sealer may be waiting for us.
        if !has_room && let Err(err) = shed_one(&self.shared) {
            tracing::error!(error = %err, "cannot make room on the disk");
        }
    }

    /// Whether the open transaction is on disk after all.
    fn is_committed(&self) -> bool {
        let db = self.shared.hot.database();
        db.is_ok_and(|db| has_commit(&db, self.seq).unwrap_or(false))
    }

    /// The refused transaction was there after all, and its counts were taken back.
    fn count_again(&mut self) {
        let read = || -> Result<(Ledger, u64), Box<dyn std::error::Error>> {
            Ok(Ledger::read(&*self.shared.hot.database()?)?)
        };
        match read() {
            Ok((ledger, last)) => {
                *self.shared.ledger() = ledger;
                self.sequence = self.sequence.max(last);
            }
            Err(err) => tracing::error!(error = %err, "cannot count outbox and dead letters"),
        }
    }

    fn committed(&mut self, took: Duration, evicted: &Evicted) {
        let shared = Arc::clone(&self.shared);
        shared.committed.store(self.seq, Ordering::Release);
        self.observe(took, evicted);
        self.expect_crowd();
        for table in Table::ALL {
            let evicted = table == Table::Dead && !evicted.deliveries.is_empty();
            if evicted || !self.changes.of(table).is_empty() {
                shared.changes(table).send_replace(self.seq);
            }
        }
        for waiting in self.waiting.drain(..) {
            // A caller that went away wants no answer.
            drop(waiting.reply.send(waiting.committed));
        }
        for reply in self.sealer.drain(..) {
            reply.send(()).unwrap_or_default();
        }
        let rows = self.intake.log_rows();
        self.intake.clear();
        self.seq += 1;
        self.take_up_unsaved();
        self.bound_leaning(rows);
        if self.has_records_to_cut() {
            self.due_within(CUT_PAUSE);
        }
    }

    fn observe(&mut self, took: Duration, evicted: &Evicted) {
        let metrics = &self.shared.metrics;
        let seconds = took.as_secs_f64();
        metrics.store.failing.set(0);
        metrics.store.commits.inc();
        metrics.store.commit_seconds.observe(seconds);
        metrics
            .service
            .observe(ServiceName::Ingest, "commit")
            .observe(seconds);
        metrics
            .store
            .dead_letters_dropped
            .inc_by(evicted.dead_letters);
        metrics
            .store
            .outbox_evicted
            .inc_by(evicted.deliveries.len() as u64);
        let tables = Table::ALL
            .iter()
            .map(|table| (table.name(), self.changes.of(*table).len()));
        let own = [
            ("samples", self.intake.log_rows()),
            ("series", self.intake.added().len()),
        ];
        for (table, rows) in tables.chain(own).filter(|(_, rows)| *rows > 0) {
            let label = &[table];
            let store = &metrics.store;
            store.db_writes.with_label_values(label).inc_by(rows as u64);
            store
                .db_write_duration
                .with_label_values(label)
                .observe(seconds);
            store
                .db_batch_size
                .with_label_values(label)
                .observe(rows as f64);
        }
        let now = Instant::now();
        self.wear.count(metrics.store.bytes_written.get(), now);
        let per_day = self.wear.per_day(now);
        let linger = self.wear.linger(self.shared.options.store.linger.get());
        metrics.store.wear_linger.set(linger.as_secs_f64());
        metrics.store.written_per_day.set(whole(per_day));
        std::mem::take(&mut self.load).leave(&metrics.store);
        self.intake.observe();
    }
}

/// Runs a transaction. redb panics where what it keeps about free pages is damaged: that is
/// an error like others, and the next use of the file makes those records anew.
fn guarded<T>(db: &Held, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    caught(work).unwrap_or_else(|| {
        db.leave();
        let what = "what it says of its free pages cannot be right";
        Err(redb::Error::Corrupted(what.to_owned()))
    })
}

/// Where a record goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// To the appended log: it has samples alone.
    Append,
    /// To redb, with what else the commit changes.
    Transact,
}

/// How far sealed records were deleted.
struct Cut {
    /// The first commit that is still in the table.
    next: u64,
    bytes: i64,
    /// Whether removed series were deleted.
    catalog: bool,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "float to int casts saturate"
)]
fn whole(bytes: f64) -> i64 {
    bytes as i64
}

/// Our error where redb's is expected.
fn to_redb(err: Error) -> redb::Error {
    redb::Error::Io(std::io::Error::other(err))
}
