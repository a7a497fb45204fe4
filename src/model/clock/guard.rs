//! Which times are believed.
//!
//! While the machine's clock is trusted, [`Guard::now`] is what it says. Else it is
//! the last stored time and what passed since. A time is not trusted when it lies
//! before the build date, more than an hour before the time that was given out
//! last, or more than a year after it; until a time server confirms it, or the
//! clock steps to a time that is none of these. A box that starts in 1970 goes on
//! where it was stopped; a jump of 75 years or of six hours back changes nothing.
//!
//! A step forward of up to a year is followed at once, as it may be right: the box
//! was off. But nothing is deleted for its age by a time that nobody confirms. For
//! a day of running, [`Guard::bounds`] still starts at the time before the step;
//! a clock that comes back within that day has done no harm, and is believed.
//!
//! So is every shorter step forward that is taken back within a day, or within an
//! hour of the moment a time server confirmed it: two hours ahead for three seconds
//! cost those three seconds, also when the process is killed in between.
//!
//! It must never wait, and costs two reads of the kernel's clocks while all is well.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Clock, Reading};
use crate::model::Timestamp;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const YEAR_MS: i64 = 365 * DAY_MS;

/// How far back a trusted step may go.
const BACK_MAX_MS: i64 = HOUR_MS;

/// How far ahead a trusted step may go.
const AHEAD_MAX_MS: i64 = YEAR_MS;

/// The same, where nothing was ever stored that could be compared with.
const FIRST_AHEAD_MAX_MS: i64 = 30 * YEAR_MS;

/// A change of the machine's clock from here on is a jump.
const JUMP_MIN_MS: i64 = 1_000;

/// A step forward above this one has to prove itself before anything expires by it.
const PROVE_ABOVE_MS: i64 = DAY_MS;

/// How long the program has to run until an unconfirmed step counts as proven.
const PROVE_MS: i64 = DAY_MS;

/// How long a step forward may be taken back: while nobody confirmed it, ..
const RETURN_MS: i64 = DAY_MS;

/// .. and once a time server did, for servers are wrong now and then.
const RETURN_CONFIRMED_MS: i64 = HOUR_MS;

/// How often the time server's mark is looked for while it matters.
const ASK_EVERY_MS: i64 = 1_000;

/// Jumps that are remembered.
const JUMPS_MAX: usize = 64;

/// The machine's clock jumped, or began or ceased to be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Jump {
    /// When, by the time that was given out from then on.
    pub at: Timestamp,
    /// What the machine's clock said then.
    pub wall: Timestamp,
    /// How far the machine's clock jumped, in ms.
    pub by_ms: i64,
    /// How far the given time followed, in ms.
    pub followed_ms: i64,
    /// Whether the machine's clock was trusted from then on.
    pub is_trusted: bool,
}

/// What one process leaves for the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The time that was given out last.
    pub now: Timestamp,
    /// What that time would be without a step that is not proven.
    pub floor: Timestamp,
    /// How long the program still has to run until the step is proven, in ms.
    pub unproven_ms: i64,
    /// See [`Clock::steps_back`].
    pub steps_back: u32,
    /// What the time would be without a step forward that may yet be taken back.
    #[serde(default)]
    pub before: Option<Timestamp>,
    /// For how long that may be, in ms.
    #[serde(default)]
    pub return_ms: i64,
}

impl Saved {
    /// A process that ended at `now` and had nothing to prove.
    pub fn at(now: Timestamp) -> Saved {
        Saved {
            now,
            floor: now,
            unproven_ms: 0,
            steps_back: 0,
            before: None,
            return_ms: 0,
        }
    }
}

/// A clock that is followed as far as it can be trusted.
#[derive(Debug)]
pub struct Guard {
    source: Clock,
    build_ms: i64,
    trusts_all: bool,
    /// Copies of what the state says, for the usual case.
    is_trusted: AtomicBool,
    wall_offset: AtomicI64,
    state: Mutex<State>,
}

/// All offsets are to the monotonic clock, in ms.
#[derive(Debug)]
struct State {
    is_trusted: bool,
    /// Gives the time.
    offset: i64,
    /// Gives what the machine's clock says.
    wall_offset: i64,
    /// Gives the time without a step that is not proven; else equal to `offset`.
    floor_offset: i64,
    /// When a step forward is proven, by the monotonic clock.
    proven_at: Option<i64>,
    /// From where the last steps forward came.
    before: Option<Before>,
    /// Whether a time was ever given out that was right.
    is_anchored: bool,
    asked_at: i64,
    stepped_ms: i64,
    steps_back: u32,
    jumps: VecDeque<Jump>,
    jumps_total: u64,
}

/// The time as it was before a step forward that may be taken back.
#[derive(Clone, Copy, Debug)]
struct Before {
    /// Gives that time.
    offset: i64,
    /// Until when, by the monotonic clock.
    until: i64,
}

impl Guard {
    pub(super) fn new(source: Clock, build: Timestamp, trusts_all: bool) -> Guard {
        let reading = source.read();
        let wall_offset = reading.wall - reading.monotonic;
        let build_ms = build.as_ms();
        let offset = build_ms - reading.monotonic;
        let guard = Guard {
            source,
            build_ms,
            trusts_all,
            is_trusted: AtomicBool::new(false),
            wall_offset: AtomicI64::new(wall_offset),
            state: Mutex::new(State {
                is_trusted: false,
                offset,
                wall_offset,
                floor_offset: offset,
                proven_at: None,
                before: None,
                is_anchored: false,
                asked_at: i64::MIN,
                stepped_ms: 0,
                steps_back: 0,
                jumps: VecDeque::new(),
                jumps_total: 0,
            }),
        };
        let mut state = guard.state();
        guard.judge(&mut state, reading);
        // To find out what time it is at the beginning is no jump.
        state.forget_steps();
        drop(state);
        guard
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock that is followed.
    pub(super) fn source(&self) -> &Clock {
        &self.source
    }

    pub(super) fn now(&self) -> Timestamp {
        let reading = self.source.read();
        let by = reading.wall - reading.monotonic - self.wall_offset.load(Ordering::Acquire);
        if by.abs() < JUMP_MIN_MS && self.is_trusted.load(Ordering::Acquire) {
            return Timestamp::from_ms(reading.wall);
        }
        let mut state = self.state();
        self.judge(&mut state, reading);
        state.now(reading)
    }

    pub(super) fn wall(&self) -> Timestamp {
        self.source.wall()
    }

    /// The state, judged anew.
    fn judged(&self) -> (MutexGuard<'_, State>, Reading) {
        let reading = self.source.read();
        let mut state = self.state();
        self.judge(&mut state, reading);
        (state, reading)
    }

    /// The time is not before the first and not after the second.
    pub(super) fn bounds(&self) -> (Timestamp, Timestamp) {
        let (state, reading) = self.judged();
        let now = state.now(reading);
        let earliest = now.min(Timestamp::from_ms(reading.monotonic + state.floor_offset));
        let latest = match state.is_trusted {
            true => now,
            false => now.plus_ms(state.ahead_max()),
        };
        (earliest, latest)
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.judged().0.is_trusted
    }

    pub(super) fn stepped_ms(&self) -> i64 {
        self.judged().0.stepped_ms
    }

    pub(super) fn steps_back(&self) -> u32 {
        self.state().steps_back
    }

    pub(super) fn jumps(&self) -> (u64, Vec<Jump>) {
        let (state, _) = self.judged();
        (state.jumps_total, state.jumps.iter().copied().collect())
    }

    pub(super) fn save(&self) -> Saved {
        let (state, reading) = self.judged();
        Saved {
            now: state.now(reading),
            floor: Timestamp::from_ms(reading.monotonic + state.floor_offset),
            unproven_ms: state.proven_at.map_or(0, |at| at - reading.monotonic),
            steps_back: state.steps_back,
            before: state
                .before
                .map(|before| Timestamp::from_ms(reading.monotonic + before.offset)),
            return_ms: state
                .before
                .map_or(0, |before| before.until - reading.monotonic),
        }
    }

    /// Time goes on from `saved`, unless the machine's clock is to be believed.
    pub(super) fn resume(&self, saved: Saved) {
        let reading = self.source.read();
        let mut state = self.state();
        // Time has passed the build date since, whatever was stored.
        let line = saved.now.as_ms().max(self.build_ms);
        let floor = saved.floor.as_ms().max(self.build_ms).min(line);
        state.is_trusted = false;
        state.is_anchored = true;
        state.offset = line - reading.monotonic;
        state.floor_offset = floor - reading.monotonic;
        state.proven_at = (floor < line).then(|| reading.monotonic + saved.unproven_ms);
        state.before = saved.before.map(|before| Before {
            offset: before.as_ms().min(line) - reading.monotonic,
            until: reading.monotonic + saved.return_ms,
        });
        state.steps_back = saved.steps_back;
        state.asked_at = i64::MIN;
        self.judge(&mut state, reading);
        if state.is_trusted {
            // The time that the box was off.
            let steps_back = state.steps_back;
            state.forget_steps();
            state.steps_back = steps_back;
        } else {
            let by = state.wall_offset - state.offset;
            state.note(reading, by, 0);
        }
        drop(state);
    }

    /// Decides what to make of a reading.
    fn judge(&self, state: &mut State, reading: Reading) {
        let wall_offset = reading.wall - reading.monotonic;
        let by = wall_offset - state.wall_offset;
        let has_jumped = by.abs() >= JUMP_MIN_MS;
        let asks = has_jumped || state.asked_at.saturating_add(ASK_EVERY_MS) <= reading.monotonic;
        state.before = state.before.filter(|b| reading.monotonic < b.until);
        let is_open = state.proven_at.is_some() || state.before.is_some();
        let matters = has_jumped || !state.is_trusted || is_open;
        let is_confirmed = matters && (self.trusts_all || (asks && self.ask(state, reading)));
        if has_jumped || !state.is_trusted {
            let is_trusted = is_confirmed || self.is_sane(state, reading);
            if has_jumped || is_trusted != state.is_trusted {
                state.step(reading, is_trusted);
            }
        }
        if is_confirmed || state.proven_at.is_some_and(|at| at <= reading.monotonic) {
            state.proven_at = None;
            state.floor_offset = state.offset;
        }
        if is_confirmed && let Some(before) = &mut state.before {
            before.until = before.until.min(reading.monotonic + RETURN_CONFIRMED_MS);
        }
        self.is_trusted.store(state.is_trusted, Ordering::Release);
        self.wall_offset.store(state.wall_offset, Ordering::Release);
    }

    fn ask(&self, state: &mut State, reading: Reading) -> bool {
        state.asked_at = reading.monotonic;
        self.source.is_synchronised(reading)
    }

    /// Whether the machine's clock may be right, as far as we can tell.
    fn is_sane(&self, state: &State, reading: Reading) -> bool {
        let line = reading.monotonic + state.offset;
        let before = state.before.map_or(state.offset, |before| before.offset);
        let floor = line.min(reading.monotonic + state.floor_offset.min(before));
        let sane = floor - BACK_MAX_MS..=line.saturating_add(state.ahead_max());
        reading.wall >= self.build_ms && sane.contains(&reading.wall)
    }
}

impl State {
    fn now(&self, reading: Reading) -> Timestamp {
        Timestamp::from_ms(match self.is_trusted {
            true => reading.wall,
            false => reading.monotonic + self.offset,
        })
    }

    fn ahead_max(&self) -> i64 {
        if self.is_anchored {
            AHEAD_MAX_MS
        } else {
            FIRST_AHEAD_MAX_MS
        }
    }

    /// Follows the machine's clock, or ceases to.
    fn step(&mut self, reading: Reading, is_trusted: bool) {
        let wall_offset = reading.wall - reading.monotonic;
        let by = wall_offset - self.wall_offset;
        self.wall_offset = wall_offset;
        self.is_trusted = is_trusted;
        let mut followed = 0;
        if is_trusted {
            followed = wall_offset - self.offset;
            self.keep_before(reading, followed);
            self.offset = wall_offset;
            self.keep_floor(reading, followed);
            self.is_anchored = true;
        }
        self.note(reading, by, followed);
    }

    /// The time before the first of some steps forward, until they are taken back.
    fn keep_before(&mut self, reading: Reading, followed: i64) {
        match self.before {
            Some(before) if followed < 0 => {
                let is_back = self.offset + followed <= before.offset + BACK_MAX_MS;
                self.before = self.before.filter(|_| !is_back);
            }
            None if followed >= JUMP_MIN_MS && self.is_anchored => {
                self.before = Some(Before {
                    offset: self.offset,
                    until: reading.monotonic + RETURN_MS,
                });
            }
            _ => {}
        }
    }

    /// The floor stays where it is while a step forward is not proven.
    fn keep_floor(&mut self, reading: Reading, followed: i64) {
        let is_back = self.offset <= self.floor_offset.saturating_add(PROVE_ABOVE_MS);
        if !self.is_anchored || is_back {
            self.floor_offset = self.offset;
            self.proven_at = None;
        } else if followed > PROVE_ABOVE_MS || self.proven_at.is_none() {
            self.proven_at = Some(reading.monotonic + PROVE_MS);
        }
    }

    fn note(&mut self, reading: Reading, by_ms: i64, followed_ms: i64) {
        self.stepped_ms += followed_ms;
        if followed_ms <= -JUMP_MIN_MS {
            self.steps_back += 1;
        }
        if self.jumps.len() == JUMPS_MAX {
            self.jumps.pop_front();
        }
        self.jumps.push_back(Jump {
            at: self.now(reading),
            wall: Timestamp::from_ms(reading.wall),
            by_ms,
            followed_ms,
            is_trusted: self.is_trusted,
        });
        self.jumps_total += 1;
    }

    fn forget_steps(&mut self) {
        self.stepped_ms = 0;
        self.steps_back = 0;
        self.jumps.clear();
        self.jumps_total = 0;
    }
}

#[cfg(test)]
mod tests;
