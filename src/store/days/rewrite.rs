//! The rewrite of a day: its hours, and what came late, into one file of long columns.
//!
//! The new file is complete and synced under another name before it takes its own.
//! Readers find the old files or the new one; for a moment the new one and the
//! hours that it was made from, whose samples are then seen twice as one. A crash
//! leaves the unfinished file, which the next rewrite replaces, or the hours beside
//! the finished one, which are then rewritten again.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::quarantine::{is_damage, keep};
use super::{DayFile, Days, OpenFile, lock, store_error};
use crate::model::Labels;
use crate::store::Error;
use crate::store::disk::{io_error, sync_dir};
use crate::store::sealed::{
    Covered, Ended, Generation, Kind, Merged, SealedFile, SealedSeries, Short,
};

/// Why a day was not rewritten. It is as it was.
#[derive(Debug)]
pub(in crate::store) enum NotRewritten<B> {
    /// A file cannot be read or written.
    Failed(Error),
    /// A file has wrong bytes: the rest of it can be rewritten.
    Damaged(Error),
    /// There is other work.
    Stopped(B),
}

impl<B> NotRewritten<B> {
    /// What went wrong with the files.
    pub(in crate::store) fn into_error(self) -> Error {
        match self {
            NotRewritten::Failed(err) | NotRewritten::Damaged(err) => err,
            NotRewritten::Stopped(_) => Error::Closed,
        }
    }
}

/// What a rewrite asks about series.
pub(in crate::store) struct Series<G, L, K> {
    /// The group of a series.
    pub(in crate::store) group_of: G,
    /// The labels of a series.
    pub(in crate::store) labels_of: L,
    /// Takes out the samples that are not to be kept.
    pub(in crate::store) trim: K,
}

impl Days {
    /// Rewrites a day, if it has anything; says how many samples it has now. `pause`
    /// is called every some thousand samples and may end it.
    ///
    /// With `salvage`, the keys of all series there are, what cannot be read is left
    /// out. The damaged files are put aside then.
    pub(in crate::store) fn rewrite<B>(
        &self,
        start_s: u32,
        salvage: Option<Vec<(u32, u32)>>,
        series: Series<
            impl FnMut(u32) -> u32,
            impl FnMut(u32) -> Labels,
            impl FnMut(&mut SealedSeries),
        >,
        pause: impl FnMut() -> ControlFlow<B>,
    ) -> Result<u64, NotRewritten<B>> {
        let failed = NotRewritten::Failed;
        let mut old: Vec<_> = Kind::RAW
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
        let lost = Cell::new(Short::default());
        let covered: Vec<Covered> = files.iter().flat_map(|f| f.get().covered()).collect();
        let written = self.write_day((&new, &covered), &files, salvage, &lost, series, pause);
        let generation = written.inspect_err(|_| remove_new(&new))?;
        drop(files);
        let pins = lock(&self.pins);
        if *pins > 0 {
            let busy = "a backup reads the day's files";
            return Err(failed(io_error("replace", &new.path, busy)));
        }
        let Short { series, times } = lost.get();
        if series > 0 {
            for file in old.iter().chain(&hours) {
                let kept = keep(&self.dir, &file.path, times).map_err(failed)?;
                tracing::error!(
                    path = %file.path.display(),
                    to = %kept.display(),
                    series,
                    "damaged series left out, file put aside"
                );
                self.note_lost(times, kept);
            }
        }
        let samples = generation.samples;
        if samples > 0 {
            self.replace(new, generation, &covered).map_err(failed)?;
        } else {
            // Nothing of the day is kept.
            let unused = new.path.with_extension("new");
            std::fs::remove_file(&unused)
                .map_err(|err| failed(io_error("remove", &unused, err)))?;
            for day in &old {
                self.remove(day).map_err(failed)?;
            }
        }
        if let Some(hours) = hours.filter(|file| Some(file.generations()) == sealed) {
            self.remove(&hours).map_err(failed)?;
        }
        Ok(samples)
    }

    /// Writes the new file under its other name.
    fn write_day<B>(
        &self,
        (new, covered): (&DayFile, &[Covered]),
        files: &[std::sync::Arc<OpenFile>],
        salvage: Option<Vec<(u32, u32)>>,
        lost: &Cell<Short>,
        series: Series<
            impl FnMut(u32) -> u32,
            impl FnMut(u32) -> Labels,
            impl FnMut(&mut SealedSeries),
        >,
        pause: impl FnMut() -> ControlFlow<B>,
    ) -> Result<Generation, NotRewritten<B>> {
        let files: Vec<&SealedFile> = files.iter().map(|file| file.get()).collect();
        let mut trim = series.trim;
        let write = || -> Result<Generation, Ended<B>> {
            let merged = match salvage {
                None => Merged::of(files, series.group_of, pause)?,
                Some(keys) => Merged::salvaging(files, keys, lost, series.group_of, pause),
            };
            let kept = merged.map(|next| {
                next.map(|mut series| {
                    trim(&mut series);
                    series
                })
            });
            SealedFile::write_day(
                &new.path.with_extension("new"),
                self.cache_bytes,
                &self.backends,
                (self.store, new.start_s),
                covered,
                kept,
                series.labels_of,
            )
        };
        write().map_err(|ended| match ended {
            Ended::File(err) if is_damage(&err) => NotRewritten::Damaged(store_error(err)),
            Ended::File(err) => NotRewritten::Failed(store_error(err)),
            Ended::Stopped(reason) => NotRewritten::Stopped(reason),
        })
    }

    /// Gives the new file its name, in place of the former file of its day and kind.
    pub(super) fn replace(
        &self,
        new: DayFile,
        generation: Generation,
        covered: &[Covered],
    ) -> Result<(), Error> {
        let from = new.path.with_extension("new");
        *new.generations
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = [generation].into();
        new.note_rewritten(covered);
        let old = self.get(new.start_s, new.kind);
        // Nobody opens the old one meanwhile: under its name is the new one then.
        let slot = old.as_ref().map(|old| lock(&old.file));
        std::fs::rename(&from, &new.path).map_err(|err| io_error("rename", &from, err))?;
        if let Some(old) = &old {
            old.gone.store(true, Ordering::Release);
        }
        let new = self.insert(new);
        drop(slot);
        if let Some(old) = &old {
            self.close(old);
        }
        sync_dir(&self.dir).map_err(|err| io_error("sync", &self.dir, err))?;
        self.note_made(&new);
        Ok(())
    }
}

/// Removes what there is of a file that was not finished.
fn remove_new(day: &DayFile) {
    let new = day.path.with_extension("new");
    if let Err(err) = std::fs::remove_file(&new)
        && err.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %new.display(), error = %err, "cannot remove");
    }
}
