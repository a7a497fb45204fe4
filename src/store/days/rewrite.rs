//! The rewrite of a day: its hours, and what came late, into one file of long columns.
//!
//! The new file is complete and synced under another name before it takes its own.
//! Readers find the old files or the new one; for a moment the new one and the
//! hours that it was made from, whose samples are then seen twice as one. A crash
//! leaves the unfinished file, which the next rewrite replaces, or the hours beside
//! the finished one, which are then rewritten again.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::{DayFile, Days, OpenFile, lock, store_error};
use crate::model::Labels;
use crate::store::Error;
use crate::store::disk::{io_error, sync_dir};
use crate::store::sealed::{Covered, Ended, Generation, Kind, Merged, SealedFile};

/// Why a day was not rewritten. It is as it was.
#[derive(Debug)]
pub(in crate::store) enum NotRewritten<B> {
    /// A file cannot be read or written.
    Failed(Error),
    /// There is other work.
    Stopped(B),
}

/// What a rewrite asks about series.
pub(in crate::store) struct Series<G, L> {
    /// The group of a series.
    pub(in crate::store) group_of: G,
    /// The labels of a series.
    pub(in crate::store) labels_of: L,
}

impl Days {
    /// Rewrites a day, if it has anything; says how many samples it has now. `pause`
    /// is called every some thousand samples and may end it.
    pub(in crate::store) fn rewrite<B>(
        &self,
        start_s: u32,
        series: Series<impl FnMut(u32) -> u32, impl FnMut(u32) -> Labels>,
        pause: impl FnMut() -> ControlFlow<B>,
    ) -> Result<u64, NotRewritten<B>> {
        let failed = NotRewritten::Failed;
        let mut old: Vec<_> = Kind::ALL
            .iter()
            .filter_map(|kind| self.get(start_s, *kind))
            .collect();
        // The hours can grow meanwhile, and stay then.
        let hours = old.pop_if(|file| file.kind == Kind::Hours);
        let sealed = hours.as_ref().map(|file| file.generations());
        let files = old
            .iter()
            .chain(&hours)
            .map(|file| self.file(file))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|err| failed(store_error(err)))?;
        if files.is_empty() {
            return Ok(0);
        }
        let new = DayFile::new(&self.dir, start_s, Kind::Day);
        let generation = self.write_day(&new, &files, series, pause)?;
        drop(files);
        let samples = generation.samples;
        let pins = lock(&self.pins);
        if *pins > 0 {
            let busy = "a backup reads the day's files";
            return Err(failed(io_error("replace", &new.path, busy)));
        }
        self.replace(new, generation).map_err(failed)?;
        if let Some(hours) = hours.filter(|file| Some(file.generations()) == sealed) {
            self.remove(&hours).map_err(failed)?;
        }
        Ok(samples)
    }

    /// Writes the new file under its other name.
    fn write_day<B>(
        &self,
        new: &DayFile,
        files: &[std::sync::Arc<OpenFile>],
        series: Series<impl FnMut(u32) -> u32, impl FnMut(u32) -> Labels>,
        pause: impl FnMut() -> ControlFlow<B>,
    ) -> Result<Generation, NotRewritten<B>> {
        let files: Vec<&SealedFile> = files.iter().map(|file| file.get()).collect();
        let covered: Vec<Covered> = files.iter().flat_map(|file| file.covered()).collect();
        let write = || -> Result<Generation, Ended<B>> {
            let merged = Merged::new(files, series.group_of, pause)?;
            SealedFile::write_day(
                &new.path.with_extension("new"),
                self.cache_bytes,
                &self.backends,
                new.start_s,
                &covered,
                merged,
                series.labels_of,
            )
        };
        write().map_err(|ended| match ended {
            Ended::File(err) => NotRewritten::Failed(store_error(err)),
            Ended::Stopped(reason) => NotRewritten::Stopped(reason),
        })
    }

    /// Gives the new file its name, in place of the day's former file.
    fn replace(&self, new: DayFile, generation: Generation) -> Result<(), Error> {
        let from = new.path.with_extension("new");
        *new.generations
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = [generation].into();
        let old = self.get(new.start_s, Kind::Day);
        // Nobody opens the old one meanwhile: under its name is the new one then.
        let slot = old.as_ref().map(|old| lock(&old.file));
        std::fs::rename(&from, &new.path).map_err(|err| io_error("rename", &from, err))?;
        if let Some(old) = &old {
            old.gone.store(true, Ordering::Release);
        }
        self.insert(new);
        drop(slot);
        if let Some(old) = &old {
            self.close(old);
        }
        sync_dir(&self.dir).map_err(|err| io_error("sync", &self.dir, err))
    }
}
