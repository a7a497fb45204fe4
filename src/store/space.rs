//! Free space on the disk: how much there is, and the reserve for when there is none.
//!
//! Free space is asked for before every commit and by every look of the sealer.
//! Below `[store] free_min` the oldest sealed data goes; below half of it new series
//! are refused; below a quarter, or when a commit would not fit, samples are not
//! taken. On a small disk the bounds are a twentieth of it instead.
//!
//! The reserve is a file of real blocks. When the disk refuses a commit in spite of
//! all that (something else filled it), the file goes, so that rules, alerts and
//! outbox can write on; it is made again when there is room.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::pressure::{Cause, Level, Pressure};
use crate::config;
use crate::telemetry::metrics;

/// The name of the reserve file.
const RESERVE_FILE: &str = "ballast";

/// Of a small disk, no bound is more than one part in so many.
const SMALL_DISK_PART: u64 = 20;

/// What a commit writes beside its payload.
const COMMIT_BYTES: u64 = 256 << 10;

/// Free and total bytes of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Free {
    pub(super) bytes: u64,
    pub(super) total: u64,
}

/// Asks for the free space where a path is.
type Probe = Box<dyn Fn(&Path) -> io::Result<Free> + Send + Sync>;

/// The free space of the data directory.
pub(super) struct Space {
    dir: PathBuf,
    free_min: u64,
    reserve: u64,
    probe: std::sync::RwLock<Probe>,
}

impl Space {
    /// Of a directory. Touches nothing.
    pub(super) fn new(dir: &Path, options: &config::Store) -> Space {
        Space {
            dir: dir.to_owned(),
            free_min: options.free_min.get(),
            reserve: options.reserve.get(),
            probe: std::sync::RwLock::new(Box::new(ask)),
        }
    }

    /// What is free. `None` when nobody can say.
    pub(super) fn free(&self) -> Option<Free> {
        let probe = self
            .probe
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match probe(&self.dir) {
            Ok(free) => Some(free),
            Err(err) => {
                tracing::debug!(error = %err, "cannot ask for free space");
                None
            }
        }
    }

    /// Looks at the free space with regard to a commit of so many bytes, and sets
    /// the level.
    pub(super) fn look(
        &self,
        planned: u64,
        pressure: &Pressure,
        metrics: &metrics::Store,
    ) -> Level {
        let before = pressure.of(Cause::Disk);
        let Some(free) = self.free() else {
            return before;
        };
        metrics
            .free_bytes
            .set(i64::try_from(free.bytes).unwrap_or(i64::MAX));
        // What the reserve gave is for state, not for samples.
        let left = free.bytes.saturating_sub(self.missing_reserve(free));
        let level = match left < 2 * planned + COMMIT_BYTES {
            // What the disk refuses is seen when it does.
            true if self.free_min == 0 => before,
            true => Level::Withhold,
            false => level_of(left, self.free_min(free), before),
        };
        pressure.set(Cause::Disk, level, metrics);
        level
    }

    /// Whether sealed data may go before its time for the sake of free space.
    pub(super) fn sheds(&self) -> bool {
        self.free_min > 0
    }

    /// How much has to be free until nothing is missed.
    pub(super) fn free_min(&self, free: Free) -> u64 {
        self.free_min.min(free.total / SMALL_DISK_PART)
    }

    fn reserve_bytes(&self, free: Free) -> u64 {
        self.reserve.min(free.total / SMALL_DISK_PART)
    }

    fn missing_reserve(&self, free: Free) -> u64 {
        match self.dir.join(RESERVE_FILE).exists() {
            true => 0,
            false => self.reserve_bytes(free),
        }
    }

    /// What can be written when the reserve is given up.
    pub(super) fn room_with_reserve(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let reserve = std::fs::metadata(self.dir.join(RESERVE_FILE));
        let reserve = reserve.map_or(0, |file| file.blocks() * 512);
        self.free().map_or(0, |free| free.bytes) + reserve
    }

    /// Makes the reserve file where there is room for it.
    ///
    /// # Errors
    /// When the file cannot be made; nothing is left of it then.
    pub(super) fn keep_reserve(&self) -> io::Result<()> {
        let path = self.dir.join(RESERVE_FILE);
        let Some(free) = self.free().filter(|_| self.reserve > 0) else {
            return Ok(());
        };
        let bytes = self.reserve_bytes(free);
        if free.bytes < self.free_min(free) + bytes || path.exists() {
            return Ok(());
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        let made = allocate(&file, bytes);
        if made.is_err() {
            self.release_reserve();
        }
        made
    }

    /// At start: gives the reserve's blocks back when there is no room for a commit, so
    /// that the files can be opened as after any other stop.
    pub(super) fn make_room_to_start(&self) {
        let is_full = |free: Free| free.bytes < 2 * COMMIT_BYTES;
        if self.free().is_some_and(is_full) {
            self.release_reserve();
        }
    }

    /// Gives the reserve's blocks back to the disk; says whether there were some.
    pub(super) fn release_reserve(&self) -> bool {
        let path = self.dir.join(RESERVE_FILE);
        match std::fs::remove_file(&path) {
            Ok(()) => {
                tracing::warn!("the disk is full, the reserve is used");
                return true;
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => tracing::error!(error = %err, "cannot give the reserve back"),
        }
        false
    }

    /// Asks somebody else for the free space.
    #[cfg(test)]
    pub(super) fn set_probe(&self, probe: impl Fn() -> Free + Send + Sync + 'static) {
        *self.probe.write().unwrap() = Box::new(move |_| Ok(probe()));
    }
}

fn ask(dir: &Path) -> io::Result<Free> {
    let stat = statvfs(dir)?;
    Ok(Free {
        bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Real blocks, also where the file system cannot set them aside by itself.
fn allocate(mut file: &std::fs::File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            io::copy(&mut io::Read::take(io::repeat(0x5a), bytes), &mut file)?;
        }
        other => other?,
    }
    file.sync_all()
}

/// The level at so much free space. To leave a level takes an eighth of the bound
/// more than to enter it.
fn level_of(free: u64, free_min: u64, before: Level) -> Level {
    let bound = |level: Level, bytes: u64| {
        let margin = if before >= level { free_min / 8 } else { 0 };
        free < bytes + margin
    };
    if bound(Level::Withhold, free_min / 4) {
        Level::Withhold
    } else if bound(Level::NoSeries, free_min / 2) {
        Level::NoSeries
    } else if bound(Level::Shed, free_min) {
        Level::Shed
    } else {
        Level::Calm
    }
}

/// Whether the disk said that it is full.
pub(super) fn is_full(err: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(err);
    while let Some(err) = next {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        let io = match err.downcast_ref::<redb::Error>() {
            Some(redb::Error::Io(io)) => Some(io),
            _ => err.downcast_ref::<io::Error>(),
        };
        if io.is_some_and(|io| full.contains(&io.kind())) {
            return true;
        }
        next = err.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_free_space_and_do_not_flap() {
        let check = |free: u64, before: Level, want: Level| {
            assert_eq!(level_of(free, 800, before), want, "{free} {before:?}");
        };
        check(800, Level::Calm, Level::Calm);
        check(799, Level::Calm, Level::Shed);
        check(800, Level::Shed, Level::Shed);
        check(900, Level::Shed, Level::Calm);
        check(399, Level::Shed, Level::NoSeries);
        check(450, Level::NoSeries, Level::NoSeries);
        check(500, Level::NoSeries, Level::Shed);
        check(199, Level::Calm, Level::Withhold);
        check(250, Level::Withhold, Level::Withhold);
        check(300, Level::Withhold, Level::NoSeries);
        check(u64::MAX / 2, Level::Withhold, Level::Calm);
    }

    #[test]
    fn the_reserve_has_real_blocks_and_comes_and_goes() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let options = config::Store {
            reserve: config::Size::mib(1),
            ..config::Store::default()
        };
        let space = Space::new(dir.path(), &options);
        space.set_probe(|| Free {
            bytes: 300 << 20,
            total: 1 << 40,
        });
        space.keep_reserve().unwrap();
        space.keep_reserve().unwrap();
        let file = dir.path().join(RESERVE_FILE);
        assert_eq!(file.metadata().unwrap().blocks() * 512, 1 << 20);
        space.release_reserve();
        space.release_reserve();
        assert!(!file.exists());
        space.set_probe(|| Free {
            bytes: 256 << 20,
            total: 1 << 40,
        });
        space.keep_reserve().unwrap();
        assert!(!file.exists(), "there is no room for it");
    }

    #[test]
    fn a_full_disk_is_known_by_its_error() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(is_full(&redb::Error::Io(full())));
        assert!(is_full(&super::super::disk::io_error(
            "write",
            Path::new("x"),
            full()
        )));
        assert!(!is_full(&redb::Error::Io(io::ErrorKind::NotFound.into())));
    }
}
