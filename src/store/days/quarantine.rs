//! Sealed files that are damaged: out of the way, never deleted.
//!
//! A file that is cut short, changed or foreign at start goes to `quarantine/` and
//! the rest serves. As long as it lies there, queries that reach into its day warn of
//! it, and other readers refuse rather than give the day's samples in part. Who has read the file's name in
//! the log and gives the day up, removes it from the folder and starts pulse again.
//!
//! On a read-only start it stays where it is, and the same is said of its day.
//!
//! A file in which a reader finds a damaged part later is rewritten without that
//! part; it is kept in `quarantine/salvaged/`, and its day goes on serving. So is a copy
//! of a log with damaged records. The name says of about which times something is lost:
//! queries that reach there warn of it as long as the file lies there.

use std::path::{Path, PathBuf};

use super::super::disk::{causes, io_error, sync_dir};
use super::super::hot;
use super::super::sealed::{self, Kind};
use super::super::{Error, sealed::Error as SealedError};
use super::{DayFile, Days, lock};
use crate::promql::Gaps;

/// The folder in the data directory.
const FOLDER: &str = "quarantine";

/// The folder in it for files whose rest serves.
const SALVAGED: &str = "salvaged";

/// What is said of a file that is missing.
pub(in crate::store) const MISSING: &str = "it was sealed and is missing; it is asked for until \
    it is back (before samples came for its day), its retention is over, or an empty file of its \
    name that ends in .left gives it up, and pulse is started again";

/// A file that was set aside, or of which something is lost.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    /// About the times of what is missing, in ms.
    times: (i64, i64),
    /// The day of roll-ups.
    rolls_of: Option<u32>,
    path: PathBuf,
    how: How,
}

/// What became of a damaged file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// It is in the folder, and all that it had is missing.
    Aside,
    /// So it is, but it could not be moved, and is in its place.
    Left,
    /// Its rest serves.
    Salvaged,
    /// It is gone, and nobody knows why.
    Missing,
}

impl Aside {
    pub(super) fn new(start_s: u32, kind: Kind, path: PathBuf) -> Aside {
        Aside {
            times: super::finished::times_of(start_s),
            rolls_of: kind.is_roll().then_some(start_s),
            path,
            how: How::Aside,
        }
    }

    /// One whose rest serves.
    fn salvaged(times: (i64, i64), path: PathBuf) -> Aside {
        Aside {
            times,
            rolls_of: None,
            path,
            how: How::Salvaged,
        }
    }

    /// One that stays in its place.
    pub(super) fn left(file: &DayFile) -> Aside {
        Aside {
            how: How::Left,
            ..Aside::new(file.start_s, file.kind, file.path.clone())
        }
    }

    /// One that is not there.
    pub(super) fn missing(start_s: u32, kind: Kind, path: PathBuf) -> Aside {
        Aside {
            how: How::Missing,
            ..Aside::new(start_s, kind, path)
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.how == How::Missing
    }

    /// Whether it had samples of a day.
    pub(super) fn is_raw_of(&self, start_s: u32) -> bool {
        self.rolls_of.is_none() && self.times.0 == i64::from(start_s) * 1_000
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is this file.
    pub(super) fn is(&self, file: &DayFile) -> bool {
        self.path == file.path
    }

    fn overlaps(&self, start: i64, end: i64) -> bool {
        self.times.0 <= end && self.times.1 >= start
    }

    fn what(&self) -> &'static str {
        match self.how {
            How::Left => "it was left in its place at a read-only start",
            How::Aside => {
                "set aside at start; queries work without it once it is removed from there"
            }
            How::Missing => MISSING,
            How::Salvaged => "what of it was damaged is lost, the rest is there",
        }
    }
}

/// Whether the bytes of a file are wrong. Other errors (a newer format, a disk that
/// fails) are for the operator.
pub(in crate::store) fn is_damage(err: &SealedError) -> bool {
    match err {
        SealedError::Damaged { .. } => true,
        SealedError::Io { source, .. } => hot::is_damage(&**source),
        SealedError::Format { .. }
        | SealedError::TooManySamples { .. }
        | SealedError::NotAtHand => false,
    }
}

/// Moves a file out of the way, and marks that it has left.
///
/// # Errors
/// When it cannot be moved; it is where it was then.
pub(in crate::store) fn set_aside(dir: &Path, path: &Path) -> Result<PathBuf, Error> {
    let folder = dir.join(FOLDER);
    let to = place_in(
        &folder,
        &path.file_name().unwrap_or_default().to_string_lossy(),
    )?;
    super::finished::mark(path);
    std::fs::rename(path, &to)
        .and_then(|()| sync_dir(&folder))
        .and_then(|()| sync_dir(dir))
        .map_err(|err| io_error("move", path, err))?;
    Ok(to)
}

/// Keeps a file whose rest is rewritten: a second name for it, or a copy where
/// there are no second names. What is lost is of about these times, in ms.
///
/// # Errors
/// When it cannot be kept.
pub(super) fn keep(dir: &Path, path: &Path, times: (i64, i64)) -> Result<PathBuf, Error> {
    keep_as(dir, path, &name_of(path, times))
}

/// As [`keep`], under a name that says of which times something is lost, or of none.
///
/// # Errors
/// When it cannot be kept.
pub(in crate::store) fn keep_as(dir: &Path, path: &Path, name: &str) -> Result<PathBuf, Error> {
    let folder = dir.join(FOLDER).join(SALVAGED);
    let to = place_in(&folder, name)?;
    std::fs::hard_link(path, &to)
        .or_else(|_| std::fs::copy(path, &to).map(drop))
        .and_then(|()| sync_dir(&folder))
        .map_err(|err| io_error("keep", path, err))?;
    Ok(to)
}

/// Keeps a log file of which records of about these times (ms) are lost: a copy, as the
/// file itself is used again. One that was kept with these times before stays.
///
/// # Errors
/// When it cannot be kept.
fn keep_log(dir: &Path, path: &Path, times: (i64, i64)) -> Result<PathBuf, Error> {
    let folder = dir.join(FOLDER).join(SALVAGED);
    std::fs::create_dir_all(&folder).map_err(|err| io_error("create", &folder, err))?;
    let to = folder.join(name_of(path, times));
    if to.exists() {
        return Ok(to);
    }
    tracing::warn!(path = %to.display(), "a copy of a damaged log is kept");
    let copied = match path.exists() {
        true => std::fs::copy(path, &to).map(drop),
        // Its name says that something is lost.
        false => std::fs::File::create(&to).map(drop),
    };
    copied
        .and_then(|()| std::fs::File::open(&to)?.sync_all())
        .and_then(|()| sync_dir(&folder))
        .map_err(|err| io_error("keep", path, err))?;
    Ok(to)
}

/// A file's name with the times of what is lost of it.
pub(in crate::store) fn name_of(path: &Path, (from, to): (i64, i64)) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}.{}..{}", from.max(0), to.max(0))
}

/// The times in such a name. A number behind it tells files apart.
fn times_of(name: &str) -> Option<(i64, i64)> {
    let (from, to) = name.split_once("..")?;
    let (_, from) = from.rsplit_once('.')?;
    let to = to.split('.').next()?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// A name in a folder that is free: this one, or with a number behind it.
fn place_in(folder: &Path, name: &str) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(folder).map_err(|err| io_error("create", folder, err))?;
    let free = (0..).map(|n| match n {
        0 => folder.join(name),
        n => folder.join(format!("{name}.{n}")),
    });
    let to = free.into_iter().find(|to| !to.exists());
    Ok(to.expect("some number is free"))
}

/// The files that were set aside and whose days are not whole, and those of which
/// something is lost.
pub(super) fn all(dir: &Path) -> Vec<Aside> {
    let salvaged = std::fs::read_dir(dir.join(FOLDER).join(SALVAGED));
    let salvaged = salvaged.into_iter().flatten().flatten();
    let salvaged = salvaged.filter_map(|entry| {
        let times = times_of(entry.file_name().to_str()?)?;
        Some(Aside::salvaged(times, entry.path()))
    });
    let entries = std::fs::read_dir(dir.join(FOLDER)).into_iter().flatten();
    let files = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        let name = entry.file_name();
        // A number behind the name tells files of one day apart.
        let (name, _) = name.to_str()?.split_once(".redb")?;
        let (kind, start_s) = Kind::parse(&format!("{name}.redb"))?;
        Some(Aside::new(start_s, kind, path))
    });
    files.chain(salvaged).collect()
}

impl Days {
    /// Notes that samples of about these times are lost; the file is what is left of
    /// where they were.
    pub(in crate::store) fn note_lost(&self, times: (i64, i64), path: PathBuf) {
        let mut aside = lock(&self.aside);
        if aside.iter().all(|known| known.path != path) {
            aside.push(Aside::salvaged(times, path));
        }
    }

    /// Keeps a log file of which records of about these times (ms) are lost. Gives where
    /// it is now.
    pub(in crate::store) fn keep_log(&self, path: &Path, times: (i64, i64)) -> PathBuf {
        keep_log(&self.dir, path, times).unwrap_or_else(|err| {
            tracing::error!(path = %path.display(), error = %causes(&err), "cannot keep");
            path.to_owned()
        })
    }

    /// The data directory.
    pub(in crate::store) fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many damaged files there are: set aside, salvaged, left in their places, or
    /// missing.
    pub(in crate::store) fn damaged(&self) -> usize {
        let aside = lock(&self.aside);
        count(&self.dir) + {
            let left = aside
                .iter()
                .filter(|file| matches!(file.how, How::Left | How::Missing));
            left.count()
        }
    }
}

/// How many damaged files lie in the folders.
pub(in crate::store) fn count(dir: &Path) -> usize {
    let folder = dir.join(FOLDER);
    let folders = [folder.join(SALVAGED), folder];
    let entries = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok());
    let files = entries
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_file());
    files.count()
}

/// Whether roll-ups of the closed range were set aside.
pub(super) fn has_rolls(aside: &[Aside], (start, end): (i64, i64)) -> bool {
    let mut rolls = aside.iter().filter(|file| file.rolls_of.is_some());
    rolls.any(|file| file.overlaps(start, end))
}

/// Says that a day in the closed range is not whole: in `gaps`, if there are any.
/// Roll-ups do not matter where something of the day has what they had.
///
/// # Errors
/// When one of the files is of such a day, and not salvaged; with `gaps` never.
pub(super) fn check(
    aside: &[Aside],
    (start, end): (i64, i64),
    gaps: Option<&Gaps>,
    needs_rolls: impl Fn(u32) -> bool,
) -> Result<(), sealed::Error> {
    let matters =
        |file: &&Aside| file.overlaps(start, end) && file.rolls_of.is_none_or(&needs_rolls);
    for file in aside.iter().filter(matters) {
        let err = sealed::Error::Damaged {
            path: file.path.clone(),
            what: file.what().to_owned(),
        };
        match gaps {
            Some(gaps) => gaps.note(err.to_string()),
            None if file.how == How::Salvaged => {}
            None => return Err(err),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::model::{Matcher, Timestamp};
    use crate::promql::{Queryable as _, SelectHints};
    use crate::store::tests::{T0, batch, manual, options, row};
    use crate::store::{Store, sealed};
    use crate::telemetry::Metrics;
    use std::path::Path;
    use std::sync::Arc;

    const DAY: i64 = 86_400_000;

    fn open_read_only(dir: &Path) -> (Store, Arc<Metrics>) {
        let mut options = options(dir);
        options.store.read_only = true;
        let metrics = Metrics::new();
        let clock = manual(T0 + 60_000).0;
        let store = Store::open(options, clock, Arc::clone(&metrics));
        (store.unwrap(), metrics)
    }

    /// The names and bytes of all files.
    fn files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(dir).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let files = paths.filter(|path| path.extension().is_some_and(|e| e == "redb"));
        let mut files: Vec<_> = files
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort_unstable();
        files
    }

    fn open(dir: &Path) -> Store {
        Store::open(options(dir), manual(T0 + 60_000).0, Metrics::new()).unwrap()
    }

    /// The samples found from a time on, or the error.
    fn from(store: &Store, start: i64) -> Result<usize, String> {
        let (start, end) = (Timestamp::from_ms(start), Timestamp::MAX);
        let found = store.select(
            start,
            end,
            &[Matcher::equal("__name__", "a")],
            &SelectHints::default(),
        );
        let count =
            |series: Vec<crate::promql::Series>| series.iter().map(|s| s.samples.len()).sum();
        found.map(count).map_err(|err| format!("{err:?}"))
    }

    /// Changes one byte of the row that stands first in a table.
    fn flip_row(path: &Path, table: &str) {
        let db = redb::Database::open(path).unwrap();
        let txn = db.begin_write().unwrap();
        match table {
            "window" => sealed::flip_window(&txn),
            _ => sealed::flip_stat(&txn),
        }
        txn.commit().unwrap();
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_its_day_says_so_and_the_rest_serves() {
        let damage: [fn(&Path); 4] = [
            |path| flip_row(path, "window"),
            |path| flip_row(path, "stat"),
            |path| {
                let bytes = std::fs::read(path).unwrap();
                std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            },
            |path| std::fs::write(path, [7; 20_000]).unwrap(),
        ];
        for (n, damage) in damage.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path());
            for day in [2, 1, 0] {
                let rows = [row("a", "d", T0 - day * DAY, 1.0)];
                store.write(batch(rows)).await.unwrap();
            }
            store.seal_now().await.unwrap();
            assert_eq!(from(&store, T0 - 3 * DAY), Ok(3));
            store.close().await;
            drop(store);
            damage(&dir.path().join("l0-20231113.redb"));

            // A read-only start leaves it where it is, however often.
            let before = files(dir.path());
            for _ in 0..2 {
                let (store, metrics) = open_read_only(dir.path());
                let text = from(&store, T0 - 3 * DAY).expect_err("a day is missing");
                let wanted = ["/l0-20231113.redb", "read-only start"];
                assert!(wanted.iter().all(|w| text.contains(w)), "{n}: {text}");
                assert_eq!(from(&store, T0 - DAY / 2), Ok(1), "{n}");
                assert_eq!(metrics.store.quarantined.get(), 1);
            }
            assert_eq!(files(dir.path()), before, "{n}");
            assert!(!dir.path().join("quarantine").exists());

            for _ in 0..2 {
                // The second start finds the file where the first one put it.
                let store = open(dir.path());
                let whole = from(&store, T0 - 3 * DAY);
                let text = whole.expect_err("a day is missing, and nobody says so");
                assert!(text.contains("quarantine/l0-20231113.redb"), "{n}: {text}");
                assert_eq!(from(&store, T0 - DAY / 2), Ok(1), "{n}");
                // What comes for that day is taken, and sealed.
                let late = [row("a", "d", T0 - DAY, 2.0)];
                store.write(batch(late)).await.unwrap();
                store.seal_now().await.unwrap();
                store.close().await;
            }
            std::fs::remove_dir_all(dir.path().join("quarantine")).unwrap();
            let store = open(dir.path());
            assert_eq!(from(&store, T0 - 3 * DAY), Ok(3), "{n}");
            store.close().await;
        }
    }
}
