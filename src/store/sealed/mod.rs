//! Sealed data: the files that hold the samples of past windows, by UTC day.
//!
//! Owns the format of `l0-YYYYMMDD.redb` (hours as they were sealed),
//! `day-YYYYMMDD.redb` (a day rewritten once) and `roll5m-`, `roll1h-YYYYMMDD.redb`
//! (what the day's buckets come to), and everything in it: value columns,
//! timestamp columns, pages with their own checksums, generations. The sealer
//! thread writes here, queries read here; the two never block each other.
//!
//! It must never make a half-written generation visible, hand out a byte whose
//! checksum it has not checked, or answer with less data than was sealed
//! without saying so.

mod coded;
pub mod column;
mod ends;
pub mod file;
pub(super) mod frozen;
mod intpack;
mod ints;
pub(super) mod kept;
mod merged;
mod name;
pub mod page;
mod pco;
mod read;
mod rolled;
mod seal;
mod tables;
pub mod times;
mod varint;
mod walk;
mod xor;

pub use column::Malformed;
pub use file::{Covered, Error, Generation, SealedFile, SealedSeries};
pub use merged::{Ended, Merged, Short};
pub use name::Kind;
pub use read::Room;
pub use rolled::{RolledSeries, Rolls, bucket_end};
#[cfg(test)]
pub(crate) use tables::{flip_stat, flip_window};
pub use walk::BadRow;
