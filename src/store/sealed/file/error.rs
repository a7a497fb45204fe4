//! What can go wrong with a sealed file.

use std::path::{Path, PathBuf};

use crate::store::sealed::Malformed;
use crate::store::sealed::tables::FORMAT_MAX;

/// Why a sealed file could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system or redb failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// Written by a newer version.
    #[error(
        "{path} has format {found}, this version reads up to {FORMAT_MAX}: written by a newer pulse"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What the file says.
        found: u64,
    },
    /// A checksum is wrong, or something that was written is not there.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        what: String,
    },
    /// The read would decode more samples than it may.
    #[error("more than {limit} samples")]
    TooManySamples {
        /// The limit.
        limit: usize,
    },
    /// Something is not in memory, and was not to be fetched.
    #[error("not in memory")]
    NotAtHand,
}

/// What went wrong, before it is known on which file.
#[derive(Debug)]
pub(in crate::store::sealed) enum Trouble {
    Redb(redb::Error),
    Damaged(String),
    Format(u64),
    TooManySamples(usize),
    NotAtHand,
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(err: E) -> Trouble {
        Trouble::Redb(err.into())
    }
}

impl Trouble {
    /// Says where the malformed bytes stand.
    pub(in crate::store::sealed) fn at(
        place: impl std::fmt::Display,
    ) -> impl FnOnce(Malformed) -> Trouble {
        move |err| Trouble::Damaged(format!("{place}: {err}"))
    }
}

/// The error, as it is told of this file.
pub(super) fn locate(path: &Path, action: &'static str, trouble: Trouble) -> Error {
    let path = path.to_owned();
    match trouble {
        Trouble::Redb(err) => Error::Io {
            action,
            path,
            source: Box::new(err),
        },
        Trouble::Damaged(what) => Error::Damaged { path, what },
        Trouble::Format(found) => Error::Format { path, found },
        Trouble::TooManySamples(limit) => Error::TooManySamples { limit },
        Trouble::NotAtHand => Error::NotAtHand,
    }
}
