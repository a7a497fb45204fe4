//! Which sealed files the store has made and not removed: one that is gone without its
//! doing is told, not served as if its day had been empty.
//!
//! `hot.redb` has a row for each such file ([`tables::put_finished`]). It comes with the
//! next transaction, after a seal with the one that drops the log records. A file without
//! a row (former versions wrote none, backups have those of missing ones) is taken as it is.
//!
//! A file that leaves or is set aside has an empty one beside it, `NAME.left`, from before
//! it goes until its row is gone. So a crash between the two leaves no missing file, and a
//! file can go while the disk takes no transaction. Who gives a missing file up makes such
//! a mark.
//!
//! With the rows stands up to which commit the log was sealed. When `hot.redb` says
//! another one, a former version ran in between, which keeps no rows: they say nothing then.
//!
//! What is missing is told at each start and by queries into its day, until it is back,
//! given up, or past its retention. When samples come for its day they go to a new file
//! of its name, whose row says that something is lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _};

use super::quarantine::Aside;
use super::{DAY_MS, DayFile, Days, lock};
use crate::model::Timestamp;
use crate::store::Error;
use crate::store::disk::{io_error, sync_dir};
use crate::store::sealed::Kind;
use crate::store::tables::{self, HOT_FILE};

/// The ending of an empty file that says that a sealed one has left.
const MARK: &str = "left";

/// What a row says of its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Finished {
    /// It is there.
    There,
    /// It was missing, and was made anew without what it had.
    Lost,
    /// Somebody ran since who keeps no rows. Never written: the next commit sets it right.
    Unkept,
}

/// Rows to write, by the file's name; `None`: to delete.
pub(in crate::store) type Rows = Vec<(String, Option<Finished>)>;

/// The rows in `hot.redb`, and what they have to become.
#[derive(Default)]
pub(super) struct Records {
    rows: BTreeMap<String, Finished>,
    /// Also while they are being written.
    pending: BTreeMap<String, Option<Finished>>,
}

impl Records {
    fn note(&mut self, name: String, row: Option<Finished>) {
        if self.pending.contains_key(&name) || self.rows.get(&name).copied() != row {
            self.pending.insert(name, row);
        }
    }
}

/// Whether the name is that of a mark.
pub(in crate::store) fn is_mark(name: &str) -> bool {
    name_of_mark(name).is_some()
}

fn name_of_mark(mark: &str) -> Option<String> {
    let name = format!("{}.redb", mark.strip_suffix(MARK)?.strip_suffix('.')?);
    Kind::parse(&name).map(|_| name)
}

/// A file that is missing.
#[derive(PartialEq, Eq)]
pub(in crate::store) struct Missing {
    kind: Kind,
    start_s: u32,
    pub(in crate::store) path: PathBuf,
}

impl Missing {
    pub(in crate::store) fn name(&self) -> String {
        name_of(&self.path).unwrap_or_default()
    }

    fn tell(&self) {
        let (from, to) = times_of(self.start_s);
        tracing::error!(
            path = %self.path.display(),
            from = %Timestamp::from_ms(from),
            to = %Timestamp::from_ms(to),
            "a sealed file is missing: put it back, or give it up with an empty file of its \
             name that ends in .left, and start again"
        );
    }
}

/// The files that are missing by what `hot.redb` says: not there, or made anew. Not those
/// that have left or were set aside.
///
/// # Errors
/// When it cannot be read.
pub(in crate::store) fn missing(dir: &Path, db: &Database) -> Result<Vec<Missing>, Error> {
    Ok(missing_of(dir, &rows_of(dir, db)?))
}

fn rows_of(dir: &Path, db: &Database) -> Result<BTreeMap<String, Finished>, Error> {
    let read = || tables::finished(&db.begin_read()?);
    read().map_err(|err| io_error("read", &dir.join(HOT_FILE), err))
}

fn missing_of(dir: &Path, rows: &BTreeMap<String, Finished>) -> Vec<Missing> {
    let missing = rows.iter().filter_map(|(name, row)| {
        let (kind, start_s) = Kind::parse(name)?;
        let path = dir.join(name);
        let is_whole = match row {
            Finished::There => path.symlink_metadata().is_ok(),
            Finished::Lost => false,
            Finished::Unkept => true,
        };
        let has_left = path.with_extension(MARK).exists();
        (!is_whole && !has_left).then_some(Missing {
            kind,
            start_s,
            path,
        })
    });
    missing.collect()
}

impl Days {
    /// Compares the files with what `hot.redb` says of them, and tells which are missing:
    /// once, at start.
    ///
    /// # Errors
    /// When that or the directory cannot be read.
    pub(in crate::store) fn note_missing(&self, db: &Database) -> Result<(), Error> {
        let rows = rows_of(&self.dir, db)?;
        let missing = missing_of(&self.dir, &rows);
        missing.iter().for_each(Missing::tell);
        let there = self.all_kinds();
        let there = there.iter().filter_map(|file| name_of(&file.path));
        let mut wanted: BTreeMap<_, _> = there.map(|name| (name, Finished::There)).collect();
        let still = missing.iter().filter_map(|file| name_of(&file.path));
        wanted.extend(still.filter_map(|name| rows.get(&name).map(|row| (name, *row))));
        let mut records = lock(&self.records);
        let gone = rows.keys().filter(|name| Kind::parse(name).is_some());
        let gone = gone.filter(|name| !wanted.contains_key(*name));
        let gone: Vec<String> = gone.cloned().collect();
        records.rows = rows;
        gone.into_iter().for_each(|name| records.note(name, None));
        for (name, row) in wanted {
            records.note(name, Some(row));
        }
        if !self.is_read {
            self.drop_marks(&records)?;
        }
        drop(records);
        let missing = missing.into_iter();
        let missing = missing.map(|file| Aside::missing(file.start_s, file.kind, file.path));
        lock(&self.aside).extend(missing);
        Ok(())
    }

    /// Removes the marks that are of no use any more.
    fn drop_marks(&self, records: &Records) -> Result<(), Error> {
        let fail = |err| io_error("read", &self.dir, err);
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_str().and_then(name_of_mark);
            if name.is_some_and(|name| !records.pending.contains_key(&name)) {
                remove_mark(&entry.path());
            }
        }
        Ok(())
    }

    /// The files that are missing.
    pub(in crate::store) fn missing(&self) -> Vec<PathBuf> {
        let aside = lock(&self.aside);
        let missing = aside.iter().filter(|file| file.is_missing());
        missing.map(|file| file.path().to_owned()).collect()
    }

    /// Notes that a file is there, after its name is durable.
    pub(super) fn note_made(&self, file: &DayFile) {
        let Some(name) = name_of(&file.path) else {
            return;
        };
        let mut records = lock(&self.records);
        let mut aside = lock(&self.aside);
        // Made of a day that has its samples, roll-ups are whole again.
        let of_day = |known: &Aside| known.is_missing() && known.is_raw_of(file.start_s);
        if file.kind.is_roll() && !aside.iter().any(of_day) {
            aside.retain(|known| !(known.is_missing() && known.is(file)));
        }
        let mark = file.path.with_extension(MARK);
        if mark.exists() {
            // Given up while we run.
            aside.retain(|known| !(known.is_missing() && known.is(file)));
        }
        let is_lost = aside
            .iter()
            .any(|known| known.is_missing() && known.is(file));
        drop(aside);
        let row = [Finished::There, Finished::Lost][usize::from(is_lost)];
        records.note(name, Some(row));
        remove_mark(&mark);
    }

    /// Notes that files are about to be removed, and marks them. Without room for a mark
    /// they go nevertheless: room is what they leave for.
    pub(super) fn note_leaving<'a>(&self, files: impl IntoIterator<Item = &'a DayFile>) {
        let mut records = lock(&self.records);
        let aside = lock(&self.aside);
        let mut any = false;
        for file in files {
            // What it had before it was missing does not come back when it goes.
            let is_lost = aside
                .iter()
                .any(|known| known.is_missing() && known.is(file));
            let Some(name) = name_of(&file.path).filter(|_| !is_lost) else {
                continue;
            };
            records.note(name, None);
            any = true;
            mark(&file.path);
        }
        // The writer asks for the records and must not wait for the disk.
        drop((aside, records));
        if any && let Err(err) = sync_dir(&self.dir) {
            tracing::warn!(path = %self.dir.display(), error = %err, "cannot sync");
        }
    }

    /// Notes that a file was set aside, which its new place says as well.
    pub(super) fn note_aside(&self, file: &DayFile) {
        if let Some(name) = name_of(&file.path) {
            lock(&self.records).note(name, None);
        }
    }

    /// Forgets the missing files that would have left before this one, had they been there.
    pub(in crate::store) fn forget_missing_before(&self, leaving: &DayFile) {
        self.forget_missing(|kind| {
            let are_raw = !(kind.is_roll() || leaving.kind.is_roll());
            match are_raw || kind == leaving.kind {
                true => times_of(leaving.start_s).0,
                false => i64::MIN,
            }
        });
    }

    /// Forgets the missing files of days that ended before what `oldest_ms` says for their
    /// kind; says whether there were some.
    pub(super) fn forget_missing(&self, oldest_ms: impl Fn(Kind) -> i64) -> bool {
        let mut records = lock(&self.records);
        let mut aside = lock(&self.aside);
        let old = aside.extract_if(.., |file| {
            let named = file
                .path()
                .file_name()
                .and_then(|name| Kind::parse(name.to_str()?));
            let is_old = |(kind, start_s)| times_of(start_s).1 < oldest_ms(kind);
            file.is_missing() && named.is_some_and(is_old)
        });
        let mut any = false;
        for file in old {
            any = true;
            tracing::info!(path = %file.path().display(), "missing file expired");
            if let Some(name) = name_of(file.path()) {
                records.note(name, None);
            }
        }
        any
    }

    /// The rows that the next transaction of `hot.redb` writes.
    pub(in crate::store) fn records(&self) -> Rows {
        let records = lock(&self.records);
        let pending = records.pending.iter();
        pending.map(|(name, row)| (name.clone(), *row)).collect()
    }

    /// Whether there are some.
    pub(in crate::store) fn has_records(&self) -> bool {
        !lock(&self.records).pending.is_empty()
    }

    /// Notes that these are durable.
    pub(in crate::store) fn recorded(&self, rows: Rows) {
        let mut records = lock(&self.records);
        for (name, row) in rows {
            match row {
                Some(row) => drop(records.rows.insert(name.clone(), row)),
                None => drop(records.rows.remove(&name)),
            }
            if records.pending.get(&name) == Some(&row) {
                records.pending.remove(&name);
                remove_mark(&self.dir.join(name).with_extension(MARK));
            }
        }
    }
}

/// Marks a sealed file that is about to leave. Without room for a mark it goes nevertheless.
pub(super) fn mark(path: &Path) {
    if name_of(path).is_none_or(|name| Kind::parse(&name).is_none()) {
        return;
    }
    let mark = path.with_extension(MARK);
    if let Err(err) = File::create(&mark) {
        tracing::warn!(path = %mark.display(), error = %err, "cannot create");
    }
}

fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// A day, in ms.
pub(super) fn times_of(start_s: u32) -> (i64, i64) {
    let from = i64::from(start_s) * 1_000;
    (from, from + DAY_MS - 1)
}

fn remove_mark(mark: &Path) {
    if let Err(err) = fs::remove_file(mark)
        && err.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %mark.display(), error = %err, "cannot remove");
    }
}

#[cfg(test)]
mod tests;
