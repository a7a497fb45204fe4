//! What the sealer does when disk or memory run short.
//!
//! On the disk roll-ups go first, those of 5 minutes before those of an hour, then the
//! oldest sealed file, one at each look, as a reader may hold the blocks of the last one
//! for a while; samples of the newest day stay. In
//! memory the open hour is sealed early. Only when sealing fails as well, and the
//! head is a quarter above `[store] head_max`, are samples withheld.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::Error;
use super::super::disk::causes;
use super::super::pressure::{Cause, Level};
use super::super::sealed::Kind;
use super::super::shared::Shared;
use super::super::writer::Job;
use super::{Gone, NO_WINDOW, Sealer, gauge, is_time_again};

/// What a sample takes in memory at most, roughly.
const SAMPLE_BYTES: u64 = 16;

/// The open hour is sealed for the sake of the process' memory at most so often:
/// what was freed may not have gone back to the machine.
const MEMORY_PAUSE: Duration = Duration::from_secs(60);

/// And only if the head is at least this part of the limit.
const MEMORY_PART: u64 = 32;

/// On a full disk all is sealed at most so often.
const ROOM_PAUSE: Duration = Duration::from_secs(30);

/// And only if the log takes so many times as much as an empty file.
const LOG_PART: u64 = 2;

/// What a file takes beside the samples.
const SEALED_BYTES: u64 = 256 << 10;

impl Sealer {
    /// Measures the memory; says whether the open hour has to be sealed early.
    pub(super) fn measure(&mut self) -> bool {
        let shared = &*self.shared;
        let store = &shared.metrics.store;
        let bytes = shared.head.bytes();
        store.head_bytes.set(gauge(bytes));
        store.head_series.set(gauge(shared.head.series()));
        let (bytes, max) = (bytes as u64, shared.options.store.head_max.get());
        let is_large = bytes > max;
        let is_stuck = bytes > max + max / 4 && !self.parts.is_empty();
        let level = match (is_stuck, is_large) {
            (true, _) => Level::Withhold,
            (false, true) => Level::Shed,
            (false, false) => Level::Calm,
        };
        let more = (max + max / 4).saturating_sub(bytes).max(max / 4) / SAMPLE_BYTES;
        let samples_max = shared.head.samples().saturating_add(more.max(1));
        shared
            .head_samples_max
            .store(samples_max, Ordering::Relaxed);
        shared.pressure.set(Cause::Head, level, store);
        is_large || self.is_short_of_memory(bytes)
    }

    fn is_short_of_memory(&mut self, head_bytes: u64) -> bool {
        let shared = &*self.shared;
        let level = shared.memory.level();
        let store = &shared.metrics.store;
        shared.pressure.set(Cause::Memory, level, store);
        let helps = head_bytes >= shared.memory.limit() / MEMORY_PART;
        level >= Level::Shed && helps && is_time_again(&mut self.sealed_for_memory, MEMORY_PAUSE)
    }

    /// Seals what is in the log although the disk is full, where that frees far more than
    /// it takes and the reserve can pay for it: one window after the other, as each makes
    /// room for the next.
    pub(super) fn seal_for_room(&mut self) -> Result<(), Gone> {
        if !self.pays() || !is_time_again(&mut self.sealed_for_room, ROOM_PAUSE) {
            return Ok(());
        }
        self.take(NO_WINDOW)?;
        self.shared.space.release_reserve();
        self.parts.sort_unstable_by_key(|part| part.first_seq);
        let mut left = self.parts.len();
        while left > 0 {
            if let Err(err) = self.seal_first(1)? {
                tracing::error!(error = %causes(&err), "cannot seal, trying again");
            }
            self.free_log()?;
            // Where one fails those behind it wait with it.
            left = match self.parts.len() {
                still if still == left => 0,
                fewer => fewer,
            };
        }
        Ok(())
    }

    fn pays(&self) -> bool {
        let shared = &*self.shared;
        let log = u64::try_from(shared.metrics.store.wal_bytes.get()).unwrap_or(0);
        let head = shared.head.bytes() as u64;
        let parts = shared.parts();
        let first = parts.all().min_by_key(|part| part.first_seq);
        let samples = first.map_or(0, |part| part.samples);
        let part = head.saturating_mul(samples) / shared.head.samples().max(1);
        // Half of what is in memory is more than most files come to.
        let is_large = log >= LOG_PART * SEALED_BYTES && log >= head / 2;
        samples > 0 && is_large && SEALED_BYTES + part <= shared.space.room_with_reserve()
    }

    /// Gives the log that is sealed back to the disk at once.
    pub(super) fn free_log(&mut self) -> Result<(), Gone> {
        if let Err(err) = self.ask(Job::Compact)? {
            tracing::warn!(error = %causes(&err), "cannot make the log smaller");
        }
        Ok(())
    }

    /// Makes room on a disk that is nearly full, and the reserve on one that is not.
    pub(super) fn make_room(&mut self) -> Result<(), Gone> {
        let shared = &*self.shared;
        let store = &shared.metrics.store;
        let level = shared.space.look(0, &shared.pressure, store);
        if level == Level::Calm {
            if let Err(err) = shared.space.keep_reserve() {
                tracing::warn!(error = %err, "cannot set the reserve aside");
            }
            return Ok(());
        }
        match shed_one(shared) {
            Ok(None) => return Ok(()),
            Ok(Some(kind)) if kind.is_roll() => self.pause_rolls(),
            Ok(Some(_)) => {}
            Err(err) => {
                tracing::error!(error = %causes(&err), "cannot make room on the disk");
                return Ok(());
            }
        }
        if let Err(err) = self.forget_unheld()? {
            tracing::error!(error = %causes(&err), "cannot find the series that are gone");
        }
        Ok(())
    }
}

/// Removes the sealed file that leaves first; says what it was, if there was one and it
/// may go.
///
/// # Errors
/// When it cannot be removed.
pub(in crate::store) fn shed_one(shared: &Shared) -> Result<Option<Kind>, Error> {
    let first = shared.days.first_to_leave();
    let Some(oldest) = first.filter(|_| shared.space.sheds()) else {
        return Ok(None);
    };
    shared.days.remove(&oldest)?;
    shared.days.forget_missing_before(&oldest);
    shared.changed.note_all();
    shared.metrics.store.shed_files.inc();
    shared.measure_rolls();
    tracing::warn!(path = %oldest.path.display(), "removed to make room on the disk");
    Ok(Some(oldest.kind))
}
