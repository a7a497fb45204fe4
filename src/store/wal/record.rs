//! How a record is read: checked, split into frames, row by row.

use xxhash_rust::xxh3::xxh3_64;

use super::{
    ALONE, FLAG_BITS, FRAME_PACKED, FRAME_RESET, FRAME_ROWS, FRAME_RUNS, LANES, LogState, MANY,
    Place, SAME_VALUE, TIME_DIFFERS, VERSION, lane,
};
use crate::store::packed::{BitReader, SameReader};
use crate::store::token;
use crate::store::varint::{self, Reader};

/// Why a record cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::store) enum Unreadable {
    /// Its bytes are not those that were written.
    #[error("damaged log record")]
    Damaged,
    /// A newer version wrote it.
    #[error("log record of version {0}, expected {VERSION}: written by a newer pulse")]
    Version(u8),
    /// A newer version wrote it.
    #[error("log record with unknown frame kind {0}: written by a newer pulse")]
    Frame(u8),
}

/// A record that was checked and split.
#[derive(Clone, Debug)]
pub(in crate::store) struct Record<'a> {
    /// The last number given to an outbox row or a dead letter.
    pub(in crate::store) sequence: u64,
    /// Whether all coders start anew before its rows.
    pub(in crate::store) resets: bool,
    /// Its rows.
    pub(in crate::store) rows: Rows<'a>,
}

impl<'a> Record<'a> {
    /// Checks the hash and splits the frames.
    pub(in crate::store) fn parse(bytes: &'a [u8]) -> Result<Record<'a>, Unreadable> {
        let at = bytes.len().checked_sub(8).ok_or(Unreadable::Damaged)?;
        let (body, hash) = bytes.split_at(at);
        if hash != xxh3_64(body).to_le_bytes() {
            return Err(Unreadable::Damaged);
        }
        let mut reader = Reader(body);
        match reader.byte() {
            Some(VERSION) => {}
            Some(version) => return Err(Unreadable::Version(version)),
            None => return Err(Unreadable::Damaged),
        }
        Record::frames(reader).ok_or(Unreadable::Damaged)?
    }

    /// The part behind the version; `None` when it ends too early.
    fn frames(mut reader: Reader<'a>) -> Option<Result<Record<'a>, Unreadable>> {
        reader.byte()?;
        let mut record = Record {
            sequence: reader.number()?,
            resets: false,
            rows: Rows::default(),
        };
        for _ in 0..reader.number()? {
            let kind = reader.byte()?;
            let len = usize::try_from(reader.number()?).ok()?;
            let mut payload = Reader(reader.bytes(len)?);
            match kind {
                FRAME_RESET => record.resets = true,
                FRAME_ROWS | FRAME_RUNS => {
                    record.rows = Rows {
                        left: payload.number()?,
                        reader: payload,
                        in_runs: kind == FRAME_RUNS,
                        ..Rows::default()
                    };
                }
                FRAME_PACKED => record.rows = Rows::packed(payload)?,
                kind => return Some(Err(Unreadable::Frame(kind))),
            }
        }
        Some(Ok(record))
    }
}

/// Reads rows one by one: first the head, then, with the series' state, the value.
#[derive(Clone, Debug)]
pub(in crate::store) struct Rows<'a> {
    reader: Reader<'a>,
    /// Rows that were not read yet.
    left: u64,
    /// Whether they are in runs: of kind 5 or 7.
    in_runs: bool,
    /// The values of kind 7.
    packed: Option<[LaneReader<'a>; LANES]>,
    last: Place,
    alone: bool,
    /// Rows of the open run that were not read yet.
    run: u64,
    /// The next rows of the open run that are unchanged.
    same: u8,
}

impl Default for Rows<'_> {
    fn default() -> Self {
        Rows {
            reader: Reader(&[]),
            left: 0,
            in_runs: false,
            packed: None,
            last: Place::default(),
            alone: false,
            run: 0,
            same: 0,
        }
    }
}

/// Whose row it is, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct RowHead {
    pub(in crate::store) series: u32,
    pub(in crate::store) t: i64,
    alone: bool,
    same: bool,
}

/// Reads the values of one lane.
#[derive(Clone, Debug, Default)]
struct LaneReader<'a> {
    same: SameReader<'a>,
    bits: BitReader<'a>,
}

impl<'a> Rows<'a> {
    fn packed(mut payload: Reader<'a>) -> Option<Rows<'a>> {
        let left = payload.number()?;
        let runs = usize::try_from(payload.number()?).ok()?;
        let there = payload.byte()?;
        let mut lengths = [(0, 0); LANES];
        for (_, length) in lanes_of(there, &mut lengths) {
            let counts = usize::try_from(payload.number()?).ok()?;
            *length = (counts, usize::try_from(payload.number()?).ok()?);
        }
        let runs = payload.bytes(runs)?;
        let mut lanes: [LaneReader<'a>; LANES] = Default::default();
        for (at, lane) in lanes_of(there, &mut lanes) {
            let (counts, bits) = lengths[at];
            lane.same = SameReader::new(payload.bytes(counts)?);
            lane.bits = BitReader::new(payload.bytes(bits)?);
        }
        Some(Rows {
            left,
            reader: Reader(runs),
            in_runs: true,
            packed: Some(lanes),
            ..Rows::default()
        })
    }
}

/// Those of the lanes that are there.
fn lanes_of<T>(there: u8, all: &mut [T; LANES]) -> impl Iterator<Item = (usize, &mut T)> {
    let lanes = all.iter_mut().enumerate();
    lanes.filter(move |(at, _)| there >> at & 1 == 1)
}

impl Rows<'_> {
    /// How many rows were not read yet.
    pub(in crate::store) fn count(&self) -> u64 {
        self.left
    }

    /// The next row's head; `Ok(None)` after the last one.
    pub(in crate::store) fn head(&mut self) -> Result<Option<RowHead>, Unreadable> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.read_head().map(Some).ok_or(Unreadable::Damaged)
    }

    #[inline]
    fn read_head(&mut self) -> Option<RowHead> {
        if self.run > 0 {
            self.last.series = self.last.series.checked_add(1)?;
        } else {
            let flags = self.read_place()?;
            if !self.in_runs {
                return Some(self.row(flags & SAME_VALUE != 0));
            }
            self.same = 0;
            self.run = match flags & MANY {
                0 => 1,
                _ => self.reader.number()?.max(1),
            };
        }
        self.run -= 1;
        if self.packed.is_some() {
            return Some(self.row(false));
        }
        if self.same == 0
            && let Some(count) = token::same_count(*self.reader.0.first()?)
        {
            self.reader.byte()?;
            self.same = count;
        }
        let is_same = self.same > 0;
        self.same = self.same.saturating_sub(1);
        Some(self.row(is_same))
    }

    /// Reads where a run or a row of kind 2 begins; gives the flags.
    fn read_place(&mut self) -> Option<u64> {
        let head = self.reader.number()?;
        let distance = varint::unzigzag(head >> FLAG_BITS);
        let series = i64::from(self.last.series)
            .checked_add(1)?
            .checked_add(distance)?;
        self.last.series = u32::try_from(series).ok()?;
        if head & TIME_DIFFERS != 0 {
            self.last.t = self.last.t.wrapping_add(self.reader.signed()?);
        }
        self.alone = head & ALONE != 0;
        Some(head)
    }

    fn row(&self, same: bool) -> RowHead {
        RowHead {
            series: self.last.series,
            t: self.last.t,
            alone: self.alone,
            same,
        }
    }

    /// Goes on behind the value of the row whose head was just read. Who skips one of a
    /// lane skips all of that lane.
    #[inline]
    pub(in crate::store) fn skip(&mut self, head: RowHead) -> Result<(), Unreadable> {
        let skipped = self.packed.is_some() || head.same || token::skip(&mut self.reader).is_some();
        skipped.then_some(()).ok_or(Unreadable::Damaged)
    }

    /// The value of the row whose head was just read. `reset` counts the resets so far.
    #[inline]
    pub(in crate::store) fn value(
        &mut self,
        head: RowHead,
        reset: u32,
        log: &mut LogState,
    ) -> Result<f64, Unreadable> {
        let mut fresh = LogState::default();
        let state = match head.alone {
            true => &mut fresh,
            false => log.since(reset),
        };
        let mut coder = state.coder();
        let v = match &mut self.packed {
            Some(lanes) => {
                let LaneReader { same, bits } = &mut lanes[lane(head.series)];
                return state.decode(same, bits).ok_or(Unreadable::Damaged);
            }
            None if head.same => f64::from_bits(coder.bits),
            None => coder.decode(&mut self.reader).ok_or(Unreadable::Damaged)?,
        };
        state.go_on_as(coder);
        Ok(v)
    }
}
