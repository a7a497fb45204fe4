//! When roll-ups are made.
//!
//! Of a day that is over, after it was rewritten, one day at each look: the oldest
//! that has none, or has some that do not say any more what its samples say. So a day
//! gets roll-ups also when it was rewritten before they were asked for. They are made
//! only where there is room: what has to make room for samples is not written again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::super::Error;
use super::super::days::rewrite::NotRewritten;
use super::super::days::rolls::Asks;
use super::super::days::store_error;
use super::super::disk::{causes, disk_bytes};
use super::super::sealed::Kind;
use super::super::shared::Shared;
use super::{Command, DAY_S, Gone, Sealer};
use crate::model::{Labels, Timestamp};
use crate::telemetry::metrics::STORE_ROLLUPS;

/// After a failure, or when roll-ups had to make room, none are made for this long.
const PAUSE: Duration = Duration::from_secs(3_600);

/// Of a day's bytes, roll-ups take at most about one part in so many.
const SHARE: u64 = 2;

/// When a day ends, in ms.
fn end_ms(start_s: u32) -> i64 {
    (i64::from(start_s) + i64::from(DAY_S)) * 1_000
}

impl Shared {
    /// Says how much room roll-ups take.
    pub(in crate::store) fn measure_rolls(&self) {
        let rolls = self.days.all_rolls();
        for (kind, resolution) in Kind::ROLLS.iter().zip(STORE_ROLLUPS) {
            let of_kind = rolls.iter().filter(|roll| roll.kind == *kind);
            let bytes: u64 = of_kind.map(|roll| roll.disk_bytes()).sum();
            let gauge = &self.metrics.store.rollup_bytes;
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            gauge.with_label_values(&[resolution]).set(bytes);
        }
    }
}

impl Sealer {
    /// How long roll-ups of a kind are kept; 0 when there are none.
    pub(super) fn roll_retention_ms(&self, kind: Kind) -> i64 {
        let store = &self.shared.options.store;
        match kind {
            Kind::Roll5m => store.rollup_5m_retention.as_ms(),
            Kind::Roll1h => store.rollup_1h_retention.as_ms(),
            Kind::Day | Kind::Hours => store.retention.as_ms(),
        }
    }

    /// Makes the roll-ups of one day that has none.
    pub(in crate::store) fn roll_due(&mut self, commands: &Receiver<Command>) -> Result<(), Gone> {
        self.set_rolls_aside();
        if self
            .no_rolls_until
            .is_some_and(|until| Instant::now() < until)
        {
            return Ok(());
        }
        let Some((start_s, kind)) = self.day_without_rolls() else {
            return Ok(());
        };
        if let Err(err) = self.roll(start_s, (Kind::Day, kind), commands)? {
            self.pause_rolls();
            tracing::error!(error = %causes(&err), start_s, "cannot make roll-ups, trying again");
        }
        Ok(())
    }

    /// Makes all roll-ups that are missing.
    pub(super) fn roll_all(
        &mut self,
        commands: &Receiver<Command>,
    ) -> Result<Result<(), Error>, Gone> {
        while let Some((start_s, kind)) = self.day_without_rolls() {
            if let Err(err) = self.roll(start_s, (Kind::Day, kind), commands)? {
                return Ok(Err(err));
            }
        }
        Ok(Ok(()))
    }

    /// No roll-ups for a while.
    pub(super) fn pause_rolls(&mut self) {
        self.no_rolls_until = Some(Instant::now() + PAUSE);
    }

    fn set_rolls_aside(&self) {
        let shared = &self.shared;
        while let Some((start_s, kind)) = shared.days.take_suspect_roll() {
            let store = &shared.metrics.store;
            store.checksum_failures.inc();
            if let Err(err) = shared.days.set_roll_aside(start_s, kind) {
                tracing::error!(error = %causes(&err), start_s, "cannot set roll-ups aside");
            }
            shared.measure_damaged();
            shared.changed.note_all();
        }
    }

    /// Whether a day that is over wants roll-ups of a kind and has none that say what
    /// its samples say.
    pub(super) fn lacks_rolls(&self, start_s: u32) -> bool {
        self.missing_roll(start_s).is_some()
    }

    /// The first kind of which a day wants roll-ups and has none that say what its
    /// samples say.
    fn missing_roll(&self, start_s: u32) -> Option<Kind> {
        let now = self.shared.clock.now();
        Kind::ROLLS.into_iter().find(|kind| {
            let retention_ms = self.roll_retention_ms(*kind);
            let is_kept = end_ms(start_s) > now.minus_ms(retention_ms).as_ms();
            let is_wanted = retention_ms > 0 && is_kept;
            is_wanted && !self.shared.days.has_current_roll(start_s, *kind)
        })
    }

    /// The oldest rewritten day that is over and wants roll-ups of a kind.
    fn day_without_rolls(&self) -> Option<(u32, Kind)> {
        let days = &self.shared.days;
        if days.is_pinned() {
            return None;
        }
        let now_ms = self.shared.clock.now().as_ms();
        let all = days.all();
        let rewritten = all.iter().filter(|day| day.kind == Kind::Day);
        for day in rewritten {
            let is_over = end_ms(day.start_s) <= now_ms;
            if !is_over || days.get(day.start_s, Kind::Hours).is_some() {
                continue;
            }
            if let Some(kind) = self.missing_roll(day.start_s)
                && !days.rolls_have_more(day.start_s)
            {
                let fits = self.has_room_for(day.disk_bytes() / SHARE);
                return fits.then_some((day.start_s, kind));
            }
        }
        None
    }

    /// Whether nothing has to leave for so many bytes more, now or soon.
    fn has_room_for(&self, bytes: u64) -> bool {
        let shared = &self.shared;
        let budget = shared.options.store.size_max.get();
        if budget > 0 && disk_bytes(&shared.dir) + bytes > budget {
            return false;
        }
        shared
            .space
            .free()
            .is_none_or(|free| free.bytes >= 2 * shared.space.free_min(free) + bytes)
    }

    /// Makes the roll-ups of a day, from its samples or from what is said. Seals that
    /// become due are done meanwhile.
    pub(super) fn roll(
        &mut self,
        start_s: u32,
        (from, kind): (Kind, Kind),
        commands: &Receiver<Command>,
    ) -> Result<Result<(), Error>, Gone> {
        let begun = Instant::now();
        let shared = Arc::clone(&self.shared);
        let days = &shared.days;
        // Those of an hour are made faster of those of 5 minutes.
        let is_finer = from == Kind::Day && kind == Kind::Roll1h;
        let from = if is_finer && days.has_current_roll(start_s, Kind::Roll5m) {
            Kind::Roll5m
        } else {
            from
        };
        let limits = self.roll_limits(shared.clock.earliest(), kind);
        let oldest_ms = |series: u32| {
            let mut of_it = limits.iter().filter(|limit| limit.series.contains(series));
            of_it.next().map(|limit| limit.oldest_ms)
        };
        let left_out = shared.index().native_parts().clone();
        let asks = Asks {
            group_of: &mut |id| shared.index().group(id),
            labels_of: &mut |id| -> Labels { shared.index().labels(id).unwrap_or_default() },
            oldest_ms: &oldest_ms,
            left_out: &left_out,
        };
        let mut looked = Instant::now();
        let mut pause = || -> ControlFlow<Gone> { self.pause(commands, &mut looked) };
        let metrics = &shared.metrics.store;
        match days.make_rolls(start_s, (from, kind), asks, &mut pause) {
            Ok(entries) => {
                let took = begun.elapsed();
                metrics.rollups.inc();
                metrics.rollup_seconds.observe(took.as_secs_f64());
                shared.measure_rolls();
                shared.measure_damaged();
                let duration_ms = took.as_millis();
                tracing::info!(start_s, kind = ?kind, entries, duration_ms, "roll-ups made");
                Ok(Ok(()))
            }
            Err(NotRewritten::Stopped(Gone)) => Err(Gone),
            Err(err) => {
                metrics.rollup_failures.inc();
                Ok(Err(err.into_error()))
            }
        }
    }

    /// Series of tenants whose roll-ups leave earlier than those of others.
    pub(super) fn roll_limits(&self, now: Timestamp, kind: Kind) -> Vec<super::retention::Limit> {
        self.limits_below(now, self.roll_retention_ms(kind))
    }

    /// Notes roll-ups of which a tenant's are all too old.
    pub(super) fn find_roll_trims(
        &mut self,
        now: Timestamp,
    ) -> Result<(), super::super::sealed::Error> {
        let limits = Kind::ROLLS.map(|kind| (kind, self.roll_limits(now, kind)));
        for roll in self.shared.days.all_rolls() {
            let end_ms = (i64::from(roll.start_s) + i64::from(DAY_S)) * 1_000;
            let of_kind = limits.iter().filter(|(kind, _)| *kind == roll.kind);
            let mut old = of_kind
                .flat_map(|(_, limits)| limits)
                .filter(|limit| end_ms <= limit.oldest_ms)
                .peekable();
            if old.peek().is_none() {
                continue;
            }
            let series = self.shared.days.series_of(&roll)?;
            if old.any(|limit| !limit.series.is_disjoint(&series)) {
                self.rolls_to_trim.insert((roll.start_s, roll.kind));
            }
        }
        Ok(())
    }

    /// Takes out of one file of roll-ups what tenants do not keep any more.
    pub(in crate::store) fn trim_rolls(
        &mut self,
        commands: &Receiver<Command>,
    ) -> Result<(), Gone> {
        if self.shared.days.is_pinned() {
            return Ok(());
        }
        let Some((start_s, kind)) = self.rolls_to_trim.pop_first() else {
            return Ok(());
        };
        let mut done = self.roll(start_s, (kind, kind), commands)?;
        if done.is_ok() {
            self.shared.changed.note_all();
            done = self.forget_unheld()?;
        }
        if let Err(err) = done {
            tracing::error!(error = %causes(&err), start_s, "cannot trim roll-ups");
        }
        Ok(())
    }

    /// Takes deleted samples out of roll-ups. Where the day has its samples they are
    /// removed, and made again of these.
    pub(super) fn clean_rolls(
        &mut self,
        commands: &Receiver<Command>,
    ) -> Result<Result<(), Error>, Gone> {
        let shared = Arc::clone(&self.shared);
        let reached = match shared.days.rolls_reached_by_tombstones() {
            Ok(reached) => reached,
            Err(err) => return Ok(Err(store_error(err))),
        };
        for roll in reached {
            let is_whole = shared.days.get(roll.start_s, Kind::Day).is_some()
                && !shared.days.rolls_have_more(roll.start_s);
            let done = if is_whole {
                shared.days.remove(&roll)
            } else {
                self.roll(roll.start_s, (roll.kind, roll.kind), commands)?
            };
            if done.is_err() {
                return Ok(done);
            }
        }
        Ok(Ok(()))
    }
}
