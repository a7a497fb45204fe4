//! Files that leave for good.
//!
//! To take a file out of its directory costs the same whatever its length. To give its
//! blocks back does not: 12 to 20 ms for 72 MB, all in the close that lets go of it. So
//! expired files are closed by a thread of their own that nobody waits for. They are not
//! cut short before: a snapshot may have the same file under another name.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::disk::{io_error, sync_dir};
use super::super::{Error, sealed::Kind};
use super::{DAY_MS, DayFile, Days, OpenFile, lock};

/// What became of the files that are too old.
pub(in crate::store) struct Expired {
    pub(in crate::store) removed: usize,
    /// Left where they are.
    pub(in crate::store) needed: usize,
    /// Whether missing files were too old as well.
    pub(in crate::store) forgot: bool,
}

impl Days {
    /// Removes the files of days that ended before what `oldest_ms` says for their
    /// kind, but for those that are needed still. A power cut may bring the last of
    /// them back: they are removed again then.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(in crate::store) fn expire(
        &self,
        oldest_ms: impl Fn(Kind) -> i64,
        is_needed: impl FnMut(&Arc<DayFile>) -> bool,
    ) -> Result<Expired, Error> {
        let forgot = self.forget_missing(&oldest_ms);
        let mut old = self.all_kinds();
        old.retain(|day| i64::from(day.start_s) * 1_000 + DAY_MS <= oldest_ms(day.kind));
        let (needed, old): (Vec<_>, Vec<_>) = old.into_iter().partition(is_needed);
        self.note_leaving(old.iter().map(|day| &**day));
        let mut unlinked = Vec::new();
        let mut done = Ok(());
        for day in &old {
            // As long as somebody has it open, its blocks stay.
            let file = File::open(&day.path).ok();
            match self.unlink(day) {
                Ok(open) => {
                    unlinked.push((file, open));
                    tracing::info!(path = %day.path.display(), "day expired");
                }
                Err(err) => done = done.and(Err(err)),
            }
        }
        if !unlinked.is_empty() {
            // Without a thread they are closed here and now.
            let thread = std::thread::Builder::new().name("store-expiry".to_owned());
            drop(thread.spawn(move || drop(unlinked)));
        }
        done.map(|()| Expired {
            removed: old.len(),
            needed: needed.len(),
            forgot,
        })
    }

    /// The file that leaves first when there is no room: the oldest with the finest
    /// roll-ups, and without any the oldest of a day that is not the newest one.
    pub(in crate::store) fn first_to_leave(&self) -> Option<Arc<DayFile>> {
        let rolls = self.all_rolls();
        if let Some(roll) = rolls.into_iter().min_by_key(|day| (day.kind, day.start_s)) {
            return Some(roll);
        }
        let files = self.read_files(Kind::Day);
        let newest = files.values().next_back()?.start_s;
        let oldest = files.values().next()?;
        (oldest.start_s < newest).then(|| Arc::clone(oldest))
    }

    /// Removes a file for good, and gives its blocks back. Who reads it may finish.
    ///
    /// # Errors
    /// When it cannot be removed; it then stays.
    pub(in crate::store) fn remove(&self, day: &DayFile) -> Result<(), Error> {
        self.note_leaving([day]);
        drop(self.unlink(day)?);
        sync_dir(&self.dir).map_err(|err| io_error("sync", &self.dir, err))
    }

    /// Takes a file out of its directory. It is closed when the handles are dropped.
    fn unlink(&self, day: &DayFile) -> Result<Vec<Arc<OpenFile>>, Error> {
        let key = (day.start_s, day.kind);
        // Nobody opens it meanwhile, which would make it anew.
        let slot = lock(&day.file);
        match std::fs::remove_file(&day.path) {
            Ok(()) => {}
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %day.path.display(), "somebody else removed it");
            }
            Err(err) => {
                self.note_made(day);
                return Err(io_error("remove", &day.path, err));
            }
        }
        day.gone.store(true, Ordering::Release);
        self.write_files(day.kind).remove(&key);
        drop(slot);
        Ok(self.take_open(day))
    }
}
