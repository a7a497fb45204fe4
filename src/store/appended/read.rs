//! The records of the log in the order of their commits.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;

use super::FILE_BYTES;
use super::frame::{self, Owner, Seen};
use crate::store::Error;
use crate::store::disk::io_error;

/// What is in the log at some time.
pub(in crate::store) struct Held {
    pub(super) files: Vec<Open>,
    /// The last commit, or 0.
    pub(in crate::store) last: u64,
}

impl Held {
    /// The records of commits from `from` on, later ones than [`Held::last`] included.
    pub(in crate::store) fn reader(&self, from: u64) -> Reader {
        // More may have come into the last file since.
        let last = self.files.len().saturating_sub(1);
        let files = self.files.iter().enumerate();
        let files = files.filter(|(at, file)| *at == last || file.last >= from);
        Reader::new(files.map(|(_, file)| file.clone()).collect(), from)
    }

    /// The files that had the records of these commits, as far as they were appended.
    pub(in crate::store) fn files_of(&self, first: u64, last: u64) -> Vec<PathBuf> {
        let newest = self.files.last().map(|file| file.life);
        let had =
            |file: &&Open| file.life <= last && (file.last >= first || Some(file.life) == newest);
        let files = self.files.iter().filter(had);
        files.map(|file| file.path.clone()).collect()
    }
}

/// A file to be read.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) path: PathBuf,
    pub(super) life: u64,
    pub(super) owner: Owner,
    /// No record was of a later commit.
    pub(super) last: u64,
    pub(super) file: Arc<dyn StorageBackend>,
    /// As long as somebody has it, the file is not used again.
    pub(super) _held: Arc<()>,
}

/// A record whose body is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) struct Broken {
    /// Its commit.
    pub(in crate::store) seq: u64,
    /// Its file.
    pub(in crate::store) path: PathBuf,
    /// Where its frame begins.
    pub(in crate::store) at: u64,
}

/// Reads records one by one. Memory is that of one file.
pub(in crate::store) struct Reader {
    files: std::vec::IntoIter<Open>,
    open: Option<Open>,
    bytes: Vec<u8>,
    at: usize,
    /// The last commit that was found, or that nobody wants.
    after: u64,
    found: Option<(u64, Range<usize>)>,
    broken: Vec<Broken>,
}

impl Reader {
    pub(super) fn new(files: Vec<Open>, from: u64) -> Reader {
        Reader {
            files: files.into_iter(),
            open: None,
            bytes: Vec::new(),
            at: 0,
            after: from.saturating_sub(1),
            found: None,
            broken: Vec::new(),
        }
    }

    /// The next record, if its commit is not behind `limit`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(in crate::store) fn next_up_to(
        &mut self,
        limit: u64,
    ) -> Result<Option<(u64, &[u8])>, Error> {
        if self.found.is_none() {
            self.find()?;
        }
        let found = self.found.take_if(|(seq, _)| *seq <= limit);
        Ok(found.map(|(seq, body)| (seq, &self.bytes[body])))
    }

    /// The broken records that were passed over so far, and since the last call. One
    /// behind the last record of all is a commit that was cut off.
    pub(in crate::store) fn take_broken(&mut self) -> Vec<Broken> {
        std::mem::take(&mut self.broken)
    }

    fn find(&mut self) -> Result<(), Error> {
        loop {
            let Some(open) = &self.open else {
                if !self.open_next()? {
                    return Ok(());
                }
                continue;
            };
            match frame::next(&self.bytes, (open.owner, open.life), self.after, self.at) {
                None => self.open = None,
                Some(seen) => {
                    self.at = frame::behind(&seen);
                    match seen {
                        Seen::Record { body, .. } if body.is_empty() => {}
                        Seen::Record { seq, body, .. } => {
                            self.after = seq;
                            self.found = Some((seq, body));
                            return Ok(());
                        }
                        Seen::Broken { seq, at } => self.broken.push(Broken {
                            seq,
                            path: open.path.clone(),
                            at: at as u64,
                        }),
                    }
                }
            }
        }
    }

    fn open_next(&mut self) -> Result<bool, Error> {
        let Some(open) = self.files.next() else {
            return Ok(false);
        };
        read_whole(&*open.file, &mut self.bytes).map_err(|err| fail(&open.path, err))?;
        self.at = 0;
        self.open = Some(open);
        Ok(true)
    }
}

fn fail(path: &Path, err: io::Error) -> Error {
    io_error("read", path, err)
}

fn read_whole(file: &dyn StorageBackend, bytes: &mut Vec<u8>) -> io::Result<()> {
    let len = usize::try_from(file.len()?.min(FILE_BYTES)).expect("some MiB");
    bytes.resize(len, 0);
    file.read(0, bytes)
}

/// All bytes of a file.
pub(super) fn whole(file: &dyn StorageBackend) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_whole(file, &mut bytes)?;
    Ok(bytes)
}
