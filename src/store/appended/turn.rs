//! The turn from one file to the next, together with a transaction of redb.
//!
//! Before the transaction a mark is written to the file and synced; the transaction
//! says in `hot.redb` which file it is. After a cut between the two there is a file with a
//! mark that nobody knows, which is used again. So whatever file redb names was there, and
//! one that is not is missed, although a commit to the log never changes redb.
//!
//! It turns when the log has no file yet, when a record does not fit into what is left of
//! one, and when all records of one are sealed: with transactions that are made anyway,
//! but for the second case, one in 4 MiB.

use std::io;
use std::sync::Arc;

use super::{Appended, FILE_BYTES, LogFile, Slot, State, frame, path_of};

/// What becomes of the log with the open transaction.
pub(super) struct Turn {
    /// The file in which it goes on; `None`: there is none for now.
    next: Option<LogFile>,
}

impl Appended {
    /// Makes the next file ready, if the log has to turn with commit `seq`, which says
    /// that commits up to `sealed` are sealed and whose record, of `bytes`, is for the
    /// log if it `wants`. Gives what `hot.redb` has to say then: number and life.
    pub(in crate::store) fn turn(
        &self,
        seq: u64,
        sealed: u64,
        wants: Option<usize>,
    ) -> Option<Option<(u64, u64)>> {
        let mut state = self.state();
        let state = &mut *state;
        if let Some(next) = state.turn.take().and_then(|turn| turn.next) {
            state.spares.push(next.slot);
        }
        let last = state.files.last().filter(|_| state.is_open);
        let is_done = last.is_some_and(|file| file.last >= file.life && file.last <= sealed);
        let fits = |end: u64, bytes| frame::place(end, bytes).end <= FILE_BYTES;
        let is_full = wants.is_some_and(|bytes| {
            // One that fits into no file turns nothing.
            fits(frame::place(0, 0).end, bytes) && last.is_some_and(|file| !fits(file.end, bytes))
        });
        if last.is_some() && !is_done && !is_full {
            return None;
        }
        let next = self.begin(state, seq).unwrap_or_else(|err| {
            tracing::warn!(error = %err, "cannot begin a log file");
            None
        });
        if next.is_none() && !is_done {
            return None;
        }
        let name = next.as_ref().map(|file| (file.slot.number, file.life));
        state.turn = Some(Turn { next });
        Some(name)
    }

    /// The transaction is durable. Gives the bytes that the log has grown by.
    pub(in crate::store) fn turned(&self) -> u64 {
        let mut state = self.state();
        let Some(turn) = state.turn.take() else {
            return 0;
        };
        state.is_open = turn.next.is_some();
        let grown = turn.next.as_ref().map_or(0, |file| file.end);
        state.files.extend(turn.next);
        grown
    }

    /// Writes the mark of a file whose life begins with `seq`; `None` when there may be
    /// no more files.
    fn begin(&self, state: &mut State, seq: u64) -> io::Result<Option<LogFile>> {
        let Some(slot) = self.another(state)? else {
            return Ok(None);
        };
        let to = frame::place(0, 0);
        frame::write(self.owner, (seq, seq), &[], 0, &mut state.frame);
        slot.make_room(to.end)?;
        slot.file.write(0, &state.frame)?;
        slot.file.sync_data()?;
        Ok(Some(LogFile {
            last: seq - 1,
            end: to.end,
            ..LogFile::found(slot, seq)
        }))
    }

    /// A file that nobody needs, made when there is none and there may be.
    fn another(&self, state: &mut State) -> io::Result<Option<Slot>> {
        if let Some(slot) = state.spares.pop() {
            return Ok(Some(slot));
        }
        if state.files.len() as u64 >= self.files_max {
            return Ok(None);
        }
        let is_used = |number: &u64| state.files.iter().any(|file| file.slot.number == *number);
        let is_taken = |number: &u64| path_of(&self.dir, *number).is_dir();
        let number = (0..).find(|number| !is_used(number) && !is_taken(number));
        let number = number.expect("there are few files");
        let file: Arc<_> = (self.backends)(&path_of(&self.dir, number))?.into();
        Ok(Some(Slot { number, file }))
    }
}
