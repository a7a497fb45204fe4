//! What the store does for the clock, and the clock for the store.
//!
//! The time that was given out last is kept in `Table::Kv` under `clock`, so that
//! a box without a clock of its own goes on where it stopped. The row rides along
//! with a commit once a minute; it says a minute more than it was, so that the next
//! process never gives a time out twice. Days expire by [`Clock::earliest`], and a
//! sample is taken up to [`FUTURE_MAX_MS`] after [`Clock::latest`].

use bytes::Bytes;
use redb::{Database, ReadableDatabase as _};

use super::Table;
use super::tables::{open_value, state_table};
use crate::model::clock::guard::Saved;
use crate::model::{Clock, Timestamp};

/// How far in the future a sample may lie, in milliseconds: clocks of devices
/// differ by minutes, not by hours.
pub const FUTURE_MAX_MS: i64 = 5 * 60 * 1_000;

/// The key of the row.
const KEY: &[u8] = b"clock";

/// How old the row may become while there are commits, in ms.
const SAVE_EVERY_MS: i64 = 60_000;

/// A time stored by a version that kept no row is believed up to here (2056).
const FOUND_MAX_MS: i64 = 2_714_000_000_000;

/// Reads the row; without one, the newest stored sample says what time it was.
pub(super) fn saved(db: &Database, newest_ms: i64) -> Result<Option<Saved>, redb::Error> {
    let table = db.begin_read()?.open_table(state_table(Table::Kv))?;
    let row = table.get(KEY)?;
    let row = row.and_then(|row| serde_json::from_slice(open_value(KEY, row.value())?).ok());
    let is_plausible = (0..FOUND_MAX_MS).contains(&newest_ms);
    let found = is_plausible.then(|| Saved::at(Timestamp::from_ms(newest_ms)));
    Ok(row.or(found))
}

/// Keeps the row young.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    last: Option<Saved>,
}

impl Keeper {
    /// The row to write with the open transaction, when it is time for one.
    pub(super) fn due(&mut self, clock: &Clock) -> Option<(Bytes, Bytes)> {
        let mut saved = clock.save()?;
        if self.last.is_some_and(|last| is_young(last, saved)) {
            return None;
        }
        self.last = Some(saved);
        saved.now = saved.now.plus_ms(SAVE_EVERY_MS);
        saved.floor = saved.floor.plus_ms(SAVE_EVERY_MS);
        let row = serde_json::to_vec(&saved).expect("a row is plain data");
        Some((Bytes::from_static(KEY), row.into()))
    }
}

/// Whether hardly more than a moment has passed.
fn is_young(last: Saved, now: Saved) -> bool {
    (0..SAVE_EVERY_MS).contains(&now.now.ms_since(last.now))
        && (0..SAVE_EVERY_MS).contains(&now.floor.ms_since(last.floor))
        && last.steps_back == now.steps_back
}

/// Tells the log what the clock does.
#[derive(Debug, Default)]
pub(super) struct Witness {
    told: u64,
}

impl Witness {
    /// Logs the jumps since the last call.
    pub(super) fn look(&mut self, clock: &Clock) {
        let (count, jumps) = clock.jumps();
        let new = usize::try_from(count - self.told).unwrap_or(usize::MAX);
        for jump in &jumps[jumps.len().saturating_sub(new)..] {
            tracing::warn!(
                at = %jump.at,
                wall = %jump.wall,
                jumped_ms = jump.by_ms,
                followed_ms = jump.followed_ms,
                trusted = jump.is_trusted,
                "the machine's clock jumped"
            );
        }
        self.told = count;
    }
}

#[cfg(test)]
mod tests;
