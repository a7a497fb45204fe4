//! The log record: what one commit says about samples, and its checksum.
//!
//! ```text
//! record = version u8 | flags u8 | sequence varint | frames varint | frame.. | xxh3-64 (LE)
//! frame  = kind u8 | length varint | payload
//! ```
//!
//! | kind | payload |
//! |---|---|
//! | 2 rows | count varint, then rows, as written before there were runs; read only |
//! | 5 runs | count of all rows varint, then runs, as written before values were packed; read only |
//! | 7 packed | count of all rows varint, bytes of the runs varint, lanes u8, for each of them bytes of the counts varint and of the bits varint; runs; counts and bits of each lane |
//! | 10 reset | nothing: the value coders of all series start anew before the rows |
//!
//! Kinds 1 (scrape), 3 and 4 (series and symbols: they go to their tables in the
//! same transaction, so a second copy would only cost bytes), 8 (tombstone), 11
//! (native histogram) and 12 (metadata) are reserved; 6 was a trial. An unknown kind is refused,
//! never skipped.
//!
//! A run is `head varint | t varint, if it differs | rows varint, if not one`: rows
//! of neighbouring refs at one time, such as a scrape. The head's low bits say: 1 the
//! time differs from the run before (signed difference follows), 2 the rows stand
//! alone (their values lean on none and leave the series' coders as they are: late
//! rows), 4 there is more than one row. The bits above are the zigzag distance from
//! the ref after the run before. The values of all rows stand behind all runs, in the
//! code of [`super::packed`]. What a value takes shows only who knows the state of its
//! series, so the values are in up to four lanes, each with the series of some shards
//! of the head ([`lane`]): threads that replay a share of the shards each read whole
//! lanes. The bits of `lanes` say which there are. In kind 5 each run ends with the tokens of its values
//! ([`super::token`]), where one token says that up to 64 rows are unchanged.
//!
//! A row of kind 2 is a run of one, but that the bit 4 says that its value is the
//! series' previous one, and no token follows.
//!
//! `sequence` is the last number given to an outbox row or a dead letter.

use xxhash_rust::xxh3::xxh3_64;

use super::packed::{BitReader, Bits, Same, SameReader};
use super::token;
use super::varint::{self, Reader};

/// What the log knows of one series.
pub(super) use super::packed::State as LogState;

/// The version of the record's form.
const VERSION: u8 = 1;

const FRAME_ROWS: u8 = 2;
const FRAME_RUNS: u8 = 5;
const FRAME_PACKED: u8 = 7;
const FRAME_RESET: u8 = 10;

const TIME_DIFFERS: u64 = 1;
const ALONE: u64 = 2;
const SAME_VALUE: u64 = 4;
const MANY: u64 = 4;
const FLAG_BITS: u32 = 3;

/// How many lanes there are.
pub(super) const LANES: usize = 4;

/// The lane of a series, part of the format. Series of one shard of the head share it.
#[inline]
pub(super) fn lane(series: u32) -> usize {
    (series >> 8) as usize % LANES
}

/// A record in the making. Used again for the next one, so its buffers stay.
#[derive(Debug, Default)]
pub(super) struct Builder {
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

/// The ref and the time of a row.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    series: u32,
    t: i64,
}

impl Builder {
    /// A builder that goes on after `reset` resets.
    pub(super) fn after(reset: u32) -> Builder {
        Builder {
            reset,
            ..Builder::default()
        }
    }

    /// Makes the next record one that starts all coders anew. Only while it is empty.
    pub(super) fn start_anew(&mut self) {
        assert!(self.is_empty(), "BUG: reset in the middle of a record");
        if !self.resets {
            self.resets = true;
            // A series that was quiet for four billion resets has no state any more.
            self.reset = self.reset.wrapping_add(1);
        }
    }

    /// Adds a row. `alone` rows leave the series' coder untouched.
    #[inline]
    pub(super) fn push(&mut self, series: u32, t: i64, v: f64, alone: bool, log: &mut LogState) {
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
    pub(super) fn len(&self) -> usize {
        let lanes = self.lanes.iter();
        let values = lanes.map(|lane| lane.same.len() + lane.bits.len());
        self.runs.len() + values.sum::<usize>()
    }

    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many rows there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Writes the record to `out` and empties the builder.
    pub(super) fn finish(&mut self, sequence: u64, out: &mut Vec<u8>) {
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

/// Why a record cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unreadable {
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
pub(super) struct Record<'a> {
    /// The last number given to an outbox row or a dead letter.
    pub(super) sequence: u64,
    /// Whether all coders start anew before its rows.
    pub(super) resets: bool,
    /// Its rows.
    pub(super) rows: Rows<'a>,
}

impl<'a> Record<'a> {
    /// Checks the hash and splits the frames.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Record<'a>, Unreadable> {
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
pub(super) struct Rows<'a> {
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
pub(super) struct RowHead {
    pub(super) series: u32,
    pub(super) t: i64,
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
    pub(super) fn count(&self) -> u64 {
        self.left
    }

    /// The next row's head; `Ok(None)` after the last one.
    pub(super) fn head(&mut self) -> Result<Option<RowHead>, Unreadable> {
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
    pub(super) fn skip(&mut self, head: RowHead) -> Result<(), Unreadable> {
        let skipped = self.packed.is_some() || head.same || token::skip(&mut self.reader).is_some();
        skipped.then_some(()).ok_or(Unreadable::Damaged)
    }

    /// The value of the row whose head was just read. `reset` counts the resets so far.
    #[inline]
    pub(super) fn value(
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    type Row = (u32, i64, u64, bool);

    fn write(records: &[(bool, Vec<Row>)]) -> Vec<Vec<u8>> {
        let mut states: HashMap<u32, LogState> = HashMap::new();
        let mut builder = Builder::default();
        let mut all = Vec::new();
        for (i, (reset, rows)) in records.iter().enumerate() {
            if *reset {
                builder.start_anew();
            }
            for (series, t, bits, alone) in rows {
                let log = states.entry(*series).or_default();
                builder.push(*series, *t, f64::from_bits(*bits), *alone, log);
            }
            let mut out = Vec::new();
            builder.finish(i as u64, &mut out);
            all.push(out);
        }
        all
    }

    fn read(records: &[Vec<u8>]) -> Result<Vec<(u32, i64, u64)>, Unreadable> {
        let mut states: HashMap<u32, LogState> = HashMap::new();
        let mut reset = 0;
        let mut all = Vec::new();
        for bytes in records {
            let mut record = Record::parse(bytes)?;
            reset += u32::from(record.resets);
            let mut others = record.rows.clone();
            while let Some(head) = record.rows.head()? {
                let log = states.entry(head.series).or_default();
                assert_eq!(others.head()?, Some(head));
                others.skip(head)?;
                let v = record.rows.value(head, reset, log)?;
                all.push((head.series, head.t, v.to_bits()));
            }
        }
        Ok(all)
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        prop::collection::vec(
            (
                prop_oneof![0_u32..20, any::<u32>()],
                prop_oneof![0_i64..100, any::<i64>()],
                prop_oneof![
                    any::<u64>(),
                    (0_i32..50).prop_map(|i| f64::from(i).to_bits())
                ],
                any::<bool>(),
            ),
            0..60,
        )
    }

    proptest! {
        #[test]
        fn rows_survive(records in prop::collection::vec((any::<bool>(), rows()), 1..5)) {
            let want: Vec<_> = records
                .iter()
                .flat_map(|(_, rows)| rows.iter().map(|(r, t, v, _)| (*r, *t, *v)))
                .collect();
            prop_assert_eq!(read(&write(&records)).unwrap(), want);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(read(&[bytes.clone()]).is_err());
            // With the right hash and version the rest is still arbitrary.
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let hash = xxh3_64(&bytes);
            bytes.extend_from_slice(&hash.to_le_bytes());
            drop(read(&[bytes]));
        }

        #[test]
        fn a_changed_byte_is_seen(rows in rows(), at: prop::sample::Index, xor in 1_u8..) {
            let mut records = write(&[(true, rows)]);
            let at = at.index(records[0].len());
            records[0][at] ^= xor;
            prop_assert_eq!(read(&records), Err(Unreadable::Damaged));
        }
    }

    #[test]
    fn unchanged_rows_cost_nothing() {
        let rows = |v: f64| (0..100).map(|r| (r, 5_000, v.to_bits(), false)).collect();
        let records = write(&[(true, rows(1.5)), (false, rows(1.5)), (false, rows(1.5))]);
        // Version, flags, sequence, frames, kind, length, count, runs, lanes, counts,
        // bits; head, time, rows; a count; hash.
        assert_eq!(records[2].len(), 11 + 1 + 2 + 1 + 1 + 8);
    }

    /// A record with one frame of rows behind a reset.
    fn record(kind: u8, rows: &[u8]) -> Vec<u8> {
        let len = u8::try_from(rows.len()).unwrap();
        let mut bytes = vec![VERSION, 0, 7, 2, FRAME_RESET, 0, kind, len];
        bytes.extend_from_slice(rows);
        let hash = xxh3_64(&bytes);
        bytes.extend_from_slice(&hash.to_le_bytes());
        bytes
    }

    #[test]
    fn runs_of_tokens_are_read() {
        // Series 1 to 4 at 10 are 1.5, 0, 0 and 2; series 1 at 12 is 1 and late.
        let mut rows = vec![5, 0x01 | 0x04, 20, 4, 0x41, 0x51, 30, 0x01, 0x63];
        rows.extend_from_slice(&[0x03 | (7 << 3), 4, 0x61]);
        let bits = f64::to_bits;
        let want = [
            (1, 10, bits(1.5)),
            (2, 10, 0),
            (3, 10, 0),
            (4, 10, bits(2.0)),
            (1, 12, bits(1.0)),
        ];
        assert_eq!(read(&[record(FRAME_RUNS, &rows)]).unwrap(), want);
    }

    #[test]
    fn rows_of_the_form_before_runs_are_read() {
        // Reset; series 1 at 10 is 1.5, series 2 at 10 is 0, series 1 at 12 is late.
        let mut bytes = vec![VERSION, 0, 7, 2, FRAME_RESET, 0, FRAME_ROWS, 0, 3];
        bytes.extend_from_slice(&[0x01, 20, 0x41, 0x51, 30]);
        bytes.push(0x04);
        bytes.extend_from_slice(&[0x03 | (3 << 3), 4, 0x51, 2]);
        bytes[7] = u8::try_from(bytes.len() - 8).unwrap();
        let hash = xxh3_64(&bytes);
        bytes.extend_from_slice(&hash.to_le_bytes());
        let want = [
            (1, 10, 1.5_f64.to_bits()),
            (2, 10, 0),
            (1, 12, 1.0_f64.to_bits()),
        ];
        assert_eq!(read(&[bytes]).unwrap(), want);
    }

    #[test]
    fn a_newer_record_is_refused_with_a_sentence() {
        let with_hash = |mut bytes: Vec<u8>| {
            let hash = xxh3_64(&bytes);
            bytes.extend_from_slice(&hash.to_le_bytes());
            Record::parse(&bytes).unwrap_err().to_string()
        };
        assert!(with_hash(vec![2, 0, 0, 0]).contains("version 2, expected 1"));
        assert!(with_hash(vec![1, 0, 0, 1, 11, 0]).contains("unknown frame kind 11"));
    }
}
