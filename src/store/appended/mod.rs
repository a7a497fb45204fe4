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
//! are sealed it is cut short and used again from its beginning, or removed. A commit for
//! which there is no file goes to redb. So does the one with which the next file begins:
//! `hot.redb` then knows which file the log goes on in, so that one that is missing, empty
//! or not ours is seen at the next start ([`turn`]).
//!
//! What is not whole is no record ([`frame`]). At the end of the log that is a commit
//! that was never acknowledged. Anywhere else a number is missing, as numbers have no
//! gaps over both logs: then replay says so, keeps a copy of the file in quarantine, and
//! leaves samples out up to the next record that leans on none, as with a damaged record
//! in redb. A last record that is damaged while nothing follows it looks like one that
//! was cut off, but for a clean stop, which notes in `hot.redb` how far the log reaches; of
//! two, the first one was there, as the next commit began behind it.
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
mod turn;
#[cfg(test)]
pub(super) use tests::current_of;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::Error;
use super::days::quarantine;
use super::disk::{Backends, io_error};
use super::space::is_full;
use super::tables::Meta;
use frame::{Owner, Seen};
pub(super) use read::{Broken, Held, Reader};

/// The length of a file.
const FILE_BYTES: u64 = 4 << 20;

/// A new file grows by half of what it holds, and by so much at least: each time the
/// file system writes its own log, but a quiet store has no 4 MiB for a few records.
const GROW_BYTES: u64 = 32 << 10;

/// How many files there are at most.
const FILES_MAX: u64 = 64;

/// All of them together take at most this part of `[store] size_max`. What finds no
/// place in them takes twice as much in `hot.redb`.
const BUDGET_PART: u64 = 4;

/// So many files that nobody needs are kept to be used again.
const SPARES_MAX: usize = 2;

/// The log's files.
pub(super) struct Appended {
    dir: PathBuf,
    backends: Backends,
    files_max: u64,
    owner: Owner,
    /// The file that `hot.redb` names and that is not there as it was.
    lost: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With records that may be needed, the oldest first; the last one grows.
    files: Vec<LogFile>,
    /// Files that nobody needs.
    spares: Vec<Slot>,
    /// Whether the log goes on in the last of the files.
    is_open: bool,
    /// What becomes of that with the open transaction.
    turn: Option<turn::Turn>,
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

    /// Makes a file that nobody needs as short as a new one: a store that is quiet after
    /// a busy hour has no 4 MiB for a few records either.
    fn shrink(&self) {
        let is_long = self.file.len().is_ok_and(|len| len > GROW_BYTES);
        if is_long && let Err(err) = self.file.set_len(GROW_BYTES) {
            tracing::warn!(error = %err, "cannot shorten a log file");
        }
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
    /// Finds the files of a directory, of which `hot.redb` says `meta`. `size_max` is the
    /// budget of the whole directory; 0 is none. A file that is not ours is set aside,
    /// if it may be.
    ///
    /// # Errors
    /// When a file cannot be read, or its last record not be written again.
    pub(super) fn open(
        dir: &Path,
        backends: Backends,
        meta: Meta,
        size_max: u64,
        is_writable: bool,
    ) -> Result<Appended, Error> {
        let files_max = match size_max {
            0 => FILES_MAX,
            bytes => (bytes / BUDGET_PART / FILE_BYTES).clamp(1, FILES_MAX),
        };
        let former_below = meta.log.map_or(u64::MAX, |(_, life)| life);
        let mut log = Appended {
            dir: dir.to_owned(),
            backends,
            files_max,
            owner: Owner {
                store: meta.store,
                former_below,
            },
            lost: None,
            state: Mutex::default(),
        };
        let mut state = State::default();
        for number in numbers(dir)? {
            match log.look(number)? {
                (slot, Found::Life(life)) => state.files.push(LogFile::found(slot, life)),
                (slot, Found::Nothing) => state.spares.push(slot),
                (slot, Found::Foreign) => log.set_aside(&slot, is_writable)?,
            }
        }
        log.find_end(&mut state, meta, is_writable)?;
        log.lost = log.lost_of(&state, meta, is_writable)?;
        let needed = |file: &LogFile| file.last > meta.wal_sealed_seq;
        let first = state.files.iter().position(needed);
        let last = state.files.len() - usize::from(state.is_open);
        let spares = state.files.drain(..first.unwrap_or(last).min(last));
        let spares: Vec<Slot> = spares.map(|file| file.slot).collect();
        state.spares.extend(spares);
        log.state = Mutex::new(state);
        Ok(log)
    }

    /// The file that `hot.redb` names, if it is not there, or shorter than it was: it
    /// grows by so much at once, and is not cut short as long as it is named.
    fn lost_of(
        &self,
        state: &State,
        meta: Meta,
        is_writable: bool,
    ) -> Result<Option<PathBuf>, Error> {
        let Some((number, life)) = meta.log else {
            return Ok(None);
        };
        let path = path_of(&self.dir, number);
        let mut files = state.files.iter();
        let Some(file) = files.find(|file| file.slot.number == number && file.life == life) else {
            tracing::error!(path = %path.display(), "a log file is missing, empty or not ours");
            return Ok(Some(path));
        };
        let len = file.slot.file.len();
        let len = len.map_err(|err| io_error("read", &path, err))?;
        if len.is_multiple_of(GROW_BYTES) {
            return Ok(None);
        }
        tracing::error!(path = %path.display(), len, "a log file is cut short");
        if is_writable {
            let whole = file.slot.file.set_len(len.next_multiple_of(GROW_BYTES));
            whole.map_err(|err| io_error("write", &path, err))?;
        }
        Ok(Some(path))
    }

    /// The file that is not there as it was when the log was opened: what it had last is
    /// lost.
    pub(super) fn lost(&self) -> Option<&Path> {
        self.lost.as_deref()
    }

    /// The last commit that is in here; 0 when none is.
    pub(super) fn end(&self) -> u64 {
        self.state().files.last().map_or(0, |file| file.last)
    }

    fn set_aside(&self, slot: &Slot, is_writable: bool) -> Result<(), Error> {
        let path = path_of(&self.dir, slot.number);
        tracing::error!(path = %path.display(), "a log file has nothing of this store");
        if is_writable {
            quarantine::set_aside(&self.dir, &path)?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a file and finds its life.
    fn look(&self, number: u64) -> Result<(Slot, Found), Error> {
        let path = path_of(&self.dir, number);
        let look = || -> io::Result<(Slot, Found)> {
            let file: Arc<dyn StorageBackend> = (self.backends)(&path)?.into();
            let mut head = [0; 64];
            if file.len()? >= head.len() as u64 {
                file.read(0, &mut head)?;
            }
            let found = match frame::Head::read(&head, self.owner) {
                Some(head) => Found::Life(head.life),
                None => Found::of(&read::whole(&*file)?, self.owner),
            };
            Ok((Slot { number, file }, found))
        };
        look().map_err(|err| io_error("open", &path, err))
    }

    /// Puts the files in order, and finds where the last one goes on.
    fn find_end(&self, state: &mut State, meta: Meta, is_writable: bool) -> Result<(), Error> {
        state.files.sort_unstable_by_key(|file| file.life);
        for at in 1..state.files.len() {
            state.files[at - 1].last = state.files[at].life - 1;
        }
        while let Some(last) = state.files.last_mut() {
            let path = path_of(&self.dir, last.slot.number);
            let bytes = read::whole(&*last.slot.file);
            let bytes = bytes.map_err(|err| io_error("read", &path, err))?;
            let is_known = meta.log == Some((last.slot.number, last.life));
            let found = last_record(&bytes, (self.owner, last.life));
            // One that was begun and cut off has no record, and nobody knows of it.
            let found = found.filter(|(seq, ..)| is_known || *seq >= last.life);
            let Some((seq, place, next)) = found else {
                let empty = state.files.pop().expect("it is the last one");
                state.spares.push(empty.slot);
                continue;
            };
            (last.last, last.end) = (seq, next);
            state.is_open = is_known;
            if is_writable && seq > meta.wal_sealed_seq {
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
        Ok(())
    }

    /// Whether there is room for a record of so many bytes.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        let state = self.state();
        let fits = |file: &LogFile| frame::place(file.end, bytes).end <= FILE_BYTES;
        state.is_open && state.files.last().is_some_and(fits)
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
        let file = state.files.last_mut().expect("the record fits into it");
        assert!(seq > file.last, "BUG: commit {seq} after {}", file.last);
        let to = frame::place(file.end, record.len());
        assert!(to.end <= FILE_BYTES, "BUG: a record longer than its file");
        let ids = (file.life, seq);
        frame::write(self.owner, ids, record, to.start, &mut state.frame);
        file.slot.make_room(to.end)?;
        file.slot.file.write(to.start, &state.frame)?;
        file.slot.file.sync_data()?;
        let grown = to.end - file.end;
        (file.last, file.end) = (seq, to.end);
        Ok(grown)
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
        let last = state.files.len() - usize::from(state.is_open);
        let all = state.files[..last].iter();
        let free = all.take_while(|file| is_free(file)).count();
        let free: Vec<LogFile> = state.files.drain(..free).collect();
        let bytes = free.iter().map(|file| file.end).sum();
        state.spares.extend(free.into_iter().map(|file| file.slot));
        self.remove_spares(&mut state, SPARES_MAX);
        state.spares.iter().for_each(Slot::shrink);
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
            owner: self.owner,
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

/// What a file has.
enum Found {
    /// Frames of this life.
    Life(u64),
    /// Nothing.
    Nothing,
    /// Something that is none of this store's frames.
    Foreign,
}

impl Found {
    fn of(bytes: &[u8], owner: Owner) -> Found {
        match frame::life(bytes, owner) {
            Some(life) => Found::Life(life),
            None if bytes.iter().all(|byte| *byte == 0) => Found::Nothing,
            None => Found::Foreign,
        }
    }
}

/// The last whole record: its commit, where its frame stands, and where the next
/// one may begin. The mark that begins a file stands behind the commit before.
fn last_record(bytes: &[u8], of: (Owner, u64)) -> Option<(u64, std::ops::Range<usize>, u64)> {
    let (mut at, mut after, mut last) = (0, 0, None);
    while let Some(seen) = frame::next(bytes, of, after, at) {
        at = frame::behind(&seen);
        if let Seen::Record {
            seq,
            at,
            body,
            next,
        } = seen
        {
            let seq = seq - u64::from(body.is_empty());
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
