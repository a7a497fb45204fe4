//! A file that is read and never written, under a database that means to write.
//!
//! redb marks a file as open with a write and a sync, and as closed with more of
//! them: some milliseconds for every look at an old day. A day's file does not
//! change any more, so what redb wants to write goes to memory and is forgotten.
//! It is a few pages; redb's own read-only mode takes no other bytes than a path,
//! and then no fake disk could stand under it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend};

use super::super::caught::caught;

const PAGE: usize = 4_096;

/// The bytes below, and what was written over them.
pub(in crate::store) struct Frozen {
    below: Box<dyn StorageBackend>,
    over: Mutex<Over>,
}

struct Over {
    len: u64,
    pages: HashMap<u64, Box<[u8; PAGE]>, ahash::RandomState>,
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Frozen").field(&self.below).finish()
    }
}

impl Frozen {
    pub(in crate::store) fn new(below: Box<dyn StorageBackend>) -> io::Result<Frozen> {
        let over = Over {
            len: below.len()?,
            pages: HashMap::default(),
        };
        Ok(Frozen {
            below,
            over: Mutex::new(over),
        })
    }

    fn over(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page as it is below; what lies behind the end is zero.
    fn page_below(&self, page: u64) -> io::Result<Box<[u8; PAGE]>> {
        let mut bytes = Box::new([0; PAGE]);
        let from = page * PAGE as u64;
        let there = self.below.len()?.saturating_sub(from).min(PAGE as u64);
        let there = usize::try_from(there).expect("at most a page");
        if there > 0 {
            self.below.read(from, &mut bytes[..there])?;
        }
        Ok(bytes)
    }
}

/// A database, which is let go without a last commit when it is only read, or when redb
/// panicked in a commit before. Where it panics in the last one, that is left out too.
///
/// redb ends each use of a file with a commit. Over a file that is only read it goes to
/// memory and is forgotten; but on bytes that redb did not write it may panic, and once
/// more while it cleans up, which ends the process. It leaves the commit out while its
/// thread unwinds, so the database goes in an unwinding of its own.
pub(in crate::store) struct Held {
    /// Gone with the drop.
    db: Option<Database>,
    is_left: AtomicBool,
}

impl Held {
    /// One that is written.
    pub(in crate::store) fn to_write(db: Database) -> Held {
        Held {
            db: Some(db),
            is_left: AtomicBool::new(false),
        }
    }

    /// One that is only read.
    pub(in crate::store) fn to_read(db: Database) -> Held {
        let held = Held::to_write(db);
        held.leave();
        held
    }

    /// From now on it goes without a last commit.
    pub(in crate::store) fn leave(&self) {
        self.is_left.store(true, Ordering::Release);
    }
}

impl Deref for Held {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.db.as_ref().expect("it goes with the drop only")
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Database {
        self.db.as_mut().expect("it goes with the drop only")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let db = self.db.take();
        if std::thread::panicking() {
            return;
        }
        if *self.is_left.get_mut() {
            let unwind = AssertUnwindSafe(move || {
                let _goes = db;
                std::panic::resume_unwind(Box::new(()));
            });
            drop(std::panic::catch_unwind::<_, ()>(unwind));
        } else if caught(move || drop(db)).is_none() {
            tracing::error!("a file could not be closed in order: the next start mends it");
        }
    }
}

/// The parts of `offset..offset + len` by page: number, start in it, length.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE as u64).expect("below a page");
        let n = (PAGE - start).min(len - done);
        done += n;
        Some((at / PAGE as u64, start, n))
    })
}

impl StorageBackend for Frozen {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        let untouched = |(page, _, _): (u64, usize, usize)| !over.pages.contains_key(&page);
        if offset + out.len() as u64 > over.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if offset + out.len() as u64 <= self.below.len()? && parts(offset, out.len()).all(untouched)
        {
            drop(over);
            return self.below.read(offset, out);
        }
        let mut out = out;
        for (page, start, n) in parts(offset, out.len()) {
            let (front, rest) = out.split_at_mut(n);
            match over.pages.get(&page) {
                Some(bytes) => front.copy_from_slice(&bytes[start..start + n]),
                None => front.copy_from_slice(&self.page_below(page)?[start..start + n]),
            }
            out = rest;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.over().len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        let mut data = data;
        for (page, start, n) in parts(offset, data.len()) {
            let (front, rest) = data.split_at(n);
            let bytes = match over.pages.entry(page) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(self.page_below(page)?)
                }
            };
            bytes[start..start + n].copy_from_slice(front);
            data = rest;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    #[test]
    fn writes_are_seen_above_and_not_below() {
        let below = InMemoryBackend::new();
        below.set_len(10_000).unwrap();
        below.write(0, &[1; 10_000]).unwrap();
        let frozen = Frozen::new(Box::new(below)).unwrap();
        frozen.set_len(20_000).unwrap();
        frozen.write(4_090, &[2; 12]).unwrap();
        frozen.write(19_990, &[3; 10]).unwrap();
        let mut all = vec![9; 20_000];
        frozen.read(0, &mut all).unwrap();
        assert_eq!(
            all[4_089..4_103],
            [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]
        );
        assert_eq!((all[9_999], all[10_000], all[19_990]), (1, 0, 3));
        let mut some = [0; 100];
        frozen.read(8_200, &mut some).unwrap();
        assert_eq!(some, [1; 100]);
        assert!(frozen.read(19_999, &mut [0; 2]).is_err());
        let mut untouched = vec![0; 10_000];
        frozen.below.read(0, &mut untouched).unwrap();
        assert_eq!(untouched, vec![1; 10_000]);
        assert_eq!(frozen.below.len().unwrap(), 10_000);
    }
}
