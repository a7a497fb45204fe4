//! The appended log beside `hot.redb`: records of commits that bring samples alone.
//!
//! A commit with state rows, new series or something to delete is one redb
//! transaction with its record in it. A commit of samples alone is one record at the
//! end of a file `hot-NN.log`, and one sync. It has its number from the same count,
//! and the next commit of either kind begins when it is durable, so each commit has
//! one commit point, and replay reads both logs in the order of the numbers. This
//! differs from one log in redb for a measured cause: a redb transaction rewrites six
//! or seven pages of 4 KiB besides its record, which was half of all bytes written at
//! full speed and nearly all of them at low load (a page here, 26 kB there).
//!
//! The files are at most [`FILES_MAX`] of [`FILE_BYTES`]. When all records of a file
//! are sealed it is used again from its beginning, which saves the file system its
//! own log, or removed. A commit for which there is no file goes to redb.
//!
//! What is not whole is no record ([`frame`]). At the end of the log that is a commit
//! that was never acknowledged. Anywhere else a number is missing, as numbers have no
//! gaps over both logs: then replay says so, keeps a copy of the file in quarantine, and
//! leaves samples out up to the next record that leans on none, as with a damaged record
//! in redb. A last record that is damaged while nothing follows it looks like one that
//! was cut off; of two, the first one was there, as the next commit began behind it.
//!
//! Owns the files `hot-NN.log`; only the writer thread writes them. It must never
//! say that a record is there before its sync came back, or write over a record
//! that is not sealed.

#[cfg(test)]
mod flips;
mod frame;
mod read;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::Error;
use super::disk::{Backends, io_error};
use super::space::is_full;
use frame::Seen;
pub(super) use read::{Broken, Held, Reader};

/// The length of a file.
const FILE_BYTES: u64 = 4 << 20;

/// A new file grows by half of what it holds, and by so much at least: each time the
/// file system writes its own log, but a quiet store has no 4 MiB for a few records.
const GROW_BYTES: u64 = 32 << 10;

/// How many files there are at most.
const FILES_MAX: u64 = 64;

/// All of them together take at most this part of `[store] size_max`.
const BUDGET_PART: u64 = 16;

/// So many files that nobody needs are kept to be used again.
const SPARES_MAX: usize = 2;

/// The log's files.
pub(super) struct Appended {
    dir: PathBuf,
    backends: Backends,
    files_max: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With records that may be needed, the oldest first; the last one grows.
    files: Vec<LogFile>,
    /// Files that nobody needs.
    spares: Vec<Slot>,
    frame: Vec<u8>,
}

/// A file by its name.
#[derive(Clone)]
struct Slot {
    number: u64,
    file: Arc<dyn StorageBackend>,
}

impl Slot {
    /// Makes the file longer when a record up to `end` does not fit.
    fn make_room(&self, end: u64) -> io::Result<()> {
        if self.file.len()? >= end {
            return Ok(());
        }
        let len = (end + end / 2).next_multiple_of(GROW_BYTES);
        self.file.set_len(len.min(FILE_BYTES))
    }
}

/// A file with records.
#[derive(Clone)]
struct LogFile {
    slot: Slot,
    /// The commit of its first record.
    life: u64,
    /// No record is of a later commit.
    last: u64,
    /// Where the next record may begin.
    end: u64,
    /// Shared with who reads: then the file stays.
    held: Arc<()>,
}

impl Appended {
    /// Finds the files of a directory. Records up to commit `sealed` are not needed.
    /// `size_max` is the budget of the whole directory; 0 is none.
    ///
    /// # Errors
    /// When a file cannot be read, or its last record not be written again.
    pub(super) fn open(
        dir: &Path,
        backends: Backends,
        sealed: u64,
        size_max: u64,
        is_writable: bool,
    ) -> Result<Appended, Error> {
        let files_max = match size_max {
            0 => FILES_MAX,
            bytes => (bytes / BUDGET_PART / FILE_BYTES).clamp(1, FILES_MAX),
        };
        let log = Appended {
            dir: dir.to_owned(),
            backends,
            files_max,
            state: Mutex::default(),
        };
        {
            let mut state = log.state();
            for number in numbers(dir)? {
                let (slot, life) = log.look(number)?;
                match life {
                    None => state.spares.push(slot),
                    Some(life) => state.files.push(LogFile::found(slot, life)),
                }
            }
            log.find_end(&mut state, sealed, is_writable)?;
        }
        Ok(log)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a file and finds its life.
    fn look(&self, number: u64) -> Result<(Slot, Option<u64>), Error> {
        let path = path_of(&self.dir, number);
        let look = || -> io::Result<(Slot, Option<u64>)> {
            let file: Arc<dyn StorageBackend> = (self.backends)(&path)?.into();
            let mut head = [0; 64];
            if file.len()? >= head.len() as u64 {
                file.read(0, &mut head)?;
            }
            let life = match frame::Head::read(&head) {
                Some(head) => Some(head.life),
                None => frame::life(&read::whole(&*file)?),
            };
            Ok((Slot { number, file }, life))
        };
        look().map_err(|err| io_error("open", &path, err))
    }

    /// Puts the files in order, and finds where the last one goes on.
    fn find_end(&self, state: &mut State, sealed: u64, is_writable: bool) -> Result<(), Error> {
        state.files.sort_unstable_by_key(|file| file.life);
        for at in 1..state.files.len() {
            state.files[at - 1].last = state.files[at].life - 1;
        }
        while let Some(last) = state.files.last_mut() {
            let path = path_of(&self.dir, last.slot.number);
            let bytes = read::whole(&*last.slot.file);
            let bytes = bytes.map_err(|err| io_error("read", &path, err))?;
            let Some((seq, place, next)) = last_record(&bytes, last.life) else {
                // It was begun and cut off.
                let empty = state.files.pop().expect("it is the last one");
                state.spares.push(empty.slot);
                continue;
            };
            (last.last, last.end) = (seq, next);
            if is_writable && seq > sealed {
                // After a failed sync it may stand in the cache alone, called clean.
                let file = &last.slot.file;
                let again = file.write(place.start as u64, &bytes[place]);
                match again.and_then(|()| file.sync_data()) {
                    // It was read from the disk, as far as the kernel let go.
                    Err(err) if is_full(&err) => {
                        tracing::warn!(error = %err, "cannot write the last record again");
                    }
                    other => other.map_err(|err| io_error("write", &path, err))?,
                }
            }
            break;
        }
        let needed = state.files.partition_point(|file| file.last <= sealed);
        let spares = state.files.drain(..needed).map(|file| file.slot);
        state.spares.extend(spares);
        Ok(())
    }

    /// Whether there is room for a record of so many bytes.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        let state = self.state();
        let fits = |end: u64| frame::place(end, bytes).end <= FILE_BYTES;
        let files = (state.files.len() + state.spares.len()) as u64;
        let another = !state.spares.is_empty() || files < self.files_max;
        state.files.last().is_some_and(|file| fits(file.end)) || (another && fits(0))
    }

    /// Writes the record of a commit behind the last one and syncs. Asked again after
    /// an error, it writes it again to the same place. Gives the bytes that the log
    /// has grown by.
    ///
    /// # Errors
    /// When the disk refuses. Then the record may be there or not: the writer calls
    /// [`Appended::reopen`] and tries again.
    ///
    /// # Panics
    /// When [`Appended::takes`] would have said no.
    pub(super) fn append(&self, seq: u64, record: &[u8]) -> io::Result<u64> {
        let mut state = self.state();
        let state = &mut *state;
        let fits = |file: &&mut LogFile| frame::place(file.end, record.len()).end <= FILE_BYTES;
        if let Some(file) = state.files.last_mut().filter(fits) {
            assert!(seq > file.last, "BUG: commit {seq} after {}", file.last);
            let to = frame::place(file.end, record.len());
            frame::write(file.life, seq, record, to.start, &mut state.frame);
            file.slot.make_room(to.end)?;
            file.slot.file.write(to.start, &state.frame)?;
            file.slot.file.sync_data()?;
            let grown = to.end - file.end;
            (file.last, file.end) = (seq, to.end);
            return Ok(grown);
        }
        let to = frame::place(0, record.len());
        assert!(to.end <= FILE_BYTES, "BUG: a record longer than a file");
        let slot = self.another(state)?;
        frame::write(seq, seq, record, 0, &mut state.frame);
        slot.make_room(to.end)?;
        slot.file.write(0, &state.frame)?;
        slot.file.sync_data()?;
        state.spares.retain(|spare| spare.number != slot.number);
        state.files.push(LogFile {
            last: seq,
            end: to.end,
            ..LogFile::found(slot, seq)
        });
        Ok(to.end)
    }

    /// A file that nobody needs, made when there is none.
    fn another(&self, state: &mut State) -> io::Result<Slot> {
        if let Some(slot) = state.spares.first() {
            return Ok(slot.clone());
        }
        let is_used = |number: &u64| state.files.iter().any(|file| file.slot.number == *number);
        let is_taken = |number: &u64| path_of(&self.dir, *number).is_dir();
        let number = (0..).find(|number| !is_used(number) && !is_taken(number));
        let number = number.expect("there are few files");
        let file: Arc<dyn StorageBackend> = (self.backends)(&path_of(&self.dir, number))?.into();
        let slot = Slot { number, file };
        state.spares.push(slot.clone());
        Ok(slot)
    }

    /// Opens the files that are written again, after an error.
    ///
    /// # Errors
    /// When the disk refuses; the old handles stay.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        let last = state.files.last_mut().map(|file| &mut file.slot);
        for slot in last.into_iter().chain(&mut state.spares) {
            slot.file = (self.backends)(&path_of(&self.dir, slot.number))?.into();
        }
        Ok(())
    }

    /// Lets go of the files whose records are all of commits up to `sealed`, which is
    /// durable as such, and that nobody reads. Gives the bytes that went.
    pub(super) fn cut(&self, sealed: u64) -> u64 {
        let mut state = self.state();
        let is_free = |file: &LogFile| file.last <= sealed && Arc::strong_count(&file.held) == 1;
        let free = state.files.iter().take_while(|file| is_free(file)).count();
        let free: Vec<LogFile> = state.files.drain(..free).collect();
        let bytes = free.iter().map(|file| file.end).sum();
        state.spares.extend(free.into_iter().map(|file| file.slot));
        self.remove_spares(&mut state, SPARES_MAX);
        bytes
    }

    /// Removes the files that nobody needs.
    pub(super) fn trim(&self) {
        self.remove_spares(&mut self.state(), 0);
    }

    /// A removed name that comes back after a power cut has no record that is needed,
    /// so the directory is not synced.
    fn remove_spares(&self, state: &mut State, keep: usize) {
        while state.spares.len() > keep {
            let Some(spare) = state.spares.pop() else {
                return;
            };
            let path = path_of(&self.dir, spare.number);
            if let Err(err) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), error = %err, "cannot remove");
            }
        }
    }

    /// How long the log is, what is sealed in its files included.
    pub(super) fn bytes(&self) -> u64 {
        self.state().files.iter().map(|file| file.end).sum()
    }

    /// How many files have records that may be needed.
    pub(super) fn files(&self) -> u64 {
        self.state().files.len() as u64
    }

    /// Everything in it at this time. The files stay until this goes.
    pub(super) fn hold(&self) -> Held {
        let state = self.state();
        let files = state.files.iter().map(|file| read::Open {
            path: path_of(&self.dir, file.slot.number),
            life: file.life,
            last: file.last,
            file: Arc::clone(&file.slot.file),
            _held: Arc::clone(&file.held),
        });
        Held {
            last: state.files.last().map_or(0, |file| file.last),
            files: files.collect(),
        }
    }
}

impl LogFile {
    fn found(slot: Slot, life: u64) -> LogFile {
        LogFile {
            slot,
            life,
            last: life,
            end: FILE_BYTES,
            held: Arc::new(()),
        }
    }
}

/// The last whole record: its commit, where its frame stands, and where the next
/// one may begin.
fn last_record(bytes: &[u8], life: u64) -> Option<(u64, std::ops::Range<usize>, u64)> {
    let (mut at, mut after, mut last) = (0, 0, None);
    while let Some(seen) = frame::next(bytes, life, after, at) {
        at = frame::behind(&seen);
        if let Seen::Record {
            seq,
            at,
            body,
            next,
        } = seen
        {
            after = seq;
            last = Some((seq, at..body.end, next as u64));
        }
    }
    last
}

/// The numbers of the files that are there.
fn numbers(dir: &Path) -> Result<Vec<u64>, Error> {
    let fail = |err| io_error("read", dir, err);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let Some(number) = path.file_name().and_then(|n| number_of(n.to_str()?)) else {
            continue;
        };
        if path.is_file() {
            numbers.push(number);
        } else {
            tracing::error!(path = %path.display(), "is no file, and is passed over");
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("hot-{number:02}.log"))
}

fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("hot-")?.strip_suffix(".log")?;
    let number = number.parse().ok()?;
    (name == format!("hot-{number:02}.log")).then_some(number)
}

/// Whether a directory has a log.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_in(dir: &Path) -> Result<bool, Error> {
    Ok(!numbers(dir)?.is_empty())
}

/// Whether a file of this name is one of the log.
pub(super) fn is_name(name: &str) -> bool {
    number_of(name).is_some()
}
