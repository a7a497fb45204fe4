//! How a record is written.

use xxhash_rust::xxh3::xxh3_64;

use super::{
    ALONE, FLAG_BITS, FRAME_PACKED, FRAME_RESET, LANES, LogState, MANY, Place, TIME_DIFFERS,
    VERSION, lane,
};
use crate::store::packed::{Bits, Same};
use crate::store::varint;

/// A record in the making. Used again for the next one, so its buffers stay.
#[derive(Debug, Default)]
pub(in crate::store) struct Builder {
    /// Finished runs.
    runs: Vec<u8>,
    /// The values of all rows.
    lanes: [Lane; LANES],
    run: Run,
    /// Where the run before the open one ended.
    last: Place,
    count: u64,
    reset: u32,
    resets: bool,
}

/// The values of the series of one lane.
#[derive(Debug, Default)]
struct Lane {
    same: Same,
    bits: Bits,
}

/// The open run.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    first: u32,
    t: i64,
    alone: bool,
    rows: u32,
}

impl Run {
    #[inline]
    fn goes_on(&self, series: u32, t: i64, alone: bool) -> bool {
        self.rows > 0
            && self.t == t
            && self.alone == alone
            && self.first.checked_add(self.rows) == Some(series)
    }
}

impl Builder {
    /// A builder that goes on after `reset` resets.
    pub(in crate::store) fn after(reset: u32) -> Builder {
        Builder {
            reset,
            ..Builder::default()
        }
    }

    /// Makes the next record one that starts all coders anew. Only while it is empty.
    pub(in crate::store) fn start_anew(&mut self) {
        assert!(self.is_empty(), "BUG: reset in the middle of a record");
        if !self.resets {
            self.resets = true;
            // A series that was quiet for four billion resets has no state any more.
            self.reset = self.reset.wrapping_add(1);
        }
    }

    /// Adds a row. `alone` rows leave the series' coder untouched.
    #[inline]
    pub(in crate::store) fn push(
        &mut self,
        series: u32,
        t: i64,
        v: f64,
        alone: bool,
        log: &mut LogState,
    ) {
        if !self.run.goes_on(series, t, alone) {
            self.end_run();
            self.run = Run {
                first: series,
                t,
                alone,
                ..Run::default()
            };
        }
        self.run.rows += 1;
        self.count += 1;
        let mut fresh = LogState::default();
        let state = match alone {
            true => &mut fresh,
            false => log.since(self.reset),
        };
        let Lane { same, bits } = &mut self.lanes[lane(series)];
        state.encode(v, same, bits);
    }

    fn end_run(&mut self) {
        let Run {
            first,
            t,
            alone,
            rows,
        } = std::mem::take(&mut self.run);
        if rows == 0 {
            return;
        }
        let distance = i64::from(first) - i64::from(self.last.series) - 1;
        let flags = u64::from(t != self.last.t) * TIME_DIFFERS
            + u64::from(alone) * ALONE
            + u64::from(rows > 1) * MANY;
        varint::put(
            &mut self.runs,
            (varint::zigzag(distance) << FLAG_BITS) | flags,
        );
        if t != self.last.t {
            varint::put_signed(&mut self.runs, t.wrapping_sub(self.last.t));
        }
        if rows > 1 {
            varint::put(&mut self.runs, u64::from(rows));
        }
        self.last = Place {
            series: first + (rows - 1),
            t,
        };
    }

    /// Bytes so far.
    pub(in crate::store) fn len(&self) -> usize {
        let lanes = self.lanes.iter();
        let values = lanes.map(|lane| lane.same.len() + lane.bits.len());
        self.runs.len() + values.sum::<usize>()
    }

    /// Whether there is no row.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many rows there are.
    pub(in crate::store) fn count(&self) -> u64 {
        self.count
    }

    /// Writes the record to `out` and empties the builder.
    pub(in crate::store) fn finish(&mut self, sequence: u64, out: &mut Vec<u8>) {
        self.end_run();
        out.clear();
        out.extend_from_slice(&[VERSION, 0]);
        varint::put(out, sequence);
        varint::put(out, u64::from(self.resets) + u64::from(self.count > 0));
        if self.resets {
            out.extend_from_slice(&[FRAME_RESET, 0]);
        }
        if self.count > 0 {
            self.put_frame(out);
        }
        let hash = xxh3_64(out);
        out.extend_from_slice(&hash.to_le_bytes());
        self.runs.clear();
        self.last = Place::default();
        self.count = 0;
        self.resets = false;
    }
}

impl Builder {
    /// Appends the frame of the rows.
    fn put_frame(&mut self, out: &mut Vec<u8>) {
        let (mut head, mut lengths, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut there = 0;
        for (at, Lane { same, bits }) in self.lanes.iter_mut().enumerate() {
            let begin = values.len();
            same.finish(&mut values);
            let between = values.len();
            bits.finish(&mut values);
            if values.len() > begin {
                there |= 1 << at;
                varint::put(&mut lengths, (between - begin) as u64);
                varint::put(&mut lengths, (values.len() - between) as u64);
            }
        }
        varint::put(&mut head, self.count);
        varint::put(&mut head, self.runs.len() as u64);
        head.push(there);
        head.append(&mut lengths);
        out.push(FRAME_PACKED);
        varint::put(out, (head.len() + self.runs.len() + values.len()) as u64);
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.runs);
        out.extend_from_slice(&values);
    }
}
