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
//! | 5 runs | count of all rows varint, then runs |
//! | 10 reset | nothing: the value coders of all series start anew before the rows |
//!
//! Kinds 1 (scrape), 3 and 4 (series and symbols: they go to their tables in the
//! same transaction, so a second copy would only cost bytes), 8 (tombstone), 11
//! (native histogram) and 12 (metadata) are reserved. An unknown kind is refused,
//! never skipped.
//!
//! A run is `head varint | t varint, if it differs | rows varint, if not one | tokens`:
//! rows of neighbouring refs at one time, such as a scrape. The head's low bits
//! say: 1 the time differs from the run before (signed difference follows), 2 the
//! rows stand alone (their tokens are relative to 0 and leave the series' coders
//! as they are: late rows), 4 there is more than one row. The bits above are the
//! zigzag distance from the ref after the run before. The tokens are those of
//! [`super::token`], where one token says that up to 64 rows are unchanged.
//!
//! A row of kind 2 is a run of one, but that the bit 4 says that its value is the
//! series' previous one, and no token follows.
//!
//! `sequence` is the last number given to an outbox row or a dead letter.

use xxhash_rust::xxh3::xxh3_64;

use super::token::{self, Coder, SAME_MAX};
use super::varint::{self, Reader};

/// The version of the record's form.
const VERSION: u8 = 1;

const FRAME_ROWS: u8 = 2;
const FRAME_RUNS: u8 = 5;
const FRAME_RESET: u8 = 10;

const TIME_DIFFERS: u64 = 1;
const ALONE: u64 = 2;
const SAME_VALUE: u64 = 4;
const MANY: u64 = 4;
const FLAG_BITS: u32 = 3;

/// What the log knows of one series: its coder, and since which reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct LogState {
    coder: Coder,
    reset: u32,
}

impl LogState {
    /// The coder, fresh when there was a reset since it was last used.
    fn coder(&mut self, reset: u32) -> &mut Coder {
        if self.reset != reset {
            *self = LogState {
                coder: Coder::default(),
                reset,
            };
        }
        &mut self.coder
    }
}

/// A record in the making. Used again for the next one, so its buffers stay.
#[derive(Debug, Default)]
pub(super) struct Builder {
    /// Finished runs.
    runs: Vec<u8>,
    /// The tokens of the open run.
    tokens: Vec<u8>,
    run: Run,
    /// Where the run before the open one ended.
    last: Place,
    count: u64,
    reset: u32,
    resets: bool,
}

/// The open run.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    first: u32,
    t: i64,
    alone: bool,
    rows: u32,
    /// Its last rows that are unchanged and have no token yet.
    same: u8,
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
            self.reset += 1;
        }
    }

    /// Adds a row. `alone` rows leave the series' coder untouched.
    #[inline]
    pub(super) fn push(&mut self, series: u32, t: i64, v: f64, alone: bool, log: &mut LogState) {
        let mut fresh = Coder::default();
        let coder = if alone {
            &mut fresh
        } else {
            log.coder(self.reset)
        };
        if !self.run.goes_on(series, t, alone) {
            self.end_run();
            self.run = Run {
                first: series,
                t,
                alone,
                ..Run::default()
            };
        }
        let run = &mut self.run;
        run.rows += 1;
        self.count += 1;
        if coder.bits == v.to_bits() {
            run.same += 1;
            if run.same == SAME_MAX {
                self.tokens.push(token::same(SAME_MAX));
                run.same = 0;
            }
            return;
        }
        if run.same > 0 {
            self.tokens.push(token::same(run.same));
            run.same = 0;
        }
        coder.encode(v, &mut self.tokens);
    }

    fn end_run(&mut self) {
        let Run {
            first,
            t,
            alone,
            rows,
            same,
        } = std::mem::take(&mut self.run);
        if rows == 0 {
            return;
        }
        if same > 0 {
            self.tokens.push(token::same(same));
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
        self.runs.append(&mut self.tokens);
        self.last = Place {
            series: first + (rows - 1),
            t,
        };
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.runs.len() + self.tokens.len()
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
            let mut count = Vec::with_capacity(10);
            varint::put(&mut count, self.count);
            out.push(FRAME_RUNS);
            varint::put(out, (count.len() + self.runs.len()) as u64);
            out.extend_from_slice(&count);
            out.extend_from_slice(&self.runs);
        }
        let hash = xxh3_64(out);
        out.extend_from_slice(&hash.to_le_bytes());
        self.runs.clear();
        self.last = Place::default();
        self.count = 0;
        self.resets = false;
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
    /// Whether they are of kind 5.
    in_runs: bool,
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

impl Rows<'_> {
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

    /// Goes on behind the value of the row whose head was just read.
    #[inline]
    pub(super) fn skip(&mut self, head: RowHead) -> Result<(), Unreadable> {
        let skipped = head.same || token::skip(&mut self.reader).is_some();
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
        let mut fresh = Coder::default();
        let coder = if head.alone {
            &mut fresh
        } else {
            log.coder(reset)
        };
        if head.same {
            return Ok(f64::from_bits(coder.bits));
        }
        coder.decode(&mut self.reader).ok_or(Unreadable::Damaged)
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
    fn unchanged_rows_of_neighbours_share_a_byte() {
        let rows = |v: f64| (0..100).map(|r| (r, 5_000, v.to_bits(), false)).collect();
        let records = write(&[(true, rows(1.5)), (false, rows(1.5))]);
        // Version, flags, sequence, frames, kind, length, count, hash; head, time,
        // rows, and a token for 64 of them.
        let overhead = 4 + 3 + 8;
        assert_eq!(records[1].len(), overhead + 1 + 2 + 1 + 2);
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
