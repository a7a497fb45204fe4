//! When which day is rewritten, and what goes first meanwhile.
//!
//! A day is due two hours after its end, so that most of what is late is in. What
//! comes later is rewritten with the whole day again: only when it is a tenth of
//! the day, or a day old, so that a trickle does not write each day every hour.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::Error;
use super::super::days::rewrite::{NotRewritten, Series};
use super::super::disk::causes;
use super::super::sealed::{Kind, SealedSeries};
use super::super::space::is_full;
use super::super::writer::Job;
use super::retention::Limit;
use super::{Command, DAY_S, Gone, Sealer};

/// A day is rewritten this long after its end.
const AFTER_END_MS: i64 = 2 * 3_600_000;

/// Nothing was sealed into a day for this long: a backlog that is being loaded
/// seals into it again and again.
pub(super) const QUIET: Duration = Duration::from_secs(600);

/// Late samples wait at most this long, as long as they are few.
const LATE_MAX: Duration = Duration::from_secs(86_400);

/// Of a day's samples, that many are few.
const FEW: u64 = 10;

/// While a day is rewritten, seals that became due are looked for this often.
const LOOK: Duration = Duration::from_secs(1);

/// Takes out what the series' tenant does not keep any more.
fn trim(series: &mut SealedSeries, limits: &[Limit]) {
    for limit in limits {
        if limit.series.contains(series.ref_id) {
            series.samples.retain(|s| s.t.as_ms() >= limit.oldest_ms);
        }
    }
}

impl Sealer {
    /// Seals all there is, rewrites every day with hours and empties the log.
    pub(super) fn compact(
        &mut self,
        reply: oneshot::Sender<Result<(), Error>>,
        commands: &Receiver<Command>,
    ) -> Result<(), Gone> {
        self.take(super::NO_WINDOW)?;
        let mut done = self.seal_parts()?;
        let days = self.shared.days.all();
        for day in days.iter().filter(|day| day.kind == Kind::Hours) {
            done = done.and(self.rewrite(day.start_s, commands)?);
        }
        done = done.and(self.roll_all(commands)?);
        if let Err(err) = self.expire()? {
            done = done.and(Err(err));
        }
        done = done.and(self.ask(Job::Compact)?);
        // A caller that went away wants no answer.
        drop(reply.send(done));
        Ok(())
    }

    /// Rewrites one day that is due.
    pub(in crate::store) fn rewrite_due(
        &mut self,
        commands: &Receiver<Command>,
    ) -> Result<(), Gone> {
        let suspect = self.shared.days.take_suspect();
        let due = suspect.or_else(|| self.due_day());
        let Some(start_s) = due.or_else(|| self.to_trim.pop_first()) else {
            return Ok(());
        };
        if let Err(err) = self.rewrite(start_s, commands)? {
            // Not again at the next tick: the cause may last.
            self.sealed_at.insert(start_s, Instant::now());
            tracing::error!(error = %causes(&err), start_s, "cannot rewrite a day, trying again");
        }
        Ok(())
    }

    pub(super) fn due_day(&self) -> Option<u32> {
        if self.shared.days.is_pinned() {
            return None;
        }
        let now = self.shared.clock.now().as_ms();
        let days = self.shared.days.all();
        let hours = days.iter().filter(|day| day.kind == Kind::Hours);
        let due = hours.filter(|hours| {
            let end = (i64::from(hours.start_s) + i64::from(DAY_S)) * 1_000;
            let last = self.sealed_at.get(&hours.start_s).unwrap_or(&self.begun);
            let quiet = last.elapsed();
            if now < end + AFTER_END_MS || quiet < self.quiet {
                return false;
            }
            let day = self.shared.days.get(hours.start_s, Kind::Day);
            day.is_none_or(|day| hours.samples() * FEW >= day.samples() || quiet >= LATE_MAX)
        });
        due.map(|day| day.start_s).next()
    }

    /// Rewrites a day, without what of it is damaged. Seals that become due are done
    /// meanwhile.
    pub(super) fn rewrite(
        &mut self,
        start_s: u32,
        commands: &Receiver<Command>,
    ) -> Result<Result<(), Error>, Gone> {
        let mut done = self.try_rewrite(start_s, None, commands)?;
        // A day takes less than its hours, which would be the next to go.
        if let Err(NotRewritten::Failed(err)) = &done
            && is_full(err)
            && self.shared.space.release_reserve()
        {
            done = self.try_rewrite(start_s, None, commands)?;
        }
        match done {
            Err(NotRewritten::Damaged(err)) => {
                self.shared.metrics.store.checksum_failures.inc();
                tracing::error!(error = %causes(&err), start_s, "damaged day, rewriting the rest");
            }
            done => return Ok(done.map_err(NotRewritten::into_error)),
        }
        let index = self.shared.index();
        let mut keys = index.metric_symbols(index.all());
        drop(index);
        keys.sort_unstable();
        let done = self.try_rewrite(start_s, Some(keys), commands)?;
        self.shared.measure_damaged();
        Ok(done.map_err(NotRewritten::into_error))
    }

    fn try_rewrite(
        &mut self,
        start_s: u32,
        salvage: Option<Vec<(u32, u32)>>,
        commands: &Receiver<Command>,
    ) -> Result<Result<(), NotRewritten<Gone>>, Gone> {
        let failed = NotRewritten::Failed;
        let salvaged = salvage.is_some();
        let begun = Instant::now();
        let shared = Arc::clone(&self.shared);
        // A time that nobody confirmed makes nothing old.
        let limits = self.limits(shared.clock.earliest());
        let files = Kind::RAW
            .iter()
            .filter_map(|kind| shared.days.get(start_s, *kind));
        let bytes = files.map(|file| file.disk_bytes()).sum();
        if let Err(err) = self.fit_budget(bytes)? {
            return Ok(Err(failed(err)));
        }
        let series = Series {
            group_of: |id| shared.index().group(id),
            labels_of: |id| shared.index().labels(id).unwrap_or_default(),
            trim: |series: &mut SealedSeries| trim(series, &limits),
        };
        let mut looked = Instant::now();
        let pause = || self.pause(commands, &mut looked);
        match shared.days.rewrite(start_s, salvage, series, pause) {
            Ok(samples) => {
                self.to_trim.remove(&start_s);
                if salvaged || !limits.is_empty() {
                    shared.changed.note_all();
                }
                if !limits.is_empty()
                    && let Err(err) = self.forget_unheld()?
                {
                    return Ok(Err(failed(err)));
                }
                let took = begun.elapsed();
                let metrics = &shared.metrics.store;
                metrics.rewrites.inc();
                metrics.rewrite_seconds.observe(took.as_secs_f64());
                tracing::info!(
                    start_s,
                    samples,
                    duration_ms = took.as_millis(),
                    "day rewritten"
                );
                Ok(Ok(()))
            }
            Err(NotRewritten::Stopped(Gone)) => Err(Gone),
            Err(err) => {
                shared.metrics.store.rewrite_failures.inc();
                Ok(Err(err))
            }
        }
    }

    /// Does what must not wait for a rewrite.
    pub(super) fn pause(
        &mut self,
        commands: &Receiver<Command>,
        looked: &mut Instant,
    ) -> ControlFlow<Gone> {
        let done = match commands.try_recv() {
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => Err(Gone),
            Ok(Command::Seal(reply)) => self.seal_all(reply),
            Ok(later @ (Command::Compact(_) | Command::Clean(_))) => {
                self.waiting.push(later);
                Ok(())
            }
            Err(TryRecvError::Empty) if looked.elapsed() >= LOOK => {
                *looked = Instant::now();
                self.tick()
            }
            Err(TryRecvError::Empty) => Ok(()),
        };
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(gone) => ControlFlow::Break(gone),
        }
    }
}
