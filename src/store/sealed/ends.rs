//! The ends of columns, decoded.
//!
//! Instant queries and rules look at the last minutes again and again. Those of a series
//! that still gets samples are in memory, but for some minutes after a seal and after a
//! start they are the end of a column, and to come to its last twenty values means to
//! decode up to a thousand. So the ends that somebody asked for stay, as many as fit into
//! a fixed number of bytes. When these are full all of them go: who looks at more series
//! than fit decodes columns, as if there was nothing here.
//!
//! An end is found under the number of its file ([`super::kept`]), and what is sealed
//! never changes: it is never older than its file. What was deleted is not in question
//! here, the reader leaves it out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::kept::Place;
use crate::model::Sample;

/// The most samples of an end: more are not worth their memory.
pub(super) const SAMPLES_MAX: usize = 64;
/// In a range longer than so many ms there are mostly more.
const RANGE_MAX_MS: i64 = 3_600_000;
/// What an end costs beside its samples.
const OVERHEAD: usize = 88;

/// The ends of the columns of all files.
#[derive(Default)]
pub(super) struct Ends {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the place of the column's entry.
    ends: HashMap<Place, End>,
    bytes: usize,
}

/// All samples of a column from a time on.
struct End {
    from: i64,
    samples: Box<[Sample]>,
}

/// Which samples are wanted: those of a closed range, or of these the newest.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) range: (i64, i64),
    pub(super) newest_only: bool,
}

impl Wanted {
    /// Whether an end may have them.
    pub(super) fn is_short(&self) -> bool {
        self.range.1.saturating_sub(self.range.0) <= RANGE_MAX_MS
    }
}

impl Ends {
    /// Keeps ends of so many bytes; 0 keeps none.
    pub(super) fn new(bytes_max: usize) -> Ends {
        Ends {
            bytes_max,
            ..Ends::default()
        }
    }

    /// Appends the wanted samples of a column; says no when it is not known which these are.
    pub(super) fn read(&self, column: Place, wanted: Wanted, out: &mut Vec<Sample>) -> bool {
        let state = self.lock();
        let Some(End { from, samples }) = state.ends.get(&column) else {
            return false;
        };
        let (start, end) = wanted.range;
        let to = samples.partition_point(|s| s.t.as_ms() <= end);
        let mut at = samples[..to].partition_point(|s| s.t.as_ms() < start);
        if wanted.newest_only && to > 0 {
            at = at.max(to - 1);
        } else if start < *from {
            return false;
        }
        out.extend_from_slice(&samples[at..to]);
        true
    }

    /// Keeps all samples that a column has from a time on, if they are not too many.
    pub(super) fn keep(&self, column: Place, from: i64, samples: &[Sample]) {
        let size = size_of_val(samples) + OVERHEAD;
        if samples.len() > SAMPLES_MAX || size > self.bytes_max {
            return;
        }
        let mut state = self.lock();
        if state.bytes + size > self.bytes_max {
            *state = State::default();
        }
        let samples = samples.into();
        state.bytes += size;
        if let Some(old) = state.ends.insert(column, End { from, samples }) {
            state.bytes -= size_of_val(&*old.samples) + OVERHEAD;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
