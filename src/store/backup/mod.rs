//! Backup and restore: the whole data directory in one file, while it is in use.
//!
//! Owns the form of that file ([`archive`]) and what goes into it: sealed files
//! byte by byte, `hot.redb` row by row ([`hot`]), other files as they are.
//!
//! It must never wait for the writer nor let it wait, hold more than some pieces
//! in memory, or touch a directory before the whole backup was found whole.
//!
//! # Why the copy is one moment's state
//!
//! From the first byte to the look at `hot.redb` no log record is deleted and no
//! sealed file is replaced or removed. The sealed files are copied first, then one
//! read transaction of `hot.redb`, whose last commit is the backup's. So a sample
//! acknowledged before that commit is in the log, or was sealed before the copy of
//! its file. What is in both is one sample: the files say which transactions they
//! hold. The other order would lose what is sealed and cut between the two looks.
//!
//! A file of hours can get another hour meanwhile; its copy holds the sealer back,
//! nobody else, for the time that the file takes to read.

pub(super) mod archive;
mod copy;
mod hot;
mod restore;
mod snapshot;
#[cfg(test)]
mod tests;

pub use archive::{ArchiveError, Base, Contents, Head, Listed};
pub use copy::{Done, Plan, write_offline};
pub(super) use copy::{Source, write};
pub(super) use hot::{CACHE_BYTES, COMMIT_BYTES, insert};
pub use restore::{Restored, check, contents, restore};
pub(super) use snapshot::snapshot;
