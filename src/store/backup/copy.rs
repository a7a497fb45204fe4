//! The way out: a data directory into a backup.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use redb::ReadableDatabase as _;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::super::disk::causes;
use super::archive::{Base, Contents, File, Head, Listed, PIECE, Writer};
use super::hot;
use crate::model::Timestamp;
use crate::store::appended::{self, Appended};
use crate::store::days::finished::{self, is_mark};
use crate::store::days::{DayFile, Days, Pin, store_error};
use crate::store::disk::{self, io_error};
use crate::store::hot::Hot;
use crate::store::sealed::Kind;
use crate::store::tables::HOT_FILE;
use crate::store::{DirLock, Error};

/// Files of the process, not of the data.
const LEFT_OUT: [&str; 5] = ["LOCK", "CLEAN", "CONTROL", "ballast", HOT_FILE];

/// What a backup may leave out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The backup before this one.
    pub base: Option<Base>,
    /// What that one has, here or in those before it.
    pub files: Vec<Listed>,
}

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// Everything up to this transaction is in the backup.
    pub commit_seq: u64,
    /// Its length.
    pub bytes: u64,
    /// Files of the data directory that are in it.
    pub files: usize,
    /// Files that the base has.
    pub left_out: usize,
}

/// An opened data directory.
pub(in crate::store) struct Source<'a> {
    pub(in crate::store) dir: &'a Path,
    pub(in crate::store) hot: &'a Hot,
    pub(in crate::store) log: &'a Appended,
    pub(in crate::store) days: &'a Days,
}

/// Both logs, catalog and state at one time.
pub(super) struct Frozen {
    pub(super) read: redb::ReadTransaction,
    pub(super) log: appended::Held,
    /// The first commit that is not sealed.
    pub(super) first: u64,
    /// The last commit.
    pub(super) last: u64,
    /// The names of sealed files that are missing.
    pub(super) missing: Vec<String>,
}

impl Source<'_> {
    /// Both logs, catalog and state at one time: what was acknowledged before is in it.
    ///
    /// Each log holds all commits before the last one of the other as seen earlier. So
    /// the appended log is looked at before and after redb's snapshot: nothing is missing
    /// up to the later of its first look and the snapshot. The first look also keeps the
    /// files that the snapshot does not call sealed yet.
    pub(super) fn freeze(&self) -> Result<Frozen, Error> {
        let before = self.log.hold();
        let db = self.hot.database()?;
        let missing = finished::missing(self.dir, &db)?;
        let read = db.begin_read();
        let fail = |err| io_error("read", self.hot.path(), err);
        let read = read.map_err(|err| fail(redb::Error::from(err)))?;
        let log = self.log.hold();
        let (sealed, last) = hot::commits(&read).map_err(fail)?;
        // What left or came meanwhile is not missing both times.
        let still = finished::missing(self.dir, &db)?;
        let both = still.iter().filter(|file| missing.contains(file));
        Ok(Frozen {
            read,
            log,
            first: sealed + 1,
            last: last.max(before.last),
            missing: both.map(finished::Missing::name).collect(),
        })
    }
}

/// Writes a backup of a directory that no process uses. Changes nothing in it.
/// Blocking.
///
/// # Errors
/// When another process has the directory, a file cannot be read, or `out` fails.
pub fn write_offline(
    dir: &Path,
    plan: &Plan,
    now: Timestamp,
    out: impl Write,
) -> Result<Done, Error> {
    let _lock = DirLock::take_to_read(dir)?;
    let files = disk::frozen_files();
    let days = Days::open(dir, files.clone(), PIECE)?;
    let (hot, meta) = Hot::open_existing(dir, files.clone(), hot::CACHE_BYTES)?;
    let log = Appended::open(dir, files, meta, 0, false)?;
    let source = Source {
        dir,
        hot: &hot,
        log: &log,
        days: &days,
    };
    write(&source, plan, now, out)
}

/// Writes a backup. What goes wrong is also told to whoever reads it.
///
/// # Errors
/// When a file cannot be read, or `out` fails.
pub(in crate::store) fn write(
    source: &Source<'_>,
    plan: &Plan,
    now: Timestamp,
    out: impl Write,
) -> Result<Done, Error> {
    let head = Head {
        id: new_id(source.dir, now),
        created_at: now.to_rfc3339(),
        base: plan.base.clone(),
    };
    let mut copy = Copy::new(out, &head, plan).map_err(pipe)?;
    match copy.all(source) {
        Ok(commit_seq) => copy.finish(commit_seq).map_err(pipe),
        Err(err) => {
            // The reader may be gone; the error is told to our caller anyway.
            drop(copy.writer.give_up(&causes(&err)));
            Err(err)
        }
    }
}

/// A name that no other backup has.
pub(super) fn new_id(dir: &Path, now: Timestamp) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hash = Xxh3::new();
    hash.update(dir.as_os_str().as_encoded_bytes());
    hash.update(&now.as_ms().to_le_bytes());
    hash.update(&std::process::id().to_le_bytes());
    hash.update(&COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    format!("{:016x}", hash.digest())
}

fn pipe(err: io::Error) -> Error {
    io_error("write", Path::new("backup"), err)
}

/// A backup on its way.
pub(super) struct Copy<'p, W> {
    writer: Writer<W>,
    base: BTreeMap<&'p str, &'p Listed>,
    files: Vec<Listed>,
    piece: Vec<u8>,
}

impl<'p, W: Write> Copy<'p, W> {
    pub(super) fn new(out: W, head: &Head, plan: &'p Plan) -> io::Result<Copy<'p, W>> {
        Ok(Copy {
            writer: Writer::new(out, head)?,
            base: plan.files.iter().map(|file| (&*file.name, file)).collect(),
            files: Vec::new(),
            piece: vec![0; PIECE],
        })
    }

    fn all(&mut self, source: &Source<'_>) -> Result<u64, Error> {
        let pin = source.days.pin();
        self.files(source)?;
        self.last(source, Some(pin))
    }

    /// Everything but `hot.redb`.
    pub(super) fn files(&mut self, source: &Source<'_>) -> Result<(), Error> {
        for day in source.days.all_kinds() {
            self.sealed(source.days, &day)?;
        }
        self.others(source.dir)
    }

    /// `hot.redb`, which has what the files do not have yet; gives the last commit.
    pub(super) fn last(&mut self, source: &Source<'_>, pin: Option<Pin>) -> Result<u64, Error> {
        let frozen = source.freeze()?;
        drop(pin);
        self.hot(source.hot.path(), &frozen)
    }

    pub(super) fn finish(self, commit_seq: u64) -> io::Result<Done> {
        let files = self.files.iter().filter(|file| file.here).count();
        let left_out = self.files.len() - files;
        let contents = Contents {
            commit_seq,
            files: self.files,
        };
        Ok(Done {
            commit_seq,
            bytes: self.writer.finish(&contents)?,
            files,
            left_out,
        })
    }

    /// A sealed file. One that went away was shed for want of room.
    fn sealed(&mut self, days: &Days, day: &DayFile) -> Result<(), Error> {
        let copied = days.with_file(day, |file| {
            file.while_still(|| {
                let identity = file.identity().map_err(store_error)?;
                self.file(&day.path, identity)
            })
        });
        match copied {
            Ok(done) => done,
            Err(_) if day.is_gone() => Ok(()),
            Err(err) => Err(store_error(err)),
        }
    }

    /// A file byte by byte, unless the base has it.
    fn file(&mut self, path: &Path, identity: u64) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let known = self.base.get(&*name);
        if let Some(known) = known.filter(|known| known.identity == identity) {
            self.files.push(Listed {
                here: false,
                ..(*known).clone()
            });
            return Ok(());
        }
        let fail = |err| io_error("copy", path, err);
        let mut input = fs::File::open(path).map_err(fail)?;
        self.begin(&name, identity).map_err(fail)?;
        loop {
            let n = read_piece(&mut input, &mut self.piece).map_err(fail)?;
            if n == 0 {
                break;
            }
            self.writer.bytes(&self.piece[..n]).map_err(fail)?;
        }
        self.end(name, identity).map_err(fail)
    }

    fn begin(&mut self, name: &str, identity: u64) -> io::Result<()> {
        self.writer.begin_file(&File {
            name: name.to_owned(),
            identity,
        })
    }

    fn end(&mut self, name: String, identity: u64) -> io::Result<()> {
        let hash = self.writer.end_file()?;
        self.files.push(Listed {
            name,
            identity,
            hash,
            here: true,
        });
        Ok(())
    }

    /// Whatever else is in the directory.
    fn others(&mut self, dir: &Path) -> Result<(), Error> {
        for path in other_files(dir)? {
            let identity = content_hash(&path).map_err(|err| io_error("read", &path, err))?;
            self.file(&path, identity)?;
        }
        Ok(())
    }

    /// The rows of `hot.redb`, and the appended records as if they stood in it; gives
    /// the last commit.
    fn hot(&mut self, path: &Path, frozen: &Frozen) -> Result<u64, Error> {
        let fail = |err: redb::Error| io_error("read", path, err);
        let commit_seq = frozen.last;
        let piped = |err: io::Error| redb::Error::from(err);
        self.begin(HOT_FILE, commit_seq)
            .map_err(|err| fail(piped(err)))?;
        hot::rows(&frozen.read, &frozen.missing, |rows| {
            self.writer.rows(rows).map_err(piped)
        })
        .map_err(fail)?;
        hot::appended(frozen, |rows| self.writer.rows(rows).map_err(pipe))?;
        self.end(HOT_FILE.to_owned(), commit_seq)
            .map_err(|err| fail(piped(err)))?;
        Ok(commit_seq)
    }
}

/// The files of a data directory that are neither sealed nor the process's own.
/// These are small, and are written under another name first.
pub(super) fn other_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |err| io_error("read", dir, err);
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_file = entry.file_type().map_err(fail)?.is_file();
        let unfinished = name.ends_with(".new") || name.ends_with(".tmp");
        let is_own = LEFT_OUT.contains(&&*name)
            || Kind::parse(&name).is_some()
            || appended::is_name(&name)
            || is_mark(&name);
        if is_file && !unfinished && !is_own {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// As many bytes as there are, up to a whole piece.
fn read_piece(input: &mut fs::File, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match input.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}

fn content_hash(path: &Path) -> io::Result<u64> {
    let mut input = fs::File::open(path)?;
    let (mut hash, mut piece) = (Xxh3::new(), vec![0; PIECE]);
    loop {
        match read_piece(&mut input, &mut piece)? {
            0 => return Ok(hash.digest()),
            n => hash.update(&piece[..n]),
        }
    }
}
