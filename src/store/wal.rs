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
//! (native histogram) and 12 (metadata) are reserved; 6 was a trial. An unknown kind
//! is refused, never skipped.
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
//! lanes. The bits of `lanes` say which there are. In kind 5 each run ends with the
//! tokens of its values ([`super::token`]), where one token says that up to 64 rows are
//! unchanged.
//!
//! A row of kind 2 is a run of one, but that the bit 4 says that its value is the
//! series' previous one, and no token follows.
//!
//! `sequence` is the last number given to an outbox row or a dead letter.

mod builder;
mod record;

pub(super) use self::builder::Builder;
pub(super) use self::record::{Record, Rows, Unreadable};

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

/// The ref and the time of a row.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    series: u32,
    t: i64,
}

#[cfg(test)]
mod tests;
