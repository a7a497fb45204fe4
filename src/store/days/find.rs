//! Which files a directory has, and what is in them: asked once, at start.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};

use super::super::Error;
use super::super::caught::caught;
use super::super::deleted::Tombstones;
use super::super::disk::{Backends, causes, io_error};
use super::super::sealed::kept::Pages;
use super::super::sealed::{self, Kind};
use super::quarantine::Aside;
use super::{DayFile, Days, OpenFile, WINDOW_S, quarantine, store_error};

/// The files, or one that cannot be opened and why.
type Found = Result<Days, (Box<DayFile>, sealed::Error)>;

impl Days {
    /// Sets the files aside that are damaged, of another day than their names say, or of
    /// another store than `store`; then as [`Days::open`]. Where nothing
    /// may be written they stay in their places and are passed over.
    ///
    /// # Errors
    /// As [`Days::open`], but not for damage.
    pub(in crate::store) fn open_whole(
        dir: &Path,
        store: u64,
        backends: Backends,
        cache_bytes: usize,
        read_only: bool,
    ) -> Result<Days, Error> {
        let mut left = Vec::new();
        loop {
            match Days::find(
                (dir, store),
                (Arc::clone(&backends), read_only),
                cache_bytes,
                &left,
            )? {
                Ok(days) => return Ok(days),
                Err((file, err)) if quarantine::is_damage(&err) => {
                    let (path, error) = (file.path.display(), causes(&err));
                    if read_only {
                        tracing::error!(%path, error, "a file is damaged and passed over");
                        left.push(Aside::left(&file));
                    } else {
                        tracing::error!(%path, error, "set a damaged file aside");
                        quarantine::set_aside(dir, &file.path)?;
                    }
                }
                Err((_, err)) => return Err(store_error(err)),
            }
        }
    }

    /// Finds the files of a directory, to read them, and which generations they have.
    ///
    /// # Errors
    /// When a file cannot be read, or a newer version wrote it.
    pub(in crate::store) fn open(
        dir: &Path,
        backends: Backends,
        cache_bytes: usize,
    ) -> Result<Days, Error> {
        Days::find((dir, 0), (backends, true), cache_bytes, &[])?
            .map_err(|(_, err)| store_error(err))
    }

    /// The files, or the first one that cannot be opened; those in `left` are not
    /// looked at.
    fn find(
        (dir, store): (&Path, u64),
        (backends, is_read): (Backends, bool),
        cache_bytes: usize,
        left: &[Aside],
    ) -> Result<Found, Error> {
        let days = Days {
            dir: dir.to_owned(),
            backends,
            store,
            is_read,
            cache_bytes,
            pages: Arc::new(Pages::new(cache_bytes)),
            files: RwLock::default(),
            rolls: RwLock::default(),
            records: Mutex::default(),
            aside: Mutex::new([quarantine::all(dir), left.to_vec()].concat()),
            open: Mutex::default(),
            tombstones: Tombstones::default(),
            pins: Arc::default(),
            suspects: Mutex::default(),
            suspect_rolls: Mutex::default(),
            rolls_made: AtomicU64::default(),
        };
        let entries = std::fs::read_dir(dir).map_err(|err| io_error("read", dir, err))?;
        for entry in entries {
            let entry = entry.map_err(|err| io_error("read", dir, err))?;
            if let Some((kind, start_s)) = entry.file_name().to_str().and_then(Kind::parse) {
                let file = DayFile::new(dir, start_s, kind);
                if left.iter().any(|left| left.is(&file)) {
                    continue;
                }
                match days.open_first(&file) {
                    Ok(opened) => file.note(opened.get()),
                    Err(err) => return Ok(Err((Box::new(file), err))),
                }
                days.insert(file);
            }
        }
        Ok(Ok(days))
    }

    /// Opens a file that was found.
    fn open_first(&self, file: &DayFile) -> Result<Arc<OpenFile>, sealed::Error> {
        let damaged = |what: &str| sealed::Error::Damaged {
            path: file.path.clone(),
            what: what.to_owned(),
        };
        if !file.path.is_file() {
            return Err(damaged("it is no file"));
        }
        let opened = caught(|| self.file(file));
        opened.unwrap_or_else(|| Err(damaged("its tree cannot be walked")))
    }

    /// The sealed transactions of each window (in hours), and the newest sealed
    /// time. A window may have gaps: when a part could not be sealed, later ones of
    /// the same window were.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(in crate::store) fn coverage(&self) -> Result<Coverage, Error> {
        let mut coverage = Coverage {
            windows: HashMap::new(),
            max_t: i64::MIN,
        };
        for day in self.all() {
            for (window_s, seqs) in self.file(&day).map_err(store_error)?.get().covered() {
                let sealed = coverage.windows.entry(window_s / WINDOW_S).or_default();
                sealed.push(seqs.start().0..=seqs.end().0);
            }
            let newest = day.generations().iter().map(|g| g.max_time).max();
            coverage.max_t = coverage.max_t.max(newest.unwrap_or(i64::MIN));
        }
        Ok(coverage)
    }

    /// The earliest and the latest sealed time, that of roll-ups too.
    pub(in crate::store) fn span(&self) -> Option<(i64, i64)> {
        let days = self.all_kinds();
        let generations = days.iter().flat_map(|day| day.generations().to_vec());
        generations
            .filter(|g| g.samples > 0)
            .map(|g| (g.min_time, g.max_time))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

/// What the sealed files hold, for replay.
#[derive(Debug)]
pub(in crate::store) struct Coverage {
    windows: HashMap<u32, Vec<RangeInclusive<u64>>>,
    /// No sealed sample is newer than this.
    pub(in crate::store) max_t: i64,
}

impl Coverage {
    /// That nothing is sealed.
    #[cfg(test)]
    pub(in crate::store) fn none() -> Coverage {
        Coverage {
            windows: HashMap::new(),
            max_t: i64::MIN,
        }
    }

    /// Whether the samples that this transaction brought for this window are sealed.
    pub(in crate::store) fn has(&self, window: u32, seq: u64) -> bool {
        let sealed = self.windows.get(&window);
        sealed.is_some_and(|all| all.iter().any(|seqs| seqs.contains(&seq)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Matcher, Sample, Timestamp};
    use crate::promql::{Queryable as _, SelectHints};
    use crate::store::Store;
    use crate::store::tests::{T0, batch, manual, options, row};
    use crate::telemetry::Metrics;

    #[test]
    fn a_gap_between_sealed_parts_of_a_window_is_not_covered() {
        // Transactions 1 to 100 could not be sealed, 101 to 120 of the same hour were.
        let coverage = Coverage {
            windows: HashMap::from([(7, vec![101..=120])]),
            max_t: 0,
        };
        assert!(!coverage.has(7, 100), "replay has to take it in");
        assert!(coverage.has(7, 101));
        assert!(coverage.has(7, 120));
        assert!(!coverage.has(7, 121));
        assert!(!coverage.has(8, 110));
    }

    /// The samples of one second: the days that were set aside cannot be asked for.
    fn stored(store: &Store) -> Vec<Sample> {
        let (from, to) = (Timestamp::from_ms(T0), Timestamp::from_ms(T0 + 1_000));
        let all = [Matcher::equal("__name__", "v")];
        let found = store.select(from, to, &all, &SelectHints::default());
        found.unwrap().into_iter().flat_map(|s| s.samples).collect()
    }

    #[tokio::test]
    async fn what_is_no_file_is_set_aside_and_the_rest_serves() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let (clock, _) = manual(T0 + 60_000);
            Store::open(options(dir.path()), clock, Metrics::new()).unwrap()
        };
        let store = open();
        store.write(batch([row("v", "d", T0, 1.0)])).await.unwrap();
        store.compact_now().await.unwrap();
        store
            .write(batch([row("v", "d", T0 + 1, 2.0)]))
            .await
            .unwrap();
        let before = stored(&store);
        store.close().await;
        drop(store);
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("day-20200101.redb")).unwrap();
        std::fs::create_dir(at("hot-07.log")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("l0-20200102.redb")).unwrap();
        let store = open();
        assert_eq!(stored(&store), before);
        for name in ["day-20200101.redb", "l0-20200102.redb"] {
            let aside = at("quarantine").join(name);
            assert!(aside.symlink_metadata().is_ok(), "{name}");
            assert!(at(name).symlink_metadata().is_err(), "{name}");
        }
        store
            .write(batch([row("v", "d", T0 + 2, 2.0)]))
            .await
            .unwrap();
        store.close().await;
    }
}
