//! The bytes under redb: counted on their way, and replaceable by a fake disk.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use prometheus::IntCounter;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::Error;
use super::sealed::frozen::Frozen;
use super::space::is_full;

/// Opens the bytes of a file, making it when it is missing.
pub(super) type Backends = Arc<dyn Fn(&Path) -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

/// Real files whose written bytes (in whole blocks) and syncs are counted.
pub(super) fn counted_files(bytes: IntCounter, syncs: IntCounter) -> Backends {
    Arc::new(move |path| {
        let new = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        if new && let Some(parent) = path.parent() {
            sync_dir(parent)?;
        }
        forget_cached(&file);
        let inner = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(Counted {
            inner: Box::new(inner),
            bytes: bytes.clone(),
            syncs: syncs.clone(),
        }))
    })
}

/// Real files that are only read: what redb wants to write goes to memory and is
/// forgotten. So a file is opened on a read-only medium too, and repaired after a
/// crash, without a change.
pub(super) fn frozen_files() -> Backends {
    Arc::new(|path| {
        let file = File::open(path)?;
        Ok(Box::new(Frozen::new(Box::new(ReadOnly(file)))?))
    })
}

/// A file that cannot be written.
#[derive(Debug)]
struct ReadOnly(File);

impl StorageBackend for ReadOnly {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, _: u64) -> Result<(), io::Error> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), io::Error> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Makes the next reader of a file read from the disk, as far as the kernel lets go.
pub(super) fn forget(path: &Path) {
    if let Ok(file) = File::open(path) {
        forget_cached(&file);
    }
}

/// After a failed sync the kernel may show pages in its cache that never reached
/// the disk, and calls them clean. So what is read at open comes from the disk.
fn forget_cached(file: &File) {
    let advice = rustix::fs::Advice::DontNeed;
    if let Err(err) = rustix::fs::fadvise(file, 0, None, advice) {
        tracing::debug!(error = %err, "no fadvise on this file system");
    }
}

/// Makes a new or removed name in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    })?
    .sync_all()
}

/// A backend that counts. It leaves redb's own file locks out: the directory's
/// `LOCK` stands for all files, and a reopen need not wait for old readers.
struct Counted {
    inner: Box<dyn StorageBackend>,
    bytes: IntCounter,
    syncs: IntCounter,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counted").field(&self.inner).finish()
    }
}

impl StorageBackend for Counted {
    fn len(&self) -> Result<u64, io::Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.syncs.inc();
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.bytes.inc_by(block_bytes(offset, data.len()));
        self.inner.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.inner.close()
    }
}

/// What the file system writes for so many bytes at a place: whole blocks.
fn block_bytes(offset: u64, len: usize) -> u64 {
    let first = offset / BLOCK_BYTES;
    let end = (offset + len as u64).div_ceil(BLOCK_BYTES);
    (end - first) * BLOCK_BYTES
}

const BLOCK_BYTES: u64 = 4_096;

/// A boxed backend as a backend: redb takes a concrete type.
#[derive(Debug)]
pub(super) struct Boxed(pub(super) Box<dyn StorageBackend>);

impl StorageBackend for Boxed {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.0.close()
    }
}

/// The directory's lock, held until it is dropped: that of the directory itself, and of a
/// file that says who has it.
#[derive(Debug)]
pub struct DirLock {
    _files: Vec<File>,
}

impl DirLock {
    /// Takes the lock of a directory, which is made when it is missing.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it.
    pub fn take(dir: &Path) -> Result<DirLock, Error> {
        std::fs::create_dir_all(dir).map_err(|err| io_error("create", dir, err))?;
        DirLock::take_existing(dir)
    }

    /// Takes the lock of a directory to run on it; says whether it is only read:
    /// because that is wanted, or because the medium takes no writes.
    ///
    /// # Errors
    /// As [`DirLock::take`].
    pub fn take_to_run(dir: &Path, read_only: bool) -> Result<(DirLock, bool), Error> {
        if !read_only {
            match DirLock::take(dir) {
                Ok(lock) => return Ok((lock, false)),
                Err(Error::Io { source, .. }) if is_read_only(&*source) => {}
                Err(err) => return Err(err),
            }
        }
        DirLock::take_to_read(dir).map(|lock| (lock, true))
    }

    /// Takes the lock of a directory that is only read, also on a read-only medium.
    /// Writes nothing. Others may read as well.
    ///
    /// # Errors
    /// As [`DirLock::take`].
    pub fn take_to_read(dir: &Path) -> Result<DirLock, Error> {
        let whole = File::open(dir).map_err(|err| io_error("open", dir, err))?;
        let mut files = vec![whole];
        files.extend(File::open(dir.join("LOCK")));
        for file in &files {
            match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => return Err(held(dir)),
                Err(TryLockError::Error(err)) => tracing::debug!(error = %err, "cannot lock"),
                Ok(()) => {}
            }
        }
        Ok(DirLock { _files: files })
    }

    /// Takes the lock of a directory that must be there.
    ///
    /// # Errors
    /// As [`DirLock::take`].
    pub fn take_existing(dir: &Path) -> Result<DirLock, Error> {
        let path = dir.join("LOCK");
        let io = |action| {
            let path = path.clone();
            move |source: io::Error| io_error(action, &path, source)
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(dir)),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
        }
        // Who only reads may have found no file to lock.
        let whole = File::open(dir).map_err(|err| io_error("open", dir, err))?;
        if let Err(TryLockError::WouldBlock) = whole.try_lock() {
            return Err(held(dir));
        }
        match note_holder(&mut file) {
            // The lock is what counts, and a full disk is nothing to end for.
            Err(err) if is_full(&err) => {
                tracing::warn!(error = %err, "cannot write down who holds the directory");
            }
            other => other.map_err(io("write"))?,
        }
        Ok(DirLock {
            _files: vec![file, whole],
        })
    }
}

/// Somebody has the lock of a directory: who.
fn held(dir: &Path) -> Error {
    let only_reads = File::open(dir).is_ok_and(|whole| whole.try_lock_shared().is_ok());
    let pid = std::fs::read_to_string(dir.join("LOCK")).unwrap_or_default();
    Error::Locked {
        dir: dir.to_owned(),
        holder: match only_reads {
            true => "a process that only reads".to_owned(),
            false => format!("process {}", pid.trim()),
        },
    }
}

/// Writes our number over the one before: a full disk takes what needs no new block.
fn note_holder(file: &mut File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// Whether an error says that a medium or a directory takes no writes.
pub(super) fn is_read_only(err: &(dyn std::error::Error + 'static)) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let err = err.downcast_ref::<io::Error>();
    err.is_some_and(|err| matches!(err.kind(), PermissionDenied | ReadOnlyFilesystem))
}

/// An error about a path.
pub(super) fn io_error(
    action: &'static str,
    path: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Io {
        action,
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Bytes that the files of a directory, and of those in it, take on disk. The files
/// of redb are sparse, so their length says nothing.
pub(super) fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        let inside = if meta.is_dir() {
            disk_bytes(&entry.path())
        } else {
            0
        };
        Some(meta.blocks() * 512 + inside)
    });
    bytes.sum()
}

/// Checks or writes the `FORMAT` file.
///
/// # Errors
/// When a newer version wrote the directory, or it is not one of ours.
pub(super) fn check_format(dir: &Path) -> Result<(), Error> {
    let path = dir.join("FORMAT");
    let write = || write_format(&path).map_err(|err| io_error("write", &path, err));
    match read_format(dir) {
        Ok(Format::Current) => Ok(()),
        // Former versions would overlook what they do not know: the first one
        // rewritten days, the second one the appended log.
        Ok(Format::Former | Format::Missing) => write(),
        Err(err) => Err(err),
    }
}

/// What the `FORMAT` file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// This version's.
    Current,
    /// A former version's.
    Former,
    /// There is none.
    Missing,
}

/// Reads the `FORMAT` file.
///
/// # Errors
/// As [`check_format`].
pub(super) fn read_format(dir: &Path) -> Result<Format, Error> {
    if dir.join(RESTORE_MARK).exists() {
        let what = "a restore into it was cut short: restore again, the same directory will do";
        return Err(io_error("open", dir, what));
    }
    let path = dir.join("FORMAT");
    let mut found = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(FOUND_MAX).read_to_end(&mut found));
    match read {
        Ok(_) if found == FORMAT.as_bytes() => Ok(Format::Current),
        Ok(_) if FORMER.iter().any(|former| found == former.as_bytes()) => Ok(Format::Former),
        Ok(_) => {
            let (found, wanted) = (found.trim_ascii_end().escape_ascii(), FORMAT.trim());
            let what = format!("the data directory has format \"{found}\", expected \"{wanted}\"");
            Err(io_error("open", &path, what))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Format::Missing),
        Err(err) => Err(io_error("read", &path, err)),
    }
}

/// So much of another `FORMAT` is shown.
const FOUND_MAX: u64 = 40;

/// Stands in a directory while a backup is restored into it.
pub(super) const RESTORE_MARK: &str = "RESTORE";

const FORMAT: &str = "pulse data version 3\n";
const FORMER: [&str; 2] = ["pulse data version 2\n", "pulse data version 1\n"];

fn write_format(path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(FORMAT.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_dir(path.parent().unwrap_or(Path::new("")))
}

/// An error with its causes in one line.
pub(super) fn causes(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_a_former_version_becomes_one_of_this() {
        for former in FORMER {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("FORMAT");
            std::fs::write(&path, former).unwrap();
            check_format(dir.path()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), FORMAT);
        }
    }

    #[test]
    fn whole_blocks_are_counted() {
        let check = |offset: u64, len: usize, blocks: u64| {
            assert_eq!(block_bytes(offset, len), blocks * BLOCK_BYTES);
        };
        check(0, 1, 1);
        check(4_095, 2, 2);
        check(512, 3_584, 1);
        check(8_192, 8_192, 2);
        check(100, 0, 1);
    }

    #[test]
    fn a_second_holder_is_told_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path()).unwrap();
        let err = DirLock::take(dir.path()).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(err.contains(&format!("in use by process {pid}")), "{err}");
        drop(lock);
        DirLock::take(dir.path()).unwrap();
    }

    #[test]
    fn another_format_is_refused_with_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        check_format(dir.path()).unwrap();
        check_format(dir.path()).unwrap();
        std::fs::write(dir.path().join("FORMAT"), "pulse data version 4\n").unwrap();
        let err = check_format(dir.path()).unwrap_err();
        let cause = std::error::Error::source(&err).unwrap().to_string();
        let wanted = "has format \"pulse data version 4\", expected \"pulse data version 3\"";
        assert!(cause.contains(wanted), "{cause}");
        // Bytes that are no text, and too many of them.
        std::fs::write(dir.path().join("FORMAT"), [0xff; 10_000]).unwrap();
        let err = causes(&check_format(dir.path()).unwrap_err());
        assert!(
            err.contains("FORMAT: the data directory has format \"\\xff"),
            "{err}"
        );
        assert!(err.len() < 400, "{err}");
    }

    #[test]
    fn who_only_reads_writes_nothing_and_is_alone_with_readers() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let readers = [(); 2].map(|()| DirLock::take_to_read(dir).unwrap());
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
        let refused = || DirLock::take(dir).unwrap_err().to_string();
        assert!(
            refused().contains("in use by a process that only reads"),
            "{}",
            refused()
        );
        drop(readers);
        let lock = DirLock::take(dir).unwrap();
        let err = DirLock::take_to_read(dir).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(err.contains(&format!("in use by process {pid}")), "{err}");
        drop(lock);
        // Where there is a LOCK, too.
        let before = std::fs::metadata(dir.join("LOCK"))
            .unwrap()
            .modified()
            .unwrap();
        let reader = DirLock::take_to_read(dir).unwrap();
        assert!(refused().contains("in use by a process that only reads"));
        drop(reader);
        let after = std::fs::metadata(dir.join("LOCK"))
            .unwrap()
            .modified()
            .unwrap();
        assert_eq!(before, after);
    }
}
